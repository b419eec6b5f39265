/* Sparsity-constrained transport: the projections of card 9b, limits of k, marginals, and the selection made of it. */
#include "support/routes.h"

#include "moe/selection/transport.h"

static void assert_projection(const double *v, int32_t n, int32_t k, const double *want)
{
    static const double guess[] = { 0, .75, -5, 1e9 };
    for (size_t g = 0; g < COE_COUNT(guess); g++) {
        double out[8], cut = guess[g];
        int32_t order[16];
        transport_project(out, v, n, k, &cut, order);
        for (int32_t i = 0; i < n; i++) assert_near("projection", out[i], want[i], 1e-12);
    }
}

static void projections_of_the_card(void **state)
{
    (void)state;
    assert_projection((double[]){ 1, .8 }, 2, 2, (double[]){ .6, .4 });
    assert_projection((double[]){ 1, .8, .7 }, 3, 3, (double[]){ .5, .3, .2 });
    assert_projection((double[]){ 1, .8, .7 }, 3, 2, (double[]){ .6, .4, 0 });
    assert_projection((double[]){ .7, 1, .8 }, 3, 1, (double[]){ 0, 1, 0 });
    assert_projection((double[]){ 5, 1, 0 }, 3, 3, (double[]){ 1, 0, 0 }); /* beyond the simplex */
}

/* Three equal ones for two places: the earlier. And one of 40 against sorting: the k largest, then the shift. */
static void the_earlier_of_equal_ones_are_taken_and_long_columns_are_cut_where_sorting_cuts_them(void **state)
{
    (void)state;
    assert_projection((double[]){ .2, .7, .7, .7 }, 4, 2, (double[]){ 0, .5, .5, 0 });
    assert_projection((double[]){ .7, .7, .7, .7 }, 4, 3, (double[]){ 1 / 3., 1 / 3., 1 / 3., 0 });
    enum { LONG = 40 };
    const double *v = random_doubles(9, LONG, .2);
    double cut = 0;
    for (int32_t k = 1; k <= LONG; k++) {
        double out[LONG], sum = 0;
        int32_t order[2 * LONG], used = 0;
        transport_project(out, v, LONG, k, &cut, order);
        double theta = INFINITY; /* of those in use: all differ from their projection by it */
        for (int32_t i = 0; i < LONG; i++) {
            sum += out[i];
            if (!(out[i] > 0)) continue;
            used++;
            int32_t larger = 0;
            for (int32_t j = 0; j < LONG; j++) larger += v[j] > v[i];
            assert_true(larger < k);
            if (theta < INFINITY) assert_near("shift", v[i] - out[i], theta, 1e-12);
            theta = v[i] - out[i];
        }
        assert_near("sum", sum, 1, 1e-12);
        int32_t above = 0; /* nobody is left out who is among the k largest and above the shift */
        for (int32_t i = 0; i < LONG; i++) above += v[i] > theta + 1e-12;
        assert_int_equal(used, COE_MIN(above, k));
    }
}

enum { M = 12, N = 3 };

static void costs(double *c)
{
    const double *x = random_doubles(5, M * N, 1);
    memcpy(c, x, M * N * sizeof *c);
}

static int32_t solve(const struct transport *p, bool dual, double *plan, double *value)
{
    const int32_t size = dual ? M + N : M;
    return transport_solve(p, dual ? transport_dual : transport_semi_dual, size, 1e-10, 500, plan, value,
                           arena_push(test_arena(), transport_room(p, size)));
}

static void gradients_agree_with_central_differences(void **state)
{
    (void)state;
    double c[M * N], gradient[M + N], unused[M + N], scratch[2 * M + N] = { 0 };
    int32_t order[2 * M];
    costs(c);
    double *x = random_doubles(6, M + N, .5);
    const struct transport p = { c, M, N, 5, .7 };
    for (int dual = 0; dual < 2; dual++) {
        transport_objective *f = dual ? transport_dual : transport_semi_dual;
        f(&p, x, gradient, NULL, scratch, order);
        for (int i = 0; i < (dual ? M + N : M); i++) {
            const double here = x[i], h = 1e-6;
            x[i] = here + h;
            const double up = f(&p, x, unused, NULL, scratch, order);
            x[i] = here - h;
            const double down = f(&p, x, unused, NULL, scratch, order);
            x[i] = here;
            assert_near("gradient", gradient[i], (up - down) / (2 * h), 1e-6);
        }
    }
}

/* Without a limit both duals have one plan, with its sums, and no gap between value and cost. */
static void without_a_limit_it_is_quadratic_transport(void **state)
{
    (void)state;
    double c[M * N], plan[M * N], other[M * N], value, dual, cost = 0;
    costs(c);
    const struct transport p = { c, M, N, M, 1 };
    solve(&p, false, plan, &value);
    solve(&p, true, other, &dual);
    for (int t = 0; t < M; t++) assert_near("row", plan[t] + plan[M + t] + plan[2 * M + t], 1.0 / M, 1e-8);
    for (int j = 0; j < N; j++) {
        double sum = 0;
        for (int t = 0; t < M; t++) sum += plan[M * j + t];
        assert_near("column", sum, 1.0 / N, 1e-12);
    }
    for (int i = 0; i < M * N; i++) {
        assert_near("plans of the two duals", plan[i], other[i], 1e-7);
        cost += plan[i] * c[i] + p.gamma / 2 * plan[i] * plan[i];
    }
    assert_near("semi-dual", value, cost, 1e-8);
    assert_near("dual", dual, cost, 1e-8);
}

