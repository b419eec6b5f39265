/* Gates of tasks (HoME): who sees whom, self gates, the two levels, and what is refused. */
#include "support/routers.h"

#include <math.h>
#include <string.h>

enum { TASKS, GROUPS, GROUP_EXPERTS, TASK_EXPERTS, LEVELS, SELF_GATE };
enum { D = 2 };

static struct moe_spec spec_of(int32_t experts, int32_t k, int tasks, int groups, int of_group, int of_task)
{
    struct moe_spec s = router_spec_of("tasks", experts, k);
    double *p = s.router.kind_param;
    p[TASKS] = tasks, p[GROUPS] = groups, p[GROUP_EXPERTS] = of_group, p[TASK_EXPERTS] = of_task;
    return s;
}

/* One layer over x [n, D], whose tokens are of these tasks */
static struct val *output(struct block *b, struct nn *c, const float *x, const int32_t *task, int32_t n,
                          struct block_run *how)
{
    float *copy = test_alloc((size_t)n * D * sizeof *copy);
    memcpy(copy, x, (size_t)n * D * sizeof *copy);
    how->task = task;
    return block_forward(b, c, NULL, nn_wrap(c, copy, n, D), how);
}

static void assert_route(const struct route_record *r, int32_t t, const int32_t *expert, const float *weight, int32_t n)
{
    const struct route *rt = &r->route;
    assert_int_equal(rt->tok_off[t + 1] - rt->tok_off[t], n);
    for (int32_t i = 0; i < n; i++) {
        float got = NAN;
        for (int32_t s = rt->tok_off[t]; s < rt->tok_off[t + 1]; s++)
            if (rt->expert[s] == expert[i]) got = rt->weight[s];
        assert_near("weight", (double)got, (double)weight[i], 2e-6);
    }
}

/* Two tasks in two groups, one expert shared (0), of each group (1, 2), of each task (3, 4). With gates 0, 1, 2 times
 * x0 for the first task and 2, 1, 0 for the second, x0 = ln 2: softmax of (1, 2, 4) and of (4, 2, 1). */
static void a_task_gates_what_is_shared_of_its_group_and_its_own(void **state)
{
    (void)state;
    const struct moe_spec s = spec_of(5, 3, 2, 2, 1, 1);
    struct block b = block_make(&s, D, BLOCK_GATED);
    struct nn c = { .arena = test_arena() };
    struct block_run run = { 0 };
    const float x[] = { logf(2), 0, logf(2), 0 };
    block_set(&b, "router.gate.weight.0", (float[]){ 0, 0, 1, 0, 2, 0, 2, 0, 1, 0, 0, 0 }, 12);
    output(&b, &c, x, (const int32_t[]){ 0, 1 }, 2, &run);
    assert_route(run.records[0], 0, (const int32_t[]){ 0, 1, 3 }, (float[]){ 1 / 7.f, 2 / 7.f, 4 / 7.f }, 3);
    assert_route(run.records[0], 1, (const int32_t[]){ 0, 2, 4 }, (float[]){ 4 / 7.f, 2 / 7.f, 1 / 7.f }, 3);
    assert_true(run.records[0]->z->data[2] == -INFINITY && run.records[0]->p[2] == 0);
}

/* The softmax of one matrix over all experts: the same bits as the router that is one matrix. */
static void one_task_in_one_group_without_shared_experts_is_an_ordinary_dense_mixture(void **state)
{
    (void)state;
    enum { N = 7, E = 4 };
    const struct moe_spec s = spec_of(E, E, 1, 1, 0, E), plain = router_spec_of("linear", E, E);
    struct block b = block_make(&s, D, BLOCK_GATED), p = block_make(&plain, D, BLOCK_GATED);
    struct nn c = { .arena = test_arena() };
    struct block_run run = { 0 };
    block_random(&b, 4, 1);
    for (size_t i = 0; i < b.n; i++)
        block_set(&p, strcmp(b.list[i]->name, "router.gate.weight.0") ? b.list[i]->name : "router.0",
                  b.list[i]->master, weight_count(b.list[i]));
    const float *x = random_floats(3, N * D, 1);
    const struct val *y = output(&b, &c, x, NULL, N, &run), *want = output(&p, &c, x, NULL, N, &run);
    assert_same_bits("y", y->data, want->data, N * D);
}

