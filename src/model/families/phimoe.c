/* phimoe.c — Phi-3.5-MoE: layer norm with biases, sparsemixer weights, LongRoPE. Card: routing.md F6. Within the
 * original length only: beyond it the reference keeps the short factors and changes the scale of cos and sin. */
#include "model/families/names.h"

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    s->norm_eps = 1e-5f;
    COE_TRY(config_common(s, a, config, where));
    struct moe_spec m = s->layer[0].moe;
    int64_t window = 0;
    m.expert_ffn = s->layer[0].ffn;
    m.router.selection = "sparsemixer";
    m.router.jitter = 0.01f;
    m.router.top_k = 2; /* whatever num_experts_per_tok says: the rule knows two */
    COE_TRY(json_need_i32(config, "num_local_experts", 2, 65536, &m.n_experts, where));
    COE_TRY(json_get_f32(config, "router_jitter_noise", &m.router.jitter, where));
    COE_TRY(config_hf_loss(&m, config, where));
    COE_TRY(config_window(&window, config, where));
    COE_TRY(json_get_bool(config, "lm_head_bias", &s->head_bias, where));
    s->norm = NORM_LAYER;
    config_moe_from(s, &m, 0);
    for (int32_t l = 0; l < s->n_layers; l++) s->layer[l].attn.window = window;
    return config_attention_bias(s, config, true, where);
}

static const struct name_row names[] = {
    NAMES_MODEL,
    NAMES_PRE_NORMS,
    NAMES_ATTENTION,
    NAME(SLOT_FINAL_NORM_BIAS, "model.norm.bias"),
    NAME(SLOT_HEAD_BIAS, "lm_head.bias"),
    NAME(SLOT_ATTN_NORM_BIAS, LAYER "input_layernorm.bias"),
    NAME(SLOT_FFN_NORM_BIAS, LAYER "post_attention_layernorm.bias"),
    NAME(SLOT_ROUTER, LAYER "block_sparse_moe.gate.weight"),
    NAME(SLOT_ROUTER, LAYER "mlp.router.weight"),
    NAME(SLOT_ROUTER, LAYER "mlp.gate.weight"),
    NAMES_EXPERTS_W123(LAYER "block_sparse_moe."),
    NAMES_END,
};
static const char *const types[] = { "phimoe", NULL };
static const struct family family = { .model_types = types,
                                      .translate = translate,
                                      .names = names,
                                      FUSED_IN(LAYER "mlp."),
                                      .key_n_experts = "num_local_experts",
                                      .key_top_k = "num_experts_per_tok" };
COE_PART(family, phimoe, .summary = "Phi-3.5-MoE: sparsemixer, layer norm, LongRoPE", .impl = &family)
