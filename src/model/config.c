/* config.c — what almost every family's config.json says in the same words. */
#include <math.h>
#include <string.h>

#include "model/spec.h"

static coe_status end_tokens(struct spec *s, const json_t *config, const char *where)
{
    s->bos = -1;
    COE_TRY(json_get_i32(config, "bos_token_id", -1, INT32_MAX, &s->bos, where));
    const json_t *eos = json_object_get(config, "eos_token_id");
    if (json_is_integer(eos)) s->eos[s->n_eos++] = (int32_t)json_integer_value(eos);
    for (size_t i = 0; json_is_array(eos) && i < json_array_size(eos) && s->n_eos < (int32_t)COE_COUNT(s->eos); i++)
        if (json_is_integer(json_array_get(eos, i)))
            s->eos[s->n_eos++] = (int32_t)json_integer_value(json_array_get(eos, i));
    return COE_OK;
}

coe_status config_activation(enum activation *a, const json_t *config, const char *key, const char *where)
{
    static const struct {
        const char *name;
        enum activation a;
    } known[] = { { "silu", ACT_SILU },
                  { "swish", ACT_SILU },
                  { "gelu", ACT_GELU },
                  { "gelu_new", ACT_GELU_TANH },
                  { "gelu_pytorch_tanh", ACT_GELU_TANH },
                  { "gelu_tanh", ACT_GELU_TANH },
                  { "relu", ACT_RELU },
                  { "relu2", ACT_RELU2 } };
    const char *name = "silu";
    COE_TRY(json_get_str(config, key, &name, where));
    for (size_t i = 0; i < COE_COUNT(known); i++)
        if (!strcmp(known[i].name, name)) {
            *a = known[i].a;
            return COE_OK;
        }
    return coe_fail(COE_E_INPUT, "%s: %s '%s' is not an activation this program knows", where, key, name);
}

static coe_status scaling(struct rope_spec *r, const json_t *config, const json_t *p, const char *where)
{
    const char *kind = "default";
    COE_TRY(json_get_str(p, "type", &kind, where));
    COE_TRY(json_get_str(p, "rope_type", &kind, where));
    r->factor = 1;
    r->beta_fast = 32, r->beta_slow = 1, r->truncate = true;
    r->low_freq = 1, r->high_freq = 4;
    int64_t positions = 0;
    COE_TRY(json_get_int(config, "max_position_embeddings", 1, INT64_MAX / 2, &positions, where));
    COE_TRY(json_get_int(p, "original_max_position_embeddings", 1, INT64_MAX / 2, &positions, where));
    r->original_positions = positions;
    const struct {
        const char *key;
        double *to;
    } numbers[] = { { "factor", &r->factor },
                    { "beta_fast", &r->beta_fast },
                    { "beta_slow", &r->beta_slow },
                    { "low_freq_factor", &r->low_freq },
                    { "high_freq_factor", &r->high_freq },
                    { "mscale", &r->mscale },
                    { "mscale_all_dim", &r->mscale_all_dim },
                    { "attention_factor", &r->attention_factor } };
    for (size_t i = 0; i < COE_COUNT(numbers); i++) COE_TRY(json_get_num(p, numbers[i].key, numbers[i].to, where));
    COE_TRY(json_get_bool(p, "truncate", &r->truncate, where));
    static const struct {
        const char *name;
        enum rope_kind kind;
    } kinds[] = {
        { "default", ROPE_PLAIN }, { "linear", ROPE_LINEAR }, { "llama3", ROPE_LLAMA3 }, { "yarn", ROPE_YARN }
    };
    for (size_t i = 0; i < COE_COUNT(kinds); i++)
        if (!strcmp(kinds[i].name, kind)) {
            r->kind = kinds[i].kind;
            if (!(r->factor > 0)) return coe_fail(COE_E_INPUT, "%s: rope factor %g", where, r->factor);
            return COE_OK;
        }
    return coe_fail(COE_E_INPUT, "%s: rope scaling '%s' is not one this program knows", where, kind);
}

