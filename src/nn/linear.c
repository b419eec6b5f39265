/* linear.c — embedding rows and products with a weight matrix. */
#include <string.h>

#include "nn/nn.h"
#include "tensor/low_rank.h"

struct embed_saved {
    const int32_t *ids;
    const struct weight *w;
    struct val *y;
};

/* Threads own columns, so each row of the gradient is one chain over the tokens in ascending order. */
static void embed_back(struct nn *c, void *p)
{
    (void)c;
    struct embed_saved *s = p;
    if (!s->w->grad || !s->y->grad) return;
    const int64_t d = s->y->cols, strips = (d + 63) / 64;
#pragma omp parallel for schedule(static)
    for (int64_t strip = 0; strip < strips; strip++) {
        int64_t j = strip * 64, n = COE_MIN((int64_t)64, d - j);
        for (int64_t t = 0; t < s->y->rows; t++) kern->add(s->w->grad + s->ids[t] * d + j, s->y->grad + t * d + j, n);
    }
}

struct val *nn_embed(struct nn *c, const int32_t *ids, int64_t n, const struct weight *w)
{
    struct val *y = nn_val(c, n, w->cols);
    if (!y) return NULL;
    uint64_t row_bytes = 0;
    dtype_bytes(w->type, (uint64_t)w->cols, &row_bytes);
    for (int64_t t = 0; t < n; t++)
        widen(y->data + t * w->cols, (const char *)w->data + (size_t)ids[t] * row_bytes, w->type, w->cols);
    if (!c->tape) return y;
    struct embed_saved *s = arena_push(c->arena, sizeof *s);
    int32_t *kept = arena_push(c->arena, (size_t)n * sizeof *kept);
    if (!s || !kept) return NULL;
    memcpy(kept, ids, (size_t)n * sizeof *kept);
    *s = (struct embed_saved){ kept, w, y };
    return nn_record(c, embed_back, s) ? y : NULL;
}

int32_t nn_code_block(const struct nn *c, enum dtype t)
{
    return t == DT_BF16 && c->math == COE_MATH_BF16 ? 1 : dtype_info[t].x_block;
}

const struct codes *nn_codes(struct nn *c, struct val *x, int32_t block)
{
    const struct codes **kept = &x->codes[codes_kind(block)];
    if (*kept) return *kept;
    struct codes *made = arena_push(c->arena, sizeof *made);
    void *memory = arena_push(c->arena, codes_bytes(x->rows, x->cols, block));
    if (!made || !memory) return NULL;
    codes_make(made, memory, x->data, x->cols, x->rows, x->cols, block);
    return *kept = made;
}

bool nn_codes_for(struct nn *c, struct val *x, struct groups g, const struct weight *const *w)
{
    for (int32_t i = 0; i < g.n; i++) {
        const int32_t block = g.off[i + 1] > g.off[i] ? nn_code_block(c, w[i]->type) : 0;
        if (block && !nn_codes(c, x, block)) return false;
    }
    return true;
}

bool nn_grouped(struct nn *c, float *y, int64_t ldy, struct val *x, const int32_t *xrow, struct groups g,
                const struct weight *const *w)
{
    if (!nn_codes_for(c, x, g, w)) return false;
    gemm_grouped_xwt(y, ldy, x->data, x->cols, x->codes, xrow, g, w);
    low_rank_add(y, ldy, x->data, x->cols, xrow, g, w);
    return true;
}

struct linear_saved {
    struct val *x, *y;
    const struct weight *w, *b;
};

static void linear_back(struct nn *c, void *p)
{
    struct linear_saved *s = p;
    if (!s->y->grad) return;
    gemm_dw(s->w, s->b, s->y->grad, s->y->cols, s->x->data, s->x->cols, s->x->rows);
    bool fresh;
    float *dx = nn_grad_raw(c, s->x, &fresh);
    if (dx) gemm_dx(dx, s->x->cols, s->y->grad, s->y->cols, s->x->rows, s->w, !fresh);
}

struct val *nn_linear(struct nn *c, struct val *x, const struct weight *w, const struct weight *b)
{
    if (!x) return NULL;
    assert(x->cols == w->cols);
    struct val *y = nn_val(c, x->rows, w->rows);
    if (!y) return NULL;
    const int32_t block = nn_code_block(c, w->type);
    const struct codes *codes = block ? nn_codes(c, x, block) : NULL;
    if (block && !codes) return NULL;
    if (block)
        gemm_codes_xwt(y->data, y->cols, codes, w, b);
    else
        gemm_xwt(y->data, y->cols, x->data, x->cols, x->rows, w, b);
    const int32_t off[2] = { 0, (int32_t)x->rows };
    low_rank_add(y->data, y->cols, x->data, x->cols, NULL, (struct groups){ 1, off }, &w);
    if (!c->tape) return y;
    struct linear_saved *s = arena_push(c->arena, sizeof *s);
    if (!s) return NULL;
    *s = (struct linear_saved){ x, y, w, b };
    return nn_record(c, linear_back, s) ? y : NULL;
}
