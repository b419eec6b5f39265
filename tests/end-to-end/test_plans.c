/* From text to a smaller model on the command line: trace, look, plan, apply, eval, methods; exit codes and messages.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "ckpt/ckpt.h"
#include "support/process.h"
#include "support/tiny_model.h"

static char model[1200], other[1200], text[1200], trace[1200], plan[1200], smaller[1200], ids[1200];

/* One trace and one plan for all tests. */
static int set_up(void **state)
{
    (void)state;
    int32_t id[20];
    const int64_t dim[] = { 20 };
    snprintf(model, sizeof model, "%s", tiny_model("model", NULL));
    snprintf(other, sizeof other, "%s", tiny_model("other", &(struct tiny){ .seed = 9 }));
    snprintf(text, sizeof text, "%s", temp_path("text.txt"));
    snprintf(trace, sizeof trace, "%s", temp_path("t.coet"));
    snprintf(plan, sizeof plan, "%s", temp_path("plan.json"));
    snprintf(smaller, sizeof smaller, "%s", temp_path("smaller"));
    snprintf(ids, sizeof ids, "%s", temp_path("ids.npy"));
    for (int i = 0; i < 20; i++) id[i] = i * 13 % 300 + 1;
    assert_ok(npy_write(ids, DT_I32, 1, dim, id));
    spill(text, tiny_text, strlen(tiny_text));
    char source[1300];
    snprintf(source, sizeof source, "story=%s", text);
    struct ran r = run_coe(0, NULL, COE_ARGS("trace", model, "--data", source, "-o", trace));
    ran_free(&r);
    r = run_coe(0, NULL, COE_ARGS("plan", "reap", model, "--trace", trace, "--keep", "0.75", "-o", plan));
    ran_free(&r);
    return 0;
}

/* Runs, checks the exit status and that standard error says `part`. */
static void fails(int status, const char *part, const char *const *args)
{
    struct ran r = run_coe(status, NULL, args);
    if (!strstr(r.err, part)) fail_msg("standard error is '%s', expected it to contain '%s'", r.err, part);
    ran_free(&r);
}

static json_t *json_of(const char *const *args)
{
    json_t *o = NULL;
    struct ran r = run_coe(0, NULL, args);
    assert_ok(json_read_text(&o, r.out, r.n_out, "standard output"));
    ran_free(&r);
    return o;
}

static double number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_number(v)) fail_msg("%s is %s", key, json_kind(v));
    return json_number_value(v);
}

static void the_applied_model_computes_what_the_preview_computed(void **state)
{
    (void)state;
    char a[1200], b[1200];
    size_t n_a, n_b;
    snprintf(a, sizeof a, "%s", temp_path("a.npy"));
    snprintf(b, sizeof b, "%s", temp_path("b.npy"));
    struct ran r = run_coe(0, NULL, COE_ARGS("apply", plan, model, "-o", smaller));
    ran_free(&r);
    r = run_coe(0, NULL, COE_ARGS("logits", smaller, "--ids", ids, "-o", a));
    ran_free(&r);
    r = run_coe(0, NULL, COE_ARGS("logits", model, "--plan", plan, "--ids", ids, "-o", b));
    ran_free(&r);
    unsigned char *x = slurp(a, &n_a), *y = slurp(b, &n_b);
    assert_int_equal(n_a, n_b);
    assert_memory_equal(x, y, n_a);
    free(x);
    free(y);
    assert_true(file_exists(temp_path("smaller/tokenizer.json")));
}

static void look_draws_layers_passes_and_experts(void **state)
{
    (void)state;
    struct ran r = run_coe(0, NULL, COE_ARGS("look", trace));
    assert_non_null(strstr(r.out, "layer 1 pass 1"));
    assert_non_null(strstr(r.out, "MaxVio"));
    assert_null(strchr(r.out, '\033')); /* not a terminal: no colours */
    ran_free(&r);
    json_t *o = json_of(COE_ARGS("look", trace, "--json"));
    assert_int_equal(json_array_size(json_object_get(o, "layers")), 4);
    assert_int_equal(json_array_size(json_object_get(json_array_get(json_object_get(o, "layers"), 0), "share")), 8);
    json_decref(o);
    r = run_coe(0, NULL, COE_ARGS("look", trace, "--export", "csv", temp_path("table")));
    ran_free(&r);
    assert_true(file_exists(temp_path("table/experts.csv")));
}

