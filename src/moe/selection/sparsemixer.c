/* sparsemixer.c — Phi-3.5-MoE's rule at inference: two experts, each weighted among its near rivals only.
 *
 * Paper: GRIN: GRadient-INformed MoE, 2024 (card: routing.md F6). With z the router logits and m their maximum, at
 * expert 1: w1 = 1 / Σ exp(z_i - m)   over the i with (m - z_i) / max(|z_i|, m) <= 2 jitter Then the same for expert 2
 * among the others. The weights do not sum to one; each is often exactly one. */
#include <math.h>

#include "moe/moe.h"

static int64_t max_slots(const struct router_spec *r, int32_t n_tokens, int32_t n_experts)
{
    return (int64_t)n_tokens * COE_MIN(r->top_k, n_experts);
}

/* The best expert that is not among chosen[0..n) */
static int32_t best(const float *z, int32_t n_experts, const int32_t *chosen, int32_t n)
{
    int32_t at = -1;
    for (int32_t e = 0; e < n_experts; e++) {
        bool taken = false;
        for (int32_t i = 0; i < n; i++) taken = taken || chosen[i] == e;
        if (!taken && (at < 0 || z[e] > z[at])) at = e;
    }
    return at;
}

static void choose(const struct router_spec *r, int32_t k, const float *s, struct route *out)
{
    (void)r;
    for (int32_t t = 0; t < out->n_tokens; t++) {
        int32_t chosen[1024], n = 0;
        for (; n < k; n++) chosen[n] = best(s + (int64_t)t * out->n_experts, out->n_experts, chosen, n);
        route_choose(out, t, chosen, n);
    }
}

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

static void weigh(const struct router_spec *r, const float *z, const float *p, struct route *out)
{
    for (int32_t t = 0; t < out->n_tokens; t++) {
        const int32_t from = out->tok_off[t];
        const int64_t row = (int64_t)t * out->n_experts;
        for (int32_t i = from; i < out->tok_off[t + 1]; i++)
            out->weight[i] = weight(r, z + row, p + row, out->n_experts, out->expert + from, i - from) * r->scale;
    }
}

static const struct selection_part sparsemixer = { .max_slots = max_slots, .choose = choose, .weigh = weigh };
COE_PART(selection, sparsemixer, .summary = "top experts, each weighted by a softmax over its near rivals",
         .paper = "GRIN: GRadient-INformed MoE, 2024", .card = "routing.md F6", .unit = "token", .impl = &sparsemixer)
