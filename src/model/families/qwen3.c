/* qwen3.c — Qwen3 dense: q and k normalised per head before the rope. */
#include "model/families/names.h"

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    COE_TRY(config_common(s, a, config, where));
    for (int32_t l = 0; l < s->n_layers; l++) s->layer[l].attn.qk_norm = QK_NORM_HEAD;
    COE_TRY(config_attention_bias(s, config, true, where));
    return config_qwen_window(s, config, where);
}

static const struct name_row names[] = { NAMES_MODEL, NAMES_PRE_NORMS, NAMES_ATTENTION, NAMES_DENSE(LAYER "mlp."),
                                         NAMES_END };
static const char *const types[] = { "qwen3", NULL };
static const struct family family = { .model_types = types, .translate = translate, .names = names };
COE_PART(family, qwen3, .summary = "Qwen3: dense, q/k norm per head", .impl = &family)
