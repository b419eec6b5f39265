/* slots.c — the table of places in a network, their shapes and their order. */
#include <string.h>

#include "model/part_places.h"

const char *const class_name[CLASS_COUNT] = { "embedding", "norm", "attention", "dense", "router", "expert", "shared",
                                              "head", "adapter" };

const struct slot_info slot_info[SLOT_COUNT] = {
    [SLOT_EMBED] = { "embedding", SCOPE_MODEL, CLASS_EMBEDDING, false },
    [SLOT_POSITIONS] = { "positions", SCOPE_MODEL, CLASS_EMBEDDING, false },
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
    [SLOT_ATTN_GATE] = { "attn_gate", SCOPE_LAYER, CLASS_ATTENTION, false },
    [SLOT_Q_A] = { "q_a", SCOPE_LAYER, CLASS_ATTENTION, false },
    [SLOT_Q_A_BIAS] = { "q_a_bias", SCOPE_LAYER, CLASS_ATTENTION, true },
    [SLOT_Q_A_NORM] = { "q_a_norm", SCOPE_LAYER, CLASS_NORM, true },
    [SLOT_KV_A] = { "kv_a", SCOPE_LAYER, CLASS_ATTENTION, false },
    [SLOT_KV_A_BIAS] = { "kv_a_bias", SCOPE_LAYER, CLASS_ATTENTION, true },
    [SLOT_KV_A_NORM] = { "kv_a_norm", SCOPE_LAYER, CLASS_NORM, true },
    [SLOT_KV_B] = { "kv_b", SCOPE_LAYER, CLASS_ATTENTION, false },
    [SLOT_CONV_IN] = { "conv_in", SCOPE_LAYER, CLASS_ATTENTION, false },
    [SLOT_CONV_IN_BIAS] = { "conv_in_bias", SCOPE_LAYER, CLASS_ATTENTION, true },
    [SLOT_CONV] = { "conv", SCOPE_LAYER, CLASS_ATTENTION, false },
    [SLOT_CONV_BIAS] = { "conv_bias", SCOPE_LAYER, CLASS_ATTENTION, true },
    [SLOT_DELTA_QKVZ] = { "delta_qkvz", SCOPE_LAYER, CLASS_ATTENTION, false },
    [SLOT_DELTA_QKV] = { "delta_qkv", SCOPE_LAYER, CLASS_ATTENTION, false },
    [SLOT_DELTA_Z] = { "delta_z", SCOPE_LAYER, CLASS_ATTENTION, false },
    [SLOT_DELTA_BA] = { "delta_ba", SCOPE_LAYER, CLASS_ATTENTION, false },
    [SLOT_DELTA_A] = { "delta_a", SCOPE_LAYER, CLASS_ATTENTION, true },
    [SLOT_DELTA_DT] = { "delta_dt", SCOPE_LAYER, CLASS_ATTENTION, true },
    [SLOT_DELTA_NORM] = { "delta_norm", SCOPE_LAYER, CLASS_NORM, true },
    [SLOT_ATTN_ROUTER] = { "attn_router", SCOPE_LAYER, CLASS_ROUTER, false },
    [SLOT_ATTN_EXPERT_IN] = { "attn_expert_in", SCOPE_ATTN_EXPERT, CLASS_ATTENTION, false },
    [SLOT_ATTN_EXPERT_OUT] = { "attn_expert_out", SCOPE_ATTN_EXPERT, CLASS_ATTENTION, false },
    [SLOT_ATTN_EXPERT_BIAS] = { "attn_expert_bias", SCOPE_LAYER, CLASS_ATTENTION, true },
    [SLOT_ATTN_POST_NORM] = { "attn_post_norm", SCOPE_LAYER, CLASS_NORM, true },
    [SLOT_FFN_NORM] = { "ffn_norm", SCOPE_LAYER, CLASS_NORM, true },
    [SLOT_FFN_NORM_BIAS] = { "ffn_norm_bias", SCOPE_LAYER, CLASS_NORM, true },
    [SLOT_FFN_POST_NORM] = { "ffn_post_norm", SCOPE_LAYER, CLASS_NORM, true },
    [SLOT_GATE] = { "gate", SCOPE_LAYER, CLASS_DENSE, false },
    [SLOT_UP] = { "up", SCOPE_LAYER, CLASS_DENSE, false },
    [SLOT_DOWN] = { "down", SCOPE_LAYER, CLASS_DENSE, false },
    [SLOT_GATE_BIAS] = { "gate_bias", SCOPE_LAYER, CLASS_DENSE, true },
    [SLOT_UP_BIAS] = { "up_bias", SCOPE_LAYER, CLASS_DENSE, true },
    [SLOT_DOWN_BIAS] = { "down_bias", SCOPE_LAYER, CLASS_DENSE, true },
    [SLOT_MIX_ROUTER] = { "projection_router", SCOPE_PROJECTION, CLASS_ADAPTER, false },
    [SLOT_MIX_A] = { "projection_A", SCOPE_PROJECTION, CLASS_ADAPTER, false },
    [SLOT_MIX_B] = { "projection_B", SCOPE_PROJECTION, CLASS_ADAPTER, false },
    [SLOT_ROUTER] = { "router", SCOPE_ITERATION, CLASS_ROUTER, false },
    [SLOT_ROUTER_BIAS] = { "router_bias", SCOPE_ITERATION, CLASS_ROUTER, true },
    [SLOT_SELECTION_BIAS] = { "selection_bias", SCOPE_ITERATION, CLASS_ROUTER, true },
    [SLOT_EXPERT_SCALE] = { "expert_scale", SCOPE_LAYER, CLASS_ROUTER, true },
    [SLOT_MOE_BIAS] = { "moe_bias", SCOPE_LAYER, CLASS_EXPERT, true },
    [SLOT_COE_WEIGHT] = { "coe_weight", SCOPE_LAYER, CLASS_ROUTER, true },
    [SLOT_EXPERT_GATE] = { "expert_gate", SCOPE_EXPERT, CLASS_EXPERT, false },
    [SLOT_EXPERT_UP] = { "expert_up", SCOPE_EXPERT, CLASS_EXPERT, false },
    [SLOT_EXPERT_DOWN] = { "expert_down", SCOPE_EXPERT, CLASS_EXPERT, false },
    [SLOT_EXPERT_GATE_BIAS] = { "expert_gate_bias", SCOPE_EXPERT, CLASS_EXPERT, true },
    [SLOT_EXPERT_UP_BIAS] = { "expert_up_bias", SCOPE_EXPERT, CLASS_EXPERT, true },
    [SLOT_EXPERT_DOWN_BIAS] = { "expert_down_bias", SCOPE_EXPERT, CLASS_EXPERT, true },
    [SLOT_SHARED_GATE] = { "shared_gate", SCOPE_LAYER, CLASS_SHARED, false },
    [SLOT_SHARED_UP] = { "shared_up", SCOPE_LAYER, CLASS_SHARED, false },
    [SLOT_SHARED_DOWN] = { "shared_down", SCOPE_LAYER, CLASS_SHARED, false },
    [SLOT_SHARED_GATE_BIAS] = { "shared_gate_bias", SCOPE_LAYER, CLASS_SHARED, true },
    [SLOT_SHARED_UP_BIAS] = { "shared_up_bias", SCOPE_LAYER, CLASS_SHARED, true },
    [SLOT_SHARED_DOWN_BIAS] = { "shared_down_bias", SCOPE_LAYER, CLASS_SHARED, true },
    [SLOT_SHARED_EXPERT_GATE] = { "shared_expert_gate", SCOPE_LAYER, CLASS_SHARED, false },
    [SLOT_ROUTER_OF_MODEL] = { "a weight of the routers", SCOPE_MODEL, CLASS_ROUTER, false },
    [SLOT_ROUTER_OF_MODEL_VEC] = { "a vector of the routers", SCOPE_MODEL, CLASS_ROUTER, true },
    [SLOT_ROUTER_OF_LAYER] = { "a weight of the router", SCOPE_LAYER, CLASS_ROUTER, false },
    [SLOT_ROUTER_OF_LAYER_VEC] = { "a vector of the router", SCOPE_LAYER, CLASS_ROUTER, true },
    [SLOT_ROUTER_OF_ITERATION] = { "a weight of a pass's router", SCOPE_ITERATION, CLASS_ROUTER, false },
    [SLOT_ROUTER_OF_ITERATION_VEC] = { "a vector of a pass's router", SCOPE_ITERATION, CLASS_ROUTER, true },
    [SLOT_KIND_OF_MODEL] = { "a weight of all experts", SCOPE_MODEL, CLASS_SHARED, false },
    [SLOT_KIND_OF_MODEL_VEC] = { "a vector of all experts", SCOPE_MODEL, CLASS_SHARED, true },
    [SLOT_KIND_OF_LAYER] = { "a weight of the layer's experts", SCOPE_LAYER, CLASS_SHARED, false },
    [SLOT_KIND_OF_LAYER_VEC] = { "a vector of the layer's experts", SCOPE_LAYER, CLASS_SHARED, true },
    [SLOT_KIND_OF_EXPERT] = { "a weight of an expert", SCOPE_EXPERT, CLASS_EXPERT, false },
    [SLOT_KIND_OF_EXPERT_VEC] = { "a vector of an expert", SCOPE_EXPERT, CLASS_EXPERT, true },
};