static void no_column_has_more_than_k_entries_and_a_tighter_limit_costs_no_less(void **state)
{
    (void)state;
    double c[M * N], plan[M * N], value = 0, before = INFINITY;
    costs(c);
    for (int32_t k = 1; k <= M; k++) {
        const struct transport p = { c, M, N, k, 5 };
        solve(&p, false, plan, &value);
        for (int j = 0; j < N; j++) {
            int32_t used = 0;
            for (int t = 0; t < M; t++) used += plan[M * j + t] > 0;
            assert_in_range(used, 1, k);
        }
        assert_true(k == 1 || value <= before + 1e-9);
        before = value;
    }
}

/* Four tokens prefer expert 0, the first two most: with one expert a token (k = 2 of 4) the others go to expert 1. */
static const float split[] = { .95f, .05f, .9f, .1f, .6f, .4f, .55f, .45f };

static void experts_share_a_sequence_and_inference_is_plain_unless_asked(void **state)
{
    (void)state;
    const float *z = routes_logits(split, 8);
    struct moe_spec s = routes_spec(2, 1, "transport");
    s.router.param[0] = .01;
    const struct route *r = &routes_of(&s, routes_training(0), z, 4, NULL)->route;
    assert_token(r, 0, (int32_t[]){ 0 }, (float[]){ .95f }, 1);
    assert_token(r, 1, (int32_t[]){ 0 }, (float[]){ .9f }, 1);
    assert_token(r, 2, (int32_t[]){ 1 }, (float[]){ .4f }, 1);
    assert_token(r, 3, (int32_t[]){ 1 }, (float[]){ .45f }, 1);
    r = &routes_of(&s, NULL, z, 4, NULL)->route;
    assert_token(r, 2, (int32_t[]){ 0 }, (float[]){ .6f }, 1);
    assert_null(moe_needs_whole_sequence(&s));
    s.router.param[3] = 1, s.router.param[4] = 1; /* weights of the plan, transport at inference */
    r = &routes_of(&s, NULL, z, 4, NULL)->route;
    assert_token(r, 2, (int32_t[]){ 1 }, (float[]){ 1 }, 1);
    assert_string_equal(moe_needs_whole_sequence(&s), "transport");
}

static void a_sequence_is_shared_out_by_itself(void **state)
{
    (void)state;
    static const int32_t off[] = { 0, 7, 12 };
    const struct attn_batch both = { 2, off, NULL, NULL };
    const float *z = random_floats(11, 12 * 6, 1.5);
    struct moe_spec s = routes_spec(6, 2, "transport");
    s.router.param[4] = 1;
    const struct route *all = &routes_of(&s, NULL, z, 12, &both)->route;
    const struct route *alone = &routes_of(&s, NULL, z + 7 * 6, 5, NULL)->route;
    for (int32_t t = 0; t < 5; t++) {
        const int32_t n = n_chosen(alone, t);
        assert_int_equal(n_chosen(all, 7 + t), n);
        assert_ids("experts", all->expert + all->tok_off[7 + t], alone->expert + alone->tok_off[t], n);
        assert_same_bits("weights", all->weight + all->tok_off[7 + t], alone->weight + alone->tok_off[t], n);
    }
}

/* One expert for everybody may have one token: the others' rows are empty, and they go to their best. */
static void a_token_without_a_part_visits_its_best_and_masked_experts_take_no_share(void **state)
{
    (void)state;
    const float *z = routes_logits(split, 8);
    struct moe_spec s = routes_spec(2, 1, "transport");
    s.router.param[0] = .01, s.router.param[1] = .01, s.router.param[4] = 1;
    const struct route *r = &routes_of(&s, NULL, z, 4, NULL)->route;
    for (int32_t t = 0; t < 4; t++) assert_int_equal(n_chosen(r, t), 1);
    struct nn c = { .arena = test_arena() };
    struct route_record rec = { 0 };
    const struct route_hook hook = { (const uint8_t[]){ 1, 0 }, 1 };
    float *copy = test_alloc(8 * sizeof *copy);
    memcpy(copy, z, 8 * sizeof *copy);
    assert_ok(moe_route(&c, &rec, &s, nn_wrap(&c, copy, 4, 2), NULL, &hook));
    for (int32_t t = 0; t < 4; t++) assert_token(&rec.route, t, (int32_t[]){ 0 }, NULL, 1);
}

static void what_it_does_itself_is_refused_twice(void **state)
{
    (void)state;
    struct moe_spec s = routes_spec(6, 2, "transport");
    s.router.capacity.factor = 1;
    assert_int_equal(moe_spec_check(&s, "spec"), COE_E_INPUT);
    assert_error_has("a capacity has nothing to do");
    s.router.capacity.factor = 0;
    s.router.n_group = s.router.topk_group = 2;
    assert_int_equal(moe_spec_check(&s, "spec"), COE_E_INPUT);
    assert_error_has("groups leave some out");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(projections_of_the_card),
        cmocka_unit_test(the_earlier_of_equal_ones_are_taken_and_long_columns_are_cut_where_sorting_cuts_them),
        cmocka_unit_test(gradients_agree_with_central_differences),
        cmocka_unit_test(without_a_limit_it_is_quadratic_transport),
        cmocka_unit_test(no_column_has_more_than_k_entries_and_a_tighter_limit_costs_no_less),
        cmocka_unit_test(experts_share_a_sequence_and_inference_is_plain_unless_asked),
        cmocka_unit_test(a_sequence_is_shared_out_by_itself),
        cmocka_unit_test(a_token_without_a_part_visits_its_best_and_masked_experts_take_no_share),
        cmocka_unit_test(what_it_does_itself_is_refused_twice),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/selection/transport", tests, NULL, NULL);
}