coe_status config_rope(struct rope_spec *r, const json_t *config, int32_t head_dim, const char *where)
{
    r->kind = ROPE_PLAIN;
    r->theta = 10000;
    r->n_rot = head_dim;
    COE_TRY(json_get_num(config, "rope_theta", &r->theta, where));
    static const char *const keys[] = { "rope_scaling", "rope_parameters" };
    for (size_t i = 0; i < COE_COUNT(keys); i++) {
        const json_t *p = json_object_get(config, keys[i]);
        if (!p || json_is_null(p)) continue;
        if (!json_is_object(p))
            return coe_fail(COE_E_INPUT, "%s: %s is %s, expected an object", where, keys[i], json_kind(p));
        COE_TRY(json_get_num(p, "rope_theta", &r->theta, where));
        COE_TRY(scaling(r, config, p, where));
    }
    if (!(r->theta > 0)) return coe_fail(COE_E_INPUT, "%s: rope_theta %g", where, r->theta);
    if (r->n_rot % 2)
        return coe_fail(COE_E_INPUT, "%s: %d rotated dimensions, expected an even number", where, r->n_rot);
    return COE_OK;
}

coe_status config_window(int64_t *window, const json_t *config, const char *where)
{
    return json_get_int(config, "sliding_window", 1, INT64_MAX / 2, window, where);
}

coe_status config_hf_loss(struct moe_spec *m, const json_t *config, const char *where)
{
    double coef = 0.001;
    COE_TRY(json_get_num(config, "router_aux_loss_coef", &coef, where));
    m->loss[0] = (struct loss_spec){ "hf", coef };
    m->n_losses = coef != 0;
    return COE_OK;
}

coe_status config_common(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    struct attn_spec at = { 0 };
    COE_TRY(json_need_i32(config, "vocab_size", 1, 1 << 24, &s->vocab, where));
    COE_TRY(json_need_i32(config, "hidden_size", 1, 1 << 20, &s->d_model, where));
    COE_TRY(json_need_i32(config, "num_hidden_layers", 1, 10000, &s->n_layers, where));
    COE_TRY(json_need_i32(config, "num_attention_heads", 1, 1 << 16, &at.n_heads, where));
    at.n_kv_heads = at.n_heads;
    at.head_dim = s->d_model / at.n_heads;
    COE_TRY(json_get_i32(config, "num_key_value_heads", 1, 1 << 16, &at.n_kv_heads, where));
    COE_TRY(json_get_i32(config, "head_dim", 1, 1 << 16, &at.head_dim, where));
    if (at.n_heads % at.n_kv_heads)
        return coe_fail(COE_E_INPUT, "%s: %d heads are not a multiple of %d key/value heads", where, at.n_heads,
                        at.n_kv_heads);
    if (at.head_dim < 1)
        return coe_fail(COE_E_INPUT, "%s: hidden_size %d with %d heads", where, s->d_model, at.n_heads);
    s->max_positions = 2048;
    COE_TRY(json_get_int(config, "max_position_embeddings", 1, INT64_MAX / 2, &s->max_positions, where));
    s->norm = NORM_RMS;
    s->norm_eps = 1e-6f;
    COE_TRY(json_get_f32(config, "rms_norm_eps", &s->norm_eps, where));
    s->embed_scale = s->residual_scale = s->logit_scale = 1;
    COE_TRY(json_get_bool(config, "tie_word_embeddings", &s->tied, where));
    COE_TRY(end_tokens(s, config, where));
    COE_TRY(config_rope(&at.rope, config, at.head_dim, where));
    at.scale = (float)(1 / sqrt((double)at.head_dim));
    struct layer_spec l = { .attn = at, .pre_norm = true, .moe = moe_spec_default() };
    COE_TRY(json_get_i32(config, "intermediate_size", 1, 1 << 24, &l.ffn, where));
    COE_TRY(config_activation(&l.act, config, "hidden_act", where));
    l.moe.act = l.act;
    s->layer = arena_push(a, (size_t)s->n_layers * sizeof *s->layer);
    if (!s->layer) return COE_E_NOMEM;
    for (int32_t i = 0; i < s->n_layers; i++) s->layer[i] = l;
    return COE_OK;
}
