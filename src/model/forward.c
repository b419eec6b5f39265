/* forward.c — the one forward pass: training, inference, tracing and planning run this.
 *
 *   h = embed(ids);  for each layer:  h += mixer(norm(h));  h = ffn or MoE layer of norm(h) with its residual
 *   logits = head(norm(h))
 * Everything a family does differently is a field of the spec. Without a tape the arena is rewound after every mixer
 * and every layer: buffers hold the stream. */
#include <string.h>

#include "model/pass.h"

static struct val *norm(struct pass *p, int32_t l, enum slot weight, enum slot bias, struct val *x)
{
    const struct spec *s = &p->m->spec;
    const struct weight *const *slot = l < 0 ? p->m->slot : p->m->layer[l].slot;
    const float eps = l < 0 ? s->final_norm_eps : s->norm_eps;
    if (s->norm == NORM_LAYER) return nn_layernorm(p->c, x, slot[weight], slot[bias], eps);
    return nn_rmsnorm(p->c, x, slot[weight], s->norm_add, eps);
}

static struct val *dense_ffn(struct pass *p, int32_t l, struct val *x)
{
    const struct layer_spec *s = &p->m->spec.layer[l];
    const struct weight *const *w = p->m->layer[l].slot;
    struct nn *c = p->c;
    struct val *up = pass_linear(p, l, x, 5, w[SLOT_UP_BIAS]);
    struct val *u = s->ungated ? nn_act(c, s->act, up, NULL)
                               : nn_act(c, s->act, pass_linear(p, l, x, 4, w[SLOT_GATE_BIAS]), up);
    return u ? pass_linear(p, l, u, 6, w[SLOT_DOWN_BIAS]) : NULL;
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

static const struct route_hook *hook_of(const struct pass *p, int32_t l)
{
    return p->m->hook && p->m->hook[l].keep ? &p->m->hook[l] : NULL;
}

/* A MoE whose output joins the stream later, with a dense network in its place. */
static struct val *beside(struct pass *p, int32_t l, struct val *x, struct val **later)
{
    p->moe.kv = p->f->kv ? p->f->kv + (int64_t)l * p->f->batch->n_seq : NULL;
    struct val *y = moe_output(&p->moe, &p->m->spec.layer[l].moe, &p->m->layer[l].moe, hook_of(p, l), l, x);
    if (!y) return NULL;
    if (p->c->tape) *later = y;
    else memcpy((*later)->data, y->data, (size_t)(y->rows * y->cols) * sizeof(float));
    return dense_ffn(p, l, x);
}

/* h where nothing else is, and the arena back at the mark. NULL stays NULL. */
static struct val *move(struct pass *p, struct arena_mark mark, struct val *to, struct val *h)
{
    if (!h) return NULL;
    memcpy(to->data, h->data, (size_t)(h->rows * h->cols) * sizeof(float));
    val_changed(to);
    arena_rewind(p->c->arena, mark);
    return to;
}

/* Whether all but h may go once the mixer is done: a router may still want its queries and keys. */
static bool mixer_leaves_nothing(const struct pass *p, const struct layer_spec *s)
{
    const struct router_part *r = s->is_moe ? moe_router(&s->moe) : NULL;
    return !p->c->tape && !(r && r->sees_attention);
}

static struct val *layer(struct pass *p, int32_t l, struct val *h, struct val **later)
{
    const struct arena_mark mark = arena_save(p->c->arena);
    const struct layer_spec *s = &p->m->spec.layer[l];
    struct post after_attn = { p, l, SLOT_ATTN_POST_NORM }, after_ffn = { p, l, SLOT_FFN_POST_NORM };
    struct val *x = s->pre_norm ? norm(p, l, SLOT_ATTN_NORM, SLOT_ATTN_NORM_BIAS, h) : h;
    h = nn_add(p->c, h, behind(p->c, &after_attn, pass_mix(p, l, x)));
    if (mixer_leaves_nothing(p, s)) h = move(p, mark, p->middle, h);
    if (!h) return NULL;
    x = s->pre_norm ? norm(p, l, SLOT_FFN_NORM, SLOT_FFN_NORM_BIAS, h) : h;
    if (s->dense_beside) return nn_add(p->c, h, behind(p->c, &after_ffn, beside(p, l, x, later)));
    if (!s->is_moe) return nn_add(p->c, h, behind(p->c, &after_ffn, dense_ffn(p, l, x)));
    p->moe.kv = p->f->kv ? p->f->kv + (int64_t)l * p->f->batch->n_seq : NULL;
    const bool plain = !s->post_norm && p->m->spec.residual_scale == 1 && !(p->c->tape && p->c->dropout > 0);
    return moe_layer(&p->moe, &s->moe, &p->m->layer[l].moe, hook_of(p, l), l, h, x, plain ? NULL : behind, &after_ffn);
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

static const struct {
    const char *name;
    enum dtype type;
} kv_types[] = {
    [COE_KV_F32] = { "f32", DT_F32 }, [COE_KV_F16] = { "f16", DT_F16 }, [COE_KV_Q8_0] = { "q8_0", DT_Q8_0 }
};

const char *model_kv_name(coe_kv type) { return kv_types[type].name; }
bool model_kv_by_name(coe_kv *type, const char *name)
{
    for (size_t i = 0; i < COE_COUNT(kv_types); i++) {
        *type = (coe_kv)i;
        if (!strcmp(kv_types[i].name, name)) return true;
    }
    return false;
}
enum dtype model_kv_dtype(coe_kv type) { return kv_types[type].type; }

const char *model_mla_name(const struct coe_model *m, coe_mla mla)
{
    for (int32_t l = 0; l < m->spec.n_layers; l++)
        if (m->spec.layer[l].attn.kind == MIX_LATENT) return mla == COE_MLA_EXPANDED ? "expanded" : "absorbed";
    return NULL;
}

int32_t model_n_records(const struct coe_model *m)
{
    int32_t n = 0;
    for (int32_t l = 0; l < m->spec.n_layers; l++) {
        if (m->spec.layer[l].attn.kind == MIX_EXPERTS) n++;
        if (m->spec.layer[l].is_moe) n += m->spec.layer[l].moe.chain.n_iterations;
    }
    return n;
}

coe_status model_check_task(const struct coe_model *m, int32_t task)
{
    const int32_t n = spec_tasks(&m->spec);
    if (task >= 0 && task < COE_MAX(n, 1)) return COE_OK;
    if (!n) return coe_fail(COE_E_USAGE, "%s: task %d, but no router of the model tells tasks apart", m->path, task);
    return coe_fail(COE_E_USAGE, "%s: task %d; the model knows tasks 0 … %d", m->path, task, n - 1);
}

coe_status model_check_length(const struct coe_model *m, int64_t length)
{
    for (int32_t l = 0; l < m->spec.n_layers; l++) {
        const int64_t limit = m->spec.layer[l].attn.rope.limit;
        if (limit && length > limit)
            return coe_fail(COE_E_USAGE,
                            "%s: a sequence of %lld tokens: rope scaling 'dynamic' changes with every token beyond "
                            "%lld, which this program does not follow",
                            m->path, (long long)length, (long long)limit);
    }
    return COE_OK;
}

static coe_status check_input(const struct coe_model *m, const int32_t *ids, int64_t n, const int64_t *position)
{
    for (int64_t t = 0; t < n; t++) {
        if (ids[t] < 0 || ids[t] >= m->spec.vocab)
            return coe_fail(COE_E_USAGE, "token id %d at position %lld is outside the vocabulary of %d", ids[t],
                            (long long)t, m->spec.vocab);
        if (m->spec.learned_positions && position[t] >= m->spec.max_positions)
            return coe_fail(COE_E_USAGE, "position %lld of a model with %lld learned positions", (long long)position[t],
                            (long long)m->spec.max_positions);
    }
    return COE_OK;
}

/* What enters layer 0 */
static struct val *embed(struct pass *p, const int32_t *ids, int64_t n)
{
    const struct spec *s = &p->m->spec;
    struct val *h = nn_scale(p->c, nn_embed(p->c, ids, n, p->m->slot[SLOT_EMBED]), s->embed_scale);
    if (s->learned_positions) {
        int32_t *at = arena_push(p->c->arena, (size_t)n * sizeof *at);
        for (int64_t t = 0; at && t < n; t++) at[t] = (int32_t)p->position[t];
        h = at ? nn_add(p->c, h, nn_embed(p->c, at, n, p->m->slot[SLOT_POSITIONS])) : NULL;
    }
    return nn_dropout(p->c, h);
}

/* Runs the layers. `later` keeps an output that joins later. */
static struct val *layers(struct pass *p, struct val *h, struct val *later)
{
    const struct spec *s = &p->m->spec;
    int32_t joins = -1;
    for (int32_t l = 0; l < s->n_layers && h; l++) {
        if (p->f->hidden && l % s->layers_per_block == 0) p->f->hidden(p->f->hidden_user, l / s->layers_per_block, h);
        if (p->m->inv_freq[l] && !pass_rope(p, l)) return NULL; /* before the mark: it outlives the layer */
        struct arena_mark mark = arena_save(p->c->arena);
        if (s->layer[l].dense_beside) joins = l + s->layer[l].moe_joins;
        h = layer(p, l, h, &later);
        if (l == joins) h = nn_add(p->c, h, later);
        if (!p->c->tape) h = move(p, mark, p->stream, h);
    }
    return h;
}

static bool anything_later(const struct spec *s)
{
    for (int32_t l = 0; l < s->n_layers; l++)
        if (s->layer[l].dense_beside) return true;
    return false;
}

struct val *model_forward(const struct coe_model *m, struct nn *c, const int32_t *ids, int64_t n, struct forward *f)
{
    const struct spec *s = &m->spec;
    assert(n == f->batch->off[f->batch->n_seq]);
    struct pass p = { .m = m,
                      .c = c,
                      .f = f,
                      .position = positions(c, f->batch),
                      .moe = { .c = c,
                               .executor = f->executor ? f->executor : &executor_local,
                               .observer = f->observer,
                               .records = f->records,
                               .max_records = f->max_records,
                               .batch = f->batch,
                               .task = f->task,
                               .task_of_all = m->task } };
    if (!p.position || check_input(m, ids, n, p.position)) return NULL;
    for (int32_t i = 0; i < f->batch->n_seq; i++)
        if (model_check_length(m, f->batch->pos0[i] + f->batch->off[i + 1] - f->batch->off[i])) return NULL;
    const int64_t carries = c->tape ? 0 : spec_carries(s);
    if (carries && !(p.moe.carry_room = arena_push(c->arena, (size_t)(n * carries) * sizeof(float)))) return NULL;
    struct val *later = !c->tape && anything_later(s) ? nn_val(c, n, s->d_model) : NULL;
    if (!c->tape && (!(p.stream = nn_val(c, n, s->d_model)) || !(p.middle = nn_val(c, n, s->d_model)))) return NULL;
    if (!c->tape && anything_later(s) && !later) return NULL;
    const struct arena_mark mark = arena_save(c->arena);
    struct val *h = embed(&p, ids, n);
    if (!c->tape) h = move(&p, mark, p.stream, h);
    if (!h) return NULL;
    h = layers(&p, h, later);
    f->n_records = p.moe.n_records;
    if (h && f->hidden) f->hidden(f->hidden_user, s->n_layers / s->layers_per_block, h);
    return head(&p, h);
}
