/* smollm3.c — SmolLM3: every fourth layer has no rope. no_rope_layers[l] = 0 means that layer l has none. */
#include "model/families/names.h"

/* With use_sliding_window the layers without rope have the window. */
static coe_status window(struct spec *s, const json_t *config, const char *where)
{
    bool use = false;
    int64_t size = 0;
    COE_TRY(json_get_bool(config, "use_sliding_window", &use, where));
    COE_TRY(config_window(&size, config, where));
    if (!use) return COE_OK;
    for (int32_t l = 0; l < s->n_layers; l++)
        if (s->layer[l].attn.rope.kind == ROPE_NONE) s->layer[l].attn.window = size;
    return config_typed_window(s, config, "sliding_attention", where);
}

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    int32_t interval = 4;
    COE_TRY(config_common(s, a, config, where));
    COE_TRY(json_get_i32(config, "no_rope_layer_interval", 1, INT32_MAX, &interval, where));
    const json_t *list = json_object_get(config, "no_rope_layers");
    for (int32_t l = 0; l < s->n_layers; l++) {
        bool rope = (l + 1) % interval != 0;
        if (json_array_size(list)) rope = json_integer_value(json_array_get(list, (size_t)l)) != 0;
        if (!rope) s->layer[l].attn.rope.kind = ROPE_NONE;
    }
    for (int32_t l = 0; l < s->n_layers; l++) COE_TRY(json_get_bool(config, "mlp_bias", &s->layer[l].ffn_bias, where));
    COE_TRY(config_attention_bias(s, config, true, where));
    return window(s, config, where);
}

static const struct name_row names[] = { NAMES_MODEL, NAMES_PRE_NORMS, NAMES_ATTENTION, NAMES_DENSE(LAYER "mlp."),
                                         NAMES_END };
static const char *const types[] = { "smollm3", NULL };
static const struct family family = { .model_types = types, .translate = translate, .names = names };
COE_PART(family, smollm3, .summary = "SmolLM3: dense, no rope on every fourth layer", .impl = &family)
