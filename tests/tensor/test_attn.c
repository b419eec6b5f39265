/* attn: every level against portable, against FP64, one row at a time against all at once, every type of cache against
 * FP32 of the same values, parts, windows, sinks, caps, empty rows. */
#include "tensor/levels.h"

#define TOKENS 11
#define HEADS 2
#define ROWS (TOKENS * HEADS)
#define KEYS 1200 /* more than a part */
#define DIM 40    /* a group of 32 and a rest */
#define DIM_V 24

static float q[ROWS * DIM], keys[KEYS * DIM], values[KEYS * DIM_V];
static char key_blocks[(KEYS + KEY_BLOCK) * DIM * 4], value_rows[KEYS * 40 * 4];
static float out[ROWS * DIM_V], expected[ROWS * DIM_V], max[ROWS], total[ROWS], expected_max[ROWS],
    expected_total[ROWS], sinks[HEADS], scratch[ATTN_BLOCK * (DIM + DIM_V)];
static int64_t lo[TOKENS], hi[TOKENS];
static const enum dtype types[] = { DT_F32, DT_F16, DT_Q8_0 };

/* Stores all keys and values as `type`; then keys and values are what was stored. */
static void store_all(enum dtype type)
{
    memset(key_blocks, 0xFF, sizeof key_blocks); /* what no key was stored in must not matter: NaN, as F32 and F16 */
    for (int64_t j = 0; j < KEYS; j++) {
        kv_store_key(key_blocks, type, j, keys + j * DIM, DIM);
        kv_store_value(value_rows, type, j, values + j * DIM_V, DIM_V);
    }
    for (int64_t j = 0; j < KEYS; j++) {
        kv_load_key(keys + j * DIM, key_blocks, type, j, DIM);
        kv_load_value(values + j * DIM_V, value_rows, type, j, DIM_V);
    }
}

static void make_inputs(float range, enum dtype type)
{
    fill_random(q, COE_COUNT(q), range, 1);
    fill_random(keys, COE_COUNT(keys), 1, 2);
    fill_random(values, COE_COUNT(values), 1, 3);
    fill_random(sinks, COE_COUNT(sinks), 2, 4);
    store_all(type);
}

static struct attn_args call(enum dtype type)
{
    return (struct attn_args){ .q = q,
                               .ld_q = HEADS * DIM,
                               .k = key_blocks,
                               .v = value_rows,
                               .type = type,
                               .lo = lo,
                               .hi = hi,
                               .n_tokens = TOKENS,
                               .heads = HEADS,
                               .head_dim = DIM,
                               .head_dim_v = DIM_V,
                               .scale = 0.3f,
                               .max = max,
                               .total = total,
                               .ld_stat = TOKENS,
                               .scratch = scratch };
}

/* The ranges that matter: causal, a sliding window, everything, a mixture with rows that see nothing, and windows
 * across the end of the first part. */
#define KINDS 5
static void set_ranges(int kind)
{
    for (int t = 0; t < TOKENS; t++) {
        const int64_t at = 55 + t; /* crosses a block border */
        lo[t] = kind == 1 ? at - 20 : kind == 3 ? (t * 37) % 90 : kind == 4 ? ATTN_PART - 90 + 10 * t : 0;
        hi[t] = kind == 2 ? KEYS : kind == 3 ? (t * 53) % 150 : kind == 4 ? ATTN_PART - 10 + 2 * t : at + 1;
    }
}

/* All parts of the call in ascending order, written to `to`, whose tokens are HEADS rows apart. */
static void run_parts(const struct kernels *k, const struct attn_args *a, float *to)
{
    static float part_out[ROWS * DIM_V], state[2][ROWS], sum[2][ROWS * 16];
    const struct attn_rows rows = { to, HEADS * DIM_V, state[0], sum[0] },
                           part = { part_out, (int64_t)a->heads * DIM_V, state[1], sum[1] };
    k->attn(a, 0, &rows);
    for (int64_t from = ATTN_PART; from < KEYS; from += ATTN_PART) {
        k->attn(a, from, &part);
        k->attn_join(a, &rows, &part, from);
    }
    k->attn_end(a, &rows);
}

static void run_on(const struct kernels *k, struct attn_args a)
{
    memset(out, 0xFF, sizeof out);
    run_parts(k, &a, out);
}

static void keep_as_expected(void)
{
    memcpy(expected, out, sizeof out);
    memcpy(expected_max, max, sizeof max);
    memcpy(expected_total, total, sizeof total);
}

