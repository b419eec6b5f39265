/* Identity (DESIGN §3): the same bits for any number of threads, batch, split of a prompt and instruction-set level;
 * training gradients for any number of threads; a masked model equals the model without the experts.
 *
 * The models are wide enough that products are cut into several tiles and loops run in parallel. */
#include "support/arrays.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/model.h"
#include "support/process.h"

#define VOCAB 300
#define LONG 83 /* tokens: more than a tile of 32 rows and a key block, odd */

static struct coe_model *model;
static coe_kv kv; /* the type of cache under test */

static json_t *config_of(const char *residual, bool sigmoid)
{
    return json_pack(
        "{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:{s:i, s:i, s:i, s:s, s:b, s:b, s:i, s:b, s:[i], s:{s:i, s:s}, "
        "s:[{s:s, s:f}, {s:s, s:f}]}}",
        "model_type", "coe", "vocab_size", VOCAB, "hidden_size", 96, "num_hidden_layers", 3, "num_attention_heads", 6,
        "num_key_value_heads", 2, "intermediate_size", 130, "max_position_embeddings", 512, "coe", "n_experts", 7,
        "expert_ffn", 37, "top_k", 3, "score", sigmoid ? "sigmoid" : "softmax", "renormalize", sigmoid,
        "selection_bias", sigmoid, "shared_ffn", 50, "shared_gate", !sigmoid, "dense_layers", 1, "chain", "iterations",
        2, "residual", residual, "losses", "kind", "sequence", "coef", 0.1, "kind", "z", "coef", 0.1);
}

/* The parts that bring paths of their own: gates of tasks in two levels, normed experts, chosen heads, experts beside
 * projections of the dense layer. */
static json_t *config_of_parts(void)
{
    json_t *config = config_of("prenorm", false);
    json_object_update_new(
        json_object_get(config, "coe"),
        json_pack("{s:{s:s, s:i, s:i, s:i, s:i, s:i, s:s}, s:[{s:s, s:i, s:i, s:i}], s:i, s:i, s:{s:i}, "
                  "s:{s:i, s:i, s:[s, s, s]}}",
                  "router", "kind", "tasks", "tasks", 1, "groups", 1, "group_experts", 1, "task_experts", 1, "levels",
                  2, "self_gate", "sigmoid", "experts", "kind", "normed", "n", 7, "expert_ffn", 37, "rank", 4,
                  "n_experts", 7, "top_k", 4, "attention_experts", "top_k", 1, "projection_experts", "n", 3, "rank",
                  4, "targets", "gate", "up", "down"));
    return config;
}

/* residual "parts": those; else the residual mode */
static void make_model(const char *residual, bool sigmoid)
{
    json_t *config = strcmp(residual, "parts") ? config_of(residual, sigmoid) : config_of_parts();
    assert_non_null(config);
    if (model) model_close(model);
    model = NULL;
    const coe_status s = model_new(&model, config, "identity test", 7, 0.08);
    json_decref(config);
    assert_ok(s);
    for (size_t i = 0; i < model->n_params; i++) { /* vectors away from their defaults */
        struct param *p = &model->params[i];
        const float *x = random_floats(900 + i, weight_count(&p->w), 0.1);
        for (int64_t j = 0; slot_info[p->at.slot].is_vector && j < weight_count(&p->w); j++) p->w.master[j] += x[j];
    }
}

static int32_t *some_ids(uint64_t seed, int64_t n)
{
    int32_t *ids = test_alloc((size_t)n * sizeof *ids);
    struct rng r = rng_make(seed, rng_stream(RNG_TEST, 4));
    for (int64_t i = 0; i < n; i++) ids[i] = (int32_t)rng_below(&r, VOCAB);
    return ids;
}

/* Logits of one sequence alone in one forward pass without a cache: what everything else must equal. */
static float *reference(const int32_t *ids, int64_t n)
{
    const int32_t off[] = { 0, (int32_t)n };
    const int64_t pos0[] = { 0 };
    const struct attn_batch batch = { 1, off, pos0, NULL };
    struct forward f = { .batch = &batch, .kv_type = kv };
    struct nn c = { .arena = test_arena() };
    const struct val *y = model_forward(model, &c, ids, n, &f);
    if (!y) fail_msg("%s", coe_error());
    return y->data;
}

