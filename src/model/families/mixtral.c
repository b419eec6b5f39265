/* mixtral.c — Mixtral 8x7B / 8x22B: softmax over all experts, top-k, weights renormalised. Card: routing.md F1. */
#include "model/families/names.h"

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    COE_TRY(config_common(s, a, config, where));
    int64_t window = 0;
    COE_TRY(config_window(&window, config, where));
    struct moe_spec m = s->layer[0].moe;
    m.expert_ffn = s->layer[0].ffn;
    m.router.renormalize = true;
    m.router.top_k = 2;
    COE_TRY(json_need_i32(config, "num_local_experts", 1, 65536, &m.n_experts, where));
    COE_TRY(json_get_i32(config, "num_experts_per_tok", 1, 1024, &m.router.top_k, where));
    COE_TRY(config_hf_loss(&m, config, where));
    for (int32_t l = 0; l < s->n_layers; l++) {
        s->layer[l].is_moe = true;
        s->layer[l].moe = m;
        s->layer[l].attn.window = window;
    }
    return COE_OK;
}

static const struct name_row names[] = {
    NAME(SLOT_EMBED, "model.embed_tokens.weight"),
    NAME(SLOT_FINAL_NORM, "model.norm.weight"),
    NAME(SLOT_HEAD, "lm_head.weight"),
    NAME(SLOT_ATTN_NORM, "model.layers.{l}.input_layernorm.weight"),
    NAME(SLOT_Q, "model.layers.{l}.self_attn.q_proj.weight"),
    NAME(SLOT_K, "model.layers.{l}.self_attn.k_proj.weight"),
    NAME(SLOT_V, "model.layers.{l}.self_attn.v_proj.weight"),
    NAME(SLOT_O, "model.layers.{l}.self_attn.o_proj.weight"),
    NAME(SLOT_FFN_NORM, "model.layers.{l}.post_attention_layernorm.weight"),
    NAME(SLOT_ROUTER, "model.layers.{l}.block_sparse_moe.gate.weight"),
    NAME(SLOT_ROUTER, "model.layers.{l}.mlp.gate.weight"),
    NAME(SLOT_EXPERT_GATE, "model.layers.{l}.block_sparse_moe.experts.{e}.w1.weight"),
    NAME(SLOT_EXPERT_UP, "model.layers.{l}.block_sparse_moe.experts.{e}.w3.weight"),
    NAME(SLOT_EXPERT_DOWN, "model.layers.{l}.block_sparse_moe.experts.{e}.w2.weight"),
    NAMES_END,
};
static const char *const types[] = { "mixtral", NULL };
static const char *const ignore[] = { "*rotary_emb.inv_freq", NULL };
static const struct family family = { .model_types = types,
                                      .translate = translate,
                                      .names = names,
                                      .ignore = ignore,
                                      .fused_gate_up = "model.layers.{l}.mlp.experts.gate_up_proj",
                                      .fused_down = "model.layers.{l}.mlp.experts.down_proj",
                                      .key_n_experts = "num_local_experts",
                                      .key_top_k = "num_experts_per_tok" };
COE_PART(family, mixtral, .summary = "Mixtral: softmax, top-k, renormalised", .impl = &family)
