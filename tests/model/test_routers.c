/* Identity: whatever the router, a sequence in a batch is routed as it is alone, and token by token as at once, through
 * chains, dense layers and layers. Routers that mix tokens keep what they need of those before. What else holds for all
 * of them: conversion, GGUF files. */
#include "support/tiny_model.h"
#include "support/arrays.h"

#include <stdlib.h>
#include <string.h>

#include "model/bind.h"
#include "model/convert.h"
#include "model/quantize.h"

enum { N = 9, VOCAB = 11 };
static const int32_t ids[N] = { 1, 5, 2, 8, 3, 3, 9, 4, 7 };
static const int32_t off[] = { 0, 5, N };
static const int64_t pos0[] = { 0, 0 };
static const struct attn_batch batch = { 2, off, pos0, NULL };

static const char *const routers[] = {
    "\"linear\"",
    "\"frozen\"",
    "{\"kind\": \"two_layer\", \"width\": 5, \"activation\": \"silu\"}",
    "{\"kind\": \"cosine\", \"width\": 4, \"scale\": \"learned\"}",
    "{\"kind\": \"gru\", \"width\": 6}",
    "{\"kind\": \"rnn\", \"width\": 6}",
    "{\"kind\": \"gating_residual\", \"gate\": \"two_layer\", \"norm_std\": 1}",
    "\"gating_residual\"",
    "\"pre_gated\"",
    "{\"kind\": \"uncertainty\", \"passes\": 2}",
    "\"similarity\"",
    "\"attention\"",
    "{\"kind\": \"segment\", \"width\": 2, \"reads\": \"previous\"}",
    "{\"kind\": \"tasks\", \"tasks\": 2, \"task_experts\": 1}",
};

static struct coe_model *model_of(const char *router)
{
    struct coe_model *m = NULL;
    json_t *kind = json_loads(router, JSON_DECODE_ANY, NULL);
    json_t *config =
        json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:{s:i, s:i, s:i, s:[i], s:o, s:{s:i, s:s}}}", "model_type", "coe",
                  "vocab_size", VOCAB, "hidden_size", 8, "num_hidden_layers", 4, "num_attention_heads", 2,
                  "intermediate_size", 6, "coe", "n_experts", 5, "expert_ffn", 4, "top_k", 2, "dense_layers", 1,
                  "router", kind, "chain", "iterations", 2, "gate", "independent");
    assert_non_null(config);
    assert_ok(model_new(&m, config, "test", 3, 0.6));
    json_decref(config);
    for (size_t i = 0; i < m->n_params; i++) { /* what starts at zero would hide what it multiplies */
        const struct part_weight *w = place_part(&m->spec, m->params[i].at);
        const int64_t n = weight_count(&m->params[i].w);
        if (w && w->init == INIT_ZERO)
            memcpy(m->params[i].w.master, random_floats(i, n, 0.5), (size_t)n * sizeof(float));
    }
    return m;
}

static const float *logits_of(const struct coe_model *m, const int32_t *tokens, int64_t n, const struct attn_batch *b)
{
    const int32_t all[] = { 0, (int32_t)n };
    const struct attn_batch alone = { 1, all, pos0, NULL };
    struct nn c = { .arena = test_arena() };
    struct forward f = { .batch = b ? b : &alone };
    const struct val *y = model_forward(m, &c, tokens, n, &f);
    if (!y) fail_msg("%s", coe_error());
    return y->data;
}

static void sequences_of_a_batch_get_the_bits_they_get_alone(void **state)
{
    (void)state;
    for (size_t i = 0; i < COE_COUNT(routers); i++) {
        struct coe_model *m = model_of(routers[i]);
        const float *both = logits_of(m, ids, N, &batch);
        assert_same_bits(routers[i], both, logits_of(m, ids, 5, NULL), 5 * VOCAB);
        assert_same_bits(routers[i], both + 5 * VOCAB, logits_of(m, ids + 5, 4, NULL), 4 * VOCAB);
        model_close(m);
    }
}

static void a_sequence_token_by_token_gets_the_bits_it_gets_at_once(void **state)
{
    (void)state;
    for (size_t i = 0; i < COE_COUNT(routers); i++) {
        struct coe_model *m = model_of(routers[i]);
        const float *at_once = logits_of(m, ids, N, NULL);
        const bool whole = strstr(routers[i], "segment");
        struct coe_session *s = NULL;
        float row[VOCAB];
        assert_ok(coe_session_open(&s, m, NULL));
        for (int t = 0; t < N && !whole; t++) {
            assert_ok(coe_session_eval(s, ids + t, 1, row, 1));
            assert_same_bits(routers[i], row, at_once + t * VOCAB, VOCAB);
        }
        if (whole) {
            assert_ok(coe_session_eval(s, ids, 1, row, 1));
            assert_int_equal(coe_session_eval(s, ids + 1, 1, row, 1), COE_E_USAGE);
            assert_error_has("routes whole sequences");
            coe_session_close(s);
            model_close(m);
            continue;
        }
        assert_ok(coe_session_rewind(s, 3)); /* what lies behind is written anew */
        assert_ok(coe_session_eval(s, ids + 3, N - 3, row, 1));
        assert_same_bits(routers[i], row, at_once + (N - 1) * VOCAB, VOCAB);
        coe_session_close(s);
        model_close(m);
    }
}

