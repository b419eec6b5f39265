/* Recording: one forward pass into columns, by hand; the same bytes for any threads and batches. */
#include "support/toy_trace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/tiny_model.h"

/* Two tokens, three experts, two of them chosen by each token, weights twice the scores.
 *   token 0: p = .5 .3 .2, chosen 0 1        token 1: p = .1 .3 .6, chosen 2 1
 * Outputs: e0 t0 (3, 4)   e1 t0 (0, 1)   e1 t1 (-2, 0)   e2 t1 (0, .5) */
static const float toy_p[] = { 0.5f, 0.3f, 0.2f, 0.1f, 0.3f, 0.6f };
static const float toy_y[] = { 3, 4, 0, 1, -2, 0, 0, 0.5f };

static void make_record(struct route_record *r, int32_t iteration, const int32_t chosen[4])
{
    *r = (struct route_record){ .iteration = iteration, .p = (float *)(uintptr_t)toy_p };
    assert_ok(route_make(&r->route, test_arena(), 2, 3, 4, false));
    for (int32_t t = 0; t < 2; t++) {
        route_choose(&r->route, t, chosen + 2 * t, 2);
        for (int32_t i = 2 * t; i < 2 * t + 2; i++) {
            r->route.score[i] = toy_p[t * 3 + chosen[i]];
            r->route.weight[i] = 2 * r->route.score[i];
        }
    }
    route_index(&r->route);
}

static void observe(struct trace_recorder *rec, const struct moe_observer *o, const struct route_record *r)
{
    float x[4] = { 0 };
    const struct val in = { .data = x, .rows = 2, .cols = 2 };
    o->route(rec, r);
    o->outputs(rec, r, &in, toy_y);
}

static void assert_column(const struct trace *t, enum trace_column c, int32_t iteration, const double want[3])
{
    const enum dtype type = trace_column_info[c].type;
    const void *at = trace_at(t, c, 0, 0, iteration);
    for (int e = 0; e < 3; e++) {
        const double got = type == DT_U64   ? (double)((const uint64_t *)at)[e]
                           : type == DT_I64 ? (double)((const int64_t *)at)[e]
                           : type == DT_F32 ? (double)((const float *)at)[e]
                                            : ((const double *)at)[e];
        assert_near(trace_column_info[c].name, got, want[e], 1e-6);
    }
}

#define COLUMN(c, ...) assert_column(t, c, 0, (const double[]){ __VA_ARGS__ })

static void every_column_by_hand(void **state)
{
    (void)state;
    struct trace *t = toy_trace(3, 1);
    struct trace_recorder rec = { .trace = t };
    const struct moe_observer o = trace_observer(&rec);
    struct route_record r;
    make_record(&r, 0, (const int32_t[]){ 0, 1, 2, 1 });
    observe(&rec, &o, &r);
    assert_int_equal(*trace_u64(t, TRACE_TOKENS, 0, 0, 0), 2);
    COLUMN(TRACE_PROBABILITY, 0.6, 0.6, 0.8);
    COLUMN(TRACE_COUNT, 1, 2, 1);
    COLUMN(TRACE_SCORE, 0.5, 0.6, 0.6);
    COLUMN(TRACE_RENORM, 0.625, 0.375 + 1 / 3.0, 2 / 3.0); /* .5/.8, .3/.8 + .3/.9, .6/.9 */
    COLUMN(TRACE_GATE, 1.0, 1.2, 1.2);
    COLUMN(TRACE_NORM, 5, 3, 0.5);
    COLUMN(TRACE_NORM2, 25, 5, 0.25);
    COLUMN(TRACE_SCORE_NORM, 2.5, 0.9, 0.3);
    COLUMN(TRACE_RENORM_NORM, 3.125, 0.375 + 2 / 3.0, 1 / 3.0);
    COLUMN(TRACE_GATE_NORM, 5, 1.8, 0.6);
    COLUMN(TRACE_MAX_ABS, 4, 2, 0.5);
    COLUMN(TRACE_MAX_OUT, 4, 1, 0.5);
    COLUMN(TRACE_MAX_TOKEN, 0, 1, 1);
    const uint64_t together[] = { 1, 1, 0, 1, 2, 1, 0, 1, 1 };
    assert_memory_equal(trace_at(t, TRACE_COSELECT, 0, 0, 0), together, sizeof together);
    trace_free(t);
}

static void masked_tokens_are_left_out_of_everything(void **state)
{
    (void)state;
    struct trace *t = toy_trace(3, 1);
    const uint8_t counted[] = { 1, 0 };
    struct trace_recorder rec = { .trace = t, .counted = counted };
    const struct moe_observer o = trace_observer(&rec);
    struct route_record r;
    make_record(&r, 0, (const int32_t[]){ 0, 1, 2, 1 });
    observe(&rec, &o, &r);
    assert_int_equal(*trace_u64(t, TRACE_TOKENS, 0, 0, 0), 1);
    COLUMN(TRACE_COUNT, 1, 1, 0);
    COLUMN(TRACE_NORM, 5, 1, 0);
    COLUMN(TRACE_PROBABILITY, 0.5, 0.3, 0.2);
    COLUMN(TRACE_MAX_TOKEN, 0, 0, -1);
    trace_free(t);
}

