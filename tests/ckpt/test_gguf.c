/* GGUF: reading of metadata and tensors, split files, damage, round trips, the hostile fixtures. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "ckpt/gguf.h"
#include "ckpt/reader.h"
#include "support/support.h"
#include "tensor/quant/quant.h"

static const float numbers[64] = { 1, 2, 3, 4 };
static uint8_t blocks[4 * 34]; /* four blocks of Q8_0 */

/* A small file with a value of every kind and three tensors. */
static struct gguf_out sample_metadata(void)
{
    struct gguf_out o = { 0 };
    struct str tokens[3] = { { 0 } };
    str_addz(&tokens[0], "a");
    str_addz(&tokens[2], "\xC3\xA9\xFF"); /* tokens need not be UTF-8 */
    gguf_add_str(&o, "general.architecture", "llama", 5);
    gguf_add_u32(&o, "llama.block_count", 2);
    gguf_add_u64(&o, "big", UINT64_MAX);
    gguf_add_f32(&o, "llama.rope.freq_base", 10000.0f);
    gguf_add_bool(&o, "flag", true);
    gguf_add_strs(&o, "tokenizer.ggml.tokens", tokens, 3);
    gguf_add_i32s(&o, "ints", (int32_t[]){ -1, 7 }, 2);
    gguf_add_f32s(&o, "floats", (float[]){ 0.5f, -2.0f }, 2);
    for (int i = 0; i < 3; i++) str_free(&tokens[i]);
    return o;
}

static const struct ckpt_item sample_items[] = {
    { .t = { "b.weight", DT_Q8_0, 2, { 2, 64 }, blocks } },
    { .t = { "a.weight", DT_F32, 2, { 1, 3 }, numbers } },
    { .t = { "s", DT_F16, 1, { 5 }, numbers } },
};

/* The bytes of the sample, malloc'ed. */
static unsigned char *sample(size_t *n)
{
    struct gguf_out o = sample_metadata();
    assert_ok(gguf_write(temp_path("sample.gguf"), &o, sample_items, 3));
    gguf_out_free(&o);
    return slurp(temp_path("sample.gguf"), n);
}

static void values_come_back_with_their_types(void **state)
{
    (void)state;
    size_t n;
    struct gguf g;
    struct tensor_list l;
    unsigned char *bytes = sample(&n);
    assert_ok(gguf_parse(&g, &l, bytes, n, "f"));
    int64_t layers = 0;
    double base = 0;
    bool flag = false;
    struct gguf_text text = { NULL, 0 };
    assert_ok(gguf_int(&g, "llama.block_count", 1, 100, &layers));
    assert_int_equal(layers, 2);
    assert_ok(gguf_num(&g, "llama.rope.freq_base", &base));
    assert_true(base == 10000.0);
    assert_ok(gguf_bool(&g, "flag", &flag));
    assert_true(flag);
    assert_ok(gguf_str(&g, "general.architecture", &text));
    assert_int_equal(text.n, 5);
    assert_memory_equal(text.at, "llama", 5);
    assert_int_equal(gguf_int_at(gguf_find(&g, "ints"), 0), -1);
    assert_int_equal(gguf_int_at(gguf_find(&g, "big"), 0), INT64_MAX);
    assert_true(gguf_float_at(gguf_find(&g, "floats"), 1) == -2.0);
    const struct gguf_value *tokens = gguf_find(&g, "tokenizer.ggml.tokens");
    const unsigned char *at = tokens->at;
    static const size_t lengths[] = { 1, 0, 3 };
    for (int i = 0; i < 3; i++) {
        assert_true(gguf_next_text(tokens, &at, &text));
        assert_int_equal(text.n, lengths[i]);
    }
    assert_false(gguf_next_text(tokens, &at, &text));
    assert_ok(gguf_int(&g, "absent", 0, 1, &layers));
    assert_int_equal(layers, 2);
    assert_int_equal(gguf_int(&g, "general.architecture", 0, 1, &layers), COE_E_INPUT);
    assert_error_has("general.architecture");
    assert_error_has("expected a whole number");
    assert_int_equal(gguf_int(&g, "llama.block_count", 3, 9, &layers), COE_E_INPUT);
    assert_error_has("llama.block_count is 2, outside 3");
    gguf_free(&g);
    tensor_list_free(&l);
    free(bytes);
}

