/* The language of --route, and what a session refuses. */
#include "support/arrays.h"

#include <math.h>
#include <string.h>

#include "model/bind.h"

static const char config[] =
    "{ \"model_type\": \"coe\", \"vocab_size\": 11,"
    " \"hidden_size\": 8, \"num_hidden_layers\": 2,"
    " \"num_attention_heads\": 2,"
    " \"intermediate_size\": 6,"
    " \"coe\": { \"n_experts\": 4, \"expert_ffn\": 3, \"top_k\": 2, \"dense_layers\": [0] } }";

static json_t *config_json(void)
{
    json_t *doc = NULL;
    assert_ok(json_read_text(&doc, config, strlen(config), "test"));
    return doc;
}

static struct spec fresh(void)
{
    struct spec s;
    json_t *doc = config_json();
    assert_ok(spec_read(&s, test_arena(), doc, "config.json"));
    json_decref(doc);
    return s;
}

static struct router_spec routed_by(const char *text)
{
    struct spec s = fresh();
    assert_ok(spec_route(&s, text));
    return s.layer[1].moe.router;
}

static void assert_refused(const char *text, coe_status status, const char *part)
{
    struct spec s = fresh();
    if (spec_route(&s, text) != status) fail_msg("'%s' was not refused", text);
    assert_error_has(part);
    assert_error_has(text);
}

static void a_selection_with_its_first_setting(void **state)
{
    (void)state;
    const struct router_spec r = routed_by("top_p=0.7");
    assert_string_equal(r.selection, "top_p");
    assert_near("p", r.param[0], .7, 0);
    assert_near("min", r.param[1], 1, 0); /* the default */
}

static void a_list_of_settings_with_words_and_spaces(void **state)
{
    (void)state;
    const struct router_spec r = routed_by(" threshold( of = relative , value=0.5 ) , renormalize=yes, "
                                           "scale=2,top_k=3 ");
    assert_string_equal(r.selection, "threshold");
    assert_near("of", r.param[0], 2, 0);
    assert_near("value", r.param[1], .5, 0);
    assert_true(r.renormalize);
    assert_near("scale", (double)r.scale, 2, 0);
    assert_int_equal(r.top_k, 3);
}

static void a_router_over_the_same_matrix(void **state)
{
    (void)state;
    assert_string_equal(routed_by("pre_gated, top_k=1").kind, "pre_gated");
    const struct router_spec r = routed_by("similarity(temperature=2)");
    assert_string_equal(r.kind, "similarity");
    assert_near("temperature", r.kind_param[0], 2, 0);
}

static void a_router_with_weights_of_its_own_is_refused(void **state)
{
    (void)state;
    assert_refused("gru", COE_E_USAGE, "router gru has weights of its own");
    struct spec s = fresh();
    moe_use_router(&s.layer[1].moe.router, "two_layer");
    assert_int_equal(spec_route(&s, "pre_gated"), COE_E_USAGE);
    assert_error_has("layer 1: the weights of its router two_layer are not those of pre_gated");
}

static void a_capacity_set_live_binds_at_inference(void **state)
{
    (void)state;
    const struct router_spec r = routed_by("capacity(tokens=3, order=best)");
    assert_int_equal(r.capacity.tokens, 3);
    assert_int_equal(r.capacity.order, CAPACITY_BEST);
    assert_true(r.capacity.always);
}

static void every_selection_can_be_named(void **state)
{
    (void)state;
    const struct part *p;
    for (size_t i = 0; (p = part_at("selection", i)); i++) assert_string_equal(routed_by(p->name).selection, p->name);
}

static void what_is_not_understood_is_refused_by_name(void **state)
{
    (void)state;
    assert_refused("top_q=1", COE_E_USAGE, "'top_q'");
    assert_refused("top_p(p=0.4", COE_E_USAGE, "')' is missing");
    assert_refused("top_p=", COE_E_USAGE, "missing");
    assert_refused("top_p=0.4 x", COE_E_USAGE, "left over");
    assert_refused("top_k(1)", COE_E_USAGE, "'=' is missing");
    assert_refused("grouped=1", COE_E_USAGE, "no settings");
    assert_refused("top_p(z=1)", COE_E_USAGE, "'z'");
    assert_refused("top_p=-1", COE_E_USAGE, "p of top_p");
    assert_refused("threshold(of=best)", COE_E_USAGE, "'best'");
    assert_refused("top_k=5", COE_E_USAGE, "layer 1");
    assert_refused("", COE_E_USAGE, "missing");
}

/* A prompt as a whole is routed; the token behind it cannot be. */
static void a_session_refuses_to_go_on_where_tokens_depend_on_later_ones(void **state)
{
    (void)state;
    struct coe_model *m = NULL;
    coe_session *s = NULL;
    json_t *doc = config_json();
    float logits[11];
    const int32_t ids[] = { 1, 2, 3, 4 };
    assert_ok(model_new(&m, doc, "test", 1, 0.3));
    assert_ok(spec_route(&m->spec, "expert_choice"));
    assert_ok(coe_session_open(&s, m, &(coe_session_opts){ .max_tokens = 16 }));
    assert_ok(coe_session_eval(s, ids, 4, logits, 1));
    assert_true(isfinite(logits[0]));
    assert_int_equal(coe_session_eval(s, ids, 1, logits, 1), COE_E_USAGE);
    assert_error_has("expert_choice routes whole sequences");
    coe_session_close(s);
    model_close(m);
    json_decref(doc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_selection_with_its_first_setting),
        cmocka_unit_test(a_list_of_settings_with_words_and_spaces),
        cmocka_unit_test(a_router_over_the_same_matrix),
        cmocka_unit_test(a_router_with_weights_of_its_own_is_refused),
        cmocka_unit_test(a_capacity_set_live_binds_at_inference),
        cmocka_unit_test(every_selection_can_be_named),
        cmocka_unit_test(what_is_not_understood_is_refused_by_name),
        cmocka_unit_test(a_session_refuses_to_go_on_where_tokens_depend_on_later_ones),
    };
    return kernels_init() || cmocka_run_group_tests_name("model/route_override", tests, NULL, NULL);
}
