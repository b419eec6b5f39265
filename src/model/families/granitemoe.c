/* granitemoe.c — Granite-MoE: four multipliers; softmax over the chosen logits, which is softmax over all,
 * renormalised; experts fused under names of their own. Card: routing.md F7. */
#include "model/families/names.h"

static coe_status multipliers(struct spec *s, const json_t *config, const char *where)
{
    float logits = 1, scale = s->layer[0].attn.scale;
    COE_TRY(json_get_f32(config, "embedding_multiplier", &s->embed_scale, where));
    COE_TRY(json_get_f32(config, "residual_multiplier", &s->residual_scale, where));
    COE_TRY(json_get_f32(config, "logits_scaling", &logits, where));
    COE_TRY(json_get_f32(config, "attention_multiplier", &scale, where));
    if (logits == 0) return coe_fail(COE_E_INPUT, "%s: logits_scaling 0", where);
    s->logit_scale = 1 / logits;
    for (int32_t l = 0; l < s->n_layers; l++) s->layer[l].attn.scale = scale;
    return COE_OK;
}

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    COE_TRY(config_common(s, a, config, where));
    struct moe_spec m = s->layer[0].moe;
    m.expert_ffn = s->layer[0].ffn;
    m.router.renormalize = true;
    COE_TRY(json_need_i32(config, "num_local_experts", 1, 65536, &m.n_experts, where));
    COE_TRY(json_get_i32(config, "num_experts_per_tok", 1, 1024, &m.router.top_k, where));
    COE_TRY(
        json_get_i32(config, "shared_intermediate_size", 0, 1 << 24, &m.shared_ffn, where)); /* the "shared" variant */
    COE_TRY(config_hf_loss(&m, config, where));
    config_moe_from(s, &m, 0);
    COE_TRY(config_attention_bias(s, config, true, where));
    return multipliers(s, config, where);
}

#define MOE LAYER "block_sparse_moe."
static const struct name_row names[] = {
    NAMES_MODEL,
    NAMES_PRE_NORMS,
    NAMES_ATTENTION,
    NAME(SLOT_ROUTER, MOE "router.layer.weight"),
    NAME(SLOT_ROUTER, MOE "router.weight"), /* transformers 5 */
    CUT(SLOT_EXPERT_GATE, MOE "input_linear.weight", CUT_EXPERT, 0, 2),
    CUT(SLOT_EXPERT_UP, MOE "input_linear.weight", CUT_EXPERT, 1, 2),
    CUT(SLOT_EXPERT_DOWN, MOE "output_linear.weight", CUT_EXPERT, 0, 1),
    CUT(SLOT_EXPERT_GATE, MOE "experts.gate_up_proj", CUT_EXPERT, 0, 2),
    CUT(SLOT_EXPERT_UP, MOE "experts.gate_up_proj", CUT_EXPERT, 1, 2),
    CUT(SLOT_EXPERT_DOWN, MOE "experts.down_proj", CUT_EXPERT, 0, 1),
    CUT(SLOT_SHARED_GATE, LAYER "shared_mlp.input_linear.weight", 0, 0, 2),
    CUT(SLOT_SHARED_UP, LAYER "shared_mlp.input_linear.weight", 0, 1, 2),
    NAME(SLOT_SHARED_DOWN, LAYER "shared_mlp.output_linear.weight"),
    NAMES_END,
};
static const char *const types[] = { "granitemoe", "granitemoeshared", NULL };
static const struct family family = { .model_types = types,
                                      .translate = translate,
                                      .names = names,
                                      .key_n_experts = "num_local_experts",
                                      .key_top_k = "num_experts_per_tok" };
COE_PART(family, granitemoe, .summary = "Granite-MoE: four multipliers, softmax over the chosen", .impl = &family)
