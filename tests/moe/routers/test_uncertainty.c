/* The uncertainty-aware router: its formula over the masks that were drawn, its gradient, its limits. */
#include "support/routers.h"

#include <math.h>

enum { ROWS = 3, WIDTH = 5, EXPERTS = 4, PASSES = 3 };

static struct block block_of(const char *kind, double dropout)
{
    struct moe_spec s = router_spec_of(kind, EXPERTS, 2);
    if (dropout >= 0) s.router.kind_param[0] = PASSES, s.router.kind_param[1] = dropout;
    struct block b = block_make(&s, WIDTH, BLOCK_GATED);
    block_random(&b, 2, 2);
    return b;
}

struct formula {
    const double *w;     /* [EXPERTS, WIDTH] */
    float *mask[PASSES]; /* [ROWS, WIDTH] */
    const double *r;     /* [ROWS, EXPERTS] what the logits are weighed with */
    double z[ROWS * EXPERTS];
};

/* log(mean p / (1 + sd p)) of one token and expert */
static double one_logit(const struct formula *f, const double *x, int t, int e)
{
    double p[PASSES], mean = 0, square = 0;
    for (int m = 0; m < PASSES; m++) {
        double sum = 0, own = 0;
        for (int o = 0; o < EXPERTS; o++) {
            double z = 0;
            for (int i = 0; i < WIDTH; i++)
                z += f->w[o * WIDTH + i] * x[t * WIDTH + i] * (double)f->mask[m][t * WIDTH + i];
            sum += exp(z);
            if (o == e) own = exp(z);
        }
        p[m] = own / sum;
        mean += p[m] / PASSES;
    }
    for (int m = 0; m < PASSES; m++) square += (p[m] - mean) * (p[m] - mean) / PASSES;
    return log(mean / (1 + sqrt(square)));
}

static double weighed(struct formula *f, const double *x)
{
    double sum = 0;
    for (int t = 0; t < ROWS; t++)
        for (int e = 0; e < EXPERTS; e++) {
            f->z[t * EXPERTS + e] = one_logit(f, x, t, e);
            sum += f->r[t * EXPERTS + e] * f->z[t * EXPERTS + e];
        }
    return sum;
}

/* The masks that the router will draw: element j of pass m is dropped where its 16 bits of the random number j / 4 of
 * the m-th dropout of this seed and step are below rate * 65536 */
static void draw_masks(struct formula *f, double rate)
{
    const uint64_t least = (uint64_t)(rate * 65536);
    for (int m = 0; m < PASSES; m++) {
        f->mask[m] = test_alloc(ROWS * WIDTH * sizeof(float));
        for (int j = 0; j < ROWS * WIDTH; j++) {
            const uint64_t bits = rng_at(11, rng_stream(RNG_DROPOUT, 3 << 16 | (uint64_t)m), (uint64_t)j / 4);
            f->mask[m][j] = (bits >> 16 * (j % 4) & 0xFFFF) < least ? 0 : 65536.0f / (float)(65536 - least);
        }
    }
}

static void experts_count_for_less_where_the_passes_disagree(void **state)
{
    (void)state;
    struct block b = block_of("uncertainty", .4);
    struct moe_pass *p = router_pass(true);
    p->c->seed = 11, p->c->step = 3;
    const double *x = random_doubles(6, ROWS * WIDTH, 1);
    double w[EXPERTS * WIDTH], moved[ROWS * WIDTH];
    for (int i = 0; i < EXPERTS * WIDTH; i++) w[i] = (double)block_weight(&b, "router.0")->master[i];
    struct formula f = { .w = w, .r = random_doubles(7, ROWS * EXPERTS, 1) };
    draw_masks(&f, .4);
    struct val *in = router_input(p, floats_of(x, ROWS * WIDTH), ROWS, WIDTH);
    struct val *z = block_logits(&b, p, 0, in);
    (void)weighed(&f, x);
    assert_norm_close_d("z", z->data, f.z, ROWS * EXPERTS, 2e-6);
    z->grad = floats_of(f.r, ROWS * EXPERTS);
    assert_ok(nn_backward(p->c));
    double slope[ROWS * WIDTH];
    for (int i = 0; i < ROWS * WIDTH; i++) {
        for (int j = 0; j < ROWS * WIDTH; j++) moved[j] = x[j] + 1e-5 * (i == j);
        slope[i] = weighed(&f, moved);
        moved[i] = x[i] - 1e-5;
        slope[i] = (slope[i] - weighed(&f, moved)) / 2e-5;
    }
    assert_norm_close_d("gradient", in->grad, slope, ROWS * WIDTH, 1e-5);
}

static void nothing_is_dropped_at_inference_nor_at_a_rate_of_zero(void **state)
{
    (void)state;
    struct block b = block_of("uncertainty", .4), none = block_of("uncertainty", 0), plain = block_of("linear", -1);
    struct moe_pass *p = router_pass(false), *q = router_pass(true);
    const float *x = random_floats(3, ROWS * WIDTH, 1);
    const struct val *want = block_logits(&plain, p, 0, router_input(p, x, ROWS, WIDTH));
    assert_same_bits("inference", block_logits(&b, p, 0, router_input(p, x, ROWS, WIDTH))->data, want->data,
                     ROWS * EXPERTS);
    assert_same_bits("rate 0", block_logits(&none, q, 0, router_input(q, x, ROWS, WIDTH))->data, want->data,
                     ROWS * EXPERTS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(experts_count_for_less_where_the_passes_disagree),
        cmocka_unit_test(nothing_is_dropped_at_inference_nor_at_a_rate_of_zero),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/routers/uncertainty", tests, NULL, NULL);
}
