/* coe_deepseekv2.c — the Chain-of-Experts authors' own model: DeepSeek-V2 whose experts run inner_iter times in a row.
 * Card: routing.md 1. use_igate: a router for each iteration; inner and outer residual as layer.c names them. */
#include "model/families/names.h"

static coe_status read_chain(struct chain_spec *c, const json_t *config, const char *where)
{
    static const enum residual_mode mode[2][2] = { { RESIDUAL_NEITHER, RESIDUAL_OUTER },
                                                   { RESIDUAL_INNER, RESIDUAL_BOTH } };
    bool own_gates = true, inner = true, outer = false;
    c->n_iterations = 2;
    COE_TRY(json_get_i32(config, "inner_iter", 1, MAX_ITERATIONS, &c->n_iterations, where));
    COE_TRY(json_get_bool(config, "inner_residual", &inner, where));
    COE_TRY(json_get_bool(config, "outer_residual", &outer, where));
    COE_TRY(json_get_bool(config, "use_igate", &own_gates, where));
    c->shared_gate = !own_gates;
    c->residual = mode[inner][outer];
    return COE_OK;
}

static coe_status read_loss(struct moe_spec *m, const json_t *config, const char *where)
{
    double alpha = 0.001;
    bool by_sequence = true;
    COE_TRY(json_get_num(config, "aux_loss_alpha", &alpha, where));
    COE_TRY(json_get_bool(config, "seq_aux", &by_sequence, where));
    m->loss[0] = (struct loss_spec){ by_sequence ? "sequence" : "assign", alpha };
    m->n_losses = alpha != 0;
    return COE_OK;
}

/* Their code scales only the weights that it does not normalise. */
static coe_status read_weights(struct router_spec *r, const json_t *config, const char *where)
{
    const char *score = "softmax";
    bool normalise = false;
    COE_TRY(json_get_str(config, "scoring_func", &score, where));
    if (strcmp(score, "softmax")) return coe_fail(COE_E_INPUT, "%s: scoring_func '%s' is unknown", where, score);
    COE_TRY(json_get_bool(config, "norm_topk_prob", &normalise, where));
    r->renormalize = normalise && r->top_k > 1;
    r->renorm_eps = 1e-20f;
    if (r->renormalize) r->scale = 1;
    return COE_OK;
}

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    int32_t first = 0, every = 1;
    COE_TRY(config_common(s, a, config, where));
    struct moe_spec m = s->layer[0].moe;
    COE_TRY(config_deepseek_experts(&m, config, where));
    COE_TRY(config_softmax_groups(&m, config, where));
    COE_TRY(read_weights(&m.router, config, where));
    COE_TRY(read_chain(&m.chain, config, where));
    COE_TRY(read_loss(&m, config, where));
    COE_TRY(config_latent(s, a, config, where));
    COE_TRY(json_get_i32(config, "first_k_dense_replace", 0, INT32_MAX, &first, where));
    COE_TRY(json_get_i32(config, "moe_layer_freq", 1, INT32_MAX, &every, where));
    if (first > 0 || every > 1)
        return coe_fail(COE_E_INPUT,
                        "%s: dense layers (first_k_dense_replace %d, moe_layer_freq %d) in a chain of experts", where,
                        first, every);
    config_moe_from(s, &m, 0);
    return COE_OK;
}

static const struct name_row names[] = {
    NAMES_MODEL,
    NAMES_PRE_NORMS,
    NAMES_LATENT(LAYER "self_attn."),
    NAMES_GATE(LAYER "mlp."),
    NAME(SLOT_ROUTER, LAYER "mlp.gate.{t}.weight"), /* a list of gates even where there is one iteration */
    NAMES_EXPERTS(LAYER "mlp."),
    NAMES_SHARED(LAYER "mlp.shared_experts."),
    NAMES_END,
};
static const char *const types[] = { "coe_deepseekv2", NULL };
static const struct family family = { .model_types = types,
                                      .translate = translate,
                                      .names = names,
                                      FUSED_IN(LAYER "mlp."),
                                      .key_n_experts = "n_routed_experts",
                                      .key_top_k = "num_experts_per_tok" };
COE_PART(family, coe_deepseekv2, .summary = "the Chain-of-Experts authors' model: DeepSeek-V2 with chains",
         .impl = &family)
