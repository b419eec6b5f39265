/* model.h — a network with its weights, its one forward pass, sessions over it, sampling.
 *
 * Enters here: what turns token ids into logits. A family enters as one file in families/. Knows checkpoints, text, nn
 * and moe; not traces, plans or training. Reading order: spec.h, slots.c, spec_json.c, families/mixtral.c, bind.c,
 * forward.c, session.c, generate.c. */
#ifndef COE_MODEL_H
#define COE_MODEL_H

#include "ckpt/ckpt.h"
#include "model/spec.h"
#include "text/text.h"

struct param {
    struct weight w;
    struct place at;
    const struct tensor *stored; /* tensor w.name of the file; NULL in a fresh model */
    struct cut cut;              /* how it lies in it */
    const struct tensor *scale;  /* of a packed tensor, or NULL */
};

/* Weights of one layer by slot; NULL where the layer has none. */
struct layer_weights {
    const struct weight *slot[SLOT_COUNT]; /* SCOPE_LAYER slots */
    struct moe_weights moe;
    struct moe_weights attn_moe; /* MIX_EXPERTS: gate makes queries, down the output */
    const struct weight *mix[PROJECTIONS][3]; /* experts beside a projection: router, A, B; or NULL */
};

struct coe_model {
    struct arena arena; /* spec, names, parameters, widened vectors */
    char *path;
    struct spec spec;
    const struct family *family;
    const struct part *family_part;
    struct ckpt *ckpt;            /* NULL for a fresh model */
    json_t *gguf_config;          /* config of a GGUF file, owned; NULL for a directory */
    struct tokenizer *tokenizer;  /* NULL when the directory has none */
    struct param *params;
    size_t n_params;
    const struct weight *slot[SLOT_COUNT]; /* SCOPE_MODEL slots; the head of a tied model is the embedding */
    struct layer_weights *layer;
    struct route_hook *hook; /* [n_layers] masks of a live plan, or NULL */
    float **inv_freq;        /* [n_layers], layers with equal rope share one */
    float *rope_factor;
    float **far_inv_freq; /* the same for sequences beyond the original length; NULL where nothing changes */
    float *far_factor;
    int64_t scale_block[2];  /* rows and columns that share an FP8 scale */
    bool wide, stored;       /* how it was opened: model_open_wide, model_open_stored */
    char *panels;            /* weights that model_pack laid out anew, owned; or NULL */
    struct weight *tied_head; /* a tied head in panels; NULL when it is the embedding itself */
    char *masters;           /* F32 parameters and gradients of a model in training; owned */
    struct adapter *adapter; /* low-rank parts of its weights (adapter.h), or NULL; owned */
    int32_t task;            /* of every sequence of which nobody says another (routers/tasks.c) */
};

/* Opens a directory or GGUF file for inference: weights stay mapped, vectors are widened. The tokenizer is optional
 * here. */
coe_status model_open(struct coe_model **out, const char *path);
/* The same with matrices of block types widened to F32: then products are those of F32 weights. */
coe_status model_open_wide(struct coe_model **out, const char *path);
/* The same for whoever describes or rewrites weights: in memory at once whatever the model's size, because nothing is
 * unpacked. A matrix that would have to be copied (block types, FP8, MXFP4, parts that take turns) has the type that it
 * would become, F32 or BF16, and no data; stored.h reads it. */
coe_status model_open_stored(struct coe_model **out, const char *path);
/* Lays matrices of block types out for the kernels, in memory, when they fit the budget and the machine: the same bits,
 * faster. For models that compute much; their parameters are no longer as stored. Matrices of plain types come along,
 * as they are, when they are larger than the caches together (model_pack_from: have `least` bytes). */
coe_status model_pack(struct coe_model *m);
coe_status model_pack_from(struct coe_model *m, uint64_t least);
/* The config it was opened with, borrowed; NULL for a fresh model. */
const json_t *model_config(const struct coe_model *m);
/* A fresh model from a config (F32 masters, gradients zero): weights ~ N(0, std), norms 1 (or what w_add asks), biases
 * 0, coe_weight 0. Every value is a function of (seed, parameter, element). */
coe_status model_new(struct coe_model **out, const json_t *config, const char *where, uint64_t seed, double std);
/* Copies an opened checkpoint into F32 masters with gradients, for training on. trained [n_params]: 0 for what stays
 * frozen as it is stored, without either; NULL: everything learns. */
coe_status model_make_trainable(struct coe_model *m, const uint8_t *trained);
void model_close(struct coe_model *m);
/* Zeroes all gradients. */
void model_zero_grad(struct coe_model *m);

/* Values of the places that both have in the same size; both in F32 masters. */
void model_copy_params(struct coe_model *to, const struct coe_model *from);
/* Masks experts of layer l for every later forward pass: keep [n_experts]; NULL ends it. Copied. */
coe_status model_set_keep(struct coe_model *m, int32_t l, const uint8_t *keep);

/* Writes a Hugging Face directory: `config` as config.json, parameters in `type` (F32, BF16, F16; vectors and routers
 * stay F32 where they were), copying tokenizer files from from_dir; of a model that came from a GGUF file NULL takes
 * the tokenizer from there. The directory appears as a whole. */
coe_status model_write(const struct coe_model *m, const char *dir, const json_t *config, enum dtype type,
                       const char *from_dir);

/* ---- forward ---- */

