/* attn_back: every level against portable, against sums in double, and what rows do not see. */
#include "tensor/levels.h"

#define N 64
#define DIM 40
#define DIM_V 24

static float q[N * DIM], k[N * DIM], v[N * DIM_V], go[N * DIM_V], delta[N], max[N], total[N];
static float k_blocks[N * DIM], v_blocks[N * DIM_V], scratch[2 * ATTN_BLOCK * ATTN_BLOCK];
static int64_t lo[N], hi[N];
/* dq, dk and dv one behind the other */
#define DK (N * DIM)
#define DV (2 * N * DIM)
#define ALL (2 * N * DIM + N * DIM_V)
static float got[ALL], expected[ALL];

/* Rows from position `first` on, which see at most `window` keys that end with their own. */
static struct attn_back_args call(int64_t first, int64_t n, int64_t n_keys, int64_t window, float cap)
{
    fill_random(q, COE_COUNT(q), 1, 1);
    fill_random(k, COE_COUNT(k), 1, 2);
    fill_random(v, COE_COUNT(v), 1, 3);
    fill_random(go, COE_COUNT(go), 1, 4);
    fill_random(delta, COE_COUNT(delta), 1, 5);
    for (int64_t j = 0; j < N; j++) {
        kv_store_key(k_blocks, DT_F32, j, k + j * DIM, DIM);
        kv_store_key(v_blocks, DT_F32, j, v + j * DIM_V, DIM_V);
        lo[j] = COE_MAX(first + j - window + 1, 0), hi[j] = first + j + 1;
        max[j] = 6 + (float)(j % 3), total[j] = 1 + (float)(j % 5);
    }
    return (struct attn_back_args){ .q = q, .go = go, .k = k, .k_blocks = k_blocks, .v_blocks = v_blocks, .ld_q = DIM,
                                    .ld_go = DIM_V, .ld_k = DIM, .ld_v = DIM_V, .lo = lo, .hi = hi, .max = max,
                                    .total = total, .delta = delta, .start = 0, .n = n, .n_keys = n_keys,
                                    .head_dim = DIM, .head_dim_v = DIM_V, .scale = 0.3f, .cap = cap,
                                    .scratch = scratch };
}

/* Gradients go on from numbers that stand there. */
static void run_on(const struct kernels *level, struct attn_back_args a, float *to)
{
    fill_random(to, ALL, 1, 6);
    memset(scratch, 0xFF, sizeof scratch);
    a.dq = to, a.dk = to + DK, a.dv = to + DV;
    level->attn_back(&a);
}

static const struct {
    int64_t first, n, n_keys, window;
    float cap;
} cases[] = { { 0, N, N, N, 0 },  { 64, N, N, 100, 0 }, { 0, 37, 37, N, 0.8f }, { 64, 45, N, 20, 0 },
              { 16, N, N, 30, 0 }, { 0, 1, 1, N, 0 },    { 64, 64, 64, 1, 0 } };
#define CALL(i) call(cases[i].first, cases[i].n, cases[i].n_keys, cases[i].window, cases[i].cap)

static void every_level_gives_portable_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < COE_COUNT(cases); i++) {
        run_on(PORTABLE, CALL(i), expected);
        FOR_OTHER_LEVELS(level)
        {
            run_on(*level, CALL(i), got);
            assert_same_bits(got, expected, ALL, "attn_back", (*level)->name);
        }
    }
}

/* The definition, pair by pair, in double. */
static void gradients_match_sums_in_double(void **state)
{
    (void)state;
    static double sum[ALL];
    double *const dq = sum, *const dk = sum + DK, *const dv = sum + DV;
    for (size_t c = 0; c < COE_COUNT(cases); c++) {
        const struct attn_back_args a = CALL(c);
        fill_random(got, ALL, 1, 6);
        for (size_t i = 0; i < ALL; i++) sum[i] = (double)got[i];
        for (int64_t r = 0; r < a.n; r++)
            for (int64_t j = COE_MAX(lo[r], 0); j < COE_MIN(hi[r], a.n_keys); j++) {
                double s = 0, dp = 0, slope = (double)a.scale;
                for (int e = 0; e < DIM; e++) s += (double)q[r * DIM + e] * (double)k[j * DIM + e];
                for (int e = 0; e < DIM_V; e++) dp += (double)go[r * DIM_V + e] * (double)v[j * DIM_V + e];
                s *= (double)a.scale;
                if (a.cap > 0) {
                    const double t = tanh(s / (double)a.cap);
                    s = (double)a.cap * t, slope *= 1 - t * t;
                }
                const double p = exp(s - (double)max[r]) / (double)total[r], ds = p * (dp - (double)delta[r]) * slope;
                for (int e = 0; e < DIM; e++) {
                    dq[r * DIM + e] += ds * (double)k[j * DIM + e];
                    dk[j * DIM + e] += ds * (double)q[r * DIM + e];
                }
                for (int e = 0; e < DIM_V; e++) dv[j * DIM_V + e] += p * (double)go[r * DIM_V + e];
            }
        run_on(kern, a, got);
        assert_close(got, sum, ALL, 1e-6, "gradients");
    }
}

/* One row, one key, one column: s = 2·3·0.5 = 3, p = e^(3-3)/2 = 1/2, dp = 4·5 = 20, ds = 1/2 (20 - 6) 0.5 = 3.5 */
static void one_pair_by_hand(void **state)
{
    (void)state;
    float dq = 1, dk = 1, dv = 1, keys[KEY_BLOCK] = { 3 }, values[KEY_BLOCK] = { 5 };
    kern->attn_back(&(struct attn_back_args){
        .q = (float[]){ 2 }, .go = (float[]){ 4 }, .k = (float[]){ 3 }, .k_blocks = keys, .v_blocks = values,
        .dq = &dq, .dk = &dk, .dv = &dv, .ld_q = 1, .ld_go = 1, .ld_k = 1, .ld_v = 1, .lo = (int64_t[]){ 0 },
        .hi = (int64_t[]){ 1 }, .max = (float[]){ 3 }, .total = (float[]){ 2 }, .delta = (float[]){ 6 }, .n = 1,
        .n_keys = 1, .head_dim = 1, .head_dim_v = 1, .scale = 0.5f, .scratch = scratch });
    assert_float_equal(dq, 1 + 3.5f * 3, 0);
    assert_float_equal(dk, 1 + 3.5f * 2, 0);
    assert_float_equal(dv, 1 + 0.5f * 4, 0);
}

/* Rows that see none of the block leave everything as it is, whatever stands in it. */
static void what_no_row_sees_is_not_read(void **state)
{
    (void)state;
    struct attn_back_args a = call(64 + N, N, N, 30, 0);
    for (int i = 0; i < N * DIM; i++) k_blocks[i] = k[i] = NAN;
    fill_random(expected, ALL, 1, 6);
    run_on(kern, a, got);
    assert_memory_equal(got, expected, sizeof got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_level_gives_portable_bits),
        cmocka_unit_test(gradients_match_sums_in_double),
        cmocka_unit_test(one_pair_by_hand),
        cmocka_unit_test(what_no_row_sees_is_not_read),
    };
    return cmocka_run_group_tests_name("tensor/attn_back", tests, NULL, NULL);
}
