/* Opening a model: tensors are joined to places by name, and what does not fit is named; masks of experts; sessions. */
#include "support/arrays.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "model/model.h"
#include "support/tiny_model.h"

#define VOCAB 320

static struct coe_model *model;
static coe_session *session;

static int tear_down(void **state)
{
    (void)state;
    if (session) coe_session_close(session);
    if (model) model_close(model);
    session = NULL;
    model = NULL;
    return 0;
}

static const struct tiny plain = { .n_layers = 2, .no_tokenizer = true };

/* ---- damage to the list of tensors ---- */

struct change {
    const char *name;   /* of the tensor that changes, and how */
    const char *rename; /* "" takes it out */
    int64_t rows;       /* not 0: other shape */
    enum dtype type;    /* other type (DT_F32: the same) */
};

/* A copy of the tiny model with one tensor changed, in temp_path("changed") */
static const char *changed_model(const struct change *c)
{
    struct ckpt *from = NULL;
    const char *source = tiny_model("whole", &plain), *dir = temp_path("changed");
    assert_ok(ckpt_open(&from, source));
    const size_t n = ckpt_count(from);
    struct ckpt_item *items = test_alloc((n + 1) * sizeof *items);
    size_t m = 0;
    for (size_t i = 0; i < n; i++) {
        items[m].t = *ckpt_at(from, i);
        if (!strcmp(items[m].t.name, c->name)) {
            if (c->rename && !*c->rename) continue;
            if (c->rename) items[m].t.name = c->rename;
            if (c->rows) items[m].t.dim[0] = c->rows;
            if (c->type) items[m].t.type = c->type;
        }
        m++;
    }
    (void)dir_remove(dir);
    const coe_status s = ckpt_write_dir(dir, ckpt_config(from), items, m, 0, NULL, NULL);
    ckpt_close(from);
    assert_ok(s);
    return dir;
}

static void assert_refused(struct change c, const char *part)
{
    const char *dir = changed_model(&c);
    assert_int_equal(model_open(&model, dir), COE_E_INPUT);
    assert_null(model);
    assert_error_has(part);
    assert_error_has("changed");
}

static void tensors_that_are_missing_superfluous_or_misshapen_are_named(void **state)
{
    (void)state;
    static const char q[] = "model.layers.1.self_attn.q_proj.weight", norm[] = "model.norm.weight";
    static const char up[] = "model.layers.1.mlp.experts.7.up_proj.weight", gate[] = "model.layers.0.mlp.gate.1.weight";
    assert_refused((struct change){ .name = q, .rename = "" }, "q_proj.weight is missing");
    assert_refused((struct change){ .name = up, .rename = "" }, "experts.7.up_proj.weight is missing");
    assert_refused((struct change){ .name = gate, .rename = "" }, "mlp.gate.1.weight is missing");
    assert_refused((struct change){ .name = norm, .rename = "model.nosuch.weight" }, "model.norm.weight is missing");
    assert_refused((struct change){ .name = q, .rows = 16 }, "q_proj.weight is [16,");
    assert_refused((struct change){ .name = norm, .rows = 16 }, "model.norm.weight is [16]");
    assert_refused((struct change){ .name = up, .type = DT_I32 }, "stored as I32");
}

static coe_status forty_two(void *user, const struct tensor *t, int64_t first, int64_t count, void *out)
{
    (void)user, (void)t, (void)first;
    for (int64_t i = 0; i < count; i++) ((float *)out)[i] = 42;
    return COE_OK;
}

static void a_tensor_that_nobody_asked_for_is_named(void **state)
{
    (void)state;
    struct ckpt *from = NULL;
    assert_ok(ckpt_open(&from, tiny_model("whole", &plain)));
    const size_t n = ckpt_count(from);
    struct ckpt_item *items = test_alloc((n + 1) * sizeof *items);
    for (size_t i = 0; i < n; i++) items[i].t = *ckpt_at(from, i);
    items[n] = (struct ckpt_item){ { "model.extra", DT_F32, 1, { 3 }, NULL }, forty_two, NULL };
    const coe_status s = ckpt_write_dir(temp_path("more"), ckpt_config(from), items, n + 1, 0, NULL, NULL);
    ckpt_close(from);
    assert_ok(s);
    assert_int_equal(model_open(&model, temp_path("more")), COE_E_INPUT);
    assert_error_has("tensor model.extra is not part of a coe model");
}

