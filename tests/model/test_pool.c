/* Layers that share their experts (ReXMoE). */
#include "support/arrays.h"

#include <string.h>

#include "model/bind.h"
#include "moe/pool.h"
#include "support/routes.h"

enum { N = 12, VOCAB = 11 };
static const int32_t ids[N] = { 1, 5, 2, 8, 3, 3, 9, 4, 7, 10, 0, 6 };

static struct coe_model *model(const char *coe, uint64_t seed)
{
    struct coe_model *m;
    char text[700];
    snprintf(text, sizeof text,
             "{\"model_type\": \"coe\", \"vocab_size\": 11, \"hidden_size\": 8, \"num_hidden_layers\": 4,"
             " \"num_attention_heads\": 2, \"intermediate_size\": 6, \"coe\": { \"expert_ffn\": 5, \"top_k\": 2,"
             " \"n_experts\": 4 %s } }",
             coe);
    json_t *config = json_loads(text, 0, NULL);
    assert_non_null(config);
    assert_ok(model_new(&m, config, "test", seed, 0.4));
    json_decref(config);
    return m;
}

static float *logits_of(const struct coe_model *m, struct nn *c)
{
    static const int32_t off[] = { 0, N };
    static const int64_t pos0[] = { 0 };
    static const struct attn_batch batch = { 1, off, pos0, NULL };
    struct forward f = { .batch = &batch };
    const struct val *y = model_forward(m, c, ids, N, &f);
    if (!y) fail_msg("%s", coe_error());
    return y->data;
}

static struct param *param_at(struct coe_model *m, struct place at)
{
    for (size_t i = 0; i < m->n_params; i++)
        if (!memcmp(&m->params[i].at, &at, sizeof at)) return &m->params[i];
    return NULL;
}

/* Card 7: N = 4, r = 2, from 10 to 30: at t = 10, 15, 20, 25, 30 a router sees 4, 5, 6, 7, 8 experts. */
static void a_router_comes_to_see_its_neighbours_experts_one_by_one(void **state)
{
    (void)state;
    const struct pool_spec p = { .layers = 2, .from = 10, .to = 30 };
    static const int32_t step[] = { 0, 10, 15, 20, 25, 30, 99 }, want[] = { 4, 4, 5, 6, 7, 8, 8 };
    for (int i = 0; i < 7; i++) assert_int_equal(pool_visible(&p, 8, (uint64_t)step[i]), want[i]);
}

static int32_t seen(struct moe_spec *m, uint64_t step, uint8_t *keep)
{
    struct nn *c = routes_training(step);
    struct route_record rec = { .layer = 1 };
    struct route_hook hook;
    assert_true(pool_hide(c, m, &rec, NULL, &hook));
    memcpy(keep, hook.keep, 8);
    return hook.n_kept;
}

static void own_experts_are_never_hidden_unless_all_are_drawn_alike(void **state)
{
    (void)state;
    struct moe_spec m = routes_spec(8, 2, "top_k");
    m.pool = (struct pool_spec){ .layers = 2, .at = 1, .from = 10, .to = 30 };
    uint8_t keep[8], other[8], ever_hidden = 0, changed = 0;
    for (uint64_t step = 0; step < 30; step++) {
        assert_int_equal(seen(&m, step, keep), pool_visible(&m.pool, 8, step));
        for (int e = 4; e < 8; e++) assert_true(keep[e]);
    }
    for (uint64_t step = 17; step < 20; step++) { /* six experts at each of them */
        seen(&m, step, keep), seen(&m, step - 1, other);
        changed |= memcmp(keep, other, 8) != 0;
    }
    assert_true(changed);
    m.pool.mask = POOL_UNIFORM;
    for (uint64_t step = 0; step < 30; step++) {
        assert_int_equal(seen(&m, step, keep), pool_visible(&m.pool, 8, step));
        for (int e = 4; e < 8; e++) ever_hidden |= !keep[e];
    }
    assert_true(ever_hidden);
}

/* Card 7: r = 1 is the ordinary model. */
static void a_pool_of_one_layer_is_no_pool(void **state)
{
    (void)state;
    struct coe_model *a = model("", 3), *b = model(", \"pool\": { \"layers\": 1 }", 3);
    struct nn c = { .arena = test_arena() };
    assert_same_bits("logits", logits_of(b, &c), logits_of(a, &c), N * VOCAB);
    model_close(a);
    model_close(b);
}

/* Card 7: until step `from` only local rows of the router count: the logits of the model without a pool. */
static void before_the_schedule_the_model_is_the_one_without_a_pool(void **state)
{
    (void)state;
    struct coe_model *a = model("", 3), *b = model(", \"pool\": { \"layers\": 2, \"from\": 5, \"to\": 9 }", 4);
    for (size_t i = 0; i < a->n_params; i++) {
        const struct param *p = &a->params[i];
        struct param *to = param_at(b, p->at);
        const bool router = p->at.slot == SLOT_ROUTER;
        const int64_t skip = router ? p->at.layer % 2 * weight_count(&p->w) : 0;
        assert_non_null(to);
        assert_int_equal(weight_count(&to->w), weight_count(&p->w) * (router ? 2 : 1));
        memcpy(to->w.master + skip, p->w.master, (size_t)weight_count(&p->w) * sizeof(float));
    }
    assert_same_bits("logits", logits_of(b, routes_training(5)), logits_of(a, routes_training(5)), N * VOCAB);
    model_close(a);
    model_close(b);
}

