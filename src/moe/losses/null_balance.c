/* null_balance.c — load balancing in which null experts share one load: L = E Σ f_e P_e with f over all E experts,
 * nulls included, and the load of every null expert replaced by their mean; perfect balance gives 1. Summed over
 * layers and chain iterations.
 *
 * Paper: AdaMoE, 2024 (card: routing.md 4). Without null experts this is `assign`. The router need not balance among
 * nulls; at balance a token has k (E - nulls) / E experts that do something. */
#include "moe/losses/balance.h"

static bool load(const struct loss_call *c, const struct token_range *all, double *f)
{
    const int32_t n = all->r->route.n_experts;
    uint8_t *null = arena_push(c->c->arena, (size_t)n);
    int32_t nulls = 0;
    double mean = 0;
    if (!null) return false;
    moe_mark_null(all->r->spec, null);
    const int64_t tokens = balance_counts(c, all, f);
    for (int32_t e = 0; e < n; e++) nulls += null[e];
    for (int32_t e = 0; e < n; e++) mean += null[e] ? f[e] / nulls : 0;
    for (int32_t e = 0; e < n && tokens; e++)
        f[e] = (null[e] ? mean : f[e]) * n / ((double)all->r->spec->router.top_k * (double)tokens);
    return true;
}

static coe_status apply(const struct loss_call *c, double *value) { return balance_records(c, load, value); }

static const struct loss_part null_balance = { .apply = apply };
COE_PART(loss, null_balance, .summary = "E sum f P in which null experts share one load", .paper = "AdaMoE, 2024",
         .card = "routing.md 4", .unit = "block", .impl = &null_balance)
