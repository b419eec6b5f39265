/* The tape: when gradients are made, where they add up, what is recorded, and what happens when memory is out. */
#include "support/arrays.h"

#include <string.h>

#include "nn/nn.h"

static struct nn context(struct tape *tape) { return (struct nn){ .arena = test_arena(), .tape = tape }; }

static void nothing_is_recorded_without_a_tape(void **state)
{
    (void)state;
    struct nn c = context(NULL);
    struct weight *w = test_weight("w", random_floats(1, 12, 1), 3, 4);
    struct val *x = nn_wrap(&c, random_floats(2, 8, 1), 2, 4), *y = nn_linear(&c, x, w, NULL);
    assert_int_equal(y->rows, 2);
    assert_int_equal(y->cols, 3);
    assert_null(y->grad);
    assert_null(x->grad);
}

/* An operation whose output nobody needed leaves its inputs without a gradient. */
static void values_off_the_path_get_no_gradient(void **state)
{
    (void)state;
    struct tape tape = { 0 };
    struct nn c = context(&tape);
    struct val *x = nn_wrap(&c, random_floats(1, 4, 1), 1, 4), *aside = nn_scale(&c, x, 3), *y = nn_scale(&c, x, 2);
    y->grad = random_floats(2, 4, 1);
    assert_ok(nn_backward(&c));
    assert_null(aside->grad);
    for (int i = 0; i < 4; i++) assert_true(x->grad[i] == 2 * y->grad[i]);
    assert_null(tape.last); /* used up */
}

/* Weights keep their gradients: a second pass adds to the first. */
static void gradients_of_weights_accumulate_over_passes(void **state)
{
    (void)state;
    struct tape tape = { 0 };
    struct nn c = context(&tape);
    struct weight *w = test_weight("w", random_floats(3, 4, 1), 1, 4);
    float once[4];
    for (int pass = 0; pass < 2; pass++) {
        struct val *y = nn_linear(&c, nn_wrap(&c, random_floats(4, 8, 1), 2, 4), w, NULL);
        y->grad = random_floats(5, 2, 1);
        assert_ok(nn_backward(&c));
        if (!pass) memcpy(once, w->grad, sizeof once);
    }
    for (int i = 0; i < 4; i++) assert_near("gradient", (double)w->grad[i], 2 * (double)once[i], 1e-6);
}

/* A weight without a gradient (frozen, or a model opened for inference) lets the gradient through and keeps none. */
static void a_frozen_weight_passes_the_gradient_on(void **state)
{
    (void)state;
    struct tape tape = { 0 };
    struct nn c = context(&tape);
    struct weight *w = test_weight("w", random_floats(6, 12, 1), 3, 4), frozen = *w,
                  *norm = test_weight("n", random_floats(7, 4, 1), 1, 4);
    struct weight frozen_norm = *norm;
    frozen.grad = frozen_norm.grad = NULL;
    struct val *a = nn_wrap(&c, random_floats(8, 8, 1), 2, 4), *b = nn_wrap(&c, random_floats(8, 8, 1), 2, 4);
    struct val *y = nn_linear(&c, nn_rmsnorm(&c, a, norm, 0, 1e-5f), w, NULL);
    struct val *z = nn_linear(&c, nn_rmsnorm(&c, b, &frozen_norm, 0, 1e-5f), &frozen, NULL);
    y->grad = random_floats(9, 6, 1);
    z->grad = random_floats(9, 6, 1);
    assert_ok(nn_backward(&c));
    assert_same_bits("gradient of the input", b->grad, a->grad, 8);
}

static void operations_answer_null_to_null(void **state)
{
    (void)state;
    struct tape tape = { 0 };
    struct nn c = context(&tape);
    struct weight *w = test_weight("w", random_floats(1, 4, 1), 1, 4);
    struct val *x = nn_wrap(&c, random_floats(2, 4, 1), 1, 4);
    const struct attn_shape shape = { .n_heads = 1, .n_kv_heads = 1, .head_dim = 4, .head_dim_v = 4, .scale = 1 };
    const struct attn_batch batch = { 1, (int32_t[]){ 0, 1 }, (int64_t[]){ 0 }, NULL };
    assert_null(nn_linear(&c, NULL, w, NULL));
    assert_null(nn_rmsnorm(&c, NULL, w, 0, 1));
    assert_null(nn_layernorm(&c, NULL, w, w, 1));
    assert_null(nn_act(&c, ACT_SILU, NULL, x));
    assert_null(nn_add(&c, x, NULL));
    assert_null(nn_add(&c, NULL, x));
    assert_null(nn_add_scaled(&c, NULL, x, 1, NULL));
    assert_null(nn_scale(&c, NULL, 2));
    assert_null(nn_clamp(&c, NULL, 1));
    assert_null(nn_softcap(&c, NULL, 1));
    assert_null(nn_sigmoid_gate(&c, x, NULL));
    assert_null(nn_dropout(&c, NULL));
    assert_false(nn_rope(&c, NULL, 4, NULL, NULL, 2, false));
    assert_null(nn_attention(&c, x, NULL, x, &shape, &batch, NULL));
}

/* A budget that ends during the forward or the backward pass: NULL or a status, a message, no crash. */
static void memory_that_runs_out_is_reported(void **state)
{
    (void)state;
    for (uint64_t spare = 0; spare < 200000; spare += 7001) {
        struct arena arena = { 0 };
        struct tape tape = { 0 };
        struct nn c = { .arena = &arena, .tape = &tape };
        struct weight *w = test_weight("w", random_floats(1, 4096, 1), 64, 64);
        float *x = random_floats(2, 6400, 1);
        mem_set_budget(mem_used() + 1 + spare);
        struct val *y = nn_wrap(&c, x, 100, 64);
        for (int i = 0; i < 3; i++) y = nn_act(&c, ACT_SILU, nn_linear(&c, y, w, NULL), NULL);
        coe_status s = y ? COE_OK : COE_E_NOMEM;
        if (y && !(y->grad = arena_push_zero(&arena, 6400 * sizeof(float)))) s = COE_E_NOMEM;
        if (y && !s) s = nn_backward(&c);
        mem_set_budget(0);
        arena_free(&arena);
        if (s) assert_int_equal(s, COE_E_NOMEM);
        if (s) assert_true(coe_error()[0] != 0);
    }
}

/* Evaluation without recording: the losses of the rows, 0 where no target is. */
static void losses_of_rows_by_hand(void **state)
{
    (void)state;
    float loss[3], lse[3];
    nn_xent_rows((float[]){ 0, 0, 3, 0, 1, 2 }, 3, 2, (int32_t[]){ 0, -1, 1 }, loss, lse);
    assert_near("log 2", (double)loss[0], 0.693147, 1e-6); /* two equal logits */
    assert_true(loss[1] == 0);
    assert_near("log(1 + 1/e)", (double)loss[2], 0.313262, 1e-6); /* logits 1, 2, target the second */
    assert_near("lse", (double)lse[2], 2.313262, 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_recorded_without_a_tape),
        cmocka_unit_test(values_off_the_path_get_no_gradient),
        cmocka_unit_test(gradients_of_weights_accumulate_over_passes),
        cmocka_unit_test(a_frozen_weight_passes_the_gradient_on),
        cmocka_unit_test(operations_answer_null_to_null),
        cmocka_unit_test(memory_that_runs_out_is_reported),
        cmocka_unit_test(losses_of_rows_by_hand),
    };
    return kernels_init() || cmocka_run_group_tests_name("nn/tape", tests, NULL, NULL);
}