static void a_pool_stores_every_expert_once_and_survives_a_file(void **state)
{
    (void)state;
    struct coe_model *m = model(", \"pool\": { \"layers\": 2 }", 3), *again;
    assert_ptr_equal(m->layer[0].moe.gate[5], m->layer[1].moe.gate[5]);
    assert_ptr_equal(m->layer[0].moe.gate[5], &param_at(m, (struct place){ SLOT_EXPERT_GATE, 1, 1, 0, 0 })->w);
    assert_ptr_not_equal(m->layer[1].moe.gate[5], m->layer[3].moe.gate[5]);
    const char *dir = temp_path("pool");
    struct nn c = { .arena = test_arena() };
    json_t *config = json_loads(
        "{\"model_type\": \"coe\", \"vocab_size\": 11, \"hidden_size\": 8, \"num_hidden_layers\": 4,"
        " \"num_attention_heads\": 2, \"intermediate_size\": 6, \"coe\": { \"expert_ffn\": 5, \"top_k\": 2,"
        " \"n_experts\": 4, \"pool\": { \"layers\": 2 } } }",
        0, NULL);
    assert_ok(model_write(m, dir, config, DT_F32, NULL));
    assert_ok(model_open(&again, dir));
    assert_same_bits("logits", logits_of(again, &c), logits_of(m, &c), N * VOCAB);
    const struct spec_sizes s = spec_sizes(&m->spec);
    assert_int_equal(s.by_class[CLASS_EXPERT], 4 * 4 * 3 * 5 * 8);
    json_decref(config);
    model_close(m);
    model_close(again);
}

/* Two layers over experts 0, 1: one sends both tokens to expert 0, the other both to 1; scores (.5, .5) everywhere.
 * Together f = (.5, .5): L = 2 (.25 + .25) = 1; and one layer alone would have had it too, P being even; with scores
 * (.8, .2) where expert 0 was chosen and (.2, .8) where 1 was: each alone 2 · .8 = 1.6, together 1. */
static void the_load_of_a_pool_is_that_of_all_its_layers(void **state)
{
    (void)state;
    struct moe_spec m = routes_spec(2, 1, "top_k");
    m.pool.layers = 2;
    struct nn c = { .arena = test_arena() };
    struct route_record *r[2];
    r[0] = routes_of(&m, &c, routes_logits((float[]){ .8f, .2f, .8f, .2f }, 4), 2, NULL);
    r[1] = routes_of(&m, &c, routes_logits((float[]){ .2f, .8f, .2f, .8f }, 4), 2, NULL);
    r[1]->layer = 1;
    m.loss[m.n_losses++] = (struct loss_spec){ "pooled", 1 };
    double total;
    const struct loss_call call = { .c = &c, .records = r, .n_records = 2, .scale = 0 };
    assert_ok(moe_losses(&call, &total, NULL));
    assert_near("together", total, 1, 1e-6);
    m.pool.layers = 1;
    assert_ok(moe_losses(&call, &total, NULL));
    assert_near("each", total, 3.2, 1e-6);
}

static void pools_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *coe, *why;
    } wrong[] = {
        { ", \"pool\": { \"layers\": 3 }", "a pool of 3 layers needs that many" },
        { ", \"pool\": { \"layers\": 2 }, \"dense_layers\": [1]", "layer 0: a pool of 2 layers needs that many" },
        { ", \"pool\": { \"layers\": 2 }, \"n_null\": 1", "shares feed-forward experts only" },
        { ", \"pool\": { \"layers\": 2 }, \"groups\": 2", "stand in groups" },
        { ", \"pool\": { \"layers\": 2, \"from\": 5, \"to\": 3 }", "from step 5 to 3" },
    };
    for (size_t i = 0; i < COE_COUNT(wrong); i++) {
        char text[700];
        struct coe_model *m;
        snprintf(text, sizeof text,
                 "{\"model_type\": \"coe\", \"vocab_size\": 11, \"hidden_size\": 8, \"num_hidden_layers\": 4,"
                 " \"num_attention_heads\": 2, \"intermediate_size\": 6, \"coe\": { \"expert_ffn\": 5, \"top_k\": 2,"
                 " \"n_experts\": 4 %s } }",
                 wrong[i].coe);
        json_t *config = json_loads(text, 0, NULL);
        assert_int_equal(model_new(&m, config, "here", 1, 0.1), COE_E_INPUT);
        assert_error_has(wrong[i].why);
        json_decref(config);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_router_comes_to_see_its_neighbours_experts_one_by_one),
        cmocka_unit_test(own_experts_are_never_hidden_unless_all_are_drawn_alike),
        cmocka_unit_test(a_pool_of_one_layer_is_no_pool),
        cmocka_unit_test(before_the_schedule_the_model_is_the_one_without_a_pool),
        cmocka_unit_test(a_pool_stores_every_expert_once_and_survives_a_file),
        cmocka_unit_test(the_load_of_a_pool_is_that_of_all_its_layers),
        cmocka_unit_test(pools_that_do_not_fit_are_refused),
    };
    return kernels_init() || cmocka_run_group_tests_name("model/pool", tests, NULL, NULL);
}
