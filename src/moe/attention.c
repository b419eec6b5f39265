/* attention.c — mixture of attention heads as in JetMoE.
 *
 * Paper: JetMoE: Reaching Llama2 Performance with 0.1M Dollars, 2024. Each token's router chooses k experts; expert e
 * gives the token n_kv query heads q = W_in[e] x, head h of every expert reads key head h, and W_out[e] maps that
 * expert's heads back; the results are weighted and added in ascending expert id, then a bias. */
#include <string.h>

#include "moe/attention.h"

/* Head h of the token's j-th slot stands at h*k + j, so that consecutive heads share key head h. */
static void slots_to_heads(const struct route *r, float *heads, float *rows, int32_t n_kv, int64_t hd, int32_t k,
                           bool back)
{
    for (int32_t t = 0; t < r->n_tokens; t++)
        for (int32_t j = 0; j < k; j++)
            for (int32_t h = 0; h < n_kv; h++) {
                float *head = heads + ((int64_t)(t * n_kv + h) * k + j) * hd;
                float *row = rows + ((int64_t)r->slot_row[r->tok_off[t] + j] * n_kv + h) * hd;
                memcpy(back ? row : head, back ? head : row, (size_t)hd * sizeof(float));
            }
}

static void add_outputs(const struct route *r, const float *rows, struct val *y)
{
    const int64_t d = y->cols;
    memset(y->data, 0, (size_t)(y->rows * d) * sizeof(float));
    for (int32_t row = 0; row < r->n_slots; row++) /* rows ascend by expert: each token adds in that order */
        kern->fma_row(y->data + r->row_token[row] * d, r->weight[r->row_slot[row]], rows + row * d, d);
}

static struct route_record *route(struct moe_pass *p, const struct moe_attention_call *call, struct val *x)
{
    struct route_record *rec = moe_route_attention(p->c, call->spec, call->w->router[0], call->layer, p->batch, x);
    if (!rec) return NULL;
    if (p->records && p->n_records < p->max_records) p->records[p->n_records++] = rec;
    if (p->observer && p->observer->route) p->observer->route(p->observer->user, rec);
    return rec;
}

struct val *moe_attention(struct moe_pass *p, const struct moe_attention_call *call, struct val *x, struct val *k,
                          struct val *v)
{
    struct nn *c = p->c;
    if (!x || !k || !v || nn_forward_only(c, "attention with experts")) return NULL;
    struct route_record *rec = route(p, call, x);
    if (!rec) return NULL;
    const struct route *r = &rec->route;
    const int32_t n_kv = call->shape.n_kv_heads, chosen = call->spec->router.top_k;
    const int64_t hd = call->shape.head_dim, width = n_kv * hd, d = x->cols;
    const struct groups g = { r->n_experts, r->off };
    float *rows = arena_push(c->arena, (size_t)(r->n_slots * COE_MAX(width, d)) * sizeof(float));
    struct val *out = nn_val(c, r->n_slots, width);
    struct val *q = nn_val(c, x->rows, chosen * width), *y = nn_val(c, x->rows, d);
    if (!rows || !out || !q || !y) return NULL;
    if (!nn_grouped(c, rows, width, x, r->row_token, g, call->w->gate)) return NULL;
    slots_to_heads(r, q->data, rows, n_kv, hd, chosen, false);
    const struct moe_rope *rope = &call->rope;
    if (rope->half && !nn_rope(c, q, (int32_t)hd, rope->cos, rope->sin, rope->half, rope->interleaved)) return NULL;
    struct attn_shape shape = call->shape;
    shape.n_heads = chosen * n_kv;
    struct val *o = nn_attention(c, q, k, v, &shape, call->batch, call->kv);
    if (!o) return NULL;
    slots_to_heads(r, o->data, out->data, n_kv, hd, chosen, true);
    if (!nn_grouped(c, rows, d, out, NULL, g, call->w->down)) return NULL;
    add_outputs(r, rows, y);
    return call->spec->out_bias ? nn_add_row(c, y, call->w->out_bias) : y;
}
