/* `coe run` and `coe info` on a tiny model. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "support/process.h"
#include "support/tiny_model.h"

static const char *model(void)
{
    static const char *path;
    return path ? path : (path = strdup(tiny_model("model", NULL)));
}

static json_t *parse(const char *text)
{
    json_t *doc = NULL;
    assert_ok(json_read_text(&doc, text, strlen(text), "stdout"));
    return doc;
}

static int64_t number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_integer(v)) fail_msg("%s is %s, expected a number", key, json_kind(v));
    return json_integer_value(v);
}

static void the_same_seed_gives_the_same_text_and_another_another(void **state)
{
    (void)state;
    struct ran a = run_coe(0, NULL, COE_ARGS("run", model(), "-p", "the king", "-n", "24", "--seed", "5"));
    struct ran b = run_coe(0, NULL, COE_ARGS("run", model(), "-p", "the king", "-n", "24", "--seed", "5", "-t", "1"));
    struct ran c = run_coe(0, NULL, COE_ARGS("run", model(), "-p", "the king", "-n", "24", "--seed", "6"));
    assert_string_equal(a.out, b.out);
    assert_string_not_equal(a.out, c.out);
    assert_non_null(strstr(a.err, "tokens/s"));
    ran_free(&a);
    ran_free(&b);
    ran_free(&c);
}

static void the_prompt_comes_from_option_file_or_standard_input(void **state)
{
    (void)state;
    char file[1200];
    snprintf(file, sizeof file, "%s", temp_path("prompt.txt"));
    spill(file, "the king", 8);
    struct ran a = run_coe(0, NULL, COE_ARGS("run", model(), "-p", "the king", "-n", "9"));
    struct ran b = run_coe(0, NULL, COE_ARGS("run", model(), "-f", file, "-n", "9"));
    struct ran c = run_coe(0, "the king", COE_ARGS("run", model(), "-n", "9"));
    struct ran d = run_coe(0, NULL, COE_ARGS("run", model(), "-p", "the king", "-n", "9", "--echo"));
    assert_string_equal(a.out, b.out);
    assert_string_equal(a.out, c.out);
    assert_memory_equal(d.out, "the king", 8);
    assert_string_equal(a.out, d.out + 8);
    ran_free(&a);
    ran_free(&b);
    ran_free(&c);
    ran_free(&d);
}

/* 4 tokens in and 6 out, of which the last is not fed: 9 tokens × 2 experts = 18 visits a layer and pass */
static void json_holds_the_text_its_ids_and_the_experts(void **state)
{
    (void)state;
    struct ran r = run_coe(0, NULL, COE_ARGS("run", model(), "-p", "the king", "-n", "6", "--json", "-x", "-T", "0"));
    json_t *o = parse(r.out);
    assert_int_equal(json_array_size(json_object_get(o, "ids")), number(o, "new_tokens"));
    const json_t *experts = json_object_get(o, "experts");
    assert_int_equal(json_array_size(experts), 4);
    for (size_t i = 0; i < 4; i++) {
        const json_t *record = json_array_get(experts, i), *counts = json_object_get(record, "counts");
        int64_t sum = 0;
        for (size_t e = 0; e < json_array_size(counts); e++) sum += json_integer_value(json_array_get(counts, e));
        assert_int_equal(sum, 2 * number(record, "tokens"));
        assert_int_equal(number(record, "tokens"), number(o, "prompt_tokens") + number(o, "new_tokens") - 1);
    }
    json_decref(o);
    ran_free(&r);
}

static void a_heat_map_has_a_line_for_each_layer_and_pass(void **state)
{
    (void)state;
    struct ran r = run_coe(0, NULL, COE_ARGS("run", model(), "-p", "the king", "-n", "6", "--show-experts"));
    assert_non_null(strstr(r.out, "\nlayer 0 pass 0  "));
    assert_non_null(strstr(r.out, "\nlayer 1 pass 1  "));
    assert_null(strstr(r.out, "\033[")); /* no colours into a file */
    ran_free(&r);
}

static void a_full_context_stops_and_a_prompt_that_does_not_fit_is_refused(void **state)
{
    (void)state;
    struct ran r =
        run_coe(0, NULL, COE_ARGS("run", model(), "-p", "the king", "-n", "100", "-c", "16", "--json", "-s", "3"));
    json_t *o = parse(r.out);
    const char *stop = json_string_value(json_object_get(o, "stop"));
    assert_true(number(o, "prompt_tokens") + number(o, "new_tokens") <= 17);
    assert_true(!strcmp(stop, "context") || !strcmp(stop, "end"));
    struct ran full = run_coe(COE_E_USAGE, NULL, COE_ARGS("run", model(), "-p", tiny_text, "-c", "16"));
    assert_non_null(strstr(full.err, "--context"));
    json_decref(o);
    ran_free(&r);
    ran_free(&full);
}

