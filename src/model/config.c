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

static coe_status scaling_numbers(struct rope_spec *r, const json_t *config, const json_t *p, const char *where)
{
    int64_t positions = 0;
    r->factor = 1;
    r->beta_fast = 32, r->beta_slow = 1, r->truncate = true;
    r->low_freq = 1, r->high_freq = 4;
    COE_TRY(json_get_int(config, "max_position_embeddings", 1, INT64_MAX / 2, &positions, where));
    COE_TRY(json_get_int(config, "original_max_position_embeddings", 1, INT64_MAX / 2, &positions, where));
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
    if (!(r->factor > 0)) return coe_fail(COE_E_INPUT, "%s: rope factor %g", where, r->factor);
    return json_get_bool(p, "truncate", &r->truncate, where);
}

static coe_status factor_list(const double **out, struct arena *a, const json_t *p, const char *key, size_t n,
                              const char *where)
{
    const json_t *list = json_object_get(p, key);
    if (!json_is_array(list) || json_array_size(list) != n)
        return coe_fail(COE_E_INPUT, "%s: %s has %zu numbers, expected %zu", where, key, json_array_size(list), n);
    double *divide = arena_push(a, n * sizeof *divide);
    if (!divide) return COE_E_NOMEM;
    for (size_t i = 0; i < n; i++) {
        divide[i] = json_number_value(json_array_get(list, i));
        if (!(divide[i] > 0)) return coe_fail(COE_E_INPUT, "%s: %s[%zu] is %g", where, key, i, divide[i]);
    }
    *out = divide;
    return COE_OK;
}

/* LongRoPE: factors within the original length and beyond it. cos and sin times short_mscale and long_mscale, else both
 * times sqrt(1 + ln(factor) / ln(original)). */
static coe_status long_factors(struct rope_spec *r, struct arena *a, const json_t *config, const json_t *p,
                               const char *where)
{
    const size_t n = (size_t)r->n_rot / 2;
    int64_t positions = r->original_positions;
    if (positions < 2)
        return coe_fail(COE_E_INPUT, "%s: longrope with original_max_position_embeddings %lld", where,
                        (long long)positions);
    COE_TRY(factor_list(&r->divide, a, p, "short_factor", n, where));
    COE_TRY(factor_list(&r->far_divide, a, p, "long_factor", n, where));
    COE_TRY(json_get_int(config, "max_position_embeddings", 1, INT64_MAX / 2, &positions, where));
    const double factor = (double)positions / (double)r->original_positions;
    if (!(r->attention_factor > 0) && factor > 1)
        r->attention_factor = sqrt(1 + log(factor) / log((double)r->original_positions));
    r->far_attention_factor = r->attention_factor;
    COE_TRY(json_get_num(p, "long_mscale", &r->far_attention_factor, where));
    return json_get_num(p, "short_mscale", &r->attention_factor, where);
}

/* Hunyuan's dynamic scaling changes theta once. The other one leaves the trained length alone and changes theta with
 * every token beyond it, which caches cannot follow: that is where it ends here. */
static coe_status dynamic(struct rope_spec *r, const json_t *config, double alpha, const char *where)
{
    if (alpha > 0 && r->n_rot > 2) r->theta *= pow(alpha, r->n_rot / (r->n_rot - 2.0));
    return alpha > 0 ? COE_OK
                     : json_get_int(config, "max_position_embeddings", 1, INT64_MAX / 2, &r->limit, where);
}

static coe_status scaling(struct rope_spec *r, struct arena *a, const json_t *config, const json_t *p,
                          const char *where)
{
    static const struct {
        const char *name;
        enum rope_kind kind;
    } kinds[] = { { "default", ROPE_PLAIN }, { "linear", ROPE_LINEAR }, { "llama3", ROPE_LLAMA3 },
                  { "yarn", ROPE_YARN },     { "longrope", ROPE_LONG }, { "dynamic", ROPE_PLAIN } };
    const char *kind = "default";
    double alpha = 0;
    COE_TRY(json_get_str(p, "type", &kind, where));
    COE_TRY(json_get_str(p, "rope_type", &kind, where));
    COE_TRY(scaling_numbers(r, config, p, where));
    COE_TRY(json_get_num(p, "alpha", &alpha, where));
    if (!strcmp(kind, "dynamic")) COE_TRY(dynamic(r, config, alpha, where));
    for (size_t i = 0; i < COE_COUNT(kinds); i++)
        if (!strcmp(kinds[i].name, kind)) {
            r->kind = kinds[i].kind;
            return r->kind == ROPE_LONG ? long_factors(r, a, config, p, where) : COE_OK;
        }
    return coe_fail(COE_E_INPUT, "%s: rope scaling '%s' is not one this program knows", where, kind);
}

/* The part of each head that is rotated */
static coe_status rotated_width(struct rope_spec *r, const json_t *object, int32_t head_dim, const char *where)
{
    double part = 0;
    COE_TRY(json_get_num(object, "partial_rotary_factor", &part, where));
    if (part == 0) return COE_OK;
    if (!(part > 0 && part <= 1)) return coe_fail(COE_E_INPUT, "%s: partial_rotary_factor %g", where, part);
    r->n_rot = (int32_t)(head_dim * part);
    return COE_OK;
}

coe_status config_rope(struct rope_spec *r, struct arena *a, const json_t *config, int32_t head_dim, const char *type,
                       const char *where)
{
    *r = (struct rope_spec){ .kind = ROPE_PLAIN, .theta = 10000, .n_rot = head_dim };
    COE_TRY(json_get_num(config, "rope_theta", &r->theta, where));
    COE_TRY(rotated_width(r, config, head_dim, where));
    static const char *const keys[] = { "rope_scaling", "rope_parameters" };
    for (size_t i = 0; i < COE_COUNT(keys); i++) {
        const json_t *p = json_object_get(config, keys[i]), *typed = json_object_get(p, type ? type : "full_attention");
        if (json_is_object(typed)) p = typed;
        if (!p || json_is_null(p)) continue;
        if (!json_is_object(p))
            return coe_fail(COE_E_INPUT, "%s: %s is %s, expected an object", where, keys[i], json_kind(p));
        COE_TRY(json_get_num(p, "rope_theta", &r->theta, where));
        COE_TRY(rotated_width(r, p, head_dim, where));
        COE_TRY(scaling(r, a, config, p, where));
    }
    if (!(r->theta > 0)) return coe_fail(COE_E_INPUT, "%s: rope_theta %g", where, r->theta);
    if (r->n_rot % 2 || r->n_rot > head_dim)
        return coe_fail(COE_E_INPUT, "%s: %d rotated dimensions of %d, expected an even number", where, r->n_rot,
                        head_dim);
    return COE_OK;
}

coe_status config_window(int64_t *window, const json_t *config, const char *where)
{
    return json_get_int(config, "sliding_window", 0, INT64_MAX / 2, window, where);
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
    if (s->norm_eps == 0) s->norm_eps = 1e-6f; /* a family may have another default */
    COE_TRY(json_get_f32(config, "rms_norm_eps", &s->norm_eps, where));
    s->final_norm_eps = s->norm_eps;
    s->layers_per_block = 1;
    s->embed_scale = s->residual_scale = s->logit_scale = 1;
    COE_TRY(json_get_bool(config, "tie_word_embeddings", &s->tied, where));
    COE_TRY(end_tokens(s, config, where));
    COE_TRY(config_rope(&at.rope, a, config, at.head_dim, NULL, where));
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
