/* jetmoe.c — JetMoE: experts in the attention too. Each token's k experts give k query heads for every key head, and as
 * many output projections. */
#include "model/families/names.h"

static const char *const keys[][2] = { { "kv_channels", "head_dim" },
                                       { "activation_function", "hidden_act" },
                                       { "n_positions", "max_position_embeddings" },
                                       { "ffn_hidden_size", "intermediate_size" },
                                       { NULL, NULL } };

static coe_status routed(struct spec *s, const json_t *config, const char *where)
{
    struct moe_spec m = s->layer[0].moe;
    double coef = 0.01;
    m.expert_ffn = s->layer[0].ffn;
    m.router.renormalize = m.out_bias = true;
    COE_TRY(json_get_i32(config, "moe_num_experts", 1, 65536, &m.n_experts, where));
    COE_TRY(json_get_i32(config, "num_local_experts", 1, 65536, &m.n_experts, where));
    COE_TRY(json_get_i32(config, "moe_top_k", 1, 1024, &m.router.top_k, where));
    COE_TRY(json_get_i32(config, "num_experts_per_tok", 1, 1024, &m.router.top_k, where));
    COE_TRY(json_get_num(config, "aux_loss_coef", &coef, where));
    m.loss[0] = (struct loss_spec){ "hf", coef };
    m.n_losses = coef != 0;
    config_moe_from(s, &m, 0);
    for (int32_t l = 0; l < s->n_layers; l++) {
        struct attn_spec *a = &s->layer[l].attn;
        a->kind = MIX_EXPERTS;
        a->n_heads = a->n_kv_heads * m.router.top_k;
        a->moe = m;
    }
    return COE_OK;
}

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    json_t *common = config_renamed(config, keys);
    if (!common) return COE_E_NOMEM;
    int32_t heads = 0; /* of one expert: the number of query heads follows from it */
    coe_status status = json_need_i32(config, "num_key_value_heads", 1, 1 << 16, &heads, where);
    if (!status && json_object_set_new(common, "num_attention_heads", json_integer(heads))) status = COE_E_NOMEM;
    s->tied = true;
    if (!status) status = config_common(s, a, common, where);
    json_decref(common);
    COE_TRY(status);
    s->norm_eps = 1e-6f; /* of the norms in the layers, whatever rms_norm_eps says */
    return routed(s, config, where);
}

#define ATTN LAYER "self_attention."
#define MLP LAYER "mlp."
static const struct name_row names[] = {
    NAMES_MODEL,
    NAMES_PRE_NORMS,
    CUT(SLOT_K, ATTN "kv_proj.weight", 0, 0, 2),
    CUT(SLOT_V, ATTN "kv_proj.weight", 0, 1, 2),
    NAME(SLOT_ATTN_ROUTER, ATTN "experts.router.layer.weight"),
    CUT(SLOT_ATTN_EXPERT_IN, ATTN "experts.input_linear.weight", CUT_EXPERT, 0, 1),
    CUT(SLOT_ATTN_EXPERT_OUT, ATTN "experts.output_linear.weight", CUT_EXPERT, 0, 1),
    NAME(SLOT_ATTN_EXPERT_BIAS, ATTN "experts.bias"),
    NAME(SLOT_ROUTER, MLP "router.layer.weight"),
    CUT(SLOT_EXPERT_GATE, MLP "input_linear.weight", CUT_EXPERT, 0, 2),
    CUT(SLOT_EXPERT_UP, MLP "input_linear.weight", CUT_EXPERT, 1, 2),
    CUT(SLOT_EXPERT_DOWN, MLP "output_linear.weight", CUT_EXPERT, 0, 1),
    NAME(SLOT_MOE_BIAS, MLP "bias"),
    NAMES_END,
};
static const char *const types[] = { "jetmoe", NULL };
static const struct family family = { .model_types = types, .translate = translate, .names = names };
COE_PART(family, jetmoe, .summary = "JetMoE: experts in attention and MLP", .impl = &family)
