/* rows.c — rows of a range: from outputs to tokens and back, and kinds that are made of recorded operations. */
#include "moe/experts/rows.h"

#include <string.h>

/* The token's next slot behind row *last, in [from, end); -1 behind the last. Slots are by weight, rows by expert. */
static int32_t next_slot(const struct route *r, int32_t t, int32_t from, int32_t end, int32_t *last)
{
    int32_t row = end, slot = -1;
    for (int32_t q = r->tok_off[t]; q < r->tok_off[t + 1]; q++)
        if (r->slot_row[q] > *last && r->slot_row[q] >= from && r->slot_row[q] < row) row = r->slot_row[q], slot = q;
    *last = row;
    return slot;
}

void experts_begin(struct expert_call *call)
{
    if (!call->filled) memset(call->y->data, 0, (size_t)(call->y->rows * call->y->cols) * sizeof(float));
    call->filled = true;
}

/* Threads own tokens or, for few tokens, column strips: each output element is one chain either way. */
void experts_combine(struct expert_call *call, const struct expert_range *g, const float *rows)
{
    const struct route *r = call->route;
    const int64_t d = call->y->cols, strip = r->n_tokens >= 8 ? d : 256, strips = (d + strip - 1) / strip;
    const int32_t from = range_row(r, g), end = from + range_rows(r, g);
    const bool first = !call->filled, weighed = call->spec->weigh_input;
    call->filled = true;
    if (from == end && !first) return;
    COE_SPREAD((end - from) * d > NN_ALONE_BELOW, for (int64_t i = 0; i < r->n_tokens * strips; i++), {
        const int32_t t = (int32_t)(i / strips);
        const int64_t j = i % strips * strip, n = COE_MIN(strip, d - j);
        float *out = call->y->data + t * d + j;
        if (first) memset(out, 0, (size_t)n * sizeof(float));
        for (int32_t last = -1, slot; (slot = next_slot(r, t, from, end, &last)) >= 0;)
            kern->fma_row(out, weighed ? 1.0f : r->weight[slot], rows + (last - from) * d + j, n);
    });
}

void experts_add_dx(float *dx, const struct route *r, const struct expert_range *g, const float *da, int64_t d)
{
    const int32_t from = range_row(r, g), end = from + range_rows(r, g);
#pragma omp parallel for schedule(static)
    for (int32_t t = 0; t < r->n_tokens; t++)
        for (int32_t last = -1; next_slot(r, t, from, end, &last) >= 0;)
            kern->add(dx + t * d, da + (last - from) * d, d);
}

/* ---- kinds made of operations ---- */

struct picked {
    struct val *x, *y;
    const int32_t *row;
};

/* Threads own columns: a row that was picked several times gets its gradients in ascending order of i. */
static void pick_back(struct nn *c, void *saved)
{
    const struct picked *s = saved;
    if (!s->y->grad) return;
    float *dx = nn_grad(c, s->x);
    const int64_t d = s->x->cols, strip = d < 1024 ? 64 : 256, n = s->y->rows;
    if (!dx) return;
#pragma omp parallel for schedule(static) if (n * d > NN_ALONE_BELOW)
    for (int64_t j = 0; j < d; j += strip)
        for (int64_t i = 0; i < n; i++)
            kern->add(dx + s->row[i] * d + j, s->y->grad + i * d + j, COE_MIN(strip, d - j));
}

struct val *experts_pick(struct nn *c, struct val *x, const int32_t *row, int64_t n)
{
    struct val *y = x ? nn_val(c, n, x->cols) : NULL;
    struct picked *s = y ? arena_push(c->arena, sizeof *s) : NULL;
    if (!s) return NULL;
    *s = (struct picked){ x, y, row };
    COE_SPREAD(n * x->cols > NN_ALONE_BELOW, for (int64_t i = 0; i < n; i++),
               memcpy(y->data + i * x->cols, x->data + row[i] * x->cols, (size_t)x->cols * sizeof(float)));
    return nn_record(c, pick_back, s) ? y : NULL;
}

struct val *experts_inputs(struct nn *c, const struct expert_rows *rows)
{
    const struct route *r = rows->call->route;
    const int32_t from = range_row(r, rows->range);
    return experts_pick(c, rows->call->x, r->row_token + from, rows->n);
}

struct weighed {
    struct val *y, *rows;
    const struct route *route;
    int32_t from;
};

static void weigh_back(struct nn *c, void *saved)
{
    const struct weighed *s = saved;
    const struct route *r = s->route;
    const int64_t d = s->y->cols;
    if (!s->y->grad) return;
    bool fresh;
    float *drows = nn_grad_raw(c, s->rows, &fresh);
    if (!drows) return;
#pragma omp parallel for schedule(static)
    for (int32_t i = 0; i < (int32_t)s->rows->rows; i++) {
        const int32_t slot = r->row_slot[s->from + i];
        const float *dy = s->y->grad + r->row_token[s->from + i] * d;
        r->weight_grad[slot] += kern->dot(dy, s->rows->data + i * d, d);
        if (fresh)
            kern->scale(drows + i * d, dy, r->weight[slot], d);
        else
            kern->fma_row(drows + i * d, r->weight[slot], dy, d);
    }
}

