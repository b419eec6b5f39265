/* random.c — experts drawn uniformly, whatever the router says.
 *
 * Paper: Taming Sparsely Activated Transformer with Stochastic Experts (THOR), 2021 (card: routing.md 20). In training
 * one draw of k experts serves the whole forward pass of a layer: a function of (seed, step, pass, layer, iteration).
 * At inference each token draws by its position: a function of (draw, layer, iteration, position), so a sequence alone
 * and in a batch gets the same experts. With k = 1 and `renormalize` the weight is exactly 1 and the router has no part
 * in the output. Masked experts are never drawn. */
#include "moe/selection/pick.h"

#include <math.h>

#include "base/rng.h"

enum { DRAW };

/* The k experts of smallest random number */
static int32_t draw(const float *s, int32_t n, int32_t k, float *key, uint64_t seed, uint64_t stream, int32_t *best)
{
    for (int32_t e = 0; e < n; e++)
        key[e] = s[e] == -INFINITY ? -INFINITY : -rng_unitf(rng_at(seed, stream, (uint64_t)e));
    return pick_best(key, n, k, best);
}

static coe_status choose(const struct selection_call *c)
{
    const int32_t n = c->out->n_experts;
    const uint64_t place = (uint64_t)c->rec->layer * MAX_ITERATIONS + (uint64_t)c->rec->iteration;
    const uint64_t pass = c->c->step * 4096 + c->c->dropout_index / 1024;
    float *key = arena_push(c->c->arena, (size_t)n * sizeof *key);
    int32_t best[MAX_TOP_K];
    if (!key) return COE_E_NOMEM;
    for (int32_t i = 0, from, end; pick_sequence(c->rec, i, &from, &end); i++)
        for (int32_t t = from; t < end; t++) {
            const uint64_t seed = c->c->tape ? c->c->seed : (uint64_t)c->spec->router.param[DRAW];
            const uint64_t index = c->c->tape ? pass : (uint64_t)pick_position(c->rec, i, t);
            const uint64_t stream = rng_stream(RNG_ROUTE, place << 40 ^ index);
            route_choose(c->out, t, best, draw(c->s + (int64_t)t * n, n, c->k, key, seed, stream, best));
        }
    return COE_OK;
}

static const struct part_param params[] = {
    { "draw", "seed of the draw at inference", NULL, 0, 4e15, 0, true },
    { 0 },
};
static const struct selection_part random_choice = { .max_slots = pick_top_k_slots, .choose = choose };
COE_PART(selection, random, .summary = "experts drawn uniformly: one draw a pass in training, by position at inference",
         .paper = "THOR: Stochastic Experts, 2021", .card = "routing.md 20", .unit = "token", .impl = &random_choice,
         .params = params)