static void perplexity_and_bits_per_byte_agree(void **state)
{
    (void)state;
    json_t *o = json_of(COE_ARGS("eval", "ppl", model, text, "--window", "64", "--json"));
    const json_t *total = json_object_get(o, "total");
    assert_int_equal(number(o, "window"), 64);
    assert_int_equal(number(o, "stride"), 32);
    assert_int_equal(number(total, "bytes"), strlen(tiny_text));
    const double bits =
        number(total, "nats_per_token") * number(total, "tokens") / number(total, "bytes") / 0.6931471805599453;
    assert_true(bits - number(total, "bits_per_byte") < 1e-6 && number(total, "bits_per_byte") - bits < 1e-6);
    json_decref(o);
    struct ran r = run_coe(0, NULL, COE_ARGS("eval", "ppl", model, text, "--plan", plan));
    assert_non_null(strstr(r.out, "bits per byte"));
    ran_free(&r);
}

static void windows_evaluated_together_are_each_what_they_are_alone(void **state)
{
    (void)state;
    static const char *const batch[] = { "1", "3", "256" };
    double nats[COE_COUNT(batch)];
    for (size_t i = 0; i < COE_COUNT(batch); i++) {
        json_t *o = json_of(COE_ARGS("eval", "ppl", model, text, "--window", "32", "--batch", batch[i], "--json"));
        nats[i] = number(json_object_get(o, "total"), "nats_per_token");
        json_decref(o);
    }
    assert_true(nats[0] == nats[1] && nats[0] == nats[2]);
}

static void harm_stands_beside_the_unedited_model_and_in_the_plan(void **state)
{
    (void)state;
    char lots[1200];
    snprintf(lots, sizeof lots, "%s", temp_path("lots.json"));
    struct ran r = run_coe(0, NULL, COE_ARGS("plan", "random", model, "--keep", "0.5", "--seed", "4", "-o", lots));
    ran_free(&r);
    r = run_coe(0, NULL, COE_ARGS("eval", "harm", model, text, "--plan", plan, lots, "--write"));
    assert_non_null(strstr(r.out, "unedited"));
    assert_non_null(strstr(r.out, "lots.json"));
    ran_free(&r);
    json_t *o = json_of(COE_ARGS("eval", "harm", model, text, "--plan", plan, "--plan", lots, "--json")), *file = NULL;
    const json_t *plans = json_object_get(o, "plans"), *first = json_array_get(plans, 0);
    assert_int_equal(json_array_size(plans), 2);
    assert_true(number(first, "kl") > 0);
    assert_true(number(first, "bytes") < number(json_object_get(o, "unedited"), "bytes"));
    assert_ok(json_read_file(&file, plan));
    const double gap = number(json_object_get(file, "measured"), "kl") - number(first, "kl");
    assert_true(gap < 1e-7 && gap > -1e-7); /* printed with nine digits */
    json_decref(file);
    json_decref(o);
}

static void routes_move_under_a_plan_and_not_without_one(void **state)
{
    (void)state;
    json_t *o = json_of(COE_ARGS("eval", "routes", model, text, "--against", model, "--json"));
    assert_true(number(o, "moved") == 0 && number(o, "shared") == 1);
    json_decref(o);
    o = json_of(COE_ARGS("eval", "routes", model, text, "--plan", plan, "--json"));
    assert_true(number(o, "moved") > 0 && number(o, "moved") < 1);
    assert_true(number(o, "shared") > 0 && number(o, "shared") < 1);
    assert_int_equal(json_array_size(json_object_get(o, "decisions")), 4);
    json_decref(o);
    struct ran r = run_coe(0, NULL, COE_ARGS("eval", "routes", model, text, "--experts-used", "1"));
    assert_non_null(strstr(r.out, "layer 1 pass 1"));
    ran_free(&r);
    fails(2, "--against", COE_ARGS("eval", "routes", model, text));
    fails(2, "only to: routes", COE_ARGS("eval", "ppl", model, text, "--against", model));
    fails(2, "only to: ppl, harm", COE_ARGS("eval", "routes", model, text, "--against", model, "--stride", "8"));
    fails(2, "only to: harm", COE_ARGS("eval", "ppl", model, text, "--plan", plan, "--write"));
}

static void a_plan_of_another_model_is_refused_everywhere(void **state)
{
    (void)state;
    fails(3, "was made for another model", COE_ARGS("apply", plan, other, "-o", temp_path("x")));
    fails(3, "was made for another model",
          COE_ARGS("logits", other, "--plan", plan, "--ids", ids, "-o", temp_path("x.npy")));
    fails(3, "was made for another model", COE_ARGS("eval", "harm", other, text, "--plan", plan));
    fails(3, "is a trace of another model",
          COE_ARGS("plan", "reap", other, "--trace", trace, "-o", temp_path("x.json")));
    assert_false(dir_exists(temp_path("x")));
}

static void a_trace_under_a_plan_is_no_ground_for_plans(void **state)
{
    (void)state;
    char source[1300], masked[1200];
    snprintf(source, sizeof source, "story=%s", text);
    snprintf(masked, sizeof masked, "%s", temp_path("masked.coet"));
    struct ran r = run_coe(0, NULL, COE_ARGS("trace", model, "--data", source, "--plan", plan, "-o", masked));
    ran_free(&r);
    fails(3, "was recorded under a plan",
          COE_ARGS("plan", "reap", model, "--trace", masked, "-o", temp_path("x.json")));
}

