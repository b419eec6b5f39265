/* The threaded drivers: one and two threads and every level give the tiles' bits; groups of every shape. */
#include "tensor/levels.h"

#define TOKENS 48
#define D 66 /* columns of w */
#define F 50 /* rows of w */
#define EXPERTS 7

static float x[TOKENS * D], dy[TOKENS * F], w[EXPERTS * F * D], grad[EXPERTS * F * D], grad_expected[EXPERTS * F * D];
static float y[TOKENS * D], expected[TOKENS * D], bias[F], bias_grad[F], bias_expected[F];
static struct weight weight[EXPERTS];
static struct weight bias_weight = { .name = "bias", .type = DT_F32, .rows = 1, .cols = F, .data = bias,
                                     .master = bias, .grad = bias_grad };
static const struct weight *list[EXPERTS];

static void make_operands(void)
{
    fill_random(x, COE_COUNT(x), 1, 1);
    fill_random(dy, COE_COUNT(dy), 1, 2);
    fill_random(w, COE_COUNT(w), 1, 3);
    fill_random(bias, F, 1, 4);
    for (int e = 0; e < EXPERTS; e++) {
        float *at = w + e * F * D;
        weight[e] = (struct weight){ .name = "w", .type = DT_F32, .rows = F, .cols = D, .data = at, .master = at,
                                      .grad = grad + e * F * D };
        list[e] = &weight[e];
    }
}

static void fill_results(void)
{
    fill_random(y, COE_COUNT(y), 1, 5);
    fill_random(expected, COE_COUNT(expected), 1, 5);
    fill_random(grad, COE_COUNT(grad), 1, 6);
    fill_random(grad_expected, COE_COUNT(grad), 1, 6);
    fill_random(bias_grad, F, 1, 7);
    fill_random(bias_expected, F, 1, 7);
}

/* Runs the statement on one and two threads at every level; small products stay on one thread by themselves. */
#define WITH_THREADS(...)                                                                                              \
    do {                                                                                                               \
        const struct kernels *best = kern;                                                                             \
        for (int threads = 1; threads <= 2; threads++)                                                                 \
            for (const struct kernels *const *k = kernels_all(); *k; k++) {                                            \
                coe_set_threads(threads);                                                                              \
                kern = *k;                                                                                             \
                fill_results();                                                                                        \
                __VA_ARGS__;                                                                                           \
            }                                                                                                          \
        kern = best;                                                                                                   \
    } while (0)

static void xwt_is_dot_products_plus_bias(void **state)
{
    (void)state;
    make_operands();
    WITH_THREADS({
        gemm_xwt(y, D, x, D, TOKENS, &weight[2], &bias_weight);
        for (int t = 0; t < TOKENS; t++)
            for (int f = 0; f < F; f++) expected[t * D + f] = kern->dot(x + t * D, w + (2 * F + f) * D, D) + bias[f];
        assert_same_bits(y, expected, COE_COUNT(y), "gemm_xwt", kern->name);
    });
}

static void single_rows_equal_rows_of_a_batch(void **state)
{
    (void)state;
    make_operands();
    WITH_THREADS({
        gemm_xwt(expected, D, x, D, TOKENS, &weight[1], NULL);
        for (int t = 0, n = 1; t < TOKENS; t += n, n = n % 4 + 1)
            gemm_xwt(y + t * D, D, x + t * D, D, COE_MIN(n, TOKENS - t), &weight[1], NULL);
        for (int t = 0; t < TOKENS; t++)
            assert_same_bits(y + t * D, expected + t * D, F, "gemm_xwt by rows", kern->name);
    });
}

