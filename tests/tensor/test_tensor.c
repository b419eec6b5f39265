/* Storage types, shapes, and conversion to and from float. */
#include "tensor/levels.h"

#include "tensor/half.h"

static void types_are_found_by_their_safetensors_names(void **state)
{
    (void)state;
    assert_int_equal(dtype_by_name("F32"), DT_F32);
    assert_int_equal(dtype_by_name("BF16"), DT_BF16);
    assert_int_equal(dtype_by_name("F8_E4M3"), DT_F8_E4M3);
    assert_int_equal(dtype_by_name("F33"), DT_COUNT);
    assert_int_equal(dtype_by_name(""), DT_COUNT);
    for (int t = 0; t < DT_COUNT; t++) assert_int_equal(dtype_by_name(dtype_info[t].name), t);
}

static void bytes_of_elements_are_refused_when_they_overflow(void **state)
{
    (void)state;
    uint64_t bytes = 0;
    assert_true(dtype_bytes(DT_BF16, 10, &bytes));
    assert_int_equal(bytes, 20);
    assert_true(dtype_bytes(DT_F64, UINT64_MAX / 8, &bytes));
    assert_false(dtype_bytes(DT_F64, UINT64_MAX / 8 + 1, &bytes));
    assert_false(dtype_bytes(DT_F32, UINT64_MAX, &bytes));
}

static void shapes_are_written_and_counted(void **state)
{
    (void)state;
    char text[96];
    struct tensor t = { .name = "t", .n_dims = 3, .dim = { 2, 3, 5 } };
    assert_int_equal(tensor_count(&t), 30);
    assert_string_equal(tensor_shape_text(&t, text), "[2, 3, 5]");
    t.n_dims = 0;
    assert_int_equal(tensor_count(&t), 1);
    assert_string_equal(tensor_shape_text(&t, text), "[]");
    t = (struct tensor){ .n_dims = 4, .dim = { INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN } };
    assert_int_equal(strlen(tensor_shape_text(&t, text)), 4 * 20 + 3 * 2 + 2);
}

/* One element of each simple type, at an odd address. */
static void every_plain_type_is_widened_from_unaligned_memory(void **state)
{
    (void)state;
    const struct {
        enum dtype type;
        unsigned char bytes[8];
        float value;
    } cases[] = {
        { DT_F32, { 0x00, 0x00, 0xC0, 0x3F }, 1.5f },
        { DT_F16, { 0x00, 0xC1 }, -2.5f },                /* 1 10000 0100000000: -1.25 * 2 */
        { DT_BF16, { 0x49, 0x40 }, 3.140625f },
        { DT_F64, { 0, 0, 0, 0, 0, 0, 0xE0, 0xBF }, -0.5f },
        { DT_I8, { 0x80 }, -128 },
        { DT_U8, { 0x80 }, 128 },
        { DT_I16, { 0xFE, 0xFF }, -2 },
        { DT_I32, { 0x00, 0x00, 0x01, 0x00 }, 65536 },
        { DT_I64, { 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF }, -1 },
        { DT_BOOL, { 2 }, 1 },
        { DT_F8_E4M3, { 0x7E }, 448 },                    /* 0 1111 110: 1.75 * 2^8 */
        { DT_F8_E4M3, { 0x81 }, -0x1p-9f },               /* the smallest subnormal */
    };
    for (size_t i = 0; i < COE_COUNT(cases); i++) {
        unsigned char memory[9] = { 0 };
        float got = 0;
        memcpy(memory + 1, cases[i].bytes, 8);
        widen(&got, memory + 1, cases[i].type, 1);
        if (got != cases[i].value)
            fail_msg("%s: %g, expected %g", dtype_info[cases[i].type].name, (double)got, (double)cases[i].value);
    }
    float nan = 0;
    widen(&nan, (const unsigned char[]){ 0x7F }, DT_F8_E4M3, 1);
    assert_true(isnan(nan));
}

