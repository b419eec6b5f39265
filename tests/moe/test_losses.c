/* Balancing losses: the numbers of card 12a, the limits of each normalisation, padding, and how values and gradients of
 * several layers, passes and losses add up. Gradients against finite differences: tests/gradient/test_losses.c. */
#include "support/arrays.h"

#include <math.h>
#include <string.h>

#include "moe/moe.h"

#define MAX_RECORDS 4

/* Some records of one forward pass over n tokens */
struct pass {
    struct nn c;
    struct moe_spec spec;
    struct route_record *records[MAX_RECORDS];
    int32_t n_records;
    struct attn_batch batch;
};

static struct pass *pass_of(int32_t experts, int32_t k, int32_t tokens, int32_t n_seq)
{
    struct pass *p = test_alloc(sizeof *p);
    int32_t *off = test_alloc(((size_t)n_seq + 1) * sizeof *off);
    p->c = (struct nn){ .arena = test_arena(), .tape = test_alloc(sizeof *p->c.tape) };
    p->spec = moe_spec_default();
    p->spec.n_experts = experts;
    p->spec.expert_ffn = 1;
    p->spec.router.top_k = k;
    for (int32_t i = 0; i <= n_seq; i++) off[i] = tokens / n_seq * i;
    p->batch = (struct attn_batch){ n_seq, off, NULL, NULL };
    return p;
}

static struct route_record *add(struct pass *p, const float *z, int64_t n)
{
    struct route_record *r = test_alloc(sizeof *r);
    float *copy = test_alloc((size_t)(n * p->spec.n_experts) * sizeof *copy);
    memcpy(copy, z, (size_t)(n * p->spec.n_experts) * sizeof *copy);
    assert_ok(moe_route(&p->c, r, &p->spec, nn_wrap(&p->c, copy, n, p->spec.n_experts), NULL, NULL));
    return p->records[p->n_records++] = r;
}

static float *logs(const double *p, int64_t n)
{
    float *z = test_alloc((size_t)n * sizeof *z);
    for (int64_t i = 0; i < n; i++) z[i] = (float)log(p[i]);
    return z;
}

/* Value of one loss, unscaled; gradients when scale is not 0 */
static double loss_of(struct pass *p, const char *kind, double scale, const uint8_t *counted)
{
    double total = 0, value[MAX_LOSSES];
    p->spec.loss[0] = (struct loss_spec){ kind, 1 };
    p->spec.n_losses = 1;
    for (int32_t i = 0; i < p->n_records; i++) p->records[i]->dz = NULL;
    const struct loss_call call = { .c = &p->c,
                                    .records = p->records,
                                    .n_records = p->n_records,
                                    .batch = &p->batch,
                                    .counted = counted,
                                    .scale = scale };
    assert_ok(moe_losses(&call, &total, value));
    assert_true(total == value[0]);
    return total;
}

static const double card_p[] = { .9, .1, .6, .4, .2, .8, .7, .3 };

/* f = (.75 .25), P = (.6 .4): L = 2 (.45 + .1) = 1.10 in every form, k being 1 and there being one sequence and one
 * layer */
static void the_example_of_the_card(void **state)
{
    (void)state;
    static const char *const kinds[] = { "switch", "assign", "hf", "global", "gshard", "sequence" };
    for (size_t i = 0; i < COE_COUNT(kinds); i++) {
        struct pass *p = pass_of(2, 1, 4, 1);
        add(p, logs(card_p, 8), 4);
        assert_near(kinds[i], loss_of(p, kinds[i], 0, NULL), 1.10, 1e-6);
        assert_null(p->records[0]->dz); /* a value alone makes no gradient */
    }
}

/* Micro-batch 1 all (.9 .1), micro-batch 2 all (.1 .9): alone each pays 2 · .9 = 1.8; with the counts of the whole step
 * f = (.5 .5) and each pays 1. */
static void the_global_loss_sees_the_counts_of_the_step(void **state)
{
    (void)state;
    const double rows[] = { .9, .1, .9, .1 };
    struct pass *p = pass_of(2, 1, 2, 1);
    add(p, logs(rows, 4), 2);
    assert_near("micro", loss_of(p, "assign", 0, NULL), 1.8, 1e-6);
    assert_near("global, first micro-batch", loss_of(p, "global", 0, NULL), 1.8, 1e-6);
    uint64_t counts[] = { 0, 2 };
    double total = 0;
    struct loss_call call = {
        .c = &p->c, .records = p->records, .n_records = 1, .batch = &p->batch, .step_counts = counts, .step_tokens = 2
    };
    assert_ok(moe_losses(&call, &total, NULL));
    assert_near("global, second micro-batch", total, 1, 1e-6);
}

