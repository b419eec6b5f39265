/* Reading one safetensors file: what is accepted, what is refused and how, and that no damage crashes the reader. */
#include <stdlib.h>
#include <string.h>

#include "ckpt/reader.h"
#include "support/support.h"

/* length + header + n_data bytes 0, 1, 2, … in memory of exactly that size */
static unsigned char *make(const char *header, size_t n_data, size_t *n)
{
    size_t length = strlen(header);
    *n = 8 + length + n_data;
    unsigned char *out = malloc(*n);
    store_u64(out, length);
    memcpy(out + 8, header, length);
    for (size_t i = 0; i < n_data; i++) out[8 + length + i] = (unsigned char)i;
    return out;
}

static void refused(const char *header, size_t n_data, const char *message)
{
    size_t n;
    struct tensor_list l;
    unsigned char *bytes = make(header, n_data, &n);
    assert_int_equal(safetensors_parse(&l, bytes, n, "f"), COE_E_INPUT);
    assert_error_has(message);
    assert_error_has("f: ");
    free(bytes);
}

#define TWO                                                                                                            \
    "{\"b\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"                                              \
    "\"a\":{\"dtype\":\"I8\",\"shape\":[3],\"data_offsets\":[16,19]},\"__metadata__\":{\"format\":\"pt\"}}"

static void tensors_come_in_order_of_name_and_point_into_the_file(void **state)
{
    (void)state;
    size_t n;
    struct tensor_list l;
    unsigned char *bytes = make(TWO, 19, &n);
    assert_ok(safetensors_parse(&l, bytes, n, "f"));
    assert_int_equal(l.n, 2);
    assert_string_equal(l.at[0].name, "a");
    assert_int_equal(l.at[0].type, DT_I8);
    assert_int_equal(l.at[0].n_dims, 1);
    assert_int_equal(l.at[0].dim[0], 3);
    assert_ptr_equal(l.at[0].data, bytes + n - 3);
    assert_string_equal(l.at[1].name, "b");
    assert_int_equal(l.at[1].dim[1], 2);
    assert_ptr_equal(l.at[1].data, bytes + n - 19);
    assert_ptr_equal(tensor_find(l.at, l.n, "b"), &l.at[1]);
    assert_null(tensor_find(l.at, l.n, "c"));
    tensor_list_free(&l);
    free(bytes);
}

static void scalars_and_empty_tensors_are_tensors(void **state)
{
    (void)state;
    size_t n;
    struct tensor_list l;
    unsigned char *bytes = make("{\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
                                "\"e\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[4,4]},"
                                "\"z\":{\"dtype\":\"I64\",\"shape\":[0],\"data_offsets\":[0,0]}}  ",
                                4, &n);
    assert_ok(safetensors_parse(&l, bytes, n, "f"));
    assert_int_equal(tensor_bytes(tensor_find(l.at, l.n, "s")), 4);
    assert_int_equal(tensor_find(l.at, l.n, "s")->n_dims, 0);
    assert_int_equal(tensor_bytes(tensor_find(l.at, l.n, "e")), 0);
    tensor_list_free(&l);
    free(bytes);
    bytes = make("{}", 0, &n);
    assert_ok(safetensors_parse(&l, bytes, n, "f"));
    assert_int_equal(l.n, 0);
    tensor_list_free(&l);
    free(bytes);
}

