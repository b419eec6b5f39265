/* llama4.c — Llama 4, text: chunked attention with rope, every fourth layer without; the sigmoid of the chosen logit
 * multiplies the expert's input. Released files nest the text model: text_config, and language_model. before the names.
 */
#include "model/families/names.h"

static coe_status routed(struct spec *s, const json_t *config, const char *where)
{
    struct moe_spec m = s->layer[0].moe;
    int32_t step = 1;
    m.expert_ffn = m.shared_ffn = s->layer[0].ffn;
    m.router.score = SCORE_SIGMOID;
    m.router.top_k = 1;
    m.weigh_input = true;
    COE_TRY(json_need_i32(config, "num_local_experts", 1, 65536, &m.n_experts, where));
    COE_TRY(json_get_i32(config, "num_experts_per_tok", 1, 1024, &m.router.top_k, where));
    COE_TRY(json_get_i32(config, "interleave_moe_layer_step", 1, INT32_MAX, &step, where));
    COE_TRY(config_hf_loss(&m, config, where));
    const json_t *list = json_object_get(config, "moe_layers");
    for (int32_t l = 0; l < s->n_layers; l++) {
        s->layer[l].is_moe = !json_is_array(list) && (l + 1) % step == 0;
        s->layer[l].moe = m;
        COE_TRY(json_get_i32(config, "intermediate_size_mlp", 1, 1 << 24, &s->layer[l].ffn, where));
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_int_t l = json_integer_value(json_array_get(list, i));
        if (l >= 0 && l < s->n_layers) s->layer[l].is_moe = true;
    }
    return COE_OK;
}

/* A layer turns and keeps to its chunk, or does neither and tempers its queries instead. */
static coe_status attention(struct spec *s, const json_t *config, const char *where)
{
    bool unit = true, tempered = true;
    int64_t chunk = 8192;
    float temper = 0.1f, floor_scale = 8192;
    int32_t interval = 4;
    const json_t *list = json_object_get(config, "no_rope_layers");
    COE_TRY(json_get_bool(config, "use_qk_norm", &unit, where));
    COE_TRY(json_get_bool(config, "attn_temperature_tuning", &tempered, where));
    COE_TRY(json_get_int(config, "attention_chunk_size", 1, INT64_MAX / 2, &chunk, where));
    COE_TRY(json_get_f32(config, "attn_scale", &temper, where));
    COE_TRY(json_get_f32(config, "floor_scale", &floor_scale, where));
    COE_TRY(json_get_i32(config, "no_rope_layer_interval", 1, INT32_MAX, &interval, where));
    if (!(floor_scale > 0)) return coe_fail(COE_E_INPUT, "%s: floor_scale %g", where, (double)floor_scale);
    for (int32_t l = 0; l < s->n_layers; l++) {
        struct attn_spec *a = &s->layer[l].attn;
        bool rope = (l + 1) % interval != 0;
        if (json_array_size(list)) rope = json_integer_value(json_array_get(list, (size_t)l)) != 0;
        a->rope.interleaved = a->norm_after_rope = true;
        if (rope) {
            a->chunk = chunk;
            a->qk_norm = unit ? QK_NORM_UNIT : QK_NORM_NONE;
            continue;
        }
        a->rope.kind = ROPE_NONE;
        a->temper = tempered ? temper : 0;
        a->temper_floor = floor_scale;
    }
    return COE_OK;
}

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    const json_t *text = json_object_get(config, "text_config");
    if (json_is_object(text)) config = text;
    s->norm_eps = 1e-5f;
    COE_TRY(config_common(s, a, config, where));
    COE_TRY(routed(s, config, where));
    COE_TRY(attention(s, config, where));
    return config_attention_bias(s, config, true, where);
}

#define FF LAYER "feed_forward."
static const struct name_row names[] = {
    NAMES_MODEL,
    NAMES_PRE_NORMS,
    NAMES_ATTENTION,
    NAMES_DENSE(FF),
    NAME(SLOT_ROUTER, FF "router.weight"),
    CUT(SLOT_EXPERT_GATE, FF "experts.gate_up_proj", CUT_EXPERT | CUT_IN_OUT, 0, 2),
    CUT(SLOT_EXPERT_UP, FF "experts.gate_up_proj", CUT_EXPERT | CUT_IN_OUT, 1, 2),
    CUT(SLOT_EXPERT_DOWN, FF "experts.down_proj", CUT_EXPERT | CUT_IN_OUT, 0, 1),
    NAMES_SHARED(FF "shared_expert."),
    NAMES_END,
};
static const char *const types[] = { "llama4", "llama4_text", NULL };
static const char *const prefixes[] = { "", "language_model.", NULL };
static const char *const ignore[] = { "vision_model.", "multi_modal_projector.", NULL };
static const struct family family = { .model_types = types,
                                      .translate = translate,
                                      .names = names,
                                      .prefixes = prefixes,
                                      .ignore = ignore,
                                      .key_n_experts = "num_local_experts",
                                      .key_top_k = "num_experts_per_tok" };
COE_PART(family, llama4, .summary = "Llama 4 text: weighed inputs, chunked attention, layers without rope",
         .impl = &family)
