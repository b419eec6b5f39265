/* Routers that mix probabilities of tokens (card 15): similarity and attention. */
#include "support/routers.h"

#include <math.h>

static struct block block_of(const char *kind, double temperature)
{
    struct moe_spec s = router_spec_of(kind, 3, 1);
    if (temperature > 0) s.router.kind_param[0] = temperature;
    struct block b = block_make(&s, 4, BLOCK_GATED);
    block_random(&b, 5, 2);
    return b;
}

static void softmax(float *p, const float *z)
{
    const float sum = expf(z[0]) + expf(z[1]) + expf(z[2]);
    for (int e = 0; e < 3; e++) p[e] = expf(z[e]) / sum;
}

/* [n, 3] probabilities of the plain router */
static float *base(const float *x, int64_t n)
{
    struct block plain = block_of("linear", 0);
    struct moe_pass *p = router_pass(false);
    float *r = test_alloc((size_t)(3 * n) * sizeof *r);
    const struct val *z = block_logits(&plain, p, 0, router_input(p, x, n, 4));
    for (int64_t t = 0; t < n; t++) softmax(r + 3 * t, z->data + 3 * t);
    return r;
}

static void running_mean(float *r, int64_t n)
{
    for (int e = 0; e < 3; e++) {
        float sum = 0;
        for (int64_t t = 0; t < n; t++) {
            sum += r[3 * t + e];
            r[3 * t + e] = sum / (float)(t + 1);
        }
    }
}

static void assert_probabilities(const char *what, const struct val *z, const float *want)
{
    float p[3];
    for (int64_t t = 0; t < z->rows; t++) {
        softmax(p, z->data + 3 * t);
        assert_close(what, p, want + 3 * t, 3, 2e-6, 0);
        assert_near("log r' sums to one",
                    (double)(expf(z->data[3 * t]) + expf(z->data[3 * t + 1]) + expf(z->data[3 * t + 2])), 1, 2e-6);
    }
}

static const float unit[16] = { 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1 };

/* Different inputs of one length, τ → 0: S is the identity. */
static void tokens_that_resemble_only_themselves_route_as_they_would_alone(void **state)
{
    (void)state;
    struct block b = block_of("similarity", .01);
    struct moe_pass *p = router_pass(false);
    assert_probabilities("τ → 0", block_logits(&b, p, 0, router_input(p, unit, 4, 4)), base(unit, 4));
}

static void tokens_that_resemble_all_route_by_the_running_mean(void **state)
{
    (void)state;
    struct block b = block_of("similarity", 1e6);
    struct moe_pass *p = router_pass(false);
    float *want = base(unit, 4);
    running_mean(want, 4);
    assert_probabilities("τ → ∞", block_logits(&b, p, 0, router_input(p, unit, 4, 4)), want);
}

/* Orthogonal inputs of length 1 and τ = sqrt(4): S_21 = 1 / (1 + e^½) = .377541 */
static void the_default_temperature_is_the_root_of_the_width(void **state)
{
    (void)state;
    struct block b = block_of("similarity", 0);
    struct moe_pass *p = router_pass(false);
    float *want = base(unit, 2);
    for (int e = 0; e < 3; e++) want[3 + e] = .377541f * want[e] + .622459f * want[3 + e];
    assert_probabilities("τ", block_logits(&b, p, 0, router_input(p, unit, 2, 4)), want);
}

static void sequences_of_a_batch_do_not_mix_and_no_token_sees_those_behind_it(void **state)
{
    static const int32_t off[] = { 0, 3, 5 };
    static const int64_t pos0[] = { 0, 0 };
    static const struct attn_batch batch = { 2, off, pos0, NULL };
    (void)state;
    struct block b = block_of("similarity", 0);
    struct moe_pass *all = router_pass(false), *one = router_pass(false);
    const float *x = random_floats(9, 20, 1);
    all->batch = &batch;
    const struct val *z = block_logits(&b, all, 0, router_input(all, x, 5, 4));
    assert_same_bits("second sequence", z->data + 9, block_logits(&b, one, 0, router_input(one, x + 12, 2, 4))->data,
                     6);
    assert_same_bits("its beginning", z->data, block_logits(&b, one, 0, router_input(one, x, 2, 4))->data, 6);
}

/* Two heads over one key head. Head 0 with queries 0 looks evenly; head 1 with q_i = 100 e_i, k_i = e_i looks at its
 * own token: r' = (running mean + r) / 2. */
static void attention_mixes_by_the_mean_over_heads(void **state)
{
    (void)state;
    struct block b = block_of("attention", 0);
    struct moe_pass *p = router_pass(false);
    float q[4 * 8] = { 0 };
    for (int t = 0; t < 4; t++) q[8 * t + 4 + t] = 100;
    p->attention.q = router_input(p, q, 4, 8);
    p->attention.k = router_input(p, unit, 4, 4);
    p->attention.shape =
        (struct attn_shape){ .n_heads = 2, .n_kv_heads = 1, .head_dim = 4, .head_dim_v = 4, .scale = 1 };
    const float *r = base(unit, 4);
    float *want = base(unit, 4);
    running_mean(want, 4);
    for (int i = 0; i < 12; i++) want[i] = (want[i] + r[i]) / 2;
    assert_probabilities("A", block_logits(&b, p, 0, router_input(p, unit, 4, 4)), want);
}

static void they_mix_probabilities_and_refuse_sigmoid(void **state)
{
    static const char *const kinds[] = { "similarity", "attention", "uncertainty" };
    (void)state;
    for (size_t i = 0; i < COE_COUNT(kinds); i++) {
        struct moe_spec s = router_spec_of(kinds[i], 3, 1);
        s.router.score = SCORE_SIGMOID;
        assert_int_equal(moe_spec_check(&s, "here"), COE_E_INPUT);
        assert_error_has("mixes probabilities and needs softmax scores");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_that_resemble_only_themselves_route_as_they_would_alone),
        cmocka_unit_test(tokens_that_resemble_all_route_by_the_running_mean),
        cmocka_unit_test(the_default_temperature_is_the_root_of_the_width),
        cmocka_unit_test(sequences_of_a_batch_do_not_mix_and_no_token_sees_those_behind_it),
        cmocka_unit_test(attention_mixes_by_the_mean_over_heads),
        cmocka_unit_test(they_mix_probabilities_and_refuse_sigmoid),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/routers/graph", tests, NULL, NULL);
}
