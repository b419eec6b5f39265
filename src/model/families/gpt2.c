/* gpt2.c — GPT-2: learned positions, layer norm, biases everywhere, matrices stored [in, out] with q, k and v in one.
 * The released file has no prefix before its names; newer ones have "transformer.". The head is the embedding. */
#include "model/families/names.h"

static const char *const keys[][2] = { { "n_embd", "hidden_size" },
                                       { "n_layer", "num_hidden_layers" },
                                       { "n_head", "num_attention_heads" },
                                       { "n_positions", "max_position_embeddings" },
                                       { "n_ctx", "max_position_embeddings" },
                                       { "n_inner", "intermediate_size" },
                                       { "layer_norm_epsilon", "rms_norm_eps" },
                                       { "activation_function", "hidden_act" },
                                       { NULL, NULL } };

static coe_status settings(struct spec *s, const json_t *config, const char *where)
{
    bool weighted = true, by_layer = false;
    COE_TRY(json_get_bool(config, "scale_attn_weights", &weighted, where));
    COE_TRY(json_get_bool(config, "scale_attn_by_inverse_layer_idx", &by_layer, where));
    s->norm = NORM_LAYER;
    s->learned_positions = true;
    for (int32_t l = 0; l < s->n_layers; l++) {
        struct layer_spec *layer = &s->layer[l];
        if (layer->ffn < 1) layer->ffn = 4 * s->d_model;
        layer->ungated = layer->ffn_bias = true;
        layer->attn.rope = (struct rope_spec){ .kind = ROPE_NONE };
        layer->attn.qkv_bias = layer->attn.o_bias = true;
        if (!weighted) layer->attn.scale = 1;
        if (by_layer) layer->attn.scale /= (float)(l + 1);
    }
    return COE_OK;
}

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    json_t *common = config_renamed(config, keys);
    if (!common) return COE_E_NOMEM;
    s->norm_eps = 1e-5f;
    s->tied = true;
    coe_status status = config_common(s, a, common, where);
    json_decref(common);
    return status ? status : settings(s, config, where);
}

static const struct name_row names[] = {
    NAME(SLOT_EMBED, "wte.weight"),
    NAME(SLOT_POSITIONS, "wpe.weight"),
    NAME(SLOT_FINAL_NORM, "ln_f.weight"),
    NAME(SLOT_FINAL_NORM_BIAS, "ln_f.bias"),
    NAME(SLOT_ATTN_NORM, "h.{l}.ln_1.weight"),
    NAME(SLOT_ATTN_NORM_BIAS, "h.{l}.ln_1.bias"),
    CUT(SLOT_Q, "h.{l}.attn.c_attn.weight", CUT_IN_OUT, 0, 3),
    CUT(SLOT_K, "h.{l}.attn.c_attn.weight", CUT_IN_OUT, 1, 3),
    CUT(SLOT_V, "h.{l}.attn.c_attn.weight", CUT_IN_OUT, 2, 3),
    CUT(SLOT_Q_BIAS, "h.{l}.attn.c_attn.bias", 0, 0, 3),
    CUT(SLOT_K_BIAS, "h.{l}.attn.c_attn.bias", 0, 1, 3),
    CUT(SLOT_V_BIAS, "h.{l}.attn.c_attn.bias", 0, 2, 3),
    CUT(SLOT_O, "h.{l}.attn.c_proj.weight", CUT_IN_OUT, 0, 1),
    NAME(SLOT_O_BIAS, "h.{l}.attn.c_proj.bias"),
    NAME(SLOT_FFN_NORM, "h.{l}.ln_2.weight"),
    NAME(SLOT_FFN_NORM_BIAS, "h.{l}.ln_2.bias"),
    CUT(SLOT_UP, "h.{l}.mlp.c_fc.weight", CUT_IN_OUT, 0, 1),
    NAME(SLOT_UP_BIAS, "h.{l}.mlp.c_fc.bias"),
    CUT(SLOT_DOWN, "h.{l}.mlp.c_proj.weight", CUT_IN_OUT, 0, 1),
    NAME(SLOT_DOWN_BIAS, "h.{l}.mlp.c_proj.bias"),
    NAME(SLOT_HEAD, "lm_head.weight"),
    NAMES_END,
};
static const char *const types[] = { "gpt2", NULL };
static const char *const prefixes[] = { "", "transformer.", NULL };
static const char *const ignore[] = { "*.attn.bias", "*.attn.masked_bias", NULL };
static const struct family family = {
    .model_types = types, .translate = translate, .names = names, .prefixes = prefixes, .ignore = ignore
};
COE_PART(family, gpt2, .summary = "GPT-2: dense, learned positions, layer norm", .impl = &family)
