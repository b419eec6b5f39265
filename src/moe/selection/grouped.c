/* grouped.c — mixture of grouped experts: the same number of experts from each of M equal groups.
 *
 * Paper: Pangu Pro MoE: Mixture of Grouped Experts, 2025 (card: routing.md 8). E experts in n_group consecutive groups;
 * every token takes the k / n_group best of each, so a device that holds a group gets the same work from every token.
 */
#include "moe/moe.h"

static int64_t max_slots(const struct router_spec *r, int32_t n_tokens, int32_t n_experts)
{
    return (int64_t)n_tokens * COE_MIN(r->top_k, n_experts);
}

/* The best expert of from … from+size-1 not among chosen[0..n); equal scores: the lower id */
static int32_t best(const float *s, int32_t from, int32_t size, const int32_t *chosen, int32_t n)
{
    int32_t at = -1;
    for (int32_t e = from; e < from + size; e++) {
        bool taken = false;
        for (int32_t i = 0; i < n; i++) taken = taken || chosen[i] == e;
        if (!taken && (at < 0 || s[e] > s[at])) at = e;
    }
    return at;
}

static void choose(const struct router_spec *r, int32_t k, const float *s, struct route *out)
{
    const int32_t size = out->n_experts / r->n_group, each = k / r->n_group;
    for (int32_t t = 0; t < out->n_tokens; t++) {
        int32_t chosen[1024], n = 0;
        for (int32_t g = 0; g < r->n_group; g++)
            for (int32_t i = 0; i < each; i++) {
                const int32_t e = best(s + (int64_t)t * out->n_experts, g * size, size, chosen, n);
                chosen[n++] = e;
            }
        route_choose(out, t, chosen, n);
    }
}

static const struct selection_part grouped = { .max_slots = max_slots, .choose = choose };
COE_PART(selection, grouped, .summary = "an equal number of experts from every group",
         .paper = "Pangu Pro MoE: Mixture of Grouped Experts, 2025", .card = "routing.md 8", .unit = "token",
         .impl = &grouped)
