/* Loss over windows, and the distance between a model and its edited self. */
#include "support/arrays.h"

#include <math.h>
#include <string.h>

#include "plan/measure.h"
#include "support/tiny_model.h"

static struct coe_model *model;
static struct measured_text text;

static int set_up(void **state)
{
    (void)state;
    assert_ok(kernels_init());
    spill(temp_path("text.txt"), tiny_text, strlen(tiny_text));
    assert_ok(model_open(&model, tiny_model("model", NULL)));
    assert_ok(measured_text_read(&text, model, temp_path("text.txt"), 0));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    measured_text_free(&text);
    model_close(model);
    return 0;
}

static struct measure measure(struct route_hook *hook, int64_t window, int64_t stride)
{
    struct measure r = { 0 };
    struct route_hook *const hooks[] = { hook };
    const struct measure_opts o = { .window = window, .stride = stride };
    assert_ok(measure_text(&r, model, hooks, 1, &text, &o));
    return r;
}

/* -ln p of ids[i+1] given ids[from..i], from the logits of one pass */
static double loss_from(int64_t from, int64_t i)
{
    struct arena arena = { 0 };
    struct nn c = { .arena = &arena };
    const int32_t off[] = { 0, (int32_t)(i + 1 - from) };
    const int64_t pos0[] = { 0 };
    const struct attn_batch batch = { 1, off, pos0, NULL };
    struct forward f = { .batch = &batch, .last_only = true };
    const struct val *y = model_forward(model, &c, text.ids + from, off[1], &f);
    if (!y) fail_msg("%s", coe_error());
    double sum = 0;
    for (int64_t v = 0; v < y->cols; v++) sum += exp((double)y->data[v]);
    const double loss = log(sum) - (double)y->data[text.ids[i + 1]];
    arena_free(&arena);
    return loss;
}

static void the_text_begins_behind_the_end_of_text_token(void **state)
{
    (void)state;
    assert_string_equal(text.begins, "endoftext");
    assert_int_equal(text.ids[0], 0);
    assert_int_equal(text.bytes, strlen(tiny_text));
    assert_int_equal(text.n_docs, 1);
}

static void every_token_is_predicted_once_whatever_the_windows(void **state)
{
    (void)state;
    const int64_t n = text.off[1] - 1;
    static const int64_t windows[][2] = { { 1, 1 }, { 7, 7 }, { 7, 3 }, { 16, 1 }, { 100, 50 }, { 256, 256 } };
    for (size_t i = 0; i < COE_COUNT(windows); i++)
        assert_int_equal(measure(NULL, windows[i][0], windows[i][1]).tokens, n);
}

/* Windows of 8 every 4 tokens: the first predicts targets 1 … 8, the next (from 4) 9 … 12, and so on. */
static void the_loss_is_that_of_single_predictions(void **state)
{
    (void)state;
    const int64_t n = text.off[1] - 1;
    double want = 0;
    for (int64_t i = 0; i < n; i++) want += loss_from(i < 8 ? 0 : (i - 8) / 4 * 4 + 4, i);
    const struct measure r = measure(NULL, 8, 4);
    assert_near("nats", r.nats, want, 1e-3);
    assert_near("bits per byte", measure_bits_per_byte(&r), want / log(2) / (double)strlen(tiny_text), 1e-5);
    assert_near("loss", measure_loss(&r), want / (double)n, 1e-5);
}

static void more_context_than_needed_changes_no_bit(void **state)
{
    (void)state;
    assert_true(measure(NULL, 256, 256).nats == measure(NULL, 250, 250).nats);
}

/* Expert 0 of layer 0 is masked. KL by hand from the logits of two passes. */
static void divergence_from_the_whole_model(void **state)
{
    (void)state;
    struct route_hook hook[2] = { { 0 }, { 0 } };
    const uint8_t keep[8] = { 0, 1, 1, 1, 1, 1, 1, 1 };
    hook[0] = (struct route_hook){ keep, 7 };
    struct route_hook *const hooks[] = { NULL, hook, NULL };
    struct measure r[3] = { { 0 } };
    const struct measure_opts o = { .window = 250, .stride = 250 };
    assert_ok(measure_text(r, model, hooks, 3, &text, &o));
    assert_true(model->hook == NULL);
    assert_true(r[1].kl > 0 && r[1].same_top < r[1].tokens);
    assert_true(r[2].kl == 0 && r[2].same_top == r[2].tokens && r[2].nats == r[0].nats);
    assert_near("alone", measure(hook, 250, 250).nats, r[1].nats, 0);

    struct arena arena = { 0 };
    struct nn c = { .arena = &arena };
    const int32_t off[] = { 0, (int32_t)text.off[1] - 1 };
    const int64_t pos0[] = { 0 };
    const struct attn_batch batch = { 1, off, pos0, NULL };
    struct forward f = { .batch = &batch };
    const struct val *p = model_forward(model, &c, text.ids, off[1], &f);
    model->hook = hook;
    const struct val *q = model_forward(model, &c, text.ids, off[1], &f);
    model->hook = NULL;
    double want = 0;
    for (int64_t t = 0; t < p->rows; t++) {
        const float *x = p->data + t * p->cols, *y = q->data + t * q->cols;
        double sx = 0, sy = 0, sum = 0;
        for (int64_t v = 0; v < p->cols; v++) sx += exp((double)x[v]), sy += exp((double)y[v]);
        for (int64_t v = 0; v < p->cols; v++)
            sum += exp((double)x[v]) / sx * ((double)x[v] - log(sx) - (double)y[v] + log(sy));
        want += sum;
    }
    assert_near("KL", r[1].kl, want, 1e-3);
    arena_free(&arena);
}

static void a_limit_counts_only_the_bytes_it_kept(void **state)
{
    (void)state;
    struct measured_text t;
    struct str part = { 0 };
    assert_ok(measured_text_read(&t, model, temp_path("text.txt"), 10));
    assert_int_equal(t.off[1], 11);
    assert_ok(tokenizer_decode(model->tokenizer, &part, t.ids + 1, 10, false));
    assert_int_equal(t.bytes, part.n);
    str_free(&part);
    measured_text_free(&t);
}

static void strides_beyond_the_window_and_windows_beyond_the_context_are_refused(void **state)
{
    (void)state;
    struct measure_opts o = { .window = 8, .stride = 9 };
    assert_int_equal(measure_opts_fill(&o, model), COE_E_USAGE);
    o = (struct measure_opts){ .window = model->spec.max_positions + 1, .stride = 1 };
    assert_int_equal(measure_opts_fill(&o, model), COE_E_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_text_begins_behind_the_end_of_text_token),
        cmocka_unit_test(every_token_is_predicted_once_whatever_the_windows),
        cmocka_unit_test(the_loss_is_that_of_single_predictions),
        cmocka_unit_test(more_context_than_needed_changes_no_bit),
        cmocka_unit_test(divergence_from_the_whole_model),
        cmocka_unit_test(a_limit_counts_only_the_bytes_it_kept),
        cmocka_unit_test(strides_beyond_the_window_and_windows_beyond_the_context_are_refused),
    };
    return cmocka_run_group_tests_name("plan/measure", tests, set_up, tear_down);
}
