/* names.h — rows of tensor names that many families share, and what their configs say alike. */
#ifndef COE_FAMILIES_NAMES_H
#define COE_FAMILIES_NAMES_H

#include <math.h>
#include <string.h>

#include "model/spec.h"

#define NAME(slot, pattern) { slot, pattern, { 0, 0, 0 }, NAME_ALWAYS }
#define NAME_ONLY(only, slot, pattern) { slot, pattern, { 0, 0, 0 }, only }
#define CUT(slot, pattern, how, part, parts) { slot, pattern, { how, part, parts }, NAME_ALWAYS }
#define NAMES_END { SLOT_COUNT, NULL, { 0, 0, 0 }, NAME_ALWAYS }

#define LAYER "model.layers.{l}."

#define NAMES_MODEL                                                                            \
    NAME(SLOT_EMBED, "model.embed_tokens.weight"), NAME(SLOT_FINAL_NORM, "model.norm.weight"), \
        NAME(SLOT_HEAD, "lm_head.weight")
#define NAMES_PRE_NORMS                                                                                                \
    NAME(SLOT_ATTN_NORM, LAYER "input_layernorm.weight"), NAME(SLOT_FFN_NORM, LAYER "post_attention_layernorm.weight")
#define NAMES_POST_NORMS /* OLMo 2: behind the sub-layers only */                                                      \
    NAME(SLOT_ATTN_POST_NORM, LAYER "post_attention_layernorm.weight"),                                                \
        NAME(SLOT_FFN_POST_NORM, LAYER "post_feedforward_layernorm.weight")
#define NAMES_FOUR_NORMS /* Gemma: before and behind */   \
    NAME(SLOT_ATTN_NORM, LAYER "input_layernorm.weight"), \
        NAME(SLOT_FFN_NORM, LAYER "pre_feedforward_layernorm.weight"), NAMES_POST_NORMS
#define NAMES_ATTENTION                                                                                                \
    NAME(SLOT_Q, LAYER "self_attn.q_proj.weight"), NAME(SLOT_K, LAYER "self_attn.k_proj.weight"),                      \
        NAME(SLOT_V, LAYER "self_attn.v_proj.weight"), NAME(SLOT_O, LAYER "self_attn.o_proj.weight"),                  \
        NAME(SLOT_Q_BIAS, LAYER "self_attn.q_proj.bias"), NAME(SLOT_K_BIAS, LAYER "self_attn.k_proj.bias"),            \
        NAME(SLOT_V_BIAS, LAYER "self_attn.v_proj.bias"), NAME(SLOT_O_BIAS, LAYER "self_attn.o_proj.bias"),            \
        NAME(SLOT_Q_NORM, LAYER "self_attn.q_norm.weight"), NAME(SLOT_K_NORM, LAYER "self_attn.k_norm.weight")
#define NAMES_LATENT(self_attn)                                                                                 \
    NAME(SLOT_Q_A_BIAS, self_attn "q_a_proj.bias"), NAME(SLOT_KV_A_BIAS, self_attn "kv_a_proj_with_mqa.bias"),  \
        NAME(SLOT_Q_A, self_attn "q_a_proj.weight"), NAME(SLOT_Q_A_NORM, self_attn "q_a_layernorm.weight"),         \
        NAME_ONLY(NAME_IN_LOW_RANK, SLOT_Q, self_attn "q_b_proj.weight"),                                       \
        NAME(SLOT_Q, self_attn "q_proj.weight"),                                                                \
        NAME(SLOT_KV_A, self_attn "kv_a_proj_with_mqa.weight"),                                                 \
        NAME(SLOT_KV_A_NORM, self_attn "kv_a_layernorm.weight"), NAME(SLOT_KV_B, self_attn "kv_b_proj.weight"), \
        NAME(SLOT_O, self_attn "o_proj.weight"), NAME(SLOT_O_BIAS, self_attn "o_proj.bias")
/* folder: LAYER "mlp." */
#define NAMES_DENSE(folder)                                                                        \
    NAME(SLOT_GATE, folder "gate_proj.weight"), NAME(SLOT_UP, folder "up_proj.weight"),            \
        NAME(SLOT_DOWN, folder "down_proj.weight"), NAME(SLOT_GATE_BIAS, folder "gate_proj.bias"), \
        NAME(SLOT_UP_BIAS, folder "up_proj.bias"), NAME(SLOT_DOWN_BIAS, folder "down_proj.bias")
