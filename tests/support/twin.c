/* twin.c — see twin.h. Loops in the order of the formulas; nothing here is meant to be fast. */
#include "support/twin.h"

#include <math.h>
#include <string.h>

struct note {
    void (*back)(const struct note *n);
    struct tv *y, *a, *b, *c;
    double s, t;
    const void *p, *q;
    int64_t i, j;
    bool flag;
    struct note *before;
};
static struct note *notes;

void twin_begin(void) { notes = NULL; }

static void take_down(struct note what)
{
    struct note *n = test_alloc(sizeof *n);
    *n = what;
    n->before = notes;
    notes = n;
}

struct custom {
    void (*back)(void *saved);
    void *saved;
};

static void custom_back(const struct note *n)
{
    const struct custom *c = n->p;
    c->back(c->saved);
}

void twin_note(void (*back)(void *saved), void *saved)
{
    struct custom *c = test_alloc(sizeof *c);
    *c = (struct custom){ back, saved };
    take_down((struct note){ custom_back, .p = c });
}

void twin_backward(struct tv *y)
{
    y->g[0] = 1;
    for (const struct note *n = notes; n; n = n->before) n->back(n);
    notes = NULL;
}

struct tv *twin_leaf(double *x, int64_t rows, int64_t cols)
{
    struct tv *v = test_alloc(sizeof *v);
    *v = (struct tv){ x, test_alloc((size_t)(rows * cols) * sizeof(double)), rows, cols };
    return v;
}

struct tv *twin_zero(int64_t rows, int64_t cols)
{
    return twin_leaf(test_alloc((size_t)(rows * cols) * sizeof(double)), rows, cols);
}

static int64_t size_of(const struct tv *v) { return v->rows * v->cols; }

/* ---- rows and matrices ---- */

static void embed_back(const struct note *n)
{
    const int32_t *ids = n->p;
    for (int64_t t = 0; t < n->y->rows; t++)
        for (int64_t j = 0; j < n->y->cols; j++) n->a->g[ids[t] * n->y->cols + j] += n->y->g[t * n->y->cols + j];
}

struct tv *twin_embed(const int32_t *ids, int64_t n, struct tv *w)
{
    struct tv *y = twin_zero(n, w->cols);
    for (int64_t t = 0; t < n; t++)
        for (int64_t j = 0; j < w->cols; j++) y->x[t * w->cols + j] = w->x[ids[t] * w->cols + j];
    take_down((struct note){ embed_back, .y = y, .a = w, .p = ids });
    return y;
}

static void linear_back(const struct note *n)
{
    struct tv *x = n->a, *w = n->b, *bias = n->c, *y = n->y;
    for (int64_t t = 0; t < y->rows; t++)
        for (int64_t o = 0; o < y->cols; o++) {
            const double dy = y->g[t * y->cols + o];
            for (int64_t i = 0; i < x->cols; i++) {
                x->g[t * x->cols + i] += dy * w->x[o * x->cols + i];
                w->g[o * x->cols + i] += dy * x->x[t * x->cols + i];
            }
            if (bias) bias->g[o] += dy;
        }
}

struct tv *twin_linear(struct tv *x, struct tv *w, struct tv *bias)
{
    struct tv *y = twin_zero(x->rows, w->rows);
    for (int64_t t = 0; t < y->rows; t++)
        for (int64_t o = 0; o < y->cols; o++) {
            double sum = bias ? bias->x[o] : 0;
            for (int64_t i = 0; i < x->cols; i++) sum += x->x[t * x->cols + i] * w->x[o * x->cols + i];
            y->x[t * y->cols + o] = sum;
        }
    take_down((struct note){ linear_back, .y = y, .a = x, .b = w, .c = bias });
    return y;
}

/* ---- norms: y_i = u_i w_i with u = x r; du/dx_j = r (δ_ij - x_i x_j r² / n) ---- */

static void rmsnorm_back(const struct note *n)
{
    struct tv *x = n->a, *w = n->b;
    const int64_t m = w->cols;
    for (int64_t at = 0; at < size_of(x); at += m) {
        double square = 0;
        for (int64_t i = 0; i < m; i++) square += x->x[at + i] * x->x[at + i];
        const double r = 1 / sqrt(square / (double)m + n->t);
        for (int64_t i = 0; i < m; i++) {
            const double dy = n->y->g[at + i], du = dy * (w->x[i] + n->s);
            w->g[i] += dy * x->x[at + i] * r;
            for (int64_t j = 0; j < m; j++)
                x->g[at + j] += du * r * ((i == j) - x->x[at + i] * x->x[at + j] * r * r / (double)m);
        }
    }
}