/* Tokens of the first task only: nothing of the second has a gradient, everything else has. */
static void experts_that_no_token_sees_have_a_gradient_of_zero(void **state)
{
    (void)state;
    enum { N = 5 };
    struct moe_spec s = spec_of(5, 3, 2, 2, 1, 1);
    s.router.kind_param[SELF_GATE] = 1;
    struct block b = block_make(&s, D, BLOCK_GATED);
    struct nn c = { .arena = test_arena(), .tape = test_alloc(sizeof(struct tape)) };
    struct block_run run = { 0 };
    block_random(&b, 5, 1);
    struct val *y = output(&b, &c, random_floats(3, N * D, 1), (const int32_t[]){ 0, 0, 0, 0, 0 }, N, &run);
    y->grad = random_floats(8, N * D, 1);
    assert_ok(nn_backward(&c));
    for (size_t i = 0; i < b.n; i++) {
        const struct weight *w = b.list[i];
        const bool of_expert = !strncmp(w->name, "experts.", 8), gate = !strncmp(w->name, "router.", 7);
        const bool second = of_expert && (w->name[8] == '2' || w->name[8] == '4');
        for (int64_t j = 0; j < weight_count(w); j++)
            if ((second || (gate && j >= weight_count(w) / 2)) != (w->grad[j] == 0))
                fail_msg("%s: gradient %lld is %g", w->name, (long long)j, (double)w->grad[j]);
    }
}

/* Gates at zero: a third each. Self gates: sigmoid(ln 3) = 3/4 on top of the own expert's third; a softmax over two own
 * experts (of logits ln 3, 0) gives 3/4 and 1/4. */
static void a_self_gate_raises_the_weights_of_a_tasks_own_experts(void **state)
{
    (void)state;
    struct moe_spec s = spec_of(5, 3, 2, 2, 1, 1);
    s.router.kind_param[SELF_GATE] = 1;
    struct block b = block_make(&s, D, BLOCK_GATED);
    struct nn c = { .arena = test_arena() };
    struct block_run run = { 0 };
    const float x[] = { logf(3), 0 };
    block_set(&b, "router.self_gate.weight.0", (float[]){ 0, 0, 1, 0 }, 4);
    output(&b, &c, x, (const int32_t[]){ 1 }, 1, &run);
    assert_route(run.records[0], 0, (const int32_t[]){ 0, 2, 4 }, (float[]){ 1 / 3.f, 1 / 3.f, 1 / 3.f + .75f }, 3);
    struct moe_spec soft = spec_of(5, 3, 2, 1, 0, 2); /* 0 shared; 1, 2 and 3, 4 */
    soft.router.kind_param[SELF_GATE] = 2;
    struct block two = block_make(&soft, D, BLOCK_GATED);
    run = (struct block_run){ 0 };
    block_set(&two, "router.self_gate.weight.0", (float[]){ 1, 0, 0, 0, 0, 0, 0, 0 }, 8);
    output(&two, &c, x, (const int32_t[]){ 0 }, 1, &run);
    assert_route(run.records[0], 0, (const int32_t[]){ 0, 1, 2 },
                 (float[]){ 1 / 3.f, 1 / 3.f + .75f, 1 / 3.f + .25f }, 3);
}

/* Four tasks in two groups; each level has a shared expert and one of each group (0, 1, 2 and 3, 4, 5), then come
 * the tasks' (6 … 9).
 * Gates at zero. First pass: half and half, and the one shared expert has the whole global gate besides;
 * second: a third each. */
static void the_first_level_makes_the_groups_and_the_global_representation(void **state)
{
    (void)state;
    struct moe_spec s = spec_of(10, 3, 4, 2, 1, 1);
    s.router.kind_param[LEVELS] = 2;
    s.chain.n_iterations = 2;
    struct block b = block_make(&s, D, BLOCK_GATED);
    struct nn c = { .arena = test_arena() };
    struct block_run run = { 0 };
    const int32_t task[] = { 2, 1 };
    output(&b, &c, (float[]){ 1, 2, 3, 4 }, task, 2, &run);
    assert_int_equal(run.n_records, 2);
    assert_route(run.records[0], 0, (const int32_t[]){ 0, 2 }, (float[]){ 1.5f, .5f }, 2);
    assert_route(run.records[0], 1, (const int32_t[]){ 0, 1 }, (float[]){ 1.5f, .5f }, 2);
    assert_route(run.records[1], 0, (const int32_t[]){ 3, 5, 8 }, (float[]){ 1 / 3.f, 1 / 3.f, 1 / 3.f }, 3);
    assert_route(run.records[1], 1, (const int32_t[]){ 3, 4, 7 }, (float[]){ 1 / 3.f, 1 / 3.f, 1 / 3.f }, 3);
    assert_int_equal(block_weight(&b, "router.gate.weight.0")->rows, 4);
    assert_int_equal(block_weight(&b, "router.gate.weight.1")->rows, 12);
    assert_int_equal(block_weight(&b, "router.global_gate.weight.0")->rows, 1);
}

