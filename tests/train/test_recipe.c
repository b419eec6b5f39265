/* Recipes: what is read, what is refused and with which message. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "support/tiny_train.h"

#define MODEL "model: { init: m }\n"
#define DATA "data: { train: text.txt }\n"
#define TRAIN "train: { lr: 0.01 }\n"
#define OUTPUT "output: o\n"

static coe_status read_text(struct recipe *r, const char *text)
{
    return recipe_read_text(r, text, strlen(text), "r.yaml");
}

static void refused(const char *text, const char *message)
{
    struct recipe r;
    const coe_status s = read_text(&r, text);
    if (s != COE_E_INPUT) fail_msg("status %d for:\n%s\nexpected %d (%s)", (int)s, text, COE_E_INPUT, message);
    assert_error_has("r.yaml");
    assert_error_has(message);
    assert_null(r.doc);
}

static void a_short_recipe_gets_the_documented_defaults(void **state)
{
    (void)state;
    struct recipe r;
    assert_ok(read_text(&r, MODEL DATA TRAIN OUTPUT));
    assert_string_equal(r.init, "m");
    assert_string_equal(r.tokenizer, "m");
    assert_string_equal(r.train[0].path, "text.txt");
    assert_string_equal(r.train[0].label, "text.txt");
    assert_int_equal(r.sequence, 256);
    assert_true(r.boundaries);
    assert_int_equal(r.steps, 1000);
    assert_int_equal(r.batch, 16);
    assert_int_equal(r.micro_batch, 16);
    assert_true(r.lr == 0.01 && r.min_lr == 0.001 && r.clip == 1 && r.weight_decay == 0.1);
    assert_int_equal(r.schedule, SCHEDULE_COSINE);
    assert_int_equal(r.dtype, DT_BF16);
    recipe_free(&r);
}

static void every_key_arrives(void **state)
{
    (void)state;
    struct recipe r;
    assert_ok(read_text(&r,
                        "about: a test\n"
                        "model: { config: { hidden_size: 8 }, init_std: 0.5 }\n"
                        "tokenizer: t.json\n"
                        "data: { train: [ x=a.txt, { path: d/b.jsonl, label: y, field: '{q} {a}' }, ./k=v.txt ],\n"
                        "        valid: z=c.txt, sequence: 8, boundaries: false }\n"
                        "train: { steps: 7, batch: 6, micro_batch: 3, lr: 0.5, min_lr: 0.25, warmup: 2,\n"
                        "         schedule: linear, beta1: 0.1, beta2: 0.2, eps: 0.3, weight_decay: 0.4, clip: 0.6,\n"
                        "         dropout: 0.7, z_loss: 0.8, seed: 9, eval_every: 11, eval_tokens: 12,\n"
                        "         save_every: 13, log_every: 14, dtype: f16 }\n" OUTPUT));
    assert_true(r.config && !r.init);
    assert_true(r.init_std == 0.5);
    assert_string_equal(r.tokenizer, "t.json");
    assert_int_equal(r.n_train, 3);
    assert_string_equal(r.train[0].label, "x");
    assert_string_equal(r.train[0].path, "a.txt");
    assert_string_equal(r.train[1].label, "y");
    assert_string_equal(r.train[1].field, "{q} {a}");
    assert_string_equal(r.train[2].path, "./k=v.txt"); /* a slash before the sign: no label */
    assert_string_equal(r.train[2].label, "k=v.txt");
    assert_int_equal(r.n_valid, 1);
    assert_string_equal(r.valid[0].label, "z");
    assert_true(r.sequence == 8 && !r.boundaries);
    assert_true(r.steps == 7 && r.batch == 6 && r.micro_batch == 3 && r.warmup == 2 && r.schedule == SCHEDULE_LINEAR);
    assert_true(r.lr == 0.5 && r.min_lr == 0.25 && r.beta1 == 0.1 && r.beta2 == 0.2 && r.eps == 0.3);
    assert_true(r.weight_decay == 0.4 && r.clip == 0.6 && r.dropout == 0.7 && r.z_loss == 0.8 && r.seed == 9);
    assert_true(r.eval_every == 11 && r.eval_tokens == 12 && r.save_every == 13 && r.log_every == 14);
    assert_int_equal(r.dtype, DT_F16);
    recipe_free(&r);
}