static bool model_shape(const struct spec *s, enum slot slot, int64_t *rows, int64_t *cols)
{
    *rows = 1, *cols = s->d_model;
    switch (slot) {
    case SLOT_EMBED: *rows = s->vocab; return true;
    case SLOT_POSITIONS: *rows = s->max_positions; return s->learned_positions;
    case SLOT_HEAD: *rows = s->vocab; return !s->tied;
    case SLOT_HEAD_BIAS: *cols = s->vocab; return s->head_bias;
    case SLOT_FINAL_NORM: return true;
    case SLOT_FINAL_NORM_BIAS: return s->norm == NORM_LAYER;
    default: return false;
    }
}

static int64_t q_cols(const struct attn_spec *a) { return (int64_t)a->n_heads * a->head_dim; }
static int64_t kv_cols(const struct attn_spec *a) { return (int64_t)a->n_kv_heads * a->head_dim; }

/* What attention with its own keys and values has, whatever makes the queries. */
static bool plain_slot_shape(const struct spec *s, const struct attn_spec *a, enum slot slot, int64_t *rows,
                             int64_t *cols)
{
    const int64_t q = q_cols(a), kv = kv_cols(a);
    const bool own_q = a->kind != MIX_EXPERTS, norm = a->qk_norm == QK_NORM_HEAD || a->qk_norm == QK_NORM_FULL;
    const int64_t wide = a->gate == ATTN_GATE_IN_Q ? 2 * q : q;
    switch (slot) {
    case SLOT_Q: *rows = wide; return own_q;
    case SLOT_K: case SLOT_V: *rows = kv; return true;
    case SLOT_O: *rows = s->d_model, *cols = q; return own_q;
    case SLOT_Q_BIAS: *cols = wide; return own_q && a->qkv_bias;
    case SLOT_K_BIAS: case SLOT_V_BIAS: *cols = kv; return a->qkv_bias;
    case SLOT_O_BIAS: return own_q && a->o_bias;
    case SLOT_Q_NORM: *cols = a->qk_norm == QK_NORM_FULL ? q : a->head_dim; return norm;
    case SLOT_K_NORM: *cols = a->qk_norm == QK_NORM_FULL ? kv : a->head_dim; return norm;
    case SLOT_SINK: *cols = a->n_heads; return a->sinks;
    case SLOT_ATTN_GATE: *rows = q; return a->gate == ATTN_GATE_OWN;
    case SLOT_ATTN_ROUTER: *rows = a->moe.n_experts; return a->kind != MIX_ATTENTION;
    case SLOT_ATTN_EXPERT_IN: *rows = kv; return !own_q;
    case SLOT_ATTN_EXPERT_OUT: *rows = s->d_model, *cols = kv; return !own_q;
    case SLOT_ATTN_EXPERT_BIAS: return !own_q && a->moe.out_bias;
    default: return false;
    }
}

