/* two_layer.c — router logits through one hidden layer: z = W2 a(W1 x).
 *
 * Paper: MoE++, 2024 (card: routing.md 5): the released model's gate has 8 hidden units for each expert and a = tanh.
 * Also what a recurrent router without state is (card: routing.md 6). No biases. */
#include "moe/routers/two_layer.h"

enum { WIDTH, ACTIVATION };
enum { FC1, FC2 };
static const char *const activations[] = { "tanh", "silu", "gelu", "relu", NULL };
static const struct part_param params[] = {
    { "width", "hidden units; MoE++ has eight for each expert", NULL, 1, 65536, 64, true },
    { "activation", "of the hidden units", activations, 0, 0, 0, false },
    { 0 },
};

struct val *router_two_layer(struct nn *c, struct val *x, const struct weight *fc1, const struct weight *fc2,
                             enum router_activation a)
{
    static const enum activation act[] = {
        [ROUTER_SILU] = ACT_SILU, [ROUTER_GELU] = ACT_GELU, [ROUTER_RELU] = ACT_RELU
    };
    struct val *u = nn_linear(c, x, fc1, NULL);
    u = !u || a == ROUTER_TANH ? u : nn_act(c, act[a], u, NULL);
    return nn_linear(c, a == ROUTER_TANH && u ? nn_softcap(c, u, 1) : u, fc2, NULL);
}

static struct val *logits(const struct router_call *call)
{
    const struct weight *const *w = call->w->router_part[call->iteration];
    const enum router_activation a = (enum router_activation)call->spec->router.kind_param[ACTIVATION];
    return router_two_layer(call->pass->c, call->x, w[FC1], w[FC2], a);
}

static bool fc1_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    *rows = (int64_t)at->param[WIDTH], *cols = at->d_model;
    return true;
}

static bool fc2_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    *rows = at->spec->n_experts, *cols = (int64_t)at->param[WIDTH];
    return true;
}

static const struct part_weight weights[] = {
    { .name = "fc1.weight", .scope = PART_OF_ITERATION, .shape = fc1_shape },
    { .name = "fc2.weight", .scope = PART_OF_ITERATION, .by_expert = true, .shape = fc2_shape },
    { 0 },
};

static const struct router_part two_layer = { .logits = logits, .weights = weights };
COE_PART(router, two_layer, .summary = "one hidden layer from hidden state to expert logits", .paper = "MoE++, 2024",
         .card = "routing.md 5", .unit = "token", .params = params, .impl = &two_layer)
