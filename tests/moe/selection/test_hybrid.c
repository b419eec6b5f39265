/* Hybrid selection: soft for uncertain tokens, a prefix for the others. */
#include "support/routes.h"

enum { TOP_P, THRESHOLD, INDEX, MIN, ENTROPY, CROSS };

/* Card 22, defaults (q 1.1, threshold .9, top_p .75, 2 at least): S = .778 → (.6,.2) where the prefix alone is one;
 * S = .868 → (.5,.25), whose sum of .75 does not exceed top_p; S = .922 and .992 → all four. */
static const float cards[4][4] = {
    { .6f, .2f, .1f, .1f }, { .5f, .25f, .15f, .1f }, { .4f, .3f, .2f, .1f }, { .3f, .26f, .24f, .2f }
};

static void uncertain_tokens_use_every_expert_and_weights_are_probabilities(void **state)
{
    (void)state;
    struct moe_spec s = routes_spec(4, 2, "hybrid");
    const struct route *r = &routes_of(&s, NULL, routes_logits(cards[0], 16), 4, NULL)->route;
    const int32_t all[] = { 0, 1, 2, 3 };
    assert_token(r, 0, all, cards[0], 2);
    assert_token(r, 1, all, cards[1], 2);
    assert_token(r, 2, all, cards[2], 4);
    assert_token(r, 3, all, cards[3], 4);
}

static void threshold_1_without_a_prefix_is_top_k(void **state)
{
    (void)state;
    struct moe_spec s = routes_spec(4, 2, "hybrid");
    s.router.param[THRESHOLD] = 1, s.router.param[TOP_P] = 0, s.router.param[MIN] = 3;
    const struct route *r = &routes_of(&s, NULL, routes_logits(cards[0], 16), 4, NULL)->route;
    for (int t = 0; t < 4; t++) assert_int_equal(n_chosen(r, t), 3);
}

static void threshold_0_or_top_p_above_1_is_soft(void **state)
{
    (void)state;
    for (int which = 0; which < 4; which++) {
        struct moe_spec s = routes_spec(4, 2, "hybrid");
        if (which < 2) s.router.param[THRESHOLD] = 0;
        else s.router.param[THRESHOLD] = 1, s.router.param[TOP_P] = 1.001;
        s.router.param[ENTROPY] = which % 2; /* the Renyi form has the same ends */
        const struct route *r = &routes_of(&s, NULL, routes_logits(cards[0], 16), 4, NULL)->route;
        for (int t = 0; t < 4; t++) assert_int_equal(n_chosen(r, t), 4);
    }
}

/* (.6,.2,.1,.1) with top_p .7: the expert that crosses is the second */
static void the_crossing_expert_can_be_included(void **state)
{
    (void)state;
    struct moe_spec s = routes_spec(4, 2, "hybrid");
    s.router.param[TOP_P] = .7, s.router.param[MIN] = 1;
    assert_int_equal(n_chosen(&routes_of(&s, NULL, routes_logits(cards[0], 4), 1, NULL)->route, 0), 1);
    s.router.param[CROSS] = 1;
    assert_int_equal(n_chosen(&routes_of(&s, NULL, routes_logits(cards[0], 4), 1, NULL)->route, 0), 2);
}

static void sigmoid_scores_are_refused(void **state)
{
    (void)state;
    struct moe_spec s = routes_spec(4, 2, "hybrid");
    s.router.score = SCORE_SIGMOID;
    assert_int_equal(moe_spec_check(&s, "spec"), COE_E_INPUT);
    assert_error_has("softmax");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(uncertain_tokens_use_every_expert_and_weights_are_probabilities),
        cmocka_unit_test(threshold_1_without_a_prefix_is_top_k),
        cmocka_unit_test(threshold_0_or_top_p_above_1_is_soft),
        cmocka_unit_test(the_crossing_expert_can_be_included),
        cmocka_unit_test(sigmoid_scores_are_refused),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/selection/hybrid", tests, NULL, NULL);
}
