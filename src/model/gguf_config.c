/* gguf_config.c — metadata of a GGUF file → the config that its family would have as a directory.
 *
 * The keys are llama.cpp's, below the name of the architecture. What that program knows by heart about an architecture,
 * and so does not write, stands in the table. A key that many families spell differently is written under all its
 * spellings: a family reads its own. */
#include <math.h>
#include <string.h>

#include "model/gguf_form.h"

enum {
    NORM_ROPE = 1,      /* rotates neighbours: its converter permuted q and k, or its family does so anyway */
    WHOLE_NORMS = 2,    /* norm weights are stored with the one that the family adds */
    RENORMALISE = 4,    /* weights sum to one unless the file says otherwise */
    EXPERT_FFN = 8,     /* feed_forward_length is an expert's width in the family's config too */
    HEAD_IS_SCALAR = 16 /* query_pre_attn_scalar is the size of a head */
};
static const struct arch {
    const char *name;
    const char *dense, *moe; /* model_type without and with experts */
    int how;
} archs[] = {
    { "llama", "llama", "mixtral", NORM_ROPE | RENORMALISE | EXPERT_FFN },
    { "qwen2", "qwen2", NULL, 0 },
    { "qwen3", "qwen3", NULL, 0 },
    { "gemma2", "gemma2", NULL, WHOLE_NORMS | HEAD_IS_SCALAR },
    { "gemma3", "gemma3_text", NULL, WHOLE_NORMS | HEAD_IS_SCALAR },
    { "gpt2", "gpt2", NULL, 0 },
    { "smollm3", "smollm3", NULL, NORM_ROPE },
    { "olmo2", "olmo2", NULL, 0 },
    { "olmoe", NULL, "olmoe", EXPERT_FFN },
    { "qwen2moe", NULL, "qwen2_moe", 0 },
    { "qwen3moe", NULL, "qwen3_moe", RENORMALISE },
    { "granitemoe", NULL, "granitemoe", NORM_ROPE | EXPERT_FFN },
    { "deepseek", NULL, "deepseek", NORM_ROPE },
    { "deepseek2", NULL, "deepseek_v2", NORM_ROPE },
    { "gpt-oss", NULL, "gpt_oss", EXPERT_FFN },
    { "glm4moe", NULL, "glm4_moe", RENORMALISE },
    { "dots1", NULL, "dots1", RENORMALISE },
    { "ernie4_5-moe", NULL, "ernie4_5_moe", NORM_ROPE },
    { "hunyuan-moe", NULL, "hunyuan_v1_moe", 0 },
    { "minimax-m2", NULL, "minimax_m2", EXPERT_FFN },
    { "afmoe", NULL, "afmoe", 0 },
    { "lfm2moe", NULL, "lfm2_moe", RENORMALISE },
    { "llama4", NULL, "llama4_text", NORM_ROPE | EXPERT_FFN },
    { "qwen3next", NULL, "qwen3_next", WHOLE_NORMS | RENORMALISE },
};

struct reading {
    const struct ckpt *c;
    const struct gguf *g;
    const struct arch *arch;
    json_t *config;
};

static coe_status put(struct reading *r, const char *key, json_t *value)
{
    return value && !json_object_set_new(r->config, key, value) ? COE_OK
                                                                : coe_fail(COE_E_NOMEM, "no memory for a config");
}

static void key_of(const struct reading *r, const char *suffix, char out[128])
{
    snprintf(out, 128, "%s.%s", r->arch->name, suffix);
}

static bool has(const struct reading *r, const char *suffix)
{
    char key[128];
    key_of(r, suffix, key);
    return gguf_find(r->g, key) != NULL;
}

/* -1 when there is none */
static coe_status whole(const struct reading *r, const char *suffix, int64_t *out)
{
    char key[128];
    key_of(r, suffix, key);
    *out = -1;
    return gguf_int(r->g, key, 0, INT32_MAX, out);
}

/* A whole number under several keys of the config, NULL-terminated; absent: nothing. */
static coe_status copy_int(struct reading *r, const char *suffix, const char *const *keys)
{
    int64_t x;
    COE_TRY(whole(r, suffix, &x));
    for (; x >= 0 && *keys; keys++) COE_TRY(put(r, *keys, json_integer(x)));
    return COE_OK;
}

static coe_status copy_num(struct reading *r, const char *suffix, const char *key_in_config)
{
    char key[128];
    double x = 0;
    key_of(r, suffix, key);
    if (!gguf_find(r->g, key)) return COE_OK;
    COE_TRY(gguf_num(r->g, key, &x));
    return put(r, key_in_config, json_real(x));
}

