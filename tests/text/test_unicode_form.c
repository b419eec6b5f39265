/* Normal forms: those of utf8proc, in linear time, and bytes that are not UTF-8 stay. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/rng.h"
#include "support/support.h"
#include "text/unicode_form.h"

static void expect(enum unicode_form form, const char *text, const char *want)
{
    struct str out = { 0 };
    assert_ok(unicode_form(&out, form, text, strlen(text)));
    assert_string_equal(out.at, want);
    str_free(&out);
}

static void marks_join_their_letters_in_composed_form(void **state)
{
    (void)state;
    expect(FORM_NFC, "e\xCC\x81", "\xC3\xA9"); /* e + acute = é */
    expect(FORM_NFD, "\xC3\xA9", "e\xCC\x81");
    expect(FORM_NFC, "\xE2\x84\xAB", "\xC3\x85");     /* Angstrom sign = Å */
    expect(FORM_NFKC, "\xEF\xAC\x81\xC2\xB2", "fi2"); /* ligature fi, superscript two */
    expect(FORM_NFC, "\xEF\xAC\x81", "\xEF\xAC\x81");
    expect(FORM_NFC, "\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB", "\xED\x95\x9C"); /* three jamo = one syllable */
}

/* Dot below has class 220, acute 230: canonical order puts it first whatever the text says. */
static void marks_are_ordered_by_their_class(void **state)
{
    (void)state;
    expect(FORM_NFD, "q\xCC\x81\xCC\xA3", "q\xCC\xA3\xCC\x81");
    expect(FORM_NFC, "a\xCC\x81\xCC\xA3", "\xE1\xBA\xA1\xCC\x81"); /* ạ + acute */
}

static void bytes_that_are_no_characters_stay(void **state)
{
    (void)state;
    expect(FORM_NFC,
           "\xFF"
           "e\xCC\x81\xC3",
           "\xFF\xC3\xA9\xC3");
}

static void random_characters_agree_with_the_library(void **state)
{
    (void)state;
    static const uint32_t from[] = { 'a',   0xC0,   0x300,  0x1100, 0x1160, 0x11A8, 0xAC00,
                                     0x9BE, 0x1E00, 0x2100, 0xFB00, 0x3040, 0xF900 };
    static const utf8proc_option_t options[] = { UTF8PROC_COMPOSE, UTF8PROC_DECOMPOSE,
                                                 UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
                                                 UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT };
    struct rng r = rng_make(3, rng_stream(RNG_TEST, 0));
    struct str out = { 0 };
    for (int i = 0; i < 3000; i++) {
        char text[128];
        size_t n = 0, k = 1 + rng_below(&r, 12);
        for (size_t c = 0; c < k; c++) {
            uint32_t cp = from[rng_below(&r, COE_COUNT(from))] + (uint32_t)rng_below(&r, 40);
            n += (size_t)utf8_encode(cp, text + n);
        }
        text[n] = 0;
        enum unicode_form form = (enum unicode_form)rng_below(&r, 4);
        utf8proc_uint8_t *want = NULL;
        utf8proc_map((const utf8proc_uint8_t *)text, 0, &want, options[form] | UTF8PROC_NULLTERM | UTF8PROC_STABLE);
        str_clear(&out);
        assert_ok(unicode_form(&out, form, text, n));
        if (strcmp(out.at, (char *)want))
            fail_msg("text %d (seed 3), form %d: '%s' becomes '%s', expected '%s'", i, form, text, out.at, want);
        free(want);
    }
    str_free(&out);
}

/* 100000 marks of two classes in turn: an exchange sort would need 10^9 steps. */
static void a_long_run_of_marks_takes_linear_time(void **state)
{
    (void)state;
    struct str text = { 0 }, out = { 0 };
    str_addc(&text, 'a');
    for (int i = 0; i < 50000; i++) str_addz(&text, "\xCC\x81\xCC\xA3");
    double from = coe_now();
    assert_ok(unicode_form(&out, FORM_NFC, text.at, text.n));
    assert_true(coe_now() - from < 1.0);
    assert_memory_equal(out.at, "\xE1\xBA\xA1\xCC\xA3", 5);
    str_free(&text);
    str_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(marks_join_their_letters_in_composed_form),
        cmocka_unit_test(marks_are_ordered_by_their_class),
        cmocka_unit_test(bytes_that_are_no_characters_stay),
        cmocka_unit_test(random_characters_agree_with_the_library),
        cmocka_unit_test(a_long_run_of_marks_takes_linear_time),
    };
    return cmocka_run_group_tests_name("text/unicode_form", tests, NULL, NULL);
}
