/* forward.c — the one forward pass: training, inference, tracing and planning run this.
 *
 *   h = embed(ids);  for each layer:  h += attention(norm(h));  h = ffn or MoE layer of norm(h) with its residual
 *   logits = head(norm(h))
 * Everything a family does differently is a field of the spec. Without a tape the arena is rewound after every layer:
 * two buffers hold the stream. */
#include <string.h>

#include "model/model.h"

struct pass {
    const struct coe_model *m;
    struct nn *c;
    struct forward *f;
    const int64_t *position;  /* [n] */
    const float *cos, *sin;   /* of the rope in use */
    const float *rope_of;     /* inv_freq they were made from */
};

static struct val *norm(struct pass *p, int32_t l, enum slot weight, enum slot bias, struct val *x)
{
    const struct spec *s = &p->m->spec;
    const struct weight *const *slot = l < 0 ? p->m->slot : p->m->layer[l].slot;
    if (s->norm == NORM_LAYER) return nn_layernorm(p->c, x, slot[weight], slot[bias], s->norm_eps);
    return nn_rmsnorm(p->c, x, slot[weight], s->norm_add, s->norm_eps);
}

static bool rope_ready(struct pass *p, int32_t l)
{
    const int32_t half = p->m->spec.layer[l].attn.rope.n_rot / 2;
    const int64_t n = p->f->batch->off[p->f->batch->n_seq];
    if (p->rope_of == p->m->inv_freq[l]) return true;
    float *cos = arena_push(p->c->arena, (size_t)(n * half) * sizeof(float)),
          *sin = arena_push(p->c->arena, (size_t)(n * half) * sizeof(float));
    if (!cos || !sin) return false;
    rope_fill(p->m->inv_freq[l], p->m->rope_factor[l], half, p->position, n, cos, sin);
    p->cos = cos, p->sin = sin, p->rope_of = p->m->inv_freq[l];
    return true;
}

static struct val *prepare_qk(struct pass *p, int32_t l, struct val *x, enum slot norm_slot)
{
    const struct spec *s = &p->m->spec;
    const struct attn_spec *a = &s->layer[l].attn;
    if (a->qk_norm != QK_NORM_NONE) x = nn_rmsnorm(p->c, x, p->m->layer[l].slot[norm_slot], s->norm_add, s->norm_eps);
    if (a->clip > 0) x = nn_clamp(p->c, x, a->clip);
    if (a->rope.kind == ROPE_NONE) return x;
    if (!x || !rope_ready(p, l) ||
        !nn_rope(p->c, x, a->head_dim, p->cos, p->sin, a->rope.n_rot / 2, a->rope.interleaved))
        return NULL;
    return x;
}

static struct val *attention(struct pass *p, int32_t l, struct val *x)
{
    const struct attn_spec *a = &p->m->spec.layer[l].attn;
    const struct weight *const *w = p->m->layer[l].slot;
    struct nn *c = p->c;
    struct val *q = nn_linear(c, x, w[SLOT_Q], w[SLOT_Q_BIAS]), *k = nn_linear(c, x, w[SLOT_K], w[SLOT_K_BIAS]);
    struct val *v = nn_linear(c, x, w[SLOT_V], w[SLOT_V_BIAS]);
    if (a->clip > 0) v = nn_clamp(c, v, a->clip);
    q = prepare_qk(p, l, q, SLOT_Q_NORM);
    k = prepare_qk(p, l, k, SLOT_K_NORM);
    const struct attn_shape shape = { a->n_heads, a->n_kv_heads, a->head_dim, a->head_dim, a->scale, a->cap, a->window,
                                      a->sinks ? w[SLOT_SINK] : NULL };
    struct kv_layer *kv = p->f->kv ? p->f->kv + (int64_t)l * p->f->batch->n_seq : NULL;
    return nn_linear(c, nn_attention(c, q, k, v, &shape, p->f->batch, kv), w[SLOT_O], w[SLOT_O_BIAS]);
}

static struct val *dense_ffn(struct pass *p, int32_t l, struct val *x)
{
    const struct layer_spec *s = &p->m->spec.layer[l];
    const struct weight *const *w = p->m->layer[l].slot;
    struct nn *c = p->c;
    struct val *up = nn_linear(c, x, w[SLOT_UP], NULL);
    struct val *u =
        s->ungated ? nn_act(c, s->act, up, NULL) : nn_act(c, s->act, nn_linear(c, x, w[SLOT_GATE], NULL), up);
    return nn_linear(c, u, w[SLOT_DOWN], NULL);
}

struct post {
    struct pass *p;
    int32_t layer;
    enum slot slot;
};

/* What is added to the stream: through the norm behind the sub-layer, scaled, dropped out. */
static struct val *behind(struct nn *c, void *user, struct val *y)
{
    const struct post *o = user;
    const struct spec *s = &o->p->m->spec;
    if (y && s->layer[o->layer].post_norm)
        y = nn_rmsnorm(c, y, o->p->m->layer[o->layer].slot[o->slot], s->norm_add, s->norm_eps);
    return nn_dropout(c, nn_scale(c, y, s->residual_scale));
}

