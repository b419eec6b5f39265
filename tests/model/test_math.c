/* BF16 arithmetic of a session: near FP32's results, the same bits for every split, batch and number of threads, and
 * nothing of it where it was not asked for. The model is the shipped one, whose weights are BF16. */
#include "support/arrays.h"

#include <math.h>
#include <string.h>

#include "model/model.h"

#define TOKENS 33

static struct coe_model *model;
static int32_t ids[2][TOKENS];

static int open_model(void **state)
{
    (void)state;
    if (model_open(&model, "models/tales")) return -1;
    struct rng r = rng_make(3, rng_stream(RNG_TEST, 5));
    for (int i = 0; i < 2 * TOKENS; i++)
        ids[i / TOKENS][i % TOKENS] = (int32_t)rng_below(&r, (uint64_t)model->spec.vocab);
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    model_close(model);
    return 0;
}

static size_t n_logits(void) { return TOKENS * (size_t)model->spec.vocab; }

/* Logits of sequence i fed `piece` tokens at a time */
static float *logits_of(int i, coe_math math, size_t piece)
{
    struct coe_session *s = NULL;
    float *y = test_alloc(n_logits() * sizeof *y);
    assert_ok(coe_session_open(&s, model, &(coe_session_opts){ .max_tokens = TOKENS, .math = math }));
    for (size_t done = 0; done < TOKENS; done += piece)
        assert_ok(coe_session_eval(s, ids[i] + done, COE_MIN(piece, TOKENS - done),
                                   y + done * (size_t)model->spec.vocab, 0));
    coe_session_close(s);
    return y;
}

static void bf16_is_near_fp32_and_not_the_same(void **state)
{
    (void)state;
    const float *exact = logits_of(0, COE_MATH_FP32, TOKENS), *y = logits_of(0, COE_MATH_BF16, TOKENS);
    double off = 0, range = 0;
    for (size_t i = 0; i < n_logits(); i++) {
        off = fmax(off, fabs((double)y[i] - (double)exact[i]));
        range = fmax(range, fabs((double)exact[i]));
    }
    /* 2^-9 of each activation, through a few layers */
    if (!(off > 0 && off < 0.05 * range)) fail_msg("logits up to %g are off by %g", range, off);
}

static void splits_change_no_bit(void **state)
{
    (void)state;
    const float *whole = logits_of(0, COE_MATH_BF16, TOKENS);
    for (size_t piece = 1; piece <= 13; piece += 6)
        assert_same_bits("in pieces", logits_of(0, COE_MATH_BF16, piece), whole, (int64_t)n_logits());
}

static void a_batch_changes_no_bit(void **state)
{
    (void)state;
    struct coe_session *s[2] = { NULL };
    float *y[2];
    for (int i = 0; i < 2; i++) {
        y[i] = test_alloc(n_logits() * sizeof *y[i]);
        assert_ok(coe_session_open(&s[i], model, &(coe_session_opts){ .max_tokens = TOKENS, .math = COE_MATH_BF16 }));
    }
    assert_ok(session_eval_batch(s, (const int32_t *[]){ ids[0], ids[1] }, (size_t[]){ TOKENS, TOKENS }, 2, y, false));
    for (int i = 0; i < 2; i++) {
        assert_same_bits("in a batch", y[i], logits_of(i, COE_MATH_BF16, TOKENS), (int64_t)n_logits());
        coe_session_close(s[i]);
    }
}

static void threads_change_no_bit(void **state)
{
    (void)state;
    const int threads = coe_threads();
    coe_set_threads(1);
    const float *one = logits_of(0, COE_MATH_BF16, TOKENS);
    coe_set_threads(3);
    assert_same_bits("with three threads", logits_of(0, COE_MATH_BF16, TOKENS), one, (int64_t)n_logits());
    coe_set_threads(threads);
}

/* Where no CPU instruction takes part, levels agree in this arithmetic, too. */
static void levels_without_the_instruction_agree(void **state)
{
    (void)state;
    const struct kernels *best = kern;
    const float *want = NULL;
    for (const struct kernels *const *k = kernels_all(); *k; k++) {
        if (strcmp((*k)->bf16_unit, "fp32")) continue;
        kern = *k;
        assert_string_equal(model_math_name(COE_MATH_BF16), "bf16 (fp32)");
        const float *y = logits_of(0, COE_MATH_BF16, TOKENS);
        if (want) assert_same_bits((*k)->name, y, want, (int64_t)n_logits());
        want = y;
    }
    kern = best;
}

static void fp32_is_what_nobody_asked_to_change(void **state)
{
    (void)state;
    struct coe_session *s = NULL;
    float *y = test_alloc(n_logits() * sizeof *y);
    (void)logits_of(0, COE_MATH_BF16, TOKENS); /* leaves nothing behind */
    assert_ok(coe_session_open(&s, model, NULL));
    assert_ok(coe_session_eval(s, ids[0], TOKENS, y, 0));
    coe_session_close(s);
    assert_same_bits("the default", y, logits_of(0, COE_MATH_FP32, 5), (int64_t)n_logits());
    assert_string_equal(model_math_name(COE_MATH_FP32), "fp32");
}

static void refuses_what_it_does_not_know_and_mixtures(void **state)
{
    (void)state;
    struct coe_session *s[2] = { NULL };
    assert_int_equal(coe_session_open(&s[0], model, &(coe_session_opts){ .math = (coe_math)2 }), COE_E_USAGE);
    assert_error_has("arithmetic 2");
    for (int i = 0; i < 2; i++)
        assert_ok(coe_session_open(&s[i], model, &(coe_session_opts){ .max_tokens = 16, .math = (coe_math)i }));
    assert_int_equal(session_eval_batch(s, (const int32_t *[]){ ids[0], ids[1] }, (size_t[]){ 2, 2 }, 2, NULL, true),
                     COE_E_USAGE);
    assert_error_has("a batch of sessions with fp32 and bf16");
    for (int i = 0; i < 2; i++) coe_session_close(s[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bf16_is_near_fp32_and_not_the_same),
        cmocka_unit_test(splits_change_no_bit),
        cmocka_unit_test(a_batch_changes_no_bit),
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(levels_without_the_instruction_agree),
        cmocka_unit_test(fp32_is_what_nobody_asked_to_change),
        cmocka_unit_test(refuses_what_it_does_not_know_and_mixtures),
    };
    return cmocka_run_group_tests_name("model/math", tests, open_model, close_model);
}
