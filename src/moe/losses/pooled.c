/* pooled.c — load balancing over the union of a pool's layers: L = E Σ f_e P_e with f_e the share of all assignments
 * and P_e the mean score of the tokens of all layers of the pool; perfect balance gives 1. Summed over pools and chain
 * iterations.
 *
 * Paper: ReXMoE, 2025 (card: routing.md 7): an expert's load is what all layers that may call it send. A layer may then
 * leave its own experts to a neighbour. Without a pool this is `assign`. */
#include "moe/losses/balance.h"

static int32_t pool_of(const struct route_record *r) { return r->layer / COE_MAX(r->spec->pool.layers, 1); }

static bool same_pool(const struct route_record *a, const struct route_record *b)
{
    return pool_of(a) == pool_of(b) && a->iteration == b->iteration && a->of_attention == b->of_attention;
}

static coe_status apply(const struct loss_call *c, double *value)
{
    struct arena_mark mark = arena_save(c->c->arena);
    struct token_range *set = arena_push(c->c->arena, (size_t)c->n_records * sizeof *set);
    if (c->n_records && !set) return COE_E_NOMEM;
    for (int32_t i = 0; i < c->n_records && c->scale != 0; i++)
        if (!loss_dz(c->c, c->records[i])) return COE_E_NOMEM;
    coe_status s = COE_OK;
    for (int32_t i = 0; i < c->n_records && !s; i++) {
        struct route_record *r = c->records[i];
        bool first = true;
        int32_t n = 0;
        for (int32_t j = 0; j < i; j++) first = first && !same_pool(r, c->records[j]);
        for (int32_t j = i; first && j < c->n_records; j++)
            if (same_pool(r, c->records[j]))
                set[n++] = (struct token_range){ c->records[j], 0, c->records[j]->route.n_tokens };
        if (n) s = balance_set(c, set, n, (double)r->route.n_experts / r->spec->router.top_k, NULL, 1, value);
    }
    if (c->scale == 0) arena_rewind(c->c->arena, mark);
    return s;
}

static const struct loss_part pooled = { .apply = apply };
COE_PART(loss, pooled, .summary = "E sum f P over all layers that share their experts", .paper = "ReXMoE, 2025",
         .card = "routing.md 7", .unit = "block", .impl = &pooled)
