/* Training tokenizers: the merges of a text one can count, determinism, unigram, what is refused. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "support/support.h"
#include "text/text.h"

static coe_status next_once(void *user, const char **text, size_t *n, bool *more)
{
    const char **left = user;
    *more = *left != NULL;
    *text = *left ? *left : "";
    *n = strlen(*text);
    *left = NULL;
    return COE_OK;
}

static json_t *train(const char *text, int32_t vocab,
                     coe_status (*fn)(const char *, text_next_fn *, void *, const struct bpe_train_opts *))
{
    const char *path = temp_path("trained.json"), *left = text;
    struct bpe_train_opts opts = { .vocab_size = vocab };
    json_t *doc;
    log_set_level(0);
    assert_ok(fn(path, next_once, &left, &opts));
    assert_ok(json_read_file(&doc, path));
    return doc;
}

static void expect_merge(const json_t *doc, size_t i, const char *left, const char *right)
{
    const json_t *m = json_array_get(json_object_get(json_object_get(doc, "model"), "merges"), i);
    assert_string_equal(json_string_value(json_array_get(m, 0)), left);
    assert_string_equal(json_string_value(json_array_get(m, 1)), right);
}

/* Words: "low" 1, " low" 4, " lower" 2, "\n" 1. Pairs: l-o 7, o-w 7, space-l 6, w-e 2, e-r 2. Of l-o and o-w the first
 * byte of l-o is the lower: lo. Then lo-w 7, then space-low 6, then low-e and e-r (2 each): e-r has the lower left id.
 */
static void the_most_frequent_pair_merges_first(void **state)
{
    (void)state;
    json_t *doc = train("low low low low low lower lower\n", 257 + 5, bpe_train);
    expect_merge(doc, 0, "l", "o");
    expect_merge(doc, 1, "lo", "w");
    expect_merge(doc, 2, "\xC4\xA0", "low");
    expect_merge(doc, 3, "e", "r");
    expect_merge(doc, 4, "\xC4\xA0low", "er");
    const json_t *vocab = json_object_get(json_object_get(doc, "model"), "vocab");
    assert_int_equal(json_object_size(vocab), 257 + 5);
    assert_int_equal(json_integer_value(json_object_get(vocab, "<|endoftext|>")), 0);
    assert_int_equal(json_integer_value(json_object_get(vocab, "l")), 1 + 'l');
    json_decref(doc);
}

static void special_tokens_in_the_text_are_no_words(void **state)
{
    (void)state;
    json_t *doc = train("ab ab<|endoftext|>ab ab", 257 + 2, bpe_train);
    expect_merge(doc, 0, "a", "b");
    expect_merge(doc, 1, "\xC4\xA0", "ab");
    json_decref(doc);
}

static void unigram_learns_the_words_and_loses_no_byte(void **state)
{
    (void)state;
    struct str text = { 0 };
    static const char *const words[] = { " the", " cat", " sat", " on", " mat", " hat", " that", " rat" };
    for (size_t i = 0; i < 4000; i++) str_addz(&text, words[i * i % 7 + i % 2]);
    json_t *doc = train(text.at, 500, unigram_train);
    struct tokenizer *t;
    struct ids ids = { 0 };
    struct str back = { 0 };
    assert_ok(tokenizer_open(&t, temp_path("trained.json")));
    assert_ok(tokenizer_encode(t, &ids, " the cat", 8, false));
    assert_int_equal(ids.n, 2);
    ids.n = 0;
    static const char odd[] = "\xE6\x97\xA5 the <0x41> \xFF\x01";
    assert_ok(tokenizer_encode(t, &ids, odd, sizeof odd - 3, false));
    assert_ok(tokenizer_decode(t, &back, ids.at, ids.n, false));
    assert_int_equal(back.n, sizeof odd - 3);
    assert_memory_equal(back.at, odd, back.n);
    tokenizer_close(t);
    json_decref(doc);
    VEC_FREE(&ids);
    str_free(&text);
    str_free(&back);
}

static void the_same_text_gives_the_same_file(void **state)
{
    (void)state;
    static const char text[] = "one two three two one three two three one, and so on and on";
    json_t *a = train(text, 300, bpe_train), *b = train(text, 300, bpe_train), *c = train(text, 400, unigram_train),
           *d = train(text, 400, unigram_train);
    assert_true(json_equal(a, b));
    assert_true(json_equal(c, d));
    json_decref(a);
    json_decref(b);
    json_decref(c);
    json_decref(d);
}

static void a_vocabulary_without_room_and_an_empty_text_are_refused(void **state)
{
    (void)state;
    const char *left = "text";
    struct bpe_train_opts opts = { .vocab_size = 200 };
    assert_int_equal(bpe_train(temp_path("x"), next_once, &left, &opts), COE_E_USAGE);
    assert_int_equal(unigram_train(temp_path("x"), next_once, &left, &opts), COE_E_USAGE);
    opts.vocab_size = 300;
    left = NULL;
    assert_int_equal(bpe_train(temp_path("x"), next_once, &left, &opts), COE_E_INPUT);
    assert_error_has("there is no text");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_most_frequent_pair_merges_first),
        cmocka_unit_test(special_tokens_in_the_text_are_no_words),
        cmocka_unit_test(unigram_learns_the_words_and_loses_no_byte),
        cmocka_unit_test(the_same_text_gives_the_same_file),
        cmocka_unit_test(a_vocabulary_without_room_and_an_empty_text_are_refused),
    };
    return cmocka_run_group_tests_name("text/train", tests, NULL, NULL);
}
