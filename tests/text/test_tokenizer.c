/* Tokenizers made by hand: merging, added tokens, unknowns, the cache, damaged files; and properties on random bytes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/rng.h"
#include "support/support.h"
#include "text/text.h"

static struct tokenizer *open_text(const char *json)
{
    struct tokenizer *t;
    assert_ok(tokenizer_from_memory(&t, json, strlen(json), NULL, "tokenizer.json"));
    return t;
}

static void expect_ids(const struct tokenizer *t, const char *text, bool special, const int32_t *want, size_t n)
{
    struct ids got = { 0 };
    assert_ok(tokenizer_encode(t, &got, text, strlen(text), special));
    for (size_t i = 0; i < n || i < got.n; i++)
        if (i >= n || i >= got.n || got.at[i] != want[i])
            fail_msg("'%s': id %zu of %zu is %d, expected %d of %zu", text, i, got.n, i < got.n ? got.at[i] : -1,
                     i < n ? want[i] : -1, n);
    VEC_FREE(&got);
}
#define EXPECT_IDS(t, text, special, ...)                                                                              \
    expect_ids(t, text, special, (const int32_t[]){ __VA_ARGS__ }, sizeof((const int32_t[]){ __VA_ARGS__ }) / 4)

/* a b c space; ab = 4, bc = 5, abc = 6 (never made: ab comes first and "ab c" is no merge), <s> = 7 */
static const char *const hand =
    "{\"added_tokens\": [{\"id\": 7, \"content\": \"<s>\", \"special\": true, \"normalized\": false},"
    "                    {\"id\": 8, \"content\": \"<m>\", \"lstrip\": true, \"special\": false, \"normalized\": "
    "false}],"
    " \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": false},"
    " \"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<s>\"}}, "
    "{\"Sequence\": {\"id\": \"A\"}}],"
    "                      \"special_tokens\": {\"<s>\": {\"ids\": [7]}}},"
    " \"decoder\": {\"type\": \"ByteLevel\"},"
    " \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"c\": 2, \"\xC4\xA0\": 3, \"ab\": 4, \"bc\": 5, "
    "\"abc\": 6},"
    "             \"merges\": [\"a b\", [\"b\", \"c\"]]%s}}";

static struct tokenizer *open_hand(const char *more)
{
    char text[2000];
    snprintf(text, sizeof text, hand, more);
    return open_text(text);
}

static void pairs_merge_in_order_of_rank(void **state)
{
    (void)state;
    struct tokenizer *t = open_hand("");
    EXPECT_IDS(t, "abc", false, 4, 2);
    EXPECT_IDS(t, "bcab", false, 5, 4);
    EXPECT_IDS(t, "a bc", false, 0, 3, 5);
    EXPECT_IDS(t, "ab", true, 7, 4);
    tokenizer_close(t);
}

static void a_word_is_taken_whole_only_where_the_file_says_so(void **state)
{
    (void)state;
    struct tokenizer *t = open_hand(", \"ignore_merges\": true");
    EXPECT_IDS(t, "abc", false, 6);
    tokenizer_close(t);
}

static void added_tokens_are_cut_out_first(void **state)
{
    (void)state;
    struct tokenizer *t = open_hand("");
    EXPECT_IDS(t, "ab<s>a  <m>b", false, 4, 7, 0, 8, 1);
    assert_int_equal(tokenizer_token_id(t, "<m>"), 8);
    assert_int_equal(tokenizer_token_id(t, "\xC4\xA0"), 3);
    assert_int_equal(tokenizer_token_id(t, "nothing"), -1);
    assert_int_equal(tokenizer_vocab_size(t), 9);
    struct str out = { 0 };
    assert_ok(tokenizer_decode(t, &out, (const int32_t[]){ 7, 4, 3, 8 }, 4, true));
    assert_string_equal(out.at, "ab <m>");
    str_free(&out);
    tokenizer_close(t);
}

static void an_id_outside_the_vocabulary_is_a_usage_error(void **state)
{
    (void)state;
    struct tokenizer *t = open_hand("");
    struct str out = { 0 };
    assert_int_equal(tokenizer_decode(t, &out, (const int32_t[]){ 9 }, 1, false), COE_E_USAGE);
    assert_error_has("there is no token 9");
    assert_int_equal(tokenizer_decode(t, &out, (const int32_t[]){ -1 }, 1, false), COE_E_USAGE);
    str_free(&out);
    tokenizer_close(t);
}