struct tv *twin_rmsnorm(struct tv *x, struct tv *w, double w_add, double eps)
{
    struct tv *y = twin_zero(x->rows, x->cols);
    const int64_t m = w->cols;
    for (int64_t at = 0; at < size_of(x); at += m) {
        double square = 0;
        for (int64_t i = 0; i < m; i++) square += x->x[at + i] * x->x[at + i];
        for (int64_t i = 0; i < m; i++)
            y->x[at + i] = x->x[at + i] / sqrt(square / (double)m + eps) * (w->x[i] + w_add);
    }
    take_down((struct note){ rmsnorm_back, .y = y, .a = x, .b = w, .s = w_add, .t = eps });
    return y;
}

static void mean_and_scale(const double *x, int64_t m, double eps, double *mean, double *r)
{
    double square = 0;
    *mean = 0;
    for (int64_t i = 0; i < m; i++) *mean += x[i] / (double)m;
    for (int64_t i = 0; i < m; i++) square += (x[i] - *mean) * (x[i] - *mean);
    *r = 1 / sqrt(square / (double)m + eps);
}

/* u_i = (x_i - mean) r; du_i/dx_j = r (δ_ij - 1/n - u_i u_j / n) */
static void layernorm_back(const struct note *n)
{
    struct tv *x = n->a, *w = n->b, *b = n->c;
    const int64_t m = w->cols;
    for (int64_t at = 0; at < size_of(x); at += m) {
        double mean, r;
        mean_and_scale(x->x + at, m, n->t, &mean, &r);
        for (int64_t i = 0; i < m; i++) {
            const double dy = n->y->g[at + i], u = (x->x[at + i] - mean) * r;
            w->g[i] += dy * u;
            if (b) b->g[i] += dy;
            for (int64_t j = 0; j < m; j++)
                x->g[at + j] += dy * w->x[i] * r * ((i == j) - (1 + u * (x->x[at + j] - mean) * r) / (double)m);
        }
    }
}

struct tv *twin_layernorm(struct tv *x, struct tv *w, struct tv *b, double eps)
{
    struct tv *y = twin_zero(x->rows, x->cols);
    const int64_t m = w->cols;
    for (int64_t at = 0; at < size_of(x); at += m) {
        double mean, r;
        mean_and_scale(x->x + at, m, eps, &mean, &r);
        for (int64_t i = 0; i < m; i++) y->x[at + i] = (x->x[at + i] - mean) * r * w->x[i] + (b ? b->x[i] : 0);
    }
    take_down((struct note){ layernorm_back, .y = y, .a = x, .b = w, .c = b, .t = eps });
    return y;
}

/* ---- element by element ---- */

double twin_clamp_limit = 7;

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

/* a(x), and its slope in *d */
static double activation(enum activation a, double x, double *d)
{
    const double s = sigmoid(x), phi = exp(-x * x / 2) / sqrt(2 * 3.14159265358979323846);
    const double k = sqrt(2 / 3.14159265358979323846), inner = k * (x + 0.044715 * x * x * x), th = tanh(inner);
    switch (a) {
    case ACT_SILU: *d = s * (1 + x * (1 - s)); return x * s;
    case ACT_GELU: *d = 0.5 * (1 + erf(x / sqrt(2))) + x * phi; return 0.5 * x * (1 + erf(x / sqrt(2)));
    case ACT_GELU_TANH:
        *d = 0.5 * (1 + th) + 0.5 * x * (1 - th * th) * k * (1 + 3 * 0.044715 * x * x);
        return 0.5 * x * (1 + th);
    case ACT_RELU: *d = x > 0; return x > 0 ? x : 0;
    case ACT_RELU2: *d = x > 0 ? 2 * x : 0; return x > 0 ? x * x : 0;
    default: { /* ACT_SWIGLU_CLAMP */
        const double c = fmin(x, twin_clamp_limit), g = sigmoid(1.702 * c);
        *d = x < twin_clamp_limit ? g + 1.702 * c * g * (1 - g) : 0;
        return c * g;
    }
    }
}

/* b(y) of the gated form, and its slope */
static double other_side(enum activation a, double y, double *d)
{
    *d = a != ACT_SWIGLU_CLAMP || fabs(y) < twin_clamp_limit;
    return a == ACT_SWIGLU_CLAMP ? fmax(-twin_clamp_limit, fmin(y, twin_clamp_limit)) + 1 : y;
}

