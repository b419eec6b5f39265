/* .npy: bytes that numpy wrote, round trips, lies in the header. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/reader.h"
#include "support/support.h"

/* The bytes of numpy.save(numpy.arange(6, dtype="<f4").reshape(2, 3)) up to the data: 6 + 2 + 2 + 118 = 128. */
static unsigned char *make(const char *dict, int version, const void *data, size_t n_data, size_t *n)
{
    size_t begin = version == 1 ? 10 : 12, end = 128;
    *n = end + n_data;
    unsigned char *out = malloc(*n);
    memset(out, ' ', end);
    memcpy(out, "\x93NUMPY", 6);
    out[6] = (unsigned char)version;
    out[7] = 0;
    out[8] = (unsigned char)(end - begin);
    out[9] = 0;
    if (version > 1) out[10] = out[11] = 0;
    memcpy(out + begin, dict, strlen(dict));
    out[end - 1] = '\n';
    if (n_data) memcpy(out + end, data, n_data);
    return out;
}

static const float six[6] = { 0, 1, 2, 3, 4, 5 };

static void what_numpy_writes_is_read(void **state)
{
    (void)state;
    for (int version = 1; version <= 3; version++) {
        size_t n;
        struct npy a;
        unsigned char *bytes =
            make("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", version, six, sizeof six, &n);
        assert_ok(npy_parse(&a, bytes, n, "f"));
        assert_int_equal(a.type, DT_F32);
        assert_int_equal(a.n_dims, 2);
        assert_int_equal(a.dim[0], 2);
        assert_int_equal(a.dim[1], 3);
        assert_memory_equal(a.data, six, sizeof six);
        npy_free(&a);
        free(bytes);
    }
}

static void refused(const char *dict, size_t n_data, const char *message)
{
    size_t n;
    struct npy a;
    unsigned char *bytes = make(dict, 1, six, n_data, &n);
    assert_int_equal(npy_parse(&a, bytes, n, "f"), COE_E_INPUT);
    assert_error_has(message);
    assert_null(a.data);
    free(bytes);
}

static void every_lie_is_named(void **state)
{
    (void)state;
    refused("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }", 24, "Fortran order");
    refused("{'descr': '>f4', 'fortran_order': False, 'shape': (2, 3), }", 24, "type '>f4'");
    refused("{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (2, 3), }", 24, "records");
    refused("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 4), }", 24,
            "has 24 bytes of data, its shape needs 32");
    refused("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3), }", 24,
            "has 24 bytes of data, its shape needs 12");
    refused("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }", 0, "more elements");
    refused("{'descr': '<f8', 'fortran_order': False, 'shape': (2305843009213693952,), }", 0, "more elements");
    refused("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 1, 1, 6), }", 24, "more than 4 dimensions");
    refused("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", 24, "not a tuple");
    refused("{'descr': '<f4', 'fortran_order': False, 'shape': (6), }", 24, "not a tuple");
    refused("{'descr': '<f4', 'fortran_order': False, 'shape': (-6,), }", 24, "not a tuple");
    refused("{'descr': '<f4', 'fortran_order': 0, 'shape': (6,), }", 24, "fortran_order");
    refused("{'descr': '<f4', 'fortran_order': False, 'shape': (6,), 'x': 1}", 24, "key 'x' is unknown");
    refused("{'descr': '<f4', 'descr': '<f4', 'shape': (6,), }", 24, "key 'descr' is there twice");
    refused("{'descr': '<f4', 'shape': (6,), }", 24, "lacks");
    refused("3", 24, "not a dictionary");
}

static void a_file_cut_at_any_byte_is_refused(void **state)
{
    (void)state;
    size_t n;
    unsigned char *bytes = make("{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }", 1, six, sizeof six, &n);
    for (size_t cut = 0; cut < n; cut++) {
        unsigned char *part = malloc(cut ? cut : 1);
        memcpy(part, bytes, cut);
        struct npy a;
        if (npy_parse(&a, part, cut, "f") != COE_E_INPUT) fail_msg("accepted when cut at byte %zu", cut);
        free(part);
    }
    for (size_t bit = 0; bit < 8 * 128; bit++) {
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        struct npy a;
        (void)npy_parse(&a, bytes, n, "f");
        npy_free(&a);
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    free(bytes);
}

static void arrays_come_back_bit_for_bit(void **state)
{
    (void)state;
    static const struct {
        enum dtype type;
        int32_t n_dims;
        int64_t dim[MAX_DIMS];
    } cases[] = {
        { DT_F32, 0, { 0 } }, { DT_F32, 1, { 3 } },    { DT_F64, 2, { 2, 1 } }, { DT_I32, 3, { 1, 2, 1 } },
        { DT_I64, 1, { 2 } }, { DT_F16, 2, { 3, 4 } }, { DT_I16, 1, { 12 } },   { DT_U8, 2, { 4, 5 } },
        { DT_I8, 1, { 24 } }, { DT_BOOL, 1, { 24 } },  { DT_F32, 2, { 0, 4 } }, { DT_F32, 4, { 1, 1, 2, 3 } }
    };
    for (size_t i = 0; i < COE_COUNT(cases); i++) {
        struct npy a;
        int64_t n = 1;
        uint64_t bytes = 0;
        for (int32_t k = 0; k < cases[i].n_dims; k++) n *= cases[i].dim[k];
        assert_true(dtype_bytes(cases[i].type, (uint64_t)n, &bytes) && bytes <= sizeof six);
        assert_ok(npy_write(temp_path("a.npy"), cases[i].type, cases[i].n_dims, cases[i].dim, six));
        assert_ok(npy_read(&a, temp_path("a.npy")));
        assert_int_equal(a.type, cases[i].type);
        assert_int_equal(a.n_dims, cases[i].n_dims);
        for (int32_t k = 0; k < a.n_dims; k++) assert_int_equal(a.dim[k], cases[i].dim[k]);
        if (bytes) assert_memory_equal(a.data, six, (size_t)bytes);
        npy_free(&a);
    }
    assert_int_equal(npy_write(temp_path("b.npy"), DT_BF16, 1, (int64_t[]){ 1 }, six), COE_E_USAGE);
}

static void numpy_reads_what_is_written(void **state)
{
    (void)state;
    char command[2200];
    if (system("/usr/bin/python3 -c 'import numpy' 2>/dev/null")) skip();
    assert_ok(npy_write(temp_path("ours.npy"), DT_F32, 2, (int64_t[]){ 2, 3 }, six));
    snprintf(command, sizeof command,
             "/usr/bin/python3 -c 'import sys, numpy; a = numpy.load(sys.argv[1]); assert a.shape == (2, 3) and a[1, "
             "2] == 5;"
             "numpy.save(sys.argv[2], a)' %s %s && cmp %s %s",
             temp_path("ours.npy"), temp_path("theirs.npy"), temp_path("ours.npy"), temp_path("theirs.npy"));
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_numpy_writes_is_read),         cmocka_unit_test(every_lie_is_named),
        cmocka_unit_test(a_file_cut_at_any_byte_is_refused), cmocka_unit_test(arrays_come_back_bit_for_bit),
        cmocka_unit_test(numpy_reads_what_is_written),
    };
    return cmocka_run_group_tests_name("ckpt/npy", tests, NULL, NULL);
}
