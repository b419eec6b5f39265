/* Union of Experts: the slices of a dense network as experts, added as they are. */
#include "support/kinds.h"

enum { D = 6, T = 7, E = 4, F = 12 };

/* Expert e has neurons perm[e·F/E …] of the dense network `whole`. */
static struct block slices(const struct block *whole, const int32_t *perm, int32_t k)
{
    struct moe_spec s = kinds_spec((struct expert_range[]){ { .kind = "ffn", .n = E, .ffn = F / E } }, 1, k);
    s.router.unit_weights = true;
    struct block b = block_make(&s, D, BLOCK_GATED);
    memcpy(block_weight(&b, "router.0")->master, random_floats(9, E * D, 1), E * D * sizeof(float));
    for (int e = 0; e < E; e++)
        for (int i = 0; i < F / E; i++) {
            const int32_t from = perm[e * F / E + i];
            memcpy(b.gate[e]->master + i * D, whole->gate[0]->master + from * D, D * sizeof(float));
            memcpy(b.up[e]->master + i * D, whole->up[0]->master + from * D, D * sizeof(float));
            for (int j = 0; j < D; j++) b.down[e]->master[j * F / E + i] = whole->down[0]->master[j * F + from];
        }
    return b;
}

static struct block dense(void)
{
    const struct moe_spec s = kinds_spec((struct expert_range[]){ { .kind = "ffn", .n = 1, .ffn = F } }, 1, 1);
    struct block b = block_make(&s, D, BLOCK_GATED);
    block_random(&b, 1, 1);
    return b;
}

static const int32_t in_order[F] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 };
static const int32_t within[F] = { 2, 0, 1, 4, 3, 5, 8, 7, 6, 9, 11, 10 }; /* neurons change places in their slice */

/* Card 14 */
static void all_slices_are_the_dense_network(void **state)
{
    (void)state;
    struct block whole = dense(), b = slices(&whole, in_order, E);
    const float *x = random_floats(2, T * D, 1);
    assert_close("output", kinds_output(&b, x, T), kinds_output(&whole, x, T), T * D, 1e-5, 1e-5);
}

static void the_order_of_neurons_in_a_slice_does_not_matter(void **state)
{
    (void)state;
    struct block whole = dense(), a = slices(&whole, in_order, 2), b = slices(&whole, within, 2);
    const float *x = random_floats(2, T * D, 1);
    assert_close("output", kinds_output(&b, x, T), kinds_output(&a, x, T), T * D, 1e-5, 1e-5);
}

/* Two slices of scores p: the weights are 1, their gradients those of 2 p_e / Σ p: for y = E_0 + E_1 of copies of x = 1
 * and 3 the router's gradient is 2 · (dp of p_0 / (p_0 + p_1)) · (1 - 3) … of equal scores ±2 · 1/4 · (1 - 3). */
static void the_router_learns_from_shares_though_weights_are_one(void **state)
{
    (void)state;
    struct moe_spec s = kinds_spec((struct expert_range[]){ { .kind = "copy", .n = 2 } }, 1, 2);
    s.router.unit_weights = true;
    struct nn *c = routes_training(0);
    struct route_record *r = test_alloc(sizeof *r);
    struct val *z = nn_wrap(c, test_alloc(2 * sizeof(float)), 1, 2);
    assert_ok(moe_route(c, r, &s, z, NULL, NULL));
    assert_token(&r->route, 0, (int32_t[]){ 0, 1 }, (float[]){ 1, 1 }, 2);
    r->route.weight_grad[0] = 1, r->route.weight_grad[1] = 3;
    assert_ok(nn_backward(c));
    assert_close("dz", z->grad, (float[]){ -1, 1 }, 2, 1e-6, 0);
}

static void unit_weights_are_refused_beside_rules_for_weights(void **state)
{
    (void)state;
    struct moe_spec s = kinds_spec((struct expert_range[]){ { .kind = "copy", .n = 2 } }, 1, 2);
    s.router.unit_weights = s.router.renormalize = true;
    assert_int_equal(moe_spec_check(&s, "here"), COE_E_INPUT);
    assert_error_has("unit_weights are not made from scores");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_slices_are_the_dense_network),
        cmocka_unit_test(the_order_of_neurons_in_a_slice_does_not_matter),
        cmocka_unit_test(the_router_learns_from_shares_though_weights_are_one),
        cmocka_unit_test(unit_weights_are_refused_beside_rules_for_weights),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/experts/slices", tests, NULL, NULL);
}
