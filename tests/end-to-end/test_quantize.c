/* `coe quantize` and `coe convert` to GGUF and back, on tiny models and on reference ones. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "ckpt/gguf.h"
#include "model/gguf_form.h"
#include "support/arrays.h"
#include "support/process.h"
#include "support/tiny_model.h"

#define N_IDS 20

static const char *keep(char buffer[1200], const char *path)
{
    snprintf(buffer, 1200, "%s", path);
    return buffer;
}

static void coe(int status, const char *const *args)
{
    struct ran r = run_coe(status, NULL, args);
    ran_free(&r);
}

static const char *ids_file(void)
{
    static char path[1200];
    int32_t ids[N_IDS];
    const int64_t dim[] = { N_IDS };
    for (int i = 0; i < N_IDS; i++) ids[i] = (i * 37 + 11) % 200 + 1;
    assert_ok(npy_write(keep(path, temp_path("ids.npy")), DT_I32, 1, dim, ids));
    return path;
}

static void assert_same_file(const char *a, const char *b)
{
    size_t n_a, n_b;
    unsigned char *x = slurp(a, &n_a), *y = slurp(b, &n_b);
    if (n_a != n_b || memcmp(x, y, n_a)) fail_msg("%s (%zu bytes) and %s (%zu bytes) differ", a, n_a, b, n_b);
    free(x);
    free(y);
}

static void assert_same_logits(const char *a, const char *b)
{
    char x[1200], y[1200];
    keep(x, temp_path("a.npy"));
    keep(y, temp_path("b.npy"));
    coe(0, COE_ARGS("logits", a, "--ids", ids_file(), "-o", x));
    coe(0, COE_ARGS("logits", b, "--ids", ids_file(), "-o", y));
    assert_same_file(x, y);
}

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

static bool key_is(const char *file, const char *key, const char *value)
{
    struct ckpt *c;
    struct gguf_text text = { 0 };
    assert_ok(ckpt_open(&c, file));
    assert_ok(gguf_str(ckpt_gguf(c), key, &text));
    const bool yes = text.n == strlen(value) && !memcmp(text.at, value, text.n);
    ckpt_close(c);
    return yes;
}

/* As a file of another program, which says everything in llama.cpp's keys: our own config is out of reach under another
 * name of the same length. */
static void hide_config(const char *file)
{
    size_t n;
    unsigned char *bytes = slurp(file, &n), *key = memmem(bytes, n, GGUF_KEY_CONFIG, strlen(GGUF_KEY_CONFIG));
    assert_non_null(key);
    key[0] = 'k';
    spill(file, bytes, n);
    free(bytes);
}

static void check_foreign_model(const char *model, const char *family, const char *arch)
{
    char file[1200], a[1200], b[1200];
    keep(file, temp_path("foreign.gguf"));
    keep(a, temp_path("a.npy"));
    keep(b, temp_path("b.npy"));
    coe(0, COE_ARGS("quantize", "f32", model, "-o", file));
    if (!key_is(file, "general.architecture", arch)) return; /* a config that llama.cpp would compute otherwise */
    hide_config(file);
    coe(0, COE_ARGS("logits", file, "--ids", ids_file(), "-o", a));
    coe(0, COE_ARGS("logits", model, "--ids", ids_file(), "-o", b));
    const struct array got = npy_array(a), want = npy_array(b);
    assert_close(family, got.f, want.f, want.n, 2e-6 * range_of(want.f, want.n), 0);
}

static void check_foreign(const char *family, const char *arch)
{
    char model[1200], relative[64];
    snprintf(relative, sizeof relative, "families/%s", family);
    need_fixture(relative);
    check_foreign_model(keep(model, fixture(relative)), family, arch);
}

/* The weights of a fixture under another config, which must be one that llama.cpp computes alike; takes the config. */
static void check_reconfigured(const char *family, const char *arch, json_t *config)
{
    char model[1200], path[1300], relative[96];
    size_t n;
    keep(model, temp_path(family));
    assert_ok(dir_make(model));
    snprintf(relative, sizeof relative, "families/%s/model.safetensors", family);
    unsigned char *weights = slurp(fixture(relative), &n);
    snprintf(path, sizeof path, "%s/model.safetensors", model);
    spill(path, weights, n);
    free(weights);
    char *text = json_dumps(config, 0);
    snprintf(path, sizeof path, "%s/config.json", model);
    spill(path, text, strlen(text));
    free(text);
    json_decref(config);
    snprintf(path, sizeof path, "%s.gguf", model);
    coe(0, COE_ARGS("quantize", "f32", model, "-o", path));
    assert_true(key_is(path, "general.architecture", arch));
    check_foreign_model(model, family, arch);
}

