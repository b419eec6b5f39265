/* The trace file: what is written is read again, and damage is named. */
#include "support/toy_trace.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"

#define MAX_BYTES ((uint64_t)1 << 24)

/* Every value of every column is different. */
static struct trace *full_trace(void)
{
    struct trace *t = toy_trace(3, 2);
    assert_int_equal(trace_add_domain(t, "second \"label\""), 1);
    memcpy(t->model, "0123456789abcdef", 17);
    t->domains.at[1].tokens = 5;
    struct trace_file_source f = { arena_strdup(&t->arena, "dir/file.txt"), 2, 5 };
    assert_true(VEC_PUSH(&t->domains.at[1].files, f));
    for (int c = 0; c < TRACE_N_COLUMNS; c++) {
        const struct trace_column_info *i = &trace_column_info[c];
        for (size_t v = 0; v < t->domains.n * t->stride[i->shape]; v++)
            if (i->type == DT_F64) ((double *)t->column[c])[v] = 0.1 * (double)v + c;
            else if (i->type == DT_F32) ((float *)t->column[c])[v] = 0.1f * (float)v + (float)c;
            else ((int64_t *)t->column[c])[v] = (int64_t)(v * 7) + c;
    }
    return t;
}

static unsigned char *file_bytes(struct trace *t, size_t *n)
{
    assert_ok(trace_write(t, temp_path("t.coet")));
    return slurp(temp_path("t.coet"), n);
}

static void what_is_written_is_read_again(void **state)
{
    (void)state;
    struct trace *t = full_trace(), *again;
    char a[17], b[17];
    assert_ok(trace_write(t, temp_path("t.coet")));
    assert_ok(trace_read(&again, temp_path("t.coet")));
    assert_string_equal(again->model, t->model);
    assert_string_equal(again->domains.at[1].label, "second \"label\"");
    assert_string_equal(again->domains.at[1].files.at[0].path, "file.txt");
    assert_int_equal(again->domains.at[1].files.at[0].documents, 2);
    for (int c = 0; c < TRACE_N_COLUMNS; c++) {
        assert_int_equal(trace_column_bytes(again, c), trace_column_bytes(t, c));
        assert_memory_equal(again->column[c], t->column[c], trace_column_bytes(t, c));
    }
    assert_ok(trace_fingerprint(t, a));
    assert_ok(trace_fingerprint(again, b));
    assert_string_equal(a, b);
    ((uint64_t *)again->column[TRACE_COUNT])[0]++;
    assert_ok(trace_fingerprint(again, b));
    assert_string_not_equal(a, b);
    trace_free(t);
    trace_free(again);
}

static void a_file_cut_anywhere_is_refused(void **state)
{
    (void)state;
    size_t n;
    struct trace *t = full_trace(), *again;
    unsigned char *bytes = file_bytes(t, &n);
    for (size_t cut = 0; cut < n; cut += cut < 64 ? 1 : 13)
        if (trace_parse(&again, bytes, cut, "cut.coet", MAX_BYTES) != COE_E_INPUT)
            fail_msg("%zu of %zu bytes are read", cut, n);
    assert_error_has("cut.coet");
    free(bytes);
    trace_free(t);
}

/* Every byte is covered by a check: a changed one is refused, or (inside a frame's own header) changes nothing. */
static void a_changed_byte_never_changes_a_number(void **state)
{
    (void)state;
    size_t n;
    struct trace *t = full_trace(), *again;
    char want[17], got[17];
    unsigned char *bytes = file_bytes(t, &n);
    assert_ok(trace_fingerprint(t, want));
    for (size_t i = 0; i < n; i += i < 64 ? 1 : 3) {
        bytes[i] ^= (unsigned char)(1 << (i % 8));
        if (!trace_parse(&again, bytes, n, "flipped.coet", MAX_BYTES)) {
            assert_ok(trace_fingerprint(again, got));
            if (strcmp(want, got)) fail_msg("byte %zu of %zu: the change goes unseen", i, n);
            trace_free(again);
        }
        bytes[i] ^= (unsigned char)(1 << (i % 8));
    }
    free(bytes);
    trace_free(t);
}

static void a_damaged_column_is_named(void **state)
{
    (void)state;
    size_t n;
    struct trace *t = full_trace(), *again;
    unsigned char *bytes = file_bytes(t, &n);
    bytes[44] ^= 0x55; /* inside the first frame, column tokens */
    assert_int_equal(trace_parse(&again, bytes, n, "t.coet", MAX_BYTES), COE_E_INPUT);
    assert_error_has("t.coet: column tokens: frame 0");
    free(bytes);
    trace_free(t);
}

static void shapes_that_need_too_much_memory_are_refused(void **state)
{
    (void)state;
    size_t n;
    struct trace *t = full_trace(), *again;
    unsigned char *bytes = file_bytes(t, &n);
    assert_int_equal(trace_parse(&again, bytes, n, "t.coet", 100), COE_E_INPUT);
    assert_error_has("more than the 100 bytes allowed");
    free(bytes);
    trace_free(t);
}

static void other_files_are_refused(void **state)
{
    (void)state;
    struct trace *t;
    spill(temp_path("plan.json"), "{\"coe_plan\": 1}", 15);
    assert_int_equal(trace_read(&t, temp_path("plan.json")), COE_E_INPUT);
    assert_error_has("does not begin like a trace");
    assert_int_equal(trace_read(&t, temp_path("nothing")), COE_E_INPUT);
    assert_error_has("No such file");
    assert_int_equal(trace_read(&t, "/"), COE_E_INPUT);
}

static void columns_go_to_other_programs(void **state)
{
    (void)state;
    struct trace *t = full_trace();
    struct npy a;
    size_t n;
    assert_ok(trace_export(t, "npy", temp_path("npy")));
    assert_ok(npy_read(&a, temp_path("npy/layer00.score.npy")));
    assert_int_equal(a.n_dims, 3);
    assert_int_equal(a.dim[0] * 100 + a.dim[1] * 10 + a.dim[2], 223); /* [2 domains, 2 iterations, 3 experts] */
    assert_memory_equal(a.data, t->column[TRACE_SCORE], 12 * sizeof(double));
    npy_free(&a);
    assert_ok(npy_read(&a, temp_path("npy/layer00.chain.npy")));
    assert_int_equal(a.dim[0] * 1000 + a.dim[1] * 100 + a.dim[2] * 10 + a.dim[3], 2133);
    npy_free(&a);
    assert_ok(trace_export(t, "csv", temp_path("csv")));
    char *text = (char *)slurp(temp_path("csv/experts.csv"), &n);
    static const char row[] = "\n\"second \"\"label\"\"\",0,1,2,";
    assert_non_null(memmem(text, n, row, strlen(row)));
    free(text);
    assert_int_equal(trace_export(t, "xml", temp_path("x")), COE_E_USAGE);
    trace_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_again),
        cmocka_unit_test(a_file_cut_anywhere_is_refused),
        cmocka_unit_test(a_changed_byte_never_changes_a_number),
        cmocka_unit_test(a_damaged_column_is_named),
        cmocka_unit_test(shapes_that_need_too_much_memory_are_refused),
        cmocka_unit_test(other_files_are_refused),
        cmocka_unit_test(columns_go_to_other_programs),
    };
    return cmocka_run_group_tests_name("trace/file", tests, NULL, NULL);
}
