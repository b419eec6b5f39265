/* prices.c — balancing without a loss: each expert has a price that is added to its score for choosing only, and that
 * follows its load after every step.
 *
 * Papers: Loss-Free Balancing, 2024 (DeepSeek-V3); A Theoretical Framework for Auxiliary-Loss-Free Load Balancing
 * (ALF-LB), 2025 (card: routing.md 12b). Seen as a programme, tokens choose the k experts of largest s + p, every
 * expert shall have the load L = k T/E, and the prices p descend the dual D(p) = Σ_t Σ_{top k} (s_te + p_e) - L Σ_e
 * p_e,      dD/dp_e = A_e - L,  A the loads:   p_e += u_n (L - A_e) sign          p_e += u sign(L - A_e) (DeepSeek-V3:
 * u = 0.001 on sigmoid scores) proportional  p_e += u (L - A_e) / L        the sum of p stays what it is The step u may
 * shrink with the number n of the step: u, u/n, u/sqrt n. */
#include <math.h>

#include "moe/selection/pick.h"

const char *const bias_rule_name[2] = { "sign", "proportional" };
const char *const bias_decay_name[3] = { "none", "inverse", "inverse_sqrt" };

void moe_bias_update(float *bias, const uint64_t *counts, int32_t n_experts, double step)
{
    double mean = 0;
    for (int32_t e = 0; e < n_experts; e++) mean += (double)counts[e];
    mean /= n_experts;
    for (int32_t e = 0; e < n_experts; e++) {
        double gap = mean - (double)counts[e];
        bias[e] += (float)(gap > 0 ? step : gap < 0 ? -step : 0.0);
    }
}

void moe_bias_update_proportional(float *bias, const uint64_t *counts, int32_t n_experts, double step)
{
    double mean = 0;
    for (int32_t e = 0; e < n_experts; e++) mean += (double)counts[e];
    mean /= n_experts;
    for (int32_t e = 0; e < n_experts && mean > 0; e++) bias[e] += (float)(step * (mean - (double)counts[e]) / mean);
}

void moe_price_update(float *bias, const uint64_t *counts, const struct moe_spec *m, int64_t step)
{
    const double n = (double)COE_MAX(step, 1);
    const double u = m->bias_decay == BIAS_DECAY_INVERSE        ? m->bias_update / n
                     : m->bias_decay == BIAS_DECAY_INVERSE_SQRT ? m->bias_update / sqrt(n)
                                                                : m->bias_update;
    if (m->bias_rule == BIAS_SIGN)
        moe_bias_update(bias, counts, m->n_experts, u);
    else
        moe_bias_update_proportional(bias, counts, m->n_experts, u);
}

/* best [k]: the experts of largest score + price; answers the sum of theirs */
static double dual_of(const float *score, const float *price, int32_t n, int32_t k, float *sum, int32_t *best)
{
    double value = 0;
    for (int32_t e = 0; e < n; e++) sum[e] = score[e] + price[e];
    const int32_t got = pick_best(sum, n, k, best);
    for (int32_t i = 0; i < got; i++) value += (double)sum[best[i]];
    return value;
}

static bool same_set(const int32_t *a, const int32_t *b, int32_t k)
{
    int32_t common = 0;
    for (int32_t i = 0; i < k; i++)
        for (int32_t j = 0; j < k; j++) common += a[i] == b[j];
    return common == k;
}

coe_status moe_price_report(struct arena *a, const float *score, int64_t n_tokens, int32_t n_experts, int32_t k,
                            const float *before, const float *after, struct price_report *out)
{
    const struct arena_mark mark = arena_save(a);
    float *sum = arena_push(a, (size_t)n_experts * sizeof *sum);
    int32_t *old = arena_push(a, (size_t)k * sizeof *old), *new = arena_push(a, (size_t)k * sizeof *new);
    if (!sum || !old || !new) return COE_E_NOMEM;
    *out = (struct price_report){ 0 };
    for (int64_t t = 0; t < n_tokens; t++) {
        const float *s = score + t * n_experts;
        dual_of(s, before, n_experts, k, sum, old);
        out->lagrangian += dual_of(s, after, n_experts, k, sum, new);
        out->switches += !same_set(old, new, k);
    }
    for (int32_t e = 0; e < n_experts; e++)
        out->lagrangian -= (double)k * (double)n_tokens / n_experts * (double)after[e];
    arena_rewind(a, mark);
    return COE_OK;
}

COE_PART(controller, bias_update, .summary = "prices of experts follow their load: balance without a loss",
         .paper = "ALF-LB, 2025", .card = "routing.md 12b", .unit = "step")
