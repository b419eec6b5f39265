/* The router with one hidden layer. */
#include "support/routers.h"

#include <math.h>

/* W1 = ((1, 0), (0, -1)), x = (.5, 1): hidden tanh(.5) = .462117, tanh(-1) = -.761594; W2 = ((1, 1), (2, 0)):
 * z = (-.299477, .924234) */
static void logits_go_through_the_hidden_layer(void **state)
{
    (void)state;
    struct moe_spec s = router_spec_of("two_layer", 2, 1);
    s.router.kind_param[0] = 2;
    struct block b = block_make(&s, 2, BLOCK_GATED);
    struct moe_pass *p = router_pass(false);
    block_set(&b, "router.fc1.weight.0", (float[]){ 1, 0, 0, -1 }, 4);
    block_set(&b, "router.fc2.weight.0", (float[]){ 1, 1, 2, 0 }, 4);
    const struct val *z = block_logits(&b, p, 0, router_input(p, (float[]){ .5f, 1 }, 1, 2));
    assert_close("z", z->data, (float[]){ -.299477f, .924234f }, 2, 1e-6, 0);
    s.router.kind_param[1] = 3; /* relu: (.5, 0) */
    b.spec = s;
    z = block_logits(&b, p, 0, router_input(p, (float[]){ .5f, 1 }, 1, 2));
    assert_close("z with relu", z->data, (float[]){ .5f, 1 }, 2, 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_go_through_the_hidden_layer),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/routers/two_layer", tests, NULL, NULL);
}
