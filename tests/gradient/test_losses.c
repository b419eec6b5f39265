/* Every balancing loss with both scores, with padding and with counts of earlier micro-batches: the FP64 twin agrees
 * with central differences, value and gradient of the loss part with the twin. */
#include "support/twin.h"

#include <stdio.h>

#define TOKENS 9
#define EXPERTS 5
#define RECORDS 3

static const int32_t off[] = { 0, 4, TOKENS };
static const struct attn_batch batch = { 2, off, NULL, NULL };
static const uint8_t padded[TOKENS] = { 1, 1, 0, 1, 1, 1, 1, 0, 0 };

struct loss_case {
    struct moe_spec spec;
    struct loss_spec loss;
    const uint8_t *counted;
    uint64_t *step_counts;
    double *z[RECORDS];
    struct tv *leaf[RECORDS];
    struct twin_list frozen;
};

static struct tv *evaluate(struct loss_case *c)
{
    struct twin_route **records = test_alloc(RECORDS * sizeof *records);
    twin_begin();
    for (int i = 0; i < RECORDS; i++) {
        c->leaf[i] = twin_leaf(c->z[i], TOKENS, EXPERTS);
        records[i] = twin_route(&c->spec, c->leaf[i], NULL, c->frozen.n ? c->frozen.records[i] : NULL);
    }
    for (int i = 0; i < RECORDS && c->frozen.n < RECORDS; i++) c->frozen.records[c->frozen.n++] = records[i];
    return twin_loss(&c->loss, records, RECORDS, &batch, c->counted, c->step_counts, c->step_counts ? 20 : 0);
}

static double value(void *user)
{
    struct loss_case c = *(struct loss_case *)user;
    const struct arena_mark mark = arena_save(test_arena());
    const double y = evaluate(&c)->x[0];
    arena_rewind(test_arena(), mark);
    return y;
}

static void check_fast(const struct loss_case *c, double want, const char *what)
{
    struct tape tape = { 0 };
    struct nn nn = { .arena = test_arena(), .tape = &tape };
    struct moe_spec spec = c->spec;
    struct route_record *records[RECORDS];
    spec.loss[0] = c->loss;
    spec.n_losses = 1;
    for (int i = 0; i < RECORDS; i++) {
        records[i] = test_alloc(sizeof *records[i]);
        struct val *z = nn_wrap(&nn, floats_of(c->z[i], TOKENS * EXPERTS), TOKENS, EXPERTS);
        assert_ok(moe_route(&nn, records[i], &spec, z, NULL, NULL));
    }
    double total;
    const struct loss_call call = { .c = &nn,
                                    .records = records,
                                    .n_records = RECORDS,
                                    .batch = &batch,
                                    .counted = c->counted,
                                    .scale = 0.5,
                                    .step_counts = c->step_counts,
                                    .step_stride = EXPERTS,
                                    .step_tokens = c->step_counts ? 20 : 0 };
    assert_ok(moe_losses(&call, &total, NULL));
    assert_near(what, total, want, 1e-6 * (1 + want));
    assert_ok(nn_backward(&nn));
    for (int i = 0; i < RECORDS; i++) {
        double half[TOKENS * EXPERTS]; /* scale multiplies the gradient only */
        for (int j = 0; j < TOKENS * EXPERTS; j++) half[j] = 0.5 * c->leaf[i]->g[j];
        assert_norm_close_d(what, records[i]->z->grad, half, TOKENS * EXPERTS, 1e-5);
    }
}

static void check_loss(const char *kind, int mode)
{
    const struct arena_mark mark = arena_save(test_arena());
    struct loss_case c = { .spec = moe_spec_default(), .loss = { kind, 0.7 }, .counted = mode & 2 ? padded : NULL };
    char what[100];
    c.spec.n_experts = EXPERTS;
    c.spec.expert_ffn = 1;
    c.spec.router.score = mode & 1 ? SCORE_SIGMOID : SCORE_SOFTMAX;
    if (mode & 4) c.step_counts = test_alloc(RECORDS * EXPERTS * sizeof *c.step_counts);
    for (int i = 0; c.step_counts && i < RECORDS * EXPERTS; i++) c.step_counts[i] = (uint64_t)(i * 7 % 11);
    for (int i = 0; i < RECORDS; i++) {
        const float *z = random_floats(40 + (uint64_t)i, TOKENS * EXPERTS, 1.5);
        c.z[i] = test_alloc(TOKENS * EXPERTS * sizeof(double));
        for (int j = 0; j < TOKENS * EXPERTS; j++) c.z[i][j] = (double)z[j];
    }
    snprintf(what, sizeof what, "%s, %s%s%s", kind, score_name[c.spec.router.score], mode & 2 ? ", padding" : "",
             mode & 4 ? ", earlier micro-batches" : "");
    struct tv *y = evaluate(&c);
    const double want = y->x[0];
    twin_backward(y);
    for (int i = 0; i < RECORDS; i++) assert_derivative(what, c.z[i], c.leaf[i]->g, TOKENS * EXPERTS, 8, 1, value, &c);
    check_fast(&c, want, what);
    arena_rewind(test_arena(), mark);
}

static void every_way(void **state)
{
    for (int mode = 0; mode < 8; mode++) check_loss(*state, mode);
}

int main(void)
{
    static const char *const kinds[] = { "switch", "assign", "hf", "global", "gshard", "sequence", "z" };
    struct CMUnitTest tests[COE_COUNT(kinds)];
    for (size_t i = 0; i < COE_COUNT(kinds); i++)
        tests[i] = (struct CMUnitTest){ kinds[i], every_way, NULL, NULL, (void *)(uintptr_t)kinds[i] };
    coe_set_threads(1);
    return kernels_init() || cmocka_run_group_tests_name("gradient/losses", tests, NULL, NULL);
}