/* The fixtures have chunks short enough to be seen; llama.cpp knows those of the released models only. */
static void check_llama4(const char *family)
{
    char relative[64];
    json_t *config;
    snprintf(relative, sizeof relative, "families/%s/config.json", family);
    need_fixture(relative);
    assert_ok(json_read_file(&config, fixture(relative)));
    json_t *text = json_object_get(config, "text_config");
    if (!text) text = config;
    json_object_set_new(text, "attention_chunk_size", json_integer(8192));
    json_object_set_new(text, "floor_scale", json_integer(8192));
    json_object_set_new(text, "use_qk_norm", json_boolean(true));
    check_reconfigured(family, "llama4", config);
}

static void llama_4_with_the_released_constants_is_the_same_model(void **state)
{
    (void)state;
    check_llama4("llama4_text");
    check_llama4("llama4");
}

/* Dimensions of the first filter: blk.L.shortconv.conv.weight, model.layers.L.conv.conv.weight. */
static int filter_dims(const char *path, const char *format)
{
    struct ckpt *c;
    char name[64];
    int n = 0;
    assert_ok(ckpt_open(&c, path));
    for (int l = 0; l < 8 && !n; l++) {
        snprintf(name, sizeof name, format, l);
        const struct tensor *t = ckpt_find(c, name);
        if (t) n = t->n_dims;
    }
    ckpt_close(c);
    return n;
}

static void filters_lose_their_dimension_of_one_and_get_it_back(void **state)
{
    (void)state;
    char model[1200], file[1200], back[1200];
    need_fixture("families/lfm2_moe");
    keep(model, fixture("families/lfm2_moe"));
    keep(file, temp_path("filters.gguf"));
    keep(back, temp_path("filters"));
    coe(0, COE_ARGS("convert", model, file));
    coe(0, COE_ARGS("convert", file, back));
    assert_true(key_is(file, "general.architecture", "lfm2moe"));
    assert_int_equal(filter_dims(file, "blk.%d.shortconv.conv.weight"), 2);
    assert_int_equal(filter_dims(back, "model.layers.%d.conv.conv.weight"), 3);
    assert_same_logits(model, back);
}

static const struct tensor *find_for_layer(const struct ckpt *c, const char *layer_name, int l)
{
    char name[96];
    snprintf(name, sizeof name, layer_name, l);
    return ckpt_find(c, name);
}

/* The file as converters of 2025 wrote it: the projections of the delta rule in one tensor, in the directory's order. */
static void join_projections(const char *from, const char *model, const char *out)
{
    struct ckpt *c, *dir;
    struct gguf_out meta = { 0 };
    assert_ok(ckpt_open(&c, from));
    assert_ok(ckpt_open(&dir, model));
    const struct gguf *g = ckpt_gguf(c);
    for (size_t i = 0; i < g->n; i++) gguf_add_value(&meta, &g->at[i]);
    struct ckpt_item *item = test_alloc(ckpt_count(c) * sizeof *item);
    size_t n = 0, joined = 0;
    for (size_t i = 0; i < ckpt_count(c); i++) {
        const struct tensor *t = ckpt_at(c, i);
        char *name;
        int l = 0, end = 0;
        (void)sscanf(t->name, "blk.%d.attn_%n", &l, &end);
        const struct tensor *whole = find_for_layer(dir, "model.layers.%d.linear_attn.in_proj_qkvz.weight", l);
        const char *part = end && whole ? t->name + end : "";
        if (!strcmp(part, "gate.weight")) continue;
        item[n].t = *t;
        if (!strcmp(part, "qkv.weight")) {
            item[n].t = *whole, joined++;
            item[n].t.name = name = test_alloc(32);
            snprintf(name, 32, "blk.%d.ssm_in.weight", l);
        }
        n++;
    }
    assert_true(joined > 0);
    assert_ok(gguf_write(out, &meta, item, n));
    gguf_out_free(&meta);
    ckpt_close(c);
    ckpt_close(dir);
}

