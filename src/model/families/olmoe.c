/* olmoe.c — OLMoE-1B-7B: weights not renormalised, q/k norm over the whole projection, optional clamp. Card: routing.md
 * F2. */
#include "model/families/names.h"

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    COE_TRY(config_common(s, a, config, where));
    struct moe_spec m = s->layer[0].moe;
    struct attn_spec at = s->layer[0].attn;
    m.expert_ffn = s->layer[0].ffn;
    m.router.top_k = 8;
    COE_TRY(json_need_i32(config, "num_experts", 1, 65536, &m.n_experts, where));
    COE_TRY(json_get_i32(config, "num_experts_per_tok", 1, 1024, &m.router.top_k, where));
    COE_TRY(json_get_bool(config, "norm_topk_prob", &m.router.renormalize, where));
    COE_TRY(json_get_f32(config, "clip_qkv", &at.clip, where));
    COE_TRY(json_get_bool(config, "attention_bias", &at.qkv_bias, where));
    at.o_bias = at.qkv_bias;
    at.qk_norm = QK_NORM_FULL;
    double coef = 0.01; /* the library's default for this family */
    COE_TRY(json_get_num(config, "router_aux_loss_coef", &coef, where));
    m.loss[0] = (struct loss_spec){ "hf", coef };
    m.n_losses = coef != 0;
    for (int32_t l = 0; l < s->n_layers; l++) {
        s->layer[l].is_moe = true;
        s->layer[l].moe = m;
        s->layer[l].attn = at;
    }
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
    NAME(SLOT_ROUTER, "model.layers.{l}.mlp.gate.weight"),
    NAME(SLOT_EXPERT_GATE, "model.layers.{l}.mlp.experts.{e}.gate_proj.weight"),
    NAME(SLOT_EXPERT_UP, "model.layers.{l}.mlp.experts.{e}.up_proj.weight"),
    NAME(SLOT_EXPERT_DOWN, "model.layers.{l}.mlp.experts.{e}.down_proj.weight"),
    NAMES_END,
};
static const char *const types[] = { "olmoe", NULL };
static const char *const ignore[] = { "*rotary_emb.inv_freq", NULL };
static const struct family family = { .model_types = types,
                                      .translate = translate,
                                      .names = names,
                                      .ignore = ignore,
                                      .fused_gate_up = "model.layers.{l}.mlp.experts.gate_up_proj",
                                      .fused_down = "model.layers.{l}.mlp.experts.down_proj",
                                      .key_n_experts = "num_experts",
                                      .key_top_k = "num_experts_per_tok" };
COE_PART(family, olmoe, .summary = "OLMoE: softmax, top-k, not renormalised, q/k norm", .impl = &family)
