/* measure.h — how well a model predicts text, whole and under plans: loss, bits per byte, distance from the whole
 * model. */
#ifndef COE_MEASURE_H
#define COE_MEASURE_H

#include "plan/plan.h"

/* The tokens of a text file. Plain text is one document from the first byte to the last (an end-of-text mark in it is a
 * token like any other); JSONL gives one document for each record. A document is preceded by one token that is not
 * predicted: the BOS that the tokenizer adds, else <|endoftext|> where the vocabulary has it; where there is neither,
 * the document's own first token, whose bytes then do not count. */
struct measured_text {
    const char *path; /* borrowed */
    int32_t *ids;
    int64_t *off; /* [n_docs+1] */
    int64_t n_docs;
    uint64_t bytes;     /* of what is predicted */
    const char *begins; /* "bos", "endoftext" or "first token" */
};
/* At most max_tokens predicted tokens (0: all). */
coe_status measured_text_read(struct measured_text *out, const struct coe_model *m, const char *path,
                              int64_t max_tokens);
void measured_text_free(struct measured_text *t);

/* Every token is predicted once. Windows of at most `window` tokens begin every `stride` tokens of a document; a window
 * predicts the tokens that earlier ones did not reach, from those before it inside the window. stride == window: the
 * first token a window predicts sees one token. */
struct measure_opts {
    int64_t window, stride; /* 0: the model's context up to 1024; the window */
    int32_t batch;          /* windows in one forward pass; 0: as many as make 1024 tokens. Changes no bit */
    coe_mla mla;
    coe_kv kv;
    coe_math math;
};
coe_status measure_opts_fill(struct measure_opts *o, const struct coe_model *m);

struct measure {
    int64_t tokens; /* predicted */
    uint64_t bytes; /* their text */
    double nats;    /* Σ -ln p(token) */
    double seconds; /* of forward passes, and the tokens that went through them */
    int64_t processed;
    double kl;        /* Σ over tokens of KL(first variant ‖ this one), nats */
    int64_t same_top; /* tokens whose most probable next token is the first variant's */
};
/* Adds one text to out [n_variants]. Variant i runs under hook[i] ([n_layers] masks, or NULL: the whole model); the
 * first one is what the others are compared with. COE_E_FAILED when interrupted. Memory: hidden states of one batch for
 * each variant and logits of a few rows. */
coe_status measure_text(struct measure *out, struct coe_model *m, struct route_hook *const *hook, int32_t n_variants,
                        const struct measured_text *t, const struct measure_opts *o);

double measure_bits_per_byte(const struct measure *r);
double measure_loss(const struct measure *r); /* nats per token */
/* What a plan file's "measured" says about this variant beside the unedited model; bytes of the two models on disk. */
json_t *measure_json(const struct measure *plan, uint64_t bytes, const struct measure *unedited,
                     uint64_t bytes_unedited);

#endif
