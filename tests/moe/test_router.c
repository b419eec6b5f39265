/* From router logits to a route: scores, groups, selection, weights, masks; the controller of the selection bias. */
#include "support/arrays.h"

#include <math.h>
#include <string.h>

#include "moe/moe.h"

static struct moe_spec spec_of(int32_t experts, int32_t k)
{
    struct moe_spec s = moe_spec_default();
    s.n_experts = experts;
    s.expert_ffn = 1;
    s.router.top_k = k;
    return s;
}

static struct route_record *route_with(const struct moe_spec *spec, const float *z, int64_t n, const float *bias,
                                       const struct route_hook *hook)
{
    struct route_record *r = test_alloc(sizeof *r);
    struct nn c = { .arena = test_arena() };
    float *copy = test_alloc((size_t)(n * spec->n_experts) * sizeof *copy);
    memcpy(copy, z, (size_t)(n * spec->n_experts) * sizeof *copy);
    struct weight *b = bias ? test_weight("bias", (float *)(uintptr_t)bias, 1, spec->n_experts) : NULL;
    assert_ok(moe_spec_check(spec, "test"));
    assert_ok(moe_route(&c, r, spec, nn_wrap(&c, copy, n, spec->n_experts), b, hook));
    return r;
}

static struct route *route_of(const struct moe_spec *spec, const float *z, int64_t n)
{
    return &route_with(spec, z, n, NULL, NULL)->route;
}

static struct moe_spec v3_toy(void)
{
    struct moe_spec s = spec_of(8, 2);
    s.router.score = SCORE_SIGMOID;
    s.router.n_group = 4, s.router.topk_group = 2;
    s.router.group_score = GROUP_SUM2;
    s.router.renormalize = true;
    s.router.renorm_eps = 1e-20f;
    s.router.scale = 2.5f;
    return s;
}
static const float v3_z[] = { 2, -1, 1, .9f, -2, 1.5f, 0, 0 };

/* Card 2: s = (.880797 .268941 .731059 .710950 .119203 .817574 .5 .5); group sums (1.149738 1.442008 .936777 1.0) keep
 * groups 0 and 1; best two there: experts 0 and 2; weights (.880797, .731059) / 1.611856 · 2.5 = (1.366122, 1.133878).
 */
static void deepseek_v3_chooses_within_the_best_groups(void **state)
{
    (void)state;
    const struct moe_spec s = v3_toy();
    const struct route *r = route_of(&s, v3_z, 1);
    assert_ids("experts", r->expert, (int32_t[]){ 0, 2 }, 2);
    assert_close("weights", r->weight, (float[]){ .880797f / 1.611856f * 2.5f, .731059f / 1.611856f * 2.5f }, 2, 2e-6,
                 0);
    assert_close("scores", r->score, (float[]){ .880797f, .731059f }, 2, 1e-6, 0);
}

/* Card 2: with b_0 = -0.5 the group sums are (.649738 1.442008 .936777 1.0), groups 1 and 3 stay, experts 2 and 3 win
 * with .731059 and .710950; their weights know nothing of b. */
static void the_selection_bias_chooses_but_never_weighs(void **state)
{
    (void)state;
    struct moe_spec s = v3_toy();
    s.router.selection_bias = true;
    const float bias[8] = { -.5f };
    const struct route *r = &route_with(&s, v3_z, 1, bias, NULL)->route;
    assert_ids("experts", r->expert, (int32_t[]){ 2, 3 }, 2);
    assert_close("weights", r->weight, (float[]){ .731059f / 1.442009f * 2.5f, .710950f / 1.442009f * 2.5f }, 2, 3e-6,
                 0);
}

/* All biased scores negative: what lies outside the kept groups must be -inf, not 0. */
static void experts_outside_the_kept_groups_lose_to_negative_scores(void **state)
{
    (void)state;
    struct moe_spec s = v3_toy();
    const float bias[8] = { -2, -2, -2, -2, -2, -2, -2, -2 };
    assert_ids("experts", route_with(&s, v3_z, 1, bias, NULL)->route.expert, (int32_t[]){ 0, 2 }, 2);
}

