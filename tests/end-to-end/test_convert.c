/* `coe convert`: what must keep its bits keeps them. Compared through `coe logits`, on reference models and on tiny
 * ones. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "ckpt/ckpt.h"
#include "support/process.h"
#include "support/tiny_model.h"

#define N_IDS 20

static const char *ids_file(void)
{
    static char path[1200];
    int32_t ids[N_IDS];
    const int64_t dim[] = { N_IDS };
    for (int i = 0; i < N_IDS; i++) ids[i] = (i * 37 + 11) % 200 + 1;
    snprintf(path, sizeof path, "%s", temp_path("ids.npy"));
    assert_ok(npy_write(path, DT_I32, 1, dim, ids));
    return path;
}

/* rule: of --route, or NULL */
static unsigned char *logits_by(const char *model, const char *rule, size_t *n)
{
    char out[1200];
    snprintf(out, sizeof out, "%s", temp_path("logits.npy"));
    struct ran r =
        run_coe(0, NULL, COE_ARGS("logits", model, "--ids", ids_file(), "-o", out, rule ? "--route" : NULL, rule));
    ran_free(&r);
    return slurp(out, n);
}

static unsigned char *logits_of(const char *model, size_t *n) { return logits_by(model, NULL, n); }

static void assert_same_logits(const char *a, const char *b)
{
    size_t n_a, n_b;
    unsigned char *x = logits_of(a, &n_a), *y = logits_of(b, &n_b);
    if (n_a != n_b || memcmp(x, y, n_a)) fail_msg("%s and %s do not compute the same bits", a, b);
    free(x);
    free(y);
}

/* Converts with two further options (NULL: none), compares with the original. */
static void check_exact(const char *path, const char *a, const char *b, const char *c, const char *d)
{
    char model[1200], out[1200];
    snprintf(model, sizeof model, "%s", path);
    snprintf(out, sizeof out, "%s", temp_path("converted"));
    struct ran r = run_coe(0, NULL, (const char *const[]){ "convert", model, out, a, b, c, d, NULL });
    ran_free(&r);
    assert_same_logits(model, out);
}

static void chains_compute_the_bits_of(const char *fixture_name)
{
    need_fixture(fixture_name);
    check_exact(fixture(fixture_name), "--chain", "2", NULL, NULL);
    check_exact(fixture(fixture_name), "--chain", "3", "--gate", "shared");
    check_exact(fixture(fixture_name), "--chain=2", "--unfuse", NULL, NULL);
}

static void a_chain_around_mixtral_is_exact(void **state)
{
    (void)state;
    chains_compute_the_bits_of("families/mixtral");
}

static void a_chain_around_olmoe_is_exact(void **state)
{
    (void)state;
    chains_compute_the_bits_of("families/olmoe");
}

/* Families whose files know no chain: gpt-oss has biases and router.weight, Granite fused experts, JetMoE experts in
 * its attention too, which stay as they are. */
static void a_chain_around_any_family_is_exact(void **state)
{
    (void)state;
    static const char *const folder[] = { "families/gpt_oss", "families/granitemoe", "families/jetmoe",
                                          "families/deepseek_v3_fp8" };
    for (size_t i = 0; i < COE_COUNT(folder); i++) {
        need_fixture(folder[i]);
        check_exact(fixture(folder[i]), "--chain", "2", NULL, NULL);
    }
}

static void fused_experts_and_separate_ones_are_the_same_model(void **state)
{
    (void)state;
    need_fixture("families/mixtral");
    need_fixture("families/mixtral_fused");
    check_exact(fixture("families/mixtral"), "--fuse", NULL, NULL, NULL);
    check_exact(fixture("families/mixtral_fused"), "--unfuse", NULL, NULL, NULL);
    check_exact(fixture("families/mixtral_fused"), "--chain", "2", NULL, NULL);
    check_exact(fixture("families/olmoe"), "--fuse", "--shard-size", "40k", NULL);
}

