/* Weights that parts declare in tables: their places, names, first values, and where the part finds them. */
#include "support/arrays.h"

#include <math.h>
#include <string.h>

#include "model/part_places.h"

#define CONFIG(coe)                                                                                                \
    "{ 'model_type': 'coe', 'vocab_size': 11, 'hidden_size': 8, 'num_hidden_layers': 3, 'num_attention_heads': 2," \
    "'intermediate_size': 6, 'coe': { 'n_experts': 4, 'expert_ffn': 3, 'dense_layers': [1], " coe " } }"

static json_t *config_of(const char *text)
{
    json_error_t at;
    char json[1000];
    size_t i = 0;
    for (; text[i]; i++) json[i] = text[i] == '\'' ? '"' : text[i];
    json[i] = 0;
    json_t *o = json_loads(json, 0, &at);
    if (!o) fail_msg("%s: %s", text, at.text);
    return o;
}

static struct coe_model *model_of(const char *text)
{
    struct coe_model *m = NULL;
    json_t *config = config_of(text);
    const coe_status s = model_new(&m, config, "test", 5, 0.5);
    json_decref(config);
    assert_ok(s);
    return m;
}

static const struct param *param_named(const struct coe_model *m, const char *name)
{
    for (size_t i = 0; i < m->n_params; i++)
        if (!strcmp(m->params[i].w.name, name)) return &m->params[i];
    fail_msg("no parameter %s", name);
    return NULL;
}

static void assert_shape(const struct param *p, int64_t rows, int64_t cols)
{
    assert_int_equal(p->w.rows, rows);
    assert_int_equal(p->w.cols, cols);
}

static void weights_of_a_router_stand_beside_the_plain_one_and_are_found_by_the_part(void **state)
{
    (void)state;
    struct coe_model *m = model_of(CONFIG("'router': { 'kind': 'two_layer', 'width': 5 }"));
    const struct param *fc1 = param_named(m, "model.layers.2.mlp.router.fc1.weight");
    const struct param *fc2 = param_named(m, "model.layers.2.mlp.router.fc2.weight");
    assert_shape(fc1, 5, 8);
    assert_shape(fc2, 4, 5);
    assert_ptr_equal(m->layer[2].moe.router_part[0][0], &fc1->w);
    assert_ptr_equal(m->layer[2].moe.router_part[0][1], &fc2->w);
    assert_null(m->layer[2].moe.router[0]); /* no matrix of a linear router */
    assert_string_equal(place_part(&m->spec, fc2->at)->name, "fc2.weight");
    assert_null(place_part(&m->spec, m->params[0].at));
    model_close(m);
}

/* Router: (5·8 + 4·5) for each of 2 layers with experts */
static void sizes_count_the_weights_of_parts_as_the_routers(void **state)
{
    (void)state;
    struct coe_model *m = model_of(CONFIG("'router': { 'kind': 'two_layer', 'width': 5 }"));
    assert_int_equal(spec_sizes(&m->spec).by_class[CLASS_ROUTER], 2 * (40 + 20));
    model_close(m);
}

static void each_pass_of_a_chain_has_its_own_unless_the_gate_is_shared(void **state)
{
    (void)state;
    struct coe_model *m = model_of(CONFIG("'router': 'two_layer', 'chain': { 'iterations': 2 }"));
    const struct param *second = param_named(m, "model.layers.0.mlp.router.1.fc1.weight");
    assert_shape(second, 64, 8);
    assert_ptr_equal(m->layer[0].moe.router_part[1][0], &second->w);
    assert_ptr_not_equal(m->layer[0].moe.router_part[0][0], &second->w);
    model_close(m);
    m = model_of(CONFIG("'router': 'two_layer', 'chain': { 'iterations': 2, 'gate': 'shared' }"));
    const struct param *both = param_named(m, "model.layers.0.mlp.router.fc1.weight");
    assert_ptr_equal(m->layer[0].moe.router_part[0][0], &both->w);
    assert_ptr_equal(m->layer[0].moe.router_part[1][0], &both->w);
    model_close(m);
}

