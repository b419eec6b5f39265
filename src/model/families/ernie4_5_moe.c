/* ernie4_5_moe.c — ERNIE 4.5 MoE: softmax scores with a bias for choosing, interleaved rope, MoE in a range of layers.
 */
#include "model/families/names.h"

static coe_status routed(struct moe_spec *m, const json_t *config, const char *where)
{
    int32_t shared = 0;
    m->router.renormalize = m->router.selection_bias = true;
    m->router.renorm_min = 1e-12f;
    COE_TRY(json_need_i32(config, "moe_num_experts", 1, 65536, &m->n_experts, where));
    COE_TRY(json_get_i32(config, "moe_k", 1, 1024, &m->router.top_k, where));
    COE_TRY(json_need_i32(config, "moe_intermediate_size", 1, 1 << 20, &m->expert_ffn, where));
    COE_TRY(json_get_i32(config, "moe_num_shared_experts", 0, 1024, &shared, where));
    COE_TRY(json_get_f32(config, "moe_norm_min", &m->router.renorm_min, where));
    m->shared_ffn = shared * m->expert_ffn;
    return config_hf_loss(m, config, where);
}

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    s->norm_eps = 1e-5f;
    COE_TRY(config_common(s, a, config, where));
    struct moe_spec m = s->layer[0].moe;
    int32_t first = 1, last = -1, every = 1;
    bool bias = false;
    COE_TRY(routed(&m, config, where));
    COE_TRY(json_get_i32(config, "moe_layer_start_index", 0, INT32_MAX, &first, where));
    COE_TRY(json_get_i32(config, "moe_layer_end_index", -1, INT32_MAX, &last, where));
    COE_TRY(json_get_i32(config, "moe_layer_interval", 1, INT32_MAX, &every, where));
    COE_TRY(json_get_bool(config, "use_bias", &bias, where));
    if (last < 0) last = s->n_layers - 1;
    for (int32_t l = 0; l < s->n_layers; l++) {
        struct layer_spec *layer = &s->layer[l];
        layer->is_moe = (l + 1) % every == 0 && first <= l && l <= last;
        layer->moe = m;
        layer->moe.shared_bias = bias;
        layer->attn.rope.interleaved = true;
        layer->attn.qkv_bias = layer->attn.o_bias = layer->ffn_bias = bias;
    }
    s->head_bias = bias;
    return COE_OK;
}

static const struct name_row names[] = {
    NAMES_MODEL,
    NAME(SLOT_HEAD_BIAS, "lm_head.bias"),
    NAMES_PRE_NORMS,
    NAMES_ATTENTION,
    NAMES_DENSE(LAYER "mlp."),
    NAME(SLOT_ROUTER, LAYER "mlp.gate.weight"),
    NAME(SLOT_SELECTION_BIAS, LAYER "mlp.moe_statics.e_score_correction_bias"),
    NAME(SLOT_SELECTION_BIAS, LAYER "mlp.gate.moe_statics.e_score_correction_bias"),
    NAMES_EXPERTS(LAYER "mlp."),
    NAMES_SHARED(LAYER "mlp.shared_experts."),
    NAMES_END,
};
static const char *const types[] = { "ernie4_5_moe", NULL };
static const char *const ignore[] = { "model.mtp_", NULL };
static const struct family family = { .model_types = types,
                                      .translate = translate,
                                      .names = names,
                                      .ignore = ignore,
                                      .extra_layers = true,
                                      FUSED_IN(LAYER "mlp."),
                                      .key_n_experts = "moe_num_experts",
                                      .key_top_k = "moe_k" };
COE_PART(family, ernie4_5_moe, .summary = "ERNIE 4.5 MoE: softmax with a selection bias, interleaved rope",
         .impl = &family)