#define KEYS(...)                                                                                                      \
    (const char *const[]) { __VA_ARGS__, NULL }

/* LFM2 lists the heads of each layer; a convolution has none. */
static coe_status kv_heads(struct reading *r)
{
    char key[128];
    int64_t most = 0, layers;
    key_of(r, "attention.head_count_kv", key);
    const struct gguf_value *v = gguf_find(r->g, key);
    if (strcmp(r->arch->name, "lfm2moe")) return copy_int(r, "attention.head_count_kv", KEYS("num_key_value_heads"));
    if (!v || !v->array || (v->type != GGUF_I32 && v->type != GGUF_U32))
        return coe_fail(COE_E_INPUT, "%s: key %s is not a list of 32-bit whole numbers", r->g->where, key);
    COE_TRY(whole(r, "block_count", &layers));
    if (v->count != (uint64_t)layers)
        return coe_fail(COE_E_INPUT, "%s: key %s has %llu values, block_count is %lld", r->g->where, key,
                        (unsigned long long)v->count, (long long)layers);
    json_t *types = json_array();
    COE_TRY(put(r, "layer_types", types));
    for (uint64_t i = 0; i < v->count; i++) {
        const int64_t n = gguf_int_at(v, i);
        if (n && most && n != most)
            return coe_fail(COE_E_INPUT, "%s: %s[%llu] is %lld, another layer has %lld", r->g->where, key,
                            (unsigned long long)i, (long long)n, (long long)most);
        if (n) most = n;
        if (json_array_append_new(types, json_string(n ? "full_attention" : "conv")))
            return coe_fail(COE_E_NOMEM, "no memory for a config");
    }
    COE_TRY(put(r, "conv_bias", json_false()));
    if (most) COE_TRY(put(r, "num_key_value_heads", json_integer(most)));
    return copy_int(r, "shortconv.l_cache", KEYS("conv_L_cache"));
}

static coe_status sizes(struct reading *r)
{
    const struct tensor *embed = ckpt_find(r->c, "token_embd.weight");
    int64_t layers, extra;
    if (!embed || embed->n_dims != 2)
        return coe_fail(COE_E_INPUT, "%s: tensor token_embd.weight is missing", r->g->where);
    COE_TRY(put(r, "vocab_size", json_integer(embed->dim[0])));
    COE_TRY(put(r, "tie_word_embeddings", json_boolean(!ckpt_find(r->c, "output.weight"))));
    COE_TRY(whole(r, "block_count", &layers));
    COE_TRY(whole(r, "nextn_predict_layers", &extra)); /* counted among the blocks */
    COE_TRY(put(r, "num_hidden_layers", json_integer(extra > 0 ? layers - extra : layers)));
    COE_TRY(copy_int(r, "context_length", KEYS("max_position_embeddings")));
    COE_TRY(copy_int(r, "embedding_length", KEYS("hidden_size")));
    COE_TRY(copy_int(r, "feed_forward_length", KEYS("intermediate_size", "intermediate_size_mlp")));
    COE_TRY(copy_int(r, "attention.head_count", KEYS("num_attention_heads")));
    COE_TRY(kv_heads(r));
    COE_TRY(copy_int(r, "attention.key_length", KEYS("head_dim")));
    COE_TRY(copy_num(r, "attention.layer_norm_rms_epsilon", "rms_norm_eps"));
    return copy_num(r, "attention.layer_norm_epsilon", "rms_norm_eps");
}

static coe_status attention(struct reading *r)
{
    int64_t window;
    COE_TRY(whole(r, "attention.sliding_window", &window));
    if (window > 0) COE_TRY(put(r, "sliding_window", json_integer(window)));
    COE_TRY(copy_num(r, "attn_logit_softcapping", "attn_logit_softcapping"));
    COE_TRY(copy_num(r, "final_logit_softcapping", "final_logit_softcapping"));
    COE_TRY(copy_num(r, "attention.scale", "attention_multiplier"));
    COE_TRY(copy_num(r, "embedding_scale", "embedding_multiplier"));
    COE_TRY(copy_num(r, "residual_scale", "residual_multiplier"));
    COE_TRY(copy_num(r, "logit_scale", "logits_scaling"));
    COE_TRY(put(r, "attention_bias", json_boolean(ckpt_find(r->c, "blk.0.attn_q.bias") != NULL)));
    COE_TRY(put(r, "use_qk_norm", json_boolean(ckpt_find(r->c, "blk.0.attn_q_norm.weight") != NULL)));
    return put(r, "qkv_bias", json_boolean(ckpt_find(r->c, "blk.0.attn_q.bias") != NULL));
}

