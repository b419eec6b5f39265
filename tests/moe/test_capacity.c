/* Capacity: who fits, and what happens to the weights of those who stay. */
#include "support/routes.h"

/* Five tokens, all with expert 0 first and expert 1 second; the best probability of token t is .5 + .05 t. */
static const float *crowd(void)
{
    static float p[15];
    for (int t = 0; t < 5; t++) {
        p[3 * t] = .5f + .05f * (float)t;
        p[3 * t + 1] = .3f;
        p[3 * t + 2] = COE_MAX(.2f - .05f * (float)t, 1e-6f);
    }
    return routes_logits(p, 15);
}

static struct moe_spec limited(int32_t tokens, enum capacity_order order)
{
    struct moe_spec s = routes_spec(3, 2, "top_k");
    s.router.capacity = (struct capacity_spec){ .tokens = tokens, .order = order, .always = true };
    return s;
}

static void the_first_tokens_fit_in_order_of_position(void **state)
{
    (void)state;
    const struct moe_spec s = limited(2, CAPACITY_POSITION);
    const struct route_record *r = routes_of(&s, NULL, crowd(), 5, NULL);
    const int32_t n[] = { 2, 2, 0, 0, 0 };
    for (int t = 0; t < 5; t++) assert_int_equal(n_chosen(&r->route, t), n[t]);
    assert_int_equal(r->wanted.n_slots, 10); /* the choice before drops is kept for the losses */
}

/* Card 5: two experts compute and one does not, tau = .75: of 20 tokens with k = 1 and factor 1.1 the first two take
 * 1.1 · .75 · 20 / 2.5 = 6.6, so 7, the last 1.1 · 20 / 2.5 = 8.8, so 9. All tokens want one expert. */
static void experts_that_compute_take_tau_shares(void **state)
{
    (void)state;
    struct moe_spec s = routes_spec(3, 1, "top_k");
    s.n_identity = 1;
    s.router.capacity = (struct capacity_spec){ .factor = 1.1, .tau = .75, .always = true };
    const int32_t fits[] = { 7, 7, 9 };
    for (int32_t e = 0; e < 3; e++) {
        float z[60] = { 0 };
        for (int t = 0; t < 20; t++) z[3 * t + e] = 1;
        assert_int_equal(routes_of(&s, NULL, z, 20, NULL)->route.n_slots, fits[e]);
    }
}

static void the_surest_tokens_fit_in_order_of_their_best(void **state)
{
    (void)state;
    const struct moe_spec s = limited(2, CAPACITY_BEST);
    const struct route *r = &routes_of(&s, NULL, crowd(), 5, NULL)->route;
    const int32_t n[] = { 0, 0, 0, 2, 2 };
    for (int t = 0; t < 5; t++) assert_int_equal(n_chosen(r, t), n[t]);
}

/* Expert 0 keeps tokens 3 and 4 (largest scores), expert 1 the earliest of equal ones. */
static void each_expert_keeps_its_largest_scores(void **state)
{
    (void)state;
    struct moe_spec s = limited(2, CAPACITY_SCORE);
    s.router.score = SCORE_SIGMOID;
    const float z[] = { 1, 0, -9, 2, 0, -9, 3, 0, -9, 4, 0, -9, 5, 0, -9 };
    const struct route *r = &routes_of(&s, NULL, z, 5, NULL)->route;
    assert_int_equal(r->off[1] - r->off[0], 2);
    assert_ids("tokens of expert 0", r->row_token, (int32_t[]){ 3, 4 }, 2);
    assert_ids("tokens of expert 1", r->row_token + r->off[1], (int32_t[]){ 0, 1 }, 2);
}

/* Token 0 first takes expert 1, token 1 expert 0, then both second choices find one place taken: capacity 1. */
static void second_choices_queue_behind_all_first_choices(void **state)
{
    (void)state;
    const struct moe_spec s = limited(1, CAPACITY_POSITION);
    const float z[] = { 1, 2, 0, 2, 1, 0 };
    const struct route *r = &routes_of(&s, NULL, z, 2, NULL)->route;
    assert_token(r, 0, (int32_t[]){ 1 }, NULL, 1);
    assert_token(r, 1, (int32_t[]){ 0 }, NULL, 1);
}

/* 6 tokens · 2 / 3 experts · factor 1 = 4; factor .5: 2; never below 1 */
static void the_factor_scales_the_even_share(void **state)
{
    (void)state;
    const float *z = random_floats(9, 18, 1e-3);
    const double factor[] = { 1, .5, .01 };
    const int32_t most[] = { 4, 2, 1 };
    for (int i = 0; i < 3; i++) {
        struct moe_spec s = limited(0, CAPACITY_POSITION);
        s.router.capacity.factor = factor[i];
        const struct route *r = &routes_of(&s, NULL, z, 6, NULL)->route;
        for (int e = 0; e < 3; e++) assert_in_range(route_count(r, e), 0, most[i]);
    }
}

/* p = (.6 .3 .1), the second choice is dropped: renormalised after drops the first weighs 1, before drops 2/3. */
static void weights_can_be_made_before_or_after_drops(void **state)
{
    (void)state;
    const float *z = routes_logits((float[]){ .3f, .6f, .1f, .6f, .3f, .1f }, 6);
    struct moe_spec s = limited(1, CAPACITY_POSITION);
    s.router.renormalize = true;
    assert_token(&routes_of(&s, NULL, z, 2, NULL)->route, 0, (int32_t[]){ 1 }, (float[]){ 1 }, 1);
    s.router.capacity.weigh_first = true;
    assert_token(&routes_of(&s, NULL, z, 2, NULL)->route, 0, (int32_t[]){ 1 }, (float[]){ 2.f / 3 }, 1);
    s.router.renormalize = false;
    assert_int_equal(moe_spec_check(&s, "spec"), COE_E_INPUT);
}

static void without_always_it_binds_in_training_only(void **state)
{
    (void)state;
    struct moe_spec s = limited(2, CAPACITY_POSITION);
    s.router.capacity.always = false;
    assert_int_equal(routes_of(&s, NULL, crowd(), 5, NULL)->route.n_slots, 10);
    assert_int_equal(routes_of(&s, routes_training(0), crowd(), 5, NULL)->route.n_slots, 4);
    assert_null(moe_needs_whole_sequence(&s));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_tokens_fit_in_order_of_position),
        cmocka_unit_test(experts_that_compute_take_tau_shares),
        cmocka_unit_test(the_surest_tokens_fit_in_order_of_their_best),
        cmocka_unit_test(each_expert_keeps_its_largest_scores),
        cmocka_unit_test(second_choices_queue_behind_all_first_choices),
        cmocka_unit_test(the_factor_scales_the_even_share),
        cmocka_unit_test(weights_can_be_made_before_or_after_drops),
        cmocka_unit_test(without_always_it_binds_in_training_only),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/capacity", tests, NULL, NULL);
}