static void weights_alone_are_no_model(void **state)
{
    (void)state;
    char path[1200];
    snprintf(path, sizeof path, "%s/model.safetensors", tiny_model("whole", &plain));
    assert_int_equal(model_open(&model, path), COE_E_INPUT);
    assert_error_has("config.json");
    assert_int_equal(model_open(&model, temp_path("nowhere")), COE_E_INPUT);
    assert_error_has("nowhere");
}

static void a_written_model_keeps_its_selection_bias_in_f32(void **state)
{
    (void)state;
    json_t *config = json_pack("{s:s, s:i, s:i, s:i, s:i, s:{s:i, s:i, s:s, s:b, s:{s:i, s:s}}}", "model_type", "coe",
                               "vocab_size", 20, "hidden_size", 8, "num_hidden_layers", 1, "num_attention_heads", 2,
                               "coe", "n_experts", 4, "expert_ffn", 3, "score", "sigmoid", "selection_bias", 1, "chain",
                               "iterations", 2, "weight", "learned");
    assert_non_null(config);
    coe_status s = model_new(&model, config, "new", 1, 0.02);
    if (!s) s = model_write(model, temp_path("bf16"), config, DT_BF16, NULL);
    json_decref(config);
    assert_ok(s);
    struct ckpt *c = NULL;
    assert_ok(ckpt_open(&c, temp_path("bf16")));
    assert_int_equal(ckpt_find(c, "model.layers.0.mlp.gate.1.e_score_correction_bias")->type, DT_F32);
    assert_int_equal(ckpt_find(c, "model.layers.0.mlp.coe_weight")->type, DT_F32);
    assert_int_equal(ckpt_find(c, "model.layers.0.mlp.experts.0.up_proj.weight")->type, DT_BF16);
    ckpt_close(c);
}

/* Every value is a function of (seed, parameter, element): norms 1, chain weight and biases 0, the rest N(0, std). */
static void a_fresh_model_is_drawn_by_its_seed(void **state)
{
    (void)state;
    json_t *config = json_pack("{s:s, s:i, s:i, s:i, s:i, s:b, s:{s:i, s:i, s:{s:i, s:s}}}", "model_type", "coe",
                               "vocab_size", 500, "hidden_size", 64, "num_hidden_layers", 1, "num_attention_heads", 2,
                               "attention_bias", 1, "coe", "n_experts", 4, "expert_ffn", 3, "chain", "iterations", 2,
                               "weight", "learned");
    struct coe_model *again = NULL;
    coe_status s = model_new(&model, config, "new", 5, 0.02);
    if (!s) s = model_new(&again, config, "new", 5, 0.02);
    json_decref(config);
    assert_ok(s);
    double square = 0;
    for (size_t i = 0; i < model->n_params; i++) {
        const struct param *p = &model->params[i];
        assert_same_bits(p->w.name, again->params[i].w.master, p->w.master, weight_count(&p->w));
        for (int64_t j = 0; slot_info[p->at.slot].is_vector && j < weight_count(&p->w); j++)
            assert_true(p->w.master[j] == (slot_info[p->at.slot].class == CLASS_NORM ? 1.0f : 0.0f));
        for (int64_t j = 0; p->at.slot == SLOT_EMBED && j < weight_count(&p->w); j++)
            square += (double)p->w.master[j] * (double)p->w.master[j];
    }
    model_close(again);
    assert_near("standard deviation of the embedding", square / (500 * 64), 0.02 * 0.02, 0.02 * 0.02 * 0.05);
}

/* ---- masks ---- */

static void a_mask_must_name_a_layer_with_experts_and_leave_one(void **state)
{
    (void)state;
    const uint8_t none[8] = { 0 }, one[8] = { 0, 0, 1 };
    assert_ok(model_open(&model, tiny_model("whole", &plain)));
    model->spec.layer[1].is_moe = false; /* as a dense layer would be */
    assert_int_equal(model_set_keep(model, 1, one), COE_E_USAGE);
    assert_error_has("layer 1 has no experts");
    assert_int_equal(model_set_keep(model, 0, none), COE_E_USAGE);
    assert_error_has("layer 0 would keep no expert");
    assert_ok(model_set_keep(model, 0, one));
    assert_int_equal(model->hook[0].n_kept, 1);
    assert_ok(model_set_keep(model, 0, NULL));
    assert_null(model->hook[0].keep);
}

/* ---- sessions ---- */

static void open_session(int32_t max_tokens, coe_route_fn *on_route, void *user)
{
    if (!model) assert_ok(model_open(&model, tiny_model("whole", &plain)));
    if (session) coe_session_close(session);
    session = NULL;
    const coe_session_opts opts = { .max_tokens = max_tokens, .on_route = on_route, .user = user };
    assert_ok(coe_session_open(&session, model, &opts));
}

