/* The balance of chosen probability of card 22: by hand, its limit, its gradient through both factors. */
#include "support/losses.h"

/* (.6 .2 0 0) and all of (.3 .26 .24 .2): f = (.45 .23 .12 .10), P = (.45 .23 .17 .15) */
static void the_example_of_the_card(void **state)
{
    (void)state;
    const float p[] = { .6f, .2f, .1f, .1f, .3f, .26f, .24f, .2f };
    const struct moe_spec s = routes_spec(4, 2, "hybrid");
    assert_near("masked", loss_apply("masked", 0, &s, routes_logits(p, 8), 2, NULL).loss, 1.1632, 1e-6);
}

static void soft_routing_in_balance_gives_one_and_padding_does_not_count(void **state)
{
    (void)state;
    const float z[] = { 0, 0, 0, 0, 5, 0, 0, 0 };
    const struct moe_spec s = routes_spec(4, 4, "top_k");
    assert_near("masked", loss_apply("masked", 0, &s, z, 1, NULL).loss, 1, 1e-6);
    const struct loss_value v = loss_apply("masked", 0, &s, z, 2, (uint8_t[]){ 1, 0 });
    assert_near("masked", v.loss, 1, 1e-6);
    for (int i = 0; i < 8; i++) assert_near("gradient", (double)v.dz[i], 0, 1e-7);
}

static double formula(const double *z, const bool *chosen, int64_t n, const struct moe_spec *spec)
{
    const int32_t experts = spec->n_experts;
    const double *p = loss_softmax(z, n, experts);
    double sum = 0;
    for (int32_t e = 0; e < experts; e++) {
        double f = 0, mean = 0;
        for (int64_t t = 0; t < n; t++) {
            f += chosen[t * experts + e] * p[t * experts + e] / (double)n;
            mean += p[t * experts + e] / (double)n;
        }
        sum += experts * f * mean;
    }
    return sum;
}

static void the_gradient_agrees_with_central_differences(void **state)
{
    (void)state;
    const struct moe_spec top = routes_spec(5, 2, "top_k"), soft = routes_spec(5, 2, "hybrid");
    assert_loss_gradient("masked", 0, &top, formula);
    assert_loss_gradient("masked", 0, &soft, formula);
}

static void sigmoid_scores_are_refused(void **state)
{
    (void)state;
    struct moe_spec s = routes_spec(4, 1, "top_k");
    s.router.score = SCORE_SIGMOID;
    s.loss[0] = (struct loss_spec){ "masked", 1 };
    s.n_losses = 1;
    assert_int_equal(moe_spec_check(&s, "spec"), COE_E_INPUT);
    assert_error_has("not probabilities");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_example_of_the_card),
        cmocka_unit_test(soft_routing_in_balance_gives_one_and_padding_does_not_count),
        cmocka_unit_test(the_gradient_agrees_with_central_differences),
        cmocka_unit_test(sigmoid_scores_are_refused),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/losses/masked", tests, NULL, NULL);
}
