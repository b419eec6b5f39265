/* bind.c — joins a checkpoint's tensors to the places of the spec, once; afterwards nobody looks a tensor up by name.
 *
 * Each place asks the family for its name (and its alternatives, and the fused forms). A missing tensor, a wrong shape,
 * or a tensor that nobody asked for is an error that names it. Vectors are widened to F32 here; matrices stay where
 * they lie, unless they have to be taken apart (cut.h). */
#include <stdlib.h>
#include <string.h>

#include "model/bind.h"
#include "model/cut.h"
#include "model/part_places.h"
#include "model/stored.h"

struct binding {
    struct coe_model *m;
    size_t n;
    uint8_t *used;    /* [ckpt_count] */
};

struct count {
    uint64_t n, most;
};

static coe_status count_place(void *user, struct place p, int64_t rows, int64_t cols)
{
    struct count *c = user;
    (void)p, (void)rows, (void)cols;
    return ++c->n <= c->most ? COE_OK : COE_E_INPUT;
}

static size_t index_of(const struct ckpt *c, const struct tensor *t) { return (size_t)(t - ckpt_at(c, 0)); }

/* Fused experts: [E,2F,d], gate rows before up rows, and [E,d,F]; false when this place has no such form. */
static bool fused_name(const struct coe_model *m, struct place p, char *name, size_t cap, struct cut *cut)
{
    const char *pattern = p.slot == SLOT_EXPERT_DOWN ? m->family->fused_down : m->family->fused_gate_up;
    if (p.slot != SLOT_EXPERT_GATE && p.slot != SLOT_EXPERT_UP && p.slot != SLOT_EXPERT_DOWN) return false;
    *cut = (struct cut){ CUT_EXPERT, p.slot == SLOT_EXPERT_UP, p.slot == SLOT_EXPERT_DOWN ? 1 : 2 };
    return pattern && expand_name(pattern, p, name, cap);
}

/* The tensor of a place under any of its names. */
static const struct tensor *find_tensor(const struct coe_model *m, struct place p, char first[256], struct cut *cut)
{
    char name[256];
    *first = 0;
    for (int i = 0; family_name_cut(m->family, &m->spec, p, i, name, sizeof name, cut); i++) {
        if (!i) memcpy(first, name, sizeof name);
        const struct tensor *t = ckpt_find(m->ckpt, name);
        if (t) return t;
    }
    return fused_name(m, p, name, sizeof name, cut) ? ckpt_find(m->ckpt, name) : NULL;
}

/* NAME_scale_inv or NAME_scale of FP8, NAME_scales beside NAME_blocks of MXFP4; NULL when there is none. */
static const struct tensor *find_scale(const struct coe_model *m, const struct tensor *t, struct cut cut)
{
    static const char *const suffix[] = { "_scale_inv", "_scale" };
    char name[300];
    const size_t n = strlen(t->name);
    if (cut.how & CUT_MXFP4) {
        snprintf(name, sizeof name, "%.*s_scales", (int)(n - strlen("_blocks")), t->name);
        return ckpt_find(m->ckpt, name);
    }
    const char *k_b = cut.how & CUT_HEAD_PAIR ? strstr(t->name, "k_b") : NULL;
    if (k_b) {
        snprintf(name, sizeof name, "%.*sv_b%s", (int)(k_b - t->name), t->name, k_b + strlen("k_b"));
        return ckpt_find(m->ckpt, name);
    }
    for (size_t i = 0; t->type == DT_F8_E4M3 && i < COE_COUNT(suffix); i++) {
        snprintf(name, sizeof name, "%s%s", t->name, suffix[i]);
        const struct tensor *s = ckpt_find(m->ckpt, name);
        if (s) return s;
    }
    return NULL;
}

