/* Sampling: each filter by hand, the order of filters, repeatability. */
#include "support/arrays.h"

#include <math.h>
#include <string.h>

#include "model/model.h"

#define VOCAB 5
#define DRAWS 4000

/* log of .1 .5 .05 .3 .05: drawn as they are at temperature 1 */
static const double p_given[VOCAB] = { .1, .5, .05, .3, .05 };

static void logits_of(float *z)
{
    for (int i = 0; i < VOCAB; i++) z[i] = (float)(log(p_given[i]) + 3);
}

/* Shares of the tokens in DRAWS draws */
static void draw(coe_sampling how, const float *z, double share[VOCAB])
{
    struct sampler s;
    int count[VOCAB] = { 0 };
    assert_ok(sampler_open(&s, &how, VOCAB));
    for (int i = 0; i < DRAWS; i++) count[sampler_draw(&s, z)]++;
    sampler_close(&s);
    for (int i = 0; i < VOCAB; i++) share[i] = (double)count[i] / DRAWS;
}

/* Within four standard deviations; what must not be drawn never is. */
static void assert_shares(const char *what, coe_sampling how, const double want[VOCAB])
{
    float z[VOCAB];
    double got[VOCAB];
    logits_of(z);
    draw(how, z, got);
    for (int i = 0; i < VOCAB; i++) {
        if (want[i] <= 0 && got[i] > 0) fail_msg("%s: token %d was drawn and should not be", what, i);
        assert_near(what, got[i], want[i], 4 * sqrt(want[i] * (1 - want[i]) / DRAWS));
    }
}

static void temperature_one_draws_the_softmax(void **state)
{
    (void)state;
    assert_shares("temperature 1", (coe_sampling){ .temperature = 1, .seed = 1 }, p_given);
}

/* p^2 / Σ p^2 = (.01 .25 .0025 .09 .0025) / .355 */
static void temperature_one_half_squares_the_odds(void **state)
{
    (void)state;
    assert_shares("temperature 0.5", (coe_sampling){ .temperature = .5f, .seed = 2 },
                  (double[]){ .01 / .355, .25 / .355, .0025 / .355, .09 / .355, .0025 / .355 });
}

static void temperature_zero_takes_the_best_and_the_first_of_equals(void **state)
{
    (void)state;
    struct sampler s;
    assert_ok(sampler_open(&s, &(coe_sampling){ .seed = 3 }, VOCAB));
    assert_int_equal(sampler_draw(&s, (float[]){ 0, 2, 1, 2, -1 }), 1);
    assert_int_equal(sampler_draw(&s, (float[]){ -5, -7, -3, -9, -4 }), 2);
    sampler_close(&s);
}

/* The two best, .5 and .3: 5/8 and 3/8 */
static void top_k_keeps_the_k_best(void **state)
{
    (void)state;
    assert_shares("top-k 2", (coe_sampling){ .temperature = 1, .top_k = 2, .seed = 4 },
                  (double[]){ 0, .625, 0, .375, 0 });
    assert_shares("top-k 1", (coe_sampling){ .temperature = 1, .top_k = 1, .seed = 4 }, (double[]){ 0, 1, 0, 0, 0 });
    assert_shares("top-k 99", (coe_sampling){ .temperature = 1, .top_k = 99, .seed = 4 }, p_given);
}

/* Sorted .5 .3 .1 .05 .05: the smallest set of at least .75 is the first two, of at least .85 the first three. */
static void top_p_keeps_the_smallest_set_that_reaches_p(void **state)
{
    (void)state;
    assert_shares("top-p 0.75", (coe_sampling){ .temperature = 1, .top_p = .75f, .seed = 5 },
                  (double[]){ 0, .625, 0, .375, 0 });
    assert_shares("top-p 0.85", (coe_sampling){ .temperature = 1, .top_p = .85f, .seed = 5 },
                  (double[]){ .1 / .9, .5 / .9, 0, .3 / .9, 0 });
    assert_shares("top-p 0.01", (coe_sampling){ .temperature = 1, .top_p = .01f, .seed = 5 },
                  (double[]){ 0, 1, 0, 0, 0 });
    assert_shares("top-p 1", (coe_sampling){ .temperature = 1, .top_p = 1, .seed = 5 }, p_given);
}

/* At least 0.15 of the best (.075): .1 .5 .3 */
static void min_p_keeps_what_is_near_the_best(void **state)
{
    (void)state;
    assert_shares("min-p 0.15", (coe_sampling){ .temperature = 1, .min_p = .15f, .seed = 6 },
                  (double[]){ .1 / .9, .5 / .9, 0, .3 / .9, 0 });
    assert_shares("min-p 1", (coe_sampling){ .temperature = 1, .min_p = 1, .seed = 6 }, (double[]){ 0, 1, 0, 0, 0 });
}

/* top-k 3 leaves .5 .3 .1 (sum .9); top-p .85 of what is left asks for .765: the first two reach .8. Before top-k it
 * would have asked for three. */
