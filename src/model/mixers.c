/* mixers.c — how a layer mixes tokens: one function for each kind in the spec. */
#include <math.h>

#include "model/pass.h"
#include "moe/attention.h"

static struct kv_layer *cache(const struct pass *p, int32_t l)
{
    return p->f->kv ? p->f->kv + (int64_t)l * p->f->batch->n_seq : NULL;
}

/* A LongRoPE, sequence by sequence: beyond the original length every position turns by the other factors. */
static void fill_by_length(const struct pass *p, int32_t l, int32_t half, float *cos, float *sin)
{
    const struct attn_batch *b = p->f->batch;
    const struct coe_model *m = p->m;
    for (int32_t i = 0; i < b->n_seq; i++) {
        const int64_t from = b->off[i], n = b->off[i + 1] - from;
        const bool far = p->f->far ? p->f->far[i] : b->pos0[i] + n > m->spec.layer[l].attn.rope.original_positions;
        rope_fill(far ? m->far_inv_freq[l] : m->inv_freq[l], far ? m->far_factor[l] : m->rope_factor[l], half,
                  p->position + from, n, cos + from * half, sin + from * half);
    }
}

bool pass_rope(struct pass *p, int32_t l)
{
    const int32_t half = p->m->spec.layer[l].attn.rope.n_rot / 2;
    const int64_t n = p->f->batch->off[p->f->batch->n_seq];
    if (p->rope_of == p->m->inv_freq[l]) return true;
    float *cos = arena_push(p->c->arena, (size_t)(n * half) * sizeof(float)),
          *sin = arena_push(p->c->arena, (size_t)(n * half) * sizeof(float));
    if (!cos || !sin) return false;
    if (p->m->far_inv_freq[l]) fill_by_length(p, l, half, cos, sin);
    else rope_fill(p->m->inv_freq[l], p->m->rope_factor[l], half, p->position, n, cos, sin);
    p->cos = cos, p->sin = sin, p->rope_of = p->m->inv_freq[l];
    return true;
}

/* Rotates the first part of every head, if the layer has a rope. */
static struct val *rotate(struct pass *p, int32_t l, struct val *x, int32_t head_dim)
{
    const struct rope_spec *r = &p->m->spec.layer[l].attn.rope;
    if (!x || r->kind == ROPE_NONE) return x;
    return pass_rope(p, l) && nn_rope(p->c, x, head_dim, p->cos, p->sin, r->n_rot / 2, r->interleaved) ? x : NULL;
}

static struct val *prepare_qk(struct pass *p, int32_t l, struct val *x, enum slot norm_slot)
{
    const struct spec *s = &p->m->spec;
    const struct attn_spec *a = &s->layer[l].attn;
    const struct weight *norm = a->qk_norm != QK_NORM_NONE ? p->m->layer[l].slot[norm_slot] : NULL;
    if (norm && !a->norm_after_rope) x = nn_rmsnorm(p->c, x, norm, s->norm_add, s->norm_eps);
    if (a->clip > 0) x = nn_clamp(p->c, x, a->clip);
    x = rotate(p, l, x, a->head_dim);
    return norm && a->norm_after_rope ? nn_rmsnorm(p->c, x, norm, s->norm_add, s->norm_eps) : x;
}

/* Longer contexts get sharper queries (Llama 4). */
static struct val *temper(struct pass *p, const struct attn_spec *a, struct val *q)
{
    if (!q || a->temper == 0) return q;
    float *s = arena_push(p->c->arena, (size_t)q->rows * sizeof *s);
    for (int64_t t = 0; s && t < q->rows; t++)
        s[t] = 1 + a->temper * fm_log(1 + floorf((float)(p->position[t] + 1) / a->temper_floor));
    return s ? nn_scale_rows(p->c, q, s) : NULL;
}

