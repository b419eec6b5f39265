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

/* Threads own tokens or, for few tokens, column strips: each output element is one chain either way. */
void experts_combine(struct expert_call *call, const struct expert_range *g, const float *rows)
{
    const struct route *r = call->route;
    const int64_t d = call->y->cols, strip = r->n_tokens >= 8 ? d : 256, strips = (d + strip - 1) / strip;
    const int32_t from = range_row(r, g), end = from + range_rows(r, g);
    const bool first = !call->filled, weighed = call->spec->weigh_input;
    call->filled = true;
    if (from == end && !first) return;
#pragma omp parallel for collapse(2) schedule(static) if ((end - from) * d > NN_ALONE_BELOW)
    for (int32_t t = 0; t < r->n_tokens; t++)
        for (int64_t s = 0; s < strips; s++) {
            const int64_t j = s * strip, n = COE_MIN(strip, d - j);
            float *out = call->y->data + t * d + j;
            if (first) memset(out, 0, (size_t)n * sizeof(float));
            for (int32_t last = -1, slot; (slot = next_slot(r, t, from, end, &last)) >= 0;)
                kern->fma_row(out, weighed ? 1.0f : r->weight[slot], rows + (last - from) * d + j, n);
        }
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

struct gathered {
    struct val *x, *rows;
    const struct route *route;
    struct expert_range range;
};

static void gather_back(struct nn *c, void *saved)
{
    const struct gathered *s = saved;
    if (!s->rows->grad) return;
    float *dx = nn_grad(c, s->x);
    if (dx) experts_add_dx(dx, s->route, &s->range, s->rows->grad, s->x->cols);
}

static struct val *gather(struct nn *c, struct expert_call *call, const struct expert_range *g)
{
    const struct route *r = call->route;
    const int64_t d = call->x->cols;
    const int32_t from = range_row(r, g), n = range_rows(r, g);
    struct val *rows = nn_val(c, n, d);
    struct gathered *s = arena_push(c->arena, sizeof *s);
    if (!rows || !s) return NULL;
    *s = (struct gathered){ call->x, rows, r, *g };
    for (int32_t i = 0; i < n; i++)
        memcpy(rows->data + i * d, call->x->data + r->row_token[from + i] * d, (size_t)d * sizeof(float));
    return nn_record(c, gather_back, s) ? rows : NULL;
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
    float *drows = nn_grad(c, s->rows);
    if (!drows) return;
#pragma omp parallel for schedule(static)
    for (int32_t i = 0; i < (int32_t)s->rows->rows; i++) {
        const int32_t slot = r->row_slot[s->from + i];
        const float *dy = s->y->grad + r->row_token[s->from + i] * d;
        r->weight_grad[slot] += kern->dot(dy, s->rows->data + i * d, d);
        kern->fma_row(drows + i * d, r->weight[slot], dy, d);
    }
}

coe_status experts_composed(struct nn *c, struct expert_call *call, const struct expert_range *g,
                            struct val *(*body)(struct nn *c, const struct expert_rows *rows))
{
    const struct route *r = call->route;
    const int32_t from = range_row(r, g), n = range_rows(r, g);
    const int64_t d = call->x->cols;
    if (!n) {
        experts_combine(call, g, NULL);
        return COE_OK;
    }
    struct weighed *s = arena_push(c->arena, sizeof *s);
    const struct arena_mark mark = arena_save(c->arena);
    const struct expert_rows in = { call, g, gather(c, call, g), { g->n, r->off + g->first } };
    struct val *rows = in.x && s ? body(c, &in) : NULL;
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

/* The products index rows of the route; the arrays of a range begin at its first. */
static const int32_t *from_zero(struct nn *c, struct groups of)
{
    int32_t *off = arena_push(c->arena, (size_t)(of.n + 1) * sizeof *off);
    for (int32_t e = 0; off && e <= of.n; e++) off[e] = of.off[e] - of.off[0];
    return off;
}

static void linear_back(struct nn *c, void *saved)
{
    const struct grouped *s = saved;
    if (!s->y->grad) return;
    bool fresh = false;
    float *dx = nn_grad_raw(c, s->x, &fresh);
    if (!dx) return;
    gemm_grouped_dx(dx, s->x->cols, s->y->grad, s->y->cols, NULL, s->of, s->w, !fresh);
    if (s->w[0]->grad) gemm_grouped_dw(s->w, s->y->grad, s->y->cols, NULL, s->x->data, s->x->cols, NULL, s->of);
}

struct val *experts_linear(struct nn *c, struct val *x, struct groups of, const struct weight *const *w)
{
    struct grouped *s = x ? arena_push(c->arena, sizeof *s) : NULL;
    const int32_t *off = s ? from_zero(c, of) : NULL;
    struct val *y = off ? nn_val(c, x->rows, w[0]->rows) : NULL;
    if (!y) return NULL;
    *s = (struct grouped){ x, y, { of.n, off }, w };
    return nn_grouped(c, y->data, y->cols, x, NULL, s->of, w) && nn_record(c, linear_back, s) ? y : NULL;
}
