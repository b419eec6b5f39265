/* Null experts: chosen, but nobody's work. */
#include "support/block.h"
#include "support/routes.h"

static struct moe_spec with_nulls(int32_t experts, int32_t nulls, int32_t k)
{
    struct moe_spec s = routes_spec(experts, k, "top_k");
    s.n_null = nulls;
    s.expert_ffn = 3;
    s.router.renormalize = true;
    return s;
}

/* Card 4: two true experts, two nulls, k = 2, p = (.4 .1 .3 .2): chosen are 0 and 2, expert 0 weighs all. */
static void weights_are_made_over_the_true_experts(void **state)
{
    (void)state;
    const struct moe_spec s = with_nulls(4, 2, 2);
    const struct route_record *r = routes_of(&s, NULL, routes_logits((float[]){ .4f, .1f, .3f, .2f }, 4), 1, NULL);
    assert_token(&r->route, 0, (int32_t[]){ 0 }, (float[]){ 1 }, 1);
    assert_ids("choice", r->wanted.expert, (int32_t[]){ 0, 2 }, 2);
    uint64_t counts[4] = { 0 };
    moe_add_counts(r, counts);
    const uint64_t want[4] = { 1, 0, 1, 0 };
    assert_memory_equal(counts, want, sizeof counts);
}

static void a_token_of_null_experts_only_gets_exactly_nothing(void **state)
{
    (void)state;
    struct moe_spec s = with_nulls(4, 2, 2);
    struct block b = block_make(&s, 4, BLOCK_GATED);
    struct nn c = { .arena = test_arena() };
    block_random(&b, 1, 1);
    float *router = block_weight(&b, "router.0")->master;
    for (int i = 0; i < 16; i++) router[i] = i < 8 ? -1 : 1; /* rows 2 and 3 win for a positive input */
    float x[] = { 1, 2, 3, 4 };
    const struct val *y = block_forward(&b, &c, NULL, nn_wrap(&c, x, 1, 4), NULL);
    const float nothing[4] = { 0 };
    assert_same_bits("output", y->data, nothing, 4);
}

static void without_null_experts_it_is_top_k_with_renormalisation(void **state)
{
    (void)state;
    const float *z = random_floats(4, 40, 1);
    const struct moe_spec s = with_nulls(8, 0, 3);
    const struct route_record *r = routes_of(&s, NULL, z, 5, NULL);
    assert_null(r->wanted.tok_off);
    for (int t = 0; t < 5; t++) assert_int_equal(n_chosen(&r->route, t), 3);
}

/* k (E - m) / E true experts on the average of uniform choices: each of 4000 tokens chooses 4 of 16, 8 null: 2. */
static void half_the_choices_are_null_when_half_the_experts_are(void **state)
{
    (void)state;
    const struct moe_spec s = with_nulls(16, 8, 4);
    const struct route_record *r = routes_of(&s, NULL, random_floats(6, 16 * 4000, 1), 4000, NULL);
    assert_in_range(r->route.n_slots, 7800, 8200);
}

static void a_layer_of_nulls_only_is_refused(void **state)
{
    (void)state;
    const struct moe_spec s = with_nulls(4, 4, 2);
    assert_int_equal(moe_spec_check(&s, "spec"), COE_E_INPUT);
    assert_error_has("4 null experts among 4");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_are_made_over_the_true_experts),
        cmocka_unit_test(a_token_of_null_experts_only_gets_exactly_nothing),
        cmocka_unit_test(without_null_experts_it_is_top_k_with_renormalisation),
        cmocka_unit_test(half_the_choices_are_null_when_half_the_experts_are),
        cmocka_unit_test(a_layer_of_nulls_only_is_refused),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/null", tests, NULL, NULL);
}
