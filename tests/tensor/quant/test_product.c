/* Products of quantised weights (tensor/codes.h): the definition by hand and against doubles, for every block type. */
#include <math.h>
#include <string.h>

#include "support/arrays.h"
#include "support/codes_product.h"
#include "tensor/codes.h"
#include "tensor/gemm.h"
#include "tensor/half.h"
#include "tensor/quant/quant.h"

#define K 512

static struct codes codes_of(const float *x, int64_t n, int64_t k, int32_t block)
{
    struct codes c;
    codes_make(&c, test_alloc(codes_bytes(n, k, block)), x, k, n, k, block);
    return c;
}

/* max|x| = 254: d = 2. 254 -> 127, -7 -> -3.5 -> -4 (even), 5 -> 2.5 -> 2 (even), 3 -> 1.5 -> 2, the rest 0. */
static void a_row_is_rounded_to_even_codes(void **state)
{
    (void)state;
    float x[32] = { 254, -7, 5, 3 };
    const struct codes c = codes_of(x, 1, 32, 32);
    static const int8_t want[4] = { 127, -4, 2, 2 };
    assert_true(c.d[0] == 2.0f);
    assert_memory_equal(c.q, want, 4);
    for (int i = 4; i < 32; i++) assert_int_equal(c.q[i], 0);
    assert_int_equal(c.sum[0], 127);
    assert_int_equal(c.sum[1], 0);
}

/* The definition, element by element */
static void plain_codes(int8_t *q, float *d, const float *x, int n)
{
    float top = 0;
    for (int i = 0; i < n; i++) top = fabsf(x[i]) > top ? fabsf(x[i]) : top;
    *d = top / 127.0f;
    for (int i = 0; i < n; i++) {
        const float r = *d > 0 ? rintf(x[i] / *d) : 0.0f;
        q[i] = (int8_t)(r < 127.0f ? r > -127.0f ? r : -127.0f : 127.0f);
    }
}

static void every_level_gives_the_codes_of_the_definition(void **state)
{
    (void)state;
    static const double scale[] = { 1, 1e-20, 1e-44, 1e30, 0 };
    float x[256], d[8], want_d;
    int8_t q[256], want[256];
    int16_t sum[16];
    for (const struct kernels *const *k = kernels_all(); *k; k++)
        for (size_t s = 0; s < COE_COUNT(scale); s++)
            for (int32_t block = 32; block <= 256; block += 224) {
                memcpy(x, random_floats(20 + s, 256, scale[s]), sizeof x);
                x[3] = 3.5f * x[2], x[200] = -INFINITY * (float)(s == 3), x[40] = s == 1 ? NAN : x[40];
                (*k)->quantise(q, d, sum, x, 256, block);
                for (int at = 0; at < 256; at += block) {
                    plain_codes(want + at, &want_d, x + at, block);
                    assert_memory_equal(&d[at / block], &want_d, sizeof want_d);
                }
                assert_memory_equal(q, want, sizeof want);
                for (int i = 0; i < 256; i += 16) {
                    int total = 0;
                    for (int j = i; j < i + 16; j++) total += want[j];
                    assert_int_equal(sum[i / 16], total);
                }
            }
}

static void a_row_of_zeros_has_no_scale(void **state)
{
    (void)state;
    float x[256] = { 0 };
    const struct codes c = codes_of(x, 1, 256, 256);
    assert_true(c.d[0] == 0.0f);
    for (int i = 0; i < 256; i++) assert_int_equal(c.q[i], 0);
}

/* Q4_1: d = 0.5, m = 3, codes 15 and 1 in the first byte's low and high nibble, else 0. x as above in the places 0 and
 * 16: d_x = 2, q = 127 and -4. isum = 15*127 - 4 = 1901, msum = 123: 0.5*2*1901 + 3*2*123 = 2639. */
static void a_product_with_a_minimum_by_hand(void **state)
{
    (void)state;
    uint8_t w[20] = { 0x00, 0x38, 0x00, 0x42, 0x1F };
    float x[32] = { 254 }, y = 0;
    x[16] = -7;
    const struct codes c = codes_of(x, 1, 32, 32);
    codes_product(&y, 1, &c, NULL, 0, 1, w, DT_Q4_1, 1);
    assert_true(y == 2639.0f);
}

