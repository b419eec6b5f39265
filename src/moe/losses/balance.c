/* balance.c — see balance.h. Gradient (card: routing.md 12a, systems.md D): with q = softmax(z),
 *     d(Σ_e f_e q_e)/dz_i = q_i (f_i - Σ_j f_j q_j);
 * with q = s / Σ s, s = σ(z):  q_i (1 - s_i) (f_i - Σ_j f_j q_j). */
#include <string.h>

#include "moe/losses/balance.h"

int64_t balance_counts(const struct loss_call *c, const struct token_range *t, double *counts)
{
    const struct route *r = t->r->wanted.tok_off ? &t->r->wanted : &t->r->route; /* a capacity hides no imbalance */
    int64_t tokens = 0;
    for (int64_t i = t->first; i < t->end; i++) {
        if (!token_counts(c, i)) continue;
        tokens++;
        for (int32_t s = r->tok_off[i]; s < r->tok_off[i + 1]; s++) counts[r->expert[s]] += 1;
    }
    return tokens;
}

/* 1/Σ s for normalised sigmoid scores, 1 for softmax */
static double score_norm(const struct route_record *r, const float *p, int32_t n)
{
    if (r->spec->router.score == SCORE_SOFTMAX) return 1;
    double sum = 0;
    for (int32_t e = 0; e < n; e++) sum += (double)p[e];
    return sum > 0 ? 1 / sum : 0;
}

void balance_scores(const struct loss_call *c, const struct token_range *t, double *sums)
{
    const int32_t n = t->r->route.n_experts;
    for (int64_t i = t->first; i < t->end; i++) {
        if (!token_counts(c, i)) continue;
        const float *p = t->r->p + i * n;
        const double norm = score_norm(t->r, p, n);
        for (int32_t e = 0; e < n; e++) sums[e] += (double)p[e] * norm;
    }
}

coe_status balance_gradient(const struct loss_call *c, const struct token_range *t, const double *f, double factor)
{
    const int32_t n = t->r->route.n_experts;
    const bool sigmoid = t->r->spec->router.score == SCORE_SIGMOID;
    float *dz = loss_dz(c->c, t->r);
    if (!dz) return COE_E_NOMEM;
#pragma omp parallel for schedule(static) if (t->end - t->first > 64)
    for (int64_t i = t->first; i < t->end; i++) {
        if (!token_counts(c, i)) continue;
        const float *p = t->r->p + i * n;
        const double norm = score_norm(t->r, p, n);
        double mean = 0;
        for (int32_t e = 0; e < n; e++) mean += f[e] * ((double)p[e] * norm);
        for (int32_t e = 0; e < n; e++) {
            double q = (double)p[e] * norm, slope = sigmoid ? 1 - (double)p[e] : 1;
            dz[i * n + e] += (float)(factor * q * slope * (f[e] - mean));
        }
    }
    return COE_OK;
}

coe_status balance_set(const struct loss_call *c, const struct token_range *set, int32_t n, double norm,
                       const double *f, double weight, double *value)
{
    const int32_t experts = set[0].r->route.n_experts;
    for (int32_t i = 0; i < n && c->scale != 0; i++) /* before the scratch below: dz outlives it */
        if (!loss_dz(c->c, set[i].r)) return COE_E_NOMEM;
    struct arena_mark mark = arena_save(c->c->arena);
    double *counts = arena_push_zero(c->c->arena, (size_t)experts * sizeof(double));
    double *sums = arena_push_zero(c->c->arena, (size_t)experts * sizeof(double));
    if (!counts || !sums) return COE_E_NOMEM;
    int64_t tokens = 0;
    for (int32_t i = 0; i < n; i++) {
        tokens += balance_counts(c, &set[i], counts);
        balance_scores(c, &set[i], sums);
    }
    coe_status s = COE_OK;
    if (tokens) {
        double total = 0;
        if (!f) {
            for (int32_t e = 0; e < experts; e++) counts[e] /= (double)tokens;
            f = counts;
        }
        for (int32_t e = 0; e < experts; e++) total += f[e] * (sums[e] / (double)tokens);
        *value += weight * norm * total;
        for (int32_t i = 0; i < n && !s && c->scale != 0; i++)
            s = balance_gradient(c, &set[i], f, c->coef * c->scale * weight * norm / (double)tokens);
    }
    arena_rewind(c->c->arena, mark);
    return s;
}

static coe_status one_record(const struct loss_call *c, struct route_record *r, balance_load_fn *load, double *value)
{
    const struct token_range all = { r, 0, r->route.n_tokens };
    if (c->scale != 0 && !loss_dz(c->c, r)) return COE_E_NOMEM; /* before the scratch below: dz outlives it */
    struct arena_mark mark = arena_save(c->c->arena);
    double *f = arena_push_zero(c->c->arena, (size_t)r->route.n_experts * sizeof *f);
    coe_status s = f && load(c, &all, f) ? balance_set(c, &all, 1, 1, f, 1, value) : COE_E_NOMEM;
    arena_rewind(c->c->arena, mark);
    return s;
}

coe_status balance_records(const struct loss_call *c, balance_load_fn *load, double *value)
{
    for (int32_t i = 0; i < c->n_records; i++) COE_TRY(one_record(c, c->records[i], load, value));
    return COE_OK;
}

coe_status balance_needs_groups(const struct moe_spec *m, const char *loss, const char *where)
{
    if (m->router.n_group > 1) return COE_OK;
    return coe_fail(COE_E_INPUT, "%s: loss %s balances groups of experts, and groups is 1", where, loss);
}

coe_status balance_needs_softmax(const struct moe_spec *m, const char *loss, const char *where)
{
    if (m->router.score == SCORE_SOFTMAX) return COE_OK;
    return coe_fail(COE_E_INPUT, "%s: loss %s needs softmax scores: sigmoid scores are not probabilities", where, loss);
}
