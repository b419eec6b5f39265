/* Low-rank experts beside projections (DynMoLE): limits by merging, decoding, gradients, losses, refusals. */
#include "support/arrays.h"

#include <math.h>
#include <string.h>

#include "model/bind.h"
#include "model/projection_form.h"

enum { N = 7, VOCAB = 11, E = 4, RANK = 2 };
static const int32_t ids[N] = { 1, 5, 2, 8, 3, 3, 9 };
static const int32_t off[] = { 0, 4, N };
static const int64_t pos0[] = { 0, 0 };
static const struct attn_batch two = { 2, off, pos0, NULL };

static json_t *config_of(const char *experts, const char *extra)
{
    json_t *config = json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:{}}", "model_type", "coe", "vocab_size", VOCAB,
                               "hidden_size", 8, "num_hidden_layers", 2, "num_attention_heads", 2, "intermediate_size",
                               12, "max_position_embeddings", 64, "coe");
    json_t *coe = json_object_get(config, "coe");
    if (experts) json_object_set_new(coe, "projection_experts", json_loads(experts, 0, NULL));
    if (extra) json_object_update_new(coe, json_loads(extra, 0, NULL));
    return config;
}

/* Every weight a function of its place, so that models with and without experts share the others */
static struct coe_model *model_of(const char *experts)
{
    struct coe_model *m = NULL;
    json_t *config = config_of(experts, NULL);
    assert_ok(model_new(&m, config, "projections", 5, 0.5));
    for (size_t i = 0; i < m->n_params; i++) {
        const struct place p = m->params[i].at;
        struct weight *w = &m->params[i].w;
        const uint64_t seed = (uint64_t)p.slot * 100 + (uint64_t)p.layer * 10 + (uint64_t)p.iteration;
        memcpy(w->master, random_floats(seed, weight_count(w), 0.5), (size_t)weight_count(w) * sizeof(float));
    }
    json_decref(config);
    return m;
}

static float *logits_of(const struct coe_model *m)
{
    struct nn c = { .arena = test_arena() };
    struct forward f = { .batch = &two };
    const struct val *y = model_forward(m, &c, ids, N, &f);
    if (!y) fail_msg("%s", coe_error());
    return y->data;
}

static struct weight *weight_at(struct coe_model *m, enum slot slot, int32_t layer, int32_t projection)
{
    for (size_t i = 0; i < m->n_params; i++) {
        const struct place p = m->params[i].at;
        if (p.slot == slot && p.layer == layer && p.iteration == projection) return &m->params[i].w;
    }
    fail_msg("no such weight");
    return NULL;
}

/* W += factor · B_i A_i for experts 0 … n-1 of every projection */
static void merge(struct coe_model *to, struct coe_model *from, int32_t n, float factor)
{
    for (int32_t l = 0; l < 2; l++)
        for (int32_t x = 0; x < PROJECTIONS; x++) {
            struct weight *w = weight_at(to, projection_slot(x), l, 0);
            const float *a = weight_at(from, SLOT_MIX_A, l, x)->master, *b = weight_at(from, SLOT_MIX_B, l, x)->master;
            for (int32_t e = 0; e < n; e++)
                for (int64_t o = 0; o < w->rows; o++)
                    for (int64_t j = 0; j < w->cols; j++)
                        for (int32_t r = 0; r < RANK; r++)
                            w->master[o * w->cols + j] += factor * b[(e * w->rows + o) * RANK + r] *
                                                          a[(e * RANK + r) * w->cols + j];
        }
}

/* Routers at zero: p = 1/4 each, Tsallis entropy 1, so every expert runs with weight 1/4 (alpha / rank = 3 / 2); with a
 * threshold of 1 and top_p 0 only the first of the equals, still with 1/4. Both are ordinary matrices. */
static void equal_probabilities_are_a_merged_matrix(void **state)
{
    (void)state;
    static const char *const how[] = {
        "{\"n\": 4, \"rank\": 2, \"alpha\": 3}",
        "{\"n\": 4, \"rank\": 2, \"alpha\": 3, \"selection\": {\"kind\": \"hybrid\", \"threshold\": 1, \"top_p\": 0, "
        "\"min\": 1}}",
        "{\"n\": 4, \"rank\": 2, \"alpha\": 3, \"selection\": \"top_k\", \"top_k\": 1}",
    };
    for (size_t i = 0; i < COE_COUNT(how); i++) {
        struct coe_model *m = model_of(how[i]), *plain = model_of(NULL);
        for (int32_t l = 0; l < 2; l++)
            for (int32_t x = 0; x < PROJECTIONS; x++) {
                struct weight *router = weight_at(m, SLOT_MIX_ROUTER, l, x);
                memset(router->master, 0, (size_t)weight_count(router) * sizeof(float));
            }
        merge(plain, m, i ? 1 : E, 1.5f / 4);
        assert_close(how[i], logits_of(m), logits_of(plain), N * VOCAB, 2e-5, 2e-5);
        model_close(m);
        model_close(plain);
    }
}

