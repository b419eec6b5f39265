/* `coe train` as a program: interrupted, killed while it saves, given damaged files. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "support/process.h"
#include "support/tiny_model.h"
#include "support/tiny_train.h"

#define LONG_RUN 2000000 /* steps: never reached */

static void in_output(char path[1200], const char *output, const char *name)
{
    snprintf(path, 1200, "%s/%s", temp_path(output), name);
}

/* Starts `coe train RECIPE --steps LONG_RUN [more]`, waits until `file` is there, sends the signal; its exit status. */
static int start_and_signal(const char *recipe, const char *more, const char *file, int signal_number, const char *err)
{
    const char *program = getenv("COE");
    fflush(NULL);
    const pid_t child = fork();
    if (!child) {
        if (!freopen(err, "w", stderr)) _exit(126);
        execl(program ? program : "./coe", "coe", "train", recipe, "-t", "1", more, (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 4000 && !file_exists(file); i++) usleep(2000);
    usleep(5000);
    kill(child, signal_number);
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int64_t saved_step(const char *state_file)
{
    size_t n;
    unsigned char *bytes = slurp(state_file, &n);
    const char *at = memmem(bytes, n, "\"step\":\"", 8);
    const int64_t step = at ? strtoll(at + 8, NULL, 10) : -1;
    free(bytes);
    return step;
}

static void ctrl_c_finishes_the_step_saves_and_tells_how_to_go_on(void **state)
{
    (void)state;
    char recipe[1200], log[1200], saved[1200], err[1200], text[1000] = "";
    const struct tiny_recipe how = { .output = "stopped", .steps = LONG_RUN, .train = "  schedule: constant\n" };
    snprintf(recipe, sizeof recipe, "%s", tiny_recipe_file("stopped.yaml", &how));
    snprintf(err, sizeof err, "%s", temp_path("stopped.err"));
    in_output(log, "stopped", "log.jsonl");
    in_output(saved, "stopped", "state.safetensors");
    assert_int_equal(start_and_signal(recipe, NULL, log, SIGINT, err), 1);
    FILE *f = fopen(err, "r");
    assert_non_null(f);
    while (fgets(text, sizeof text, f)) {
    } /* the last line */
    fclose(f);
    if (!strstr(text, "--resume")) fail_msg("the last line is '%s'", text);
    const int64_t first = saved_step(saved);
    assert_true(first >= 1);
    unlink(log);
    assert_int_equal(start_and_signal(recipe, "--resume", log, SIGINT, err), 1);
    assert_true(saved_step(saved) > first);
}

/* Killed at four moments of runs that save behind every step: what was saved is whole, and a run goes on from it. */
static void kill_while_saving_leaves_the_old_state(void **state)
{
    (void)state;
    char recipe[1200], saved[1200], log[1200], err[1200];
    const struct tiny_recipe how = { .output = "killed", .steps = LONG_RUN, .train = "  schedule: constant\n" };
    char *text = strdup(tiny_recipe_text(&how));
    memcpy(strstr(text, "save_every: 0"), "save_every: 1", 13);
    snprintf(recipe, sizeof recipe, "%s", temp_path("killed.yaml"));
    spill(recipe, text, strlen(text));
    free(text);
    snprintf(err, sizeof err, "%s", temp_path("killed.err"));
    in_output(saved, "killed", "state.safetensors");
    in_output(log, "killed", "log.jsonl");
    assert_int_equal(start_and_signal(recipe, NULL, log, SIGINT, err), 1);
    for (int i = 0; i < 4; i++) {
        const int64_t before = saved_step(saved);
        unlink(log); /* so that its appearance tells that the run has begun */
        assert_int_equal(start_and_signal(recipe, "--resume", log, SIGKILL, err), 128 + SIGKILL);
        assert_true(saved_step(saved) >= before);
    }
    unlink(log);
    assert_int_equal(start_and_signal(recipe, "--resume", log, SIGINT, err), 1);
    struct file_list left;
    assert_ok(dir_list(&left, temp_path("killed")));
    assert_int_equal(left.n, 3); /* log.jsonl, model, state.safetensors: nothing half written */
    file_list_free(&left);
}

/* An ordinary MoE made a chain whose second pass has weight 0, then trained: the weight moves. */
static void a_converted_chain_can_be_trained_on(void **state)
{
    (void)state;
    char given[1200], chain[1200], trained[1200];
    snprintf(given, sizeof given, "%s", tiny_model("plain", &(struct tiny){ .vocab = 300, .n_iterations = 1 }));
    snprintf(chain, sizeof chain, "%s", temp_path("chain"));
    struct ran r = run_coe(0, NULL, COE_ARGS("convert", given, chain, "--chain", "2"));
    ran_free(&r);
    const char *recipe =
        tiny_recipe_file("on.yaml", &(struct tiny_recipe){ .output = "on", .init = chain, .train = "  dtype: f32\n" });
    r = run_coe(0, NULL, COE_ARGS("train", recipe));
    ran_free(&r);
    struct coe_model *m = NULL;
    in_output(trained, "on", "model");
    assert_ok(model_open(&m, trained));
    assert_int_equal(m->spec.layer[0].moe.chain.n_iterations, 2);
    const struct weight *w = m->layer[0].moe.coe_weight;
    assert_non_null(w);
    assert_true(*(const float *)w->data != 0);
    model_close(m);
}

static void json_reports_on_stdout(void **state)
{
    (void)state;
    const char *recipe = tiny_recipe_file("json.yaml", &(struct tiny_recipe){ .output = "json" });
    struct ran r = run_coe(0, NULL, COE_ARGS("train", recipe, "--json", "--steps", "2"));
    json_t *doc = NULL;
    assert_ok(json_read_text(&doc, r.out, r.n_out, "stdout"));
    assert_int_equal(json_integer_value(json_object_get(doc, "step")), 2);
    json_decref(doc);
    ran_free(&r);
}

static void damaged_files_end_with_status_3_and_one_line(void **state)
{
    (void)state;
    char recipe[1200];
    struct ran r;
    snprintf(recipe, sizeof recipe, "%s", temp_path("damaged.yaml"));
    const char *text = tiny_recipe_text(&(struct tiny_recipe){ .output = "damaged" });
    spill(recipe, text, strlen(text) / 2);
    r = run_coe(3, NULL, COE_ARGS("train", recipe));
    assert_non_null(strstr(r.err, "damaged.yaml"));
    assert_ptr_equal(strchr(r.err, '\n'), r.err + r.n_err - 1);
    ran_free(&r);
    spill(recipe, text, strlen(text));
    r = run_coe(0, NULL, COE_ARGS("train", recipe));
    ran_free(&r);
    char saved[1200];
    in_output(saved, "damaged", "state.safetensors");
    size_t n;
    unsigned char *bytes = slurp(saved, &n);
    spill(saved, bytes, n / 2);
    free(bytes);
    r = run_coe(3, NULL, COE_ARGS("train", recipe, "--resume"));
    assert_non_null(strstr(r.err, "state.safetensors"));
    assert_ptr_equal(strchr(r.err, '\n'), r.err + r.n_err - 1);
    ran_free(&r);
    r = run_coe(2, NULL, COE_ARGS("train", recipe));
    assert_non_null(strstr(r.err, "--restart"));
    ran_free(&r);
}

static unsigned char *trained_from(const char *init, size_t *n)
{
    char recipe[1200], model[1300];
    const struct tiny_recipe how = { .output = "further", .steps = 3, .init = init };
    snprintf(recipe, sizeof recipe, "%s", tiny_recipe_file("further.yaml", &how));
    struct ran r = run_coe(0, NULL, COE_ARGS("train", recipe, "--restart"));
    ran_free(&r);
    r = run_coe(0, NULL, COE_ARGS("train", recipe, "--resume")); /* its state can be read */
    ran_free(&r);
    snprintf(model, sizeof model, "%s/model/model.safetensors", temp_path("further"));
    return slurp(model, n);
}

static void a_gguf_file_trains_to_the_bits_of_its_directory(void **state)
{
    (void)state;
    char model[1200], file[1200];
    size_t n, m;
    snprintf(model, sizeof model, "%s", tiny_model("origin", NULL));
    snprintf(file, sizeof file, "%s", temp_path("origin.gguf"));
    struct ran r = run_coe(0, NULL, COE_ARGS("convert", model, file));
    ran_free(&r);
    unsigned char *a = trained_from(model, &n), *b = trained_from(file, &m);
    assert_int_equal(n, m);
    assert_memory_equal(a, b, n);
    free(a);
    free(b);
    char plan[1200];
    snprintf(plan, sizeof plan, "%s", temp_path("plan.json"));
    r = run_coe(0, NULL, COE_ARGS("plan", "random", file, "-o", plan));
    ran_free(&r);
    r = run_coe(2, NULL, COE_ARGS("apply", plan, file, "-o", temp_path("x")));
    assert_non_null(strstr(r.err, "coe convert")); /* says what to do */
    ran_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ctrl_c_finishes_the_step_saves_and_tells_how_to_go_on),
        cmocka_unit_test(kill_while_saving_leaves_the_old_state),
        cmocka_unit_test(a_converted_chain_can_be_trained_on),
        cmocka_unit_test(json_reports_on_stdout),
        cmocka_unit_test(a_gguf_file_trains_to_the_bits_of_its_directory),
        cmocka_unit_test(damaged_files_end_with_status_3_and_one_line),
    };
    return cmocka_run_group_tests_name("end-to-end/train", tests, NULL, NULL);
}
