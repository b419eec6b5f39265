/* shared.c — see names.h: translations that several families share. */
#include "model/families/names.h"

coe_status config_sigmoid_routing(struct moe_spec *m, const json_t *config, const char *where)
{
    struct router_spec *r = &m->router;
    r->score = SCORE_SIGMOID;
    r->selection_bias = true;
    r->group_score = GROUP_SUM2;
    r->renorm_eps = 1e-20f;
    COE_TRY(json_get_i32(config, "n_group", 1, 1024, &r->n_group, where));
    COE_TRY(json_get_i32(config, "topk_group", 1, 1024, &r->topk_group, where));
    COE_TRY(json_get_bool(config, "norm_topk_prob", &r->renormalize, where));
    return json_get_f32(config, "routed_scaling_factor", &r->scale, where);
}

coe_status config_deepseek_experts(struct moe_spec *m, const json_t *config, const char *where)
{
    int32_t shared = 0;
    COE_TRY(json_need_i32(config, "n_routed_experts", 1, 65536, &m->n_experts, where));
    COE_TRY(json_get_i32(config, "num_experts_per_tok", 1, 1024, &m->router.top_k, where));
    COE_TRY(json_need_i32(config, "moe_intermediate_size", 1, 1 << 20, &m->expert_ffn, where));
    COE_TRY(json_get_i32(config, "n_shared_experts", 0, 1024, &shared, where));
    m->shared_ffn = shared * m->expert_ffn;
    return COE_OK;
}

coe_status config_softmax_groups(struct moe_spec *m, const json_t *config, const char *where)
{
    const char *method = "greedy";
    COE_TRY(json_get_str(config, "topk_method", &method, where));
    COE_TRY(json_get_f32(config, "routed_scaling_factor", &m->router.scale, where));
    if (!strcmp(method, "greedy")) return COE_OK;
    if (strcmp(method, "group_limited_greedy"))
        return coe_fail(COE_E_INPUT, "%s: topk_method '%s' is unknown", where, method);
    COE_TRY(json_get_i32(config, "n_group", 1, 1024, &m->router.n_group, where));
    return json_get_i32(config, "topk_group", 1, 1024, &m->router.topk_group, where);
}

void config_moe_from(struct spec *s, const struct moe_spec *m, int32_t first)
{
    for (int32_t l = first; l < s->n_layers; l++) {
        s->layer[l].is_moe = true;
        s->layer[l].moe = *m;
    }
}

coe_status config_qwen_moe(struct spec *s, const struct moe_spec *m, const json_t *config, const char *where)
{
    int32_t step = 1;
    COE_TRY(json_get_i32(config, "decoder_sparse_step", 1, INT32_MAX, &step, where));
    for (int32_t l = 0; l < s->n_layers; l++) {
        s->layer[l].is_moe = (l + 1) % step == 0;
        s->layer[l].moe = *m;
    }
    const json_t *dense = json_object_get(config, "mlp_only_layers");
    for (size_t i = 0; i < json_array_size(dense); i++) {
        const json_int_t l = json_integer_value(json_array_get(dense, i));
        if (l >= 0 && l < s->n_layers) s->layer[l].is_moe = false;
    }
    return COE_OK;
}

void config_rotated_part(struct spec *s, const json_t *config, double part)
{
    static const char *const keys[] = { "rope_parameters", "rope_scaling" };
    bool given = json_object_get(config, "partial_rotary_factor") != NULL;
    for (size_t i = 0; i < COE_COUNT(keys); i++)
        given = given || json_object_get(json_object_get(config, keys[i]), "partial_rotary_factor");
    for (int32_t l = 0; !given && l < s->n_layers; l++)
        s->layer[l].attn.rope.n_rot = (int32_t)(s->layer[l].attn.head_dim * part);
}

const char *config_layer_type(const json_t *config, int32_t l)
{
    return json_string_value(json_array_get(json_object_get(config, "layer_types"), (size_t)l));
}

coe_status config_typed_window(struct spec *s, const json_t *config, const char *type, const char *where)
{
    int64_t window = 0;
    COE_TRY(config_window(&window, config, where));
    for (int32_t l = 0; l < s->n_layers; l++) {
        const char *t = config_layer_type(config, l);
        if (t) s->layer[l].attn.window = strcmp(t, type) ? 0 : window;
    }
    return COE_OK;
}