static struct attn_shape plain_shape(const struct pass *p, const struct attn_spec *a, const struct weight *sink)
{
    return (struct attn_shape){ .n_heads = a->n_heads,
                                .n_kv_heads = a->n_kv_heads,
                                .head_dim = a->head_dim,
                                .head_dim_v = a->head_dim,
                                .scale = a->scale,
                                .cap = a->cap,
                                .window = a->window,
                                .chunk = a->chunk,
                                .kv = model_kv_dtype(p->f->kv_type),
                                .sink = sink };
}

static struct val *attention(struct pass *p, int32_t l, struct val *x)
{
    const struct attn_spec *a = &p->m->spec.layer[l].attn;
    const struct weight *const *w = p->m->layer[l].slot;
    struct nn *c = p->c;
    struct val *q = pass_linear(p, l, x, 0, w[SLOT_Q_BIAS]), *k = pass_linear(p, l, x, 1, w[SLOT_K_BIAS]);
    struct val *v = pass_linear(p, l, x, 2, w[SLOT_V_BIAS]), *gate = NULL;
    if (a->gate == ATTN_GATE_OWN) gate = nn_linear(c, x, w[SLOT_ATTN_GATE], NULL);
    if (a->gate == ATTN_GATE_IN_Q) {
        const struct columns query = { 0, a->head_dim }, own = { a->head_dim, a->head_dim };
        gate = nn_columns(c, q, 2 * (int64_t)a->head_dim, &own, 1);
        q = nn_columns(c, q, 2 * (int64_t)a->head_dim, &query, 1);
    }
    if (a->clip > 0) v = nn_clamp(c, v, a->clip);
    q = temper(p, a, prepare_qk(p, l, q, SLOT_Q_NORM));
    k = prepare_qk(p, l, k, SLOT_K_NORM);
    const struct attn_shape shape = plain_shape(p, a, a->sinks ? w[SLOT_SINK] : NULL);
    struct val *o = nn_attention(c, q, k, v, &shape, p->f->batch, cache(p, l));
    p->moe.attention = (struct moe_attention_seen){ q, k, shape };
    if (a->gate != ATTN_GATE_NONE) o = nn_sigmoid_mul(c, o, gate);
    return o ? pass_linear(p, l, o, 3, w[SLOT_O_BIAS]) : NULL;
}

/* One key head for all: keys are [rope | latent], values the latent. */
static struct val *absorbed(struct pass *p, int32_t l, struct val *q, struct val *key, struct val *v,
                            const struct latent_shape *s)
{
    const struct attn_spec *a = &p->m->spec.layer[l].attn;
    const struct weight *kv_b = p->m->layer[l].slot[SLOT_KV_B];
    const int32_t width = s->rope + s->rank;
    const struct attn_shape shape = { .n_heads = s->n_heads,
                                      .n_kv_heads = 1,
                                      .head_dim = width,
                                      .head_dim_v = s->rank,
                                      .scale = a->scale,
                                      .window = a->window,
                                      .kv = model_kv_dtype(p->f->kv_type) };
    q = rotate(p, l, nn_latent_query(p->c, q, kv_b, s), width);
    struct val *k = rotate(p, l, nn_join(p->c, key, v), width);
    return nn_latent_output(p->c, nn_attention(p->c, q, k, v, &shape, p->f->batch, cache(p, l)), kv_b, s);
}

