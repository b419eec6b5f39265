/* frequency: what a choice counts. */
#include "support/toy_trace.h"

/* counts 5 3 4 1, gates 1 4 2 3 */
static struct trace *trace(void)
{
    struct trace *t = toy_trace(4, 1);
    toy_set(t, TRACE_COUNT, 0, (const double[]){ 5, 3, 4, 1 });
    toy_set(t, TRACE_GATE, 0, (const double[]){ 1, 4, 2, 3 });
    toy_set(t, TRACE_SCORE, 0, (const double[]){ 4, 3, 2, 1 });
    toy_set(t, TRACE_RENORM, 0, (const double[]){ 1, 2, 4, 3 });
    return t;
}

static void the_busiest_experts_stay(void **state)
{
    (void)state;
    struct trace *t = trace();
    assert_keeps("frequency", t, 0.5, NULL, (const int32_t[]){ 0, 2 }, 2);
    trace_free(t);
}

static void a_choice_may_count_its_weight(void **state)
{
    (void)state;
    struct trace *t = trace();
    assert_keeps("frequency", t, 0.5, (const char *const[]){ "by=gate", NULL }, (const int32_t[]){ 1, 3 }, 2);
    assert_keeps("frequency", t, 0.5, (const char *const[]){ "by=score", NULL }, (const int32_t[]){ 0, 1 }, 2);
    assert_keeps("frequency", t, 0.5, (const char *const[]){ "by=renorm", NULL }, (const int32_t[]){ 2, 3 }, 2);
    trace_free(t);
}

/* by=auto follows the model: scores where it does not renormalise, renormalised ones where it does */
static void auto_follows_the_model(void **state)
{
    (void)state;
    struct trace *t = trace();
    int32_t keep[4];
    assert_keeps("frequency", t, 0.5, (const char *const[]){ "by=auto", NULL }, (const int32_t[]){ 0, 1 }, 2);
    assert_int_equal(toy_plan(keep, "frequency", t, 0.5, 0, 1, true, (const char *const[]){ "by=auto", NULL }), 2);
    assert_ids("renormalised", keep, (const int32_t[]){ 2, 3 }, 2);
    trace_free(t);
}

/* pass 0: 5 0 3, pass 1: 0 6 1: together 5 6 4 */
static void passes_of_a_chain_are_added(void **state)
{
    (void)state;
    struct trace *t = toy_trace(3, 2);
    toy_set(t, TRACE_COUNT, 0, (const double[]){ 5, 0, 3 });
    toy_set(t, TRACE_COUNT, 1, (const double[]){ 0, 6, 1 });
    assert_keeps("frequency", t, 0.67, NULL, (const int32_t[]){ 0, 1 }, 2);
    trace_free(t);
}

static void keeping_everything_is_the_identity(void **state)
{
    (void)state;
    struct trace *t = trace();
    assert_keeps("frequency", t, 1, NULL, (const int32_t[]){ 0, 1, 2, 3 }, 4);
    trace_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_busiest_experts_stay),
        cmocka_unit_test(a_choice_may_count_its_weight),
        cmocka_unit_test(auto_follows_the_model),
        cmocka_unit_test(passes_of_a_chain_are_added),
        cmocka_unit_test(keeping_everything_is_the_identity),
    };
    return cmocka_run_group_tests_name("plan/prune/frequency", tests, NULL, NULL);
}