static void bf16_weights_and_biases_are_read(void **state)
{
    (void)state;
    static uint16_t half[F * D], half_bias[F];
    static float wide[F * D], wide_bias[F];
    make_operands();
    narrow(half, DT_BF16, w, F * D);
    narrow(half_bias, DT_BF16, bias, F);
    widen(wide, half, DT_BF16, F * D);
    widen(wide_bias, half_bias, DT_BF16, F);
    const struct weight narrow_w = { .name = "w", .type = DT_BF16, .rows = F, .cols = D, .data = half },
                        wide_w = { .name = "w", .type = DT_F32, .rows = F, .cols = D, .data = wide };
    const struct weight narrow_b = { .name = "b", .type = DT_BF16, .rows = 1, .cols = F, .data = half_bias },
                        wide_b = { .name = "b", .type = DT_F32, .rows = 1, .cols = F, .data = wide_bias };
    WITH_THREADS({
        gemm_xwt(y, D, x, D, TOKENS, &narrow_w, &narrow_b);
        gemm_xwt(expected, D, x, D, TOKENS, &wide_w, &wide_b);
        assert_same_bits(y, expected, COE_COUNT(y), "gemm_xwt, bf16", kern->name);
    });
}

/* c = a fma chain over k from c or 0 */
static void chain(float *c, const float *a, int64_t a_step, const float *b, int64_t b_step, int k)
{
    for (int i = 0; i < k; i++) *c = fmaf(a[i * a_step], b[i * b_step], *c);
}

static void gradients_are_chains(void **state)
{
    (void)state;
    make_operands();
    for (int accumulate = 0; accumulate < 2; accumulate++)
        WITH_THREADS({
            gemm_dx(y, D, dy, F, TOKENS, &weight[3], accumulate);
            gemm_dw(&weight[3], &bias_weight, dy, F, x, D, TOKENS);
            for (int t = 0; t < TOKENS; t++)
                for (int d = 0; d < D; d++) {
                    if (!accumulate) expected[t * D + d] = 0;
                    chain(&expected[t * D + d], dy + t * F, 1, w + 3 * F * D + d, D, F);
                }
            assert_same_bits(y, expected, COE_COUNT(y), "gemm_dx", kern->name);
            for (int f = 0; f < F; f++) {
                for (int d = 0; d < D; d++) chain(&grad_expected[(3 * F + f) * D + d], dy + f, F, x + d, D, TOKENS);
                for (int t = 0; t < TOKENS; t++) bias_expected[f] += dy[t * F + f];
            }
            assert_same_bits(grad, grad_expected, COE_COUNT(grad), "gemm_dw", kern->name);
            assert_same_bits(bias_grad, bias_expected, F, "gemm_dw, bias", kern->name);
        });
}

/* Group boundaries: uneven, with empty groups at both ends and between; one row each; all rows in one. */
static const int32_t offsets[][EXPERTS + 1] = {
    { 0, 0, 9, 9, 10, 32, 48, 48 },
    { 0, 1, 2, 3, 4, 5, 6, 7 },
    { 0, 0, 0, 48, 48, 48, 48, 48 },
    { 0, 0, 0, 0, 0, 0, 0, 0 },
};

static int32_t group_of(const int32_t *off, int32_t row)
{
    int32_t g = 0;
    while (row >= off[g + 1]) g++;
    return g;
}

static void grouped_products_equal_single_ones(void **state)
{
    (void)state;
    int32_t rows[TOKENS];
    /* 37 and 48 have no common factor: a permutation */
    for (int r = 0; r < TOKENS; r++) rows[r] = (r * 37 + 5) % TOKENS;
    make_operands();
    for (size_t o = 0; o < COE_COUNT(offsets); o++)
        for (int gathered = o != 0; gathered < 2; gathered++)
            WITH_THREADS({
                const int32_t *off = offsets[o];
                const struct groups g = { EXPERTS, off };
                const int32_t *row = gathered ? rows : NULL;
                gemm_grouped_xwt(y, D, x, D, NULL, row, g, list);
                for (int r = 0; r < off[EXPERTS]; r++)
                    kern->dot_tile(expected + r * D, D, x + (row ? row[r] : r) * D, D, NULL, 1,
                                   list[group_of(off, r)]->data, DT_F32, D, F, D);
                assert_same_bits(y, expected, COE_COUNT(y), "gemm_grouped_xwt", kern->name);
                gemm_grouped_dx(y, D, dy, F, row, g, list, gathered);
                for (int r = 0; r < off[EXPERTS]; r++)
                    gemm_dx(expected + r * D, D, dy + (row ? row[r] : r) * F, F, 1, list[group_of(off, r)], gathered);
                assert_same_bits(y, expected, COE_COUNT(y), "gemm_grouped_dx", kern->name);
            });
}

