/* The gating residual of MoE++: memory of logits, its limit, normalised logits. */
#include "support/routers.h"

static const float unit[4] = { 1, 0, 0, 1 };

static struct block block_of(int32_t nth)
{
    struct moe_spec s = router_spec_of("gating_residual", 2, 1);
    struct block b = block_make_nth(&s, 2, BLOCK_GATED, nth);
    block_set(&b, "router.0", unit, 4);
    return b;
}

/* W = 1, W_g exchanges: z1 = (1, 2); z2 = (0, 1) + (2, 1) = (2, 2); z3 = (5, 0) + (2, 2): what is carried is the sum.
 */
static void logits_of_the_last_decision_enter_the_next_with_all_that_entered_them(void **state)
{
    (void)state;
    struct block first = block_of(0), later = block_of(1);
    struct moe_pass *p = router_pass(false);
    block_set(&later, "router.residual.weight.0", (float[]){ 0, 1, 1, 0 }, 4);
    const struct val *z = block_logits(&first, p, 0, router_input(p, (float[]){ 1, 2 }, 1, 2));
    assert_close("z1", z->data, (float[]){ 1, 2 }, 2, 0, 0);
    z = block_logits(&later, p, 0, router_input(p, (float[]){ 0, 1 }, 1, 2));
    assert_close("z2", z->data, (float[]){ 2, 2 }, 2, 0, 0);
    z = block_logits(&later, p, 0, router_input(p, (float[]){ 5, 0 }, 1, 2));
    assert_close("z3", z->data, (float[]){ 7, 2 }, 2, 0, 0);
}

static void without_its_matrix_it_is_a_plain_router(void **state)
{
    (void)state;
    struct block later = block_of(1);
    struct moe_pass *p = router_pass(false);
    const float *x = random_floats(3, 6, 1);
    (void)block_logits(&later, p, 0, router_input(p, random_floats(4, 6, 1), 3, 2));
    const struct val *z = block_logits(&later, p, 0, router_input(p, x, 3, 2));
    assert_close("z", z->data, x, 6, 0, 0);
}

static void the_first_decision_has_no_matrix(void **state)
{
    (void)state;
    struct block b = block_of(0);
    assert_null(b.w.router_part[0][0]);
}

/* (1, 2, 3) has mean 2 and standard deviation 1 (n - 1): times 1.5 it is (1.5, 3, 4.5); (2, 2, 2) has none. What is
 * carried is not normalised. */
static void logits_get_the_deviation_that_is_asked_for(void **state)
{
    (void)state;
    struct moe_spec s = router_spec_of("gating_residual", 3, 1);
    s.router.kind_param[2] = 1.5;
    struct block b = block_make(&s, 3, BLOCK_GATED);
    struct moe_pass *p = router_pass(false);
    block_set(&b, "router.0", (float[]){ 1, 0, 0, 0, 1, 0, 0, 0, 1 }, 9);
    const struct val *z = block_logits(&b, p, 0, router_input(p, (float[]){ 1, 2, 3, 2, 2, 2 }, 2, 3));
    assert_close("z", z->data, (float[]){ 1.5f, 3, 4.5f, 0, 0, 0 }, 6, 1e-6, 0);
    assert_close("carried", p->carried->data, (float[]){ 1, 2, 3, 2, 2, 2 }, 6, 0, 0);
}

static void one_expert_has_no_deviation(void **state)
{
    (void)state;
    struct moe_spec s = router_spec_of("gating_residual", 1, 1);
    s.router.kind_param[2] = 1;
    assert_int_equal(moe_spec_check(&s, "here"), COE_E_INPUT);
    assert_error_has("norm_std of gating_residual needs two experts");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_of_the_last_decision_enter_the_next_with_all_that_entered_them),
        cmocka_unit_test(without_its_matrix_it_is_a_plain_router),
        cmocka_unit_test(the_first_decision_has_no_matrix),
        cmocka_unit_test(logits_get_the_deviation_that_is_asked_for),
        cmocka_unit_test(one_expert_has_no_deviation),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/routers/gating_residual", tests, NULL, NULL);
}
