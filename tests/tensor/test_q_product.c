/* The kernels of quantised weights: every level has the bits of codes_product, the definition, whatever the shape of
 * the tile and the layout of the weight; panels are the stored bytes in another order. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "support/arrays.h"
#include "support/codes_product.h"
#include "tensor/kernels.h"
#include "tensor/quant/panel.h"
#include "tensor/quant/quant.h"

enum { ROWS = 2 * PANEL_ROWS + 9, TOKENS = 14, COLS = 768 };

static size_t row_bytes(enum dtype t, int64_t cols)
{
    return (size_t)(cols / dtype_info[t].block * dtype_info[t].bytes);
}

/* Random bytes, but scales that are ordinary numbers: the exponent of each sixteen bits that may be one is cut. */
static uint8_t *random_weight(enum dtype t, int64_t rows, int64_t cols)
{
    const size_t bytes = (size_t)rows * row_bytes(t, cols), block = (size_t)dtype_info[t].bytes;
    uint8_t *w = test_alloc(bytes);
    float wide[256];
    for (size_t at = 0; at < bytes; at += block)
        for (uint64_t attempt = 0, good = 0; !good; attempt++) {
            struct rng r = rng_make(at + attempt * 1000003, (uint64_t)t);
            for (size_t i = 0; i < block; i++) w[at + i] = (uint8_t)rng_next(&r);
            dtype_decode_row(wide, w + at, t, dtype_info[t].block);
            good = 1;
            for (int32_t i = 0; i < dtype_info[t].block; i++) good &= fabsf(wide[i]) < 1e9f;
        }
    return w;
}

static struct codes random_codes(int64_t n, int64_t k, int32_t block)
{
    const float *x = random_floats(11, n * k, 3);
    struct codes c;
    codes_make(&c, test_alloc(codes_bytes(n, k, block)), x, k, n, k, block);
    return c;
}

/* One row of 256: random, its quotients by a power of two a hair beside halves or halves themselves, tiny, or with
 * what is no number. */
static void hard_row(float *x, int kind)
{
    struct rng r = rng_make(5, (uint64_t)kind);
    for (int i = 0; i < 256; i++) {
        const float sign = rng_next(&r) & 1 ? -1.0f : 1.0f, half = (float)(rng_next(&r) % 127) + 0.5f;
        const float beside = kind % 3 ? half : nextafterf(half, kind % 2 ? 0 : 200);
        x[i] = sign * (kind < 8 ? (float)rng_normal(&r) : beside * (kind < 16 ? 0.125f : 1e-39f));
    }
    if (kind >= 8) x[17] = 127 * (kind < 16 ? 0.125f : 1e-39f);
    if (kind == 14) x[3] = NAN, x[200] = INFINITY;
    if (kind == 15) x[90] = NAN;
}

/* tensor/codes.h: d = max|x| / 127, q the nearest whole number to x / d, even in the middle; NaN and beyond: 127. */
static void codes_are_the_nearest_whole_numbers_of_the_quotients(void **state)
{
    (void)state;
    float x[256];
    for (int kind = 0; kind < 24; kind++) {
        hard_row(x, kind);
        for (const struct kernels *const *k = kernels_all(); *k; k++)
            for (int block = 32; block <= 256; block += 224) {
                int8_t q[256];
                float d[8];
                int16_t sum[16];
                (*k)->quantise(q, d, sum, x, 256, block);
                for (int b = 0; b < 256 / block; b++) {
                    float most = 0;
                    for (int i = b * block; i < (b + 1) * block; i++) most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
                    assert_true(d[b] == most / 127);
                    for (int i = b * block; i < (b + 1) * block; i++) {
                        const float r = x[i] / d[b];
                        const int want = d[b] > 0 ? r < 127 ? (int)rintf(fmaxf(r, -127)) : 127 : 0;
                        if (q[i] != want) fail_msg("%s: %g / %g is %d", (*k)->name, (double)x[i], (double)d[b], q[i]);
                    }
                }
                for (int i = 0; i < 16; i++) {
                    int all = 0;
                    for (int j = 0; j < 16; j++) all += q[16 * i + j];
                    assert_int_equal(sum[i], all);
                }
            }
    }
}

