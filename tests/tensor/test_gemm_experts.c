/* The fused products of an expert layer have the bits of the separate steps. */
#include <math.h>
#include <string.h>

#include "support/arrays.h"
#include "tensor/gemm_experts.h"
#include "tensor/quant/quant.h"

enum { D = 256, F = 288, TOKENS = 120, GROUPS = 4, SLOTS = 230 };

/* Expert 2 has more rows than a strip, expert 1 none; F is no multiple of a panel or a strip. */
static const int32_t of_prompt[GROUPS + 1] = { 0, 25, 25, 225, SLOTS };
/* One token: parts are as wide as the threads allow. */
static const int32_t of_token[GROUPS + 1] = { 0, 1, 1, 2, 3 };

static void fill(struct weight *w, enum dtype t, uint64_t seed)
{
    const float *x = random_floats(seed, F * D, 1);
    uint8_t *data = test_alloc((size_t)(F * D) * 4);
    dtype_encode_row(data, t, x, F * D, NULL);
    *w = (struct weight){ .name = "w", .type = t, .rows = F, .cols = D, .data = data };
}

/* Quantised as they are made they are the codes of what would have been made, in blocks of 32 and, of the first 256
 * columns, of 256. */
static void check_codes(const float *u, const struct gemm_rows *x, struct groups of, const struct weight *const *gate,
                        const struct weight *const *up, enum activation act)
{
    for (int block = 32; block <= 256; block += 224) {
        const int64_t cols = F / block * block, n = of.off[of.n];
        struct weight w[2 * GROUPS];
        const struct weight *g[GROUPS], *p[GROUPS];
        struct codes want, made;
        for (int i = 0; i < GROUPS; i++) {
            g[i] = &w[2 * i], p[i] = &w[2 * i + 1];
            w[2 * i] = *gate[i], w[2 * i].rows = cols;
            if (up) w[2 * i + 1] = *up[i], w[2 * i + 1].rows = cols;
        }
        codes_make(&want, test_alloc(codes_bytes(n, cols, block)), u, F, n, cols, block);
        void *memory = test_alloc(codes_bytes(n, cols, block));
        memset(memory, 0x55, codes_bytes(n, cols, block));
        codes_lay_out(&made, memory, n, cols, block);
        gemm_gate_up(NULL, 0, &made, x, of, g, up ? p : NULL, act, 1.5f);
        assert_memory_equal(made.q, want.q, n * cols);
        assert_memory_equal(made.d, want.d, n * (cols / block) * 4);
        assert_memory_equal(made.sum, want.sum, n * (cols / 16) * 2);
        if (block == 256) assert_memory_equal(made.pair, want.pair, n * (cols / 32) * 2);
    }
}

static void check(const int32_t *off, enum dtype t, bool with_up, enum activation act)
{
    const int32_t slots = off[GROUPS];
    struct weight weights[2 * GROUPS];
    const struct weight *gate[GROUPS], *up[GROUPS];
    int32_t row[SLOTS];
    const float *x = random_floats(3, TOKENS * D, 1);
    float *h1 = test_alloc(SLOTS * F * 4), *h3 = test_alloc(SLOTS * F * 4), *u = test_alloc(SLOTS * F * 4);
    float *want = test_alloc(SLOTS * F * 4);
    const struct codes *codes[CODES_KINDS] = { NULL };
    struct codes made;
    for (int g = 0; g < GROUPS; g++) {
        fill(&weights[2 * g], t, 10 + (uint64_t)g);
        fill(&weights[2 * g + 1], t, 20 + (uint64_t)g);
        gate[g] = &weights[2 * g], up[g] = &weights[2 * g + 1];
    }
    for (int r = 0; r < SLOTS; r++) row[r] = r * 7 % TOKENS;
    const int32_t block = dtype_info[t].x_block;
    if (block) {
        codes_make(&made, test_alloc(codes_bytes(TOKENS, D, block)), x, D, TOKENS, D, block);
        codes[codes_kind(block)] = &made;
    }
    const struct groups of = { GROUPS, off };
    gemm_grouped_xwt(h1, F, x, D, codes, row, of, gate);
    gemm_grouped_xwt(h3, F, x, D, codes, row, of, up);
    for (int r = 0; r < slots; r++) {
        if (act == ACT_SWIGLU_CLAMP) kern->act_clamp(1.5f, want + r * F, h1 + r * F, with_up ? h3 + r * F : NULL, F);
        else kern->act(act, want + r * F, h1 + r * F, with_up ? h3 + r * F : NULL, F);
    }
    const struct gemm_rows rows = { x, D, codes, row };
    for (int threads = 1; threads <= 3; threads++) {
        coe_set_threads(threads);
        memset(u, 0xFF, (size_t)slots * F * 4);
        gemm_gate_up(u, F, NULL, &rows, of, gate, with_up ? up : NULL, act, 1.5f);
        assert_same_bits(dtype_info[t].name, u, want, slots * F);
        check_codes(want, &rows, of, gate, with_up ? up : NULL, act);
    }
}

