/* bind.c — joins a checkpoint's tensors to the places of the spec, once; afterwards nobody looks a tensor up by name.
 *
 * Each place asks the family for its name (and its alternatives, and the fused forms). A missing tensor, a wrong shape,
 * or a tensor that nobody asked for is an error that names it. Vectors are widened to F32 here; matrices stay where
 * they lie. */
#include <string.h>

#include "model/bind.h"

struct binding {
    struct coe_model *m;
    size_t n;
    uint8_t *used; /* [ckpt_count] */
};

static coe_status count_place(void *user, struct place p, int64_t rows, int64_t cols)
{
    (void)p, (void)rows, (void)cols;
    ++*(size_t *)user;
    return COE_OK;
}

static size_t index_of(const struct ckpt *c, const struct tensor *t) { return (size_t)(t - ckpt_at(c, 0)); }

static coe_status check_shape(const struct coe_model *m, const struct tensor *t, int64_t rows, int64_t cols,
                              bool vector)
{
    char got[96];
    bool ok =
        vector ? tensor_count(t) == cols && t->n_dims <= 2 : t->n_dims == 2 && t->dim[0] == rows && t->dim[1] == cols;
    if (!ok && vector)
        return coe_fail(COE_E_INPUT, "%s: tensor %s is %s, expected [%lld]", m->path, t->name,
                        tensor_shape_text(t, got), (long long)cols);
    if (!ok)
        return coe_fail(COE_E_INPUT, "%s: tensor %s is %s, expected [%lld, %lld]", m->path, t->name,
                        tensor_shape_text(t, got), (long long)rows, (long long)cols);
    if (t->type != DT_F32 && t->type != DT_F16 && t->type != DT_BF16)
        return coe_fail(COE_E_INPUT, "%s: tensor %s is stored as %s; this build computes with F32, F16 and BF16",
                        m->path, t->name, dtype_info[t->type].name);
    return COE_OK;
}

/* The slice of a fused [E,2F,d] or [E,d,F] tensor that belongs to one expert; NULL when the file is not fused. */
static coe_status find_fused(struct binding *b, struct place p, int64_t rows, int64_t cols,
                             const struct tensor **tensor, const char **data)
{
    const struct coe_model *m = b->m;
    const bool down = p.slot == SLOT_EXPERT_DOWN;
    const char *pattern = down ? m->family->fused_down : m->family->fused_gate_up;
    char name[256], got[96];
    *tensor = NULL;
    if (!pattern || slot_info[p.slot].scope != SCOPE_EXPERT || !expand_name(pattern, p, name, sizeof name))
        return COE_OK;
    const struct tensor *t = ckpt_find(m->ckpt, name);
    if (!t) return COE_OK;
    const int64_t experts = m->spec.layer[p.layer].moe.n_experts, fused_rows = down ? rows : 2 * rows;
    if (t->n_dims != 3 || t->dim[0] != experts || t->dim[1] != fused_rows || t->dim[2] != cols)
        return coe_fail(COE_E_INPUT, "%s: tensor %s is %s, expected [%lld, %lld, %lld]", m->path, t->name,
                        tensor_shape_text(t, got), (long long)experts, (long long)fused_rows, (long long)cols);
    uint64_t offset = 0, slice = (uint64_t)p.expert * (uint64_t)(fused_rows * cols);
    if (p.slot == SLOT_EXPERT_UP) slice += (uint64_t)(rows * cols);
    if (!dtype_bytes(t->type, slice, &offset))
        return coe_fail(COE_E_INPUT, "%s: tensor %s is too large", m->path, t->name);
    struct tensor view = *t;
    view.n_dims = 2, view.dim[0] = rows, view.dim[1] = cols;
    COE_TRY(check_shape(m, &view, rows, cols, false));
    *tensor = t;
    *data = (const char *)t->data + offset;
    return COE_OK;
}

static coe_status find_tensor(struct binding *b, struct place p, int64_t rows, int64_t cols,
                              const struct tensor **tensor, const char **data)
{
    const struct coe_model *m = b->m;
    char name[256], first[256] = "";
    for (int i = 0; family_name(m->family, &m->spec, p, i, name, sizeof name); i++) {
        if (!i) memcpy(first, name, sizeof first);
        *tensor = ckpt_find(m->ckpt, name);
        if (!*tensor) continue;
        *data = (*tensor)->data;
        return check_shape(m, *tensor, rows, cols, slot_info[p.slot].is_vector);
    }
    COE_TRY(find_fused(b, p, rows, cols, tensor, data));
    if (*tensor) return COE_OK;
    if (!*first)
        return coe_fail(COE_E_INPUT, "%s: family %s has no tensor name for %s (layer %d)", m->path,
                        m->family_part->name, slot_info[p.slot].name, p.layer);
    return coe_fail(COE_E_INPUT, "%s: tensor %s is missing", m->path, first);
}

