/* Soft orthogonality of router rows and of experts: limits, by hand, gradients, what is counted once. */
#include "support/weight_losses.h"

enum { E = 4, F = 2, D = 5 };

static void orthogonal_rows_cost_nothing_parallel_ones_every_pair(void **state)
{
    (void)state;
    struct block b = weight_loss_block("orthogonality", 3, 1, 3, NULL, 0);
    block_set(&b, "router.0", (float[]){ 1, 0, 0, 0, 5, 0, 0, 0, .1f }, 9);
    assert_near("orthogonal", weight_loss(&b, 0, 0), 0, 0);
    block_set(&b, "router.0", (float[]){ 1, 1, 1, 2, 2, 2, -3, -3, -3 }, 9);
    assert_near("parallel", weight_loss(&b, 0, 0), 3, 1e-6);
    block_set(&b, "router.0", (float[]){ 1, 0, 0, 1, 1, 0, 0, 0, 0 }, 9); /* 45 degrees, and a row of zeros */
    assert_near("45 degrees", weight_loss(&b, 0, 0), .5, 1e-6);
}

static double formula(const double *v, int n, int length)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++) {
            double ij = 0, ii = 0, jj = 0;
            for (int k = 0; k < length; k++) {
                ij += v[i * length + k] * v[j * length + k];
                ii += v[i * length + k] * v[i * length + k];
                jj += v[j * length + k] * v[j * length + k];
            }
            sum += ij * ij / (ii * jj);
        }
    return sum;
}

static void check(const char *what, double *v, const float *got, int n, int length, double scale)
{
    for (int i = 0; i < n * length; i++) {
        const double here = v[i], h = 1e-6;
        v[i] = here + h;
        const double up = formula(v, n, length);
        v[i] = here - h;
        const double down = formula(v, n, length);
        v[i] = here;
        assert_near(what, (double)got[i], scale * (up - down) / (2 * h), 2e-6);
    }
}

static void gradients_agree_with_central_differences(void **state)
{
    (void)state;
    struct block b = weight_loss_block("orthogonality", E, F, D, NULL, 0);
    block_random(&b, 5, 1);
    double rows[E * D], experts[E * 3 * F * D];
    float got[E * 3 * F * D];
    for (int i = 0; i < E * D; i++) rows[i] = (double)block_weight(&b, "router.0")->master[i];
    assert_near("router", weight_loss(&b, 2, 0), formula(rows, E, D), 1e-6);
    check("router", rows, block_weight(&b, "router.0")->grad, E, D, 2);
    struct block x = weight_loss_block("orthogonality", E, F, D, (double[]){ 1 }, 1);
    block_random(&x, 6, 1);
    for (int e = 0; e < E; e++)
        for (int i = 0; i < F * D; i++) {
            experts[e * 3 * F * D + i] = (double)x.gate[e]->master[i];
            experts[e * 3 * F * D + F * D + i] = (double)x.up[e]->master[i];
            experts[e * 3 * F * D + 2 * F * D + i] = (double)x.down[e]->master[i];
        }
    assert_near("experts", weight_loss(&x, 1, 0), formula(experts, E, 3 * F * D), 1e-6);
    for (int e = 0; e < E; e++) {
        memcpy(got + e * 3 * F * D, x.gate[e]->grad, F * D * sizeof *got);
        memcpy(got + e * 3 * F * D + F * D, x.up[e]->grad, F * D * sizeof *got);
        memcpy(got + e * 3 * F * D + 2 * F * D, x.down[e]->grad, F * D * sizeof *got);
    }
    check("experts", experts, got, E, 3 * F * D, 1);
}

/* A chain with one gate has one router and one pool of experts however often it passes; two gates are two routers. */
static void what_passes_share_is_counted_once(void **state)
{
    (void)state;
    for (int of = 0; of < 2; of++)
        for (int shared = 0; shared < 2; shared++) {
            struct moe_spec s = routes_spec(E, 1, "top_k");
            s.expert_ffn = F;
            s.loss[0] = (struct loss_spec){ "orthogonality", 1 };
            s.loss_param[0][0] = of;
            s.n_losses = 1;
            s.chain.n_iterations = 2;
            s.chain.shared_gate = shared;
            struct block b = block_make(&s, D, BLOCK_GATED);
            block_random(&b, 5, 1);
            double rows[E * D];
            for (int i = 0; i < E * D; i++) rows[i] = (double)block_weight(&b, "router.0")->master[i];
            const double got = weight_loss(&b, 0, 0), one = formula(rows, E, D);
            if (of == 0 && shared) assert_near("one router", got, one, 1e-6);
            if (of == 0 && !shared) assert_true(got > one + 1e-3);
            if (of == 1) { /* the same experts alone */
                struct block alone = weight_loss_block("orthogonality", E, F, D, (double[]){ 1 }, 1);
                for (int e = 0; e < E; e++) {
                    memcpy(alone.gate[e]->master, b.gate[e]->master, F * D * sizeof(float));
                    memcpy(alone.up[e]->master, b.up[e]->master, F * D * sizeof(float));
                    memcpy(alone.down[e]->master, b.down[e]->master, F * D * sizeof(float));
                }
                assert_near("experts", got, weight_loss(&alone, 0, 0), 1e-7);
            }
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(orthogonal_rows_cost_nothing_parallel_ones_every_pair),
        cmocka_unit_test(gradients_agree_with_central_differences),
        cmocka_unit_test(what_passes_share_is_counted_once),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/losses/orthogonality", tests, NULL, NULL);
}
