/* pick.c — see pick.h. */
#include "moe/selection/pick.h"

#include <math.h>

/* Insertion into a short sorted list, ascending ids so that a tie keeps the earlier one in front. */
int32_t pick_best(const float *s, int32_t n, int32_t k, int32_t *best)
{
    int32_t have = 0;
    for (int32_t e = 0; e < n; e++) {
        if (s[e] == -INFINITY) continue;
        int32_t at = have;
        while (at > 0 && s[e] > s[best[at - 1]]) at--;
        if (at == k) continue;
        if (have < k) have++;
        for (int32_t i = have - 1; i > at; i--) best[i] = best[i - 1];
        best[at] = e;
    }
    return have;
}

int32_t pick_sorted(const float *s, int32_t n, int32_t *order) { return pick_best(s, n, n, order); }

bool pick_sequence(const struct route_record *rec, int32_t i, int32_t *from, int32_t *end)
{
    const struct attn_batch *b = rec->batch;
    if (i >= (b ? b->n_seq : 1)) return false;
    *from = b ? b->off[i] : 0;
    *end = b ? b->off[i + 1] : (int32_t)rec->z->rows;
    return true;
}

int64_t pick_position(const struct route_record *rec, int32_t i, int32_t t)
{
    const struct attn_batch *b = rec->batch;
    return b ? (b->pos0 ? b->pos0[i] : 0) + t - b->off[i] : t;
}

int64_t pick_all_slots(const struct router_spec *r, int32_t n_tokens, int32_t n_experts)
{
    (void)r;
    return (int64_t)n_tokens * n_experts;
}

int64_t pick_top_k_slots(const struct router_spec *r, int32_t n_tokens, int32_t n_experts)
{
    return (int64_t)n_tokens * COE_MIN(r->top_k, n_experts);
}