static void act_back(const struct note *n)
{
    for (int64_t i = 0; i < size_of(n->y); i++) {
        double da, db = 0;
        const double a = activation((enum activation)n->i, n->a->x[i], &da);
        const double b = n->b ? other_side((enum activation)n->i, n->b->x[i], &db) : 1;
        n->a->g[i] += n->y->g[i] * da * b;
        if (n->b) n->b->g[i] += n->y->g[i] * a * db;
    }
}

struct tv *twin_act(enum activation a, struct tv *gate, struct tv *up)
{
    struct tv *y = twin_zero(gate->rows, gate->cols);
    double d;
    for (int64_t i = 0; i < size_of(y); i++)
        y->x[i] = activation(a, gate->x[i], &d) * (up ? other_side(a, up->x[i], &d) : 1);
    take_down((struct note){ act_back, .y = y, .a = gate, .b = up, .i = a });
    return y;
}

static void add_back(const struct note *n)
{
    const double s = n->c ? n->c->x[0] : n->s;
    for (int64_t i = 0; i < size_of(n->y); i++) {
        n->a->g[i] += n->y->g[i];
        n->b->g[i] += s * n->y->g[i];
        if (n->c) n->c->g[0] += n->b->x[i] * n->y->g[i];
    }
}

struct tv *twin_add_scaled(struct tv *a, struct tv *b, double s, struct tv *w)
{
    struct tv *y = twin_zero(a->rows, a->cols);
    for (int64_t i = 0; i < size_of(y); i++) y->x[i] = a->x[i] + (w ? w->x[0] : s) * b->x[i];
    take_down((struct note){ add_back, .y = y, .a = a, .b = b, .c = w, .s = s });
    return y;
}

struct tv *twin_add(struct tv *a, struct tv *b) { return twin_add_scaled(a, b, 1, NULL); }

static void scale_back(const struct note *n)
{
    for (int64_t i = 0; i < size_of(n->y); i++) n->a->g[i] += n->s * n->y->g[i];
}

struct tv *twin_scale(struct tv *x, double s)
{
    struct tv *y = twin_zero(x->rows, x->cols);
    for (int64_t i = 0; i < size_of(y); i++) y->x[i] = s * x->x[i];
    take_down((struct note){ scale_back, .y = y, .a = x, .s = s });
    return y;
}

static void clamp_back(const struct note *n)
{
    for (int64_t i = 0; i < size_of(n->y); i++)
        if (fabs(n->a->x[i]) < n->s) n->a->g[i] += n->y->g[i];
}

struct tv *twin_clamp(struct tv *x, double limit)
{
    struct tv *y = twin_zero(x->rows, x->cols);
    for (int64_t i = 0; i < size_of(y); i++) y->x[i] = fmax(-limit, fmin(x->x[i], limit));
    take_down((struct note){ clamp_back, .y = y, .a = x, .s = limit });
    return y;
}

static void softcap_back(const struct note *n)
{
    for (int64_t i = 0; i < size_of(n->y); i++) {
        const double t = tanh(n->a->x[i] / n->s);
        n->a->g[i] += n->y->g[i] * (1 - t * t);
    }
}

struct tv *twin_softcap(struct tv *x, double cap)
{
    struct tv *y = twin_zero(x->rows, x->cols);
    for (int64_t i = 0; i < size_of(y); i++) y->x[i] = cap * tanh(x->x[i] / cap);
    take_down((struct note){ softcap_back, .y = y, .a = x, .s = cap });
    return y;
}

static void gate_back(const struct note *n)
{
    for (int64_t i = 0; i < size_of(n->y); i++) {
        const int64_t t = i / n->y->cols;
        const double s = sigmoid(n->b->x[t]);
        n->a->g[i] += n->y->g[i] * s;
        n->b->g[t] += n->y->g[i] * n->a->x[i] * s * (1 - s);
    }
}

struct tv *twin_sigmoid_gate(struct tv *x, struct tv *g)
{
    struct tv *y = twin_zero(x->rows, x->cols);
    for (int64_t i = 0; i < size_of(y); i++) y->x[i] = x->x[i] * sigmoid(g->x[i / x->cols]);
    take_down((struct note){ gate_back, .y = y, .a = x, .b = g });
    return y;
}

/* ---- positions and attention ---- */

/* Index of the two elements of pair j in a head */
static void pair_of(int64_t j, int64_t half, bool interleaved, int64_t *a, int64_t *b)
{
    *a = interleaved ? 2 * j : j;
    *b = interleaved ? 2 * j + 1 : j + half;
}

