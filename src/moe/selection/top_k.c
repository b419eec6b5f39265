/* top_k.c — each token takes the k experts of highest score; equal scores: the lower id.
 *
 * Paper: Outrageously Large Neural Networks, 2017 (card: routing.md, conventions). Chosen ids are handed over in
 * descending score. NaN never compares higher, so a token whose scores are all NaN takes the first k experts. */
#include "moe/moe.h"

static int64_t max_slots(const struct router_spec *r, int32_t n_tokens, int32_t n_experts)
{
    return (int64_t)n_tokens * COE_MIN(r->top_k, n_experts);
}

/* best[0..k) of s[0..n): insertion into a short sorted list, ascending ids so that a tie keeps the earlier one in
 * front */
static void best_of(const float *s, int32_t n, int32_t k, int32_t *best)
{
    int32_t have = 0;
    for (int32_t e = 0; e < n; e++) {
        int32_t at = have;
        while (at > 0 && s[e] > s[best[at - 1]]) at--;
        if (at == k) continue;
        if (have < k) have++;
        for (int32_t i = have - 1; i > at; i--) best[i] = best[i - 1];
        best[at] = e;
    }
}

static void choose(const struct router_spec *r, int32_t k, const float *s, struct route *out)
{
    (void)r;
    int32_t best[1024];
    assert(k <= (int32_t)COE_COUNT(best));
    for (int32_t t = 0; t < out->n_tokens; t++) {
        best_of(s + (int64_t)t * out->n_experts, out->n_experts, k, best);
        route_choose(out, t, best, k);
    }
}

static const struct selection_part top_k = { .max_slots = max_slots, .choose = choose };
COE_PART(selection, top_k, .summary = "the k experts of highest score",
         .paper = "Sparsely-Gated Mixture-of-Experts, 2017", .card = "routing.md conventions", .unit = "token",
         .impl = &top_k)
