/* Sessions across LongRoPE's original length (Phi-3.5-MoE's fixture, with that length made 16): a token's logits depend
 * on the tokens before it only, with the short factors within the length and the long ones for everything beyond. */
#include "support/arrays.h"

#include <string.h>

#include "model/model.h"

#define TOKENS 37
#define ORIGINAL 16

static struct coe_model *model;
static struct coe_session *sessions[2];
static int32_t ids[TOKENS];
static int64_t vocab;

static int close_all(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        if (sessions[i]) coe_session_close(sessions[i]);
        sessions[i] = NULL;
    }
    if (model) model_close(model);
    model = NULL;
    return 0;
}

/* In the test itself: cmocka counts a setup that skips as one that failed. */
static void open_fixture(void)
{
    need_fixture("families/phimoe");
    assert_ok(model_open(&model, fixture("families/phimoe")));
    vocab = model->spec.vocab;
    for (int i = 0; i < TOKENS; i++) ids[i] = (int32_t)((i * 37 + 11) % vocab);
}

static void change_at(int64_t original)
{
    for (int32_t l = 0; l < model->spec.n_layers; l++) model->spec.layer[l].attn.rope.original_positions = original;
}

static struct coe_session *open_session(int i)
{
    if (sessions[i]) coe_session_close(sessions[i]);
    sessions[i] = NULL;
    assert_ok(coe_session_open(&sessions[i], model, &(coe_session_opts){ .max_tokens = 48 }));
    return sessions[i];
}

static const float *in_pieces(const size_t *piece, size_t n_pieces)
{
    struct coe_session *s = open_session(0);
    float *y = test_alloc((size_t)(TOKENS * vocab) * sizeof *y);
    for (size_t done = 0, i = 0; done < TOKENS; i++) {
        const size_t take = COE_MIN(TOKENS - done, piece[i % n_pieces]);
        assert_ok(coe_session_eval(s, ids + done, take, y + done * (size_t)vocab, 0));
        done += take;
    }
    return y;
}

static const float *in_one_piece(void) { return in_pieces((size_t[]){ TOKENS }, 1); }

/* Without a session: the factors of the whole sequence's length */
static const float *forward(void)
{
    const int32_t off[] = { 0, TOKENS };
    const int64_t pos0[] = { 0 };
    const struct attn_batch batch = { 1, off, pos0, NULL };
    struct forward f = { .batch = &batch };
    struct nn c = { .arena = test_arena() };
    const struct val *y = model_forward(model, &c, ids, TOKENS, &f);
    if (!y) fail_msg("%s", coe_error());
    return y->data;
}

static void tokens_within_the_length_see_short_factors_those_beyond_long_ones(void **state)
{
    (void)state;
    open_fixture();
    change_at(4096);
    const float *near = forward();
    change_at(ORIGINAL);
    const float *far = forward(), *y = in_one_piece();
    assert_same_bits("within", y, near, ORIGINAL * vocab);
    assert_same_bits("beyond", y + ORIGINAL * vocab, far + ORIGINAL * vocab, (TOKENS - ORIGINAL) * vocab);
    assert_true(memcmp(near, far, (size_t)(TOKENS * vocab) * sizeof *near) != 0);
}

static void any_split_across_the_length_agrees(void **state)
{
    (void)state;
    open_fixture();
    change_at(ORIGINAL);
    const float *want = in_one_piece();
    assert_same_bits("token by token", in_pieces((size_t[]){ 1 }, 1), want, TOKENS * vocab);
    assert_same_bits("in odd pieces", in_pieces((size_t[]){ 5, 1, 13, 2 }, 4), want, TOKENS * vocab);
    assert_same_bits("split at the length", in_pieces((size_t[]){ ORIGINAL, 40 }, 2), want, TOKENS * vocab);
    float *last = test_alloc((size_t)vocab * sizeof *last);
    assert_ok(coe_session_eval(open_session(0), ids, TOKENS, last, 1));
    assert_same_bits("the last row", last, want + (TOKENS - 1) * vocab, vocab);
}