#define ONE(type, shape, offsets) "{\"w\":{\"dtype\":" type ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static void every_lie_in_a_header_is_named(void **state)
{
    (void)state;
    refused(ONE("\"F33\"", "[1]", "[0,4]"), 4, "tensor w: unknown dtype 'F33'");
    refused(ONE("4", "[1]", "[0,4]"), 4, "tensor w: dtype is a whole number, expected a string");
    refused(ONE("\"F32\"", "[-1]", "[0,4]"), 4, "tensor w: shape holds");
    refused(ONE("\"F32\"", "[1.5]", "[0,4]"), 4, "tensor w: shape holds");
    refused(ONE("\"F32\"", "7", "[0,4]"), 4, "tensor w: shape is a whole number, expected an array");
    refused(ONE("\"F32\"", "[1,1,1,1,1]", "[0,4]"), 4, "tensor w has more than 4 dimensions");
    refused(ONE("\"F32\"", "[4294967296,4294967296]", "[0,0]"), 0, "tensor w: shape [4294967296, 4294967296]");
    refused(ONE("\"F64\"", "[2305843009213693952]", "[0,0]"), 0, "tensor w: shape"); /* 2^61 * 8 = 2^64 = 0 */
    refused(ONE("\"F32\"", "[2]", "[0,4]"), 4, "tensor w is F32 [2], expected 8 bytes, data_offsets give 4");
    refused(ONE("\"F32\"", "[1]", "[4,0]"), 4, "tensor w ends (0) before it begins (4)");
    refused(ONE("\"F32\"", "[1]", "[-4,0]"), 4, "tensor w: data_offsets holds a negative number");
    refused(ONE("\"F32\"", "[1]", "[0]"), 4, "tensor w: data_offsets");
    refused(ONE("\"F32\"", "[1]", "{}"), 4, "tensor w: data_offsets");
    refused(ONE("\"F32\"", "[1]", "[4,8]"), 4, "tensor w lies at bytes 4 to 8, but the file has 4 bytes");
    refused(ONE("\"F32\"", "[1]", "[4,8]"), 8, "a hole of 4 bytes in front of tensor w");
    refused(ONE("\"F32\"", "[1]", "[0,4]"), 5, "1 bytes behind the last tensor");
    refused("{\"w\":3}", 0, "tensor w is a whole number, expected an object");
    refused("{\"w\":{}}", 0, "tensor w: dtype is missing");
    refused("{\"__metadata__\":{\"n\":3}}", 0, "__metadata__ holds a whole number, expected strings");
    refused("{\"__metadata__\":[]}", 0, "__metadata__ is an array");
    refused("{\"w\":{\"x\":1}}", 0, "tensor w: 'x' is unknown");
    refused("{\"w\":{\"dtype\":\"I8\",\"dtype\":\"I8\"}}", 0, "tensor w: 'dtype' is there twice");
    refused("{\"__metadata__\":{},\"__metadata__\":{}}", 0, "__metadata__ is there twice");
    refused("{} {}", 0, "header, byte");
    refused("{\"\xff\":{}}", 0, "header, byte");
    refused("[]", 0, "does not begin with '{'");
    refused("", 0, "does not begin with '{'");
    refused("{\"a\\u0000b\":{}}", 0, "zero byte");
    refused("{\"a\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,2]},"
            "\"b\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
            3, "tensor b begins at byte 1 and overlaps a, which ends at 2");
    refused("{\"a\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]},"
            "\"a\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
            2, "two tensors are called a");
}

static void a_header_nested_without_end_is_refused(void **state)
{
    (void)state;
    char deep[20001];
    memset(deep, '[', sizeof deep - 1);
    deep[0] = '{';
    deep[sizeof deep - 1] = 0;
    memcpy(deep + 1, "\"w\":", 4);
    refused(deep, 0, "tensor w is an array, expected an object");
}

static void a_file_cut_at_any_byte_is_refused(void **state)
{
    (void)state;
    size_t n;
    unsigned char *bytes = make(TWO, 19, &n);
    for (size_t cut = 0; cut < n; cut++) {
        unsigned char *part = malloc(cut ? cut : 1);
        memcpy(part, bytes, cut);
        struct tensor_list l;
        if (safetensors_parse(&l, part, cut, "f") != COE_E_INPUT) fail_msg("accepted when cut at byte %zu", cut);
        free(part);
    }
    free(bytes);
}

static void a_flipped_bit_never_leads_out_of_the_file(void **state)
{
    (void)state;
    size_t n;
    unsigned char *bytes = make(TWO, 19, &n);
    for (size_t bit = 0; bit < 8 * (n - 19); bit++) {
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        struct tensor_list l;
        coe_status s = safetensors_parse(&l, bytes, n, "f");
        if (s && s != COE_E_INPUT) fail_msg("bit %zu: status %d, expected 0 or 3", bit, (int)s);
        for (size_t i = 0; i < l.n; i++) {
            const unsigned char *p = l.at[i].data;
            if (p < bytes || p + tensor_bytes(&l.at[i]) > bytes + n) fail_msg("bit %zu: %s outside", bit, l.at[i].name);
        }
        tensor_list_free(&l);
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    free(bytes);
}

static void no_name_needs_more_memory_than_the_file(void **state)
{
    (void)state;
    size_t n;
    unsigned char *bytes = make(TWO, 19, &n);
    store_u64(bytes, 100000000);
    struct tensor_list l;
    mem_reset_peak();
    uint64_t before = mem_peak();
    assert_int_equal(safetensors_parse(&l, bytes, n, "f"), COE_E_INPUT);
    assert_int_equal(mem_peak(), before);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_come_in_order_of_name_and_point_into_the_file),
        cmocka_unit_test(scalars_and_empty_tensors_are_tensors),
        cmocka_unit_test(every_lie_in_a_header_is_named),
        cmocka_unit_test(a_header_nested_without_end_is_refused),
        cmocka_unit_test(a_file_cut_at_any_byte_is_refused),
        cmocka_unit_test(a_flipped_bit_never_leads_out_of_the_file),
        cmocka_unit_test(no_name_needs_more_memory_than_the_file),
    };
    return cmocka_run_group_tests_name("ckpt/safetensors", tests, NULL, NULL);
}