static void damaged_files_are_named(void **state)
{
    (void)state;
    size_t n;
    char cut[1200];
    unsigned char *bytes = slurp(trace, &n);
    snprintf(cut, sizeof cut, "%s", temp_path("cut.coet"));
    spill(cut, bytes, n / 2);
    fails(3, "cut.coet: the directory should be", COE_ARGS("look", cut));
    free(bytes);
    bytes = slurp(plan, &n);
    snprintf(cut, sizeof cut, "%s", temp_path("cut.json"));
    spill(cut, bytes, n / 2);
    fails(3, "cut.json: line", COE_ARGS("apply", cut, model, "-o", temp_path("x")));
    free(bytes);
}

static void wrong_commands_say_what_is_missing(void **state)
{
    (void)state;
    fails(2, "--data label=FILE is needed", COE_ARGS("trace", model, "-o", temp_path("x")));
    fails(2, "-o T.coet is needed", COE_ARGS("trace", model, "--data", text));
    fails(2, "this program records counts",
          COE_ARGS("trace", model, "--data", text, "--level", "all", "-o", temp_path("x")));
    fails(3, "nowhere.txt", COE_ARGS("trace", model, "--data", "a=/nowhere.txt", "-o", temp_path("x")));
    fails(2, "there is no planner 'magic'", COE_ARGS("plan", "magic", model, "-o", temp_path("x")));
    fails(2, "reap needs a trace", COE_ARGS("plan", "reap", model, "-o", temp_path("x")));
    fails(2, "outside", COE_ARGS("plan", "reap", model, "--trace", trace, "--keep", "2", "-o", temp_path("x")));
    fails(2, "-o DIR is needed", COE_ARGS("apply", plan, model));
    fails(2, "is the model itself", COE_ARGS("apply", plan, model, "-o", model));
    fails(2, "there is no `coe eval time`", COE_ARGS("eval", "time", model, text));
    fails(2, "--plan P.json", COE_ARGS("eval", "harm", model, text));
    fails(2, "takes a format and a directory", COE_ARGS("look", trace, "--export", "csv"));
    assert_false(file_exists(temp_path("x")));
}

static void small_budgets_end_with_status_4(void **state)
{
    (void)state;
    fails(4, "budget", COE_ARGS("eval", "ppl", model, text, "--memory", "200k"));
}

static void methods_are_rows(void **state)
{
    (void)state;
    json_t *o = json_of(COE_ARGS("methods", "--kind", "planner", "--json"));
    const json_t *row;
    size_t i;
    bool reap = false;
    json_array_foreach(o, i, row) reap |= !strcmp(json_string_value(json_object_get(row, "name")), "reap");
    assert_true(reap);
    json_decref(o);
    fails(2, "no method is of kind 'wizard'", COE_ARGS("methods", "--kind", "wizard"));
}

/* `make docs` writes docs/methods.md; every published method must be in it. */
static void every_method_is_in_the_table_of_the_documentation(void **state)
{
    (void)state;
    size_t n;
    char *page = (char *)slurp("docs/methods.md", &n);
    json_t *o = json_of(COE_ARGS("methods", "--json"));
    const json_t *row;
    size_t i;
    json_array_foreach(o, i, row) {
        const char *name = json_string_value(json_object_get(row, "name")),
                   *kind = json_string_value(json_object_get(row, "kind"));
        char cells[200];
        snprintf(cells, sizeof cells, "| %s | `%s` |", kind, name);
        if (!memmem(page, n, cells, strlen(cells))) fail_msg("docs/methods.md lacks %s %s; run: make docs", kind, name);
    }
    json_decref(o);
    free(page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_applied_model_computes_what_the_preview_computed),
        cmocka_unit_test(look_draws_layers_passes_and_experts),
        cmocka_unit_test(perplexity_and_bits_per_byte_agree),
        cmocka_unit_test(windows_evaluated_together_are_each_what_they_are_alone),
        cmocka_unit_test(harm_stands_beside_the_unedited_model_and_in_the_plan),
        cmocka_unit_test(routes_move_under_a_plan_and_not_without_one),
        cmocka_unit_test(a_plan_of_another_model_is_refused_everywhere),
        cmocka_unit_test(a_trace_under_a_plan_is_no_ground_for_plans),
        cmocka_unit_test(damaged_files_are_named),
        cmocka_unit_test(wrong_commands_say_what_is_missing),
        cmocka_unit_test(small_budgets_end_with_status_4),
        cmocka_unit_test(methods_are_rows),
        cmocka_unit_test(every_method_is_in_the_table_of_the_documentation),
    };
    return cmocka_run_group_tests_name("end-to-end/plans", tests, set_up, NULL);
}
