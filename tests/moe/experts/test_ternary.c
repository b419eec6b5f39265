/* Ternary experts: the card's numbers, and gradients that pass the rounding. */
#include "support/kinds.h"

static struct block ternary(int64_t d, int32_t f, const char *kind)
{
    const struct moe_spec s = kinds_spec((struct expert_range[]){ { .kind = kind, .n = 1, .ffn = f } }, 1, 1);
    return block_make(&s, d, BLOCK_GATED);
}

/* Card MoTE: W = (.5, -.2, .05, -1.25) has alpha .5 and is (.5, 0, 0, -.5); x = (1, -2, .5, 0) is rounded to (64, -127,
 * 32, 0) · 2/127 = (1.007874, -2, .503937, 0). gate = up = W~ x~ = .503937; u = silu(.503937) · .503937 = .158310; one
 * element: rounding keeps it; down = (1, 1, 1, 1) is its own rounding. */
static void weights_and_rows_are_rounded_as_on_the_card(void **state)
{
    (void)state;
    struct block b = ternary(4, 1, "ternary");
    const float w[] = { 0.5f, -0.2f, 0.05f, -1.25f }, u = 0.1583100f;
    block_set(&b, "experts.0.gate", w, 4);
    block_set(&b, "experts.0.up", w, 4);
    block_set(&b, "experts.0.down", (float[]){ 1, 1, 1, 1 }, 4);
    assert_close("output", kinds_output(&b, (float[]){ 1, -2, 0.5f, 0 }, 1), (float[]){ u, u, u, u }, 4, 2e-6, 0);
}

static void experts_of_zeros_leave_the_shared_expert_alone(void **state)
{
    (void)state;
    struct block b = ternary(4, 3, "ternary");
    assert_close("output", kinds_output(&b, (float[]){ 1, -2, 0.5f, 3 }, 1), (float[4]){ 0 }, 4, 0, 0);
}

/* Weights of one magnitude are their own rounding, and so are rows of one magnitude: there the kind is a feed-forward
 * expert, and its gradient that of one. */
static void where_rounding_changes_nothing_the_gradient_is_that_of_ffn(void **state)
{
    (void)state;
    struct block b = ternary(4, 1, "ternary"), plain = ternary(4, 1, "ffn");
    static const char *const names[] = { "experts.0.gate", "experts.0.up", "experts.0.down" };
    const float w[] = { 0.5f, -0.5f, -0.5f, 0.5f }, x[] = { 3, -3, 3, 3 }, r[] = { 1, 2, -1, 0.5f };
    for (int i = 0; i < 3; i++) block_set(&b, names[i], w, 4), block_set(&plain, names[i], w, 4);
    const float *dx = kinds_gradient(&b, x, r, 1), *want = kinds_gradient(&plain, x, r, 1);
    assert_close("dx", dx, want, 4, 1e-4, 1e-4);
    for (int i = 0; i < 3; i++)
        assert_close(names[i], block_weight(&b, "%s", names[i])->grad, block_weight(&plain, "%s", names[i])->grad, 4,
                     1e-4, 1e-4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_and_rows_are_rounded_as_on_the_card),
        cmocka_unit_test(experts_of_zeros_leave_the_shared_expert_alone),
        cmocka_unit_test(where_rounding_changes_nothing_the_gradient_is_that_of_ffn),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/experts/ternary", tests, NULL, NULL);
}
