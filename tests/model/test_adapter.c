/* Low-rank adapters: fresh ones change nothing, live and merged agree, what is written is read back with the same bits,
 * files have PEFT's names and layout, and what cannot be read is refused by name. */
#include "support/arrays.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "model/adapter.h"
#include "model/convert.h"
#include "model/quantize.h"

enum { N = 9, VOCAB = 13 };
static const int32_t ids[N] = { 1, 5, 2, 8, 3, 3, 9, 4, 12 };

#define SIZES                                                                                              \
    "\"vocab_size\":13,\"hidden_size\":16,\"num_hidden_layers\":2,\"num_attention_heads\":2,"              \
    "\"num_key_value_heads\":1,\"intermediate_size\":8,\"num_local_experts\":3,\"num_experts_per_tok\":2," \
    "\"max_position_embeddings\":64,\"rms_norm_eps\":1e-5"
static const char mixtral[] = "{\"model_type\":\"mixtral\"," SIZES "}";
static const char own[] = "{\"model_type\":\"coe\"," SIZES ",\"coe\":{\"n_experts\":4,\"expert_ffn\":6,\"top_k\":2,"
                          "\"shared_ffn\":4}}";

/* A random model in a directory */
static const char *write_model(const char *name, const char *config, enum dtype type)
{
    struct coe_model *m;
    json_t *doc = json_loads(config, 0, NULL);
    const char *dir = temp_path(name);
    char *kept = test_alloc(strlen(dir) + 1);
    strcpy(kept, dir);
    assert_ok(model_new(&m, doc, name, 5, .2));
    assert_ok(model_write(m, kept, doc, type, NULL));
    model_close(m);
    json_decref(doc);
    return kept;
}

static struct coe_model *open_model(const char *dir)
{
    struct coe_model *m;
    assert_ok(model_open(&m, dir));
    return m;
}

static float *logits_of(const struct coe_model *m)
{
    static const int32_t off[] = { 0, N };
    static const int64_t pos0 = 0;
    const struct attn_batch batch = { 1, off, &pos0, NULL };
    struct nn c = { .arena = test_arena() };
    struct forward f = { .batch = &batch };
    const struct val *y = model_forward(m, &c, ids, N, &f);
    if (!y) fail_msg("%s", coe_error());
    return y->data;
}

static void attach(struct coe_model *m, const char *target)
{
    const struct adapter_opts o = { .rank = 3, .alpha = 6, .target = &target, .n_targets = 1 };
    assert_ok(adapter_attach(m, &o, 7));
}

/* As if it had learned */
static void fill_b(struct coe_model *m)
{
    for (size_t i = 0; i < m->n_params; i++) {
        const struct low_rank *l = m->params[i].w.low_rank;
        if (l)
            memcpy(l->b->master, random_floats(i, weight_count(l->b), .3), (size_t)weight_count(l->b) * sizeof(float));
    }
}

static void a_fresh_adapter_changes_no_bit_and_covers_what_its_target_names(void **state)
{
    (void)state;
    const struct {
        const char *target;
        int adapted;
    } cases[] = { { "q_proj", 2 }, { "attention", 8 }, { "expert", 24 }, { "expert_down", 8 },
                  { "router", 2 }, { "shared", 6 },    { "all", 38 } };
    const char *dir = write_model("base", own, DT_F32);
    for (size_t i = 0; i < COE_COUNT(cases); i++) {
        struct coe_model *m = open_model(dir);
        const float *before = logits_of(m);
        attach(m, cases[i].target);
        int n = 0;
        for (size_t k = 0; k < m->n_params; k++) n += m->params[k].w.low_rank != NULL;
        assert_int_equal(n, cases[i].adapted);
        assert_same_bits(cases[i].target, logits_of(m), before, N * VOCAB);
        fill_b(m);
        assert_true(memcmp(logits_of(m), before, N * VOCAB * sizeof *before) != 0);
        model_close(m);
    }
    struct coe_model *m = open_model(dir);
    const struct adapter_opts o = {
        .rank = 3, .alpha = 6, .target = (const char *[]){ "no_such_proj" }, .n_targets = 1
    };
    assert_int_equal(adapter_attach(m, &o, 7), COE_E_USAGE);
    assert_error_has("no_such_proj");
    model_close(m);
}