static coe_status missing(const struct coe_model *m, struct place p, const char *first)
{
    if (!*first)
        return coe_fail(COE_E_INPUT, "%s: family %s has no tensor name for %s (layer %d)", m->path,
                        m->family_part->name, slot_info[p.slot].name, p.layer);
    return coe_fail(COE_E_INPUT, "%s: tensor %s is missing", m->path, first);
}

static coe_status bind_place(void *user, struct place p, int64_t rows, int64_t cols)
{
    struct binding *b = user;
    struct coe_model *m = b->m;
    char first[256];
    struct cut cut = { 0 };
    const struct tensor *t = find_tensor(m, p, first, &cut);
    if (!t) return missing(m, p, first);
    struct param *param = &m->params[b->n++];
    *param = (struct param){ .w = { .name = t->name, .rows = rows, .cols = cols },
                             .at = p,
                             .stored = t,
                             .cut = cut,
                             .scale = find_scale(m, t, cut) };
    const struct cut_request r = stored_request(m, param);
    COE_TRY(cut_take(&param->w, &m->arena, &r));
    b->used[index_of(m->ckpt, t)] = 1;
    if (r.scale) b->used[index_of(m->ckpt, r.scale)] = 1;
    if (!r.vector || param->w.type == DT_F32) return COE_OK;
    float *wide = arena_push(&m->arena, (size_t)(rows * cols) * sizeof(float));
    if (!wide) return COE_E_NOMEM;
    widen(wide, param->w.data, param->w.type, rows * cols);
    param->w.data = wide;
    param->w.type = DT_F32;
    return COE_OK;
}

static bool ignored(const struct family *f, const char *name)
{
    const size_t n = strlen(name);
    for (const char *const *i = f->ignore; i && *i; i++) {
        const bool suffix = **i == '*';
        const char *text = *i + suffix;
        const size_t len = strlen(text);
        if (len <= n && !memcmp(suffix ? name + n - len : name, text, len)) return true;
    }
    return false;
}

static bool is_head(const struct coe_model *m, const char *tensor)
{
    char name[256];
    const struct place head = { SLOT_HEAD, 0, 0, 0, 0 };
    for (int i = 0; family_name(m->family, &m->spec, head, i, name, sizeof name); i++)
        if (!strcmp(name, tensor)) return true;
    return !strcmp(tensor, "lm_head.weight");
}

/* Extra layers behind the last are for predicting several tokens at once, which we do not. */
static bool in_extra_layer(const struct coe_model *m, const char *name)
{
    static const char *const prefix[] = { "model.layers.", "blk." };
    for (size_t i = 0; m->family->extra_layers && i < COE_COUNT(prefix); i++)
        if (!strncmp(name, prefix[i], strlen(prefix[i])))
            return strtol(name + strlen(prefix[i]), NULL, 10) >= m->spec.n_layers / m->spec.layers_per_block;
    return false;
}

/* Matrices that some savers give identity experts, which have none. */
static bool of_identity_expert(const struct coe_model *m, const char *tensor)
{
    static const enum slot slot[] = { SLOT_EXPERT_GATE, SLOT_EXPERT_UP, SLOT_EXPERT_DOWN };
    char name[256];
    for (int32_t l = 0; l < m->spec.n_layers; l++) {
        const struct moe_spec *s = &m->spec.layer[l].moe;
        for (int32_t e = s->n_experts - s->n_identity; m->spec.layer[l].is_moe && e < s->n_experts; e++)
            for (size_t i = 0; i < COE_COUNT(slot); i++) {
                const struct place p = { slot[i], l, e, 0, 0 };
                if (family_name(m->family, &m->spec, p, 0, name, sizeof name) && !strcmp(name, tensor)) return true;
            }
    }
    return false;
}

