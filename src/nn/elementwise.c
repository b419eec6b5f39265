/* elementwise.c — activations, sums, scaling, clamping, gating, dropout. Work is cut into fixed strips of elements;
 * where a sum crosses elements (the gradient of a scalar) the strips are added in order. */
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "nn/nn.h"

#define STRIP 4096
#define EACH_STRIP(i, from, count, n, ...)                                                \
    COE_SPREAD((n) > 4 * STRIP, for (int64_t i = 0; i < ((n) + STRIP - 1) / STRIP; i++),  \
               const int64_t from = i * STRIP, count = COE_MIN((int64_t)STRIP, (n) - from); \
               __VA_ARGS__)

static int64_t size_of(const struct val *v) { return v->rows * v->cols; }

struct binary_saved {
    struct val *a, *b, *y;
    const struct weight *w;
    float s;
    enum activation act;
};

static bool save(struct nn *c, void (*back)(struct nn *, void *), struct binary_saved what)
{
    if (!c->tape) return true;
    struct binary_saved *s = arena_push(c->arena, sizeof *s);
    if (!s) return false;
    *s = what;
    return nn_record(c, back, s);
}

static void act_back(struct nn *c, void *p)
{
    struct binary_saved *s = p;
    if (!s->y->grad) return;
    const int64_t n = size_of(s->y);
    /* both gradients are made here and nowhere else before: gate and up have one consumer in every layer; should one
     * have more, the sums go through scratch */
    bool fresh_a, fresh_b = true;
    float *da = nn_grad_raw(c, s->a, &fresh_a), *db = s->b ? nn_grad_raw(c, s->b, &fresh_b) : NULL;
    if (!da || (s->b && !db)) return;
    struct arena_mark mark = arena_save(c->arena);
    float *ta = fresh_a ? da : arena_push(c->arena, (size_t)n * sizeof(float));
    float *tb = !s->b || fresh_b ? db : arena_push(c->arena, (size_t)n * sizeof(float));
    if (!ta || (s->b && !tb)) return;
    EACH_STRIP(i, j, m, n, {
        kern->act_back(s->act, ta + j, tb ? tb + j : NULL, NULL, s->a->data + j, s->b ? s->b->data + j : NULL,
                       s->y->grad + j, m);
        if (!fresh_a) kern->add(da + j, ta + j, m);
        if (!fresh_b) kern->add(db + j, tb + j, m);
    });
    arena_rewind(c->arena, mark);
}

struct val *nn_act(struct nn *c, enum activation a, struct val *gate, struct val *up)
{
    if (!gate) return NULL;
    struct val *y = nn_val(c, gate->rows, gate->cols);
    if (!y) return NULL;
    const int64_t n = size_of(y);
    EACH_STRIP(i, j, m, n, kern->act(a, y->data + j, gate->data + j, up ? up->data + j : NULL, m));
    return save(c, act_back, (struct binary_saved){ .a = gate, .b = up, .y = y, .act = a }) ? y : NULL;
}

static void pass_gradient(struct nn *c, struct val *to, const float *dy, float s, int64_t n)
{
    bool fresh;
    float *d = nn_grad_raw(c, to, &fresh);
    if (!d) return;
    EACH_STRIP(i, j, m, n, {
        if (fresh)
            kern->scale(d + j, dy + j, s, m);
        else if (s == 1.0f)
            kern->add(d + j, dy + j, m);
        else
            kern->fma_row(d + j, s, dy + j, m);
    });
}

static void add_back(struct nn *c, void *p)
{
    struct binary_saved *s = p;
    if (!s->y->grad) return;
    const int64_t n = size_of(s->y);
    pass_gradient(c, s->a, s->y->grad, 1.0f, n);
    pass_gradient(c, s->b, s->y->grad, s->s, n);
    if (!s->w || !s->w->grad) return;
    float total = 0;
    for (int64_t j = 0; j < n; j += STRIP)
        total += kern->dot(s->y->grad + j, s->b->data + j, COE_MIN((int64_t)STRIP, n - j));
    s->w->grad[0] += total;
}

struct val *nn_add(struct nn *c, struct val *a, struct val *b)
{
    if (!a || !b) return NULL;
    struct val *y = nn_val(c, a->rows, a->cols);
    if (!y) return NULL;
    const int64_t n = size_of(y);
    EACH_STRIP(i, j, m, n, kern->sum(y->data + j, a->data + j, b->data + j, m));
    return save(c, add_back, (struct binary_saved){ .a = a, .b = b, .y = y, .s = 1.0f }) ? y : NULL;
}

