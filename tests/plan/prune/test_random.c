/* random: the floor. */
#include "support/toy_trace.h"

#include <string.h>

static void a_seed_is_a_plan(void **state)
{
    (void)state;
    struct trace *t = toy_trace(32, 1);
    int32_t a[32], b[32], c[32];
    assert_int_equal(toy_plan(a, "random", t, 0.5, 7, 1, false, NULL), 16);
    assert_int_equal(toy_plan(b, "random", t, 0.5, 7, 1, false, NULL), 16);
    assert_int_equal(toy_plan(c, "random", t, 0.5, 8, 1, false, NULL), 16);
    assert_memory_equal(a, b, 16 * sizeof *a);
    assert_int_not_equal(memcmp(a, c, 16 * sizeof *a), 0);
    trace_free(t);
}

/* Over 400 seeds each of 4 experts stays in half of the plans: 200 ± 4·10 */
static void every_expert_has_the_same_chance(void **state)
{
    (void)state;
    struct trace *t = toy_trace(4, 1);
    int32_t kept[4] = { 0 }, keep[4];
    for (uint64_t seed = 0; seed < 400; seed++) {
        assert_int_equal(toy_plan(keep, "random", t, 0.5, seed, 1, false, NULL), 2);
        kept[keep[0]]++, kept[keep[1]]++;
    }
    for (int e = 0; e < 4; e++) assert_in_range(kept[e], 160, 240);
    trace_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_seed_is_a_plan),
        cmocka_unit_test(every_expert_has_the_same_chance),
    };
    return cmocka_run_group_tests_name("plan/prune/random", tests, NULL, NULL);
}
