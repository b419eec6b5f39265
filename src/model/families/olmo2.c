/* olmo2.c — OLMo 2: norms behind attention and MLP only, q and k normalised over all heads together. */
#include "model/families/names.h"

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    COE_TRY(config_common(s, a, config, where));
    for (int32_t l = 0; l < s->n_layers; l++) {
        s->layer[l].pre_norm = false;
        s->layer[l].post_norm = true;
        s->layer[l].attn.qk_norm = QK_NORM_FULL;
    }
    return config_attention_bias(s, config, true, where);
}

static const struct name_row names[] = { NAMES_MODEL, NAMES_POST_NORMS, NAMES_ATTENTION, NAMES_DENSE(LAYER "mlp."),
                                         NAMES_END };
static const char *const types[] = { "olmo2", NULL };
static const struct family family = { .model_types = types, .translate = translate, .names = names };
COE_PART(family, olmo2, .summary = "OLMo 2: dense, norms behind the sub-layers", .impl = &family)