/* Scales of random bytes may be infinite: the halves that hold them are given ordinary values. */
static void random_rows(uint8_t *w, enum dtype t, int64_t n)
{
    float wide[K];
    struct rng r = rng_make(7, (uint64_t)t);
    const size_t bytes = (size_t)(K / dtype_info[t].block * dtype_info[t].bytes);
    for (int64_t row = 0; row < n; row++)
        for (bool good = false; !good;) {
            for (size_t i = 0; i < bytes; i++) w[(size_t)row * bytes + i] = (uint8_t)rng_next(&r);
            if (dtype_can_encode(t)) {
                for (int i = 0; i < K; i++) wide[i] = (float)rng_normal(&r);
                dtype_encode_row(w + (size_t)row * bytes, t, wide, K, NULL);
            }
            dtype_decode_row(wide, w + (size_t)row * bytes, t, K);
            good = true;
            for (int i = 0; i < K; i++) good = good && fabsf(wide[i]) < 1e4f;
        }
}

static void every_type_agrees_with_doubles(void **state)
{
    (void)state;
    enum { M = 3, N = 5 };
    const float *x = random_floats(1, M * K, 1);
    for (enum dtype t = 0; t < DT_COUNT; t++) {
        if (!dtype_info[t].x_block) continue;
        const size_t bytes = (size_t)(K / dtype_info[t].block * dtype_info[t].bytes);
        uint8_t *w = test_alloc(N * bytes);
        float y[M * N], wide[K];
        random_rows(w, t, N);
        const struct codes c = codes_of(x, M, K, dtype_info[t].x_block);
        codes_product(y, N, &c, NULL, 0, M, w, t, N);
        for (int i = 0; i < M; i++)
            for (int j = 0; j < N; j++) {
                double sum = 0, size = 0;
                dtype_decode_row(wide, w + (size_t)j * bytes, t, K);
                for (int k = 0; k < K; k++) {
                    const double rounded = (double)c.q[i * K + k] * (double)c.d[i * (K / c.block) + k / c.block];
                    sum += rounded * (double)wide[k];
                    size += fabs(rounded * (double)wide[k]);
                }
                assert_near(dtype_info[t].name, y[i * N + j], sum, 1e-5 * size);
            }
    }
}

/* Through the threaded driver, with rows chosen and types mixed: the bits of each row alone */
static void groups_of_several_types_have_the_bits_of_single_rows(void **state)
{
    (void)state;
    enum { M = 7, N = 40, GROUPS = 3 };
    static const enum dtype types[GROUPS] = { DT_Q4_0, DT_Q4_K, DT_Q6_K };
    static const int32_t off[GROUPS + 1] = { 0, 3, 3, M }, row[M] = { 6, 0, 2, 1, 1, 5, 4 };
    const float *x = random_floats(2, M * K, 1);
    struct weight w[GROUPS];
    const struct weight *list[GROUPS];
    for (int g = 0; g < GROUPS; g++) {
        uint8_t *data = test_alloc(N * K);
        random_rows(data, types[g], N);
        w[g] = (struct weight){ .type = types[g], .rows = N, .cols = K, .data = data };
        list[g] = &w[g];
    }
    const struct codes c32 = codes_of(x, M, K, 32), c256 = codes_of(x, M, K, 256), *both[CODES_KINDS] = { &c32, &c256 };
    float y[M * N], one[N];
    gemm_grouped_xwt(y, N, x, K, both, row, (struct groups){ GROUPS, off }, list);
    for (int g = 0; g < GROUPS; g++)
        for (int32_t r = off[g]; r < off[g + 1]; r++) {
            const int32_t block = dtype_info[types[g]].x_block;
            const struct codes alone = codes_of(x + (int64_t)row[r] * K, 1, K, block);
            gemm_codes_xwt(one, N, &alone, &w[g], NULL);
            assert_same_bits("row alone", y + (int64_t)r * N, one, N);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_is_rounded_to_even_codes),
        cmocka_unit_test(every_level_gives_the_codes_of_the_definition),
        cmocka_unit_test(a_row_of_zeros_has_no_scale),
        cmocka_unit_test(a_product_with_a_minimum_by_hand),
        cmocka_unit_test(every_type_agrees_with_doubles),
        cmocka_unit_test(groups_of_several_types_have_the_bits_of_single_rows),
    };
    return kernels_init() || cmocka_run_group_tests_name("tensor/quant/product", tests, NULL, NULL);
}
