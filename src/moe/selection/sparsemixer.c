/* sparsemixer.c — Phi-3.5-MoE's rule at inference: two experts, each weighted among its near rivals only.
 *
 * Paper: GRIN: GRadient-INformed MoE, 2024 (card: routing.md F6). With z the router logits and m their maximum, at
 * expert 1: w1 = 1 / Σ exp(z_i - m)   over the i with (m - z_i) / max(|z_i|, m) <= 2 jitter Then the same for expert 2
 * among the others. The weights do not sum to one; each is often exactly one. No backward pass. */
#include <math.h>

#include "moe/selection/pick.h"

/* Weight of chosen[n] when chosen[0..n) are out of the race; p 0: masked */
static float weight(const struct router_spec *r, const float *z, const float *p, int32_t n_experts,
                    const int32_t *chosen, int32_t n)
{
    const float max = z[chosen[n]];
    float sum = 0;
    for (int32_t e = 0; e < n_experts; e++) {
        bool out = p[e] == 0 || (max - z[e]) / fmaxf(fabsf(z[e]), max) > 2 * r->jitter;
        for (int32_t i = 0; i < n; i++) out = out || chosen[i] == e;
        sum += out ? 0 : fm_exp(z[e] - max);
    }
    return 1 / sum;
}

static coe_status choose(const struct selection_call *c)
{
    const struct router_spec *r = &c->spec->router;
    struct route *out = c->out;
    int32_t best[MAX_TOP_K];
    if (nn_forward_only(c->c, "sparsemixer")) return COE_E_USAGE;
    for (int32_t t = 0; t < out->n_tokens; t++) {
        const int64_t row = (int64_t)t * out->n_experts;
        const int32_t from = out->n_slots, n = pick_best(c->s + row, out->n_experts, c->k, best);
        route_choose(out, t, best, n);
        for (int32_t i = 0; i < n; i++) {
            out->score[from + i] = c->p[row + best[i]];
            out->weight[from + i] = weight(r, c->z + row, c->p + row, out->n_experts, best, i) * r->scale;
        }
    }
    out->weighed = true;
    return COE_OK;
}

static const struct selection_part sparsemixer = { .max_slots = pick_top_k_slots, .choose = choose };
COE_PART(selection, sparsemixer, .summary = "top experts, each weighted by a softmax over its near rivals",
         .paper = "GRIN: GRadient-INformed MoE, 2024", .card = "routing.md F6", .unit = "token", .impl = &sparsemixer)