/* Counted from the range's first row, as its arrays are. */
static const int32_t *from_zero(struct nn *c, const int32_t *from, int32_t n)
{
    int32_t *off = arena_push(c->arena, (size_t)(n + 1) * sizeof *off);
    for (int32_t e = 0; off && e <= n; e++) off[e] = from[e] - from[0];
    return off;
}

coe_status experts_composed(struct nn *c, struct expert_call *call, const struct expert_range *g,
                            struct val *(*body)(struct nn *c, const struct expert_rows *rows))
{
    const struct route *r = call->route;
    const int32_t from = range_row(r, g), n = range_rows(r, g);
    const int64_t d = call->y->cols;
    if (!n) {
        experts_combine(call, g, NULL);
        return COE_OK;
    }
    struct weighed *s = arena_push(c->arena, sizeof *s);
    const struct arena_mark mark = arena_save(c->arena);
    const int32_t *off = from_zero(c, r->off + g->first, g->n);
    const struct expert_rows in = { call, g, n, { g->n, off } };
    struct val *rows = off && s ? body(c, &in) : NULL;
    if (!rows) return coe_last_status();
    assert(rows->rows == n && rows->cols == d);
    if (call->rows) memcpy(call->rows + from * d, rows->data, (size_t)(n * d) * sizeof(float));
    experts_combine(call, g, rows->data);
    *s = (struct weighed){ call->y, rows, r, from };
    if (!c->tape) arena_rewind(c->arena, mark);
    return nn_record(c, weigh_back, s) ? COE_OK : COE_E_NOMEM;
}

struct grouped {
    struct val *x, *y;
    struct groups of;
    const struct weight *const *w;
};

static void linear_back(struct nn *c, void *saved)
{
    const struct grouped *s = saved;
    if (!s->y->grad) return;
    bool fresh = false;
    float *dx = nn_grad_raw(c, s->x, &fresh);
    if (!dx) return;
    gemm_grouped_dx(dx, s->x->cols, s->y->grad, s->y->cols, NULL, s->of, s->w, !fresh);
    gemm_grouped_dw(s->w, s->y->grad, s->y->cols, NULL, s->x->data, s->x->cols, NULL, s->of);
}

struct val *experts_linear(struct nn *c, struct val *x, struct groups of, const struct weight *const *w)
{
    struct grouped *s = x ? arena_push(c->arena, sizeof *s) : NULL;
    struct val *y = s ? nn_val(c, x->rows, w[0]->rows) : NULL;
    if (!y) return NULL;
    *s = (struct grouped){ x, y, of, w };
    return nn_grouped(c, y->data, y->cols, x, NULL, of, w) && nn_record(c, linear_back, s) ? y : NULL;
}

const struct weight *const *experts_blocks(struct nn *c, const struct weight *all, int32_t n)
{
    struct weight *w = arena_push(c->arena, (size_t)n * sizeof *w);
    const struct weight **row = arena_push(c->arena, (size_t)n * sizeof *row);
    const bool vector = all->rows == 1;
    const int64_t rows = vector ? 1 : all->rows / n, cols = vector ? all->cols / n : all->cols;
    if (all->low_rank) {
        (void)coe_fail(COE_E_USAGE, "%s is read in %d pieces, and a low-rank adapter of it cannot be", all->name, n);
        return NULL;
    }
    for (int32_t g = 0; w && row && g < n; g++) {
        uint64_t at = 0;
        const int64_t skip = g * rows * cols;
        (void)dtype_bytes(all->type, (uint64_t)skip, &at); /* within a tensor that was read */
        w[g] = (struct weight){ .name = all->name, .type = all->type, .rows = rows, .cols = cols,
                                .data = (const char *)all->data + at };
        if (all->grad) w[g].master = all->master + skip, w[g].grad = all->grad + skip;
        row[g] = &w[g];
    }
    return w ? row : NULL;
}

struct bias_saved {
    struct val *x;
    struct groups of;
    const struct weight *const *b;
};

static void bias_back(struct nn *c, void *saved)
{
    const struct bias_saved *s = saved;
    (void)c;
    for (int32_t e = 0; s->x->grad && e < s->of.n; e++)
        for (int32_t i = s->of.off[e]; s->b[e]->grad && i < s->of.off[e + 1]; i++)
            kern->add(s->b[e]->grad, s->x->grad + i * s->x->cols, s->x->cols);
}

struct val *experts_add_bias(struct nn *c, struct val *x, struct groups of, const struct weight *const *b)
{
    struct bias_saved *s = x ? arena_push(c->arena, sizeof *s) : NULL;
    if (!s) return NULL;
    *s = (struct bias_saved){ x, of, b };
    for (int32_t e = 0; e < of.n; e++)
        for (int32_t i = of.off[e]; i < of.off[e + 1]; i++) kern->add(x->data + i * x->cols, b[e]->data, x->cols);
    return nn_record(c, bias_back, s) ? x : NULL;
}

void experts_show_hidden(const struct expert_rows *rows, const struct val *u)
{
    const int64_t stride = rows->call->spec->expert_ffn, from = range_row(rows->call->route, rows->range);
    for (int64_t i = 0; rows->call->hidden && i < rows->n; i++)
        memcpy(rows->call->hidden + (from + i) * stride, u->data + i * u->cols, (size_t)u->cols * sizeof(float));
}