static void a_session_refuses_what_it_cannot_hold(void **state)
{
    (void)state;
    const int32_t ids[40] = { 1, 2, 3 }, wrong[] = { 5, VOCAB }, negative[] = { -1 };
    open_session(16, NULL, NULL);
    assert_int_equal(coe_session_eval(session, ids, 40, NULL, 1), COE_E_USAGE);
    assert_error_has("the cache holds 16 tokens");
    assert_int_equal(coe_session_eval(session, ids, 0, NULL, 1), COE_E_USAGE);
    assert_error_has("no tokens");
    assert_int_equal(coe_session_eval(session, wrong, 2, NULL, 1), COE_E_USAGE);
    assert_error_has("token id 320 at position 1");
    coe_session *expanded;
    assert_int_equal(coe_session_open(&expanded, model, &(coe_session_opts){ .mla = COE_MLA_EXPANDED }), COE_E_USAGE);
    assert_error_has("no latent attention");
    assert_int_equal(coe_session_eval(session, negative, 1, NULL, 1), COE_E_USAGE);
    assert_int_equal(coe_session_position(session), 0); /* nothing of all that was kept */
    int32_t *late = test_alloc(600 * sizeof *late);
    late[599] = -7; /* behind the first forward pass of 512 */
    open_session(640, NULL, NULL);
    assert_int_equal(coe_session_eval(session, late, 600, NULL, 1), COE_E_USAGE);
    assert_error_has("token id -7 at position 599");
    assert_int_equal(coe_session_position(session), 0);
    open_session(16, NULL, NULL);
    assert_ok(coe_session_eval(session, ids, 16, NULL, 1));
    assert_int_equal(coe_session_position(session), 16);
    assert_int_equal(coe_session_eval(session, ids, 1, NULL, 1), COE_E_USAGE);
}

static void a_session_goes_back_and_never_forward(void **state)
{
    (void)state;
    const int32_t ids[] = { 1, 2, 3, 4 };
    open_session(32, NULL, NULL);
    assert_ok(coe_session_eval(session, ids, 4, NULL, 1));
    assert_int_equal(coe_session_rewind(session, 5), COE_E_USAGE);
    assert_int_equal(coe_session_rewind(session, -1), COE_E_USAGE);
    assert_ok(coe_session_rewind(session, 1));
    assert_int_equal(coe_session_position(session), 1);
}

struct events {
    int n;
    int64_t positions;
    int32_t layers, iterations;
};

static void on_event(void *user, const coe_route_event *e)
{
    struct events *s = user;
    s->n++;
    s->positions |= (int64_t)1 << e->position;
    s->layers |= 1 << e->layer;
    s->iterations |= 1 << e->iteration;
    assert_int_equal(e->n_experts, 8);
    assert_int_equal(e->n, 2);
    assert_true(e->expert[0] < e->expert[1]);
    assert_true(e->weight[0] > 0 && e->weight[1] > 0);
}

/* 5 tokens, then one more: 6 tokens · 2 layers · 2 passes */
static void every_decision_is_reported_once(void **state)
{
    (void)state;
    const int32_t ids[] = { 1, 2, 3, 4, 5, 6 };
    struct events seen = { 0 };
    open_session(32, on_event, &seen);
    assert_ok(coe_session_eval(session, ids, 5, NULL, 1));
    assert_ok(coe_session_eval(session, ids + 5, 1, NULL, 1));
    assert_int_equal(seen.n, 24);
    assert_int_equal(seen.positions, 63);
    assert_int_equal(seen.layers, 3);
    assert_int_equal(seen.iterations, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(tensors_that_are_missing_superfluous_or_misshapen_are_named, tear_down),
        cmocka_unit_test_teardown(a_tensor_that_nobody_asked_for_is_named, tear_down),
        cmocka_unit_test_teardown(weights_alone_are_no_model, tear_down),
        cmocka_unit_test_teardown(a_written_model_keeps_its_selection_bias_in_f32, tear_down),
        cmocka_unit_test_teardown(a_fresh_model_is_drawn_by_its_seed, tear_down),
        cmocka_unit_test_teardown(a_mask_must_name_a_layer_with_experts_and_leave_one, tear_down),
        cmocka_unit_test_teardown(a_session_refuses_what_it_cannot_hold, tear_down),
        cmocka_unit_test_teardown(a_session_goes_back_and_never_forward, tear_down),
        cmocka_unit_test_teardown(every_decision_is_reported_once, tear_down),
    };
    return kernels_init() || cmocka_run_group_tests_name("model/open", tests, NULL, NULL);
}
