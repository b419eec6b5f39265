/* `coe bench`: medians, what a token costs, and the tables. Figures depend on the machine; what they are made of does
 * not. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cli/bench.h"
#include "support/process.h"
#include "support/tiny_model.h"

static void rates_sort_and_take_the_middle(void **state)
{
    (void)state;
    struct rates r = { 0 };
    char text[64];
    assert_true(rates_median(&r) == 0 && rates_least(&r) == 0 && rates_best(&r) == 0);
    rates_add(&r, 3);
    rates_add(&r, 1);
    assert_true(rates_median(&r) == 2);
    rates_add(&r, 8);
    assert_true(rates_median(&r) == 3 && rates_least(&r) == 1 && rates_best(&r) == 8);
    assert_string_equal(rates_text(&r, text), "3.0 (1.0 to 8.0)");
    for (int i = 0; i < 2 * BENCH_RUNS; i++) rates_add(&r, 5); /* no room is no harm */
    assert_int_equal(r.n, BENCH_RUNS);
}

/* d 32, 2 heads of 16 on 1 key head: q 1024, k 512, v 512, o 1024; 8 experts of 3 x 16 x 32 = 1536, top-2, 2 passes
 * with a router of 256 each: 3072 + 2 * 256 + 2 * 2 * 1536 = 9728 weights a layer, 19456 in two. Tied head 320 x 32. */
static void a_token_costs_what_it_is_multiplied_with(void **state)
{
    (void)state;
    struct coe_model *m = NULL;
    assert_ok(model_open(&m, tiny_model("costs", &(struct tiny){ .no_tokenizer = true })));
    const struct cost c = cost_token(m, COE_MATH_FP32);
    assert_true(c.ops[LIMIT_FP32] == 2 * 19456);
    assert_true(c.head[LIMIT_FP32] == 2 * 10240);
    assert_true(c.ops[LIMIT_INT8] == 0 && c.head[LIMIT_INT8] == 0);
    assert_true(c.bytes == 4 * (19456 + 10240));
    model_close(m);
}

/* The same network counted as if its experts lay in blocks of Q8_0: 34 bytes for 32 weights, int8 arithmetic. */
static void weights_in_blocks_count_as_int8(void **state)
{
    (void)state;
    struct coe_model *m = NULL;
    assert_ok(model_open(&m, tiny_model("blocks", &(struct tiny){ .no_tokenizer = true })));
    for (size_t i = 0; i < m->n_params; i++)
        if (slot_info[m->params[i].at.slot].class == CLASS_EXPERT) m->params[i].w.type = DT_Q8_0;
    const struct cost c = cost_token(m, COE_MATH_FP32);
    const double experts = 2 * 2 * 2 * 1536;
    assert_true(c.ops[LIMIT_INT8] == 2 * experts);
    assert_true(c.ops[LIMIT_FP32] == 2 * (19456 - experts));
    assert_true(c.bytes == experts / 32 * 34 + 4 * (19456 - experts + 10240));
    model_close(m);
}

/* BF16 weights count as FP32, or as BF16 where that is asked for and the CPU has it; routers always as FP32. */
static void bf16_weights_count_by_the_arithmetic_asked_for(void **state)
{
    (void)state;
    struct coe_model *m = NULL;
    assert_ok(model_open(&m, tiny_model("bf16", &(struct tiny){ .no_tokenizer = true })));
    for (size_t i = 0; i < m->n_params; i++) m->params[i].w.type = DT_BF16;
    const bool has = strcmp(kern->bf16_unit, "fp32") != 0;
    const double routers = 2 * 2 * 256;
    const struct cost fp32 = cost_token(m, COE_MATH_FP32), bf16 = cost_token(m, COE_MATH_BF16);
    assert_true(fp32.ops[LIMIT_FP32] == 2 * 19456 && fp32.ops[LIMIT_BF16] == 0);
    assert_true(bf16.ops[LIMIT_BF16] == (has ? 2 * (19456 - routers) : 0));
    assert_true(bf16.ops[LIMIT_FP32] == (has ? 2 * routers : 2 * 19456));
    assert_true(bf16.bytes == fp32.bytes && bf16.bytes == 2 * (19456 + 10240));
    model_close(m);
}

