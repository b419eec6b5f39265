/* Expert activation norm: mean or sum of output norms, or of their squares. */
#include "support/toy_trace.h"

/* T 4 1 2; Σ‖E‖ 8 3 5 (means 2 3 2.5); Σ‖E‖² 40 9 14 (means 10 9 7) */
static struct trace *trace(void)
{
    struct trace *t = toy_trace(3, 1);
    toy_set(t, TRACE_COUNT, 0, (const double[]){ 4, 1, 2 });
    toy_set(t, TRACE_NORM, 0, (const double[]){ 8, 3, 5 });
    toy_set(t, TRACE_NORM2, 0, (const double[]){ 40, 9, 14 });
    return t;
}

static void the_longest_outputs_stay(void **state)
{
    (void)state;
    struct trace *t = trace();
    assert_keeps("ean", t, 0.34, NULL, (const int32_t[]){ 1 }, 1);
    assert_keeps("ean", t, 0.67, NULL, (const int32_t[]){ 1, 2 }, 2);
    trace_free(t);
}

static void sums_and_squares_on_request(void **state)
{
    (void)state;
    struct trace *t = trace();
    assert_keeps("ean", t, 0.67, (const char *const[]){ "reduce=sum", NULL }, (const int32_t[]){ 0, 2 }, 2);
    assert_keeps("ean", t, 0.67, (const char *const[]){ "power=2", NULL }, (const int32_t[]){ 0, 1 }, 2);
    trace_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_longest_outputs_stay),
        cmocka_unit_test(sums_and_squares_on_request),
    };
    return cmocka_run_group_tests_name("plan/prune/ean", tests, NULL, NULL);
}