static bool latent_slot_shape(const struct spec *s, const struct attn_spec *a, enum slot slot, int64_t *rows,
                              int64_t *cols)
{
    const struct latent_spec *m = &a->latent;
    switch (slot) {
    case SLOT_Q_A: *rows = m->q_rank; return m->q_rank > 0;
    case SLOT_Q_A_BIAS: *cols = m->q_rank; return m->q_rank > 0 && a->qkv_bias;
    case SLOT_Q_A_NORM: *cols = m->q_rank; return m->q_rank > 0;
    case SLOT_Q: *rows = q_cols(a), *cols = m->q_rank ? m->q_rank : s->d_model; return true;
    case SLOT_KV_A: *rows = m->kv_rank + a->rope.n_rot; return true;
    case SLOT_KV_A_BIAS: *cols = m->kv_rank + a->rope.n_rot; return a->qkv_bias;
    case SLOT_KV_A_NORM: *cols = m->kv_rank; return true;
    case SLOT_KV_B: *rows = (int64_t)a->n_heads * (m->nope + m->v_dim), *cols = m->kv_rank; return true;
    case SLOT_O: *rows = s->d_model, *cols = (int64_t)a->n_heads * m->v_dim; return true;
    case SLOT_O_BIAS: return a->o_bias;
    default: return false;
    }
}