/* Tokens at positions 3 and 4 see 4 and 5 keys: 9 pairs of 2 * (16 + 16) operations for 2 heads in 2 layers. One by one
 * they read 4 + 5 positions of 16 + 16 floats a layer, together 5. With a window of 3 in one layer: 6 pairs there. */
static void attention_costs_what_is_visible(void **state)
{
    (void)state;
    struct coe_model *m = NULL;
    assert_ok(model_open(&m, tiny_model("attention", &(struct tiny){ .no_tokenizer = true })));
    const struct attention_cost apart = cost_attention(m, &(coe_session_opts){ 0 }, 3, 2, 2);
    const struct attention_cost together = cost_attention(m, &(coe_session_opts){ 0 }, 3, 2, 1);
    assert_true(apart.ops == 9 * 64 * 2 * 2 && together.ops == apart.ops);
    assert_true(apart.bytes == 9 * 32 * 4 * 2);
    assert_true(together.bytes == 5 * 32 * 4 * 2);
    const struct attention_cost rounded = cost_attention(m, &(coe_session_opts){ .kv = COE_KV_F16 }, 3, 2, 2);
    assert_true(rounded.ops == apart.ops && rounded.bytes == apart.bytes / 2);
    m->spec.layer[0].attn.window = 3;
    const struct attention_cost near = cost_attention(m, &(coe_session_opts){ 0 }, 3, 2, 2);
    assert_true(near.ops == (6 + 9) * 64 * 2);
    assert_true(near.bytes == (8 + 9) * 32 * 4); /* a block of one token: what it sees and the window before it */
    model_close(m);
}

static void names_of_tests_are_the_fields(void **state)
{
    (void)state;
    char text[64];
    assert_string_equal(bench_test_name(&(struct bench_row){ .prompt = 512 }, text), "pp512");
    assert_string_equal(bench_test_name(&(struct bench_row){ .generate = 64, .depth = 2048 }, text), "tg64 @ d2048");
    assert_string_equal(bench_test_name(&(struct bench_row){ .prompt = 8, .generate = 4 }, text), "pp8+tg4");
}

static const char *text_of(const json_t *o, const char *key) { return json_string_value(json_object_get(o, key)); }
static double number_of(const json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }

static void check_row(const json_t *row, const char *test, int threads)
{
    const json_t *rate = json_object_get(row, "tokens_per_second");
    assert_string_equal(text_of(row, "test"), test);
    assert_int_equal(number_of(row, "threads"), threads);
    assert_int_equal(json_array_size(json_object_get(row, "samples")), 2);
    assert_true(number_of(rate, "min") > 0 && number_of(rate, "min") <= number_of(rate, "median"));
    assert_true(number_of(rate, "median") <= number_of(rate, "max"));
    assert_true(number_of(row, "share") > 0 && number_of(row, "share_with_attention") >= number_of(row, "share"));
    assert_string_equal(text_of(row, "limit"), strstr(test, "pp") ? "fp32" : "read");
}

/* Depths, then threads, then the tests. */
static void a_table_has_a_row_for_each_combination(void **state)
{
    (void)state;
    json_t *o = NULL;
    const char *model = tiny_model("table", &(struct tiny){ .no_tokenizer = true });
    struct ran r = run_coe(0, NULL, COE_ARGS("bench", model, "-p", "0,8", "-n", "2", "-pg", "4,2", "-d", "0,5", "-t",
                                             "1", "-r", "2", "-o", "json"));
    assert_ok(json_read_text(&o, r.out, r.n_out, "stdout"));
    const json_t *rows = json_object_get(o, "results");
    static const char *const test[] = { "pp8", "tg2", "pp4+tg2", "pp8 @ d5", "tg2 @ d5", "pp4+tg2 @ d5" };
    assert_int_equal(json_array_size(rows), COE_COUNT(test));
    for (size_t i = 0; i < COE_COUNT(test); i++) check_row(json_array_get(rows, i), test[i], 1);
    json_decref(o);
    ran_free(&r);
}

