/* Expert-router coupling (card 12c): by hand, limits, gradients against central differences of the formula. */
#include "support/weight_losses.h"

/* d = F = 2. R = I; gate matrices with columns so that M = [[2, 1.5], [2.5, 3]]: M_ij = |W_j e_i|. */
static struct block card(double alpha)
{
    struct block b = weight_loss_block("erc", 2, 2, 2, (double[]){ alpha, 0 }, 2);
    block_set(&b, "router.0", (float[]){ 1, 0, 0, 1 }, 4);
    block_set(&b, "experts.0.gate", (float[]){ 2, 0, 0, 2.5f }, 4);
    block_set(&b, "experts.1.gate", (float[]){ 0, 3, 1.5f, 0 }, 4);
    return b;
}

static void the_examples_of_the_card(void **state)
{
    (void)state;
    struct block one = card(1), half = card(.5);
    assert_near("alpha 1", weight_loss(&one, 0, 0), .125, 1e-6);
    assert_near("alpha 1/2", weight_loss(&half, 0, 0), .75, 1e-6);
}

static void a_dominant_diagonal_and_a_single_expert_cost_nothing(void **state)
{
    (void)state;
    struct block b = card(1);
    block_set(&b, "experts.0.gate", (float[]){ 2, 0, 0, 1 }, 4);
    assert_near("dominant", weight_loss(&b, 1, 0), 0, 0);
    for (size_t i = 0; i < b.n; i++)
        for (int64_t k = 0; k < weight_count(b.list[i]); k++) assert_true(b.list[i]->grad[k] == 0);
    struct block single = weight_loss_block("erc", 1, 2, 2, NULL, 0);
    block_random(&single, 3, 1);
    assert_near("one expert", weight_loss(&single, 1, 0), 0, 0);
}

static void it_scales_with_the_gate_matrices(void **state)
{
    (void)state;
    struct block b = weight_loss_block("erc", 3, 4, 5, (double[]){ .7 }, 1);
    block_random(&b, 4, 1);
    const double before = weight_loss(&b, 0, 0);
    for (int e = 0; e < 3; e++) kern->scale(b.gate[e]->master, b.gate[e]->master, 2, 20);
    assert_near("twice", weight_loss(&b, 0, 0), 2 * before, 1e-5);
}

/* Rows (1, 0), (0, 2): eps = (1.118 → 1, .559017). Every factor of row 1 lies in 1 ± .559, of row 0 in 1 ± 1; another
 * step draws others. With the identity for gate matrices M_ij is the length of the perturbed row i. */
static void the_noise_stays_within_half_the_way_to_the_next_row_and_is_fresh_every_step(void **state)
{
    (void)state;
    struct block b = weight_loss_block("erc", 2, 2, 2, (double[]){ 0 }, 1);
    block_set(&b, "router.0", (float[]){ 1, 0, 0, 2 }, 4);
    for (int e = 0; e < 2; e++) block_set(&b, e ? "experts.1.gate" : "experts.0.gate", (float[]){ 1, 0, 0, 1 }, 4);
    double least = 9, most = 0, before = -1;
    for (uint64_t step = 0; step < 40; step++) { /* L = 1/4 Σ M_01 + M_10 twice each */
        const double lengths = 2 * weight_loss(&b, 0, step);
        assert_true(lengths != before);
        before = lengths;
        least = fmin(least, lengths), most = fmax(most, lengths);
    }
    assert_true(least > 2 * (1 - .559017) - 1e-6 && least < 2);
    assert_true(most < 2 + 2 * (1 + .559017) && most > 3.5);
}

enum { E = 4, F = 3, D = 5 };

/* The loss in double precision, without noise */
static double formula(const double *router, const double *gate, double alpha)
{
    double m[E][E], sum = 0;
    for (int i = 0; i < E; i++)
        for (int j = 0; j < E; j++) {
            double square = 0;
            for (int k = 0; k < F; k++) {
                double u = 0;
                for (int x = 0; x < D; x++) u += gate[(j * F + k) * D + x] * router[i * D + x];
                square += u * u;
            }
            m[i][j] = sqrt(square);
        }
    for (int i = 0; i < E; i++)
        for (int j = 0; j < E; j++)
            sum += i == j ? 0 : fmax(m[i][j] - alpha * m[i][i], 0) + fmax(m[j][i] - alpha * m[i][i], 0);
    return sum / (E * E);
}

static void gradients_of_router_and_gates_agree_with_central_differences(void **state)
{
    (void)state;
    struct block b = weight_loss_block("erc", E, F, D, (double[]){ .8, 0 }, 2);
    block_random(&b, 5, 1);
    double router[E * D], gate[E * F * D];
    for (int i = 0; i < E * D; i++) router[i] = (double)block_weight(&b, "router.0")->master[i];
    for (int e = 0; e < E; e++)
        for (int i = 0; i < F * D; i++) gate[e * F * D + i] = (double)b.gate[e]->master[i];
    assert_near("value", weight_loss(&b, .5, 0), formula(router, gate, .8), 1e-6);
    for (int i = 0; i < E * D + E * F * D; i++) {
        double *x = i < E * D ? &router[i] : &gate[i - E * D];
        const int at = i - E * D;
        const float got = i < E * D ? block_weight(&b, "router.0")->grad[i] : b.gate[at / (F * D)]->grad[at % (F * D)];
        const double here = *x, h = 1e-6;
        *x = here + h;
        const double up = formula(router, gate, .8);
        *x = here - h;
        const double down = formula(router, gate, .8);
        *x = here;
        assert_near("gradient", (double)got, .5 * (up - down) / (2 * h), 2e-6);
    }
}

/* With noise the factors are constants: a step along the gates' gradient changes the loss by its square. */
static void with_noise_the_factors_are_constants(void **state)
{
    (void)state;
    struct block b = weight_loss_block("erc", E, F, D, NULL, 0);
    block_random(&b, 6, 1);
    const double at = weight_loss(&b, 1, 9), h = 1e-3;
    double square = 0;
    for (int e = 0; e < E; e++)
        for (int i = 0; i < F * D; i++) {
            square += (double)b.gate[e]->grad[i] * (double)b.gate[e]->grad[i];
            b.gate[e]->master[i] += (float)h * b.gate[e]->grad[i];
        }
    assert_true(square > 1e-3);
    assert_near("change", (weight_loss(&b, 0, 9) - at) / h, square, 2e-2 * square);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_examples_of_the_card),
        cmocka_unit_test(a_dominant_diagonal_and_a_single_expert_cost_nothing),
        cmocka_unit_test(it_scales_with_the_gate_matrices),
        cmocka_unit_test(the_noise_stays_within_half_the_way_to_the_next_row_and_is_fresh_every_step),
        cmocka_unit_test(gradients_of_router_and_gates_agree_with_central_differences),
        cmocka_unit_test(with_noise_the_factors_are_constants),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/losses/erc", tests, NULL, NULL);
}
