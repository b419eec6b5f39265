/* twin_more.c — gates, columns and latent products of the FP64 twin (twin.h). */
#include "support/twin.h"

#include <math.h>

struct saved {
    struct tv *y, *a, *b;
    const float *s;
    int64_t group;
    const struct columns *piece;
    int32_t n_pieces;
    struct latent_shape shape;
};

static struct tv *note(void (*back)(void *), struct saved what)
{
    struct saved *s = test_alloc(sizeof *s);
    *s = what;
    twin_note(back, s);
    return s->y;
}

static int64_t size_of(const struct tv *v) { return v->rows * v->cols; }
static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

static void sigmoid_mul_back(void *p)
{
    const struct saved *s = p;
    for (int64_t i = 0; i < size_of(s->y); i++) {
        const double g = sigmoid(s->b->x[i]);
        s->a->g[i] += s->y->g[i] * g;
        s->b->g[i] += s->y->g[i] * s->a->x[i] * g * (1 - g);
    }
}

struct tv *twin_sigmoid_mul(struct tv *x, struct tv *g)
{
    struct tv *y = twin_zero(x->rows, x->cols);
    for (int64_t i = 0; i < size_of(y); i++) y->x[i] = x->x[i] * sigmoid(g->x[i]);
    return note(sigmoid_mul_back, (struct saved){ .y = y, .a = x, .b = g });
}

static void mul_back(void *p)
{
    const struct saved *s = p;
    for (int64_t i = 0; i < size_of(s->y); i++) {
        s->a->g[i] += s->y->g[i] * s->b->x[i];
        s->b->g[i] += s->y->g[i] * s->a->x[i];
    }
}

struct tv *twin_mul(struct tv *a, struct tv *b)
{
    struct tv *y = twin_zero(a->rows, a->cols);
    for (int64_t i = 0; i < size_of(y); i++) y->x[i] = a->x[i] * b->x[i];
    return note(mul_back, (struct saved){ .y = y, .a = a, .b = b });
}

static void add_row_back(void *p)
{
    const struct saved *s = p;
    for (int64_t i = 0; i < size_of(s->y); i++) {
        s->a->g[i] += s->y->g[i];
        s->b->g[i % s->y->cols] += s->y->g[i];
    }
}

struct tv *twin_add_row(struct tv *x, struct tv *b)
{
    struct tv *y = twin_zero(x->rows, x->cols);
    for (int64_t i = 0; i < size_of(y); i++) y->x[i] = x->x[i] + b->x[i % x->cols];
    return note(add_row_back, (struct saved){ .y = y, .a = x, .b = b });
}

static void scale_rows_back(void *p)
{
    const struct saved *s = p;
    for (int64_t i = 0; i < size_of(s->y); i++) s->a->g[i] += s->y->g[i] * (double)s->s[i / s->y->cols];
}

struct tv *twin_scale_rows(struct tv *x, const float *s)
{
    struct tv *y = twin_zero(x->rows, x->cols);
    for (int64_t i = 0; i < size_of(y); i++) y->x[i] = x->x[i] * (double)s[i / x->cols];
    return note(scale_rows_back, (struct saved){ .y = y, .a = x, .s = s });
}

/* Column of x that becomes column `to` of the result */
static int64_t source_column(const struct saved *s, int64_t to)
{
    const int64_t groups = s->a->cols / s->group;
    int32_t i = 0;
    while (to >= groups * s->piece[i].width) to -= groups * s->piece[i++].width;
    return to / s->piece[i].width * s->group + s->piece[i].from + to % s->piece[i].width;
}

static void columns_back(void *p)
{
    const struct saved *s = p;
    for (int64_t i = 0; i < size_of(s->y); i++)
        s->a->g[i / s->y->cols * s->a->cols + source_column(s, i % s->y->cols)] += s->y->g[i];
}

struct tv *twin_columns(struct tv *x, int64_t group, const struct columns *piece, int32_t n_pieces)
{
    int64_t width = 0;
    for (int32_t i = 0; i < n_pieces; i++) width += piece[i].width;
    const struct saved s = {
        .y = twin_zero(x->rows, x->cols / group * width), .a = x, .group = group, .piece = piece, .n_pieces = n_pieces
    };
    for (int64_t i = 0; i < size_of(s.y); i++)
        s.y->x[i] = x->x[i / s.y->cols * x->cols + source_column(&s, i % s.y->cols)];
    return note(columns_back, s);
}

