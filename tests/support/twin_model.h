/* twin_model.h — a whole model in FP64 (twin.h): the forward pass of src/model/forward.c, loss and auxiliary losses,
 * with leaves in the order of the model's parameters. */
#ifndef COE_TESTS_TWIN_MODEL_H
#define COE_TESTS_TWIN_MODEL_H

#include "support/twin.h"

#include "model/model.h"

struct twin_model {
    const struct coe_model *m;
    double **x;              /* [n_params] values; change them and evaluate again */
    struct tv **leaf;        /* [n_params] of the last evaluation */
    struct twin_list frozen; /* choices of the first evaluation; later ones keep them */
    const int32_t *ids, *target;
    const struct attn_batch *batch;
    const int32_t *task; /* of each token; NULL: 0 */
    double scale; /* of the cross-entropy; auxiliary losses have scale 1 */
};
/* Copies the parameters of a model in training. */
struct twin_model twin_model_of(const struct coe_model *m, const int32_t *ids, const int32_t *target,
                                const struct attn_batch *batch);
/* Objective = scale · Σ cross-entropy + Σ coef · auxiliary losses */
struct tv *twin_model_objective(struct twin_model *t);
/* The same as a number, memory released: for assert_derivative. user: struct twin_model */
double twin_model_value(void *user);

#endif
