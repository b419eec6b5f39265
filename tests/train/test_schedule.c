/* The learning rate over a run, by hand. */
#include <math.h>

#include "support/support.h"
#include "train/train.h"

static void expect(const struct recipe *r, int64_t step, double lr)
{
    const double got = schedule_lr(r, step);
    if (fabs(got - lr) > 1e-12) fail_msg("step %lld: %.15g, expected %.15g", (long long)step, got, lr);
}

/* warm-up over 4 steps to 0.8: 0.2 0.4 0.6 0.8 */
static void warm_up_rises_in_equal_steps(void **state)
{
    (void)state;
    const struct recipe r = { .lr = 0.8, .min_lr = 0.2, .warmup = 4, .steps = 9, .schedule = SCHEDULE_CONSTANT };
    const double want[] = { 0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8 };
    for (int i = 0; i < 9; i++) expect(&r, i, want[i]);
}

/* Five steps behind the warm-up: shares 1, 3/4, 1/2, 1/4, 0 of the way from 0.2 to 0.8 */
static void linear_ends_at_the_lowest_rate(void **state)
{
    (void)state;
    const struct recipe r = { .lr = 0.8, .min_lr = 0.2, .warmup = 4, .steps = 9, .schedule = SCHEDULE_LINEAR };
    const double want[] = { 0.8, 0.65, 0.5, 0.35, 0.2 };
    for (int i = 0; i < 5; i++) expect(&r, 4 + i, want[i]);
}

/* (1 + cos(pi/4 i)) / 2: 1, (2 + sqrt 2)/4, 1/2, (2 - sqrt 2)/4, 0 */
static void cosine_passes_the_middle_half_way(void **state)
{
    (void)state;
    const struct recipe r = { .lr = 1, .min_lr = 0, .warmup = 0, .steps = 5, .schedule = SCHEDULE_COSINE };
    const double want[] = { 1, (2 + sqrt(2)) / 4, 0.5, (2 - sqrt(2)) / 4, 0 };
    for (int i = 0; i < 5; i++) expect(&r, i, want[i]);
}

static void short_runs_have_a_rate_too(void **state)
{
    (void)state;
    const struct recipe one = { .lr = 1, .min_lr = 0.1, .warmup = 0, .steps = 1, .schedule = SCHEDULE_COSINE };
    const struct recipe all_warm = { .lr = 1, .min_lr = 0.1, .warmup = 10, .steps = 5, .schedule = SCHEDULE_COSINE };
    expect(&one, 0, 0.1);
    expect(&all_warm, 4, 0.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(warm_up_rises_in_equal_steps),
        cmocka_unit_test(linear_ends_at_the_lowest_rate),
        cmocka_unit_test(cosine_passes_the_middle_half_way),
        cmocka_unit_test(short_runs_have_a_rate_too),
    };
    return cmocka_run_group_tests_name("train/schedule", tests, NULL, NULL);
}
