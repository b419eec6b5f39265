/* Whole tiny models (two layers, attention included) in every router mode, and the other fields of the spec one by one:
 * the FP64 twin of the model agrees with central differences, and loss and gradients of the FP32 model with the twin.
 */
#include "support/twin_model.h"

#include <math.h>
#include <string.h>

#include "gradient/modes.h"

#define LOSS_TOL 2e-6
#define GRADIENT_TOL                                                                                                   \
    1e-4 /* through two layers; single operations and layers are held to 1e-5 in the files beside this one */

/* Two rows of 5 and 4 tokens, of several tasks; targets are the next ids, the last of each row has none */
static const int32_t ids[] = { 3, 9, 1, 1, 7, 10, 0, 4, 2 }, targets[] = { 9, 1, 1, 7, -1, 0, 4, 2, -1 };
static const int32_t off[] = { 0, 5, 9 };
static const int64_t pos0[] = { 0, 0 };
static const int32_t tasks[] = { 0, 0, 1, 1, 1, 1, 0, 0, 0 };
static const struct attn_batch batch = { 2, off, pos0, NULL };
#define N_TARGETS 7

static struct coe_model *model; /* closed by the next test when one fails */

static json_t *moe_config(const struct moe_spec *s)
{
    json_t *losses = json_array();
    for (int32_t i = 0; i < s->n_losses; i++)
        json_array_append_new(losses, json_pack("{s:s, s:f}", "kind", s->loss[i].kind, "coef", s->loss[i].coef));
    json_t *chain = json_pack("{s:i, s:s, s:s, s:s}", "iterations", s->chain.n_iterations, "gate",
                              s->chain.shared_gate ? "shared" : "independent", "residual",
                              residual_name[s->chain.residual], "weight", s->chain.learned_weight ? "learned" : "one");
    return json_pack("{s:i, s:i, s:i, s:s, s:b, s:f, s:b, s:b, s:i, s:i, s:s, s:i, s:b, s:o, s:o}", "n_experts",
                     s->n_experts, "expert_ffn", s->expert_ffn, "top_k", s->router.top_k, "score",
                     score_name[s->router.score], "renormalize", s->router.renormalize, "scale",
                     (double)s->router.scale, "router_bias", s->router.bias, "selection_bias", s->router.selection_bias,
                     "groups", s->router.n_group, "groups_kept", s->router.topk_group, "group_score",
                     group_score_name[s->router.group_score], "shared_ffn", s->shared_ffn, "shared_gate",
                     s->shared_gate, "chain", chain, "losses", losses);
}

/* A fresh model; norms, biases and chain weights are moved so that they can be told from their defaults. Takes config.
 */
static void open_model(json_t *config, uint64_t seed)
{
    assert_non_null(config);
    if (model) model_close(model);
    model = NULL;
    const coe_status status = model_new(&model, config, "gradient test", seed, 0.3);
    json_decref(config);
    assert_ok(status);
    for (size_t i = 0; i < model->n_params; i++) {
        struct param *p = &model->params[i];
        const float *x = random_floats(seed * 100 + i, weight_count(&p->w), 0.3);
        for (int64_t j = 0; slot_info[p->at.slot].is_vector && j < weight_count(&p->w); j++) p->w.master[j] += x[j];
    }
}

/* "coe" object of the mode in a small decoder; `extra` and `coe_extra` are laid over it (taken) */
static void make_model(const struct moe_spec *s, json_t *extra, json_t *coe_extra, uint64_t seed)
{
    json_t *config = json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:o}", "model_type", "coe", "vocab_size",
                               11, "hidden_size", 8, "num_hidden_layers", 2, "num_attention_heads", 2,
                               "num_key_value_heads", 1, "head_dim", 4, "intermediate_size", 6, "rms_norm_eps", 1e-5,
                               "coe", moe_config(s));
    assert_non_null(config);
    if (extra) json_object_update_new(config, extra);
    if (coe_extra) json_object_update_new(json_object_get(config, "coe"), coe_extra);
    open_model(config, seed);
}

#define ALONE 4 /* parameters of each mode whose derivative is taken by itself */

static void check_twin(struct twin_model *t, const char *mode)
{
    bool *skip = test_alloc(model->n_params * sizeof *skip);
    const char **name = test_alloc(model->n_params * sizeof *name);
    twin_backward(twin_model_objective(t));
    for (size_t i = 0; i < model->n_params; i++) {
        name[i] = model->params[i].w.name;
        skip[i] = model->params[i].at.slot == SLOT_SELECTION_BIAS; /* it chooses; the choice is held */
        skip[i] = skip[i] || !model->params[i].w.grad;             /* never trained */
    }
    const struct gradient_set set = { (int32_t)model->n_params, t->x, t->leaf, skip, name };
    assert_derivatives(mode, &set, ALONE, model->n_params, twin_model_value, t);
}

