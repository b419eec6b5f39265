/* mistral.c — Mistral 7B: Llama with a sliding window. Card: routing.md, families, common part. */
#include "model/families/names.h"

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    COE_TRY(config_common(s, a, config, where));
    int64_t window = 0;
    COE_TRY(config_window(&window, config, where));
    for (int32_t l = 0; l < s->n_layers; l++) s->layer[l].attn.window = window;
    return config_typed_window(s, config, "sliding_attention", where);
}

static const struct name_row names[] = { NAMES_MODEL, NAMES_PRE_NORMS, NAMES_ATTENTION, NAMES_DENSE(LAYER "mlp."),
                                         NAMES_END };
static const char *const types[] = { "mistral", NULL };
static const char *const ignore[] = { "*rotary_emb.inv_freq", NULL };
static const struct family family = { .model_types = types, .translate = translate, .names = names, .ignore = ignore };
COE_PART(family, mistral, .summary = "Mistral: dense decoder with a sliding window", .impl = &family)