static void metadata_become_json(void **state)
{
    (void)state;
    size_t n;
    struct gguf g;
    struct tensor_list l;
    unsigned char *bytes = sample(&n);
    assert_ok(gguf_parse(&g, &l, bytes, n, "f"));
    json_t *j = gguf_json(&g, 2);
    char *text = json_dumps(j, JSON_COMPACT);
    assert_string_equal(text, "{\"big\":9223372036854775807,\"flag\":true,\"floats\":[0.5,-2.0],"
                              "\"general.architecture\":\"llama\",\"ints\":[-1,7],\"llama.block_count\":2,"
                              "\"llama.rope.freq_base\":10000.0,\"tokenizer.ggml.tokens\":[\"a\",\"\"]}");
    free(text);
    json_decref(j);
    gguf_free(&g);
    tensor_list_free(&l);
    free(bytes);
}

static void shapes_are_row_major_and_data_aligned(void **state)
{
    (void)state;
    size_t n;
    unsigned char *bytes = sample(&n);
    struct ckpt *c;
    for (size_t i = 0; i < sizeof blocks; i++) blocks[i] = (uint8_t)i;
    free(bytes);
    bytes = sample(&n);
    assert_ok(ckpt_open(&c, temp_path("sample.gguf")));
    assert_non_null(ckpt_gguf(c));
    assert_null(ckpt_config(c));
    assert_int_equal(ckpt_count(c), 3);
    for (size_t i = 0; i < 3; i++) {
        const struct tensor *put = &sample_items[i].t, *got = ckpt_find(c, put->name);
        assert_non_null(got);
        assert_int_equal(got->type, put->type);
        assert_int_equal(got->n_dims, put->n_dims);
        for (int32_t k = 0; k < put->n_dims; k++) assert_int_equal(got->dim[k], put->dim[k]);
        assert_memory_equal(got->data, put->data, (size_t)tensor_bytes(put));
        assert_int_equal((uintptr_t)got->data % 32, 0);
    }
    ckpt_close(c);
    free(bytes);
}

static void a_copy_through_the_writer_has_the_same_bytes(void **state)
{
    (void)state;
    size_t n, m;
    struct gguf g;
    struct tensor_list l;
    struct gguf_out o = sample_metadata(), copy = { 0 };
    unsigned char *bytes = sample(&n);
    assert_ok(gguf_parse(&g, &l, bytes, n, "f"));
    /* the writer keeps the order of calls, the reader sorts: write a sorted file first */
    for (size_t i = 0; i < g.n; i++) gguf_add_value(&copy, &g.at[i]);
    assert_int_equal(copy.n, o.n);
    assert_int_equal(copy.text.n, o.text.n);
    assert_ok(gguf_write(temp_path("copy.gguf"), &copy, sample_items, 3));
    gguf_free(&g);
    tensor_list_free(&l);
    free(bytes);
    bytes = slurp(temp_path("copy.gguf"), &n);
    assert_ok(gguf_parse(&g, &l, bytes, n, "f"));
    gguf_out_free(&copy);
    for (size_t i = 0; i < g.n; i++) gguf_add_value(&copy, &g.at[i]);
    assert_ok(gguf_write(temp_path("copy2.gguf"), &copy, sample_items, 3));
    unsigned char *again = slurp(temp_path("copy2.gguf"), &m);
    assert_int_equal(n, m);
    assert_memory_equal(bytes, again, n);
    gguf_out_free(&copy);
    gguf_out_free(&o);
    gguf_free(&g);
    tensor_list_free(&l);
    free(bytes);
    free(again);
}

static void the_writer_refuses_what_gguf_cannot_say(void **state)
{
    (void)state;
    struct gguf_out o = { 0 };
    const struct ckpt_item fp8 = { .t = { "w", DT_F8_E4M3, 1, { 4 }, numbers } };
    const struct ckpt_item odd = { .t = { "w", DT_Q4_K, 2, { 256, 3 }, numbers } };
    assert_int_equal(gguf_write(temp_path("x.gguf"), &o, &fp8, 1), COE_E_USAGE);
    assert_error_has("tensor w: GGUF has no type for F8_E4M3");
    assert_int_equal(gguf_write(temp_path("x.gguf"), &o, &odd, 1), COE_E_USAGE);
    assert_error_has("tensor w is [256, 3]: Q4_K needs rows of a multiple of 256");
    assert_false(file_exists(temp_path("x.gguf")));
}

