/* The corpus: the stream, its rows and windows. */
#include <stdlib.h>
#include <string.h>

#include "support/tiny_train.h"

#define SEQUENCE 16

static struct tokenizer *tokenizer;
static struct corpus both, held;
static struct data_source sources[3];

static int open_corpora(void **state)
{
    (void)state;
    const char *tokens = tiny_tokenizer(); /* also quietens the log */
    sources[0] = (struct data_source){ .path = tiny_text_a(), .label = "a" };
    sources[1] = (struct data_source){ .path = tiny_text_b(), .label = "b" };
    sources[2] = (struct data_source){ .path = tiny_text_a(), .label = "b" };
    if (tokenizer_open(&tokenizer, tokens)) return 1;
    return (int)corpus_read(&both, &held, tokenizer, sources, 2, 2);
}

static int close_corpora(void **state)
{
    (void)state;
    corpus_free(&both);
    corpus_free(&held);
    tokenizer_close(tokenizer);
    return 0;
}

/* E d0 E d1 … E: each document, decoded, is the text between the marks of the file. */
static void the_stream_is_documents_between_end_tokens(void **state)
{
    (void)state;
    size_t n_text = 0;
    char *text = (char *)slurp(tiny_text_a(), &n_text);
    struct str want = { 0 }, got = { 0 };
    str_addz(&want, "<|endoftext|>");
    str_add(&want, text, n_text);
    str_addz(&want, "<|endoftext|>");
    struct corpus a;
    assert_ok(corpus_read(&a, NULL, tokenizer, sources, 1, 0));
    assert_ok(tokenizer_decode(tokenizer, &got, a.ids, a.n, false));
    assert_string_equal(got.at, want.at);
    assert_int_equal(a.n_documents, 5);
    assert_int_equal(a.bytes, n_text - 4 * strlen("<|endoftext|>"));
    corpus_free(&a);
    str_free(&want);
    str_free(&got);
    free(text);
}

/* 5 documents of a and 3 of b, the last two held out: 6 = 5 + 1 remain. */
static void held_out_documents_are_the_last_ones(void **state)
{
    (void)state;
    assert_int_equal(both.n_documents, 6);
    assert_int_equal(held.n_documents, 2);
    assert_int_equal(both.n_parts, 2);
    assert_string_equal(both.parts[0].label, "a");
    assert_string_equal(both.parts[1].label, "b");
    assert_int_equal(both.parts[1].end, both.n);
    assert_int_equal(both.parts[0].bytes + both.parts[1].bytes, both.bytes);
    assert_int_equal(held.n_parts, 1);
    assert_string_equal(held.parts[0].label, "b");
    struct str text = { 0 };
    assert_ok(tokenizer_decode(tokenizer, &text, held.ids, held.n, true));
    assert_string_equal(text.at, "One was gone.The second son fell asleep too.");
    assert_int_equal(held.bytes, strlen(text.at));
    assert_int_equal(held.ids[held.n - 1], held.end_id);
    str_free(&text);
}

static void files_with_one_label_count_together(void **state)
{
    (void)state;
    struct corpus c;
    assert_ok(corpus_read(&c, NULL, tokenizer, sources, 3, 0));
    assert_int_equal(c.n_parts, 3);
    assert_int_equal(c.parts[0].first_alike, 0);
    assert_int_equal(c.parts[1].first_alike, 1);
    assert_int_equal(c.parts[2].first_alike, 1);
    corpus_free(&c);
}

static void other_text_has_another_hash(void **state)
{
    (void)state;
    struct corpus a, again;
    assert_ok(corpus_read(&a, NULL, tokenizer, sources, 1, 0));
    assert_ok(corpus_read(&again, NULL, tokenizer, sources, 1, 0));
    assert_true(a.hash == again.hash);
    assert_true(a.hash != both.hash);
    corpus_free(&a);
    corpus_free(&again);
}

/* Where in the stream a row begins: its ids must be found there, targets one behind. */
static size_t place_of(const int32_t *input, const int32_t *target)
{
    for (size_t at = 0; at + SEQUENCE < both.n; at++)
        if (!memcmp(both.ids + at, input, SEQUENCE * sizeof *input) &&
            !memcmp(both.ids + at + 1, target, SEQUENCE * sizeof *target))
            return at;
    fail_msg("a row is not a stretch of the stream");
    return 0;
}