static void top_p_counts_within_top_k(void **state)
{
    (void)state;
    assert_shares("top-k 3, top-p 0.85", (coe_sampling){ .temperature = 1, .top_k = 3, .top_p = .85f, .seed = 7 },
                  (double[]){ 0, .625, 0, .375, 0 });
}

/* Penalty 2: seen tokens 1 (logit 3 → 1.5), 1 again (no further) and 4 (-1 → -2); 0 wins with 2. */
static void the_repetition_penalty_is_applied_once_to_each_token_seen(void **state)
{
    (void)state;
    static const int32_t seen[] = { 1, 4, 1 };
    struct sampler s;
    float z[] = { 2, 3, 0, 1, -1 };
    assert_ok(sampler_open(&s, &(coe_sampling){ .repetition_penalty = 2 }, VOCAB));
    s.history = seen;
    s.n_history = 3;
    assert_int_equal(sampler_draw(&s, z), 0);
    assert_true(z[1] == 3); /* the caller's logits are not changed */
    s.n_history = 0;
    assert_int_equal(sampler_draw(&s, z), 1);
    sampler_close(&s);
}

/* Negative logits are multiplied: -1 → -2 falls behind -1.5. */
static void the_repetition_penalty_lowers_negative_logits(void **state)
{
    (void)state;
    static const int32_t seen[] = { 0, 77, -3 }; /* ids outside the vocabulary are nobody's */
    struct sampler s;
    assert_ok(sampler_open(&s, &(coe_sampling){ .repetition_penalty = 2 }, VOCAB));
    s.history = seen;
    s.n_history = 3;
    assert_int_equal(sampler_draw(&s, (float[]){ -1, -1.5f, -9, -9, -9 }), 1);
    sampler_close(&s);
}

static void the_same_seed_repeats_and_another_differs(void **state)
{
    (void)state;
    float z[VOCAB];
    int32_t first[64], again[64], other[64];
    struct sampler s;
    logits_of(z);
    for (int run = 0; run < 3; run++) {
        int32_t *to = run == 0 ? first : run == 1 ? again : other;
        assert_ok(sampler_open(&s, &(coe_sampling){ .temperature = 1, .seed = run == 2 ? 9 : 8 }, VOCAB));
        for (int i = 0; i < 64; i++) to[i] = sampler_draw(&s, z);
        sampler_close(&s);
    }
    assert_ids("repeated", again, first, 64);
    assert_true(memcmp(first, other, sizeof first) != 0);
}

/* The n-th draw depends on (seed, n) only: a filter that keeps everything changes no token. */
static void the_draw_depends_on_seed_and_count_only(void **state)
{
    (void)state;
    float z[VOCAB];
    struct sampler a, b;
    logits_of(z);
    assert_ok(sampler_open(&a, &(coe_sampling){ .temperature = 1, .top_k = 2, .seed = 11 }, VOCAB));
    assert_ok(sampler_open(&b, &(coe_sampling){ .temperature = 1, .top_k = 2, .min_p = 1e-6f, .seed = 11 }, VOCAB));
    for (int i = 0; i < 50; i++) assert_int_equal(sampler_draw(&a, z), sampler_draw(&b, z));
    sampler_close(&a);
    sampler_close(&b);
}

static void assert_refused(coe_sampling how, const char *part)
{
    struct sampler s;
    assert_int_equal(sampler_open(&s, &how, VOCAB), COE_E_USAGE);
    assert_error_has(part);
    sampler_close(&s);
}

static void options_out_of_range_are_refused_by_name(void **state)
{
    (void)state;
    assert_refused((coe_sampling){ .temperature = -1 }, "temperature -1");
    assert_refused((coe_sampling){ .temperature = NAN }, "temperature");
    assert_refused((coe_sampling){ .top_p = 1.5f }, "top-p 1.5");
    assert_refused((coe_sampling){ .min_p = -.5f }, "min-p -0.5");
    assert_refused((coe_sampling){ .top_k = -2 }, "top-k -2");
    assert_refused((coe_sampling){ .repetition_penalty = -1 }, "repetition penalty -1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(temperature_one_draws_the_softmax),
        cmocka_unit_test(temperature_one_half_squares_the_odds),
        cmocka_unit_test(temperature_zero_takes_the_best_and_the_first_of_equals),
        cmocka_unit_test(top_k_keeps_the_k_best),
        cmocka_unit_test(top_p_keeps_the_smallest_set_that_reaches_p),
        cmocka_unit_test(min_p_keeps_what_is_near_the_best),
        cmocka_unit_test(top_p_counts_within_top_k),
        cmocka_unit_test(the_repetition_penalty_is_applied_once_to_each_token_seen),
        cmocka_unit_test(the_repetition_penalty_lowers_negative_logits),
        cmocka_unit_test(the_same_seed_repeats_and_another_differs),
        cmocka_unit_test(the_draw_depends_on_seed_and_count_only),
        cmocka_unit_test(options_out_of_range_are_refused_by_name),
    };
    return kernels_init() || cmocka_run_group_tests_name("model/sample", tests, NULL, NULL);
}
