/* hunyuan_v1_moe.c — Hunyuan-A13B: q and k normalised behind the rope, a shared MLP, numbers of experts given layer by
 * layer. */
#include "model/families/names.h"

static coe_status routed(struct spec *s, const json_t *config, const char *where)
{
    struct moe_spec m = s->layer[0].moe;
    m.router.renormalize = true;
    COE_TRY(config_hf_loss(&m, config, where));
    for (int32_t l = 0; l < s->n_layers; l++) {
        int32_t shared = 1;
        m.expert_ffn = s->layer[l].ffn;
        m.router.top_k = 1;
        COE_TRY(config_per_layer(config, "num_experts", l, 1, 65536, &m.n_experts, where));
        COE_TRY(config_per_layer(config, "moe_topk", l, 1, 1024, &m.router.top_k, where));
        COE_TRY(config_per_layer(config, "moe_intermediate_size", l, 1, 1 << 20, &m.expert_ffn, where));
        COE_TRY(config_per_layer(config, "num_shared_expert", l, 0, 1024, &shared, where));
        m.shared_ffn = s->layer[l].ffn; /* the reference takes the width of the dense config, once */
        s->layer[l].is_moe = m.n_experts > 1;
        s->layer[l].moe = m;
    }
    return COE_OK;
}

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    COE_TRY(config_common(s, a, config, where));
    bool norm = true;
    COE_TRY(json_get_bool(config, "use_qk_norm", &norm, where));
    for (int32_t l = 0; l < s->n_layers; l++) {
        s->layer[l].attn.qk_norm = norm ? QK_NORM_HEAD : QK_NORM_NONE;
        s->layer[l].attn.norm_after_rope = true;
    }
    COE_TRY(config_attention_bias(s, config, true, where));
    return routed(s, config, where);
}

static const struct name_row names[] = {
    NAMES_MODEL,
    NAMES_PRE_NORMS,
    NAME(SLOT_Q_NORM, LAYER "self_attn.query_layernorm.weight"),
    NAME(SLOT_K_NORM, LAYER "self_attn.key_layernorm.weight"),
    NAMES_ATTENTION,
    NAMES_DENSE(LAYER "mlp."),
    NAME(SLOT_ROUTER, LAYER "mlp.gate.wg.weight"),
    NAMES_EXPERTS(LAYER "mlp."),
    NAMES_SHARED(LAYER "mlp.shared_mlp."),
    NAMES_END,
};
static const char *const types[] = { "hunyuan_v1_moe", NULL };
static const struct family family = { .model_types = types,
                                      .translate = translate,
                                      .names = names,
                                      FUSED_IN(LAYER "mlp."),
                                      .key_n_experts = "num_experts",
                                      .key_top_k = "moe_topk" };
COE_PART(family, hunyuan_v1_moe, .summary = "Hunyuan-A13B: softmax, renormalised, shared MLP, q/k norm behind the rope",
         .impl = &family)