/* Keys [rope | nope] and values of every head, made from the latent */
static struct val *expanded(struct pass *p, int32_t l, struct val *q, struct val *key, struct val *v,
                            const struct latent_shape *s)
{
    const struct attn_spec *a = &p->m->spec.layer[l].attn;
    const int32_t width = s->rope + s->nope;
    const struct columns of_rope = { s->nope, s->rope }, of_nope = { 0, s->nope }, of_value = { s->nope, s->v_dim };
    const struct attn_shape shape = { .n_heads = s->n_heads,
                                      .n_kv_heads = s->n_heads,
                                      .head_dim = width,
                                      .head_dim_v = s->v_dim,
                                      .scale = a->scale,
                                      .window = a->window,
                                      .kv = model_kv_dtype(p->f->kv_type) };
    struct val *own = nn_columns(p->c, q, width, &of_rope, 1);
    q = rotate(p, l, nn_latent_heads(p->c, own, nn_columns(p->c, q, width, &of_nope, 1), s), width);
    struct val *kv = nn_linear(p->c, v, p->m->layer[l].slot[SLOT_KV_B], NULL);
    struct val *nope = nn_columns(p->c, kv, s->nope + s->v_dim, &of_nope, 1);
    struct val *k = rotate(p, l, nn_latent_heads(p->c, key, nope, s), width);
    v = nn_columns(p->c, kv, s->nope + s->v_dim, &of_value, 1);
    return nn_attention(p->c, q, k, v, &shape, p->f->batch, cache(p, l));
}

static struct val *latent(struct pass *p, int32_t l, struct val *x)
{
    const struct attn_spec *a = &p->m->spec.layer[l].attn;
    const struct latent_spec *m = &a->latent;
    const struct weight *const *w = p->m->layer[l].slot;
    struct nn *c = p->c;
    const int32_t rope = a->rope.n_rot, width = rope + m->kv_rank;
    const struct latent_shape shape = { a->n_heads, m->nope, rope, m->v_dim, m->kv_rank };
    struct val *q = m->q_rank ? nn_linear(c, x, w[SLOT_Q_A], w[SLOT_Q_A_BIAS]) : x;
    if (m->q_rank) q = nn_rmsnorm(c, q, w[SLOT_Q_A_NORM], 0, m->eps);
    q = nn_linear(c, q, w[SLOT_Q], NULL);
    struct val *both = nn_linear(c, x, w[SLOT_KV_A], w[SLOT_KV_A_BIAS]);
    const struct columns of_latent = { 0, m->kv_rank }, of_key = { m->kv_rank, rope };
    struct val *v = nn_rmsnorm(c, nn_columns(c, both, width, &of_latent, 1), w[SLOT_KV_A_NORM], 0, m->eps);
    v = nn_scale(c, v, m->kv_scale);
    struct val *key = nn_columns(c, both, width, &of_key, 1);
    struct val *o = (p->f->mla == COE_MLA_EXPANDED ? expanded : absorbed)(p, l, q, key, v, &shape);
    return nn_linear(c, o, w[SLOT_O], w[SLOT_O_BIAS]);
}

/* LFM2: [B | C | x] = in(h);  out(C ⊙ conv(B ⊙ x)) */
static struct val *convolution(struct pass *p, int32_t l, struct val *x)
{
    const struct weight *const *w = p->m->layer[l].slot;
    struct nn *c = p->c;
    const int64_t d = p->m->spec.d_model;
    const struct columns b = { 0, d }, out = { d, d }, in = { 2 * d, d };
    struct val *all = nn_linear(c, x, w[SLOT_CONV_IN], w[SLOT_CONV_IN_BIAS]);
    struct val *gated = nn_mul(c, nn_columns(c, all, 3 * d, &b, 1), nn_columns(c, all, 3 * d, &in, 1));
    struct val *y = nn_conv(c, gated, w[SLOT_CONV], w[SLOT_CONV_BIAS], p->f->batch, cache(p, l));
    return nn_linear(c, nn_mul(c, nn_columns(c, all, 3 * d, &out, 1), y), w[SLOT_O], w[SLOT_O_BIAS]);
}

