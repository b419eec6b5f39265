/* Sinkhorn plans, and the training steps that route by them. */
#include "support/routes.h"

#include "moe/selection/sinkhorn.h"

static void plan(double *pi, const float *c, int32_t m, int32_t n, double xi)
{
    double scratch[64];
    sinkhorn_plan(pi, scratch, c, m, n, xi, 1e-12, 10000);
}

static void assert_plan(const double *pi, const double *want, int n)
{
    for (int i = 0; i < n; i++) assert_near("entry of the plan", pi[i], want[i], 1e-6);
}

/* Card 9a, xi = 1/2 */
static void plans_by_hand(void **state)
{
    (void)state;
    double pi[4];
    plan(pi, (float[]){ .73f, .27f, .27f, .73f }, 2, 2, .5);
    assert_plan(pi, (double[]){ .715042, .284958, .284958, .715042 }, 4);
    plan(pi, (float[]){ .95f, .05f, .90f, .10f }, 2, 2, .5);
    assert_plan(pi, (double[]){ .524979, .475021, .475021, .524979 }, 4);
}

static void rows_sum_to_one_columns_to_the_share_and_constants_change_nothing(void **state)
{
    (void)state;
    enum { M = 12, N = 4 };
    const float *c = random_floats(5, M * N, 1);
    double pi[M * N], moved[M * N];
    float shifted[M * N];
    plan(pi, c, M, N, .5);
    for (int t = 0; t < M; t++) {
        const double *row = pi + 4 * t;
        assert_near("row sum", row[0] + row[1] + row[2] + row[3], 1, 1e-9);
    }
    for (int e = 0; e < N; e++) {
        double sum = 0;
        for (int t = 0; t < M; t++) sum += pi[t * N + e];
        assert_near("column sum", sum, 3, 1e-8);
    }
    for (int i = 0; i < M * N; i++) shifted[i] = c[i] + (float)(i / N) + 2 * (float)(i % N);
    plan(moved, shifted, M, N, .5);
    for (int i = 0; i < M * N; i++) assert_near("entry", moved[i], pi[i], 1e-5);
    plan(pi, c, M, N, 1e7);
    for (int i = 0; i < M * N; i++) assert_near("entry without affinity", pi[i], .25, 1e-5);
}

/* Card 9a: with probability 0 every training step is the ordinary one. */
static void without_transport_it_is_top_k(void **state)
{
    (void)state;
    enum { T = 9, E = 5 };
    struct moe_spec s = routes_spec(E, 2, "sinkhorn"), plain = routes_spec(E, 2, "top_k");
    s.router.param[0] = 0;
    const float *z = random_floats(3, T * E, 1);
    for (uint64_t step = 0; step < 20; step++) {
        const struct route *a = &routes_of(&s, routes_training(step), z, T, NULL)->route;
        const struct route *b = &routes_of(&plain, routes_training(step), z, T, NULL)->route;
        assert_ids("experts", a->expert, b->expert, T * 2);
        assert_same_bits("weights", a->weight, b->weight, T * 2);
    }
}

/* Both tokens prefer expert 0; the plan gives token 1 to expert 1, with weight 1 for k = 1. */
static void a_step_with_transport_splits_what_softmax_would_not(void **state)
{
    (void)state;
    const float *z = routes_logits((float[]){ .95f, .05f, .90f, .10f }, 4);
    struct moe_spec s = routes_spec(2, 1, "sinkhorn");
    s.router.param[0] = 1;
    const struct route *r = &routes_of(&s, routes_training(0), z, 2, NULL)->route;
    assert_token(r, 0, (int32_t[]){ 0 }, (float[]){ 1 }, 1);
    assert_token(r, 1, (int32_t[]){ 1 }, (float[]){ 1 }, 1);
    r = &routes_of(&s, NULL, z, 2, NULL)->route; /* inference */
    assert_token(r, 1, (int32_t[]){ 0 }, (float[]){ .9f }, 1);
    s.router.param[0] = 0;
    r = &routes_of(&s, routes_training(0), z, 2, NULL)->route;
    assert_token(r, 1, (int32_t[]){ 0 }, (float[]){ .9f }, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plans_by_hand),
        cmocka_unit_test(without_transport_it_is_top_k),
        cmocka_unit_test(rows_sum_to_one_columns_to_the_share_and_constants_change_nothing),
        cmocka_unit_test(a_step_with_transport_splits_what_softmax_would_not),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/selection/sinkhorn", tests, NULL, NULL);
}