/* Tokens of three tasks, mixed: each has the bits that it has among those of its own task. */
static void tokens_of_other_tasks_change_nothing(void **state)
{
    (void)state;
    enum { N = 9 };
    struct moe_spec s = spec_of(7, 3, 3, 3, 1, 1);
    s.router.kind_param[SELF_GATE] = 2;
    struct block b = block_make(&s, D, BLOCK_GATED);
    struct nn c = { .arena = test_arena() };
    const int32_t task[N] = { 2, 0, 0, 1, 2, 1, 0, 2, 1 };
    const float *x = random_floats(3, N * D, 1);
    struct block_run run = { 0 };
    block_random(&b, 6, 1);
    const struct val *all = output(&b, &c, x, task, N, &run);
    for (int32_t t = 0; t < N; t++) {
        run = (struct block_run){ 0 };
        const struct val *alone = output(&b, &c, x + t * D, task + t, 1, &run);
        assert_same_bits("y", alone->data, all->data + t * D, D);
    }
}

/* n tokens of width 4; the last feature is always 1, so that a gate can prefer an expert whatever the token is. */
static float *toy_tokens(uint64_t seed, int n)
{
    float *x = random_floats(seed, 4 * n, 1);
    for (int t = 0; t < n; t++) x[4 * t + 3] = 1;
    return x;
}

/* One step of descent on the mean of (y - x)²: fifteen tokens of the first task for one of the second. */
static void toy_step(struct block *b, uint64_t step)
{
    enum { N = 16, WIDTH = 4 };
    struct nn c = { .arena = test_arena(), .tape = test_alloc(sizeof(struct tape)) };
    struct block_run run = { 0 };
    int32_t task[N] = { 0 };
    float *x = toy_tokens(step, N);
    task[N - 1] = 1;
    run.task = task;
    struct val *y = block_forward(b, &c, NULL, nn_wrap(&c, x, N, WIDTH), &run);
    y->grad = test_alloc(N * WIDTH * sizeof *y->grad);
    for (int i = 0; i < N * WIDTH; i++) y->grad[i] = 2 * (y->data[i] - x[i]) / N;
    block_zero_grad(b);
    assert_ok(nn_backward(&c));
    for (size_t i = 0; i < b->n; i++)
        for (int64_t j = 0; j < weight_count(b->list[i]); j++)
            b->list[i]->master[j] -= 0.2f * b->list[i]->grad[j];
}

/* Mean weight of the second task's own expert after training */
static double own_weight(int self_gate)
{
    enum { N = 64, WIDTH = 4, STEPS = 600 };
    struct moe_spec s = spec_of(3, 2, 2, 1, 0, 1);
    s.router.kind_param[SELF_GATE] = self_gate;
    s.range[0] = (struct expert_range){ .kind = "copy", .n = 1 };
    s.range[1] = (struct expert_range){ .kind = "ffn", .n = 2, .ffn = 8 };
    s.n_ranges = 2;
    s.expert_ffn = 8;
    struct block b = block_make(&s, WIDTH, BLOCK_GATED);
    block_random(&b, 2, 1);
    for (uint64_t i = 0; i < STEPS; i++) {
        const struct arena_mark mark = arena_save(test_arena());
        toy_step(&b, 100 + i);
        arena_rewind(test_arena(), mark);
    }
    struct nn c = { .arena = test_arena() };
    int32_t task[N];
    for (int i = 0; i < N; i++) task[i] = 1;
    struct block_run run = { .task = task };
    (void)block_forward(&b, &c, NULL, nn_wrap(&c, toy_tokens(1, N), N, WIDTH), &run);
    const struct route *r = &run.records[0]->route;
    double sum = 0;
    for (int32_t i = 0; i < r->n_slots; i++) sum += r->expert[i] == 2 ? (double)r->weight[i] / N : 0;
    return sum;
}