/* A pass holds every row once: places differ by multiples of the row length from an offset below it. */
static void a_pass_takes_every_row_once_and_the_next_in_another_order(void **state)
{
    (void)state;
    const int64_t rows = corpus_rows(&both, SEQUENCE);
    int32_t input[SEQUENCE], target[SEQUENCE];
    int64_t start[SEQUENCE];
    size_t order[2][64];
    assert_true(rows > 4 && rows < 64);
    for (int pass = 0; pass < 2; pass++) {
        bool seen[64] = { false };
        for (int64_t i = 0; i < rows; i++) {
            assert_ok(corpus_row(&both, 7, pass * rows + i, SEQUENCE, input, target, start));
            const size_t at = place_of(input, target), row = at / SEQUENCE;
            assert_true(i == 0 || at % SEQUENCE == order[pass][0] % SEQUENCE);
            assert_false(seen[row]);
            seen[row] = true;
            order[pass][i] = at;
        }
        for (int64_t i = 0; i < rows; i++) assert_true(seen[i]);
    }
    assert_memory_not_equal(order[0], order[1], (size_t)rows * sizeof order[0][0]);
}

static void a_row_is_a_function_of_seed_and_number(void **state)
{
    (void)state;
    int32_t a[SEQUENCE], b[SEQUENCE], target[SEQUENCE];
    int differ = 0;
    for (int64_t i = 0; i < 8; i++) {
        assert_ok(corpus_row(&both, 7, i, SEQUENCE, a, target, NULL));
        assert_ok(corpus_row(&both, 7, i, SEQUENCE, b, target, NULL));
        assert_memory_equal(a, b, sizeof a);
        assert_ok(corpus_row(&both, 8, i, SEQUENCE, b, target, NULL));
        differ += memcmp(a, b, sizeof a) != 0;
    }
    assert_true(differ > 4);
}

/* A token sees back to the last end token at or before it, or to the row's beginning. */
static void boundaries_are_the_end_tokens(void **state)
{
    (void)state;
    int32_t input[SEQUENCE], target[SEQUENCE];
    int64_t start[SEQUENCE];
    for (int64_t i = 0; i < 20; i++) {
        assert_ok(corpus_row(&both, 3, i, SEQUENCE, input, target, start));
        for (int t = 0; t < SEQUENCE; t++) {
            int64_t want = 0;
            for (int k = 0; k <= t; k++)
                if (input[k] == both.end_id) want = k;
            assert_int_equal(start[t], want);
        }
    }
}

static void windows_predict_every_token_but_the_first_once(void **state)
{
    (void)state;
    int32_t input[SEQUENCE], target[SEQUENCE], n;
    size_t at = 0;
    for (int64_t i = 0; (n = corpus_window(&both, i, SEQUENCE, input, target, NULL)); i++, at += (size_t)n) {
        assert_memory_equal(input, both.ids + at, (size_t)n * sizeof *input);
        assert_memory_equal(target, both.ids + at + 1, (size_t)n * sizeof *target);
    }
    assert_int_equal(at, both.n - 1);
}

static void a_text_too_short_for_one_row_is_refused(void **state)
{
    (void)state;
    int32_t input[64], target[64];
    assert_int_equal(corpus_rows(&held, 64), 0);
    assert_int_equal(corpus_row(&held, 1, 0, 64, input, target, NULL), COE_E_INPUT);
    assert_error_has("too few for rows of 64");
}

static void holding_out_every_document_is_refused(void **state)
{
    (void)state;
    struct corpus c, v;
    assert_int_equal(corpus_read(&c, &v, tokenizer, sources, 2, 8), COE_E_INPUT);
    assert_error_has("8 documents");
}

static void a_missing_file_is_named(void **state)
{
    (void)state;
    struct corpus c;
    const struct data_source nowhere = { .path = "/nowhere/x.txt", .label = "x" };
    assert_int_equal(corpus_read(&c, NULL, tokenizer, &nowhere, 1, 0), COE_E_INPUT);
    assert_error_has("/nowhere/x.txt");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_stream_is_documents_between_end_tokens),
        cmocka_unit_test(held_out_documents_are_the_last_ones),
        cmocka_unit_test(files_with_one_label_count_together),
        cmocka_unit_test(other_text_has_another_hash),
        cmocka_unit_test(a_pass_takes_every_row_once_and_the_next_in_another_order),
        cmocka_unit_test(a_row_is_a_function_of_seed_and_number),
        cmocka_unit_test(boundaries_are_the_end_tokens),
        cmocka_unit_test(windows_predict_every_token_but_the_first_once),
        cmocka_unit_test(a_text_too_short_for_one_row_is_refused),
        cmocka_unit_test(holding_out_every_document_is_refused),
        cmocka_unit_test(a_missing_file_is_named),
    };
    return cmocka_run_group_tests_name("train/data", tests, open_corpora, close_corpora);
}
