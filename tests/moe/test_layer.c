/* The MoE layer: chain, residual modes, shared expert, masks, and the worked numbers of the cards. */
#include "support/block.h"

#include <math.h>
#include <string.h>

static struct moe_spec spec_of(int32_t experts, int32_t ffn, int32_t k, int32_t iterations, enum residual_mode residual)
{
    struct moe_spec s = moe_spec_default();
    s.n_experts = experts;
    s.expert_ffn = ffn;
    s.router.top_k = k;
    s.chain.n_iterations = iterations;
    s.chain.residual = residual;
    return s;
}

static struct nn no_tape(void) { return (struct nn){ .arena = test_arena() }; }

static struct val *input(struct nn *c, const float *x, int64_t rows, int64_t cols)
{
    float *copy = test_alloc((size_t)(rows * cols) * sizeof *copy);
    memcpy(copy, x, (size_t)(rows * cols) * sizeof *copy);
    return nn_wrap(c, copy, rows, cols);
}

/* ---- Chain-of-Experts by hand (card 1) ---- */

/* relu(v) - relu(-v) = v: an ungated expert of width 4 that returns (x_a, x_b) exactly. */
static void set_permutation(const struct block *b, int32_t e, int a, int c)
{
    float in[8] = { 0 }, out[8] = { 0 };
    in[a] = in[2 + c] = 1, in[4 + a] = in[6 + c] = -1; /* rows x_a, x_c, -x_a, -x_c */
    out[0] = out[4 + 1] = 1, out[2] = out[4 + 3] = -1; /* (h0 - h2, h1 - h3) */
    memcpy(b->gate[e]->master, in, sizeof in);
    memcpy(b->down[e]->master, out, sizeof out);
}

/* E_1(x) = x, E_2(x) = (x2, x1); W0 = identity, W1 = the exchange unless the gate is shared */
static struct block card_block(enum residual_mode residual, bool shared_gate)
{
    struct moe_spec s = spec_of(2, 4, 1, 2, residual);
    s.act = ACT_RELU;
    s.chain.shared_gate = shared_gate;
    struct block b = block_make(&s, 2, BLOCK_UNGATED);
    set_permutation(&b, 0, 0, 1);
    set_permutation(&b, 1, 1, 0);
    block_set(&b, "router.0", (float[]){ 1, 0, 0, 1 }, 4);
    if (!shared_gate) block_set(&b, "router.1", (float[]){ 0, 1, 1, 0 }, 4);
    return b;
}

/* it 0: softmax(1, 0) = (.731059 .268941), expert 1: x_1 = (1.731059, 0). it 1: logits (0, 1.731059), softmax (.150452
 * .849548), expert 2: x_2 = (1.731059, 1.470617). */
static void the_chain_of_the_card_by_hand(void **state)
{
    (void)state;
    struct block b = card_block(RESIDUAL_INNER, false);
    struct nn c = no_tape();
    struct block_run run = { 0 };
    const struct val *y = block_forward(&b, &c, NULL, input(&c, (float[]){ 1, 0 }, 1, 2), &run);
    assert_close("x_2", y->data, (float[]){ 1.731059f, 1.470617f }, 2, 1e-6, 0);
    assert_int_equal(run.n_records, 2);
    assert_close("scores 0", run.records[0]->p, (float[]){ .731059f, .268941f }, 2, 1e-6, 0);
    assert_close("scores 1", run.records[1]->p, (float[]){ .150452f, .849548f }, 2, 1e-6, 0);
    assert_int_equal(run.records[0]->iteration, 0);
    assert_int_equal(run.records[1]->iteration, 1);
}

/* One router for both passes: softmax(1.731059, 0) chooses expert 1 again, x_2 = (3.201676, 0). */
static void a_shared_gate_routes_every_pass_alike(void **state)
{
    (void)state;
    struct block b = card_block(RESIDUAL_INNER, true);
    struct nn c = no_tape();
    const struct val *y = block_forward(&b, &c, NULL, input(&c, (float[]){ 1, 0 }, 1, 2), NULL);
    assert_close("x_2", y->data, (float[]){ 3.201676f, 0 }, 2, 1e-6, 0);
}

