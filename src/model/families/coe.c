/* coe.c — our own models: a pre-norm decoder with grouped-query attention whose MoE layers are described by the "coe"
 * object of config.json (spec_json.c). Names follow the Chain-of-Experts release: mlp.gate.{t}.weight per chain
 * iteration. */
#include "model/families/names.h"

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    COE_TRY(config_common(s, a, config, where));
    bool bias = false;
    COE_TRY(json_get_bool(config, "attention_bias", &bias, where));
    for (int32_t l = 0; l < s->n_layers; l++) s->layer[l].attn.qkv_bias = s->layer[l].attn.o_bias = bias;
    if (!json_object_get(config, "coe")) return coe_fail(COE_E_INPUT, "%s: the \"coe\" object is missing", where);
    return COE_OK;
}

static const struct name_row names[] = {
    NAMES_MODEL,
    NAMES_PRE_NORMS,
    NAMES_ATTENTION,
    NAME(SLOT_ATTN_ROUTER, LAYER "self_attn.router.weight"),
    NAMES_DENSE(LAYER "mlp."),
    NAMES_GATE(LAYER "mlp."),
    NAME(SLOT_ROUTER_BIAS, LAYER "mlp.gate.bias"),
    NAMES_EXPERTS(LAYER "mlp."),
    NAMES_SHARED(LAYER "mlp.shared_experts."),
    NAME(SLOT_SHARED_EXPERT_GATE, LAYER "mlp.shared_expert_gate.weight"),
    NAMES_END,
};
static const char *const types[] = { "coe", NULL };
static const struct family family = { .model_types = types, .translate = translate, .names = names };
COE_PART(family, coe, .summary = "models trained here: Chain-of-Experts and its relatives", .impl = &family)