static float *in_session(const int32_t *ids, size_t n, const size_t *chunk, size_t n_chunks)
{
    coe_session *s = NULL;
    float *y = test_alloc(n * VOCAB * sizeof *y);
    assert_ok(coe_session_open(&s, model, &(coe_session_opts){ .max_tokens = LONG + 20, .kv = kv }));
    for (size_t done = 0, i = 0; done < n; i++) {
        const size_t take = COE_MIN(n - done, chunk[i % n_chunks]);
        const coe_status status = coe_session_eval(s, ids + done, take, y + done * VOCAB, 0);
        if (status) fail_msg("%s", coe_error());
        done += take;
    }
    coe_session_close(s);
    return y;
}

static const char *const mode_name[] = { "prenorm", "both", "parts" };

static void one_and_two_threads_agree(void **state)
{
    (void)state;
    for (int mode = 0; mode < 3; mode++) {
        make_model(mode_name[mode], mode == 1);
        const int32_t *ids = some_ids(1, LONG);
        coe_set_threads(1);
        const float *one = reference(ids, LONG);
        for (int threads = 2; threads <= 3; threads++) {
            coe_set_threads(threads);
            assert_same_bits("logits", reference(ids, LONG), one, LONG * VOCAB);
        }
        coe_set_threads(2);
    }
}

static void any_split_of_a_prompt_agrees(void **state)
{
    (void)state;
    for (int i = 0; i < 2 * (COE_KV_Q8_0 + 1); i++) {
        make_model(i % 2 ? "parts" : "prenorm", false);
        kv = (coe_kv)(i / 2);
        const int32_t *ids = some_ids(2, LONG);
        const float *want = reference(ids, LONG);
        assert_same_bits("in one piece", in_session(ids, LONG, (size_t[]){ LONG }, 1), want, LONG * VOCAB);
        assert_same_bits("token by token", in_session(ids, LONG, (size_t[]){ 1 }, 1), want, LONG * VOCAB);
        assert_same_bits("in odd pieces", in_session(ids, LONG, (size_t[]){ 5, 17, 1, 33, 2 }, 5), want, LONG * VOCAB);
        assert_same_bits("in blocks of keys", in_session(ids, LONG, (size_t[]){ 16 }, 1), want, LONG * VOCAB);
    }
    kv = COE_KV_F32;
}

static void the_last_row_alone_agrees(void **state)
{
    (void)state;
    make_model("inner", true);
    const int32_t *ids = some_ids(3, LONG);
    const float *want = reference(ids, LONG);
    coe_session *s = NULL;
    float last[VOCAB];
    assert_ok(coe_session_open(&s, model, NULL));
    assert_ok(coe_session_eval(s, ids, LONG, last, 1));
    assert_same_bits("last row", last, want + (LONG - 1) * VOCAB, VOCAB);
    assert_ok(coe_session_rewind(s, 40));
    assert_ok(coe_session_eval(s, ids + 40, LONG - 40, last, 1));
    assert_same_bits("after a rewind", last, want + (LONG - 1) * VOCAB, VOCAB);
    coe_session_close(s);
}

/* Three sequences of different length, first together from nothing, then together from different positions. */
static void three_sequences(void)
{
    enum { N = 3 };
    const size_t first[N] = { 21, 1, 40 }, then[N] = { 1, 30, 7 };
    struct coe_session *s[N];
    const int32_t *ids[N], *rest[N];
    float *a[N], *b[N];
    for (int i = 0; i < N; i++) {
        ids[i] = some_ids(10 + (uint64_t)i, (int64_t)(first[i] + then[i]));
        rest[i] = ids[i] + first[i];
        a[i] = test_alloc(first[i] * VOCAB * sizeof(float));
        b[i] = test_alloc(then[i] * VOCAB * sizeof(float));
        assert_ok(coe_session_open(&s[i], model, &(coe_session_opts){ .max_tokens = 64 }));
    }
    assert_ok(session_eval_batch(s, ids, first, N, a, false));
    assert_ok(session_eval_batch(s, rest, then, N, b, false));
    for (int i = 0; i < N; i++) {
        const float *want = reference(ids[i], (int64_t)(first[i] + then[i]));
        assert_same_bits("first call", a[i], want, (int64_t)first[i] * VOCAB);
        assert_same_bits("second call", b[i], want + first[i] * VOCAB, (int64_t)then[i] * VOCAB);
        coe_session_close(s[i]);
    }
}

