/* Rows laid side by side: by hand, and since the operations are linear, their backward passes are their transposes. */
#include "support/arrays.h"

#include <string.h>

#include "nn/nn.h"

enum { N = 5, D = 3, WIDTH = 2, SEGMENTS = 4 };
/* Rows 0 1 | 2 alone, in the second place | 3 | nothing; row 4 nowhere */
static const int32_t place[N] = { 0, 1, 3, 4, -1 };

static struct nn context(struct tape *tape) { return (struct nn){ .arena = test_arena(), .tape = tape }; }

static void rows_lie_where_they_are_placed(void **state)
{
    (void)state;
    struct nn c = context(NULL);
    float x[N * D];
    for (int i = 0; i < N * D; i++) x[i] = (float)(i + 1);
    const struct val *y = nn_fold(&c, nn_wrap(&c, x, N, D), place, SEGMENTS, WIDTH);
    const float want[SEGMENTS * WIDTH * D] = { 1, 2, 3, 4, 5, 6, 0, 0, 0, 7, 8, 9, 10, 11, 12 };
    assert_close("fold", y->data, want, SEGMENTS * WIDTH * D, 0, 0);
    struct val *back = nn_unfold(&c, nn_wrap(&c, y->data, SEGMENTS, WIDTH * D), place, N - 1, WIDTH);
    assert_same_bits("unfold", back->data, x, (N - 1) * D);
    const struct val *z = nn_spread(&c, nn_wrap(&c, (float[]){ 1, 2, 3, 4 }, SEGMENTS, 1), place, N - 1, WIDTH);
    assert_close("spread", z->data, (float[]){ 1, 1, 2, 3 }, N - 1, 0, 0);
}

static double inner(const float *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

/* <A x, r> = <x, Aᵀ r> */
static void check_transpose(const char *what, struct nn *c, struct val *x, struct val *y)
{
    y->grad = random_floats(7, y->rows * y->cols, 1);
    const double forward = inner(y->data, y->grad, y->rows * y->cols);
    assert_ok(nn_backward(c));
    assert_near(what, inner(x->data, x->grad, x->rows * x->cols), forward, 1e-5);
}

static void gradients_are_transposes(void **state)
{
    (void)state;
    for (int k = 0; k < 3; k++) {
        struct tape tape = { 0 };
        struct nn c = context(&tape);
        const int64_t rows = k ? SEGMENTS : N, cols = k == 1 ? WIDTH * D : D;
        struct val *x = nn_wrap(&c, random_floats(8, rows * cols, 1), rows, cols);
        if (k == 0) check_transpose("fold", &c, x, nn_fold(&c, x, place, SEGMENTS, WIDTH));
        if (k == 1) check_transpose("unfold", &c, x, nn_unfold(&c, x, place, N - 1, WIDTH));
        if (k == 2) check_transpose("spread", &c, x, nn_spread(&c, x, place, N - 1, WIDTH));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_lie_where_they_are_placed),
        cmocka_unit_test(gradients_are_transposes),
    };
    return kernels_init() || cmocka_run_group_tests_name("nn/segments", tests, NULL, NULL);
}
