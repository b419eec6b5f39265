/* Generation: step by step and in one call, going on afterwards, ends, full caches, options without meaning. */
#include <stdlib.h>
#include <string.h>

#include "model/model.h"
#include "support/tiny_model.h"

static struct coe_model *model;

static int open_model(void **state)
{
    (void)state;
    return model_open(&model, tiny_model("model", &(struct tiny){ .positions = 64 })) != COE_OK;
}

static int close_model(void **state)
{
    (void)state;
    model_close(model);
    return 0;
}

static const int32_t prompt[] = { 260, 12, 301, 77 };
#define N_PROMPT COE_COUNT(prompt)

static int collect(void *user, const char *bytes, size_t n)
{
    str_add(user, bytes, n);
    return 0;
}

static int stop_at_once(void *user, const char *bytes, size_t n)
{
    (void)bytes, (void)n;
    ++*(int *)user;
    return 1;
}

/* What coe_generate makes is what the steps make: same tokens, same text. */
static void one_call_and_single_steps_agree(void **state)
{
    (void)state;
    const coe_sampling how = { .temperature = 1, .top_p = 0.9f, .seed = 11 };
    coe_session *a = NULL, *b = NULL;
    struct str text = { 0 }, stepped = { 0 };
    struct generator g;
    int32_t made = 0, id = 0, n = 0;
    assert_ok(coe_session_open(&a, model, NULL));
    assert_ok(coe_session_open(&b, model, NULL));
    assert_ok(coe_generate(a, prompt, N_PROMPT, 12, &how, collect, &text, &made));
    assert_ok(generator_open(&g, b, &how));
    assert_ok(generator_feed(&g, prompt, N_PROMPT));
    while (n < 12 && !generator_next(&g, &id) && id >= 0) {
        str_add(&stepped, g.text.at, g.text.n);
        n++;
    }
    assert_ok(generator_flush(&g));
    str_add(&stepped, g.text.at, g.text.n);
    assert_int_equal(made, n);
    assert_int_equal(text.n, stepped.n);
    assert_memory_equal(text.at, stepped.at, text.n);
    assert_int_equal(coe_session_position(a), (int64_t)N_PROMPT + made);
    generator_close(&g);
    coe_session_close(a);
    coe_session_close(b);
    str_free(&text);
    str_free(&stepped);
}

/* Feeding everything made and going on gives the logits of a session that was fed all of it at once. */
static void a_session_goes_on_where_generation_ended(void **state)
{
    (void)state;
    coe_session *a = NULL, *b = NULL;
    struct generator g;
    int32_t id = 0;
    float *x = malloc((size_t)coe_vocab_size(model) * sizeof *x);
    assert_ok(coe_session_open(&a, model, NULL));
    assert_ok(coe_session_open(&b, model, NULL));
    assert_ok(generator_open(&g, a, NULL));
    assert_ok(generator_feed(&g, prompt, N_PROMPT));
    for (int i = 0; i < 5; i++) assert_ok(generator_next(&g, &id));
    assert_ok(generator_feed(&g, prompt, 2));
    assert_int_equal(g.history.n, N_PROMPT + 5 + 2);
    assert_ok(coe_session_eval(b, g.history.at, g.history.n, x, 1));
    assert_memory_equal(x, g.logits, (size_t)coe_vocab_size(model) * sizeof *x);
    free(x);
    generator_close(&g);
    coe_session_close(a);
    coe_session_close(b);
}

static void a_callback_can_stop_it(void **state)
{
    (void)state;
    coe_session *s = NULL;
    int calls = 0;
    int32_t made = 0;
    assert_ok(coe_session_open(&s, model, NULL));
    assert_ok(coe_generate(s, prompt, N_PROMPT, 30, &(coe_sampling){ .temperature = 1 }, stop_at_once, &calls, &made));
    assert_true(calls >= 1 && calls <= 2); /* what was left of a character comes once more */
    assert_true(made < 30);
    coe_session_close(s);
}

