/* Experts with memory. */
#include "support/kinds.h"

static struct block scalar(int32_t n, int32_t k)
{
    struct moe_spec s = kinds_spec((struct expert_range[]){ { .kind = "gru", .n = n, .ffn = 1 } }, 1, k);
    s.router.renormalize = true;
    struct block b = block_make(&s, 1, 0);
    for (size_t i = 0; i < b.n; i++)
        if (b.list[i]->rows > 1 || b.list[i]->cols == 1)
            for (int64_t j = 0; j < weight_count(b.list[i]); j++) b.list[i]->master[j] = 1;
    return b;
}

/* Card 6: all weights 1, biases 0: u = 1, then .5 give h = .204824, .323258; here the output is h itself. */
static void the_cell_walks_over_the_tokens(void **state)
{
    (void)state;
    struct block b = scalar(1, 1);
    assert_close("h", kinds_output(&b, (float[]){ 1, 0.5f }, 2), (float[]){ 0.204824f, 0.323258f }, 2, 2e-6, 0);
}

/* Expert 1 takes negative tokens: for expert 0 they do not happen. */
static void tokens_that_go_elsewhere_leave_the_state_as_it_is(void **state)
{
    (void)state;
    struct block b = scalar(2, 1);
    block_set(&b, "router.0", (float[]){ 1, -1 }, 2);
    const float *y = kinds_output(&b, (float[]){ 1, -3, -1, 0.5f }, 4);
    assert_close("first", y, (float[]){ 0.204824f }, 1, 2e-6, 0);
    assert_close("last", y + 3, (float[]){ 0.323258f }, 1, 2e-6, 0);
}

static void every_sequence_and_document_starts_from_nothing(void **state)
{
    (void)state;
    struct block b = scalar(1, 1);
    const int32_t off[] = { 0, 2, 6 };
    const int64_t pos0[] = { 0, 0 }, start[] = { 0, 0, 0, 0, 2, 2 };
    const struct attn_batch batch = { 2, off, pos0, start };
    float x[] = { 1, 0.5f, 1, 0.5f, 1, 0.5f };
    struct nn c = { .arena = test_arena() };
    struct moe_pass pass = { .c = &c, .executor = &executor_local, .batch = &batch };
    const struct val *y = moe_output(&pass, &b.spec, &b.w, NULL, 0, nn_wrap(&c, x, 6, 1));
    assert_non_null(y);
    for (int i = 0; i < 3; i++)
        assert_close("h", y->data + 2 * i, (float[]){ 0.204824f, 0.323258f }, 2, 2e-6, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cell_walks_over_the_tokens),
        cmocka_unit_test(tokens_that_go_elsewhere_leave_the_state_as_it_is),
        cmocka_unit_test(every_sequence_and_document_starts_from_nothing),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/experts/gru", tests, NULL, NULL);
}