static void first_values_are_those_of_the_table(void **state)
{
    (void)state;
    struct part_weight w = { .init = INIT_ORTHOGONAL };
    float x[6 * 4];
    struct rng r = rng_make(1, 2);
    part_init(x, &w, NULL, 6, 4, 0.1, &r);
    for (int i = 0; i < 6; i++)
        for (int o = 0; o <= i; o++) {
            double dot = 0;
            for (int j = 0; j < 4; j++) dot += (double)x[i * 4 + j] * (double)x[o * 4 + j];
            if (i / 4 == o / 4) assert_near("rows of one block", dot, i == o, 1e-6);
        }
    w = (struct part_weight){ .init = INIT_CONSTANT, .value = 0.25 };
    part_init(x, &w, NULL, 2, 4, 0.1, &r);
    assert_near("constant", (double)x[7], 0.25, 0);
    w.from_param = 2;
    part_init(x, &w, (double[]){ 3, 0.07 }, 1, 1, 0.1, &r);
    assert_near("from a setting", (double)x[0], 0.07, 1e-8);
    w.from_param = 0;
    w.init = INIT_ZERO;
    part_init(x, &w, NULL, 2, 4, 0.1, &r);
    assert_near("zero", (double)x[7], 0, 0);
    double square = 0;
    float many[4000];
    w = (struct part_weight){ .init = INIT_NORMAL, .value = 2 };
    part_init(many, &w, NULL, 40, 100, 0.1, &r);
    for (int i = 0; i < 4000; i++) square += (double)many[i] * (double)many[i];
    assert_near("its own deviation", sqrt(square / 4000), 2, 0.1);
    w.value = 0;
    part_init(many, &w, NULL, 40, 100, 0.1, &r);
    for (int i = 0; i < 4000; i++) square += i ? (double)many[i] * (double)many[i] : -square;
    assert_near("the model's deviation", sqrt(square / 4000), 0.1, 0.01);
}

static void what_a_router_does_not_have_is_refused(void **state)
{
    static const struct {
        const char *config, *part;
    } cases[] = {
        { CONFIG("'router': 'round_robin'"), "there is no router 'round_robin'" },
        { CONFIG("'router': 3"), "a router is a whole number" },
        { CONFIG("'router': { 'kind': 'two_layer', 'depth': 3 }"), "depth" },
        { CONFIG("'router': { 'kind': 'two_layer', 'width': 2.5 }"), "whole number" },
        { CONFIG("'router': { 'kind': 'two_layer', 'activation': 'step' }"), "activation 'step' is unknown" },
        { CONFIG("'router': 'two_layer', 'router_bias': true"), "router_bias belongs to a router of one matrix" },
    };
    (void)state;
    for (size_t i = 0; i < COE_COUNT(cases); i++) {
        struct coe_model *m = NULL;
        json_t *config = config_of(cases[i].config);
        assert_int_equal(model_new(&m, config, "test", 1, 0.1), COE_E_INPUT);
        assert_error_has(cases[i].part);
        json_decref(config);
    }
}

static void layers_that_do_not_fit_together_are_refused(void **state)
{
    (void)state;
    struct coe_model *m = NULL;
    json_t *config = config_of(CONFIG("'router': 'gating_residual', 'experts_per_layer': [4, 0, 5]"));
    assert_int_equal(model_new(&m, config, "test", 1, 0.1), COE_E_INPUT);
    assert_error_has("layer 2: its router (gating_residual) reads 5 values of a token");
    assert_error_has("leaves 4; between them the number of experts must not change");
    json_decref(config);
    config = config_of(CONFIG("'router': 'gru', 'experts_per_layer': [4, 0, 5]")); /* its state has no such size */
    assert_ok(model_new(&m, config, "test", 1, 0.1));
    m->spec.layer[2].moe.router.kind_param[0] = 8;
    assert_int_equal(spec_check(&m->spec, "here"), COE_E_INPUT);
    assert_error_has("reads 8 values of a token");
    model_close(m);
    json_decref(config);
    m = model_of(CONFIG("'router': 'attention'"));
    m->spec.layer[2].attn.kind = MIX_LATENT;
    assert_int_equal(spec_check(&m->spec, "here"), COE_E_INPUT);
    assert_error_has("layer 2: router attention needs a layer with plain attention");
    model_close(m);
}

static void every_table_is_one_that_the_model_can_place(void **state)
{
    static const char *const kinds[] = { "router", "expert" };
    const struct part *p;
    (void)state;
    for (size_t k = 0; k < COE_COUNT(kinds); k++)
        for (size_t i = 0; (p = part_at(kinds[k], i)); i++) {
            if (!p->impl) continue; /* a kind without a table */
            const struct part_weight *w =
                k ? ((const struct expert_part *)p->impl)->weights : ((const struct router_part *)p->impl)->weights;
            int n = 0;
            for (; w && w->name; w++, n++) {
                assert_non_null(w->shape);
                assert_int_not_equal(w->scope, k ? PART_OF_ITERATION : PART_OF_EXPERT);
                assert_false(w->by_expert && (w->couples || w->scope == PART_OF_MODEL));
            }
            assert_in_range(n, 0, PART_WEIGHTS);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_of_a_router_stand_beside_the_plain_one_and_are_found_by_the_part),
        cmocka_unit_test(sizes_count_the_weights_of_parts_as_the_routers),
        cmocka_unit_test(each_pass_of_a_chain_has_its_own_unless_the_gate_is_shared),
        cmocka_unit_test(first_values_are_those_of_the_table),
        cmocka_unit_test(what_a_router_does_not_have_is_refused),
        cmocka_unit_test(layers_that_do_not_fit_together_are_refused),
        cmocka_unit_test(every_table_is_one_that_the_model_can_place),
    };
    return kernels_init() || cmocka_run_group_tests_name("model/part_places", tests, NULL, NULL);
}
