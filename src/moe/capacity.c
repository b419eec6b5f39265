/* capacity.c — an expert takes C tokens of a sequence and no more; a token that does not fit visits one expert less.
 *
 * Papers: GShard, 2020; Switch Transformers, 2021; No Language Left Behind, 2022 (cards: routing.md F9, 12a).
 *     C = tokens,  or  ceil(factor · T · k / E),  the smaller when both are given; at least 1
 * With tau (MoE++, card: routing.md 5; there stated for k = 1) experts that compute get tau shares, the others one:
 *     C = ceil(factor · T · k · tau / (tau · N + N_idle)),  C_idle = ceil(factor · T · k / (tau · N + N_idle))
 * Who comes first, inside a sequence of T tokens:
 *     position  all first choices in order of position, then all second choices, … (Switch, GShard, NLLB)
 *     best      the same, but tokens in descending order of their best score (NLLB's batch-prioritised routing)
 *     score     at each expert the tokens of highest score, whatever choice it is of theirs (Megatron)
 * Equal scores: the earlier token, then the earlier choice.
 *
 * Null experts (AdaMoE, 2024; the zero experts of MoE++, 2024; card: routing.md 4, 5) are dropped here too: they return
 * nothing, so nobody runs them. Renormalised weights are then made over the others, and a token whose choices are all
 * null gets an output of exactly 0. The losses see the choice before. */
#include "moe/capacity.h"
#include "moe/selection/pick.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct candidate {
    float key;
    int32_t rank, token, slot;
};

/* Smaller rank, then larger key, then earlier token. */
static int by_priority(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->rank != y->rank) return x->rank < y->rank ? -1 : 1;
    if (x->key != y->key) return x->key > y->key ? -1 : 1;
    if (x->token != y->token) return x->token < y->token ? -1 : 1;
    return (x->slot > y->slot) - (x->slot < y->slot);
}

/* left [E] = tokens that each expert takes of a sequence */
static void capacities(const struct moe_spec *m, int32_t tokens, const uint8_t *idle, int32_t *left)
{
    const struct capacity_spec *c = &m->router.capacity;
    const double tau = c->tau > 0 ? c->tau : 1;
    double shares = 0;
    for (int32_t e = 0; e < m->n_experts; e++) shares += idle[e] ? 1 : tau;
    for (int32_t e = 0; e < m->n_experts; e++) {
        double n = c->tokens > 0 ? c->tokens : (double)tokens;
        /* the fraction first: 12 · (2/8) · 1 must not round up to 4 */
        const double share = (double)tokens * m->router.top_k * (idle[e] ? 1 : tau) / shares;
        if (c->factor > 0) n = COE_MIN(n, ceil(share * c->factor - 1e-9));
        left[e] = n < 1 ? 1 : (int32_t)n;
    }
}

static int32_t list_candidates(const struct route_record *rec, struct candidate *list, int32_t from, int32_t end)
{
    const struct route *r = &rec->route;
    const enum capacity_order order = rec->spec->router.capacity.order;
    int32_t n = 0;
    for (int32_t t = from; t < end; t++) {
        const float *p = rec->p + (int64_t)t * r->n_experts;
        const int32_t first = r->tok_off[t];
        for (int32_t s = first; s < r->tok_off[t + 1]; s++) {
            const float best = p[r->expert[first]], own = p[r->expert[s]];
            list[n++] = (struct candidate){ order == CAPACITY_POSITION ? 0 : order == CAPACITY_BEST ? best : own,
                                            order == CAPACITY_SCORE ? 0 : s - first, t, s };
        }
    }
    return n;
}

/* The tokens of one sequence: marks the slots that fit. */
static void admit(const struct route_record *rec, struct candidate *list, const uint8_t *idle, int32_t *left,
                  uint8_t *fits, int32_t from, int32_t end)
{
    const struct route *r = &rec->route;
    const int32_t n = list_candidates(rec, list, from, end);
    qsort(list, (size_t)n, sizeof *list, by_priority);
    capacities(rec->spec, end - from, idle, left);
    for (int32_t i = 0; i < n; i++) fits[list[i].slot] = left[r->expert[list[i].slot]]-- > 0;
}

static void copy_fitting(struct route *to, const struct route *from, const uint8_t *fits)
{
    for (int32_t t = 0; t < from->n_tokens; t++) {
        for (int32_t s = from->tok_off[t]; s < from->tok_off[t + 1]; s++) {
            if (!fits[s]) continue;
            to->expert[to->n_slots] = from->expert[s];
            to->score[to->n_slots] = from->score[s];
            to->weight[to->n_slots++] = from->weight[s];
        }
        to->tok_off[t + 1] = to->n_slots;
    }
    to->weighed = from->weighed;
}

coe_status capacity_drop(struct nn *c, struct route_record *rec, bool limited)
{
    struct route *r = &rec->route, kept;
    COE_TRY(route_make(&kept, c->arena, r->n_tokens, r->n_experts, r->n_slots, c->tape != NULL));
    struct arena_mark mark = arena_save(c->arena);
    struct candidate *list = arena_push(c->arena, (size_t)r->n_slots * sizeof *list);
    int32_t *left = arena_push(c->arena, (size_t)r->n_experts * sizeof *left);
    uint8_t *fits = arena_push(c->arena, (size_t)r->n_slots + 1);
    uint8_t *null = arena_push(c->arena, (size_t)r->n_experts), *idle = arena_push(c->arena, (size_t)r->n_experts);
    if (!list || !left || !fits || !null || !idle) return COE_E_NOMEM;
    moe_mark_null(rec->spec, null);
    moe_mark_idle(rec->spec, idle);
    memset(fits, 1, (size_t)r->n_slots);
    for (int32_t i = 0, from, end; limited && pick_sequence(rec, i, &from, &end); i++)
        admit(rec, list, idle, left, fits, from, end);
    for (int32_t s = 0; s < r->n_slots; s++)
        if (null[r->expert[s]]) fits[s] = 0;
    copy_fitting(&kept, r, fits);
    arena_rewind(c->arena, mark);
    rec->wanted = *r;
    *r = kept;
    return COE_OK;
}

void capacity_back(struct route_record *rec)
{
    struct route *all = &rec->wanted;
    const struct route *left = &rec->route;
    for (int32_t t = 0; t < all->n_tokens; t++)
        for (int32_t s = all->tok_off[t]; s < all->tok_off[t + 1]; s++) {
            all->weight_grad[s] = 0;
            for (int32_t q = left->tok_off[t]; q < left->tok_off[t + 1]; q++)
                if (left->expert[q] == all->expert[s]) all->weight_grad[s] = left->weight_grad[q];
        }
}
