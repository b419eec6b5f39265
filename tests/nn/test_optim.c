/* AdamW by hand and against a twin in FP64; the gradient norm. */
#include "support/arrays.h"

#include <math.h>

#include "nn/nn.h"

static struct optim_param param(struct weight *w, bool decay)
{
    const size_t n = (size_t)weight_count(w);
    return (struct optim_param){ w, test_alloc(n * sizeof(float)), test_alloc(n * sizeof(float)), decay };
}

/* t = 1, g = 2, betas .9 .99, lr .1, no decay: m = .2, v = .04; m/(1-.9) = 2, v/(1-.99) = 4; w = 1 - .1 · 2/2 = .9 */
static void the_first_step_moves_by_the_learning_rate(void **state)
{
    (void)state;
    struct weight *w = test_weight("w", random_floats(0, 1, 0), 1, 1);
    w->master[0] = 1;
    w->grad[0] = 2;
    struct optim_param p = param(w, false);
    const struct adamw_args a = {
        .lr = .1f, .beta1 = .9f, .beta2 = .99f, .correction1 = 1 - .9f, .correction2 = 1 - .99f, .grad_scale = 1
    };
    optim_adamw(&p, 1, &a);
    assert_near("w", (double)w->master[0], .9, 1e-6);
    assert_near("m", (double)p.m[0], .2, 1e-6);
    assert_near("v", (double)p.v[0], .04, 1e-6);
}

/* No gradient: only the decay acts, w = 1 - lr·wd = .95; and not at all where decay is off. */
static void decay_is_decoupled_and_optional(void **state)
{
    (void)state;
    for (int decay = 0; decay < 2; decay++) {
        struct weight *w = test_weight("w", random_floats(0, 1, 0), 1, 1);
        w->master[0] = 1;
        struct optim_param p = param(w, decay);
        const struct adamw_args a = { .lr = .1f,
                                      .beta1 = .9f,
                                      .beta2 = .99f,
                                      .eps = 1e-8f,
                                      .weight_decay = .5f,
                                      .correction1 = .1f,
                                      .correction2 = .01f,
                                      .grad_scale = 1 };
        optim_adamw(&p, 1, &a);
        assert_near("w", (double)w->master[0], decay ? .95 : 1, 1e-7);
    }
}

static void adamw_twin(double *w, double *m, double *v, double g, const struct adamw_args *a, int t)
{
    const double b1 = (double)a->beta1, b2 = (double)a->beta2;
    g *= (double)a->grad_scale;
    *m = b1 * *m + (1 - b1) * g;
    *v = b2 * *v + (1 - b2) * g * g;
    *w -= (double)a->lr * (double)a->weight_decay * *w;
    *w -= (double)a->lr * (*m / (1 - pow(b1, t))) / (sqrt(*v / (1 - pow(b2, t))) + (double)a->eps);
}

static void twenty_steps_follow_the_twin(void **state)
{
    (void)state;
    enum { N = 37 };
    struct weight *w = test_weight("w", random_floats(1, N, 1), 1, N);
    struct optim_param p = param(w, true);
    double x[N], m[N] = { 0 }, v[N] = { 0 };
    for (int i = 0; i < N; i++) x[i] = (double)w->master[i];
    for (int t = 1; t <= 20; t++) {
        const struct adamw_args a = { .lr = 1e-2f,
                                      .beta1 = .9f,
                                      .beta2 = .95f,
                                      .eps = 1e-8f,
                                      .weight_decay = .1f,
                                      .grad_scale = .5f,
                                      .correction1 = (float)(1 - pow(.9, t)),
                                      .correction2 = (float)(1 - pow(.95, t)) };
        const float *g = random_floats(100 + (uint64_t)t, N, 1);
        for (int i = 0; i < N; i++) w->grad[i] = g[i];
        optim_adamw(&p, 1, &a);
        for (int i = 0; i < N; i++) adamw_twin(&x[i], &m[i], &v[i], (double)g[i], &a, t);
    }
    assert_norm_close_d("weights after 20 steps", w->master, x, N, 1e-6);
    assert_norm_close_d("first moments", p.m, m, N, 1e-6);
    assert_norm_close_d("second moments", p.v, v, N, 1e-6);
}

/* 3² + 4² over two tensors, and a tensor of more than one piece of 65536 elements */
static void the_gradient_norm_goes_over_all_tensors(void **state)
{
    (void)state;
    struct weight *a = test_weight("a", random_floats(0, 1, 0), 1, 1),
                  *b = test_weight("b", random_floats(0, 2, 0), 1, 2);
    struct optim_param p[] = { param(a, true), param(b, true) };
    a->grad[0] = 3;
    b->grad[1] = -4;
    assert_near("norm", optim_grad_norm(p, 2), 5, 1e-12);
    const int64_t n = 5 * 65536 + 17;
    struct weight *big = test_weight("big", random_floats(0, n, 0), 1, n);
    for (int64_t i = 0; i < n; i++) big->grad[i] = .5f;
    struct optim_param q = param(big, true);
    assert_near("norm of a large tensor", optim_grad_norm(&q, 1), .5 * sqrt((double)n), 1e-9);
    assert_near("norm of nothing", optim_grad_norm(NULL, 0), 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_step_moves_by_the_learning_rate),
        cmocka_unit_test(decay_is_decoupled_and_optional),
        cmocka_unit_test(twenty_steps_follow_the_twin),
        cmocka_unit_test(the_gradient_norm_goes_over_all_tensors),
    };
    return kernels_init() || cmocka_run_group_tests_name("nn/optim", tests, NULL, NULL);
}
