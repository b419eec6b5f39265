/* spec.h — what a network is, as data. A family file translates a config into this; the forward pass reads nothing
 * else.
 *
 * Worked example: spec_layer_moe(&spec, 3) tells whether layer 3 routes; spec.layer[3].moe.router.top_k how widely. */
#ifndef COE_SPEC_H
#define COE_SPEC_H

#include "moe/moe.h"

enum norm_kind { NORM_RMS, NORM_LAYER };
/* Of q and k: per head, over the whole projection, or per head without weights. */
enum qk_norm { QK_NORM_NONE, QK_NORM_HEAD, QK_NORM_FULL, QK_NORM_UNIT };
enum rope_kind { ROPE_NONE, ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3, ROPE_YARN, ROPE_LONG };
/* How a layer mixes tokens: attention; latent attention (MLA); a gated short convolution; the gated delta rule;
 * attention whose query and output projections are experts (JetMoE); attention whose heads are (heads.c). */
enum mixer { MIX_ATTENTION, MIX_LATENT, MIX_CONV, MIX_DELTA, MIX_EXPERTS, MIX_HEADS, MIX_COUNT };
/* The gate of attention: a projection of its own, or in q, per head [query | gate]. */
enum attn_gate { ATTN_GATE_NONE, ATTN_GATE_OWN, ATTN_GATE_IN_Q };

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
    int64_t limit;                               /* positions behind it would need another rope; 0: none */
    const double *divide;                        /* long: [n_rot/2], in the spec's arena */
    const double *far_divide;                    /* long: the same for sequences beyond original_positions … */
    double far_attention_factor;                 /* … and their attention_factor */
};

/* Latent attention. A head's query is [nope | rope]; keys and values of all heads are made from one latent of kv_rank
 * and one rotated key of `rope` (attn_spec.rope.n_rot). */
struct latent_spec {
    int32_t q_rank;   /* 0: queries straight from the stream */
    int32_t kv_rank, nope, v_dim;
    float eps;        /* of the norms of the latents */
    float kv_scale;   /* multiplies the normalised latent; a factor of the queries is part of attn_spec.scale */
};

/* Recurrent mixers. MIX_CONV: d_model channels. MIX_DELTA: n_v heads of d_v values, n_v / n_k of them share a key
 * head. */
struct recurrent_spec {
    int32_t kernel; /* taps of the convolution, the last one on the current token */
    bool bias;      /* of the convolution and its projections */
    int32_t n_k, n_v, d_k, d_v;
    bool ungrouped;  /* MIX_DELTA: rows of all heads, [q | k | v] and z in a matrix of its own, as GGUF files have them;
                      * else one matrix grouped by key head, [q | k | v of its heads | z of its heads] */
    bool negative_a; /* MIX_DELTA: the decay is stored as -exp(A_log), else as A_log */
};

struct attn_spec {
    enum mixer kind;
    int32_t n_heads, n_kv_heads, head_dim;
    bool qkv_bias, o_bias, sinks;
    enum qk_norm qk_norm;
    bool norm_after_rope;
    enum attn_gate gate; /* the output times sigmoid(gate), before the output projection */
    float clip;          /* clamp q, k, v to ±clip; 0: off */
    int64_t window;      /* 0: full */
    int64_t chunk;       /* a token sees only its own chunk of so many positions; 0: off */
    float scale, cap;    /* scores times scale, soft-capped when cap > 0 */
    float temper, temper_floor; /* q times 1 + temper·ln(1 + floor((position + 1) / temper_floor)); 0: off */
    struct rope_spec rope;
    struct latent_spec latent;       /* MIX_LATENT */
    struct recurrent_spec recurrent; /* MIX_CONV, MIX_DELTA */
    struct moe_spec moe;             /* MIX_EXPERTS: what chooses the projections; heads of one expert = n_kv_heads.
                                      * MIX_HEADS: what chooses key heads with their query heads */
};

/* Low-rank experts beside projections, each projection with a router of its own (projections.c). */
enum { PROJECTIONS = 7 };
extern const char *const projection_name[PROJECTIONS]; /* "q", "k", "v", "o", "gate", "up", "down" */
struct projection_spec {
    int32_t rank; /* of an expert; 0: none */
    double alpha, init_range;
    uint32_t targets;    /* bits by projection */
    struct moe_spec moe; /* how each router chooses, and the losses of all of them */
};

