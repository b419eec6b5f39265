/* gemma.c — Gemma 2 and 3: norms before and behind every sub-layer with weights stored minus one, scaled embeddings,
 * gated tanh-GELU, most layers with a window. Gemma 2 soft-caps scores and logits; Gemma 3 normalises q and k and has a
 * rope of its own for the windowed layers. The head is always the embedding. */
#include "model/families/names.h"

static coe_status common(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    double scalar = 256;
    s->tied = true; /* the released configs leave it out */
    COE_TRY(config_common(s, a, config, where));
    COE_TRY(json_get_num(config, "query_pre_attn_scalar", &scalar, where));
    if (!(scalar > 0)) return coe_fail(COE_E_INPUT, "%s: query_pre_attn_scalar %g", where, scalar);
    s->norm_add = 1;
    s->embed_scale = sqrtf((float)s->d_model);
    enum activation act = ACT_GELU_TANH;
    if (json_object_get(config, "hidden_activation"))
        COE_TRY(config_activation(&act, config, "hidden_activation", where));
    for (int32_t l = 0; l < s->n_layers; l++) {
        s->layer[l].post_norm = true;
        s->layer[l].act = act;
        s->layer[l].attn.scale = (float)(1 / sqrt(scalar));
        COE_TRY(json_get_f32(config, "attn_logit_softcapping", &s->layer[l].attn.cap, where));
    }
    COE_TRY(json_get_f32(config, "final_logit_softcapping", &s->logit_cap, where));
    return config_attention_bias(s, config, true, where);
}

static coe_status gemma2(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    int64_t window = 4096;
    COE_TRY(common(s, a, config, where));
    COE_TRY(config_window(&window, config, where));
    for (int32_t l = 0; l < s->n_layers; l += 2) s->layer[l].attn.window = window;
    return config_typed_window(s, config, "sliding_attention", where);
}

/* The window's layers turn with rope_local_base_freq, or with their own object of rope_parameters, unscaled. */
static coe_status local_rope(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    const json_t *typed = json_object_get(json_object_get(config, "rope_parameters"), "sliding_attention");
    const int32_t head_dim = s->layer[0].attn.head_dim;
    struct rope_spec local = { .kind = ROPE_PLAIN, .n_rot = head_dim, .theta = 10000 };
    COE_TRY(json_get_num(config, "rope_local_base_freq", &local.theta, where));
    if (typed) COE_TRY(config_rope(&local, a, config, head_dim, "sliding_attention", where));
    for (int32_t l = 0; l < s->n_layers; l++)
        if (s->layer[l].attn.window) s->layer[l].attn.rope = local;
    return COE_OK;
}

static coe_status gemma3(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    int64_t window = 4096;
    int32_t pattern = 6;
    COE_TRY(common(s, a, config, where));
    COE_TRY(config_window(&window, config, where));
    COE_TRY(json_get_i32(config, "sliding_window_pattern", 1, INT32_MAX, &pattern, where));
    COE_TRY(json_get_i32(config, "_sliding_window_pattern", 1, INT32_MAX, &pattern, where));
    for (int32_t l = 0; l < s->n_layers; l++) {
        s->layer[l].attn.qk_norm = QK_NORM_HEAD;
        s->layer[l].attn.window = (l + 1) % pattern ? window : 0;
    }
    COE_TRY(config_typed_window(s, config, "sliding_attention", where));
    return local_rope(s, a, config, where);
}

static const struct name_row names[] = { NAMES_MODEL, NAMES_FOUR_NORMS, NAMES_ATTENTION, NAMES_DENSE(LAYER "mlp."),
                                         NAMES_END };
static const char *const types2[] = { "gemma2", NULL }, *const types3[] = { "gemma3_text", NULL };
static const struct family family2 = { .model_types = types2, .translate = gemma2, .names = names };
static const struct family family3 = { .model_types = types3, .translate = gemma3, .names = names };
COE_PART(family, gemma2, .summary = "Gemma 2: dense, four norms, soft caps, alternating window", .impl = &family2)
COE_PART(family, gemma3, .summary = "Gemma 3 text: dense, four norms, two ropes, window pattern", .impl = &family3)
