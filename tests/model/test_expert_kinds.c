/* Models whose layers hold every kind of expert: decoding token by token, batches and rewinding change no bit. */
#include "support/arrays.h"

#include <string.h>

#include "model/bind.h"
#include "model/quantize.h"

enum { N = 14, VOCAB = 11 };
static const int32_t ids[N] = { 1, 5, 2, 8, 3, 3, 9, 4, 7, 10, 0, 6, 2, 1 };

/* Written and opened: the sessions of a model from a file */
static struct coe_model *every_kind(const char *name)
{
    struct coe_model *fresh, *m;
    const char *dir = temp_path(name);
    json_t *config = json_loads(
        "{\"model_type\": \"coe\", \"vocab_size\": 11, \"hidden_size\": 8, \"num_hidden_layers\": 2,"
        " \"num_attention_heads\": 2, \"intermediate_size\": 6, \"max_position_embeddings\": 64, \"coe\": {"
        " \"top_k\": 4, \"chain\": {\"iterations\": 2}, \"experts\": [ {\"kind\": \"ffn\", \"expert_ffn\": 5},"
        " {\"kind\": \"gru\", \"n\": 2, \"expert_ffn\": 3}, {\"kind\": \"gru\", \"expert_ffn\": 2},"
        " {\"kind\": \"const\"}, {\"kind\": \"copy\"}, {\"kind\": \"lora\", \"rank\": 2}, {\"kind\": \"rank1\"},"
        " {\"kind\": \"latent\", \"n\": 2, \"latent\": 3, \"group\": 2, \"expert_ffn\": 4} ] } }",
        0, NULL);
    assert_non_null(config);
    assert_ok(model_new(&fresh, config, "test", 7, 0.5));
    assert_ok(model_write(fresh, dir, config, DT_F32, NULL));
    assert_ok(model_open(&m, dir));
    model_close(fresh);
    json_decref(config);
    return m;
}

static struct coe_session *session(const struct coe_model *m)
{
    struct coe_session *s;
    assert_ok(coe_session_open(&s, m, NULL));
    return s;
}

static void decoding_token_by_token_is_evaluating_the_whole(void **state)
{
    (void)state;
    struct coe_model *m = every_kind("kinds");
    struct coe_session *whole = session(m), *steps = session(m);
    float all[N * VOCAB], one[N * VOCAB];
    assert_ok(coe_session_eval(whole, ids, N, all, 0));
    for (int i = 0; i < N; i++) assert_ok(coe_session_eval(steps, ids + i, 1, one + i * VOCAB, 1));
    assert_same_bits("logits", one, all, N * VOCAB);
    coe_session_close(whole);
    coe_session_close(steps);
    model_close(m);
}

static void a_sequence_in_a_batch_is_the_sequence_alone(void **state)
{
    (void)state;
    struct coe_model *m = every_kind("kinds_batch");
    struct coe_session *alone = session(m), *both[2] = { session(m), session(m) };
    float want[6 * VOCAB], got[6 * VOCAB], other[N * VOCAB];
    assert_ok(coe_session_eval(alone, ids + 3, 6, want, 0));
    const int32_t *rows[2] = { ids, ids + 3 };
    const size_t n[2] = { N, 6 };
    float *logits[2] = { other, got };
    assert_ok(session_eval_batch(both, rows, n, 2, logits, false));
    assert_same_bits("logits", got, want, 6 * VOCAB);
    coe_session_close(alone);
    coe_session_close(both[0]);
    coe_session_close(both[1]);
    model_close(m);
}

static void rewinding_gives_back_what_experts_remembered(void **state)
{
    (void)state;
    struct coe_model *m = every_kind("kinds_rewind");
    struct coe_session *s = session(m), *plain = session(m);
    float want[VOCAB], got[VOCAB];
    assert_ok(coe_session_eval(plain, ids, 8, want, 1));
    assert_ok(coe_session_eval(s, ids, 7, NULL, 1));
    assert_ok(coe_session_eval(s, ids + 10, 3, NULL, 1));
    assert_ok(coe_session_rewind(s, 7));
    assert_ok(coe_session_eval(s, ids + 7, 1, got, 1));
    assert_same_bits("logits", got, want, VOCAB);
    coe_session_close(s);
    coe_session_close(plain);
    model_close(m);
}

