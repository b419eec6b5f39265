/* Entropies of routing as losses: values by hand, gradients against central differences; balance among null experts. */
#include "support/routes.h"

struct value {
    double loss;
    const float *dz;
};

static struct value apply(const char *kind, double q, const struct moe_spec *spec, const float *z, int64_t n)
{
    struct moe_spec *s = test_alloc(sizeof *s);
    *s = *spec;
    s->loss[0] = (struct loss_spec){ kind, 1 };
    s->loss_param[0][0] = q;
    s->n_losses = 1;
    struct nn *c = routes_training(0);
    struct route_record *r = routes_of(s, c, z, n, NULL);
    const struct loss_call call = { .c = c, .records = &r, .n_records = 1, .scale = 1 };
    struct value v;
    assert_ok(moe_losses(&call, &v.loss, NULL));
    v.dz = r->dz;
    return v;
}

/* Card 22, q = 1.1, normalised */
static void tsallis_by_hand(void **state)
{
    (void)state;
    const struct moe_spec s = routes_spec(4, 2, "top_k");
    const float p[4][4] = {
        { .25f, .25f, .25f, .25f }, { .7f, .1f, .1f, .1f }, { .5f, .25f, .15f, .1f }, { .4f, .3f, .2f, .1f }
    };
    const double want[] = { 1, .666119, .867779, .921992 };
    for (int i = 0; i < 4; i++)
        assert_near("entropy", apply("tsallis", 1.1, &s, routes_logits(p[i], 4), 1).loss, want[i], 2e-6);
    const float two[] = { .6f, .2f, .1f, .1f, .3f, .26f, .24f, .2f };
    assert_near("mean", apply("tsallis", 1.1, &s, routes_logits(two, 8), 2).loss, .885265, 2e-6);
}

/* -.5 log .5 - 2 · .25 log .25 = 1.5 log 2 */
static void shannon_by_hand(void **state)
{
    (void)state;
    const struct moe_spec s = routes_spec(3, 2, "top_k");
    const float *z = routes_logits((float[]){ .5f, .25f, .25f }, 3);
    assert_near("entropy", apply("entropy", 0, &s, z, 1).loss, 1.5 * log(2), 1e-6);
    assert_near("tsallis of index 1", apply("tsallis", 1, &s, z, 1).loss, 1.5 * log(2) / log(3), 1e-6);
}

static void gradients_agree_with_central_differences(void **state)
{
    (void)state;
    enum { T = 3, E = 5 };
    const struct moe_spec s = routes_spec(E, 2, "top_k");
    const char *const kind[] = { "entropy", "tsallis", "tsallis", "tsallis" };
    const double q[] = { 0, 1.1, 1, 2 };
    float *z = random_floats(8, T * E, 1);
    for (int k = 0; k < 4; k++) {
        const float *dz = apply(kind[k], q[k], &s, z, T).dz;
        for (int i = 0; i < T * E; i++) {
            const float here = z[i], h = 1.f / 256;
            z[i] = here + h;
            const double up = apply(kind[k], q[k], &s, z, T).loss;
            z[i] = here - h;
            const double down = apply(kind[k], q[k], &s, z, T).loss;
            z[i] = here;
            assert_near(kind[k], (double)dz[i], (up - down) / (2 * (double)h), 3e-5);
        }
    }
}

/* Four tokens, uniform scores, choices spread evenly: E Σ (1/E)(1/E) = 1, nulls or not. */
static void null_balance_is_one_at_balance(void **state)
{
    (void)state;
    struct moe_spec s = routes_spec(4, 4, "top_k");
    const float z[16] = { 0 };
    for (s.n_null = 0; s.n_null < 3; s.n_null++)
        assert_near("loss", apply("null_balance", 0, &s, z, 4).loss, 1, 1e-6);
}

/* One token takes one of two nulls, p = (.2 .1 | .4 .3) or the nulls exchanged: each null has f = 1/2. */
static void permuting_null_experts_changes_nothing(void **state)
{
    (void)state;
    struct moe_spec s = routes_spec(4, 1, "top_k");
    s.n_null = 2;
    const float *a = routes_logits((float[]){ .2f, .1f, .4f, .3f }, 4);
    const float *b = routes_logits((float[]){ .2f, .1f, .3f, .4f }, 4);
    assert_near("one null", apply("null_balance", 0, &s, a, 1).loss, 4 * (.4 + .3) / 2, 1e-6);
    assert_near("the other", apply("null_balance", 0, &s, b, 1).loss, 4 * (.4 + .3) / 2, 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tsallis_by_hand),
        cmocka_unit_test(shannon_by_hand),
        cmocka_unit_test(gradients_agree_with_central_differences),
        cmocka_unit_test(null_balance_is_one_at_balance),
        cmocka_unit_test(permuting_null_experts_changes_nothing),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/entropy", tests, NULL, NULL);
}
