/* slots.c — the table of places in a network, their shapes and their order. */
#include "model/spec.h"

const char *const class_name[CLASS_COUNT] = { "embedding", "norm", "attention", "dense", "router", "expert", "shared",
                                              "head" };

const struct slot_info slot_info[SLOT_COUNT] = {
    [SLOT_EMBED] = { "embedding", SCOPE_MODEL, CLASS_EMBEDDING, false },
    [SLOT_FINAL_NORM] = { "final_norm", SCOPE_MODEL, CLASS_NORM, true },
    [SLOT_FINAL_NORM_BIAS] = { "final_norm_bias", SCOPE_MODEL, CLASS_NORM, true },
    [SLOT_HEAD] = { "head", SCOPE_MODEL, CLASS_HEAD, false },
    [SLOT_HEAD_BIAS] = { "head_bias", SCOPE_MODEL, CLASS_HEAD, true },
    [SLOT_ATTN_NORM] = { "attn_norm", SCOPE_LAYER, CLASS_NORM, true },
    [SLOT_ATTN_NORM_BIAS] = { "attn_norm_bias", SCOPE_LAYER, CLASS_NORM, true },
    [SLOT_Q] = { "q", SCOPE_LAYER, CLASS_ATTENTION, false },
    [SLOT_K] = { "k", SCOPE_LAYER, CLASS_ATTENTION, false },
    [SLOT_V] = { "v", SCOPE_LAYER, CLASS_ATTENTION, false },
    [SLOT_O] = { "o", SCOPE_LAYER, CLASS_ATTENTION, false },
    [SLOT_Q_BIAS] = { "q_bias", SCOPE_LAYER, CLASS_ATTENTION, true },
    [SLOT_K_BIAS] = { "k_bias", SCOPE_LAYER, CLASS_ATTENTION, true },
    [SLOT_V_BIAS] = { "v_bias", SCOPE_LAYER, CLASS_ATTENTION, true },
    [SLOT_O_BIAS] = { "o_bias", SCOPE_LAYER, CLASS_ATTENTION, true },
    [SLOT_Q_NORM] = { "q_norm", SCOPE_LAYER, CLASS_NORM, true },
    [SLOT_K_NORM] = { "k_norm", SCOPE_LAYER, CLASS_NORM, true },
    [SLOT_SINK] = { "sink", SCOPE_LAYER, CLASS_ATTENTION, true },
    [SLOT_ATTN_POST_NORM] = { "attn_post_norm", SCOPE_LAYER, CLASS_NORM, true },
    [SLOT_FFN_NORM] = { "ffn_norm", SCOPE_LAYER, CLASS_NORM, true },
    [SLOT_FFN_NORM_BIAS] = { "ffn_norm_bias", SCOPE_LAYER, CLASS_NORM, true },
    [SLOT_FFN_POST_NORM] = { "ffn_post_norm", SCOPE_LAYER, CLASS_NORM, true },
    [SLOT_GATE] = { "gate", SCOPE_LAYER, CLASS_DENSE, false },
    [SLOT_UP] = { "up", SCOPE_LAYER, CLASS_DENSE, false },
    [SLOT_DOWN] = { "down", SCOPE_LAYER, CLASS_DENSE, false },
    [SLOT_ROUTER] = { "router", SCOPE_ITERATION, CLASS_ROUTER, false },
    [SLOT_ROUTER_BIAS] = { "router_bias", SCOPE_ITERATION, CLASS_ROUTER, true },
    [SLOT_SELECTION_BIAS] = { "selection_bias", SCOPE_ITERATION, CLASS_ROUTER, true },
    [SLOT_COE_WEIGHT] = { "coe_weight", SCOPE_LAYER, CLASS_ROUTER, true },
    [SLOT_EXPERT_GATE] = { "expert_gate", SCOPE_EXPERT, CLASS_EXPERT, false },
    [SLOT_EXPERT_UP] = { "expert_up", SCOPE_EXPERT, CLASS_EXPERT, false },
    [SLOT_EXPERT_DOWN] = { "expert_down", SCOPE_EXPERT, CLASS_EXPERT, false },
    [SLOT_SHARED_GATE] = { "shared_gate", SCOPE_LAYER, CLASS_SHARED, false },
    [SLOT_SHARED_UP] = { "shared_up", SCOPE_LAYER, CLASS_SHARED, false },
    [SLOT_SHARED_DOWN] = { "shared_down", SCOPE_LAYER, CLASS_SHARED, false },
    [SLOT_SHARED_EXPERT_GATE] = { "shared_expert_gate", SCOPE_LAYER, CLASS_SHARED, false },
};

