/* One decision for a segment (card 17): segments of one token are the plain router, equal segments go the same way,
 * each sequence is cut by itself, and the causal reading sees nothing behind a segment. */
#include "support/routers.h"

#include "moe/segments.h"
#include "support/kinds.h"

enum { E = 4, D = 6, T = 7 };

/* width 0: the plain router */
static struct block block_of(int32_t width, int reads)
{
    struct moe_spec s = routes_spec(E, 1, "top_k");
    assert_true(moe_use_router(&s.router, width ? "segment" : "linear"));
    if (width) s.router.kind_param[0] = width, s.router.kind_param[2] = reads;
    s.expert_ffn = 5;
    struct block b = block_make(&s, D, BLOCK_GATED);
    block_random(&b, 3, 1);
    return b;
}

/* Seven tokens in two sequences of 5 and 2, cut in threes: 0 1 2 | 3 4 . | 5 6 . */
static void each_sequence_is_cut_from_its_beginning(void **state)
{
    (void)state;
    static const int32_t off[] = { 0, 5, 7 };
    static const int64_t pos0[] = { 0, 1 };
    int32_t place[T], before[T];
    const struct attn_batch batch = { 2, off, NULL, NULL }, later = { 2, off, pos0, NULL };
    assert_int_equal(segments_of(&batch, T, 3, place), 3);
    assert_ids("place", place, (int32_t[]){ 0, 1, 2, 3, 4, 6, 7 }, T);
    segments_before(&batch, T, 3, place, before);
    assert_ids("before", before, (int32_t[]){ 3, 4, 5, -1, -1, -1, -1 }, T);
    assert_int_equal(segments_of(&later, T, 3, place), 3); /* from position 1 on */
    assert_ids("place", place, (int32_t[]){ 0, 1, 2, 3, 4, 7, 8 }, T);
    assert_int_equal(segments_of(NULL, T, 3, place), 3);
    assert_ids("place", place, (int32_t[]){ 0, 1, 2, 3, 4, 5, 6 }, T);
}

static void segments_of_one_token_are_the_plain_router(void **state)
{
    (void)state;
    struct block plain = block_of(0, 0), b = block_of(1, 0);
    const float *x = random_floats(1, T * D, 1), *r = random_floats(2, T * D, 1);
    for (size_t i = 0; i < b.n; i++)
        memcpy(b.list[i]->master, plain.list[i]->master, (size_t)weight_count(b.list[i]) * sizeof(float));
    assert_same_bits("output", kinds_output(&b, x, T), kinds_output(&plain, x, T), T * D);
    const float *dx = kinds_gradient(&b, x, r, T), *want = kinds_gradient(&plain, x, r, T);
    assert_close("dx", dx, want, T * D, 1e-6, 1e-5);
    assert_close("dW", block_weight(&b, "router.weight.0")->grad, block_weight(&plain, "router.0")->grad, E * D, 1e-6,
                 1e-5);
}

static const struct val *scores(struct block *b, const float *x, int64_t n)
{
    struct moe_pass *p = router_pass(false);
    return block_logits(b, p, 0, router_input(p, x, n, D));
}

static void tokens_of_a_segment_share_a_decision_and_equal_segments_go_the_same_way(void **state)
{
    (void)state;
    struct block b = block_of(3, 0);
    float x[6 * D];
    memcpy(x, random_floats(4, 3 * D, 1), 3 * D * sizeof *x);
    memcpy(x + 3 * D, x, 3 * D * sizeof *x);
    const struct val *z = scores(&b, x, 6);
    for (int t = 1; t < 6; t++) assert_same_bits("logits", z->data + t * E, z->data, E);
    x[2 * D] += 1; /* the last token of the first segment moves all of its decision, not the second's */
    const struct val *moved = scores(&b, x, 6);
    assert_true(memcmp(moved->data, z->data, E * sizeof(float)) != 0);
    assert_same_bits("second segment", moved->data + 3 * E, z->data + 3 * E, 3 * E);
}

/* reads: previous. The first segment has no preference, later ones that of the one before, and nothing of their own. */
static void the_causal_reading_shows_the_segment_before(void **state)
{
    (void)state;
    struct block own = block_of(3, 0), causal = block_of(3, 1);
    const float *x = random_floats(5, T * D, 1);
    float other[T * D];
    const struct val *a = scores(&own, x, T), *z = scores(&causal, x, T);
    for (int i = 0; i < 3 * E; i++) assert_true(z->data[i] == 0);
    for (int t = 3; t < T; t++) assert_same_bits("logits", z->data + t * E, a->data + (t / 3 - 1) * 3 * E, E);
    memcpy(other, x, sizeof other);
    for (int i = 3 * D; i < T * D; i++) other[i] = 0; /* from the second segment on */
    const struct val *same = scores(&causal, other, T);
    assert_same_bits("first two segments", same->data, z->data, 6 * E);
}

static void token_by_token_it_is_refused(void **state)
{
    (void)state;
    const struct block b = block_of(3, 0);
    assert_string_equal(moe_needs_whole_sequence(&b.spec), "segment");
    struct moe_spec s = routes_spec(E, 1, "top_k");
    s.shared_ffn = 3, s.shared_segment = 2;
    assert_string_equal(moe_needs_whole_sequence(&s), "a shared expert over segments");
    s.shared_segment = 1;
    assert_null(moe_needs_whole_sequence(&s));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_sequence_is_cut_from_its_beginning),
        cmocka_unit_test(segments_of_one_token_are_the_plain_router),
        cmocka_unit_test(tokens_of_a_segment_share_a_decision_and_equal_segments_go_the_same_way),
        cmocka_unit_test(the_causal_reading_shows_the_segment_before),
        cmocka_unit_test(token_by_token_it_is_refused),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/routers/segment", tests, NULL, NULL);
}
