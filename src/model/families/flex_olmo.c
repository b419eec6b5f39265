/* flex_olmo.c — FlexOlmo: OLMo 2 with experts; norms behind attention and MoE only. */
#include "model/families/names.h"

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    COE_TRY(config_common(s, a, config, where));
    struct moe_spec m = s->layer[0].moe;
    double coef = 0.01; /* the library's default for this family */
    m.expert_ffn = s->layer[0].ffn;
    m.router.top_k = 5;
    COE_TRY(json_need_i32(config, "num_experts", 1, 65536, &m.n_experts, where));
    COE_TRY(json_get_i32(config, "num_experts_per_tok", 1, 1024, &m.router.top_k, where));
    COE_TRY(json_get_bool(config, "norm_topk_prob", &m.router.renormalize, where));
    COE_TRY(json_get_num(config, "router_aux_loss_coef", &coef, where));
    m.loss[0] = (struct loss_spec){ "hf", coef };
    m.n_losses = coef != 0;
    config_moe_from(s, &m, 0);
    for (int32_t l = 0; l < s->n_layers; l++) {
        s->layer[l].pre_norm = false;
        s->layer[l].post_norm = true;
        s->layer[l].attn.qk_norm = QK_NORM_FULL;
    }
    return config_attention_bias(s, config, true, where);
}

static const struct name_row names[] = {
    NAMES_MODEL, NAMES_POST_NORMS, NAMES_ATTENTION, NAMES_GATE(LAYER "mlp."), NAMES_EXPERTS(LAYER "mlp."), NAMES_END
};
static const char *const types[] = { "flex_olmo", NULL };
static const struct family family = { .model_types = types,
                                      .translate = translate,
                                      .names = names,
                                      FUSED_IN(LAYER "mlp."),
                                      .key_n_experts = "num_experts",
                                      .key_top_k = "num_experts_per_tok" };
COE_PART(family, flex_olmo, .summary = "FlexOlmo: softmax, top-k, norms behind the sub-layers", .impl = &family)
