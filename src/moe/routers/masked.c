/* masked.c — see masked.h. Sums are those of nn_linear over the masked rows: dots forward, chains backward, over rows
 * in ascending order. */
#include "moe/routers/masked.h"

#include <string.h>

#include "base/rng.h"
#include "tensor/half.h"
#include "tensor/low_rank.h"

#define ROWS 64 /* of a strip */
#define COLS 64 /* of the gradient of the matrix that one task owns */

struct saved {
    struct val *x, *z;
    const struct weight *w, *b;
    const float *wide; /* [E, d] the matrix as it acts */
    uint8_t *kept;     /* [T, d] */
    float scale;
};

/* 16 bits of a random number for each of elements first … first + n - 1 of x; kept from `least` on */
static void draw(uint8_t *kept, uint64_t seed, uint64_t stream, int64_t first, int64_t n, uint64_t least)
{
    uint64_t bits = rng_at(seed, stream, (uint64_t)first / 4) >> 16 * (first % 4);
    for (int64_t i = 0; i < n; i++, bits >>= 16) {
        if (i && (first + i) % 4 == 0) bits = rng_at(seed, stream, (uint64_t)(first + i) / 4);
        kept[i] = (bits & 0xFFFF) >= least;
    }
}

/* v or +0, without a branch: loops over it become vectors */
static inline float keep(float v, uint8_t kept) { return float_of_bits(bits_of_float(v) & (0u - kept)); }

static void mask(float *restrict y, const float *restrict x, const uint8_t *restrict kept, float scale, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = keep(scale * x[i], kept[i]);
}

static void add_mask(float *restrict y, const float *restrict x, const uint8_t *restrict kept, float scale, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] += keep(scale * x[i], kept[i]);
}

/* The products count as those of gemm.h do. */
static void count(double began, const struct saved *s, int products)
{
    if (!gemm_clock.on) return;
    gemm_clock.seconds += coe_now() - began;
    gemm_clock.operations += 2.0 * (double)s->x->rows * (double)weight_count(s->w) * products;
}

static bool worth_threads(const struct saved *s)
{
    return s->x->rows > ROWS && s->x->rows * s->x->cols > NN_ALONE_BELOW;
}

/* dx += mask of (dz W) */
static void input_back(const struct saved *s, float *dx, float *scratch)
{
    const int64_t d = s->x->cols, e = s->z->cols, n = s->x->rows;
    COE_SPREAD(worth_threads(s), for (int64_t t = 0; t < n; t += ROWS), {
        const int64_t m = COE_MIN((int64_t)ROWS, n - t);
        float *rows = scratch + thread_index() * ROWS * d;
        kern->outer_tile(&(struct outer_args){ .c = rows, .ldc = d, .a = s->z->grad + t * e, .a_m = e, .a_k = 1,
                                               .b = s->wide, .ldb = d, .m = m, .n = d, .k = e });
        add_mask(dx + t * d, rows, s->kept + t * d, s->scale, m * d);
    });
}

/* dw [E, d] += dzᵀ · masked x; a task owns columns and walks the rows */
static void matrix_back(const struct saved *s, float *dw)
{
    const int64_t d = s->x->cols, e = s->z->cols, n = s->x->rows;
    COE_SPREAD(worth_threads(s), for (int64_t j = 0; j < d; j += COLS), {
        const int64_t cols = COE_MIN((int64_t)COLS, d - j);
        float part[ROWS * COLS];
        for (int64_t t = 0; t < n; t += ROWS) {
            const int64_t m = COE_MIN((int64_t)ROWS, n - t);
            for (int64_t r = 0; r < m; r++) {
                const int64_t at = (t + r) * d + j;
                mask(part + r * COLS, s->x->data + at, s->kept + at, s->scale, cols);
            }
            kern->outer_tile(&(struct outer_args){ .c = dw + j, .ldc = d, .a = s->z->grad + t * e, .a_m = 1, .a_k = e,
                                                   .b = part, .ldb = COLS, .m = e, .n = cols, .k = m,
                                                   .accumulate = true });
        }
    });
}

/* From the gradient of W + scale·B·A to those of its factors */
static void factors_back(const struct weight *w, const float *dw)
{
    const struct low_rank *l = w->low_rank;
    const int64_t d = w->cols, r = l->a->rows;
    for (int64_t e = 0; e < w->rows; e++)
        for (int64_t k = 0; k < r; k++) {
            const float b = l->b->master[e * r + k];
            l->b->grad[e * r + k] += l->scale * kern->dot(dw + e * d, l->a->master + k * d, d);
            kern->fma_row(l->a->grad + k * d, l->scale * b, dw + e * d, d);
        }
}