static void join_back(void *p)
{
    const struct saved *s = p;
    for (int64_t i = 0; i < size_of(s->y); i++) {
        const int64_t t = i / s->y->cols, j = i % s->y->cols;
        if (j < s->a->cols) s->a->g[t * s->a->cols + j] += s->y->g[i];
        else s->b->g[t * s->b->cols + j - s->a->cols] += s->y->g[i];
    }
}

struct tv *twin_join(struct tv *a, struct tv *b)
{
    struct tv *y = twin_zero(a->rows, a->cols + b->cols);
    for (int64_t i = 0; i < size_of(y); i++) {
        const int64_t t = i / y->cols, j = i % y->cols;
        y->x[i] = j < a->cols ? a->x[t * a->cols + j] : b->x[t * b->cols + j - a->cols];
    }
    return note(join_back, (struct saved){ .y = y, .a = a, .b = b });
}

/* ---- latent attention: rows of kv_b are, per head, `nope` of the keys and v_dim of the values, over the rank ---- */

static void query_back(void *p)
{
    const struct saved *s = p;
    const int64_t in = s->shape.nope + s->shape.rope, out = s->shape.rope + s->shape.rank;
    for (int64_t t = 0; t < s->y->rows; t++)
        for (int64_t h = 0; h < s->shape.n_heads; h++) {
            const double *dy = s->y->g + t * s->y->cols + h * out, *q = s->a->x + t * s->a->cols + h * in;
            double *dq = s->a->g + t * s->a->cols + h * in;
            for (int64_t j = 0; j < s->shape.rope; j++) dq[s->shape.nope + j] += dy[j];
            for (int64_t i = 0; i < s->shape.nope; i++)
                for (int64_t r = 0; r < s->shape.rank; r++) {
                    const int64_t at = (h * (s->shape.nope + s->shape.v_dim) + i) * s->shape.rank + r;
                    dq[i] += dy[s->shape.rope + r] * s->b->x[at];
                    s->b->g[at] += dy[s->shape.rope + r] * q[i];
                }
        }
}

struct tv *twin_latent_query(struct tv *q, struct tv *kv_b, const struct latent_shape *s)
{
    const int64_t in = s->nope + s->rope, out = s->rope + s->rank;
    struct tv *y = twin_zero(q->rows, s->n_heads * out);
    for (int64_t t = 0; t < y->rows; t++)
        for (int64_t h = 0; h < s->n_heads; h++) {
            const double *from = q->x + t * q->cols + h * in;
            double *to = y->x + t * y->cols + h * out;
            for (int64_t j = 0; j < s->rope; j++) to[j] = from[s->nope + j];
            for (int64_t i = 0; i < s->nope; i++)
                for (int64_t r = 0; r < s->rank; r++)
                    to[s->rope + r] += from[i] * kv_b->x[(h * (s->nope + s->v_dim) + i) * s->rank + r];
        }
    return note(query_back, (struct saved){ .y = y, .a = q, .b = kv_b, .shape = *s });
}

/* Row of kv_b behind output column j of head h */
static int64_t value_row(const struct latent_shape *s, int64_t h, int64_t j)
{
    return (h * (s->nope + s->v_dim) + s->nope + j) * s->rank;
}

static void output_back(void *p)
{
    const struct saved *s = p;
    for (int64_t i = 0; i < size_of(s->y); i++) {
        const int64_t t = i / s->y->cols, h = i % s->y->cols / s->shape.v_dim, j = i % s->y->cols % s->shape.v_dim;
        for (int64_t r = 0; r < s->shape.rank; r++) {
            const int64_t o = t * s->a->cols + h * s->shape.rank + r, w = value_row(&s->shape, h, j) + r;
            s->a->g[o] += s->y->g[i] * s->b->x[w];
            s->b->g[w] += s->y->g[i] * s->a->x[o];
        }
    }
}

struct tv *twin_latent_output(struct tv *o, struct tv *kv_b, const struct latent_shape *s)
{
    struct tv *y = twin_zero(o->rows, (int64_t)s->n_heads * s->v_dim);
    for (int64_t i = 0; i < size_of(y); i++) {
        const int64_t t = i / y->cols, h = i % y->cols / s->v_dim, j = i % y->cols % s->v_dim;
        for (int64_t r = 0; r < s->rank; r++)
            y->x[i] += o->x[t * o->cols + h * s->rank + r] * kv_b->x[value_row(s, h, j) + r];
    }
    return note(output_back, (struct saved){ .y = y, .a = o, .b = kv_b, .shape = *s });
}