/* What a token's router remembers comes from its own decisions: with the memory cut the logits differ. */
/* Two sessions step by step together, from prompts of different lengths */
static void sessions_together_get_the_bits_they_get_alone(void **state)
{
    (void)state;
    for (size_t i = 0; i < COE_COUNT(routers); i++) {
        if (strstr(routers[i], "segment")) continue; /* whole sequences */
        struct coe_model *m = model_of(routers[i]);
        struct coe_session *s[2];
        float row[2][VOCAB];
        float *const rows[] = { row[0], row[1] };
        const int32_t *const first[] = { ids, ids + 5 }, *const then[] = { ids + 3, ids + 7 };
        const size_t n[] = { 3, 2 }, one[] = { 1, 1 };
        for (int k = 0; k < 2; k++) assert_ok(coe_session_open(&s[k], m, NULL));
        assert_ok(session_eval_batch(s, first, n, 2, NULL, true));
        assert_ok(session_eval_batch(s, then, one, 2, rows, true));
        assert_same_bits(routers[i], row[0], logits_of(m, ids, 4, NULL) + 3 * VOCAB, VOCAB);
        assert_same_bits(routers[i], row[1], logits_of(m, ids + 5, 3, NULL) + 2 * VOCAB, VOCAB);
        for (int k = 0; k < 2; k++) coe_session_close(s[k]);
        model_close(m);
    }
}

static void a_state_that_is_carried_matters(void **state)
{
    static const char *const with_state[] = { "{\"kind\": \"gru\", \"width\": 6}", "{\"kind\": \"rnn\", \"width\": 6}",
                                              "\"gating_residual\"" };
    static const char *const memory[] = { "weight_hh", "weight_hh", "residual.weight" };
    (void)state;
    for (size_t i = 0; i < COE_COUNT(with_state); i++) {
        struct coe_model *m = model_of(with_state[i]);
        const float *with = logits_of(m, ids, N, NULL);
        float cut = 0, difference = 0;
        for (size_t j = 0; j < m->n_params; j++) {
            if (!strstr(m->params[j].w.name, memory[i])) continue;
            memset(m->params[j].w.master, 0, (size_t)weight_count(&m->params[j].w) * sizeof(float));
            cut++;
        }
        const float *without = logits_of(m, ids, N, NULL);
        for (int j = 0; j < N * VOCAB; j++) difference = COE_MAX(difference, with[j] - without[j]);
        assert_true(cut > 0 && difference > 1e-4f);
        model_close(m);
    }
}

static void a_model_becomes_pre_gated_with_the_weights_it_has(void **state)
{
    (void)state;
    struct coe_model *m = NULL, *shifted = NULL;
    struct convert_report report;
    const char *from = tiny_model("plain", &(struct tiny){ .no_tokenizer = true }), *to = temp_path("pre-gated");
    assert_ok(model_open(&m, from));
    assert_ok(model_convert(m, to, &(struct convert_opts){ .type = DT_COUNT, .router = "pre_gated" }, &report));
    assert_ok(model_open(&shifted, to));
    assert_string_equal(shifted->spec.layer[1].moe.router.kind, "pre_gated");
    assert_int_equal(shifted->n_params, m->n_params);
    for (size_t i = 0; i < m->n_params; i++) {
        assert_string_equal(shifted->params[i].w.name, m->params[i].w.name);
        assert_memory_equal(shifted->params[i].w.data, m->params[i].w.data,
                            (size_t)weight_count(&m->params[i].w) * sizeof(float));
    }
    model_close(shifted);
    assert_int_equal(model_convert(m, to, &(struct convert_opts){ .type = DT_COUNT, .router = "rnn" }, &report),
                     COE_E_USAGE);
    assert_error_has("router rnn has weights of its own");
    model_close(m);
}

/* MoE++ with FiLM experts beside: weights of routers, layers and single experts, in a chain */
static void what_kinds_of_experts_declare_goes_with_it(void **state)
{
    (void)state;
    struct coe_model *m = NULL, *again = NULL;
    struct quantize_report report;
    struct quantize_opts opts = quantize_default();
    json_error_t at;
    json_t *config = json_loads(
        "{\"model_type\": \"coe\", \"vocab_size\": 11, \"hidden_size\": 8, \"num_hidden_layers\": 2,"
        "\"num_attention_heads\": 2, \"intermediate_size\": 6, \"coe\": { \"top_k\": 3, \"expert_ffn\": 5,"
        "\"chain\": { \"iterations\": 2 }, \"router\": \"gating_residual\", \"experts\": ["
        "{ \"kind\": \"ffn\", \"n\": 2 }, { \"kind\": \"film\", \"n\": 2, \"form\": \"linear\" },"
        "{ \"kind\": \"const\", \"n\": 2 }, { \"kind\": \"copy\", \"n\": 1 }, { \"kind\": \"null\", \"n\": 1 } ] } }",
        0, &at);
    if (!config) fail_msg("%s", at.text);
    const char *dir = temp_path("plus"), *file = temp_path("plus.gguf");
    opts.type = DT_F32;
    for (int c = 0; c < CLASS_COUNT; c++) opts.by_class[c] = DT_F32;
    assert_ok(model_new(&m, config, "test", 3, 0.6));
    assert_ok(model_write(m, dir, config, DT_F32, NULL));
    assert_ok(model_open(&again, dir));
    assert_ok(model_quantize(again, file, &opts, &report));
    model_close(again);
    assert_ok(model_open(&again, file));
    assert_same_bits("logits", logits_of(again, ids, N, NULL), logits_of(m, ids, N, NULL), N * VOCAB);
    model_close(again);
    model_close(m);
    json_decref(config);
}

