/* rows.h — what expert kinds share. The rows of a range are those of the route that its experts own, off[first] …
 * off[first + n] - 1, by expert and then by token; a kind turns each into an output, and here outputs go to tokens and
 * gradients come back. */
#ifndef COE_EXPERTS_ROWS_H
#define COE_EXPERTS_ROWS_H

#include "moe/moe.h"

static inline int32_t range_row(const struct route *r, const struct expert_range *g) { return r->off[g->first]; }
static inline int32_t range_rows(const struct route *r, const struct expert_range *g)
{
    return r->off[g->first + g->n] - r->off[g->first];
}

/* call->y [T, d] (+)= Σ weight·row over the range's rows [n, d], a token's in ascending row = ascending expert id, one
 * fma each; so that all ranges in order make one chain. */
void experts_combine(struct expert_call *call, const struct expert_range *g, const float *rows);
/* dx [T, d] += the range's rows da [n, d], a token's in ascending order */
void experts_add_dx(float *dx, const struct route *r, const struct expert_range *g, const float *da, int64_t d);

/* A kind made of recorded operations: `body` turns x [n, d], the inputs of the range's rows, into outputs [n, d]. This
 * gathers the one and weighs the other, both with their gradients, and leaves call->rows. */
struct expert_rows {
    struct expert_call *call;
    const struct expert_range *range;
    struct val *x;    /* [n, d] */
    struct groups of; /* the range's experts over x */
};
coe_status experts_composed(struct nn *c, struct expert_call *call, const struct expert_range *g,
                            struct val *(*body)(struct nn *c, const struct expert_rows *rows));
/* y [n, w[0].rows] = x·wᵀ, group by group; w [of.n], all of one shape. */
struct val *experts_linear(struct nn *c, struct val *x, struct groups of, const struct weight *const *w);

#endif