/* out += rotation of in; back: by the opposite angle */
static void rotate(double *out, const double *in, const struct note *n, bool back)
{
    const float *cos = n->p, *sin = n->q;
    const int64_t head_dim = n->i, half = n->j, cols = n->y->cols;
    for (int64_t t = 0; t < n->y->rows; t++)
        for (int64_t h = 0; h < cols; h += head_dim) {
            const double *x = in + t * cols + h;
            double *y = out + t * cols + h;
            for (int64_t j = 0; j < half; j++) {
                int64_t a, b;
                pair_of(j, half, n->flag, &a, &b);
                const double c = (double)cos[t * half + j], s = (back ? -1 : 1) * (double)sin[t * half + j];
                y[a] += x[a] * c - x[b] * s;
                y[b] += x[b] * c + x[a] * s;
            }
            for (int64_t j = 2 * half; j < head_dim; j++) y[j] += x[j];
        }
}

static void rope_back(const struct note *n) { rotate(n->a->g, n->y->g, n, true); }

struct tv *twin_rope(struct tv *x, int32_t head_dim, const float *cos, const float *sin, int64_t half, bool interleaved)
{
    struct tv *y = twin_zero(x->rows, x->cols);
    const struct note n = {
        rope_back, .y = y, .a = x, .p = cos, .q = sin, .i = head_dim, .j = half, .flag = interleaved
    };
    rotate(y->x, x->x, &n, false);
    take_down(n);
    return y;
}

struct attention {
    struct tv *q, *k, *v, *sink;
    struct attn_shape shape;
    const struct attn_batch *batch;
    double *p, *slope; /* [H, n, n] probabilities, d score / d (q·k) */
    double *p_sink;    /* [H, n] */
};

static bool sees(const struct attention *a, int32_t seq, int64_t t, int64_t j)
{
    const int64_t first = a->batch->off[seq], lo = a->batch->start ? a->batch->start[t] : 0;
    const int64_t chunk = a->shape.chunk ? a->shape.chunk : INT64_MAX;
    return j <= t && j >= first + lo && (!a->shape.window || j > t - a->shape.window) &&
           (j - first) / chunk == (t - first) / chunk;
}

static void attend_row(const struct attention *a, int32_t seq, int64_t h, int64_t t)
{
    const struct attn_shape *s = &a->shape;
    const int64_t n = a->q->rows, kv = h / (s->n_heads / s->n_kv_heads), first = a->batch->off[seq];
    double *p = a->p + (h * n + t) * n, *slope = a->slope + (h * n + t) * n, total = a->sink ? exp(a->sink->x[h]) : 0;
    for (int64_t j = first; j <= t; j++) {
        double dot = 0;
        if (!sees(a, seq, t, j)) continue;
        for (int32_t i = 0; i < s->head_dim; i++)
            dot += a->q->x[t * a->q->cols + h * s->head_dim + i] * a->k->x[j * a->k->cols + kv * s->head_dim + i];
        const double raw = dot * (double)s->scale, cap = (double)s->cap, th = cap > 0 ? tanh(raw / cap) : 0;
        slope[j] = (double)s->scale * (1 - th * th);
        p[j] = exp(cap > 0 ? cap * th : raw);
        total += p[j];
    }
    for (int64_t j = first; j <= t; j++) p[j] /= total;
    a->p_sink[h * n + t] = a->sink ? exp(a->sink->x[h]) / total : 0;
}

static void each_row(const struct attention *a,
                     void (*fn)(const struct attention *, const struct tv *, int32_t, int64_t, int64_t),
                     const struct tv *out)
{
    for (int32_t seq = 0; seq < a->batch->n_seq; seq++)
        for (int64_t t = a->batch->off[seq]; t < a->batch->off[seq + 1]; t++)
            for (int64_t h = 0; h < a->shape.n_heads; h++) fn(a, out, seq, h, t);
}

static void forward_row(const struct attention *a, const struct tv *out, int32_t seq, int64_t h, int64_t t)
{
    const struct attn_shape *s = &a->shape;
    const int64_t n = a->q->rows, kv = h / (s->n_heads / s->n_kv_heads), hv = s->head_dim_v;
    attend_row(a, seq, h, t);
    for (int64_t j = a->batch->off[seq]; j <= t; j++)
        for (int64_t i = 0; i < hv; i++)
            out->x[t * out->cols + h * hv + i] += a->p[(h * n + t) * n + j] * a->v->x[j * a->v->cols + kv * hv + i];
}

