/* twin_router.c — the routers of src/moe/routers in FP64 (twin.h): logits and what one decision leaves to the next. */
#include "support/twin.h"

#include <math.h>
#include <string.h>

static struct tv *part_of(struct tv *x, int64_t from, int64_t width)
{
    struct columns *piece = test_alloc(sizeof *piece);
    *piece = (struct columns){ from, width };
    return twin_columns(x, x->cols, piece, 1);
}

static struct tv *filled(int64_t rows, int64_t cols, double value)
{
    struct tv *v = twin_zero(rows, cols);
    for (int64_t i = 0; i < rows * cols; i++) v->x[i] = value;
    return v;
}

static struct tv *sigmoid(struct tv *x) { return twin_sigmoid_mul(filled(x->rows, x->cols, 1), x); }

/* h' = n - q n + q h */
struct tv *twin_gru_cell(struct tv *u, struct tv *h, struct tv *const *w)
{
    struct tv *a = twin_linear(u, w[0], w[2]), *b = twin_linear(h, w[1], w[3]);
    const int64_t n = h->cols;
    struct tv *r = sigmoid(twin_add(part_of(a, 0, n), part_of(b, 0, n)));
    struct tv *q = sigmoid(twin_add(part_of(a, n, n), part_of(b, n, n)));
    struct tv *m = twin_softcap(twin_add(part_of(a, 2 * n, n), twin_mul(r, part_of(b, 2 * n, n))), 1);
    return twin_add(twin_add_scaled(m, twin_mul(q, m), -1, NULL), twin_mul(q, h));
}

static struct tv *recurrent(const char *kind, const struct twin_moe *w, int32_t t, struct tv *x)
{
    struct tv *const *part = w->router_part[t];
    struct tv *u = twin_linear(x, part[0], NULL), *h = *w->carried ? *w->carried : twin_zero(u->rows, u->cols);
    if (!strcmp(kind, "gru"))
        h = twin_gru_cell(u, h, part + 2);
    else
        h = twin_softcap(twin_add(twin_linear(u, part[2], part[4]), twin_linear(h, part[3], part[5])), 1);
    *w->carried = h;
    return twin_linear(h, part[1], NULL);
}

static struct tv *two_layer(struct tv *x, struct tv *fc1, struct tv *fc2, int activation)
{
    static const enum activation act[] = { 0, ACT_SILU, ACT_GELU, ACT_RELU };
    struct tv *u = twin_linear(x, fc1, NULL);
    return twin_linear(activation ? twin_act(act[activation], u, NULL) : twin_softcap(u, 1), fc2, NULL);
}

/* ---- rows: y = f(x) row by row, with its Jacobian by hand ---- */

struct rows_note {
    struct tv *y, *x, *c, *tau;
    double to;
};

/* μ and σ (n - 1) */
static void moments(const double *z, int64_t n, double *mean, double *std)
{
    *mean = *std = 0;
    for (int64_t e = 0; e < n; e++) *mean += z[e] / (double)n;
    for (int64_t e = 0; e < n; e++) *std += (z[e] - *mean) * (z[e] - *mean) / (double)(n - 1);
    *std = sqrt(*std);
}

static void normalised_back(void *saved)
{
    const struct rows_note *s = saved;
    const int64_t n = s->x->cols;
    for (int64_t t = 0; t < s->x->rows; t++) {
        const double *z = s->x->x + t * n, *dy = s->y->g + t * n;
        double mean, std;
        moments(z, n, &mean, &std);
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++) /* y_i = to z_i / σ */
                s->x->g[t * n + j] +=
                    dy[i] * s->to * ((i == j) / std - z[i] / (std * std) * (z[j] - mean) / ((double)(n - 1) * std));
    }
}

static struct tv *normalised(struct tv *z, double to)
{
    if (!(to > 0)) return z;
    struct rows_note *s = test_alloc(sizeof *s);
    *s = (struct rows_note){ .y = twin_zero(z->rows, z->cols), .x = z, .to = to };
    for (int64_t t = 0; t < z->rows; t++) {
        double mean, std;
        moments(z->x + t * z->cols, z->cols, &mean, &std);
        for (int64_t e = 0; e < z->cols; e++) s->y->x[t * z->cols + e] = to * z->x[t * z->cols + e] / std;
    }
    twin_note(normalised_back, s);
    return s->y;
}