/* The second matrices begin at zero, and so do all that `convert` makes. */
static void a_fresh_one_has_the_bits_of_its_base(void **state)
{
    (void)state;
    struct coe_model *m = model_of("{\"n\": 4, \"rank\": 2}"), *base = model_of(NULL), *from, *to;
    for (int32_t l = 0; l < 2; l++)
        for (int32_t x = 0; x < PROJECTIONS; x++) {
            struct weight *b = weight_at(m, SLOT_MIX_B, l, x);
            memset(b->master, 0, (size_t)weight_count(b) * sizeof(float));
        }
    assert_same_bits("logits", logits_of(m), logits_of(base), N * VOCAB);
    json_t *config = config_of(NULL, NULL);
    json_t *experts = json_loads("{\"n\": 3, \"rank\": 2, \"targets\": [\"v\"]}", 0, NULL);
    assert_ok(model_write(base, temp_path("base"), config, DT_F32, NULL));
    assert_ok(model_open(&from, temp_path("base")));
    assert_ok(model_to_projections(from, experts, 1, DT_F32, temp_path("with")));
    assert_ok(model_open(&to, temp_path("with")));
    assert_int_equal(model_n_projections(to), 2);
    assert_non_null(ckpt_find(to->ckpt, "model.layers.1.self_attn.v_proj.lora_B.weight"));
    assert_same_bits("converted", logits_of(to), logits_of(base), N * VOCAB);
    for (size_t i = 0; i < to->n_params; i++) /* uniform in ±1/√8 */
        if (to->params[i].at.slot == SLOT_MIX_ROUTER)
            for (int64_t j = 0; j < weight_count(&to->params[i].w); j++)
                assert_true(fabsf(((const float *)to->params[i].w.data)[j]) <= 0.35356f);
    model_close(to);
    model_close(from);
    model_close(base);
    model_close(m);
    json_decref(config);
    json_decref(experts);
}

static void written_and_reopened_and_decoded_it_has_the_same_bits(void **state)
{
    (void)state;
    const char *const experts = "{\"n\": 4, \"rank\": 2}";
    struct coe_model *m = model_of(experts), *again;
    json_t *config = config_of(experts, NULL);
    const float *want = logits_of(m);
    float got[4 * VOCAB];
    coe_session *s;
    assert_ok(model_write(m, temp_path("mixed"), config, DT_F32, NULL));
    assert_ok(model_open(&again, temp_path("mixed")));
    assert_same_bits("reopened", logits_of(again), want, N * VOCAB);
    assert_ok(coe_session_open(&s, again, &(coe_session_opts){ .max_tokens = 16 }));
    for (int t = 0; t < 4; t++) assert_ok(coe_session_eval(s, ids + t, 1, got + t * VOCAB, 0));
    assert_same_bits("decoded", got, want, 4 * VOCAB);
    coe_session_close(s);
    model_close(again);
    model_close(m);
    json_decref(config);
}

static struct nn *training(void) /* records live as long as the arena only with a tape */
{
    struct nn *c = test_alloc(sizeof *c);
    *c = (struct nn){ .arena = test_arena(), .tape = test_alloc(sizeof(struct tape)) };
    return c;
}

/* Σ logits ⊙ r plus the losses of the routers; *n receives their number */
static double objective(const struct coe_model *m, const float *r, bool back, int32_t *n)
{
    struct nn *c = training();
    struct route_record *records[20];
    struct forward f = { .batch = &two, .projection_records = records, .max_projection_records = 20 };
    struct val *y = model_forward(m, c, ids, N, &f);
    double sum = 0, aux;
    if (!y) fail_msg("%s", coe_error());
    *n = f.n_projection_records;
    const struct loss_call losses = { .c = c, .records = records, .n_records = *n, .batch = &two,
                                      .scale = back ? 1 : 0 };
    assert_ok(moe_losses(&losses, &aux, NULL));
    for (int i = 0; i < N * VOCAB; i++) sum += (double)y->data[i] * (double)r[i];
    if (!back) return sum + aux;
    y->grad = test_alloc(N * VOCAB * sizeof(float));
    memcpy(y->grad, r, N * VOCAB * sizeof(float));
    assert_ok(nn_backward(c));
    return sum + aux;
}