static bool conv_slot_shape(const struct spec *s, const struct recurrent_spec *r, enum slot slot, int64_t *rows,
                            int64_t *cols)
{
    switch (slot) {
    case SLOT_CONV_IN: *rows = 3 * (int64_t)s->d_model; return true;
    case SLOT_CONV_IN_BIAS: *cols = 3 * (int64_t)s->d_model; return r->bias;
    case SLOT_CONV: *rows = s->d_model, *cols = r->kernel; return true;
    case SLOT_CONV_BIAS: return r->bias;
    case SLOT_O: *rows = s->d_model; return true;
    case SLOT_O_BIAS: return r->bias;
    default: return false;
    }
}

static bool delta_slot_shape(const struct spec *s, const struct recurrent_spec *r, enum slot slot, int64_t *rows,
                             int64_t *cols)
{
    const int64_t k = (int64_t)r->n_k * r->d_k, v = (int64_t)r->n_v * r->d_v;
    switch (slot) {
    case SLOT_DELTA_QKVZ: *rows = 2 * k + 2 * v; return !r->ungrouped;
    case SLOT_DELTA_QKV: *rows = 2 * k + v; return r->ungrouped;
    case SLOT_DELTA_Z: *rows = v; return r->ungrouped;
    case SLOT_DELTA_BA: *rows = 2 * (int64_t)r->n_v; return true;
    case SLOT_CONV: *rows = 2 * k + v, *cols = r->kernel; return true;
    case SLOT_DELTA_A: case SLOT_DELTA_DT: *cols = r->n_v; return true;
    case SLOT_DELTA_NORM: *cols = r->d_v; return true;
    case SLOT_O: *rows = s->d_model, *cols = v; return true;
    default: return false;
    }
}

static bool attn_slot_shape(const struct spec *s, const struct layer_spec *l, enum slot slot, int64_t *rows,
                            int64_t *cols)
{
    *rows = 1, *cols = s->d_model;
    switch (slot) {
    case SLOT_ATTN_NORM: return l->pre_norm;
    case SLOT_ATTN_NORM_BIAS: return l->pre_norm && s->norm == NORM_LAYER;
    case SLOT_ATTN_POST_NORM: return l->post_norm;
    default: break;
    }
    switch (l->attn.kind) {
    case MIX_LATENT: return latent_slot_shape(s, &l->attn, slot, rows, cols);
    case MIX_CONV: return conv_slot_shape(s, &l->attn.recurrent, slot, rows, cols);
    case MIX_DELTA: return delta_slot_shape(s, &l->attn.recurrent, slot, rows, cols);
    default: return plain_slot_shape(s, &l->attn, slot, rows, cols);
    }
}