/* x_0 = (1, 0), h = (10, 20). y_0 = (.731059, 0).
 * without the inner residual x_1 = y_0: logits of pass 1 (0, .731059), softmax (.324962 .675038): y_1 = (0, .493492)
 *   neither: x_2 = (0, .493492);            outer: h + x_2 = (10, 20.493492)
 * with it x_1 = (1.731059, 0), y_1 = (0, 1.470617)
 *   inner: x_2 = (1.731059, 1.470617)       both: (11.731059, 21.470617)
 *   prenorm: h + y_0 + y_1 = (10.731059, 21.470617) */
static void residual_modes_by_hand(void **state)
{
    (void)state;
    const struct {
        enum residual_mode mode;
        float want[2];
    } cases[] = { { RESIDUAL_NEITHER, { 0, .493492f } },
                  { RESIDUAL_OUTER, { 10, 20.493492f } },
                  { RESIDUAL_INNER, { 1.731059f, 1.470617f } },
                  { RESIDUAL_BOTH, { 11.731059f, 21.470617f } },
                  { RESIDUAL_PRENORM, { 10.731059f, 21.470617f } } };
    for (size_t i = 0; i < COE_COUNT(cases); i++) {
        struct block b = card_block(cases[i].mode, false);
        struct nn c = no_tape();
        const struct val *y = block_forward(&b, &c, input(&c, (float[]){ 10, 20 }, 1, 2),
                                            input(&c, (float[]){ 1, 0 }, 1, 2), NULL);
        assert_close(residual_name[cases[i].mode], y->data, cases[i].want, 2, 2e-6, 0);
    }
}

/* K = E, one gate, experts that return x: every pass multiplies by 1 + Σ g = 1 + scale. */
static void identity_experts_grow_by_a_power(void **state)
{
    (void)state;
    struct moe_spec s = spec_of(3, 4, 3, 5, RESIDUAL_INNER);
    s.act = ACT_RELU;
    s.chain.shared_gate = true;
    s.router.scale = .5f;
    struct block b = block_make(&s, 2, BLOCK_UNGATED);
    for (int32_t e = 0; e < 3; e++) set_permutation(&b, e, 0, 1);
    memcpy(block_weight(&b, "router.0")->master, random_floats(4, 6, 1), 6 * sizeof(float));
    struct nn c = no_tape();
    struct block_run run = { 0 };
    const struct val *y = block_forward(&b, &c, NULL, input(&c, (float[]){ .3f, -.7f }, 1, 2), &run);
    const float f = powf(1.5f, 5);
    assert_close("x_5", y->data, (float[]){ .3f * f, -.7f * f }, 2, 0, 2e-6);
    assert_int_equal(run.n_records, 5);
}

/* ---- limits of the chain, bit for bit ---- */

static struct val *run_block(struct block *b, struct nn *c, const float *h, const float *x, int64_t n)
{
    return block_forward(b, c, input(c, h, n, b->d), input(c, x, n, b->d), NULL);
}

static void copy_weights(struct block *to, const struct block *from)
{
    for (size_t i = 0; i < from->n; i++)
        block_set(to, from->list[i]->name, from->list[i]->master, weight_count(from->list[i]));
}