/* All 65536 halves go out and come back; every level agrees with half.h. */
static void all_halves_survive_the_round_trip_at_every_level(void **state)
{
    (void)state;
    static uint16_t half[65536], back[65536];
    static float wide[65536];
    static const enum dtype types[] = { DT_F16, DT_BF16 };
    for (int i = 0; i < 65536; i++) half[i] = (uint16_t)i;
    for (const struct kernels *const *k = kernels_all(); *k; k++)
        for (size_t t = 0; t < 2; t++) {
            (*k)->widen(wide, half, types[t], 65536);
            (*k)->narrow(back, types[t], wide, 65536);
            for (int i = 0; i < 65536; i++) {
                const float by_definition = types[t] == DT_F16 ? f16_to_f32(half[i]) : bf16_to_f32(half[i]);
                if (isnan(by_definition)) {
                    assert_true(isnan(wide[i]));
                    continue;
                }
                assert_same_bits(&wide[i], &by_definition, 1, dtype_info[types[t]].name, (*k)->name);
                assert_int_equal(back[i], half[i]);
            }
        }
}

/* Ties go to even: halfway between 1 and the next half, and between that and the one after. */
static void narrowing_rounds_to_nearest_even(void **state)
{
    (void)state;
    const float x[] = { 1 + 0x1p-11f, 1 + 3 * 0x1p-11f, 1 + 0x1p-11f + 0x1p-23f, 65519, 65520, -1e6f, 0x1p-25f,
                        0x1.8p-24f, 1e-30f };
    const uint16_t f16[] = { 0x3C00, 0x3C02, 0x3C01, 0x7BFF, 0x7C00, 0xFC00, 0x0000, 0x0002, 0x0000 };
    const float y[] = { 1 + 0x1p-8f, 1 + 3 * 0x1p-8f, 1 + 0x1p-8f + 0x1p-23f, 3.4e38f, 0x1.FFp127f, -INFINITY };
    const uint16_t bf16[] = { 0x3F80, 0x3F82, 0x3F81, 0x7F80, 0x7F80, 0xFF80 };
    for (const struct kernels *const *k = kernels_all(); *k; k++) {
        uint16_t got[9];
        (*k)->narrow(got, DT_F16, x, 9);
        for (size_t i = 0; i < COE_COUNT(f16); i++) assert_int_equal(got[i], f16[i]);
        (*k)->narrow(got, DT_BF16, y, 6);
        for (size_t i = 0; i < COE_COUNT(bf16); i++) assert_int_equal(got[i], bf16[i]);
        (*k)->narrow(got, DT_BF16, (const float[]){ NAN }, 1);
        assert_true(isnan(bf16_to_f32(got[0])));
    }
}

static void conversion_of_odd_lengths_touches_nothing_behind_the_end(void **state)
{
    (void)state;
    float x[300], wide[300];
    uint16_t half[300];
    fill_random(x, 300, 10, 3);
    for (const struct kernels *const *k = kernels_all(); *k; k++)
        FOR_SIZES(n)
        {
            for (size_t i = 0; i < 300; i++) half[i] = 0xABCD, wide[i] = 7;
            (*k)->narrow(half, DT_F16, x + 1, (int64_t)n);
            assert_int_equal(half[n], 0xABCD);
            (*k)->widen(wide, half, DT_F16, (int64_t)n);
            assert_true(wide[n] == 7);
            for (size_t i = 0; i < n; i++) assert_true(wide[i] == f16_to_f32(f32_to_f16(x[i + 1])));
        }
}

/* 2^62 * 2 does not fit, whether a zero stands before, between or behind. */
static void a_shape_that_cannot_be_counted_is_told_in_any_order(void **state)
{
    (void)state;
    const int64_t big = (int64_t)1 << 62;
    const int64_t shapes[][3] = { { big, 2, 1 }, { 0, big, 2 }, { big, 0, 2 }, { big, 2, 0 }, { -1, 1, 1 } };
    for (size_t i = 0; i < COE_COUNT(shapes); i++) assert_false(shape_fits(shapes[i], 3));
    assert_true(shape_fits((const int64_t[]){ big, 0, 1 }, 3));
    assert_true(shape_fits(NULL, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(types_are_found_by_their_safetensors_names),
        cmocka_unit_test(bytes_of_elements_are_refused_when_they_overflow),
        cmocka_unit_test(shapes_are_written_and_counted),
        cmocka_unit_test(every_plain_type_is_widened_from_unaligned_memory),
        cmocka_unit_test(all_halves_survive_the_round_trip_at_every_level),
        cmocka_unit_test(narrowing_rounds_to_nearest_even),
        cmocka_unit_test(conversion_of_odd_lengths_touches_nothing_behind_the_end),
        cmocka_unit_test(a_shape_that_cannot_be_counted_is_told_in_any_order),
    };
    return cmocka_run_group_tests_name("tensor/tensor", tests, NULL, NULL);
}
