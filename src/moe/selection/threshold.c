/* threshold.c — each token takes every expert whose score reaches a threshold, between min and max of them.
 *
 * Paper: DynaMoE, 2026 (card: routing.md 16). With s the scores of one token in ascending order s_0 … s_(E-1)
 *     percentile  s_e >= the linearly interpolated value at position v·(E-1)   (the published rule; without ties the
 *                 count hardly varies: about E(1-v))
 *     absolute    s_e >= v
 *     relative    s_e >= v · max s
 * v = 0 takes all experts. Published weights are a softmax over the kept logits: renormalised softmax scores. */
#include "moe/selection/pick.h"

#include <math.h>

enum { KIND, VALUE, MIN, MAX };
enum { PERCENTILE, ABSOLUTE, RELATIVE };
static const char *const kinds[] = { "percentile", "absolute", "relative", NULL };

static float threshold_of(const double *param, const float *s, const int32_t *descending, int32_t n)
{
    if ((int)param[KIND] == ABSOLUTE) return (float)param[VALUE];
    if ((int)param[KIND] == RELATIVE) return (float)param[VALUE] * s[descending[0]];
    const double at = COE_MIN(param[VALUE], 1.0) * (n - 1);
    const int32_t low = (int32_t)at, high = COE_MIN(low + 1, n - 1);
    const float a = s[descending[n - 1 - low]], b = s[descending[n - 1 - high]];
    return a + (float)(at - low) * (b - a);
}

static coe_status choose(const struct selection_call *c)
{
    const double *param = c->spec->router.param;
    const int32_t n = c->out->n_experts, least = (int32_t)param[MIN];
    const int32_t most = param[MAX] > 0 ? (int32_t)param[MAX] : n;
    int32_t *order = arena_push(c->c->arena, (size_t)n * sizeof *order);
    if (!order) return COE_E_NOMEM;
    for (int32_t t = 0; t < c->out->n_tokens; t++) {
        const float *s = c->s + (int64_t)t * n;
        const int32_t have = pick_sorted(s, n, order), end = COE_MIN(have, most);
        const float limit = have ? threshold_of(param, s, order, have) : 0;
        int32_t take = COE_MIN(least, end);
        while (take < end && s[order[take]] >= limit) take++;
        route_choose(c->out, t, order, take);
    }
    return COE_OK;
}

static int64_t max_slots(const struct router_spec *r, int32_t n_tokens, int32_t n_experts)
{
    const int32_t most = (int32_t)r->param[MAX];
    return (int64_t)n_tokens * (most > 0 ? COE_MIN(most, n_experts) : n_experts);
}

static coe_status check(const struct moe_spec *m, const char *where)
{
    const double least = m->router.param[MIN], most = m->router.param[MAX];
    if (most > 0 && least > most)
        return coe_fail(COE_E_INPUT, "%s: threshold takes at least %g and at most %g experts", where, least, most);
    return COE_OK;
}

static const struct part_param params[] = {
    { "of", "what the threshold is a share of", kinds, 0, 0, 0, false },
    { "value", "the threshold", NULL, -1e9, 1e9, 0.75, false },
    { "min", "fewest experts of a token", NULL, 1, 65536, 1, true },
    { "max", "most experts of a token; 0: all", NULL, 0, 65536, 0, true },
    { 0 },
};
static const struct selection_part threshold = { .max_slots = max_slots, .choose = choose, .check = check };
COE_PART(selection, threshold,
         .summary = "every expert whose score reaches a percentile, a value or a share of the best",
         .paper = "DynaMoE, 2026", .card = "routing.md 16", .unit = "token", .impl = &threshold, .params = params)
