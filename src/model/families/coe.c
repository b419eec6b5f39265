/* coe.c — our own models: a pre-norm decoder with grouped-query attention whose MoE layers are described by the "coe"
 * object of config.json (spec_json.c). Names follow the Chain-of-Experts release: mlp.gate.{t}.weight per chain
 * iteration. */
#include "model/families/names.h"

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
    NAME(SLOT_EMBED, "model.embed_tokens.weight"),
    NAME(SLOT_FINAL_NORM, "model.norm.weight"),
    NAME(SLOT_HEAD, "lm_head.weight"),
    NAME(SLOT_ATTN_NORM, "model.layers.{l}.input_layernorm.weight"),
    NAME(SLOT_Q, "model.layers.{l}.self_attn.q_proj.weight"),
    NAME(SLOT_K, "model.layers.{l}.self_attn.k_proj.weight"),
    NAME(SLOT_V, "model.layers.{l}.self_attn.v_proj.weight"),
    NAME(SLOT_O, "model.layers.{l}.self_attn.o_proj.weight"),
    NAME(SLOT_Q_BIAS, "model.layers.{l}.self_attn.q_proj.bias"),
    NAME(SLOT_K_BIAS, "model.layers.{l}.self_attn.k_proj.bias"),
    NAME(SLOT_V_BIAS, "model.layers.{l}.self_attn.v_proj.bias"),
    NAME(SLOT_O_BIAS, "model.layers.{l}.self_attn.o_proj.bias"),
    NAME(SLOT_Q_NORM, "model.layers.{l}.self_attn.q_norm.weight"),
    NAME(SLOT_K_NORM, "model.layers.{l}.self_attn.k_norm.weight"),
    NAME(SLOT_FFN_NORM, "model.layers.{l}.post_attention_layernorm.weight"),
    NAME(SLOT_GATE, "model.layers.{l}.mlp.gate_proj.weight"),
    NAME(SLOT_UP, "model.layers.{l}.mlp.up_proj.weight"),
    NAME(SLOT_DOWN, "model.layers.{l}.mlp.down_proj.weight"),
    NAME(SLOT_ROUTER, "model.layers.{l}.mlp.gate.weight"),
    NAME(SLOT_ROUTER_BIAS, "model.layers.{l}.mlp.gate.bias"),
    NAME(SLOT_SELECTION_BIAS, "model.layers.{l}.mlp.gate.e_score_correction_bias"),
    NAME(SLOT_EXPERT_GATE, "model.layers.{l}.mlp.experts.{e}.gate_proj.weight"),
    NAME(SLOT_EXPERT_UP, "model.layers.{l}.mlp.experts.{e}.up_proj.weight"),
    NAME(SLOT_EXPERT_DOWN, "model.layers.{l}.mlp.experts.{e}.down_proj.weight"),
    NAME(SLOT_SHARED_GATE, "model.layers.{l}.mlp.shared_experts.gate_proj.weight"),
    NAME(SLOT_SHARED_UP, "model.layers.{l}.mlp.shared_experts.up_proj.weight"),
    NAME(SLOT_SHARED_DOWN, "model.layers.{l}.mlp.shared_experts.down_proj.weight"),
    NAME(SLOT_SHARED_EXPERT_GATE, "model.layers.{l}.mlp.shared_expert_gate.weight"),
    NAMES_END,
};
static const char *const types[] = { "coe", NULL };
static const struct family family = { .model_types = types, .translate = translate, .names = names };
COE_PART(family, coe, .summary = "models trained here: Chain-of-Experts and its relatives", .impl = &family)
