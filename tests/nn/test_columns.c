/* Columns taken out of rows and rows put side by side, forward and backward. */
#include "support/arrays.h"

#include "nn/nn.h"

static struct nn context(struct tape *tape) { return (struct nn){ .arena = test_arena(), .tape = tape }; }

/* Two groups of three columns: [q k v | q k v]; all q, then all v. */
static void columns_of_every_group_are_gathered_piece_by_piece(void **state)
{
    (void)state;
    struct tape tape = { 0 };
    struct nn c = context(&tape);
    float data[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 };
    struct val *x = nn_wrap(&c, data, 2, 6);
    const struct columns piece[] = { { 0, 1 }, { 2, 1 } };
    struct val *y = nn_columns(&c, x, 3, piece, 2);
    const float want[] = { 1, 4, 3, 6, 7, 10, 9, 12 };
    assert_int_equal(y->cols, 4);
    assert_same_bits("gathered", y->data, want, 8);
    float back[] = { 1, 2, 3, 4, 5, 6, 7, 8 };
    y->grad = back;
    assert_ok(nn_backward(&c));
    const float grad[] = { 1, 0, 3, 2, 0, 4, 5, 0, 7, 6, 0, 8 };
    assert_same_bits("gradient", x->grad, grad, 12);
}

/* A column that two results read gets both gradients. */
static void gradients_of_shared_columns_add_up(void **state)
{
    (void)state;
    struct tape tape = { 0 };
    struct nn c = context(&tape);
    float data[] = { 1, 2 }, one[] = { 10, 20 }, two[] = { 5 };
    struct val *x = nn_wrap(&c, data, 1, 2);
    const struct columns both = { 0, 2 }, second = { 1, 1 };
    nn_columns(&c, x, 2, &both, 1)->grad = one;
    nn_columns(&c, x, 2, &second, 1)->grad = two;
    assert_ok(nn_backward(&c));
    assert_true(x->grad[0] == 10 && x->grad[1] == 25);
}

static void joined_rows_hand_their_gradients_back(void **state)
{
    (void)state;
    struct tape tape = { 0 };
    struct nn c = context(&tape);
    float left[] = { 1, 2 }, right[] = { 3, 4, 5, 6 }, back[] = { 1, 2, 3, 4, 5, 6 };
    struct val *a = nn_wrap(&c, left, 2, 1), *b = nn_wrap(&c, right, 2, 2), *y = nn_join(&c, a, b);
    const float want[] = { 1, 3, 4, 2, 5, 6 }, grad_a[] = { 1, 4 }, grad_b[] = { 2, 3, 5, 6 };
    assert_same_bits("joined", y->data, want, 6);
    y->grad = back;
    assert_ok(nn_backward(&c));
    assert_same_bits("left", a->grad, grad_a, 2);
    assert_same_bits("right", b->grad, grad_b, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_of_every_group_are_gathered_piece_by_piece),
        cmocka_unit_test(gradients_of_shared_columns_add_up),
        cmocka_unit_test(joined_rows_hand_their_gradients_back),
    };
    return kernels_init() || cmocka_run_group_tests_name("nn/columns", tests, NULL, NULL);
}