static coe_status check_unused(const struct binding *b)
{
    const struct coe_model *m = b->m;
    for (size_t i = 0; i < ckpt_count(m->ckpt); i++) {
        const struct tensor *t = ckpt_at(m->ckpt, i);
        if (b->used[i] || ignored(m->family, t->name) || in_extra_layer(m, t->name)) continue;
        if (m->spec.tied && is_head(m, t->name)) continue; /* some savers repeat the shared tensor */
        if (of_identity_expert(m, t->name)) continue;
        return coe_fail(COE_E_INPUT, "%s: tensor %s is not part of a %s model with this config", m->path, t->name,
                        m->family_part->name);
    }
    return COE_OK;
}

coe_status expert_table(struct coe_model *m, const struct weight *const **out, int32_t n)
{
    const struct weight **row = arena_push_zero(&m->arena, (size_t)n * sizeof(struct weight *));
    *out = row;
    return row ? COE_OK : COE_E_NOMEM;
}

static coe_status expert_tables(struct coe_model *m, const struct moe_spec *s, struct moe_weights *w)
{
    COE_TRY(expert_table(m, &w->gate, s->n_experts));
    COE_TRY(expert_table(m, &w->up, s->n_experts));
    COE_TRY(expert_table(m, &w->down, s->n_experts));
    COE_TRY(part_tables(m, s, w));
    if (!s->expert_bias) return COE_OK;
    COE_TRY(expert_table(m, &w->gate_bias, s->n_experts));
    COE_TRY(expert_table(m, &w->up_bias, s->n_experts));
    return expert_table(m, &w->down_bias, s->n_experts);
}

/* Norms without weights take these. */
static coe_status unit_norms(struct coe_model *m)
{
    int32_t widest = 0;
    for (int32_t l = 0; l < m->spec.n_layers; l++)
        if (m->spec.layer[l].attn.qk_norm == QK_NORM_UNIT) widest = COE_MAX(widest, m->spec.layer[l].attn.head_dim);
    if (!widest) return COE_OK;
    struct weight *w = arena_push_zero(&m->arena, sizeof *w);
    float *one = arena_push(&m->arena, (size_t)widest * sizeof *one);
    if (!w || !one) return COE_E_NOMEM;
    for (int32_t i = 0; i < widest; i++) one[i] = 1.0f - m->spec.norm_add;
    *w = (struct weight){ .name = "ones", .type = DT_F32, .rows = 1, .cols = widest, .data = one };
    for (int32_t l = 0; l < m->spec.n_layers; l++)
        if (m->spec.layer[l].attn.qk_norm == QK_NORM_UNIT)
            m->layer[l].slot[SLOT_Q_NORM] = m->layer[l].slot[SLOT_K_NORM] = w;
    return COE_OK;
}

static coe_status layer_tables(struct coe_model *m)
{
    const struct spec *s = &m->spec;
    m->layer = arena_push_zero(&m->arena, (size_t)s->n_layers * sizeof *m->layer);
    if (!m->layer) return COE_E_NOMEM;
    for (int32_t l = 0; l < s->n_layers; l++) {
        if (s->layer[l].is_moe) COE_TRY(expert_tables(m, &s->layer[l].moe, &m->layer[l].moe));
        if (s->layer[l].attn.kind == MIX_EXPERTS)
            COE_TRY(expert_tables(m, &s->layer[l].attn.moe, &m->layer[l].attn_moe));
    }
    return unit_norms(m);
}

void set_expert(const struct weight *const *row, int32_t e, const struct weight *w)
{
    /* the table was made by layer_tables; only its readers see const */
    ((const struct weight **)(uintptr_t)row)[e] = w;
}

/* One router for all iterations is seen by each of them. */
static void set_iteration(const struct weight **row, const struct chain_spec *c, int32_t t, const struct weight *w)
{
    for (int32_t i = c->shared_gate ? 0 : t; i < (c->shared_gate ? c->n_iterations : t + 1); i++) row[i] = w;
}