struct forward {
    const struct attn_batch *batch;
    const int32_t *task;              /* [n] task of each token; NULL: the model's */
    struct kv_layer *kv;              /* [n_layers][n_seq], or NULL: whole sequences, no cache (training) */
    const struct moe_observer *observer;
    void (*hidden)(void *user, int32_t index, const struct val *h); /* 0 … n_layers: before layer index */
    void *hidden_user;
    struct route_record **records;    /* training: filled with the routing records */
    int32_t n_records, max_records;
    /* the same of routers beside projections, which have losses of their own */
    struct route_record **projection_records;
    int32_t n_projection_records, max_projection_records;
    const bool *far;                  /* [n_seq] LongRoPE beyond the original length; NULL: sequences that end there */
    bool last_only;                   /* logits of the last row of each sequence only */
    bool no_logits;                   /* the final hidden states, normed, instead */
    struct executor *executor;        /* NULL: executor_local */
    coe_mla mla;                      /* expanded: without a tape, and the caches are of an expanded session */
    coe_kv kv_type;                   /* of the caches, also the passing ones without a session; rounded: no tape */
};
/* Logits [n, vocab] (or [n_seq, vocab]) of ids [n]; NULL on failure. Same bits for any split into batches, calls,
 * threads. */
struct val *model_forward(const struct coe_model *m, struct nn *c, const int32_t *ids, int64_t n, struct forward *f);
/* Logits [rows, vocab] of some rows of the final hidden states that a pass with no_logits gave: the same bits, without
 * room for all rows' logits at once. */
struct val *model_logits(const struct coe_model *m, struct nn *c, struct val *h);
/* COE_E_USAGE when the model knows no such task; every model knows task 0. */
coe_status model_check_task(const struct coe_model *m, int32_t task);
/* COE_E_USAGE when a rope is not defined for sequences of this many tokens. */
coe_status model_check_length(const struct coe_model *m, int64_t length);
/* "f32", "f16", "q8_0": what reports call "kv". */
const char *model_kv_name(coe_kv type);
bool model_kv_by_name(coe_kv *type, const char *name); /* false: there is none */
enum dtype model_kv_dtype(coe_kv type);
/* "absorbed" or "expanded"; NULL for a model without latent attention. What reports call "mla". */
const char *model_mla_name(const struct coe_model *m, coe_mla mla);
/* "fp32", or "bf16" and what computes it on this machine. What reports call "math"; a pass has it in struct nn. */
const char *model_math_name(coe_math math);
/* Routing records one forward pass makes: MoE layers times their iterations; those of routers beside projections. */
int32_t model_n_records(const struct coe_model *m);
int32_t model_n_projections(const struct coe_model *m);

/* ---- sessions ---- */

/* Several sequences can be evaluated in one forward pass: session_eval_batch. */
struct coe_session {
    const struct coe_model *model;
    struct arena arena; /* activations, rewound after every call */
    char *memory;       /* the caches */
    float *expert_states; /* of all layers, or NULL */
    struct kv_layer *kv; /* [n_layers] */
    struct kv_layer *router_kv; /* of routers with context, layer by layer, pass by pass; and their memory */
    char *router_memory;
    bool recurrent;      /* some layer keeps a state instead of keys and values */
    int64_t original;    /* LongRoPE that the capacity goes beyond: the length where its factors change; else 0 */
    bool far;            /* what is cached was made with the factors beyond it */
    bool remembers;      /* recurrent or original: */
    struct ids past;     /* the tokens evaluated, to evaluate them again */
    int64_t position, capacity;
    coe_mla mla;
    coe_math math;
    coe_kv kv_type;
    int32_t task;
    coe_route_fn *on_route;
    void *user;
};
/* n[i] tokens for each session; logits[i] [vocab] (last row) or [n[i], vocab]. All sessions of one model. */
coe_status session_eval_batch(struct coe_session *const *s, const int32_t *const *ids, const size_t *n, int32_t n_seq,
                              float *const *logits, bool last_only);

/* ---- sampling ---- */

struct sampler {
    coe_sampling how;
    uint64_t drawn;      /* tokens drawn so far: the random number is a function of (seed, drawn) */
    float *probability;  /* [vocab] scratch */
    int32_t *order;
    const int32_t *history; /* for the repetition penalty */
    size_t n_history;
    int32_t vocab;
};
coe_status sampler_open(struct sampler *s, const coe_sampling *how, int32_t vocab);
void sampler_close(struct sampler *s);
/* The next token; logits are not changed. Order: penalty, temperature, top-k, top-p, min-p. */
int32_t sampler_draw(struct sampler *s, const float *logits);

/* ---- generation ---- */

/* Generation step by step over a session, for callers that go on afterwards (a conversation, a server):
 *     generator_open(&g, session, &how);
 *     generator_feed(&g, ids, n);
 *     while (!generator_next(&g, &id) && id >= 0) { … g.text holds the characters that became whole … }
 *     generator_flush(&g);
 *     generator_feed(&g, more, n_more); …
 *     generator_close(&g); */
struct generator {
    struct coe_session *s;
    struct sampler sampler;
    struct decode_stream *stream; /* NULL when the model has no tokenizer: then text stays empty */
    struct ids history;           /* fed and made, for the repetition penalty */
    float *logits;                /* [vocab] after everything fed */
    int32_t pending;              /* the last token made: drawn, not yet fed; -1 none */
    bool full;                    /* the last generator_next stopped because the cache is full, not at an end token */
    struct str text;              /* whole characters of the last step */
};
/* COE_E_USAGE for sampling options without meaning. The session is borrowed. */
coe_status generator_open(struct generator *g, struct coe_session *s, const coe_sampling *how);
void generator_close(struct generator *g);
/* Feeds the token still pending and then ids [n], n may be 0 if anything was made before. */
coe_status generator_feed(struct generator *g, const int32_t *ids, size_t n);
/* Draws one token into *id; -1 at an end token and when the cache has no room for the token before it. */
coe_status generator_next(struct generator *g, int32_t *id);
/* Puts what is left of an unfinished character into g->text. */
coe_status generator_flush(struct generator *g);

#endif