static void wrong_files_are_status_3_and_are_named(void **state)
{
    (void)state;
    const char *bare = tiny_model("bare", &(struct tiny){ .no_tokenizer = true });
    struct ran missing = run_coe(COE_E_INPUT, NULL, COE_ARGS("run", "/nowhere/model", "-p", "x"));
    struct ran no_text = run_coe(COE_E_INPUT, NULL, COE_ARGS("run", bare, "-p", "x"));
    struct ran no_file = run_coe(COE_E_INPUT, NULL, COE_ARGS("run", model(), "-f", "/nowhere/prompt"));
    struct ran no_plan = run_coe(COE_E_INPUT, NULL, COE_ARGS("run", model(), "-p", "x", "--plan", "/nowhere/plan"));
    struct ran bench = run_coe(COE_E_INPUT, NULL, COE_ARGS("bench", "/nowhere/model"));
    assert_non_null(strstr(bench.err, "/nowhere/model"));
    ran_free(&bench);
    assert_non_null(strstr(missing.err, "/nowhere/model"));
    assert_non_null(strstr(no_text.err, "tokenizer.json"));
    assert_non_null(strstr(no_file.err, "/nowhere/prompt"));
    assert_non_null(strstr(no_plan.err, "/nowhere/plan"));
    ran_free(&missing);
    ran_free(&no_text);
    ran_free(&no_file);
    ran_free(&no_plan);
}

static void a_cut_file_of_weights_is_status_3(void **state)
{
    (void)state;
    char cut[1200];
    size_t n;
    snprintf(cut, sizeof cut, "%s/model.safetensors", tiny_model("cut", NULL));
    unsigned char *bytes = slurp(cut, &n);
    spill(cut, bytes, n - 100);
    struct ran r = run_coe(COE_E_INPUT, NULL, COE_ARGS("run", temp_path("cut"), "-p", "x"));
    assert_non_null(strstr(r.err, "cut/model.safetensors"));
    struct ran i = run_coe(COE_E_INPUT, NULL, COE_ARGS("info", temp_path("cut")));
    free(bytes);
    ran_free(&r);
    ran_free(&i);
}

static void a_budget_that_is_too_small_is_status_4(void **state)
{
    (void)state;
    struct ran r = run_coe(COE_E_NOMEM, NULL, COE_ARGS("run", model(), "-p", "x", "--memory", "100k"));
    assert_non_null(strstr(r.err, "--memory"));
    ran_free(&r);
}

static void info_counts_what_the_model_was_made_of(void **state)
{
    (void)state;
    struct ran r = run_coe(0, NULL, COE_ARGS("info", "--json", model()));
    json_t *o = parse(r.out);
    const json_t *p = json_object_get(o, "parameters"), *by = json_object_get(p, "by_class");
    assert_string_equal(json_string_value(json_object_get(o, "family")), "coe");
    /* d 32, F 16: 2 layers × 8 experts × 3 matrices × 32 × 16;  routers 2 layers × 2 passes × 8 × 32;  embedding 320 ×
     * 32 */
    assert_int_equal(number(by, "expert"), 2 * 8 * 3 * 32 * 16);
    assert_int_equal(number(by, "router"), 2 * 2 * 8 * 32);
    assert_int_equal(number(by, "embedding"), 320 * 32);
    /* two passes of two experts: 4 of 8 are used, half of the experts' parameters */
    assert_int_equal(number(p, "total") - number(p, "active"), 2 * 4 * 3 * 32 * 16);
    assert_int_equal(number(json_object_get(o, "tokenizer"), "vocab"), 320);
    json_decref(o);
    ran_free(&r);
}

static void info_describes_the_build_and_the_memory(void **state)
{
    (void)state;
    struct ran build = run_coe(0, NULL, COE_ARGS("info", "--build", "--json"));
    json_t *o = parse(build.out);
    assert_true(json_array_size(json_object_get(o, "isa_levels")) >= 1);
    assert_non_null(json_object_get(json_object_get(o, "libraries"), "jansson"));
    struct ran memory = run_coe(0, NULL, COE_ARGS("info", model(), "--memory"));
    assert_non_null(strstr(memory.out, "key/value cache"));
    json_decref(o);
    ran_free(&build);
    ran_free(&memory);
}

static void an_instruction_set_nobody_knows_is_wrong_usage(void **state)
{
    (void)state;
    setenv("COE_ISA", "abacus", 1);
    struct ran r = run_coe(COE_E_USAGE, NULL, COE_ARGS("info", "--build"));
    unsetenv("COE_ISA");
    assert_non_null(strstr(r.err, "abacus"));
    ran_free(&r);
}

static void assert_named(const char *verb_output, const char *key, const char *want)
{
    json_t *o = parse(verb_output);
    assert_string_equal(json_string_value(json_object_get(o, key)), want);
    json_decref(o);
}