/* Experts of one layer may differ in kind and width. */
static bool expert_slot_shape(const struct spec *s, const struct moe_spec *m, struct place p, int64_t *rows,
                              int64_t *cols)
{
    const struct expert_range range = moe_range_of(m, p.expert);
    const int64_t f = range.ffn;
    if (!moe_kind(&range)->matrices) return false;
    *rows = 1, *cols = s->d_model;
    switch (p.slot) {
    case SLOT_EXPERT_GATE_BIAS: case SLOT_EXPERT_UP_BIAS: *cols = f; return m->expert_bias;
    case SLOT_EXPERT_DOWN_BIAS: return m->expert_bias;
    case SLOT_EXPERT_GATE: case SLOT_EXPERT_UP: *rows = f; return true;
    case SLOT_EXPERT_DOWN: *rows = s->d_model, *cols = f; return true;
    default: return false;
    }
}

static bool ffn_slot_shape(const struct spec *s, const struct layer_spec *l, struct place p, int64_t *rows,
                           int64_t *cols)
{
    const struct moe_spec *m = &l->moe;
    const enum slot slot = p.slot;
    const bool dense = !l->is_moe || l->dense_beside;
    *rows = 1, *cols = s->d_model;
    switch (slot) {
    case SLOT_FFN_NORM: return l->pre_norm;
    case SLOT_FFN_NORM_BIAS: return l->pre_norm && s->norm == NORM_LAYER;
    case SLOT_FFN_POST_NORM: return l->post_norm;
    case SLOT_GATE: *rows = l->ffn; return dense && !l->ungated;
    case SLOT_UP: *rows = l->ffn; return dense;
    case SLOT_DOWN: *rows = s->d_model, *cols = l->ffn; return dense;
    case SLOT_GATE_BIAS: *cols = l->ffn; return dense && l->ffn_bias && !l->ungated;
    case SLOT_UP_BIAS: *cols = l->ffn; return dense && l->ffn_bias;
    case SLOT_DOWN_BIAS: return dense && l->ffn_bias;
    default: break;
    }
    if (!l->is_moe) return false;
    switch (slot) {
    case SLOT_ROUTER: *rows = m->n_experts; return moe_router_matrix(m);
    case SLOT_ROUTER_BIAS: *cols = m->n_experts; return m->router.bias;
    case SLOT_SELECTION_BIAS: *cols = m->n_experts; return m->router.selection_bias;
    case SLOT_EXPERT_SCALE: *cols = m->n_experts; return m->router.expert_scale;
    case SLOT_MOE_BIAS: return m->out_bias;
    case SLOT_COE_WEIGHT: *cols = 1; return m->chain.learned_weight;
    case SLOT_SHARED_GATE: case SLOT_SHARED_UP:
        *rows = m->shared_ffn, *cols *= moe_shared_tokens(m);
        return m->shared_ffn > 0;
    case SLOT_SHARED_DOWN:
        *rows = s->d_model * moe_shared_tokens(m), *cols = m->shared_ffn;
        return m->shared_ffn > 0;
    case SLOT_SHARED_GATE_BIAS: case SLOT_SHARED_UP_BIAS:
        *cols = m->shared_ffn;
        return m->shared_ffn > 0 && m->shared_bias;
    case SLOT_SHARED_DOWN_BIAS: *cols *= moe_shared_tokens(m); return m->shared_ffn > 0 && m->shared_bias;
    case SLOT_SHARED_EXPERT_GATE: *cols *= moe_shared_tokens(m); return m->shared_ffn > 0 && m->shared_gate;
    default: return slot_info[slot].scope == SCOPE_EXPERT && expert_slot_shape(s, m, p, rows, cols);
    }
}