/* The projections of the delta rule: *z, and [q | k | v] of all heads. */
static struct val *delta_inputs(struct pass *p, int32_t l, struct val *x, struct val **z)
{
    const struct recurrent_spec *r = &p->m->spec.layer[l].attn.recurrent;
    const struct weight *const *w = p->m->layer[l].slot;
    struct nn *c = p->c;
    const int64_t dk = r->d_k, dv = (int64_t)(r->n_v / r->n_k) * r->d_v, group = 2 * dk + 2 * dv;
    const struct columns qkv[] = { { 0, dk }, { dk, dk }, { 2 * dk, dv } }, z_of = { 2 * dk + dv, dv };
    if (r->ungrouped) {
        *z = nn_linear(c, x, w[SLOT_DELTA_Z], NULL);
        return nn_linear(c, x, w[SLOT_DELTA_QKV], NULL);
    }
    struct val *all = nn_linear(c, x, w[SLOT_DELTA_QKVZ], NULL);
    *z = nn_columns(c, all, group, &z_of, 1);
    return nn_columns(c, all, group, qkv, 3);
}

/* Qwen3-Next; b and a come grouped by key head. */
static struct val *delta(struct pass *p, int32_t l, struct val *x)
{
    const struct recurrent_spec *r = &p->m->spec.layer[l].attn.recurrent;
    const struct weight *const *w = p->m->layer[l].slot;
    struct nn *c = p->c;
    const int64_t share = r->n_v / r->n_k;
    const struct columns ba_of[] = { { 0, share }, { share, share } };
    struct val *z, *qkv = delta_inputs(p, l, x, &z);
    struct val *ba = nn_columns(c, nn_linear(c, x, w[SLOT_DELTA_BA], NULL), 2 * share, ba_of, 2);
    struct val *mixed = nn_conv(c, qkv, w[SLOT_CONV], NULL, p->f->batch, cache(p, l));
    const struct delta_shape shape = { r->n_k, r->n_v, r->d_k, r->d_v, r->negative_a };
    struct val *o = nn_delta(c, nn_act(c, ACT_SILU, mixed, NULL), ba, w[SLOT_DELTA_A], w[SLOT_DELTA_DT], &shape,
                             p->f->batch, cache(p, l), nn_conv_state(w[SLOT_CONV]->rows, r->kernel));
    o = nn_rmsnorm(c, o, w[SLOT_DELTA_NORM], 0, p->m->spec.norm_eps);
    return nn_linear(c, nn_act(c, ACT_SILU, z, o), w[SLOT_O], NULL);
}

static struct val *experts(struct pass *p, int32_t l, struct val *x)
{
    const struct attn_spec *a = &p->m->spec.layer[l].attn;
    const struct layer_weights *w = &p->m->layer[l];
    const bool ropes = a->rope.kind != ROPE_NONE;
    struct val *k = prepare_qk(p, l, nn_linear(p->c, x, w->slot[SLOT_K], w->slot[SLOT_K_BIAS]), SLOT_K_NORM);
    struct val *v = nn_linear(p->c, x, w->slot[SLOT_V], w->slot[SLOT_V_BIAS]);
    if (!k || (ropes && !pass_rope(p, l))) return NULL;
    const struct moe_attention_call call = { &a->moe,
                                             &w->attn_moe,
                                             plain_shape(p, a, NULL),
                                             { p->cos, p->sin, ropes ? a->rope.n_rot / 2 : 0, a->rope.interleaved },
                                             p->f->batch,
                                             cache(p, l),
                                             l };
    return moe_attention(&p->moe, &call, x, k, v);
}

static struct val *heads(struct pass *p, int32_t l, struct val *x) { return pass_heads(p, l, x, cache(p, l)); }

struct val *pass_mix(struct pass *p, int32_t l, struct val *x)
{
    static struct val *(*const mixer[MIX_COUNT])(struct pass *, int32_t, struct val *) = { [MIX_ATTENTION] = attention,
                                                                                           [MIX_LATENT] = latent,
                                                                                           [MIX_CONV] = convolution,
                                                                                           [MIX_DELTA] = delta,
                                                                                           [MIX_EXPERTS] = experts,
                                                                                           [MIX_HEADS] = heads };
    return x ? mixer[p->m->spec.layer[l].attn.kind](p, l, x) : NULL;
}
