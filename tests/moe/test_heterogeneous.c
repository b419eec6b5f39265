/* Balance between experts that compute and those that do not. */
#include "support/routes.h"

static double loss_of(const char *kind, double tau, const struct moe_spec *spec, const float *z, int64_t n, float **dz)
{
    struct moe_spec *s = test_alloc(sizeof *s);
    *s = *spec;
    s->loss[0] = (struct loss_spec){ kind, 1 };
    s->loss_param[0][0] = tau;
    s->n_losses = 1;
    struct nn *c = routes_training(0);
    struct route_record *r = routes_of(s, c, z, n, NULL);
    const struct loss_call call = { .c = c, .records = &r, .n_records = 1, .scale = 1 };
    double value;
    assert_ok(moe_losses(&call, &value, NULL));
    *dz = r->dz;
    return value;
}

/* p = (.4 .1 | .3 .2), top 2: experts 0 and the null 2: f = (1 0 1 0), L = .4 + tau .3 */
static void experts_that_compute_nothing_weigh_tau(void **state)
{
    (void)state;
    struct moe_spec s = routes_spec(4, 2, "top_k");
    const float *z = routes_logits((float[]){ .4f, .1f, .3f, .2f }, 4);
    float *dz;
    s.n_null = 2;
    assert_near("loss", loss_of("heterogeneous", .5, &s, z, 1, &dz), .4 + .5 * .3, 1e-6);
    s.n_null = 1, s.n_identity = 1; /* expert 2 returns its input now: the same */
    assert_near("loss", loss_of("heterogeneous", .5, &s, z, 1, &dz), .4 + .5 * .3, 1e-6);
    /* dz_i = p_i (η_i f_i - L) */
    assert_close("gradient", dz, (float[]){ .4f * .45f, .1f * -.55f, .3f * -.05f, .2f * -.55f }, 4, 1e-6, 0);
}

static void without_such_experts_it_is_switch_over_e(void **state)
{
    (void)state;
    const struct moe_spec s = routes_spec(5, 2, "top_k");
    const float *z = random_floats(2, 5 * 9, 1);
    float *a, *b;
    const double got = loss_of("heterogeneous", .1, &s, z, 9, &a), want = loss_of("switch", 0, &s, z, 9, &b) / 5;
    assert_near("loss", got, want, 1e-9);
    for (int i = 0; i < 45; i++) assert_near("gradient", (double)a[i], (double)b[i] / 5, 1e-8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(experts_that_compute_nothing_weigh_tau),
        cmocka_unit_test(without_such_experts_it_is_switch_over_e),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/heterogeneous", tests, NULL, NULL);
}
