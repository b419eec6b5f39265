/* `coe quantize` and `coe convert` to GGUF and back, on tiny models and on reference ones. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "ckpt/gguf.h"
#include "model/gguf_form.h"
#include "support/model_files.h"
#include "support/tiny_model.h"

static void a_file_turns_back_into_the_directory_it_came_from(void **state)
{
    (void)state;
    char model[1200], file[1200], back[1200], a[1300], b[1300];
    static const char *const names[] = { "model.safetensors", "tokenizer.json" };
    for (int bf16 = 0; bf16 < 2; bf16++) {
        keep(model, tiny_model("origin", &(struct tiny){ .bf16 = bf16 }));
        keep(file, temp_path("form.gguf"));
        keep(back, temp_path("back"));
        coe(0, COE_ARGS("convert", model, file));
        assert_same_logits(model, file);
        coe(0, COE_ARGS("convert", file, back));
        for (size_t i = 0; i < COE_COUNT(names); i++) {
            snprintf(a, sizeof a, "%s/%s", model, names[i]);
            snprintf(b, sizeof b, "%s/%s", back, names[i]);
            assert_same_file(a, b);
        }
        json_t *x, *y;
        snprintf(a, sizeof a, "%s/config.json", model);
        snprintf(b, sizeof b, "%s/config.json", back);
        assert_ok(json_read_file(&x, a));
        assert_ok(json_read_file(&y, b));
        assert_true(json_equal(x, y));
        json_decref(x);
        json_decref(y);
    }
}

/* Through llama.cpp's form (heads of neighbours, whole norms, fused experts) and through our own. */
static void check_family(const char *name)
{
    char file[1200], back[1200];
    char model[1200], relative[64];
    snprintf(relative, sizeof relative, "families/%s", name);
    need_fixture(relative);
    keep(model, fixture(relative));
    keep(file, temp_path("family.gguf"));
    keep(back, temp_path("family"));
    coe(0, COE_ARGS("convert", model, file));
    coe(0, COE_ARGS("convert", file, back));
    assert_same_logits(model, back);
}

static void llama_comes_back(void **state)
{
    (void)state;
    check_family("llama3");
}
static void mixtral_comes_back(void **state)
{
    (void)state;
    check_family("mixtral_fused");
}
static void gemma_comes_back(void **state)
{
    (void)state;
    check_family("gemma3_text");
}
static void deepseek_comes_back(void **state)
{
    (void)state;
    check_family("deepseek_v3");
}
static void jetmoe_comes_back(void **state)
{
    (void)state;
    check_family("jetmoe");
}
static void short_convolutions_come_back(void **state)
{
    (void)state;
    check_family("lfm2_moe");
}

/* Files of others carry no tokenizer.json: one is made from the metadata. */
static void a_file_of_another_program_becomes_a_directory_with_its_tokenizer(void **state)
{
    (void)state;
    static const char text[] = "Hello the world, it's us  and\n\nmore \xE2\x82\xAC 12345";
    char file[1200], dir[1200];
    need_fixture("gguf/mixtral");
    keep(file, fixture("gguf/mixtral/f32.gguf"));
    keep(dir, temp_path("foreign"));
    coe(0, COE_ARGS("convert", file, dir));
    struct ran a = run_coe(0, text, COE_ARGS("tokenize", file, "--json"));
    struct ran b = run_coe(0, text, COE_ARGS("tokenize", dir, "--json"));
    assert_string_equal(a.out, b.out);
    assert_true(a.n_out > 10);
    ran_free(&a);
    ran_free(&b);
}

static enum dtype type_in(const char *file, const char *tensor)
{
    struct ckpt *c;
    assert_ok(ckpt_open(&c, file));
    const struct tensor *t = ckpt_find(c, tensor);
    if (!t) fail_msg("%s has no tensor %s", file, tensor);
    const enum dtype type = t->type;
    ckpt_close(c);
    return type;
}