const char *const projection_name[PROJECTIONS] = { "q", "k", "v", "o", "gate", "up", "down" };

enum slot projection_slot(int32_t projection)
{
    static const enum slot slot[PROJECTIONS] = { SLOT_Q, SLOT_K, SLOT_V, SLOT_O, SLOT_GATE, SLOT_UP, SLOT_DOWN };
    return slot[projection];
}

/* Experts stand one behind the other: router [E, in], A [E r, in], B [E out, r]. */
static bool projection_shape(const struct spec *s, struct place p, int64_t *rows, int64_t *cols)
{
    const struct projection_spec *x = &s->layer[p.layer].projections;
    const struct place of = { projection_slot(p.iteration), p.layer, 0, 0, 0 };
    if (!x->rank || !(x->targets >> p.iteration & 1) || !place_shape(s, of, rows, cols)) return false;
    const int64_t out = *rows, n = x->moe.n_experts;
    *rows = p.slot == SLOT_MIX_ROUTER ? n : n * (p.slot == SLOT_MIX_A ? x->rank : out);
    if (p.slot == SLOT_MIX_B) *cols = x->rank;
    return true;
}

bool place_shape(const struct spec *s, struct place p, int64_t *rows, int64_t *cols)
{
    if (slot_info[p.slot].scope == SCOPE_PROJECTION) return projection_shape(s, p, rows, cols);
    if (slot_info[p.slot].scope == SCOPE_MODEL) return model_shape(s, p.slot, rows, cols);
    const struct layer_spec *l = &s->layer[p.layer];
    return p.slot < SLOT_FFN_NORM ? attn_slot_shape(s, l, p.slot, rows, cols) : ffn_slot_shape(s, l, p, rows, cols);
}

int32_t spec_experts(const struct spec *s, struct place p)
{
    const struct layer_spec *l = &s->layer[p.layer];
    const struct moe_spec *m = slot_info[p.slot].scope == SCOPE_ATTN_EXPERT ? &l->attn.moe : &l->moe;
    return m->pool.layers > 1 ? m->n_experts / m->pool.layers : m->n_experts - m->n_identity - m->n_null;
}

static int32_t repeats(const struct spec *s, int32_t layer, enum slot slot)
{
    const struct layer_spec *l = &s->layer[layer];
    if (slot_info[slot].scope == SCOPE_EXPERT || slot_info[slot].scope == SCOPE_ATTN_EXPERT)
        return spec_experts(s, (struct place){ slot, layer, 0, 0, 0 });
    if (slot_info[slot].scope == SCOPE_PROJECTION) return PROJECTIONS;
    if (slot_info[slot].scope == SCOPE_ITERATION) return l->moe.chain.shared_gate ? 1 : l->moe.chain.n_iterations;
    return 1;
}

/* Expert by expert: all places of slots first … last */
static coe_status each_of_experts(const struct spec *s, int32_t layer, int first, int last, each_fn *fn, void *user)
{
    int64_t rows, cols;
    if (slot_info[first].scope == SCOPE_EXPERT && !s->layer[layer].is_moe) return COE_OK;
    for (int32_t e = 0; e < repeats(s, layer, (enum slot)first); e++)
        for (int slot = first; slot <= last; slot++) {
            const struct place p = { (enum slot)slot, layer, e, 0, 0 };
            if (place_shape(s, p, &rows, &cols)) COE_TRY(fn(user, p, rows, cols));
        }
    return COE_OK;
}

static coe_status each_in_layer(const struct spec *s, int32_t layer, each_fn *fn, void *user)
{
    int64_t rows, cols;
    for (int slot = SLOT_ATTN_NORM; slot < SLOT_COUNT; slot++) {
        if (slot_info[slot].scope == SCOPE_EXPERT || slot_info[slot].scope == SCOPE_ATTN_EXPERT) continue;
        for (int32_t i = 0; i < repeats(s, layer, (enum slot)slot); i++) {
            const struct place p = { (enum slot)slot, layer, 0, i, 0 };
            if (place_shape(s, p, &rows, &cols)) COE_TRY(fn(user, p, rows, cols));
        }
    }
    COE_TRY(each_of_experts(s, layer, SLOT_ATTN_EXPERT_IN, SLOT_ATTN_EXPERT_OUT, fn, user));
    COE_TRY(each_of_experts(s, layer, SLOT_EXPERT_GATE, SLOT_EXPERT_DOWN_BIAS, fn, user));
    return each_part_of_layer(s, layer, fn, user);
}

