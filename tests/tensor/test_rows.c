/* Kernels over single rows: every level against portable over odd sizes, accuracy and gradients against naive FP64
 * twins. */
#include "tensor/levels.h"

#define MAX 320
/* Inputs, with room to start at an odd address; and three outputs of each of two levels. */
static float in[4][MAX], got[3][MAX], expected[3][MAX];
static double exact[3][MAX];

static void make_inputs(float range, uint64_t seed)
{
    for (size_t i = 0; i < COE_COUNT(in); i++) fill_random(in[i], MAX, range, seed + i);
}

static void fill_outputs(float (*out)[MAX])
{
    for (size_t i = 0; i < 3; i++) fill_random(out[i], MAX, 1, 100 + i);
}

/* Runs `statement` for n elements with k the level and o its outputs (filled the same before), and compares the outputs
 * whole: what lies behind the end must be untouched. */
#define SAME_AT_ALL_LEVELS(what, statement)                                                                            \
    FOR_SIZES(size)                                                                                                    \
    {                                                                                                                  \
        const int64_t n = (int64_t)size;                                                                               \
        for (const struct kernels *const *level = kernels_all(); *level; level++) {                                    \
            const struct kernels *const k = *level;                                                                    \
            float(*o)[MAX] = k == PORTABLE ? expected : got;                                                           \
            fill_outputs(o);                                                                                           \
            statement;                                                                                                 \
            if (k != PORTABLE)                                                                                         \
                for (int i = 0; i < 3; i++) assert_same_bits(got[i], expected[i], MAX, what, k->name);                 \
        }                                                                                                              \
    }

/* Zeros of both signs, subnormals, infinities and a NaN among ordinary numbers. */
static void add_extremes(float *x)
{
    const float odd[] = { 0, -0.0f, 0x1p-149f, -0x1p-130f, INFINITY, -INFINITY, NAN, 3e38f, -3e38f, 89, -104 };
    for (size_t i = 0; i < COE_COUNT(odd); i++) x[3 + 2 * i] = odd[i];
}

static void elementwise_kernels_agree_at_all_levels(void **state)
{
    (void)state;
    make_inputs(3, 1);
    add_extremes(in[0]);
    const float *a = in[0] + 1, *b = in[1] + 3;
    SAME_AT_ALL_LEVELS("add", k->add(o[0] + 1, a, n));
    SAME_AT_ALL_LEVELS("sum", k->sum(o[0] + 1, a, b, n));
    SAME_AT_ALL_LEVELS("sum in place", k->sum(o[0], o[0], b, n));
    SAME_AT_ALL_LEVELS("scale", k->scale(o[0] + 1, a, 0.3f, n));
    SAME_AT_ALL_LEVELS("mul", k->mul(o[0] + 1, a, b, n));
    SAME_AT_ALL_LEVELS("fma_row", k->fma_row(o[0] + 1, 0.7f, a, n));
    SAME_AT_ALL_LEVELS("exp", k->exp(o[0] + 1, a, 0.25f, n));
    SAME_AT_ALL_LEVELS("sigmoid", k->sigmoid(o[0] + 1, a, n));
    SAME_AT_ALL_LEVELS("tanh", k->tanh(o[0] + 1, a, n));
    SAME_AT_ALL_LEVELS("rope", k->rope(o[0] + 1, in[1], b, n / 4, false, false));
    SAME_AT_ALL_LEVELS("rope interleaved", k->rope(o[0] + 1, in[1], b, n / 4, true, true));
}

static void activations_agree_at_all_levels(void **state)
{
    (void)state;
    make_inputs(9, 2);
    add_extremes(in[0]);
    const float *a = in[0] + 1, *b = in[1] + 3, *d = in[2];
    for (enum activation act = 0; act < ACT_COUNT; act++) {
        SAME_AT_ALL_LEVELS(activation_name[act], k->act(act, o[0] + 1, a, NULL, n));
        SAME_AT_ALL_LEVELS(activation_name[act], k->act(act, o[0] + 1, a, b, n));
        SAME_AT_ALL_LEVELS(activation_name[act], k->act_back(act, o[0] + 1, o[1], o[2] + 3, a, b, d, n));
        SAME_AT_ALL_LEVELS(activation_name[act], k->act_back(act, o[0] + 1, NULL, NULL, a, NULL, d, n));
    }
    SAME_AT_ALL_LEVELS("act_clamp", k->act_clamp(2.5f, o[0] + 1, a, b, n));
    SAME_AT_ALL_LEVELS("act_clamp_back", k->act_clamp_back(2.5f, o[0] + 1, o[1], o[2] + 3, a, b, d, n));
}

