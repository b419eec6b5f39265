/* deepseek.c — DeepSeek-MoE 16B (V1), V2 and V3/R1: many small experts beside shared ones, dense layers first. V2 and
 * V3 have latent attention; V2 limits the choice to the best groups by their best expert, V3 scores with a sigmoid and
 * a bias. Cards: routing.md 2 and F5. */
#include "model/families/names.h"

/* first_k_dense_replace dense layers, then every moe_layer_freq-th is MoE */
static coe_status place(struct spec *s, const struct moe_spec *m, const json_t *config, int32_t first,
                        const char *where)
{
    int32_t every = 1;
    COE_TRY(json_get_i32(config, "first_k_dense_replace", 0, INT32_MAX, &first, where));
    COE_TRY(json_get_i32(config, "moe_layer_freq", 1, INT32_MAX, &every, where));
    config_moe_from(s, m, first);
    for (int32_t l = 0; l < s->n_layers; l++)
        if (l % every) s->layer[l].is_moe = false;
    return COE_OK;
}

static coe_status v1(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    COE_TRY(config_common(s, a, config, where));
    struct moe_spec m = s->layer[0].moe;
    m.router.top_k = 6;
    COE_TRY(config_deepseek_experts(&m, config, where));
    COE_TRY(config_softmax_groups(&m, config, where));
    COE_TRY(json_get_bool(config, "norm_topk_prob", &m.router.renormalize, where));
    COE_TRY(config_attention_bias(s, config, true, where));
    return place(s, &m, config, 0, where);
}

/* norm_topk_prob is false in every release; where it is true the reference ignores it */
static coe_status v2(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    COE_TRY(config_common(s, a, config, where));
    struct moe_spec m = s->layer[0].moe;
    m.router.top_k = 6;
    COE_TRY(config_deepseek_experts(&m, config, where));
    COE_TRY(config_softmax_groups(&m, config, where));
    COE_TRY(config_latent(s, a, config, where));
    return place(s, &m, config, 0, where);
}

static coe_status v3(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    COE_TRY(config_common(s, a, config, where));
    struct moe_spec m = s->layer[0].moe;
    m.router.top_k = 8;
    m.router.scale = 2.5f;
    COE_TRY(config_deepseek_experts(&m, config, where));
    m.router.renormalize = true;
    COE_TRY(config_sigmoid_routing(&m, config, where));
    COE_TRY(config_latent(s, a, config, where));
    return place(s, &m, config, 3, where);
}

#define ROUTED                                                                        \
    NAMES_DENSE(LAYER "mlp."), NAMES_GATE(LAYER "mlp."), NAMES_EXPERTS(LAYER "mlp."), \
        NAMES_SHARED(LAYER "mlp.shared_experts.")
static const struct name_row plain_names[] = { NAMES_MODEL, NAMES_PRE_NORMS, NAMES_ATTENTION, ROUTED, NAMES_END };
static const struct name_row latent_names[] = { NAMES_MODEL, NAMES_PRE_NORMS, NAMES_LATENT(LAYER "self_attn."), ROUTED,
                                                NAMES_END };
static const char *const types1[] = { "deepseek", NULL }, *const types2[] = { "deepseek_v2", NULL },
                         *const types3[] = { "deepseek_v3", NULL };
static const char *const ignore[] = { "*rotary_emb.inv_freq", NULL };
#define KEYS \
    .ignore = ignore, FUSED_IN(LAYER "mlp."), .key_n_experts = "n_routed_experts", .key_top_k = "num_experts_per_tok"
static const struct family family1 = { .model_types = types1, .translate = v1, .names = plain_names, KEYS };
static const struct family family2 = { .model_types = types2, .translate = v2, .names = latent_names, KEYS };
static const struct family family3 = {
    .model_types = types3, .translate = v3, .names = latent_names, .extra_layers = true, KEYS
};
COE_PART(family, deepseek, .summary = "DeepSeek-MoE 16B: fine-grained and shared experts", .impl = &family1)
COE_PART(family, deepseek_v2, .summary = "DeepSeek-V2: latent attention, group-limited softmax routing",
         .impl = &family2)
COE_PART(family, deepseek_v3, .summary = "DeepSeek-V3/R1: latent attention, sigmoid routing with a selection bias",
         .impl = &family3)