static double dot(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

static void cosine_back(void *saved)
{
    const struct rows_note *s = saved;
    const int64_t n = s->x->cols, experts = s->c->rows;
    const double tau = s->tau ? s->tau->x[0] : s->to;
    for (int64_t t = 0; t < s->x->rows; t++)
        for (int64_t e = 0; e < experts; e++) {
            const double *x = s->x->x + t * n, *c = s->c->x + e * n, dz = s->y->g[t * experts + e];
            const double xx = dot(x, x, n), cc = dot(c, c, n), cosine = dot(x, c, n) / sqrt(xx * cc);
            for (int64_t i = 0; i < n; i++) {
                s->x->g[t * n + i] += dz / tau * (c[i] / sqrt(xx * cc) - cosine * x[i] / xx);
                s->c->g[e * n + i] += dz / tau * (x[i] / sqrt(xx * cc) - cosine * c[i] / cc);
            }
            if (s->tau) s->tau->g[0] -= dz * cosine / (tau * tau);
        }
}

static struct tv *cosine(struct tv *x, struct tv *c, struct tv *tau, double fixed)
{
    struct rows_note *s = test_alloc(sizeof *s);
    *s = (struct rows_note){ .y = twin_zero(x->rows, c->rows), .x = x, .c = c, .tau = tau, .to = fixed };
    for (int64_t t = 0; t < x->rows; t++)
        for (int64_t e = 0; e < c->rows; e++) {
            const double *a = x->x + t * x->cols, *b = c->x + e * x->cols;
            s->y->x[t * c->rows + e] =
                dot(a, b, x->cols) / sqrt(dot(a, a, x->cols) * dot(b, b, x->cols)) / (tau ? tau->x[0] : fixed);
        }
    twin_note(cosine_back, s);
    return s->y;
}

/* ---- probabilities ---- */

static void softmax_back(void *saved)
{
    const struct rows_note *s = saved;
    const int64_t n = s->x->cols;
    for (int64_t t = 0; t < s->x->rows; t++)
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++) {
                const double *p = s->y->x + t * n;
                s->x->g[t * n + j] += s->y->g[t * n + i] * p[i] * ((i == j) - p[j]);
            }
}

static struct tv *softmax(struct tv *z)
{
    struct rows_note *s = test_alloc(sizeof *s);
    *s = (struct rows_note){ .y = twin_zero(z->rows, z->cols), .x = z };
    for (int64_t t = 0; t < z->rows; t++) {
        double sum = 0;
        for (int64_t e = 0; e < z->cols; e++) sum += exp(z->x[t * z->cols + e]);
        for (int64_t e = 0; e < z->cols; e++) s->y->x[t * z->cols + e] = exp(z->x[t * z->cols + e]) / sum;
    }
    twin_note(softmax_back, s);
    return s->y;
}

static void log_back(void *saved)
{
    const struct rows_note *s = saved;
    for (int64_t i = 0; i < s->x->rows * s->x->cols; i++) s->x->g[i] += s->y->g[i] / s->x->x[i];
}

static struct tv *logarithm(struct tv *p)
{
    struct rows_note *s = test_alloc(sizeof *s);
    *s = (struct rows_note){ .y = twin_zero(p->rows, p->cols), .x = p };
    for (int64_t i = 0; i < p->rows * p->cols; i++) s->y->x[i] = log(p->x[i]);
    twin_note(log_back, s);
    return s->y;
}

static struct tv *similarity(struct tv *x, struct tv *z, double tau, const struct attn_batch *batch)
{
    const struct attn_shape shape = { .n_heads = 1,
                                      .n_kv_heads = 1,
                                      .head_dim = (int32_t)x->cols,
                                      .head_dim_v = (int32_t)z->cols,
                                      .scale = 1.0f / (tau > 0 ? (float)tau : sqrtf((float)x->cols)) };
    return logarithm(twin_attention(x, x, softmax(z), NULL, &shape, batch));
}

static struct tv *by_attention(const struct twin_moe *w, struct tv *z)
{
    struct attn_shape shape = *w->attention;
    const int32_t heads = shape.n_heads, n = (int32_t)z->cols;
    struct columns *same = test_alloc((size_t)shape.n_kv_heads * sizeof *same);
    for (int32_t i = 0; i < shape.n_kv_heads; i++) same[i] = (struct columns){ 0, n };
    shape.head_dim_v = n;
    struct tv *v = twin_columns(softmax(z), n, same, shape.n_kv_heads);
    struct tv *all = twin_attention(w->q, w->k, v, NULL, &shape, w->batch), *sum = NULL;
    for (int32_t h = 0; h < heads; h++) sum = sum ? twin_add(sum, part_of(all, h * n, n)) : part_of(all, 0, n);
    return logarithm(twin_scale(sum, 1.0 / heads));
}

/* z_t = Σ_u W[:, place of u] x_u / temperature over the tokens u of t's segment, or of the one before; `back`: the same
 * way back. */
