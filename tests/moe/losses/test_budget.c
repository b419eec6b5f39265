/* The budget of big experts (Duo-LLM). */
#include <math.h>

#include "support/kinds.h"

static struct moe_spec big_and_small(double target)
{
    struct moe_spec s = kinds_spec((struct expert_range[]){ { .kind = "ffn", .n = 1, .ffn = 8 },
                                                            { .kind = "ffn", .n = 1, .ffn = 2 },
                                                            { .kind = "null", .n = 1 } },
                                   3, 1);
    s.loss[0] = (struct loss_spec){ "budget", 1 };
    s.loss_param[0][0] = target;
    s.n_losses = 1;
    return s;
}

static double loss(const struct moe_spec *s, const float *z0, const float *z1, double scale, float **dz)
{
    struct nn *c = routes_training(0);
    struct route_record *r[2] = { routes_of(s, c, z0, 2, NULL), routes_of(s, c, z1, 2, NULL) };
    double total;
    const struct loss_call call = { .c = c, .records = r, .n_records = 2, .scale = scale };
    assert_ok(moe_losses(&call, &total, NULL));
    if (dz) *dz = r[0]->dz;
    return total;
}

/* Layer 0 gives the big expert .7 and .5, layer 1 .1 and .3: m = .4; target .5: L = .01. */
static void one_budget_holds_for_all_layers_together(void **state)
{
    (void)state;
    const struct moe_spec s = big_and_small(0.5);
    const float *a = routes_logits((float[]){ .7f, .2f, .1f, .5f, .4f, .1f }, 6);
    const float *b = routes_logits((float[]){ .1f, .8f, .1f, .3f, .3f, .4f }, 6);
    assert_near("loss", loss(&s, a, b, 0, NULL), 0.01, 1e-7);
}

static void its_gradient_agrees_with_differences(void **state)
{
    (void)state;
    const struct moe_spec s = big_and_small(0.2);
    float *z = random_floats(1, 6, 1), *dz;
    const float *other = random_floats(2, 6, 1);
    loss(&s, z, other, 1, &dz);
    for (int i = 0; i < 6; i++) {
        const float was = z[i], h = 1e-2f;
        z[i] = was + h;
        const double up = loss(&s, z, other, 0, NULL);
        z[i] = was - h;
        const double down = loss(&s, z, other, 0, NULL);
        z[i] = was;
        assert_near("dz", (double)dz[i], (up - down) / (2 * (double)h), 2e-5);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_budget_holds_for_all_layers_together),
        cmocka_unit_test(its_gradient_agrees_with_differences),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/losses/budget", tests, NULL, NULL);
}