/* Scores .9 .1 | .3 .8 | .2 .7: by the best of a group groups 0 and 1 stay; top-3 of .9 .1 .3 .8 = experts 0 3 2. */
static void deepseek_v2_groups_are_ranked_by_their_best_expert(void **state)
{
    (void)state;
    struct moe_spec s = spec_of(6, 3);
    s.router.n_group = 3, s.router.topk_group = 2;
    float z[6];
    const float p[] = { .9f, .1f, .3f, .8f, .2f, .7f };
    for (int e = 0; e < 6; e++) z[e] = logf(p[e]); /* softmax gives p / 3 */
    const struct route *r = route_of(&s, z, 1);
    assert_ids("experts", r->expert, (int32_t[]){ 0, 3, 2 }, 3);
    assert_close("weights", r->weight, (float[]){ .3f, .8f / 3, .1f }, 3, 1e-6, 0);
}

static void one_group_is_no_constraint(void **state)
{
    (void)state;
    struct moe_spec plain = spec_of(16, 4), grouped = plain, all = plain;
    grouped.router.n_group = grouped.router.topk_group = 1;
    all.router.n_group = all.router.topk_group = 4;
    const float *z = random_floats(1, 20 * 16, 2);
    const struct route *a = route_of(&plain, z, 20), *b = route_of(&grouped, z, 20), *c = route_of(&all, z, 20);
    assert_ids("one group", b->expert, a->expert, a->n_slots);
    assert_ids("all groups kept", c->expert, a->expert, a->n_slots);
    assert_same_bits("weights", b->weight, a->weight, a->n_slots);
    assert_same_bits("weights", c->weight, a->weight, a->n_slots);
}

static void equal_scores_go_to_the_lower_id(void **state)
{
    (void)state;
    const struct moe_spec s = spec_of(5, 3);
    assert_ids("all equal", route_of(&s, (float[]){ 1, 1, 1, 1, 1 }, 1)->expert, (int32_t[]){ 0, 1, 2 }, 3);
    assert_ids("two equal", route_of(&s, (float[]){ 0, 2, 1, 2, 1 }, 1)->expert, (int32_t[]){ 1, 3, 2 }, 3);
}

static void scores_that_are_not_numbers_still_choose_k_experts(void **state)
{
    (void)state;
    const struct moe_spec s = spec_of(4, 2);
    assert_ids("all NaN", route_of(&s, (float[]){ NAN, NAN, NAN, NAN }, 1)->expert, (int32_t[]){ 0, 1 }, 2);
}

/* Card 1 conventions: softmax over all, top-k, renormalised = softmax of the chosen logits. */
static void renormalised_softmax_equals_softmax_of_the_chosen(void **state)
{
    (void)state;
    struct moe_spec s = spec_of(9, 3);
    s.router.renormalize = true;
    const float *z = random_floats(2, 30 * 9, 3);
    const struct route *r = route_of(&s, z, 30);
    for (int32_t t = 0; t < 30; t++) {
        double sum = 0;
        for (int i = 0; i < 3; i++) sum += exp((double)z[t * 9 + r->expert[3 * t + i]]);
        for (int i = 0; i < 3; i++)
            assert_near("weight", (double)r->weight[3 * t + i], exp((double)z[t * 9 + r->expert[3 * t + i]]) / sum,
                        1e-6);
    }
}

static void with_k_equal_to_e_every_expert_is_chosen_and_softmax_sums_to_one(void **state)
{
    (void)state;
    const struct moe_spec s = spec_of(7, 7);
    const struct route *r = route_of(&s, random_floats(3, 7, 2), 1);
    double sum = 0;
    int32_t seen = 0;
    for (int i = 0; i < 7; i++) sum += (double)r->weight[i], seen |= 1 << r->expert[i];
    assert_int_equal(seen, 127);
    assert_near("sum of the weights", sum, 1, 1e-6);
}

/* Routes of [T, 6] logits with expert 2 masked and of [T, 5] logits without it: the same bits. */
static void check_mask(struct moe_spec s, uint64_t seed)
{
    const int32_t n = 25;
    const float *z = random_floats(seed, n * 6, 2), *b = random_floats(seed + 1, 6, .2);
    float small[25 * 5], small_bias[5];
    for (int32_t i = 0; i < n * 6; i++)
        if (i % 6 != 2) small[i / 6 * 5 + i % 6 - (i % 6 > 2)] = z[i];
    for (int32_t e = 0; e < 6; e++)
        if (e != 2) small_bias[e - (e > 2)] = b[e];
    const uint8_t keep[] = { 1, 1, 0, 1, 1, 1 };
    const struct route_hook hook = { keep, 5 };
    const bool biased = s.router.selection_bias;
    const struct route_record *masked = route_with(&s, z, n, biased ? b : NULL, &hook);
    s.n_experts = 5;
    const struct route *removed = &route_with(&s, small, n, biased ? small_bias : NULL, NULL)->route;
    assert_int_equal(masked->route.n_slots, removed->n_slots);
    for (int32_t i = 0; i < removed->n_slots; i++)
        assert_int_equal(masked->route.expert[i], removed->expert[i] + (removed->expert[i] >= 2));
    assert_same_bits("weights", masked->route.weight, removed->weight, removed->n_slots);
    for (int32_t t = 0; t < n; t++) assert_true(masked->p[t * 6 + 2] == 0);
}