/* z = (2 0 -1): lse² = 4.708232 */
static void the_z_loss_of_the_card(void **state)
{
    (void)state;
    struct pass *p = pass_of(3, 1, 1, 1);
    add(p, (float[]){ 2, 0, -1 }, 1);
    assert_near("z", loss_of(p, "z", 0, NULL), 4.708232, 1e-5);
}

/* Four experts, k = 2, every expert twice in four tokens and all scores equal in the mean: k, 1, k, 1, 1. */
static void perfect_balance_gives_the_value_each_loss_promises(void **state)
{
    (void)state;
    const float z[] = { 2, 2, 0, 0, 0, 2, 2, 0, 0, 0, 2, 2, 2, 0, 0, 2 };
    const struct {
        const char *kind;
        double value;
    } cases[] = { { "switch", 2 }, { "assign", 1 }, { "hf", 2 }, { "sequence", 1 }, { "global", 1 } };
    for (size_t i = 0; i < COE_COUNT(cases); i++) {
        struct pass *p = pass_of(4, 2, 4, 1);
        add(p, z, 4);
        assert_near(cases[i].kind, loss_of(p, cases[i].kind, 1, NULL), cases[i].value, 1e-6);
        double sum = 0;
        for (int j = 0; j < 16; j++) sum += (double)p->records[0]->dz[j];
        assert_near("sum of the gradient", sum, 0, 1e-7);
        for (int j = 0; j < 16; j++) assert_near("gradient at balance", (double)p->records[0]->dz[j], 0, 1e-6);
    }
}

/* First choices of four tokens 0 0 1 2 (equal weights: the lower id), f = (.5 .25 .25 0); P by construction .25 each: L
 * = 1. */
static void gshard_counts_first_choices_only(void **state)
{
    (void)state;
    const float z[] = { 2, 2, 0, 0, 2, 0, 0, 2, 0, 2, 2, 0, 0, 0, 2, 2 };
    struct pass *p = pass_of(4, 2, 4, 1);
    add(p, z, 4);
    assert_near("gshard", loss_of(p, "gshard", 0, NULL), 1, 1e-6);
}

/* hf pools layers: layer A all on expert 0, layer B all on expert 1: the pool is balanced though no layer is. */
static void hf_pools_the_layers_and_the_others_add_them(void **state)
{
    (void)state;
    const double a[] = { .9, .1, .9, .1 }, b[] = { .1, .9, .1, .9 };
    struct pass *p = pass_of(2, 1, 2, 1);
    add(p, logs(a, 4), 2);
    add(p, logs(b, 4), 2);
    assert_near("hf", loss_of(p, "hf", 0, NULL), 1, 1e-6);
    assert_near("switch", loss_of(p, "switch", 0, NULL), 3.6, 1e-6);
}

/* Two sequences, one all on expert 0, one all on expert 1: balanced together, not apart. */
static void sequence_balance_is_asked_inside_every_sequence(void **state)
{
    (void)state;
    const double rows[] = { .9, .1, .9, .1, .1, .9, .1, .9 };
    struct pass *p = pass_of(2, 1, 4, 2);
    add(p, logs(rows, 8), 4);
    assert_near("assign", loss_of(p, "assign", 0, NULL), 1, 1e-6);
    assert_near("sequence", loss_of(p, "sequence", 0, NULL), 1.8, 1e-6);
}