/* Card 28 (b): what both tasks want, the shared expert can do from the start; the gate of the sparse task turns to it
 * and away from an expert that only the task's own few tokens teach. */
static void without_a_self_gate_a_sparse_task_leaves_its_own_expert(void **state)
{
    (void)state;
    const double without = own_weight(0), with = own_weight(1);
    assert_true(without < 0.2);
    assert_true(with > 0.2);
}

static void a_plan_may_mask_every_expert_of_a_task(void **state)
{
    (void)state;
    const struct moe_spec s = spec_of(2, 1, 2, 1, 0, 1);
    struct block b = block_make(&s, D, BLOCK_GATED);
    struct nn c = { .arena = test_arena() };
    const uint8_t keep[] = { 1, 0 };
    const struct route_hook hook = { keep, 1 };
    struct block_run run = { .hook = &hook };
    block_random(&b, 6, 1);
    const struct val *y = output(&b, &c, (float[]){ 1, 2, 1, 2 }, (const int32_t[]){ 0, 1 }, 2, &run);
    assert_true(y->data[0] != 0 && y->data[2] == 0 && y->data[3] == 0);
}

static void a_task_that_the_router_does_not_know_is_named(void **state)
{
    (void)state;
    const struct moe_spec s = spec_of(3, 2, 2, 1, 0, 1);
    struct block b = block_make(&s, D, BLOCK_GATED);
    struct moe_pass *p = router_pass(false);
    p->task_of_all = 2;
    struct val *added = NULL;
    const struct router_call call = { p, &b.spec, &b.w, 5, 0, router_input(p, (float[]){ 1, 2 }, 1, D), NULL, &added };
    assert_null(moe_router(&b.spec)->logits(&call));
    assert_non_null(strstr(coe_error(), "layer 5: a token of task 2; the router knows tasks 0 … 1"));
}

static void assert_refused(const struct moe_spec *s, const char *why)
{
    assert_int_equal(moe_spec_check(s, "x"), COE_E_INPUT);
    if (!strstr(coe_error(), why)) fail_msg("refused because: %s", coe_error());
}

static void what_does_not_fit_is_refused_with_the_reason(void **state)
{
    (void)state;
    struct moe_spec s = spec_of(5, 3, 3, 2, 1, 1);
    assert_refused(&s, "3 tasks in 2 groups");
    s = spec_of(3, 2, 2, 2, 1, 1);
    assert_refused(&s, "n_experts 3 leaves -1 shared experts");
    s = spec_of(5, 4, 2, 2, 1, 1);
    assert_refused(&s, "top_k 4, but a task sees 3 experts");
    s = spec_of(5, 2, 2, 2, 1, 1);
    s.router.kind_param[SELF_GATE] = 1;
    assert_refused(&s, "all 3 experts that a task sees must run");
    s = spec_of(3, 2, 2, 2, 1, 0);
    s.router.kind_param[SELF_GATE] = 1;
    assert_refused(&s, "a self gate without experts");
    s = spec_of(8, 3, 2, 2, 1, 1);
    s.router.kind_param[LEVELS] = 2;
    assert_refused(&s, "needs a chain of at least two passes");
    s = spec_of(5, 3, 2, 2, 1, 1);
    (void)moe_select(&s.router, "transport");
    assert_refused(&s, "spreads all tokens over all experts");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_task_gates_what_is_shared_of_its_group_and_its_own),
        cmocka_unit_test(one_task_in_one_group_without_shared_experts_is_an_ordinary_dense_mixture),
        cmocka_unit_test(experts_that_no_token_sees_have_a_gradient_of_zero),
        cmocka_unit_test(a_self_gate_raises_the_weights_of_a_tasks_own_experts),
        cmocka_unit_test(the_first_level_makes_the_groups_and_the_global_representation),
        cmocka_unit_test(tokens_of_other_tasks_change_nothing),
        cmocka_unit_test(without_a_self_gate_a_sparse_task_leaves_its_own_expert),
        cmocka_unit_test(a_plan_may_mask_every_expert_of_a_task),
        cmocka_unit_test(a_task_that_the_router_does_not_know_is_named),
        cmocka_unit_test(what_does_not_fit_is_refused_with_the_reason),
    };
    coe_set_threads(1);
    return kernels_init() || cmocka_run_group_tests_name("moe/routers/tasks", tests, NULL, NULL);
}