/* Card 1: sigmoid gates at zero in the second pass leave what the first made. */
static void a_second_pass_without_weight_is_no_pass(void **state)
{
    (void)state;
    for (int residual = 0; residual < 2; residual++) {
        struct moe_spec two = spec_of(3, 5, 2, 2, residual ? RESIDUAL_INNER : RESIDUAL_PRENORM);
        two.router.score = SCORE_SIGMOID;
        two.router.bias = true;
        struct moe_spec one = two;
        one.chain.n_iterations = 1;
        struct block b = block_make(&two, 4, BLOCK_GATED), a = block_make(&one, 4, BLOCK_GATED);
        block_random(&b, 3, 1);
        block_set(&b, "router_bias.1", (float[]){ -1e4f, -1e4f, -1e4f }, 3);
        for (size_t i = 0; i < a.n; i++)
            block_set(&a, a.list[i]->name, block_weight(&b, "%s", a.list[i]->name)->master, weight_count(a.list[i]));
        struct nn c = no_tape();
        const float *h = random_floats(1, 5 * 4, 1), *x = random_floats(2, 5 * 4, 1);
        const struct val *want = block_forward(&a, &c, input(&c, h, 5, 4), input(&c, x, 5, 4), NULL);
        const struct val *got = block_forward(&b, &c, input(&c, h, 5, 4), input(&c, x, 5, 4), NULL);
        assert_close("output", got->data, want->data, 5 * 4, 1e-30, 0);
    }
}

/* A prenorm chain of one pass: h + Σ g E(x_0), formed here from the route and one dense expert after the other. */
static void a_chain_of_one_is_the_ordinary_layer(void **state)
{
    (void)state;
    const struct moe_spec s = spec_of(5, 6, 2, 1, RESIDUAL_PRENORM);
    struct block b = block_make(&s, 8, BLOCK_GATED);
    block_random(&b, 5, 1);
    const float *h = random_floats(6, 12 * 8, 1), *x = random_floats(7, 12 * 8, 1);
    struct nn c = no_tape();
    struct block_run run = { 0 };
    const struct val *y = block_forward(&b, &c, input(&c, h, 12, 8), input(&c, x, 12, 8), &run);
    const struct route *r = &run.records[0]->route;
    float *want = test_alloc(12 * 8 * sizeof *want);
    for (int32_t e = 0; e < 5; e++) { /* ascending experts: the order of the definition */
        struct val *u = nn_act(&c, ACT_SILU, nn_linear(&c, input(&c, x, 12, 8), b.gate[e], NULL),
                               nn_linear(&c, input(&c, x, 12, 8), b.up[e], NULL));
        const struct val *out = nn_linear(&c, u, b.down[e], NULL);
        for (int32_t i = 0; i < r->n_slots; i++)
            if (r->expert[i] == e)
                for (int j = 0; j < 8; j++)
                    want[i / 2 * 8 + j] = fmaf(r->weight[i], out->data[i / 2 * 8 + j], want[i / 2 * 8 + j]);
    }
    for (int i = 0; i < 12 * 8; i++) want[i] = h[i] + want[i];
    assert_same_bits("layer", y->data, want, 12 * 8);
}

/* coe_weight = 0: the converted layer (the router twice) puts out the bits of the original, taped or not. */
static void a_learned_weight_of_zero_changes_nothing(void **state)
{
    (void)state;
    struct moe_spec plain = spec_of(6, 4, 2, 1, RESIDUAL_PRENORM), chain = spec_of(6, 4, 2, 3, RESIDUAL_PRENORM);
    plain.shared_ffn = chain.shared_ffn = 5;
    chain.chain.learned_weight = true;
    struct block a = block_make(&plain, 8, BLOCK_GATED), b = block_make(&chain, 8, BLOCK_GATED);
    block_random(&a, 8, 1);
    copy_weights(&b, &a);
    block_set(&b, "router.1", a.list[0]->master, 48);
    block_set(&b, "router.2", a.list[0]->master, 48);
    const float *h = random_floats(9, 80, 1), *x = random_floats(10, 80, 1);
    struct tape tape = { 0 };
    struct nn c = no_tape(), taped = { .arena = test_arena(), .tape = &tape };
    const struct val *want = run_block(&a, &c, h, x, 10);
    assert_same_bits("without a tape", run_block(&b, &c, h, x, 10)->data, want->data, 80);
    assert_same_bits("with a tape", run_block(&b, &taped, h, x, 10)->data, want->data, 80);
}

