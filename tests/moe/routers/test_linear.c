/* The router of one matrix and its temperature. */
#include "support/routers.h"

/* z = W x / 1.5 with W = ((1, 2), (-1, 0.5)) and x = (0.5, 1): (2.5, 0) / 1.5, and with a bias (2.5, 3) / 1.5 */
static void a_temperature_divides_the_logits_with_their_bias(void **state)
{
    (void)state;
    struct moe_spec s = router_spec_of("linear", 2, 1);
    s.router.kind_param[0] = 1.5;
    s.router.bias = true;
    struct block b = block_make(&s, 2, BLOCK_GATED);
    struct moe_pass *p = router_pass(false);
    block_set(&b, "router.0", (float[]){ 1, 2, -1, .5f }, 4);
    block_set(&b, "router_bias.0", (float[]){ 0, 3 }, 2);
    const struct val *z = block_logits(&b, p, 0, router_input(p, (float[]){ .5f, 1 }, 1, 2));
    assert_close("z", z->data, (float[]){ 2.5f / 1.5f, 3 / 1.5f }, 2, 1e-6, 0);
}

/* Card 19: top-1 of the logits is top-1 of the divided ones, whatever the temperature. */
static void a_temperature_changes_no_choice_and_one_changes_no_bit(void **state)
{
    (void)state;
    struct moe_spec s = router_spec_of("linear", 8, 1);
    struct block b = block_make(&s, 4, BLOCK_GATED);
    struct moe_pass *p = router_pass(false);
    block_random(&b, 3, 1);
    const float *x = random_floats(5, 4 * 16, 1);
    const struct val *plain = block_logits(&b, p, 0, router_input(p, x, 16, 4));
    b.spec.router.kind_param[0] = 1;
    assert_same_bits("one", block_logits(&b, p, 0, router_input(p, x, 16, 4))->data, plain->data, 128);
    b.spec.router.kind_param[0] = 7;
    const struct val *flat = block_logits(&b, p, 0, router_input(p, x, 16, 4));
    for (int t = 0; t < 16; t++) {
        const float *a = plain->data + 8 * t, *c = flat->data + 8 * t;
        int best = 0, other = 0;
        for (int e = 1; e < 8; e++) {
            if (a[e] > a[best]) best = e;
            if (c[e] > c[other]) other = e;
        }
        assert_int_equal(best, other);
        assert_float_equal(c[best], a[best] / 7, 1e-6);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_temperature_divides_the_logits_with_their_bias),
        cmocka_unit_test(a_temperature_changes_no_choice_and_one_changes_no_bit),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/routers/linear", tests, NULL, NULL);
}
