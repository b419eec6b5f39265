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

/* The first range finds y zero, later ones what is there. */
void experts_begin(struct expert_call *call);
/* call->y [T, d] (+)= Σ weight·row over the range's rows [n, d], a token's in ascending row = ascending expert id, one
 * fma each; so that all ranges in order make one chain. */
void experts_combine(struct expert_call *call, const struct expert_range *g, const float *rows);
/* dx [T, d] += the range's rows da [n, d], a token's in ascending order */
void experts_add_dx(float *dx, const struct route *r, const struct expert_range *g, const float *da, int64_t d);

/* A kind made of recorded operations: `body` turns the range's rows into outputs [n, d]. This weighs them, with their
 * gradient, and leaves call->rows. */
struct expert_rows {
    struct expert_call *call;
    const struct expert_range *range;
    int32_t n;        /* rows */
    struct groups of; /* the range's experts over them, from row 0 */
};
coe_status experts_composed(struct nn *c, struct expert_call *call, const struct expert_range *g,
                            struct val *(*body)(struct nn *c, const struct expert_rows *rows));
/* x [n, d]: what the rows' tokens bring. */
struct val *experts_inputs(struct nn *c, const struct expert_rows *rows);
/* y [n] = rows of x; `row` stays until the backward pass. */
struct val *experts_pick(struct nn *c, struct val *x, const int32_t *row, int64_t n);
/* y [n, w[0].rows] = x·wᵀ, group by group; w [of.n], all of one shape. */
struct val *experts_linear(struct nn *c, struct val *x, struct groups of, const struct weight *const *w);
/* n matrices of equally many rows, one behind the other in `all`; of a vector, n vectors. NULL also when `all` carries
 * a low-rank adapter, which has no such pieces (COE_E_USAGE). */
const struct weight *const *experts_blocks(struct nn *c, const struct weight *all, int32_t n);
/* x += b in place, group by group; x must not be kept by what made it (a product keeps its input only). */
struct val *experts_add_bias(struct nn *c, struct val *x, struct groups of, const struct weight *const *b);
/* Leaves u [n, width], what the last matrices of the experts multiply, for the observer if there is one. */
void experts_show_hidden(const struct expert_rows *rows, const struct val *u);
/* Row i of the kind's table for each expert of the range, and the one of all. */
static inline const struct weight *const *experts_weights(const struct expert_rows *rows, int32_t i)
{
    return rows->call->w->expert_part[rows->range->index][i] + rows->range->first;
}
static inline const struct weight *experts_weight(const struct expert_rows *rows, int32_t i)
{
    return rows->call->w->kind_part[rows->range->index][i];
}

#endif
