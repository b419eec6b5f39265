/* log.jsonl and the report of a run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "support/tiny_train.h"

#define MAX_LINES 64

/* The lines of a run's log as objects, freed by close_log. */
struct log {
    json_t *line[MAX_LINES];
    int n;
};

static const char *log_path(const struct recipe *r)
{
    static char path[1200];
    snprintf(path, sizeof path, "%s/log.jsonl", r->output);
    return path;
}

static struct log read_log(const struct recipe *r)
{
    struct log log = { { NULL }, 0 };
    struct str text = { 0 };
    assert_ok(file_read(&text, log_path(r), 1 << 20));
    for (char *line = strtok(text.at, "\n"); line && log.n < MAX_LINES; line = strtok(NULL, "\n"))
        assert_ok(json_read_text(&log.line[log.n++], line, strlen(line), "log.jsonl"));
    str_free(&text);
    return log;
}

static void close_log(struct log *log)
{
    for (int i = 0; i < log->n; i++) json_decref(log->line[i]);
}

static int64_t step_of(const json_t *line) { return json_integer_value(json_object_get(line, "step")); }

static json_t *run(struct recipe *r, const struct tiny_recipe *how, enum resume_mode mode, int64_t until)
{
    struct trainer *t = NULL;
    tiny_recipe_read(r, how);
    assert_ok(trainer_open(&t, r, mode));
    struct step_report step = { 0 };
    while (until && step.step < until) assert_ok(trainer_step(t, &step));
    if (!until) assert_ok(trainer_run(t));
    json_t *report = trainer_report(t);
    trainer_close(t);
    return report;
}

/* Six steps, a line for steps 1, 2, 4, 6 (log_every 2), validations at 3 (eval_every) and the whole at the end. */
static void lines_come_when_due(void **state)
{
    (void)state;
    struct recipe r;
    char data[1200];
    snprintf(data, sizeof data, "  valid: [ x=%s, y=%s ]\n", tiny_text_a(), tiny_text_b());
    const char *text = tiny_recipe_text(&(struct tiny_recipe){ .output = "due", .data = data });
    char *own = strdup(text), *at = strstr(own, "log_every: 1");
    at[11] = '2';
    memcpy(strstr(own, "eval_every: 0"), "eval_every: 3", 13);
    assert_ok(recipe_read_text(&r, own, strlen(own), "due.yaml"));
    struct trainer *t = NULL;
    assert_ok(trainer_open(&t, &r, RESUME_RESTART));
    assert_ok(trainer_run(t));
    trainer_close(t);
    struct log log = read_log(&r);
    const int64_t steps[] = { 1, 2, 3, 4, 6, 6 };
    assert_int_equal(log.n, COE_COUNT(steps));
    for (int i = 0; i < log.n; i++) assert_int_equal(step_of(log.line[i]), steps[i]);
    static const char *const fields[] = { "loss",      "perplexity", "bits_per_byte", "aux",    "lr",
                                          "grad_norm", "load",       "tokens_per_s",  "tokens", "seconds" };
    for (size_t i = 0; i < COE_COUNT(fields); i++) assert_non_null(json_object_get(log.line[0], fields[i]));
    assert_int_equal(json_integer_value(json_object_get(log.line[4], "tokens")), 6 * 4 * 16);
    assert_non_null(json_object_get(log.line[2], "valid_loss"));
    assert_true(json_is_true(json_object_get(log.line[5], "whole")));
    const json_t *labels = json_object_get(log.line[5], "valid_by_label");
    assert_non_null(json_object_get(json_object_get(labels, "x"), "bits_per_byte"));
    assert_non_null(json_object_get(json_object_get(labels, "y"), "loss"));
    close_log(&log);
    recipe_free(&r);
    free(own);
}

static void one_label_is_not_listed(void **state)
{
    (void)state;
    struct recipe r;
    json_t *report =
        run(&r, &(struct tiny_recipe){ .output = "one", .data = "  hold_out_last: 1\n" }, RESUME_RESTART, 0);
    assert_null(json_object_get(report, "valid_by_label"));
    assert_int_equal(json_integer_value(json_object_get(report, "step")), 6);
    assert_int_equal(json_integer_value(json_object_get(report, "tokens")), 6 * 4 * 16);
    assert_true(json_is_real(json_object_get(report, "loss")));
    assert_true(json_is_real(json_object_get(report, "valid_bits_per_byte")));
    assert_non_null(strstr(json_string_value(json_object_get(report, "model")), "one/model"));
    json_decref(report);
    recipe_free(&r);
}

/* A log from which the machine was cut off: steps behind the state and half a line. They are dropped on resuming. */
static void lines_behind_the_resumed_step_are_dropped(void **state)
{
    (void)state;
    struct recipe r;
    const struct tiny_recipe how = { .output = "trim" };
    static const char more[] = "{\"step\":7,\"loss\":1}\n{\"step\":8,\"loss\":1}\nnot JSON\n{\"step\":9,\"lo";
    json_decref(run(&r, &how, RESUME_RESTART, 0));
    struct str text = { 0 };
    assert_ok(file_read(&text, log_path(&r), 1 << 20));
    str_addz(&text, more);
    spill(log_path(&r), text.at, text.n);
    str_free(&text);
    recipe_free(&r);
    json_decref(run(&r, &how, RESUME_YES, 0)); /* at its end already: nothing to train, no validation text */
    struct log log = read_log(&r);
    assert_int_equal(log.n, 6);
    for (int i = 0; i < log.n; i++) assert_int_equal(step_of(log.line[i]), i + 1);
    close_log(&log);
    recipe_free(&r);
}

static void beginning_again_begins_the_log_again(void **state)
{
    (void)state;
    struct recipe r;
    const struct tiny_recipe how = { .output = "again" };
    json_decref(run(&r, &how, RESUME_RESTART, 0));
    recipe_free(&r);
    json_decref(run(&r, &how, RESUME_RESTART, 0));
    struct log log = read_log(&r);
    assert_int_equal(log.n, 6);
    close_log(&log);
    recipe_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_come_when_due),
        cmocka_unit_test(one_label_is_not_listed),
        cmocka_unit_test(lines_behind_the_resumed_step_are_dropped),
        cmocka_unit_test(beginning_again_begins_the_log_again),
    };
    coe_set_threads(1);
    return cmocka_run_group_tests_name("train/monitor", tests, NULL, NULL);
}
