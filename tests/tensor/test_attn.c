/* attn: every level against portable, against FP64, one row at a time against all at once, windows, sinks, caps, empty
 * rows. */
#include "tensor/levels.h"

#define ROWS 23
#define KEYS 150
#define DIM 40
#define DIM_V 24

static float q[ROWS * DIM], keys[KEYS * DIM], values[KEYS * DIM_V], blocks[(KEYS + KEY_BLOCK) * DIM];
static float out[ROWS * DIM_V], expected[ROWS * DIM_V], max[ROWS], total[ROWS], expected_max[ROWS],
    expected_total[ROWS], sinks[ROWS];
static int64_t lo[ROWS], hi[ROWS];

static void make_inputs(float range)
{
    fill_random(q, COE_COUNT(q), range, 1);
    fill_random(keys, COE_COUNT(keys), 1, 2);
    fill_random(values, COE_COUNT(values), 1, 3);
    fill_random(sinks, COE_COUNT(sinks), 2, 4);
    for (size_t i = 0; i < COE_COUNT(blocks); i++) blocks[i] = NAN; /* what no key was stored in must not matter */
    for (int64_t j = 0; j < KEYS; j++) kern->store_key(blocks, j, keys + j * DIM, DIM);
}

static struct attn_args call(void)
{
    return (struct attn_args){ .out = out,
                               .ld_out = DIM_V,
                               .q = q,
                               .ld_q = DIM,
                               .k = blocks,
                               .v = values,
                               .lo = lo,
                               .hi = hi,
                               .n_rows = ROWS,
                               .head_dim = DIM,
                               .head_dim_v = DIM_V,
                               .scale = 0.3f,
                               .max = max,
                               .total = total };
}

/* The ranges that matter: causal, a sliding window, everything, and a mixture with rows that see nothing. */
static void set_ranges(int kind)
{
    for (int r = 0; r < ROWS; r++) {
        const int64_t at = 55 + r; /* crosses a block border */
        lo[r] = kind == 1 ? at - 20 : kind == 3 ? (r * 37) % 90 : 0;
        hi[r] = kind == 2 ? KEYS : kind == 3 ? (r * 53) % KEYS : at + 1;
    }
}

static void run_on(const struct kernels *k, struct attn_args a)
{
    memset(out, 0xFF, sizeof out);
    k->attn(&a);
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
    make_inputs(2);
    for (int kind = 0; kind < 4; kind++)
        for (int variant = 0; variant < 4; variant++) {
            struct attn_args a = call();
            set_ranges(kind);
            if (variant & 1) a.cap = 1.5f;
            if (variant & 2) a.sink = sinks;
            run_on(PORTABLE, a);
            keep_as_expected();
            FOR_OTHER_LEVELS(k)
            {
                run_on(*k, a);
                compare("attn", (*k)->name);
            }
        }
}

/* A row's bits depend neither on how many rows are handed over nor on which. */
static void rows_are_independent_of_their_company(void **state)
{
    (void)state;
    make_inputs(2);
    for (int kind = 0; kind < 4; kind++)
        for (const struct kernels *const *k = kernels_all(); *k; k++) {
            const struct attn_args a = call();
            set_ranges(kind);
            run_on(*k, a);
            keep_as_expected();
            memset(out, 0xFF, sizeof out);
            for (int64_t r = 0, n = 1; r < ROWS; r += n, n = n % 5 + 1) { /* 1, 2, 3, 4, 5, 1, … rows a call */
                struct attn_args part = a;
                part.out += r * DIM_V, part.q += r * DIM, part.lo += r, part.hi += r, part.max += r, part.total += r;
                part.n_rows = COE_MIN(n, ROWS - r);
                (*k)->attn(&part);
            }
            compare("attn in parts", (*k)->name);
        }
}