static void compare(const char *what, const char *level)
{
    assert_same_bits(out, expected, ROWS * DIM_V, what, level);
    assert_same_bits(max, expected_max, ROWS, what, level);
    assert_same_bits(total, expected_total, ROWS, what, level);
}

static void every_level_gives_portable_bits(void **state)
{
    (void)state;
    for (size_t type = 0; type < COE_COUNT(types); type++) {
        make_inputs(2, types[type]);
        for (int kind = 0; kind < KINDS; kind++)
            for (int variant = 0; variant < 4; variant++) {
                struct attn_args a = call(types[type]);
                set_ranges(kind);
                if (variant & 1) a.cap = 1.5f;
                if (variant & 2) a.sink = sinks;
                run_on(PORTABLE, a);
                keep_as_expected();
                FOR_OTHER_LEVELS(k)
                {
                    run_on(*k, a);
                    compare(dtype_info[types[type]].name, (*k)->name);
                }
            }
    }
}

/* What is in the cache counts, not how: a rounded cache gives the bits of an F32 cache with the rounded values. */
static void a_rounded_cache_gives_the_bits_of_its_values(void **state)
{
    (void)state;
    for (size_t type = 1; type < COE_COUNT(types); type++)
        for (const struct kernels *const *k = kernels_all(); *k; k++)
            for (int with_scratch = 0; with_scratch < 2; with_scratch++) {
                make_inputs(2, types[type]);
                set_ranges(4);
                struct attn_args a = call(types[type]);
                a.scratch = with_scratch ? scratch : NULL;
                run_on(*k, a);
                keep_as_expected();
                store_all(DT_F32);
                run_on(*k, call(DT_F32));
                compare(dtype_info[types[type]].name, (*k)->name);
            }
}

/* A row's bits depend neither on how many rows are handed over nor on which. */
static void rows_are_independent_of_their_company(void **state)
{
    (void)state;
    for (int i = 0; i < KINDS * (int)COE_COUNT(types); i++)
        for (const struct kernels *const *k = kernels_all(); *k; k++) {
            const struct attn_args a = call(types[i / KINDS]);
            make_inputs(2, a.type);
            set_ranges(i % KINDS);
            run_on(*k, a);
            keep_as_expected();
            memset(out, 0xFF, sizeof out);
            for (int64_t t = 0, n = 1; t < TOKENS; t += n, n = n % 5 + 1) /* 1, 2, 3, 4, 5, 1, … tokens a call */
                for (int64_t h = 0; h < HEADS; h++) {
                    struct attn_args part = a;
                    part.heads = 1;
                    part.q += t * a.ld_q + h * DIM, part.lo += t, part.hi += t;
                    part.max += t + h * TOKENS, part.total += t + h * TOKENS;
                    part.n_tokens = COE_MIN(n, TOKENS - t);
                    run_parts(*k, &part, out + (t * HEADS + h) * DIM_V);
                }
            compare("attn in parts", (*k)->name);
        }
}

static void attend_twin(int r, float cap, const float *sink, double *y)
{
    static double s[KEYS];
    const int t = r / HEADS, g = r % HEADS;
    double top = sink ? (double)sink[g] : -INFINITY, sum = 0;
    for (int64_t j = lo[t]; j < hi[t]; j++) {
        s[j] = 0;
        for (int i = 0; i < DIM; i++) s[j] += (double)q[r * DIM + i] * (double)keys[j * DIM + i];
        s[j] *= (double)0.3f;
        if (cap > 0) s[j] = (double)cap * tanh(s[j] / (double)cap);
        top = fmax(top, s[j]);
    }
    for (int i = 0; i < DIM_V; i++) y[i] = 0;
    for (int64_t j = lo[t]; j < hi[t]; j++) {
        const double p = exp(s[j] - top);
        sum += p;
        for (int i = 0; i < DIM_V; i++) y[i] += p * (double)values[j * DIM_V + i];
    }
    if (sink) sum += exp((double)sink[g] - top);
    for (int i = 0; i < DIM_V; i++) y[i] = sum > 0 ? y[i] / sum : 0;
}

static void results_match_softmax_in_double(void **state)
{
    (void)state;
    static double exact[ROWS * DIM_V];
    for (size_t type = 0; type < COE_COUNT(types); type++) {
        make_inputs(2, types[type]);
        for (int i = 0; i < KINDS * 4; i++) {
            struct attn_args a = call(types[type]);
            set_ranges(i / 4);
            if (i & 1) a.cap = 1.5f;
            if (i & 2) a.sink = sinks;
            run_on(kern, a);
            for (int r = 0; r < ROWS; r++) attend_twin(r, a.cap, a.sink, exact + r * DIM_V);
            assert_close(out, exact, ROWS * DIM_V, 2e-6, "attn");
        }
    }
}