/* Live, read back, and merged: for separate experts, and for a family whose adapters hold all experts in one tensor. */
static void live_read_and_merged_agree(void **state)
{
    (void)state;
    const char *const configs[] = { own, mixtral };
    for (int k = 0; k < 4; k++) {
        char name[32];
        snprintf(name, sizeof name, "agree%d", k);
        const char *dir = write_model(name, configs[k / 2], k % 2 ? DT_BF16 : DT_F32);
        struct coe_model *m = open_model(dir), *again = open_model(dir), *merged;
        attach(m, "all");
        fill_b(m);
        char out[600], merged_dir[600];
        snprintf(out, sizeof out, "%s-adapter", dir);
        snprintf(merged_dir, sizeof merged_dir, "%s-merged", dir);
        assert_ok(adapter_write(m, out, dir));
        assert_ok(adapter_open(again, out));
        const float *live = logits_of(m);
        assert_same_bits("read back", logits_of(again), live, N * VOCAB);
        struct convert_report report;
        assert_ok(model_convert(again, merged_dir, &(struct convert_opts){ .type = DT_F32 }, &report));
        merged = open_model(merged_dir);
        assert_close("merged", logits_of(merged), live, N * VOCAB, 1e-5 * range_of(live, N * VOCAB), 0);
        model_close(merged);
        model_close(again);
        model_close(m);
    }
}

static float at(const struct ckpt *c, const char *name, int64_t row, int64_t col, int64_t rows, int64_t cols)
{
    const struct tensor *t = ckpt_find(c, name);
    if (!t) fail_msg("there is no tensor %s", name);
    assert_int_equal(t->dim[0], rows);
    assert_int_equal(t->dim[1], cols);
    float x;
    widen(&x, (const char *)t->data + (row * cols + col) * (int64_t)sizeof x, DT_F32, 1);
    return x;
}

/* What peft 0.21 writes for Mixtral, read off one of its own files: A of expert e in rows e r …, its B in columns
 * k E + e; gate_up inside, down outside; gate rows before up rows, and one A for both. */
static void files_have_the_names_and_the_layout_of_peft(void **state)
{
    (void)state;
    enum { R = 3, E = 3, F = 8, D = 16 };
    struct coe_model *m = open_model(write_model("layout", mixtral, DT_F32));
    const char *const targets[] = { "q_proj", "expert" };
    const struct adapter_opts o = { .rank = R, .alpha = 6, .target = targets, .n_targets = 2 };
    assert_ok(adapter_attach(m, &o, 7));
    fill_b(m);
    const char *out = temp_path("layout-adapter");
    char file[600];
    struct ckpt *c;
    assert_ok(adapter_write(m, out, "base"));
    snprintf(file, sizeof file, "%s/adapter_model.safetensors", out);
    assert_ok(ckpt_open(&c, file));
    assert_int_equal(ckpt_count(c), 2 * 6);
    for (size_t i = 0; i < m->n_params; i++) {
        const struct param *p = &m->params[i];
        const struct low_rank *l = p->w.low_rank;
        if (!l || p->at.layer != 1 || p->at.slot == SLOT_Q) continue;
        const bool down = p->at.slot == SLOT_EXPERT_DOWN, up = p->at.slot == SLOT_EXPERT_UP;
        const char *a = down ? "base_model.model.model.layers.1.mlp.experts.lora_A.weight"
                             : "base_model.model.model.layers.1.mlp.experts.base_layer.lora_A.weight";
        const char *b = down ? "base_model.model.model.layers.1.mlp.experts.lora_B.weight"
                             : "base_model.model.model.layers.1.mlp.experts.base_layer.lora_B.weight";
        const int e = p->at.expert, rows = down ? D : 2 * F, cols = down ? F : D;
        assert_true(at(c, a, e * R + 2, 5, E * R, cols) == l->a->master[2 * cols + 5]);
        assert_true(at(c, b, (up ? F : 0) + 4, 1 * E + e, rows, R * E) == l->b->master[4 * R + 1]);
    }
    assert_true(at(c, "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", 0, 0, R, D) != 0);
    ckpt_close(c);
    json_t *config;
    snprintf(file, sizeof file, "%s/adapter_config.json", out);
    assert_ok(json_read_file(&config, file));
    assert_string_equal(json_string_value(json_object_get(config, "peft_type")), "LORA");
    assert_int_equal(json_integer_value(json_object_get(config, "r")), R);
    assert_near("lora_alpha", json_number_value(json_object_get(config, "lora_alpha")), 6, 0);
    const json_t *parameters = json_object_get(config, "target_parameters");
    assert_int_equal(json_array_size(parameters), 2);
    assert_string_equal(json_string_value(json_array_get(parameters, 0)), "mlp.experts.gate_up_proj");
    assert_string_equal(json_string_value(json_array_get(parameters, 1)), "mlp.experts.down_proj");
    assert_int_equal(json_array_size(json_object_get(config, "target_modules")), 2);
    json_decref(config);
    model_close(m);
}

