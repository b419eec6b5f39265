/* Training a tiny model: the loss falls; threads, micro-batches, seeds, dropout and interruptions do what they should.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "support/arrays.h"
#include "support/tiny_model.h"
#include "support/tiny_train.h"

#define STEPS 6

/* All parameters behind `steps` steps on `threads` threads, and each step's loss. */
struct outcome {
    float *params;
    int64_t n;
    double loss[64], grad_norm[64];
};

static int64_t count_params(const struct coe_model *m)
{
    int64_t n = 0;
    for (size_t i = 0; i < m->n_params; i++) n += weight_count(&m->params[i].w);
    return n;
}

static struct outcome train(const struct tiny_recipe *how, int32_t steps, int threads)
{
    struct recipe r;
    struct trainer *t = NULL;
    struct outcome o = { 0 };
    tiny_recipe_read(&r, how);
    coe_set_threads(threads);
    assert_ok(trainer_open(&t, &r, RESUME_RESTART));
    for (int32_t i = 0; i < steps; i++) {
        struct step_report report;
        assert_ok(trainer_step(t, &report));
        assert_int_equal(report.step, i + 1);
        assert_int_equal(report.tokens, r.batch * r.sequence);
        o.loss[i] = report.loss;
        o.grad_norm[i] = report.grad_norm;
    }
    const struct coe_model *m = trainer_model(t);
    o.n = count_params(m);
    o.params = test_alloc((size_t)o.n * sizeof *o.params);
    float *to = o.params;
    for (size_t i = 0; i < m->n_params; i++) {
        memcpy(to, m->params[i].w.master, (size_t)weight_count(&m->params[i].w) * sizeof *to);
        to += weight_count(&m->params[i].w);
    }
    trainer_close(t);
    recipe_free(&r);
    coe_set_threads(1);
    return o;
}

/* 300 ids at random cost ln 300 = 5.70; eight documents of 16 to 40 tokens are soon known by heart. */
static void the_loss_falls(void **state)
{
    (void)state;
    const struct outcome o = train(&(struct tiny_recipe){ .steps = 40, .train = "  weight_decay: 0.0\n" }, 40, 1);
    assert_near("first loss", o.loss[0], log(300), 0.4);
    if (!(o.loss[39] < 0.6 * o.loss[0])) fail_msg("loss %g behind 40 steps, %g at first", o.loss[39], o.loss[0]);
}

static void one_and_two_threads_give_the_same_bits(void **state)
{
    (void)state;
    const struct tiny_recipe how = { .train = "  dropout: 0.1\n  z_loss: 0.001\n",
                                     .coe = "losses: [ { kind: sequence, coef: 0.01 } ], shared_ffn: 8," };
    const struct outcome a = train(&how, STEPS, 1), b = train(&how, STEPS, 2);
    assert_same_bits("parameters", a.params, b.params, a.n);
}

static void whatever_the_router_threads_change_no_bit(void **state)
{
    static const char *const routers[] = {
        "router: { kind: two_layer, width: 12 },",
        "router: { kind: cosine, width: 5, scale: learned },",
        "router: { kind: gru, width: 6 },",
        "router: { kind: rnn, width: 6 },",
        "router: gating_residual,",
        "router: pre_gated,",
        "router: similarity,",
        "router: attention,",
        "router: uncertainty,",
    };
    (void)state;
    for (size_t i = 0; i < COE_COUNT(routers); i++) {
        const struct tiny_recipe how = { .coe = routers[i] };
        const struct outcome a = train(&how, 3, 1), b = train(&how, 3, 2);
        assert_same_bits(routers[i], a.params, b.params, a.n);
    }
}

static bool of_router(const struct param *p) { return p->at.slot == SLOT_ROUTER || p->at.slot == SLOT_ROUTER_BIAS; }