static void attend_twin(int r, float cap, const float *sink, double *y)
{
    double s[KEYS], top = sink ? (double)sink[r] : -INFINITY, sum = 0;
    for (int64_t j = lo[r]; j < hi[r]; j++) {
        s[j] = 0;
        for (int i = 0; i < DIM; i++) s[j] += (double)q[r * DIM + i] * (double)keys[j * DIM + i];
        s[j] *= (double)0.3f;
        if (cap > 0) s[j] = (double)cap * tanh(s[j] / (double)cap);
        top = fmax(top, s[j]);
    }
    for (int i = 0; i < DIM_V; i++) y[i] = 0;
    for (int64_t j = lo[r]; j < hi[r]; j++) {
        const double p = exp(s[j] - top);
        sum += p;
        for (int i = 0; i < DIM_V; i++) y[i] += p * (double)values[j * DIM_V + i];
    }
    if (sink) sum += exp((double)sink[r] - top);
    for (int i = 0; i < DIM_V; i++) y[i] = sum > 0 ? y[i] / sum : 0;
}

static void results_match_softmax_in_double(void **state)
{
    (void)state;
    static double exact[ROWS * DIM_V];
    make_inputs(2);
    for (int kind = 0; kind < 4; kind++)
        for (int variant = 0; variant < 4; variant++) {
            struct attn_args a = call();
            set_ranges(kind);
            if (variant & 1) a.cap = 1.5f;
            if (variant & 2) a.sink = sinks;
            run_on(kern, a);
            for (int r = 0; r < ROWS; r++) attend_twin(r, a.cap, a.sink, exact + r * DIM_V);
            assert_close(out, exact, ROWS * DIM_V, 2e-6, "attn");
        }
}

/* Two keys with scores 0 and log 3: weights 1/4, 3/4. With a sink of log 4: 1/8, 3/8 and half of the weight nowhere. */
static void two_keys_by_hand(void **state)
{
    (void)state;
    float block[KEY_BLOCK], y, top, sum;
    const float v[] = { 8, 16 }, one = 1, sink = 1.3862944f;
    kern->store_key(block, 0, (float[]){ 0 }, 1);
    kern->store_key(block, 1, (float[]){ 1.0986123f }, 1);
    struct attn_args a = { .out = &y, .ld_out = 1, .q = &one, .ld_q = 1, .k = block, .v = v, .lo = (int64_t[]){ 0 },
                           .hi = (int64_t[]){ 2 }, .n_rows = 1, .head_dim = 1, .head_dim_v = 1, .scale = 1, .max = &top,
                           .total = &sum };
    kern->attn(&a);
    assert_float_equal(y, 14, 1e-5);
    assert_float_equal(top, 1.0986123, 1e-6);
    assert_float_equal(sum, 4.0 / 3, 1e-6);
    a.sink = &sink;
    kern->attn(&a);
    assert_float_equal(y, 7, 1e-5);
    assert_float_equal(sum, 2, 1e-6);
}

static void a_row_that_sees_nothing_is_zero(void **state)
{
    (void)state;
    make_inputs(1);
    struct attn_args a = call();
    for (int r = 0; r < ROWS; r++) lo[r] = hi[r] = r % 2 ? 3 : 0;
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
    make_inputs(3000);
    const struct attn_args a = call();
    set_ranges(2);
    run_on(kern, a);
    for (int i = 0; i < ROWS * DIM_V; i++) assert_true(fabsf(out[i]) <= 1.0f);
}

static void stored_keys_lie_in_blocks_of_sixteen(void **state)
{
    (void)state;
    make_inputs(1);
    for (int j = 0; j < KEYS; j++)
        for (int i = 0; i < DIM; i++)
            assert_true(blocks[(j / 16) * DIM * 16 + i * 16 + j % 16] == keys[j * DIM + i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_level_gives_portable_bits),
        cmocka_unit_test(rows_are_independent_of_their_company),
        cmocka_unit_test(results_match_softmax_in_double),
        cmocka_unit_test(two_keys_by_hand),
        cmocka_unit_test(a_row_that_sees_nothing_is_zero),
        cmocka_unit_test(large_scores_do_not_overflow),
        cmocka_unit_test(stored_keys_lie_in_blocks_of_sixteen),
    };
    return cmocka_run_group_tests_name("tensor/attn", tests, NULL, NULL);
}
