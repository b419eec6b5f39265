/* The plan file: written, read again, and strict about everything else. */
#include "support/arrays.h"

#include <stdio.h>
#include <string.h>

#include "plan/plan.h"
#include "support/tiny_model.h"

#define HEAD                                                                                                           \
    "{\"coe_plan\": 1, \"method\": \"hand\", \"model\": {\"fingerprint\": \"0123456789abcdef\", \"family\": \"coe\", " \
    "\"n_layers\": 2}, "
#define LAYERS(text) HEAD "\"layers\": [" text "]}"
#define LAYER(keep) LAYERS("{\"layer\": 1, \"experts\": 8, \"keep\": " keep "}")

static void what_is_written_is_read_again(void **state)
{
    (void)state;
    struct plan *p, *again;
    char a[17], b[17];
    const char *text =
        LAYERS("{\"layer\": 0, \"experts\": 8, \"keep\": [0, 7]}, {\"layer\": 1, \"experts\": 4, \"keep\": [2]}");
    assert_ok(plan_parse(&p, text, strlen(text), "hand.json"));
    p->measured = json_pack("{s:f, s:[s], s:{s:i}}", "kl", 0.25, "files", "a.txt", "unedited", "bytes", 5);
    assert_ok(plan_write(p, temp_path("plan.json")));
    assert_ok(plan_read(&again, temp_path("plan.json")));
    assert_string_equal(again->method, "hand");
    assert_string_equal(again->variant, "published");
    assert_int_equal(again->n_layers, 2);
    assert_int_equal(again->layer[0].n_keep, 2);
    assert_int_equal(again->layer[0].keep[1], 7);
    assert_int_equal(again->layer[1].n_experts, 4);
    assert_true(json_equal(p->measured, again->measured));
    assert_ok(plan_fingerprint(p, a));
    assert_ok(plan_fingerprint(again, b));
    assert_string_equal(a, b);
    again->layer[1].keep[0] = 3;
    assert_ok(plan_fingerprint(again, b));
    assert_string_not_equal(a, b);
    plan_free(p);
    plan_free(again);
}

static void every_mistake_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        { "", "line" },
        { "[1]", "is an array, expected an object" },
        { "{\"coe_plan\": 2}", "coe_plan is 2, outside 1 … 1" },
        { "{\"method\": \"x\"}", "coe_plan is missing" },
        { HEAD "\"layer\": []}", "unknown key 'layer'" },
        { HEAD "\"layers\": {}}", "layers is an object, expected a list" },
        { LAYERS("7"), "layers[0]: is a whole number, expected an object" },
        { LAYERS("{\"layer\": 2, \"experts\": 8, \"keep\": [1]}"), "layers[0]: layer is 2, outside 0 … 1" },
        { LAYERS("{\"layer\": 1, \"keep\": [1]}"), "experts is missing" },
        { LAYERS("{\"layer\": 1, \"experts\": 2, \"keep\": [1], \"drop\": []}"), "unknown key 'drop'" },
        { LAYERS("{\"layer\": 1, \"experts\": 2, \"keep\": [1]}, {\"layer\": 0, \"experts\": 2, \"keep\": [1]}"),
          "layers[1]: layer 0 behind layer 1" },
        { LAYER("[]"), "keeps 0 of 8 experts, expected 1 to 8" },
        { LAYER("3"), "keep is a whole number, expected a list" },
        { LAYER("[0, 1, 2, 3, 4, 5, 6, 7, 8]"), "keeps 9 of 8 experts" },
        { LAYER("[0, 8]"), "keep[1] is 8, outside 0 … 7" },
        { LAYER("[-1]"), "keep[0] is -1, outside 0 … 7" },
        { LAYER("[1, 1]"), "keep[1]: expert 1 is there twice" },
        { LAYER("[3, 1]"), "keep[1]: 1 behind 3; ids ascend" },
        { LAYER("[\"a\"]"), "keep[0] is a string, expected an expert id" },
        { LAYER("[1.5]"), "keep[0] is a number, expected an expert id" },
        { HEAD "\"trace\": {\"fingerprint\": \"x\"}, \"layers\": []}", "fingerprint 'x' is not a fingerprint" },
        { HEAD "\"predicted\": [], \"layers\": []}", "predicted is an array, expected an object" },
        { HEAD "\"measured\": {\"a\": null}, \"layers\": []}", "measured: a is null" },
    };
    for (size_t i = 0; i < COE_COUNT(cases); i++) {
        struct plan *p = NULL;
        if (plan_parse(&p, cases[i].text, strlen(cases[i].text), "hand.json") != COE_E_INPUT)
            fail_msg("read: %s", cases[i].text);
        assert_null(p);
        assert_error_has("hand.json");
        assert_error_has(cases[i].message);
    }
}

static void a_plan_belongs_to_one_model(void **state)
{
    (void)state;
    struct coe_model *m;
    struct plan *p;
    const char *text = LAYER("[1]");
    assert_ok(model_open(&m, tiny_model("model", NULL)));
    assert_ok(plan_parse(&p, text, strlen(text), "hand.json"));
    assert_int_equal(plan_check(p, m), COE_E_INPUT);
    assert_error_has("hand.json: was made for another model: its fingerprint is 0123456789abcdef");
    assert_ok(ckpt_fingerprint(m->ckpt, p->model));
    assert_ok(plan_check(p, m));
    p->layer[0].n_experts = 7;
    assert_int_equal(plan_check(p, m), COE_E_INPUT);
    assert_error_has("made for 7 experts");
    plan_free(p);
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_again),
        cmocka_unit_test(every_mistake_is_named),
        cmocka_unit_test(a_plan_belongs_to_one_model),
    };
    return kernels_init() || cmocka_run_group_tests_name("plan/json", tests, NULL, NULL);
}
