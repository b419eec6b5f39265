/* Running planners: parameters, and which trace goes with which model. */
#include "support/toy_trace.h"

#include <string.h>

#include "support/tiny_model.h"

static struct coe_model *model;
static struct trace *trace;

static int set_up(void **state)
{
    (void)state;
    const struct trace_opts o = { .max_tokens = 60 };
    spill(temp_path("text.txt"), tiny_text, strlen(tiny_text));
    assert_ok(kernels_init());
    assert_ok(model_open(&model, tiny_model("model", NULL)));
    assert_ok(trace_new(&trace, model, 32));
    assert_ok(trace_text(trace, model, "text", temp_path("text.txt"), &o));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    trace_free(trace);
    model_close(model);
    return 0;
}

static coe_status make(struct plan **p, const char *method, const char *set)
{
    const char *const list[] = { set };
    return plan_make(p, method, model, trace, &(struct plan_opts){ .keep = 0.5, .set = list, .n_set = set != NULL });
}

static void a_plan_says_what_it_was_made_from(void **state)
{
    (void)state;
    struct plan *p;
    char print[17];
    assert_ok(make(&p, "reap", "reduce=sum"));
    assert_ok(trace_fingerprint(trace, print));
    assert_string_equal(p->trace, print);
    assert_string_equal(json_string_value(json_object_get(p->parameters, "reduce")), "sum");
    assert_string_equal(json_string_value(json_object_get(p->parameters, "weight")), "auto");
    assert_int_equal(p->n_layers, 2);
    assert_int_equal(p->layer[1].n_keep, 4);
    const double share = json_number_value(json_object_get(p->predicted, "output_share"));
    const double by_lot = json_number_value(json_object_get(json_object_get(p->predicted, "random"), "output_share"));
    assert_true(share > 0.5 && share <= 1);
    assert_near("by lot", by_lot, 0.5, 1e-12);
    assert_true(json_integer_value(json_object_get(p->predicted, "bytes")) <
                json_integer_value(json_object_get(p->predicted, "bytes_unedited")));
    plan_free(p);
}

static void wrong_words_are_usage_errors(void **state)
{
    (void)state;
    struct plan *p;
    assert_int_equal(make(&p, "magic", NULL), COE_E_USAGE);
    assert_error_has("there is no planner 'magic'");
    assert_int_equal(make(&p, "reap", "weight"), COE_E_USAGE);
    assert_error_has("expected name=value");
    assert_int_equal(make(&p, "reap", "colour=red"), COE_E_USAGE);
    assert_error_has("reap has no parameter 'colour'");
    assert_int_equal(make(&p, "reap", "reduce=max"), COE_E_USAGE);
    assert_error_has("expected one of mean, sum");
    assert_int_equal(plan_make(&p, "reap", model, trace, &(struct plan_opts){ .keep = 1.5 }), COE_E_USAGE);
    assert_error_has("--keep 1.5 is outside (0, 1]");
    assert_int_equal(plan_make(&p, "reap", model, NULL, &(struct plan_opts){ .keep = 0.5 }), COE_E_USAGE);
    assert_error_has("needs a trace");
}

static void a_trace_of_another_model_is_refused(void **state)
{
    (void)state;
    struct plan *p;
    char keep[17];
    memcpy(keep, trace->model, sizeof keep);
    strcpy(trace->model, "0123456789abcdef");
    assert_int_equal(make(&p, "frequency", NULL), COE_E_INPUT);
    assert_error_has("is a trace of another model");
    memcpy(trace->model, keep, sizeof keep);
}

static void a_trace_made_under_a_plan_is_refused(void **state)
{
    (void)state;
    struct plan *p;
    strcpy(trace->plan, "0123456789abcdef");
    assert_int_equal(make(&p, "frequency", NULL), COE_E_INPUT);
    assert_error_has("was recorded under a plan (0123456789abcdef)");
    trace->plan[0] = 0;
}

static void a_trace_of_another_routing_is_refused(void **state)
{
    (void)state;
    struct plan *p;
    trace->route = arena_strdup(&trace->arena, "top_k=3");
    assert_int_equal(make(&p, "frequency", NULL), COE_E_INPUT);
    assert_error_has("was recorded with another routing (top_k=3)");
    trace->route = arena_strdup(&trace->arena, "");
}

static void lots_need_no_trace(void **state)
{
    (void)state;
    struct plan *p;
    assert_ok(plan_make(&p, "random", model, NULL, &(struct plan_opts){ .keep = 0.75, .seed = 3 }));
    assert_string_equal(p->trace, "");
    assert_int_equal(json_integer_value(json_object_get(p->parameters, "seed")), 3);
    assert_int_equal(p->layer[0].n_keep, 6);
    plan_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plan_says_what_it_was_made_from),
        cmocka_unit_test(wrong_words_are_usage_errors),
        cmocka_unit_test(a_trace_of_another_model_is_refused),
        cmocka_unit_test(a_trace_made_under_a_plan_is_refused),
        cmocka_unit_test(a_trace_of_another_routing_is_refused),
        cmocka_unit_test(lots_need_no_trace),
    };
    return cmocka_run_group_tests_name("plan/planner", tests, set_up, tear_down);
}
