/* olmoe.c — OLMoE-1B-7B: weights not renormalised, q/k norm over the whole projection, optional clamp. Card: routing.md
 * F2. */
#include "model/families/names.h"

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    COE_TRY(config_common(s, a, config, where));
    struct moe_spec m = s->layer[0].moe;
    struct attn_spec at = s->layer[0].attn;
    m.expert_ffn = s->layer[0].ffn;
    m.router.top_k = 8;
    COE_TRY(json_need_i32(config, "num_experts", 1, 65536, &m.n_experts, where));
    COE_TRY(json_get_i32(config, "num_experts_per_tok", 1, 1024, &m.router.top_k, where));
    COE_TRY(json_get_bool(config, "norm_topk_prob", &m.router.renormalize, where));
    COE_TRY(json_get_f32(config, "clip_qkv", &at.clip, where));
    COE_TRY(json_get_bool(config, "attention_bias", &at.qkv_bias, where));
    at.o_bias = at.qkv_bias;
    at.qk_norm = QK_NORM_FULL;
    double coef = 0.01; /* the library's default for this family */
    COE_TRY(json_get_num(config, "router_aux_loss_coef", &coef, where));
    m.loss[0] = (struct loss_spec){ "hf", coef };
    m.n_losses = coef != 0;
    for (int32_t l = 0; l < s->n_layers; l++) {
        s->layer[l].is_moe = true;
        s->layer[l].moe = m;
        s->layer[l].attn = at;
    }
    return COE_OK;
}

static const struct name_row names[] = {
    NAMES_MODEL,
    NAMES_PRE_NORMS,
    NAMES_ATTENTION,
    NAME(SLOT_ROUTER, LAYER "mlp.gate.weight"),
    NAMES_EXPERTS(LAYER "mlp."),
    NAMES_END,
};
static const char *const types[] = { "olmoe", NULL };
static const char *const ignore[] = { "*rotary_emb.inv_freq", NULL };
static const struct family family = { .model_types = types,
                                      .translate = translate,
                                      .names = names,
                                      .ignore = ignore,
                                      FUSED_IN(LAYER "mlp."),
                                      .key_n_experts = "num_experts",
                                      .key_top_k = "num_experts_per_tok" };
COE_PART(family, olmoe, .summary = "OLMoE: softmax, top-k, not renormalised, q/k norm", .impl = &family)
