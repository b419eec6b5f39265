/* slice_form.c — see slice_form.h.
 *
 * Paper: Union of Experts, 2025 (card: routing.md 14). Slice e has rows e F/n … of gate and up and those columns of
 * down: the sum of all slices is the network. Attention keeps its matrices; a router is put before its heads. */
#include <string.h>

#include "model/bind.h"
#include "model/slice_form.h"

static coe_status check(const struct coe_model *m, const struct slices *how)
{
    const int32_t n = how->n;
    for (int32_t l = 0; l < m->spec.n_layers; l++) {
        const struct layer_spec *s = &m->spec.layer[l];
        if (s->is_moe) return coe_fail(COE_E_USAGE, "%s: layer %d has experts already", m->path, l);
        if (how->heads > s->attn.n_kv_heads)
            return coe_fail(COE_E_USAGE, "%s: layer %d: %d of %d key heads", m->path, l, how->heads,
                            s->attn.n_kv_heads);
        if (s->ungated || s->ffn_bias || s->ffn != m->spec.layer[0].ffn)
            return coe_fail(COE_E_USAGE,
                            "%s: layer %d: slices are made of gated networks without biases, all of one width", m->path,
                            l);
    }
    if (n && m->spec.layer[0].ffn % n)
        return coe_fail(COE_E_USAGE, "%s: networks of width %d in %d slices", m->path, m->spec.layer[0].ffn, n);
    if (n && how->top_k > n) return coe_fail(COE_E_USAGE, "%s: %d of %d slices", m->path, how->top_k, n);
    return COE_OK;
}

static json_t *slice_config(const struct coe_model *m, const struct slices *how)
{
    static const char *const qk[] = { "none", "head", "full", "none" };
    json_t *config = json_deep_copy(model_config(m));
    json_object_set_new(config, "model_type", json_string("coe"));
    json_object_set_new(config, "architectures", json_pack("[s]", "CoeForCausalLM"));
    json_t *coe = json_pack("{s:s}", "qk_norm", qk[m->spec.layer[0].attn.qk_norm]);
    if (how->n)
        json_object_update_new(coe, json_pack("{s:i, s:i, s:i, s:b}", "n_experts", how->n, "expert_ffn",
                                              m->spec.layer[0].ffn / how->n, "top_k", how->top_k, "unit_weights", 1));
    if (how->heads)
        json_object_set_new(coe, "attention_experts",
                            json_pack("{s:i, s:b}", "top_k", how->heads, "unit_weights", 1));
    json_object_set_new(config, "coe", coe);
    return config;
}

/* What the family coe makes of the config must be what the model is, but for the experts. */
static coe_status compare(const struct coe_model *m, const struct coe_model *to)
{
    const struct spec *a = &m->spec, *b = &to->spec;
    const bool same = a->norm == b->norm && a->norm_eps == b->norm_eps && a->norm_add == b->norm_add &&
                      a->final_norm_eps == b->final_norm_eps && a->tied == b->tied && a->head_bias == b->head_bias &&
                      a->learned_positions == b->learned_positions && a->embed_scale == b->embed_scale &&
                      a->residual_scale == b->residual_scale && a->logit_scale == b->logit_scale &&
                      a->logit_cap == b->logit_cap;
    if (!same)
        return coe_fail(COE_E_USAGE, "%s: norms, scales or embeddings of family %s are not those of family coe",
                        m->path, a->family);
    for (int32_t l = 0; l < a->n_layers; l++) {
        const struct layer_spec *x = &a->layer[l], *y = &b->layer[l];
        struct attn_spec attn = y->attn;
        if (attn.kind == MIX_HEADS) attn.kind = MIX_ATTENTION, attn.moe = x->attn.moe;
        if (memcmp(&x->attn, &attn, sizeof attn) || x->act != (y->is_moe ? y->moe.act : y->act) ||
            x->pre_norm != y->pre_norm || x->post_norm != y->post_norm)
            return coe_fail(COE_E_USAGE,
                            "%s: layer %d of family %s has attention or an activation that family coe does not have",
                            m->path, l, a->family);
    }
    return COE_OK;
}

static void cut(const struct coe_model *m, struct coe_model *to, int32_t l, int32_t n)
{
    const struct weight *const *w = m->layer[l].slot;
    const struct moe_weights *e = &to->layer[l].moe;
    const int64_t all = m->spec.layer[l].ffn, d = m->spec.d_model, f = all / n;
    for (int32_t i = 0; i < n; i++) {
        memcpy(e->gate[i]->master, w[SLOT_GATE]->master + i * f * d, (size_t)(f * d) * sizeof(float));
        memcpy(e->up[i]->master, w[SLOT_UP]->master + i * f * d, (size_t)(f * d) * sizeof(float));
        for (int64_t r = 0; r < d; r++)
            memcpy(e->down[i]->master + r * f, w[SLOT_DOWN]->master + r * all + i * f, (size_t)f * sizeof(float));
    }
}

coe_status model_to_slices(struct coe_model *m, const struct slices *how, enum dtype type, const char *dir)
{
    struct coe_model *to = NULL;
    COE_TRY(check(m, how));
    json_t *config = slice_config(m, how);
    coe_status s = model_make_trainable(m, NULL);
    if (!s) s = model_new(&to, config, m->path, 0, 0.02);
    if (!s) s = compare(m, to);
    if (!s) model_copy_params(to, m);
    for (int32_t l = 0; !s && how->n && l < m->spec.n_layers; l++) cut(m, to, l, how->n);
    if (!s) s = model_write(to, dir, config, type, m->gguf_config ? NULL : m->path);
    model_close(to);
    json_decref(config);
    return s;
}
