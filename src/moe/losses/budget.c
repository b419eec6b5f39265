/* budget.c — the share of probability that goes to the widest experts is held at a target: L = (m - target)², m the
 * mean over all layers, chain iterations and tokens of Σ p_e over the experts of the largest width.
 *
 * Paper: Duo-LLM, 2024 (card: routing.md 18). One budget for the whole network, not for each layer: a token may spend
 * big experts late and small ones early. Layers whose experts are all of one width count with m = 1. */
#include "moe/losses/balance.h"

enum { TARGET };

/* f [E] = 1 for experts of the layer's largest width */
static void mark_widest(const struct moe_spec *m, double *f)
{
    struct expert_range r[MAX_RANGES];
    int32_t widest = 0;
    const int32_t n = moe_ranges(m, r);
    for (int32_t i = 0; i < n; i++) widest = COE_MAX(widest, r[i].ffn);
    for (int32_t i = 0; i < n; i++)
        for (int32_t e = r[i].first; e < r[i].first + r[i].n; e++) f[e] = r[i].ffn == widest;
}

static int64_t counted(const struct loss_call *c, const struct route_record *r)
{
    int64_t n = 0;
    for (int64_t t = 0; t < r->route.n_tokens; t++) n += token_counts(c, t);
    return n;
}

/* *sum += Σ_t Σ_big q, with gradient factor · of it when factor is not 0 */
static coe_status one(const struct loss_call *c, struct route_record *r, double factor, double *sum)
{
    const int32_t n = r->route.n_experts;
    const struct token_range all = { r, 0, r->route.n_tokens };
    if (factor != 0 && !loss_dz(c->c, r)) return COE_E_NOMEM; /* before the scratch below: dz outlives it */
    struct arena_mark mark = arena_save(c->c->arena);
    double *f = arena_push_zero(c->c->arena, (size_t)n * sizeof *f);
    double *q = arena_push_zero(c->c->arena, (size_t)n * sizeof *q);
    if (!f || !q) return COE_E_NOMEM;
    mark_widest(r->spec, f);
    coe_status s = COE_OK;
    if (factor != 0) s = balance_gradient(c, &all, f, factor);
    else balance_scores(c, &all, q);
    for (int32_t e = 0; e < n; e++) *sum += f[e] * q[e];
    arena_rewind(c->c->arena, mark);
    return s;
}

static coe_status apply(const struct loss_call *c, double *value)
{
    double sum = 0, none = 0;
    int64_t n = 0;
    for (int32_t i = 0; i < c->n_records; i++) {
        n += counted(c, c->records[i]);
        COE_TRY(one(c, c->records[i], 0, &sum));
    }
    if (!n) return COE_OK;
    const double gap = sum / (double)n - c->param[TARGET];
    *value += gap * gap;
    const double factor = c->coef * c->scale * 2 * gap / (double)n;
    for (int32_t i = 0; i < c->n_records && factor != 0; i++) COE_TRY(one(c, c->records[i], factor, &none));
    return COE_OK;
}

static const struct part_param params[] = {
    { "target", "share of probability of the widest experts", NULL, 0, 1, 0.5, false },
    { 0 },
};
static const struct loss_part budget = { .apply = apply };
COE_PART(loss, budget, .summary = "squared gap between the widest experts' share and a target",
         .paper = "Duo-LLM, 2024", .card = "routing.md 18", .unit = "block", .impl = &budget, .params = params)
