/* minimax_m2.c — MiniMax-M2: sigmoid scores with a bias for choosing, q and k normalised over all heads together, the
 * first rotary_dim elements of a head rotated. Released files are FP8 with block scales. */
#include "model/families/names.h"

static coe_status attention(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    struct attn_spec at = s->layer[0].attn;
    bool norm = true;
    (void)a;
    COE_TRY(json_get_bool(config, "use_qk_norm", &norm, where));
    COE_TRY(json_get_i32(config, "rotary_dim", 2, at.head_dim, &at.rope.n_rot, where));
    if (at.rope.n_rot % 2) return coe_fail(COE_E_INPUT, "%s: rotary_dim %d is not even", where, at.rope.n_rot);
    at.qk_norm = norm ? QK_NORM_FULL : QK_NORM_NONE;
    for (int32_t l = 0; l < s->n_layers; l++) s->layer[l].attn = at;
    return COE_OK;
}

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    COE_TRY(config_common(s, a, config, where));
    struct moe_spec m = s->layer[0].moe;
    m.expert_ffn = s->layer[0].ffn;
    m.router.score = SCORE_SIGMOID;
    m.router.renormalize = m.router.selection_bias = true;
    m.router.top_k = 8;
    COE_TRY(json_need_i32(config, "num_local_experts", 1, 65536, &m.n_experts, where));
    COE_TRY(json_get_i32(config, "num_experts_per_tok", 1, 1024, &m.router.top_k, where));
    COE_TRY(json_get_bool(config, "use_routing_bias", &m.router.selection_bias, where));
    COE_TRY(config_hf_loss(&m, config, where));
    config_moe_from(s, &m, 0);
    return attention(s, a, config, where);
}

#define MOE LAYER "block_sparse_moe."
static const struct name_row names[] = {
    NAMES_MODEL,
    NAMES_PRE_NORMS,
    NAMES_ATTENTION,
    NAME(SLOT_ROUTER, MOE "gate.weight"),
    NAME(SLOT_ROUTER, LAYER "mlp.gate.weight"),
    NAME(SLOT_SELECTION_BIAS, MOE "e_score_correction_bias"),
    NAME(SLOT_SELECTION_BIAS, LAYER "mlp.e_score_correction_bias"),
    NAME(SLOT_SELECTION_BIAS, LAYER "mlp.gate.e_score_correction_bias"),
    NAMES_EXPERTS_W123(MOE),
    NAMES_END,
};
static const char *const types[] = { "minimax_m2", NULL };
static const struct family family = { .model_types = types,
                                      .translate = translate,
                                      .names = names,
                                      .extra_layers = true,
                                      FUSED_IN(LAYER "mlp."),
                                      .key_n_experts = "num_local_experts",
                                      .key_top_k = "num_experts_per_tok" };
COE_PART(family, minimax_m2, .summary = "MiniMax-M2: sigmoid routing with a selection bias, partial rope",
         .impl = &family)