coe_status config_qwen_window(struct spec *s, const json_t *config, const char *where)
{
    bool use = false;
    int32_t from = s->n_layers;
    int64_t window = 0;
    COE_TRY(json_get_bool(config, "use_sliding_window", &use, where));
    COE_TRY(json_get_i32(config, "max_window_layers", 0, INT32_MAX, &from, where));
    COE_TRY(config_window(&window, config, where));
    if (!use) return COE_OK;
    for (int32_t l = from; l < s->n_layers; l++) s->layer[l].attn.window = window;
    return config_typed_window(s, config, "sliding_attention", where);
}

coe_status config_attention_bias(struct spec *s, const json_t *config, bool output_too, const char *where)
{
    bool bias = s->layer[0].attn.qkv_bias;
    COE_TRY(json_get_bool(config, "attention_bias", &bias, where));
    for (int32_t l = 0; l < s->n_layers; l++)
        s->layer[l].attn.qkv_bias = bias, s->layer[l].attn.o_bias = bias && output_too;
    return COE_OK;
}

static double yarn_mscale(double factor, double mscale) { return factor > 1 ? 0.1 * mscale * log(factor) + 1 : 1; }

coe_status config_latent(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    struct attn_spec at = s->layer[0].attn;
    struct latent_spec *m = &at.latent;
    int32_t rope = 0;
    bool bias = false;
    at.kind = MIX_LATENT;
    m->eps = 1e-6f;
    m->kv_scale = 1;
    COE_TRY(json_get_i32(config, "q_lora_rank", 1, 1 << 20, &m->q_rank, where));
    COE_TRY(json_need_i32(config, "kv_lora_rank", 1, 1 << 20, &m->kv_rank, where));
    COE_TRY(json_need_i32(config, "qk_nope_head_dim", 1, 1 << 16, &m->nope, where));
    COE_TRY(json_need_i32(config, "qk_rope_head_dim", 2, 1 << 16, &rope, where));
    COE_TRY(json_need_i32(config, "v_head_dim", 1, 1 << 16, &m->v_dim, where));
    COE_TRY(json_get_bool(config, "attention_bias", &bias, where));
    at.qkv_bias = at.o_bias = bias; /* of both first factors and of the output */
    at.head_dim = m->nope + rope;
    at.n_kv_heads = at.n_heads;
    COE_TRY(config_rope(&at.rope, a, config, rope, NULL, where));
    at.rope.n_rot = rope; /* partial_rotary_factor is already in the width */
    at.rope.interleaved = true;
    COE_TRY(json_get_bool(config, "rope_interleave", &at.rope.interleaved, where));
    at.scale = (float)(1 / sqrt((double)at.head_dim));
    if (at.rope.kind != ROPE_PLAIN && at.rope.mscale_all_dim > 0) {
        const double f = yarn_mscale(at.rope.factor, at.rope.mscale_all_dim);
        at.scale = (float)(f * f / sqrt((double)at.head_dim));
    }
    for (int32_t l = 0; l < s->n_layers; l++) s->layer[l].attn = at;
    return COE_OK;
}

json_t *config_renamed(const json_t *config, const char *const pairs[][2])
{
    json_t *copy = json_deep_copy(config);
    for (size_t i = 0; copy && pairs[i][0]; i++) {
        json_t *value = json_object_get(config, pairs[i][0]);
        if (!value || json_object_get(config, pairs[i][1])) continue;
        if (json_object_set(copy, pairs[i][1], value)) json_decref(copy), copy = NULL;
    }
    if (!copy) coe_fail(COE_E_NOMEM, "no memory for a config");
    return copy;
}

coe_status config_per_layer(const json_t *config, const char *key, int32_t l, int32_t lo, int32_t hi, int32_t *out,
                            const char *where)
{
    const json_t *v = json_object_get(config, key);
    if (!json_is_array(v)) return json_get_i32(config, key, lo, hi, out, where);
    const json_t *item = json_array_get(v, (size_t)l);
    if (!json_is_integer(item) || json_integer_value(item) < lo || json_integer_value(item) > hi)
        return coe_fail(COE_E_INPUT, "%s: %s[%d] is not a whole number from %d to %d", where, key, l, lo, hi);
    *out = (int32_t)json_integer_value(item);
    return COE_OK;
}
