/* twin_expert.c — kinds of experts in the FP64 twin (twin.h): every expert on every token, the obvious way. */
#include "support/twin.h"

#include <string.h>

struct outer {
    struct tv *y, *h, *b;
    int32_t row;
};

static void outer_back(void *saved)
{
    const struct outer *s = saved;
    const int64_t n = s->y->cols, k = s->h->cols;
    for (int64_t t = 0; t < s->y->rows; t++)
        for (int64_t j = 0; j < n; j++) {
            s->h->g[t * k + s->row] += s->y->g[t * n + j] * s->b->x[s->row * n + j];
            s->b->g[s->row * n + j] += s->y->g[t * n + j] * s->h->x[t * k + s->row];
        }
}

/* y_t = h[t, row] · row of b */
static struct tv *outer(struct tv *h, struct tv *b, int32_t row)
{
    struct outer *s = test_alloc(sizeof *s);
    *s = (struct outer){ twin_zero(h->rows, b->cols), h, b, row };
    for (int64_t i = 0; i < h->rows * b->cols; i++)
        s->y->x[i] = h->x[i / b->cols * h->cols + row] * b->x[row * b->cols + i % b->cols];
    twin_note(outer_back, s);
    return s->y;
}

/* Columns of x; the notes keep the piece. */
static struct tv *columns(struct tv *x, int64_t from, int64_t width)
{
    struct columns *piece = test_alloc(sizeof *piece);
    *piece = (struct columns){ from, width };
    return twin_columns(x, x->cols, piece, 1);
}

static struct tv *mixed(struct tv *x, struct tv *w, struct tv *v)
{
    struct tv *z = twin_linear(x, w, NULL);
    struct tv *gap = twin_add_scaled(columns(z, 0, 1), columns(z, 1, 1), -1, NULL);
    struct tv *of_v = twin_sigmoid_gate(twin_add_row(twin_zero(x->rows, x->cols), v), twin_scale(gap, -1));
    return twin_add(twin_sigmoid_gate(x, gap), of_v);
}

static struct tv *in_group(const struct expert_range *r, struct tv *x, struct tv *all, struct tv *own, int32_t e)
{
    const int64_t m = (int64_t)r->param[0], group = (e - r->first) / (int32_t)r->param[1];
    return twin_linear(columns(twin_linear(x, all, NULL), group * m, m), own, NULL);
}

/* A (γ ⊙ h + β [+ h ⊙ G h + B h]) */
static struct tv *film(const struct moe_spec *s, const struct expert_range *r, struct tv *const *all,
                       struct tv **const *each, int32_t e, struct tv *x)
{
    struct tv *h = twin_act(s->act, twin_linear(x, all[0], NULL), twin_linear(x, all[1], NULL));
    struct tv *gamma = twin_add_row(twin_zero(h->rows, h->cols), each[3][e]);
    struct tv *y = twin_add_row(twin_mul(h, gamma), each[4][e]);
    if (r->param[0] > 0)
        y = twin_add(y, twin_add(twin_mul(h, twin_linear(h, each[5][e], NULL)), twin_linear(h, each[6][e], NULL)));
    return twin_linear(y, all[2], NULL);
}

/* W2 (a(W1 x') ⊙ W3 x'), normed, swished */
static struct tv *normed(const struct moe_spec *s, const struct twin_moe *w, const struct expert_range *r, int32_t e,
                         struct tv *x)
{
    struct tv **const *each = w->expert_part[r->index], *sum = NULL;
    for (int m = 0; r->param[0] > 0 && m < (int)r->param[1]; m++) {
        struct tv *z = twin_linear(twin_linear(x, each[m][e], NULL), each[3 + m][e], NULL);
        struct tv *y = twin_scale(twin_sigmoid_mul(x, z), 2 / r->param[1]);
        sum = sum ? twin_add(sum, y) : y;
    }
    if (sum) x = sum;
    struct tv *u = twin_act(s->act, twin_linear(x, w->gate[e], NULL), w->up ? twin_linear(x, w->up[e], NULL) : NULL);
    struct tv *one = twin_zero(1, x->cols);
    for (int64_t j = 0; j < x->cols; j++) one->x[j] = 1;
    struct tv *y = twin_rmsnorm(twin_linear(u, w->down[e], NULL), one, 0, 1e-6);
    return r->param[2] > 0 ? y : twin_act(ACT_SILU, y, NULL);
}

struct row {
    struct tv *all, *row;
    int64_t t;
    bool up; /* the row was taken from `all`, else put into it */
};

static void row_back(void *saved)
{
    const struct row *s = saved;
    const int64_t n = s->all->cols;
    for (int64_t j = 0; j < n; j++)
        if (s->up) s->all->g[s->t * n + j] += s->row->g[j];
        else s->row->g[j] += s->all->g[s->t * n + j];
}

static struct tv *row_of(struct tv *all, struct tv *row, int64_t t, bool up)
{
    struct row *s = test_alloc(sizeof *s);
    const size_t bytes = (size_t)all->cols * sizeof(double);
    *s = (struct row){ all, row, t, up };
    memcpy(up ? row->x : all->x + t * all->cols, up ? all->x + t * all->cols : row->x, bytes);
    twin_note(row_back, s);
    return row;
}

/* One sequence: the state walks over the tokens that chose the expert. */
static struct tv *remembering(const struct twin_moe *w, const struct expert_range *r, int32_t e, struct tv *x,
                              const struct twin_route *route)
{
    struct tv *weight[5], *h = twin_zero(1, r->ffn), *y = twin_zero(x->rows, x->cols);
    for (int i = 0; i < 5; i++) weight[i] = w->expert_part[r->index][i][e];
    for (int64_t t = 0; t < x->rows; t++) {
        if (!route->chosen[t * route->spec->n_experts + e]) continue;
        h = twin_gru_cell(row_of(x, twin_zero(1, x->cols), t, true), h, weight);
        row_of(y, twin_linear(h, weight[4], NULL), t, false);
    }
    return y;
}

struct tv *twin_expert(const struct moe_spec *s, const struct twin_moe *w, int32_t e, struct tv *x,
                       const struct twin_route *route)
{
    const struct expert_range r = moe_range_of(s, e);
    struct tv *const *all = w->kind_part[r.index], **const *each = w->expert_part[r.index];
    if (!strcmp(r.kind, "copy")) return x;
    if (!strcmp(r.kind, "const")) return mixed(x, each[0][e], each[1][e]);
    if (!strcmp(r.kind, "gru")) return remembering(w, &r, e, x, route);
    if (!strcmp(r.kind, "rank1"))
        return twin_scale(outer(twin_linear(x, all[0], NULL), all[1], e - r.first), r.param[0] / s->router.top_k);
    if (!strcmp(r.kind, "lora"))
        return twin_scale(twin_linear(twin_linear(x, each[0][e], NULL), each[1][e], NULL), r.param[1] / r.param[0]);
    if (!strcmp(r.kind, "latent")) {
        struct tv *up = in_group(&r, x, all[1], each[3][e], e);
        return twin_linear(twin_act(s->act, in_group(&r, x, all[0], each[2][e], e), up), each[4][e], NULL);
    }
    if (!strcmp(r.kind, "normed")) return normed(s, w, &r, e, x);
    if (!strcmp(r.kind, "film")) return film(s, &r, all, each, e, x);
    fail_msg("the twin knows no expert of kind %s", r.kind);
    return NULL;
}
