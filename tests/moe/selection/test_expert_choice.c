/* Expert choice: experts take tokens. */
#include "support/routes.h"

/* Card 11: with c = 4·1/2 = 2, expert 0 takes tokens 2 and 0, expert 1 tokens 2 and 1; token 2 weighs softmax(2, 1),
 * token 3 is left out. */
static void experts_take_their_best_tokens_by_logit(void **state)
{
    (void)state;
    struct moe_spec s = routes_spec(2, 1, "expert_choice");
    s.router.param[0] = 1;
    s.router.renormalize = true;
    const float z[] = { 1, .2f, .5f, .9f, 2, 1, -1, .1f };
    const struct route *r = &routes_of(&s, NULL, z, 4, NULL)->route;
    assert_token(r, 0, (int32_t[]){ 0 }, (float[]){ 1 }, 1);
    assert_token(r, 1, (int32_t[]){ 1 }, (float[]){ 1 }, 1);
    assert_token(r, 2, (int32_t[]){ 0, 1 }, (float[]){ .731059f, .268941f }, 2);
    assert_int_equal(n_chosen(r, 3), 0);
}

static void every_expert_takes_the_same_number_and_k_of_all_is_dense(void **state)
{
    (void)state;
    const float *z = random_floats(3, 12 * 6, 1);
    for (int32_t k = 1; k <= 6; k++) {
        const struct moe_spec s = routes_spec(6, k, "expert_choice");
        const struct route *r = &routes_of(&s, NULL, z, 12, NULL)->route;
        for (int32_t e = 0; e < 6; e++) assert_int_equal(route_count(r, e), 2 * k);
    }
}

static void it_is_known_to_need_whole_sequences_and_refuses_a_capacity(void **state)
{
    (void)state;
    struct moe_spec s = routes_spec(4, 1, "expert_choice");
    assert_string_equal(moe_needs_whole_sequence(&s), "expert_choice");
    s.router.capacity.factor = 1;
    assert_int_equal(moe_spec_check(&s, "spec"), COE_E_INPUT);
    assert_error_has("a capacity has nothing to do");
    s = routes_spec(4, 1, "top_p");
    assert_null(moe_needs_whole_sequence(&s));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(experts_take_their_best_tokens_by_logit),
        cmocka_unit_test(every_expert_takes_the_same_number_and_k_of_all_is_dense),
        cmocka_unit_test(it_is_known_to_need_whole_sequences_and_refuses_a_capacity),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/selection/expert_choice", tests, NULL, NULL);
}