/* Weight decay included; its bias is drawn too, and k grows meanwhile. */
static void a_frozen_router_keeps_its_bits(void **state)
{
    (void)state;
    struct recipe r;
    struct trainer *t = NULL;
    struct step_report report;
    float *before[64], change = 0, bias = 0;
    tiny_recipe_read(&r, &(struct tiny_recipe){
                             .train = "  weight_decay: 0.1\n",
                             .coe = "router: frozen, router_bias: true, selection: { kind: growing_k, steps: 4 }," });
    assert_ok(trainer_open(&t, &r, RESUME_RESTART));
    struct coe_model *m = trainer_model(t);
    assert_in_range(m->n_params, 1, COE_COUNT(before));
    for (size_t i = 0; i < m->n_params; i++) {
        const int64_t n = weight_count(&m->params[i].w);
        before[i] = memcpy(test_alloc((size_t)n * sizeof(float)), m->params[i].w.master, (size_t)n * sizeof(float));
    }
    for (int i = 0; i < 6; i++) assert_ok(trainer_step(t, &report));
    for (size_t i = 0; i < m->n_params; i++) {
        const struct weight *w = &m->params[i].w;
        if (of_router(&m->params[i]))
            assert_same_bits(w->name, w->master, before[i], weight_count(w));
        else
            change += fabsf(w->master[0] - before[i][0]);
        if (m->params[i].at.slot == SLOT_ROUTER_BIAS) bias += fabsf(w->master[0]);
    }
    assert_true(change > 0 && bias > 0);
    trainer_close(t);
    recipe_free(&r);
}

/* Sums over the rows of a step are cut in other places: equal within rounding, here behind the first step, since a
 * route that rounding tips over makes all later steps differ. */
static void micro_batches_add_up_to_the_batch(void **state)
{
    (void)state;
    const char *const rows[] = { "  micro_batch: 1\n", "  micro_batch: 2\n" };
    const char *const coe = "losses: [ { kind: sequence, coef: 0.01 } ],";
    const struct outcome whole = train(&(struct tiny_recipe){ .coe = coe }, 1, 1);
    for (size_t i = 0; i < COE_COUNT(rows); i++) {
        const struct outcome parts = train(&(struct tiny_recipe){ .coe = coe, .train = rows[i] }, 1, 1);
        assert_near("loss", parts.loss[0], whole.loss[0], 1e-6);
        assert_near("gradient norm", parts.grad_norm[0], whole.grad_norm[0], 1e-5);
    }
}

static void dropout_repeats_itself_and_does_something(void **state)
{
    (void)state;
    const struct tiny_recipe how = { .train = "  dropout: 0.2\n" }, without = { 0 };
    const struct outcome a = train(&how, STEPS, 1), b = train(&how, STEPS, 1), c = train(&without, STEPS, 1);
    assert_same_bits("parameters", a.params, b.params, a.n);
    assert_memory_not_equal(a.params, c.params, (size_t)a.n * sizeof(float));
}

static void another_seed_is_another_run(void **state)
{
    (void)state;
    struct recipe r;
    struct trainer *t = NULL;
    struct step_report one, two;
    tiny_recipe_read(&r, &(struct tiny_recipe){ 0 });
    assert_ok(trainer_open(&t, &r, RESUME_RESTART));
    assert_ok(trainer_step(t, &one));
    trainer_close(t);
    r.seed = 2;
    assert_ok(trainer_open(&t, &r, RESUME_RESTART));
    assert_ok(trainer_step(t, &two));
    trainer_close(t);
    recipe_free(&r);
    assert_true(one.loss != two.loss);
}

/* 0.01 up for experts with fewer than the mean, down for those with more; 0 only at the mean exactly. */
static void bias_update_moves_the_selection_bias_by_its_step(void **state)
{
    (void)state;
    struct recipe r;
    struct trainer *t = NULL;
    struct step_report report;
    tiny_recipe_read(&r, &(struct tiny_recipe){ .coe = "selection_bias: true, bias_update: 0.01," });
    assert_ok(trainer_open(&t, &r, RESUME_RESTART));
    assert_ok(trainer_step(t, &report));
    int moved = 0;
    for (int32_t l = 0; l < 2; l++)
        for (int32_t i = 0; i < 2; i++) {
            const struct weight *b = trainer_model(t)->layer[l].moe.selection_bias[i];
            assert_non_null(b);
            for (int32_t e = 0; e < 4; e++) {
                assert_true(b->master[e] == 0 || fabsf(b->master[e]) == 0.01f);
                moved += b->master[e] != 0;
            }
        }
    assert_true(moved > 8);
    assert_int_equal(report.priced, 4 * 4 * 16); /* layers and passes, rows, tokens */
    assert_in_range(report.switches, 0, report.priced);
    assert_true(report.lagrangian > 0);
    trainer_close(t);
    recipe_free(&r);
}