static void masking_an_expert_equals_removing_it_bit_for_bit(void **state)
{
    (void)state;
    for (int mode = 0; mode < 8; mode++) {
        struct moe_spec s = spec_of(6, 3);
        s.router.score = mode & 1 ? SCORE_SIGMOID : SCORE_SOFTMAX;
        s.router.renormalize = mode & 2;
        s.router.selection_bias = mode & 4;
        check_mask(s, 10 + (uint64_t)mode);
    }
}

static void a_mask_that_leaves_fewer_than_k_reduces_k(void **state)
{
    (void)state;
    struct moe_spec s = spec_of(4, 3);
    s.router.renormalize = true;
    const uint8_t keep[] = { 0, 1, 0, 0 };
    const struct route *r = &route_with(&s, (float[]){ 5, -3, 4, 4 }, 1, NULL, &(struct route_hook){ keep, 1 })->route;
    assert_int_equal(r->n_slots, 1);
    assert_int_equal(r->expert[0], 1);
    assert_true(r->weight[0] == 1.0f);
}

static void a_sigmoid_route_is_scaled_and_not_renormalised_unless_asked(void **state)
{
    (void)state;
    struct moe_spec s = spec_of(3, 2);
    s.router.score = SCORE_SIGMOID;
    s.router.scale = 3;
    const struct route *r = route_of(&s, (float[]){ 0, 2, -1 }, 1);
    assert_ids("experts", r->expert, (int32_t[]){ 1, 0 }, 2);
    assert_close("weights", r->weight, (float[]){ 3 * .880797f, 1.5f }, 2, 3e-6, 0);
}

/* Card 8: z = (1 2 .5 0 | 3 2.9 2.8 -1), two groups, K = 4. Plain top-4 is {4 5 6 1}; the grouped one takes {1 0} and
 * {4 5} with the softmax over all eight: .1089 .0401 .2961 .2679. */
static const float grouped_z[] = { 1, 2, .5f, 0, 3, 2.9f, 2.8f, -1 };

static void grouped_selection_takes_the_same_number_from_every_group(void **state)
{
    (void)state;
    struct moe_spec s = spec_of(8, 4);
    assert_ids("plain", route_of(&s, grouped_z, 1)->expert, (int32_t[]){ 4, 5, 6, 1 }, 4);
    s.router.selection = "grouped";
    s.router.n_group = s.router.topk_group = 2;
    const struct route *r = route_of(&s, grouped_z, 1);
    assert_ids("grouped", r->expert, (int32_t[]){ 4, 5, 1, 0 }, 4); /* by descending weight */
    assert_close("weights", r->weight, (float[]){ .2961f, .2679f, .1089f, .0401f }, 4, 1e-4, 0);
}

/* Whatever the logits: every group has K / M of each token, so their loads are equal; with k of a group all of its
 * experts, everything is chosen. */
static void groups_are_loaded_equally_and_all_of_each_is_dense(void **state)
{
    (void)state;
    enum { T = 33, E = 12 };
    struct moe_spec s = spec_of(E, 6);
    s.router.selection = "grouped";
    s.router.n_group = s.router.topk_group = 3;
    const float *z = random_floats(41, T * E, 3);
    const struct route *r = route_of(&s, z, T);
    uint64_t counts[E] = { 0 };
    for (int32_t i = 0; i < r->n_slots; i++) counts[r->expert[i]]++;
    assert_near("imbalance", load_imbalance(counts, E, 3, T), 0, 0);
    s.router.top_k = E;
    assert_int_equal(route_of(&s, z, T)->n_slots, T * E);
}

