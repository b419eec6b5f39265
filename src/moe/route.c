/* route.c — making and indexing a route. */
#include "moe/route.h"

#include <string.h>

coe_status route_make(struct route *r, struct arena *a, int32_t n_tokens, int32_t n_experts, int64_t cap_slots,
                      bool gradients)
{
    if (cap_slots > INT32_MAX)
        return coe_fail(COE_E_NOMEM, "a route of %lld slots; use smaller batches", (long long)cap_slots);
    const size_t slots = (size_t)cap_slots * sizeof(int32_t);
    *r = (struct route){ .n_tokens = n_tokens, .n_experts = n_experts, .cap_slots = (int32_t)cap_slots };
    r->tok_off = arena_push(a, ((size_t)n_tokens + 1) * sizeof(int32_t));
    r->off = arena_push(a, ((size_t)n_experts + 1) * sizeof(int32_t));
    int32_t **const ints[] = { &r->expert, &r->row_token, &r->row_slot, &r->slot_row };
    for (size_t i = 0; i < COE_COUNT(ints); i++)
        if (!(*ints[i] = arena_push(a, slots))) return COE_E_NOMEM;
    r->weight = arena_push(a, slots);
    r->score = arena_push(a, slots);
    if (gradients) r->weight_grad = arena_push_zero(a, slots);
    if (!r->tok_off || !r->off || !r->weight || !r->score || (gradients && !r->weight_grad)) return COE_E_NOMEM;
    r->tok_off[0] = 0;
    return COE_OK;
}

static void swap_slots(struct route *r, int32_t a, int32_t b)
{
    int32_t e = r->expert[a];
    float w = r->weight[a], s = r->score[a];
    r->expert[a] = r->expert[b], r->weight[a] = r->weight[b], r->score[a] = r->score[b];
    r->expert[b] = e, r->weight[b] = w, r->score[b] = s;
}

/* Insertion sort: k is small and the slots nearly sorted. */
static void sort_slots(struct route *r, int32_t from, int32_t end)
{
    for (int32_t i = from + 1; i < end; i++)
        for (int32_t j = i; j > from; j--) {
            bool before = r->weight[j] > r->weight[j - 1] ||
                          (r->weight[j] == r->weight[j - 1] && r->expert[j] < r->expert[j - 1]);
            if (!before) break;
            swap_slots(r, j, j - 1);
        }
}

void route_index(struct route *r)
{
    memset(r->off, 0, ((size_t)r->n_experts + 1) * sizeof *r->off);
    for (int32_t t = 0; t < r->n_tokens; t++) sort_slots(r, r->tok_off[t], r->tok_off[t + 1]);
    for (int32_t i = 0; i < r->n_slots; i++) r->off[r->expert[i] + 1]++;
    for (int32_t e = 0; e < r->n_experts; e++) r->off[e + 1] += r->off[e];
    /* off[e] serves as the cursor of expert e and is moved back afterwards */
    for (int32_t t = 0; t < r->n_tokens; t++)
        for (int32_t i = r->tok_off[t]; i < r->tok_off[t + 1]; i++) {
            int32_t row = r->off[r->expert[i]]++;
            r->row_token[row] = t;
            r->row_slot[row] = i;
            r->slot_row[i] = row;
        }
    for (int32_t e = r->n_experts; e > 0; e--) r->off[e] = r->off[e - 1];
    r->off[0] = 0;
}
