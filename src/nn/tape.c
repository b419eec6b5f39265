/* tape.c — activations, their gradients, and the list of backward steps. */
#include <string.h>

#include "nn/nn.h"

struct val *nn_wrap(struct nn *c, float *data, int64_t rows, int64_t cols)
{
    struct val *v = arena_push(c->arena, sizeof *v);
    if (v) *v = (struct val){ .data = data, .rows = rows, .cols = cols };
    return v;
}

struct val *nn_val(struct nn *c, int64_t rows, int64_t cols)
{
    float *data = arena_push(c->arena, (size_t)(rows * cols) * sizeof(float));
    return data ? nn_wrap(c, data, rows, cols) : NULL;
}

bool nn_record(struct nn *c, void (*back)(struct nn *, void *), void *saved)
{
    if (!c->tape) return true;
    struct tape_op *op = arena_push(c->arena, sizeof *op);
    if (!op) return false;
    *op = (struct tape_op){ back, saved, c->tape->last };
    c->tape->last = op;
    return true;
}

float *nn_grad_raw(struct nn *c, struct val *v, bool *fresh)
{
    *fresh = !v->grad;
    if (!v->grad) v->grad = arena_push(c->arena, (size_t)(v->rows * v->cols) * sizeof(float));
    return v->grad;
}

#define STRIP ((int64_t)16384)

static void clear(float *x, int64_t n)
{
    COE_SPREAD(n > 4 * STRIP, for (int64_t i = 0; i < n; i += STRIP),
               memset(x + i, 0, (size_t)COE_MIN(STRIP, n - i) * sizeof *x));
}

float *nn_grad(struct nn *c, struct val *v)
{
    bool fresh;
    float *g = nn_grad_raw(c, v, &fresh);
    if (g && fresh) clear(g, v->rows * v->cols);
    return g;
}

coe_status nn_backward(struct nn *c)
{
    coe_clear_error();
    for (struct tape_op *op = c->tape->last; op; op = op->before) {
        op->back(c, op->saved);
        if (coe_error()[0]) return coe_last_status();
    }
    c->tape->last = NULL;
    return COE_OK;
}