static void both_forms_of_the_delta_rule_s_projections_are_the_same_model(void **state)
{
    (void)state;
    char model[1200], file[1200], old[1200], back[1200];
    need_fixture("families/qwen3_next");
    keep(model, fixture("families/qwen3_next"));
    keep(file, temp_path("next.gguf"));
    keep(old, temp_path("next.old.gguf"));
    coe(0, COE_ARGS("convert", model, file));
    if (!key_is(file, "general.architecture", "qwen3next")) return; /* heads that llama.cpp cannot have */
    assert_same_logits(model, file);
    hide_config(file);
    join_projections(file, model, old);
    assert_same_logits(model, old);
    for (int form = 0; form < 2; form++) {
        keep(back, temp_path(form ? "next.old" : "next"));
        coe(0, COE_ARGS("convert", form ? old : file, back));
        assert_same_logits(model, back);
        struct ckpt *a, *b;
        assert_ok(ckpt_open(&a, model));
        assert_ok(ckpt_open(&b, back));
        for (int l = 0; l < 4; l++) {
            const struct tensor *x = find_for_layer(a, "model.layers.%d.linear_attn.in_proj_qkvz.weight", l);
            const struct tensor *y = find_for_layer(b, "model.layers.%d.linear_attn.in_proj_qkvz.weight", l);
            assert_true(!x == !y);
            if (!x) continue;
            uint64_t bytes = 0;
            assert_true(x->type == y->type && dtype_bytes(x->type, (uint64_t)tensor_count(x), &bytes));
            assert_int_equal(tensor_count(x), tensor_count(y));
            assert_memory_equal(x->data, y->data, bytes);
            assert_non_null(find_for_layer(b, "model.layers.%d.linear_attn.out_proj.weight", l));
        }
        ckpt_close(a);
        ckpt_close(b);
    }
}

static void poke(const char *file, const char *text, size_t at, unsigned char value)
{
    size_t n;
    unsigned char *bytes = slurp(file, &n), *found = memmem(bytes, n, text, strlen(text));
    assert_non_null(found);
    found[at] = value;
    spill(file, bytes, n);
    free(bytes);
}

/* Values of 32 bits stand behind the key and four bytes of type; of a list behind its type and 64 bits of length. */
static void lfm2_files_that_cannot_be_are_refused_by_name(void **state)
{
    (void)state;
    static const char gating[] = "lfm2moe.expert_gating_func", heads[] = "lfm2moe.attention.head_count_kv";
    static const struct {
        const char *key;
        size_t skip;
        unsigned char value;
        const char *message;
    } bad[] = { { gating, 4, 1, "lfm2moe.expert_gating_func is 1, expected 2" },
                { "lfm2moe.block_count", 4, 77, "block_count is 77" },
                { heads, 16, 113, "another layer has" } };
    need_fixture("families/lfm2_moe");
    for (size_t i = 0; i < COE_COUNT(bad); i++) {
        char model[1200], file[1200];
        keep(model, fixture("families/lfm2_moe"));
        keep(file, temp_path("bad.gguf"));
        coe(0, COE_ARGS("convert", model, file));
        hide_config(file);
        poke(file, bad[i].key, strlen(bad[i].key) + bad[i].skip, bad[i].value);
        struct ran r = run_coe(3, NULL, COE_ARGS("logits", file, "--ids", ids_file(), "-o", temp_path("x.npy")));
        if (!strstr(r.err, bad[i].message)) fail_msg("%s: %s", bad[i].key, r.err);
        ran_free(&r);
    }
}

/* Trinity's fixture has a full layer every three, llama.cpp's architecture every four: the same weights under a config
 * of that order. */
static void trinity_in_llama_cpp_s_order_of_layers_is_the_same_model(void **state)
{
    (void)state;
    json_t *config;
    need_fixture("families/afmoe");
    assert_ok(json_read_file(&config, fixture("families/afmoe/config.json")));
    json_object_del(config, "layer_types");
    json_object_set_new(config, "global_attn_every_n_layers", json_integer(4));
    check_reconfigured("afmoe", "afmoe", config);
}

static void files_in_llama_cpp_s_keys_alone_are_the_same_models(void **state)
{
    (void)state;
    static const char *const known[][2] = { { "granitemoe", "granitemoe" },     { "glm4_moe", "glm4moe" },
                                            { "minimax_m2", "minimax-m2" },     { "hunyuan_v1_moe", "hunyuan-moe" },
                                            { "ernie4_5_moe", "ernie4_5-moe" }, { "dots1", "dots1" },
                                            { "lfm2_moe", "lfm2moe" },      { "qwen3_next", "qwen3next" },
                                            { "qwen3_moe", "qwen3moe" } };
    for (size_t i = 0; i < COE_COUNT(known); i++) check_foreign(known[i][0], known[i][1]);
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
        cmocka_unit_test(files_in_llama_cpp_s_keys_alone_are_the_same_models),
        cmocka_unit_test(filters_lose_their_dimension_of_one_and_get_it_back),
        cmocka_unit_test(lfm2_files_that_cannot_be_are_refused_by_name),
        cmocka_unit_test(llama_4_with_the_released_constants_is_the_same_model),
        cmocka_unit_test(both_forms_of_the_delta_rule_s_projections_are_the_same_model),
        cmocka_unit_test(trinity_in_llama_cpp_s_order_of_layers_is_the_same_model),
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
