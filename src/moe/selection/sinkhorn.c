/* sinkhorn.c — on a few training steps tokens are assigned by optimal transport, which loads all experts equally.
 *
 * Paper: Selective Sinkhorn Routing, 2025 (card: routing.md 9a). Over the m tokens of one forward pass, with C the
 * scores (`of: score`) or logits: Π = argmax <Π, C> - xi <Π, log Π>, rows sum to 1, columns to m/n. In the log domain
 *     log Π_te = C_te/xi + f_t + g_e;   g_e = log(m/n) - logsumexp_t(C/xi + f);   f_t = -logsumexp_e(C/xi + g)
 * A token takes its k largest entries of Π, with weights Π over their sum, times scale; they are constants under
 * differentiation. A step does this with a probability that is a function of (seed, step), the same for all layers.
 * All other steps, and inference, are plain top-k. */
#include "moe/selection/sinkhorn.h"

#include <math.h>

#include "base/rng.h"
#include "moe/selection/pick.h"

enum { PROBABILITY, XI, OF, TOLERANCE, ROUNDS };
static const char *const affinities[] = { "score", "logit", NULL };

/* log Σ exp over x_i + y_i, i = 0 … n-1, x in steps of `stride` */
static double log_sum(const float *x, int64_t stride, double xi, const double *y, int32_t n)
{
    double max = -INFINITY, sum = 0;
    for (int32_t i = 0; i < n; i++) max = COE_MAX(max, (double)x[i * stride] / xi + y[i]);
    for (int32_t i = 0; i < n; i++) sum += exp((double)x[i * stride] / xi + y[i] - max);
    return max + log(sum);
}

int32_t sinkhorn_plan(double *pi, double *scratch, const float *affinity, int32_t m, int32_t n, double xi,
                      double tolerance, int32_t max_iter)
{
    double *f = scratch, *g = scratch + m;
    const double share = log((double)m / n);
    int32_t round = 0;
    for (int32_t t = 0; t < m; t++) f[t] = 0;
    for (int32_t e = 0; e < n; e++) g[e] = 0;
    for (; round < max_iter; round++) {
        double off = 0;
        for (int32_t e = 0; e < n; e++) {
            const double sum = log_sum(affinity + e, n, xi, f, m);
            off = COE_MAX(off, fabs(exp(sum + g[e]) - (double)m / n));
            g[e] = share - sum;
        }
        if (round && off < tolerance) break;
        for (int32_t t = 0; t < m; t++) f[t] = -log_sum(affinity + (int64_t)t * n, 1, xi, g, n);
    }
    for (int32_t t = 0; t < m; t++) { /* rows last: they are exact, columns within the tolerance */
        f[t] = -log_sum(affinity + (int64_t)t * n, 1, xi, g, n);
        for (int32_t e = 0; e < n; e++) {
            const int64_t at = (int64_t)t * n + e;
            pi[at] = exp((double)affinity[at] / xi + f[t] + g[e]);
        }
    }
    return round;
}

static coe_status plain(const struct selection_call *c)
{
    int32_t best[MAX_TOP_K];
    const int32_t n = c->out->n_experts;
    for (int32_t t = 0; t < c->out->n_tokens; t++)
        route_choose(c->out, t, best, pick_best(c->s + (int64_t)t * n, n, c->k, best));
    return COE_OK;
}

static coe_status transport(const struct selection_call *c)
{
    const struct router_spec *r = &c->spec->router;
    const int32_t n = c->out->n_experts, m = c->out->n_tokens;
    double *pi = arena_push(c->c->arena, (size_t)m * (size_t)n * sizeof *pi);
    double *scratch = arena_push(c->c->arena, ((size_t)m + (size_t)n) * sizeof *scratch);
    float *row = arena_push(c->c->arena, (size_t)n * sizeof *row);
    int32_t best[MAX_TOP_K];
    if (!pi || !scratch || !row) return COE_E_NOMEM;
    sinkhorn_plan(pi, scratch, r->param[OF] > 0 ? c->z : c->p, m, n, r->param[XI], r->param[TOLERANCE],
                  (int32_t)r->param[ROUNDS]);
    for (int32_t t = 0; t < m; t++) {
        const double *entries = pi + (int64_t)t * n;
        for (int32_t e = 0; e < n; e++)
            row[e] = c->s[(int64_t)t * n + e] == -INFINITY ? -INFINITY : (float)entries[e];
        const int32_t first = c->out->n_slots, got = pick_best(row, n, c->k, best);
        double sum = 0;
        for (int32_t i = 0; i < got; i++) sum += entries[best[i]];
        route_choose(c->out, t, best, got);
        for (int32_t i = 0; i < got; i++) {
            c->out->score[first + i] = c->p[(int64_t)t * n + best[i]];
            c->out->weight[first + i] = (float)(entries[best[i]] / sum) * r->scale;
        }
    }
    c->out->weighed = true;
    return COE_OK;
}

static coe_status choose(const struct selection_call *c)
{
    const uint64_t bits = rng_at(c->c->seed, rng_stream(RNG_ROUTE, (uint64_t)1 << 52), c->c->step);
    return c->c->tape && rng_unit(bits) < c->spec->router.param[PROBABILITY] ? transport(c) : plain(c);
}

static const struct part_param params[] = {
    { "probability", "share of training steps that use transport", NULL, 0, 1, 0.005, false },
    { "xi", "weight of the entropy", NULL, 1e-6, 1e6, 0.5, false },
    { "of", "what the plan is made of", affinities, 0, 0, 0, false },
    { "tolerance", "error of the column sums to stop at", NULL, 0, 1, 1e-4, false },
    { "rounds", "most rounds", NULL, 1, 100000, 100, true },
    { 0 },
};
static const struct selection_part sinkhorn = { .max_slots = pick_top_k_slots, .choose = choose };
COE_PART(selection, sinkhorn, .summary = "top-k, but optimal transport on a few training steps keeps experts in use",
         .paper = "Selective Sinkhorn Routing, 2025", .card = "routing.md 9a", .unit = "token", .impl = &sinkhorn,
         .params = params)
