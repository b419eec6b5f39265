/* Dynamic Expert Sharing: the experts that a block agrees on. */
#include "support/routes.h"

/* Card 10 */
static const float I[3][4] = { { .5f, .3f, .2f, 0 }, { .1f, .45f, .4f, .05f }, { .05f, .35f, .2f, .4f } };

static const struct route *shared(const char *selection, double core, bool renormalize)
{
    struct moe_spec s = routes_spec(4, 2, selection);
    s.router.renormalize = renormalize;
    s.router.param[0] = core;
    return &routes_of(&s, NULL, routes_logits(I[0], 12), 3, NULL)->route;
}

/* Votes .5, .3+.45+.35 = 1.1, .4, .4: a core of two is {1, 0}; token 2 then weighs .35 and .05 as .875 and .125. */
static void the_core_has_the_most_votes_and_weights_are_renormalised_over_it(void **state)
{
    (void)state;
    const struct route *r = shared("des_vote", 2, true);
    assert_token(r, 0, (int32_t[]){ 0, 1 }, NULL, 2);
    assert_token(r, 1, (int32_t[]){ 1, 0 }, NULL, 2);
    assert_token(r, 2, (int32_t[]){ 1, 0 }, (float[]){ .875f, .125f }, 2);
}

/* The best of each token: 0, 1, 3. */
static void des_seq_shares_the_union_of_the_best(void **state)
{
    (void)state;
    const struct route *r = shared("des_seq", 1, false);
    assert_token(r, 0, (int32_t[]){ 0, 1 }, NULL, 2);
    assert_token(r, 1, (int32_t[]){ 1, 0 }, NULL, 2);
    assert_token(r, 2, (int32_t[]){ 3, 1 }, NULL, 2);
}

static void a_core_of_everything_is_plain_top_k(void **state)
{
    (void)state;
    struct moe_spec s = routes_spec(4, 2, "top_k");
    const struct route *plain = &routes_of(&s, NULL, routes_logits(I[0], 12), 3, NULL)->route;
    const struct route *vote = shared("des_vote", 4, false), *seq = shared("des_seq", 2, false);
    assert_ids("vote", vote->expert, plain->expert, 6);
    assert_ids("seq", seq->expert, plain->expert, 6);
}

/* Blocks of one: every token keeps its own best two, the core being large enough. */
static void a_block_of_one_token_is_plain_top_k(void **state)
{
    (void)state;
    struct moe_spec s = routes_spec(4, 2, "des_vote"), top = routes_spec(4, 2, "top_k");
    s.router.param[0] = 2, s.router.param[1] = 1;
    const float *z = routes_logits(I[0], 12);
    const struct route *blocks = &routes_of(&s, NULL, z, 3, NULL)->route;
    assert_ids("experts", blocks->expert, routes_of(&top, NULL, z, 3, NULL)->route.expert, 6);
}

/* Random blocks of 4 of 10 tokens over 7 experts: a core of M has at most M experts, whatever was asked for. */
static void a_block_never_uses_more_than_its_core(void **state)
{
    (void)state;
    enum { T = 10, E = 7, BLOCK = 4 };
    for (int core = 1; core <= E; core++) {
        struct moe_spec s = routes_spec(E, 3, "des_vote");
        s.router.param[0] = core, s.router.param[1] = BLOCK;
        const struct route *r = &routes_of(&s, NULL, random_floats((uint64_t)core, T * E, 2), T, NULL)->route;
        for (int32_t from = 0; from < T; from += BLOCK) {
            bool used[E] = { false };
            int n = 0;
            for (int32_t i = r->tok_off[from]; i < r->tok_off[COE_MIN(from + BLOCK, T)]; i++)
                n += !used[r->expert[i]], used[r->expert[i]] = true;
            assert_in_range(n, 1, core);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_core_has_the_most_votes_and_weights_are_renormalised_over_it),
        cmocka_unit_test(des_seq_shares_the_union_of_the_best),
        cmocka_unit_test(a_core_of_everything_is_plain_top_k),
        cmocka_unit_test(a_block_of_one_token_is_plain_top_k),
        cmocka_unit_test(a_block_never_uses_more_than_its_core),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/selection/coreset", tests, NULL, NULL);
}