static void the_rate_of_the_schedule_is_used_and_reported(void **state)
{
    (void)state;
    struct recipe r;
    struct trainer *t = NULL;
    struct step_report report;
    tiny_recipe_read(&r, &(struct tiny_recipe){ 0 });
    assert_ok(trainer_open(&t, &r, RESUME_RESTART));
    for (int64_t i = 0; i < 3; i++) {
        assert_ok(trainer_step(t, &report));
        assert_true(report.lr == schedule_lr(&r, i));
    }
    trainer_close(t);
    recipe_free(&r);
}

static void a_diverging_run_stops_with_advice(void **state)
{
    (void)state;
    struct recipe r;
    struct trainer *t = NULL;
    struct step_report report;
    coe_status s = COE_OK;
    tiny_recipe_read(&r, &(struct tiny_recipe){ 0 });
    assert_ok(trainer_open(&t, &r, RESUME_RESTART));
    trainer_model(t)->params[0].w.master[17 * 16] = NAN; /* part of the embedding of id 17 and of every logit */
    s = trainer_step(t, &report);
    assert_int_equal(s, COE_E_FAILED);
    assert_error_has("step 1");
    assert_error_has("lower lr");
    trainer_close(t);
    recipe_free(&r);
}

/* The whole validation text, or every k-th row of it. Uniform logits would cost ln 300. */
static void validation_counts_every_token_of_every_label(void **state)
{
    (void)state;
    struct recipe r;
    struct trainer *t = NULL;
    struct validation v, some;
    char data[2400];
    snprintf(data, sizeof data, "  valid: [ x=%s, y=%s, x=%s ]\n", tiny_text_b(), tiny_text_a(), tiny_text_b());
    tiny_recipe_read(&r, &(struct tiny_recipe){ .data = data });
    assert_ok(trainer_open(&t, &r, RESUME_RESTART));
    assert_ok(trainer_validate(t, 0, &v));
    assert_true(v.whole);
    assert_int_equal(v.n_labels, 2);
    assert_string_equal(v.label[0].label, "x");
    assert_int_equal(v.label[0].n_tokens + v.label[1].n_tokens, v.n_tokens);
    assert_near("loss", v.nats, log(300), 0.4);
    const double sum = v.label[0].nats * (double)v.label[0].n_tokens + v.label[1].nats * (double)v.label[1].n_tokens;
    assert_near("mean of the labels", sum / (double)v.n_tokens, v.nats, 1e-9);
    assert_ok(trainer_validate(t, 40, &some));
    assert_false(some.whole);
    assert_true(some.n_tokens <= 48 && some.n_tokens > 32);
    assert_true(some.label[0].n_tokens > 0 && some.label[1].n_tokens > 0);
    trainer_close(t);
    recipe_free(&r);
}

static void a_model_directory_can_be_trained_on(void **state)
{
    (void)state;
    char dir[1100];
    snprintf(dir, sizeof dir, "%s", tiny_model("given", &(struct tiny){ .vocab = 300 }));
    struct recipe r;
    struct trainer *t = NULL;
    struct coe_model *m = NULL;
    struct step_report first = { 0 }, last;
    tiny_recipe_read(&r, &(struct tiny_recipe){ .init = dir, .steps = 20, .train = "  dtype: f32\n" });
    assert_ok(trainer_open(&t, &r, RESUME_RESTART));
    for (int i = 0; i < 20; i++) assert_ok(trainer_step(t, i ? &last : &first));
    assert_true(last.loss < first.loss);
    assert_ok(trainer_run(t)); /* nothing is left to do: it saves */
    char out[1100];
    snprintf(out, sizeof out, "%s/model", r.output);
    assert_ok(model_open(&m, out));
    const struct weight *a = &m->params[0].w, *b = &trainer_model(t)->params[0].w;
    assert_same_bits(a->name, a->data, b->master, weight_count(b));
    model_close(m);
    trainer_close(t);
    recipe_free(&r);
}

static void random_ids_train_without_files(void **state)
{
    (void)state;
    struct recipe r;
    struct trainer *t = NULL;
    struct step_report report;
    static const char text[] =
        "model: { config: { model_type: coe, vocab_size: 64, hidden_size: 16, num_hidden_layers: 1,\n"
        "  num_attention_heads: 2, max_position_embeddings: 32, coe: { n_experts: 4, expert_ffn: 8,\n"
        "  top_k: 1 } } }\ntokenizer: none\ndata: { train: none, sequence: 16 }\n"
        "train: { batch: 2 }\noutput: none\n";
    assert_ok(recipe_read_text(&r, text, sizeof text - 1, "bench.yaml"));
    assert_ok(trainer_open_random(&t, &r));
    assert_ok(trainer_step(t, &report));
    assert_near("loss", report.loss, log(64), 0.2);
    assert_false(dir_exists("none"));
    trainer_close(t);
    recipe_free(&r);
}

