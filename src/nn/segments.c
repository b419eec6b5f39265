/* segments.c — tokens laid side by side: rows of a sequence that become one row of a segment, and come apart again. */
#include <string.h>

#include "nn/nn.h"

struct segments_saved {
    struct val *x, *y;
    const int32_t *place;
    int64_t n, width;
};

static bool keep(struct nn *c, void (*back)(struct nn *, void *), struct segments_saved s)
{
    struct segments_saved *kept = arena_push(c->arena, sizeof *kept);
    if (!kept) return false;
    *kept = s;
    return nn_record(c, back, kept);
}

static void fold_back(struct nn *c, void *saved)
{
    const struct segments_saved *s = saved;
    const int64_t d = s->x->cols;
    float *dx = s->y->grad ? nn_grad(c, s->x) : NULL;
    if (!dx) return;
    COE_SPREAD(s->n * d > NN_ALONE_BELOW, for (int64_t t = 0; t < s->n; t++),
               if (s->place[t] >= 0) kern->add(dx + t * d, s->y->grad + s->place[t] * d, d));
}

struct val *nn_fold(struct nn *c, struct val *x, const int32_t *place, int64_t segments, int64_t width)
{
    struct val *y = x ? nn_val(c, segments, width * x->cols) : NULL;
    if (!y) return NULL;
    const int64_t d = x->cols;
    const bool many = x->rows * d > NN_ALONE_BELOW;
    COE_SPREAD(many, for (int64_t s = 0; s < segments; s++),
               memset(y->data + s * y->cols, 0, (size_t)y->cols * sizeof(float)));
    COE_SPREAD(many, for (int64_t t = 0; t < x->rows; t++),
               if (place[t] >= 0) memcpy(y->data + place[t] * d, x->data + t * d, (size_t)d * sizeof(float)));
    return keep(c, fold_back, (struct segments_saved){ x, y, place, x->rows, width }) ? y : NULL;
}

static void unfold_back(struct nn *c, void *saved)
{
    const struct segments_saved *s = saved;
    const int64_t d = s->y->cols;
    float *dx = s->y->grad ? nn_grad(c, s->x) : NULL;
    if (!dx) return;
    COE_SPREAD(s->n * d > NN_ALONE_BELOW, for (int64_t t = 0; t < s->n; t++),
               kern->add(dx + s->place[t] * d, s->y->grad + t * d, d));
}

struct val *nn_unfold(struct nn *c, struct val *x, const int32_t *place, int64_t n, int64_t width)
{
    struct val *y = x ? nn_val(c, n, x->cols / width) : NULL;
    if (!y) return NULL;
    COE_SPREAD(n * y->cols > NN_ALONE_BELOW, for (int64_t t = 0; t < n; t++),
               memcpy(y->data + t * y->cols, x->data + place[t] * y->cols, (size_t)y->cols * sizeof(float)));
    return keep(c, unfold_back, (struct segments_saved){ x, y, place, n, width }) ? y : NULL;
}

static void spread_back(struct nn *c, void *saved)
{
    const struct segments_saved *s = saved;
    const int64_t e = s->y->cols;
    float *dx = s->y->grad ? nn_grad(c, s->x) : NULL;
    for (int64_t t = 0; dx && t < s->n; t++) kern->add(dx + s->place[t] / s->width * e, s->y->grad + t * e, e);
}

struct val *nn_spread(struct nn *c, struct val *x, const int32_t *place, int64_t n, int64_t width)
{
    struct val *y = x ? nn_val(c, n, x->cols) : NULL;
    if (!y) return NULL;
    for (int64_t t = 0; t < n; t++)
        memcpy(y->data + t * x->cols, x->data + place[t] / width * x->cols, (size_t)x->cols * sizeof(float));
    return keep(c, spread_back, (struct segments_saved){ x, y, place, n, width }) ? y : NULL;
}