static void grouped_weight_gradients_are_chains_over_the_groups_rows(void **state)
{
    (void)state;
    int32_t rows[TOKENS];
    for (int r = 0; r < TOKENS; r++) rows[r] = (r * 37 + 5) % TOKENS;
    make_operands();
    for (size_t o = 0; o < COE_COUNT(offsets); o++)
        for (int which = o ? 3 : 0; which < 4; which++)
            WITH_THREADS({
                const int32_t *off = offsets[o];
                const int32_t *xr = which & 1 ? rows : NULL;
                const int32_t *dyr = which & 2 ? rows : NULL;
                gemm_grouped_dw(list, dy, F, dyr, x, D, xr, (struct groups){ EXPERTS, off });
                for (int r = 0; r < off[EXPERTS]; r++) { /* one row after another: the same chains */
                    struct weight one = *list[group_of(off, r)];
                    one.grad = grad_expected + (one.grad - grad);
                    gemm_dw(&one, NULL, dy + (dyr ? dyr[r] : r) * F, F, x + (xr ? xr[r] : r) * D, D, 1);
                }
                assert_same_bits(grad, grad_expected, COE_COUNT(grad), "gemm_grouped_dw", kern->name);
            });
}

static void no_rows_are_no_work(void **state)
{
    (void)state;
    make_operands();
    const struct weight *const none[EXPERTS] = { NULL };
    WITH_THREADS({
        gemm_xwt(y, D, x, D, 0, &weight[0], &bias_weight);
        gemm_dx(y, D, dy, F, 0, &weight[0], false);
        gemm_dw(&weight[0], &bias_weight, dy, F, x, D, 0);
        gemm_grouped_xwt(y, D, x, D, NULL, NULL, (struct groups){ EXPERTS, offsets[3] }, none);
        gemm_grouped_dx(y, D, dy, F, NULL, (struct groups){ EXPERTS, offsets[3] }, none, false);
        gemm_grouped_dw(none, dy, F, NULL, x, D, NULL, (struct groups){ EXPERTS, offsets[3] });
        assert_same_bits(y, expected, COE_COUNT(y), "y", kern->name);
        assert_same_bits(grad, grad_expected, COE_COUNT(grad), "grad", kern->name);
    });
}

/* Large enough for several tasks per thread. */
static void two_threads_share_a_large_product(void **state)
{
    (void)state;
    enum { N = 150, K = 100, R = 200 };
    static float big_x[N * K], big_w[R * K], one[N * R], two[N * R];
    fill_random(big_x, N * K, 1, 8);
    fill_random(big_w, R * K, 1, 9);
    const struct weight big = { .name = "w", .type = DT_F32, .rows = R, .cols = K, .data = big_w, .master = big_w };
    coe_set_threads(1);
    gemm_xwt(one, R, big_x, K, N, &big, NULL);
    coe_set_threads(2);
    gemm_xwt(two, R, big_x, K, N, &big, NULL);
    assert_same_bits(two, one, N * R, "two threads", kern->name);
}

/* Each of the three products of a linear layer is 2 · tokens · rows · columns operations; nothing is counted when
 * off. */