/* A tensor of the one holds the values of a tensor of the other. */
static void assert_same_values(const char *file, const char *tensor, const char *copy, const char *copied)
{
    struct ckpt *a, *b;
    assert_ok(ckpt_open(&a, file));
    assert_ok(ckpt_open(&b, copy));
    const struct tensor *t = ckpt_find(a, tensor), *u = ckpt_find(b, copied);
    if (!t || !u) fail_msg("%s or %s is missing", tensor, copied);
    const int64_t n = tensor_count(t);
    assert_int_equal(tensor_count(u), n);
    float *want = test_alloc((size_t)n * sizeof *want), *got = test_alloc((size_t)n * sizeof *got);
    widen(want, t->data, t->type, n);
    widen(got, u->data, u->type, n);
    assert_same_bits(copied, got, want, n);
    ckpt_close(a);
    ckpt_close(b);
}

static void routers_and_norms_stay_whole_and_the_rest_does_not(void **state)
{
    (void)state;
    char model[1200], file[1200];
    keep(model, tiny_model("plain", &(struct tiny){ .n_iterations = 1, .d_model = 64 }));
    keep(file, temp_path("q4.gguf"));
    coe(0, COE_ARGS("quantize", "q4_0", model, "-o", file, "--class", "attention=q8_0,embedding=f16"));
    assert_int_equal(type_in(file, "blk.0.ffn_gate_inp.weight"), DT_F32);
    assert_int_equal(type_in(file, "blk.0.attn_norm.weight"), DT_F32);
    assert_int_equal(type_in(file, "blk.1.attn_q.weight"), DT_Q8_0);
    assert_int_equal(type_in(file, "blk.1.ffn_up_exps.weight"), DT_Q4_0);
    assert_int_equal(type_in(file, "token_embd.weight"), DT_F16);
}

static void experts_of_several_types_lie_apart(void **state)
{
    (void)state;
    char model[1200], file[1200], copy[1200];
    keep(model, tiny_model("apart", NULL));
    keep(file, temp_path("mixed.gguf"));
    coe(0, COE_ARGS("quantize", "q4_0", model, "-o", file, "--expert", "0:1=q8_0", "1:*=f16"));
    assert_int_equal(type_in(file, "blk.0.ffn_up.0.weight"), DT_Q4_0);
    assert_int_equal(type_in(file, "blk.0.ffn_up.1.weight"), DT_Q8_0);
    assert_int_equal(type_in(file, "blk.1.ffn_up.5.weight"), DT_F16);
    keep(copy, temp_path("copy"));
    coe(0, COE_ARGS("convert", file, copy, "--dtype", "f32"));
    assert_same_values(file, "blk.0.ffn_up.0.weight", copy, "model.layers.0.mlp.experts.0.up_proj.weight");
    assert_same_values(file, "blk.0.ffn_up.1.weight", copy, "model.layers.0.mlp.experts.1.up_proj.weight");
    assert_same_values(file, "blk.1.ffn_up.5.weight", copy, "model.layers.1.mlp.experts.5.up_proj.weight");
}

static void a_dry_run_knows_the_size_to_the_byte(void **state)
{
    (void)state;
    char model[1200], file[1200];
    size_t n;
    keep(model, tiny_model("sized", NULL));
    keep(file, temp_path("sized.gguf"));
    struct ran dry = run_coe(0, NULL, COE_ARGS("quantize", "q5_1", model, "-o", file, "--dry-run", "--json"));
    json_t *o;
    assert_ok(json_read_text(&o, dry.out, dry.n_out, "stdout"));
    struct ran gone = run_coe(COE_E_INPUT, NULL, COE_ARGS("info", file));
    coe(0, COE_ARGS("quantize", "q5_1", model, "-o", file));
    free(slurp(file, &n));
    assert_int_equal(json_integer_value(json_object_get(o, "file_bytes")), n);
    json_decref(o);
    ran_free(&dry);
    ran_free(&gone);
}