/* The list of layers with the delta rule, one for each block; layers behind the last are among them. */
static coe_status delta_layers(struct reading *r)
{
    char key[128];
    const int64_t layers = json_integer_value(json_object_get(r->config, "num_hidden_layers"));
    json_t *types = json_array();
    key_of(r, "attention.recurrent_layers", key);
    const struct gguf_value *v = gguf_find(r->g, key);
    COE_TRY(put(r, "layer_types", types));
    if (!v->array || (v->type != GGUF_BOOL && v->type != GGUF_I32 && v->type != GGUF_U32) ||
        v->count < (uint64_t)layers)
        return coe_fail(COE_E_INPUT, "%s: key %s is not a list of a truth value for each of %lld layers", r->g->where,
                        key, (long long)layers);
    for (int64_t l = 0; l < layers; l++)
        if (json_array_append_new(
                types, json_string(gguf_int_at(v, (uint64_t)l) ? "linear_attention" : "full_attention")))
            return coe_fail(COE_E_NOMEM, "no memory for a config");
    return COE_OK;
}

/* Qwen3-Next: all heads of the delta rule have one size. */
static coe_status qwen3_next(struct reading *r)
{
    int64_t inner, heads;
    COE_TRY(copy_int(r, "ssm.conv_kernel", KEYS("linear_conv_kernel_dim")));
    COE_TRY(copy_int(r, "ssm.state_size", KEYS("linear_key_head_dim")));
    COE_TRY(copy_int(r, "ssm.group_count", KEYS("linear_num_key_heads")));
    COE_TRY(copy_int(r, "ssm.time_step_rank", KEYS("linear_num_value_heads")));
    COE_TRY(copy_int(r, "full_attention_interval", KEYS("full_attention_interval")));
    COE_TRY(whole(r, "ssm.inner_size", &inner));
    COE_TRY(whole(r, "ssm.time_step_rank", &heads));
    if (heads < 1 || inner < 1 || inner % heads)
        return coe_fail(COE_E_INPUT, "%s: qwen3next.ssm.inner_size is %lld, which %lld heads do not share", r->g->where,
                        (long long)inner, (long long)heads);
    COE_TRY(put(r, "linear_value_head_dim", json_integer(inner / heads)));
    return has(r, "attention.recurrent_layers") ? delta_layers(r) : COE_OK;
}

/* The size of a head where the file does not say it */
static int64_t head_dim(const struct reading *r)
{
    const int64_t given = json_integer_value(json_object_get(r->config, "head_dim"));
    const int64_t heads = json_integer_value(json_object_get(r->config, "num_attention_heads"));
    return given ? given : heads > 0 ? json_integer_value(json_object_get(r->config, "hidden_size")) / heads : 0;
}

static coe_status scaled_rope(struct reading *r, const char *kind)
{
    double factor = 1, multiplier = 0;
    int64_t original;
    char key[128];
    json_t *o = json_object();
    COE_TRY(put(r, "rope_scaling", o));
    json_object_set_new(o, "rope_type", json_string(kind));
    key_of(r, "rope.scaling.factor", key);
    COE_TRY(gguf_num(r->g, key, &factor));
    json_object_set_new(o, "factor", json_real(factor));
    COE_TRY(whole(r, "rope.scaling.original_context_length", &original));
    if (original > 0) json_object_set_new(o, "original_max_position_embeddings", json_integer(original));
    key_of(r, "rope.scaling.yarn_log_multiplier", key);
    COE_TRY(gguf_num(r->g, key, &multiplier));
    if (multiplier > 0) { /* a tenth of DeepSeek's mscale_all_dim */
        json_object_set_new(o, "mscale", json_real(multiplier * 10));
        json_object_set_new(o, "mscale_all_dim", json_real(multiplier * 10));
    }
    json_object_set_new(o, "truncate", json_boolean(strcmp(r->arch->name, "gpt-oss") != 0));
    return COE_OK;
}

