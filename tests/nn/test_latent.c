/* Latent attention: the absorbed products give the scores and outputs of the expanded form, and their gradients those
 * of its formulas. */
#include "support/arrays.h"

#include "nn/nn.h"

enum { N = 5, HEADS = 3, NOPE = 4, ROPE = 2, V = 6, RANK = 7 };
static const struct latent_shape shape = { HEADS, NOPE, ROPE, V, RANK };

static struct nn context(struct tape *tape) { return (struct nn){ .arena = test_arena(), .tape = tape }; }

static struct weight *kv_b(void)
{
    return test_weight("kv_b", random_floats(1, HEADS * (NOPE + V) * RANK, 1), HEADS * (NOPE + V), RANK);
}

static const float *key_row(const struct weight *w, int h, int i)
{
    return (const float *)w->data + (h * (NOPE + V) + i) * RANK;
}

/* q·(W c) of the expanded form equals (Wᵀ q)·c */
static void absorbed_queries_score_like_expanded_keys(void **state)
{
    (void)state;
    struct nn c = context(NULL);
    const struct weight *w = kv_b();
    const float *latent = random_floats(3, RANK, 1);
    struct val *q = nn_wrap(&c, random_floats(2, N * HEADS * (NOPE + ROPE), 1), N, HEADS * (NOPE + ROPE));
    const struct val *a = nn_latent_query(&c, q, w, &shape);
    assert_int_equal(a->cols, HEADS * (ROPE + RANK));
    for (int t = 0; t < N; t++)
        for (int h = 0; h < HEADS; h++) {
            const float *own = q->data + t * q->cols + h * (NOPE + ROPE),
                        *got = a->data + t * a->cols + h * (ROPE + RANK);
            double expanded = 0, absorbed = 0;
            for (int i = 0; i < NOPE; i++)
                for (int j = 0; j < RANK; j++)
                    expanded += (double)own[i] * (double)key_row(w, h, i)[j] * (double)latent[j];
            for (int j = 0; j < RANK; j++) absorbed += (double)got[ROPE + j] * (double)latent[j];
            assert_near("score", absorbed, expanded, 1e-4);
            for (int i = 0; i < ROPE; i++) assert_true(got[i] == own[NOPE + i]);
        }
}

static void outputs_go_through_the_value_part(void **state)
{
    (void)state;
    struct nn c = context(NULL);
    const struct weight *w = kv_b();
    struct val *o = nn_wrap(&c, random_floats(4, N * HEADS * RANK, 1), N, HEADS * RANK);
    const struct val *y = nn_latent_output(&c, o, w, &shape);
    assert_int_equal(y->cols, HEADS * V);
    for (int t = 0; t < N; t++)
        for (int h = 0; h < HEADS; h++)
            for (int i = 0; i < V; i++) {
                double want = 0;
                for (int j = 0; j < RANK; j++)
                    want += (double)o->data[(t * HEADS + h) * RANK + j] * (double)key_row(w, h, NOPE + i)[j];
                assert_near("output", (double)y->data[(t * HEADS + h) * V + i], want, 1e-4);
            }
}

/* The products are linear in input and weight: <dy, f(x + dx) - f(x)> is exact, so differences of a step of one check
 * the gradient to rounding. */
static double objective(const struct val *y, const float *dy)
{
    double sum = 0;
    for (int64_t i = 0; i < y->rows * y->cols; i++) sum += (double)y->data[i] * (double)dy[i];
    return sum;
}

typedef struct val *product(struct nn *, struct val *, const struct weight *, const struct latent_shape *);

static void check_gradients(product *f, int64_t cols)
{
    struct tape tape = { 0 };
    struct nn c = context(&tape), plain = context(NULL);
    struct weight *w = kv_b();
    float *data = random_floats(5, N * cols, 1), *weights = w->master ? w->master : (float *)(uintptr_t)w->data;
    struct val *x = nn_wrap(&c, data, N, cols), *y = f(&c, x, w, &shape);
    float *dy = random_floats(6, y->rows * y->cols, 1);
    const double before = objective(y, dy);
    y->grad = dy;
    assert_ok(nn_backward(&c));
    for (int64_t i = 0; i < N * cols; i += 7) {
        data[i] += 1;
        assert_near("gradient of the input", (double)x->grad[i], objective(f(&plain, x, w, &shape), dy) - before, 1e-3);
        data[i] -= 1;
    }
    for (int64_t i = 0; i < weight_count(w); i += 5) {
        weights[i] += 1;
        assert_near("gradient of kv_b", (double)w->grad[i], objective(f(&plain, x, w, &shape), dy) - before, 1e-3);
        weights[i] -= 1;
    }
}

static void gradients_of_the_query_product(void **state)
{
    (void)state;
    check_gradients(nn_latent_query, HEADS * (NOPE + ROPE));
}

static void gradients_of_the_output_product(void **state)
{
    (void)state;
    check_gradients(nn_latent_output, HEADS * RANK);
}

/* head 0: [10 11 | 0 1 2 3], head 1: … 4 5 6 7; shared rope, then one of each head */
static void expanded_heads_are_rope_then_nope(void **state)
{
    (void)state;
    struct nn c = context(NULL);
    float nope[HEADS * NOPE], own[HEADS * ROPE];
    for (int i = 0; i < HEADS * NOPE; i++) nope[i] = (float)i;
    for (int i = 0; i < HEADS * ROPE; i++) own[i] = (float)(10 + i);
    struct val *n = nn_wrap(&c, nope, 1, HEADS * NOPE), *each = nn_wrap(&c, own, 1, HEADS * ROPE);
    const struct val *shared = nn_latent_heads(&c, nn_wrap(&c, own, 1, ROPE), n, &shape);
    const struct val *y = nn_latent_heads(&c, each, n, &shape);
    for (int h = 0; h < HEADS; h++) {
        const float *a = shared->data + h * (ROPE + NOPE), *b = y->data + h * (ROPE + NOPE);
        for (int i = 0; i < ROPE; i++) assert_true(a[i] == own[i] && b[i] == own[h * ROPE + i]);
        for (int i = 0; i < NOPE; i++) assert_true(a[ROPE + i] == nope[h * NOPE + i] && b[ROPE + i] == a[ROPE + i]);
    }
    struct tape tape = { 0 };
    c.tape = &tape;
    assert_null(nn_latent_heads(&c, each, n, &shape));
    assert_int_equal(coe_last_status(), COE_E_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(absorbed_queries_score_like_expanded_keys),
        cmocka_unit_test(outputs_go_through_the_value_part),
        cmocka_unit_test(gradients_of_the_query_product),
        cmocka_unit_test(gradients_of_the_output_product),
        cmocka_unit_test(expanded_heads_are_rope_then_nope),
    };
    return kernels_init() || cmocka_run_group_tests_name("nn/latent", tests, NULL, NULL);
}