/* What --route says for one command, --router says for good. */
static void a_rule_that_is_written_into_a_model_computes_what_it_computes_live(void **state)
{
    (void)state;
    static const char *const rule[] = { "linear(temperature=1.5)", "similarity(temperature=2), top_k=1",
                                        "top_p=0.4, renormalize=yes" };
    char model[1200], out[1200];
    snprintf(model, sizeof model, "%s", tiny_model("rule", &(struct tiny){ 0 }));
    for (size_t i = 0; i < COE_COUNT(rule); i++) {
        size_t n, n_live, n_plain;
        snprintf(out, sizeof out, "%s", temp_path("by-rule"));
        struct ran r = run_coe(0, NULL, COE_ARGS("convert", model, out, "--router", rule[i]));
        ran_free(&r);
        unsigned char *written = logits_of(out, &n), *live = logits_by(model, rule[i], &n_live),
                      *plain = logits_of(model, &n_plain);
        if (n != n_live || memcmp(written, live, n)) fail_msg("'%s' written and live are not the same bits", rule[i]);
        if (n == n_plain && !memcmp(written, plain, n)) fail_msg("'%s' changed nothing", rule[i]);
        free(written), free(live), free(plain);
    }
    struct ran r = run_coe(COE_E_USAGE, NULL, COE_ARGS("convert", model, out, "--router", "gru(width=8)"));
    assert_non_null(strstr(r.err, "gru"));
    ran_free(&r);
    r = run_coe(COE_E_USAGE, NULL, COE_ARGS("convert", model, out, "--router", "linear(temperature=0)"));
    assert_non_null(strstr(r.err, "with --router 'linear(temperature=0)'"));
    ran_free(&r);
}

static void a_wider_type_loses_nothing_and_coming_back_neither(void **state)
{
    (void)state;
    char wide[1200], back[1200];
    char model[1200];
    snprintf(model, sizeof model, "%s", tiny_model("bf16", &(struct tiny){ .bf16 = true }));
    snprintf(wide, sizeof wide, "%s", temp_path("wide"));
    snprintf(back, sizeof back, "%s", temp_path("back"));
    struct ran a = run_coe(0, NULL, COE_ARGS("convert", model, wide, "--dtype", "f32"));
    struct ran b = run_coe(0, NULL, COE_ARGS("convert", wide, back, "--dtype", "bf16"));
    assert_same_logits(model, wide);
    char file_a[1300], file_b[1300];
    size_t n_a, n_b;
    snprintf(file_a, sizeof file_a, "%s/model.safetensors", model);
    snprintf(file_b, sizeof file_b, "%s/model.safetensors", back);
    unsigned char *x = slurp(file_a, &n_a), *y = slurp(file_b, &n_b);
    assert_int_equal(n_a, n_b);
    assert_memory_equal(x, y, n_a);
    free(x);
    free(y);
    ran_free(&a);
    ran_free(&b);
}

static void the_tokenizer_goes_along_and_the_config_names_the_chain(void **state)
{
    (void)state;
    char out[1200], path[1300];
    json_t *config = NULL;
    const char *model = tiny_model("plain", &(struct tiny){ .n_iterations = 1 });
    snprintf(out, sizeof out, "%s", temp_path("chain"));
    struct ran r = run_coe(0, NULL, COE_ARGS("convert", model, out, "--chain", "4", "--dtype", "f16"));
    snprintf(path, sizeof path, "%s/config.json", out);
    assert_ok(json_read_file(&config, path));
    const json_t *chain = json_object_get(json_object_get(config, "coe"), "chain");
    assert_int_equal(json_integer_value(json_object_get(chain, "iterations")), 4);
    assert_string_equal(json_string_value(json_object_get(chain, "weight")), "learned");
    assert_string_equal(json_string_value(json_object_get(config, "torch_dtype")), "float16");
    struct ran text = run_coe(0, NULL, COE_ARGS("run", out, "-p", "the king", "-n", "3"));
    json_decref(config);
    ran_free(&r);
    ran_free(&text);
}