static coe_status bind_place(void *user, struct place p, int64_t rows, int64_t cols)
{
    struct binding *b = user;
    struct coe_model *m = b->m;
    const struct tensor *t = NULL;
    const char *data = NULL;
    COE_TRY(find_tensor(b, p, rows, cols, &t, &data));
    b->used[index_of(m->ckpt, t)] = 1;
    struct param *param = &m->params[b->n++];
    *param = (struct param){ { t->name, t->type, rows, cols, data, NULL, NULL }, p };
    if (!slot_info[p.slot].is_vector || t->type == DT_F32) return COE_OK;
    float *wide = arena_push(&m->arena, (size_t)(rows * cols) * sizeof(float));
    if (!wide) return COE_E_NOMEM;
    widen(wide, data, t->type, rows * cols);
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

static coe_status check_unused(const struct binding *b)
{
    const struct coe_model *m = b->m;
    for (size_t i = 0; i < ckpt_count(m->ckpt); i++) {
        const struct tensor *t = ckpt_at(m->ckpt, i);
        if (b->used[i] || ignored(m->family, t->name)) continue;
        if (m->spec.tied && !strcmp(t->name, "lm_head.weight")) continue; /* some savers repeat the shared tensor */
        return coe_fail(COE_E_INPUT, "%s: tensor %s is not part of a %s model with this config", m->path, t->name,
                        m->family_part->name);
    }
    return COE_OK;
}

static const struct weight **expert_row(struct coe_model *m, int32_t n)
{
    return arena_push_zero(&m->arena, (size_t)n * sizeof(struct weight *));
}

static coe_status layer_tables(struct coe_model *m)
{
    const struct spec *s = &m->spec;
    m->layer = arena_push_zero(&m->arena, (size_t)s->n_layers * sizeof *m->layer);
    if (!m->layer) return COE_E_NOMEM;
    for (int32_t l = 0; l < s->n_layers; l++) {
        if (!s->layer[l].is_moe) continue;
        const int32_t n = s->layer[l].moe.n_experts;
        const struct weight **gate = expert_row(m, n), **up = expert_row(m, n), **down = expert_row(m, n);
        if (!gate || !up || !down) return COE_E_NOMEM;
        m->layer[l].moe.gate = gate, m->layer[l].moe.up = up, m->layer[l].moe.down = down;
    }
    return COE_OK;
}

static void set_expert(const struct weight *const *row, int32_t e, const struct weight *w)
{
    /* the table was made by layer_tables; only its readers see const */
    ((const struct weight **)(uintptr_t)row)[e] = w;
}

/* One router for all iterations is seen by each of them. */
static void set_iteration(const struct weight **row, const struct chain_spec *c, int32_t t, const struct weight *w)
{
    for (int32_t i = c->shared_gate ? 0 : t; i < (c->shared_gate ? c->n_iterations : t + 1); i++) row[i] = w;
}

static void link_param(struct coe_model *m, struct param *p)
{
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
    case SLOT_COE_WEIGHT: l->moe.coe_weight = w; break;
    case SLOT_EXPERT_GATE: set_expert(l->moe.gate, p->at.expert, w); break;
    case SLOT_EXPERT_UP: set_expert(l->moe.up, p->at.expert, w); break;
    case SLOT_EXPERT_DOWN: set_expert(l->moe.down, p->at.expert, w); break;
    case SLOT_SHARED_GATE: l->moe.shared_gate = w; break;
    case SLOT_SHARED_UP: l->moe.shared_up = w; break;
    case SLOT_SHARED_DOWN: l->moe.shared_down = w; break;
    case SLOT_SHARED_EXPERT_GATE: l->moe.shared_expert_gate = w; break;
    default: l->slot[p->at.slot] = w;
    }
}

static bool same_rope(const struct rope_spec *a, const struct rope_spec *b) { return !memcmp(a, b, sizeof *a); }

static coe_status rope_tables(struct coe_model *m)
{
    const struct spec *s = &m->spec;
    m->inv_freq = arena_push_zero(&m->arena, (size_t)s->n_layers * sizeof *m->inv_freq);
    m->rope_factor = arena_push_zero(&m->arena, (size_t)s->n_layers * sizeof *m->rope_factor);
    if (!m->inv_freq || !m->rope_factor) return COE_E_NOMEM;
    for (int32_t l = 0; l < s->n_layers; l++) {
        const struct rope_spec *r = &s->layer[l].attn.rope;
        if (r->kind == ROPE_NONE) continue;
        for (int32_t o = 0; o < l && !m->inv_freq[l]; o++)
            if (m->inv_freq[o] && same_rope(&s->layer[o].attn.rope, r))
                m->inv_freq[l] = m->inv_freq[o], m->rope_factor[l] = m->rope_factor[o];
        if (m->inv_freq[l]) continue;
        m->inv_freq[l] = arena_push(&m->arena, (size_t)r->n_rot / 2 * sizeof(float));
        if (!m->inv_freq[l]) return COE_E_NOMEM;
        rope_frequencies(r, m->inv_freq[l], &m->rope_factor[l]);
    }
    return COE_OK;
}

coe_status model_make_params(struct coe_model *m)
{
    size_t n = 0;
    COE_TRY(spec_each_place(&m->spec, count_place, &n));
    m->params = arena_push_zero(&m->arena, n * sizeof *m->params);
    m->n_params = n;
    return m->params ? COE_OK : COE_E_NOMEM;
}

coe_status model_link(struct coe_model *m)
{
    COE_TRY(layer_tables(m));
    for (size_t i = 0; i < m->n_params; i++) link_param(m, &m->params[i]);
    if (m->spec.tied) m->slot[SLOT_HEAD] = m->slot[SLOT_EMBED];
    return rope_tables(m);
}

coe_status model_bind(struct coe_model *m)
{
    struct binding b = { .m = m };
    COE_TRY(model_make_params(m));
    b.used = arena_push_zero(&m->arena, ckpt_count(m->ckpt) + 1);
    if (!b.used) return COE_E_NOMEM;
    COE_TRY(spec_each_place(&m->spec, bind_place, &b));
    COE_TRY(check_unused(&b));
    return model_link(m);
}
