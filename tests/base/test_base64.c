/* base64: the examples of RFC 4648, and what is refused. */
#include <string.h>

#include "base/base64.h"
#include "support/support.h"

static void the_examples_of_rfc_4648_go_both_ways(void **state)
{
    (void)state;
    static const char *const pair[][2] = { { "", "" },        { "f", "Zg==" },        { "fo", "Zm8=" },
                                           { "foo", "Zm9v" }, { "foob", "Zm9vYg==" }, { "foobar", "Zm9vYmFy" } };
    for (size_t i = 0; i < COE_COUNT(pair); i++) {
        struct str code = { 0 }, bytes = { 0 };
        base64_encode(&code, pair[i][0], strlen(pair[i][0]));
        assert_string_equal(code.at ? code.at : "", pair[i][1]);
        assert_true(base64_decode(&bytes, pair[i][1], strlen(pair[i][1])));
        assert_string_equal(bytes.at ? bytes.at : "", pair[i][0]);
        str_free(&code);
        str_free(&bytes);
    }
}

static void other_characters_and_impossible_lengths_are_refused(void **state)
{
    (void)state;
    struct str out = { 0 };
    assert_false(base64_decode(&out, "Zm9*", 4));
    assert_false(base64_decode(&out, "Z", 1));
    assert_true(base64_decode(&out, "Zm\n9v", 5));
    str_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_examples_of_rfc_4648_go_both_ways),
        cmocka_unit_test(other_characters_and_impossible_lengths_are_refused),
    };
    return cmocka_run_group_tests_name("base/base64", tests, NULL, NULL);
}
