/* dot_tile and outer_tile: every level against portable bit for bit, portable against FP64, gathered rows, odd
 * sizes. */
#include "tensor/levels.h"

#include "tensor/half.h"

#define N 70
static float x[N * 300 + 1], w[N * 300 + 1], y[N * N], expected[N * N];
static uint16_t half[N * 300 + 1];

static void make_operands(uint64_t seed)
{
    fill_random(x, COE_COUNT(x), 1, seed);
    fill_random(w, COE_COUNT(w), 1, seed + 1);
}

/* By the definition, in C: element i into sum i mod 16, one fma each, then the tree. */
static float dot_by_definition(const float *a, const float *b, size_t n)
{
    float s[16] = { 0 };
    for (size_t i = 0; i < n; i++) s[i % 16] = fmaf(a[i], b[i], s[i % 16]);
    for (int h = 8; h; h /= 2)
        for (int l = 0; l < h; l++) s[l] += s[l + h];
    return s[0];
}

static void a_dot_product_is_sixteen_sums_and_a_tree(void **state)
{
    (void)state;
    make_operands(1);
    for (const struct kernels *const *k = kernels_all(); *k; k++)
        FOR_SIZES(n)
        {
            const float want = dot_by_definition(x + 1, w + 3, n), got = (*k)->dot(x + 1, w + 3, (int64_t)n);
            float tile;
            (*k)->dot_tile(&tile, 1, x + 1, 1, NULL, 1, w + 3, DT_F32, 1, 1, (int64_t)n);
            assert_same_bits(&got, &want, 1, "dot", (*k)->name);
            assert_same_bits(&tile, &want, 1, "dot_tile 1x1", (*k)->name);
        }
}

/* A row's products do not depend on which rows and columns share the tile. */
static void every_tile_shape_gives_the_single_products_bits(void **state)
{
    (void)state;
    make_operands(2);
    static const int64_t depth[] = { 1, 16, 37 };
    for (const struct kernels *const *k = kernels_all(); *k; k++)
        for (size_t d = 0; d < COE_COUNT(depth); d++)
            for (int64_t m = 1; m <= 13; m++)
                for (int64_t n = 1; n <= 9; n += 1 + (*k == PORTABLE)) {
                    memset(y, 0, sizeof y);
                    (*k)->dot_tile(y, N, x, 41, NULL, m, w, DT_F32, 39, n, depth[d]);
                    for (int64_t i = 0; i < m; i++)
                        for (int64_t j = 0; j < n; j++)
                            expected[i * N + j] = dot_by_definition(x + i * 41, w + j * 39, (size_t)depth[d]);
                    for (int64_t i = 0; i < m; i++)
                        assert_same_bits(y + i * N, expected + i * N, (size_t)n, "dot_tile", (*k)->name);
                    assert_true(y[(m - 1) * N + n] == 0); /* nothing written behind the tile */
                }
}

static void half_precision_weights_are_widened_exactly(void **state)
{
    (void)state;
    static const enum dtype types[] = { DT_F16, DT_BF16 };
    static float wide[N * 300];
    make_operands(3);
    for (const struct kernels *const *k = kernels_all(); *k; k++)
        for (size_t t = 0; t < 2; t++)
            for (int64_t depth = 15; depth <= 35; depth += 10) {
                (*k)->narrow(half + 1, types[t], w, 10 * 40);
                (*k)->widen(wide, half + 1, types[t], 10 * 40);
                (*k)->dot_tile(y, N, x, 41, NULL, 7, half + 1, types[t], 40, 10, depth);
                (*k)->dot_tile(expected, N, x, 41, NULL, 7, wide, DT_F32, 40, 10, depth);
                for (int i = 0; i < 7; i++)
                    assert_same_bits(y + i * N, expected + i * N, 10, dtype_info[types[t]].name, (*k)->name);
            }
}

static void rows_of_x_are_gathered(void **state)
{
    (void)state;
    const int32_t rows[] = { 4, 0, 4, 11, 2, 9, 1, 4 };
    make_operands(4);
    for (const struct kernels *const *k = kernels_all(); *k; k++) {
        (*k)->dot_tile(y, N, x, 50, rows, 8, w, DT_F32, 50, 6, 50);
        for (int i = 0; i < 8; i++)
            for (int j = 0; j < 6; j++) expected[i * N + j] = dot_by_definition(x + rows[i] * 50, w + j * 50, 50);
        for (int i = 0; i < 8; i++) assert_same_bits(y + i * N, expected + i * N, 6, "gathered dot_tile", (*k)->name);
    }
}

/* One fma chain per element, by the definition. */
static void chains(float *c, const struct outer_args *g)
{
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->n; j++) {
            float s = g->accumulate ? c[i * g->ldc + j] : 0;
            for (int64_t k = 0; k < g->k; k++)
                s = fmaf(g->a[(g->mi ? g->mi[i] : i) * g->a_m + (g->ki ? g->ki[k] : k) * g->a_k],
                         g->b[(g->bi ? g->bi[k] : k) * g->ldb + j], s);
            c[i * g->ldc + j] = s;
        }
}