static void check_choice(const struct twin_list *want, struct route_record *const *got, int32_t n, const char *mode)
{
    assert_int_equal(want->n, n);
    for (int32_t i = 0; i < n; i++)
        for (int32_t row = 0; row < got[i]->route.n_slots; row++) {
            const struct route *r = &got[i]->route;
            const int32_t t = r->row_token[row], e = r->expert[r->row_slot[row]];
            if (!want->records[i]->chosen[t * r->n_experts + e])
                fail_msg("%s: decision %d, token %d: expert %d, which the twin did not choose", mode, i, t, e);
        }
}

static double fast_objective(struct nn *c, const struct twin_model *t, const char *mode)
{
    struct route_record *records[8];
    struct forward f = { .batch = &batch, .task = tasks, .records = records, .max_records = 8 };
    double sum, total;
    int64_t count;
    struct val *y = model_forward(model, c, ids, COE_COUNT(ids), &f);
    if (!y) fail_msg("%s", coe_error());
    check_choice(&t->frozen, records, f.n_records, mode);
    assert_ok(nn_xent(c, y, targets, 1.0 / N_TARGETS, 0, &sum, &count));
    const struct loss_call call = { .c = c, .records = records, .n_records = f.n_records, .batch = &batch, .scale = 1 };
    assert_ok(moe_losses(&call, &total, NULL));
    return sum / N_TARGETS + total;
}

static void check_fast(struct twin_model *t, const char *mode)
{
    struct tape tape = { 0 };
    struct nn c = { .arena = test_arena(), .tape = &tape };
    char what[300];
    const double want = twin_model_value(t), got = fast_objective(&c, t, mode);
    assert_near(mode, got, want, LOSS_TOL * fabs(want));
    assert_ok(nn_backward(&c));
    for (size_t i = 0; i < model->n_params; i++) {
        if (!model->params[i].w.grad) continue;
        snprintf(what, sizeof what, "%s: gradient of %s", mode, model->params[i].w.name);
        assert_norm_close_d(what, model->params[i].w.grad, t->leaf[i]->g, weight_count(&model->params[i].w),
                            GRADIENT_TOL);
    }
}

static void check_model(const char *mode)
{
    const struct arena_mark mark = arena_save(test_arena());
    struct twin_model t = twin_model_of(model, ids, targets, &batch);
    t.scale = 1.0 / N_TARGETS;
    t.task = tasks;
    check_twin(&t, mode);
    check_fast(&t, mode);
    arena_rewind(test_arena(), mark);
}

struct group {
    char name[100];
    enum residual_mode residual;
    int shared;
};

static void every_router_mode(void **state)
{
    const struct group *g = *state;
    for (int router = 0; router < ROUTER_MODES; router++) {
        const struct moe_spec s = mode_spec(router, g->residual, g->shared);
        char mode[256];
        snprintf(mode, sizeof mode, "%s", mode_name(&s));
        make_model(&s, NULL, NULL, 1 + (uint64_t)router);
        check_model(mode);
    }
}

static void check_variant(const char *what, json_t *extra, json_t *coe_extra)
{
    const struct moe_spec s = mode_spec(1, RESIDUAL_PRENORM, 1);
    make_model(&s, extra, coe_extra, 50);
    check_model(what);
}

static void fields_of_the_config(void **state)
{
    (void)state;
    check_variant("tied embeddings", json_pack("{s:b}", "tie_word_embeddings", 1), NULL);
    check_variant("attention biases", json_pack("{s:b}", "attention_bias", 1), NULL);
    check_variant("norms per head", NULL, json_pack("{s:s}", "qk_norm", "head"));
    check_variant("norms of whole projections", NULL, json_pack("{s:s}", "qk_norm", "full"));
    check_variant("a dense layer", NULL, json_pack("{s:[i]}", "dense_layers", 0));
    check_variant("experts per layer", NULL,
                  json_pack("{s:[i, i], s:[i, i], s:[{s:s}]}", "experts_per_layer", 4, 2, "top_k_per_layer", 2, 1,
                            "losses", "kind", "sequence"));
}

/* A dense family, with the biases of its config */
static void dense_models(void **state)
{
    (void)state;
    json_t *config = json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:b, s:b}", "model_type", "llama", "vocab_size", 11,
                               "hidden_size", 8, "num_hidden_layers", 2, "num_attention_heads", 2,
                               "num_key_value_heads", 1, "intermediate_size", 6, "attention_bias", 1, "mlp_bias", 1);
    open_model(config, 70);
    check_model("llama with all biases");
}

/* Fields that families set and that change no parameter */
static void fields_of_the_spec(void **state)
{
    (void)state;
    const struct moe_spec s = mode_spec(2, RESIDUAL_PRENORM, 2);
    make_model(&s, NULL, json_pack("{s:[i]}", "dense_layers", 1), 60);
    model->spec.embed_scale = 1.7f;
    model->spec.logit_scale = 0.6f;
    model->spec.logit_cap = 2;
    check_model("scales and a cap of the logits");
    make_model(&s, NULL, NULL, 61);
    for (int l = 0; l < 2; l++) model->spec.layer[l].attn.clip = 0.7f, model->spec.layer[l].attn.window = 3;
    check_model("clipped projections, a window");
    make_model(&s, NULL, NULL, 62);
    for (int l = 0; l < 2; l++) model->spec.layer[l].attn.cap = 0.8f, model->spec.layer[l].act = ACT_GELU_TANH;
    check_model("capped scores");
    make_model(&s, NULL, json_pack("{s:f}", "input_scale", 1.7), 63);
    check_model("scaled inputs of experts");
}

