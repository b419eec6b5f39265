/* routers.h — for tests of one router: a spec that names it, and a pass with or without a tape. */
#ifndef COE_TESTS_ROUTERS_H
#define COE_TESTS_ROUTERS_H

#include "support/block.h"

static inline struct moe_spec router_spec_of(const char *kind, int32_t experts, int32_t k)
{
    struct moe_spec s = moe_spec_default();
    s.n_experts = experts;
    s.expert_ffn = 2;
    s.router.top_k = k;
    if (!moe_use_router(&s.router, kind)) fail_msg("no router %s", kind);
    return s;
}

/* In the test arena; `tape`: with one. */
static inline struct moe_pass *router_pass(bool tape)
{
    struct moe_pass *p = test_alloc(sizeof *p);
    p->c = test_alloc(sizeof *p->c);
    p->c->arena = test_arena();
    p->c->tape = tape ? test_alloc(sizeof *p->c->tape) : NULL;
    p->executor = &executor_local;
    return p;
}

/* A value of the pass's context over a copy of x [rows, cols] */
static inline struct val *router_input(const struct moe_pass *p, const float *x, int64_t rows, int64_t cols)
{
    float *copy = test_alloc((size_t)(rows * cols) * sizeof *copy);
    for (int64_t i = 0; i < rows * cols; i++) copy[i] = x[i];
    return nn_wrap(p->c, copy, rows, cols);
}

#endif
