/* Applying a plan: the smaller model computes the bits of the masked one. */
#include "support/arrays.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "plan/plan.h"
#include "support/tiny_model.h"

#define N_IDS 24

/* Logits [N_IDS, vocab] in the test arena. */
static float *logits_of(const struct coe_model *m)
{
    struct arena arena = { 0 };
    int32_t ids[N_IDS];
    const int32_t off[] = { 0, N_IDS };
    const int64_t pos0[] = { 0 };
    for (int i = 0; i < N_IDS; i++) ids[i] = (i * 37 + 11) % (m->spec.vocab - 1) + 1;
    const struct attn_batch batch = { 1, off, pos0, NULL };
    struct forward f = { .batch = &batch };
    struct nn c = { .arena = &arena };
    const struct val *y = model_forward(m, &c, ids, N_IDS, &f);
    if (!y) fail_msg("%s", coe_error());
    const size_t bytes = (size_t)(y->rows * y->cols) * sizeof(float);
    float *copy = test_alloc(bytes);
    memcpy(copy, y->data, bytes);
    arena_free(&arena);
    return copy;
}

/* A plan that keeps, in the i-th MoE layer, n[i % n_n] experts by lot. */
static struct plan *random_plan(const struct coe_model *m, const double *keep, int n_keep)
{
    struct plan *p, *q;
    assert_ok(plan_make(&p, "random", m, NULL, &(struct plan_opts){ .keep = keep[0], .seed = 1 }));
    for (int32_t i = 0; i < p->n_layers; i++) {
        assert_ok(plan_make(&q, "random", m, NULL, &(struct plan_opts){ .keep = keep[i % n_keep], .seed = 1 }));
        const struct plan_layer *l = &q->layer[i];
        assert_ok(plan_keep(p, i, l->layer, l->n_experts, l->keep, l->n_keep));
        plan_free(q);
    }
    return p;
}

static void check_same(const char *source, const double *keep, int n_keep)
{
    struct coe_model *m, *smaller;
    char dir[1200];
    snprintf(dir, sizeof dir, "%s", temp_path("applied"));
    assert_ok(model_open(&m, source));
    struct plan *p = random_plan(m, keep, n_keep);
    assert_ok(plan_apply(p, m, dir));
    assert_ok(plan_apply_live(p, m));
    assert_ok(model_open(&smaller, dir));
    assert_int_equal(ckpt_bytes(smaller->ckpt), plan_bytes(p, m));
    for (int32_t i = 0; i < p->n_layers; i++) {
        const struct moe_spec *s = &smaller->spec.layer[p->layer[i].layer].moe;
        assert_int_equal(s->n_experts, p->layer[i].n_keep);
        assert_int_equal(s->router.top_k, plan_top_k(&p->layer[i], &m->spec.layer[p->layer[i].layer].moe));
    }
    assert_same_bits(source, logits_of(smaller), logits_of(m), (int64_t)N_IDS * m->spec.vocab);
    plan_free(p);
    model_close(smaller);
    model_close(m);
}

static void check_fixture(const char *name)
{
    need_fixture(name);
    check_same(fixture(name), (const double[]){ 0.5 }, 1);
    check_same(fixture(name), (const double[]){ 0.1 }, 1);       /* one expert: fewer than top_k */
    check_same(fixture(name), (const double[]){ 0.84, 0.4 }, 2); /* layers differ */
}

/* Rows of routers that count experts go with them; what all layers share stays. */
static void whatever_the_router(void **state)
{
    static const char *const routers[] = {
        "{\"kind\": \"two_layer\", \"width\": 12}",
        "{\"kind\": \"cosine\", \"width\": 5, \"scale\": \"learned\"}",
        "{\"kind\": \"gru\", \"width\": 6}",
        "{\"kind\": \"rnn\", \"width\": 6}",
        "\"pre_gated\"",
        "\"frozen\"",
        "\"uncertainty\"",
        "\"similarity\"",
        "\"attention\"",
    };
    (void)state;
    for (size_t i = 0; i < COE_COUNT(routers); i++)
        check_same(tiny_model("routed", &(struct tiny){ .no_tokenizer = true, .router = routers[i] }),
                   (const double[]){ 0.5, 0.75 }, 2);
}

static void a_router_that_joins_the_experts_keeps_them(void **state)
{
    (void)state;
    struct coe_model *m;
    const char *from = tiny_model("joined", &(struct tiny){ .no_tokenizer = true, .router = "\"gating_residual\"" });
    assert_ok(model_open(&m, from));
    struct plan *p = random_plan(m, (const double[]){ 0.5 }, 1);
    assert_int_equal(plan_apply(p, m, temp_path("less")), COE_E_USAGE);
    assert_error_has("residual.weight joins the experts of a layer with one another");
    plan_free(p);
    model_close(m);
}

static void mixtral(void **state) { (void)state, check_fixture("families/mixtral"); }
static void mixtral_with_fused_experts(void **state) { (void)state, check_fixture("families/mixtral_fused"); }
static void olmoe(void **state) { (void)state, check_fixture("families/olmoe"); }

static void a_chain_in_bf16(void **state)
{
    (void)state;
    char dir[1200];
    snprintf(
        dir, sizeof dir, "%s",
        tiny_model("chain", &(struct tiny){ .n_layers = 3, .n_iterations = 3, .bf16 = true, .no_tokenizer = true }));
    check_same(dir, (const double[]){ 0.75 }, 1);
    check_same(dir, (const double[]){ 0.75, 0.25, 1 }, 3);
}