struct layer_spec {
    struct attn_spec attn;
    struct projection_spec projections;
    bool is_moe;
    struct moe_spec moe;   /* when is_moe */
    int32_t ffn;           /* width of a dense layer */
    enum activation act;
    bool ungated;          /* dense: down(act(up(x))) */
    bool ffn_bias;         /* dense: biases of all its matrices */
    bool dense_beside;     /* a MoE layer with a dense network of width ffn on the same input */
    int32_t moe_joins;     /* with dense_beside: so many layers later the MoE's output joins the stream, at the end */
    bool pre_norm, post_norm; /* norms before and behind each sub-layer */
};

struct spec {
    const char *family; /* name of the family part */
    int32_t vocab, d_model, n_layers;
    int64_t max_positions;
    enum norm_kind norm;
    float norm_eps, norm_add; /* norm_add: the weight is stored minus this (Gemma: 1) */
    float final_norm_eps;
    bool tied, head_bias, learned_positions;
    int32_t layers_per_block; /* consecutive layers that the family counts as one */
    float embed_scale, residual_scale, logit_scale, logit_cap;
    int32_t bos, eos[8], n_eos; /* -1: none */
    struct layer_spec *layer;   /* [n_layers], in the arena given to spec_read */
};

/* Places in the network that a tensor can fill. */
enum slot {
    SLOT_EMBED, SLOT_POSITIONS, SLOT_FINAL_NORM, SLOT_FINAL_NORM_BIAS, SLOT_HEAD, SLOT_HEAD_BIAS,
    SLOT_ATTN_NORM, SLOT_ATTN_NORM_BIAS, SLOT_Q, SLOT_K, SLOT_V, SLOT_O,
    SLOT_Q_BIAS, SLOT_K_BIAS, SLOT_V_BIAS, SLOT_O_BIAS, SLOT_Q_NORM, SLOT_K_NORM, SLOT_SINK, SLOT_ATTN_GATE,
    SLOT_Q_A, SLOT_Q_A_BIAS, SLOT_Q_A_NORM, SLOT_KV_A, SLOT_KV_A_BIAS, SLOT_KV_A_NORM,
    SLOT_KV_B, /* latent: SLOT_Q is then the second factor */
    SLOT_CONV_IN, SLOT_CONV_IN_BIAS, SLOT_CONV, SLOT_CONV_BIAS,
    SLOT_DELTA_QKVZ, SLOT_DELTA_QKV, SLOT_DELTA_Z, SLOT_DELTA_BA, SLOT_DELTA_A, SLOT_DELTA_DT, SLOT_DELTA_NORM,
    SLOT_ATTN_ROUTER, SLOT_ATTN_EXPERT_IN, SLOT_ATTN_EXPERT_OUT, SLOT_ATTN_EXPERT_BIAS,
    SLOT_ATTN_POST_NORM,
    SLOT_FFN_NORM, SLOT_FFN_NORM_BIAS, SLOT_FFN_POST_NORM,
    SLOT_GATE, SLOT_UP, SLOT_DOWN, SLOT_GATE_BIAS, SLOT_UP_BIAS, SLOT_DOWN_BIAS,
    SLOT_MIX_ROUTER, SLOT_MIX_A, SLOT_MIX_B, /* place.iteration tells which projection */
    SLOT_ROUTER, SLOT_ROUTER_BIAS, SLOT_SELECTION_BIAS, SLOT_EXPERT_SCALE, SLOT_MOE_BIAS, SLOT_COE_WEIGHT,
    SLOT_EXPERT_GATE, SLOT_EXPERT_UP, SLOT_EXPERT_DOWN,
    SLOT_EXPERT_GATE_BIAS, SLOT_EXPERT_UP_BIAS, SLOT_EXPERT_DOWN_BIAS,
    SLOT_SHARED_GATE, SLOT_SHARED_UP, SLOT_SHARED_DOWN,
    SLOT_SHARED_GATE_BIAS, SLOT_SHARED_UP_BIAS, SLOT_SHARED_DOWN_BIAS, SLOT_SHARED_EXPERT_GATE,
    /* what routers and kinds of experts declare (part_places.c): by scope, and matrix or vector; place.part tells which
     */
    SLOT_ROUTER_OF_MODEL, SLOT_ROUTER_OF_MODEL_VEC, SLOT_ROUTER_OF_LAYER, SLOT_ROUTER_OF_LAYER_VEC,
    SLOT_ROUTER_OF_ITERATION, SLOT_ROUTER_OF_ITERATION_VEC,
    SLOT_KIND_OF_MODEL, SLOT_KIND_OF_MODEL_VEC, SLOT_KIND_OF_LAYER, SLOT_KIND_OF_LAYER_VEC,
    SLOT_KIND_OF_EXPERT, SLOT_KIND_OF_EXPERT_VEC,
    SLOT_COUNT
};
enum slot_scope { SCOPE_MODEL, SCOPE_LAYER, SCOPE_ITERATION, SCOPE_EXPERT, SCOPE_ATTN_EXPERT,
                  SCOPE_PROJECTION };
