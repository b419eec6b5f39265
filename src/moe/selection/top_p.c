/* top_p.c — each token takes the fewest experts whose probabilities add up to more than p.
 *
 * Paper: Harder Tasks Need More Experts, 2024 (card: routing.md 3). Experts in descending score; the one whose sum
 * first exceeds p is the last taken, so a sum of exactly p takes one more (the authors' code; their paper stops there:
 * `boundary: reach`). Weights are the probabilities as they are unless the spec renormalises. A token takes between min
 * and max experts; max 0 is no limit. p → 0 is top-1, p >= 1 is a dense mixture. With sigmoid scores p is a plain
 * sum. */
#include "moe/selection/pick.h"

enum { P, MIN, MAX, BOUNDARY };
static const char *const boundaries[] = { "exceed", "reach", NULL };

static coe_status choose(const struct selection_call *c)
{
    const double *param = c->spec->router.param;
    const int32_t n = c->out->n_experts, least = (int32_t)param[MIN];
    const int32_t most = param[MAX] > 0 ? COE_MIN((int32_t)param[MAX], n) : n;
    const float p = (float)param[P];
    int32_t *order = arena_push(c->c->arena, (size_t)n * sizeof *order);
    if (!order) return COE_E_NOMEM;
    for (int32_t t = 0; t < c->out->n_tokens; t++) {
        const float *s = c->s + (int64_t)t * n, *score = c->p + (int64_t)t * n;
        const int32_t have = pick_best(s, n, most, order);
        float sum = 0;
        int32_t take = 0;
        while (take < have) {
            sum += score[order[take++]];
            if (take >= least && (param[BOUNDARY] > 0 ? sum >= p : sum > p)) break;
        }
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
        return coe_fail(COE_E_INPUT, "%s: top_p takes at least %g and at most %g experts", where, least, most);
    return COE_OK;
}

static const struct part_param params[] = {
    { "p", "sum of probabilities to exceed", NULL, 0, 1e6, 0.4, false },
    { "min", "fewest experts of a token", NULL, 1, 65536, 1, true },
    { "max", "most experts of a token; 0: all", NULL, 0, 65536, 0, true },
    { "boundary", "whether a sum of exactly p is enough", boundaries, 0, 0, 0, false },
    { 0 },
};
static const struct selection_part top_p = { .max_slots = max_slots, .choose = choose, .check = check };
COE_PART(selection, top_p, .summary = "the fewest experts whose probabilities add up to more than p",
         .paper = "Harder Tasks Need More Experts, 2024", .card = "routing.md 3", .unit = "token", .impl = &top_p,
         .params = params)
