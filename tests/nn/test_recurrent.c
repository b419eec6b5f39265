/* The causal convolution and the gated delta rule: by hand, and the same bits however a sequence is cut. */
#include "support/arrays.h"

#include <math.h>
#include <string.h>

#include "nn/nn.h"

static struct nn context(struct tape *tape) { return (struct nn){ .arena = test_arena(), .tape = tape }; }

static struct attn_batch whole(int32_t n)
{
    int32_t *off = test_alloc(2 * sizeof *off);
    int64_t *pos0 = test_alloc(sizeof *pos0);
    off[1] = n;
    return (struct attn_batch){ 1, off, pos0, NULL };
}

/* One column, taps (1, 10, 100), the last on the current token; x = 1 2 3:
 * 100*1, 10*1 + 100*2, 1*1 + 10*2 + 100*3 */
static void a_convolution_by_hand(void **state)
{
    (void)state;
    struct nn c = context(NULL);
    float taps[] = { 1, 10, 100 }, x[] = { 1, 2, 3 };
    const struct attn_batch b = whole(3);
    const struct val *y = nn_conv(&c, nn_wrap(&c, x, 3, 1), test_weight("w", taps, 1, 3), NULL, &b, NULL);
    const float want[] = { 100, 210, 321 };
    assert_same_bits("convolution", y->data, want, 3);
}

/* Two sequences of a batch do not see each other. */
static void sequences_of_a_batch_begin_from_nothing(void **state)
{
    (void)state;
    struct nn c = context(NULL);
    float taps[] = { 1, 10 }, x[] = { 1, 2, 3 };
    const struct attn_batch b = { 2, (int32_t[]){ 0, 2, 3 }, (int64_t[]){ 0, 0 }, NULL };
    const struct val *y = nn_conv(&c, nn_wrap(&c, x, 3, 1), test_weight("w", taps, 1, 2), NULL, &b, NULL);
    const float want[] = { 10, 21, 30 };
    assert_same_bits("convolution", y->data, want, 3);
}

enum { COLS = 70, TAPS = 4, TOKENS = 11 }; /* more columns than a strip, cuts shorter than the kernel */

static void a_cut_convolution_has_the_same_bits(void **state)
{
    (void)state;
    struct nn c = context(NULL);
    struct weight *w = test_weight("w", random_floats(1, COLS * TAPS, 1), COLS, TAPS);
    struct weight *bias = test_weight("b", random_floats(2, COLS, 1), 1, COLS);
    float *x = random_floats(3, TOKENS * COLS, 1);
    const struct attn_batch b = whole(TOKENS);
    const struct val *want = nn_conv(&c, nn_wrap(&c, x, TOKENS, COLS), w, bias, &b, NULL);
    struct kv_layer kv = { .state = test_alloc((size_t)nn_conv_state(COLS, TAPS) * sizeof(float)) };
    static const int32_t cuts[] = { 1, 2, 5, 3 };
    for (int32_t i = 0, at = 0; i < (int32_t)COE_COUNT(cuts); at += cuts[i++]) {
        const struct attn_batch part = whole(cuts[i]);
        const struct val *y = nn_conv(&c, nn_wrap(&c, x + at * COLS, cuts[i], COLS), w, bias, &part, &kv);
        assert_same_bits("a piece", y->data, want->data + at * COLS, cuts[i] * COLS);
    }
}

/* One head, d_k = d_v = 1, so q and k have length one and sign only. b = 0: beta 1/2; A = 0, a + dt = 0: the state is
 * kept by exp(-ln 2) = 1/2.   q k v = + + 4, then + - 2:
 *   S = 0/2 + 1*(4 - 0)/2 = 2               o = 2
 *   S = 2/2 = 1; S += -1*(2 - (-1))/2 = -.5  o = -.5      (Sᵀk = -1) */
static void the_delta_rule_by_hand(void **state)
{
    (void)state;
    struct nn c = context(NULL);
    float x[] = { 3, 2, 4, 5, -7, 2 }, zero[1] = { 0 }, ba[4] = { 0 };
    const struct delta_shape s = { 1, 1, 1, 1, false };
    const struct attn_batch b = whole(2);
    const struct val *y = nn_delta(&c, nn_wrap(&c, x, 2, 3), nn_wrap(&c, ba, 2, 2), test_weight("A", zero, 1, 1),
                                   test_weight("dt", zero, 1, 1), &s, &b, NULL, 0);
    assert_near("first", (double)y->data[0], 2, 1e-5);
    assert_near("second", (double)y->data[1], -0.5, 1e-5);
}