/* Trained coe_weight: the tape must not change what the forward pass computes. */
static void a_tape_does_not_change_the_result(void **state)
{
    (void)state;
    for (int mode = 0; mode < 5; mode++) {
        struct moe_spec s = spec_of(6, 4, 2, 3, (enum residual_mode)mode);
        s.shared_ffn = 5;
        s.shared_gate = true;
        s.chain.learned_weight = mode == RESIDUAL_PRENORM;
        struct block b = block_make(&s, 8, BLOCK_GATED);
        block_random(&b, 11, 1);
        const float *h = random_floats(12, 80, 1), *x = random_floats(13, 80, 1);
        struct tape tape = { 0 };
        struct nn c = no_tape(), taped = { .arena = test_arena(), .tape = &tape };
        const struct val *want = run_block(&b, &c, h, x, 10);
        assert_same_bits(residual_name[mode], run_block(&b, &taped, h, x, 10)->data, want->data, 80);
    }
}

/* Masking an expert in every pass = a layer that does not have it; k stays within what is left. */
static void a_masked_layer_equals_the_layer_without_the_expert(void **state)
{
    (void)state;
    struct moe_spec s = spec_of(6, 4, 3, 2, RESIDUAL_PRENORM);
    s.router.renormalize = true;
    struct block whole = block_make(&s, 8, BLOCK_GATED);
    block_random(&whole, 14, 1);
    s.n_experts = 5;
    struct block pruned = block_make(&s, 8, BLOCK_GATED);
    for (int32_t e = 0; e < 5; e++) {
        const int32_t from = e + (e >= 2);
        block_set(&pruned, pruned.gate[e]->name, whole.gate[from]->master, 32);
        block_set(&pruned, pruned.up[e]->name, whole.up[from]->master, 32);
        block_set(&pruned, pruned.down[e]->name, whole.down[from]->master, 32);
        for (int t = 0; t < 2; t++)
            memcpy(block_weight(&pruned, "router.%d", t)->master + e * 8,
                   block_weight(&whole, "router.%d", t)->master + from * 8, 8 * sizeof(float));
    }
    const uint8_t keep[] = { 1, 1, 0, 1, 1, 1 };
    const struct route_hook hook = { keep, 5 };
    struct block_run run = { .hook = &hook };
    struct nn c = no_tape();
    const float *x = random_floats(15, 160, 1);
    const struct val *masked = block_forward(&whole, &c, input(&c, x, 20, 8), input(&c, x, 20, 8), &run);
    assert_same_bits("layer", masked->data, run_block(&pruned, &c, x, x, 20)->data, 160);
}

static void all_tokens_to_one_expert_and_the_others_empty(void **state)
{
    (void)state;
    const struct moe_spec s = spec_of(4, 3, 1, 1, RESIDUAL_PRENORM);
    struct block b = block_make(&s, 8, BLOCK_GATED);
    block_random(&b, 16, 1);
    float router[32] = { 0 };
    for (int j = 0; j < 8; j++) router[2 * 8 + j] = 10; /* expert 2 wins wherever Σ x > 0 */
    block_set(&b, "router.0", router, 32);
    float x[40];
    for (int i = 0; i < 40; i++) x[i] = 1 + (float)i / 40;
    struct tape tape = { 0 };
    struct nn c = { .arena = test_arena(), .tape = &tape };
    struct block_run run = { 0 };
    struct val *y = block_forward(&b, &c, NULL, input(&c, x, 5, 8), &run);
    assert_int_equal(route_count(&run.records[0]->route, 2), 5);
    y->grad = random_floats(17, 40, 1);
    assert_ok(nn_backward(&c));
    for (int32_t e = 0; e < 4; e++)
        for (int i = 0; i < 24; i++) assert_true(e == 2 ? isfinite(b.gate[e]->grad[i]) : b.gate[e]->grad[i] == 0);
}

static int32_t seen_outputs;

