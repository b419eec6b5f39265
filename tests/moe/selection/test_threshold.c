/* Thresholds: percentile, absolute, relative to the best. */
#include "support/routes.h"

enum { OF, VALUE, MIN, MAX };
static const float p4[] = { .4f, .3f, .2f, .1f };

static const struct route *with(int of, double value, int least, int most)
{
    struct moe_spec s = routes_spec(4, 2, "threshold");
    s.router.renormalize = true;
    s.router.param[OF] = of, s.router.param[VALUE] = value, s.router.param[MIN] = least, s.router.param[MAX] = most;
    return &routes_of(&s, NULL, routes_logits(p4, 4), 1, NULL)->route;
}

/* Ascending .1 .2 .3 .4: the percentile 1/2 is .25: two experts stay, weights 4/7 and 3/7. 1/3 is .2 itself or a hair
 * beside it, so .34 asks: .2 + .02·.1 = .202: two. */
static void a_percentile_interpolates_between_the_sorted_scores(void **state)
{
    (void)state;
    assert_token(with(0, .5, 1, 0), 0, (int32_t[]){ 0, 1 }, (float[]){ 4.f / 7, 3.f / 7 }, 2);
    assert_int_equal(n_chosen(with(0, .34, 1, 0), 0), 2);
    assert_int_equal(n_chosen(with(0, .99, 1, 0), 0), 1);
}

/* Card 16: tau = 1 - K/E without ties is top-K: E = 4, K = 2 above; a threshold of 0 is dense. */
static void a_threshold_of_zero_is_a_dense_mixture(void **state)
{
    (void)state;
    for (int of = 0; of < 3; of++) assert_int_equal(n_chosen(with(of, 0, 1, 0), 0), 4);
}

/* .3 >= .25; half of .4 is .2, a hair above or below, so .45: .18 <= .2 */
static void absolute_and_relative_thresholds_vary_the_count(void **state)
{
    (void)state;
    assert_int_equal(n_chosen(with(1, .25, 1, 0), 0), 2);
    assert_int_equal(n_chosen(with(1, .9, 1, 0), 0), 1);
    assert_int_equal(n_chosen(with(2, .45, 1, 0), 0), 3);
    assert_int_equal(n_chosen(with(2, .45, 1, 2), 0), 2);
}

static void equal_bounds_are_top_k(void **state)
{
    (void)state;
    assert_token(with(2, .99, 3, 3), 0, (int32_t[]){ 0, 1, 2 }, (float[]){ 4.f / 9, 3.f / 9, 2.f / 9 }, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_percentile_interpolates_between_the_sorted_scores),
        cmocka_unit_test(a_threshold_of_zero_is_a_dense_mixture),
        cmocka_unit_test(absolute_and_relative_thresholds_vary_the_count),
        cmocka_unit_test(equal_bounds_are_top_k),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/selection/threshold", tests, NULL, NULL);
}
