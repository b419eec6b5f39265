/* transport.c — experts share the tokens of a sequence by optimal transport in which no expert may have more than k.
 *
 * Paper: Sparsity-Constrained Optimal Transport, 2023 (card: routing.md 9b). Over the m tokens of a sequence
 *     min_T <T, C> + gamma·m/2 |T|²,  rows sum to 1/m, columns to 1/E, at most ceil(factor·m·top_k/E) non-zeros a
 * column with C = -score or -logit. A token visits the experts with a part of its row, 0 to E of them; a token whose
 * row is empty, which the solver's tolerance and a tight limit leave possible, visits its best. `weight: score` weighs
 * them like any other choice; `plan` by their share of the row, constants under differentiation. gamma counts per
 * token, so that one value serves any length. By default inference is plain top-k, since a token's part depends on
 * those behind it; `inference: transport` needs whole sequences. */
#include "moe/selection/transport.h"

#include <math.h>

#include "moe/selection/pick.h"

enum { GAMMA, FACTOR, OF, WEIGHT, INFERENCE, ROUNDS };
#define TOLERANCE 1e-6 /* of a row or column sum, as a share of the whole */
static const char *const affinities[] = { "score", "logit", NULL };
static const char *const weights[] = { "score", "plan", NULL };
static const char *const inferences[] = { "top_k", "transport", NULL };

/* One sequence's transport: rows from … of the route. */
struct haul {
    int32_t from;
    struct transport p;
    double *cost, *plan; /* [p.n, p.m] */
    int32_t *column;     /* [p.n] a masked expert takes no share of the tokens */
    void *room;
};

/* The share of each expert in the sequence's token t → the slots of the token. */
static void take_row(const struct selection_call *c, const struct haul *h, int32_t t, float *row, int32_t *best)
{
    const struct router_spec *r = &c->spec->router;
    const int32_t n = c->out->n_experts, first = c->out->n_slots, m = h->p.m, token = h->from + t;
    const double *plan = h->plan + t;
    for (int32_t j = 0; j < h->p.n; j++) row[j] = plan[(int64_t)j * m] > 0 ? (float)plan[(int64_t)j * m] : -INFINITY;
    int32_t got = pick_sorted(row, h->p.n, best);
    const bool empty = !got;
    double sum = 0;
    for (int32_t i = 0; i < got; i++) sum += plan[(int64_t)best[i] * m];
    for (int32_t i = 0; i < got; i++) {
        row[i] = (float)(plan[(int64_t)best[i] * m] / sum);
        best[i] = h->column[best[i]];
    }
    if (empty) {
        got = pick_best(c->s + (int64_t)token * n, n, 1, best);
        row[0] = 1;
    }
    route_choose(c->out, token, best, got);
    for (int32_t i = 0; i < got && r->param[WEIGHT] > 0; i++) {
        c->out->score[first + i] = c->p[(int64_t)token * n + best[i]];
        c->out->weight[first + i] = row[i] * r->scale;
    }
}

static coe_status load(struct haul *h, const struct selection_call *c, int32_t from, int32_t end)
{
    const struct router_spec *r = &c->spec->router;
    const int32_t n = c->out->n_experts, m = end - from;
    const float *affinity = (r->param[OF] > 0 ? c->z : c->p) + (int64_t)from * n;
    struct arena *a = c->c->arena;
    h->from = from;
    h->cost = arena_push(a, (size_t)m * (size_t)n * sizeof *h->cost);
    h->plan = arena_push(a, (size_t)m * (size_t)n * sizeof *h->plan);
    h->column = arena_push(a, (size_t)n * sizeof *h->column);
    if (!h->cost || !h->plan || !h->column) return COE_E_NOMEM;
    int32_t columns = 0;
    for (int32_t e = 0; e < n; e++)
        if (c->s[(int64_t)from * n + e] != -INFINITY) h->column[columns++] = e;
    for (int32_t j = 0; j < columns; j++)
        for (int32_t t = 0; t < m; t++)
            h->cost[(int64_t)j * m + t] = -(double)affinity[(int64_t)t * n + h->column[j]];
    const double most = ceil((double)m * r->top_k / columns * r->param[FACTOR] - 1e-9);
    h->p = (struct transport){ h->cost, m, columns, (int32_t)COE_MIN(COE_MAX(most, 1), (double)m),
                               r->param[GAMMA] * m };
    h->room = arena_push(a, transport_room(&h->p, m));
    return h->room ? COE_OK : COE_E_NOMEM;
}