/* As a share of a head, from which the family makes a whole number again by cutting it off. */
static coe_status rotated_part(struct reading *r)
{
    const int64_t head = head_dim(r);
    int64_t turned;
    COE_TRY(whole(r, "rope.dimension_count", &turned));
    if (turned < 1 || turned > head || has(r, "attention.kv_lora_rank")) return COE_OK;
    double part = (double)turned / (double)head;
    if ((int64_t)((double)head * part) < turned) part = nextafter(part, 1);
    COE_TRY(put(r, "partial_rotary_factor", json_real(part)));
    return put(r, "rotary_dim", json_integer(turned));
}

static coe_status rope(struct reading *r)
{
    char key[128];
    struct gguf_text kind = { NULL, 0 };
    COE_TRY(copy_num(r, "rope.freq_base", "rope_theta"));
    COE_TRY(copy_num(r, "rope.freq_base_swa", "rope_local_base_freq"));
    COE_TRY(rotated_part(r));
    key_of(r, "rope.scaling.type", key);
    COE_TRY(gguf_str(r->g, key, &kind));
    if (kind.n == 4 && !memcmp(kind.at, "yarn", 4)) return scaled_rope(r, "yarn");
    if (kind.n == 6 && !memcmp(kind.at, "linear", 6)) return scaled_rope(r, "linear");
    if (strcmp(r->arch->name, "gpt-oss")) return COE_OK; /* whose config would mean YaRN if it said nothing */
    return put(r, "rope_parameters", json_pack("{s:s}", "rope_type", "default"));
}

/* Latent attention: the two sizes of a head without the cache's trick end in _mla. */
static coe_status latent(struct reading *r)
{
    int64_t turned, key_length, value_length, heads;
    COE_TRY(copy_int(r, "attention.q_lora_rank", KEYS("q_lora_rank")));
    COE_TRY(copy_int(r, "attention.kv_lora_rank", KEYS("kv_lora_rank")));
    COE_TRY(whole(r, "rope.dimension_count", &turned));
    COE_TRY(whole(r, has(r, "attention.key_length_mla") ? "attention.key_length_mla" : "attention.key_length",
                  &key_length));
    COE_TRY(whole(r, has(r, "attention.value_length_mla") ? "attention.value_length_mla" : "attention.value_length",
                  &value_length));
    COE_TRY(whole(r, "attention.head_count", &heads));
    COE_TRY(put(r, "num_key_value_heads", json_integer(heads)));
    COE_TRY(put(r, "qk_rope_head_dim", json_integer(turned)));
    COE_TRY(put(r, "qk_nope_head_dim", json_integer(key_length - turned)));
    return put(r, "v_head_dim", json_integer(value_length));
}

/* Chunks, tempers and the order of layers are the family's own; the norm of q and k has no weights to be seen by. */
static coe_status llama4(struct reading *r)
{
    int64_t n_experts, window;
    COE_TRY(whole(r, "expert_count", &n_experts));
    COE_TRY(whole(r, "attention.sliding_window", &window));
    if (!window)
        return coe_fail(COE_E_INPUT, "%s: llama4.attention.sliding_window is 0; a Llama 4 without chunks is unknown",
                        r->g->where);
    return put(r, "use_qk_norm", json_boolean(n_experts != 128));
}

/* Groups and scores: expert_gating_func 2 is the sigmoid. */
static coe_status routing(struct reading *r)
{
    char key[128];
    int64_t gating, groups;
    bool norm = r->arch->how & RENORMALISE;
    COE_TRY(whole(r, "expert_gating_func", &gating));
    if (!strcmp(r->arch->name, "deepseek2") && gating == 2) COE_TRY(put(r, "model_type", json_string("deepseek_v3")));
    if (!strcmp(r->arch->name, "lfm2moe") && gating != 2)
        return coe_fail(COE_E_INPUT, "%s: lfm2moe.expert_gating_func is %lld, expected 2 (sigmoid)", r->g->where,
                        (long long)gating);
    key_of(r, "expert_weights_norm", key);
    COE_TRY(gguf_bool(r->g, key, &norm));
    COE_TRY(put(r, "norm_topk_prob", json_boolean(norm)));
    COE_TRY(copy_num(r, "expert_weights_scale", "routed_scaling_factor"));
    COE_TRY(copy_num(r, "expert_weights_scale", "route_scale"));
    if (gating == 1) COE_TRY(put(r, "score_func", json_string("softmax")));
    COE_TRY(whole(r, "expert_group_count", &groups));
    if (groups <= 1) return COE_OK;
    COE_TRY(put(r, "topk_method", json_string("group_limited_greedy")));
    COE_TRY(put(r, "n_group", json_integer(groups)));
    return copy_int(r, "expert_group_used_count", KEYS("topk_group"));
}

