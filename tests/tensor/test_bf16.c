/* dot_bf16: BF16 times BF16. Where the CPU has an instruction for it, its sums are its own, but never a tile's. */
#include "tensor/levels.h"

#include "tensor/half.h"

#define N 64
static float wide[N * 300];
static uint16_t x[N * 300 + 1], w[N * 300 + 1];
static float y[N * N], expected[N * N];

static void make_operands(uint64_t seed)
{
    fill_random(wide, COE_COUNT(wide), 1, seed);
    kern->narrow(x + 1, DT_BF16, wide, COE_COUNT(wide));
    fill_random(wide, COE_COUNT(wide), 1, seed + 1);
    kern->narrow(w + 1, DT_BF16, wide, COE_COUNT(wide));
}

static bool is_fp32(const struct kernels *k) { return !strcmp(k->bf16_unit, "fp32"); }

static void levels_without_the_instruction_have_the_sums_of_dot_tile(void **state)
{
    (void)state;
    make_operands(1);
    kern->widen(wide, x + 1, DT_BF16, COE_COUNT(wide));
    assert_true(is_fp32(PORTABLE));
    for (const struct kernels *const *k = kernels_all(); *k; k++) {
        if (!is_fp32(*k)) continue;
        FOR_SIZES(depth)
        {
            PORTABLE->dot_tile(expected, N, wide, 300, NULL, 7, w + 1, DT_BF16, 300, 9, (int64_t)depth);
            (*k)->dot_bf16(y, N, x + 1, 300, NULL, 7, w + 1, 300, 9, (int64_t)depth);
            for (int i = 0; i < 7; i++) assert_same_bits(y + i * N, expected + i * N, 9, "dot_bf16", (*k)->name);
        }
    }
}

/* Tiles of every shape, rows short and long of which few and many are multiplied: as one row with one row. */
static void every_tile_shape_gives_the_single_products_bits(void **state)
{
    (void)state;
    make_operands(2);
    static const int64_t depth[] = { 0, 1, 31, 32, 33, 100 };
    static const int64_t stride[] = { 111, 2111 }; /* the second is longer than FETCH_ROW */
    for (const struct kernels *const *k = kernels_all(); *k; k++)
        for (size_t d = 0; d < COE_COUNT(depth); d++)
            for (int64_t m = 1; m <= 13; m++)
                for (int64_t n = 1; n <= 9; n += 1 + (*k == PORTABLE) * 2) {
                    const int64_t ldw = stride[m % 2];
                    memset(y, 0, sizeof y);
                    (*k)->dot_bf16(y, N, x, 113, NULL, m, w, ldw, n, depth[d]);
                    for (int64_t i = 0; i < m; i++)
                        for (int64_t j = 0; j < n; j++)
                            (*k)->dot_bf16(expected + i * N + j, 1, x + i * 113, 1, NULL, 1, w + j * ldw, 1, 1,
                                           depth[d]);
                    for (int64_t i = 0; i < m; i++)
                        assert_same_bits(y + i * N, expected + i * N, (size_t)n, "dot_bf16", (*k)->name);
                    assert_true(y[(m - 1) * N + n] == 0); /* nothing written behind the tile */
                }
}

static void rows_of_x_are_gathered(void **state)
{
    (void)state;
    const int32_t rows[] = { 4, 0, 4, 11, 2, 9, 1, 4 };
    make_operands(3);
    for (const struct kernels *const *k = kernels_all(); *k; k++) {
        (*k)->dot_bf16(y, N, x, 50, rows, 8, w, 50, 6, 50);
        for (int i = 0; i < 8; i++)
            (*k)->dot_bf16(expected + i * N, N, x + rows[i] * 50, 1, NULL, 1, w, 50, 6, 50);
        for (int i = 0; i < 8; i++) assert_same_bits(y + i * N, expected + i * N, 6, "gathered dot_bf16", (*k)->name);
    }
}

/* Against FP64 of the same BF16 numbers, whose products are exact in FP32: one rounding is lost for each sum. */
static void sums_are_as_accurate_as_float_allows(void **state)
{
    (void)state;
    enum { K = 257 };
    make_operands(4);
    for (const struct kernels *const *k = kernels_all(); *k; k++) {
        (*k)->dot_bf16(y, N, x, K, NULL, 20, w, K, 20, K);
        for (int i = 0; i < 20; i++)
            for (int j = 0; j < 20; j++) {
                double exact = 0, size = 0;
                for (int e = 0; e < K; e++) {
                    const double p = (double)bf16_to_f32(x[i * K + e]) * (double)bf16_to_f32(w[j * K + e]);
                    exact += p;
                    size += fabs(p);
                }
                /* a chain of K/16 and a tree of 4, each within half a unit of a partial sum that is at most `size` */
                const double bound = size * (K / 16 + 1 + 4) * 0x1p-24;
                if (!(fabs((double)y[i * N + j] - exact) <= bound))
                    fail_msg("level %s (%s): %.9g, exact %.9g, bound %g", (*k)->name, (*k)->bf16_unit,
                             (double)y[i * N + j], exact, bound);
            }
    }
}

static void infinities_and_nan_arrive(void **state)
{
    (void)state;
    make_operands(5);
    x[40] = 0x7F80, w[40] = 0x3F80; /* infinity times one */
    x[100 + 7] = 0x7FC0;
    for (const struct kernels *const *k = kernels_all(); *k; k++) {
        (*k)->dot_bf16(y, N, x, 100, NULL, 2, w, 100, 1, 100);
        assert_true(isinf(y[0]) && y[0] > 0);
        assert_true(isnan(y[N]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels_without_the_instruction_have_the_sums_of_dot_tile),
        cmocka_unit_test(every_tile_shape_gives_the_single_products_bits),
        cmocka_unit_test(rows_of_x_are_gathered),
        cmocka_unit_test(sums_are_as_accurate_as_float_allows),
        cmocka_unit_test(infinities_and_nan_arrive),
    };
    return cmocka_run_group_tests_name("tensor/bf16", tests, NULL, NULL);
}
