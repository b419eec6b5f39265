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
    NAMES_MODEL,
    NAMES_PRE_NORMS,
    NAMES_ATTENTION,
    NAME(SLOT_ROUTER, LAYER "block_sparse_moe.gate.weight"),
    NAME(SLOT_ROUTER, LAYER "mlp.gate.weight"),
    NAMES_EXPERTS_W123(LAYER "block_sparse_moe."),
    NAMES_END,
};
static const char *const types[] = { "mixtral", NULL };
static const char *const ignore[] = { "*rotary_emb.inv_freq", NULL };
static const struct family family = { .model_types = types,
                                      .translate = translate,
                                      .names = names,
                                      .ignore = ignore,
                                      FUSED_IN(LAYER "mlp."),
                                      .key_n_experts = "num_local_experts",
                                      .key_top_k = "num_experts_per_tok" };
COE_PART(family, mixtral, .summary = "Mixtral: softmax, top-k, renormalised", .impl = &family)