static void backward_row(const struct attention *a, const struct tv *out, int32_t seq, int64_t h, int64_t t)
{
    const struct attn_shape *s = &a->shape;
    const int64_t n = a->q->rows, kv = h / (s->n_heads / s->n_kv_heads), hv = s->head_dim_v, hd = s->head_dim;
    const double *go = out->g + t * out->cols + h * hv, *p = a->p + (h * n + t) * n,
                 *slope = a->slope + (h * n + t) * n;
    double *dp = test_alloc((size_t)n * sizeof *dp), mean = 0;
    for (int64_t j = a->batch->off[seq]; j <= t; j++)
        for (int64_t i = 0; i < hv; i++) {
            dp[j] += go[i] * a->v->x[j * a->v->cols + kv * hv + i];
            a->v->g[j * a->v->cols + kv * hv + i] += go[i] * p[j];
        }
    for (int64_t j = 0; j < n; j++) mean += p[j] * dp[j];
    for (int64_t j = a->batch->off[seq]; j <= t; j++)
        for (int64_t i = 0; i < hd; i++) {
            const double ds = p[j] * (dp[j] - mean) * slope[j];
            a->q->g[t * a->q->cols + h * hd + i] += ds * a->k->x[j * a->k->cols + kv * hd + i];
            a->k->g[j * a->k->cols + kv * hd + i] += ds * a->q->x[t * a->q->cols + h * hd + i];
        }
    if (a->sink) a->sink->g[h] -= a->p_sink[h * n + t] * mean;
}

static void attention_back(const struct note *n) { each_row(n->p, backward_row, n->y); }

struct tv *twin_attention(struct tv *q, struct tv *k, struct tv *v, struct tv *sink, const struct attn_shape *shape,
                          const struct attn_batch *batch)
{
    struct attention *a = test_alloc(sizeof *a);
    const size_t square = (size_t)(shape->n_heads * q->rows * q->rows);
    *a = (struct attention){ q, k, v, sink, *shape, batch, NULL, NULL, NULL };
    a->p = test_alloc(square * sizeof(double));
    a->slope = test_alloc(square * sizeof(double));
    a->p_sink = test_alloc((size_t)(shape->n_heads * q->rows) * sizeof(double));
    struct tv *y = twin_zero(q->rows, (int64_t)shape->n_heads * shape->head_dim_v);
    each_row(a, forward_row, y);
    take_down((struct note){ attention_back, .y = y, .p = a });
    return y;
}

/* ---- ends ---- */

static double logsumexp(const double *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += exp(x[i]);
    return log(sum);
}

static int64_t counting(const int32_t *target, int64_t n)
{
    int64_t count = 0;
    for (int64_t t = 0; t < n; t++) count += target[t] >= 0;
    return count;
}

static void xent_back(const struct note *n)
{
    const int32_t *target = n->p;
    struct tv *x = n->a;
    const double z = 2 * n->t / (double)counting(target, x->rows);
    for (int64_t t = 0; t < x->rows; t++) {
        if (target[t] < 0) continue;
        const double lse = logsumexp(x->x + t * x->cols, x->cols);
        for (int64_t i = 0; i < x->cols; i++) {
            const double p = exp(x->x[t * x->cols + i] - lse);
            x->g[t * x->cols + i] += n->y->g[0] * (n->s * (p - (i == target[t])) + z * lse * p);
        }
    }
}

struct tv *twin_xent(struct tv *logits, const int32_t *target, double scale, double z_coef)
{
    struct tv *y = twin_zero(1, 1);
    const int64_t count = counting(target, logits->rows);
    for (int64_t t = 0; t < logits->rows; t++) {
        if (target[t] < 0) continue;
        const double lse = logsumexp(logits->x + t * logits->cols, logits->cols);
        y->x[0] += scale * (lse - logits->x[t * logits->cols + target[t]]) + z_coef * lse * lse / (double)count;
    }
    take_down((struct note){ xent_back, .y = y, .a = logits, .p = target, .s = scale, .t = z_coef });
    return y;
}

static void dot_back(const struct note *n)
{
    const double *r = n->p;
    for (int64_t i = 0; i < size_of(n->a); i++) n->a->g[i] += n->y->g[0] * r[i];
}

struct tv *twin_dot(struct tv *x, const double *r)
{
    struct tv *y = twin_zero(1, 1);
    for (int64_t i = 0; i < size_of(x); i++) y->x[0] += x->x[i] * r[i];
    take_down((struct note){ dot_back, .y = y, .a = x, .p = r });
    return y;
}
