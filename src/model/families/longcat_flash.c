/* longcat_flash.c — LongCat-Flash: two latent attentions and two dense MLPs around one MoE whose output joins at the
 * end; some experts return their input. One of its layers is two of ours: {b} in a name is its layer, {s} the half. */
#include "model/families/names.h"

static const char *const keys[][2] = { { "num_layers", "num_hidden_layers" },
                                       { "ffn_hidden_size", "intermediate_size" },
                                       { NULL, NULL } };

static coe_status routed(struct moe_spec *m, const json_t *config, const char *where)
{
    const char *kind = "identity";
    int32_t weighted = 0;
    m->router.top_k = 12;
    m->router.selection_bias = true;
    COE_TRY(json_need_i32(config, "n_routed_experts", 1, 65535, &weighted, where));
    COE_TRY(json_get_i32(config, "zero_expert_num", 0, 65535, &m->n_identity, where));
    COE_TRY(json_get_str(config, "zero_expert_type", &kind, where));
    COE_TRY(json_get_i32(config, "moe_topk", 1, 1024, &m->router.top_k, where));
    COE_TRY(json_need_i32(config, "expert_ffn_hidden_size", 1, 1 << 20, &m->expert_ffn, where));
    COE_TRY(json_get_f32(config, "routed_scaling_factor", &m->router.scale, where));
    COE_TRY(json_get_bool(config, "norm_topk_prob", &m->router.renormalize, where));
    m->n_experts = weighted + m->n_identity;
    if (m->n_identity && strcmp(kind, "identity"))
        return coe_fail(COE_E_INPUT, "%s: zero_expert_type '%s' is unknown", where, kind);
    return COE_OK;
}

/* The ranks of q and of the latent scale what comes out of them. */
static coe_status scales(struct spec *s, const json_t *config, const char *where)
{
    bool q = true, kv = true;
    COE_TRY(json_get_bool(config, "mla_scale_q_lora", &q, where));
    COE_TRY(json_get_bool(config, "mla_scale_kv_lora", &kv, where));
    for (int32_t l = 0; l < s->n_layers; l++) {
        struct attn_spec *a = &s->layer[l].attn;
        if (q && a->latent.q_rank) a->scale *= sqrtf((float)s->d_model / (float)a->latent.q_rank);
        if (kv) a->latent.kv_scale = sqrtf((float)s->d_model / (float)a->latent.kv_rank);
    }
    return COE_OK;
}

static coe_status translate(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    int32_t blocks = 0;
    json_t *common = config_renamed(config, keys);
    if (!common) return COE_E_NOMEM;
    coe_status status = json_need_i32(common, "num_hidden_layers", 1, 5000, &blocks, where);
    if (!status && json_object_set_new(common, "num_hidden_layers", json_integer(2 * (json_int_t)blocks)))
        status = COE_E_NOMEM;
    s->norm_eps = 1e-5f;
    if (!status) status = config_common(s, a, common, where);
    json_decref(common);
    COE_TRY(status);
    struct moe_spec m = s->layer[0].moe;
    COE_TRY(routed(&m, config, where));
    COE_TRY(config_latent(s, a, config, where));
    s->layers_per_block = 2;
    for (int32_t l = 0; l < s->n_layers; l += 2) {
        s->layer[l].is_moe = s->layer[l].dense_beside = true;
        s->layer[l].moe = m;
        s->layer[l].moe_joins = 1;
    }
    return scales(s, config, where);
}

#define BLOCK "model.layers.{b}."
static const struct name_row names[] = {
    NAMES_MODEL,
    NAMES_LATENT(BLOCK "self_attn.{s}."),
    NAMES_DENSE(BLOCK "mlps.{s}."),
    NAME(SLOT_ATTN_NORM, BLOCK "input_layernorm.{s}.weight"),
    NAME(SLOT_FFN_NORM, BLOCK "post_attention_layernorm.{s}.weight"),
    NAME(SLOT_ROUTER, BLOCK "mlp.router.classifier.weight"),
    NAME(SLOT_SELECTION_BIAS, BLOCK "mlp.router.e_score_correction_bias"),
    NAMES_EXPERTS(BLOCK "mlp."),
    NAMES_END,
};
static const char *const types[] = { "longcat_flash", NULL };
/* with router_bias the reference holds a bias and adds nothing */
static const char *const ignore[] = { "model.mtp.", "*.mlp.router.classifier.bias", NULL };
static const struct family family = { .model_types = types,
                                      .translate = translate,
                                      .names = names,
                                      .ignore = ignore,
                                      FUSED_IN(BLOCK "mlp."),
                                      .key_n_experts = "n_routed_experts",
                                      .key_n_identity = "zero_expert_num",
                                      .key_top_k = "moe_topk" };
COE_PART(family, longcat_flash, .summary = "LongCat-Flash: shortcut MoE with identity experts, latent attention",
         .impl = &family)
