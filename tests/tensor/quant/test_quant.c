/* Block types: the table, hand-made blocks, the published test vector, FP8, properties over random rows. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "support/support.h"
#include "tensor/half.h"
#include "tensor/quant/quant.h"

static bool is_block(enum dtype t) { return dtype_info[t].block > 1; }

static void every_type_has_a_row(void **state)
{
    (void)state;
    for (enum dtype t = 0; t < DT_COUNT; t++) {
        assert_non_null(dtype_info[t].name);
        assert_true(dtype_info[t].block >= 1 && dtype_info[t].bytes >= 1);
        assert_int_equal(dtype_by_name(dtype_info[t].name), t);
        int32_t id = dtype_ggml_id(t);
        if (is_block(t)) assert_true(id >= 0);
        if (id >= 0) assert_int_equal(dtype_of_ggml((uint32_t)id), t);
    }
    static const uint32_t removed[] = { 4, 5, 31, 32, 33, 36, 37, 38, 43, UINT32_MAX };
    for (size_t i = 0; i < COE_COUNT(removed); i++) assert_int_equal(dtype_of_ggml(removed[i]), DT_COUNT);
}

/* d = 2 (0x4000); byte 0 = 0x9F: low nibble 15 -> (15 - 8) * 2 = 14, high 9 -> 2; the others 0x88 -> 0 */
static void a_block_of_q4_0_by_hand(void **state)
{
    (void)state;
    uint8_t b[18] = { 0x00, 0x40, 0x9F };
    float y[32];
    memset(b + 3, 0x88, 15);
    dtype_decode_row(y, b, DT_Q4_0, 32);
    assert_true(y[0] == 14.0f && y[16] == 2.0f);
    for (int i = 1; i < 16; i++) assert_true(y[i] == 0.0f && y[i + 16] == 0.0f);
}

/* e = 128: 2^(128-127) = 2; code 1 is 0.5 -> 1, code 7 is 6 -> 12, code 15 is -6 -> -12 */
static void a_block_of_mxfp4_by_hand(void **state)
{
    (void)state;
    uint8_t b[17] = { 128, 0x71, 0x0F };
    float y[32];
    dtype_decode_row(y, b, DT_MXFP4, 32);
    assert_true(y[0] == 1.0f && y[16] == 12.0f && y[1] == -12.0f && y[17] == 0.0f);
    b[0] = 0; /* subnormal scales are kept: 2^-128 * 1 */
    dtype_decode_row(y, b, DT_MXFP4, 32);
    assert_true(y[0] == 0x1p-128f);
}

/* x_i = ((37 i + 11) mod 101 - 50) / 16: the test vector of the method card, with FNV-1a hashes of the reference's
 * bytes */
static void the_published_vector_gives_the_published_bytes(void **state)
{
    (void)state;
    static const struct {
        enum dtype type;
        int n;
        uint32_t plain, weighted; /* 0: not published */
    } cases[] = {
        { DT_Q4_0, 32, 0x90204e68, 0x4ef4cedb },  { DT_Q8_0, 32, 0xc3da6259, 0 },
        { DT_MXFP4, 32, 0xcf985e1c, 0 },          { DT_Q2_K, 256, 0x44499a3a, 0xc5e1f7ad },
        { DT_Q3_K, 256, 0x1b27085d, 0x047a939e }, { DT_Q4_K, 256, 0xb257fdd6, 0xf87c5584 },
        { DT_Q5_K, 256, 0xbcf97e33, 0x90102360 }, { DT_Q6_K, 256, 0x125dc5fb, 0xb99acfbd },
        { DT_IQ4_XS, 256, 0x11c06769, 0 },        { DT_TQ1_0, 256, 0x7ec00e9e, 0 },
        { DT_TQ2_0, 256, 0x04d5797f, 0 },
    };
    float x[256], w[256];
    for (int i = 0; i < 256; i++) {
        x[i] = (float)((37 * i + 11) % 101 - 50) / 16.0f;
        w[i] = (float)(1 + i % 7);
    }
    for (size_t k = 0; k < COE_COUNT(cases); k++)
        for (int weighted = 0; weighted < 2; weighted++) {
            const uint32_t expected = weighted ? cases[k].weighted : cases[k].plain;
            uint8_t b[512];
            uint32_t h = 2166136261u;
            if (!expected) continue;
            dtype_encode_row(b, cases[k].type, x, cases[k].n, weighted ? w : NULL);
            for (int i = 0; i < dtype_info[cases[k].type].bytes; i++) h = (h ^ b[i]) * 16777619u;
            if (h != expected)
                fail_msg("%s%s: hash %08x, expected %08x", dtype_info[cases[k].type].name, weighted ? " weighted" : "",
                         h, expected);
        }
}

/* Of 512 normal values each type keeps the error (root of the relative mean square) under its bound. */
static void encoding_keeps_the_error_in_bounds(void **state)
{
    (void)state;
    static const struct {
        enum dtype type;
        double bound;
    } cases[] = { { DT_Q8_0, 0.01 },  { DT_Q6_K, 0.03 },  { DT_Q5_K, 0.05 }, { DT_Q5_1, 0.06 },  { DT_Q5_0, 0.07 },
                  { DT_Q4_K, 0.1 },   { DT_Q4_1, 0.1 },   { DT_Q4_0, 0.12 }, { DT_IQ4_NL, 0.1 }, { DT_IQ4_XS, 0.1 },
                  { DT_MXFP4, 0.15 }, { DT_NVFP4, 0.12 }, { DT_Q3_K, 0.2 },  { DT_Q2_K, 0.35 },  { DT_TQ2_0, 0.8 } };
    float x[512], y[512], w[512];
    uint8_t b[2048];
    struct rng r = rng_make(5, rng_stream(RNG_TEST, 0));
    for (int i = 0; i < 512; i++) x[i] = (float)rng_normal(&r), w[i] = 1.0f;
    for (size_t k = 0; k < COE_COUNT(cases); k++)
        for (int weighted = 0; weighted < 2; weighted++) {
            double error = 0, norm = 0;
            dtype_encode_row(b, cases[k].type, x, 512, weighted ? w : NULL);
            dtype_decode_row(y, b, cases[k].type, 512);
            for (int i = 0; i < 512; i++) {
                error += (double)((x[i] - y[i]) * (x[i] - y[i]));
                norm += (double)(x[i] * x[i]);
            }
            if (!(sqrt(error / norm) <= cases[k].bound))
                fail_msg("%s: relative error %g, expected at most %g", dtype_info[cases[k].type].name,
                         sqrt(error / norm), cases[k].bound);
        }
}

