/* Prices of experts: the controllers, the example of card 12b, the monitors. */
#include "support/arrays.h"

#include <math.h>
#include <string.h>

#include "moe/moe.h"

/* Mean 2: gaps -2 2 1 -1, over the mean, times a quarter */
static void it_moves_by_the_relative_gap_and_keeps_the_mean(void **state)
{
    (void)state;
    float b[] = { .5f, 0, 0, 0 };
    moe_bias_update_proportional(b, (uint64_t[]){ 4, 0, 1, 3 }, 4, .25);
    assert_close("bias", b, (float[]){ .25f, .25f, .125f, -.125f }, 4, 1e-7, 0);
    assert_near("sum", (double)(b[0] + b[1] + b[2] + b[3]), .5, 1e-6);
}

static void balanced_or_absent_counts_change_nothing(void **state)
{
    (void)state;
    float b[] = { 1, 2 };
    moe_bias_update_proportional(b, (uint64_t[]){ 3, 3 }, 2, .25);
    moe_bias_update_proportional(b, (uint64_t[]){ 0, 0 }, 2, .25);
    assert_close("bias", b, (float[]){ 1, 2 }, 2, 0, 0);
}

/* Card 12b: four tokens, two experts, k = 1, L = 2. At p = 0 all go to expert 0; a sign step of .06 moves the two of
 * margin .1 < .12; then the errors are 0 and p stays. */
static const float gamma_[] = { .9f, .1f, .8f, .2f, .7f, .6f, .6f, .5f };

static void loads(const float *price, uint64_t *counts)
{
    memset(counts, 0, 2 * sizeof *counts);
    for (int t = 0; t < 4; t++) counts[gamma_[2 * t] + price[0] < gamma_[2 * t + 1] + price[1]]++;
}

static struct price_report report(const float *before, const float *after)
{
    struct price_report r;
    assert_ok(moe_price_report(test_arena(), gamma_, 4, 2, 1, before, after, &r));
    return r;
}

static void the_example_of_the_card(void **state)
{
    (void)state;
    struct moe_spec m = moe_spec_default();
    m.n_experts = 2;
    m.bias_update = .06;
    float p[] = { 0, 0 };
    const float zero[] = { 0, 0 };
    uint64_t counts[2];
    loads(p, counts);
    assert_int_equal(counts[0], 4);
    assert_near("dual at 0", report(zero, p).lagrangian, .9 + .8 + .7 + .6, 1e-6);
    moe_price_update(p, counts, &m, 1);
    assert_close("prices", p, (float[]){ -.06f, .06f }, 2, 1e-7, 0);
    loads(p, counts);
    assert_int_equal(counts[0], 2);
    struct price_report r = report(zero, p);
    assert_int_equal(r.switches, 2);
    assert_near("dual", r.lagrangian, .84 + .74 + .66 + .56, 1e-6); /* 2.8 < 3: prices sum to 0 */
    moe_price_update(p, counts, &m, 2);
    assert_close("prices", p, (float[]){ -.06f, .06f }, 2, 1e-7, 0);
    assert_int_equal(report(p, p).switches, 0);
}

static void steps_shrink_as_asked(void **state)
{
    (void)state;
    const struct {
        enum bias_decay decay;
        double at4;
    } cases[] = { { BIAS_DECAY_NONE, .5 }, { BIAS_DECAY_INVERSE, .125 }, { BIAS_DECAY_INVERSE_SQRT, .25 } };
    for (size_t i = 0; i < COE_COUNT(cases); i++)
        for (int rule = 0; rule < 2; rule++) {
            struct moe_spec m = moe_spec_default();
            m.n_experts = 2, m.bias_update = .5, m.bias_decay = cases[i].decay, m.bias_rule = (enum bias_rule)rule;
            float p[] = { 0, 0 };
            moe_price_update(p, (uint64_t[]){ 0, 8 }, &m, 4);
            assert_near("step", (double)p[0], cases[i].at4, 1e-7);
            assert_near("step", (double)p[1], -cases[i].at4, 1e-7);
        }
}

/* Fixed scores of 200 tokens: small proportional steps never raise the dual, tokens only go from experts of too much
 * load to experts of too little, and in the end loads are near L. */
static void small_steps_descend_the_dual_and_level_the_load(void **state)
{
    (void)state;
    enum { T = 200, E = 5, K = 2 };
    float *s = random_floats(4, T * E, 1), p[E] = { 0 }, before[E];
    for (int i = 0; i < T * E; i++) s[i] = 1 / (1 + expf(-s[i] - (float)(i % E) * .5f));
    struct moe_spec m = moe_spec_default();
    m.n_experts = E, m.bias_update = .02, m.bias_rule = BIAS_PROPORTIONAL;
    double last = INFINITY;
    uint64_t counts[E];
    for (int step = 1; step <= 150; step++) {
        memset(counts, 0, sizeof counts);
        for (int t = 0; t < T; t++)
            for (int e = 0; e < E; e++) {
                int better = 0;
                for (int o = 0; o < E; o++) {
                    const float a = s[t * E + o] + p[o], b = s[t * E + e] + p[e];
                    better += a > b || (a >= b && o < e);
                }
                counts[e] += better < K;
            }
        memcpy(before, p, sizeof p);
        moe_price_update(p, counts, &m, step);
        struct price_report r;
        assert_ok(moe_price_report(test_arena(), s, T, E, K, before, p, &r));
        assert_true(r.lagrangian <= last + 1e-3);
        last = r.lagrangian;
    }
    const struct load_stats load = load_statistics(counts, E);
    assert_true(load.max_vio < .05);
    assert_true(load.entropy > .999 && load.avg_vio < .05);
}

