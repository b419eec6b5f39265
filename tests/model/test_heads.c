/* Attention whose heads are experts (Union of Experts): its limits, its subsets, decoding, conversion, what is refused.
 */
#include "support/arrays.h"

#include <math.h>
#include <string.h>

#include "model/bind.h"
#include "model/slice_form.h"
#include "support/process.h"

enum { N = 9, VOCAB = 11, HEADS = 4, KV = 2, HD = 4, D = 8 };
static const int32_t ids[N] = { 1, 5, 2, 8, 3, 3, 9, 4, 7 };
static const int32_t off[] = { 0, 5, N };
static const int64_t pos0[] = { 0, 0 };
static const struct attn_batch two = { 2, off, pos0, NULL };

/* One dense layer; `heads` NULL: the ordinary attention, with the same weights. */
static struct coe_model *model_of(const char *heads, const char *extra)
{
    struct coe_model *m = NULL;
    json_t *coe = heads ? json_pack("{s:o}", "attention_experts", json_loads(heads, 0, NULL)) : json_object();
    json_t *config = json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:o}", "model_type", "coe", "vocab_size",
                               VOCAB, "hidden_size", D, "num_hidden_layers", 2, "num_attention_heads", HEADS,
                               "num_key_value_heads", KV, "head_dim", HD, "intermediate_size", 6, "coe", coe);
    if (extra) json_object_update_new(config, json_loads(extra, 0, NULL));
    assert_ok(model_new(&m, config, "heads", 5, 0.5));
    for (size_t i = 0; i < m->n_params; i++) { /* a function of the place, so that both models have the same */
        struct weight *w = &m->params[i].w;
        const uint64_t seed = (uint64_t)m->params[i].at.slot * 10 + (uint64_t)m->params[i].at.layer;
        memcpy(w->master, random_floats(seed, weight_count(w), 0.5), (size_t)weight_count(w) * sizeof(float));
    }
    json_decref(config);
    return m;
}

static const float *logits_of(const struct coe_model *m, const struct attn_batch *batch)
{
    struct nn c = { .arena = test_arena() };
    struct forward f = { .batch = batch };
    const struct val *y = model_forward(m, &c, ids, batch->off[batch->n_seq], &f);
    if (!y) fail_msg("%s", coe_error());
    return y->data;
}

/* Card 14: the union of all slices is the dense attention, with norms per head, biases and packed documents too. */
static void all_heads_are_the_dense_attention_bit_for_bit(void **state)
{
    (void)state;
    static const char *const extra[] = { NULL, "{\"attention_bias\": true}" };
    static const int64_t start[N] = { 0, 0, 2, 2, 2, 0, 0, 0, 3 };
    const struct attn_batch packed = { 2, off, pos0, start };
    for (size_t i = 0; i < COE_COUNT(extra); i++) {
        struct coe_model *dense = model_of(NULL, extra[i]);
        struct coe_model *all = model_of("{\"top_k\": 2, \"unit_weights\": true}", extra[i]);
        assert_same_bits("logits", logits_of(all, &two), logits_of(dense, &two), N * VOCAB);
        assert_same_bits("packed", logits_of(all, &packed), logits_of(dense, &packed), N * VOCAB);
        model_close(dense);
        model_close(all);
    }
}

static struct weight *weight_of(struct coe_model *m, enum slot slot, int32_t layer)
{
    for (size_t i = 0; i < m->n_params; i++)
        if (m->params[i].at.slot == slot && m->params[i].at.layer == layer) return &m->params[i].w;
    fail_msg("no such weight");
    return NULL;
}

/* By hand. d = 2, one token after another, x = norm of the embedding: rows e_0 = (√2, 0) and e_1 = (0, √2). The router
 * sends e_0 to head 0 and e_1 to head 1; W_v of head 0 is (1, 0), of head 1 (0, 2), W_q = 0: a head averages the values
 * of its tokens, all √2 in head 0 and 2√2 in head 1; W_o's columns are (1, 0) and (0, 1). So whatever comes in between,
 * the attention adds (√2, 0) to a token 0 and (0, 2√2) to a token 1. */