/* Rows of the observer: weighted and summed they are the layer's increment. */
static void see(void *user, const struct route_record *r, const struct val *x, const float *y)
{
    float *sum = user;
    for (int32_t row = 0; row < r->route.n_slots; row++)
        for (int64_t j = 0; j < x->cols; j++)
            sum[r->route.row_token[row] * x->cols + j] = fmaf(r->route.weight[r->route.row_slot[row]],
                                                              y[row * x->cols + j],
                                                              sum[r->route.row_token[row] * x->cols + j]);
    seen_outputs++;
}

static void observed_outputs_add_up_to_the_layer(void **state)
{
    (void)state;
    const struct moe_spec s = spec_of(4, 3, 2, 1, RESIDUAL_PRENORM);
    struct block b = block_make(&s, 8, BLOCK_GATED);
    block_random(&b, 18, 1);
    float *sum = test_alloc(48 * sizeof *sum);
    const struct moe_observer o = { .user = sum, .outputs = see };
    struct block_run run = { .observer = &o };
    struct nn c = no_tape();
    const struct val *y = block_forward(&b, &c, NULL, input(&c, random_floats(19, 48, 1), 6, 8), &run);
    assert_int_equal(seen_outputs, 1);
    assert_same_bits("sum of the rows", sum, y->data, 48);
}

/* ---- the worked example of systems.md, part D: x = 1, Wr = (1 0 -1), k = 2, W1 = (1 2 1), W3 = 1, W2 = (1 -1 1) ----
 */

struct tiny {
    struct block b;
    struct val *x;
    struct block_run run;
    float out;
};

static struct tiny run_tiny(bool renormalize, double aux, double z_loss)
{
    struct moe_spec s = spec_of(3, 1, 2, 1, RESIDUAL_PRENORM);
    s.router.renormalize = renormalize;
    if (aux > 0) s.loss[s.n_losses++] = (struct loss_spec){ "assign", aux };
    if (z_loss > 0) s.loss[s.n_losses++] = (struct loss_spec){ "z", z_loss };
    struct tiny o = { .b = block_make(&s, 1, BLOCK_GATED) };
    block_set(&o.b, "router.0", (float[]){ 1, 0, -1 }, 3);
    for (int e = 0; e < 3; e++) {
        o.b.gate[e]->master[0] = e == 1 ? 2 : 1;
        o.b.up[e]->master[0] = 1;
        o.b.down[e]->master[0] = e == 1 ? -1 : 1;
    }
    static struct tape tape;
    static struct nn c;
    tape = (struct tape){ 0 };
    c = (struct nn){ .arena = test_arena(), .tape = &tape };
    o.x = input(&c, (float[]){ 1 }, 1, 1);
    struct val *y = block_forward(&o.b, &c, NULL, o.x, &o.run);
    o.out = y->data[0];
    y->grad = random_floats(0, 1, 0);
    y->grad[0] = 1;
    const int32_t off[] = { 0, 1 };
    const struct attn_batch batch = { 1, off, NULL, NULL };
    const struct loss_call call = { .c = &c, .records = o.run.records, .n_records = 1, .batch = &batch, .scale = 1 };
    double total;
    assert_ok(moe_losses(&call, &total, NULL));
    assert_ok(nn_backward(&c));
    return o;
}

static void assert_gradients(const struct tiny *o, float dx, const float *dr, const float *d1, const float *d3,
                             const float *d2)
{
    assert_close("dX", o->x->grad, &dx, 1, 2e-6, 0);
    assert_close("dWr", block_weight(&o->b, "router.0")->grad, dr, 3, 2e-6, 0);
    for (int e = 0; e < 3; e++) {
        assert_close("dW1", o->b.gate[e]->grad, &d1[e], 1, 2e-6, 0);
        assert_close("dW3", o->b.up[e]->grad, &d3[e], 1, 2e-6, 0);
        assert_close("dW2", o->b.down[e]->grad, &d2[e], 1, 2e-6, 0);
    }
}