static bool model_shape(const struct spec *s, enum slot slot, int64_t *rows, int64_t *cols)
{
    *rows = 1, *cols = s->d_model;
    switch (slot) {
    case SLOT_EMBED: *rows = s->vocab; return true;
    case SLOT_HEAD: *rows = s->vocab; return !s->tied;
    case SLOT_HEAD_BIAS: *cols = s->vocab; return s->head_bias;
    case SLOT_FINAL_NORM: return true;
    case SLOT_FINAL_NORM_BIAS: return s->norm == NORM_LAYER;
    default: return false;
    }
}

static bool attn_slot_shape(const struct spec *s, const struct layer_spec *l, enum slot slot, int64_t *rows,
                            int64_t *cols)
{
    const struct attn_spec *a = &l->attn;
    const int64_t q = (int64_t)a->n_heads * a->head_dim, kv = (int64_t)a->n_kv_heads * a->head_dim;
    *rows = 1, *cols = s->d_model;
    switch (slot) {
    case SLOT_ATTN_NORM: return l->pre_norm;
    case SLOT_ATTN_NORM_BIAS: return l->pre_norm && s->norm == NORM_LAYER;
    case SLOT_ATTN_POST_NORM: return l->post_norm;
    case SLOT_Q: *rows = q; return true;
    case SLOT_K: case SLOT_V: *rows = kv; return true;
    case SLOT_O: *rows = s->d_model, *cols = q; return true;
    case SLOT_Q_BIAS: *cols = q; return a->qkv_bias;
    case SLOT_K_BIAS: case SLOT_V_BIAS: *cols = kv; return a->qkv_bias;
    case SLOT_O_BIAS: return a->o_bias;
    case SLOT_Q_NORM: *cols = a->qk_norm == QK_NORM_FULL ? q : a->head_dim; return a->qk_norm != QK_NORM_NONE;
    case SLOT_K_NORM: *cols = a->qk_norm == QK_NORM_FULL ? kv : a->head_dim; return a->qk_norm != QK_NORM_NONE;
    case SLOT_SINK: *cols = a->n_heads; return a->sinks;
    default: return false;
    }
}

static bool ffn_slot_shape(const struct spec *s, const struct layer_spec *l, enum slot slot, int64_t *rows,
                           int64_t *cols)
{
    const struct moe_spec *m = &l->moe;
    *rows = 1, *cols = s->d_model;
    switch (slot) {
    case SLOT_FFN_NORM: return l->pre_norm;
    case SLOT_FFN_NORM_BIAS: return l->pre_norm && s->norm == NORM_LAYER;
    case SLOT_FFN_POST_NORM: return l->post_norm;
    case SLOT_GATE: *rows = l->ffn; return !l->is_moe && !l->ungated;
    case SLOT_UP: *rows = l->ffn; return !l->is_moe;
    case SLOT_DOWN: *rows = s->d_model, *cols = l->ffn; return !l->is_moe;
    default: break;
    }
    if (!l->is_moe) return false;
    switch (slot) {
    case SLOT_ROUTER: *rows = m->n_experts; return true;
    case SLOT_ROUTER_BIAS: *cols = m->n_experts; return m->router.bias;
    case SLOT_SELECTION_BIAS: *cols = m->n_experts; return m->router.selection_bias;
    case SLOT_COE_WEIGHT: *cols = 1; return m->chain.learned_weight;
    case SLOT_EXPERT_GATE: case SLOT_EXPERT_UP: *rows = m->expert_ffn; return true;
    case SLOT_EXPERT_DOWN: *rows = s->d_model, *cols = m->expert_ffn; return true;
    case SLOT_SHARED_GATE: case SLOT_SHARED_UP: *rows = m->shared_ffn; return m->shared_ffn > 0;
    case SLOT_SHARED_DOWN: *rows = s->d_model, *cols = m->shared_ffn; return m->shared_ffn > 0;
    case SLOT_SHARED_EXPERT_GATE: return m->shared_ffn > 0 && m->shared_gate;
    default: return false;
    }
}