static void norms_losses_and_the_optimiser_agree_at_all_levels(void **state)
{
    (void)state;
    make_inputs(2, 3);
    const float *x = in[0] + 1, *w = in[1] + 3, *dy = in[2], *b = in[3];
    const float stats[2] = { 0.125f, 1.5f };
    const struct adamw_args adam = { 0.01f, 0.9f, 0.95f, 1e-8f, 0.1f, 0.1f, 0.05f, 0.5f };
    SAME_AT_ALL_LEVELS("rmsnorm", o[1][0] = n ? k->rmsnorm(o[0] + 1, x, w, 1, n, 1e-6f) : 0);
    SAME_AT_ALL_LEVELS("rmsnorm without weights", o[1][0] = n ? k->rmsnorm(o[0] + 1, x, NULL, 0, n, 1e-6f) : 0);
    SAME_AT_ALL_LEVELS("rmsnorm_back", k->rmsnorm_back(o[0] + 1, o[1], dy, x, w, 0.5f, 1.25f, n));
    SAME_AT_ALL_LEVELS("layernorm", if (n) k->layernorm(o[0] + 1, x, w, b, n, 1e-5f, o[1]));
    SAME_AT_ALL_LEVELS("layernorm_back", k->layernorm_back(o[0] + 1, o[1], o[2], dy, x, w, stats, n));
    SAME_AT_ALL_LEVELS("xent", if (n) o[1][0] = k->xent(x, n, n / 2, &o[1][1]));
    SAME_AT_ALL_LEVELS("xent_back", if (n) k->xent_back(o[0] + 1, x, n, n / 2, 4.5f, 0.1f, 0.01f));
    SAME_AT_ALL_LEVELS("adamw", { k->mul(o[2], o[2], o[2], MAX); k->adamw(o[0], o[1], o[2], x, n, &adam); });
    SAME_AT_ALL_LEVELS("dot", o[0][0] = k->dot(x, w, n));
    SAME_AT_ALL_LEVELS("sumsq", { double s = k->sumsq(x, n); memcpy(o[0], &s, sizeof s); });
}

/* a(x), b(y) in double. */
static double act_twin(enum activation a, double x)
{
    switch (a) {
    case ACT_SILU: return x / (1 + exp(-x));
    case ACT_GELU: return 0.5 * x * erfc(-x / sqrt(2));
    case ACT_GELU_TANH: return 0.5 * x * (1 + tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)));
    case ACT_RELU: return x > 0 ? x : 0;
    case ACT_RELU2: return x > 0 ? x * x : 0;
    default: x = fmin(x, 7); return x / (1 + exp(-1.702 * x));
    }
}
static double up_twin(enum activation a, double y) { return a == ACT_SWIGLU_CLAMP ? fmax(-7, fmin(7, y)) + 1 : y; }

static void activations_and_their_slopes_match_central_differences(void **state)
{
    (void)state;
    make_inputs(8, 4);
    const double h = 1e-5;
    for (enum activation a = 0; a < ACT_COUNT; a++) {
        kern->act(a, got[0], in[0], in[1], MAX);
        for (int i = 0; i < MAX; i++) exact[0][i] = act_twin(a, (double)in[0][i]) * up_twin(a, (double)in[1][i]);
        assert_close(got[0], exact[0], MAX, 1e-6, activation_name[a]);
        kern->act_back(a, got[0], got[1], got[2], in[0], in[1], in[2], MAX);
        for (int i = 0; i < MAX; i++) {
            const double x = (double)in[0][i], y = (double)in[1][i], d = (double)in[2][i];
            exact[2][i] = exact[0][i];
            exact[0][i] = d * up_twin(a, y) * (act_twin(a, x + h) - act_twin(a, x - h)) / (2 * h);
            exact[1][i] = d * act_twin(a, x) * (up_twin(a, y + h) - up_twin(a, y - h)) / (2 * h);
        }
        assert_close(got[0], exact[0], MAX, 2e-6, activation_name[a]);
        assert_close(got[1], exact[1], MAX, 2e-6, activation_name[a]);
        assert_close(got[2], exact[2], MAX, 1e-6, activation_name[a]);
    }
}

/* gate 1, up 2: silu(1) = 0.731059, u = 1.462117; gpt-oss: gate 8 is cut to 7, 7 sigmoid(11.914) = 6.999953, up 9 is
 * cut to 7, plus 1: 55.999625; neither passes a gradient. */