struct segment_note {
    struct tv *y, *x, *w;
    const struct attn_batch *batch;
    int64_t width;
    double temperature;
    bool previous;
};

static void segment_terms(const struct segment_note *s, bool back)
{
    const int64_t d = s->x->cols, experts = s->y->cols;
    for (int32_t i = 0; i < s->batch->n_seq; i++)
        for (int64_t t = s->batch->off[i]; t < s->batch->off[i + 1]; t++)
            for (int64_t u = s->batch->off[i]; u < s->batch->off[i + 1]; u++) {
                const int64_t own = (t - s->batch->off[i]) / s->width, other = (u - s->batch->off[i]) / s->width;
                if (other != own - s->previous) continue;
                for (int64_t e = 0; e < experts; e++)
                    for (int64_t j = 0; j < d; j++) {
                        const int64_t at = e * s->width * d + (u - s->batch->off[i]) % s->width * d + j;
                        if (!back) s->y->x[t * experts + e] += s->w->x[at] * s->x->x[u * d + j] / s->temperature;
                        else {
                            const double g = s->y->g[t * experts + e] / s->temperature;
                            s->w->g[at] += g * s->x->x[u * d + j];
                            s->x->g[u * d + j] += g * s->w->x[at];
                        }
                    }
            }
}

static void segment_back(void *saved) { segment_terms(saved, true); }

static struct tv *by_segment(struct tv *x, struct tv *w, const double *param, const struct attn_batch *batch)
{
    struct segment_note *s = test_alloc(sizeof *s);
    const int64_t width = (int64_t)param[0];
    *s = (struct segment_note){ twin_zero(x->rows, w->rows), x, w, batch, width, param[1], param[2] > 0 };
    segment_terms(s, false);
    twin_note(segment_back, s);
    return s->y;
}

/* ---- gates of tasks ---- */

struct seen_note {
    struct tv *to, *from;
    int32_t *column; /* [T, E] of `from` where an expert's number stands; -1: nowhere */
};

static void seen_back(void *saved)
{
    const struct seen_note *s = saved;
    for (int64_t i = 0; i < s->to->rows * s->to->cols; i++)
        if (s->column[i] >= 0) s->from->g[i / s->to->cols * s->from->cols + s->column[i]] += s->to->g[i];
}

/* [T, E] with `otherwise` where a token sees nothing */
static struct tv *spread_over(struct tv *from, const int32_t *column, int32_t n, double otherwise)
{
    struct seen_note *s = test_alloc(sizeof *s);
    *s = (struct seen_note){ filled(from->rows, n, otherwise), from,
                             test_alloc((size_t)(from->rows * n) * sizeof(int32_t)) };
    memcpy(s->column, column, (size_t)(from->rows * n) * sizeof *column);
    for (int64_t i = 0; i < from->rows * n; i++)
        if (column[i] >= 0) s->to->x[i] = from->x[i / n * from->cols + column[i]];
    twin_note(seen_back, s);
    return s->to;
}

/* Softmax of a row over columns from … from + n - 1, by exponentials of FP64 operations: y = e^x / Σ e^x */
struct soft_note {
    struct tv *y, *z;
};

static void soft_back(void *saved)
{
    const struct soft_note *s = saved;
    const int64_t n = s->y->cols;
    for (int64_t t = 0; t < s->y->rows; t++)
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++)
                s->z->g[t * n + j] += s->y->g[t * n + i] * s->y->x[t * n + i] * ((i == j) - s->y->x[t * n + j]);
}

static struct tv *soft(struct tv *z)
{
    struct soft_note *s = test_alloc(sizeof *s);
    *s = (struct soft_note){ twin_zero(z->rows, z->cols), z };
    for (int64_t t = 0; t < z->rows; t++) {
        double sum = 0;
        for (int64_t i = 0; i < z->cols; i++) sum += exp(z->x[t * z->cols + i]);
        for (int64_t i = 0; i < z->cols; i++) s->y->x[t * z->cols + i] = exp(z->x[t * z->cols + i]) / sum;
    }
    twin_note(soft_back, s);
    return s->y;
}

/* Owners of the experts in order of id, by counting them off: level 0 of groups, 1 of tasks */
struct owner {
    int level, kind, index;
};
enum { OF_ALL, OF_GROUP, OF_TASK };