/* To its layer and to those that share its experts */
static void link_expert(struct coe_model *m, const struct param *p)
{
    const struct moe_spec *s = &m->spec.layer[p->at.layer].moe;
    const int32_t layers = COE_MAX(s->pool.layers, 1), first = p->at.layer - s->pool.at;
    const int32_t e = s->pool.at * (s->n_experts / layers) + p->at.expert;
    for (int32_t l = first; l < first + layers; l++) {
        const struct moe_weights *w = &m->layer[l].moe;
        const struct weight *const *const row[] = { w->gate, w->up, w->down, w->gate_bias, w->up_bias, w->down_bias };
        set_expert(row[p->at.slot - SLOT_EXPERT_GATE], e, &p->w);
    }
}

static void link_param(struct coe_model *m, struct param *p)
{
    if (place_part(&m->spec, p->at)) {
        part_link(m, p);
        return;
    }
    struct layer_weights *l = &m->layer[p->at.layer];
    const struct chain_spec *chain = &m->spec.layer[p->at.layer].moe.chain;
    const struct weight *w = &p->w;
    if (slot_info[p->at.slot].scope == SCOPE_MODEL) {
        m->slot[p->at.slot] = w;
        return;
    }
    switch (p->at.slot) {
    case SLOT_ROUTER: set_iteration(l->moe.router, chain, p->at.iteration, w); break;
    case SLOT_ROUTER_BIAS: set_iteration(l->moe.router_bias, chain, p->at.iteration, w); break;
    case SLOT_SELECTION_BIAS: set_iteration(l->moe.selection_bias, chain, p->at.iteration, w); break;
    case SLOT_EXPERT_SCALE: l->moe.expert_scale = w; break;
    case SLOT_MOE_BIAS: l->moe.out_bias = w; break;
    case SLOT_COE_WEIGHT: l->moe.coe_weight = w; break;
    case SLOT_EXPERT_GATE: case SLOT_EXPERT_UP: case SLOT_EXPERT_DOWN:
    case SLOT_EXPERT_GATE_BIAS: case SLOT_EXPERT_UP_BIAS: case SLOT_EXPERT_DOWN_BIAS: link_expert(m, p); break;
    case SLOT_MIX_ROUTER: case SLOT_MIX_A: case SLOT_MIX_B:
        l->mix[p->at.iteration][p->at.slot - SLOT_MIX_ROUTER] = w;
        break;
    case SLOT_ATTN_ROUTER: l->attn_moe.router[0] = w; break;
    case SLOT_ATTN_EXPERT_IN: set_expert(l->attn_moe.gate, p->at.expert, w); break;
    case SLOT_ATTN_EXPERT_OUT: set_expert(l->attn_moe.down, p->at.expert, w); break;
    case SLOT_ATTN_EXPERT_BIAS: l->attn_moe.out_bias = w; break;
    case SLOT_SHARED_GATE: l->moe.shared_gate = w; break;
    case SLOT_SHARED_UP: l->moe.shared_up = w; break;
    case SLOT_SHARED_DOWN: l->moe.shared_down = w; break;
    case SLOT_SHARED_GATE_BIAS: l->moe.shared_gate_bias = w; break;
    case SLOT_SHARED_UP_BIAS: l->moe.shared_up_bias = w; break;
    case SLOT_SHARED_DOWN_BIAS: l->moe.shared_down_bias = w; break;
    case SLOT_SHARED_EXPERT_GATE: l->moe.shared_expert_gate = w; break;
    default: l->slot[p->at.slot] = w;
    }
}

static bool same_rope(const struct rope_spec *a, const struct rope_spec *b) { return !memcmp(a, b, sizeof *a); }

static coe_status frequencies(struct coe_model *m, const struct rope_spec *r, float **inv_freq, float *factor)
{
    *inv_freq = arena_push(&m->arena, (size_t)r->n_rot / 2 * sizeof(float));
    if (!*inv_freq) return COE_E_NOMEM;
    rope_frequencies(r, *inv_freq, factor);
    return COE_OK;
}

