/* twin_model.c — see twin_model.h. */
#include "support/twin_model.h"

#include <string.h>

struct twin_model twin_model_of(const struct coe_model *m, const int32_t *ids, const int32_t *target,
                                const struct attn_batch *batch)
{
    struct twin_model t = { .m = m, .ids = ids, .target = target, .batch = batch, .scale = 1 };
    t.x = test_alloc(m->n_params * sizeof *t.x);
    t.leaf = test_alloc(m->n_params * sizeof *t.leaf);
    for (size_t i = 0; i < m->n_params; i++) {
        const int64_t n = weight_count(&m->params[i].w);
        t.x[i] = test_alloc((size_t)n * sizeof **t.x);
        for (int64_t j = 0; j < n; j++) t.x[i][j] = (double)m->params[i].w.master[j];
    }
    return t;
}

static struct tv *at(const struct twin_model *t, enum slot slot, int32_t layer, int32_t expert, int32_t iteration)
{
    for (size_t i = 0; i < t->m->n_params; i++) {
        const struct place p = t->m->params[i].at;
        if (p.slot == slot && p.layer == layer && p.expert == expert && p.iteration == iteration) return t->leaf[i];
    }
    return NULL;
}

static struct tv *part_at_place(const struct twin_model *t, int32_t layer, int32_t part, int32_t iteration)
{
    for (size_t i = 0; i < t->m->n_params; i++) {
        const struct place p = t->m->params[i].at;
        const struct part_weight *w = place_part(&t->m->spec, p);
        if (w && p.part == part && (p.layer == layer || w->scope == PART_OF_MODEL) &&
            (p.iteration == iteration || w->scope != PART_OF_ITERATION))
            return t->leaf[i];
    }
    return NULL;
}

static struct tv *of_layer(const struct twin_model *t, enum slot slot, int32_t layer)
{
    return at(t, slot, layer, 0, 0);
}

/* ---- attention ---- */

static const float *rope_table(const struct twin_model *t, int32_t l, bool sine)
{
    const int64_t n = t->batch->off[t->batch->n_seq], half = t->m->spec.layer[l].attn.rope.n_rot / 2;
    int64_t *position = test_alloc((size_t)n * sizeof *position);
    float *cos = test_alloc((size_t)(n * half) * sizeof *cos), *sin = test_alloc((size_t)(n * half) * sizeof *sin);
    for (int32_t s = 0; s < t->batch->n_seq; s++)
        for (int64_t i = t->batch->off[s]; i < t->batch->off[s + 1]; i++) position[i] = i - t->batch->off[s];
    rope_fill(t->m->inv_freq[l], t->m->rope_factor[l], (int32_t)half, position, n, cos, sin);
    return sine ? sin : cos;
}

static struct tv *prepare(const struct twin_model *t, int32_t l, struct tv *x, enum slot norm)
{
    const struct spec *s = &t->m->spec;
    const struct attn_spec *a = &s->layer[l].attn;
    if (a->qk_norm != QK_NORM_NONE) x = twin_rmsnorm(x, of_layer(t, norm, l), (double)s->norm_add, (double)s->norm_eps);
    if (a->clip > 0) x = twin_clamp(x, (double)a->clip);
    return twin_rope(x, a->head_dim, rope_table(t, l, false), rope_table(t, l, true), a->rope.n_rot / 2,
                     a->rope.interleaved);
}

/* *seen receives queries, keys and shape */
static struct tv *attention(const struct twin_model *t, int32_t l, struct tv *x, struct twin_moe *seen)
{
    const struct attn_spec *a = &t->m->spec.layer[l].attn;
    struct tv *q = twin_linear(x, of_layer(t, SLOT_Q, l), of_layer(t, SLOT_Q_BIAS, l));
    struct tv *k = twin_linear(x, of_layer(t, SLOT_K, l), of_layer(t, SLOT_K_BIAS, l));
    struct tv *v = twin_linear(x, of_layer(t, SLOT_V, l), of_layer(t, SLOT_V_BIAS, l));
    if (a->clip > 0) v = twin_clamp(v, (double)a->clip);
    q = prepare(t, l, q, SLOT_Q_NORM);
    k = prepare(t, l, k, SLOT_K_NORM);
    struct attn_shape *shape = test_alloc(sizeof *shape);
    *shape = (struct attn_shape){ .n_heads = a->n_heads, .n_kv_heads = a->n_kv_heads, .head_dim = a->head_dim,
                                  .head_dim_v = a->head_dim, .scale = a->scale, .cap = a->cap,
                                  .window = a->window, .chunk = a->chunk };
    seen->q = q, seen->k = k, seen->attention = shape;
    struct tv *y = twin_attention(q, k, v, of_layer(t, SLOT_SINK, l), shape, t->batch);
    return twin_linear(y, of_layer(t, SLOT_O, l), of_layer(t, SLOT_O_BIAS, l));
}

/* ---- feed-forward ---- */

static struct tv **experts(const struct twin_model *t, enum slot slot, int32_t l)
{
    const int32_t n = t->m->spec.layer[l].moe.n_experts;
    struct tv **row = test_alloc((size_t)n * sizeof *row);
    for (int32_t e = 0; e < n; e++) row[e] = at(t, slot, l, e, 0);
    return row;
}