static void a_sequence_alone_equals_itself_in_a_batch(void **state)
{
    (void)state;
    for (int mode = 0; mode < 2; mode++) {
        make_model(mode ? "parts" : "prenorm", !mode);
        three_sequences();
    }
}

static void every_instruction_set_agrees(void **state)
{
    (void)state;
    const struct kernels *best = kern;
    for (int mode = 0; mode < 3; mode++) {
        make_model(mode == 1 ? "outer" : mode_name[mode], mode == 1);
        const int32_t *ids = some_ids(4, LONG);
        const float *want = reference(ids, LONG);
        for (const struct kernels *const *k = kernels_all(); *k; k++) {
            kern = *k;
            const float *got = reference(ids, LONG);
            kern = best;
            assert_same_bits((*k)->name, got, want, LONG * VOCAB);
        }
    }
}

/* ---- training ---- */

static double train(const int32_t *ids, int64_t n)
{
    const int32_t off[] = { 0, 30, (int32_t)n };
    const int64_t pos0[] = { 0, 0 };
    const struct attn_batch batch = { 2, off, pos0, NULL };
    struct arena_mark mark = arena_save(test_arena());
    struct tape tape = { 0 };
    struct nn c = { .arena = test_arena(), .tape = &tape, .dropout = 0.1f, .seed = 5, .step = 2 };
    struct route_record *records[8];
    struct forward f = { .batch = &batch, .records = records, .max_records = 8 };
    int32_t *target = test_alloc((size_t)n * sizeof *target);
    double sum, total;
    int64_t count;
    for (int64_t t = 0; t < n; t++) target[t] = t + 1 < n ? ids[t + 1] : -1;
    model_zero_grad(model);
    struct val *y = model_forward(model, &c, ids, n, &f);
    assert_ok(nn_xent(&c, y, target, 1.0 / (double)n, 1e-3, &sum, &count));
    const struct loss_call call = {
        .c = &c, .records = records, .n_records = f.n_records, .batch = &batch, .scale = 1
    };
    assert_ok(moe_losses(&call, &total, NULL));
    assert_ok(nn_backward(&c));
    arena_rewind(test_arena(), mark);
    return sum + total;
}

static float **copy_gradients(void)
{
    float **g = test_alloc(model->n_params * sizeof *g);
    for (size_t i = 0; i < model->n_params; i++) {
        const size_t n = (size_t)weight_count(&model->params[i].w);
        g[i] = test_alloc(n * sizeof **g);
        memcpy(g[i], model->params[i].w.grad, n * sizeof **g);
    }
    return g;
}

static void assert_same_gradients(const char *what, float *const *want)
{
    for (size_t i = 0; i < model->n_params; i++) {
        char text[200];
        snprintf(text, sizeof text, "%s: %s", what, model->params[i].w.name);
        assert_same_bits(text, model->params[i].w.grad, want[i], weight_count(&model->params[i].w));
    }
}

static void gradients_do_not_depend_on_threads_or_instruction_sets(void **state)
{
    (void)state;
    const struct kernels *best = kern;
    for (int mode = 0; mode < 3; mode++) {
        make_model(mode_name[mode], mode == 1);
        const int32_t *ids = some_ids(5, LONG);
        coe_set_threads(1);
        const double loss = train(ids, LONG);
        float *const *one = copy_gradients();
        for (int threads = 2; threads <= 3; threads++) {
            coe_set_threads(threads);
            assert_true(train(ids, LONG) == loss);
            assert_same_gradients("threads", one);
        }
        coe_set_threads(2);
        for (const struct kernels *const *k = kernels_all(); *k; k++) {
            kern = *k;
            const double other = train(ids, LONG);
            kern = best;
            assert_true(other == loss);
            assert_same_gradients((*k)->name, one);
        }
    }
}

