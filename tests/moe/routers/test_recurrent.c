/* The recurrent routers: the hand example and the limits of card 6. */
#include "support/routers.h"

#include <math.h>
#include <string.h>

static struct moe_spec spec_of(const char *cell, int32_t width)
{
    struct moe_spec s = router_spec_of(cell, 3, 1);
    s.router.kind_param[0] = width;
    return s;
}

static void set_all(const struct block *b, const char *name, float value)
{
    struct weight *w = block_weight(b, "%s", name);
    for (int64_t i = 0; i < weight_count(w); i++) w->master[i] = value;
}

/* Weights 1, biases 0, width 1: u = 1, h = 0 gives r = q = .731059, n = .761594, h = .204824; u = .5 then gives
 * r = q = .669256, n = .562908, h = .323258. */
static void a_scalar_unit_makes_the_steps_of_the_card(void **state)
{
    (void)state;
    struct moe_spec s = spec_of("gru", 1);
    struct block b = block_make(&s, 1, BLOCK_GATED);
    struct moe_pass *p = router_pass(false);
    set_all(&b, "router.proj.weight.0", 1);
    set_all(&b, "router.out.weight.0", 1);
    set_all(&b, "router.weight_ih.0", 1);
    set_all(&b, "router.weight_hh.0", 1);
    const struct val *z = block_logits(&b, p, 0, router_input(p, (float[]){ 1 }, 1, 1));
    assert_close("first", z->data, (float[]){ .204824f, .204824f, .204824f }, 3, 1e-6, 0);
    z = block_logits(&b, p, 0, router_input(p, (float[]){ .5f }, 1, 1));
    assert_close("second", z->data, (float[]){ .323258f, .323258f, .323258f }, 3, 1e-6, 0);
}

/* The state is the token's: one that comes along changes nothing. */
static void tokens_keep_their_own_state(void **state)
{
    (void)state;
    struct moe_spec s = spec_of("gru", 4);
    struct block b = block_make(&s, 3, BLOCK_GATED);
    block_random(&b, 3, 1);
    const float *x = random_floats(5, 6, 1), *y = random_floats(6, 6, 1);
    struct moe_pass *both = router_pass(false), *alone = router_pass(false);
    (void)block_logits(&b, both, 0, router_input(both, x, 2, 3));
    (void)block_logits(&b, alone, 0, router_input(alone, x + 3, 1, 3));
    const struct val *z = block_logits(&b, both, 0, router_input(both, y, 2, 3));
    const struct val *z1 = block_logits(&b, alone, 0, router_input(alone, y + 3, 1, 3));
    assert_same_bits("second token", z1->data, z->data + 3, 3);
}

static void identity_of(const struct block *b, const char *name, int64_t n)
{
    for (int64_t i = 0; i < n * n; i++) block_weight(b, "%s", name)->master[i] = i / n == i % n;
}

/* W_h = 0, W_i = 1, b = 0: z = W2 tanh(W1 x) for every decision, bit for bit */
static void without_its_state_the_plain_cell_is_a_router_of_two_layers(void **state)
{
    (void)state;
    struct moe_spec s = spec_of("rnn", 4), two = router_spec_of("two_layer", 3, 1);
    two.router.kind_param[0] = 4;
    struct block b = block_make(&s, 5, BLOCK_GATED), t = block_make(&two, 5, BLOCK_GATED);
    block_random(&b, 8, 1);
    identity_of(&b, "router.weight_ih.0", 4);
    set_all(&b, "router.weight_hh.0", 0);
    set_all(&b, "router.bias_ih.0", 0);
    set_all(&b, "router.bias_hh.0", 0);
    block_set(&t, "router.fc1.weight.0", block_weight(&b, "router.proj.weight.0")->master, 20);
    block_set(&t, "router.fc2.weight.0", block_weight(&b, "router.out.weight.0")->master, 12);
    struct moe_pass *p = router_pass(false), *q = router_pass(false);
    for (uint64_t step = 0; step < 3; step++) {
        const float *x = random_floats(20 + step, 10, 1);
        const struct val *z = block_logits(&b, p, 0, router_input(p, x, 2, 5));
        assert_same_bits("z", z->data, block_logits(&t, q, 0, router_input(q, x, 2, 5))->data, 6);
    }
}

/* W_h = 0 and the update gate shut (its bias -100): h' = n = tanh(W_n u + b) */
static void a_unit_that_forgets_everything_is_one_too(void **state)
{
    (void)state;
    struct moe_spec s = spec_of("gru", 2);
    struct block b = block_make(&s, 2, BLOCK_GATED);
    struct moe_pass *p = router_pass(false);
    block_random(&b, 9, 1);
    set_all(&b, "router.weight_hh.0", 0);
    set_all(&b, "router.bias_hh.0", 0);
    block_set(&b, "router.bias_ih.0", (float[]){ 0, 0, -100, -100, .1f, .2f }, 6);
    const float x[] = { .7f, -.4f }, *w1 = block_weight(&b, "router.proj.weight.0")->master;
    const float *wi = block_weight(&b, "router.weight_ih.0")->master,
                *w2 = block_weight(&b, "router.out.weight.0")->master;
    (void)block_logits(&b, p, 0, router_input(p, (float[]){ 3, 4 }, 1, 2));
    const struct val *z = block_logits(&b, p, 0, router_input(p, x, 1, 2));
    float u[2], n[2], want[3];
    for (int i = 0; i < 2; i++) u[i] = w1[2 * i] * x[0] + w1[2 * i + 1] * x[1];
    for (int i = 0; i < 2; i++) n[i] = tanhf(wi[8 + 2 * i] * u[0] + wi[9 + 2 * i] * u[1] + .1f * (float)(i + 1));
    for (int e = 0; e < 3; e++) want[e] = w2[2 * e] * n[0] + w2[2 * e + 1] * n[1];
    assert_close("z", z->data, want, 3, 1e-6, 0);
}

/* Without a tape the state is copied where the end of the layer does not reach it. */
static void the_state_outlives_the_layer(void **state)
{
    (void)state;
    struct moe_spec s = spec_of("rnn", 2);
    struct block b = block_make(&s, 2, BLOCK_GATED);
    block_random(&b, 4, 1);
    struct moe_pass *p = router_pass(false), *q = router_pass(false);
    float room[2];
    p->carry_room = room;
    const struct arena_mark mark = arena_save(test_arena());
    (void)block_logits(&b, p, 0, router_input(p, (float[]){ 1, 2 }, 1, 2));
    arena_rewind(test_arena(), mark);
    memset(test_alloc(4096), 0xFF, 4096); /* whatever comes there next */
    assert_ptr_equal(p->carried->data, room);
    (void)block_logits(&b, q, 0, router_input(q, (float[]){ 1, 2 }, 1, 2));
    const struct val *z = block_logits(&b, p, 0, router_input(p, (float[]){ 3, 1 }, 1, 2));
    assert_same_bits("z", z->data, block_logits(&b, q, 0, router_input(q, (float[]){ 3, 1 }, 1, 2))->data, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_scalar_unit_makes_the_steps_of_the_card),
        cmocka_unit_test(tokens_keep_their_own_state),
        cmocka_unit_test(without_its_state_the_plain_cell_is_a_router_of_two_layers),
        cmocka_unit_test(a_unit_that_forgets_everything_is_one_too),
        cmocka_unit_test(the_state_outlives_the_layer),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/routers/recurrent", tests, NULL, NULL);
}
