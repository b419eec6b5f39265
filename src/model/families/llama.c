/* llama.c — Llama 1 to 3: the plain dense decoder. Card: routing.md, families, common part. */
#include "model/families/names.h"

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    COE_TRY(config_common(s, a, config, where));
    for (int32_t l = 0; l < s->n_layers; l++) COE_TRY(json_get_bool(config, "mlp_bias", &s->layer[l].ffn_bias, where));
    return config_attention_bias(s, config, true, where);
}

static const struct name_row names[] = { NAMES_MODEL, NAMES_PRE_NORMS, NAMES_ATTENTION, NAMES_DENSE(LAYER "mlp."),
                                         NAMES_END };
static const char *const types[] = { "llama", NULL };
static const char *const ignore[] = { "*rotary_emb.inv_freq", NULL };
static const struct family family = { .model_types = types, .translate = translate, .names = names, .ignore = ignore };
COE_PART(family, llama, .summary = "Llama 1-3: dense decoder", .impl = &family)