struct val *nn_add_scaled(struct nn *c, struct val *a, struct val *b, float s, const struct weight *w)
{
    if (!a || !b) return NULL;
    struct val *y = nn_val(c, a->rows, a->cols);
    if (!y) return NULL;
    if (w) widen(&s, w->data, w->type, 1);
    const int64_t n = size_of(y);
    EACH_STRIP(i, j, m, n, {
        memcpy(y->data + j, a->data + j, (size_t)m * sizeof(float));
        kern->fma_row(y->data + j, s, b->data + j, m);
    });
    return save(c, add_back, (struct binary_saved){ .a = a, .b = b, .y = y, .s = s, .w = w }) ? y : NULL;
}

static void scale_back(struct nn *c, void *p)
{
    struct binary_saved *s = p;
    if (s->y->grad) pass_gradient(c, s->a, s->y->grad, s->s, size_of(s->y));
}

struct val *nn_scale(struct nn *c, struct val *x, float s)
{
    if (!x || s == 1.0f) return x;
    struct val *y = nn_val(c, x->rows, x->cols);
    if (!y) return NULL;
    const int64_t n = size_of(y);
    EACH_STRIP(i, j, m, n, kern->scale(y->data + j, x->data + j, s, m));
    return save(c, scale_back, (struct binary_saved){ .a = x, .y = y, .s = s }) ? y : NULL;
}

static void clamp_back(struct nn *c, void *p)
{
    struct binary_saved *s = p;
    float *dx = s->y->grad ? nn_grad(c, s->a) : NULL;
    for (int64_t j = 0; dx && j < size_of(s->y); j++)
        if (fabsf(s->a->data[j]) <= s->s) dx[j] += s->y->grad[j];
}

struct val *nn_clamp(struct nn *c, struct val *x, float limit)
{
    if (!x) return NULL;
    struct val *y = nn_val(c, x->rows, x->cols);
    if (!y) return NULL;
    for (int64_t j = 0; j < size_of(y); j++) {
        float v = x->data[j];
        y->data[j] = v > limit ? limit : v < -limit ? -limit : v;
    }
    return save(c, clamp_back, (struct binary_saved){ .a = x, .y = y, .s = limit }) ? y : NULL;
}

static void softcap_back(struct nn *c, void *p)
{
    struct binary_saved *s = p;
    float *dx = s->y->grad ? nn_grad(c, s->a) : NULL;
    for (int64_t j = 0; dx && j < size_of(s->y); j++) {
        float t = s->y->data[j] / s->s;
        dx[j] += s->y->grad[j] * (1.0f - t * t);
    }
}

struct val *nn_softcap(struct nn *c, struct val *x, float cap)
{
    if (!x) return NULL;
    struct val *y = nn_val(c, x->rows, x->cols);
    if (!y) return NULL;
    const int64_t n = size_of(y);
    EACH_STRIP(i, j, m, n, {
        for (int64_t e = j; e < j + m; e++) y->data[e] = x->data[e] / cap;
        kern->tanh(y->data + j, y->data + j, m);
        kern->scale(y->data + j, y->data + j, cap, m);
    });
    return save(c, softcap_back, (struct binary_saved){ .a = x, .y = y, .s = cap }) ? y : NULL;
}

static void gate_back(struct nn *c, void *p)
{
    struct binary_saved *s = p;
    if (!s->y->grad) return;
    float *dx = nn_grad(c, s->a), *dg = nn_grad(c, s->b);
    if (!dx || !dg) return;
    const int64_t d = s->y->cols;
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < s->y->rows; t++) {
        float g = fm_sigmoid(s->b->data[t]);
        dg[t] += kern->dot(s->y->grad + t * d, s->a->data + t * d, d) * (g * (1.0f - g));
        kern->fma_row(dx + t * d, g, s->y->grad + t * d, d);
    }
}

struct val *nn_sigmoid_gate(struct nn *c, struct val *x, struct val *g)
{
    if (!x || !g) return NULL;
    struct val *y = nn_val(c, x->rows, x->cols);
    if (!y) return NULL;
    const int64_t d = x->cols;
    COE_SPREAD(x->rows > 16, for (int64_t t = 0; t < x->rows; t++),
               kern->scale(y->data + t * d, x->data + t * d, fm_sigmoid(g->data[t]), d));
    return save(c, gate_back, (struct binary_saved){ .a = x, .b = g, .y = y }) ? y : NULL;
}

static void mul_back(struct nn *c, void *p)
{
    struct binary_saved *s = p;
    if (!s->y->grad) return;
    float *da = nn_grad(c, s->a), *db = nn_grad(c, s->b);
    for (int64_t j = 0; da && db && j < size_of(s->y); j++) {
        da[j] += s->y->grad[j] * s->b->data[j];
        db[j] += s->y->grad[j] * s->a->data[j];
    }
}

