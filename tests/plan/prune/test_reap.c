/* REAP: the numbers of the card, and what follows from the formula. */
#include "support/toy_trace.h"

static struct trace *trace(const double *counts, const double *score_norm, const double *renorm_norm)
{
    struct trace *t = toy_trace(4, 1);
    toy_set(t, TRACE_COUNT, 0, counts);
    toy_set(t, TRACE_SCORE_NORM, 0, score_norm);
    toy_set(t, TRACE_RENORM_NORM, 0, renorm_norm);
    return t;
}

/* tokens 2 2 0 1; expert 0 was routed with p‖E‖ = .6·2 and .5·1: sum 1.7, S = .85 (the card's example); 1: .8/2 = .4;
 * 3: .9/1 = .9 -> {0, 3} */
static void ranks_by_mean_not_by_traffic(void **state)
{
    (void)state;
    struct trace *t =
        trace((const double[]){ 2, 2, 0, 1 }, (const double[]){ 1.7, 0.8, 0, 0.9 }, (const double[]){ 0, 9, 9, 0 });
    assert_keeps("reap", t, 0.5, NULL, (const int32_t[]){ 0, 3 }, 2);
    trace_free(t);
}

static void a_model_that_renormalises_is_scored_by_renormalised_weights(void **state)
{
    (void)state;
    struct trace *t =
        trace((const double[]){ 2, 2, 2, 2 }, (const double[]){ 4, 3, 2, 1 }, (const double[]){ 1, 2, 3, 4 });
    int32_t keep[4];
    assert_int_equal(toy_plan(keep, "reap", t, 0.5, 0, 1, true, NULL), 2);
    assert_ids("renormalised", keep, (const int32_t[]){ 2, 3 }, 2);
    assert_keeps("reap", t, 0.5, (const char *const[]){ "weight=renorm", NULL }, (const int32_t[]){ 2, 3 }, 2);
    assert_keeps("reap", t, 0.5, (const char *const[]){ "weight=score", NULL }, (const int32_t[]){ 0, 1 }, 2);
    trace_free(t);
}

/* Ten times the tokens of expert 1 with ten times the sum: the same mean, the same plan; the sum decides otherwise. */
static void the_mean_does_not_see_how_often_an_expert_works(void **state)
{
    (void)state;
    struct trace *t =
        trace((const double[]){ 1, 10, 1, 1 }, (const double[]){ 0.9, 5, 0.8, 0.1 }, (const double[]){ 0, 0, 0, 0 });
    assert_keeps("reap", t, 0.5, NULL, (const int32_t[]){ 0, 2 }, 2);
    assert_keeps("reap", t, 0.5, (const char *const[]){ "reduce=sum", NULL }, (const int32_t[]){ 0, 1 }, 2);
    trace_free(t);
}

static void an_expert_that_never_worked_goes_first(void **state)
{
    (void)state;
    struct trace *t =
        trace((const double[]){ 0, 5, 5, 5 }, (const double[]){ 0, 1e-9, 1e-9, 1e-9 }, (const double[]){ 0, 0, 0, 0 });
    assert_keeps("reap", t, 0.75, NULL, (const int32_t[]){ 1, 2, 3 }, 3);
    trace_free(t);
}

/* pass 0: T = 1, sum 3; pass 1: T = 3, sum 1: S = 4/4 = 1, not the mean of 3 and 1/3. The other: 2.5/2 = 1.25 */
static void passes_are_added_before_dividing(void **state)
{
    (void)state;
    struct trace *t = toy_trace(2, 2);
    toy_set(t, TRACE_COUNT, 0, (const double[]){ 1, 2 });
    toy_set(t, TRACE_COUNT, 1, (const double[]){ 3, 0 });
    toy_set(t, TRACE_SCORE_NORM, 0, (const double[]){ 3, 2.5 });
    toy_set(t, TRACE_SCORE_NORM, 1, (const double[]){ 1, 0 });
    assert_keeps("reap", t, 0.5, NULL, (const int32_t[]){ 1 }, 1);
    trace_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_by_mean_not_by_traffic),
        cmocka_unit_test(a_model_that_renormalises_is_scored_by_renormalised_weights),
        cmocka_unit_test(the_mean_does_not_see_how_often_an_expert_works),
        cmocka_unit_test(an_expert_that_never_worked_goes_first),
        cmocka_unit_test(passes_are_added_before_dividing),
    };
    return cmocka_run_group_tests_name("plan/prune/reap", tests, NULL, NULL);
}