static void check_outer(struct outer_args g, const char *what)
{
    fill_random(expected, COE_COUNT(expected), 1, 9);
    g.ldc = N;
    chains(expected, &g);
    FOR_OTHER_LEVELS(k)
    {
        fill_random(y, COE_COUNT(y), 1, 9);
        g.c = y;
        (*k)->outer_tile(&g);
        assert_same_bits(y, expected, COE_COUNT(y), what, (*k)->name); /* what surrounds the tile is as it was, too */
    }
    fill_random(y, COE_COUNT(y), 1, 9);
    g.c = y;
    PORTABLE->outer_tile(&g);
    assert_same_bits(y, expected, COE_COUNT(y), what, "portable");
}

static void outer_tiles_are_chains_at_every_size(void **state)
{
    (void)state;
    static const int64_t ms[] = { 1, 2, 5, 6, 7, 13, 14 }, ns[] = { 1, 15, 16, 17, 33, 64, 65 }, ks[] = { 0, 1, 3 };
    make_operands(5);
    for (size_t i = 0; i < COE_COUNT(ms); i++)
        for (size_t j = 0; j < COE_COUNT(ns); j++)
            for (size_t d = 0; d < COE_COUNT(ks); d++) {
                struct outer_args g = { .a = x + 1, .a_m = 5, .a_k = 1, .b = w + 1, .ldb = 67, .m = ms[i], .n = ns[j],
                                        .k = ks[d] };
                g.accumulate = (i + j + d) % 2;
                check_outer(g, "outer_tile, A by rows");
            }
}

/* The chain goes on over the borders of the panels in which k is processed. */
static void long_chains_keep_their_order(void **state)
{
    (void)state;
    make_operands(6);
    check_outer((struct outer_args){ .a = x, .a_m = 1, .a_k = 7, .b = w, .ldb = 20, .m = 7, .n = 18, .k = 600,
                                     .accumulate = true },
                "outer_tile, A by columns, k = 600");
    check_outer((struct outer_args){ .a = x, .a_m = 513, .a_k = 1, .b = w, .ldb = 16, .m = 15, .n = 16, .k = 513 },
                "outer_tile, k = 513");
}

static void rows_of_every_operand_are_gathered(void **state)
{
    (void)state;
    const int32_t mi[] = { 3, 3, 0, 9, 1, 2, 8, 5, 6, 7, 11, 12, 10, 4 }, ki[] = { 5, 1, 1, 7, 0 },
                  bi[] = { 2, 6, 0, 0, 9 };
    make_operands(7);
    const struct outer_args g = { .a = x, .a_m = 9, .a_k = 1, .b = w, .ldb = 40, .m = 14, .n = 40, .k = 5 };
    for (int which = 1; which < 8; which++) {
        struct outer_args h = g;
        if (which & 1) h.mi = mi;
        if (which & 2) h.ki = ki;
        if (which & 4) h.bi = bi;
        check_outer(h, "gathered outer_tile");
    }
}

/* Subnormal products stay, infinities and NaN go where IEEE sends them. */
static void extreme_numbers_agree(void **state)
{
    (void)state;
    make_operands(8);
    for (int i = 0; i < 20; i++) x[i] *= 0x1p-120f, w[i] *= 0x1p-20f, x[100 + i] *= 0x1p-140f;
    x[60] = INFINITY, x[161] = NAN, w[90] = -INFINITY, w[200] = 0;
    PORTABLE->dot_tile(expected, 12, x, 37, NULL, 9, w, DT_F32, 35, 12, 35);
    FOR_OTHER_LEVELS(k)
    {
        (*k)->dot_tile(y, 12, x, 37, NULL, 9, w, DT_F32, 35, 12, 35);
        assert_same_bits(y, expected, 9 * 12, "dot_tile of extremes", (*k)->name);
    }
    check_outer((struct outer_args){ .a = x, .a_m = 20, .a_k = 1, .b = w, .ldb = 33, .m = 9, .n = 33, .k = 20 },
                "outer_tile of extremes");
}

static void products_are_as_accurate_as_float_allows(void **state)
{
    (void)state;
    static double exact[20 * 20];
    make_operands(9);
    for (int i = 0; i < 20; i++)
        for (int j = 0; j < 20; j++) {
            exact[i * 20 + j] = 0;
            for (int k = 0; k < 255; k++) exact[i * 20 + j] += (double)x[i * 255 + k] * (double)w[j * 255 + k];
        }
    kern->dot_tile(y, 20, x, 255, NULL, 20, w, DT_F32, 255, 20, 255);
    assert_close(y, exact, 400, 1e-6, "dot_tile");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_dot_product_is_sixteen_sums_and_a_tree),
        cmocka_unit_test(every_tile_shape_gives_the_single_products_bits),
        cmocka_unit_test(half_precision_weights_are_widened_exactly),
        cmocka_unit_test(rows_of_x_are_gathered),
        cmocka_unit_test(outer_tiles_are_chains_at_every_size),
        cmocka_unit_test(long_chains_keep_their_order),
        cmocka_unit_test(rows_of_every_operand_are_gathered),
        cmocka_unit_test(extreme_numbers_agree),
        cmocka_unit_test(products_are_as_accurate_as_float_allows),
    };
    return cmocka_run_group_tests_name("tensor/tiles", tests, NULL, NULL);
}