static struct owner *owners_of(const struct moe_spec *s)
{
    const double *p = s->router.kind_param; /* tasks, groups, group_experts, task_experts, levels */
    struct owner *o = test_alloc((size_t)s->n_experts * sizeof *o);
    const int shared = (int)((s->n_experts - p[0] * p[3]) / p[4] - p[1] * p[2]);
    int e = 0;
    for (int level = p[4] > 1 ? 0 : 1; level < 2; level++) {
        for (int i = 0; i < shared; i++) o[e++] = (struct owner){ level, OF_ALL, 0 };
        for (int g = 0; g < (int)p[1]; g++)
            for (int i = 0; i < (int)p[2]; i++) o[e++] = (struct owner){ level, OF_GROUP, g };
    }
    for (int task = 0; task < (int)p[0]; task++)
        for (int i = 0; i < (int)p[3]; i++) o[e++] = (struct owner){ 1, OF_TASK, task };
    return o;
}

static struct tv *by_task(const struct moe_spec *s, struct twin_moe *w, int32_t t, struct tv *x)
{
    const double *p = s->router.kind_param;
    const int32_t n = s->n_experts, level = p[4] > 1 && t < s->chain.n_iterations - 1 ? 0 : 1;
    const struct owner *o = owners_of(s);
    int32_t *gate = test_alloc((size_t)(x->rows * n) * sizeof *gate), *more = test_alloc((size_t)(x->rows * n) * 4);
    int32_t all = 0, own = 0;
    struct tv *const *part = w->router_part[t];
    for (int64_t i = 0; i < x->rows; i++) {
        const int32_t task = w->task ? w->task[i] : 0, group = task / ((int)p[0] / (int)p[1]);
        int32_t sees = 0, shared = 0, mine = 0;
        for (int32_t e = 0; e < n; e++) {
            const int kind = o[e].kind;
            const bool there = o[e].level == level && (kind == OF_ALL || (kind == OF_GROUP && o[e].index == group) ||
                                                       (kind == OF_TASK && o[e].index == task));
            gate[i * n + e] = there ? sees++ : -1;
            more[i * n + e] = !there ? -1 : level == 0 && kind == OF_ALL ? shared++ : kind == OF_TASK ? mine++ : -1;
        }
        for (int32_t e = 0; e < n; e++) { /* rows of the owner */
            if (gate[i * n + e] >= 0) gate[i * n + e] += (level ? task : group) * sees;
            if (more[i * n + e] >= 0 && level) more[i * n + e] += task * mine;
        }
        all = sees, own = mine;
    }
    (void)all;
    w->added = NULL;
    if (part[2]) w->added = spread_over(soft(twin_linear(x, part[2], NULL)), more, n, 0);
    if (part[1] && p[5] == 1) w->added = spread_over(sigmoid(twin_linear(x, part[1], NULL)), more, n, 0);
    if (part[1] && p[5] == 2) { /* the softmax of every task by itself */
        struct tv *z = twin_linear(x, part[1], NULL), *y = NULL;
        for (int32_t task = 0; task < (int)p[0]; task++) {
            struct tv *q = soft(part_of(z, (int64_t)task * own, own));
            y = y ? twin_join(y, q) : q;
        }
        w->added = spread_over(y, more, n, 0);
    }
    return spread_over(twin_linear(x, part[0], NULL), gate, n, -INFINITY);
}

/* ---- by name ---- */

struct tv *twin_router(const struct moe_spec *s, struct twin_moe *w, int32_t t, struct tv *x)
{
    const char *kind = s->router.kind;
    const double *param = s->router.kind_param;
    struct tv *const *part = w->router_part[t];
    struct tv *plain = w->router[t] ? twin_linear(x, w->router[t], w->router_bias[t]) : NULL;
    if (!strcmp(kind, "two_layer")) return two_layer(x, part[0], part[1], (int)param[1]);
    if (!strcmp(kind, "gru") || !strcmp(kind, "rnn")) return recurrent(kind, w, t, x);
    if (!strcmp(kind, "cosine")) return cosine(part[0] ? twin_linear(x, part[0], NULL) : x, part[1], part[2], param[1]);
    if (!strcmp(kind, "similarity")) return similarity(x, plain, param[0], w->batch);
    if (!strcmp(kind, "attention")) return by_attention(w, plain);
    if (!strcmp(kind, "tasks")) return by_task(s, w, t, x);
    if (!strcmp(kind, "segment")) return by_segment(x, part[0], param, w->batch);
    if (!strcmp(kind, "gating_residual")) {
        struct tv *z = param[0] > 0 ? two_layer(x, part[1], part[2], 0) : plain;
        if (*w->carried) z = twin_add(z, twin_linear(*w->carried, part[0], NULL));
        *w->carried = z;
        return normalised(z, param[2]);
    }
    if (!strcmp(kind, "pre_gated")) {
        struct tv *from = *w->carried ? *w->carried : x;
        *w->carried = x;
        return twin_linear(from, w->router[t], w->router_bias[t]);
    }
    return plain;
}