/* Two keys with scores 0 and log 3: weights 1/4, 3/4. With a sink of log 4: 1/8, 3/8 and half of the weight nowhere. */
static void two_keys_by_hand(void **state)
{
    (void)state;
    float block[KEY_BLOCK], y, top, sum, m, sums[16];
    const float v[] = { 8, 16 }, one = 1, sink = 1.3862944f;
    const struct attn_rows rows = { &y, 1, &m, sums };
    kv_store_key(block, DT_F32, 0, (float[]){ 0 }, 1);
    kv_store_key(block, DT_F32, 1, (float[]){ 1.0986123f }, 1);
    struct attn_args a = { .q = &one,
                           .ld_q = 1,
                           .k = block,
                           .v = v,
                           .lo = (int64_t[]){ 0 },
                           .hi = (int64_t[]){ 2 },
                           .n_tokens = 1,
                           .heads = 1,
                           .head_dim = 1,
                           .head_dim_v = 1,
                           .scale = 1,
                           .max = &top,
                           .total = &sum };
    kern->attn(&a, 0, &rows);
    kern->attn_end(&a, &rows);
    assert_float_equal(y, 14, 1e-5);
    assert_float_equal(top, 1.0986123, 1e-6);
    assert_float_equal(sum, 4.0 / 3, 1e-6);
    a.sink = &sink;
    kern->attn(&a, 0, &rows);
    kern->attn_end(&a, &rows);
    assert_float_equal(y, 7, 1e-5);
    assert_float_equal(sum, 2, 1e-6);
}

/* Parts with maxima 0 and log 2, sums 1 and 1, outputs 8 and 2: joined, the first counts half. (8/2 + 2)/(1/2 + 1) = 4
 */
static void two_parts_by_hand(void **state)
{
    (void)state;
    float y = 8, y2 = 2, m = 0, m2 = 0.6931472f, sum[16] = { 1 }, sum2[16] = { 1 };
    const struct attn_rows rows = { &y, 1, &m, sum }, part = { &y2, 1, &m2, sum2 };
    const struct attn_args a = { .lo = (int64_t[]){ 0 },
                                 .hi = (int64_t[]){ ATTN_PART + 1 },
                                 .n_tokens = 1,
                                 .heads = 1,
                                 .head_dim = 1,
                                 .head_dim_v = 1 };
    kern->attn_join(&a, &rows, &part, ATTN_PART);
    assert_float_equal(m, 0.6931472, 1e-6);
    assert_float_equal(y, 6, 1e-5);
    kern->attn_end(&a, &rows);
    assert_float_equal(y, 4, 1e-5);
}

static void a_row_that_sees_nothing_is_zero(void **state)
{
    (void)state;
    make_inputs(1, DT_F32);
    struct attn_args a = call(DT_F32);
    for (int t = 0; t < TOKENS; t++) lo[t] = hi[t] = t % 2 ? 3 : 0;
    for (int with_sink = 0; with_sink < 2; with_sink++) {
        a.sink = with_sink ? sinks : NULL;
        run_on(kern, a);
        for (int i = 0; i < ROWS * DIM_V; i++) assert_true(out[i] == 0);
        assert_true(total[5] == (with_sink ? 1.0f : 0.0f));
    }
}

/* Scores of thousands: the running maximum keeps every exponential at or below 1. */
static void large_scores_do_not_overflow(void **state)
{
    (void)state;
    make_inputs(3000, DT_F32);
    set_ranges(2);
    run_on(kern, call(DT_F32));
    for (int i = 0; i < ROWS * DIM_V; i++) assert_true(fabsf(out[i]) <= 1.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_level_gives_portable_bits),
        cmocka_unit_test(a_rounded_cache_gives_the_bits_of_its_values),
        cmocka_unit_test(rows_are_independent_of_their_company),
        cmocka_unit_test(results_match_softmax_in_double),
        cmocka_unit_test(two_keys_by_hand),
        cmocka_unit_test(two_parts_by_hand),
        cmocka_unit_test(a_row_that_sees_nothing_is_zero),
        cmocka_unit_test(large_scores_do_not_overflow),
    };
    return cmocka_run_group_tests_name("tensor/attn", tests, NULL, NULL);
}