/* Every pass gets a copy of what the router declares. */
static void a_chain_around_other_routers_computes_the_same_bits(void **state)
{
    static const char *const kinds[] = { "{\"kind\": \"two_layer\", \"width\": 5}",
                                         "{\"kind\": \"cosine\", \"width\": 4}" };
    (void)state;
    for (size_t i = 0; i < COE_COUNT(kinds); i++) {
        struct coe_model *m = NULL, *chain = NULL;
        struct convert_report report;
        const char *from = tiny_model(
            "once", &(struct tiny){ .no_tokenizer = true, .router = kinds[i], .vocab = VOCAB, .n_iterations = 1 });
        const char *to = temp_path("twice");
        assert_ok(model_open(&m, from));
        assert_ok(model_convert(m, to, &(struct convert_opts){ .type = DT_COUNT, .chain = 2 }, &report));
        assert_ok(model_open(&chain, to));
        assert_int_equal(chain->spec.layer[1].moe.chain.n_iterations, 2);
        assert_same_bits(kinds[i], logits_of(chain, ids, N, NULL), logits_of(m, ids, N, NULL), N * VOCAB);
        model_close(chain);
        model_close(m);
    }
}

static void a_chain_around_a_router_that_remembers_would_change_the_model(void **state)
{
    (void)state;
    struct coe_model *m = NULL;
    struct convert_report report;
    const char *from =
        tiny_model("remembers", &(struct tiny){ .no_tokenizer = true, .router = "\"pre_gated\"", .n_iterations = 1 });
    assert_ok(model_open(&m, from));
    assert_int_equal(model_convert(m, NULL, &(struct convert_opts){ .type = DT_COUNT, .chain = 2 }, &report),
                     COE_E_USAGE);
    assert_error_has("remembers the last decision");
    model_close(m);
}

static void a_gguf_file_holds_what_routers_declare(void **state)
{
    (void)state;
    for (size_t i = 0; i < COE_COUNT(routers); i++) {
        struct coe_model *m = NULL, *again = NULL;
        struct quantize_opts opts = quantize_default();
        struct quantize_report report;
        const char *from = tiny_model(
            "routed", &(struct tiny){ .no_tokenizer = true, .router = routers[i], .vocab = VOCAB, .d_model = 16 });
        const char *to = temp_path("routed.gguf");
        for (int c = 0; c < CLASS_COUNT; c++) opts.by_class[c] = DT_F32;
        opts.type = DT_F32;
        assert_ok(model_open(&m, from));
        assert_ok(model_quantize(m, to, &opts, &report));
        assert_ok(model_open(&again, to));
        assert_same_bits(routers[i], logits_of(again, ids, N, NULL), logits_of(m, ids, N, NULL), N * VOCAB);
        model_close(again);
        model_close(m);
    }
}

static void every_router_of_the_registry_is_here(void **state)
{
    const struct part *p;
    (void)state;
    for (size_t i = 0; (p = part_at("router", i)); i++) {
        char quoted[80];
        bool found = false;
        snprintf(quoted, sizeof quoted, "\"%s\"", p->name);
        for (size_t j = 0; j < COE_COUNT(routers); j++) found = found || strstr(routers[j], quoted);
        if (!found) fail_msg("router %s is not among those tested", p->name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequences_of_a_batch_get_the_bits_they_get_alone),
        cmocka_unit_test(a_sequence_token_by_token_gets_the_bits_it_gets_at_once),
        cmocka_unit_test(sessions_together_get_the_bits_they_get_alone),
        cmocka_unit_test(a_state_that_is_carried_matters),
        cmocka_unit_test(a_model_becomes_pre_gated_with_the_weights_it_has),
        cmocka_unit_test(what_kinds_of_experts_declare_goes_with_it),
        cmocka_unit_test(a_chain_around_other_routers_computes_the_same_bits),
        cmocka_unit_test(a_chain_around_a_router_that_remembers_would_change_the_model),
        cmocka_unit_test(a_gguf_file_holds_what_routers_declare),
        cmocka_unit_test(every_router_of_the_registry_is_here),
    };
    return kernels_init() || cmocka_run_group_tests_name("model/routers", tests, NULL, NULL);
}
