/* kv: where keys and values lie in a cache, how far rounding moves them. */
#include "tensor/levels.h"

#include "tensor/half.h"

#define POSITIONS 35 /* two key blocks and a rest */

static const enum dtype types[] = { DT_F32, DT_F16, DT_Q8_0 };
static const int64_t dims[] = { 1, 8, 31, 32, 40, 64, 100 };
static float x[POSITIONS * 100], y[100];
static char blocks[3 * KEY_BLOCK * 100 * 4], rows[POSITIONS * 128 * 4];

static void floats_lie_in_blocks_of_sixteen_keys_and_rows_of_values(void **state)
{
    (void)state;
    const int64_t n = 5;
    fill_random(x, COE_COUNT(x), 1, 1);
    for (int64_t j = 0; j < POSITIONS; j++) {
        kv_store_key(blocks, DT_F32, j, x + j * n, n);
        kv_store_value(rows, DT_F32, j, x + j * n, n);
    }
    for (int64_t j = 0; j < POSITIONS; j++)
        for (int64_t i = 0; i < n; i++) {
            assert_true(((float *)(void *)blocks)[(j / 16) * n * 16 + i * 16 + j % 16] == x[j * n + i]);
            assert_true(((float *)(void *)rows)[j * n + i] == x[j * n + i]);
        }
}

/* Position 17 of keys of 33 ones, the last one a 127: the second block, lane 1; scales 1/127 and 1, codes 127. */
static void a_q8_0_key_has_its_scales_before_its_codes(void **state)
{
    (void)state;
    float key[33];
    for (int i = 0; i < 33; i++) key[i] = i < 32 ? 1 : 127;
    kv_store_key(blocks, DT_Q8_0, 17, key, 33);
    const char *block = blocks + kv_key_bytes(DT_Q8_0, 33);
    uint16_t scale[2];
    assert_int_equal(kv_key_bytes(DT_Q8_0, 33), 16 * 33 + 2 * 32);
    memcpy(&scale[0], block + 2, 2);
    memcpy(&scale[1], block + 32 + 512 + 2, 2);
    assert_int_equal(scale[0], f32_to_f16(1 / 127.0f));
    assert_int_equal(scale[1], f32_to_f16(1));
    for (int i = 0; i < 32; i++) assert_int_equal(block[32 + i * 16 + 1], 127);
    assert_int_equal(block[32 + 512 + 32 + 1], 127);
}

/* Half a step: of F16 2^-11 of the number, of Q8_0 max/254 and what the F16 scale is off (127 codes by 2^-11, at
 * least by 2^-25). */
static float bound(enum dtype t, float value, float largest)
{
    if (t == DT_F32) return 0;
    return t == DT_F16 ? fabsf(value) * 0x1p-11f + 0x1p-25f
                       : largest * (1 / 254.0f * 1.001f + 0x1p-11f) + 127 * 0x1p-25f;
}

static void assert_rounded(enum dtype t, const float *got, const float *want, int64_t n, const char *what)
{
    for (int64_t i = 0; i < n; i++) {
        float largest = 0;
        for (int64_t j = i / KV_GROUP * KV_GROUP; j < COE_MIN(n, i / KV_GROUP * KV_GROUP + KV_GROUP); j++)
            largest = fmaxf(largest, fabsf(want[j]));
        if (!(fabsf(got[i] - want[i]) <= bound(t, want[i], largest)))
            fail_msg("%s, %s of %lld: element %lld is %g, stored %g", what, dtype_info[t].name, (long long)n,
                     (long long)i, (double)got[i], (double)want[i]);
    }
}

static void what_is_read_is_what_was_written_within_half_a_step(void **state)
{
    (void)state;
    for (size_t t = 0; t < COE_COUNT(types); t++)
        for (size_t d = 0; d < COE_COUNT(dims); d++)
            for (int scale = -8; scale <= 8; scale += 4) {
                const int64_t n = dims[d];
                fill_random(x, (size_t)(POSITIONS * n), ldexpf(1, scale), 3);
                for (int64_t j = 0; j < POSITIONS; j++) {
                    kv_store_key(blocks, types[t], j, x + j * n, n);
                    kv_store_value(rows, types[t], j, x + j * n, n);
                }
                for (int64_t j = 0; j < POSITIONS; j++) {
                    kv_load_key(y, blocks, types[t], j, n);
                    assert_rounded(types[t], y, x + j * n, n, "key");
                    kv_load_value(y, rows, types[t], j, n);
                    assert_rounded(types[t], y, x + j * n, n, "value");
                }
            }
}

/* A head of 128: 512, 256 and 136 bytes a key or value. */
static void sizes_are_those_of_the_types(void **state)
{
    (void)state;
    static const int64_t bytes[] = { 512, 256, 136 };
    for (size_t t = 0; t < COE_COUNT(types); t++) {
        assert_int_equal(kv_key_bytes(types[t], 128), 16 * bytes[t]);
        assert_int_equal(kv_value_bytes(types[t], 128), bytes[t]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(floats_lie_in_blocks_of_sixteen_keys_and_rows_of_values),
        cmocka_unit_test(a_q8_0_key_has_its_scales_before_its_codes),
        cmocka_unit_test(what_is_read_is_what_was_written_within_half_a_step),
        cmocka_unit_test(sizes_are_those_of_the_types),
    };
    return kernels_init() || cmocka_run_group_tests_name("tensor/kv", tests, NULL, NULL);
}
