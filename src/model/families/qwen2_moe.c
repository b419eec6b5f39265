/* qwen2_moe.c — Qwen1.5-MoE and Qwen2-MoE: a shared expert behind a sigmoid gate, biases on q, k and v. Card:
 * routing.md F3. */
#include "model/families/names.h"

/* With use_sliding_window, every second of the first max_window_layers layers, from layer 0 on. */
static coe_status window(struct spec *s, const json_t *config, const char *where)
{
    bool use = false;
    int64_t size = 0;
    int32_t end = 28;
    COE_TRY(json_get_bool(config, "use_sliding_window", &use, where));
    COE_TRY(config_window(&size, config, where));
    COE_TRY(json_get_i32(config, "max_window_layers", 0, INT32_MAX, &end, where));
    if (!use) return COE_OK;
    for (int32_t l = 0; l < COE_MIN(end, s->n_layers); l += 2) s->layer[l].attn.window = size;
    return config_typed_window(s, config, "sliding_attention", where);
}

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    COE_TRY(config_common(s, a, config, where));
    struct moe_spec m = s->layer[0].moe;
    bool bias = true;
    m.router.top_k = 4;
    m.shared_gate = true;
    COE_TRY(json_need_i32(config, "num_experts", 1, 65536, &m.n_experts, where));
    COE_TRY(json_get_i32(config, "num_experts_per_tok", 1, 1024, &m.router.top_k, where));
    COE_TRY(json_need_i32(config, "moe_intermediate_size", 1, 1 << 24, &m.expert_ffn, where));
    COE_TRY(json_need_i32(config, "shared_expert_intermediate_size", 1, 1 << 24, &m.shared_ffn, where));
    COE_TRY(json_get_bool(config, "norm_topk_prob", &m.router.renormalize, where));
    COE_TRY(json_get_bool(config, "qkv_bias", &bias, where));
    COE_TRY(config_hf_loss(&m, config, where));
    for (int32_t l = 0; l < s->n_layers; l++) s->layer[l].attn.qkv_bias = bias;
    COE_TRY(config_qwen_moe(s, &m, config, where));
    return window(s, config, where);
}

static const struct name_row names[] = {
    NAMES_MODEL,
    NAMES_PRE_NORMS,
    NAMES_ATTENTION,
    NAMES_DENSE(LAYER "mlp."),
    NAMES_GATE(LAYER "mlp."),
    NAMES_EXPERTS(LAYER "mlp."),
    NAMES_SHARED(LAYER "mlp.shared_expert."),
    NAME(SLOT_SHARED_EXPERT_GATE, LAYER "mlp.shared_expert_gate.weight"),
    NAMES_END,
};
static const char *const types[] = { "qwen2_moe", NULL };
static const struct family family = { .model_types = types,
                                      .translate = translate,
                                      .names = names,
                                      FUSED_IN(LAYER "mlp."),
                                      .key_n_experts = "num_experts",
                                      .key_top_k = "num_experts_per_tok" };
COE_PART(family, qwen2_moe, .summary = "Qwen1.5/2-MoE: softmax, top-k, gated shared expert", .impl = &family)
