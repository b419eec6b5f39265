/* grouped.c — each token takes the best k/M experts of every one of M groups, so groups (devices) share work equally.
 *
 * Paper: Pangu Pro MoE: Mixture of Grouped Experts, 2025 (card: routing.md 8). Groups are the spec's `groups`, equal
 * and contiguous; weights are the probabilities over all experts, not renormalised in the paper. One group is top-k; a
 * k of all experts is a dense mixture. A live plan that masks experts leaves each group min(k/M, its kept). */
#include "moe/selection/pick.h"

static coe_status choose(const struct selection_call *c)
{
    const struct router_spec *r = &c->spec->router;
    const int32_t n = c->out->n_experts, size = n / r->n_group, each = r->top_k / r->n_group;
    int32_t best[MAX_TOP_K];
    for (int32_t t = 0; t < c->out->n_tokens; t++) {
        const float *s = c->s + (int64_t)t * n;
        int32_t have = 0;
        for (int32_t g = 0; g < r->n_group; g++) {
            const int32_t got = pick_best(s + g * size, size, each, best + have);
            for (int32_t i = 0; i < got; i++) best[have++] += g * size;
        }
        route_choose(c->out, t, best, have);
    }
    return COE_OK;
}

static coe_status check(const struct moe_spec *m, const char *where)
{
    const struct router_spec *r = &m->router;
    if (r->top_k % r->n_group)
        return coe_fail(COE_E_INPUT, "%s: grouped needs a top_k that its %d groups divide, not %d", where, r->n_group,
                        r->top_k);
    if (r->topk_group != r->n_group)
        return coe_fail(COE_E_INPUT, "%s: grouped uses every group; groups_kept %d of %d contradicts it", where,
                        r->topk_group, r->n_group);
    return COE_OK;
}

static const struct selection_part grouped = { .max_slots = pick_top_k_slots, .choose = choose, .check = check };
COE_PART(selection, grouped, .summary = "the best k/M experts of each of M groups: groups are loaded equally",
         .paper = "Pangu Pro MoE (MoGE), 2025", .card = "routing.md 8", .unit = "token", .impl = &grouped)
