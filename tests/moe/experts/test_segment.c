/* Experts over whole segments (card 17): segments of one token are ungated experts, what is missing counts as zeros,
 * and other segments do not matter. */
#include "support/kinds.h"

enum { E = 3, D = 4, F = 5, T = 7 };

static struct block block_of(int32_t width, int32_t hidden)
{
    struct moe_spec s = kinds_spec((struct expert_range[]){ { .kind = "segment", .n = E, .param = { hidden } } }, 1, 1);
    assert_true(moe_use_router(&s.router, "segment"));
    s.router.kind_param[0] = width;
    s.act = ACT_GELU;
    struct block b = block_make(&s, D, BLOCK_GATED);
    block_random(&b, 6, 1);
    return b;
}

static void segments_of_one_token_are_ungated_experts(void **state)
{
    (void)state;
    struct moe_spec s = routes_spec(E, 1, "top_k");
    s.expert_ffn = F;
    s.act = ACT_GELU;
    struct block plain = block_make(&s, D, BLOCK_UNGATED), b = block_of(1, F);
    const float *x = random_floats(1, T * D, 1), *r = random_floats(2, T * D, 1);
    block_set(&plain, "router.0", block_weight(&b, "router.weight.0")->master, E * D);
    for (int e = 0; e < E; e++) {
        memcpy(plain.gate[e]->master, block_weight(&b, "experts.%d.up_proj.weight", e)->master, F * D * sizeof(float));
        memcpy(plain.down[e]->master, block_weight(&b, "experts.%d.down_proj.weight", e)->master,
               F * D * sizeof(float));
    }
    assert_close("output", kinds_output(&b, x, T), kinds_output(&plain, x, T), T * D, 1e-6, 1e-6);
    const float *dx = kinds_gradient(&b, x, r, T), *want = kinds_gradient(&plain, x, r, T);
    assert_close("dx", dx, want, T * D, 1e-5, 1e-4);
    for (int e = 0; e < E; e++)
        assert_close("dW1", block_weight(&b, "experts.%d.up_proj.weight", e)->grad, plain.gate[e]->grad, F * D, 1e-5,
                     1e-4);
}

/* Seven tokens in threes: the last segment is one token and two of zeros; so is the same token followed by zeros. */
static void the_end_of_a_sequence_is_filled_up_with_zeros(void **state)
{
    (void)state;
    struct block b = block_of(3, F);
    float x[9 * D] = { 0 };
    memcpy(x, random_floats(3, T * D, 1), T * D * sizeof *x);
    const float *some = kinds_output(&b, x, T), *all = kinds_output(&b, x, 9);
    assert_same_bits("output", some, all, T * D);
}

static void segments_do_not_touch_one_another(void **state)
{
    (void)state;
    struct block b = block_of(3, F);
    float x[6 * D];
    memcpy(x, random_floats(4, 6 * D, 1), sizeof x);
    const float *before = kinds_output(&b, x, 6);
    x[5 * D + 1] += 1;
    const float *after = kinds_output(&b, x, 6);
    assert_same_bits("first segment", after, before, 3 * D);
    for (int t = 3; t < 6; t++) assert_true(memcmp(after + t * D, before + t * D, D * sizeof *after) != 0);
}

static void without_the_router_of_segments_it_is_refused(void **state)
{
    (void)state;
    struct moe_spec s = kinds_spec((struct expert_range[]){ { .kind = "segment", .n = E, .param = { F } } }, 1, 1);
    assert_int_equal(moe_spec_check(&s, "spec"), COE_E_INPUT);
    assert_error_has("need the router segment");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(segments_of_one_token_are_ungated_experts),
        cmocka_unit_test(the_end_of_a_sequence_is_filled_up_with_zeros),
        cmocka_unit_test(segments_do_not_touch_one_another),
        cmocka_unit_test(without_the_router_of_segments_it_is_refused),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/experts/segment", tests, NULL, NULL);
}