/* Where each byte of a panel comes from, by every level, read off two packings of rows that hold their own index. */
static void a_panel_is_the_rows_bytes_in_another_order(void **state)
{
    (void)state;
    for (enum dtype t = 0; t < DT_COUNT; t++) {
        if (!panel_type(t)) continue;
        const size_t step = row_bytes(t, COLS), size = PANEL_ROWS * step;
        uint8_t *low = test_alloc(size), *high = test_alloc(size), *panel[2] = { test_alloc(size), test_alloc(size) };
        for (size_t i = 0; i < size; i++) low[i] = (uint8_t)i, high[i] = (uint8_t)(i >> 8);
        size_t *of = test_alloc(size * sizeof *of);
        assert_true(size <= 1 << 16);
        size_t moved = 0;
        for (const struct kernels *const *k = kernels_all(); *k; k++) {
            uint8_t *seen = test_alloc(size);
            memset(seen, 0, size);
            (*k)->q_pack(panel[0], low, step, t, COLS / dtype_info[t].block, NULL);
            (*k)->q_pack(panel[1], high, step, t, COLS / dtype_info[t].block, NULL);
            for (size_t i = 0; i < size; i++) {
                const size_t from = panel[0][i] | (size_t)panel[1][i] << 8;
                if (k == kernels_all()) of[i] = from;
                assert_int_equal(from, of[i]);
                assert_int_equal(seen[from]++, 0);
                moved += from != i;
            }
        }
        assert_true(moved > size);
    }
}

/* Q4_0: the scales of 16 rows, then bytes 0 … 3 of row 0, of row 1, …; then the other 16 rows. */
static void a_panel_of_q4_0_by_hand(void **state)
{
    (void)state;
    uint8_t w[PANEL_ROWS][18], panel[PANEL_ROWS * 18];
    for (int r = 0; r < PANEL_ROWS; r++)
        for (int i = 0; i < 18; i++) w[r][i] = (uint8_t)(32 * (i % 8) + r);
    kern->q_pack(panel, w[0], 18, DT_Q4_0, 1, NULL);
    assert_memory_equal(panel, w[0], 2);
    assert_memory_equal(panel + 2, w[1], 2);
    assert_memory_equal(panel + 32, w[0] + 2, 4);
    assert_memory_equal(panel + 32 + 4 * 7, w[7] + 2, 4);
    assert_memory_equal(panel + 32 + 64, w[0] + 6, 4);
    assert_memory_equal(panel + 16 * 18, w[16], 2);
    assert_memory_equal(panel + 16 * 18 + 32 + 64 + 4 * 15, w[31] + 6, 4);
}

static void check_levels(enum dtype t, const uint8_t *data, const uint8_t *stored, bool panels, const struct codes *c,
                         int64_t m)
{
    static const int32_t pick[TOKENS] = { 3, 0, 0, 13, 7, 1, 2, 9, 8, 12, 5, 4, 6, 10 };
    static float want[TOKENS * ROWS], y[TOKENS * (ROWS + 3)];
    const struct weight w = { .name = "w", .type = t, .rows = ROWS, .cols = c->k, .data = data, .panels = panels };
    codes_product(want, ROWS, c, pick, 0, m, stored, t, ROWS);
    for (const struct kernels *const *k = kernels_all(); *k; k++) {
        char what[64];
        snprintf(what, sizeof what, "%s %s m=%d, level %s", dtype_info[t].name, panels ? "panels" : "stored", (int)m,
                 (*k)->name);
        memset(y, 0xFF, sizeof y);
        (*k)->q_product(y, ROWS + 3, c, pick, 0, m, &w, 0, PANEL_ROWS, want);
        (*k)->q_product(y + PANEL_ROWS, ROWS + 3, c, pick, 0, m, &w, PANEL_ROWS, ROWS - PANEL_ROWS, NULL);
        for (int64_t i = 0; i < m; i++) {
            assert_same_bits(what, y + i * (ROWS + 3), want + i * ROWS, ROWS);
            assert_true(isnan(y[i * (ROWS + 3) + ROWS])); /* nothing behind a row */
        }
    }
}

static void every_level_has_the_bits_of_the_definition(void **state)
{
    (void)state;
    static const int64_t ms[] = { 1, 2, 3, 5, 6, 7, TOKENS };
    for (enum dtype t = 0; t < DT_COUNT; t++) {
        if (!dtype_info[t].x_block) continue;
        const int64_t cols = dtype_info[t].block == 32 ? 544 : COLS;
        const uint8_t *w = random_weight(t, ROWS, cols);
        uint8_t *panels = test_alloc(ROWS * row_bytes(t, cols));
        const struct codes c = random_codes(TOKENS, cols, dtype_info[t].x_block);
        const struct weight stored = { .type = t, .rows = ROWS, .cols = cols, .data = w };
        if (panel_type(t)) panel_pack_rows(panels, &stored, 0, ROWS);
        for (size_t i = 0; i < COE_COUNT(ms); i++) {
            check_levels(t, w, w, false, &c, ms[i]);
            if (panel_type(t)) check_levels(t, panels, w, true, &c, ms[i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_are_the_nearest_whole_numbers_of_the_quotients),
        cmocka_unit_test(a_panel_is_the_rows_bytes_in_another_order),
        cmocka_unit_test(a_panel_of_q4_0_by_hand),
        cmocka_unit_test(every_level_has_the_bits_of_the_definition),
    };
    return kernels_init() || cmocka_run_group_tests_name("tensor/q_product", tests, NULL, NULL);
}