static void activations_by_hand(void **state)
{
    (void)state;
    float u, dgate, dup;
    kern->act(ACT_SILU, &u, (float[]){ 1 }, (float[]){ 2 }, 1);
    assert_float_equal(u, 1.4621172f, 1e-6);
    kern->act(ACT_SWIGLU_CLAMP, &u, (float[]){ 8 }, (float[]){ 9 }, 1);
    assert_float_equal(u, 55.999625f, 1e-4);
    kern->act_back(ACT_SWIGLU_CLAMP, &dgate, &dup, NULL, (float[]){ 8 }, (float[]){ 9 }, (float[]){ 1 }, 1);
    assert_true(dgate == 0 && dup == 0);
    /* limit 1: gate 8 is cut to 1, sigmoid(1.702) = 0.845796, up -9 is cut to -1, plus 1: 0; dup stays 0, dgate too */
    kern->act_clamp(1, &u, (float[]){ 8 }, (float[]){ -9 }, 1);
    assert_true(u == 0);
    kern->act_clamp(1, &u, (float[]){ 8 }, (float[]){ 0 }, 1);
    assert_float_equal(u, 0.845796f, 1e-6);
    kern->act_clamp_back(1, &dgate, &dup, &u, (float[]){ 1 }, (float[]){ 0.5f }, (float[]){ 1 }, 1);
    /* inside both limits: dup = a(1) = 0.845796, u = 1.5 of it */
    assert_float_equal(dup, 0.845796f, 1e-6);
    assert_float_equal(u, 1.268694f, 1e-6);
    kern->act(ACT_RELU2, &u, (float[]){ -3 }, NULL, 1);
    assert_true(u == 0);
}

/* sum over i of dy y as a function of one x or w, for central differences */
static double rms_loss(const double *x, const double *w, int n)
{
    double ss = 0, loss = 0;
    for (int i = 0; i < n; i++) ss += x[i] * x[i];
    for (int i = 0; i < n; i++) loss += (double)in[2][i] * x[i] / sqrt(ss / n + 1e-5) * (w[i] + 0.5);
    return loss;
}
static double layer_loss(const double *x, const double *w, int n)
{
    double mean = 0, var = 0, loss = 0;
    for (int i = 0; i < n; i++) mean += x[i] / n;
    for (int i = 0; i < n; i++) var += (x[i] - mean) * (x[i] - mean) / n;
    for (int i = 0; i < n; i++) loss += (double)in[2][i] * (x[i] - mean) / sqrt(var + 1e-5) * w[i];
    return loss;
}

/* Gradients of `loss` at in[0], in[1] into exact[0] (x) and exact[1] (w). */
static void differences(double (*loss)(const double *, const double *, int), int n)
{
    double v[2][MAX];
    const double h = 1e-5;
    for (int s = 0; s < 2; s++)
        for (int i = 0; i < n; i++) v[s][i] = (double)in[s][i];
    for (int s = 0; s < 2; s++)
        for (int i = 0; i < n; i++) {
            const double at = v[s][i];
            v[s][i] = at + h;
            const double above = loss(v[0], v[1], n);
            v[s][i] = at - h;
            exact[s][i] = (above - loss(v[0], v[1], n)) / (2 * h);
            v[s][i] = at;
        }
}

static void norm_gradients_match_central_differences(void **state)
{
    (void)state;
    const int n = 75;
    make_inputs(1, 5);
    memset(got, 0, sizeof got);
    const float r = kern->rmsnorm(expected[0], in[0], in[1], 0.5f, n, 1e-5f);
    kern->rmsnorm_back(got[0], got[1], in[2], in[0], in[1], 0.5f, r, n);
    differences(rms_loss, n);
    assert_close(got[0], exact[0], (size_t)n, 2e-6, "rmsnorm dx");
    assert_close(got[1], exact[1], (size_t)n, 2e-6, "rmsnorm dw");

    float stats[2];
    memset(got, 0, sizeof got);
    kern->layernorm(expected[0], in[0], in[1], in[3], n, 1e-5f, stats);
    kern->layernorm_back(got[0], got[1], got[2], in[2], in[0], in[1], stats, n);
    differences(layer_loss, n);
    assert_close(got[0], exact[0], (size_t)n, 2e-6, "layernorm dx");
    assert_close(got[1], exact[1], (size_t)n, 2e-6, "layernorm dw");
    for (int i = 0; i < n; i++) assert_true(got[2][i] == in[2][i]);
}