/* Sequences are solved side by side and routed one after another. */
static coe_status transport_all(const struct selection_call *c)
{
    struct arena *a = c->c->arena;
    const struct arena_mark mark = arena_save(a);
    const int32_t n = c->out->n_experts, rounds = (int32_t)c->spec->router.param[ROUNDS];
    int32_t sequences = 0, full = 0, from, end;
    while (pick_sequence(c->rec, sequences, &from, &end)) sequences++;
    struct haul *h = arena_push(a, (size_t)sequences * sizeof *h);
    float *row = arena_push(a, (size_t)n * sizeof *row);
    int32_t *best = arena_push(a, (size_t)n * sizeof *best);
    if (!h || !row || !best) return COE_E_NOMEM;
    for (int32_t i = 0; i < sequences && pick_sequence(c->rec, i, &from, &end); i++)
        if (end > from) COE_TRY(load(&h[full++], c, from, end));
#pragma omp parallel for schedule(dynamic) if (full > 1)
    for (int32_t i = 0; i < full; i++)
        transport_solve(&h[i].p, transport_semi_dual, h[i].p.m, TOLERANCE, rounds, h[i].plan, NULL, h[i].room);
    for (int32_t i = 0; i < full; i++)
        for (int32_t t = 0; t < h[i].p.m; t++) take_row(c, &h[i], t, row, best);
    arena_rewind(a, mark);
    return COE_OK;
}

static bool couples(const struct router_spec *r) { return r->param[INFERENCE] > 0; }

static coe_status choose(const struct selection_call *c)
{
    int32_t best[MAX_TOP_K];
    const int32_t n = c->out->n_experts;
    if (!c->c->tape && !couples(&c->spec->router)) {
        for (int32_t t = 0; t < c->out->n_tokens; t++)
            route_choose(c->out, t, best, pick_best(c->s + (int64_t)t * n, n, c->k, best));
        return COE_OK;
    }
    COE_TRY(transport_all(c));
    c->out->weighed = c->spec->router.param[WEIGHT] > 0;
    return COE_OK;
}

static coe_status check(const struct moe_spec *m, const char *where)
{
    if (m->router.capacity.factor || m->router.capacity.tokens)
        return coe_fail(COE_E_INPUT,
                        "%s: transport limits the tokens of an expert itself (factor); a capacity has "
                        "nothing to do",
                        where);
    if (m->router.n_group > 1)
        return coe_fail(COE_E_INPUT, "%s: transport loads all experts equally, groups leave some out", where);
    return COE_OK;
}

static const struct part_param params[] = {
    { "gamma", "weight of the squared plan, per token", NULL, 1e-6, 1e6, 0.5, false },
    { "factor", "an expert has at most factor*T*top_k/E tokens", NULL, 1e-3, 1e6, 1, false },
    { "of", "what the plan is made of", affinities, 0, 0, 0, false },
    { "weight", "what weighs the experts", weights, 0, 0, 0, false },
    { "inference", "how tokens are routed then", inferences, 0, 0, 0, false },
    { "rounds", "most rounds of the solver", NULL, 1, 100000, 100, true },
    { 0 },
};
static const struct selection_part transport_choice = {
    .max_slots = pick_all_slots, .choose = choose, .check = check, .couples = couples
};
COE_PART(selection, transport, .summary = "experts share a sequence by transport, each with a limited number of tokens",
         .paper = "Sparsity-Constrained Optimal Transport, 2023", .card = "routing.md 9b", .unit = "sequence",
         .impl = &transport_choice, .params = params)
