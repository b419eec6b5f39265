/* gguf_keys.c — the numbers of a spec under the keys that llama.cpp reads; see gguf_form.h. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "model/gguf_form.h"

struct keys {
    struct gguf_out *o;
    const struct spec *s;
    const char *arch;
};

static const char *key(const struct keys *k, const char *name, char text[96])
{
    snprintf(text, 96, "%s.%s", k->arch, name);
    return text;
}

static void put_u32(const struct keys *k, const char *name, int64_t x)
{
    char text[96];
    gguf_add_u32(k->o, key(k, name, text), (uint32_t)COE_MIN(x, (int64_t)UINT32_MAX));
}

static void put_f32(const struct keys *k, const char *name, double x)
{
    char text[96];
    gguf_add_f32(k->o, key(k, name, text), (float)x);
}

static void put_text(const struct keys *k, const char *name, const char *x)
{
    char text[96];
    gguf_add_str(k->o, key(k, name, text), x, strlen(x));
}

static void put_bool(const struct keys *k, const char *name, bool x)
{
    char text[96];
    gguf_add_bool(k->o, key(k, name, text), x);
}

/* The first layer that routes; NULL in a dense model. */
static const struct layer_spec *routed(const struct spec *s)
{
    for (int32_t l = 0; l < s->n_layers; l++)
        if (s->layer[l].is_moe) return &s->layer[l];
    return NULL;
}

static void put_sizes(const struct keys *k)
{
    const struct spec *s = k->s;
    const struct layer_spec *first = &s->layer[0], *moe = routed(s);
    put_u32(k, "vocab_size", s->vocab);
    put_u32(k, "context_length", s->max_positions);
    put_u32(k, "embedding_length", s->d_model);
    put_u32(k, "block_count", s->n_layers);
    put_u32(k, "feed_forward_length", first->ffn > 0 ? first->ffn : moe ? moe->moe.expert_ffn : 0);
    put_f32(k, s->norm == NORM_RMS ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon",
            (double)s->norm_eps);
    if (s->logit_cap > 0) put_f32(k, "final_logit_softcapping", (double)s->logit_cap);
}

static void put_rope(const struct keys *k)
{
    const struct attn_spec *a = &k->s->layer[k->s->n_layers - 1].attn; /* Gemma 3: the last layers are global */
    const struct rope_spec *r = &a->rope;
    for (int32_t l = 0; l < k->s->n_layers; l++) {
        const struct attn_spec *one = &k->s->layer[l].attn;
        if (one->rope.kind != ROPE_NONE && !one->window) a = one, r = &one->rope;
    }
    if (r->kind == ROPE_NONE) return;
    put_u32(k, "rope.dimension_count", r->n_rot);
    put_f32(k, "rope.freq_base", r->theta);
    if (r->kind != ROPE_LINEAR && r->kind != ROPE_YARN) return;
    put_text(k, "rope.scaling.type", r->kind == ROPE_LINEAR ? "linear" : "yarn");
    put_f32(k, "rope.scaling.factor", r->factor);
    if (r->kind != ROPE_YARN) return;
    put_u32(k, "rope.scaling.original_context_length", r->original_positions);
    put_f32(k, "rope.scaling.yarn_beta_fast", r->beta_fast);
    put_f32(k, "rope.scaling.yarn_beta_slow", r->beta_slow);
    if (r->mscale_all_dim > 0) put_f32(k, "rope.scaling.yarn_log_multiplier", 0.1 * r->mscale_all_dim);
}

/* Granite's four multipliers */
static void put_factors(const struct keys *k)
{
    if (strcmp(k->arch, "granitemoe")) return;
    put_f32(k, "attention.scale", (double)k->s->layer[0].attn.scale);
    put_f32(k, "embedding_scale", (double)k->s->embed_scale);
    put_f32(k, "residual_scale", (double)k->s->residual_scale);
    put_f32(k, "logit_scale", 1 / (double)k->s->logit_scale);
}

/* LFM2: one number a layer, none where a convolution stands */
static coe_status put_kv_heads(const struct keys *k)
{
    const struct spec *s = k->s;
    const struct attn_spec *a = &s->layer[0].attn;
    char text[96];
    if (strcmp(k->arch, "lfm2moe")) {
        put_u32(k, "attention.head_count_kv", a->kind == MIX_LATENT ? a->n_heads : a->n_kv_heads);
        return COE_OK;
    }
    int32_t *heads = mem_alloc("gguf keys", (size_t)s->n_layers * sizeof *heads);
    if (!heads) return COE_E_NOMEM;
    for (int32_t l = 0; l < s->n_layers; l++) {
        const struct attn_spec *one = &s->layer[l].attn;
        heads[l] = one->kind == MIX_CONV ? 0 : one->n_kv_heads;
        if (one->kind == MIX_CONV) a = one;
    }
    gguf_add_i32s(k->o, key(k, "attention.head_count_kv", text), heads, (size_t)s->n_layers);
    mem_free(heads);
    put_u32(k, "shortconv.l_cache", a->kind == MIX_CONV ? a->recurrent.kernel : 3);
    return COE_OK;
}

