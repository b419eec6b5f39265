/* Top-p: as many experts as the probability needs. */
#include "support/routes.h"

enum { P, MIN, MAX, BOUNDARY };

static const struct route *with_p(const float *p, int32_t n, double top_p)
{
    struct moe_spec s = routes_spec(n, 1, "top_p");
    s.router.param[P] = top_p;
    return &routes_of(&s, NULL, routes_logits(p, n), 1, NULL)->route;
}

/* Card 3: .35 <= .4 < .35 + .30: two experts, weights as they are; .5 > .4: one. */
static void takes_experts_until_their_sum_exceeds_p(void **state)
{
    (void)state;
    const float p[] = { .35f, .30f, .20f, .15f };
    assert_token(with_p(p, 4, .4), 0, (int32_t[]){ 0, 1 }, p, 2);
    assert_token(with_p((float[]){ .2f, .5f, .2f, .1f }, 4, .4), 0, (int32_t[]){ 1 }, (float[]){ .5f }, 1);
}

/* Sigmoid(0) = 1/2 exactly: a sum of exactly p = .5 takes one more, unless reaching it is enough. */
static void a_sum_of_exactly_p_takes_one_more_in_the_published_code(void **state)
{
    (void)state;
    struct moe_spec s = routes_spec(4, 1, "top_p");
    const float z[4] = { 0 };
    s.router.score = SCORE_SIGMOID;
    s.router.param[P] = .5;
    assert_token(&routes_of(&s, NULL, z, 1, NULL)->route, 0, (int32_t[]){ 0, 1 }, (float[]){ .5f, .5f }, 2);
    s.router.param[BOUNDARY] = 1;
    assert_token(&routes_of(&s, NULL, z, 1, NULL)->route, 0, (int32_t[]){ 0 }, (float[]){ .5f }, 1);
}

static void p_near_zero_is_top_1_and_p_of_one_is_dense(void **state)
{
    (void)state;
    const float p[] = { .1f, .2f, .3f, .4f };
    assert_token(with_p(p, 4, 1e-9), 0, (int32_t[]){ 3 }, (float[]){ .4f }, 1);
    assert_token(with_p(p, 4, 1.1), 0, (int32_t[]){ 3, 2, 1, 0 }, (float[]){ .4f, .3f, .2f, .1f }, 4);
}

/* 6/16 = .375 <= .4 < 7/16 */
static void sixteen_equal_experts_need_seven_for_four_tenths(void **state)
{
    (void)state;
    float p[16];
    for (int i = 0; i < 16; i++) p[i] = 1.f / 16;
    assert_int_equal(n_chosen(with_p(p, 16, .4), 0), 7);
}

static void the_number_of_experts_stays_between_min_and_max(void **state)
{
    (void)state;
    struct moe_spec s = routes_spec(4, 1, "top_p");
    const float *z = routes_logits((float[]){ .7f, .1f, .1f, .1f }, 4);
    s.router.param[MIN] = 2;
    assert_int_equal(n_chosen(&routes_of(&s, NULL, z, 1, NULL)->route, 0), 2);
    s.router.param[P] = .95, s.router.param[MAX] = 3;
    assert_int_equal(n_chosen(&routes_of(&s, NULL, z, 1, NULL)->route, 0), 3);
    assert_int_equal(moe_max_choices(&s), 3);
    s.router.param[MIN] = 4;
    assert_int_equal(moe_spec_check(&s, "spec"), COE_E_INPUT);
    assert_error_has("at least 4 and at most 3");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_experts_until_their_sum_exceeds_p),
        cmocka_unit_test(a_sum_of_exactly_p_takes_one_more_in_the_published_code),
        cmocka_unit_test(p_near_zero_is_top_1_and_p_of_one_is_dense),
        cmocka_unit_test(sixteen_equal_experts_need_seven_for_four_tenths),
        cmocka_unit_test(the_number_of_experts_stays_between_min_and_max),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/selection/top_p", tests, NULL, NULL);
}
