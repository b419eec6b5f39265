/* pool.c — layers that share their experts, and the schedule by which a router comes to see those of its neighbours.
 *
 * Paper: ReXMoE, 2025 (card: routing.md 7). Layers g r … g r + r - 1 are a group; each stores n experts and routes
 * among all r n of them, expert i n + j being expert j of the group's layer i. In training a router sees
 *     n(t) = n until step `from`,   floor((1 + (r - 1) (t - from) / (to - from)) n),   r n from step `to` on
 * of them; the others, another random choice at every step, are masked before the scores. With mask local_first the
 * layer's own experts are never among those, so the model starts as one without sharing; with uniform all are drawn
 * alike. At inference, validation included, every expert may be chosen. */
#include <string.h>

#include "base/rng.h"
#include "moe/pool.h"

const char *const pool_mask_name[2] = { "local_first", "uniform" };

int32_t pool_visible(const struct pool_spec *p, int32_t n_experts, uint64_t step)
{
    const int32_t own = n_experts / p->layers;
    if (step >= (uint64_t)p->to) return n_experts;
    if (step <= (uint64_t)p->from) return own;
    const double share = (double)(step - (uint64_t)p->from) / (double)(p->to - p->from);
    return (int32_t)((1 + (p->layers - 1) * share) * own + 1e-9); /* 1e-9: (1 + 1/4) 4 is 5, however rounded */
}

/* keep [n_experts] = 1 for n random ones of those that are 0 */
static void keep_some(uint8_t *keep, int32_t n_experts, int32_t n, uint64_t seed, uint64_t stream)
{
    for (uint64_t i = 0; n > 0; i++) {
        const int32_t e = (int32_t)(rng_at(seed, stream, i) % (uint64_t)n_experts);
        n -= !keep[e];
        keep[e] = 1;
    }
}

bool pool_hide(struct nn *c, const struct moe_spec *m, const struct route_record *rec, const struct route_hook *plan,
               struct route_hook *out)
{
    const struct pool_spec *p = &m->pool;
    const int32_t n = m->n_experts, own = p->layers > 1 ? n / p->layers : n;
    const int32_t seen = p->layers > 1 && c->tape ? pool_visible(p, n, c->step) : n;
    *out = plan ? *plan : (struct route_hook){ 0 };
    if (seen == n) return true;
    uint8_t *keep = arena_push_zero(c->arena, (size_t)n);
    if (!keep) return false;
    const uint64_t place = (uint64_t)rec->layer * MAX_ITERATIONS + (uint64_t)rec->iteration;
    const bool local = p->mask == POOL_LOCAL_FIRST;
    if (local) memset(keep + p->at * own, 1, (size_t)own);
    keep_some(keep, n, local ? seen - own : seen, c->seed, rng_stream(RNG_ROUTE, place << 40 ^ c->step));
    *out = (struct route_hook){ keep, 0 };
    for (int32_t e = 0; e < n; e++) {
        if (plan && plan->keep && !plan->keep[e]) keep[e] = 0;
        out->n_kept += keep[e];
    }
    return true;
}

coe_status pool_check(const struct moe_spec *m, const char *where)
{
    const struct pool_spec *p = &m->pool;
    if (p->layers <= 1) return COE_OK;
    const int32_t own = m->n_experts / p->layers;
    if (m->n_experts % p->layers)
        return coe_fail(COE_E_INPUT, "%s: %d experts in a pool of %d layers", where, m->n_experts, p->layers);
    if (m->n_ranges || m->n_identity || m->n_null)
        return coe_fail(COE_E_INPUT, "%s: a pool of layers shares feed-forward experts only", where);
    if (m->router.n_group > 1)
        return coe_fail(COE_E_INPUT,
                        "%s: a pool of layers whose experts stand in groups: the schedule would leave groups of "
                        "different sizes",
                        where);
    if (p->to < p->from || (p->to > 0 && m->router.top_k > own))
        return coe_fail(COE_E_INPUT, "%s: a pool seen from step %d to %d with top_k %d of %d own experts", where,
                        p->from, p->to, m->router.top_k, own);
    return COE_OK;
}

COE_PART(layer, pool, .summary = "neighbouring layers route among the experts of all of them", .paper = "ReXMoE, 2025",
         .card = "routing.md 7", .unit = "token")
