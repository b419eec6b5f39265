/* routes.h — routes of tests: from probabilities to the experts and weights of each token. */
#ifndef COE_TESTS_ROUTES_H
#define COE_TESTS_ROUTES_H

#include <math.h>
#include <string.h>

#include "moe/moe.h"
#include "support/arrays.h"

static inline struct moe_spec routes_spec(int32_t experts, int32_t k, const char *selection)
{
    struct moe_spec s = moe_spec_default();
    s.n_experts = experts;
    s.expert_ffn = 1;
    s.router.top_k = k;
    if (!moe_select(&s.router, selection)) fail_msg("there is no selection %s", selection);
    return s;
}

/* Logits whose softmax is p */
static inline float *routes_logits(const float *p, int64_t n)
{
    float *z = test_alloc((size_t)n * sizeof *z);
    for (int64_t i = 0; i < n; i++) z[i] = p[i] > 0 ? logf(p[i]) : -1e4f;
    return z;
}

/* The record of logits z [n, E]; batch NULL: one sequence. c NULL: inference. */
static inline struct route_record *routes_of(const struct moe_spec *spec, struct nn *c, const float *z, int64_t n,
                                             const struct attn_batch *batch)
{
    struct route_record *r = test_alloc(sizeof *r);
    struct nn *inference = test_alloc(sizeof *inference);
    float *copy = test_alloc((size_t)(n * spec->n_experts) * sizeof *copy);
    inference->arena = test_arena();
    memcpy(copy, z, (size_t)(n * spec->n_experts) * sizeof *copy);
    r->batch = batch;
    assert_ok(moe_spec_check(spec, "test"));
    if (!c) c = inference;
    assert_ok(moe_route(c, r, spec, nn_wrap(c, copy, n, spec->n_experts), NULL, NULL));
    return r;
}

/* A context of training at a step */
static inline struct nn *routes_training(uint64_t step)
{
    struct nn *c = test_alloc(sizeof *c);
    c->arena = test_arena();
    c->tape = test_alloc(sizeof *c->tape);
    c->step = step;
    return c;
}

/* Token t has exactly these experts, in descending weight, with these weights. */
static inline void assert_token(const struct route *r, int32_t t, const int32_t *expert, const float *weight, int32_t n)
{
    if (r->tok_off[t + 1] - r->tok_off[t] != n)
        fail_msg("token %d has %d experts, expected %d", t, r->tok_off[t + 1] - r->tok_off[t], n);
    assert_ids("experts", r->expert + r->tok_off[t], expert, n);
    if (weight) assert_close("weights", r->weight + r->tok_off[t], weight, n, 2e-6, 2e-6);
}

static inline int32_t n_chosen(const struct route *r, int32_t t) { return r->tok_off[t + 1] - r->tok_off[t]; }

#endif
