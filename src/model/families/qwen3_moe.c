/* qwen3_moe.c — Qwen3-MoE: q and k normalised per head, softmax over all experts, norm_topk_prob as the config says.
 * Card: routing.md F4. */
#include "model/families/names.h"

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    COE_TRY(config_common(s, a, config, where));
    struct moe_spec m = s->layer[0].moe;
    bool windowed = false;
    int64_t window = 0;
    m.router.top_k = 8;
    COE_TRY(json_need_i32(config, "num_experts", 1, 65536, &m.n_experts, where));
    COE_TRY(json_get_i32(config, "num_experts_per_tok", 1, 1024, &m.router.top_k, where));
    COE_TRY(json_need_i32(config, "moe_intermediate_size", 1, 1 << 24, &m.expert_ffn, where));
    COE_TRY(json_get_bool(config, "norm_topk_prob", &m.router.renormalize, where));
    COE_TRY(config_hf_loss(&m, config, where));
    for (int32_t l = 0; l < s->n_layers; l++) s->layer[l].attn.qk_norm = QK_NORM_HEAD;
    COE_TRY(config_attention_bias(s, config, true, where));
    COE_TRY(config_qwen_moe(s, &m, config, where));
    COE_TRY(json_get_bool(config, "use_sliding_window", &windowed, where));
    COE_TRY(config_window(&window, config, where));
    for (int32_t l = 0; windowed && l < s->n_layers; l++) s->layer[l].attn.window = window;
    return COE_OK;
}

static const struct name_row names[] = { NAMES_MODEL,
                                         NAMES_PRE_NORMS,
                                         NAMES_ATTENTION,
                                         NAMES_DENSE(LAYER "mlp."),
                                         NAMES_GATE(LAYER "mlp."),
                                         NAMES_EXPERTS(LAYER "mlp."),
                                         NAMES_END };
static const char *const types[] = { "qwen3_moe", NULL };
static const struct family family = { .model_types = types,
                                      .translate = translate,
                                      .names = names,
                                      FUSED_IN(LAYER "mlp."),
                                      .key_n_experts = "num_experts",
                                      .key_top_k = "num_experts_per_tok" };
COE_PART(family, qwen3_moe, .summary = "Qwen3-MoE: softmax, top-k, q/k norm per head", .impl = &family)
