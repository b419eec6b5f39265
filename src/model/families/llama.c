/* llama.c — Llama 1 to 3: the plain dense decoder. Card: routing.md, families, common part. */
#include "model/spec.h"

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    COE_TRY(config_common(s, a, config, where));
    bool bias = false;
    COE_TRY(json_get_bool(config, "attention_bias", &bias, where));
    for (int32_t l = 0; l < s->n_layers; l++) s->layer[l].attn.qkv_bias = s->layer[l].attn.o_bias = bias;
    return COE_OK;
}

static const struct name_row names[] = {
    { SLOT_EMBED, "model.embed_tokens.weight" },
    { SLOT_FINAL_NORM, "model.norm.weight" },
    { SLOT_HEAD, "lm_head.weight" },
    { SLOT_ATTN_NORM, "model.layers.{l}.input_layernorm.weight" },
    { SLOT_Q, "model.layers.{l}.self_attn.q_proj.weight" },
    { SLOT_K, "model.layers.{l}.self_attn.k_proj.weight" },
    { SLOT_V, "model.layers.{l}.self_attn.v_proj.weight" },
    { SLOT_O, "model.layers.{l}.self_attn.o_proj.weight" },
    { SLOT_Q_BIAS, "model.layers.{l}.self_attn.q_proj.bias" },
    { SLOT_K_BIAS, "model.layers.{l}.self_attn.k_proj.bias" },
    { SLOT_V_BIAS, "model.layers.{l}.self_attn.v_proj.bias" },
    { SLOT_O_BIAS, "model.layers.{l}.self_attn.o_proj.bias" },
    { SLOT_FFN_NORM, "model.layers.{l}.post_attention_layernorm.weight" },
    { SLOT_GATE, "model.layers.{l}.mlp.gate_proj.weight" },
    { SLOT_UP, "model.layers.{l}.mlp.up_proj.weight" },
    { SLOT_DOWN, "model.layers.{l}.mlp.down_proj.weight" },
    { 0, NULL },
};
static const char *const types[] = { "llama", NULL };
static const char *const ignore[] = { "*rotary_emb.inv_freq", NULL };
static const struct family family = { .model_types = types, .translate = translate, .names = names, .ignore = ignore };
COE_PART(family, llama, .summary = "Llama 1-3: dense decoder", .impl = &family)
