/* coe.h — the public face of libcoe: open a Mixture-of-Experts language model, feed it tokens, read logits, generate,
 * and watch which experts worked.
 *
 * A `coe_model` is a loaded checkpoint: weights, spec and tokenizer; it never changes after opening and may be shared
 * by many sessions. A `coe_session` is one timeline of inference over it: a key/value cache and a position. Handles
 * belong to whoever opened them and are closed with the matching _close. Every function that can fail returns a
 * coe_status and leaves a one-line message, naming the file, tensor or value at fault, in coe_error() of the calling
 * thread.
 *
 *     coe_model *m;  coe_session *s;
 *     if (coe_model_open(&m, "models/tales", NULL)) die(coe_error());
 *     if (coe_session_open(&s, m, NULL)) die(coe_error());
 */
#ifndef COE_H
#define COE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* 0 is done; the value is also the exit status of the command line for 1 to 4. */
typedef enum coe_status {
    COE_OK = 0,
    COE_E_FAILED = 1, /* the work could not be done (I/O error, interrupted, …) */
    COE_E_USAGE = 2,  /* the caller asked for something that has no meaning */
    COE_E_INPUT = 3,  /* a file given is missing, damaged, or not what it should be */
    COE_E_NOMEM = 4,  /* the memory budget or the machine's memory is exhausted */
} coe_status;

/* The message of the last failure on this thread; "" when there was none. Valid until the next failure. */
const char *coe_error(void);
/* "0.1.0" */
const char *coe_version(void);

typedef struct coe_model coe_model;
typedef struct coe_session coe_session;

typedef struct coe_open_opts {
    int threads;           /* 0: all processors this process may use */
    uint64_t memory_bytes; /* budget of counted memory; 0: no limit */
    const char *plan_path; /* a plan applied live (masking experts), or NULL */
} coe_open_opts;

/* Opens a Hugging Face directory or a GGUF file. Matrices of GGUF's block types are laid out for the kernels in memory
 * when memory_bytes and the machine have room, else read as stored; the results are the same. Errors: COE_E_INPUT,
 * COE_E_NOMEM, COE_E_USAGE (unknown family). */
coe_status coe_model_open(coe_model **out, const char *path, const coe_open_opts *opts);
void coe_model_close(coe_model *m);

int32_t coe_vocab_size(const coe_model *m);
int32_t coe_n_layers(const coe_model *m);
/* Experts of layer l, 0 for a dense layer. */
int32_t coe_n_experts(const coe_model *m, int32_t l);
/* Iterations of layer l's chain (1 for an ordinary MoE layer, 0 for a dense one). */
int32_t coe_n_iterations(const coe_model *m, int32_t l);

/* Encodes n_bytes of text; *ids is malloc'ed and belongs to the caller (free()). add_special: as the tokenizer's own
 * post-processor would (BOS/EOS). Errors: COE_E_INPUT when the model has no tokenizer. */
coe_status coe_tokenize(const coe_model *m, const char *text, size_t n_bytes, int add_special, int32_t **ids,
                        size_t *n);
/* Bytes of n tokens, malloc'ed, NUL-terminated; *n_bytes excludes the NUL and may be NULL. */
coe_status coe_detokenize(const coe_model *m, const int32_t *ids, size_t n, char **text, size_t *n_bytes);

/* One routing decision: token `position` in layer `layer`, chain iteration `iteration`, went to `n` experts. */
typedef struct coe_route_event {
    int32_t layer, iteration, n_experts, n;
    int64_t position;
    const int32_t *expert; /* [n], ascending id */
    const float *weight;   /* [n], exactly what multiplies each expert's output */
} coe_route_event;
typedef void coe_route_fn(void *user, const coe_route_event *event);

/* How latent attention (MLA: DeepSeek V2, V3 and their kin) is computed. Absorbed: over one cached latent for all
 * heads. Expanded: every head's keys and values are made from the latent and cached, several times the memory. The two
 * round differently; each gives its own same bits for prompt and decoding. */
typedef enum coe_mla { COE_MLA_ABSORBED, COE_MLA_EXPANDED } coe_mla;

/* How BF16 weights are multiplied. FP32: exactly as numbers of FP32, the same bits on every CPU. BF16: activations are
 * rounded to BF16 first, and the CPU's own BF16 products are used where it has them: twice as fast, and different bits
 * on different CPUs, though never for another number of threads or another batch. Routers always choose in FP32. */
typedef enum coe_math { COE_MATH_FP32, COE_MATH_BF16 } coe_math;

/* What keys and values are rounded to when they are cached; attention reads nothing else, so each type gives its own
 * same bits for prompt and decoding. A key or value head of n elements takes 4n, 2n, or (Q8_0) n bytes and 2 for
 * every 32. */
typedef enum coe_kv { COE_KV_F32, COE_KV_F16, COE_KV_Q8_0 } coe_kv;

typedef struct coe_session_opts {
    int32_t max_tokens;     /* tokens the cache holds, in blocks of 16; 0: the model's context length, at most 4096 */
    coe_route_fn *on_route; /* called for every token, layer and iteration, or NULL */
    void *user;
    coe_mla mla;            /* COE_E_USAGE: expanded, and the model has no latent attention */
    coe_math math;          /* COE_E_USAGE: no such arithmetic */
    coe_kv kv;              /* COE_E_USAGE: no such type */
    int32_t task;           /* of a model whose router tells tasks apart: the one that the tokens belong to */
} coe_session_opts;

coe_status coe_session_open(coe_session **out, const coe_model *m, const coe_session_opts *opts);
void coe_session_close(coe_session *s);
/* Forgets everything behind position n_keep. */
coe_status coe_session_rewind(coe_session *s, int64_t n_keep);
int64_t coe_session_position(const coe_session *s);

/* Appends n tokens. logits [n, vocab] receives the prediction after each of them, or only the last row, [vocab], when
 * last_only. Same bits however the tokens are split over calls. Errors: COE_E_USAGE (id out of range, cache full). */
coe_status coe_session_eval(coe_session *s, const int32_t *ids, size_t n, float *logits, int last_only);

typedef struct coe_sampling {
    float temperature;        /* 0: greedy */
    int32_t top_k;            /* 0: off */
    float top_p;              /* 0 or 1: off */
    float min_p;              /* 0: off */
    float repetition_penalty; /* 0 or 1: off */
    uint64_t seed;
} coe_sampling;

/* Called with the bytes of each generated piece (whole UTF-8 characters); return non-zero to stop. */
typedef int coe_text_fn(void *user, const char *bytes, size_t n);
/* Feeds ids, then samples until max_new tokens, the end token, a full cache, or on_text says stop. Afterwards the
 * session holds ids and the *n_new tokens (n_new may be NULL), so that more can be fed; an end token is not among
 * them. */
coe_status coe_generate(coe_session *s, const int32_t *ids, size_t n, int32_t max_new, const coe_sampling *how,
                        coe_text_fn *on_text, void *user, int32_t *n_new);

#ifdef __cplusplus
}
#endif
#endif
