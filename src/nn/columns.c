/* columns.c — taking columns out of rows and putting rows side by side: what one projection computes for several uses.
 */
#include <string.h>

#include "nn/nn.h"

struct columns_saved {
    struct val *x, *y;
    int64_t group;
    struct columns *piece;
    int32_t n_pieces;
};

/* Calls for every piece of every row: `y` columns at `to` are `x` columns at `from`. */
static void move(const struct columns_saved *s, float *y, float *x, bool back)
{
    const int64_t groups = s->x->cols / s->group;
    COE_SPREAD(s->x->rows > 16, for (int64_t t = 0; t < s->x->rows; t++), {
        float *out = y + t * s->y->cols;
        for (int32_t i = 0; i < s->n_pieces; i++)
            for (int64_t g = 0; g < groups; g++, out += s->piece[i].width) {
                float *in = x + t * s->x->cols + g * s->group + s->piece[i].from;
                if (back)
                    kern->add(in, out, s->piece[i].width);
                else
                    memcpy(out, in, (size_t)s->piece[i].width * sizeof(float));
            }
    });
}

static void columns_back(struct nn *c, void *p)
{
    struct columns_saved *s = p;
    float *dx = s->y->grad ? nn_grad(c, s->x) : NULL;
    if (dx) move(s, s->y->grad, dx, true);
}

struct val *nn_columns(struct nn *c, struct val *x, int64_t group, const struct columns *piece, int32_t n_pieces)
{
    if (!x) return NULL;
    assert(x->cols % group == 0);
    int64_t width = 0;
    for (int32_t i = 0; i < n_pieces; i++) width += piece[i].width;
    struct columns_saved *s = arena_push(c->arena, sizeof *s);
    struct columns *kept = arena_push(c->arena, (size_t)n_pieces * sizeof *kept);
    struct val *y = nn_val(c, x->rows, x->cols / group * width);
    if (!s || !kept || !y) return NULL;
    memcpy(kept, piece, (size_t)n_pieces * sizeof *kept);
    *s = (struct columns_saved){ x, y, group, kept, n_pieces };
    move(s, y->data, x->data, false);
    return nn_record(c, columns_back, s) ? y : NULL;
}

struct join_saved {
    struct val *a, *b, *y;
};

static void join_back(struct nn *c, void *p)
{
    struct join_saved *s = p;
    if (!s->y->grad) return;
    float *da = nn_grad(c, s->a), *db = nn_grad(c, s->b);
    for (int64_t t = 0; da && db && t < s->y->rows; t++) {
        const float *dy = s->y->grad + t * s->y->cols;
        kern->add(da + t * s->a->cols, dy, s->a->cols);
        kern->add(db + t * s->b->cols, dy + s->a->cols, s->b->cols);
    }
}

struct val *nn_join(struct nn *c, struct val *a, struct val *b)
{
    if (!a || !b) return NULL;
    assert(a->rows == b->rows);
    struct join_saved *s = arena_push(c->arena, sizeof *s);
    struct val *y = nn_val(c, a->rows, a->cols + b->cols);
    if (!s || !y) return NULL;
    *s = (struct join_saved){ a, b, y };
    for (int64_t t = 0; t < y->rows; t++) {
        memcpy(y->data + t * y->cols, a->data + t * a->cols, (size_t)a->cols * sizeof(float));
        memcpy(y->data + t * y->cols + a->cols, b->data + t * b->cols, (size_t)b->cols * sizeof(float));
    }
    return nn_record(c, join_back, s) ? y : NULL;
}
