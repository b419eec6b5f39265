/* Random experts: one draw a pass in training, by position at inference. */
#include "support/routes.h"

enum { T = 400, E = 4 };
static float zero[T * E];

static void a_training_pass_draws_once_and_the_next_step_again(void **state)
{
    (void)state;
    struct moe_spec s = routes_spec(E, 1, "random");
    bool seen[E] = { false };
    s.router.renormalize = true;
    for (uint64_t step = 0; step < 40; step++) {
        const struct route *r = &routes_of(&s, routes_training(step), zero, 5, NULL)->route;
        for (int t = 0; t < 5; t++) assert_token(r, t, r->expert, (float[]){ 1 }, 1);
        seen[r->expert[0]] = true;
    }
    for (int e = 0; e < E; e++) assert_true(seen[e]);
}

/* 400 draws of one in four: 100 ± 5 standard deviations of 8.7 */
static void positions_draw_uniformly_and_without_repeating_an_expert(void **state)
{
    (void)state;
    struct moe_spec s = routes_spec(E, 1, "random");
    const struct route *r = &routes_of(&s, NULL, zero, T, NULL)->route;
    for (int e = 0; e < E; e++) assert_in_range(route_count(r, e), 57, 143);
    s.router.top_k = 3;
    r = &routes_of(&s, NULL, zero, T, NULL)->route;
    for (int t = 0; t < T; t++)
        for (int i = 3 * t; i < 3 * t + 2; i++) assert_true(r->expert[i] < r->expert[i + 1]); /* equal weights: by id */
    s.router.param[0] = 1;
    const struct route *other = &routes_of(&s, NULL, zero, T, NULL)->route;
    assert_memory_not_equal(r->expert, other->expert, 3 * T * sizeof(int32_t));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_training_pass_draws_once_and_the_next_step_again),
        cmocka_unit_test(positions_draw_uniformly_and_without_repeating_an_expert),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/selection/random", tests, NULL, NULL);
}