static void a_file_cut_at_any_byte_is_refused(void **state)
{
    (void)state;
    size_t n;
    unsigned char *bytes = sample(&n);
    for (size_t cut = 0; cut + 32 < n; cut++) { /* the last tensor is followed by padding that may be missing */
        unsigned char *part = malloc(cut ? cut : 1);
        memcpy(part, bytes, cut);
        struct gguf g;
        struct tensor_list l;
        if (gguf_parse(&g, &l, part, cut, "f") != COE_E_INPUT) fail_msg("accepted when cut at byte %zu", cut);
        free(part);
    }
    free(bytes);
}

static void a_flipped_bit_never_leads_out_of_the_file(void **state)
{
    (void)state;
    size_t n;
    unsigned char *bytes = sample(&n);
    for (size_t bit = 0; bit < 8 * (n - 256); bit++) {
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        struct gguf g;
        struct tensor_list l;
        coe_status s = gguf_parse(&g, &l, bytes, n, "f");
        if (s && s != COE_E_INPUT) fail_msg("bit %zu: status %d, expected 0 or 3", bit, (int)s);
        for (size_t i = 0; i < l.n; i++) {
            const unsigned char *p = l.at[i].data;
            if (p < bytes || tensor_bytes(&l.at[i]) > (uint64_t)(bytes + n - p)) fail_msg("bit %zu: outside", bit);
        }
        gguf_free(&g);
        tensor_list_free(&l);
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    free(bytes);
}

/* part-0000I-of-00002.gguf with one tensor `name` */
static void write_part(const char *file, const char *name, uint32_t number, uint32_t count, uint32_t tensors)
{
    struct gguf_out o = { 0 };
    const struct ckpt_item item = { .t = { name, DT_F32, 1, { 4 }, numbers } };
    if (!number) gguf_add_str(&o, "general.architecture", "llama", 5);
    gguf_add_u32(&o, "split.no", number);
    gguf_add_u32(&o, "split.count", count);
    gguf_add_u32(&o, "split.tensors.count", tensors);
    assert_ok(gguf_write(temp_path(file), &o, &item, 1));
    gguf_out_free(&o);
}

static void a_split_model_opens_by_any_of_its_files(void **state)
{
    (void)state;
    static const char *const files[] = { "part-00001-of-00002.gguf", "part-00002-of-00002.gguf" };
    struct ckpt *c;
    write_part(files[0], "x", 0, 2, 2);
    write_part(files[1], "y", 1, 2, 2);
    for (int i = 0; i < 2; i++) {
        assert_ok(ckpt_open(&c, temp_path(files[i])));
        assert_int_equal(ckpt_count(c), 2);
        assert_non_null(ckpt_find(c, "y"));
        assert_non_null(gguf_find(ckpt_gguf(c), "general.architecture"));
        ckpt_close(c);
    }
    write_part(files[1], "y", 0, 2, 2);
    assert_int_equal(ckpt_open(&c, temp_path(files[0])), COE_E_INPUT);
    assert_error_has("split.no is 0, expected 1");
    write_part(files[1], "y", 1, 2, 3);
    assert_int_equal(ckpt_open(&c, temp_path(files[0])), COE_E_INPUT);
    assert_error_has("have 2 tensors, split.tensors.count says 3");
    write_part(files[1], "x", 1, 2, 2);
    assert_int_equal(ckpt_open(&c, temp_path(files[0])), COE_E_INPUT);
    assert_error_has("two tensors are called x");
    write_part("alone.gguf", "x", 0, 2, 2);
    assert_int_equal(ckpt_open(&c, temp_path("alone.gguf")), COE_E_INPUT);
    assert_error_has("is one of 2 files, expected a name that ends with -00001-of-00002.gguf");
}

static void every_hostile_gguf_file_is_refused(void **state)
{
    (void)state;
    need_fixture("hostile/expect.txt");
    struct ckpt *c;
    char line[512], path[1100];
    assert_ok(ckpt_open(&c, fixture("hostile/ok.gguf")));
    ckpt_close(c);
    FILE *f = fopen(fixture("hostile/expect.txt"), "re");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        char *tab = strchr(line, '\t');
        if (tab) *tab = 0;
        if (!strstr(line, ".gguf")) continue;
        snprintf(path, sizeof path, "%s%s", fixture("hostile/"), line);
        size_t n;
        free(slurp(path, &n));
        mem_reset_peak();
        uint64_t before = mem_peak();
        if (ckpt_open(&c, path) != COE_E_INPUT) fail_msg("%s: accepted", line);
        if (!strstr(coe_error(), line) || strchr(coe_error(), '\n'))
            fail_msg("%s: '%s' is not one line that names the file", line, coe_error());
        if (mem_peak() - before > 6 * n + 4096)
            fail_msg("%s: %zu bytes took %llu of memory", line, n, (unsigned long long)(mem_peak() - before));
    }
    fclose(f);
}

