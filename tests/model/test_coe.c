/* The functions of coe.h about models and text. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "support/tiny_model.h"

static void a_model_tells_its_sizes(void **state)
{
    (void)state;
    coe_model *m = NULL;
    assert_ok(coe_model_open(&m, tiny_model("model", &(struct tiny){ .n_layers = 3, .n_experts = 6 }), NULL));
    assert_int_equal(coe_vocab_size(m), 320);
    assert_int_equal(coe_n_layers(m), 3);
    assert_int_equal(coe_n_experts(m, 2), 6);
    assert_int_equal(coe_n_iterations(m, 0), 2);
    assert_int_equal(coe_n_experts(m, 3), 0); /* no such layer */
    assert_int_equal(coe_n_experts(m, -1), 0);
    assert_int_equal(coe_n_iterations(m, 99), 0);
    coe_model_close(m);
}

static void text_comes_back_from_its_tokens(void **state)
{
    (void)state;
    static const char text[] = "the king\0and \xFF the tree";
    coe_model *m = NULL;
    int32_t *ids = NULL;
    size_t n = 0, n_bytes = 0;
    char *back = NULL;
    assert_ok(coe_model_open(&m, tiny_model("model", NULL), NULL));
    assert_ok(coe_tokenize(m, text, sizeof text - 1, 0, &ids, &n));
    assert_true(n > 0 && n < sizeof text);
    assert_ok(coe_detokenize(m, ids, n, &back, &n_bytes));
    assert_int_equal(n_bytes, sizeof text - 1);
    assert_memory_equal(back, text, sizeof text); /* with the NUL behind it */
    free(ids);
    free(back);
    coe_model_close(m);
}

static void no_text_has_no_tokens_and_no_tokens_have_no_text(void **state)
{
    (void)state;
    coe_model *m = NULL;
    int32_t *ids = NULL;
    size_t n = 9;
    char *text = NULL;
    assert_ok(coe_model_open(&m, tiny_model("model", NULL), NULL));
    assert_ok(coe_tokenize(m, "", 0, 0, &ids, &n));
    assert_int_equal(n, 0);
    assert_ok(coe_detokenize(m, ids, 0, &text, NULL));
    assert_string_equal(text, "");
    free(ids);
    free(text);
    coe_model_close(m);
}

static void a_token_outside_the_vocabulary_is_wrong_usage(void **state)
{
    (void)state;
    coe_model *m = NULL;
    char *text = NULL;
    assert_ok(coe_model_open(&m, tiny_model("model", NULL), NULL));
    assert_int_equal(coe_detokenize(m, (const int32_t[]){ 320 }, 1, &text, NULL), COE_E_USAGE);
    assert_null(text);
    coe_model_close(m);
}

static void what_cannot_be_opened_says_why_and_leaves_null(void **state)
{
    (void)state;
    coe_model *m = (coe_model *)(uintptr_t)1;
    assert_int_equal(coe_model_open(&m, NULL, NULL), COE_E_USAGE);
    assert_null(m);
    assert_int_equal(coe_model_open(&m, "/nowhere", NULL), COE_E_INPUT);
    assert_null(m);
    assert_error_has("/nowhere");
    const char *model = tiny_model("model", NULL);
    assert_int_equal(coe_model_open(&m, model, &(coe_open_opts){ .plan_path = "/nowhere/plan.json" }), COE_E_INPUT);
    assert_null(m);
    assert_int_equal(coe_model_open(&m, model, &(coe_open_opts){ .threads = -1 }), COE_E_USAGE);
    coe_model_close(NULL);
}

static void a_budget_holds(void **state)
{
    (void)state;
    coe_model *m = NULL;
    coe_session *s = NULL;
    coe_status status = coe_model_open(&m, tiny_model("model", NULL), &(coe_open_opts){ .memory_bytes = 3 << 20 });
    if (!status) status = coe_session_open(&s, m, &(coe_session_opts){ .max_tokens = 1 << 20 });
    assert_int_equal(status, COE_E_NOMEM);
    assert_error_has("memory");
    coe_session_close(s);
    coe_model_close(m);
    mem_set_budget(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_tells_its_sizes),
        cmocka_unit_test(text_comes_back_from_its_tokens),
        cmocka_unit_test(no_text_has_no_tokens_and_no_tokens_have_no_text),
        cmocka_unit_test(a_token_outside_the_vocabulary_is_wrong_usage),
        cmocka_unit_test(what_cannot_be_opened_says_why_and_leaves_null),
        cmocka_unit_test(a_budget_holds),
    };
    return cmocka_run_group_tests_name("model/coe", tests, NULL, NULL);
}