static void mode_a_softmax_without_renormalising(void **state)
{
    (void)state;
    const struct tiny o = run_tiny(false, 0, 0);
    assert_near("O", (double)o.out, .055218, 1e-6);
    assert_close("p", o.run.records[0]->p, (float[]){ .665241f, .244728f, .090031f }, 3, 1e-6, 0);
    assert_gradients(&o, .593019f, (float[]){ .449597f, -.444626f, -.004971f }, (float[]){ .617124f, -.266946f, 0 },
                     (float[]){ .486330f, -.431112f, 0 }, (float[]){ .486330f, .431112f, 0 });
    const float *dz = o.run.records[0]->z->grad;
    assert_near("sum of dz", (double)(dz[0] + dz[1] + dz[2]), 0, 1e-6);
}

static void mode_b_renormalised_over_the_chosen(void **state)
{
    (void)state;
    const struct tiny o = run_tiny(true, 0, 0);
    assert_near("O", (double)o.out, .060681, 1e-6);
    assert_close("g", o.run.records[0]->route.weight, (float[]){ .731059f, .268941f }, 2, 1e-6, 0);
    assert_gradients(&o, .642234f, (float[]){ .490085f, -.490085f, 0 }, (float[]){ .678181f, -.293357f, 0 },
                     (float[]){ .534447f, -.473766f, 0 }, (float[]){ .534447f, .473766f, 0 });
}

/* dz of the losses is what is added to mode A's: dWr = dz because x = 1. */
static void auxiliary_and_z_loss_by_hand(void **state)
{
    (void)state;
    const struct tiny o = run_tiny(false, .01, .001);
    assert_close("dz of both losses", o.run.records[0]->dz,
                 (float[]){ .00089838f + .00187279f, .0003305f + .00068896f, -.00122888f + .00025346f }, 3, 1e-7, 0);
    assert_close("dWr", block_weight(&o.b, "router.0")->grad,
                 (float[]){ .449597f + .00277117f, -.444626f + .00101946f, -.004971f - .00097542f }, 3, 2e-6, 0);
}

/* Renormalised top-1: the weight is 1 whatever the logits, the router learns nothing from the task. */
static void a_renormalised_single_choice_gives_the_router_no_gradient(void **state)
{
    (void)state;
    struct moe_spec s = spec_of(4, 3, 1, 1, RESIDUAL_PRENORM);
    s.router.renormalize = true;
    struct block b = block_make(&s, 8, BLOCK_GATED);
    block_random(&b, 20, 1);
    struct tape tape = { 0 };
    struct nn c = { .arena = test_arena(), .tape = &tape };
    struct val *y = block_forward(&b, &c, NULL, input(&c, random_floats(21, 80, 1), 10, 8), NULL);
    y->grad = random_floats(22, 80, 1);
    assert_ok(nn_backward(&c));
    for (int i = 0; i < 32; i++) assert_true(block_weight(&b, "router.0")->grad[i] == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_chain_of_the_card_by_hand),
        cmocka_unit_test(a_shared_gate_routes_every_pass_alike),
        cmocka_unit_test(residual_modes_by_hand),
        cmocka_unit_test(identity_experts_grow_by_a_power),
        cmocka_unit_test(a_second_pass_without_weight_is_no_pass),
        cmocka_unit_test(a_chain_of_one_is_the_ordinary_layer),
        cmocka_unit_test(a_learned_weight_of_zero_changes_nothing),
        cmocka_unit_test(a_tape_does_not_change_the_result),
        cmocka_unit_test(a_masked_layer_equals_the_layer_without_the_expert),
        cmocka_unit_test(all_tokens_to_one_expert_and_the_others_empty),
        cmocka_unit_test(observed_outputs_add_up_to_the_layer),
        cmocka_unit_test(mode_a_softmax_without_renormalising),
        cmocka_unit_test(mode_b_renormalised_over_the_chosen),
        cmocka_unit_test(auxiliary_and_z_loss_by_hand),
        cmocka_unit_test(a_renormalised_single_choice_gives_the_router_no_gradient),
    };
    return kernels_init() || cmocka_run_group_tests_name("moe/layer", tests, NULL, NULL);
}