static coe_status experts(struct reading *r)
{
    int64_t width;
    COE_TRY(
        copy_int(r, "expert_count", KEYS("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")));
    COE_TRY(copy_int(r, "expert_used_count", KEYS("num_experts_per_tok", "moe_topk", "moe_k")));
    COE_TRY(copy_int(r, "expert_feed_forward_length", KEYS("moe_intermediate_size")));
    COE_TRY(copy_int(r, "expert_shared_feed_forward_length",
                     KEYS("shared_expert_intermediate_size", "shared_intermediate_size")));
    COE_TRY(copy_int(r, "expert_shared_count",
                     KEYS("n_shared_experts", "moe_num_shared_experts", "num_shared_experts")));
    COE_TRY(copy_int(r, "leading_dense_block_count",
                     KEYS("first_k_dense_replace", "moe_layer_start_index", "num_dense_layers")));
    COE_TRY(copy_int(r, "interleave_moe_layer_step", KEYS("moe_layer_interval", "interleave_moe_layer_step")));
    COE_TRY(whole(r, "expert_feed_forward_length", &width));
    if ((r->arch->how & EXPERT_FFN) && width > 0) COE_TRY(put(r, "intermediate_size", json_integer(width)));
    return routing(r);
}

/* Trinity: embeddings are scaled, one layer of four sees everything and has no rope. */
static coe_status trinity(struct reading *r)
{
    int64_t pattern;
    COE_TRY(put(r, "mup_enabled", json_true()));
    COE_TRY(copy_num(r, "rope.freq_base_swa", "rope_theta")); /* no other layer has rope */
    COE_TRY(whole(r, "attention.sliding_window_pattern", &pattern));
    if (pattern >= 0 && pattern != 4)
        return coe_fail(COE_E_INPUT, "%s: afmoe.attention.sliding_window_pattern is %lld, expected 4", r->g->where,
                        (long long)pattern);
    if (!json_object_get(r->config, "sliding_window"))
        return coe_fail(COE_E_INPUT, "%s: key afmoe.attention.sliding_window is missing", r->g->where);
    return put(r, "global_attn_every_n_layers", json_integer(4));
}

static coe_status tokens(struct reading *r)
{
    static const char *const keys[][2] = { { "tokenizer.ggml.bos_token_id", "bos_token_id" },
                                           { "tokenizer.ggml.eos_token_id", "eos_token_id" } };
    for (size_t i = 0; i < COE_COUNT(keys); i++) {
        int64_t id = -1;
        COE_TRY(gguf_int(r->g, keys[i][0], 0, INT32_MAX, &id));
        if (id >= 0) COE_TRY(put(r, keys[i][1], json_integer(id)));
    }
    return COE_OK;
}

static coe_status find_arch(const struct arch **out, const struct gguf *g)
{
    struct gguf_text name = { NULL, 0 };
    COE_TRY(gguf_str(g, "general.architecture", &name));
    for (size_t i = 0; i < COE_COUNT(archs); i++)
        if (strlen(archs[i].name) == name.n && !memcmp(archs[i].name, name.at, name.n)) {
            *out = &archs[i];
            return COE_OK;
        }
    return coe_fail(COE_E_INPUT, "%s: general.architecture '%.*s' is not one this program knows", g->where,
                    (int)COE_MIN(name.n, (size_t)80), name.n ? name.at : "");
}

bool gguf_is_known(const struct ckpt *c)
{
    const struct arch *arch;
    struct gguf_text name = { NULL, 0 };
    if (!ckpt_count(c) || gguf_str(ckpt_gguf(c), "general.architecture", &name)) return false;
    return (name.n == strlen(GGUF_ARCH_COE) && !memcmp(name.at, GGUF_ARCH_COE, name.n)) ||
           !find_arch(&arch, ckpt_gguf(c));
}

static coe_status read_all(struct reading *r)
{
    int64_t n_experts;
    COE_TRY(whole(r, "expert_count", &n_experts));
    const char *type = n_experts > 0 ? r->arch->moe : r->arch->dense;
    if (!type)
        return coe_fail(COE_E_INPUT, "%s: architecture %s %s experts is not one this program knows", r->g->where,
                        r->arch->name, n_experts > 0 ? "with" : "without");
    COE_TRY(put(r, "model_type", json_string(type)));
    COE_TRY(sizes(r));
    COE_TRY(attention(r));
    COE_TRY(rope(r));
    if (has(r, "attention.kv_lora_rank")) {
        COE_TRY(latent(r));
        COE_TRY(put(r, "attention_bias", json_false()));
    }
    if (n_experts > 0) COE_TRY(experts(r));
    if (!strcmp(type, "afmoe")) COE_TRY(trinity(r));
    if (!strcmp(r->arch->name, "llama4")) COE_TRY(llama4(r));
    if (!strcmp(r->arch->name, "qwen3next")) COE_TRY(qwen3_next(r));
    if (r->arch->how & HEAD_IS_SCALAR) COE_TRY(put(r, "query_pre_attn_scalar", json_integer(head_dim(r))));
    return tokens(r);
}

