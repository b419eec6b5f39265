/* pangu_pro_moe.c — Pangu Pro MoE: the same number of experts from every group, weights times a learned factor of each
 * expert. Cards: routing.md 8 and F10; names from the inference code. */
#include "model/families/names.h"

static coe_status routed(struct moe_spec *m, const json_t *config, const char *where)
{
    m->router.top_k = m->router.n_group = 8; /* the release takes the best of each of eight groups */
    m->router.selection = "grouped";
    m->router.expert_scale = true;
    COE_TRY(json_need_i32(config, "num_experts", 1, 65536, &m->n_experts, where));
    COE_TRY(json_get_i32(config, "num_experts_per_tok", 1, 1024, &m->router.top_k, where));
    COE_TRY(json_get_i32(config, "num_expert_group", 1, 1024, &m->router.n_group, where));
    COE_TRY(json_need_i32(config, "moe_intermediate_size", 1, 1 << 20, &m->expert_ffn, where));
    COE_TRY(json_get_i32(config, "shared_expert_intermediate_size", 0, 1 << 24, &m->shared_ffn, where));
    m->router.topk_group = m->router.n_group;
    return COE_OK;
}

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    COE_TRY(config_common(s, a, config, where));
    struct moe_spec m = s->layer[0].moe;
    bool bias = true;
    COE_TRY(routed(&m, config, where));
    COE_TRY(json_get_bool(config, "attention_bias", &bias, where));
    for (int32_t l = 0; l < s->n_layers; l++) s->layer[l].attn.qkv_bias = s->layer[l].attn.o_bias = bias;
    return config_qwen_moe(s, &m, config, where);
}

static const struct name_row names[] = {
    NAMES_MODEL,
    NAMES_PRE_NORMS,
    NAMES_ATTENTION,
    NAMES_DENSE(LAYER "mlp."),
    NAMES_GATE(LAYER "mlp."),
    NAME(SLOT_EXPERT_SCALE, LAYER "mlp.router_scale"),
    NAMES_EXPERTS(LAYER "mlp."),
    NAMES_SHARED(LAYER "mlp.shared_expert."),
    NAMES_END,
};
static const char *const types[] = { "PanguProMoE", "pangu_pro_moe", NULL };
static const struct family family = { .model_types = types,
                                      .translate = translate,
                                      .names = names,
                                      FUSED_IN(LAYER "mlp."),
                                      .key_n_experts = "num_experts",
                                      .key_top_k = "num_experts_per_tok" };
COE_PART(family, pangu_pro_moe, .summary = "Pangu Pro MoE: experts from every group",
         .impl = &family)