static void recipes_that_do_not_fit_their_model_are_refused(void **state)
{
    (void)state;
    struct recipe r;
    struct trainer *t = NULL;
    tiny_recipe_read(&r, &(struct tiny_recipe){ 0 });
    r.sequence = 65;
    assert_int_equal(trainer_open(&t, &r, RESUME_RESTART), COE_E_INPUT);
    assert_error_has("data.sequence 65, the model's context is 64");
    r.sequence = 16;
    r.tokenizer = "/nowhere/tokenizer.json";
    assert_int_equal(trainer_open(&t, &r, RESUME_RESTART), COE_E_INPUT);
    assert_error_has("/nowhere/tokenizer.json");
    assert_null(t);
    recipe_free(&r);
}

/* THOR (card 20): one expert, drawn at random: both passes are one, the step is that of a dense network with twice the
 * loss, which clips to the same step. With two experts the passes differ. */
static void two_passes_of_one_expert_are_a_dense_network_with_twice_the_loss(void **state)
{
    (void)state;
    const char *one = "experts_per_layer: [1, 1], top_k_per_layer: [1, 1], selection: random, renormalize: true, ";
    const struct tiny_recipe plain = { .output = "thor1", .coe = one, .train = "  clip: 0.001\n" };
    const struct tiny_recipe thor = { .output = "thor2", .coe = one, .train = "  clip: 0.001\n  consistency: 5\n" };
    const struct outcome a = train(&plain, STEPS, 1), b = train(&thor, STEPS, 1);
    for (int i = 0; i < STEPS; i++) {
        assert_near("loss", b.loss[i], a.loss[i], 1e-6);
        assert_near("gradient norm", b.grad_norm[i], 2 * a.grad_norm[i], 1e-4 * a.grad_norm[i]);
    }
    assert_close("parameters", b.params, a.params, a.n, 1e-5, 1e-4);
}

static void consistency_without_draws_is_refused_and_with_them_it_is_a_function_of_the_recipe(void **state)
{
    (void)state;
    struct recipe r;
    struct trainer *t = NULL;
    const struct tiny_recipe none = { .output = "thor3", .train = "  consistency: 1\n" };
    tiny_recipe_read(&r, &none);
    assert_int_equal(trainer_open(&t, &r, RESUME_RESTART), COE_E_INPUT);
    assert_error_has("draws nothing");
    recipe_free(&r);
    const struct tiny_recipe thor = { .output = "thor4",
                                      .coe = "top_k_per_layer: [1, 1], selection: random, renormalize: true, ",
                                      .train = "  consistency: 1\n" };
    const struct outcome a = train(&thor, STEPS, 1), b = train(&thor, STEPS, 3);
    assert_same_bits("parameters", a.params, b.params, a.n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_passes_of_one_expert_are_a_dense_network_with_twice_the_loss),
        cmocka_unit_test(consistency_without_draws_is_refused_and_with_them_it_is_a_function_of_the_recipe),
        cmocka_unit_test(the_loss_falls),
        cmocka_unit_test(one_and_two_threads_give_the_same_bits),
        cmocka_unit_test(whatever_the_router_threads_change_no_bit),
        cmocka_unit_test(a_frozen_router_keeps_its_bits),
        cmocka_unit_test(micro_batches_add_up_to_the_batch),
        cmocka_unit_test(dropout_repeats_itself_and_does_something),
        cmocka_unit_test(another_seed_is_another_run),
        cmocka_unit_test(bias_update_moves_the_selection_bias_by_its_step),
        cmocka_unit_test(the_rate_of_the_schedule_is_used_and_reported),
        cmocka_unit_test(a_diverging_run_stops_with_advice),
        cmocka_unit_test(validation_counts_every_token_of_every_label),
        cmocka_unit_test(a_model_directory_can_be_trained_on),
        cmocka_unit_test(random_ids_train_without_files),
        cmocka_unit_test(recipes_that_do_not_fit_their_model_are_refused),
    };
    return cmocka_run_group_tests_name("train/trainer", tests, NULL, NULL);
}