static coe_status layer_rope(struct coe_model *m, int32_t l)
{
    const struct rope_spec *r = &m->spec.layer[l].attn.rope;
    if (r->kind == ROPE_NONE) return COE_OK;
    for (int32_t o = 0; o < l; o++)
        if (m->inv_freq[o] && same_rope(&m->spec.layer[o].attn.rope, r)) {
            m->inv_freq[l] = m->inv_freq[o], m->rope_factor[l] = m->rope_factor[o];
            m->far_inv_freq[l] = m->far_inv_freq[o], m->far_factor[l] = m->far_factor[o];
            return COE_OK;
        }
    COE_TRY(frequencies(m, r, &m->inv_freq[l], &m->rope_factor[l]));
    const struct rope_spec far = rope_far(r);
    return r->far_divide ? frequencies(m, &far, &m->far_inv_freq[l], &m->far_factor[l]) : COE_OK;
}

static coe_status rope_tables(struct coe_model *m)
{
    const size_t n = (size_t)m->spec.n_layers;
    m->inv_freq = arena_push_zero(&m->arena, n * sizeof *m->inv_freq);
    m->rope_factor = arena_push_zero(&m->arena, n * sizeof *m->rope_factor);
    m->far_inv_freq = arena_push_zero(&m->arena, n * sizeof *m->far_inv_freq);
    m->far_factor = arena_push_zero(&m->arena, n * sizeof *m->far_factor);
    if (!m->inv_freq || !m->rope_factor || !m->far_inv_freq || !m->far_factor) return COE_E_NOMEM;
    for (int32_t l = 0; l < m->spec.n_layers; l++) COE_TRY(layer_rope(m, l));
    return COE_OK;
}

coe_status model_make_params(struct coe_model *m)
{
    /* every place takes a byte of the file at least: a config cannot ask for more memory than its weights fill */
    struct count c = { 0, m->ckpt ? ckpt_bytes(m->ckpt) : UINT64_MAX };
    if (spec_each_place(&m->spec, count_place, &c))
        return coe_fail(COE_E_INPUT, "%s: the config has more tensors than %llu bytes of weights can hold", m->path,
                        (unsigned long long)c.most);
    m->params = arena_push_zero(&m->arena, c.n * sizeof *m->params);
    m->n_params = c.n;
    return m->params ? COE_OK : COE_E_NOMEM;
}

coe_status model_link(struct coe_model *m)
{
    COE_TRY(layer_tables(m));
    for (size_t i = 0; i < m->n_params; i++) link_param(m, &m->params[i]);
    if (m->spec.tied) m->slot[SLOT_HEAD] = m->slot[SLOT_EMBED];
    return rope_tables(m);
}

/* quantization_config.weight_block_size of an FP8 checkpoint */
static coe_status read_block(struct coe_model *m)
{
    const json_t *size =
        json_object_get(json_object_get(ckpt_config(m->ckpt), "quantization_config"), "weight_block_size");
    m->scale_block[0] = m->scale_block[1] = 128;
    if (!json_is_array(size)) return COE_OK;
    for (size_t i = 0; i < 2; i++) {
        const int64_t n = json_integer_value(json_array_get(size, i));
        if (n < 1 || n > 1 << 20)
            return coe_fail(COE_E_INPUT, "%s: weight_block_size[%zu] is %lld", m->path, i, (long long)n);
        m->scale_block[i] = n;
    }
    return COE_OK;
}

coe_status model_bind(struct coe_model *m)
{
    struct binding b = { .m = m };
    COE_TRY(read_block(m));
    COE_TRY(model_make_params(m));
    b.used = arena_push_zero(&m->arena, ckpt_count(m->ckpt) + 1);
    if (!b.used) return COE_E_NOMEM;
    COE_TRY(spec_each_place(&m->spec, bind_place, &b));
    COE_TRY(check_unused(&b));
    return model_link(m);
}
