/* Families in the form of llama.cpp: files that say everything in its keys are the models they came from. */
#include <stdio.h>

#include "base/file.h"
#include "base/json.h"
#include "model/gguf_form.h"
#include "support/model_files.h"

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

/* The file as converters of 2025 wrote it: the delta rule's projections in one tensor, in the directory's order. */
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

static json_t *info_of(const char *path)
{
    struct ran r = run_coe(0, NULL, COE_ARGS("info", path, "--json", "--tensors"));
    json_t *o = json_loads(r.out, 0, NULL);
    assert_non_null(o);
    ran_free(&r);
    return o;
}

/* From the same code: the parameters of the directory, its own types and tensors, and what only a file has. */
static void info_describes_a_file_as_it_does_a_directory(void **state)
{
    (void)state;
    char model[1200], file[1200];
    need_fixture("families/mixtral");
    keep(model, fixture("families/mixtral"));
    keep(file, temp_path("info.gguf"));
    coe(0, COE_ARGS("convert", model, file));
    json_t *a = info_of(model), *b = info_of(file);
    static const char *const same[] = { "family", "layers", "d_model", "vocab", "experts", "parameters" };
    for (size_t i = 0; i < COE_COUNT(same); i++)
        if (!json_equal(json_object_get(a, same[i]), json_object_get(b, same[i]))) fail_msg("%s differs", same[i]);
    assert_string_equal(json_string_value(json_object_get(b, "format")), "gguf");
    assert_non_null(json_object_get(json_object_get(b, "metadata"), "llama.block_count"));
    assert_true(json_array_size(json_object_get(b, "tensor_list")) > 10);
    json_decref(a);
    json_decref(b);
}

static void info_of_a_model_that_lost_a_tensor_names_it(void **state)
{
    (void)state;
    char file[1200];
    need_fixture("families/llama");
    keep(file, temp_path("lost.gguf"));
    coe(0, COE_ARGS("convert", fixture("families/llama"), file));
    poke(file, "blk.0.attn_q.weight", 4, '7');
    struct ran r = run_coe(3, NULL, COE_ARGS("info", file, "--json"));
    assert_non_null(strstr(r.err, "tensor blk.0.attn_q.weight is missing"));
    ran_free(&r);
}

/* An architecture that nobody here knows is no model, but a file: metadata, types, tensors. */
static void info_of_an_unknown_architecture_is_that_of_a_file(void **state)
{
    (void)state;
    char file[1200];
    need_fixture("families/llama");
    keep(file, temp_path("unknown.gguf"));
    coe(0, COE_ARGS("convert", fixture("families/llama"), file));
    hide_config(file);
    poke(file, "general.architecture", strlen("general.architecture") + 4 + 8, 'y');
    json_t *o = info_of(file);
    assert_true(json_is_null(json_object_get(o, "family")));
    assert_non_null(json_object_get(json_object_get(o, "metadata"), "llama.block_count"));
    assert_true(json_object_size(json_object_get(o, "types")) > 0);
    json_decref(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_in_llama_cpp_s_keys_alone_are_the_same_models),
        cmocka_unit_test(filters_lose_their_dimension_of_one_and_get_it_back),
        cmocka_unit_test(both_forms_of_the_delta_rule_s_projections_are_the_same_model),
        cmocka_unit_test(trinity_in_llama_cpp_s_order_of_layers_is_the_same_model),
        cmocka_unit_test(lfm2_files_that_cannot_be_are_refused_by_name),
        cmocka_unit_test(llama_4_with_the_released_constants_is_the_same_model),
        cmocka_unit_test(info_describes_a_file_as_it_does_a_directory),
        cmocka_unit_test(info_of_a_model_that_lost_a_tensor_names_it),
        cmocka_unit_test(info_of_an_unknown_architecture_is_that_of_a_file),
    };
    return cmocka_run_group_tests_name("end-to-end/gguf_families", tests, NULL, NULL);
}
