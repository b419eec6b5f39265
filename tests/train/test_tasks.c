/* Labels of tasks on their way to the routers: of sequences in sessions, of documents in training. */
#include "support/arrays.h"

#include <string.h>

#include "train/train.h"

enum { VOCAB = 11, N = 6 };

static struct coe_model *model_of(const char *router)
{
    struct coe_model *m = NULL;
    json_t *config = json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:{s:o, s:i, s:i, s:i}}", "model_type", "coe",
                               "vocab_size", VOCAB, "hidden_size", 8, "num_hidden_layers", 2, "num_attention_heads", 2,
                               "intermediate_size", 6, "coe", "router", json_loads(router, JSON_DECODE_ANY, NULL),
                               "n_experts", 4, "expert_ffn", 5, "top_k", 2);
    assert_non_null(config);
    assert_ok(model_new(&m, config, "tasks", 5, 0.3));
    json_decref(config);
    return m;
}

static const char *const two_tasks = "{\"kind\": \"tasks\", \"tasks\": 2, \"task_experts\": 1}";

static coe_session *session_of(const struct coe_model *m, int32_t task)
{
    coe_session *s = NULL;
    assert_ok(coe_session_open(&s, m, &(coe_session_opts){ .max_tokens = 16, .task = task }));
    return s;
}

/* Two sessions of other tasks read the same tokens: together each has the bits that it has alone, and they differ. */
static void sequences_of_two_tasks_in_one_batch_equal_each_alone(void **state)
{
    (void)state;
    struct coe_model *m = model_of(two_tasks);
    const int32_t ids[N] = { 1, 5, 2, 8, 3, 9 };
    float alone[2][N * VOCAB], together[2][N * VOCAB];
    coe_session *both[2];
    for (int32_t t = 0; t < 2; t++) {
        coe_session *s = session_of(m, t);
        for (int i = 0; i < N; i++) assert_ok(coe_session_eval(s, ids + i, 1, alone[t] + i * VOCAB, 0));
        coe_session_close(s);
        both[t] = session_of(m, t);
    }
    const int32_t *const each[] = { ids, ids };
    float *const logits[] = { together[0], together[1] };
    assert_ok(session_eval_batch(both, each, (const size_t[]){ N, N }, 2, logits, false));
    for (int t = 0; t < 2; t++) {
        assert_same_bits("logits", together[t], alone[t], (int64_t)N * VOCAB);
        coe_session_close(both[t]);
    }
    assert_memory_not_equal(alone[0], alone[1], sizeof alone[0]);
    model_close(m);
}

/* What nobody labels is of the model's task, 0 at first. */
static void a_model_can_have_a_task_for_what_nobody_labels(void **state)
{
    (void)state;
    struct coe_model *m = model_of(two_tasks);
    const int32_t id = 3;
    float of_model[VOCAB], of_session[VOCAB];
    coe_session *s = session_of(m, 1);
    assert_ok(coe_session_eval(s, &id, 1, of_session, 1));
    coe_session_close(s);
    m->task = 1;
    s = session_of(m, 0);
    assert_ok(coe_session_eval(s, &id, 1, of_model, 1));
    assert_same_bits("logits", of_model, of_session, VOCAB);
    coe_session_close(s);
    model_close(m);
}

static void a_task_that_no_router_knows_is_refused_by_its_number(void **state)
{
    (void)state;
    coe_session *s = NULL;
    struct coe_model *m = model_of(two_tasks), *plain = model_of("\"linear\"");
    assert_int_equal(coe_session_open(&s, m, &(coe_session_opts){ .task = 2 }), COE_E_USAGE);
    assert_non_null(strstr(coe_error(), "task 2; the model knows tasks 0 … 1"));
    assert_int_equal(coe_session_open(&s, plain, &(coe_session_opts){ .task = 1 }), COE_E_USAGE);
    assert_non_null(strstr(coe_error(), "no router of the model tells tasks apart"));
    model_close(m);
    model_close(plain);
}

/* Parts end behind tokens 3, 4 and 9 */
static void documents_have_the_task_of_their_file(void **state)
{
    (void)state;
    struct corpus_part part[] = { { .end = 3, .task = 2 }, { .end = 4, .task = 0 }, { .end = 9, .task = 1 } };
    const struct corpus c = { .n = 9, .parts = part, .n_parts = 3 };
    const int32_t want[] = { 2, 2, 0, 1, 1 };
    int32_t task[5];
    corpus_tasks(&c, 1, 5, task);
    assert_ids("tasks", task, want, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequences_of_two_tasks_in_one_batch_equal_each_alone),
        cmocka_unit_test(a_model_can_have_a_task_for_what_nobody_labels),
        cmocka_unit_test(a_task_that_no_router_knows_is_refused_by_its_number),
        cmocka_unit_test(documents_have_the_task_of_their_file),
    };
    return kernels_init() || cmocka_run_group_tests_name("train/tasks", tests, NULL, NULL);
}