/* Sigmoid, selection bias, router bias, groups scored by their two best: all of it loses rows. */
static void a_grouped_router_with_biases(void **state)
{
    (void)state;
    struct coe_model *m;
    char dir[1200];
    snprintf(dir, sizeof dir, "%s", temp_path("grouped"));
    json_t *config = json_pack(
        "{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:b, s:{s:i, s:i, s:i, s:s, s:b, s:b, s:b, s:i, s:i, s:s, s:i, s:{s:i}}}",
        "model_type", "coe", "vocab_size", 64, "hidden_size", 16, "num_hidden_layers", 2, "num_attention_heads", 2,
        "num_key_value_heads", 1, "max_position_embeddings", 64, "tie_word_embeddings", 1, "coe", "n_experts", 12,
        "expert_ffn", 8, "top_k", 4, "score", "sigmoid", "renormalize", 1, "router_bias", 1, "selection_bias", 1,
        "groups", 4, "groups_kept", 2, "group_score", "sum2", "shared_ffn", 8, "chain", "iterations", 2);
    assert_ok(model_new(&m, config, "grouped", 3, 0.4));
    for (size_t i = 0; i < m->n_params; i++)
        if (m->params[i].at.slot == SLOT_ROUTER_BIAS || m->params[i].at.slot == SLOT_SELECTION_BIAS)
            memcpy(m->params[i].w.master, random_floats(i, 12, 0.2), 12 * sizeof(float));
    assert_ok(model_write(m, dir, config, DT_F32, NULL));
    json_decref(config);
    model_close(m);
    check_same(dir, (const double[]){ 0.67 }, 1); /* two of three in each group */
    check_same(dir, (const double[]){ 0.3 }, 1);  /* one of three: k falls to 2 */
    check_same(dir, (const double[]){ 1, 0.3 }, 2);
}

static void groups_that_lose_unequal_numbers_are_refused(void **state)
{
    (void)state;
    struct coe_model *m;
    char dir[1200];
    snprintf(dir, sizeof dir, "%s", tiny_model("plain", &(struct tiny){ .no_tokenizer = true }));
    assert_ok(model_open(&m, dir));
    struct plan *p = random_plan(m, (const double[]){ 0.5 }, 1);
    assert_ok(plan_keep(p, 0, 0, 8, (const int32_t[]){ 0, 1, 2, 6 }, 4));
    m->spec.layer[0].moe.router.n_group = 2;
    assert_int_equal(plan_apply_live(p, m), COE_E_INPUT);
    assert_error_has("keeps 3 experts of group 0");
    plan_free(p);
    model_close(m);
}

static void the_source_and_strange_directories_are_safe(void **state)
{
    (void)state;
    struct coe_model *m;
    char dir[1200];
    snprintf(dir, sizeof dir, "%s", tiny_model("source", &(struct tiny){ .no_tokenizer = true }));
    assert_ok(model_open(&m, dir));
    struct plan *p = random_plan(m, (const double[]){ 0.5 }, 1);
    assert_int_equal(plan_apply(p, m, dir), COE_E_USAGE);
    assert_error_has("is the model itself");
    assert_ok(dir_make(temp_path("letters")));
    spill(temp_path("letters/to-a-friend"), "dear", 4);
    assert_int_equal(plan_apply(p, m, temp_path("letters")), COE_E_USAGE);
    assert_error_has("holds files that are no model");
    assert_true(file_exists(temp_path("letters/to-a-friend")));
    p->model[0] ^= 1;
    assert_int_equal(plan_apply(p, m, temp_path("other")), COE_E_INPUT);
    assert_false(dir_exists(temp_path("other")));
    plan_free(p);
    model_close(m);
}

struct disk {
    struct plan *p;
    struct coe_model *m;
    const char *dir;
};

static coe_status apply_it(void *user)
{
    struct disk *d = user;
    return plan_apply(d->p, d->m, d->dir);
}

static void a_full_disk_leaves_nothing(void **state)
{
    (void)state;
    struct coe_model *m;
    char dir[1200], out[1200];
    snprintf(dir, sizeof dir, "%s", tiny_model("source", &(struct tiny){ .no_tokenizer = true }));
    snprintf(out, sizeof out, "%s", temp_path("full"));
    assert_ok(model_open(&m, dir));
    struct plan *p = random_plan(m, (const double[]){ 0.5 }, 1);
    assert_int_equal(on_full_disk(20000, apply_it, &(struct disk){ p, m, out }), COE_E_FAILED);
    assert_false(dir_exists(out));
    plan_free(p);
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whatever_the_router),
        cmocka_unit_test(a_router_that_joins_the_experts_keeps_them),
        cmocka_unit_test(mixtral),
        cmocka_unit_test(mixtral_with_fused_experts),
        cmocka_unit_test(olmoe),
        cmocka_unit_test(a_chain_in_bf16),
        cmocka_unit_test(a_grouped_router_with_biases),
        cmocka_unit_test(groups_that_lose_unequal_numbers_are_refused),
        cmocka_unit_test(the_source_and_strange_directories_are_safe),
        cmocka_unit_test(a_full_disk_leaves_nothing),
    };
    return kernels_init() || cmocka_run_group_tests_name("plan/apply", tests, NULL, NULL);
}