/* Padding counts neither in f nor in P: four tokens of which two are padding = the two alone. */
static void padding_is_left_out(void **state)
{
    (void)state;
    static const char *const kinds[] = { "switch", "assign", "hf", "global", "gshard", "sequence", "z" };
    const float *z = random_floats(30, 20, 1);
    float kept[10];
    memcpy(kept, z, 5 * sizeof *z);
    memcpy(kept + 5, z + 10, 5 * sizeof *z);
    for (size_t i = 0; i < COE_COUNT(kinds); i++) {
        struct pass *all = pass_of(5, 2, 4, 1), *some = pass_of(5, 2, 2, 1);
        add(all, z, 4);
        add(some, kept, 2);
        const double want = loss_of(some, kinds[i], 1, NULL);
        assert_near(kinds[i], loss_of(all, kinds[i], 1, (uint8_t[]){ 1, 0, 1, 0 }), want, 1e-9);
        assert_close("first token", all->records[0]->dz, some->records[0]->dz, 5, 1e-9, 1e-6);
        for (int j = 5; j < 10; j++) assert_true(all->records[0]->dz[j] == 0);
        assert_close("third token", all->records[0]->dz + 10, some->records[0]->dz + 5, 5, 1e-9, 1e-6);
    }
}

static void nothing_that_counts_gives_zero_and_no_trap(void **state)
{
    (void)state;
    static const char *const kinds[] = { "switch", "assign", "hf", "global", "gshard", "sequence", "z" };
    for (size_t i = 0; i < COE_COUNT(kinds); i++) {
        struct pass *p = pass_of(3, 1, 2, 1);
        add(p, (float[]){ 1, 2, 3, 3, 2, 1 }, 2);
        assert_near(kinds[i], loss_of(p, kinds[i], 1, (uint8_t[]){ 0, 0 }), 0, 0);
    }
}

static void losses_of_a_spec_add_up_by_their_coefficients(void **state)
{
    (void)state;
    struct pass *p = pass_of(3, 1, 4, 1);
    add(p, random_floats(31, 12, 1), 4);
    const double a = loss_of(p, "assign", 1, NULL), z = loss_of(p, "z", 1, NULL);
    p->spec.loss[0] = (struct loss_spec){ "assign", .5 };
    p->spec.loss[1] = (struct loss_spec){ "z", .25 };
    p->spec.n_losses = 2;
    double total = 0, value[MAX_LOSSES];
    const struct loss_call call = { .c = &p->c, .records = p->records, .n_records = 1, .batch = &p->batch };
    assert_ok(moe_losses(&call, &total, value));
    assert_near("value 0", value[0], a, 1e-12);
    assert_near("value 1", value[1], z, 1e-12);
    assert_near("total", total, .5 * a + .25 * z, 1e-12);
}

static void layers_of_different_size_cannot_be_pooled(void **state)
{
    (void)state;
    struct pass *p = pass_of(3, 1, 2, 1), *other = pass_of(4, 1, 2, 1);
    add(p, random_floats(32, 6, 1), 2);
    p->records[p->n_records++] = add(other, random_floats(33, 8, 1), 2);
    p->spec.loss[0] = (struct loss_spec){ "hf", 1 };
    p->spec.n_losses = 1;
    double total;
    const struct loss_call call = { .c = &p->c, .records = p->records, .n_records = 2, .batch = &p->batch };
    assert_int_equal(moe_losses(&call, &total, NULL), COE_E_USAGE);
    assert_error_has("cannot be pooled");
}

/* Sigmoid scores are normalised before they are averaged: q = (.6 .4) from s = (.9 .6). */
static void sigmoid_scores_are_normalised_first(void **state)
{
    (void)state;
    struct pass *p = pass_of(2, 1, 1, 1);
    p->spec.router.score = SCORE_SIGMOID;
    add(p, (float[]){ (float)log(.9 / .1), (float)log(.6 / .4) }, 1);
    assert_near("assign", loss_of(p, "assign", 0, NULL), 2 * .6, 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_example_of_the_card),
        cmocka_unit_test(the_global_loss_sees_the_counts_of_the_step),
        cmocka_unit_test(the_z_loss_of_the_card),
        cmocka_unit_test(perfect_balance_gives_the_value_each_loss_promises),
        cmocka_unit_test(gshard_counts_first_choices_only),
        cmocka_unit_test(hf_pools_the_layers_and_the_others_add_them),
        cmocka_unit_test(sequence_balance_is_asked_inside_every_sequence),
        cmocka_unit_test(padding_is_left_out),
        cmocka_unit_test(nothing_that_counts_gives_zero_and_no_trap),
        cmocka_unit_test(losses_of_a_spec_add_up_by_their_coefficients),
        cmocka_unit_test(layers_of_different_size_cannot_be_pooled),
        cmocka_unit_test(sigmoid_scores_are_normalised_first),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/losses", tests, NULL, NULL);
}