/* A hand-made directory: r = 2, rank-stabilised: scale = 3/√2; W acts as W + scale·B·A. */
static void scales_are_those_of_the_config(void **state)
{
    (void)state;
    const char *dir = write_model("scale", own, DT_F32), *out = temp_path("scale-adapter");
    float a[2 * 16] = { [3] = 1 }, b[16 * 2] = { [2 * 5] = 2 }; /* B A is 2 at row 5, column 3 */
    const struct ckpt_item items[] = {
        { .t = { "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", DT_F32, 2, { 2, 16 }, a } },
        { .t = { "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight", DT_F32, 2, { 16, 2 }, b } },
    };
    const char *const text[] = { "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":3}",
                                 "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":3,\"use_rslora\":true}" };
    const double scale[] = { 1.5, 3 / sqrt(2) };
    char file[600];
    assert_ok(dir_make(out));
    snprintf(file, sizeof file, "%s/adapter_model.safetensors", out);
    assert_ok(safetensors_write(file, items, 2, NULL, 0));
    snprintf(file, sizeof file, "%s/adapter_config.json", out);
    for (int k = 0; k < 2; k++) {
        spill(file, text[k], strlen(text[k]));
        struct coe_model *m = open_model(dir);
        assert_ok(adapter_open(m, out));
        const struct weight *q = m->layer[0].slot[SLOT_Q];
        assert_near("scale", (double)q->low_rank->scale, scale[k], 1e-6);
        struct nn c = { .arena = test_arena() };
        float one[16] = { [3] = 1 };
        const struct val *y = nn_linear(&c, nn_wrap(&c, one, 1, 16), q, NULL);
        for (int o = 0; o < 16; o++) {
            float w;
            widen(&w, (const char *)q->data + (o * 16 + 3) * (int)sizeof w, DT_F32, 1);
            assert_near("column 3", (double)y->data[o], (double)w + (o == 5 ? 2 * scale[k] : 0), 1e-6);
        }
        model_close(m);
    }
}

static void assert_refused(const char *dir, const char *out, const char *config, const char *why)
{
    char file[600];
    snprintf(file, sizeof file, "%s/adapter_config.json", out);
    spill(file, config, strlen(config));
    struct coe_model *m = open_model(dir);
    assert_int_equal(adapter_open(m, out), COE_E_INPUT);
    assert_error_has(why);
    model_close(m);
}

static void what_is_not_plain_lora_or_fits_nothing_is_refused_by_name(void **state)
{
    (void)state;
    const char *dir = write_model("refuse", own, DT_F32), *out = temp_path("refuse-adapter");
    char file[600];
    float zero[64] = { 0 };
    const char *const good = "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":3}";
    struct ckpt_item items[] = {
        { .t = { "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", DT_F32, 2, { 2, 16 }, zero } },
        { .t = { "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight", DT_F32, 2, { 16, 2 }, zero } },
        { .t = { "base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight", DT_F32, 2, { 2, 16 }, zero } },
    };
    assert_ok(dir_make(out));
    snprintf(file, sizeof file, "%s/adapter_model.safetensors", out);
    assert_ok(safetensors_write(file, items, 3, NULL, 0));
    assert_refused(dir, out, good, "layers.7.self_attn.q_proj.lora_A.weight is no adapter");
    assert_ok(safetensors_write(file, items, 2, NULL, 0));
    assert_refused(dir, out, "{\"peft_type\":\"IA3\",\"r\":2}", "peft_type IA3");
    assert_refused(dir, out, "{\"peft_type\":\"LORA\",\"r\":2,\"use_dora\":true}", "use_dora");
    assert_refused(dir, out, "{\"peft_type\":\"LORA\",\"r\":2,\"bias\":\"all\"}", "bias all");
    assert_refused(dir, out, "{\"peft_type\":\"LORA\",\"r\":2,\"modules_to_save\":[\"lm_head\"]}", "modules_to_save");
    assert_refused(dir, out, "{\"peft_type\":\"LORA\",\"lora_alpha\":3}", "r is missing");
    items[1].t.dim[0] = 2, items[1].t.dim[1] = 16;
    assert_ok(safetensors_write(file, items, 2, NULL, 0));
    assert_refused(dir, out, good, "lora_B.weight has shape [2, 16], which does not fit");
    struct coe_model *m = open_model(dir);
    assert_int_equal(adapter_open(m, dir), COE_E_INPUT);
    assert_error_has("adapter_config.json");
    model_close(m);
}

