/* How far two models route alike. */
#include "support/arrays.h"

#include <string.h>

#include "plan/agreement.h"

static struct coe_model *model_of(int experts, int top_k, int passes)
{
    struct coe_model *m;
    json_t *config = json_pack("{s:s, s:i, s:i, s:i, s:i, s:{s:i, s:i, s:i, s:{s:i}}}", "model_type", "coe",
                               "vocab_size", 11, "hidden_size", 8, "num_hidden_layers", 2, "num_attention_heads", 2,
                               "coe", "n_experts", experts, "expert_ffn", 4, "top_k", top_k, "chain", "iterations",
                               passes);
    assert_non_null(config);
    assert_ok(model_new(&m, config, "test", 5, 0.6));
    json_decref(config);
    return m;
}

static const struct measured_text *text(void)
{
    static int32_t ids[] = { 3, 7, 1, 9, 4, 2, 8 };
    static int64_t off[] = { 0, 5, 7 };
    static const struct measured_text t = { .path = "text", .ids = ids, .off = off, .n_docs = 2 };
    return &t;
}

/* Windows of three tokens: the documents of 5 and 2 tokens make three, each in a pass of its own */
static void compare(struct agreement *g, const struct coe_model *a, const struct coe_model *b)
{
    const struct measure_opts o = { .window = 3, .stride = 3 };
    *g = (struct agreement){ 0 };
    assert_ok(agreement_text(g, a, b, text(), &o));
}

/* Card 15: identical checkpoints fluctuate by nothing. */
static void a_model_agrees_with_itself(void **state)
{
    (void)state;
    struct coe_model *m = model_of(6, 2, 2);
    struct agreement g;
    compare(&g, m, m);
    assert_int_equal(g.rows.n, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(g.rows.at[i].layer, i / 2);
        assert_int_equal(g.rows.at[i].iteration, i % 2);
        assert_int_equal(g.rows.at[i].tokens, 7);
        assert_int_equal(g.rows.at[i].moved, 0);
        assert_near("shared", g.rows.at[i].shared, 7, 0);
    }
    assert_near("moved", agreement_moved(&g), 0, 0);
    assert_near("shared", agreement_shared(&g), 1, 0);
    agreement_free(&g);
    model_close(m);
}

/* Two of three experts are left to each model, other ones in layer 1: {0, 1} and {1, 2} share one of three. A token
 * moves unless both prefer expert 1; with {0} and {2} all of them move. */
static void sets_are_compared_by_what_they_share(void **state)
{
    (void)state;
    struct coe_model *a = model_of(3, 2, 1), *b = model_of(3, 2, 1);
    struct agreement g;
    for (int l = 0; l < 2; l++) {
        assert_ok(model_set_keep(a, l, (const uint8_t[]){ 1, 1, 0 }));
        assert_ok(model_set_keep(b, l, l ? (const uint8_t[]){ 0, 1, 1 } : (const uint8_t[]){ 1, 1, 0 }));
    }
    compare(&g, a, b);
    assert_near("the same layer", g.rows.at[0].shared, 7, 0);
    assert_int_equal(g.rows.at[0].moved, 0);
    assert_near("one of three", g.rows.at[1].shared, 7.0 / 3, 1e-12);
    assert_near("all", agreement_shared(&g), (7 + 7.0 / 3) / 14, 1e-12);
    agreement_free(&g);
    assert_ok(model_set_keep(a, 1, (const uint8_t[]){ 1, 0, 0 }));
    assert_ok(model_set_keep(b, 1, (const uint8_t[]){ 0, 0, 1 }));
    compare(&g, a, b);
    assert_int_equal(g.rows.at[1].moved, 7);
    assert_near("nothing", g.rows.at[1].shared, 0, 0);
    assert_near("half of all decisions", agreement_moved(&g), 0.5, 0);
    agreement_free(&g);
    model_close(a);
    model_close(b);
}

static void models_of_other_shapes_are_refused(void **state)
{
    (void)state;
    struct coe_model *m = model_of(4, 1, 1), *wider = model_of(5, 1, 1), *longer = model_of(4, 1, 2);
    const struct measure_opts o = { .window = 8, .stride = 8 };
    struct agreement g = { 0 };
    assert_int_equal(agreement_text(&g, m, wider, text(), &o), COE_E_USAGE);
    assert_non_null(strstr(coe_error(), "5 experts"));
    agreement_free(&g);
    assert_int_equal(agreement_text(&g, m, longer, text(), &o), COE_E_USAGE);
    agreement_free(&g);
    assert_int_equal(agreement_text(&g, longer, m, text(), &o), COE_E_USAGE);
    agreement_free(&g);
    model_close(m);
    model_close(wider);
    model_close(longer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_agrees_with_itself),
        cmocka_unit_test(sets_are_compared_by_what_they_share),
        cmocka_unit_test(models_of_other_shapes_are_refused),
    };
    return kernels_init() || cmocka_run_group_tests_name("plan/agreement", tests, NULL, NULL);
}