/* The same weights from a trace and from the file that llama.cpp would read; other ones than without. */
static void importance_comes_from_a_trace_or_from_its_export(void **state)
{
    (void)state;
    char model[1200], text[1200], data[1300], trace[1200], exported[1200], a[1200], b[1200], c[1200];
    size_t n_a, n_c;
    keep(model, tiny_model("weighed", NULL));
    spill(keep(text, temp_path("text.txt")), tiny_text, strlen(tiny_text));
    snprintf(data, sizeof data, "text=%s", text);
    keep(trace, temp_path("t.coet"));
    keep(exported, temp_path("imatrix.gguf"));
    coe(0, COE_ARGS("trace", model, "--data", data, "-o", trace, "--export-imatrix", exported));
    coe(0, COE_ARGS("quantize", "q4_0", model, "-o", keep(a, temp_path("a.gguf")), "--imatrix", trace));
    coe(0, COE_ARGS("quantize", "q4_0", model, "-o", keep(b, temp_path("b.gguf")), "--imatrix", exported));
    coe(0, COE_ARGS("quantize", "q4_0", model, "-o", keep(c, temp_path("c.gguf"))));
    assert_same_file(a, b);
    unsigned char *x = slurp(a, &n_a), *y = slurp(c, &n_c);
    assert_int_equal(n_a, n_c);
    assert_true(memcmp(x, y, n_a) != 0);
    free(x);
    free(y);
}

static void refused(int status, const char *part, const char *const *args)
{
    struct ran r = run_coe(status, NULL, args);
    if (!strstr(r.err, part)) fail_msg("expected '%s' in: %s", part, r.err);
    ran_free(&r);
}

static void what_cannot_be_is_refused_with_its_reason(void **state)
{
    (void)state;
    char model[1200], out[1200], text[1200], data[1300], trace[1200], other[1200];
    keep(model, tiny_model("refused", NULL));
    keep(other, tiny_model("other", &(struct tiny){ .n_experts = 4 }));
    keep(out, temp_path("refused.gguf"));
    spill(keep(text, temp_path("text.txt")), tiny_text, strlen(tiny_text));
    snprintf(data, sizeof data, "text=%s", text);
    refused(COE_E_USAGE, "expected f32, f16", COE_ARGS("quantize", "q9", model, "-o", out));
    refused(COE_E_USAGE, "never quantised", COE_ARGS("quantize", "q8_0", model, "-o", out, "--class", "router=q8_0"));
    refused(COE_E_USAGE, "no such expert", COE_ARGS("quantize", "q8_0", model, "-o", out, "--expert", "0:99=f16"));
    refused(COE_E_USAGE, "LAYER:EXPERT", COE_ARGS("quantize", "q8_0", model, "-o", out, "--expert", "0=f16"));
    refused(COE_E_USAGE, "NAME.gguf", COE_ARGS("quantize", "q8_0", model, "-o", temp_path("directory")));
    refused(COE_E_USAGE, "for directories", COE_ARGS("convert", model, out, "--unfuse"));
    keep(trace, temp_path("plain.coet"));
    coe(0, COE_ARGS("trace", model, "--data", data, "-o", trace));
    refused(COE_E_INPUT, "has no importance", COE_ARGS("quantize", "q4_0", model, "-o", out, "--imatrix", trace));
    keep(trace, temp_path("other.coet"));
    coe(0, COE_ARGS("trace", other, "--data", data, "-o", trace, "--imatrix"));
    refused(COE_E_INPUT, "another model's", COE_ARGS("quantize", "q4_0", model, "-o", out, "--imatrix", trace));
    coe(0, COE_ARGS("quantize", "q8_0", model, "-o", out));
    refused(COE_E_INPUT, "no importance matrix",
            COE_ARGS("quantize", "q4_0", model, "-o", temp_path("next.gguf"), "--imatrix", out));
}

