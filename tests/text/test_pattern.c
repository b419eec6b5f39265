/* Patterns: the table walk finds what PCRE2 finds, on the patterns in use and on random text. */
#include <stdio.h>
#include <string.h>

#include "base/rng.h"
#include "support/support.h"
#include "text/pattern.h"

static struct pattern *compile(const char *regex)
{
    struct pattern *p;
    assert_ok(pattern_compile(&p, regex, strlen(regex), "test"));
    return p;
}

/* All matches as "[a][b]" with what lies between them as it is. */
static void cut(struct str *out, const struct pattern *p, const char *text, size_t n)
{
    struct pattern_scan scan;
    size_t at = 0, lo, hi;
    bool found;
    str_clear(out);
    assert_ok(pattern_scan_begin(&scan, p, text, n));
    for (;;) {
        assert_ok(pattern_next(&scan, at, &lo, &hi, &found));
        if (!found) break;
        str_add(out, text + at, lo - at);
        str_addc(out, '[');
        str_add(out, text + lo, hi - lo);
        str_addc(out, ']');
        at = hi;
    }
    str_add(out, text + at, n - at);
    pattern_scan_end(&scan);
}

static void expect(const char *regex, const char *text, const char *want)
{
    struct pattern *p = compile(regex);
    struct str out = { 0 };
    cut(&out, p, text, strlen(text));
    assert_string_equal(out.at, want);
    str_free(&out);
    pattern_free(p);
}

static void alternatives_are_tried_in_order_not_by_length(void **state)
{
    (void)state;
    expect("a|ab", "ab", "[a]b");
    expect("ab|a", "ab", "[ab]");
    expect("'s|'t| ?\\p{L}+|\\s+(?!\\S)|\\s+", "it's  so", "[it]['s][ ][ so]");
}

static void repeats_give_back_and_possessive_ones_do_not(void **state)
{
    (void)state;
    expect("[a-z]*[x-z]", "abcxd", "[abcx]d");
    expect("[a-z]*+[x-z]", "abcx", "abcx");
    expect("\\p{N}{1,3}", "12345", "[123][45]");
    expect("[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+", "\tab", "[\tab]");
}

static void white_space_is_that_of_unicode_without_u_180e(void **state)
{
    (void)state;
    expect("\\s",
           "a\xC2\x85"
           "b\xE2\x80\xA8"
           "c\xE1\xA0\x8E"
           "d\x1C"
           "e",
           "a[\xC2\x85]b[\xE2\x80\xA8]c\xE1\xA0\x8E"
           "d\x1C"
           "e");
}

static void classes_intersect_nest_and_negate(void **state)
{
    (void)state;
    expect("[a-z&&[^aeiou]]+", "stream", "[str]ea[m]");
    expect("[[a-c][x-z]]+", "abmxy", "[ab]m[xy]");
    expect("[\\p{L}&&[^\\p{Han}]]+",
           "ab\xE6\x97\xA5"
           "c",
           "[ab]\xE6\x97\xA5[c]");
    expect("[\\w\\-]+", "a-b c", "[a-b] [c]");
}

static void ignoring_case_knows_the_long_s(void **state)
{
    (void)state;
    expect("(?i:'s|'ll)", "x's 'S '\xC5\xBF 'LL 'x", "x['s] ['S] ['\xC5\xBF] ['LL] 'x");
}

static void a_dollar_is_the_end_of_a_line(void **state)
{
    (void)state;
    expect("\\s+$", "a b  ", "a b[  ]");
    expect("b$", "ab\nb", "a[b]\n[b]");
}

static void what_the_table_cannot_express_goes_to_pcre2(void **state)
{
    (void)state;
    struct pattern *p = compile("(?:ab)+c|\\bq");
    assert_int_equal(p->kind, PATTERN_PCRE);
    pattern_free(p);
    expect("(?:ab)+c", "xababcx", "x[ababc]x");
    expect("[a-z&&[^b]]+?c", "aacb", "[aac]b");
}

static void broken_patterns_are_refused_with_their_place(void **state)
{
    (void)state;
    struct pattern *p;
    static const char *const bad[] = { "[a", "(ab", "\\p{Nonsense}", "[z-a]", "a**", "\\" };
    for (size_t i = 0; i < COE_COUNT(bad); i++) {
        assert_int_equal(pattern_compile(&p, bad[i], strlen(bad[i]), "tokenizer.json"), COE_E_INPUT);
        assert_error_has("tokenizer.json");
        assert_null(p);
    }
}