static void reports_name_the_form_of_latent_attention(void **state)
{
    (void)state;
    need_fixture("gguf/deepseek2/f32.gguf");
    const char *latent = fixture("gguf/deepseek2/f32.gguf"), *text = "the king";
    struct ran a = run_coe(0, NULL, COE_ARGS("run", latent, "-p", text, "-n", "2", "--json"));
    struct ran b = run_coe(0, NULL, COE_ARGS("run", latent, "-p", text, "-n", "2", "--json", "--mla", "expanded"));
    struct ran c = run_coe(2, NULL, COE_ARGS("run", model(), "-p", text, "--mla", "expanded"));
    struct ran d = run_coe(2, NULL, COE_ARGS("run", latent, "-p", text, "--mla", "other"));
    assert_named(a.out, "mla", "absorbed");
    assert_named(b.out, "mla", "expanded");
    assert_non_null(strstr(c.err, "has no latent attention"));
    assert_non_null(strstr(d.err, "the forms are absorbed and expanded"));
    ran_free(&a);
    ran_free(&b);
    ran_free(&c);
    ran_free(&d);
}

static int64_t cache_bytes(const char *info)
{
    json_t *o = parse(info);
    const int64_t n = json_integer_value(json_object_get(json_object_get(o, "memory"), "key/value cache"));
    json_decref(o);
    return n;
}

static void reports_name_the_type_of_the_cache(void **state)
{
    (void)state;
    struct ran a = run_coe(0, NULL, COE_ARGS("run", model(), "-p", "the king", "-n", "2", "--json"));
    struct ran b = run_coe(0, NULL, COE_ARGS("run", model(), "-p", "the king", "-n", "2", "--json", "--kv", "q8_0"));
    struct ran c = run_coe(2, NULL, COE_ARGS("run", model(), "-p", "the king", "--kv", "f8"));
    struct ran d = run_coe(0, NULL, COE_ARGS("info", model(), "--memory", "--json"));
    struct ran e = run_coe(0, NULL, COE_ARGS("info", model(), "--memory", "--json", "--kv", "f16"));
    assert_named(a.out, "kv", "f32");
    assert_named(b.out, "kv", "q8_0");
    assert_named(e.out, "kv", "f16");
    assert_non_null(strstr(c.err, "f32, f16 and q8_0"));
    assert_int_equal((cache_bytes(d.out) - 1) / 2, cache_bytes(e.out) - 1); /* one byte is there for models without */
    ran_free(&a);
    ran_free(&b);
    ran_free(&c);
    ran_free(&d);
    ran_free(&e);
}

static void reports_name_the_arithmetic_and_unknown_ones_are_refused(void **state)
{
    (void)state;
    struct ran a = run_coe(0, NULL, COE_ARGS("run", model(), "-p", "the king", "-n", "2", "--json"));
    struct ran b = run_coe(0, NULL, COE_ARGS("run", model(), "-p", "the king", "-n", "2", "--json", "--math", "bf16"));
    struct ran c = run_coe(2, NULL, COE_ARGS("run", model(), "-p", "the king", "--math", "fp8"));
    struct ran d = run_coe(2, NULL, COE_ARGS("bench", "limits", "--math", "bf16"));
    assert_named(a.out, "math", "fp32");
    assert_non_null(strstr(b.out, "\"math\":\"bf16 ("));
    assert_non_null(strstr(c.err, "--math fp8: the arithmetics are fp32 and bf16"));
    assert_non_null(strstr(d.err, "are for coe bench MODEL"));
    ran_free(&a);
    ran_free(&b);
    ran_free(&c);
    ran_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_seed_gives_the_same_text_and_another_another),
        cmocka_unit_test(reports_name_the_form_of_latent_attention),
        cmocka_unit_test(reports_name_the_type_of_the_cache),
        cmocka_unit_test(reports_name_the_arithmetic_and_unknown_ones_are_refused),
        cmocka_unit_test(the_prompt_comes_from_option_file_or_standard_input),
        cmocka_unit_test(json_holds_the_text_its_ids_and_the_experts),
        cmocka_unit_test(a_heat_map_has_a_line_for_each_layer_and_pass),
        cmocka_unit_test(a_full_context_stops_and_a_prompt_that_does_not_fit_is_refused),
        cmocka_unit_test(wrong_files_are_status_3_and_are_named),
        cmocka_unit_test(a_cut_file_of_weights_is_status_3),
        cmocka_unit_test(a_budget_that_is_too_small_is_status_4),
        cmocka_unit_test(info_counts_what_the_model_was_made_of),
        cmocka_unit_test(info_describes_the_build_and_the_memory),
        cmocka_unit_test(an_instruction_set_nobody_knows_is_wrong_usage),
    };
    return cmocka_run_group_tests_name("end-to-end/run", tests, NULL, NULL);
}
