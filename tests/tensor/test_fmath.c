/* Our own exp, log, tanh, logistic and normal distribution functions: accuracy against the C library in double, edges,
 * and the same bits at every level. The tables' sine, cosine and power. */
#include "tensor/levels.h"

/* |got - true| in units of the true value's last place. */
static double ulps(float got, double exact)
{
    int e;
    frexp(exact, &e);
    return fabs((double)got - exact) / ldexp(1.0, (e > -125 ? e : -125) - 24);
}

static void check(const char *what, float (*f)(float), double (*exact)(double), float lo, float hi, double limit)
{
    double worst = 0;
    float at = lo;
    for (int i = 0; i <= 40000; i++) {
        const float x = lo + (hi - lo) * (float)i / 40000.0f;
        const double off = ulps(f(x), exact((double)x));
        if (off > worst) worst = off, at = x;
    }
    if (worst > limit)
        fail_msg("%s(%a) is off by %.2f units in the last place, at most %g wanted", what, (double)at, worst, limit);
}

static double logistic(double x) { return 1 / (1 + exp(-x)); }

static void exp_log_tanh_and_sigmoid_are_accurate_to_two_units(void **state)
{
    (void)state;
    check("exp", fm_exp, exp, -87.3f, 88.7f, 1.0);
    check("exp", fm_exp, exp, -1, 1, 1.0);
    check("log", fm_log, log, 0.5f, 2, 1.0);
    check("log", fm_log, log, 1e-37f, 1e-35f, 1.0);
    check("log", fm_log, log, 2, 1e6f, 1.0);
    check("tanh", fm_tanh, tanh, -1.2f, 1.2f, 2.0);
    check("tanh", fm_tanh, tanh, -12, 12, 2.0);
    check("sigmoid", fm_sigmoid, logistic, -86, 86, 2.5);
    check("sigmoid", fm_sigmoid, logistic, -2, 2, 2.5);
}

static void edges_of_the_functions(void **state)
{
    (void)state;
    assert_true(fm_exp(0) == 1 && fm_exp(-0.0f) == 1);
    assert_true(fm_exp(-INFINITY) == 0 && fm_exp(-200) == 0 && fm_exp(-88) == 0);
    assert_true(fm_exp(INFINITY) == INFINITY && fm_exp(89) == INFINITY);
    assert_true(isfinite(fm_exp(88.72283f)));
    assert_true(fm_log(1) == 0 && fm_log(0) == -INFINITY && fm_log(INFINITY) == INFINITY);
    assert_true(isnan(fm_log(-1)) && fabs((double)fm_log(1e-42f) - log((double)1e-42f)) < 1e-5);
    assert_true(fm_tanh(50) == 1 && fm_tanh(-INFINITY) == -1 && fm_tanh(1e-30f) == 1e-30f);
    assert_true(fm_sigmoid(0) == 0.5f && fm_sigmoid(-INFINITY) == 0 && fm_sigmoid(INFINITY) == 1);
    float (*const all[])(float) = { fm_exp, fm_log, fm_tanh, fm_sigmoid };
    for (size_t i = 0; i < COE_COUNT(all); i++) assert_true(isnan(all[i](NAN)) && isnan(all[i](-NAN)));
}

/* Every 65537th float, so that all exponents, both signs, NaN and infinities come by. */
static void all_levels_have_the_same_bits_over_the_whole_line(void **state)
{
    (void)state;
    FOR_OTHER_LEVELS(k)
    for (uint64_t bits = 0; bits <= UINT32_MAX; bits += 65537) {
        const uint32_t b = (uint32_t)bits;
        float x;
        memcpy(&x, &b, sizeof x);
        const float expected[] = { PORTABLE->exp1(x), PORTABLE->log1(x), PORTABLE->tanh1(x), PORTABLE->sigmoid1(x) };
        const float got[] = { (*k)->exp1(x), (*k)->log1(x), (*k)->tanh1(x), (*k)->sigmoid1(x) };
        assert_same_bits(got, expected, 4, "exp, log, tanh, sigmoid", (*k)->name);
    }
}

/* gelu(x) / x is the normal distribution function: its left tail keeps its digits. */
static void exact_gelu_keeps_its_digits_in_the_tail(void **state)
{
    (void)state;
    for (float x = -12; x < 8; x += 0.0137f) {
        float y;
        kern->act(ACT_GELU, &y, &x, NULL, 1);
        const double exact = (double)x * 0.5 * erfc(-(double)x / sqrt(2));
        if (ulps(y, exact) > 6)
            fail_msg("gelu(%g) is %.9g, expected %.9g: %.1f units", (double)x, (double)y, exact, ulps(y, exact));
    }
}

static void sine_and_cosine_are_right_far_out(void **state)
{
    (void)state;
    for (int i = 0; i < 4000; i++) {
        const double x = (rng_unit(rng_at(5, 6, (uint64_t)i)) - 0.5) * exp2(i % 52);
        float s, c;
        fm_sincos(x, &s, &c);
        if (ulps(s, sin(x)) > 0.51 || ulps(c, cos(x)) > 0.51)
            fail_msg("sin, cos(%a) are %a, %a, expected %a, %a", x, (double)s, (double)c, sin(x), cos(x));
    }
    float s, c;
    fm_sincos(0, &s, &c);
    assert_true(s == 0 && c == 1);
}

static void powers_are_right_to_float_and_better(void **state)
{
    (void)state;
    for (int i = 0; i < 4000; i++) {
        const double x = exp((rng_unit(rng_at(7, 8, (uint64_t)i)) - 0.5) * 60),
                     y = (rng_unit(rng_at(9, 8, (uint64_t)i)) - 0.5) * 8;
        const double got = fm_pow(x, y), exact = pow(x, y);
        if (!(fabs(got / exact - 1) < 1e-13)) fail_msg("pow(%a, %a) is %a, expected %a", x, y, got, exact);
    }
    assert_true(fm_pow(10000, 0) == 1 && fm_pow(1, 5) == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_log_tanh_and_sigmoid_are_accurate_to_two_units),
        cmocka_unit_test(edges_of_the_functions),
        cmocka_unit_test(all_levels_have_the_same_bits_over_the_whole_line),
        cmocka_unit_test(exact_gelu_keeps_its_digits_in_the_tail),
        cmocka_unit_test(sine_and_cosine_are_right_far_out),
        cmocka_unit_test(powers_are_right_to_float_and_better),
    };
    return cmocka_run_group_tests_name("tensor/fmath", tests, NULL, NULL);
}
