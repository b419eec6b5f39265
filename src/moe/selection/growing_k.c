/* growing_k.c — top-k whose k grows over training; at inference the spec's top_k, whatever it is.
 *
 * Paper: Sparse MoE as the New Dropout, 2023 (card: routing.md 21). Step of `steps`:
 *     k(step) = rint((top_k - from) · step / steps) + from,   clipped to the two ends     (halves to the even number)
 * `shape: cosine` follows from + (top_k - from)(1 - cos(π step/steps))/2. from may be above top_k: then k shrinks. The
 * paper's router is random and frozen; a router that learns is allowed here. */
#include "moe/selection/pick.h"

#include <math.h>

enum { FROM, STEPS, SHAPE };
static const char *const shapes[] = { "linear", "cosine", NULL };

static int32_t k_at(const struct router_spec *r, uint64_t step)
{
    const double u = COE_MIN((double)step / r->param[STEPS], 1.0);
    const double way = r->param[SHAPE] > 0 ? (1 - cos(acos(-1.0) * u)) / 2 : u;
    return (int32_t)(rint((r->top_k - r->param[FROM]) * way) + r->param[FROM]);
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