/* Every router of the registry with settings of its own, over chains and layers */
static void every_router(void **state)
{
    static const char *const routers[] = {
        "{\"kind\": \"two_layer\", \"width\": 5}",
        "{\"kind\": \"two_layer\", \"width\": 5, \"activation\": \"gelu\"}",
        "{\"kind\": \"gru\", \"width\": 5}",
        "{\"kind\": \"rnn\", \"width\": 5}",
        "{\"kind\": \"gating_residual\"}",
        "{\"kind\": \"gating_residual\", \"gate\": \"two_layer\", \"width\": 5, \"norm_std\": 1.5}",
        "{\"kind\": \"pre_gated\"}",
        "{\"kind\": \"frozen\"}",
        "{\"kind\": \"cosine\", \"temperature\": 0.5}",
        "{\"kind\": \"cosine\", \"width\": 3, \"temperature\": 2, \"scale\": \"learned\"}",
        "{\"kind\": \"similarity\"}",
        "{\"kind\": \"attention\"}",
        "{\"kind\": \"segment\", \"width\": 3, \"temperature\": 0.7}",
        "{\"kind\": \"segment\", \"width\": 2, \"reads\": \"previous\"}",
        "{\"kind\": \"uncertainty\", \"dropout\": 0}",
        "{\"kind\": \"tasks\", \"tasks\": 2, \"task_experts\": 1}",
        "{\"kind\": \"tasks\", \"tasks\": 2, \"groups\": 2, \"group_experts\": 1, \"task_experts\": 1,"
        " \"self_gate\": \"sigmoid\"}",
        "\"linear\"",
    };
    (void)state;
    for (size_t i = 0; i < COE_COUNT(routers); i++)
        for (int router = 2; router < 4; router++) { /* renormalised; with softmax, then sigmoid */
            const struct moe_spec s = mode_spec(router, router == 2 ? RESIDUAL_PRENORM : RESIDUAL_BOTH, 0);
            json_t *kind = json_loads(routers[i], JSON_DECODE_ANY, NULL);
            const bool probabilities = strstr(routers[i], "similarity") || strstr(routers[i], "attention") ||
                                       strstr(routers[i], "uncertainty");
            json_t *coe = json_pack("{s:o, s:s}", "router", kind, "score",
                                    router == 3 && !probabilities ? "sigmoid" : "softmax");
            make_model(&s, NULL, coe, 80 + i);
            check_model(routers[i]);
        }
}

/* Two levels and self gates of both kinds: in a chain of passes with gates of their own */
static void gates_of_tasks(void **state)
{
    static const char *const routers[] = {
        "{\"kind\": \"tasks\", \"tasks\": 2, \"task_experts\": 1, \"levels\": 2, \"self_gate\": \"sigmoid\"}",
        "{\"kind\": \"tasks\", \"tasks\": 2, \"task_experts\": 2, \"self_gate\": \"softmax\"}",
    };
    (void)state;
    for (size_t i = 0; i < COE_COUNT(routers); i++) {
        struct moe_spec s = mode_spec(2, RESIDUAL_PRENORM, 0);
        s.chain.shared_gate = false;
        assert_true(s.chain.n_iterations > 1);
        make_model(&s, NULL, json_pack("{s:o}", "router", json_loads(routers[i], JSON_DECODE_ANY, NULL)), 120 + i);
        check_model(routers[i]);
    }
}

static int close_model(void **state)
{
    (void)state;
    if (model) model_close(model);
    model = NULL;
    return 0;
}

int main(void)
{
    enum { GROUPS = 5 * SHARED_MODES };
    static struct group groups[GROUPS];
    struct CMUnitTest tests[GROUPS + 5] = { cmocka_unit_test(fields_of_the_config), cmocka_unit_test(dense_models),
                                            cmocka_unit_test(fields_of_the_spec), cmocka_unit_test(every_router),
                                            cmocka_unit_test(gates_of_tasks) };
    for (int i = 0; i < GROUPS; i++) {
        struct group *g = &groups[i];
        *g = (struct group){ .residual = (enum residual_mode)(i % 5), .shared = i / 5 };
        snprintf(g->name, sizeof g->name, "%s residual, %s, every router mode", residual_name[g->residual],
                 shared_name[g->shared]);
        tests[5 + i] = (struct CMUnitTest){ g->name, every_router_mode, NULL, NULL, g };
    }
    coe_set_threads(1); /* small products; that threads change nothing is tests/model/test_identity.c's business */
    return kernels_init() || cmocka_run_group_tests_name("gradient/model", tests, NULL, close_model);
}
