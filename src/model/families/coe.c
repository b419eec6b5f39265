/* coe.c — our own models: a pre-norm decoder with grouped-query attention whose MoE layers are described by the "coe"
 * object of config.json (spec_json.c). Names follow the Chain-of-Experts release: mlp.gate.{t}.weight per chain
 * iteration. */
#include "model/spec.h"

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    COE_TRY(config_common(s, a, config, where));
    bool bias = false;
    COE_TRY(json_get_bool(config, "attention_bias", &bias, where));
    for (int32_t l = 0; l < s->n_layers; l++) s->layer[l].attn.qkv_bias = s->layer[l].attn.o_bias = bias;
    if (!json_object_get(config, "coe")) return coe_fail(COE_E_INPUT, "%s: the \"coe\" object is missing", where);
    return COE_OK;
}

static const struct name_row names[] = {
    { SLOT_EMBED, "model.embed_tokens.weight" },
    { SLOT_FINAL_NORM, "model.norm.weight" },
    { SLOT_HEAD, "lm_head.weight" },
    { SLOT_ATTN_NORM, "model.layers.{l}.input_layernorm.weight" },
    { SLOT_Q, "model.layers.{l}.self_attn.q_proj.weight" },
    { SLOT_K, "model.layers.{l}.self_attn.k_proj.weight" },
    { SLOT_V, "model.layers.{l}.self_attn.v_proj.weight" },
    { SLOT_O, "model.layers.{l}.self_attn.o_proj.weight" },
    { SLOT_Q_BIAS, "model.layers.{l}.self_attn.q_proj.bias" },
    { SLOT_K_BIAS, "model.layers.{l}.self_attn.k_proj.bias" },
    { SLOT_V_BIAS, "model.layers.{l}.self_attn.v_proj.bias" },
    { SLOT_O_BIAS, "model.layers.{l}.self_attn.o_proj.bias" },
    { SLOT_Q_NORM, "model.layers.{l}.self_attn.q_norm.weight" },
    { SLOT_K_NORM, "model.layers.{l}.self_attn.k_norm.weight" },
    { SLOT_FFN_NORM, "model.layers.{l}.post_attention_layernorm.weight" },
    { SLOT_GATE, "model.layers.{l}.mlp.gate_proj.weight" },
    { SLOT_UP, "model.layers.{l}.mlp.up_proj.weight" },
    { SLOT_DOWN, "model.layers.{l}.mlp.down_proj.weight" },
    { SLOT_ROUTER, "model.layers.{l}.mlp.gate.weight" },
    { SLOT_ROUTER_BIAS, "model.layers.{l}.mlp.gate.bias" },
    { SLOT_SELECTION_BIAS, "model.layers.{l}.mlp.gate.e_score_correction_bias" },
    { SLOT_COE_WEIGHT, "model.layers.{l}.mlp.coe_weight" },
    { SLOT_EXPERT_GATE, "model.layers.{l}.mlp.experts.{e}.gate_proj.weight" },
    { SLOT_EXPERT_UP, "model.layers.{l}.mlp.experts.{e}.up_proj.weight" },
    { SLOT_EXPERT_DOWN, "model.layers.{l}.mlp.experts.{e}.down_proj.weight" },
    { SLOT_SHARED_GATE, "model.layers.{l}.mlp.shared_experts.gate_proj.weight" },
    { SLOT_SHARED_UP, "model.layers.{l}.mlp.shared_experts.up_proj.weight" },
    { SLOT_SHARED_DOWN, "model.layers.{l}.mlp.shared_experts.down_proj.weight" },
    { SLOT_SHARED_EXPERT_GATE, "model.layers.{l}.mlp.shared_expert_gate.weight" },
    { 0, NULL },
};
static const char *const types[] = { "coe", NULL };
static const struct family family = { .model_types = types, .translate = translate, .names = names };
COE_PART(family, coe, .summary = "models trained here: Chain-of-Experts and its relatives", .impl = &family)
