/* expert_choice.c — each expert takes its best tokens of a sequence; a token is taken by 0 to E experts.
 *
 * Papers: Mixture-of-Experts with Expert Choice Routing, 2022; Expert-Choice Routing Enables Adaptive Computation in
 * DLMs, 2026 (card: routing.md 11). Each expert takes max(1, floor(S·k/E)) of the S tokens of a sequence, so loads are
 * equal by construction. `by: score` ranks tokens by s_te, weights are s_te (2022); `by: logit` ranks by z_te, and with
 * `renormalize` weights are a softmax over the experts that took the token (2026). Equal: the earlier token.
 * Tokens are chosen against tokens behind them: whole sequences only, never token by token. */
#include "moe/selection/pick.h"

#include <math.h>
#include <string.h>

enum { BY };
static const char *const keys[] = { "score", "logit", NULL };

/* taken [T, E] of expert e for rows from … end-1 */
static void take(const struct selection_call *c, int32_t e, int32_t from, int32_t end, float *column, int32_t *best,
                 uint8_t *taken)
{
    const int32_t n = c->out->n_experts, rows = end - from;
    const float *key = c->spec->router.param[BY] > 0 ? c->z : c->s;
    for (int32_t i = 0; i < rows; i++) {
        const int64_t at = (int64_t)(from + i) * n + e;
        column[i] = c->s[at] == -INFINITY ? -INFINITY : key[at];
    }
    const int32_t room = COE_MAX(1, (int32_t)((int64_t)rows * c->spec->router.top_k / n));
    const int32_t got = pick_best(column, rows, COE_MIN(room, rows), best);
    for (int32_t i = 0; i < got; i++) taken[(int64_t)(from + best[i]) * n + e] = 1;
}

static coe_status choose(const struct selection_call *c)
{
    const int32_t n = c->out->n_experts, rows = c->out->n_tokens;
    const size_t cells = (size_t)rows * (size_t)n;
    uint8_t *taken = arena_push_zero(c->c->arena, cells + 1);
    float *column = arena_push(c->c->arena, (size_t)COE_MAX(rows, n) * sizeof *column);
    int32_t *best = arena_push(c->c->arena, (size_t)COE_MAX(rows, n) * sizeof *best);
    if (!taken || !column || !best) return COE_E_NOMEM;
    for (int32_t i = 0, from, end; pick_sequence(c->rec, i, &from, &end); i++)
        for (int32_t e = 0; e < n && end > from; e++) take(c, e, from, end, column, best, taken);
    for (int32_t t = 0; t < rows; t++) {
        for (int32_t e = 0; e < n; e++) column[e] = taken[(int64_t)t * n + e] ? c->p[(int64_t)t * n + e] : -INFINITY;
        route_choose(c->out, t, best, pick_sorted(column, n, best));
    }
    return COE_OK;
}

static bool couples(const struct router_spec *r)
{
    (void)r;
    return true;
}

static coe_status check(const struct moe_spec *m, const char *where)
{
    if (!m->router.capacity.factor && !m->router.capacity.tokens) return COE_OK;
    return coe_fail(COE_E_INPUT, "%s: expert_choice fills every expert exactly; a capacity has nothing to do", where);
}

static const struct part_param params[] = {
    { "by", "what ranks the tokens", keys, 0, 0, 0, false },
    { 0 },
};
static const struct selection_part expert_choice = {
    .max_slots = pick_all_slots, .choose = choose, .check = check, .couples = couples
};
COE_PART(selection, expert_choice, .summary = "each expert takes its best tokens of a sequence: equal loads",
         .paper = "Expert Choice Routing, 2022", .card = "routing.md 11", .unit = "sequence", .impl = &expert_choice,
         .params = params)