/* Qwen3-Next: the delta rule, and which layers have it. */
static coe_status put_delta(const struct keys *k)
{
    const struct spec *s = k->s;
    const struct recurrent_spec *r = NULL;
    int32_t every = 1;
    char text[96];
    for (int32_t l = s->n_layers - 1; l >= 0; l--)
        if (s->layer[l].attn.kind == MIX_DELTA) r = &s->layer[l].attn.recurrent;
    if (!r) return COE_OK;
    put_u32(k, "ssm.conv_kernel", r->kernel);
    put_u32(k, "ssm.state_size", r->d_k);
    put_u32(k, "ssm.group_count", r->n_k);
    put_u32(k, "ssm.time_step_rank", r->n_v);
    put_u32(k, "ssm.inner_size", (int64_t)r->n_v * r->d_v);
    while (every <= s->n_layers && s->layer[every - 1].attn.kind == MIX_DELTA) every++;
    put_u32(k, "full_attention_interval", every);
    int32_t *recurrent = mem_alloc("gguf keys", (size_t)s->n_layers * sizeof *recurrent);
    if (!recurrent) return COE_E_NOMEM;
    for (int32_t l = 0; l < s->n_layers; l++) recurrent[l] = s->layer[l].attn.kind == MIX_DELTA;
    gguf_add_bools(k->o, key(k, "attention.recurrent_layers", text), recurrent, (size_t)s->n_layers);
    mem_free(recurrent);
    return COE_OK;
}

static coe_status put_attention(const struct keys *k)
{
    const struct attn_spec *a = &k->s->layer[0].attn;
    int64_t window = 0;
    for (int32_t l = 0; l < k->s->n_layers; l++) window = COE_MAX(window, k->s->layer[l].attn.window);
    put_u32(k, "attention.head_count", a->n_heads);
    COE_TRY(put_kv_heads(k));
    if (!strcmp(k->arch, "qwen3next")) COE_TRY(put_delta(k));
    put_u32(k, "attention.key_length", a->head_dim);
    put_u32(k, "attention.value_length", a->kind == MIX_LATENT ? a->latent.v_dim : a->head_dim);
    if (window) put_u32(k, "attention.sliding_window", window);
    if (a->cap > 0) put_f32(k, "attn_logit_softcapping", (double)a->cap);
    if (a->kind != MIX_LATENT) return COE_OK;
    if (a->latent.q_rank) put_u32(k, "attention.q_lora_rank", a->latent.q_rank);
    put_u32(k, "attention.kv_lora_rank", a->latent.kv_rank);
    return COE_OK;
}

static void put_experts(const struct keys *k)
{
    const struct layer_spec *l = routed(k->s);
    if (!l) return;
    const struct moe_spec *m = &l->moe;
    const struct router_spec *r = &m->router;
    int32_t dense = 0;
    while (!k->s->layer[dense].is_moe) dense++;
    put_u32(k, "expert_count", m->n_experts);
    put_u32(k, "expert_used_count", r->top_k);
    put_u32(k, "expert_feed_forward_length", m->expert_ffn);
    put_u32(k, "expert_gating_func", r->score == SCORE_SIGMOID ? 2 : 1);
    put_bool(k, "expert_weights_norm", r->renormalize);
    put_f32(k, "expert_weights_scale", (double)r->scale);
    const bool llama4 = !strcmp(k->arch, "llama4"); /* every n-th layer routes, the others do not */
    if (llama4) put_u32(k, "interleave_moe_layer_step", dense + 1);
    else put_u32(k, "leading_dense_block_count", dense);
    if (!strcmp(k->arch, "ernie4_5-moe")) put_u32(k, "interleave_moe_layer_step", 1);
    if (m->shared_ffn) put_u32(k, "expert_shared_feed_forward_length", m->shared_ffn);
    if (m->shared_ffn) put_u32(k, "expert_shared_count", COE_MAX(m->shared_ffn / m->expert_ffn, 1));
    else if (!strcmp(k->arch, "afmoe")) put_u32(k, "expert_shared_count", 0); /* required there */
    if (r->n_group > 1) put_u32(k, "expert_group_count", r->n_group);
    if (r->n_group > 1) put_u32(k, "expert_group_used_count", r->topk_group);
}

coe_status gguf_add_spec(struct gguf_out *o, const struct spec *s, const struct gguf_arch *arch, const char *name)
{
    const struct keys k = { o, s, arch ? arch->name : GGUF_ARCH_COE };
    gguf_add_str(o, "general.architecture", k.arch, strlen(k.arch));
    gguf_add_str(o, "general.type", "model", 5);
    gguf_add_str(o, "general.name", name, strlen(name));
    gguf_add_u32(o, "general.quantization_version", 2);
    put_sizes(&k);
    COE_TRY(put_attention(&k));
    put_factors(&k);
    put_rope(&k);
    put_experts(&k);
    return str_check(&o->text);
}