static const char *const used[] = {
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| "
    "?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|"
    "'d)?|"
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|"
    "'d)?|"
    "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    "[\\p{Han}]+|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{M}&&[^\\p{Han}]]*[\\p{Ll}\\p{M}&&[^\\p{Han}]]+(?i:'s|'d)?|\\s+",
    "\\s?[!-/:-~]+",
    "\\s+$",
};

/* Random text of the characters that patterns tell apart. */
static size_t random_text(char *to, size_t cap, struct rng *r)
{
    static const char *const part[] = { "a",
                                        "B",
                                        "z",
                                        "s",
                                        "S",
                                        "'",
                                        "'s",
                                        "'LL",
                                        " ",
                                        "  ",
                                        "\n",
                                        "\r\n",
                                        "\t",
                                        "1",
                                        "23",
                                        ".",
                                        "-",
                                        "/",
                                        "\xC3\xA9",
                                        "e\xCC\x81",
                                        "\xC7\x85",
                                        "\xCA\xB0",
                                        "\xE6\x97\xA5",
                                        "\xE2\x80\xA8",
                                        "\xC2\xA0",
                                        "\xE1\xA0\x8E",
                                        "\xC5\xBF",
                                        "\xC2\xB2",
                                        "\xF0\x9F\xA6\x80",
                                        "_" };
    size_t n = 0, parts = rng_below(r, 40);
    for (size_t i = 0; i < parts; i++) {
        const char *p = part[rng_below(r, COE_COUNT(part))];
        if (n + strlen(p) > cap) break;
        memcpy(to + n, p, strlen(p));
        n += strlen(p);
    }
    return n;
}

static void the_table_walk_and_pcre2_agree_on_random_text(void **state)
{
    (void)state;
    struct str fast = { 0 }, slow = { 0 };
    for (size_t i = 0; i < COE_COUNT(used); i++) {
        struct pattern *a = compile(used[i]), *b;
        struct rng r = rng_make(7, rng_stream(RNG_TEST, i));
        assert_int_equal(a->kind, PATTERN_FAST);
        assert_ok(pattern_compile_pcre(&b, used[i], strlen(used[i]), "test"));
        for (int k = 0; k < 400; k++) {
            char text[400];
            size_t n = random_text(text, sizeof text, &r);
            cut(&fast, a, text, n);
            cut(&slow, b, text, n);
            if (fast.n != slow.n || (fast.n && memcmp(fast.at, slow.at, fast.n)))
                fail_msg("pattern %zu, text %d (seed 7): table '%s', PCRE2 '%s'", i, k, fast.at, slow.at);
        }
        pattern_free(a);
        pattern_free(b);
    }
    str_free(&fast);
    str_free(&slow);
}

/* "\s+$" would look at 100000²/2 characters if each start were tried anew. */
static void a_long_run_that_fails_is_walked_once(void **state)
{
    (void)state;
    enum { N = 100000 };
    static char text[N + 1];
    struct pattern *p = compile("\\s+$|\\s*[\\r\\n]+");
    struct pattern_scan scan;
    size_t lo, hi;
    bool found;
    memset(text, ' ', N);
    text[N] = 'x';
    double from = coe_now();
    assert_ok(pattern_scan_begin(&scan, p, text, N + 1));
    assert_ok(pattern_next(&scan, 0, &lo, &hi, &found));
    assert_false(found);
    assert_true(coe_now() - from < 1.0);
    pattern_scan_end(&scan);
    pattern_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alternatives_are_tried_in_order_not_by_length),
        cmocka_unit_test(repeats_give_back_and_possessive_ones_do_not),
        cmocka_unit_test(white_space_is_that_of_unicode_without_u_180e),
        cmocka_unit_test(classes_intersect_nest_and_negate),
        cmocka_unit_test(ignoring_case_knows_the_long_s),
        cmocka_unit_test(a_dollar_is_the_end_of_a_line),
        cmocka_unit_test(what_the_table_cannot_express_goes_to_pcre2),
        cmocka_unit_test(broken_patterns_are_refused_with_their_place),
        cmocka_unit_test(the_table_walk_and_pcre2_agree_on_random_text),
        cmocka_unit_test(a_long_run_that_fails_is_walked_once),
    };
    return cmocka_run_group_tests_name("text/pattern", tests, NULL, NULL);
}