/* token 0: {0,1} then {2,0}; token 1: {2,1} then {1,0}: eight pairs */
static void a_chain_counts_pairs_from_one_pass_to_the_next(void **state)
{
    (void)state;
    struct trace *t = toy_trace(3, 2);
    struct trace_recorder rec = { .trace = t };
    const struct moe_observer o = trace_observer(&rec);
    struct route_record first, second;
    make_record(&first, 0, (const int32_t[]){ 0, 1, 2, 1 });
    make_record(&second, 1, (const int32_t[]){ 2, 0, 1, 0 });
    observe(&rec, &o, &first);
    observe(&rec, &o, &second);
    const uint64_t next[] = { 1, 0, 1, 2, 1, 1, 1, 1, 0 };
    assert_memory_equal(trace_at(t, TRACE_CHAIN, 0, 0, 0), next, sizeof next);
    assert_column(t, TRACE_COUNT, 1, (const double[]){ 2, 1, 1 });
    trace_free(t);
}

static void maxima_tell_the_token_and_its_position_in_the_window(void **state)
{
    (void)state;
    struct trace *t = toy_trace(3, 1);
    const int32_t off[] = { 0, 1, 2 };
    const int64_t pos0[] = { 7, 0 };
    const struct attn_batch batch = { 2, off, pos0, NULL };
    struct trace_recorder rec = { .trace = t, .batch = &batch, .n_tokens = 100 };
    const struct moe_observer o = trace_observer(&rec);
    struct route_record r;
    make_record(&r, 0, (const int32_t[]){ 0, 1, 2, 1 });
    observe(&rec, &o, &r);
    trace_batch_done(&rec, 2);
    observe(&rec, &o, &r); /* the same again: the first maximum stays */
    COLUMN(TRACE_MAX_TOKEN, 100, 101, 101);
    COLUMN(TRACE_MAX_POSITION, 7, 0, 0);
    assert_int_equal(rec.n_tokens, 102);
    trace_free(t);
}

/* ---- through a model ---- */

static unsigned char *trace_bytes(const char *dir, int64_t batch, int threads, int64_t window, size_t *n)
{
    struct coe_model *m;
    struct trace *t;
    const struct trace_opts o = { .batch_tokens = batch };
    coe_set_threads(threads);
    assert_ok(model_open(&m, dir));
    assert_ok(trace_new(&t, m, window));
    assert_ok(trace_text(t, m, "text", temp_path("text.txt"), &o));
    assert_ok(trace_write(t, temp_path("t.coet")));
    trace_free(t);
    model_close(m);
    return slurp(temp_path("t.coet"), n);
}

static void threads_and_batches_change_no_byte(void **state)
{
    (void)state;
    char dir[1200];
    size_t n, m;
    snprintf(dir, sizeof dir, "%s", tiny_model("model", NULL));
    spill(temp_path("text.txt"), tiny_text, strlen(tiny_text));
    unsigned char *a = trace_bytes(dir, 16, 1, 16, &n);
    static const struct {
        int64_t batch;
        int threads;
    } others[] = { { 16, 2 }, { 48, 1 }, { 1000, 2 } };
    for (size_t i = 0; i < COE_COUNT(others); i++) {
        unsigned char *b = trace_bytes(dir, others[i].batch, others[i].threads, 16, &m);
        if (n != m || memcmp(a, b, n))
            fail_msg("batches of %d tokens on %d threads give other bytes", (int)others[i].batch, others[i].threads);
        free(b);
    }
    free(a);
}

static void every_token_reaches_k_experts_in_every_pass(void **state)
{
    (void)state;
    struct coe_model *m;
    struct trace *t;
    const struct trace_opts o = { .max_tokens = 50 };
    const char *dir = tiny_model("model", NULL);
    spill(temp_path("text.txt"), tiny_text, strlen(tiny_text));
    assert_ok(model_open(&m, dir));
    assert_ok(trace_new(&t, m, 64));
    assert_ok(trace_text(t, m, "text", temp_path("text.txt"), &o));
    assert_int_equal(trace_tokens(t), 50);
    for (int32_t l = 0; l < t->n_layers; l++)
        for (int32_t c = 0; c < 2; c++) {
            uint64_t counts[8], sum = 0;
            double p = 0;
            trace_counts(t, -1, l, c, counts);
            for (int e = 0; e < 8; e++) sum += counts[e], p += trace_f64(t, TRACE_PROBABILITY, 0, l, c)[e];
            assert_int_equal(sum, 2 * 50);
            assert_near("probabilities of 50 tokens", p, 50, 1e-4);
        }
    trace_free(t);
    model_close(m);
}

static void a_dense_model_has_nothing_to_trace(void **state)
{
    (void)state;
    struct coe_model *m;
    struct trace *t;
    need_fixture("families/llama");
    assert_ok(model_open(&m, fixture("families/llama")));
    assert_int_equal(trace_new(&t, m, 64), COE_E_USAGE);
    assert_error_has("dense");
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_column_by_hand),
        cmocka_unit_test(masked_tokens_are_left_out_of_everything),
        cmocka_unit_test(a_chain_counts_pairs_from_one_pass_to_the_next),
        cmocka_unit_test(maxima_tell_the_token_and_its_position_in_the_window),
        cmocka_unit_test(threads_and_batches_change_no_byte),
        cmocka_unit_test(every_token_reaches_k_experts_in_every_pass),
        cmocka_unit_test(a_dense_model_has_nothing_to_trace),
    };
    return kernels_init() || cmocka_run_group_tests_name("trace/record", tests, NULL, NULL);
}
