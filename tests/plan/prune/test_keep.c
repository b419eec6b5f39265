/* Choosing what stays. */
#include "support/toy_trace.h"

#include <math.h>

#include "plan/prune/keep.h"

static void assert_best(const double *score, int32_t n, int32_t groups, const int32_t *want, int32_t n_keep)
{
    int32_t keep[16];
    assert_ok(keep_best(test_arena(), score, n, groups, keep, n_keep));
    assert_ids("keep", keep, want, n_keep);
}

static void a_ratio_becomes_the_nearest_number_but_never_none(void **state)
{
    (void)state;
    assert_int_equal(keep_count(0.75, 8, 1), 6);
    assert_int_equal(keep_count(0.75, 6, 1), 5); /* 4.5 */
    assert_int_equal(keep_count(0.7, 6, 1), 4);
    assert_int_equal(keep_count(1e-9, 8, 1), 1);
    assert_int_equal(keep_count(1, 8, 1), 8);
}

/* 8 experts in 4 groups of 2: 0.75 of 2 is 1.5, two of each; 0.6 is 1.2, one of each */
static void groups_keep_the_same_number_each(void **state)
{
    (void)state;
    assert_int_equal(keep_count(0.75, 8, 4), 8);
    assert_int_equal(keep_count(0.6, 8, 4), 4);
    assert_int_equal(keep_count(0.1, 8, 4), 4);
    assert_best((const double[]){ 9, 8, 7, 6, 1, 2 }, 6, 2, (const int32_t[]){ 0, 1, 3, 5 }, 4);
}

static void the_highest_scores_stay_in_order_of_id(void **state)
{
    (void)state;
    assert_best((const double[]){ 0.1, 3, 0.5, 2 }, 4, 1, (const int32_t[]){ 1, 3 }, 2);
}

static void a_tie_keeps_the_lower_id_and_nan_goes_first(void **state)
{
    (void)state;
    assert_best((const double[]){ 1, 1, 1, 1 }, 4, 1, (const int32_t[]){ 0, 1 }, 2);
    assert_best((const double[]){ NAN, -5, NAN, 0 }, 4, 1, (const int32_t[]){ 1, 3 }, 2);
    assert_best((const double[]){ 0, 2, 1, 2 }, 4, 1, (const int32_t[]){ 1, 2, 3 }, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_ratio_becomes_the_nearest_number_but_never_none),
        cmocka_unit_test(groups_keep_the_same_number_each),
        cmocka_unit_test(the_highest_scores_stay_in_order_of_id),
        cmocka_unit_test(a_tie_keeps_the_lower_id_and_nan_goes_first),
    };
    return cmocka_run_group_tests_name("plan/prune/keep", tests, NULL, NULL);
}
