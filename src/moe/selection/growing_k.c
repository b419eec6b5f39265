/* growing_k.c — top-k whose k grows over training; at inference the spec's top_k, whatever it is.
 *
 * Paper: Sparse MoE as the New Dropout, 2023 (card: routing.md 21). Step of `steps`:
 *     k(step) = rint((top_k - from) · step / steps) + from,   clipped to the two ends     (halves to the even number)
 * Other shapes put w in place of u = step/steps: cosine w = 1 - cos(π/2 u), exponential w = 1 - 0.99^(300 u); doubling
 * runs through 1 2 4 8 16 (or back) in five equal parts, clipped to the two ends. from may be above top_k: then k
 * shrinks. The paper's router is random and frozen; a router that learns is allowed here. */
#include "moe/selection/pick.h"

#include <math.h>

enum { FROM, STEPS, SHAPE };
enum { LINEAR, COSINE, EXPONENTIAL, DOUBLING };
static const char *const shapes[] = { "linear", "cosine", "exponential", "doubling", NULL };

static int32_t k_at(const struct router_spec *r, uint64_t step)
{
    const double u = COE_MIN((double)step / r->param[STEPS], 1.0);
    const double from = r->param[FROM], low = COE_MIN(from, r->top_k), high = COE_MAX(from, r->top_k);
    const int part = (int)COE_MIN(5 * u, 4.0);
    switch ((int)r->param[SHAPE]) {
    case DOUBLING: return (int32_t)COE_MIN(COE_MAX(ldexp(1, from <= r->top_k ? part : 4 - part), low), high);
    case COSINE: return (int32_t)(rint((r->top_k - from) * (1 - cos(acos(-1.0) / 2 * u))) + from);
    case EXPONENTIAL: return (int32_t)(rint((r->top_k - from) * (1 - pow(0.99, 300 * u))) + from);
    default: return (int32_t)(rint((r->top_k - from) * u) + from);
    }
}

static coe_status choose(const struct selection_call *c)
{
    int32_t best[MAX_TOP_K];
    const int32_t n = c->out->n_experts;
    const int32_t k = c->c->tape ? COE_MIN(k_at(&c->spec->router, c->c->step), n) : c->k;
    for (int32_t t = 0; t < c->out->n_tokens; t++)
        route_choose(c->out, t, best, pick_best(c->s + (int64_t)t * n, n, k, best));
    return COE_OK;
}

static int64_t max_slots(const struct router_spec *r, int32_t n_tokens, int32_t n_experts)
{
    return (int64_t)n_tokens * COE_MIN(COE_MAX(r->top_k, (int32_t)r->param[FROM]), n_experts);
}

static const struct part_param params[] = {
    { "from", "k at the first step", NULL, 1, MAX_TOP_K, 1, true },
    { "steps", "training steps until top_k is reached", NULL, 1, 1e12, 1000, true },
    { "shape", "how k gets there", shapes, 0, 0, 0, false },
    { 0 },
};
static const struct selection_part growing_k = { .max_slots = max_slots, .choose = choose };
COE_PART(selection, growing_k, .summary = "top-k whose k grows over the steps of training",
         .paper = "Sparse MoE as the New Dropout, 2023", .card = "routing.md 21", .unit = "token", .impl = &growing_k,
         .params = params)
