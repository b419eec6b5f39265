/* spec.h — what a network is, as data. A family file translates a config into this; the forward pass reads nothing
 * else.
 *
 * Worked example: spec_layer_moe(&spec, 3) tells whether layer 3 routes; spec.layer[3].moe.router.top_k how widely. */
#ifndef COE_SPEC_H
#define COE_SPEC_H

#include "moe/moe.h"

enum norm_kind { NORM_RMS, NORM_LAYER };
enum qk_norm { QK_NORM_NONE, QK_NORM_HEAD, QK_NORM_FULL }; /* per head, or over the whole projection */
enum rope_kind { ROPE_NONE, ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3, ROPE_YARN };

struct rope_spec {
    enum rope_kind kind;
    int32_t n_rot;     /* rotated elements of a head */
    bool interleaved;  /* pairs (2j, 2j+1), else halves (j, j + n_rot/2) */
    double theta, factor;
    double low_freq, high_freq;                  /* llama3 */
    double beta_fast, beta_slow;                 /* yarn */
    bool truncate;                               /* yarn: floor and ceil the correction range */
    double attention_factor;                     /* multiplies cos and sin; 0: the kind's own default */
    double mscale, mscale_all_dim;               /* yarn, DeepSeek */
    int64_t original_positions;
};

struct attn_spec {
    int32_t n_heads, n_kv_heads, head_dim;
    bool qkv_bias, o_bias, sinks;
    enum qk_norm qk_norm;
    float clip;       /* clamp q, k, v to ±clip; 0: off */
    int64_t window;   /* 0: full */
    float scale, cap; /* scores times scale, soft-capped when cap > 0 */
    struct rope_spec rope;
};

struct layer_spec {
    struct attn_spec attn;
    bool is_moe;
    struct moe_spec moe;   /* when is_moe */
    int32_t ffn;           /* width of a dense layer */
    enum activation act;
    bool ungated;          /* dense: down(act(up(x))) */
    bool pre_norm, post_norm; /* norms before and behind each sub-layer */
};

struct spec {
    const char *family; /* name of the family part */
    int32_t vocab, d_model, n_layers;
    int64_t max_positions;
    enum norm_kind norm;
    float norm_eps, norm_add; /* norm_add: the weight is stored minus this (Gemma: 1) */
    bool tied, head_bias;
    float embed_scale, residual_scale, logit_scale, logit_cap;
    int32_t bos, eos[8], n_eos; /* -1: none */
    struct layer_spec *layer;   /* [n_layers], in the arena given to spec_read */
};

/* Places in the network that a tensor can fill. */
enum slot {
    SLOT_EMBED, SLOT_FINAL_NORM, SLOT_FINAL_NORM_BIAS, SLOT_HEAD, SLOT_HEAD_BIAS,
    SLOT_ATTN_NORM, SLOT_ATTN_NORM_BIAS, SLOT_Q, SLOT_K, SLOT_V, SLOT_O, SLOT_Q_BIAS, SLOT_K_BIAS, SLOT_V_BIAS,
    SLOT_O_BIAS,
    SLOT_Q_NORM, SLOT_K_NORM, SLOT_SINK, SLOT_ATTN_POST_NORM,
    SLOT_FFN_NORM, SLOT_FFN_NORM_BIAS, SLOT_FFN_POST_NORM, SLOT_GATE, SLOT_UP, SLOT_DOWN,
    SLOT_ROUTER, SLOT_ROUTER_BIAS, SLOT_SELECTION_BIAS, SLOT_COE_WEIGHT,
    SLOT_EXPERT_GATE, SLOT_EXPERT_UP, SLOT_EXPERT_DOWN,
    SLOT_SHARED_GATE, SLOT_SHARED_UP, SLOT_SHARED_DOWN, SLOT_SHARED_EXPERT_GATE,
    SLOT_COUNT
};
enum slot_scope { SCOPE_MODEL, SCOPE_LAYER, SCOPE_ITERATION, SCOPE_EXPERT };
enum slot_class { CLASS_EMBEDDING, CLASS_NORM, CLASS_ATTENTION, CLASS_DENSE, CLASS_ROUTER, CLASS_EXPERT, CLASS_SHARED,
                  CLASS_HEAD, CLASS_COUNT };
