/* gpt_oss.c — gpt-oss: attention sinks, alternating window, biases on everything, clamped SwiGLU. Card: routing.md F8.
 * The experts are fused, gate and up rows taking turns: BF16 [in, out], or MXFP4 [out, in] as OpenAI released them. */
#include "model/families/names.h"

/* A config without a rope means the released models'. */
static coe_status with_rope(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    if (json_is_object(json_object_get(config, "rope_scaling")) || json_object_get(config, "rope_parameters"))
        return config_common(s, a, config, where);
    json_t *rope = json_pack("{s:s, s:f, s:f, s:f, s:b, s:i}", "rope_type", "yarn", "factor", 32.0, "beta_fast", 32.0,
                             "beta_slow", 1.0, "truncate", 0, "original_max_position_embeddings", 4096);
    json_t *copy = json_copy((json_t *)(uintptr_t)config); /* shallow; jansson counts references in it */
    const bool full = !rope || !copy || json_object_set_new(copy, "rope_scaling", rope);
    const coe_status status =
        full ? coe_fail(COE_E_NOMEM, "no memory for a config") : config_common(s, a, copy, where);
    json_decref(copy);
    return status;
}

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    COE_TRY(with_rope(s, a, config, where));
    struct moe_spec m = s->layer[0].moe;
    int64_t window = 128;
    m.expert_ffn = s->layer[0].ffn;
    m.act = ACT_SWIGLU_CLAMP;
    m.expert_bias = m.router.bias = m.router.renormalize = true;
    m.router.top_k = 4;
    COE_TRY(json_need_i32(config, "num_local_experts", 1, 65536, &m.n_experts, where));
    COE_TRY(json_get_i32(config, "experts_per_token", 1, 1024, &m.router.top_k, where));
    COE_TRY(json_get_i32(config, "num_experts_per_tok", 1, 1024, &m.router.top_k, where));
    COE_TRY(json_get_f32(config, "swiglu_limit", &m.act_limit, where));
    COE_TRY(config_hf_loss(&m, config, where));
    COE_TRY(config_window(&window, config, where));
    config_moe_from(s, &m, 0);
    for (int32_t l = 0; l < s->n_layers; l++) {
        s->layer[l].attn.sinks = s->layer[l].attn.qkv_bias = true;
        s->layer[l].attn.window = l % 2 ? 0 : window;
    }
    COE_TRY(config_typed_window(s, config, "sliding_attention", where));
    return config_attention_bias(s, config, true, where);
}

#define EXPERTS LAYER "mlp.experts."
static const struct name_row names[] = {
    NAMES_MODEL,
    NAMES_PRE_NORMS,
    NAMES_ATTENTION,
    NAME(SLOT_SINK, LAYER "self_attn.sinks"),
    NAME(SLOT_ROUTER, LAYER "mlp.router.weight"),
    NAME(SLOT_ROUTER_BIAS, LAYER "mlp.router.bias"),
    CUT(SLOT_EXPERT_GATE, EXPERTS "gate_up_proj", CUT_EXPERT | CUT_IN_OUT | CUT_ALTERNATE, 0, 2),
    CUT(SLOT_EXPERT_UP, EXPERTS "gate_up_proj", CUT_EXPERT | CUT_IN_OUT | CUT_ALTERNATE, 1, 2),
    CUT(SLOT_EXPERT_DOWN, EXPERTS "down_proj", CUT_EXPERT | CUT_IN_OUT, 0, 1),
    CUT(SLOT_EXPERT_GATE, EXPERTS "gate_up_proj_blocks", CUT_EXPERT | CUT_MXFP4 | CUT_ALTERNATE, 0, 2),
    CUT(SLOT_EXPERT_UP, EXPERTS "gate_up_proj_blocks", CUT_EXPERT | CUT_MXFP4 | CUT_ALTERNATE, 1, 2),
    CUT(SLOT_EXPERT_DOWN, EXPERTS "down_proj_blocks", CUT_EXPERT | CUT_MXFP4, 0, 1),
    CUT(SLOT_EXPERT_GATE_BIAS, EXPERTS "gate_up_proj_bias", CUT_EXPERT | CUT_ALTERNATE, 0, 2),
    CUT(SLOT_EXPERT_UP_BIAS, EXPERTS "gate_up_proj_bias", CUT_EXPERT | CUT_ALTERNATE, 1, 2),
    CUT(SLOT_EXPERT_DOWN_BIAS, EXPERTS "down_proj_bias", CUT_EXPERT, 0, 1),
    NAMES_END,
};
static const char *const types[] = { "gpt_oss", NULL };
static const struct family family = { .model_types = types,
                                      .translate = translate,
                                      .names = names,
                                      .key_n_experts = "num_local_experts",
                                      .key_top_k = "num_experts_per_tok" };
COE_PART(family, gpt_oss, .summary = "gpt-oss: sinks, window, biases, clamped SwiGLU, MXFP4", .impl = &family)