/* Every model of the fixtures through the writer: the same metadata and tensors, bit for bit. */
static void models_come_back_bit_for_bit(void **state)
{
    (void)state;
    static const char *const models[] = { "gguf/llama/q8_0.gguf", "gguf/mixtral-wide/q4_k_m.gguf",
                                          "gguf/gpt-oss/mxfp4_moe.gguf", "gguf/deepseek2/f32.gguf" };
    for (size_t k = 0; k < COE_COUNT(models); k++) {
        need_fixture(models[k]);
        struct ckpt *a, *b;
        struct gguf_out o = { 0 };
        char hex[2][17];
        assert_ok(ckpt_open(&a, fixture(models[k])));
        struct ckpt_item *items = calloc(ckpt_count(a), sizeof *items);
        for (size_t i = 0; i < ckpt_count(a); i++) items[i].t = *ckpt_at(a, i);
        for (size_t i = 0; i < ckpt_gguf(a)->n; i++) gguf_add_value(&o, &ckpt_gguf(a)->at[i]);
        assert_ok(gguf_write(temp_path("again.gguf"), &o, items, ckpt_count(a)));
        assert_ok(ckpt_open(&b, temp_path("again.gguf")));
        assert_int_equal(ckpt_count(a), ckpt_count(b));
        for (size_t i = 0; i < ckpt_count(a); i++)
            assert_memory_equal(ckpt_at(a, i)->data, ckpt_at(b, i)->data, (size_t)tensor_bytes(ckpt_at(a, i)));
        assert_ok(ckpt_fingerprint(a, hex[0]));
        assert_ok(ckpt_fingerprint(b, hex[1]));
        assert_string_equal(hex[0], hex[1]);
        json_t *x = gguf_json(ckpt_gguf(a), SIZE_MAX), *y = gguf_json(ckpt_gguf(b), SIZE_MAX);
        assert_true(json_equal(x, y));
        json_decref(x);
        json_decref(y);
        gguf_out_free(&o);
        free(items);
        ckpt_close(a);
        ckpt_close(b);
    }
}

static void the_reference_reader_agrees(void **state)
{
    (void)state;
    char command[2200];
    size_t n;
    if (system("/usr/bin/python3 -c 'import numpy, gguf' 2>/dev/null")) skip();
    free(sample(&n));
    snprintf(command, sizeof command,
             "/usr/bin/python3 -c 'import sys, gguf; r = gguf.GGUFReader(sys.argv[1]);"
             "t = {x.name: x for x in r.tensors}; assert list(t) == [\"b.weight\", \"a.weight\", \"s\"];"
             "assert list(t[\"b.weight\"].shape) == [64, 2] and t[\"a.weight\"].data.flatten()[1] == 2;"
             "assert r.fields[\"llama.block_count\"].contents() == 2' %s",
             temp_path("sample.gguf"));
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_come_back_with_their_types),
        cmocka_unit_test(metadata_become_json),
        cmocka_unit_test(shapes_are_row_major_and_data_aligned),
        cmocka_unit_test(a_copy_through_the_writer_has_the_same_bytes),
        cmocka_unit_test(the_writer_refuses_what_gguf_cannot_say),
        cmocka_unit_test(a_file_cut_at_any_byte_is_refused),
        cmocka_unit_test(a_flipped_bit_never_leads_out_of_the_file),
        cmocka_unit_test(a_split_model_opens_by_any_of_its_files),
        cmocka_unit_test(models_come_back_bit_for_bit),
        cmocka_unit_test(every_hostile_gguf_file_is_refused),
        cmocka_unit_test(the_reference_reader_agrees),
    };
    return cmocka_run_group_tests_name("ckpt/gguf", tests, NULL, NULL);
}
