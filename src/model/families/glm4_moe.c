/* glm4_moe.c — GLM-4.5: DeepSeek-V3's routing over grouped-query attention with part of each head rotated. Layers
 * behind the last predict several tokens at once and are left alone. */
#include "model/families/names.h"

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    COE_TRY(config_common(s, a, config, where));
    struct moe_spec m = s->layer[0].moe;
    int32_t first = 1;
    bool qk_norm = false;
    m.router.top_k = 8;
    COE_TRY(config_deepseek_experts(&m, config, where));
    COE_TRY(json_get_i32(config, "first_k_dense_replace", 0, INT32_MAX, &first, where));
    COE_TRY(json_get_bool(config, "use_qk_norm", &qk_norm, where));
    m.router.renormalize = true;
    COE_TRY(config_sigmoid_routing(&m, config, where));
    config_moe_from(s, &m, first);
    for (int32_t l = 0; l < s->n_layers; l++) s->layer[l].attn.qk_norm = qk_norm ? QK_NORM_HEAD : QK_NORM_NONE;
    config_rotated_part(s, config, 0.5);
    return config_attention_bias(s, config, false, where);
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
static const char *const types[] = { "glm4_moe", NULL };
static const struct family family = { .model_types = types,
                                      .translate = translate,
                                      .names = names,
                                      .extra_layers = true,
                                      FUSED_IN(LAYER "mlp."),
                                      .key_n_experts = "n_routed_experts",
                                      .key_top_k = "num_experts_per_tok" };
COE_PART(family, glm4_moe, .summary = "GLM-4.5: sigmoid routing with a selection bias, partial rope", .impl = &family)
