/* Cosines to prototypes over a temperature. */
#include "support/routers.h"

enum { WIDTH, TEMPERATURE, LEARNED };

static struct moe_spec spec_of(double temperature, bool learned)
{
    struct moe_spec s = router_spec_of("cosine", 3, 1);
    s.router.kind_param[TEMPERATURE] = temperature;
    s.router.kind_param[LEARNED] = learned;
    return s;
}

/* x = (3, 4) has length 5; c = (1, 0), (0, 2), (-3, -4): cosines .6, .8, -1, over .5: 1.2, 1.6, -2. Longer and shorter
 * inputs, all the same; a zero input has no direction. */
static void only_the_angle_counts(void **state)
{
    (void)state;
    const struct moe_spec s = spec_of(.5, false);
    struct block b = block_make(&s, 2, BLOCK_GATED);
    struct moe_pass *p = router_pass(false);
    block_set(&b, "router.prototypes.0", (float[]){ 1, 0, 0, 2, -3, -4 }, 6);
    const struct val *z = block_logits(&b, p, 0, router_input(p, (float[]){ 3, 4, 300, 400, 0, 0 }, 3, 2));
    assert_close("z", z->data, (float[]){ 1.2f, 1.6f, -2, 1.2f, 1.6f, -2, 0, 0, 0 }, 9, 1e-6, 0);
}

/* The learned temperature .25 doubles what .5 gave; below .01 it stays .01. */
static void a_learned_temperature_divides_and_has_a_floor(void **state)
{
    (void)state;
    const struct moe_spec s = spec_of(.5, true);
    struct block b = block_make(&s, 2, BLOCK_GATED);
    struct moe_pass *p = router_pass(false);
    block_set(&b, "router.prototypes.0", (float[]){ 1, 0, 0, 2, -3, -4 }, 6);
    block_set(&b, "router.temperature.0", (float[]){ .25f }, 1);
    const struct val *z = block_logits(&b, p, 0, router_input(p, (float[]){ 3, 4 }, 1, 2));
    assert_close("z", z->data, (float[]){ 2.4f, 3.2f, -4 }, 3, 1e-6, 0);
    block_set(&b, "router.temperature.0", (float[]){ -1 }, 1);
    z = block_logits(&b, p, 0, router_input(p, (float[]){ 3, 4 }, 1, 2));
    assert_close("z at the floor", z->data, (float[]){ 60, 80, -100 }, 3, 1e-4, 0);
}

/* P = (0, 1): x = (3, -4) is seen as -4, prototypes 1, -2, 3 as signs */
static void a_projection_makes_the_space_in_which_they_are_compared(void **state)
{
    (void)state;
    struct moe_spec s = spec_of(1, false);
    s.router.kind_param[WIDTH] = 1;
    struct block b = block_make(&s, 2, BLOCK_GATED);
    struct moe_pass *p = router_pass(false);
    block_set(&b, "router.proj.weight.0", (float[]){ 0, 1 }, 2);
    block_set(&b, "router.prototypes.0", (float[]){ 1, -2, 3 }, 3);
    const struct val *z = block_logits(&b, p, 0, router_input(p, (float[]){ 3, -4 }, 1, 2));
    assert_close("z", z->data, (float[]){ -1, 1, -1 }, 3, 1e-6, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_angle_counts),
        cmocka_unit_test(a_learned_temperature_divides_and_has_a_floor),
        cmocka_unit_test(a_projection_makes_the_space_in_which_they_are_compared),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/routers/cosine", tests, NULL, NULL);
}