static coe_status each_of_model(const struct spec *s, enum slot slot, each_fn *fn, void *user)
{
    int64_t rows, cols;
    const struct place p = { slot, 0, 0, 0, 0 };
    return place_shape(s, p, &rows, &cols) ? fn(user, p, rows, cols) : COE_OK;
}

coe_status spec_each_place(const struct spec *s,
                           coe_status (*fn)(void *user, struct place p, int64_t rows, int64_t cols), void *user)
{
    for (int slot = SLOT_EMBED; slot <= SLOT_POSITIONS; slot++)
        COE_TRY(each_of_model(s, (enum slot)slot, fn, user));
    COE_TRY(each_part_of_model(s, fn, user));
    for (int32_t l = 0; l < s->n_layers; l++) COE_TRY(each_in_layer(s, l, fn, user));
    for (int slot = SLOT_FINAL_NORM; slot <= SLOT_HEAD_BIAS; slot++)
        COE_TRY(each_of_model(s, (enum slot)slot, fn, user));
    return COE_OK;
}

struct count {
    const struct spec *s;
    struct spec_sizes sizes;
    int32_t layer;            /* whose experts these are: */
    int64_t each[MAX_RANGES]; /* parameters of one expert of every range */
};

/* A token may choose the largest experts of the layer. */
static void add_active(struct count *c)
{
    struct expert_range r[MAX_RANGES];
    const struct moe_spec *m = &c->s->layer[c->layer].moe;
    int32_t left = m->router.top_k;
    if (!c->s->layer[c->layer].is_moe) return;
    for (const int32_t n = moe_ranges(m, r); left > 0;) {
        int32_t best = -1;
        for (int32_t i = 0; i < n; i++)
            if (r[i].n && (best < 0 || c->each[i] > c->each[best])) best = i;
        if (best < 0) break;
        const int32_t take = COE_MIN(left, r[best].n);
        c->sizes.active += take * c->each[best] * m->chain.n_iterations;
        left -= take;
        r[best].n = 0;
    }
    memset(c->each, 0, sizeof c->each);
}

static void count_expert(struct count *c, struct place p, int64_t n)
{
    struct expert_range r[MAX_RANGES];
    for (int32_t i = 0, of = moe_ranges(&c->s->layer[p.layer].moe, r); i < of; i++)
        if (p.expert == r[i].first) c->each[i] += n; /* all experts of a range have one size */
}

static coe_status count_place(void *user, struct place p, int64_t rows, int64_t cols)
{
    struct count *c = user;
    const int64_t n = rows * cols;
    c->sizes.total += n;
    c->sizes.by_class[slot_info[p.slot].class] += n;
    if (slot_info[p.slot].scope != SCOPE_MODEL && p.layer != c->layer) {
        add_active(c);
        c->layer = p.layer;
    }
    if (slot_info[p.slot].scope == SCOPE_EXPERT) {
        count_expert(c, p, n);
    } else if (slot_info[p.slot].scope == SCOPE_ATTN_EXPERT) {
        if (p.expert < c->s->layer[p.layer].attn.moe.router.top_k) c->sizes.active += n;
    } else if (p.slot != SLOT_EMBED || c->s->tied) {
        c->sizes.active += n; /* an untied embedding is a table look-up */
    }
    return COE_OK;
}

struct spec_sizes spec_sizes(const struct spec *s)
{
    struct count c = { .s = s };
    (void)spec_each_place(s, count_place, &c);
    add_active(&c);
    return c.sizes;
}