static void a_head_attends_to_the_tokens_that_chose_it(void **state)
{
    (void)state;
    enum { T = 5 };
    struct coe_model *m = NULL;
    json_t *config = json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:{s:{s:i, s:b}}}", "model_type", "coe",
                               "vocab_size", 2, "hidden_size", 2, "num_hidden_layers", 1, "num_attention_heads", 2,
                               "head_dim", 2, "intermediate_size", 1, "rms_norm_eps", 1e-12, "coe",
                               "attention_experts", "top_k", 1, "unit_weights", 1);
    const float r = sqrtf(2);
    assert_ok(model_new(&m, config, "hand", 1, 0.5));
    memcpy(weight_of(m, SLOT_EMBED, 0)->master, (float[]){ r, 0, 0, r }, 4 * sizeof(float));
    memcpy(weight_of(m, SLOT_ATTN_ROUTER, 0)->master, (float[]){ 1, 0, 0, 1 }, 4 * sizeof(float));
    memset(weight_of(m, SLOT_Q, 0)->master, 0, 8 * sizeof(float));
    memcpy(weight_of(m, SLOT_V, 0)->master, (float[]){ 1, 0, 0, 0, 0, 2, 0, 0 }, 8 * sizeof(float));
    memcpy(weight_of(m, SLOT_O, 0)->master, (float[]){ 1, 0, 0, 0, 0, 0, 1, 0 }, 8 * sizeof(float));
    memset(weight_of(m, SLOT_DOWN, 0)->master, 0, 2 * sizeof(float));
    memcpy(weight_of(m, SLOT_HEAD, 0)->master, (float[]){ 1, 0, 0, 1 }, 4 * sizeof(float));
    const int32_t row[T] = { 0, 1, 1, 0, 1 }, end[] = { 0, T };
    const struct attn_batch batch = { 1, end, pos0, NULL };
    struct nn c = { .arena = test_arena() };
    struct forward f = { .batch = &batch, .no_logits = true };
    const struct val *h = model_forward(m, &c, row, T, &f);
    assert_non_null(h);
    /* the stream is (2√2, 0) and (0, 3√2), its norm (√2, 0) and (0, √2): the same direction, so look at the sum */
    for (int t = 0; t < T; t++)
        assert_close("h", h->data + 2 * t, row[t] ? (float[]){ 0, r } : (float[]){ r, 0 }, 2, 1e-6, 0);
    memcpy(weight_of(m, SLOT_V, 0)->master, (float[]){ 1, 1, 0, 0, 2, 2, 0, 0 }, 8 * sizeof(float));
    memcpy(weight_of(m, SLOT_O, 0)->master, (float[]){ 0, 0, 1, 0, 1, 0, 0, 0 }, 8 * sizeof(float));
    /* head 0 now adds √2 to the other component, head 1 twice that: (√2, √2) and (2√2, √2) before the norm */
    h = model_forward(m, &c, row, T, &f);
    for (int t = 0; t < T; t++)
        assert_close("h", h->data + 2 * t, row[t] ? (float[]){ 2 * r / sqrtf(5), r / sqrtf(5) } : (float[]){ 1, 1 }, 2,
                     1e-6, 0);
    model_close(m);
    json_decref(config);
}

/* Token by token, in pieces, two sequences together, after going back: the bits of the whole sequence at once. */
static void decoding_gives_the_bits_of_the_whole_sequence(void **state)
{
    (void)state;
    for (int kept = 0; kept < 2; kept++) {
        struct coe_model *m = model_of(kept ? "{\"top_k\": 1}" : "{\"top_k\": 1, \"unit_weights\": true}", NULL);
        const int32_t whole_off[] = { 0, N };
        const struct attn_batch whole = { 1, whole_off, pos0, NULL };
        const float *want = logits_of(m, &whole);
        float got[N * VOCAB], other[N * VOCAB];
        coe_session *s, *o;
        assert_ok(coe_session_open(&s, m, &(coe_session_opts){ .max_tokens = 32 }));
        assert_ok(coe_session_open(&o, m, &(coe_session_opts){ .max_tokens = 32 }));
        for (int t = 0; t < 4; t++) assert_ok(coe_session_eval(s, ids + t, 1, got + t * VOCAB, 0));
        assert_ok(coe_session_eval(s, ids + 4, N - 4, got + 4 * VOCAB, 0));
        assert_same_bits("in pieces", got, want, N * VOCAB);
        assert_ok(coe_session_rewind(s, 3));
        assert_ok(coe_session_eval(s, ids + 3, N - 3, got + 3 * VOCAB, 0));
        assert_same_bits("after going back", got, want, N * VOCAB);
        assert_ok(coe_session_rewind(s, 0));
        coe_session *const both[] = { s, o };
        const int32_t *const each[] = { ids, ids + 2 };
        float *const logits[] = { got, other };
        assert_ok(session_eval_batch(both, each, (const size_t[]){ N, N - 2 }, 2, logits, false));
        assert_same_bits("beside another sequence", got, want, N * VOCAB);
        coe_session_close(s);
        coe_session_close(o);
        model_close(m);
    }
}