static void a_dry_run_tells_the_size_and_writes_nothing(void **state)
{
    (void)state;
    char out[1200];
    json_t *o = NULL;
    const char *model = tiny_model("f32", NULL);
    snprintf(out, sizeof out, "%s", temp_path("not-there"));
    struct ran r = run_coe(0, NULL, COE_ARGS("convert", model, out, "--dtype", "bf16", "--dry-run", "--json"));
    assert_ok(json_read_text(&o, r.out, r.n_out, "stdout"));
    assert_int_equal(2 * json_integer_value(json_object_get(o, "bytes")),
                     json_integer_value(json_object_get(o, "bytes_before")));
    struct ran gone = run_coe(COE_E_INPUT, NULL, COE_ARGS("info", out));
    json_decref(o);
    ran_free(&r);
    ran_free(&gone);
}

static void what_cannot_be_is_refused_with_its_reason(void **state)
{
    (void)state;
    char model[1200];
    snprintf(model, sizeof model, "%s", tiny_model("chained", NULL));
    struct ran twice = run_coe(COE_E_USAGE, NULL, COE_ARGS("convert", model, temp_path("x"), "--chain", "2"));
    assert_non_null(strstr(twice.err, "chain of 2 already"));
    struct ran fuse = run_coe(COE_E_USAGE, NULL, COE_ARGS("convert", model, temp_path("x"), "--fuse"));
    assert_non_null(strstr(fuse.err, "no fused form"));
    struct ran self = run_coe(COE_E_USAGE, NULL, COE_ARGS("convert", model, model));
    assert_non_null(strstr(self.err, "is the model itself"));
    spill(temp_path("file"), "x", 1);
    struct ran file = run_coe(COE_E_USAGE, NULL, COE_ARGS("convert", model, temp_path("file")));
    struct ran type = run_coe(COE_E_USAGE, NULL, COE_ARGS("convert", model, temp_path("x"), "--dtype", "f8"));
    struct ran disk = run_coe(COE_E_FAILED, NULL, COE_ARGS("convert", model, "/proc/nowhere/x"));
    ran_free(&twice);
    ran_free(&fuse);
    ran_free(&self);
    ran_free(&file);
    ran_free(&type);
    ran_free(&disk);
}

static void a_directory_of_other_files_is_never_replaced(void **state)
{
    (void)state;
    char model[1200], dir[1200], file[1300];
    size_t n;
    snprintf(model, sizeof model, "%s", tiny_model("source", NULL));
    snprintf(dir, sizeof dir, "%s", tiny_model("letters", &(struct tiny){ .no_tokenizer = true }));
    snprintf(file, sizeof file, "%s/config.json", dir);
    assert_int_equal(remove(file), 0);
    struct ran r = run_coe(COE_E_USAGE, NULL, COE_ARGS("convert", model, dir));
    assert_non_null(strstr(r.err, "no model"));
    snprintf(file, sizeof file, "%s/model.safetensors", dir);
    free(slurp(file, &n));
    ran_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chain_around_mixtral_is_exact),
        cmocka_unit_test(a_chain_around_olmoe_is_exact),
        cmocka_unit_test(a_chain_around_any_family_is_exact),
        cmocka_unit_test(fused_experts_and_separate_ones_are_the_same_model),
        cmocka_unit_test(a_rule_that_is_written_into_a_model_computes_what_it_computes_live),
        cmocka_unit_test(a_wider_type_loses_nothing_and_coming_back_neither),
        cmocka_unit_test(the_tokenizer_goes_along_and_the_config_names_the_chain),
        cmocka_unit_test(a_dry_run_tells_the_size_and_writes_nothing),
        cmocka_unit_test(what_cannot_be_is_refused_with_its_reason),
        cmocka_unit_test(a_directory_of_other_files_is_never_replaced),
    };
    return cmocka_run_group_tests_name("end-to-end/convert", tests, NULL, NULL);
}
