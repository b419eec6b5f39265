/* The route's two views of the same slots. */
#include "support/arrays.h"

#include <string.h>

#include "moe/route.h"

static struct route make(int32_t n_tokens, int32_t n_experts, int64_t cap)
{
    struct route r;
    assert_ok(route_make(&r, test_arena(), n_tokens, n_experts, cap, false));
    return r;
}

/* The picture in route.h: token 0 → experts 3, 1; token 1 → experts 1, 0 (weights .6 .4 | .7 .3). Rows by expert:
 * expert 0: token 1 (slot 3); expert 1: token 0 (slot 1), token 1 (slot 2); expert 2: none; expert 3: token 0 (slot 0).
 */
static void the_example_of_the_header(void **state)
{
    (void)state;
    struct route r = make(2, 4, 4);
    route_choose(&r, 0, (int32_t[]){ 3, 1 }, 2);
    route_choose(&r, 1, (int32_t[]){ 1, 0 }, 2);
    memcpy(r.weight, (float[]){ .6f, .4f, .7f, .3f }, 4 * sizeof(float));
    memset(r.score, 0, 4 * sizeof(float));
    route_index(&r);
    assert_ids("tok_off", r.tok_off, (int32_t[]){ 0, 2, 4 }, 3);
    assert_ids("expert", r.expert, (int32_t[]){ 3, 1, 1, 0 }, 4);
    assert_ids("off", r.off, (int32_t[]){ 0, 1, 3, 3, 4 }, 5);
    assert_ids("row_slot", r.row_slot, (int32_t[]){ 3, 1, 2, 0 }, 4);
    assert_ids("row_token", r.row_token, (int32_t[]){ 1, 0, 1, 0 }, 4);
    assert_ids("slot_row", r.slot_row, (int32_t[]){ 3, 1, 2, 0 }, 4);
    assert_int_equal(route_count(&r, 1), 2);
    assert_int_equal(route_count(&r, 2), 0);
}

/* Weights .1 .5 .5 .3 of experts 7 4 2 0 → order 2 4 0 7: descending, equal ones by id; scores move along. */
static void slots_of_a_token_are_sorted_by_weight_then_id(void **state)
{
    (void)state;
    struct route r = make(1, 8, 4);
    route_choose(&r, 0, (int32_t[]){ 7, 4, 2, 0 }, 4);
    memcpy(r.weight, (float[]){ .1f, .5f, .5f, .3f }, 4 * sizeof(float));
    memcpy(r.score, (float[]){ 7, 4, 2, 0 }, 4 * sizeof(float));
    route_index(&r);
    assert_ids("expert", r.expert, (int32_t[]){ 2, 4, 0, 7 }, 4);
    for (int i = 0; i < 4; i++) assert_int_equal((int)r.score[i], r.expert[i]);
}

/* The naive twin: for every expert, scan all tokens and all their slots. */
static void assert_like_the_twin(const struct route *r)
{
    int32_t row = 0;
    for (int32_t e = 0; e < r->n_experts; e++) {
        assert_int_equal(r->off[e], row);
        for (int32_t t = 0; t < r->n_tokens; t++)
            for (int32_t s = r->tok_off[t]; s < r->tok_off[t + 1]; s++) {
                if (r->expert[s] != e) continue;
                assert_int_equal(r->row_token[row], t);
                assert_int_equal(r->row_slot[row], s);
                assert_int_equal(r->slot_row[s], row);
                row++;
            }
    }
    assert_int_equal(r->off[r->n_experts], row);
    assert_int_equal(row, r->n_slots);
}

static void random_routes_equal_the_naive_twin(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct rng g = rng_make(seed, rng_stream(RNG_TEST, 1));
        const int32_t experts = 1 + (int32_t)rng_below(&g, 40), tokens = (int32_t)rng_below(&g, 60);
        struct route r = make(tokens, experts, (int64_t)tokens * experts + 1);
        for (int32_t t = 0; t < tokens; t++) {
            int32_t chosen[40], n = 0;
            for (int32_t e = 0; e < experts; e++)
                if (rng_below(&g, 4) == 0) chosen[n++] = e;
            route_choose(&r, t, chosen, n); /* n may be 0 */
        }
        for (int32_t i = 0; i < r.n_slots; i++) r.weight[i] = (float)rng_below(&g, 5), r.score[i] = 0;
        route_index(&r);
        assert_like_the_twin(&r);
        for (int32_t t = 0; t < tokens; t++)
            for (int32_t s = r.tok_off[t] + 1; s < r.tok_off[t + 1]; s++)
                if (r.weight[s] > r.weight[s - 1] || (r.weight[s] == r.weight[s - 1] && r.expert[s] < r.expert[s - 1]))
                    fail_msg("seed %llu: slots %d and %d of token %d are out of order", (unsigned long long)seed, s - 1,
                             s, t);
    }
}

static void all_tokens_may_go_to_one_expert(void **state)
{
    (void)state;
    struct route r = make(100, 7, 100);
    for (int32_t t = 0; t < 100; t++) route_choose(&r, t, (int32_t[]){ 5 }, 1);
    for (int32_t i = 0; i < 100; i++) r.weight[i] = 1, r.score[i] = 1;
    route_index(&r);
    assert_int_equal(route_count(&r, 5), 100);
    assert_like_the_twin(&r);
}

static void a_route_of_no_tokens_has_empty_views(void **state)
{
    (void)state;
    struct route r = make(0, 3, 0);
    route_index(&r);
    assert_ids("off", r.off, (int32_t[]){ 0, 0, 0, 0 }, 4);
    assert_int_equal(r.n_slots, 0);
}

static void more_slots_than_an_index_can_count_are_refused(void **state)
{
    (void)state;
    struct route r;
    assert_int_equal(route_make(&r, test_arena(), 10, 10, (int64_t)INT32_MAX + 1, false), COE_E_NOMEM);
    assert_error_has("2147483648 slots");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_example_of_the_header),
        cmocka_unit_test(slots_of_a_token_are_sorted_by_weight_then_id),
        cmocka_unit_test(random_routes_equal_the_naive_twin),
        cmocka_unit_test(all_tokens_may_go_to_one_expert),
        cmocka_unit_test(a_route_of_no_tokens_has_empty_views),
        cmocka_unit_test(more_slots_than_an_index_can_count_are_refused),
    };
    return cmocka_run_group_tests_name("moe/route", tests, NULL, NULL);
}