enum slot_class {
    CLASS_EMBEDDING,
    CLASS_NORM,
    CLASS_ATTENTION,
    CLASS_DENSE,
    CLASS_ROUTER,
    CLASS_EXPERT,
    CLASS_SHARED,
    CLASS_HEAD,
    CLASS_ADAPTER,
    CLASS_COUNT
};
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
    int32_t part; /* slots of parts: owner (moe_part_table) * PART_WEIGHTS + row of its table */
};
/* Shape of a place that no part declares; false when this network has no such place. A vector has rows 1. */
bool place_shape(const struct spec *s, struct place p, int64_t *rows, int64_t *cols);
/* The matrix that a projection is. */
enum slot projection_slot(int32_t projection);
/* The row of the table that declares a place; NULL when it is no part's. */
const struct part_weight *place_part(const struct spec *s, struct place p);
/* Whether a place is never trained. */
bool place_frozen(const struct spec *s, struct place p);
/* Columns of the widest state that one routing decision leaves to the next; 0: none. */
int64_t spec_carries(const struct spec *s);
/* Tasks that routers tell apart, the least of all that do; 0: none does. */
int32_t spec_tasks(const struct spec *s);
/* Experts of the layer and kind that a place belongs to: what a fused tensor holds. */
int32_t spec_experts(const struct spec *s, struct place p);
/* Calls fn for every place of the network in canonical order (the order of execution); stops at the first failure. */
coe_status spec_each_place(const struct spec *s,
                           coe_status (*fn)(void *user, struct place p, int64_t rows, int64_t cols), void *user);

/* ---- families ---- */

/* How a place lies in its tensor; all zero: it is the tensor. CUT_EXPERT: the first dimension counts experts.
 * CUT_IN_OUT: the matrix is stored [in, out]. Then the rows are `parts` equal parts, one behind the other or, with
 * CUT_ALTERNATE, taking turns; the place is part number `part`. CUT_MXFP4: "…_blocks" as gpt-oss stores them, with
 * "…_scales" beside. CUT_HEAD_PAIR: kv_b as GGUF has it, "…k_b…" [heads, rank, nope] and "…v_b…" [heads, v, rank]. */
enum { CUT_EXPERT = 1, CUT_IN_OUT = 2, CUT_ALTERNATE = 4, CUT_MXFP4 = 8, CUT_HEAD_PAIR = 16 };
struct cut {
    uint8_t how, part, parts; /* parts 0 is 1 */
};

/* Layers that a name is for. */
enum name_if { NAME_ALWAYS, NAME_IN_CONV, NAME_IN_DELTA, NAME_IN_LOW_RANK /* latent attention's queries */ };

/* Tensor name of a slot. {l} {e} {t} stand for layer, expert, chain iteration; {b} {s} for the block of layers that the
 * family counts as one and the layer within it. Several rows of one slot are alternatives for reading; the first is
 * written. */