/* ab costs 3 whole and 1 + 1.5 in two; unknown costs the lowest score minus 10, and neighbours are one. */
static void unigram_takes_the_best_path_and_fuses_unknowns(void **state)
{
    (void)state;
    struct tokenizer *t = open_text(
        "{\"model\": {\"type\": \"Unigram\", \"unk_id\": 0, \"vocab\": [[\"<unk>\", 0], [\"a\", -1], [\"b\", -1.5],"
        " [\"ab\", -3], [\"abb\", -2.5]]}}");
    EXPECT_IDS(t, "ab", false, 1, 2);
    EXPECT_IDS(t, "abb", false, 4);
    EXPECT_IDS(t, "axyb", false, 1, 0, 2);
    tokenizer_close(t);
}

static void byte_fallback_spells_what_is_unknown(void **state)
{
    (void)state;
    struct tokenizer *t = open_text(
        "{\"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}]},"
        " \"model\": {\"type\": \"BPE\", \"unk_token\": \"<unk>\", \"byte_fallback\": true, \"fuse_unk\": true,"
        " \"vocab\": {\"<unk>\": 0, \"a\": 1, \"<0xC3>\": 2, \"<0xA9>\": 3}, \"merges\": []}}");
    EXPECT_IDS(t, "a\xC3\xA9", false, 1, 2, 3);
    EXPECT_IDS(t, "xya", false, 0, 1);
    struct str out = { 0 };
    assert_ok(tokenizer_decode(t, &out, (const int32_t[]){ 1, 2, 3, 1, 2, 1 }, 6, false));
    assert_string_equal(out.at, "a\xC3\xA9"
                                "a\xEF\xBF\xBD"
                                "a");
    str_free(&out);
    tokenizer_close(t);
}

static void damaged_files_are_refused_with_their_place(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } bad[] = {
        { "", "is not a SentencePiece model" },
        { "{\"model\": {", "line 1 column" },
        { "{}", "has no \"model\"" },
        { "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": -1}, \"merges\": []}}", "token id -1" },
        { "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 99999999}, \"merges\": []}}", "token id 99999999" },
        { "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a b\"]}}",
          "merge 0: 'b' is not in the vocabulary" },
        { "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"ab\"]}}", "merge 0" },
        { "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": \"b\"}, \"merges\": []}}", "model.vocab" },
        { "{\"model\": {\"type\": \"WordPiece\", \"vocab\": {\"a\": 0}}}", "model of type WordPiece" },
        { "{\"model\": {\"end_of_word_suffix\": \"</w>\", \"vocab\": {\"a\": 0}}}", "end_of_word_suffix" },
        { "{\"normalizer\": {\"type\": \"Magic\"}, \"model\": {\"vocab\": {\"a\": 0}}}", "normalizer of type Magic" },
        { "{\"normalizer\": {\"type\": \"Precompiled\", \"precompiled_charsmap\": \"AAA\"}, \"model\": {\"vocab\": "
          "{\"a\": 0}}}",
          "character map" },
        { "{\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"(\"}}, \"model\": {\"vocab\": {\"a\": "
          "0}}}",
          "pattern" },
        { "{\"model\": {\"unk_token\": \"x\", \"vocab\": {\"a\": 0}}}", "unknown token 'x'" },
        { "{\"added_tokens\": [{\"content\": \"x\"}], \"model\": {\"vocab\": {\"a\": 0}}}", "id is missing" },
        { "GGUF\3\0\0\0", "is not a GGUF file" },
    };
    for (size_t i = 0; i < COE_COUNT(bad); i++) {
        struct tokenizer *t;
        assert_int_equal(tokenizer_from_memory(&t, bad[i].text, strlen(bad[i].text), NULL, "tokenizer.json"),
                         COE_E_INPUT);
        assert_error_has(bad[i].message);
        assert_error_has("tokenizer.json");
        assert_null(t);
    }
}

static coe_status next_once(void *user, const char **text, size_t *n, bool *more)
{
    const char **left = user;
    *more = *left != NULL;
    *text = *left ? *left : "";
    *n = strlen(*text);
    *left = NULL;
    return COE_OK;
}

/* A byte-level vocabulary trained on a few words, with its file at the path. */
static void train(const char *path, int32_t vocab)
{
    log_set_level(0);
    const char *text =
        "the cat and the hat, the bat sat; that cat ate the rat. h\xC3\xA9 h\xC3\xA9 12 12 12\n\n the the\n";
    struct bpe_train_opts opts = { .vocab_size = vocab };
    assert_ok(bpe_train(path, next_once, &text, &opts));
}

