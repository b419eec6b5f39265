/* Constant experts of MoE++. */
#include "support/kinds.h"

static struct block one(void)
{
    const struct moe_spec s = kinds_spec((struct expert_range[]){ { .kind = "const", .n = 1 } }, 1, 1);
    return block_make(&s, 2, 0);
}

/* x = (1, 2), v = (10, -10), W = ((1, 0), (0, 0)): logits (1, 0), a = (.731059, .268941),
 * y = .731059 x + .268941 v = (3.420466, -1.227294) */
static void mixes_its_input_with_a_vector(void **state)
{
    (void)state;
    struct block b = one();
    block_set(&b, "experts.0.mix.weight", (float[]){ 1, 0, 0, 0 }, 4);
    block_set(&b, "experts.0.constant", (float[]){ 10, -10 }, 2);
    assert_close("output", kinds_output(&b, (float[]){ 1, 2 }, 1), (float[]){ 3.4204683f, -1.2272922f }, 2, 1e-5, 0);
}

/* Card 5: a = (1, 0) is a copy. */
static void sure_of_its_input_it_is_a_copy(void **state)
{
    (void)state;
    struct block b = one();
    block_set(&b, "experts.0.mix.weight", (float[]){ 60, 60, -60, -60 }, 4);
    block_set(&b, "experts.0.constant", (float[]){ 10, -10 }, 2);
    assert_same_bits("output", kinds_output(&b, (float[]){ 1, 2 }, 1), (float[]){ 1, 2 }, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mixes_its_input_with_a_vector),
        cmocka_unit_test(sure_of_its_input_it_is_a_copy),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/experts/const", tests, NULL, NULL);
}