struct name_row {
    enum slot slot;
    const char *pattern;
    struct cut cut;
    enum name_if only;
};
struct family {
    const char *const *model_types; /* NULL-terminated values of config "model_type" */
    /* Fills everything but `family`; layer is allocated and zeroed. */
    coe_status (*translate)(struct spec *s, struct arena *a, const json_t *config, const char *where);
    const struct name_row *names;   /* ends with a NULL pattern */
    const char *fused_gate_up, *fused_down; /* [E,2F,d] and [E,d,F] forms of the experts, or NULL */
    const char *const *prefixes; /* what may stand before every name, the first is written; NULL: nothing */
    const char *const *ignore; /* tensor name prefixes or *suffixes that are left alone, NULL-terminated; or NULL */
    bool extra_layers;         /* files may hold layers behind the last (multi-token prediction), to be left alone */
    const char *key_n_experts, *key_top_k; /* config keys that a pruned model changes */
    const char *key_n_identity;            /* of identity experts, which key_n_experts then leaves out */
};
/* The key under which a config says how many experts there are: the family's, or the spelling of another family that
 * newer programs save it under. */
const char *family_experts_key(const struct family *f, const json_t *config);
/* The family of a config by its model_type; COE_E_INPUT when nobody knows it. */
coe_status family_find(const struct part **out, const json_t *config, const char *where);
/* Name of a place in a family's files (first alternative `which` = 0); false when there is none. With an independent
 * chain gate, "….gate.weight" becomes "….gate.{t}.weight". */
bool family_name(const struct family *f, const struct spec *s, struct place p, int which, char *out, size_t cap);
/* The same, and how the place lies in that tensor. */
bool family_name_cut(const struct family *f, const struct spec *s, struct place p, int which, char *out, size_t cap,
                     struct cut *cut);

/* Config → spec, with the overlay of its "coe" object (spec_json.c). Everything allocated in `a`. */
coe_status spec_read(struct spec *s, struct arena *a, const json_t *config, const char *where);
/* The "coe" object: MoE settings that override or extend what the family says. Unknown keys are errors. */
coe_status spec_overlay(struct spec *s, const json_t *coe, const char *where);
/* A live change of how tokens are routed, in the words of `coe help route`: "top_p=0.4", "top_k=4, renormalize=yes".
 * Only what needs no other parameters. COE_E_USAGE naming what is not understood, or what the network cannot do. */
coe_status spec_route(struct spec *s, const char *text);
/* The "coe" settings that such a text means, named by `option` in messages: a new reference; NULL: not
 * understood (COE_E_USAGE) or no memory. */
json_t *spec_rule(const struct spec *s, const char *option, const char *text);
/* COE_E_USAGE unless every layer's router can become `router` with the parameters it has: both are one matrix. */
coe_status spec_router_fits(const struct spec *s, const char *router, const char *where);
/* COE_E_INPUT naming what about a layer's attention keeps its heads from being experts. */
coe_status heads_check(const struct attn_spec *a, const char *where);
/* COE_E_INPUT naming what cannot have experts beside it. */
coe_status projections_check(const struct spec *s, const char *where);
/* Every layer's moe_spec_check, with the layer in the message. */
coe_status spec_check(const struct spec *s, const char *where);
/* Reads the keys shared by almost all families: sizes, heads, norm eps, rope, tied embeddings, end tokens. */
coe_status config_common(struct spec *s, struct arena *a, const json_t *config, const char *where);
/* rope_theta, rope_scaling or rope_parameters, partial_rotary_factor. rope_parameters may hold an object for each type
 * of layer: `type` chooses, NULL is "full_attention". */
coe_status config_rope(struct rope_spec *r, struct arena *a, const json_t *config, int32_t head_dim, const char *type,
                       const char *where);
coe_status config_activation(enum activation *a, const json_t *config, const char *key, const char *where);
coe_status config_window(int64_t *window, const json_t *config, const char *where);
/* The aux loss and coefficient that transformers gives this family ("hf" with `router_aux_loss_coef`). */
coe_status config_hf_loss(struct moe_spec *m, const json_t *config, const char *where);

/* What a LongRoPE is for sequences of more than original_positions. */
struct rope_spec rope_far(const struct rope_spec *r);
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
