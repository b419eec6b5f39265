/* experts.c — the experts of a layer as ranges of kinds, and the executor that runs them in memory.
 *
 *     "experts": [ { "kind": "ffn", "n": 8 }, { "kind": "copy", "n": 1 }, { "kind": "null", "n": 1 } ]
 *
 * Ranges run in order, each adding to the layer's output, so that a token's experts are one chain in ascending id
 * whatever their kinds. */
#include <string.h>

#include "moe/moe.h"

extern const struct part coe_part_expert_ffn, coe_part_expert_copy, coe_part_expert_null;

/* Without a list: kind ffn, then copies, then nulls. */
static int32_t from_counts(const struct moe_spec *m, struct expert_range *out)
{
    const struct part *const part[] = { &coe_part_expert_ffn, &coe_part_expert_copy, &coe_part_expert_null };
    const int32_t count[] = { m->n_experts - m->n_identity - m->n_null, m->n_identity, m->n_null };
    int32_t n = 0;
    for (int32_t i = 0, first = 0; i < 3; first += count[i++])
        if (count[i] > 0)
            out[n++] = (struct expert_range){ .kind = part[i]->name, .n = count[i], .ffn = i ? 0 : m->expert_ffn,
                                              .first = first, .part = part[i] };
    return n;
}

int32_t moe_ranges(const struct moe_spec *m, struct expert_range out[MAX_RANGES])
{
    if (!m->n_ranges) return from_counts(m, out);
    for (int32_t i = 0, first = 0; i < m->n_ranges; first += m->range[i++].n) {
        out[i] = m->range[i];
        out[i].first = first;
        out[i].index = i;
        out[i].part = part_find("expert", out[i].kind);
    }
    return m->n_ranges;
}

int32_t moe_weighted(const struct moe_spec *m)
{
    struct expert_range r[MAX_RANGES];
    int32_t e = 0;
    for (int32_t i = 0, n = moe_ranges(m, r); i < n && moe_kind(&r[i])->matrices; i++) e += r[i].n;
    return e;
}

const struct expert_part *moe_kind(const struct expert_range *r) { return r->part->impl; }

struct expert_range moe_range_of(const struct moe_spec *m, int32_t expert)
{
    struct expert_range r[MAX_RANGES];
    const int32_t n = moe_ranges(m, r);
    int32_t i = 0;
    while (i < n - 1 && expert >= r[i].first + r[i].n) i++;
    return r[i];
}

void moe_mark_null(const struct moe_spec *m, uint8_t *out)
{
    struct expert_range r[MAX_RANGES];
    for (int32_t i = 0, n = moe_ranges(m, r); i < n; i++)
        memset(out + r[i].first, moe_kind(&r[i])->null, (size_t)r[i].n);
}

void moe_mark_idle(const struct moe_spec *m, uint8_t *out)
{
    struct expert_range r[MAX_RANGES];
    for (int32_t i = 0, n = moe_ranges(m, r); i < n; i++)
        memset(out + r[i].first, moe_kind(&r[i])->idle, (size_t)r[i].n);
}

bool moe_has_null(const struct moe_spec *m)
{
    struct expert_range r[MAX_RANGES];
    bool any = false;
    for (int32_t i = 0, n = moe_ranges(m, r); i < n; i++) any = any || moe_kind(&r[i])->null;
    return any;
}

int64_t moe_state_at(const struct moe_spec *m, int32_t iteration, int32_t range)
{
    struct expert_range r[MAX_RANGES];
    int64_t each = 0, before = 0;
    for (int32_t i = 0, n = moe_ranges(m, r); i < n; i++) {
        const struct expert_part *kind = moe_kind(&r[i]);
        if (i == range) before = each;
        each += kind->state ? kind->state(&r[i]) : 0;
    }
    return iteration * each + before;
}

static coe_status run(struct executor *self, struct nn *c, struct expert_call *call)
{
    struct expert_range r[MAX_RANGES];
    (void)self;
    for (int32_t i = 0, n = moe_ranges(call->spec, r); i < n; i++)
        if (moe_kind(&r[i])->run) COE_TRY(moe_kind(&r[i])->run(c, call, &r[i]));
    return COE_OK;
}

struct executor executor_local = { .name = "local", .run = run };
