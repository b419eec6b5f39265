/* qwen3_next.c — Qwen3-Next: three layers of the gated delta rule to one of gated attention, norms with weights stored
 * minus one, a gated shared expert. */
#include "model/families/names.h"

static coe_status routed(struct spec *s, const json_t *config, const char *where)
{
    struct moe_spec m = s->layer[0].moe;
    m.router.top_k = 10;
    m.router.renormalize = m.shared_gate = true;
    COE_TRY(json_need_i32(config, "num_experts", 1, 65536, &m.n_experts, where));
    COE_TRY(json_get_i32(config, "num_experts_per_tok", 1, 1024, &m.router.top_k, where));
    COE_TRY(json_need_i32(config, "moe_intermediate_size", 1, 1 << 20, &m.expert_ffn, where));
    COE_TRY(json_get_i32(config, "shared_expert_intermediate_size", 0, 1 << 24, &m.shared_ffn, where));
    COE_TRY(json_get_bool(config, "norm_topk_prob", &m.router.renormalize, where));
    COE_TRY(config_hf_loss(&m, config, where));
    return config_qwen_moe(s, &m, config, where);
}

static coe_status mixers(struct spec *s, const json_t *config, const char *where)
{
    struct recurrent_spec r = { .kernel = 4 };
    int32_t every = 4;
    COE_TRY(json_get_i32(config, "linear_conv_kernel_dim", 1, 1024, &r.kernel, where));
    COE_TRY(json_need_i32(config, "linear_num_key_heads", 1, 1 << 16, &r.n_k, where));
    COE_TRY(json_need_i32(config, "linear_num_value_heads", 1, 1 << 16, &r.n_v, where));
    COE_TRY(json_need_i32(config, "linear_key_head_dim", 1, 1 << 16, &r.d_k, where));
    COE_TRY(json_need_i32(config, "linear_value_head_dim", 1, 1 << 16, &r.d_v, where));
    COE_TRY(json_get_i32(config, "full_attention_interval", 1, INT32_MAX, &every, where));
    if (r.n_v % r.n_k) return coe_fail(COE_E_INPUT, "%s: %d value heads for %d key heads", where, r.n_v, r.n_k);
    for (int32_t l = 0; l < s->n_layers; l++) {
        struct attn_spec *a = &s->layer[l].attn;
        const char *type = config_layer_type(config, l);
        a->qk_norm = QK_NORM_HEAD;
        a->gate = ATTN_GATE_IN_Q;
        if (type ? !strcmp(type, "full_attention") : (l + 1) % every == 0) continue;
        if (type && strcmp(type, "linear_attention"))
            return coe_fail(COE_E_INPUT, "%s: layer_types[%d] '%s' is unknown", where, l, type);
        a->kind = MIX_DELTA;
        a->recurrent = r;
        a->rope.kind = ROPE_NONE;
    }
    return COE_OK;
}

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    COE_TRY(config_common(s, a, config, where));
    s->norm_add = 1;
    config_rotated_part(s, config, 0.25);
    COE_TRY(config_attention_bias(s, config, true, where));
    COE_TRY(mixers(s, config, where));
    return routed(s, config, where);
}

#define LINEAR LAYER "linear_attn."
static const struct name_row names[] = {
    NAMES_MODEL,
    NAMES_PRE_NORMS,
    NAME_ONLY(NAME_IN_DELTA, SLOT_O, LINEAR "out_proj.weight"),
    NAMES_ATTENTION,
    NAMES_DENSE(LAYER "mlp."),
    NAMES_GATE(LAYER "mlp."),
    NAMES_EXPERTS(LAYER "mlp."),
    NAMES_SHARED(LAYER "mlp.shared_expert."),
    NAME(SLOT_SHARED_EXPERT_GATE, LAYER "mlp.shared_expert_gate.weight"),
    NAME(SLOT_DELTA_QKVZ, LINEAR "in_proj_qkvz.weight"),
    NAME(SLOT_DELTA_BA, LINEAR "in_proj_ba.weight"),
    NAME(SLOT_CONV, LINEAR "conv1d.weight"),
    NAME(SLOT_DELTA_A, LINEAR "A_log"),
    NAME(SLOT_DELTA_DT, LINEAR "dt_bias"),
    NAME(SLOT_DELTA_NORM, LINEAR "norm.weight"),
    NAMES_END,
};
static const char *const types[] = { "qwen3_next", NULL };
static const char *const ignore[] = { "mtp.", NULL };
static const struct family family = { .model_types = types,
                                      .translate = translate,
                                      .names = names,
                                      .ignore = ignore,
                                      FUSED_IN(LAYER "mlp."),
                                      .key_n_experts = "num_experts",
                                      .key_top_k = "num_experts_per_tok" };
COE_PART(family, qwen3_next, .summary = "Qwen3-Next: gated delta rule and gated attention, gated shared expert",
         .impl = &family)
