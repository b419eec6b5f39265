/* What `coe look` says, from numbers by hand (LOOK card). */
#include "support/toy_trace.h"

#include "trace/report.h"

/* n = (4,2,1,1): CV .612372, MaxVio 1, effective experts 2^1.75 = 3.3636; the layer's tokens: 8 */
static void the_load_of_the_card(void **state)
{
    (void)state;
    struct trace *t = toy_trace(4, 1);
    struct report r;
    toy_set(t, TRACE_COUNT, 0, (const double[]){ 4, 2, 1, 1 });
    toy_set(t, TRACE_PROBABILITY, 0, (const double[]){ 2, 2, 2, 2 });
    *trace_u64(t, TRACE_TOKENS, 0, 0, 0) = 8;
    assert_ok(report_make(&r, t, 5));
    assert_int_equal(r.n_rows, 1);
    assert_near("CV", r.row[0].load.cv, 0.612372, 1e-6);
    assert_near("MaxVio", r.row[0].load.max_vio, 1, 1e-12);
    assert_int_equal(r.row[0].load.dead, 0);
    assert_near("effective experts", r.row[0].effective, 3.363586, 1e-6);
    assert_near("balance", r.row[0].balance, 1, 1e-12);
    assert_near("share", r.row[0].share[0], 0.5, 1e-12);
    report_free(&r);
    trace_free(t);
}

static void the_strongest_experts_come_first(void **state)
{
    (void)state;
    struct trace *t = toy_trace(3, 1);
    struct report r;
    toy_set(t, TRACE_COUNT, 0, (const double[]){ 2, 2, 0 });
    toy_set(t, TRACE_GATE_NORM, 0, (const double[]){ 1, 3, 0 });
    toy_set(t, TRACE_NORM, 0, (const double[]){ 8, 4, 0 });
    assert_ok(report_make(&r, t, 5));
    assert_int_equal(r.n_top, 2); /* the unused one is not listed */
    assert_int_equal(r.top[0].expert, 1);
    assert_near("share of the output", r.top[0].output_share, 0.75, 1e-12);
    assert_near("mean norm", r.top[0].mean_norm, 2, 1e-12);
    report_free(&r);
    trace_free(t);
}

/* Expert 1: 40 of 100 tokens in 'toy', 20 of 200 in 'b': rates .4 and .1, mean .25, lift 1.6 */
static void an_expert_that_prefers_a_domain_is_found(void **state)
{
    (void)state;
    struct trace *t = toy_trace(2, 1);
    struct report r;
    assert_int_equal(trace_add_domain(t, "b"), 1);
    *trace_u64(t, TRACE_TOKENS, 0, 0, 0) = 100;
    *trace_u64(t, TRACE_TOKENS, 1, 0, 0) = 200;
    trace_u64(t, TRACE_COUNT, 0, 0, 0)[0] = 60, trace_u64(t, TRACE_COUNT, 0, 0, 0)[1] = 40;
    trace_u64(t, TRACE_COUNT, 1, 0, 0)[0] = 180, trace_u64(t, TRACE_COUNT, 1, 0, 0)[1] = 20;
    assert_ok(report_make(&r, t, 5));
    assert_int_equal(r.n_special, 2);
    assert_int_equal(r.special[0].domain, 0);
    assert_int_equal(r.special[0].expert, 1);
    assert_near("lift", r.special[0].lift, 1.6, 1e-12);
    assert_int_equal(r.special[1].expert, 0);
    report_free(&r);
    trace_free(t);
}

/* 100 tokens, experts 0 and 1 each in 50, together in 40: 40*100/(50*50) = 1.6 */
static void pairs_are_compared_with_chance(void **state)
{
    (void)state;
    struct trace *t = toy_trace(2, 2);
    struct report r;
    for (int c = 0; c < 2; c++) {
        *trace_u64(t, TRACE_TOKENS, 0, 0, c) = 100;
        toy_set(t, TRACE_COUNT, c, (const double[]){ 50, 50 });
    }
    trace_u64(t, TRACE_COSELECT, 0, 0, 0)[1] = 40;
    trace_u64(t, TRACE_CHAIN, 0, 0, 0)[2] = 30; /* from expert 1 to expert 0 */
    assert_ok(report_make(&r, t, 5));
    assert_int_equal(r.n_pair, 2);
    assert_near("lift", r.pair[0].lift, 1.6, 1e-12);
    assert_true(r.pair[1].chain);
    assert_int_equal(r.pair[1].a * 10 + r.pair[1].b, 10);
    assert_near("lift of the chain", r.pair[1].lift, 1.2, 1e-12);
    json_t *o = report_json(&r, t);
    assert_int_equal(json_array_size(json_object_get(o, "pairs")), 2);
    json_decref(o);
    report_free(&r);
    trace_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_load_of_the_card),
        cmocka_unit_test(the_strongest_experts_come_first),
        cmocka_unit_test(an_expert_that_prefers_a_domain_is_found),
        cmocka_unit_test(pairs_are_compared_with_chance),
    };
    return cmocka_run_group_tests_name("trace/report", tests, NULL, NULL);
}
