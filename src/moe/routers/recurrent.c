/* recurrent.c — see recurrent.h. The state goes from each routing decision of a token to its next one, through the
 * passes of a chain and the layers, never along the text: decoding needs no cache for it. */
#include <string.h>

#include "moe/routers/recurrent.h"

const struct part_param recurrent_params[] = {
    { "width", "of the state", NULL, 1, 65536, 256, true },
    { 0 },
};

static bool proj_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    *rows = (int64_t)at->param[0], *cols = at->d_model;
    return true;
}

static bool out_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    *rows = at->spec->n_experts, *cols = (int64_t)at->param[0];
    return true;
}

static int64_t gates_of(const struct part_at *at) { return strcmp(at->spec->router.kind, "gru") ? 1 : 3; }

static bool matrix_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    *cols = (int64_t)at->param[0], *rows = gates_of(at) * *cols;
    return true;
}

static bool bias_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    *rows = 1, *cols = gates_of(at) * (int64_t)at->param[0];
    return true;
}

const struct part_weight recurrent_weights[] = {
    { .name = "proj.weight", .scope = PART_OF_ITERATION, .shape = proj_shape },
    { .name = "out.weight", .scope = PART_OF_ITERATION, .by_expert = true, .shape = out_shape },
    { .name = "weight_ih", .init = INIT_ORTHOGONAL, .shape = matrix_shape },
    { .name = "weight_hh", .init = INIT_ORTHOGONAL, .shape = matrix_shape },
    { .name = "bias_ih", .vector = true, .init = INIT_ZERO, .shape = bias_shape },
    { .name = "bias_hh", .vector = true, .init = INIT_ZERO, .shape = bias_shape },
    { 0 },
};

int64_t recurrent_carries(const struct moe_spec *m, int64_t d_model)
{
    (void)d_model;
    return (int64_t)m->router.kind_param[0];
}

static struct val *no_state(struct nn *c, int64_t rows, int64_t cols)
{
    struct val *h = nn_val(c, rows, cols);
    if (h) memset(h->data, 0, (size_t)(rows * cols) * sizeof(float));
    return h;
}

struct val *recurrent_logits(const struct router_call *call,
                             struct val *(*cell)(struct nn *c, struct val *u, struct val *h,
                                                 const struct weight *const *w))
{
    struct nn *c = call->pass->c;
    const struct weight *const *w = call->w->router_part[call->iteration];
    struct val *u = nn_linear(c, call->x, w[RECURRENT_PROJ], NULL);
    if (!u) return NULL;
    struct val *h = call->pass->carried ? call->pass->carried : no_state(c, u->rows, u->cols);
    h = h ? cell(c, u, h, w + RECURRENT_CELL) : NULL;
    struct val *z = nn_linear(c, h, w[RECURRENT_OUT], NULL);
    return moe_carry(call->pass, h) ? z : NULL;
}