static void gate_and_up_with_the_activation(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        const int32_t *off = i ? of_token : of_prompt;
        check(off, DT_F32, true, ACT_SILU);
        check(off, DT_Q4_0, true, ACT_SILU);
        check(off, DT_Q4_K, false, ACT_GELU);
        check(off, DT_Q8_0, true, ACT_SWIGLU_CLAMP);
    }
}

/* y, which begins with values of its own, against the products, biases and one chain of fma a token, step by step. */
static void check_down(const int32_t *off, enum dtype t, bool with_bias)
{
    struct weight weights[GROUPS], biases[GROUPS];
    const struct weight *down[GROUPS], *bias[GROUPS];
    int32_t token[SLOTS];
    const float *u = random_floats(4, SLOTS * D, 1), *weight = random_floats(5, SLOTS, 1);
    const float *before = random_floats(6, TOKENS * F, 1);
    float *rows = test_alloc(SLOTS * F * 4), *y = test_alloc(TOKENS * F * 4), *want = test_alloc(TOKENS * F * 4);
    const struct codes *codes[CODES_KINDS] = { NULL };
    struct codes made;
    for (int g = 0; g < GROUPS; g++) {
        fill(&weights[g], t, 30 + (uint64_t)g);
        biases[g] = (struct weight){ .type = DT_F32, .rows = 1, .cols = F,
                                     .data = random_floats(40 + (uint64_t)g, F, 1) };
        down[g] = &weights[g], bias[g] = &biases[g];
    }
    for (int r = 0; r < SLOTS; r++) token[r] = r * 7 % TOKENS;
    const int32_t block = dtype_info[t].x_block;
    if (block) {
        codes_make(&made, test_alloc(codes_bytes(SLOTS, D, block)), u, D, SLOTS, D, block);
        codes[codes_kind(block)] = &made;
    }
    const struct groups of = { GROUPS, off };
    gemm_grouped_xwt(rows, F, u, D, codes, NULL, of, down);
    memcpy(want, before, TOKENS * F * 4);
    for (int g = 0; g < GROUPS; g++)
        for (int r = off[g]; r < off[g + 1]; r++)
            for (int j = 0; j < F; j++) {
                const float out = with_bias ? rows[r * F + j] + ((const float *)biases[g].data)[j] : rows[r * F + j];
                want[token[r] * F + j] = fmaf(weight[r], out, want[token[r] * F + j]);
            }
    const struct gemm_rows x = { u, D, codes, NULL };
    for (int threads = 1; threads <= 3; threads++) {
        coe_set_threads(threads);
        memcpy(y, before, TOKENS * F * 4);
        gemm_down(y, F, token, weight, &x, of, down, with_bias ? bias : NULL);
        assert_same_bits(dtype_info[t].name, y, want, TOKENS * F);
    }
}

static void down_with_the_weighted_sum(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        const int32_t *off = i ? of_token : of_prompt;
        check_down(off, DT_F32, true);
        check_down(off, DT_BF16, false);
        check_down(off, DT_Q4_0, false);
        check_down(off, DT_Q6_K, true);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(gate_and_up_with_the_activation),
                                        cmocka_unit_test(down_with_the_weighted_sum) };
    return kernels_init() || cmocka_run_group_tests_name("tensor/gemm_experts", tests, NULL, NULL);
}