static void one_group_of_a_grouped_selection_is_top_k(void **state)
{
    (void)state;
    struct moe_spec plain = spec_of(12, 3), grouped = plain;
    grouped.router.selection = "grouped";
    const float *z = random_floats(40, 20 * 12, 2);
    const struct route *a = route_of(&plain, z, 20), *b = route_of(&grouped, z, 20);
    assert_ids("experts", b->expert, a->expert, a->n_slots);
    assert_same_bits("weights", b->weight, a->weight, a->n_slots);
}

/* Card F6, jitter .01: z = (3 2.98 2 -1): the first expert shares its softmax with the second only, .505000; the second
 * has no rival left, 1. z = (3 2 1.99 -1): 1 and .502500. */
static void sparsemixer_weighs_each_expert_among_its_near_rivals(void **state)
{
    (void)state;
    struct moe_spec s = spec_of(4, 2);
    s.router.selection = "sparsemixer";
    s.router.jitter = .01f;
    const struct route *r = route_of(&s, (float[]){ 3, 2.98f, 2, -1 }, 1);
    assert_ids("experts", r->expert, (int32_t[]){ 1, 0 }, 2); /* by descending weight */
    assert_close("weights", r->weight, (float[]){ 1, .505f }, 2, 1e-5, 0);
    r = route_of(&s, (float[]){ 3, 2, 1.99f, -1 }, 1);
    assert_ids("experts", r->expert, (int32_t[]){ 0, 1 }, 2);
    assert_close("weights", r->weight, (float[]){ 1, .5025f }, 2, 1e-5, 0);
}

/* Two near negative maxima: (-1 - -1.01) / |-1.01| = .0099 <= .02, softmax(0, -.01) = .502500 */
static void sparsemixer_measures_negative_logits_by_their_size(void **state)
{
    (void)state;
    struct moe_spec s = spec_of(3, 1);
    s.router.selection = "sparsemixer";
    s.router.jitter = .01f;
    const struct route *r = route_of(&s, (float[]){ -1.01f, -1, -2 }, 1);
    assert_int_equal(r->expert[0], 1);
    assert_near("weight", (double)r->weight[0], .5025, 1e-5);
}

/* ---- the controller of the bias ---- */

/* Counts 4 0 2 2, mean 2: the first falls, the second rises, the others stay. */
static void the_bias_moves_by_the_sign_of_the_gap(void **state)
{
    (void)state;
    float b[] = { 0, 0, .5f, -.5f };
    moe_bias_update(b, (uint64_t[]){ 4, 0, 2, 2 }, 4, .25);
    assert_close("bias", b, (float[]){ -.25f, .25f, .5f, -.5f }, 4, 0, 0);
    moe_bias_update(b, (uint64_t[]){ 3, 3, 3, 3 }, 4, .25);
    assert_close("bias at balance", b, (float[]){ -.25f, .25f, .5f, -.5f }, 4, 0, 0);
}

/* Card 12b: scores .9 .1 / .8 .2 / .7 .6 / .6 .5, K = 1: loads (4, 0); after a step of .06 tokens 2 and 3 (margin .1)
 * flip: loads (2, 2), and the bias stays. */
static void a_step_of_the_bias_flips_the_tokens_of_smallest_margin(void **state)
{
    (void)state;
    struct moe_spec s = spec_of(2, 1);
    s.router.score = SCORE_SIGMOID;
    s.router.selection_bias = true;
    const double score[] = { .9, .1, .8, .2, .7, .6, .6, .5 };
    float z[8], b[2] = { 0 };
    for (int i = 0; i < 8; i++) z[i] = (float)log(score[i] / (1 - score[i]));
    const struct route *r = &route_with(&s, z, 4, b, NULL)->route;
    assert_ids("before", r->expert, (int32_t[]){ 0, 0, 0, 0 }, 4);
    moe_bias_update(b, (uint64_t[]){ 4, 0 }, 2, .06);
    r = &route_with(&s, z, 4, b, NULL)->route;
    assert_ids("after", r->expert, (int32_t[]){ 0, 0, 1, 1 }, 4);
    moe_bias_update(b, (uint64_t[]){ 2, 2 }, 2, .06);
    assert_close("bias", b, (float[]){ -.06f, .06f }, 2, 0, 0);
}