/* ids[] without any cleverness: the lowest-ranked adjacent pair is looked for again each time. */
static size_t naive_bpe(const struct tokenizer *t, const json_t *merges, int32_t *ids, const char *word, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct ids one = { 0 };
        assert_ok(tokenizer_encode(t, &one, word + i, 1, false));
        ids[i] = one.at[0];
        VEC_FREE(&one);
    }
    for (;;) {
        size_t best = SIZE_MAX, at = 0;
        for (size_t i = 0; i + 1 < n; i++)
            for (size_t m = 0; m < json_array_size(merges) && m < best; m++) {
                const json_t *pair = json_array_get(merges, m);
                if (tokenizer_token_id(t, json_string_value(json_array_get(pair, 0))) == ids[i] &&
                    tokenizer_token_id(t, json_string_value(json_array_get(pair, 1))) == ids[i + 1]) {
                    best = m;
                    at = i;
                }
            }
        if (best == SIZE_MAX) return n;
        char whole[64];
        const json_t *pair = json_array_get(merges, best);
        snprintf(whole, sizeof whole, "%s%s", json_string_value(json_array_get(pair, 0)),
                 json_string_value(json_array_get(pair, 1)));
        ids[at] = tokenizer_token_id(t, whole);
        memmove(ids + at + 1, ids + at + 2, (n - at - 2) * sizeof *ids);
        n--;
    }
}

static void merging_agrees_with_its_naive_twin(void **state)
{
    (void)state;
    const char *path = temp_path("tokenizer.json");
    train(path, 280);
    struct tokenizer *t;
    json_t *doc;
    assert_ok(tokenizer_open(&t, path));
    assert_ok(json_read_file(&doc, path));
    const json_t *merges = json_object_get(json_object_get(doc, "model"), "merges");
    struct rng r = rng_make(11, rng_stream(RNG_TEST, 0));
    for (int i = 0; i < 60; i++) {
        char word[90];
        int32_t want[90];
        size_t n = 1 + rng_below(&r, i % 2 ? 12 : 80);
        for (size_t k = 0; k < n; k++) word[k] = "thea"[rng_below(&r, 4)];
        word[n] = 0;
        size_t n_want = naive_bpe(t, merges, want, word, n);
        expect_ids(t, word, false, want, n_want);
    }
    json_decref(doc);
    tokenizer_close(t);
}

static void byte_level_decoding_gives_every_byte_back(void **state)
{
    (void)state;
    const char *path = temp_path("tokenizer.json");
    train(path, 300);
    struct tokenizer *t;
    assert_ok(tokenizer_open(&t, path));
    struct rng r = rng_make(5, rng_stream(RNG_TEST, 1));
    struct ids ids = { 0 };
    struct str back = { 0 };
    for (int i = 0; i < 300; i++) {
        char bytes[200];
        size_t n = rng_below(&r, sizeof bytes);
        for (size_t k = 0; k < n; k++)
            bytes[k] = i % 2 ? (char)rng_below(&r, 256) : "the cat\n 1.\xC3\xA9"[rng_below(&r, 13)];
        ids.n = 0;
        str_clear(&back);
        assert_ok(tokenizer_encode(t, &ids, bytes, n, true));
        assert_ok(tokenizer_decode(t, &back, ids.at, ids.n, false));
        if (back.n != n || (n && memcmp(back.at, bytes, n)))
            fail_msg("text %d of seed 5: %zu bytes come back as %zu", i, n, back.n);
    }
    VEC_FREE(&ids);
    str_free(&back);
    tokenizer_close(t);
}

static void a_stream_gives_whole_characters_and_the_same_text(void **state)
{
    (void)state;
    const char *path = temp_path("tokenizer.json");
    train(path, 300);
    struct tokenizer *t;
    struct decode_stream *d;
    assert_ok(tokenizer_open(&t, path));
    struct rng r = rng_make(9, rng_stream(RNG_TEST, 2));
    struct str piece = { 0 }, all = { 0 }, whole = { 0 }, shown = { 0 };
    assert_ok(decode_stream_open(&d, t, false));
    for (int i = 0; i < 100; i++) {
        int32_t ids[40];
        size_t n = rng_below(&r, 40);
        str_clear(&all);
        str_clear(&whole);
        str_clear(&shown);
        for (size_t k = 0; k < n; k++) {
            ids[k] = (int32_t)rng_below(&r, 300) % tokenizer_vocab_size(t);
            str_clear(&piece);
            assert_ok(decode_stream_push(d, &piece, ids[k]));
            for (size_t at = 0; at < piece.n; at += (size_t)utf8_decode(piece.at + at, piece.n - at, NULL))
                assert_true(utf8_decode(piece.at + at, piece.n - at, NULL) > 0);
            str_add(&all, piece.at ? piece.at : "", piece.n);
        }
        assert_ok(decode_stream_flush(d, &all));
        assert_ok(tokenizer_decode(t, &whole, ids, n, false));
        utf8_lossy(&shown, whole.at ? whole.at : "", whole.n);
        assert_int_equal(all.n, shown.n);
        if (all.n) assert_memory_equal(all.at, shown.at, all.n);
    }
    decode_stream_close(d);
    str_free(&piece);
    str_free(&all);
    str_free(&whole);
    str_free(&shown);
    tokenizer_close(t);
}