static void unknown_keys_are_named_with_their_section(void **state)
{
    (void)state;
    refused(MODEL DATA TRAIN OUTPUT "colour: red\n", "unknown key 'colour'");
    refused("model: { init: m, size: 3 }\n" DATA TRAIN OUTPUT, "model: unknown key 'size'");
    refused(MODEL "data: { train: a, file: b }\n" TRAIN OUTPUT, "data: unknown key 'file'");
    refused(MODEL "data: { train: { path: a, name: b } }\n" TRAIN OUTPUT, "data.train: unknown key 'name'");
    refused(MODEL DATA "train: { step: 3 }\n" OUTPUT, "train: unknown key 'step'");
}

static void missing_sections_are_named(void **state)
{
    (void)state;
    refused(DATA TRAIN OUTPUT, "model is missing");
    refused(MODEL TRAIN OUTPUT, "data is missing");
    refused(MODEL DATA OUTPUT, "train is missing");
    refused(MODEL DATA TRAIN, "output is missing");
    refused("model: { config: {} }\n" DATA TRAIN OUTPUT, "tokenizer is missing");
    refused(MODEL "data: { sequence: 8 }\n" TRAIN OUTPUT, "data.train names no file");
    refused("", "");
    refused("42\n", "expected an object");
}

static void contradictions_are_refused(void **state)
{
    (void)state;
    refused("model: {}\n" DATA TRAIN OUTPUT, "either config");
    refused("model: { init: m, config: {} }\n" DATA TRAIN OUTPUT, "either config");
    refused(MODEL "data: { train: a, valid: b, hold_out_last: 1 }\n" TRAIN OUTPUT, "exclude each other");
    refused(MODEL DATA "train: { batch: 6, micro_batch: 4 }\n" OUTPUT, "not a multiple of micro_batch 4");
    refused(MODEL DATA "train: { lr: 0.1, min_lr: 0.2 }\n" OUTPUT, "min_lr is 0.2");
}

static void numbers_out_of_range_are_named(void **state)
{
    (void)state;
    refused(MODEL DATA "train: { steps: 0 }\n" OUTPUT, "steps");
    refused(MODEL DATA "train: { lr: -1 }\n" OUTPUT, "lr is -1");
    refused(MODEL DATA "train: { lr: .nan }\n" OUTPUT, "lr");
    refused(MODEL DATA "train: { lr: fast }\n" OUTPUT, "lr is a string");
    refused(MODEL DATA "train: { dropout: 1 }\n" OUTPUT, "dropout is 1");
    refused(MODEL DATA "train: { beta2: 1 }\n" OUTPUT, "beta2 is 1");
    refused(MODEL DATA "train: { schedule: stairs }\n" OUTPUT, "schedule 'stairs' is unknown");
    refused(MODEL DATA "train: { dtype: q4_0 }\n" OUTPUT, "dtype 'q4_0' is unknown");
    refused(MODEL DATA "train: { seed: -1 }\n" OUTPUT, "seed");
    refused("model: { init: m, init_std: 0 }\n" DATA TRAIN OUTPUT, "init_std 0");
    refused(MODEL "data: { train: a, sequence: 1 }\n" TRAIN OUTPUT, "sequence");
    refused(MODEL "data: { train: a, sequence: 1048576 }\ntrain: { batch: 17 }\n" OUTPUT, "more than 16777216 tokens");
    refused(MODEL "data: { train: [ 3 ] }\n" TRAIN OUTPUT, "data.train");
}

static void damaged_yaml_is_refused_with_its_line(void **state)
{
    (void)state;
    refused(MODEL "data: { train: [ a\n" TRAIN, "r.yaml:");
    refused(MODEL DATA TRAIN TRAIN OUTPUT, "line 4 column 1");
}

static void a_missing_file_is_named(void **state)
{
    (void)state;
    struct recipe r;
    assert_int_equal(recipe_read(&r, temp_path("nowhere.yaml")), COE_E_INPUT);
    assert_error_has("nowhere.yaml");
}

static void every_truncation_of_a_recipe_is_read_or_refused(void **state)
{
    (void)state;
    const char *text = tiny_recipe_text(&(struct tiny_recipe){ 0 });
    for (size_t n = 0; n < strlen(text); n++) {
        struct recipe r;
        char *copy = malloc(n ? n : 1); /* its own block, so that a read behind it is seen */
        memcpy(copy, text, n);
        const coe_status s = recipe_read_text(&r, copy, n, "r.yaml");
        free(copy);
        if (s && s != COE_E_INPUT) fail_msg("status %d for the first %zu bytes: %s", (int)s, n, coe_error());
        if (!s) recipe_free(&r);
    }
}

