/* Experts of low rank: beside a shared expert (DynMoLE), one rank at a time (SMoRA). */
#include "support/kinds.h"

enum { D = 6, T = 7 };

/* x = (1, 2), A = (3, 4): 11; B = (1, -1); alpha / rank = 2: (22, -22) */
static void two_thin_products_and_a_scale(void **state)
{
    (void)state;
    const struct expert_range one = { .kind = "lora", .n = 1, .param = { 1, 2 } };
    const struct moe_spec s = kinds_spec(&one, 1, 1);
    struct block b = block_make(&s, 2, 0);
    block_set(&b, "experts.0.lora_A.weight", (float[]){ 3, 4 }, 2);
    block_set(&b, "experts.0.lora_B.weight", (float[]){ 1, -1 }, 2);
    assert_close("output", kinds_output(&b, (float[]){ 1, 2 }, 1), (float[]){ 22, -22 }, 2, 1e-5, 0);
}

/* Card 23: B = 0, as at the start, adds nothing. */
static void at_the_start_only_the_shared_expert_speaks(void **state)
{
    (void)state;
    struct moe_spec s = kinds_spec((struct expert_range[]){ { .kind = "lora", .n = 4, .param = { 2, 16 } } }, 1, 2);
    s.shared_ffn = 5;
    struct block b = block_make(&s, D, 0);
    const float *x = random_floats(1, T * D, 1);
    block_random(&b, 2, 1);
    for (int e = 0; e < 4; e++) {
        struct weight *up = block_weight(&b, "experts.%d.lora_B.weight", e);
        memset(up->master, 0, (size_t)weight_count(up) * sizeof(float));
    }
    float *with = kinds_output(&b, x, T);
    b.spec.router.scale = 0;
    assert_same_bits("output", with, kinds_output(&b, x, T), T * D);
}

static struct block ranks(int32_t n, int32_t k, double alpha)
{
    struct moe_spec s = kinds_spec((struct expert_range[]){ { .kind = "rank1", .n = n, .param = { alpha } } }, 1, k);
    s.router.score = SCORE_SIGMOID;
    s.router.renormalize = true;
    s.router.scale = (float)k;
    return block_make(&s, D, 0);
}

/* Card 23: all ranks chosen with equal scores (a router of zeros) are one adapter with scaling alpha / r. */
static void all_ranks_with_equal_scores_are_an_ordinary_adapter(void **state)
{
    (void)state;
    enum { R = 8 };
    const struct expert_range one = { .kind = "lora", .n = 1, .param = { R, 16 } };
    const struct moe_spec s = kinds_spec(&one, 1, 1);
    struct block whole = block_make(&s, D, 0), b = ranks(R, R, 16);
    const float *x = random_floats(1, T * D, 1);
    block_random(&whole, 2, 1);
    memcpy(block_weight(&b, "range.0.lora_A.weight")->master, block_weight(&whole, "experts.0.lora_A.weight")->master,
           R * D * sizeof(float));
    float *up = block_weight(&b, "range.0.lora_B.weight")->master;
    const float *columns = block_weight(&whole, "experts.0.lora_B.weight")->master;
    for (int i = 0; i < R; i++)
        for (int j = 0; j < D; j++) up[i * D + j] = columns[j * R + i];
    assert_close("output", kinds_output(&b, x, T), kinds_output(&whole, x, T), T * D, 1e-5, 1e-5);
}

/* Card 23: a router that ties consecutive ranks chooses blocks, which are adapters of their own. Six ranks, blocks of
 * two, one block of three chosen: weights of its ranks are equal, 2 · 1/2 = 1 each. */
static void blocks_of_ranks_are_experts_of_that_rank(void **state)
{
    (void)state;
    struct moe_spec s = kinds_spec((struct expert_range[]){ { .kind = "lora", .n = 3, .param = { 2, 4 } } }, 1, 1);
    s.router.score = SCORE_SIGMOID;
    s.router.renormalize = true;
    struct block blocks = block_make(&s, D, 0), b = ranks(6, 2, 4);
    const float *x = random_floats(1, T * D, 1);
    block_random(&blocks, 3, 1);
    float *router = block_weight(&b, "router.0")->master, *down = block_weight(&b, "range.0.lora_A.weight")->master;
    float *up = block_weight(&b, "range.0.lora_B.weight")->master;
    for (int i = 0; i < 6; i++)
        for (int j = 0; j < D; j++) {
            router[i * D + j] = block_weight(&blocks, "router.0")->master[i / 2 * D + j];
            down[i * D + j] = block_weight(&blocks, "experts.%d.lora_A.weight", i / 2)->master[i % 2 * D + j];
            up[i * D + j] = block_weight(&blocks, "experts.%d.lora_B.weight", i / 2)->master[j * 2 + i % 2];
        }
    assert_close("output", kinds_output(&b, x, T), kinds_output(&blocks, x, T), T * D, 1e-5, 1e-5);
}

/* A sigmoid of 1/2 with biases 1/2 and 0: scores 1 and 1/2, weights 2/3 and 1/3 of them (SMoRA's released code). */
static void the_bias_weighs_where_the_spec_says_so(void **state)
{
    (void)state;
    struct moe_spec s = kinds_spec((struct expert_range[]){ { .kind = "copy", .n = 2 } }, 1, 2);
    s.router.score = SCORE_SIGMOID;
    s.router.renormalize = s.router.selection_bias = s.router.bias_in_weights = true;
    struct route_record *r = test_alloc(sizeof *r);
    struct nn c = { .arena = test_arena() };
    const struct weight *bias = test_weight("bias", (float[]){ 0.5f, 0 }, 1, 2);
    assert_ok(moe_route(&c, r, &s, nn_wrap(&c, (float[]){ 0, 0 }, 1, 2), bias, NULL));
    assert_token(&r->route, 0, (int32_t[]){ 0, 1 }, (float[]){ 2.0f / 3, 1.0f / 3 }, 2);
    s.router.selection_bias = false;
    assert_int_equal(moe_spec_check(&s, "here"), COE_E_INPUT);
    assert_error_has("bias_in_weights without a selection_bias");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_thin_products_and_a_scale),
        cmocka_unit_test(at_the_start_only_the_shared_expert_speaks),
        cmocka_unit_test(all_ranks_with_equal_scores_are_an_ordinary_adapter),
        cmocka_unit_test(blocks_of_ranks_are_experts_of_that_rank),
        cmocka_unit_test(the_bias_weighs_where_the_spec_says_so),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/experts/lora", tests, NULL, NULL);
}
