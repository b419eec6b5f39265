/* coreset.c — see coreset.h. Paper: Dynamic Expert Sharing, 2026 (card: routing.md 10). */
#include "moe/selection/coreset.h"

#include <math.h>
#include <string.h>

struct scratch {
    float *votes, *allowed; /* [E] */
    int32_t *best;          /* [E] */
};

static void one_block(const struct selection_call *c, struct scratch *w, int32_t from, int32_t end, int32_t k_vote,
                      int32_t core, coreset_vote *vote)
{
    const int32_t n = c->out->n_experts;
    for (int32_t e = 0; e < n; e++) w->votes[e] = 0;
    for (int32_t t = from; t < end; t++)
        vote(c, t, w->best, pick_best(c->s + (int64_t)t * n, n, k_vote, w->best), w->votes);
    for (int32_t e = 0; e < n; e++)
        if (!(w->votes[e] > 0)) w->votes[e] = -INFINITY;
    const int32_t n_core = pick_best(w->votes, n, core, w->best);
    for (int32_t e = 0; e < n; e++) w->votes[e] = -INFINITY;
    for (int32_t i = 0; i < n_core; i++) w->votes[w->best[i]] = 0; /* the block's experts */
    for (int32_t t = from; t < end; t++) {
        for (int32_t e = 0; e < n; e++)
            w->allowed[e] = w->votes[e] == 0 ? c->s[(int64_t)t * n + e] : -INFINITY;
        route_choose(c->out, t, w->best, pick_best(w->allowed, n, c->k, w->best));
    }
}

coe_status coreset_choose(const struct selection_call *c, int32_t block, int32_t k_vote, int32_t core,
                          coreset_vote *vote)
{
    const size_t n = (size_t)c->out->n_experts;
    struct scratch w = { arena_push(c->c->arena, n * sizeof(float)), arena_push(c->c->arena, n * sizeof(float)),
                         arena_push(c->c->arena, n * sizeof(int32_t)) };
    if (!w.votes || !w.allowed || !w.best) return COE_E_NOMEM;
    for (int32_t i = 0, from, end; pick_sequence(c->rec, i, &from, &end); i++)
        while (from < end) {
            const int64_t position = pick_position(c->rec, i, from);
            const int32_t rows = (int32_t)COE_MIN((int64_t)(end - from), block - position % block);
            one_block(c, &w, from, from + rows, k_vote, core, vote);
            from += rows;
        }
    return COE_OK;
}
