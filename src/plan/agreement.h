/* agreement.h — how far two models, or a model and its changed self, send the same tokens to the same experts. */
#ifndef COE_PLAN_AGREEMENT_H
#define COE_PLAN_AGREEMENT_H

#include "model/model.h"
#include "plan/measure.h"

/* One routing decision: a layer with experts and pass of its chain, or a layer's attention heads as experts. */
struct agreement_row {
    int32_t layer, iteration, n_experts;
    bool of_attention;
    int64_t tokens;
    int64_t moved; /* tokens whose expert of greatest weight is another; the first of equal ones counts */
    double shared; /* Σ over tokens of |A ∩ B| / |A ∪ B| of their experts; two empty sets share all */
};
struct agreement {
    VEC(struct agreement_row) rows; /* in order of execution */
};
/* Adds the tokens of a text that both models read alike, in windows of o->window that share no token; o->batch is not
 * used. Paper of `moved`, the fluctuation of routing: Graph of Tokens, 2025 (card: routing.md 15). COE_E_USAGE when the
 * models do not decide the same number of times among as many experts; COE_E_FAILED when interrupted. */
coe_status agreement_text(struct agreement *g, const struct coe_model *a, const struct coe_model *b,
                          const struct measured_text *t, const struct measure_opts *o);
/* Of all decisions: shares of tokens. */
double agreement_moved(const struct agreement *g);
double agreement_shared(const struct agreement *g);
void agreement_free(struct agreement *g);

#endif