/* The objective Σ logits ⊙ r: gradients of all weights against central differences, choices held by their distance */
static double objective(const struct coe_model *m, struct nn *c, const float *r)
{
    struct forward f = { .batch = &two };
    struct val *y = model_forward(m, c, ids, N, &f);
    double sum = 0;
    if (!y) fail_msg("%s", coe_error());
    for (int i = 0; i < N * VOCAB; i++) sum += (double)y->data[i] * (double)r[i];
    if (!c->tape) return sum;
    y->grad = test_alloc(N * VOCAB * sizeof(float));
    memcpy(y->grad, r, N * VOCAB * sizeof(float));
    assert_ok(nn_backward(c));
    return sum;
}

static void gradients_agree_with_differences(void **state)
{
    (void)state;
    struct coe_model *m = model_of("{\"top_k\": 1}", "{\"attention_bias\": true}");
    const float *r = random_floats(3, N * VOCAB, 1);
    struct nn c = { .arena = test_arena(), .tape = test_alloc(sizeof(struct tape)) };
    model_zero_grad(m);
    (void)objective(m, &c, r);
    static const enum slot slots[] = { SLOT_ATTN_ROUTER, SLOT_Q, SLOT_K, SLOT_V, SLOT_O, SLOT_Q_BIAS, SLOT_V_BIAS };
    for (size_t i = 0; i < COE_COUNT(slots); i++) {
        struct weight *w = weight_of(m, slots[i], 0);
        const int64_t n = weight_count(w);
        const float *direction = random_floats(20 + i, n, 1), step = 2e-3f;
        float *kept = test_alloc((size_t)n * sizeof *kept);
        double along = 0, value[2];
        memcpy(kept, w->master, (size_t)n * sizeof *kept);
        for (int64_t j = 0; j < n; j++) along += (double)w->grad[j] * (double)direction[j];
        for (int side = 0; side < 2; side++) {
            struct nn plain = { .arena = test_arena() };
            for (int64_t j = 0; j < n; j++) w->master[j] = kept[j] + (side ? step : -step) * direction[j];
            value[side] = objective(m, &plain, r);
        }
        memcpy(w->master, kept, (size_t)n * sizeof *kept);
        assert_near(slot_info[slots[i]].name, (value[1] - value[0]) / (2 * (double)step), along,
                    2e-3 * (1 + fabs(along)));
    }
    model_close(m);
}

/* A dense directory becomes one with chosen heads (and sliced networks): all of them give the same logits. */
static void a_dense_model_is_converted(void **state)
{
    (void)state;
    struct coe_model *m, *to;
    json_t *config = json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "model_type", "llama", "vocab_size", VOCAB,
                               "hidden_size", 8, "num_hidden_layers", 2, "num_attention_heads", 4,
                               "num_key_value_heads", 2, "intermediate_size", 12, "max_position_embeddings", 64);
    assert_ok(model_new(&m, config, "test", 5, 0.5));
    assert_ok(model_write(m, temp_path("dense"), config, DT_F32, NULL));
    const float *want = logits_of(m, &two);
    static const struct slices ways[] = { { 0, 0, 2 }, { 4, 4, 2 }, { 0, 0, 1 } };
    for (size_t i = 0; i < COE_COUNT(ways); i++) {
        struct coe_model *from;
        assert_ok(model_open(&from, temp_path("dense")));
        assert_ok(model_to_slices(from, &ways[i], DT_F32, temp_path("cut")));
        assert_ok(model_open(&to, temp_path("cut")));
        const float *got = logits_of(to, &two);
        if (ways[i].heads == 2) assert_close("logits", got, want, N * VOCAB, ways[i].n ? 1e-5 : 0, 0);
        else assert_true(fabsf(got[2 * VOCAB] - want[2 * VOCAB]) > 1e-4f);
        model_close(to);
        model_close(from);
    }
    struct coe_model *from;
    assert_ok(model_open(&from, temp_path("dense")));
    assert_int_equal(model_to_slices(from, &(struct slices){ 0, 0, 3 }, DT_F32, temp_path("no")), COE_E_USAGE);
    assert_error_has("3 of 2 key heads");
    model_close(from);
    model_close(m);
    json_decref(config);
}

