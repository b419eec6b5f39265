/* Fine-tuning on the command line: the experts of a plan or a trace, and an adapter that is trained, used live and
 * merged. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/process.h"
#include "support/tiny_model.h"

static char model[1200], other[1200], text[1200], trace[1200], plan[1200];

static int set_up(void **state)
{
    (void)state;
    char source[1300];
    snprintf(model, sizeof model, "%s", tiny_model("model", NULL));
    snprintf(other, sizeof other, "%s", tiny_model("other", &(struct tiny){ .seed = 9 }));
    snprintf(text, sizeof text, "%s", temp_path("text.txt"));
    snprintf(trace, sizeof trace, "%s", temp_path("t.coet"));
    snprintf(plan, sizeof plan, "%s", temp_path("plan.json"));
    spill(text, tiny_text, strlen(tiny_text));
    snprintf(source, sizeof source, "story=%s", text);
    struct ran r = run_coe(0, NULL, COE_ARGS("trace", model, "--data", source, "-o", trace));
    ran_free(&r);
    r = run_coe(0, NULL, COE_ARGS("plan", "reap", model, "--trace", trace, "--keep", "0.75", "-o", plan));
    ran_free(&r);
    return 0;
}

/* A recipe of two steps with this tune section; one of four rotating paths */
static const char *recipe(const char *of, const char *tune)
{
    static char path[4][1200];
    static int next;
    char content[6000], name[32];
    snprintf(name, sizeof name, "tune%d.yaml", next);
    char *out = path[next++ % 4];
    snprintf(out, sizeof path[0], "%s", temp_path(name));
    const int n = snprintf(content, sizeof content,
                           "model: { init: %s }\ndata: { train: %s, sequence: 8 }\ntune: { %s }\n"
                           "train: { steps: 2, batch: 2, eval_every: 0, warmup: 0, lr: 0.1 }\noutput: %s.run\n",
                           of, text, tune, out);
    spill(out, content, (size_t)n);
    return out;
}

/* "N parameters learn" */
static long learned(const char *tune)
{
    struct ran r = run_coe(0, NULL, COE_ARGS("train", recipe(model, tune)));
    char *at = strstr(r.err, " parameters learn");
    if (!at) fail_msg("standard error is '%s'", r.err);
    while (at > r.err && at[-1] != '\n') at--;
    const long n = strtol(at, NULL, 10);
    ran_free(&r);
    return n;
}

/* The plan keeps 6 of 8 experts of each layer, the trace is asked for 2: three times as many parameters. */
static void experts_of_a_plan_or_a_trace_learn(void **state)
{
    (void)state;
    char tune[1300];
    snprintf(tune, sizeof tune, "experts: { plan: %s }", plan);
    const long kept = learned(tune);
    snprintf(tune, sizeof tune, "experts: { trace: %s, top: 2 }", trace);
    assert_int_equal(kept, 3 * learned(tune));
    assert_true(kept > 0);
    snprintf(tune, sizeof tune, "experts: { trace: %s }", trace);
    struct ran r = run_coe(3, NULL, COE_ARGS("train", recipe(other, tune)));
    assert_non_null(strstr(r.err, "was recorded on another model"));
    ran_free(&r);
    snprintf(tune, sizeof tune, "experts: { top: 2 }");
    r = run_coe(3, NULL, COE_ARGS("train", recipe(model, tune)));
    assert_non_null(strstr(r.err, "needs either a plan or a trace"));
    ran_free(&r);
}

static char *answer(const char *of, const char *adapter)
{
    const char *const plain[] = { "run", of, "-p", "one", "-n", "6", "--temperature", "0", NULL };
    const char *const adapted[] = {
        "run", of, "-p", "one", "-n", "6", "--temperature", "0", "--adapter", adapter, NULL
    };
    struct ran r = run_coe(0, NULL, adapter ? adapted : plain);
    free(r.err);
    return r.out;
}

static void an_adapter_is_trained_used_and_merged(void **state)
{
    (void)state;
    char adapter[1300], merged[1300];
    const char *path = recipe(model, "lora: { rank: 4, targets: [all] }");
    snprintf(adapter, sizeof adapter, "%s.run/adapter", path);
    snprintf(merged, sizeof merged, "%s.merged", path);
    struct ran r = run_coe(0, NULL, COE_ARGS("train", path, "--json"));
    assert_non_null(strstr(r.out, "run/adapter"));
    ran_free(&r);
    r = run_coe(0, NULL, COE_ARGS("convert", model, merged, "--merge-adapter", adapter));
    ran_free(&r);
    char *before = answer(model, NULL), *live = answer(model, adapter), *after = answer(merged, NULL);
    assert_string_not_equal(before, live);
    assert_string_equal(live, after);
    free(before);
    free(live);
    free(after);
    r = run_coe(3, NULL, COE_ARGS("run", model, "-p", "one", "--adapter", model));
    assert_non_null(strstr(r.err, "adapter_config.json"));
    ran_free(&r);
    r = run_coe(2, NULL, COE_ARGS("convert", model, "x.gguf", "--merge-adapter", adapter));
    assert_non_null(strstr(r.err, "writes a directory"));
    ran_free(&r);
}

/* The base stays a file of block types; the adapter serves the file and the directory it was made of. */
static void an_adapter_is_trained_over_a_quantised_file(void **state)
{
    (void)state;
    char packed[1300], adapter[1300], merged[1300];
    snprintf(packed, sizeof packed, "%s", temp_path("packed.gguf"));
    struct ran r = run_coe(0, NULL, COE_ARGS("quantize", "q8_0", model, "-o", packed));
    ran_free(&r);
    const char *path = recipe(packed, "lora: { rank: 4, targets: [all, q_proj] }");
    snprintf(adapter, sizeof adapter, "%s.run/adapter", path);
    snprintf(merged, sizeof merged, "%s.merged", path);
    r = run_coe(0, NULL, COE_ARGS("train", path));
    ran_free(&r);
    r = run_coe(0, NULL, COE_ARGS("convert", packed, merged, "--merge-adapter", adapter, "--dtype", "f32"));
    ran_free(&r);
    char *before = answer(packed, NULL), *live = answer(packed, adapter), *over = answer(model, adapter),
         *after = answer(merged, NULL);
    assert_string_not_equal(before, live);
    assert_string_not_equal(before, over); /* bases of 8 bits and of 32: near, but their texts may part */
    assert_string_not_equal(before, after);
    free(before);
    free(live);
    free(over);
    free(after);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(experts_of_a_plan_or_a_trace_learn),
        cmocka_unit_test(an_adapter_is_trained_used_and_merged),
        cmocka_unit_test(an_adapter_is_trained_over_a_quantised_file),
    };
    return cmocka_run_group_tests_name("end-to-end/tune", tests, set_up, NULL);
}
