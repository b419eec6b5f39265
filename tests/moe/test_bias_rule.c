/* The proportional controller of the selection bias. */
#include "support/arrays.h"

#include "moe/moe.h"

/* Mean 2: gaps -2 2 1 -1, over the mean, times a quarter */
static void it_moves_by_the_relative_gap_and_keeps_the_mean(void **state)
{
    (void)state;
    float b[] = { .5f, 0, 0, 0 };
    moe_bias_update_proportional(b, (uint64_t[]){ 4, 0, 1, 3 }, 4, .25);
    assert_close("bias", b, (float[]){ .25f, .25f, .125f, -.125f }, 4, 1e-7, 0);
    assert_near("sum", (double)(b[0] + b[1] + b[2] + b[3]), .5, 1e-6);
}

static void balanced_or_absent_counts_change_nothing(void **state)
{
    (void)state;
    float b[] = { 1, 2 };
    moe_bias_update_proportional(b, (uint64_t[]){ 3, 3 }, 2, .25);
    moe_bias_update_proportional(b, (uint64_t[]){ 0, 0 }, 2, .25);
    assert_close("bias", b, (float[]){ 1, 2 }, 2, 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_moves_by_the_relative_gap_and_keeps_the_mean),
        cmocka_unit_test(balanced_or_absent_counts_change_nothing),
    };
    return cmocka_run_group_tests_name("moe/bias_rule", tests, NULL, NULL);
}
