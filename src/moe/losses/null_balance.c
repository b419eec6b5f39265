/* null_balance.c — load balancing in which null experts share one load: L = E Σ f_e P_e with f over all E experts,
 * nulls included, and the load of every null expert replaced by their mean; perfect balance gives 1. Summed over
 * layers and chain iterations.
 *
 * Paper: AdaMoE, 2024 (card: routing.md 4). Without null experts this is `assign`. The router need not balance among
 * nulls; at balance a token has k (E - nulls) / E experts that do something. */
#include "moe/losses/balance.h"

static coe_status one(const struct loss_call *c, struct route_record *r, double *value)
{
    const int32_t n = r->route.n_experts;
    const struct token_range all = { r, 0, r->route.n_tokens };
    if (c->scale != 0 && !loss_dz(c->c, r)) return COE_E_NOMEM; /* before the scratch below: dz outlives it */
    struct arena_mark mark = arena_save(c->c->arena);
    double *f = arena_push_zero(c->c->arena, (size_t)n * sizeof *f), mean = 0;
    uint8_t *null = arena_push(c->c->arena, (size_t)n);
    int32_t nulls = 0;
    if (!f || !null) return COE_E_NOMEM;
    moe_mark_null(r->spec, null);
    const int64_t tokens = balance_counts(c, &all, f);
    for (int32_t e = 0; e < n; e++) nulls += null[e];
    for (int32_t e = 0; e < n; e++) mean += null[e] ? f[e] / nulls : 0;
    for (int32_t e = 0; e < n && tokens; e++) f[e] = (null[e] ? mean : f[e]) / (double)tokens;
    coe_status s = balance_set(c, &all, 1, (double)n / r->spec->router.top_k, f, 1, value);
    arena_rewind(c->c->arena, mark);
    return s;
}

static coe_status apply(const struct loss_call *c, double *value)
{
    for (int32_t i = 0; i < c->n_records; i++) COE_TRY(one(c, c->records[i], value));
    return COE_OK;
}

static const struct loss_part null_balance = { .apply = apply };
COE_PART(loss, null_balance, .summary = "E sum f P in which null experts share one load", .paper = "AdaMoE, 2024",
         .card = "routing.md 4", .unit = "block", .impl = &null_balance)