#define NAMES_EXPERTS(folder)                                      \
    NAME(SLOT_EXPERT_GATE, folder "experts.{e}.gate_proj.weight"), \
        NAME(SLOT_EXPERT_UP, folder "experts.{e}.up_proj.weight"), \
        NAME(SLOT_EXPERT_DOWN, folder "experts.{e}.down_proj.weight")
#define NAMES_EXPERTS_W123(folder)                                                                                     \
    NAME(SLOT_EXPERT_GATE, folder "experts.{e}.w1.weight"), NAME(SLOT_EXPERT_UP, folder "experts.{e}.w3.weight"),      \
        NAME(SLOT_EXPERT_DOWN, folder "experts.{e}.w2.weight")
#define NAMES_SHARED(shared) /* LAYER "mlp.shared_experts." */                                                         \
    NAME(SLOT_SHARED_GATE, shared "gate_proj.weight"), NAME(SLOT_SHARED_UP, shared "up_proj.weight"),                  \
        NAME(SLOT_SHARED_DOWN, shared "down_proj.weight"),                                                             \
        NAME(SLOT_SHARED_GATE_BIAS, shared "gate_proj.bias"), NAME(SLOT_SHARED_UP_BIAS, shared "up_proj.bias"),        \
        NAME(SLOT_SHARED_DOWN_BIAS, shared "down_proj.bias")
#define NAMES_GATE(folder)                                                                                             \
    NAME(SLOT_ROUTER, folder "gate.weight"), NAME(SLOT_SELECTION_BIAS, folder "gate.e_score_correction_bias")
#define FUSED_IN(folder) .fused_gate_up = folder "experts.gate_up_proj", .fused_down = folder "experts.down_proj"

/* How DeepSeek-V3 and its followers route: sigmoid scores, a bias for choosing, groups by their two best, weights
 * renormalised and scaled. Reads the keys n_group, topk_group, norm_topk_prob, routed_scaling_factor. */
coe_status config_sigmoid_routing(struct moe_spec *m, const json_t *config, const char *where);
/* DeepSeek's keys of sizes: n_routed_experts, num_experts_per_tok, moe_intermediate_size, n_shared_experts. */
coe_status config_deepseek_experts(struct moe_spec *m, const json_t *config, const char *where);
/* DeepSeek-V2's choice: topk_method, n_group, topk_group; and routed_scaling_factor. */
coe_status config_softmax_groups(struct moe_spec *m, const json_t *config, const char *where);
/* Every layer l with `first <= l` becomes MoE as m says. */
void config_moe_from(struct spec *s, const struct moe_spec *m, int32_t first);
/* decoder_sparse_step and mlp_only_layers of the Qwens */
coe_status config_qwen_moe(struct spec *s, const struct moe_spec *m, const json_t *config, const char *where);
/* use_sliding_window, sliding_window, max_window_layers, layer_types of the Qwens */
coe_status config_qwen_window(struct spec *s, const json_t *config, const char *where);
/* attention_bias into q, k, v and, when asked, o */
coe_status config_attention_bias(struct spec *s, const json_t *config, bool output_too, const char *where);
/* Latent attention: q_lora_rank, kv_lora_rank, qk_nope_head_dim, qk_rope_head_dim, v_head_dim and YaRN's factor of the
 * scores. */
coe_status config_latent(struct spec *s, struct arena *a, const json_t *config, const char *where);
/* The part of a head that turns, where the config does not say it. */
void config_rotated_part(struct spec *s, const json_t *config, double part);
/* layer_types[l], NULL when the config has no such list */
const char *config_layer_type(const json_t *config, int32_t l);
/* Layers of type `type` slide (window sliding_window); without a layer_types list nothing changes. */
coe_status config_typed_window(struct spec *s, const json_t *config, const char *type, const char *where);
/* A copy of the config with keys renamed: pairs of {theirs, common}, NULL-terminated; a key that is there already
 * stays. A new reference; NULL when memory is out. */
json_t *config_renamed(const json_t *config, const char *const pairs[][2]);
/* key[l] of a list or the one number of a scalar */
coe_status config_per_layer(const json_t *config, const char *key, int32_t l, int32_t lo, int32_t hi, int32_t *out,
                            const char *where);

#endif