static void a_decay_stored_as_a_rate_has_the_same_bits(void **state)
{
    (void)state;
    struct delta_shape s = { 1, 3, 2, 4, false };
    const int64_t width = 2 * s.n_k * s.d_k + s.n_v * s.d_v;
    struct nn c = context(NULL);
    float *log_a = random_floats(1, s.n_v, 1), *rate = random_floats(1, s.n_v, 1);
    for (int32_t h = 0; h < s.n_v; h++) rate[h] = -fm_exp(log_a[h]);
    const struct weight *dt = test_weight("dt", random_floats(2, s.n_v, 1), 1, s.n_v);
    struct val *x = nn_wrap(&c, random_floats(3, TOKENS * width, 1), TOKENS, width);
    struct val *ba = nn_wrap(&c, random_floats(4, TOKENS * 2 * s.n_v, 1), TOKENS, 2 * s.n_v);
    const struct attn_batch b = whole(TOKENS);
    const struct val *want = nn_delta(&c, x, ba, test_weight("A", log_a, 1, s.n_v), dt, &s, &b, NULL, 0);
    s.negative_a = true;
    const struct val *y = nn_delta(&c, x, ba, test_weight("-exp(A)", rate, 1, s.n_v), dt, &s, &b, NULL, 0);
    assert_same_bits("rates", y->data, want->data, TOKENS * s.n_v * s.d_v);
}

static void a_cut_delta_rule_has_the_same_bits(void **state)
{
    (void)state;
    const struct delta_shape s = { 2, 4, 8, 6, false };
    const int64_t width = 2 * s.n_k * s.d_k + s.n_v * s.d_v, out = s.n_v * s.d_v;
    struct nn c = context(NULL);
    struct weight *a = test_weight("A", random_floats(1, s.n_v, 1), 1, s.n_v);
    struct weight *dt = test_weight("dt", random_floats(2, s.n_v, 1), 1, s.n_v);
    float *x = random_floats(3, TOKENS * width, 1), *ba = random_floats(4, TOKENS * 2 * s.n_v, 1);
    const struct attn_batch b = whole(TOKENS);
    const struct val *want =
        nn_delta(&c, nn_wrap(&c, x, TOKENS, width), nn_wrap(&c, ba, TOKENS, 2 * s.n_v), a, dt, &s, &b, NULL, 0);
    const int64_t offset = 5; /* the convolution's state stands before */
    struct kv_layer kv = { .state = test_alloc((size_t)(offset + s.n_v * s.d_k * s.d_v) * sizeof(float)) };
    static const int32_t cuts[] = { 4, 1, 6 };
    for (int32_t i = 0, at = 0; i < (int32_t)COE_COUNT(cuts); at += cuts[i++]) {
        const struct attn_batch part = whole(cuts[i]);
        const struct val *y =
            nn_delta(&c, nn_wrap(&c, x + at * width, cuts[i], width),
                     nn_wrap(&c, ba + at * 2 * s.n_v, cuts[i], 2 * s.n_v), a, dt, &s, &part, &kv, offset);
        assert_same_bits("a piece", y->data, want->data + at * out, cuts[i] * out);
    }
    for (int64_t i = 0; i < offset; i++) assert_true(kv.state[i] == 0);
}

static void recording_is_refused_by_name(void **state)
{
    (void)state;
    struct tape tape = { 0 };
    struct nn c = context(&tape);
    float taps[] = { 1, 2 }, x[] = { 1, 2 };
    const struct attn_batch b = whole(2);
    assert_null(nn_conv(&c, nn_wrap(&c, x, 2, 1), test_weight("w", taps, 1, 2), NULL, &b, NULL));
    assert_error_has("a convolution has no backward pass");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_convolution_by_hand),
        cmocka_unit_test(sequences_of_a_batch_begin_from_nothing),
        cmocka_unit_test(a_cut_convolution_has_the_same_bits),
        cmocka_unit_test(the_delta_rule_by_hand),
        cmocka_unit_test(a_decay_stored_as_a_rate_has_the_same_bits),
        cmocka_unit_test(a_cut_delta_rule_has_the_same_bits),
        cmocka_unit_test(recording_is_refused_by_name),
    };
    return kernels_init() || cmocka_run_group_tests_name("nn/recurrent", tests, NULL, NULL);
}