static void a_second_adapter_is_refused(void **state)
{
    (void)state;
    struct coe_model *m = open_model(write_model("second", own, DT_F32));
    attach(m, "q");
    const struct adapter_opts o = { .rank = 3, .alpha = 6, .target = (const char *[]){ "k" }, .n_targets = 1 };
    assert_int_equal(adapter_attach(m, &o, 7), COE_E_USAGE);
    assert_error_has("has an adapter already");
    model_close(m);
}

static struct coe_model *open_packed(const char *dir, const char *name, enum dtype type)
{
    struct coe_model *m = open_model(dir), *packed;
    struct quantize_opts q = quantize_default();
    struct quantize_report report;
    char file[600];
    q.type = type;
    for (int i = 0; i < CLASS_COUNT; i++) q.by_class[i] = type;
    snprintf(file, sizeof file, "%s", temp_path(name));
    assert_ok(model_quantize(m, file, &q, &report));
    model_close(m);
    assert_ok(model_open(&packed, file));
    return packed;
}

/* A file holds rows of q and k in another order where its architecture turns neighbours; of whatever type, an adapter
 * made over the one base means the same over the other. */
static void an_adapter_serves_a_directory_and_its_gguf_file(void **state)
{
    (void)state;
    const char *const configs[] = { own, mixtral };
    for (int k = 0; k < 4; k++) {
        const bool from_file = k % 2;
        const char *dir = write_model("both", configs[k / 2], DT_F32), *out = temp_path("both-adapter");
        struct coe_model *of[2] = { open_model(dir), open_packed(dir, "both.gguf", DT_F32) };
        attach(of[from_file], "all");
        fill_b(of[from_file]);
        assert_ok(adapter_write(of[from_file], out, dir));
        assert_ok(adapter_open(of[!from_file], out));
        const float *made = logits_of(of[from_file]);
        assert_close("logits", logits_of(of[!from_file]), made, N * VOCAB, 1e-5 * range_of(made, N * VOCAB), 0);
        struct coe_model *again = open_packed(dir, "again.gguf", DT_F32);
        assert_ok(adapter_open(again, out));
        assert_same_bits("read over a file again", logits_of(again), logits_of(of[1]), N * VOCAB);
        model_close(again);
        model_close(of[0]);
        model_close(of[1]);
    }
}

/* Targets are called over a file what they are called over the directory. */
static void targets_over_a_gguf_file_have_the_names_of_the_directory(void **state)
{
    (void)state;
    const char *const targets[] = { "q_proj", "attention", "expert_down", "expert" };
    for (size_t i = 0; i < COE_COUNT(targets); i++) {
        const char *dir = write_model("names", mixtral, DT_F32);
        struct coe_model *of[2] = { open_model(dir), open_packed(dir, "names.gguf", DT_F32) };
        int n[2] = { 0 };
        for (int k = 0; k < 2; k++) {
            attach(of[k], targets[i]);
            for (size_t j = 0; j < of[k]->n_params; j++) n[k] += of[k]->params[j].w.low_rank != NULL;
            model_close(of[k]);
        }
        assert_true(n[0] > 0);
        assert_int_equal(n[1], n[0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fresh_adapter_changes_no_bit_and_covers_what_its_target_names),
        cmocka_unit_test(live_read_and_merged_agree),
        cmocka_unit_test(files_have_the_names_and_the_layout_of_peft),
        cmocka_unit_test(scales_are_those_of_the_config),
        cmocka_unit_test(what_is_not_plain_lora_or_fits_nothing_is_refused_by_name),
        cmocka_unit_test(a_second_adapter_is_refused),
        cmocka_unit_test(an_adapter_serves_a_directory_and_its_gguf_file),
        cmocka_unit_test(targets_over_a_gguf_file_have_the_names_of_the_directory),
    };
    return kernels_init() || cmocka_run_group_tests_name("model/adapter", tests, NULL, NULL);
}
