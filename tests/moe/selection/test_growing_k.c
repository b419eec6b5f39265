/* A k that grows over training. */
#include "support/routes.h"

enum { FROM, STEPS, SHAPE };
static float zero[16];

static int32_t k_at(struct moe_spec s, uint64_t step)
{
    return n_chosen(&routes_of(&s, routes_training(step), zero, 1, NULL)->route, 0);
}

/* Card 21: from 8 to 16 in 400 thousand steps */
static void k_grows_linearly_and_stays_at_its_end(void **state)
{
    (void)state;
    struct moe_spec s = routes_spec(16, 16, "growing_k");
    s.router.param[FROM] = 8, s.router.param[STEPS] = 400000;
    const uint64_t step[] = { 0, 100000, 200000, 300000, 399999, 1000000 };
    const int32_t k[] = { 8, 10, 12, 14, 16, 16 };
    for (int i = 0; i < 6; i++) assert_int_equal(k_at(s, step[i]), k[i]);
}

/* From 1 to 2 in 2 steps: half a step is 1.5, which the even number takes; from 2 to 3: 2.5, again 2. */
static void halves_go_to_the_even_number(void **state)
{
    (void)state;
    struct moe_spec s = routes_spec(16, 2, "growing_k");
    s.router.param[FROM] = 1, s.router.param[STEPS] = 2;
    assert_int_equal(k_at(s, 1), 1); /* rint(.5) + 1 */
    s.router.top_k = 4;              /* rint(1.5) + 1 */
    assert_int_equal(k_at(s, 1), 3);
}

static void at_inference_k_is_the_specs(void **state)
{
    (void)state;
    struct moe_spec s = routes_spec(16, 5, "growing_k");
    assert_int_equal(n_chosen(&routes_of(&s, NULL, zero, 1, NULL)->route, 0), 5);
    s.router.top_k = 16; /* all, equal logits: the mean of the experts */
    const struct route *r = &routes_of(&s, NULL, zero, 1, NULL)->route;
    for (int i = 0; i < 16; i++) assert_close("weight", &r->weight[i], (float[]){ 1.f / 16 }, 1, 1e-7, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(k_grows_linearly_and_stays_at_its_end),
        cmocka_unit_test(halves_go_to_the_even_number),
        cmocka_unit_test(at_inference_k_is_the_specs),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/selection/growing_k", tests, NULL, NULL);
}