static void zeros_stay_zeros(void **state)
{
    (void)state;
    float x[256] = { 0 }, y[256];
    uint8_t b[1024];
    for (enum dtype t = 0; t < DT_COUNT; t++) {
        if (!dtype_can_encode(t)) continue;
        dtype_encode_row(b, t, x, 256, NULL);
        dtype_decode_row(y, b, t, 256);
        for (int i = 0; i < 256; i++)
            if (y[i] != 0.0f) fail_msg("%s: value %d is %g, expected 0", dtype_info[t].name, i, (double)y[i]);
    }
}

/* Nothing is promised of the values, only that no code leaves its range (UBSan watches). */
static void nan_and_infinity_do_no_harm(void **state)
{
    (void)state;
    float x[256], y[256];
    uint8_t b[1024];
    for (int i = 0; i < 256; i++) {
        static const float odd[] = { NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 1e-45f, 0.0f, 1.0f };
        x[i] = odd[i * 5 % 8];
    }
    for (enum dtype t = 0; t < DT_COUNT; t++)
        for (int k = 0; k < 9 && dtype_can_encode(t); k++) {
            float part[256];
            for (int i = 0; i < 256; i++) part[i] = k < 8 ? x[(i & ~7) + k] + (float)(i % 7) : x[i];
            dtype_encode_row(b, t, part, 256, NULL);
            dtype_encode_row(b, t, part, 256, x);
            dtype_decode_row(y, b, t, 256);
        }
}

/* A row's bytes do not depend on the rows beside it, and widen is the same as decoding. */
static void rows_are_independent(void **state)
{
    (void)state;
    float x[512], y[512], z[256];
    uint8_t both[2048], one[1024];
    struct rng r = rng_make(6, rng_stream(RNG_TEST, 0));
    for (int i = 0; i < 512; i++) x[i] = (float)rng_normal(&r);
    for (enum dtype t = 0; t < DT_COUNT; t++) {
        if (!is_block(t) || !dtype_can_encode(t)) continue;
        uint64_t half = 0;
        assert_true(dtype_bytes(t, 256, &half));
        dtype_encode_row(both, t, x, 512, NULL);
        dtype_encode_row(one, t, x + 256, 256, NULL);
        assert_memory_equal(both + half, one, (size_t)half);
        dtype_decode_row(y, both, t, 512);
        widen(z, one, t, 256);
        assert_memory_equal(y + 256, z, sizeof z);
    }
}

/* 3 x 5 codes of 1.0 (0x38) under blocks of 2 x 2: scales 1..6 in two rows of three, so row 2 has 4 4 5 5 6 */
static void fp8_blocks_have_their_scales(void **state)
{
    (void)state;
    uint8_t code[15];
    static const float scale[6] = { 1, 2, 3, 4, 5, 6 }, expected[10] = { 1, 1, 2, 2, 3, 4, 4, 5, 5, 6 };
    float y[10];
    memset(code, 0x38, sizeof code);
    fp8_decode_rows(y, code + 5, scale, 1, 2, 5, 2, 2);
    for (int i = 0; i < 10; i++) assert_true(y[i] == expected[i]);
}

/* byte 0 = 0x21: values 1, 2 -> low nibbles of bytes 0 and 1; byte 8 = 0x43: values 16 and 17 -> their high nibbles */
static void mxfp4_pairs_are_permuted_nibbles(void **state)
{
    (void)state;
    uint8_t pairs[32] = { 0x21 }, scales[2] = { 130, 9 }, b[34], back[32], scales_back[2];
    pairs[8] = 0x43;
    for (int i = 16; i < 32; i++) pairs[i] = (uint8_t)(i * 37);
    mxfp4_from_pairs(b, pairs, scales, 64);
    assert_int_equal(b[0], 130);
    assert_int_equal(b[1], 0x31);
    assert_int_equal(b[2], 0x42);
    assert_int_equal(b[17], 9);
    mxfp4_to_pairs(back, scales_back, b, 64);
    assert_memory_equal(back, pairs, 32);
    assert_memory_equal(scales_back, scales, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_has_a_row),
        cmocka_unit_test(a_block_of_q4_0_by_hand),
        cmocka_unit_test(a_block_of_mxfp4_by_hand),
        cmocka_unit_test(the_published_vector_gives_the_published_bytes),
        cmocka_unit_test(encoding_keeps_the_error_in_bounds),
        cmocka_unit_test(zeros_stay_zeros),
        cmocka_unit_test(nan_and_infinity_do_no_harm),
        cmocka_unit_test(rows_are_independent),
        cmocka_unit_test(fp8_blocks_have_their_scales),
        cmocka_unit_test(mxfp4_pairs_are_permuted_nibbles),
    };
    return cmocka_run_group_tests_name("tensor/quant", tests, NULL, NULL);
}
