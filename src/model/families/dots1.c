/* dots1.c — dots.llm1: DeepSeek-V3's routing over ordinary attention with q and k normalised per head. */
#include "model/families/names.h"

/* The layers behind max_window_layers, if any, have the window. */
static coe_status window(struct spec *s, const json_t *config, const char *where)
{
    int64_t size = 0;
    int32_t from = 62;
    COE_TRY(config_window(&size, config, where));
    COE_TRY(json_get_i32(config, "max_window_layers", 0, INT32_MAX, &from, where));
    for (int32_t l = from; l < s->n_layers; l++) s->layer[l].attn.window = size;
    return config_typed_window(s, config, "sliding_attention", where);
}

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    COE_TRY(config_common(s, a, config, where));
    struct moe_spec m = s->layer[0].moe;
    int32_t first = 0;
    m.router.top_k = 6;
    COE_TRY(config_deepseek_experts(&m, config, where));
    COE_TRY(json_get_i32(config, "first_k_dense_replace", 0, INT32_MAX, &first, where));
    COE_TRY(config_sigmoid_routing(&m, config, where));
    config_moe_from(s, &m, first);
    for (int32_t l = 0; l < s->n_layers; l++) s->layer[l].attn.qk_norm = QK_NORM_HEAD;
    COE_TRY(window(s, config, where));
    return config_attention_bias(s, config, true, where);
}

static const struct name_row names[] = {
    NAMES_MODEL,
    NAMES_PRE_NORMS,
    NAMES_ATTENTION,
    NAMES_DENSE(LAYER "mlp."),
    NAMES_GATE(LAYER "mlp."),
    NAMES_EXPERTS(LAYER "mlp."),
    NAMES_SHARED(LAYER "mlp.shared_experts."),
    NAMES_END,
};
static const char *const types[] = { "dots1", NULL };
static const struct family family = { .model_types = types,
                                      .translate = translate,
                                      .names = names,
                                      FUSED_IN(LAYER "mlp."),
                                      .key_n_experts = "n_routed_experts",
                                      .key_top_k = "num_experts_per_tok" };
COE_PART(family, dots1, .summary = "dots.llm1: sigmoid routing with a selection bias, q/k norm per head",
         .impl = &family)
