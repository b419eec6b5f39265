/* masked.c — load balancing by probability instead of counts: over the tokens of all layers as one pool, f_e is the
 * mean of p_te where e was chosen and 0 elsewhere, P_e the mean of p_te, L = E Σ f_e P_e. Both factors carry gradient:
 *     dL/dp_te = E/T (f_e + [e chosen by t] P_e),   then through the softmax.
 * All experts chosen with equal probability give 1.
 *
 * Paper: DynMoLE, 2025, in the last form of its framework (card: routing.md 22). Coefficient 1e-3. */
#include "moe/losses/balance.h"

static const struct route *choice(const struct route_record *r) { return r->wanted.tok_off ? &r->wanted : &r->route; }

/* f, mean_p [E] += sums over the record; answers the tokens that count */
static int64_t add_sums(const struct loss_call *c, const struct route_record *r, double *f, double *mean_p)
{
    const struct route *rt = choice(r);
    int64_t tokens = 0;
    for (int64_t t = 0; t < rt->n_tokens; t++) {
        const float *p = r->p + t * rt->n_experts;
        if (!token_counts(c, t)) continue;
        tokens++;
        for (int32_t e = 0; e < rt->n_experts; e++) mean_p[e] += (double)p[e];
        for (int32_t i = rt->tok_off[t]; i < rt->tok_off[t + 1]; i++) f[rt->expert[i]] += (double)p[rt->expert[i]];
    }
    return tokens;
}

static coe_status add_gradient(const struct loss_call *c, struct route_record *r, const double *f, const double *mean_p,
                               double factor, double *slope)
{
    const struct route *rt = choice(r);
    const int32_t n = rt->n_experts;
    float *dz = loss_dz(c->c, r);
    if (!dz) return COE_E_NOMEM;
    for (int64_t t = 0; t < rt->n_tokens; t++) {
        const float *p = r->p + t * n;
        double mean = 0;
        if (!token_counts(c, t)) continue;
        for (int32_t e = 0; e < n; e++) slope[e] = f[e];
        for (int32_t i = rt->tok_off[t]; i < rt->tok_off[t + 1]; i++) slope[rt->expert[i]] += mean_p[rt->expert[i]];
        for (int32_t e = 0; e < n; e++) mean += (double)p[e] * slope[e];
        for (int32_t e = 0; e < n; e++) dz[t * n + e] += (float)(factor * (double)p[e] * (slope[e] - mean));
    }
    return COE_OK;
}

static coe_status apply(const struct loss_call *c, double *value)
{
    const int32_t n = c->records[0]->route.n_experts;
    for (int32_t i = 0; i < c->n_records; i++) {
        if (c->records[i]->route.n_experts != n)
            return coe_fail(COE_E_USAGE, "loss masked: layer %d has %d experts, layer %d has %d; they cannot be pooled",
                            c->records[i]->layer, c->records[i]->route.n_experts, c->records[0]->layer, n);
        if (c->scale != 0 && !loss_dz(c->c, c->records[i])) return COE_E_NOMEM; /* before the scratch: it outlives it */
    }
    struct arena_mark mark = arena_save(c->c->arena);
    double *f = arena_push_zero(c->c->arena, 3 * (size_t)n * sizeof *f), *mean_p = f + n, total = 0;
    if (!f) return COE_E_NOMEM;
    int64_t tokens = 0;
    for (int32_t i = 0; i < c->n_records; i++) tokens += add_sums(c, c->records[i], f, mean_p);
    for (int32_t e = 0; e < n && tokens; e++) {
        f[e] /= (double)tokens;
        mean_p[e] /= (double)tokens;
        total += n * f[e] * mean_p[e];
    }
    coe_status s = COE_OK;
    for (int32_t i = 0; i < c->n_records && tokens && c->scale != 0 && !s; i++)
        s = add_gradient(c, c->records[i], f, mean_p, c->coef * c->scale * n / (double)tokens, f + 2 * n);
    *value += total;
    arena_rewind(c->c->arena, mark);
    return s;
}

static coe_status check(const struct moe_spec *m, const char *where)
{
    return balance_needs_softmax(m, "masked", where);
}

static const struct loss_part masked = { .apply = apply, .check = check };
COE_PART(loss, masked, .summary = "balance of chosen probability, differentiable in both factors, layers pooled",
         .paper = "DynMoLE, 2025", .card = "routing.md 22", .unit = "block", .impl = &masked)