static void the_clock_counts_two_operations_for_each_multiply_add(void **state)
{
    (void)state;
    make_operands();
    const struct groups g = { 2, (const int32_t[]){ 0, 20, TOKENS } };
    gemm_clock = (struct gemm_clock){ .on = true };
    gemm_xwt(y, D, x, D, TOKENS, &weight[0], NULL);
    gemm_dx(y, D, dy, F, TOKENS, &weight[0], false);
    gemm_dw(&weight[0], NULL, dy, F, x, D, TOKENS);
    gemm_grouped_xwt(y, D, x, D, NULL, NULL, g, list);
    gemm_grouped_dx(y, D, dy, F, NULL, g, list, false);
    gemm_grouped_dw(list, dy, F, NULL, x, D, NULL, g);
    assert_true(gemm_clock.operations == 6.0 * 2 * TOKENS * F * D);
    assert_true(gemm_clock.seconds > 0);
    gemm_clock.on = false;
    gemm_dx(y, D, dy, F, TOKENS, &weight[0], false);
    assert_true(gemm_clock.operations == 6.0 * 2 * TOKENS * F * D);
}

/* Rounded rows and BF16 weights, plain and grouped: the tile's bits for every number of threads. */
static void rounded_rows_meet_bf16_weights(void **state)
{
    (void)state;
    static uint16_t half[EXPERTS * F * D], memory[TOKENS * D + 64];
    static const int32_t off[] = { 0, 9, 9, 10, 30, 31, 47, TOKENS };
    int32_t row[TOKENS];
    struct codes rounded;
    make_operands();
    for (int t = 0; t < TOKENS; t++) row[t] = t * 7 % TOKENS;
    WITH_THREADS({
        kern->narrow(half, DT_BF16, w, EXPERTS * F * D);
        for (int e = 0; e < EXPERTS; e++) weight[e].type = DT_BF16, weight[e].data = half + e * F * D;
        assert_true(codes_bytes(TOKENS, D, 1) <= sizeof memory);
        codes_make(&rounded, memory, x, D, TOKENS, D, 1);
        gemm_codes_xwt(y, D, &rounded, &weight[2], &bias_weight);
        kern->dot_bf16(expected, D, rounded.bf16, D, NULL, TOKENS, half + 2 * F * D, D, F, D);
        for (int t = 0; t < TOKENS; t++) kern->add(expected + t * D, bias, F);
        assert_same_bits(y, expected, COE_COUNT(y), "gemm_codes_xwt of BF16", kern->name);
        const struct codes *const codes[CODES_KINDS] = { [CODES_BF16] = &rounded };
        for (int gathered = 0; gathered < 2; gathered++) {
            gemm_grouped_xwt(y, D, x, D, codes, gathered ? row : NULL, (struct groups){ EXPERTS, off }, list);
            for (int e = 0; e < EXPERTS; e++)
                for (int t = off[e]; t < off[e + 1]; t++)
                    kern->dot_bf16(expected + t * D, D, rounded.bf16 + (gathered ? row[t] : t) * D, D, NULL, 1,
                                   half + e * F * D, D, F, D);
            assert_same_bits(y, expected, COE_COUNT(y), "gemm_grouped_xwt of BF16", kern->name);
        }
    });
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(xwt_is_dot_products_plus_bias),
        cmocka_unit_test(single_rows_equal_rows_of_a_batch),
        cmocka_unit_test(bf16_weights_and_biases_are_read),
        cmocka_unit_test(gradients_are_chains),
        cmocka_unit_test(grouped_products_equal_single_ones),
        cmocka_unit_test(grouped_weight_gradients_are_chains_over_the_groups_rows),
        cmocka_unit_test(no_rows_are_no_work),
        cmocka_unit_test(two_threads_share_a_large_product),
        cmocka_unit_test(the_clock_counts_two_operations_for_each_multiply_add),
        cmocka_unit_test(rounded_rows_meet_bf16_weights),
    };
    return cmocka_run_group_tests_name("tensor/gemm", tests, NULL, NULL);
}