static char *ids_of(const char *model, const char *text)
{
    struct ran r = run_coe(0, text, COE_ARGS("tokenize", model, "--json"));
    char *ids = strdup(r.out);
    ran_free(&r);
    return ids;
}

static void assert_same_ids(const char *a, const char *b)
{
    static const char *const texts[] = { "Once upon a  time, there was a king.\n",
                                         "  H\xC3\xA9 said: \xE5\xA4\x9C 123 ", "<s>hi</s> <unk>\t" };
    for (size_t i = 0; i < COE_COUNT(texts); i++) {
        char *x = ids_of(a, texts[i]), *y = ids_of(b, texts[i]);
        assert_string_equal(x, y);
        free(x);
        free(y);
    }
}

/* The tiny model with another tokenizer file goes into GGUF and back. */
static void check_tokenizer(const char *name, const char *kind)
{
    char model[1200], file[1200], back[1200], a[1300], b[1300];
    keep(model, temp_path("spoken"));
    keep(file, temp_path("spoken.gguf"));
    keep(back, temp_path("spoken.back"));
    coe(0, COE_ARGS("convert", model, file));
    assert_true(key_is(file, "tokenizer.ggml.model", kind));
    assert_same_ids(model, file);
    coe(0, COE_ARGS("convert", file, back));
    snprintf(a, sizeof a, "%s/%s", model, name);
    snprintf(b, sizeof b, "%s/%s", back, name);
    assert_same_file(a, b);
}

static void a_unigram_vocabulary_comes_back(void **state)
{
    (void)state;
    char path[1300];
    snprintf(path, sizeof path, "%s/tokenizer.json",
             tiny_model("spoken", &(struct tiny){ .vocab = 500, .no_tokenizer = true }));
    coe(0, COE_ARGS("data", "tokenizer", "README.md", "--kind", "unigram", "--vocab", "450", "-o", path));
    check_tokenizer("tokenizer.json", "t5");
}

static void a_sentencepiece_file_comes_back(void **state)
{
    (void)state;
    static const char *const folder[][2] = { { "tokenizers/sp_bpe", "llama" }, { "tokenizers/sp_botchan", "t5" } };
    for (size_t i = 0; i < COE_COUNT(folder); i++) {
        char command[3000], packed[1300];
        need_fixture(folder[i][0]);
        const char *model = tiny_model("spoken", &(struct tiny){ .vocab = 40000, .no_tokenizer = true });
        snprintf(packed, sizeof packed, "%s/tokenizer.model.xz", fixture(folder[i][0]));
        if (!file_exists(packed)) skip();
        snprintf(command, sizeof command, "xz -dc %s > %s/tokenizer.model", packed, model);
        if (system(command)) skip(); /* no xz on this machine */
        check_tokenizer("tokenizer.model", folder[i][1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_turns_back_into_the_directory_it_came_from),
        cmocka_unit_test(llama_comes_back),
        cmocka_unit_test(mixtral_comes_back),
        cmocka_unit_test(gemma_comes_back),
        cmocka_unit_test(deepseek_comes_back),
        cmocka_unit_test(jetmoe_comes_back),
        cmocka_unit_test(short_convolutions_come_back),
        cmocka_unit_test(a_file_of_another_program_becomes_a_directory_with_its_tokenizer),
        cmocka_unit_test(routers_and_norms_stay_whole_and_the_rest_does_not),
        cmocka_unit_test(experts_of_several_types_lie_apart),
        cmocka_unit_test(a_dry_run_knows_the_size_to_the_byte),
        cmocka_unit_test(importance_comes_from_a_trace_or_from_its_export),
        cmocka_unit_test(a_unigram_vocabulary_comes_back),
        cmocka_unit_test(a_sentencepiece_file_comes_back),
        cmocka_unit_test(what_cannot_be_is_refused_with_its_reason),
    };
    return cmocka_run_group_tests_name("end-to-end/quantize", tests, NULL, NULL);
}
