/* heterogeneous.c — load balancing between experts that compute and experts that do not: L = Σ η_e f_e P_e, f_e the
 * share of tokens that chose e, η_e = tau for experts of idle kinds (copy, null, const), else 1. Summed over layers and
 * chain iterations.
 *
 * Paper: MoE++, 2024 (card: routing.md 5). tau < 1 makes it cheap to choose what computes nothing: at balance
 * experts of the two sorts are loaded tau : 1. No factor E, as in the paper's formula: without such experts it is
 * `switch` / E. Coefficient 0.01. */
#include "moe/losses/balance.h"

static bool load(const struct loss_call *c, const struct token_range *all, double *f)
{
    const int32_t n = all->r->route.n_experts;
    uint8_t *idle = arena_push(c->c->arena, (size_t)n);
    if (!idle) return false;
    moe_mark_idle(all->r->spec, idle);
    const int64_t tokens = balance_counts(c, all, f);
    for (int32_t e = 0; e < n && tokens; e++) f[e] *= (idle[e] ? c->param[0] : 1) / (double)tokens;
    return true;
}

static coe_status apply(const struct loss_call *c, double *value) { return balance_records(c, load, value); }

static const struct part_param params[] = {
    { "tau", "weight of experts that compute nothing", NULL, 0, 1e3, 0.75, false },
    { 0 },
};
static const struct loss_part heterogeneous = { .apply = apply };
COE_PART(loss, heterogeneous, .summary = "sum of eta f P, eta = tau for experts that compute nothing",
         .paper = "MoE++, 2024", .card = "routing.md 5", .unit = "block", .impl = &heterogeneous, .params = params)