static struct val *layer(struct pass *p, struct moe_pass *moe, int32_t l, struct val *h)
{
    const struct layer_spec *s = &p->m->spec.layer[l];
    struct post after_attn = { p, l, SLOT_ATTN_POST_NORM }, after_ffn = { p, l, SLOT_FFN_POST_NORM };
    struct val *x = s->pre_norm ? norm(p, l, SLOT_ATTN_NORM, SLOT_ATTN_NORM_BIAS, h) : h;
    h = nn_add(p->c, h, behind(p->c, &after_attn, attention(p, l, x)));
    if (!h) return NULL;
    x = s->pre_norm ? norm(p, l, SLOT_FFN_NORM, SLOT_FFN_NORM_BIAS, h) : h;
    if (!s->is_moe) return nn_add(p->c, h, behind(p->c, &after_ffn, dense_ffn(p, l, x)));
    const struct route_hook *hook = p->m->hook && p->m->hook[l].keep ? &p->m->hook[l] : NULL;
    const bool plain = !s->post_norm && p->m->spec.residual_scale == 1 && !(p->c->tape && p->c->dropout > 0);
    return moe_layer(moe, &s->moe, &p->m->layer[l].moe, hook, l, h, x, plain ? NULL : behind, &after_ffn);
}

static struct val *last_rows(struct nn *c, struct val *h, const struct attn_batch *b)
{
    struct val *out = nn_val(c, b->n_seq, h->cols);
    for (int32_t i = 0; out && i < b->n_seq; i++)
        memcpy(out->data + i * h->cols, h->data + (int64_t)(b->off[i + 1] - 1) * h->cols,
               (size_t)h->cols * sizeof(float));
    return out;
}

struct val *model_logits(const struct coe_model *m, struct nn *c, struct val *h)
{
    struct val *y = nn_scale(c, nn_linear(c, h, m->slot[SLOT_HEAD], m->slot[SLOT_HEAD_BIAS]), m->spec.logit_scale);
    return y && m->spec.logit_cap > 0 ? nn_softcap(c, y, m->spec.logit_cap) : y;
}

static struct val *head(struct pass *p, struct val *h)
{
    struct nn *c = p->c;
    if (h && p->f->last_only) {
        assert(!c->tape);
        h = last_rows(c, h, p->f->batch);
    }
    h = h ? norm(p, -1, SLOT_FINAL_NORM, SLOT_FINAL_NORM_BIAS, h) : NULL;
    return p->f->no_logits ? h : model_logits(p->m, c, h);
}

static int64_t *positions(struct nn *c, const struct attn_batch *b)
{
    int64_t *pos = arena_push(c->arena, (size_t)b->off[b->n_seq] * sizeof *pos);
    for (int32_t i = 0; pos && i < b->n_seq; i++)
        for (int64_t t = b->off[i]; t < b->off[i + 1]; t++) pos[t] = b->pos0[i] + t - b->off[i];
    return pos;
}

int32_t model_n_records(const struct coe_model *m)
{
    int32_t n = 0;
    for (int32_t l = 0; l < m->spec.n_layers; l++)
        if (m->spec.layer[l].is_moe) n += m->spec.layer[l].moe.chain.n_iterations;
    return n;
}

struct val *model_forward(const struct coe_model *m, struct nn *c, const int32_t *ids, int64_t n, struct forward *f)
{
    assert(n == f->batch->off[f->batch->n_seq]);
    for (int64_t t = 0; t < n; t++)
        if (ids[t] < 0 || ids[t] >= m->spec.vocab) {
            coe_fail(COE_E_USAGE, "token id %d at position %lld is outside the vocabulary of %d", ids[t], (long long)t,
                     m->spec.vocab);
            return NULL;
        }
    struct pass p = { .m = m, .c = c, .f = f, .position = positions(c, f->batch) };
    struct moe_pass moe = {
        c, f->executor ? f->executor : &executor_local, f->observer, f->records, 0, f->max_records
    };
    if (!p.position) return NULL;
    struct val *h = nn_scale(c, nn_embed(c, ids, n, m->slot[SLOT_EMBED]), m->spec.embed_scale);
    h = nn_dropout(c, h);
    struct val *stream = c->tape ? NULL : nn_val(c, n, m->spec.d_model);
    if (!h || (!c->tape && !stream)) return NULL;
    for (int32_t l = 0; l < m->spec.n_layers && h; l++) {
        if (f->hidden) f->hidden(f->hidden_user, l, h);
        if (m->inv_freq[l] && !rope_ready(&p, l)) return NULL; /* before the mark: it outlives the layer */
        struct arena_mark mark = arena_save(c->arena);
        h = layer(&p, &moe, l, h);
        if (!h || c->tape) continue;
        memcpy(stream->data, h->data, (size_t)(n * m->spec.d_model) * sizeof(float));
        h = stream;
        arena_rewind(c->arena, mark);
    }
    f->n_records = moe.n_records;
    if (h && f->hidden) f->hidden(f->hidden_user, m->spec.n_layers, h);
    return head(&p, h);
}