extern const char *const class_name[CLASS_COUNT];

struct slot_info {
    const char *name; /* "expert_gate", for messages */
    enum slot_scope scope;
    enum slot_class class;
    bool is_vector; /* norms, biases: kept in F32, no weight decay */
};
extern const struct slot_info slot_info[SLOT_COUNT];

/* Where a parameter sits; unused indices are 0. */
struct place {
    enum slot slot;
    int32_t layer, expert, iteration;
};
/* Shape of a place; false when this network has no such place. A vector has rows 1. */
bool slot_shape(const struct spec *s, enum slot slot, int32_t layer, int64_t *rows, int64_t *cols);
/* Calls fn for every place of the network in canonical order (the order of execution); stops at the first failure. */
coe_status spec_each_place(const struct spec *s,
                           coe_status (*fn)(void *user, struct place p, int64_t rows, int64_t cols), void *user);

/* ---- families ---- */

/* Tensor name of a slot. {l} {e} {t} stand for layer, expert, chain iteration. Several rows of one slot are
 * alternatives for reading; the first is written. */
struct name_row {
    enum slot slot;
    const char *pattern;
};
struct family {
    const char *const *model_types; /* NULL-terminated values of config "model_type" */
    /* Fills everything but `family`; layer is allocated and zeroed. */
    coe_status (*translate)(struct spec *s, struct arena *a, const json_t *config, const char *where);
    const struct name_row *names;   /* ends with a NULL pattern */
    const char *fused_gate_up, *fused_down; /* [E,2F,d] and [E,d,F] forms of the experts, or NULL */
    /* tensor name prefixes or *suffixes that are left alone, NULL-terminated; or NULL */
    const char *const *ignore;
    const char *key_n_experts, *key_top_k; /* config keys that a pruned model changes */
};
/* The family of a config by its model_type; COE_E_INPUT when nobody knows it. */
coe_status family_find(const struct part **out, const json_t *config, const char *where);
/* Name of a place in a family's files (first alternative `which` = 0); false when there is none. With an independent
 * chain gate, "….gate.weight" becomes "….gate.{t}.weight". */
bool family_name(const struct family *f, const struct spec *s, struct place p, int which, char *out, size_t cap);

/* Config → spec, with the overlay of its "coe" object (spec_json.c). Everything allocated in `a`. */
coe_status spec_read(struct spec *s, struct arena *a, const json_t *config, const char *where);
/* The "coe" object: MoE settings that override or extend what the family says. Unknown keys are errors. */
coe_status spec_overlay(struct spec *s, const json_t *coe, const char *where);
/* Reads the keys shared by almost all families: sizes, heads, norm eps, rope, tied embeddings, end tokens. */
coe_status config_common(struct spec *s, struct arena *a, const json_t *config, const char *where);
coe_status config_rope(struct rope_spec *r, const json_t *config, int32_t head_dim, const char *where);
coe_status config_activation(enum activation *a, const json_t *config, const char *key, const char *where);
coe_status config_window(int64_t *window, const json_t *config, const char *where);
/* The aux loss and coefficient that transformers gives this family ("hf" with `router_aux_loss_coef`). */
coe_status config_hf_loss(struct moe_spec *m, const json_t *config, const char *where);

/* inv_freq [n_rot/2] and the factor of cos and sin. */
void rope_frequencies(const struct rope_spec *r, float *inv_freq, float *factor);
/* cos, sin [n, n_rot/2] at the positions */
void rope_fill(const float *inv_freq, float factor, int32_t half, const int64_t *position, int64_t n, float *cos,
               float *sin);

/* Parameters in total and those one token uses (routed experts: top_k per iteration counted once per pass). */
struct spec_sizes {
    int64_t total, active, by_class[CLASS_COUNT];
};
struct spec_sizes spec_sizes(const struct spec *s);

#endif