/* Loads 6 2 0 4: mean 3, squares 9 1 9 1 → deviation sqrt(5), CV .745356; MaxVio 6/3 - 1 = 1; one dead. */
static void load_statistics_by_hand(void **state)
{
    (void)state;
    const struct load_stats s = load_statistics((uint64_t[]){ 6, 2, 0, 4 }, 4);
    assert_near("CV", s.cv, sqrt(5.0) / 3, 1e-12);
    assert_near("MaxVio", s.max_vio, 1, 0);
    assert_int_equal(s.dead, 1);
    assert_int_equal(load_statistics((uint64_t[]){ 0, 0 }, 2).dead, 2);
    assert_near("CV without load", load_statistics((uint64_t[]){ 0, 0 }, 2).cv, 0, 0);
}

/* ---- what cannot work is named ---- */

static void assert_refused(const struct moe_spec *s, const char *part)
{
    assert_int_equal(moe_spec_check(s, "here"), COE_E_INPUT);
    assert_error_has(part);
    assert_error_has("here");
}

static void specs_that_cannot_work_are_refused_by_name(void **state)
{
    (void)state;
    struct moe_spec s = spec_of(8, 9);
    assert_refused(&s, "top_k 9 of 8 experts");
    s = spec_of(8, 2), s.router.n_group = 3;
    assert_refused(&s, "8 experts in 3 groups");
    s = spec_of(8, 5), s.router.n_group = 4, s.router.topk_group = 2;
    assert_refused(&s, "top_k 5 is more than the 2 groups kept hold");
    s = spec_of(8, 2), s.chain.n_iterations = MAX_ITERATIONS + 1;
    assert_refused(&s, "a chain of 17 iterations");
    s = spec_of(8, 2), s.chain.learned_weight = true, s.chain.residual = RESIDUAL_OUTER;
    assert_refused(&s, "not outer");
    s = spec_of(8, 2), s.router.selection = "nosuch";
    assert_refused(&s, "no selection 'nosuch'");
    s = spec_of(8, 2), s.router.kind = "nosuch";
    assert_refused(&s, "no router 'nosuch'");
    s = spec_of(8, 2), s.loss[0].kind = "nosuch", s.n_losses = 1;
    assert_refused(&s, "no loss 'nosuch'");
    s = spec_of(8, 3), s.router.selection = "grouped", s.router.n_group = s.router.topk_group = 2;
    assert_refused(&s, "2 groups");
    s = spec_of(8, 2), s.n_identity = 8;
    assert_refused(&s, "8 identity experts and 0 null experts among 8");
    s = spec_of(0, 1);
    assert_refused(&s, "0 experts");
    s = spec_of(8, 2), s.expert_ffn = 0;
    assert_refused(&s, "expert width 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deepseek_v3_chooses_within_the_best_groups),
        cmocka_unit_test(the_selection_bias_chooses_but_never_weighs),
        cmocka_unit_test(experts_outside_the_kept_groups_lose_to_negative_scores),
        cmocka_unit_test(deepseek_v2_groups_are_ranked_by_their_best_expert),
        cmocka_unit_test(one_group_is_no_constraint),
        cmocka_unit_test(equal_scores_go_to_the_lower_id),
        cmocka_unit_test(scores_that_are_not_numbers_still_choose_k_experts),
        cmocka_unit_test(renormalised_softmax_equals_softmax_of_the_chosen),
        cmocka_unit_test(with_k_equal_to_e_every_expert_is_chosen_and_softmax_sums_to_one),
        cmocka_unit_test(masking_an_expert_equals_removing_it_bit_for_bit),
        cmocka_unit_test(a_mask_that_leaves_fewer_than_k_reduces_k),
        cmocka_unit_test(a_sigmoid_route_is_scaled_and_not_renormalised_unless_asked),
        cmocka_unit_test(grouped_selection_takes_the_same_number_from_every_group),
        cmocka_unit_test(groups_are_loaded_equally_and_all_of_each_is_dense),
        cmocka_unit_test(one_group_of_a_grouped_selection_is_top_k),
        cmocka_unit_test(sparsemixer_weighs_each_expert_among_its_near_rivals),
        cmocka_unit_test(sparsemixer_measures_negative_logits_by_their_size),
        cmocka_unit_test(the_bias_moves_by_the_sign_of_the_gap),
        cmocka_unit_test(a_step_of_the_bias_flips_the_tokens_of_smallest_margin),
        cmocka_unit_test(load_statistics_by_hand),
        cmocka_unit_test(specs_that_cannot_work_are_refused_by_name),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/router", tests, NULL, NULL);
}
