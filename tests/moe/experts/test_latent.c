/* Latent experts. */
#include "support/kinds.h"

enum { D = 6, T = 7, E = 4, F = 3 };

static struct block latent(int32_t m, int32_t group)
{
    struct moe_spec s =
        kinds_spec((struct expert_range[]){ { .kind = "latent", .n = E, .ffn = F, .param = { m, group } } }, 1, 3);
    return block_make(&s, D, 0);
}

/* With an identity as its group's factor, m = d, an expert is an ordinary one. */
static void an_identity_for_a_latent_space_is_a_feed_forward_layer(void **state)
{
    (void)state;
    const struct moe_spec s = kinds_spec((struct expert_range[]){ { .kind = "ffn", .n = E, .ffn = F } }, 1, 3);
    struct block b = latent(D, 2), plain = block_make(&s, D, BLOCK_GATED);
    const float *x = random_floats(1, T * D, 1);
    block_random(&plain, 2, 1);
    memcpy(block_weight(&b, "router.0")->master, block_weight(&plain, "router.0")->master, E * D * sizeof(float));
    for (int i = 0; i < 2 * D; i++) {
        block_weight(&b, "range.0.latent_gate.weight")->master[i * D + i % D] = 1;
        block_weight(&b, "range.0.latent_up.weight")->master[i * D + i % D] = 1;
    }
    static const char *const own[] = { "gate", "up", "down" };
    for (int e = 0; e < E; e++)
        for (int i = 0; i < 3; i++)
            memcpy(block_weight(&b, "experts.%d.%s_proj.weight", e, own[i])->master,
                   block_weight(&plain, "experts.%d.%s", e, own[i])->master, F * D * sizeof(float));
    assert_close("output", kinds_output(&b, x, T), kinds_output(&plain, x, T), T * D, 1e-5, 1e-5);
}

/* Experts 0, 1 share rows 0 … m-1 of the factors and 2, 3 the rows behind: those of a group nobody visits get no
 * gradient. */
static void a_group_that_nobody_visits_gets_no_gradient(void **state)
{
    (void)state;
    struct block b = latent(2, 2);
    block_random(&b, 2, 1);
    b.spec.router.top_k = 2;
    float *router = block_weight(&b, "router.0")->master, x[T * D], r[T * D];
    for (int i = 0; i < E * D; i++) router[i] = i < 2 * D ? 1 : -1;
    for (int i = 0; i < T * D; i++) x[i] = r[i] = 1.0f + (float)(i % 5);
    kinds_gradient(&b, x, r, T);
    const float *g = block_weight(&b, "range.0.latent_gate.weight")->grad;
    float visited = 0, others = 0;
    for (int i = 0; i < 2 * D; i++) visited += g[i] * g[i], others += g[2 * D + i] * g[2 * D + i];
    assert_true(visited > 0 && others == 0);
}

static void groups_that_do_not_divide_are_refused(void **state)
{
    (void)state;
    const struct moe_spec s = kinds_spec(
        (struct expert_range[]){ { .kind = "latent", .n = 5, .ffn = F, .param = { 2, 2 } } }, 1, 3);
    assert_int_equal(moe_spec_check(&s, "here"), COE_E_INPUT);
    assert_error_has("here: 5 latent experts in groups of 2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_identity_for_a_latent_space_is_a_feed_forward_layer),
        cmocka_unit_test(a_group_that_nobody_visits_gets_no_gradient),
        cmocka_unit_test(groups_that_do_not_divide_are_refused),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/experts/latent", tests, NULL, NULL);
}
