/* The low-rank part of a weight: products and gradients are those of W + scale·B·A, for every storage type of W, alone
 * and in groups, whatever the batch and the threads. */
#include "support/arrays.h"

#include <string.h>

#include "nn/nn.h"
#include "tensor/low_rank.h"

enum { ROWS = 70, COLS = 256, RANK = 5, N = 9 };
#define SCALE 1.5f

/* W of a type, with A and B that learn; `dense` is W + scale·B·A in double precision. */
struct adapted {
    struct weight w;
    struct low_rank l;
    double *dense;
};

static struct adapted *adapted(enum dtype type, uint64_t seed)
{
    struct adapted *t = test_alloc(sizeof *t);
    uint64_t bytes = 0;
    float *wide = random_floats(seed, ROWS * COLS, .2);
    dtype_bytes(type, ROWS * COLS, &bytes);
    void *data = test_alloc((size_t)bytes);
    narrow(data, type, wide, ROWS * COLS);
    widen(wide, data, type, ROWS * COLS);
    t->w = (struct weight){ .name = "w", .type = type, .rows = ROWS, .cols = COLS, .data = data, .low_rank = &t->l };
    t->l = (struct low_rank){ test_weight("a", random_floats(seed + 1, RANK * COLS, .2), RANK, COLS),
                              test_weight("b", random_floats(seed + 2, ROWS * RANK, .5), ROWS, RANK), SCALE };
    t->dense = test_alloc(ROWS * COLS * sizeof *t->dense);
    const float *a = t->l.a->data, *b = t->l.b->data;
    for (int i = 0; i < ROWS * COLS; i++) {
        t->dense[i] = (double)wide[i];
        for (int k = 0; k < RANK; k++)
            t->dense[i] += (double)(SCALE * b[i / COLS * RANK + k]) * (double)a[k * COLS + i % COLS];
    }
    return t;
}

static void the_product_and_the_gradient_of_the_input_are_those_of_the_sum(void **state)
{
    (void)state;
    const enum dtype types[] = { DT_F32, DT_BF16, DT_F16 };
    for (size_t k = 0; k < COE_COUNT(types); k++) {
        struct adapted *t = adapted(types[k], 10);
        struct tape tape = { 0 };
        struct nn c = { .arena = test_arena(), .tape = &tape };
        struct val *x = nn_wrap(&c, random_floats(3, N * COLS, 1), N, COLS), *y = nn_linear(&c, x, &t->w, NULL);
        double *want = test_alloc(N * COLS * sizeof *want);
        for (int i = 0; i < N * ROWS; i++) {
            double sum = 0;
            for (int j = 0; j < COLS; j++) sum += t->dense[i % ROWS * COLS + j] * (double)x->data[i / ROWS * COLS + j];
            assert_near(dtype_info[types[k]].name, (double)y->data[i], sum, 2e-5);
        }
        y->grad = random_floats(4, N * ROWS, 1);
        assert_ok(nn_backward(&c));
        for (int i = 0; i < N; i++)
            for (int o = 0; o < ROWS; o++)
                for (int j = 0; j < COLS; j++)
                    want[i * COLS + j] += (double)y->grad[i * ROWS + o] * t->dense[o * COLS + j];
        assert_norm_close_d("dx", x->grad, want, N * COLS, 1e-6);
        assert_null(t->w.grad);
    }
}

/* dA = scale Bᵀ (dyᵀ x), dB = scale (dyᵀ x) Aᵀ */
static void a_and_b_learn_and_the_weight_does_not(void **state)
{
    (void)state;
    struct adapted *t = adapted(DT_BF16, 20);
    struct tape tape = { 0 };
    struct nn c = { .arena = test_arena(), .tape = &tape };
    struct val *x = nn_wrap(&c, random_floats(5, N * COLS, 1), N, COLS), *y = nn_linear(&c, x, &t->w, NULL);
    y->grad = random_floats(6, N * ROWS, 1);
    assert_ok(nn_backward(&c));
    double *dw = test_alloc(ROWS * COLS * sizeof *dw), *da = test_alloc(RANK * COLS * sizeof *da),
           *db = test_alloc(ROWS * RANK * sizeof *db);
    const float *a = t->l.a->data, *b = t->l.b->data;
    for (int i = 0; i < N; i++)
        for (int o = 0; o < ROWS; o++)
            for (int j = 0; j < COLS; j++)
                dw[o * COLS + j] += (double)SCALE * (double)y->grad[i * ROWS + o] * (double)x->data[i * COLS + j];
    for (int o = 0; o < ROWS; o++)
        for (int k = 0; k < RANK; k++)
            for (int j = 0; j < COLS; j++) {
                da[k * COLS + j] += (double)b[o * RANK + k] * dw[o * COLS + j];
                db[o * RANK + k] += dw[o * COLS + j] * (double)a[k * COLS + j];
            }
    assert_norm_close_d("dA", t->l.a->grad, da, RANK * COLS, 1e-6);
    assert_norm_close_d("dB", t->l.b->grad, db, ROWS * RANK, 1e-6);
}