static void one_optimiser_step_does_not_depend_on_threads(void **state)
{
    (void)state;
    const int64_t n = 200001;
    struct weight *a = test_weight("a", random_floats(20, n, 1), 1, n),
                  *b = test_weight("b", random_floats(20, n, 1), 1, n);
    memcpy(a->grad, random_floats(21, n, 1), (size_t)n * sizeof(float));
    memcpy(b->grad, a->grad, (size_t)n * sizeof(float));
    struct optim_param pa = { a, test_alloc((size_t)n * 4), test_alloc((size_t)n * 4), true }, pb = pa;
    pb = (struct optim_param){ b, test_alloc((size_t)n * 4), test_alloc((size_t)n * 4), true };
    const struct adamw_args args = { 1e-3f, .9f, .95f, 1e-8f, .1f, 1 - .9f, 1 - .95f, .7f };
    coe_set_threads(1);
    const double norm = optim_grad_norm(&pa, 1);
    optim_adamw(&pa, 1, &args);
    coe_set_threads(2);
    assert_true(optim_grad_norm(&pb, 1) == norm);
    optim_adamw(&pb, 1, &args);
    assert_same_bits("weights", b->master, a->master, n);
}

/* ---- files and the program ---- */

/* The model written, and one with experts 1 and 5 of layer 0 and 3 of layer 2 taken out; both through the files. */
static const char *write_model(enum dtype type, const char *name)
{
    json_t *config = config_of("prenorm", false);
    const char *dir = temp_path(name);
    const coe_status s = model_write(model, dir, config, type, NULL);
    json_decref(config);
    assert_ok(s);
    return dir;
}

static void a_model_comes_back_from_its_files_with_the_same_bits(void **state)
{
    (void)state;
    make_model("prenorm", false);
    const int32_t *ids = some_ids(6, LONG);
    const float *want = reference(ids, LONG);
    const char *dir = write_model(DT_F32, "f32");
    model_close(model);
    model = NULL;
    assert_ok(model_open(&model, dir));
    assert_same_bits("logits", reference(ids, LONG), want, LONG * VOCAB);
    assert_ok(model_make_trainable(model, NULL));
    assert_same_bits("logits of masters", reference(ids, LONG), want, LONG * VOCAB);
}

/* BF16 as it lies in the file, and the same values widened to F32 masters */
static void stored_types_compute_like_their_widened_values(void **state)
{
    (void)state;
    static const enum dtype types[] = { DT_BF16, DT_F16 };
    for (size_t i = 0; i < COE_COUNT(types); i++) {
        make_model("prenorm", false);
        const int32_t *ids = some_ids(7, LONG);
        const char *dir = write_model(types[i], dtype_info[types[i]].name);
        model_close(model);
        model = NULL;
        assert_ok(model_open(&model, dir));
        const float *stored = reference(ids, LONG);
        assert_ok(model_make_trainable(model, NULL));
        assert_same_bits(dtype_info[types[i]].name, reference(ids, LONG), stored, LONG * VOCAB);
    }
}

static void mask(int32_t layer, const uint8_t *keep) { assert_ok(model_set_keep(model, layer, keep)); }

/* The parameters of the smaller model are those of the larger one without the masked experts. */
static void copy_without(struct coe_model *small, const struct coe_model *large, const uint8_t *const *keep)
{
    size_t from = 0;
    for (size_t i = 0; i < small->n_params; i++, from++) {
        const struct place p = large->params[from].at;
        const uint8_t *k = keep[p.layer];
        if (slot_info[p.slot].scope == SCOPE_EXPERT)
            while (k && !k[large->params[from].at.expert]) from++;
        const struct weight *w = &large->params[from].w;
        float *to = small->params[i].w.master;
        assert_int_equal(small->params[i].at.slot, large->params[from].at.slot);
        if (slot_info[p.slot].scope != SCOPE_ITERATION || !k) {
            memcpy(to, w->master, (size_t)weight_count(w) * sizeof *to);
            continue;
        }
        for (int64_t e = 0, per = weight_count(w) / large->spec.layer[p.layer].moe.n_experts; k && e < 7; e++)
            if (k[e]) memcpy(to, w->master + e * per, (size_t)per * sizeof *to), to += per;
    }
}

