/* The oracle over routes (Duo-LLM). */
#include "support/arrays.h"

#include <math.h>
#include <string.h>

#include "plan/oracle.h"

static struct coe_model *big_and_small(int top_k)
{
    struct coe_model *m;
    json_t *config = json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:{s:i, s:b, s:[{s:s, s:i}, {s:s, s:i}]}}",
                               "model_type", "coe", "vocab_size", 11, "hidden_size", 8, "num_hidden_layers", 2,
                               "num_attention_heads", 2, "intermediate_size", 6, "coe", "top_k", top_k, "renormalize",
                               1, "experts", "kind", "ffn", "expert_ffn", 8, "kind", "ffn", "expert_ffn", 2);
    assert_non_null(config);
    assert_ok(model_new(&m, config, "test", 5, 0.6));
    json_decref(config);
    return m;
}

/* -ln p(next | id) with expert a in layer 0 and b in layer 1 */
static double forced(struct coe_model *m, int32_t id, int32_t next, int a, int b)
{
    struct coe_session *s;
    float logits[11], loss;
    assert_ok(model_set_keep(m, 0, (const uint8_t[]){ !a, a != 0 }));
    assert_ok(model_set_keep(m, 1, (const uint8_t[]){ !b, b != 0 }));
    assert_ok(coe_session_open(&s, m, NULL));
    assert_ok(coe_session_eval(s, &id, 1, logits, 1));
    coe_session_close(s);
    assert_ok(model_set_keep(m, 0, NULL));
    assert_ok(model_set_keep(m, 1, NULL));
    nn_xent_rows(logits, 1, 11, &next, &loss, NULL);
    return (double)loss;
}

/* Card 18: over L = 2 the search is the least of four losses. */
static void the_best_route_is_the_least_of_all_that_were_tried(void **state)
{
    (void)state;
    struct coe_model *m = big_and_small(1);
    int32_t ids[] = { 3, 7 };
    int64_t off[] = { 0, 2 };
    const struct measured_text text = { .ids = ids, .off = off, .n_docs = 1 };
    struct oracle o;
    double loss[4];
    for (int r = 0; r < 4; r++) loss[r] = forced(m, 3, 7, r % 2, r / 2);
    assert_ok(oracle_open(&o, m));
    assert_ok(oracle_text(&o, m, &text));
    assert_int_equal(o.tokens, 1);
    for (int r = 0; r < 4; r++) assert_near("a route", o.by_route[r], loss[r], 0);
    assert_near("best", o.best, fmin(fmin(loss[0], loss[1]), fmin(loss[2], loss[3])), 0);
    assert_near("all big", o.by_budget[2], loss[0], 0);
    assert_near("one big", o.by_budget[1], fmin(loss[1], loss[2]), 0);
    assert_near("all small", o.by_budget[0], loss[3], 0);
    assert_true(o.own == loss[0] || o.own == loss[1] || o.own == loss[2] || o.own == loss[3]);
    oracle_free(&o);
    model_close(m);
}

/* The prefix is the model's own, so trying routes for one token leaves the next as it was. */
static void trying_leaves_the_model_s_own_path_alone(void **state)
{
    (void)state;
    struct coe_model *m = big_and_small(1);
    int32_t ids[] = { 3, 7, 1, 9, 4 };
    int64_t off[] = { 0, 5 };
    const struct measured_text text = { .ids = ids, .off = off, .n_docs = 1 };
    struct oracle o;
    struct coe_session *s;
    float logits[5 * 11], loss[4];
    assert_ok(oracle_open(&o, m));
    assert_ok(oracle_text(&o, m, &text));
    assert_ok(coe_session_open(&s, m, NULL));
    assert_ok(coe_session_eval(s, ids, 5, logits, 0));
    nn_xent_rows(logits, 4, 11, ids + 1, loss, NULL);
    assert_near("own", o.own, (double)loss[0] + (double)loss[1] + (double)loss[2] + (double)loss[3], 1e-12);
    assert_true(o.best <= o.own && o.control <= o.control_mean);
    coe_session_close(s);
    oracle_free(&o);
    model_close(m);
}

static void layers_that_choose_several_experts_are_refused(void **state)
{
    (void)state;
    struct coe_model *m = big_and_small(2);
    struct oracle o;
    assert_int_equal(oracle_open(&o, m), COE_E_USAGE);
    assert_error_has("layer 0 does not choose one expert");
    oracle_free(&o);
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_best_route_is_the_least_of_all_that_were_tried),
        cmocka_unit_test(trying_leaves_the_model_s_own_path_alone),
        cmocka_unit_test(layers_that_choose_several_experts_are_refused),
    };
    return kernels_init() || cmocka_run_group_tests_name("plan/oracle", tests, NULL, NULL);
}