static void going_back_over_the_length_leaves_no_trace(void **state)
{
    (void)state;
    open_fixture();
    change_at(ORIGINAL);
    const float *want = in_one_piece();
    for (int64_t keep = ORIGINAL - 3; keep <= ORIGINAL + 3; keep++) {
        struct coe_session *s = open_session(0);
        float *y = test_alloc((size_t)(TOKENS * vocab) * sizeof *y);
        assert_ok(coe_session_eval(s, ids, (size_t)keep, NULL, 1));
        assert_ok(coe_session_eval(s, ids, 12, NULL, 1)); /* other tokens, in their place */
        assert_ok(coe_session_rewind(s, keep));
        assert_int_equal(coe_session_position(s), keep);
        assert_ok(coe_session_eval(s, ids + keep, (size_t)(TOKENS - keep), y, 0));
        assert_same_bits("after going back", y, want + keep * vocab, (TOKENS - keep) * vocab);
    }
}

static void a_batch_may_hold_sequences_on_both_sides(void **state)
{
    (void)state;
    open_fixture();
    change_at(ORIGINAL);
    const float *want = in_one_piece();
    struct coe_session *s[] = { open_session(0), open_session(1) };
    float *y[2];
    for (int i = 0; i < 2; i++) y[i] = test_alloc((size_t)(TOKENS * vocab) * sizeof(float));
    const int32_t *first[] = { ids, ids }, *then[] = { ids + 20, ids + 4 }, *last[] = { ids + 23, ids + 12 };
    const size_t n_first[] = { 20, 4 }, n_then[] = { 3, 8 }, n_last[] = { 2, 9 };
    assert_ok(session_eval_batch(s, first, n_first, 2, y, false));
    assert_same_bits("one goes beyond", y[0], want, 20 * vocab);
    assert_same_bits("beside it", y[1], want, 4 * vocab);
    assert_ok(session_eval_batch(s, then, n_then, 2, y, false));
    assert_same_bits("beyond", y[0], want + 20 * vocab, 3 * vocab);
    assert_same_bits("within", y[1], want + 4 * vocab, 8 * vocab);
    assert_ok(session_eval_batch(s, last, n_last, 2, y, false));
    assert_same_bits("still beyond", y[0], want + 23 * vocab, 2 * vocab);
    assert_same_bits("the other goes beyond", y[1], want + 12 * vocab, 9 * vocab);
}

/* A rope that ends somewhere (the dynamic scaling) ends the sequence there, before anything is fed. */
static void positions_that_a_rope_is_not_defined_for_are_refused(void **state)
{
    (void)state;
    open_fixture();
    for (int32_t l = 0; l < model->spec.n_layers; l++) model->spec.layer[l].attn.rope.limit = 20;
    struct coe_session *s = open_session(0);
    assert_int_equal(coe_session_eval(s, ids, 21, NULL, 1), COE_E_USAGE);
    assert_non_null(strstr(coe_error(), "a sequence of 21 tokens: rope scaling 'dynamic'"));
    assert_int_equal(coe_session_position(s), 0);
    assert_ok(coe_session_eval(s, ids, 20, NULL, 1));
    assert_int_equal(coe_session_eval(s, ids, 1, NULL, 1), COE_E_USAGE);
}

#define WITH_FIXTURE(test) cmocka_unit_test_teardown(test, close_all)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FIXTURE(tokens_within_the_length_see_short_factors_those_beyond_long_ones),
        WITH_FIXTURE(any_split_across_the_length_agrees),
        WITH_FIXTURE(going_back_over_the_length_leaves_no_trace),
        WITH_FIXTURE(a_batch_may_hold_sequences_on_both_sides),
        WITH_FIXTURE(positions_that_a_rope_is_not_defined_for_are_refused),
    };
    coe_set_threads(1);
    return kernels_init() || cmocka_run_group_tests_name("model/longrope", tests, NULL, NULL);
}