static void a_masked_model_equals_the_model_without_the_experts(void **state)
{
    (void)state;
    static const uint8_t zero[] = { 1, 0, 1, 1, 1, 0, 1 }, two[] = { 1, 1, 1, 0, 1, 1, 1 };
    static const uint8_t *const keep[] = { zero, NULL, two };
    make_model("prenorm", false);
    struct coe_model *large = model, *small = NULL;
    json_t *config = config_of("prenorm", false);
    json_object_set_new(json_object_get(config, "coe"), "experts_per_layer", json_pack("[i, i, i]", 5, 0, 6));
    const coe_status s = model_new(&small, config, "small", 1, 0.08);
    json_decref(config);
    assert_ok(s);
    copy_without(small, large, keep);
    mask(0, zero);
    mask(2, two);
    const int32_t *ids = some_ids(8, LONG);
    const float *masked = reference(ids, LONG);
    model = small;
    const float *removed = reference(ids, LONG);
    model = large;
    model_close(small);
    assert_same_bits("logits", masked, removed, LONG * VOCAB);
}

/* coe logits at every level, with one and two threads: the same file. */
static void the_program_writes_the_same_file_at_every_level(void **state)
{
    (void)state;
    make_model("prenorm", false);
    const char *dir = write_model(DT_BF16, "program");
    const int32_t *ids = some_ids(9, 40);
    const int64_t n = 40;
    const char *ids_path = temp_path("ids.npy"), *out = temp_path("out.npy");
    unsigned char *first = NULL;
    size_t first_bytes = 0;
    assert_ok(npy_write(ids_path, DT_I32, 1, &n, ids));
    for (const struct kernels *const *k = kernels_all(); *k; k++)
        for (int threads = 1; threads <= 2; threads++) {
            size_t bytes;
            setenv("COE_ISA", (*k)->name, 1);
            struct ran r = run_coe(
                0, NULL, COE_ARGS("logits", dir, "--ids", ids_path, "-o", out, "--threads", threads == 1 ? "1" : "2"));
            ran_free(&r);
            unsigned char *file = slurp(out, &bytes);
            if (!first) first = file, first_bytes = bytes;
            const bool same = bytes == first_bytes && !memcmp(file, first, bytes);
            if (file != first) free(file);
            if (!same)
                fail_msg("COE_ISA=%s with %d threads writes another file than %s", (*k)->name, threads,
                         (*kernels_all())->name);
        }
    unsetenv("COE_ISA");
    free(first);
}

static void a_level_that_is_not_there_is_wrong_usage(void **state)
{
    (void)state;
    setenv("COE_ISA", "nosuch", 1);
    struct ran r = run_coe(2, NULL, COE_ARGS("logits", "nowhere", "--ids", "none.npy", "-o", "out.npy"));
    unsetenv("COE_ISA");
    if (!strstr(r.err, "nosuch")) fail_msg("stderr is '%s'", r.err);
    ran_free(&r);
}

static int tear_down(void **state)
{
    (void)state;
    unsetenv("COE_ISA");
    if (model) model_close(model);
    model = NULL;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_and_two_threads_agree),
        cmocka_unit_test(any_split_of_a_prompt_agrees),
        cmocka_unit_test(the_last_row_alone_agrees),
        cmocka_unit_test(a_sequence_alone_equals_itself_in_a_batch),
        cmocka_unit_test(every_instruction_set_agrees),
        cmocka_unit_test(gradients_do_not_depend_on_threads_or_instruction_sets),
        cmocka_unit_test(one_optimiser_step_does_not_depend_on_threads),
        cmocka_unit_test(a_model_comes_back_from_its_files_with_the_same_bits),
        cmocka_unit_test(stored_types_compute_like_their_widened_values),
        cmocka_unit_test(a_masked_model_equals_the_model_without_the_experts),
        cmocka_unit_test(the_program_writes_the_same_file_at_every_level),
        cmocka_unit_test(a_level_that_is_not_there_is_wrong_usage),
    };
    return kernels_init() || cmocka_run_group_tests_name("model/identity", tests, NULL, tear_down);
}
