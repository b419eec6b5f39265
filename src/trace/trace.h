/* trace.h — what a model's experts did on real text: recorded, stored, merged, summed.
 *
 * Enters here: recording through the model's observer, the trace file, statistics that reports and planners share.
 * Knows models and text; nothing of plans. Reading order: trace.h, trace.c (columns), record.c (one forward pass),
 * corpus.c (text files), write.c and read.c (the file, docs/formats.md), stats.c, export.c.
 *
 *     struct trace *t;
 *     COE_TRY(trace_new(&t, model, 512));
 *     COE_TRY(trace_text(t, model, "stories", "stories.txt.xz", &opts));
 *     COE_TRY(trace_write(t, "stories.coet"));
 *
 * A trace is a set of columns. A column holds, for each domain (label of text), MoE layer and chain iteration, one
 * number, one number for each expert, or one for each pair of experts:
 *
 *     domain 0: [layer 0: iteration 0: e0 e1 … | iteration 1: …] [layer 1: …]   domain 1: …
 *
 * Level `counts` has the columns below; higher levels add columns, they change none. Sums are FP64 chains over the
 * tokens in the order of the text, so they depend neither on threads nor on how the text was cut into batches. */
#ifndef COE_TRACE_H
#define COE_TRACE_H

#include "model/model.h"

enum trace_level { TRACE_COUNTS };
extern const char *const trace_level_name[1];

enum trace_column {
    TRACE_TOKENS,      /* tokens seen */
    TRACE_PROBABILITY, /* Σ over all tokens of the activated router score (softmax probability, sigmoid), chosen or not
                        */
    TRACE_COUNT,       /* tokens routed to the expert */
    /* sums over the tokens routed to the expert */
    TRACE_SCORE,        /* p: activated score before any renormalisation */
    TRACE_RENORM,       /* q = p / Σ of p over the token's chosen experts, whatever the model does */
    TRACE_GATE,         /* g: the weight that multiplied the output */
    TRACE_NORM,         /* ‖E(x)‖₂ */
    TRACE_NORM2,        /* ‖E(x)‖₂² */
    TRACE_SCORE_NORM,   /* p‖E(x)‖ */
    TRACE_RENORM_NORM,  /* q‖E(x)‖ */
    TRACE_GATE_NORM,    /* g‖E(x)‖ */
    TRACE_MAX_ABS,      /* largest |element| of E(x) */
    TRACE_MAX_OUT,      /* largest element of E(x), at least 0 */
    TRACE_MAX_TOKEN,    /* index in the domain's text of the token that reached max_abs first; -1: never routed */
    TRACE_MAX_POSITION, /* its position in its window */
    TRACE_COSELECT,     /* [a, b] tokens routed to both; the diagonal is the count */
    TRACE_CHAIN,        /* [a, b] tokens routed to a in this iteration and to b in the next; last iteration has none */
    /* only with importance: what the columns of an expert's matrices met */
    TRACE_INPUT2,  /* Σ x² of each input channel of gate and up [E, d_model] */
    TRACE_HIDDEN2, /* Σ u² of each input channel of down [E, expert_ffn] */
    TRACE_N_COLUMNS
};
enum trace_shape { PER_ITERATION, PER_EXPERT, PER_PAIR, PER_STEP, PER_INPUT, PER_HIDDEN, TRACE_N_SHAPES };

struct trace_column_info {
    const char *name;
    enum dtype type; /* DT_U64, DT_I64, DT_F64 or DT_F32 */
    enum trace_shape shape;
};
extern const struct trace_column_info trace_column_info[TRACE_N_COLUMNS];

/* One MoE layer of the traced model. */
struct trace_layer {
    int32_t layer; /* index in the model */
    int32_t n_experts, top_k, n_iterations, n_group, groups_kept;
    int32_t expert_ffn; /* 0: unknown, in files without importance */
    enum score_kind score;
    bool renormalize, shared_gate;
    double scale;
    size_t at[TRACE_N_SHAPES]; /* first value of this layer inside a domain's stretch of a column */
};

struct trace_file_source {
    char *path;
    int64_t documents, tokens;
};
struct trace_domain {
    char *label;
    int64_t tokens;
    VEC(struct trace_file_source) files;
};

struct trace {
    struct arena arena; /* strings, layers */
    char *path;         /* for messages: the file it was read from, or "trace" */
    enum trace_level level;
    bool importance;               /* the columns input2 and hidden2 are there */
    char model[17], tokenizer[17]; /* fingerprints */
    char *family, *weights;        /* family of the model; storage type of its experts. Activations are F32 */
    int32_t n_model_layers, d_model, vocab;
    int64_t window;   /* longest sequence; documents are cut, sequences never cross them */
    coe_kv kv;        /* what keys and values were rounded to while recording */
    char plan[17];    /* fingerprint of the plan that was live while recording, or "" */
    char *route;      /* the rule that replaced the model's own routing while recording, or "" */
    int32_t n_layers; /* MoE layers */
    struct trace_layer *layer;
    VEC(struct trace_domain) domains;
    void *column[TRACE_N_COLUMNS];
    size_t stride[TRACE_N_SHAPES]; /* values of one domain */
};