/* Loads 6 2 0 4: |6-3| + |2-3| + |0-3| + |4-3| = 8, over 4 and the mean 3; shares 1/2 1/6 0 1/3 */
static void monitors_by_hand(void **state)
{
    (void)state;
    const struct load_stats s = load_statistics((uint64_t[]){ 6, 2, 0, 4 }, 4);
    assert_near("AvgVio", s.avg_vio, 8.0 / 12, 1e-12);
    assert_near("entropy", s.entropy, (.5 * log(2) + log(6) / 6 + log(3) / 3) / log(4), 1e-12);
    assert_near("entropy of balance", load_statistics((uint64_t[]){ 3, 3 }, 2).entropy, 1, 1e-12);
    assert_near("entropy of one", load_statistics((uint64_t[]){ 3 }, 1).entropy, 1, 0);
}

/* u = .05: margins .7, .5, 0 and 0 are left: the tie keeps the lower expert, nobody moves. */
static void a_step_that_only_makes_ties_moves_nobody(void **state)
{
    (void)state;
    struct moe_spec m = moe_spec_default();
    m.n_experts = 2;
    m.bias_update = .05;
    float p[] = { 0, 0 }, score[8];
    uint64_t counts[2];
    loads(p, counts);
    moe_price_update(p, counts, &m, 1);
    assert_close("prices", p, (float[]){ -.05f, .05f }, 2, 1e-7, 0);
    for (int i = 0; i < 8; i++) score[i] = rintf(100 * (gamma_[i] + p[i % 2])) / 100; /* margins as on the card */
    assert_true(score[4] == score[5] && score[6] == score[7]);
    const float zero[] = { 0, 0 };
    struct price_report r;
    assert_ok(moe_price_report(test_arena(), score, 4, 2, 1, zero, zero, &r));
    assert_int_equal(r.switches, 0);
    counts[0] = 0;
    for (int t = 0; t < 4; t++) counts[0] += score[2 * t] >= score[2 * t + 1];
    assert_int_equal(counts[0], 4);
}

/* Groups 0 1 | 2 3 of 4 tokens with loads 6 2 0 4: 8 - 4 over 4; equal groups: 0; nobody: 0. */
static void the_imbalance_of_groups_by_hand(void **state)
{
    (void)state;
    assert_near("score", load_imbalance((uint64_t[]){ 6, 2, 0, 4 }, 4, 2, 4), 1, 0);
    assert_near("experts", load_imbalance((uint64_t[]){ 6, 2, 0, 4 }, 4, 4, 6), 1, 0);
    assert_near("equal", load_imbalance((uint64_t[]){ 6, 0, 2, 4 }, 4, 2, 6), 0, 0);
    assert_near("nobody", load_imbalance((uint64_t[]){ 0, 0 }, 2, 2, 0), 0, 0);
}

/* Card 8's motive: 16 tokens, each with 8 of 64 experts by lot, on 8 devices. Its simulation: the score is never 0,
 * mean .670, deviation about .20; over 1000 draws the mean has a deviation of .0063. */
static void independent_choices_never_balance_the_devices(void **state)
{
    (void)state;
    enum { DRAWS = 1000, TOKENS = 16, EXPERTS = 64, K = 8 };
    struct rng r = rng_make(7, rng_stream(RNG_TEST, 8));
    double sum = 0;
    int balanced = 0;
    for (int d = 0; d < DRAWS; d++) {
        uint64_t counts[EXPERTS] = { 0 };
        for (int t = 0; t < TOKENS; t++) {
            bool taken[EXPERTS] = { false };
            for (int k = 0; k < K;) {
                const size_t e = rng_below(&r, EXPERTS);
                if (taken[e]) continue;
                taken[e] = true;
                counts[e]++, k++;
            }
        }
        const double score = load_imbalance(counts, EXPERTS, 8, TOKENS);
        sum += score;
        balanced += score == 0;
    }
    assert_int_equal(balanced, 0);
    assert_near("mean", sum / DRAWS, .670, .026);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_example_of_the_card),
        cmocka_unit_test(steps_shrink_as_asked),
        cmocka_unit_test(small_steps_descend_the_dual_and_level_the_load),
        cmocka_unit_test(monitors_by_hand),
        cmocka_unit_test(a_step_that_only_makes_ties_moves_nobody),
        cmocka_unit_test(the_imbalance_of_groups_by_hand),
        cmocka_unit_test(independent_choices_never_balance_the_devices),
        cmocka_unit_test(it_moves_by_the_relative_gap_and_keeps_the_mean),
        cmocka_unit_test(balanced_or_absent_counts_change_nothing),
    };
    return cmocka_run_group_tests_name("moe/prices", tests, NULL, NULL);
}
