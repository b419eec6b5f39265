/* Traces of one model add up. */
#include "support/toy_trace.h"

#include <string.h>

static struct trace *counted(const double count[2], const double score[2])
{
    struct trace *t = toy_trace(2, 1);
    toy_set(t, TRACE_COUNT, 0, count);
    toy_set(t, TRACE_SCORE, 0, score);
    t->domains.at[0].tokens = 10;
    return t;
}

static void set_maximum(struct trace *t, int e, float abs, int64_t token)
{
    ((float *)trace_at(t, TRACE_MAX_ABS, 0, 0, 0))[e] = abs;
    ((int64_t *)trace_at(t, TRACE_MAX_TOKEN, 0, 0, 0))[e] = token;
}

static void equal_labels_are_summed(void **state)
{
    (void)state;
    struct trace *a = counted((const double[]){ 3, 1 }, (const double[]){ 0.5, 0.25 });
    struct trace *b = counted((const double[]){ 0, 4 }, (const double[]){ 0, 2 });
    assert_ok(trace_merge(a, b));
    assert_int_equal(a->domains.n, 1);
    assert_int_equal(trace_tokens(a), 20);
    assert_int_equal(trace_u64(a, TRACE_COUNT, 0, 0, 0)[0], 3);
    assert_int_equal(trace_u64(a, TRACE_COUNT, 0, 0, 0)[1], 5);
    assert_near("score", trace_f64(a, TRACE_SCORE, 0, 0, 0)[1], 2.25, 0);
    trace_free(a);
    trace_free(b);
}

static void new_labels_stand_beside_the_old(void **state)
{
    (void)state;
    struct trace *a = counted((const double[]){ 3, 1 }, (const double[]){ 0, 0 });
    struct trace *b = counted((const double[]){ 0, 4 }, (const double[]){ 0, 0 });
    uint64_t counts[2];
    b->domains.at[0].label = arena_strdup(&b->arena, "other");
    assert_ok(trace_merge(a, b));
    assert_int_equal(a->domains.n, 2);
    trace_counts(a, 0, 0, -1, counts);
    assert_int_equal(counts[1], 1);
    trace_counts(a, 1, 0, -1, counts);
    assert_int_equal(counts[1], 4);
    trace_counts(a, -1, 0, -1, counts);
    assert_int_equal(counts[1], 5);
    trace_free(a);
    trace_free(b);
}

/* Tokens of the second trace come behind the ten of the first. Larger wins, equal: the first, never routed: the other.
 */
static void maxima_keep_their_place(void **state)
{
    (void)state;
    struct trace *a = toy_trace(4, 1), *b = toy_trace(4, 1);
    a->domains.at[0].tokens = 10;
    set_maximum(a, 0, 1, 2), set_maximum(b, 0, 3, 4);
    set_maximum(a, 1, 3, 2), set_maximum(b, 1, 3, 4);
    set_maximum(a, 2, 0, -1), set_maximum(b, 2, 0, 5);
    set_maximum(a, 3, 1, 6), set_maximum(b, 3, 0, -1);
    assert_ok(trace_merge(a, b));
    const int64_t want[] = { 14, 2, 15, 6 };
    assert_memory_equal(trace_at(a, TRACE_MAX_TOKEN, 0, 0, 0), want, sizeof want);
    trace_free(a);
    trace_free(b);
}

static void other_models_plans_and_shapes_do_not_add_up(void **state)
{
    (void)state;
    struct trace *a = toy_trace(2, 1), *b = toy_trace(2, 1), *c = toy_trace(3, 1);
    strcpy(b->model, "0123456789abcdef");
    assert_int_equal(trace_merge(a, b), COE_E_INPUT);
    assert_error_has("model is '0123456789abcdef'");
    b->model[0] = 0;
    strcpy(b->plan, "0123456789abcdef");
    assert_int_equal(trace_merge(a, b), COE_E_INPUT);
    assert_error_has("plan");
    assert_int_equal(trace_merge(a, c), COE_E_INPUT);
    assert_error_has("layers and experts differ");
    trace_free(a);
    trace_free(b);
    trace_free(c);
}

/* The sums of a chain layer run over its iterations. */
static void sums_run_over_iterations(void **state)
{
    (void)state;
    struct trace *t = toy_trace(2, 2);
    struct expert_sums s[2];
    toy_set(t, TRACE_COUNT, 0, (const double[]){ 4, 0 });
    toy_set(t, TRACE_COUNT, 1, (const double[]){ 1, 2 });
    toy_set(t, TRACE_GATE_NORM, 0, (const double[]){ 0.5, 0 });
    toy_set(t, TRACE_GATE_NORM, 1, (const double[]){ 0.25, 3 });
    trace_expert_sums(t, -1, 0, -1, s);
    assert_int_equal(s[0].count, 5);
    assert_near("gate norm", s[0].gate_norm, 0.75, 0);
    trace_expert_sums(t, -1, 0, 1, s);
    assert_int_equal(s[0].count, 1);
    assert_near("gate norm of pass 1", s[1].gate_norm, 3, 0);
    trace_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_labels_are_summed),  cmocka_unit_test(new_labels_stand_beside_the_old),
        cmocka_unit_test(maxima_keep_their_place),  cmocka_unit_test(other_models_plans_and_shapes_do_not_add_up),
        cmocka_unit_test(sums_run_over_iterations),
    };
    return cmocka_run_group_tests_name("trace/merge", tests, NULL, NULL);
}