/* x = 3, 4: r = 1/sqrt(12.5), y = 0.8485, 1.1314. x = 1, 3: mean 2, deviation 1, y = -1, 1. */
static void norms_by_hand(void **state)
{
    (void)state;
    float y[2], stats[2];
    const float r = kern->rmsnorm(y, (float[]){ 3, 4 }, NULL, 0, 2, 0);
    assert_float_equal(r, 0.28284271f, 1e-7);
    assert_float_equal(y[0], 0.84852814f, 1e-6);
    assert_float_equal(y[1], 1.1313709f, 1e-6);
    kern->layernorm(y, (float[]){ 1, 3 }, (float[]){ 1, 2 }, (float[]){ 0, 0.5f }, 2, 0, stats);
    assert_true(y[0] == -1 && y[1] == 2.5f && stats[0] == 2 && stats[1] == 1);
}

static void cross_entropy_matches_double_and_keeps_small_losses(void **state)
{
    (void)state;
    const int n = 300;
    float lse;
    make_inputs(5, 6);
    double sum = 0;
    for (int i = 0; i < n; i++) sum += exp((double)in[0][i]);
    const float loss = kern->xent(in[0], n, 7, &lse);
    assert_float_equal(lse, log(sum), 2e-6);
    assert_float_equal(loss, log(sum) - (double)in[0][7], 2e-6);
    kern->xent_back(got[0], in[0], n, 7, lse, 0.5f, 0.25f);
    for (int i = 0; i < n; i++) exact[0][i] = 0.75 * exp((double)in[0][i]) / sum - 0.5 * (i == 7);
    assert_close(got[0], exact[0], (size_t)n, 1e-6, "xent_back");
    /* one logit 1000 above one 990: the loss is log(1 + e^-10) = 4.53989e-5; float numbers near 1000 are 6e-5 apart */
    const float sure = kern->xent((float[]){ 1000, 990 }, 2, 0, &lse);
    assert_float_equal(sure, 4.5398899e-5f, 6e-8);
}

/* A step from zero moments with g = 2: m = 0.2, v = 0.04, both unbiased again to 2 and 4: w - lr (2/2 + wd w). */
static void adamw_by_hand(void **state)
{
    (void)state;
    float w = 3, m = 0, v = 0;
    const float g = 4;
    kern->adamw(&w, &m, &v, &g, 1, &(struct adamw_args){ 0.1f, 0.9f, 0.99f, 0, 0.5f, 0.1f, 0.01f, 0.5f });
    assert_float_equal(m, 0.2f, 1e-7);
    assert_float_equal(v, 0.04f, 1e-7);
    assert_float_equal(w, 3 - 0.1 * (1 + 0.5 * 3), 1e-6);
}

/* (1, 0) turned by 90 degrees is (0, 1); turning back restores. */
static void rope_turns_pairs_and_turns_them_back(void **state)
{
    (void)state;
    float halves[] = { 1, 5, 0, 6 }, pairs[] = { 1, 0, 5, 6 };
    const float c[] = { 0, 1 }, s[] = { 1, 0 };
    kern->rope(halves, c, s, 2, false, false);
    assert_memory_equal(halves, ((float[]){ 0, 5, 1, 6 }), sizeof halves);
    kern->rope(halves, c, s, 2, false, true);
    assert_memory_equal(halves, ((float[]){ 1, 5, 0, 6 }), sizeof halves);
    kern->rope(pairs, c, s, 2, true, false);
    assert_memory_equal(pairs, ((float[]){ 0, 1, 5, 6 }), sizeof pairs);
}

static void sums_of_squares_are_in_double(void **state)
{
    (void)state;
    static float x[3000];
    double sum = 0;
    fill_random(x, 3000, 1e20f, 7);
    for (int i = 0; i < 3000; i++) sum += (double)x[i] * (double)x[i];
    assert_true(fabs(kern->sumsq(x, 3000) / sum - 1) < 1e-13);
    assert_true(kern->sumsq(x, 0) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(elementwise_kernels_agree_at_all_levels),
        cmocka_unit_test(activations_agree_at_all_levels),
        cmocka_unit_test(norms_losses_and_the_optimiser_agree_at_all_levels),
        cmocka_unit_test(activations_and_their_slopes_match_central_differences),
        cmocka_unit_test(activations_by_hand),
        cmocka_unit_test(norm_gradients_match_central_differences),
        cmocka_unit_test(norms_by_hand),
        cmocka_unit_test(cross_entropy_matches_double_and_keeps_small_losses),
        cmocka_unit_test(adamw_by_hand),
        cmocka_unit_test(rope_turns_pairs_and_turns_them_back),
        cmocka_unit_test(sums_of_squares_are_in_double),
    };
    return cmocka_run_group_tests_name("tensor/rows", tests, NULL, NULL);
}