static int lines_with(const char *text, const char *part)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, part)); at += strlen(part)) n++;
    return n;
}

static void several_models_share_a_table_in_every_form(void **state)
{
    (void)state;
    const char *a = tiny_model("first", &(struct tiny){ .no_tokenizer = true });
    const char *b = tiny_model("second", &(struct tiny){ .no_tokenizer = true, .bf16 = true });
    struct ran csv = run_coe(0, NULL, COE_ARGS("bench", a, b, "-p", "4", "-t", "1,2", "-r", "1", "-o", "csv"));
    assert_int_equal(lines_with(csv.out, "\n"), 1 + 4);
    assert_int_equal(lines_with(csv.out, "/second\","), 2);
    struct ran md = run_coe(0, NULL, COE_ARGS("bench", a, b, "-n", "2", "-t", "1", "-r", "1"));
    assert_int_equal(lines_with(md.out, "| first | 1 | tg2 |"), 1);
    assert_int_equal(lines_with(md.out, "| second | 1 | tg2 |"), 1);
    ran_free(&csv);
    ran_free(&md);
}

static void lists_that_mean_nothing_are_refused(void **state)
{
    (void)state;
    const char *m = tiny_model("lists", &(struct tiny){ .no_tokenizer = true });
    static const char *const wrong[][2] = { { "-p", "8,,9" }, { "-p", "many" }, { "-t", "0" },     { "-pg", "8" },
                                            { "-d", "-1" },   { "-n", "0" },    { "-o", "xml" },   { "-p", "" },
                                            { "-t", "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17" } };
    for (size_t i = 0; i < COE_COUNT(wrong); i++) {
        struct ran r = run_coe(COE_E_USAGE, NULL, COE_ARGS("bench", m, wrong[i][0], wrong[i][1]));
        if (r.n_out || !r.n_err) fail_msg("case %zu: '%s' '%s'", i, r.out, r.err);
        ran_free(&r);
    }
    struct ran two = run_coe(COE_E_USAGE, NULL, COE_ARGS("bench", "once", m, "-t", "1,2"));
    struct ran deep = run_coe(COE_E_USAGE, NULL, COE_ARGS("bench", "cold", m, "-d", "8"));
    struct ran prompt = run_coe(COE_E_USAGE, NULL, COE_ARGS("bench", "limits", "-p", "8"));
    assert_non_null(strstr(two.err, "one number"));
    assert_non_null(strstr(deep.err, "--depth"));
    assert_non_null(strstr(prompt.err, "--prompt"));
    ran_free(&two);
    ran_free(&deep);
    ran_free(&prompt);
    struct ran extra = run_coe(COE_E_USAGE, NULL, COE_ARGS("bench", "cold", m, m));
    assert_non_null(strstr(extra.err, "cold MODEL"));
    ran_free(&extra);
}

static void once_tells_time_to_the_first_token_and_memory(void **state)
{
    (void)state;
    json_t *o = NULL;
    const char *m = tiny_model("once", &(struct tiny){ .no_tokenizer = true });
    struct ran r = run_coe(0, NULL, COE_ARGS("bench", "once", m, "-p", "8", "-n", "3", "-t", "1", "--json"));
    assert_ok(json_read_text(&o, r.out, r.n_out, "stdout"));
    assert_true(number_of(o, "first_token_seconds") > number_of(o, "opened_seconds"));
    assert_true(number_of(o, "generate_tokens_per_second") > 0);
    assert_true(number_of(o, "peak_memory_bytes") > number_of(o, "counted_memory_bytes"));
    json_decref(o);
    ran_free(&r);
}

