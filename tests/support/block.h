/* block.h — MoE layers of tests: weights for a spec, with gradients, and one run of moe_layer over them. */
#ifndef COE_TESTS_BLOCK_H
#define COE_TESTS_BLOCK_H

#include "support/arrays.h"

#include "moe/moe.h"

struct block {
    struct moe_spec spec;
    int64_t d;
    int32_t nth; /* layers with experts before it */
    struct moe_weights w;
    struct weight **list; /* all weights, named "router.0", "experts.3.up", "shared.down", … */
    size_t n;
    struct weight **gate, **up, **down; /* [E], as in w but writable */
};
/* ungated experts; biases on experts; an ungated shared expert */
enum block_form { BLOCK_GATED = 0, BLOCK_UNGATED = 1, BLOCK_BIASES = 2, BLOCK_SHARED_UNGATED = 4 };

/* Zero weights in the test arena for everything the spec names. */
struct block block_make(const struct moe_spec *spec, int64_t d, int form);
/* The same behind `nth` layers with experts, for routers whose first decision has fewer weights. */
struct block block_make_nth(const struct moe_spec *spec, int64_t d, int form, int32_t nth);
/* The router's logits alone, for pass t of the chain; fails the test on an error. */
struct val *block_logits(struct block *b, struct moe_pass *pass, int32_t t, struct val *x);
/* Normal weights of length about `scale` per unit input; a function of the seed and the weight's place. */
void block_random(struct block *b, uint64_t seed, double scale);
/* Fails the test when there is none. */
struct weight *block_weight(const struct block *b, const char *format, ...) COE_PRINTF(2, 3);
void block_set(const struct block *b, const char *name, const float *values, int64_t n);
void block_zero_grad(struct block *b);

/* One pass of moe_layer; everything but the block may be NULL in `how`. */
struct block_run {
    const struct route_hook *hook;
    const struct moe_observer *observer;
    struct route_record *records[MAX_ITERATIONS]; /* filled */
    int32_t n_records;
    const struct attn_batch *batch; /* NULL: one sequence */
    const int32_t *task;            /* of each token; NULL: 0 */
};
/* h NULL: a zero stream, so that the result in prenorm mode is the sum of the passes. Fails the test on an error. */
struct val *block_forward(struct block *b, struct nn *c, struct val *h, struct val *x0, struct block_run *how);

#endif
