/* The programs in examples/, built against coe.h and libcoe.a only, on a tiny model. */
#include "support/process.h"
#include "support/tiny_model.h"

#include <string.h>

static void generate_continues_the_prompt_and_repeats_with_its_seed(void **state)
{
    (void)state;
    const char *model = tiny_model("model", NULL);
    const char *const argv[] = { built("examples/generate"), model, "Once upon", "12", "1.0", "0.9", "7", NULL };
    struct ran a = run_program(NULL, argv), b = run_program(NULL, argv);
    assert_int_equal(a.status, 0);
    assert_memory_equal(a.out, "Once upon", 9);
    assert_true(a.n_out > 10);
    assert_string_equal(a.out, b.out);
    ran_free(&a);
    ran_free(&b);
}

static int count(const char *text, const char *part)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, part)); at += strlen(part)) n++;
    return n;
}

/* 2 layers of 2 passes over 8 experts; each token visits 2 of them: two percentages on each of its 4 lines */
static void route_prints_a_table_for_each_layer_and_pass(void **state)
{
    (void)state;
    const char *model = tiny_model("model", NULL);
    const char *const argv[] = { built("examples/route"), model, "the king", NULL };
    struct ran r = run_program(NULL, argv);
    assert_int_equal(r.status, 0);
    assert_non_null(strstr(r.out, "layer 0, pass 0, 8 experts\n"));
    assert_non_null(strstr(r.out, "layer 1, pass 1, 8 experts\n"));
    assert_int_equal(count(r.out, "layer "), 4);
    assert_true(count(r.out, "%") >= 8);
    assert_int_equal(count(r.out, "%") % 8, 0);
    ran_free(&r);
}

static void both_say_what_is_wrong_with_a_model(void **state)
{
    (void)state;
    const char *const generate[] = { built("examples/generate"), "/nowhere", "x", NULL };
    const char *const route[] = { built("examples/route"), tiny_model("bare", &(struct tiny){ .no_tokenizer = true }),
                                  "x", NULL };
    struct ran a = run_program(NULL, generate), b = run_program(NULL, route);
    assert_int_equal(a.status, COE_E_INPUT);
    assert_non_null(strstr(a.err, "/nowhere"));
    assert_int_equal(b.status, COE_E_INPUT);
    assert_non_null(strstr(b.err, "tokenizer.json"));
    ran_free(&a);
    ran_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(generate_continues_the_prompt_and_repeats_with_its_seed),
        cmocka_unit_test(route_prints_a_table_for_each_layer_and_pass),
        cmocka_unit_test(both_say_what_is_wrong_with_a_model),
    };
    return cmocka_run_group_tests_name("examples", tests, NULL, NULL);
}