static void cold_starts_a_process_of_its_own(void **state)
{
    (void)state;
    json_t *o = NULL;
    const char *m = tiny_model("cold", &(struct tiny){ .no_tokenizer = true });
    struct ran r = run_coe(0, NULL, COE_ARGS("bench", "cold", m, "-p", "4", "-t", "1", "-r", "2", "--json"));
    assert_ok(json_read_text(&o, r.out, r.n_out, "stdout"));
    assert_true(number_of(json_object_get(o, "first_token_seconds"), "median") > 0);
    assert_true(number_of(json_object_get(o, "read_seconds"), "median") > 0);
    assert_true(number_of(o, "peak_memory_bytes") > number_of(o, "file_bytes"));
    assert_int_equal(number_of(o, "prompt"), 4);
    json_decref(o);
    ran_free(&r);
    const char *no_model = temp_path("no-model.gguf");
    spill(no_model, "GGUF", 4);
    struct ran broken = run_coe(COE_E_INPUT, NULL, COE_ARGS("bench", "cold", no_model, "-r", "1"));
    assert_non_null(strstr(broken.err, "no-model.gguf: "));
    ran_free(&broken);
    char config[600];
    snprintf(config, sizeof config, "%s/config.json", m);
    spill(config, "{}", 2);
    struct ran child = run_coe(COE_E_FAILED, NULL, COE_ARGS("bench", "cold", m, "-r", "1"));
    assert_non_null(strstr(child.err, "fresh process"));
    ran_free(&child);
}

static void cold_reads_all_parts_of_a_split_model(void **state)
{
    (void)state;
    json_t *o = NULL;
    const char *m = tiny_model("cold-split", &(struct tiny){ .no_tokenizer = true }), *dir = temp_path("cold-parts");
    char part[600];
    struct file_list files;
    size_t all = 0, bytes;
    assert_ok(dir_make(dir));
    snprintf(part, sizeof part, "%s/m.gguf", dir);
    struct ran made = run_coe(0, NULL, COE_ARGS("convert", m, part, "--shard-size", "100K"));
    ran_free(&made);
    assert_ok(dir_list(&files, dir));
    assert_true(files.n > 1);
    for (size_t i = 0; i < files.n; i++, all += bytes) {
        snprintf(part, sizeof part, "%s/%s", dir, files.name[i]);
        free(slurp(part, &bytes));
    }
    file_list_free(&files);
    struct ran r = run_coe(0, NULL, COE_ARGS("bench", "cold", part, "-p", "4", "-t", "1", "-r", "1", "--json"));
    assert_ok(json_read_text(&o, r.out, r.n_out, "stdout"));
    assert_true(number_of(o, "file_bytes") == (double)all);
    json_decref(o);
    ran_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rates_sort_and_take_the_middle),
        cmocka_unit_test(a_token_costs_what_it_is_multiplied_with),
        cmocka_unit_test(weights_in_blocks_count_as_int8),
        cmocka_unit_test(bf16_weights_count_by_the_arithmetic_asked_for),
        cmocka_unit_test(attention_costs_what_is_visible),
        cmocka_unit_test(names_of_tests_are_the_fields),
        cmocka_unit_test(a_table_has_a_row_for_each_combination),
        cmocka_unit_test(several_models_share_a_table_in_every_form),
        cmocka_unit_test(lists_that_mean_nothing_are_refused),
        cmocka_unit_test(once_tells_time_to_the_first_token_and_memory),
        cmocka_unit_test(cold_starts_a_process_of_its_own),
        cmocka_unit_test(cold_reads_all_parts_of_a_split_model),
    };
    return cmocka_run_group_tests_name("cli/bench", tests, NULL, NULL);
}
