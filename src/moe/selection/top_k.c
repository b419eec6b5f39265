/* top_k.c — each token takes the k experts of highest score; equal scores: the lower id.
 *
 * Paper: Outrageously Large Neural Networks, 2017 (card: routing.md, conventions). NaN never compares higher, so a
 * token whose scores are all NaN takes the first k experts. */
#include "moe/selection/pick.h"

static coe_status choose(const struct selection_call *c)
{
    int32_t best[MAX_TOP_K];
    const int32_t n = c->out->n_experts;
    for (int32_t t = 0; t < c->out->n_tokens; t++)
        route_choose(c->out, t, best, pick_best(c->s + (int64_t)t * n, n, c->k, best));
    return COE_OK;
}

static const struct selection_part top_k = { .max_slots = pick_top_k_slots, .choose = choose };
COE_PART(selection, top_k, .summary = "the k experts of highest score",
         .paper = "Sparsely-Gated Mixture-of-Experts, 2017", .card = "routing.md conventions", .unit = "token",
         .impl = &top_k)
