/* norm.c — RMS norm (whole rows or per head) and layer norm.
 *
 * The gradient of a norm's weight is a sum over rows: rows are cut into fixed strips of 64, each strip sums its rows in
 * order, the strips are added in order. So neither threads nor their number change a bit. */
#include <string.h>

#include "nn/nn.h"

#define STRIP 64

struct norm_saved {
    struct val *x, *y;
    const struct weight *w, *b;
    float w_add;
    float *stats; /* RMS: r per group; layer norm: mean, r per row */
    bool centred;
};

static void add_strips(float *grad, const float *part, int64_t n_strips, int64_t width, int64_t offset, int64_t n)
{
    for (int64_t i = 0; i < n_strips; i++) kern->add(grad, part + i * width + offset, n);
}

static void norm_back(struct nn *c, void *p)
{
    struct norm_saved *s = p;
    if (!s->y->grad) return;
    const int64_t n = s->w->cols, groups = s->x->rows * s->x->cols / n, strips = (groups + STRIP - 1) / STRIP;
    const int64_t width = s->centred ? 2 * n : n;
    float *dx = nn_grad(c, s->x);
    if (!dx) return;
    struct arena_mark mark = arena_save(c->arena);
    float *part = NULL;
    if (s->w->grad) {
        part = arena_push_zero(c->arena, (size_t)(strips * width) * sizeof(float));
        if (!part) return;
    }
    const float *w = s->w->data;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < strips; i++) {
        float *dw = part ? part + i * width : NULL;
        for (int64_t g = i * STRIP; g < COE_MIN(groups, (i + 1) * STRIP); g++) {
            const float *dy = s->y->grad + g * n, *x = s->x->data + g * n;
            if (s->centred) kern->layernorm_back(dx + g * n, dw, dw ? dw + n : NULL, dy, x, w, s->stats + 2 * g, n);
            else kern->rmsnorm_back(dx + g * n, dw, dy, x, w, s->w_add, s->stats[g], n);
        }
    }
    if (part) {
        add_strips(s->w->grad, part, strips, width, 0, n);
        if (s->centred && s->b && s->b->grad) add_strips(s->b->grad, part, strips, width, n, n);
    }
    arena_rewind(c->arena, mark);
}

/* Norm weights are small: they are widened to F32 when the model opens, see model/bind.c. */
static struct val *norm(struct nn *c, struct val *x, const struct weight *w, const struct weight *b, float w_add,
                        float eps, bool centred)
{
    if (!x) return NULL;
    assert(w->type == DT_F32 && x->cols % w->cols == 0);
    const int64_t n = w->cols, groups = x->rows * x->cols / n;
    struct val *y = nn_val(c, x->rows, x->cols);
    float *stats = arena_push(c->arena, (size_t)(groups * (centred ? 2 : 1)) * sizeof(float));
    if (!y || !stats) return NULL;
    const float *wd = w->data, *bd = b ? b->data : NULL;
    COE_SPREAD(groups * n > 16384, for (int64_t g = 0; g < groups; g++), {
        float *out = y->data + g * n;
        const float *in = x->data + g * n;
        if (centred)
            kern->layernorm(out, in, wd, bd, n, eps, stats + 2 * g);
        else
            stats[g] = kern->rmsnorm(out, in, wd, w_add, n, eps);
    });
    if (!c->tape) return y;
    struct norm_saved *s = arena_push(c->arena, sizeof *s);
    if (!s) return NULL;
    *s = (struct norm_saved){ x, y, w, b, w_add, stats, centred };
    return nn_record(c, norm_back, s) ? y : NULL;
}

struct val *nn_rmsnorm(struct nn *c, struct val *x, const struct weight *w, float w_add, float eps)
{
    return norm(c, x, w, NULL, w_add, eps, false);
}

struct val *nn_layernorm(struct nn *c, struct val *x, const struct weight *w, const struct weight *b, float eps)
{
    return norm(c, x, w, b, 0, eps, true);
}