static struct twin_moe moe_weights(const struct twin_model *t, int32_t l)
{
    const struct chain_spec *c = &t->m->spec.layer[l].moe.chain;
    struct twin_moe w = { .coe_weight = of_layer(t, SLOT_COE_WEIGHT, l) };
    for (int32_t i = 0; i < c->n_iterations; i++) {
        const int32_t from = c->shared_gate ? 0 : i;
        w.router[i] = at(t, SLOT_ROUTER, l, 0, from);
        w.router_bias[i] = at(t, SLOT_ROUTER_BIAS, l, 0, from);
        w.selection_bias[i] = at(t, SLOT_SELECTION_BIAS, l, 0, from);
    }
    for (int32_t i = 0; i < c->n_iterations; i++)
        for (int32_t part = 0; part < PART_WEIGHTS; part++)
            w.router_part[i][part] = part_at_place(t, l, part, c->shared_gate ? 0 : i);
    w.batch = t->batch;
    w.gate = experts(t, SLOT_EXPERT_GATE, l);
    w.up = experts(t, SLOT_EXPERT_UP, l);
    w.down = experts(t, SLOT_EXPERT_DOWN, l);
    w.shared_gate = of_layer(t, SLOT_SHARED_GATE, l);
    w.shared_up = of_layer(t, SLOT_SHARED_UP, l);
    w.shared_down = of_layer(t, SLOT_SHARED_DOWN, l);
    w.shared_expert_gate = of_layer(t, SLOT_SHARED_EXPERT_GATE, l);
    return w;
}

static struct tv *feed_forward(const struct twin_model *t, int32_t l, struct tv *h, struct tv *x,
                               const struct twin_moe *seen, struct twin_list *made, const struct twin_list *frozen)
{
    const struct layer_spec *s = &t->m->spec.layer[l];
    if (s->is_moe) {
        struct twin_moe w = moe_weights(t, l);
        w.q = seen->q, w.k = seen->k, w.attention = seen->attention, w.carried = seen->carried;
        w.task = t->task;
        return twin_moe_layer(&s->moe, &w, h, x, made, frozen);
    }
    struct tv *up = twin_linear(x, of_layer(t, SLOT_UP, l), of_layer(t, SLOT_UP_BIAS, l));
    struct tv *gate = twin_linear(x, of_layer(t, SLOT_GATE, l), of_layer(t, SLOT_GATE_BIAS, l));
    struct tv *u = twin_act(s->act, gate, up);
    return twin_add_scaled(h, twin_linear(u, of_layer(t, SLOT_DOWN, l), of_layer(t, SLOT_DOWN_BIAS, l)),
                           (double)t->m->spec.residual_scale, NULL);
}

/* ---- the whole ---- */

static struct tv *norm(const struct twin_model *t, struct tv *x, struct tv *w)
{
    return twin_rmsnorm(x, w, (double)t->m->spec.norm_add, (double)t->m->spec.norm_eps);
}

static struct tv *logits(struct twin_model *t, struct twin_list *made)
{
    const struct spec *s = &t->m->spec;
    const struct twin_list *frozen = t->frozen.n ? &t->frozen : NULL;
    struct tv *embed = at(t, SLOT_EMBED, 0, 0, 0);
    struct tv *h = twin_scale(twin_embed(t->ids, t->batch->off[t->batch->n_seq], embed), (double)s->embed_scale);
    struct tv *carried = NULL;
    struct twin_moe seen = { .carried = &carried };
    for (int32_t l = 0; l < s->n_layers; l++) {
        struct tv *y = attention(t, l, norm(t, h, of_layer(t, SLOT_ATTN_NORM, l)), &seen);
        h = twin_add_scaled(h, y, (double)s->residual_scale, NULL);
        h = feed_forward(t, l, h, norm(t, h, of_layer(t, SLOT_FFN_NORM, l)), &seen, made, frozen);
    }
    struct tv *head = s->tied ? embed : at(t, SLOT_HEAD, 0, 0, 0);
    struct tv *y = twin_linear(norm(t, h, at(t, SLOT_FINAL_NORM, 0, 0, 0)), head, NULL);
    y = twin_scale(y, (double)s->logit_scale);
    return s->logit_cap > 0 ? twin_softcap(y, (double)s->logit_cap) : y;
}

struct tv *twin_model_objective(struct twin_model *t)
{
    struct twin_list *made = test_alloc(sizeof *made); /* the losses' notes point into it */
    twin_begin();
    for (size_t i = 0; i < t->m->n_params; i++)
        t->leaf[i] = twin_leaf(t->x[i], t->m->params[i].w.rows, t->m->params[i].w.cols);
    struct tv *y = twin_xent(logits(t, made), t->target, t->scale, 0);
    for (int32_t i = 0; made->n && i < made->records[0]->spec->n_losses; i++)
        y = twin_add(y, twin_loss(&made->records[0]->spec->loss[i], made->records, made->n, t->batch, NULL, NULL, 0));
    if (!t->frozen.n) t->frozen = *made;
    return y;
}

double twin_model_value(void *user)
{
    struct twin_model *t = user;
    const struct arena_mark mark = arena_save(test_arena());
    struct tv **leaf = t->leaf;
    t->leaf = test_alloc(t->m->n_params * sizeof *t->leaf);
    const double y = twin_model_objective(t)->x[0];
    t->leaf = leaf; /* the gradients of an evaluation that went back stay */
    arena_rewind(test_arena(), mark);
    return y;
}