static coe_status own_config(json_t **out, const struct gguf *g)
{
    struct gguf_text text = { NULL, 0 };
    char where[600];
    COE_TRY(gguf_str(g, GGUF_KEY_CONFIG, &text));
    if (!text.at) return COE_OK;
    snprintf(where, sizeof where, "%.560s: " GGUF_KEY_CONFIG, g->where);
    return json_read_text(out, text.at, text.n, where);
}

coe_status gguf_config(json_t **out, const struct ckpt *c)
{
    *out = NULL;
    COE_TRY(own_config(out, ckpt_gguf(c)));
    if (*out) return COE_OK;
    struct reading r = { .c = c, .g = ckpt_gguf(c), .config = json_object() };
    coe_status s = r.config ? find_arch(&r.arch, r.g) : COE_E_NOMEM;
    if (!s) s = read_all(&r);
    if (s) json_decref(r.config), r.config = NULL;
    *out = r.config;
    return s;
}

/* rope_freqs.weight: what each frequency is divided by (Llama 3's scaling, worked out) */
static coe_status frequency_factors(struct spec *s, struct arena *a, const struct ckpt *c)
{
    const struct tensor *t = ckpt_find(c, "rope_freqs.weight");
    if (!t) return COE_OK;
    const int64_t n = tensor_count(t);
    if (t->type != DT_F32 || n * 2 != s->layer[0].attn.rope.n_rot)
        return coe_fail(COE_E_INPUT, "%s: tensor rope_freqs.weight has %lld values, expected %d of F32", ckpt_path(c),
                        (long long)n, s->layer[0].attn.rope.n_rot / 2);
    double *divide = arena_push(a, (size_t)n * sizeof *divide);
    if (!divide) return COE_E_NOMEM;
    for (int64_t i = 0; i < n; i++) {
        float x;
        widen(&x, (const char *)t->data + i * (int64_t)sizeof x, DT_F32, 1);
        if (!(x > 0))
            return coe_fail(COE_E_INPUT, "%s: rope_freqs.weight[%lld] is %g", ckpt_path(c), (long long)i, (double)x);
        divide[i] = (double)x;
    }
    for (int32_t l = 0; l < s->n_layers; l++) {
        struct rope_spec *r = &s->layer[l].attn.rope;
        if (r->kind != ROPE_NONE) r->kind = ROPE_LONG, r->divide = divide;
    }
    return COE_OK;
}

/* How the delta rule's weights lie, told by their names. */
static void delta_form(struct spec *s, const struct ckpt *c)
{
    char qkv[64], a[64];
    for (int32_t l = 0; l < s->n_layers; l++) {
        if (s->layer[l].attn.kind != MIX_DELTA) continue;
        snprintf(qkv, sizeof qkv, "blk.%d.attn_qkv.weight", l);
        snprintf(a, sizeof a, "blk.%d.ssm_a", l);
        s->layer[l].attn.recurrent.ungrouped = ckpt_find(c, qkv) != NULL;
        s->layer[l].attn.recurrent.negative_a = ckpt_find(c, a) != NULL;
    }
}

coe_status gguf_adjust(struct spec *s, struct arena *a, const struct ckpt *c)
{
    const struct arch *arch = NULL;
    struct gguf_text name = { NULL, 0 };
    delta_form(s, c);
    COE_TRY(gguf_str(ckpt_gguf(c), "general.architecture", &name));
    if (name.n == strlen(GGUF_ARCH_COE) && !memcmp(name.at, GGUF_ARCH_COE, name.n)) return COE_OK;
    COE_TRY(find_arch(&arch, ckpt_gguf(c)));
    for (int32_t l = 0; l < s->n_layers; l++) s->layer[l].attn.rope.interleaved = arch->how & NORM_ROPE;
    if (arch->how & WHOLE_NORMS) s->norm_add = 0;
    return frequency_factors(s, a, c);
}
