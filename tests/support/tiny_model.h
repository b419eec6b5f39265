/* tiny_model.h — a random Chain-of-Experts model of a few thousand parameters with a tokenizer, made in a millisecond
 * or two: for tests that need a model directory and not its quality. */
#ifndef COE_TESTS_TINY_MODEL_H
#define COE_TESTS_TINY_MODEL_H

#include "support.h"

/* Zero means the value in the comment. */
struct tiny {
    int32_t n_layers;     /* 2 */
    int32_t d_model;      /* 32, a multiple of 16 */
    int32_t n_experts;    /* 8 */
    int32_t top_k;        /* 2 */
    int32_t n_iterations; /* 2 */
    int32_t vocab;        /* 320: <|endoftext|> is id 0, then 256 bytes and merges */
    int32_t positions;    /* 256 */
    const char *router;   /* "linear"; a name or an object, as JSON */
    bool bf16;            /* weights in BF16, else F32 */
    bool no_tokenizer;
    uint64_t seed;
};

/* Writes the model into temp_path(name) and returns that path (one of eight rotating buffers); fails the test when it
 * cannot. t may be NULL. */
const char *tiny_model(const char *name, const struct tiny *t);

/* out [n, vocab]: what the model in a directory or file answers to these ids. */
void saved_logits(const char *path, const int32_t *ids, int32_t n, float *out);

/* The text that its tokenizer was trained on. */
extern const char tiny_text[];

#endif
