/* The pre-gated router: what it reads, and its limit. */
#include "support/routers.h"

static struct block block_of(const char *kind)
{
    struct moe_spec s = router_spec_of(kind, 3, 1);
    struct block b = block_make(&s, 2, BLOCK_GATED);
    block_random(&b, 7, 1);
    return b;
}

static void a_decision_reads_the_input_of_the_one_before_and_the_first_its_own(void **state)
{
    (void)state;
    struct block b = block_of("pre_gated"), plain = block_of("linear");
    struct moe_pass *p = router_pass(false), *q = router_pass(false);
    const float *x = random_floats(1, 4, 1), *y = random_floats(2, 4, 1);
    const struct val *of_x = block_logits(&plain, q, 0, router_input(q, x, 2, 2));
    const struct val *of_y = block_logits(&plain, q, 0, router_input(q, y, 2, 2));
    assert_same_bits("first", block_logits(&b, p, 0, router_input(p, x, 2, 2))->data, of_x->data, 6);
    assert_same_bits("second", block_logits(&b, p, 0, router_input(p, y, 2, 2))->data, of_x->data, 6);
    assert_same_bits("third", block_logits(&b, p, 0, router_input(p, x, 2, 2))->data, of_y->data, 6);
}

/* Layers that add nothing to the stream hand the same input on: the shifted model routes as the original does. */
static void equal_inputs_give_the_routes_of_the_original(void **state)
{
    (void)state;
    struct block b = block_of("pre_gated"), plain = block_of("linear");
    struct moe_pass *p = router_pass(false), *q = router_pass(false);
    const float *x = random_floats(1, 8, 1);
    for (int layer = 0; layer < 3; layer++)
        assert_same_bits("z", block_logits(&b, p, 0, router_input(p, x, 4, 2))->data,
                         block_logits(&plain, q, 0, router_input(q, x, 4, 2))->data, 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_decision_reads_the_input_of_the_one_before_and_the_first_its_own),
        cmocka_unit_test(equal_inputs_give_the_routes_of_the_original),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/routers/pre_gated", tests, NULL, NULL);
}