/* 16 places, 4 of the prompt: 12 tokens fit, and one more can be drawn but not fed */
static void a_full_cache_ends_it_and_keeps_what_was_made(void **state)
{
    (void)state;
    coe_session *s = NULL;
    int32_t made = 0;
    assert_ok(coe_session_open(&s, model, &(coe_session_opts){ .max_tokens = 16 }));
    assert_ok(
        coe_generate(s, prompt, N_PROMPT, 100, &(coe_sampling){ .temperature = 1, .seed = 3 }, NULL, NULL, &made));
    assert_int_equal(made, 13);
    assert_int_equal(coe_session_position(s), 16);
    assert_int_equal(coe_session_eval(s, prompt, 1, NULL, 1), COE_E_USAGE);
    assert_error_has("full");
    coe_session_close(s);
}

static void no_allocation_between_two_tokens(void **state)
{
    (void)state;
    coe_session *s = NULL;
    struct generator g;
    int32_t id = 0;
    assert_ok(coe_session_open(&s, model, NULL));
    assert_ok(generator_open(&g, s, &(coe_sampling){ .temperature = 1, .top_k = 40 }));
    assert_ok(generator_feed(&g, prompt, N_PROMPT));
    for (int i = 0; i < 8; i++) assert_ok(generator_next(&g, &id)); /* the text buffer reaches its size */
    mem_guard(true);
    for (int i = 0; i < 16; i++) assert_ok(generator_next(&g, &id));
    mem_guard(false);
    assert_int_equal(mem_guard_hits(), 0);
    generator_close(&g);
    coe_session_close(s);
}

/* Across the border of a part of keys (1024), where attention changes from one task a head to several. */
static void no_allocation_when_the_context_grows(void **state)
{
    (void)state;
    int32_t ids[1036];
    for (size_t i = 0; i < COE_COUNT(ids); i++) ids[i] = prompt[i % N_PROMPT];
    for (int threads = 1; threads <= 8; threads += 7)
        for (coe_kv kv = COE_KV_F32; kv <= COE_KV_Q8_0; kv++) {
            coe_session *s = NULL;
            coe_set_threads(threads);
            assert_ok(coe_session_open(&s, model, &(coe_session_opts){ .max_tokens = 1040, .kv = kv }));
            assert_ok(coe_session_eval(s, ids, 1019, NULL, 1));
            assert_ok(coe_session_eval(s, ids + 1019, 1, NULL, 1));
            mem_guard(true);
            for (int i = 1020; i < 1036; i++) assert_ok(coe_session_eval(s, ids + i, 1, NULL, 1));
            mem_guard(false);
            assert_int_equal(mem_guard_hits(), 0);
            coe_session_close(s);
        }
    coe_set_threads(2);
}

static void sampling_options_without_meaning_are_refused(void **state)
{
    (void)state;
    static const coe_sampling wrong[] = { { .temperature = -1 }, { .top_p = 2 }, { .min_p = -0.5f }, { .top_k = -1 },
                                          { .repetition_penalty = -1 } };
    coe_session *s = NULL;
    assert_ok(coe_session_open(&s, model, NULL));
    for (size_t i = 0; i < COE_COUNT(wrong); i++)
        assert_int_equal(coe_generate(s, prompt, N_PROMPT, 1, &wrong[i], NULL, NULL, NULL), COE_E_USAGE);
    assert_int_equal(coe_generate(s, prompt, 0, 1, NULL, NULL, NULL, NULL), COE_E_USAGE);
    coe_session_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_call_and_single_steps_agree),
        cmocka_unit_test(a_session_goes_on_where_generation_ended),
        cmocka_unit_test(a_callback_can_stop_it),
        cmocka_unit_test(a_full_cache_ends_it_and_keeps_what_was_made),
        cmocka_unit_test(no_allocation_between_two_tokens),
        cmocka_unit_test(no_allocation_when_the_context_grows),
        cmocka_unit_test(sampling_options_without_meaning_are_refused),
    };
    return cmocka_run_group_tests_name("model/generate", tests, open_model, close_model);
}