/* Kinds that take their weights apart read rows: in a packed model these lie as stored. */
static void packing_a_quantised_model_changes_no_bit(void **state)
{
    (void)state;
    struct coe_model *fresh, *plain, *m;
    struct quantize_opts q = quantize_default();
    struct quantize_report report;
    float want[N * VOCAB], got[N * VOCAB];
    const char *dir = temp_path("to_pack"), *file = temp_path("packed.gguf");
    json_t *config = json_loads(
        "{\"model_type\": \"coe\", \"vocab_size\": 11, \"hidden_size\": 64, \"num_hidden_layers\": 1,"
        " \"num_attention_heads\": 2, \"intermediate_size\": 6, \"max_position_embeddings\": 64, \"coe\": {"
        " \"top_k\": 20, \"experts\": [ {\"kind\": \"rank1\", \"n\": 40},"
        " {\"kind\": \"latent\", \"n\": 2, \"latent\": 32, \"group\": 1, \"expert_ffn\": 32},"
        " {\"kind\": \"ternary\", \"expert_ffn\": 64}, {\"kind\": \"ffn\", \"expert_ffn\": 32} ] } }",
        0, NULL);
    assert_ok(model_new(&fresh, config, "test", 7, 0.3));
    assert_ok(model_write(fresh, dir, config, DT_F32, NULL));
    assert_ok(model_open(&plain, dir));
    q.type = DT_Q8_0;
    assert_ok(model_quantize(plain, file, &q, &report));
    assert_ok(model_open(&m, file));
    struct coe_session *s = session(m);
    assert_ok(coe_session_eval(s, ids, N, want, 0));
    assert_ok(model_pack(m));
    const struct moe_weights *w = &m->layer[0].moe;
    assert_true(w->gate[43]->panels && w->gate[43]->type == DT_Q8_0); /* ffn, and beside it rank1, latent, ternary: */
    assert_true(!w->kind_part[0][0]->panels && w->kind_part[0][0]->type == DT_Q8_0);
    assert_true(!w->kind_part[1][0]->panels && w->kind_part[1][0]->type == DT_Q8_0);
    assert_true(!w->gate[42]->panels && w->gate[42]->type == DT_Q8_0);
    assert_ok(coe_session_rewind(s, 0));
    assert_ok(coe_session_eval(s, ids, N, got, 0));
    assert_same_bits("logits", got, want, N * VOCAB);
    coe_session_close(s);
    model_close(fresh);
    model_close(plain);
    model_close(m);
    json_decref(config);
}

/* Of two experts of 2·3·8·… parameters a token uses the larger: 3·5·8 = 120 against 3·2·8 = 48. */
static void the_largest_experts_count_as_active(void **state)
{
    (void)state;
    struct coe_model *big, *small;
    static const char config[] =
        "{\"model_type\": \"coe\", \"vocab_size\": 11, \"hidden_size\": 8, \"num_hidden_layers\": 1,"
        " \"num_attention_heads\": 2, \"intermediate_size\": 6, \"coe\": { \"top_k\": 1, \"experts\": ["
        " {\"kind\": \"ffn\", \"expert_ffn\": 2}, {\"kind\": \"ffn\", \"expert_ffn\": %d} ] } }";
    char text[600];
    snprintf(text, sizeof text, config, 5);
    json_t *a = json_loads(text, 0, NULL);
    snprintf(text, sizeof text, config, 1);
    json_t *b = json_loads(text, 0, NULL);
    assert_ok(model_new(&big, a, "test", 1, 0.1));
    assert_ok(model_new(&small, b, "test", 1, 0.1));
    const struct spec_sizes x = spec_sizes(&big->spec), y = spec_sizes(&small->spec);
    assert_int_equal(x.active - y.active, 120 - 48);
    assert_int_equal(x.total - y.total, 120 - 24);
    model_close(big);
    model_close(small);
    json_decref(a);
    json_decref(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decoding_token_by_token_is_evaluating_the_whole),
        cmocka_unit_test(a_sequence_in_a_batch_is_the_sequence_alone),
        cmocka_unit_test(rewinding_gives_back_what_experts_remembered),
        cmocka_unit_test(packing_a_quantised_model_changes_no_bit),
        cmocka_unit_test(the_largest_experts_count_as_active),
    };
    return kernels_init() || cmocka_run_group_tests_name("model/expert_kinds", tests, NULL, NULL);
}
