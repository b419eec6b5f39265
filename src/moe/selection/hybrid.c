/* hybrid.c — uncertain tokens use all experts, the others a prefix of probability top_p, never fewer than min.
 *
 * Paper: DynMoLE, 2025 (card: routing.md 22). With p the probabilities of one token and S its entropy in [0, 1]
 *     tsallis  S = (1 - Σ p^q) / (1 - E^(1-q))      q = 1: Shannon / log E
 *     renyi    S = log(Σ p^q) / ((1-q) log E)
 *     S > threshold  → all experts;   else the prefix with Σ <= top_p (what crosses it stays out; `cross: include`
 *     takes it) and the first min. threshold >= 1 switches the soft branch off. Published weights are p as it is. */
#include "moe/selection/pick.h"

#include <math.h>

enum { TOP_P, THRESHOLD, INDEX, MIN, ENTROPY, CROSS };
static const char *const entropies[] = { "tsallis", "renyi", NULL };
static const char *const crossings[] = { "exclude", "include", NULL };

static double entropy(const double *param, const float *p, int32_t n)
{
    const double q = param[INDEX];
    double sum = 0;
    if (n < 2) return 0;
    if (fabs(q - 1) < 1e-9) {
        for (int32_t e = 0; e < n; e++) sum -= p[e] > 0 ? (double)p[e] * log((double)p[e]) : 0;
        return sum / log(n);
    }
    for (int32_t e = 0; e < n; e++) sum += p[e] > 0 ? pow((double)p[e], q) : 0;
    return param[ENTROPY] > 0 ? log(sum) / ((1 - q) * log(n)) : (1 - sum) / (1 - pow(n, 1 - q));
}

static int32_t prefix(const double *param, const float *p, const int32_t *order, int32_t have)
{
    float sum = 0;
    int32_t take = 0;
    for (; take < have; take++) {
        sum += p[order[take]];
        if (sum > (float)param[TOP_P]) break;
    }
    if (param[CROSS] > 0 && take < have) take++;
    return COE_MIN(COE_MAX(take, (int32_t)param[MIN]), have);
}

static coe_status choose(const struct selection_call *c)
{
    const double *param = c->spec->router.param;
    const int32_t n = c->out->n_experts;
    int32_t *order = arena_push(c->c->arena, (size_t)n * sizeof *order);
    if (!order) return COE_E_NOMEM;
    for (int32_t t = 0; t < c->out->n_tokens; t++) {
        const float *p = c->p + (int64_t)t * n;
        const int32_t have = pick_sorted(c->s + (int64_t)t * n, n, order);
        const bool soft = param[THRESHOLD] < 1 && entropy(param, p, n) > param[THRESHOLD];
        route_choose(c->out, t, order, soft ? have : prefix(param, p, order, have));
    }
    return COE_OK;
}

static coe_status check(const struct moe_spec *m, const char *where)
{
    if (m->router.score == SCORE_SOFTMAX) return COE_OK;
    return coe_fail(COE_E_INPUT, "%s: hybrid needs softmax scores: the entropy of sigmoids is not one", where);
}

static const struct part_param params[] = {
    { "top_p", "probability of the prefix", NULL, 0, 1e6, 0.75, false },
    { "threshold", "entropy above which all experts run; 1: never", NULL, 0, 1e6, 0.9, false },
    { "q", "index of the entropy", NULL, 1e-6, 1e3, 1.1, false },
    { "min", "fewest experts of a token", NULL, 0, 65536, 2, true },
    { "entropy", "its kind", entropies, 0, 0, 0, false },
    { "cross", "whether the expert that crosses top_p is taken", crossings, 0, 0, 0, false },
    { 0 },
};
static const struct selection_part hybrid = { .max_slots = pick_all_slots, .choose = choose, .check = check };
COE_PART(selection, hybrid, .summary = "all experts for tokens of high routing entropy, else a top-p prefix",
         .paper = "DynMoLE, 2025", .card = "routing.md 22", .unit = "token", .impl = &hybrid, .params = params)
