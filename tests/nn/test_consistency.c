/* The consistency of two predictions: the number of card 20, its limits, rows that do not count, and its gradient. */
#include "support/arrays.h"

#include <math.h>
#include <string.h>

#include "nn/nn.h"

enum { ROWS = 3, VOCAB = 5 };
static const int32_t target[ROWS] = { 1, -1, 4 };

static struct nn context(struct tape *tape) { return (struct nn){ .arena = test_arena(), .tape = tape }; }

static double of(const float *a, const float *b, int64_t rows, int64_t vocab, const int32_t *t)
{
    struct nn c = context(NULL);
    double sum = 0;
    float *x = test_alloc((size_t)(rows * vocab) * sizeof *x), *y = test_alloc((size_t)(rows * vocab) * sizeof *y);
    memcpy(x, a, (size_t)(rows * vocab) * sizeof *x);
    memcpy(y, b, (size_t)(rows * vocab) * sizeof *y);
    assert_ok(nn_consistency(&c, nn_wrap(&c, x, rows, vocab), nn_wrap(&c, y, rows, vocab), t, 1, &sum));
    return sum;
}

/* p = (.7 .3), q = (.6 .4): 1/2 (.1 ln(.7/.6) - .1 ln(.3/.4)) = .022092 */
static void the_example_of_the_card(void **state)
{
    (void)state;
    const float a[] = { logf(.7f), logf(.3f) }, b[] = { logf(.6f), logf(.4f) }, moved[] = { a[0] + 3, a[1] + 3 };
    const int32_t zero = 0;
    assert_near("KLsym", of(a, b, 1, 2, &zero), .022092, 1e-6);
    assert_near("the other way round", of(b, a, 1, 2, &zero), .022092, 1e-6);
    assert_near("with itself", of(a, moved, 1, 2, &zero), 0, 1e-7);
}

static double value(const double *z, int which, int64_t i, double h)
{
    double sum = 0;
    for (int64_t t = 0; t < ROWS; t++) {
        double x[2][VOCAB], all[2] = { 0, 0 };
        if (target[t] < 0) continue;
        for (int s = 0; s < 2; s++)
            for (int64_t v = 0; v < VOCAB; v++) {
                const int64_t at = t * VOCAB + v;
                x[s][v] = z[s * ROWS * VOCAB + at] + (which == s && i == at ? h : 0);
                all[s] += exp(x[s][v]);
            }
        for (int64_t v = 0; v < VOCAB; v++) {
            const double p = exp(x[0][v]) / all[0], q = exp(x[1][v]) / all[1];
            sum += (p - q) * (log(p) - log(q)) / 2;
        }
    }
    return sum;
}

static void the_gradient_agrees_with_central_differences_and_adds_to_what_is_there(void **state)
{
    (void)state;
    struct tape tape = { 0 };
    struct nn c = context(&tape);
    const double *z = random_doubles(7, 2 * ROWS * VOCAB, 1.5);
    struct val *x[2];
    for (int s = 0; s < 2; s++) x[s] = nn_wrap(&c, floats_of(z + s * ROWS * VOCAB, ROWS * VOCAB), ROWS, VOCAB);
    double sum;
    assert_ok(nn_consistency(&c, x[0], x[1], target, .5, &sum));
    assert_near("value", sum, value(z, -1, 0, 0), 1e-5);
    nn_grad(&c, x[1])[2] = 10;
    assert_ok(nn_backward(&c));
    for (int s = 0; s < 2; s++)
        for (int64_t i = 0; i < ROWS * VOCAB; i++) {
            const double slope = (value(z, s, i, 1e-5) - value(z, s, i, -1e-5)) / 2e-5;
            assert_near("gradient", (double)x[s]->grad[i], .5 * slope + (s == 1 && i == 2 ? 10 : 0), 2e-6);
        }
}

static void threads_change_no_bit(void **state)
{
    (void)state;
    enum { MANY = 40, WIDE = 33 };
    float *grad[2];
    for (int k = 0; k < 2; k++) {
        struct tape tape = { 0 };
        struct nn c = context(&tape);
        double sum;
        int32_t *t = test_alloc(MANY * sizeof *t);
        struct val *a = nn_wrap(&c, random_floats(1, MANY * WIDE, 1), MANY, WIDE),
                   *b = nn_wrap(&c, random_floats(2, MANY * WIDE, 1), MANY, WIDE);
        coe_set_threads(k ? 3 : 1);
        assert_ok(nn_consistency(&c, a, b, t, 1, &sum));
        assert_ok(nn_backward(&c));
        grad[k] = a->grad;
    }
    coe_set_threads(1);
    assert_same_bits("gradient", grad[0], grad[1], MANY * WIDE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_example_of_the_card),
        cmocka_unit_test(the_gradient_agrees_with_central_differences_and_adds_to_what_is_there),
        cmocka_unit_test(threads_change_no_bit),
    };
    return kernels_init() || cmocka_run_group_tests_name("nn/consistency", tests, NULL, NULL);
}
