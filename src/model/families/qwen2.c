/* qwen2.c — Qwen2 and Qwen2.5: biases on q, k and v; a window on the upper layers if the config turns it on. */
#include "model/families/names.h"

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    COE_TRY(config_common(s, a, config, where));
    for (int32_t l = 0; l < s->n_layers; l++) s->layer[l].attn.qkv_bias = true;
    return config_qwen_window(s, config, where);
}

static const struct name_row names[] = { NAMES_MODEL, NAMES_PRE_NORMS, NAMES_ATTENTION, NAMES_DENSE(LAYER "mlp."),
                                         NAMES_END };
static const char *const types[] = { "qwen2", NULL };
static const char *const ignore[] = { "*rotary_emb.inv_freq", NULL };
static const struct family family = { .model_types = types, .translate = translate, .names = names, .ignore = ignore };
COE_PART(family, qwen2, .summary = "Qwen2 and 2.5: dense, biases on q, k, v", .impl = &family)