/* Three groups of 4, 0 and 5 rows that read their rows in another order; the second has no part, and no rows. */
static void groups_are_single_products_bit_for_bit(void **state)
{
    (void)state;
    const int32_t off[] = { 0, 4, 4, N }, from[N] = { 8, 1, 2, 0, 3, 7, 5, 6, 4 };
    struct adapted *first = adapted(DT_BF16, 30), *last = adapted(DT_BF16, 40);
    const struct weight *const w[] = { &first->w, NULL, &last->w };
    const struct groups g = { 3, off };
    float *x = random_floats(7, N * COLS, 1), *dy = random_floats(8, N * ROWS, 1);
    float *y = test_alloc(N * ROWS * sizeof *y), *dx = test_alloc(N * COLS * sizeof *dx);
    struct nn c = { .arena = test_arena() };
    struct val *v = nn_wrap(&c, x, N, COLS);
    assert_true(nn_grouped(&c, y, ROWS, v, from, g, w));
    gemm_grouped_dx(dx, COLS, dy, ROWS, NULL, g, w, false);
    gemm_grouped_dw(w, dy, ROWS, NULL, x, COLS, from, g);
    for (int group = 0; group < 3; group += 2) {
        struct adapted *t = group ? last : first, *alone = adapted(DT_BF16, group ? 40 : 30);
        const int32_t n = off[group + 1] - off[group];
        float *rows = test_alloc((size_t)n * COLS * sizeof *rows), *out = test_alloc((size_t)n * COLS * sizeof *out);
        for (int32_t i = 0; i < n; i++) memcpy(rows + i * COLS, x + from[off[group] + i] * COLS, COLS * sizeof *rows);
        for (int32_t i = 0; i < n; i++) { /* one row at a time */
            struct val *one = nn_linear(&c, nn_wrap(&c, rows + i * COLS, 1, COLS), &t->w, NULL);
            assert_same_bits("y", y + (off[group] + i) * ROWS, one->data, ROWS);
        }
        gemm_dx(out, COLS, dy + off[group] * ROWS, ROWS, n, &alone->w, false);
        assert_same_bits("dx", dx + off[group] * COLS, out, n * COLS);
        gemm_dw(&alone->w, NULL, dy + off[group] * ROWS, ROWS, rows, COLS, n);
        assert_same_bits("dA", t->l.a->grad, alone->l.a->grad, RANK * COLS);
        assert_same_bits("dB", t->l.b->grad, alone->l.b->grad, ROWS * RANK);
    }
}

static void threads_change_no_bit(void **state)
{
    (void)state;
    struct adapted *t[2] = { adapted(DT_F16, 50), adapted(DT_F16, 50) };
    float *y[2], *dx[2];
    for (int k = 0; k < 2; k++) {
        struct tape tape = { 0 };
        struct nn c = { .arena = test_arena(), .tape = &tape };
        coe_set_threads(k ? 3 : 1);
        struct val *x = nn_wrap(&c, random_floats(9, 40 * COLS, 1), 40, COLS), *out = nn_linear(&c, x, &t[k]->w, NULL);
        out->grad = random_floats(10, 40 * ROWS, 1);
        assert_ok(nn_backward(&c));
        y[k] = out->data, dx[k] = x->grad;
    }
    coe_set_threads(1);
    assert_same_bits("y", y[0], y[1], 40 * ROWS);
    assert_same_bits("dx", dx[0], dx[1], 40 * COLS);
    assert_same_bits("dA", t[0]->l.a->grad, t[1]->l.a->grad, RANK * COLS);
    assert_same_bits("dB", t[0]->l.b->grad, t[1]->l.b->grad, ROWS * RANK);
}

/* The gradient through a weight of blocks is that through its widened values, bit for bit; 70 rows are no whole number
 * of panels, 256 columns cut by 16 fall inside blocks. */
static void weights_of_blocks_carry_gradients_too(void **state)
{
    (void)state;
    const enum dtype types[] = { DT_Q8_0, DT_Q4_0, DT_Q4_K, DT_Q6_K, DT_BF16 };
    for (size_t k = 0; k < COE_COUNT(types); k++) {
        const struct dtype_info *info = &dtype_info[types[k]];
        const size_t bytes = (size_t)(ROWS * COLS / info->block * info->bytes);
        uint8_t *data = test_alloc(bytes);
        float *wide = test_alloc(ROWS * COLS * sizeof *wide), *dx[2];
        for (size_t i = 0; i < bytes; i++) data[i] = (uint8_t)(i * 37 % 59); /* small scales, never NaN */
        widen(wide, data, types[k], ROWS * COLS);
        const struct weight stored = { .name = "w", .type = types[k], .rows = ROWS, .cols = COLS, .data = data },
                            plain = { .name = "w", .type = DT_F32, .rows = ROWS, .cols = COLS, .data = wide };
        for (int i = 0; i < 2; i++) {
            dx[i] = test_alloc(N * COLS * sizeof(float));
            gemm_dx(dx[i], COLS, random_floats(11, N * ROWS, 1), ROWS, N, i ? &plain : &stored, false);
        }
        assert_same_bits(info->name, dx[0], dx[1], N * COLS);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_product_and_the_gradient_of_the_input_are_those_of_the_sum),
        cmocka_unit_test(a_and_b_learn_and_the_weight_does_not),
        cmocka_unit_test(groups_are_single_products_bit_for_bit),
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(weights_of_blocks_carry_gradients_too),
    };
    return kernels_init() || cmocka_run_group_tests_name("tensor/low_rank", tests, NULL, NULL);
}