static void a_recipe_extends_another_member_by_member(void **state)
{
    (void)state;
    struct recipe r;
    char text[900];
    const char *base = temp_path("base.yaml");
    static const char base_text[] =
        "model: { config: { hidden_size: 8, coe: { top_k: 2, losses: [ { kind: z } ] } } }\n"
        "tokenizer: t.json\ndata: { train: a.txt, valid: b.txt }\n"
        "train: { steps: 7, batch: 4 }\noutput: there\n";
    spill(base, base_text, strlen(base_text));
    snprintf(text, sizeof text,
             "extends: %s\nclaim: it learns\nagainst: plain\nmodel: { config: { coe: { losses: [], scale: 2 } } }\n"
             "data: { valid: null }\ntrain: { batch: 6 }\noutput: here\n",
             base);
    assert_ok(recipe_read_text(&r, text, strlen(text), "over.yaml"));
    assert_string_equal(r.output, "here");
    assert_int_equal(r.n_valid, 0);
    assert_true(r.steps == 7 && r.batch == 6);
    const json_t *coe = json_object_get(r.config, "coe");
    assert_int_equal(json_integer_value(json_object_get(coe, "top_k")), 2);
    assert_int_equal(json_array_size(json_object_get(coe, "losses")), 0);
    assert_int_equal(json_integer_value(json_object_get(coe, "scale")), 2);
    recipe_free(&r);
}

static void a_recipe_that_extends_itself_or_nothing_is_refused(void **state)
{
    (void)state;
    struct recipe r;
    char text[700];
    const char *loop = temp_path("loop.yaml");
    snprintf(text, sizeof text, "extends: %s\n", loop);
    spill(loop, text, strlen(text));
    assert_int_equal(recipe_read(&r, loop), COE_E_INPUT);
    assert_error_has("extend one another");
    static const char none[] = "extends: /nowhere/base.yaml\n", list[] = "extends: [a]\n";
    assert_true(recipe_read_text(&r, none, strlen(none), "none.yaml") != COE_OK);
    assert_error_has("/nowhere/base.yaml");
    assert_int_equal(recipe_read_text(&r, list, strlen(list), "list.yaml"), COE_E_INPUT);
    assert_error_has("extends is an array");
}

static void check_folder(const char *folder, int *n)
{
    struct file_list files = { 0 };
    assert_ok(dir_list(&files, folder));
    for (size_t i = 0; i < files.n; i++) {
        const size_t length = strlen(files.name[i]);
        char path[700], where[64];
        struct recipe r;
        struct spec spec;
        struct arena arena = { 0 };
        if (length < 5 || strcmp(files.name[i] + length - 5, ".yaml")) continue;
        snprintf(path, sizeof path, "%s/%s", folder, files.name[i]);
        assert_ok(recipe_read(&r, path));
        json_t *config = json_deep_copy(r.config);
        json_object_set_new(config, "vocab_size", json_integer(64));
        snprintf(where, sizeof where, "%.60s", files.name[i]);
        assert_ok(spec_read(&spec, &arena, config, where));
        json_decref(config);
        arena_free(&arena);
        recipe_free(&r);
        ++*n;
    }
    file_list_free(&files);
}

/* Each names a network that there is; the texts are looked for when it is trained. */
static void the_comparisons_of_the_house_are_read(void **state)
{
    (void)state;
    int n = 0;
    if (!dir_exists("recipes/claims")) skip();
    check_folder("recipes/claims", &n);
    check_folder("recipes/claims/baselines", &n);
    assert_true(n > 45);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_short_recipe_gets_the_documented_defaults),
        cmocka_unit_test(every_key_arrives),
        cmocka_unit_test(unknown_keys_are_named_with_their_section),
        cmocka_unit_test(missing_sections_are_named),
        cmocka_unit_test(contradictions_are_refused),
        cmocka_unit_test(numbers_out_of_range_are_named),
        cmocka_unit_test(damaged_yaml_is_refused_with_its_line),
        cmocka_unit_test(a_missing_file_is_named),
        cmocka_unit_test(every_truncation_of_a_recipe_is_read_or_refused),
        cmocka_unit_test(a_recipe_extends_another_member_by_member),
        cmocka_unit_test(a_recipe_that_extends_itself_or_nothing_is_refused),
        cmocka_unit_test(the_comparisons_of_the_house_are_read),
    };
    return cmocka_run_group_tests_name("train/recipe", tests, NULL, NULL);
}
