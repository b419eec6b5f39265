/* kinds.h — layers of tests whose experts are of given kinds. */
#ifndef COE_TESTS_KINDS_H
#define COE_TESTS_KINDS_H

#include <string.h>

#include "support/block.h"
#include "support/routes.h"

/* n ranges, top-k of all their experts, softmax not renormalised */
static inline struct moe_spec kinds_spec(const struct expert_range *range, int32_t n, int32_t k)
{
    struct moe_spec s = routes_spec(0, k, "top_k");
    s.n_ranges = n;
    for (int32_t i = 0; i < n; i++) {
        s.range[i] = range[i];
        s.n_experts += range[i].n;
        s.expert_ffn = COE_MAX(s.expert_ffn, range[i].ffn);
    }
    return s;
}

/* What the layer adds to the stream for x [rows, b->d], copied from `data` */
static inline float *kinds_output(struct block *b, const float *data, int64_t rows)
{
    struct nn *c = test_alloc(sizeof *c);
    c->arena = test_arena();
    float *x = test_alloc((size_t)(rows * b->d) * sizeof *x);
    memcpy(x, data, (size_t)(rows * b->d) * sizeof *x);
    return block_forward(b, c, NULL, nn_wrap(c, x, rows, b->d), NULL)->data;
}

/* The same in training, under the objective Σ y ⊙ r: gradients of the weights in the block, of x returned. */
static inline float *kinds_gradient(struct block *b, const float *data, const float *r, int64_t rows)
{
    struct nn *c = routes_training(0);
    float *x = test_alloc((size_t)(rows * b->d) * sizeof *x);
    memcpy(x, data, (size_t)(rows * b->d) * sizeof *x);
    struct val *in = nn_wrap(c, x, rows, b->d), *y = block_forward(b, c, NULL, in, NULL);
    y->grad = test_alloc((size_t)(rows * b->d) * sizeof *x);
    memcpy(y->grad, r, (size_t)(rows * b->d) * sizeof *x);
    assert_ok(nn_backward(c));
    return in->grad;
}

#endif
