/* Numbers of experts over the layers (card 16): the shapes, the budget, one layer. */
#include "support/arrays.h"

#include "moe/layer_schedule.h"

static void schedule(enum layer_shape shape, int32_t n, double min, double max, int64_t budget, int32_t *out)
{
    double exact[64];
    layer_schedule(&(struct layer_schedule){ shape, min, max, 1 }, n, budget, exact, out);
}

static void shapes_by_hand(void **state)
{
    (void)state;
    int32_t got[5];
    const struct {
        enum layer_shape shape;
        int32_t want[5];
    } cases[] = {
        { LAYERS_UNIFORM, { 6, 6, 6, 6, 6 } },           { LAYERS_DESCENDING, { 10, 8, 6, 4, 2 } },
        { LAYERS_ASCENDING, { 2, 4, 6, 8, 10 } },        { LAYERS_PYRAMID, { 2, 6, 10, 6, 2 } },
        { LAYERS_INVERSE_PYRAMID, { 10, 6, 2, 6, 10 } }, { LAYERS_WAVE, { 6, 10, 6, 2, 6 } },
    };
    for (size_t i = 0; i < COE_COUNT(cases); i++) {
        schedule(cases[i].shape, 5, 2, 10, 0, got);
        assert_ids(layer_shape_name[cases[i].shape], got, cases[i].want, 5);
    }
}

static void every_shape_adds_up_to_the_budget(void **state)
{
    (void)state;
    for (int shape = 0; shape < LAYER_SHAPE_COUNT; shape++)
        for (int32_t n = 1; n < 14; n++)
            for (int64_t budget = n; budget < 12 * n; budget += 5) {
                int32_t got[14];
                int64_t sum = 0;
                schedule((enum layer_shape)shape, n, 1, 9, budget, got);
                for (int32_t l = 0; l < n; l++) {
                    assert_true(got[l] >= 1);
                    sum += got[l];
                }
                assert_int_equal(sum, budget);
            }
}

/* 26 of pyramid 2 6 10 6 2: exactly itself; 13 is the half, 1 3 5 3 1; 27 gives the odd one to the largest remainder,
 * 10·27/26 = 10.385. */
static void the_budget_scales_the_shape(void **state)
{
    (void)state;
    int32_t got[5];
    schedule(LAYERS_PYRAMID, 5, 2, 10, 26, got);
    assert_ids("26", got, (int32_t[]){ 2, 6, 10, 6, 2 }, 5);
    schedule(LAYERS_PYRAMID, 5, 2, 10, 13, got);
    assert_ids("13", got, (int32_t[]){ 1, 3, 5, 3, 1 }, 5);
    schedule(LAYERS_PYRAMID, 5, 2, 10, 27, got);
    assert_ids("27", got, (int32_t[]){ 2, 6, 11, 6, 2 }, 5);
}

static void one_layer_is_the_mean_whatever_the_shape(void **state)
{
    (void)state;
    for (int shape = 0; shape < LAYER_SHAPE_COUNT; shape++) {
        int32_t got;
        schedule((enum layer_shape)shape, 1, 2, 10, 0, &got);
        assert_int_equal(got, 6);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_by_hand),
        cmocka_unit_test(every_shape_adds_up_to_the_budget),
        cmocka_unit_test(the_budget_scales_the_shape),
        cmocka_unit_test(one_layer_is_the_mean_whatever_the_shape),
    };
    return cmocka_run_group_tests_name("moe/layer_schedule", tests, NULL, NULL);
}
