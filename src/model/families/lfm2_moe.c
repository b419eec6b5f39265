/* lfm2_moe.c — LFM2-MoE: short convolutions mixed with attention, sigmoid routing with a bias for choosing. */
#include "model/families/names.h"

static const char *const keys[][2] = { { "norm_eps", "rms_norm_eps" },
                                       { "tie_embedding", "tie_word_embeddings" },
                                       { NULL, NULL } };

static coe_status mixers(struct spec *s, const json_t *config, const char *where)
{
    struct recurrent_spec conv = { .kernel = 3 };
    COE_TRY(json_get_i32(config, "conv_L_cache", 1, 1024, &conv.kernel, where));
    COE_TRY(json_get_bool(config, "conv_bias", &conv.bias, where));
    for (int32_t l = 0; l < s->n_layers; l++) {
        struct attn_spec *a = &s->layer[l].attn;
        const char *type = config_layer_type(config, l);
        if (!type) return coe_fail(COE_E_INPUT, "%s: layer_types does not name layer %d", where, l);
        a->qk_norm = QK_NORM_HEAD;
        if (!strcmp(type, "full_attention")) continue;
        if (strcmp(type, "conv")) return coe_fail(COE_E_INPUT, "%s: layer_types[%d] '%s' is unknown", where, l, type);
        a->kind = MIX_CONV;
        a->recurrent = conv;
        a->rope.kind = ROPE_NONE;
    }
    return COE_OK;
}

static coe_status routed(struct spec *s, const json_t *config, const char *where)
{
    struct moe_spec m = s->layer[0].moe;
    int32_t first = 2;
    m.router.renormalize = true;
    COE_TRY(config_sigmoid_routing(&m, config, where));
    m.router.renorm_eps = 1e-6f;
    m.router.top_k = 4;
    COE_TRY(json_need_i32(config, "num_experts", 1, 65536, &m.n_experts, where));
    COE_TRY(json_get_i32(config, "num_experts_per_tok", 1, 1024, &m.router.top_k, where));
    COE_TRY(json_need_i32(config, "moe_intermediate_size", 1, 1 << 20, &m.expert_ffn, where));
    COE_TRY(json_get_bool(config, "use_expert_bias", &m.router.selection_bias, where));
    COE_TRY(json_get_i32(config, "num_dense_layers", 0, INT32_MAX, &first, where));
    config_moe_from(s, &m, first);
    return COE_OK;
}

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    json_t *common = config_renamed(config, keys);
    if (!common) return COE_E_NOMEM;
    s->norm_eps = 1e-5f;
    s->tied = true;
    coe_status status = config_common(s, a, common, where);
    json_decref(common);
    COE_TRY(status);
    COE_TRY(mixers(s, config, where));
    return routed(s, config, where);
}

#define FF LAYER "feed_forward."
static const struct name_row names[] = {
    NAME_ONLY(NAME_IN_CONV, SLOT_O, LAYER "conv.out_proj.weight"),
    NAME(SLOT_O, LAYER "self_attn.out_proj.weight"),
    NAME(SLOT_Q_NORM, LAYER "self_attn.q_layernorm.weight"),
    NAME(SLOT_K_NORM, LAYER "self_attn.k_layernorm.weight"),
    NAMES_ATTENTION,
    NAME(SLOT_EMBED, "model.embed_tokens.weight"),
    NAME(SLOT_FINAL_NORM, "model.embedding_norm.weight"),
    NAME(SLOT_HEAD, "lm_head.weight"),
    NAME(SLOT_ATTN_NORM, LAYER "operator_norm.weight"),
    NAME(SLOT_FFN_NORM, LAYER "ffn_norm.weight"),
    NAME(SLOT_CONV_IN, LAYER "conv.in_proj.weight"),
    NAME(SLOT_CONV_IN_BIAS, LAYER "conv.in_proj.bias"),
    NAME(SLOT_CONV, LAYER "conv.conv.weight"),
    NAME(SLOT_CONV_BIAS, LAYER "conv.conv.bias"),
    NAME_ONLY(NAME_IN_CONV, SLOT_O_BIAS, LAYER "conv.out_proj.bias"),
    NAME(SLOT_GATE, FF "w1.weight"),
    NAME(SLOT_UP, FF "w3.weight"),
    NAME(SLOT_DOWN, FF "w2.weight"),
    NAME(SLOT_ROUTER, FF "gate.weight"),
    NAME(SLOT_SELECTION_BIAS, FF "expert_bias"),
    NAMES_EXPERTS_W123(FF),
    NAMES_END,
};
static const char *const types[] = { "lfm2_moe", NULL };
static const struct family family = { .model_types = types,
                                      .translate = translate,
                                      .names = names,
                                      FUSED_IN(FF),
                                      .key_n_experts = "num_experts",
                                      .key_top_k = "num_experts_per_tok" };
COE_PART(family, lfm2_moe, .summary = "LFM2-MoE: short convolutions and attention, sigmoid routing", .impl = &family)
