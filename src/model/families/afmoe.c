/* afmoe.c — Trinity (AFMoE): gated attention, four norms, rope on the windowed layers only, scaled embeddings. */
#include "model/families/names.h"

static coe_status routed(struct moe_spec *m, const json_t *config, const char *where)
{
    int32_t shared = 0;
    const char *score = "sigmoid";
    m->router.top_k = 8;
    m->router.renormalize = true; /* the reference does so whatever "route_norm" says */
    COE_TRY(config_sigmoid_routing(m, config, where));
    COE_TRY(json_need_i32(config, "num_experts", 1, 65536, &m->n_experts, where));
    COE_TRY(json_get_i32(config, "num_experts_per_tok", 1, 1024, &m->router.top_k, where));
    COE_TRY(json_need_i32(config, "moe_intermediate_size", 1, 1 << 20, &m->expert_ffn, where));
    COE_TRY(json_get_i32(config, "num_shared_experts", 0, 1024, &shared, where));
    COE_TRY(json_get_f32(config, "route_scale", &m->router.scale, where));
    COE_TRY(json_get_str(config, "score_func", &score, where));
    if (!strcmp(score, "softmax"))
        m->router.score = SCORE_SOFTMAX;
    else if (strcmp(score, "sigmoid"))
        return coe_fail(COE_E_INPUT, "%s: score_func '%s' is unknown", where, score);
    m->shared_ffn = shared * m->expert_ffn;
    return COE_OK;
}

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    COE_TRY(config_common(s, a, config, where));
    struct moe_spec m = s->layer[0].moe;
    int32_t first = 1, every = 4;
    int64_t window = 1024;
    bool scaled = false;
    COE_TRY(routed(&m, config, where));
    COE_TRY(json_get_i32(config, "num_dense_layers", 0, INT32_MAX, &first, where));
    COE_TRY(json_get_i32(config, "global_attn_every_n_layers", 1, INT32_MAX, &every, where));
    COE_TRY(config_window(&window, config, where));
    COE_TRY(json_get_bool(config, "mup_enabled", &scaled, where));
    if (scaled) s->embed_scale = sqrtf((float)s->d_model);
    config_moe_from(s, &m, first);
    for (int32_t l = 0; l < s->n_layers; l++) s->layer[l].attn.window = (l + 1) % every ? window : 0;
    COE_TRY(config_typed_window(s, config, "sliding_attention", where));
    for (int32_t l = 0; l < s->n_layers; l++) {
        s->layer[l].post_norm = true;
        s->layer[l].attn.gate = ATTN_GATE_OWN;
        s->layer[l].attn.qk_norm = QK_NORM_HEAD;
        if (!s->layer[l].attn.window) s->layer[l].attn.rope.kind = ROPE_NONE;
    }
    return COE_OK;
}

static const struct name_row names[] = {
    NAMES_MODEL,
    NAMES_ATTENTION,
    NAME(SLOT_ATTN_NORM, LAYER "input_layernorm.weight"),
    NAME(SLOT_ATTN_POST_NORM, LAYER "post_attention_layernorm.weight"),
    NAME(SLOT_FFN_NORM, LAYER "pre_mlp_layernorm.weight"),
    NAME(SLOT_FFN_POST_NORM, LAYER "post_mlp_layernorm.weight"),
    NAME(SLOT_ATTN_GATE, LAYER "self_attn.gate_proj.weight"),
    NAMES_DENSE(LAYER "mlp."),
    NAME(SLOT_ROUTER, LAYER "mlp.router.gate.weight"),
    NAME(SLOT_SELECTION_BIAS, LAYER "mlp.expert_bias"),
    NAMES_EXPERTS(LAYER "mlp."),
    NAMES_SHARED(LAYER "mlp.shared_experts."),
    NAMES_END,
};
static const char *const types[] = { "afmoe", NULL };
static const struct family family = { .model_types = types,
                                      .translate = translate,
                                      .names = names,
                                      FUSED_IN(LAYER "mlp."),
                                      .key_n_experts = "num_experts",
                                      .key_top_k = "num_experts_per_tok" };
COE_PART(family, afmoe, .summary = "Trinity: gated attention, four norms, sigmoid routing with a selection bias",
         .impl = &family)