/* An empty trace for a model. COE_E_USAGE when it has no experts. */
coe_status trace_new(struct trace **out, const struct coe_model *m, int64_t window);
void trace_free(struct trace *t);
/* Adds the columns of importance; before the first domain. */
void trace_want_importance(struct trace *t);
/* Index of the domain with this label, made with zero columns when it is new; -1 (message set) when memory is out. */
int32_t trace_add_domain(struct trace *t, const char *label);

/* Values in column c for one domain, layer index and iteration; 0 where the shape has none. */
size_t trace_count(const struct trace *t, enum trace_column c, int32_t layer, int32_t iteration);
/* The first of them; cast to the column's type. */
void *trace_at(const struct trace *t, enum trace_column c, int32_t domain, int32_t layer, int32_t iteration);
static inline uint64_t *trace_u64(const struct trace *t, enum trace_column c, int32_t domain, int32_t layer,
                                  int32_t iteration)
{
    return trace_at(t, c, domain, layer, iteration);
}
static inline double *trace_f64(const struct trace *t, enum trace_column c, int32_t domain, int32_t layer,
                                int32_t iteration)
{
    return trace_at(t, c, domain, layer, iteration);
}
uint64_t trace_tokens(const struct trace *t); /* of all domains */

/* Adds `from` into `t`: equal labels are summed (t first, then from), new labels appended. COE_E_INPUT when the two are
 * not traces of the same model recorded the same way. On failure t may hold part of `from`. */
coe_status trace_merge(struct trace *t, const struct trace *from);

/* ---- recording (record.c) ---- */

/* Feeds one domain of a trace from forward passes. Set `batch`, `counted` and call trace_observer for each pass, then
 * trace_batch_done. */
struct trace_recorder {
    struct trace *trace;
    int32_t domain;
    int64_t n_tokens;                  /* tokens of earlier batches of this domain */
    const struct attn_batch *batch;    /* where sequences begin, for positions; NULL: one sequence from 0 */
    const uint8_t *counted;            /* [T], 0 = left out of everything (padding), or NULL */
    const struct route_record *before; /* the previous iteration of the layer in progress */
};
struct moe_observer trace_observer(struct trace_recorder *r);
/* The pass over n tokens is complete. */
void trace_batch_done(struct trace_recorder *r, int64_t n);

/* ---- text (corpus.c) ---- */

struct trace_opts {
    int64_t max_tokens;   /* of the label in total; 0: all */
    int64_t batch_tokens; /* of one forward pass; 0: 1024. Changes no bit */
};
/* Runs the model over a file's documents in windows of t->window tokens and adds what happened to the domain `label`.
 * COE_E_FAILED when interrupted. */
coe_status trace_text(struct trace *t, const struct coe_model *m, const char *label, const char *path,
                      const struct trace_opts *o);

/* Appends the first `max` ids of a text (all when max < 0), tokenizing no more of it than that takes. */
coe_status encode_prefix(const struct tokenizer *t, struct ids *out, const char *text, size_t n, bool special,
                         int64_t max);

/* ---- the file (write.c, read.c) ---- */

coe_status trace_write(struct trace *t, const char *path);
/* COE_E_INPUT names the file and the field or column at fault. */
coe_status trace_read(struct trace **out, const char *path);
/* From memory; max_bytes bounds the columns that may be unpacked. */
coe_status trace_parse(struct trace **out, const unsigned char *bytes, size_t n, const char *where, uint64_t max_bytes);
/* xxh3 over everything a trace says except file names: 16 hex digits. */
coe_status trace_fingerprint(const struct trace *t, char hex[17]);
/* format "npy" (one array for each layer and column), "csv" or "jsonl" (one row for each domain, layer, iteration,
 * expert). */
coe_status trace_export(const struct trace *t, const char *format, const char *dir);
/* The JSON that heads the file, without its directory of columns; a new reference. */
json_t *trace_header_json(const struct trace *t);

/* ---- importance (importance.c) ---- */

struct imatrix;
/* Sums over domains and iterations under the names of GGUF files; free with imatrix_free. COE_E_INPUT for a trace
 * without importance. */
coe_status trace_imatrix(struct imatrix **out, const struct trace *t);

/* ---- sums that reports and planners read (stats.c) ---- */

/* One expert of one layer, over domains and iterations. */
struct expert_sums {
    uint64_t count;
    double score, renorm, gate, norm, norm2, score_norm, renorm_norm, gate_norm;
    float max_abs, max_out;
};
/* out [n_experts] of layer index l. domain < 0: all; iteration < 0: all. */
void trace_expert_sums(const struct trace *t, int32_t domain, int32_t l, int32_t iteration, struct expert_sums *out);
/* counts [n_experts]; pairs [n_experts, n_experts] of TRACE_COSELECT or TRACE_CHAIN. domain < 0: all. */
void trace_counts(const struct trace *t, int32_t domain, int32_t l, int32_t iteration, uint64_t *counts);
void trace_pairs(const struct trace *t, enum trace_column c, int32_t domain, int32_t l, int32_t iteration,
                 uint64_t *pairs);

#endif
