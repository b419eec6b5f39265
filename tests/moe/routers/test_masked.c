/* The product with dropout of its input: that of the masked rows, its gradients, adapters, threads. */
#include "support/arrays.h"

#include <string.h>

#include "moe/routers/masked.h"
#include "tensor/low_rank.h"

enum { T = 150, D = 90, E = 7, RANK = 3 };
#define RATE 0.3

static struct nn *context(void)
{
    struct nn *c = test_alloc(sizeof *c);
    *c = (struct nn){ .arena = test_arena(), .tape = test_alloc(sizeof(struct tape)), .seed = 11, .step = 3 };
    return c;
}

/* Element j is dropped where its 16 bits of random number j / 4 are below the rate. */
static float *masked_copy(const float *x)
{
    const uint64_t least = (uint64_t)(RATE * 65536), stream = rng_stream(RNG_DROPOUT, 3 << 16);
    float *y = test_alloc(T * D * sizeof *y);
    for (uint64_t j = 0; j < T * D; j++)
        if ((rng_at(11, stream, j / 4) >> 16 * (j % 4) & 0xFFFF) >= least)
            y[j] = 65536.0f / (float)(65536 - least) * x[j];
    return y;
}

struct run {
    const float *z, *dx;
    struct weight *w, *b;
};

/* One pass and its gradients; `plain`: nn_linear over the masked copy, whose gradient is masked. */
static struct run run(bool plain, struct low_rank *l, bool learns)
{
    struct nn *c = context();
    float *x = random_floats(1, T * D, 1);
    struct run r = { .w = test_weight("w", random_floats(2, E * D, .3), E, D),
                     .b = test_weight("b", random_floats(3, E, 1), 1, E) };
    r.w->low_rank = l;
    if (!learns) r.w->grad = NULL;
    struct val *in = nn_wrap(c, plain ? masked_copy(x) : x, T, D);
    struct val *z = plain ? nn_linear(c, in, r.w, r.b) : masked_linear(c, in, r.w, r.b, RATE);
    assert_non_null(z);
    z->grad = random_floats(4, T * E, 1);
    assert_ok(nn_backward(c));
    r.z = z->data;
    r.dx = plain ? masked_copy(in->grad) : in->grad;
    return r;
}

static void bits_are_those_of_masked_rows(void **state)
{
    (void)state;
    const struct run want = run(true, NULL, true), got = run(false, NULL, true);
    assert_same_bits("z", got.z, want.z, T * E);
    assert_same_bits("dx", got.dx, want.dx, T * D);
    assert_same_bits("dw", got.w->grad, want.w->grad, E * D);
    assert_same_bits("db", got.b->grad, want.b->grad, E);
}

static struct low_rank factors(void)
{
    return (struct low_rank){ test_weight("a", random_floats(5, RANK * D, .3), RANK, D),
                              test_weight("b", random_floats(6, E * RANK, .5), E, RANK), 1.5f };
}

static void an_adapter_is_taken_along(void **state)
{
    (void)state;
    struct low_rank one = factors(), other = factors();
    for (int learns = 0; learns < 2; learns++) {
        const struct run want = run(true, &one, learns), got = run(false, &other, learns);
        assert_norm_close("z", got.z, want.z, T * E, 1e-6);
        assert_norm_close("dx", got.dx, want.dx, T * D, 1e-6);
        assert_norm_close("dA", other.a->grad, one.a->grad, RANK * D, 1e-6);
        assert_norm_close("dB", other.b->grad, one.b->grad, E * RANK, 1e-6);
        if (learns) assert_norm_close("dw", got.w->grad, want.w->grad, E * D, 1e-6);
    }
}

static void threads_change_no_bit(void **state)
{
    (void)state;
    const int before = coe_threads();
    coe_set_threads(1);
    const struct run want = run(false, NULL, true);
    coe_set_threads(3);
    const struct run got = run(false, NULL, true);
    coe_set_threads(before);
    assert_same_bits("z", got.z, want.z, T * E);
    assert_same_bits("dx", got.dx, want.dx, T * D);
    assert_same_bits("dw", got.w->grad, want.w->grad, E * D);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_are_those_of_masked_rows),
        cmocka_unit_test(an_adapter_is_taken_along),
        cmocka_unit_test(threads_change_no_bit),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/routers/masked", tests, NULL, NULL);
}