struct val *nn_mul(struct nn *c, struct val *a, struct val *b)
{
    if (!a || !b) return NULL;
    struct val *y = nn_val(c, a->rows, a->cols);
    if (!y) return NULL;
    const int64_t n = size_of(y);
    EACH_STRIP(i, j, m, n, kern->mul(y->data + j, a->data + j, b->data + j, m));
    return save(c, mul_back, (struct binary_saved){ .a = a, .b = b, .y = y }) ? y : NULL;
}

static void sigmoid_mul_back(struct nn *c, void *p)
{
    struct binary_saved *s = p;
    if (!s->y->grad) return;
    float *dx = nn_grad(c, s->a), *dg = nn_grad(c, s->b);
    for (int64_t j = 0; dx && dg && j < size_of(s->y); j++) {
        const float g = fm_sigmoid(s->b->data[j]), dy = s->y->grad[j];
        dx[j] += dy * g;
        dg[j] += dy * s->a->data[j] * (g * (1.0f - g));
    }
}

struct val *nn_sigmoid_mul(struct nn *c, struct val *x, struct val *g)
{
    if (!x || !g) return NULL;
    struct val *y = nn_val(c, x->rows, x->cols);
    if (!y) return NULL;
    const int64_t n = size_of(y);
    EACH_STRIP(i, j, m, n, {
        kern->sigmoid(y->data + j, g->data + j, m);
        kern->mul(y->data + j, y->data + j, x->data + j, m);
    });
    return save(c, sigmoid_mul_back, (struct binary_saved){ .a = x, .b = g, .y = y }) ? y : NULL;
}

static void add_row_back(struct nn *c, void *p)
{
    struct binary_saved *s = p;
    if (!s->y->grad) return;
    pass_gradient(c, s->a, s->y->grad, 1.0f, size_of(s->y));
    for (int64_t t = 0; s->w->grad && t < s->y->rows; t++)
        kern->add(s->w->grad, s->y->grad + t * s->y->cols, s->y->cols);
}

struct val *nn_add_row(struct nn *c, struct val *x, const struct weight *b)
{
    if (!x) return NULL;
    struct val *y = nn_val(c, x->rows, x->cols);
    if (!y) return NULL;
    for (int64_t t = 0; t < x->rows; t++) kern->sum(y->data + t * x->cols, x->data + t * x->cols, b->data, x->cols);
    return save(c, add_row_back, (struct binary_saved){ .a = x, .y = y, .w = b }) ? y : NULL;
}

struct rows_saved {
    struct val *x, *y;
    const float *s;
};

static void scale_rows_back(struct nn *c, void *p)
{
    struct rows_saved *s = p;
    float *dx = s->y->grad ? nn_grad(c, s->x) : NULL;
    for (int64_t t = 0; dx && t < s->y->rows; t++)
        kern->fma_row(dx + t * s->y->cols, s->s[t], s->y->grad + t * s->y->cols, s->y->cols);
}

struct val *nn_scale_rows(struct nn *c, struct val *x, const float *s)
{
    if (!x) return NULL;
    struct val *y = nn_val(c, x->rows, x->cols);
    struct rows_saved *saved = arena_push(c->arena, sizeof *saved);
    if (!y || !saved) return NULL;
    for (int64_t t = 0; t < x->rows; t++) kern->scale(y->data + t * x->cols, x->data + t * x->cols, s[t], x->cols);
    *saved = (struct rows_saved){ x, y, s };
    return nn_record(c, scale_rows_back, saved) ? y : NULL;
}

struct dropout_saved {
    struct val *x, *y;
    float keep;
    uint64_t seed, stream;
};

static inline float mask_at(const struct dropout_saved *s, int64_t j)
{
    return rng_unitf(rng_at(s->seed, s->stream, (uint64_t)j)) < s->keep ? 1.0f / s->keep : 0.0f;
}

static void dropout_back(struct nn *c, void *p)
{
    struct dropout_saved *s = p;
    float *dx = s->y->grad ? nn_grad(c, s->x) : NULL;
    if (!dx) return;
    const int64_t n = size_of(s->y);
    EACH_STRIP(i, j, m, n, for (int64_t e = j; e < j + m; e++) dx[e] += s->y->grad[e] * mask_at(s, e));
}

struct val *nn_dropout(struct nn *c, struct val *x)
{
    if (!x || !c->tape || !(c->dropout > 0)) return x;
    struct val *y = nn_val(c, x->rows, x->cols);
    struct dropout_saved *s = arena_push(c->arena, sizeof *s);
    if (!y || !s) return NULL;
    *s = (struct dropout_saved){ x, y, 1.0f - c->dropout, c->seed,
                                 rng_stream(RNG_DROPOUT, c->step << 16 | (c->dropout_index++ & 0xFFFF)) };
    const int64_t n = size_of(y);
    EACH_STRIP(i, j, m, n, for (int64_t e = j; e < j + m; e++) y->data[e] = x->data[e] * mask_at(s, e));
    return nn_record(c, dropout_back, s) ? y : NULL;
}
