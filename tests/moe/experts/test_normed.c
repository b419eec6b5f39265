/* Experts of one scale (HoME): the norm, the swish behind it, the gate on features. */
#include "support/kinds.h"

enum { D = 3, F = 4, ROWS = 5 };
enum { RANK, GATES, ACTIVATION };

static struct block block_of(int rank, int gates, bool swish)
{
    const struct moe_spec s = kinds_spec((struct expert_range[]){ { .kind = "normed", .n = 1, .ffn = F,
                                                                    .param = { rank, gates, swish ? 0 : 1 } } }, 1, 1);
    struct block b = block_make(&s, D, BLOCK_GATED);
    block_random(&b, 12, 1);
    return b;
}

static void every_output_has_a_root_mean_square_of_one(void **state)
{
    (void)state;
    struct block b = block_of(0, 1, false);
    const float *y = kinds_output(&b, random_floats(4, ROWS * D, 30), ROWS);
    for (int t = 0; t < ROWS; t++) {
        double square = 0;
        for (int j = 0; j < D; j++) square += (double)y[t * D + j] * (double)y[t * D + j] / D;
        assert_near("mean square", square, 1, 1e-4); /* 1e-6 stands beside the mean square of the network's output */
    }
}

/* What the network makes of x is (3, 0, 4) times something positive, here by W1 = W3 = ones over x0 and W2's first
 * column: mean square 25/3, so (3, 0, 4) √3/5; swish(u) = u / (1 + e^-u). */
static void an_output_is_normed_and_then_swished(void **state)
{
    (void)state;
    const float pick[F * D] = { 1, 0, 0 }, down[D * F] = { 3, 0, 0, 0, 0, 0, 0, 0, 4 };
    for (int swish = 0; swish < 2; swish++) {
        struct block b = block_of(0, 1, swish);
        block_set(&b, "experts.0.gate", pick, F * D);
        block_set(&b, "experts.0.up", pick, F * D);
        block_set(&b, "experts.0.down", down, D * F);
        float want[D] = { 3 * sqrtf(3) / 5, 0, 4 * sqrtf(3) / 5 };
        for (int j = 0; swish && j < D; j++) want[j] /= 1 + expf(-want[j]);
        assert_close("y", kinds_output(&b, (float[]){ 70, 1, 1 }, 1), want, D, 1e-5, 0);
    }
}

/* x' = x ⊙ 2 σ(B A x): A = (1, 0, 0), x = (ln 3, 1, 1), B = (1, -1, 0)ᵀ: σ = 3/4, 1/4, 1/2: x' = (1.5 ln 3, .5, 1). An
 * expert without a gate gets that directly. Two gates: the mean of this one and of one that is at zero. */
static void a_feature_gate_scales_what_the_expert_reads(void **state)
{
    (void)state;
    struct block gated = block_of(1, 1, true), twice = block_of(1, 2, true), plain = block_of(0, 1, true);
    struct block *const both[] = { &gated, &twice };
    for (int i = 0; i < 2; i++) {
        for (size_t w = 0; w < plain.n; w++)
            block_set(both[i], plain.list[w]->name, plain.list[w]->master, weight_count(plain.list[w]));
        block_set(both[i], "experts.0.feature_A.weight", (float[]){ 1, 0, 0 }, D);
        block_set(both[i], "experts.0.feature_B.weight", (float[]){ 1, -1, 0 }, D);
    }
    block_set(&twice, "experts.0.feature_B.1.weight", (float[]){ 0, 0, 0 }, D);
    const float l = logf(3);
    const float *one = kinds_output(&plain, (float[]){ 1.5f * l, .5f, 1 }, 1);
    const float *two = kinds_output(&plain, (float[]){ 1.25f * l, .75f, 1 }, 1);
    assert_close("one gate", kinds_output(&gated, (float[]){ l, 1, 1 }, 1), one, D, 1e-5, 0);
    assert_close("two gates", kinds_output(&twice, (float[]){ l, 1, 1 }, 1), two, D, 1e-5, 0);
}

/* B = 0, as it begins: the expert without a gate. */
static void a_feature_gate_begins_at_one(void **state)
{
    (void)state;
    struct block gated = block_of(2, 3, true), plain = block_of(0, 1, true);
    const float zero[D * 2] = { 0 };
    for (size_t w = 0; w < plain.n; w++)
        block_set(&gated, plain.list[w]->name, plain.list[w]->master, weight_count(plain.list[w]));
    block_set(&gated, "experts.0.feature_B.weight", zero, D * 2);
    block_set(&gated, "experts.0.feature_B.1.weight", zero, D * 2);
    block_set(&gated, "experts.0.feature_B.2.weight", zero, D * 2);
    const float *x = random_floats(4, ROWS * D, 1);
    assert_close("y", kinds_output(&gated, x, ROWS), kinds_output(&plain, x, ROWS), ROWS * D, 1e-6, 0);
}

static void clamps_and_biases_are_refused(void **state)
{
    (void)state;
    struct block b = block_of(1, 1, true);
    b.spec.act = ACT_SWIGLU_CLAMP;
    assert_int_equal(moe_spec_check(&b.spec, "x"), COE_E_INPUT);
    assert_non_null(strstr(coe_error(), "normed experts with a clamp"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_output_has_a_root_mean_square_of_one),
        cmocka_unit_test(an_output_is_normed_and_then_swished),
        cmocka_unit_test(a_feature_gate_scales_what_the_expert_reads),
        cmocka_unit_test(a_feature_gate_begins_at_one),
        cmocka_unit_test(clamps_and_biases_are_refused),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/experts/normed", tests, NULL, NULL);
}
