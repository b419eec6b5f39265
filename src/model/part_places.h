/* part_places.h — the places, names, first values and links of weights that routers and kinds of experts declare in
 * tables (struct part_weight in moe.h). */
#ifndef COE_MODEL_PART_PLACES_H
#define COE_MODEL_PART_PLACES_H

#include "base/rng.h"
#include "model/bind.h"

typedef coe_status each_fn(void *user, struct place p, int64_t rows, int64_t cols);

/* Calls fn for the weights of all layers together, and for those of one layer: router by iteration, then the kinds of
 * experts, then expert by expert. */
coe_status each_part_of_model(const struct spec *s, each_fn *fn, void *user);
coe_status each_part_of_layer(const struct spec *s, int32_t layer, each_fn *fn, void *user);
/* COE_E_INPUT when layers that share a weight, or pass a state on, do not fit together. */
coe_status part_places_check(const struct spec *s, const char *where);
/* "….mlp.router.NAME", with independent gates "….mlp.router.2.NAME"; "….mlp.KIND.NAME", of a second range of the kind
 * "….mlp.KIND.1.NAME"; "….mlp.experts.3.NAME"; of all layers "model.router.NAME", "model.KIND.NAME". */
bool part_tensor_name(const struct family *f, const struct spec *s, struct place p, const struct part_weight *w,
                      char *out, size_t cap);
/* "….mlp.gate.weight" of the family gives "….mlp.NAME"; NAME may hold {e} and {t}. */
bool name_beside_router(const struct family *f, struct place p, const char *name, char *out, size_t cap);
/* First values of x [rows, cols]; param: settings of the part; std: the model's. */
void part_init(float *x, const struct part_weight *w, const double *param, int64_t rows, int64_t cols, double std,
               struct rng *r);
/* The settings of the part that declares a place. */
const double *place_param(const struct spec *s, struct place p);
/* Tables by expert for the ranges of a layer; then each parameter to where its part looks for it. */
coe_status part_tables(struct coe_model *m, const struct moe_spec *s, struct moe_weights *w);
void part_link(struct coe_model *m, const struct param *p);

#endif
