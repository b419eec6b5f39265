/* The device-level loss of card 2: by hand, its limit, its gradient. */
#include "support/losses.h"

static struct moe_spec grouped_spec(int32_t experts, int32_t k, int32_t groups)
{
    struct moe_spec s = routes_spec(experts, k, "top_k");
    s.router.n_group = s.router.topk_group = groups;
    return s;
}

/* Four experts on two devices, k = 1, two tokens, both to expert 0: f = E/(kT) counts = (4 0 0 0), f' = (2 0);
 * P' of device 0 = (.8 + .7)/2 = .75. L = 2 · .75. */
static void by_hand(void **state)
{
    (void)state;
    const float p[] = { .6f, .2f, .1f, .1f, .4f, .3f, .2f, .1f };
    const struct moe_spec s = grouped_spec(4, 1, 2);
    assert_near("device", loss_apply("device", 0, &s, routes_logits(p, 8), 2, NULL).loss, 1.5, 1e-6);
}

/* All on the first expert of each device: the experts are far from balance, the devices are not. */
static void experts_of_one_device_need_not_balance(void **state)
{
    (void)state;
    const float p[] = { .4f, .1f, .3f, .2f, .3f, .2f, .4f, .1f };
    const struct moe_spec s = grouped_spec(4, 1, 2);
    const float *z = routes_logits(p, 8);
    assert_near("device", loss_apply("device", 0, &s, z, 2, NULL).loss, 1, 1e-6);
    assert_true(loss_apply("assign", 0, &s, z, 2, NULL).loss > 1.3);
}

/* As many devices as experts: the expert-level loss. */
static void devices_of_one_expert_give_the_expert_level_loss(void **state)
{
    (void)state;
    const struct moe_spec s = grouped_spec(5, 2, 5);
    const float *z = random_floats(3, 40, 1);
    const uint8_t counted[] = { 1, 1, 0, 1, 1, 1, 0, 1 };
    const struct loss_value a = loss_apply("device", 0, &s, z, 8, counted),
                            b = loss_apply("assign", 0, &s, z, 8, counted);
    assert_near("value", a.loss, b.loss, 1e-9);
    assert_close("gradient", a.dz, b.dz, 40, 1e-8, 1e-6);
}

static double formula(const double *z, const bool *chosen, int64_t n, const struct moe_spec *spec)
{
    const int32_t experts = spec->n_experts, size = experts / spec->router.n_group;
    const double *p = loss_softmax(z, n, experts);
    double sum = 0;
    for (int32_t g = 0; g < spec->router.n_group; g++) {
        double f = 0, mass = 0;
        for (int64_t t = 0; t < n; t++)
            for (int32_t e = g * size; e < (g + 1) * size; e++) {
                f += chosen[t * experts + e] * (double)experts / (double)(spec->router.top_k * n) / size;
                mass += p[t * experts + e] / (double)n;
            }
        sum += f * mass;
    }
    return sum;
}

static void the_gradient_agrees_with_central_differences(void **state)
{
    (void)state;
    const struct moe_spec s = grouped_spec(6, 2, 3);
    assert_loss_gradient("device", 0, &s, formula);
}

static void without_groups_it_is_refused(void **state)
{
    (void)state;
    struct moe_spec s = routes_spec(4, 1, "top_k");
    s.loss[0] = (struct loss_spec){ "device", 1 };
    s.n_losses = 1;
    assert_int_equal(moe_spec_check(&s, "spec"), COE_E_INPUT);
    assert_error_has("balances groups");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_hand),
        cmocka_unit_test(experts_of_one_device_need_not_balance),
        cmocka_unit_test(devices_of_one_expert_give_the_expert_level_loss),
        cmocka_unit_test(the_gradient_agrees_with_central_differences),
        cmocka_unit_test(without_groups_it_is_refused),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/losses/device", tests, NULL, NULL);
}
