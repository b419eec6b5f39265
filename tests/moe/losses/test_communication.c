/* The communication loss of card 2: by hand, what it counts, its gradient. */
#include "support/losses.h"

static struct moe_spec grouped_spec(int32_t experts, int32_t k, int32_t groups, int32_t kept)
{
    struct moe_spec s = routes_spec(experts, k, "top_k");
    s.router.n_group = groups, s.router.topk_group = kept;
    return s;
}

/* Two devices of two experts, M = 2, k = 2. Token 0 takes experts 0, 1 (device 0 once), token 1 experts 0, 2 (both):
 * sent = (2, 1), f'' = 2/(2·2) sent = (1, .5). P'' = ((.8 + .5)/2, (.2 + .5)/2) = (.65, .35). L = .65 + .175. */
static void by_hand_a_device_receives_a_token_once(void **state)
{
    (void)state;
    const float p[] = { .5f, .3f, .1f, .1f, .4f, .1f, .35f, .15f };
    const struct moe_spec s = grouped_spec(4, 2, 2, 2);
    assert_near("communication", loss_apply("communication", 0, &s, routes_logits(p, 8), 2, NULL).loss, .825, 1e-6);
}

/* One group kept, tokens split evenly: f'' = 2/(1·2) (1, 1) */
static void balance_gives_one(void **state)
{
    (void)state;
    const float p[] = { .5f, .3f, .1f, .1f, .1f, .1f, .5f, .3f };
    const struct moe_spec s = grouped_spec(4, 2, 2, 1);
    assert_near("communication", loss_apply("communication", 0, &s, routes_logits(p, 8), 2, NULL).loss, 1, 1e-6);
}

static double formula(const double *z, const bool *chosen, int64_t n, const struct moe_spec *spec)
{
    const int32_t experts = spec->n_experts, size = experts / spec->router.n_group;
    const double *p = loss_softmax(z, n, experts);
    double sum = 0;
    for (int32_t g = 0; g < spec->router.n_group; g++) {
        double sent = 0, mass = 0;
        for (int64_t t = 0; t < n; t++) {
            bool any = false;
            for (int32_t e = g * size; e < (g + 1) * size; e++) {
                any = any || chosen[t * experts + e];
                mass += p[t * experts + e] / (double)n;
            }
            sent += any;
        }
        sum += sent * spec->router.n_group / (spec->router.topk_group * (double)n) * mass;
    }
    return sum;
}

static void the_gradient_agrees_with_central_differences(void **state)
{
    (void)state;
    const struct moe_spec s = grouped_spec(6, 2, 3, 2);
    assert_loss_gradient("communication", 0, &s, formula);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_hand_a_device_receives_a_token_once),
        cmocka_unit_test(balance_gives_one),
        cmocka_unit_test(the_gradient_agrees_with_central_differences),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/losses/communication", tests, NULL, NULL);
}