/* All experts run (threshold 0), so that no difference flips a choice; the losses weigh as much as the logits. */
static void gradients_agree_with_differences(void **state)
{
    (void)state;
    struct coe_model *m = model_of("{\"n\": 4, \"rank\": 2, \"selection\": {\"kind\": \"hybrid\", \"threshold\": 0}, "
                                   "\"losses\": [{\"kind\": \"masked\", \"coef\": 2}, {\"kind\": \"tsallis\", "
                                   "\"coef\": 3, \"over\": \"mean\"}]}");
    const float *r = random_floats(3, N * VOCAB, 1);
    int32_t n;
    model_zero_grad(m);
    (void)objective(m, r, true, &n);
    assert_int_equal(n, 2 * PROJECTIONS);
    for (int i = 0; i < 3 * PROJECTIONS; i++) {
        const enum slot slot = (enum slot)(SLOT_MIX_ROUTER + i % 3);
        struct weight *w = weight_at(m, slot, i % 2, i / 3);
        const int64_t count = weight_count(w);
        const float *direction = random_floats(20 + (uint64_t)i, count, 1), step = 2e-3f;
        float *kept = test_alloc((size_t)count * sizeof *kept);
        double along = 0, value[2];
        memcpy(kept, w->master, (size_t)count * sizeof *kept);
        for (int64_t j = 0; j < count; j++) along += (double)w->grad[j] * (double)direction[j];
        for (int side = 0; side < 2; side++) {
            for (int64_t j = 0; j < count; j++) w->master[j] = kept[j] + (side ? step : -step) * direction[j];
            value[side] = objective(m, r, false, &n);
        }
        memcpy(w->master, kept, (size_t)count * sizeof *kept);
        assert_near(w->name, (value[1] - value[0]) / (2 * (double)step), along, 5e-3 * (1 + fabs(along)));
    }
    model_close(m);
}

/* The card: means run over the tokens of all routers together. */
static void the_entropy_loss_is_the_mean_over_all_routers(void **state)
{
    (void)state;
    struct coe_model *m = model_of("{\"n\": 4, \"rank\": 2}");
    struct route_record *records[20];
    struct nn *c = training();
    struct forward f = { .batch = &two, .projection_records = records, .max_projection_records = 20 };
    assert_non_null(model_forward(m, c, ids, N, &f));
    const struct moe_spec *s = records[0]->spec;
    assert_int_equal(s->n_losses, 2);
    assert_string_equal(s->loss[0].kind, "masked");
    assert_true(s->loss[0].coef == 0.001 && s->loss[1].coef == 0.01);
    double total, all[MAX_LOSSES], sum = 0;
    struct loss_call call = { .c = c, .records = records, .n_records = f.n_projection_records, .batch = &two };
    assert_ok(moe_losses(&call, &total, all));
    for (int32_t i = 0; i < f.n_projection_records; i++) {
        double one[MAX_LOSSES];
        call.records = records + i, call.n_records = 1;
        assert_ok(moe_losses(&call, &total, one));
        sum += one[1] / f.n_projection_records;
    }
    assert_near("mean entropy", all[1], sum, 1e-9);
    assert_true(all[1] > 0.1 && all[1] < 1);
    model_close(m);
}

static void assert_refused(const char *experts, const char *extra, const char *why)
{
    struct coe_model *m = NULL;
    json_t *config = config_of(experts, extra);
    assert_int_equal(model_new(&m, config, "x", 1, 0.1), COE_E_INPUT);
    if (!strstr(coe_error(), why)) fail_msg("refused because: %s", coe_error());
    json_decref(config);
}

static void what_has_no_such_projections_is_refused(void **state)
{
    (void)state;
    assert_refused("{\"targets\": [\"w\"]}", NULL, "'w' is none of q, k, v, o, gate, up, down");
    assert_refused("{\"targets\": [\"q\"]}", "{\"attention_experts\": {\"top_k\": 1}}", "need plain attention");
    assert_refused("{\"targets\": [\"up\"]}", "{\"n_experts\": 2, \"expert_ffn\": 4}",
                   "no layer has one of the targets");
    assert_refused("{\"score\": \"sigmoid\"}", NULL, "hybrid needs softmax");
    assert_refused("{\"selection\": \"expert_choice\"}", NULL, "expert_choice routes whole sequences");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_probabilities_are_a_merged_matrix),
        cmocka_unit_test(a_fresh_one_has_the_bits_of_its_base),
        cmocka_unit_test(written_and_reopened_and_decoded_it_has_the_same_bits),
        cmocka_unit_test(gradients_agree_with_differences),
        cmocka_unit_test(the_entropy_loss_is_the_mean_over_all_routers),
        cmocka_unit_test(what_has_no_such_projections_is_refused),
    };
    return kernels_init() || cmocka_run_group_tests_name("model/projections", tests, NULL, NULL);
}
