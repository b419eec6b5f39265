/* route.h — the route: which tokens go to which expert with which weight, for one layer and chain iteration of a batch.
 *
 * The one value that routers produce, selections shape, plans edit, executors run, traces record. Two views of the same
 * slots (a slot = one token visiting one expert):
 *
 *   by token   tok_off [T+1]          slots tok_off[t] … tok_off[t+1]-1 belong to token t, in order of descending
 *   weight
 *              expert  [n_slots]      (equal weights: lower id first)
 *              weight  [n_slots]      final: exactly what multiplies the expert's output
 *              score   [n_slots]      activation of the router logit (softmax probability, sigmoid) before
 *              renormalising
 *   by expert  off     [E+1]          rows off[e] … off[e+1]-1 belong to expert e, tokens ascending
 *   (CSR)      row_token [n_slots]    token of a row
 *              row_slot  [n_slots]    its slot;  slot_row [n_slots] the inverse
 *
 *       token 0 → experts 3, 1        tok_off = 0 2 4      expert   = 3 1 | 1 0
 *       token 1 → experts 1, 0        off = 0 1 3 3 4      row_slot = 3 | 1 2 | | 0    row_token = 1 | 0 1 | | 0
 *
 * Selection appends slots with route_choose(); route_index() then builds the expert view (counting sort, O(slots +
 * E)). */
#ifndef COE_ROUTE_H
#define COE_ROUTE_H

#include "base/mem.h"

struct route {
    int32_t n_tokens, n_experts, n_slots, cap_slots;
    int32_t *tok_off, *expert;
    float *weight, *score;
    int32_t *off, *row_token, *row_slot, *slot_row;
    bool weighed;       /* the selection wrote the weights: constants under differentiation */
    float *weight_grad; /* [n_slots], written by the executor's backward pass; NULL in inference */
};

/* Room for cap_slots slots, no tokens yet; everything lives in the arena. */
coe_status route_make(struct route *r, struct arena *a, int32_t n_tokens, int32_t n_experts, int64_t cap_slots,
                      bool gradients);
/* The next token's slots (tokens are closed in order 0, 1, …); weights are filled in later. n may be 0. */
static inline void route_choose(struct route *r, int32_t token, const int32_t *experts, int32_t n)
{
    assert(r->n_slots + n <= r->cap_slots);
    for (int32_t i = 0; i < n; i++) r->expert[r->n_slots++] = experts[i];
    r->tok_off[token + 1] = r->n_slots;
}
/* Sorts each token's slots by descending weight and builds the expert view. */
void route_index(struct route *r);
/* Tokens of expert e */
static inline int32_t route_count(const struct route *r, int32_t e) { return r->off[e + 1] - r->off[e]; }

#endif