static void back(struct nn *c, void *p)
{
    const struct saved *s = p;
    const int64_t d = s->x->cols, e = s->z->cols;
    const bool factors = s->w->low_rank && s->w->low_rank->b->grad;
    float *dx = s->z->grad ? nn_grad(c, s->x) : NULL;
    if (!dx) return;
    const struct arena_mark mark = arena_save(c->arena);
    float *scratch = arena_push(c->arena, (size_t)(coe_threads() * ROWS * d) * sizeof *scratch);
    float *dw = factors ? arena_push_zero(c->arena, (size_t)(e * d) * sizeof *dw) : s->w->grad;
    if (!scratch || (factors && !dw)) return;
    const double began = gemm_clock.on ? coe_now() : 0;
    input_back(s, dx, scratch);
    if (dw) matrix_back(s, dw);
    if (factors) {
        factors_back(s->w, dw);
        if (s->w->grad) kern->add(s->w->grad, dw, e * d);
    }
    for (int64_t t = 0; s->b && s->b->grad && t < s->x->rows; t++) kern->add(s->b->grad, s->z->grad + t * e, e);
    count(began, s, dw ? 2 : 1);
    arena_rewind(c->arena, mark);
}

static void products(const struct saved *s, float *scratch, uint64_t seed, uint64_t stream, uint64_t least)
{
    const int64_t d = s->x->cols, e = s->z->cols, n = s->x->rows;
    COE_SPREAD(worth_threads(s), for (int64_t t = 0; t < n; t += ROWS), {
        const int64_t m = COE_MIN((int64_t)ROWS, n - t);
        float *rows = scratch + thread_index() * ROWS * d;
        draw(s->kept + t * d, seed, stream, t * d, m * d, least);
        mask(rows, s->x->data + t * d, s->kept + t * d, s->scale, m * d);
        kern->dot_tile(s->z->data + t * e, e, rows, d, NULL, m, s->wide, DT_F32, d, e, d);
        for (int64_t r = t; s->b && r < t + m; r++) kern->add(s->z->data + r * e, s->b->data, e);
    });
}

static bool widen_matrix(struct nn *c, struct saved *s)
{
    const struct weight *w = s->w;
    const int64_t d = w->cols;
    if (w->type == DT_F32 && !w->low_rank) {
        s->wide = w->data;
        return true;
    }
    float *wide = arena_push(c->arena, (size_t)weight_count(w) * sizeof *wide);
    for (int64_t e = 0; wide && e < w->rows; e++) {
        const int64_t row_bytes = d / dtype_info[w->type].block * dtype_info[w->type].bytes;
        widen(wide + e * d, (const char *)w->data + e * row_bytes, w->type, d);
        if (w->low_rank) low_rank_values(wide + e * d, w->low_rank, e, 0, d);
    }
    return (s->wide = wide);
}

struct val *masked_linear(struct nn *c, struct val *x, const struct weight *w, const struct weight *b, double rate)
{
    struct saved *s = x ? arena_push(c->arena, sizeof *s) : NULL;
    struct val *z = s ? nn_val(c, x->rows, w->rows) : NULL;
    if (!z) return NULL;
    const uint64_t least = (uint64_t)(rate * 65536),
                   stream = rng_stream(RNG_DROPOUT, c->step << 16 | (c->dropout_index++ & 0xFFFF));
    *s = (struct saved){ .x = x, .z = z, .w = w, .b = b, .scale = 65536.0f / (float)(65536 - least) };
    s->kept = arena_push(c->arena, (size_t)(x->rows * x->cols));
    if (!s->kept || !widen_matrix(c, s)) return NULL;
    const struct arena_mark mark = arena_save(c->arena);
    float *scratch = arena_push(c->arena, (size_t)(coe_threads() * ROWS * x->cols) * sizeof *scratch);
    if (!scratch) return NULL;
    const double began = gemm_clock.on ? coe_now() : 0;
    products(s, scratch, c->seed, stream, least);
    count(began, s, 1);
    arena_rewind(c->arena, mark);
    return nn_record(c, back, s) ? z : NULL;
}