/* One U+FFFD for E2 82 (the beginning of a character), one for FF, one for each of ED A0 80, which is none. */
static void text_that_is_no_utf8_shows_replacement_characters(void **state)
{
    (void)state;
    struct str out = { 0 };
    utf8_lossy(&out,
               "a\xE2\x82"
               "b\xFF\xED\xA0\x80",
               8);
    assert_string_equal(out.at, "a\xEF\xBF\xBD"
                                "b\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
    str_clear(&out);
    utf8_lossy_bytes(&out, "\xE2\x82", 2);
    assert_string_equal(out.at, "\xEF\xBF\xBD\xEF\xBF\xBD");
    str_free(&out);
}

/* A file over a megabyte is cached; the cached form and the file give the same ids, and damage to it is repaired. */
static void a_damaged_cache_is_rebuilt_silently(void **state)
{
    (void)state;
    const char *path = temp_path("tokenizer.json");
    struct str text = { 0 };
    size_t n;
    train(path, 300);
    unsigned char *small = slurp(path, &n);
    str_add(&text, (char *)small, n);
    for (int i = 0; i < 1 << 20; i++) str_addc(&text, ' ');
    spill(path, text.at, text.n);
    char dir[1100], image[1400];
    snprintf(dir, sizeof dir, "%s", temp_path("cache"));
    setenv("XDG_CACHE_HOME", dir, 1);
    for (int round = 0; round < 4; round++) {
        struct tokenizer *t;
        struct ids ids = { 0 };
        assert_ok(tokenizer_open(&t, path));
        assert_ok(tokenizer_encode(t, &ids, "the cat", 7, false));
        assert_true(ids.n < 7);
        VEC_FREE(&ids);
        tokenizer_close(t);
        struct file_list names;
        snprintf(image, sizeof image, "%s/coe", dir);
        assert_ok(dir_list(&names, image));
        assert_int_equal(names.n, 1);
        snprintf(image, sizeof image, "%s/coe/%.200s", dir, names.name[0]);
        file_list_free(&names);
        size_t bytes;
        unsigned char *copy = slurp(image, &bytes);
        copy[round == 0 ? 8 : round == 1 ? bytes / 2 : bytes - 1] ^= 1;
        spill(image, copy, round == 2 ? bytes / 3 : bytes);
        free(copy);
    }
    unsetenv("XDG_CACHE_HOME");
    free(small);
    str_free(&text);
}

/* 200 KB in one word, of one letter, of spaces and of mixed marks: n log n steps each. */
static void hostile_texts_take_no_quadratic_time(void **state)
{
    (void)state;
    static const char *const unit[] = { "t", " ", "\xCC\x81\xCC\xA3", "th", "1" };
    const char *path = temp_path("tokenizer.json");
    train(path, 300);
    struct tokenizer *t;
    assert_ok(tokenizer_open(&t, path));
    double from = coe_now();
    for (size_t i = 0; i < COE_COUNT(unit); i++) {
        struct str text = { 0 };
        struct ids ids = { 0 };
        while (text.n < 200000) str_addz(&text, unit[i]);
        assert_ok(tokenizer_encode(t, &ids, text.at, text.n, false));
        VEC_FREE(&ids);
        str_free(&text);
    }
    assert_true(coe_now() - from < 5);
    tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pairs_merge_in_order_of_rank),
        cmocka_unit_test(a_word_is_taken_whole_only_where_the_file_says_so),
        cmocka_unit_test(added_tokens_are_cut_out_first),
        cmocka_unit_test(an_id_outside_the_vocabulary_is_a_usage_error),
        cmocka_unit_test(unigram_takes_the_best_path_and_fuses_unknowns),
        cmocka_unit_test(byte_fallback_spells_what_is_unknown),
        cmocka_unit_test(damaged_files_are_refused_with_their_place),
        cmocka_unit_test(merging_agrees_with_its_naive_twin),
        cmocka_unit_test(byte_level_decoding_gives_every_byte_back),
        cmocka_unit_test(a_stream_gives_whole_characters_and_the_same_text),
        cmocka_unit_test(text_that_is_no_utf8_shows_replacement_characters),
        cmocka_unit_test(a_damaged_cache_is_rebuilt_silently),
        cmocka_unit_test(hostile_texts_take_no_quadratic_time),
    };
    return cmocka_run_group_tests_name("text/tokenizer", tests, NULL, NULL);
}