/* `coe logits --routes` has one record for each layer's heads: two layers, nine tokens, one of two. */
static void the_program_writes_the_heads_that_tokens_chose(void **state)
{
    (void)state;
    struct coe_model *m = model_of("{\"top_k\": 1}", NULL);
    json_t *config = json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:{s:{s:i}}}", "model_type", "coe",
                               "vocab_size", VOCAB, "hidden_size", D, "num_hidden_layers", 2, "num_attention_heads",
                               HEADS, "num_key_value_heads", KV, "head_dim", HD, "intermediate_size", 6, "coe",
                               "attention_experts", "top_k", 1);
    char model[512], routes[512], path[600], in[512];
    snprintf(model, sizeof model, "%s", temp_path("chosen"));
    snprintf(routes, sizeof routes, "%s", temp_path("routes"));
    snprintf(in, sizeof in, "%s", temp_path("ids.npy"));
    assert_ok(model_write(m, model, config, DT_F32, NULL));
    assert_ok(npy_write(in, DT_I32, 1, (const int64_t[]){ N }, ids));
    const char *const ask[] = { "logits", model, "--ids", in, "-o", temp_path("out.npy"), "--routes", routes, NULL };
    struct ran r = run_coe(0, NULL, ask);
    ran_free(&r);
    struct npy k;
    snprintf(path, sizeof path, "%s/topk.npy", routes);
    assert_ok(npy_read(&k, path));
    assert_int_equal(k.dim[0] * 100 + k.dim[1] * 10 + k.dim[2], 291);
    for (int i = 0; i < 2 * N; i++) assert_in_range(((const int32_t *)k.data)[i], 0, 1);
    npy_free(&k);
    r = run_coe(2, NULL, COE_ARGS("logits", model, "--ids", in, "-o", temp_path("out.npy"), "--task", "1"));
    assert_non_null(strstr(r.err, "no router of the model tells tasks apart"));
    ran_free(&r);
    model_close(m);
    json_decref(config);
}

static void assert_refused(const char *family, const char *more, const char *why)
{
    struct coe_model *m = NULL;
    json_t *config = json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:{s:{s:i}}}", "model_type", family, "vocab_size",
                               VOCAB, "hidden_size", 8, "num_hidden_layers", 2, "num_attention_heads", 2,
                               "intermediate_size", 12, "coe", "attention_experts", "top_k", 1);
    json_t *extra = more ? json_loads(more, 0, NULL) : NULL;
    if (extra) json_object_update_recursive(config, extra);
    json_decref(extra);
    assert_int_equal(model_new(&m, config, "x", 1, 0.1), COE_E_INPUT);
    if (!strstr(coe_error(), why)) fail_msg("%s is refused because: %s", family, coe_error());
    json_decref(config);
}

static void attention_whose_heads_cannot_be_told_apart_is_refused(void **state)
{
    (void)state;
    assert_refused("coe", "{\"coe\": {\"qk_norm\": \"full\"}}", "a norm over all heads");
    assert_refused("coe", "{\"coe\": {\"attention_experts\": {\"top_k\": 3}}}", "top_k 3 of 2 experts");
    assert_refused("mistral", "{\"sliding_window\": 4}", "a window or chunks");
    struct attn_spec a = { .kind = MIX_LATENT };
    assert_int_equal(heads_check(&a, "x"), COE_E_INPUT);
    assert_error_has("latent attention (MLA)");
    a = (struct attn_spec){ .kind = MIX_HEADS, .sinks = true };
    assert_int_equal(heads_check(&a, "x"), COE_E_INPUT);
    assert_error_has("sinks");
    a = (struct attn_spec){ .kind = MIX_DELTA };
    assert_int_equal(heads_check(&a, "x"), COE_E_INPUT);
    assert_error_has("without such heads");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_heads_are_the_dense_attention_bit_for_bit),
        cmocka_unit_test(a_head_attends_to_the_tokens_that_chose_it),
        cmocka_unit_test(decoding_gives_the_bits_of_the_whole_sequence),
        cmocka_unit_test(gradients_agree_with_differences),
        cmocka_unit_test(a_dense_model_is_converted),
        cmocka_unit_test(the_program_writes_the_heads_that_tokens_chose),
        cmocka_unit_test(attention_whose_heads_cannot_be_told_apart_is_refused),
    };
    return kernels_init() || cmocka_run_group_tests_name("model/heads", tests, NULL, NULL);
}