bool slot_shape(const struct spec *s, enum slot slot, int32_t layer, int64_t *rows, int64_t *cols)
{
    if (slot_info[slot].scope == SCOPE_MODEL) return model_shape(s, slot, rows, cols);
    const struct layer_spec *l = &s->layer[layer];
    return slot < SLOT_FFN_NORM ? attn_slot_shape(s, l, slot, rows, cols) : ffn_slot_shape(s, l, slot, rows, cols);
}

static int32_t repeats(const struct layer_spec *l, enum slot slot)
{
    if (slot_info[slot].scope == SCOPE_EXPERT) return l->moe.n_experts;
    if (slot_info[slot].scope == SCOPE_ITERATION) return l->moe.chain.shared_gate ? 1 : l->moe.chain.n_iterations;
    return 1;
}

static coe_status each_in_layer(const struct spec *s, int32_t layer,
                                coe_status (*fn)(void *, struct place, int64_t, int64_t), void *user)
{
    int64_t rows, cols;
    for (int slot = SLOT_ATTN_NORM; slot < SLOT_COUNT; slot++) {
        if (!slot_shape(s, (enum slot)slot, layer, &rows, &cols)) continue;
        if (slot_info[slot].scope == SCOPE_EXPERT) continue;
        for (int32_t i = 0; i < repeats(&s->layer[layer], (enum slot)slot); i++)
            COE_TRY(fn(user, (struct place){ (enum slot)slot, layer, 0, i }, rows, cols));
    }
    for (int32_t e = 0; s->layer[layer].is_moe && e < s->layer[layer].moe.n_experts; e++)
        for (int slot = SLOT_EXPERT_GATE; slot <= SLOT_EXPERT_DOWN; slot++)
            if (slot_shape(s, (enum slot)slot, layer, &rows, &cols))
                COE_TRY(fn(user, (struct place){ (enum slot)slot, layer, e, 0 }, rows, cols));
    return COE_OK;
}

coe_status spec_each_place(const struct spec *s,
                           coe_status (*fn)(void *user, struct place p, int64_t rows, int64_t cols), void *user)
{
    int64_t rows, cols;
    if (slot_shape(s, SLOT_EMBED, 0, &rows, &cols))
        COE_TRY(fn(user, (struct place){ SLOT_EMBED, 0, 0, 0 }, rows, cols));
    for (int32_t l = 0; l < s->n_layers; l++) COE_TRY(each_in_layer(s, l, fn, user));
    for (int slot = SLOT_FINAL_NORM; slot <= SLOT_HEAD_BIAS; slot++)
        if (slot_shape(s, (enum slot)slot, 0, &rows, &cols))
            COE_TRY(fn(user, (struct place){ (enum slot)slot, 0, 0, 0 }, rows, cols));
    return COE_OK;
}

struct count {
    const struct spec *s;
    struct spec_sizes sizes;
};

static coe_status count_place(void *user, struct place p, int64_t rows, int64_t cols)
{
    struct count *c = user;
    const int64_t n = rows * cols;
    c->sizes.total += n;
    c->sizes.by_class[slot_info[p.slot].class] += n;
    if (slot_info[p.slot].scope == SCOPE_EXPERT) {
        const struct moe_spec *m = &c->s->layer[p.layer].moe;
        /* all experts of a layer have one size */
        if (p.expert < m->router.top_k) c->sizes.active += n * m->chain.n_iterations;
    } else if (p.slot != SLOT_EMBED || c->s->tied) {
        c->sizes.active += n; /* an untied embedding is a table look-up */
    }
    return COE_OK;
}

struct spec_sizes spec_sizes(const struct spec *s)
{
    struct count c = { .s = s };
    (void)spec_each_place(s, count_place, &c);
    return c.sizes;
}
