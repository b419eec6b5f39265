/* cut.c — see cut.h. */
#include "model/cut.h"

#include <omp.h>
#include <string.h>

#include "tensor/quant/quant.h"

static int64_t parts_of(const struct cut_request *r) { return r->cut.parts ? r->cut.parts : 1; }

int32_t cut_shape(const struct cut_request *r, int64_t dim[MAX_DIMS])
{
    int32_t n = 0;
    const int64_t rows = r->rows * parts_of(r);
    if (r->cut.how & CUT_EXPERT) dim[n++] = r->n_experts;
    if (r->vector) {
        dim[n++] = r->cols * parts_of(r);
    } else if (r->cut.how & CUT_MXFP4) {
        dim[n++] = rows, dim[n++] = r->cols / 32, dim[n++] = 16;
    } else if (r->cut.how & CUT_IN_OUT) {
        dim[n++] = r->cols, dim[n++] = rows;
    } else {
        dim[n++] = rows, dim[n++] = r->cols;
    }
    return n;
}

/* Dimensions of one are no difference: a depthwise filter is [C, 1, K], a bias may be [1, E]. */
static bool same_shape(const struct tensor *t, const int64_t *dim, int32_t n)
{
    int32_t at = 0;
    for (int32_t i = 0; i < n; i++) {
        if (dim[i] == 1) continue;
        while (at < t->n_dims && t->dim[at] == 1) at++;
        if (at == t->n_dims || t->dim[at++] != dim[i]) return false;
    }
    while (at < t->n_dims && t->dim[at] == 1) at++;
    return at == t->n_dims;
}

/* Experts of the stored tensor: transformers 5 gives gate and up of LongCat rows for identity experts too. */
static bool counts_identity(const struct cut_request *r)
{
    return (r->cut.how & CUT_EXPERT) && r->n_identity && r->t->n_dims && r->t->dim[0] == r->n_experts + r->n_identity;
}

static coe_status check_shape(const struct cut_request *r)
{
    struct tensor want = { 0 };
    char got[96], asked[96];
    want.n_dims = cut_shape(r, want.dim);
    if ((r->cut.how & CUT_MXFP4) && r->cols % 32)
        return coe_fail(COE_E_INPUT, "%s: tensor %s: rows of %lld values are not whole MXFP4 groups", r->path,
                        r->t->name, (long long)r->cols);
    if (counts_identity(r)) want.dim[0] = r->t->dim[0];
    if (same_shape(r->t, want.dim, want.n_dims)) return COE_OK;
    return coe_fail(COE_E_INPUT, "%s: tensor %s is %s, expected %s", r->path, r->t->name, tensor_shape_text(r->t, got),
                    tensor_shape_text(&want, asked));
}

/* Row `row` of the place as a row of the expert's stored matrix (of a vector: its element). */
static int64_t stored_row(const struct cut_request *r, int64_t row, int64_t rows)
{
    return r->cut.how & CUT_ALTERNATE ? row * parts_of(r) + r->cut.part : r->cut.part * rows + row;
}

/* Elements before this expert's share */
static int64_t expert_start(const struct cut_request *r)
{
    const int64_t elements = r->vector ? r->cols : r->rows * r->cols;
    return r->cut.how & CUT_EXPERT ? r->expert * elements * parts_of(r) : 0;
}

static bool lies_together(const struct cut_request *r)
{
    if ((r->cut.how & CUT_IN_OUT) && !r->vector) return false;
    return !(r->cut.how & CUT_ALTERNATE) || parts_of(r) == 1;
}

/* Whole rows of blocks that the products read as they are */
static bool stays_packed(const struct cut_request *r)
{
    const struct dtype_info *d = &dtype_info[r->t->type];
    return d->x_block && !r->vector && !r->wide && lies_together(r) && r->cols % d->block == 0;
}

static const char *at(const struct cut_request *r, int64_t element)
{
    const struct dtype_info *d = &dtype_info[r->t->type];
    return (const char *)r->t->data + element / d->block * d->bytes;
}

/* First element of a share that lies together */
static int64_t first_element(const struct cut_request *r)
{
    return expert_start(r) + (r->vector ? r->cut.part * r->cols : r->cut.part * r->rows * r->cols);
}

/* ---- checks ---- */

static coe_status not_so(const struct cut_request *r)
{
    return coe_fail(COE_E_INPUT, "%s: tensor %s: %s in this layout", r->path, r->t->name, dtype_info[r->t->type].name);
}

/* How many rows and columns of the whole matrix share a scale, and how many scales it has down and across. */
struct scale_grid {
    int64_t rows, cols, down, across;
};
static struct scale_grid grid_of(const struct cut_request *r)
{
    const int64_t all = r->rows * parts_of(r);
    const bool one = tensor_count(r->scale) == 1;
    struct scale_grid g = { one ? all : r->block[0], one ? r->cols : r->block[1], 0, 0 };
    g.down = (all + g.rows - 1) / g.rows, g.across = (r->cols + g.cols - 1) / g.cols;
    return g;
}

static coe_status check_fp8(const struct cut_request *r)
{
    char got[96];
    const int64_t experts = r->cut.how & CUT_EXPERT ? r->n_experts : 1;
    const struct tensor *s = r->scale;
    if (!s)
        return coe_fail(COE_E_INPUT, "%s: tensor %s is FP8 and has no scales (%s_scale_inv)", r->path, r->t->name,
                        r->t->name);
    if (!lies_together(r) || r->vector) return not_so(r);
    const struct scale_grid g = grid_of(r);
    const bool plain = s->type == DT_F32 || s->type == DT_BF16 || s->type == DT_F16;
    if (plain && (tensor_count(s) == 1 || tensor_count(s) == experts * g.down * g.across)) return COE_OK;
    return coe_fail(COE_E_INPUT, "%s: tensor %s is %s of %s, expected [%lld, %lld] scales", r->path, s->name,
                    tensor_shape_text(s, got), dtype_info[s->type].name, (long long)g.down, (long long)g.across);
}

static coe_status check_mxfp4(const struct cut_request *r)
{
    const struct tensor *s = r->scale;
    if (r->t->type == DT_U8 && s && s->type == DT_U8 && tensor_count(s) * 16 == tensor_count(r->t)) return COE_OK;
    return coe_fail(COE_E_INPUT, "%s: tensor %s needs bytes here and one scale for every 16 of them", r->path,
                    r->t->name);
}

static coe_status check_heads(const struct cut_request *r)
{
    const struct tensor *k = r->t, *v = r->scale;
    char got[96];
    if (!v || k->n_dims != 3 || v->n_dims != 3 || k->dim[0] != v->dim[0] || k->dim[1] != r->cols ||
        v->dim[2] != r->cols || k->dim[0] * (k->dim[2] + v->dim[1]) != r->rows)
        return coe_fail(COE_E_INPUT, "%s: tensor %s is %s, which does not make [%lld, %lld] with the values beside it",
                        r->path, k->name, tensor_shape_text(k, got), (long long)r->rows, (long long)r->cols);
    if (k->dim[2] % dtype_info[k->type].block == 0 && r->cols % dtype_info[v->type].block == 0) return COE_OK;
    return coe_fail(COE_E_INPUT, "%s: tensor %s: heads are not whole blocks", r->path, k->name);
}

static bool is_plain(enum dtype t) { return t == DT_F32 || t == DT_F16 || t == DT_BF16; }

/* COE_OK for what cut_part can read; *type: what it is computed with when it has to be copied. */
static coe_status check(const struct cut_request *r, enum dtype *type)
{
    const enum dtype t = r->t->type;
    *type = is_plain(t) ? t : DT_F32;
    if (r->cut.how & CUT_HEAD_PAIR) {
        *type = DT_F32;
        return check_heads(r);
    }
    COE_TRY(check_shape(r));
    if (r->cut.how & CUT_MXFP4) {
        *type = DT_BF16;
        return check_mxfp4(r);
    }
    if (t == DT_F8_E4M3) return check_fp8(r);
    if (dtype_info[t].block > 1) return lies_together(r) && r->cols % dtype_info[t].block == 0 ? COE_OK : not_so(r);
    if (is_plain(t)) return COE_OK;
    return coe_fail(COE_E_INPUT,
                    "%s: tensor %s is stored as %s; this build computes with F32, F16, BF16 and packed types", r->path,
                    r->t->name, dtype_info[t].name);
}

/* ---- reading ---- */

/* n values of a tensor from element `first` on, which need not begin a block */
static void widen_from(const struct tensor *t, int64_t first, int64_t n, float *out)
{
    const struct dtype_info *d = &dtype_info[t->type];
    const char *from = (const char *)t->data + first / d->block * d->bytes;
    float one[256]; /* the longest block */
    int64_t skip = first % d->block;
    while (n > 0) {
        const int64_t whole = skip ? 0 : n / d->block * d->block;
        if (whole) {
            widen(out, from, t->type, whole);
            out += whole, n -= whole, from += whole / d->block * d->bytes;
            continue;
        }
        const int64_t some = COE_MIN(d->block - skip, n);
        widen(one, from, t->type, d->block);
        memcpy(out, one + skip, (size_t)some * sizeof *out);
        out += some, n -= some, from += d->bytes, skip = 0;
    }
}

/* n values, `step` elements apart, of a plain type */
static void widen_apart(const struct tensor *t, int64_t first, int64_t step, int64_t n, float *out)
{
    char some[256 * sizeof(float)];
    const size_t size = (size_t)dtype_info[t->type].bytes;
    const char *from = (const char *)t->data + (size_t)first * size;
    for (int64_t i = 0; i < n; i += 256) {
        const int64_t m = COE_MIN(256, n - i);
        for (int64_t k = 0; k < m; k++) memcpy(some + (size_t)k * size, from + (size_t)((i + k) * step) * size, size);
        widen(out + i, some, t->type, m);
    }
}

static void fp8_part(const struct cut_request *r, int64_t row, int64_t col, int64_t n, float *out)
{
    const struct scale_grid g = grid_of(r);
    const int64_t matrix = tensor_count(r->scale) == 1 || !(r->cut.how & CUT_EXPERT) ? 0 : r->expert;
    const int64_t scale_row = (matrix * g.down + (r->cut.part * r->rows + row) / g.rows) * g.across;
    const char *from = at(r, first_element(r) + row * r->cols);
    for (int64_t end = col + n, some; col < end; col += some, out += some) {
        float scale;
        some = COE_MIN(g.cols - col % g.cols, end - col);
        widen_from(r->scale, scale_row + col / g.cols, 1, &scale);
        fp8_decode_rows(out, from + col, &scale, 0, 1, some, 1, some);
    }
}

static void mxfp4_part(const struct cut_request *r, int64_t row, int64_t col, int64_t n, float *out)
{
    char blocks[64 * 17];
    float wide[64 * 32];
    const int64_t groups = r->cols / 32,
                  first = (r->expert * r->rows * parts_of(r) + stored_row(r, row, r->rows)) * groups;
    for (int64_t end = col + n, some; col < end; col += some, out += some) {
        const int64_t group = col / 32, m = COE_MIN(64, groups - group);
        some = COE_MIN(end - col, (group + m) * 32 - col);
        const int64_t used = (col % 32 + some + 31) / 32;
        mxfp4_from_pairs(blocks, (const char *)r->t->data + (first + group) * 16,
                         (const char *)r->scale->data + first + group, used * 32);
        widen(wide, blocks, DT_MXFP4, used * 32);
        memcpy(out, wide + col % 32, (size_t)some * sizeof *out);
    }
}

/* Rows of a head: [nope of k_b, turned round | v of v_b] */
static void head_part(const struct cut_request *r, int64_t row, int64_t col, int64_t n, float *out)
{
    const struct tensor *k = r->t, *v = r->scale;
    const int64_t nope = k->dim[2], v_dim = v->dim[1], head = row / (nope + v_dim), i = row % (nope + v_dim);
    if (i >= nope) widen_from(v, (head * v_dim + i - nope) * r->cols + col, n, out);
    else
        for (int64_t j = 0; j < n; j++) widen_from(k, (head * r->cols + col + j) * nope + i, 1, &out[j]);
}

void cut_part(const struct cut_request *r, int64_t row, int64_t col, int64_t n, float *out)
{
    if (r->cut.how & CUT_HEAD_PAIR) head_part(r, row, col, n, out);
    else if (r->cut.how & CUT_MXFP4) mxfp4_part(r, row, col, n, out);
    else if (r->t->type == DT_F8_E4M3) fp8_part(r, row, col, n, out);
    else if (r->vector && lies_together(r)) widen_from(r->t, first_element(r) + col, n, out);
    else if (r->vector) widen_apart(r->t, expert_start(r) + stored_row(r, col, r->cols), parts_of(r), n, out);
    else if (r->cut.how & CUT_IN_OUT) {
        const int64_t all = r->rows * parts_of(r);
        widen_apart(r->t, expert_start(r) + col * all + stored_row(r, row, r->rows), all, n, out);
    } else widen_from(r->t, expert_start(r) + stored_row(r, row, r->rows) * r->cols + col, n, out);
}

enum dtype cut_packed_type(const struct cut_request *r)
{
    if (r->cut.how & CUT_HEAD_PAIR || r->vector) return DT_COUNT;
    if (r->cut.how & CUT_MXFP4) return DT_MXFP4;
    const struct dtype_info *d = &dtype_info[r->t->type];
    return d->block > 1 && lies_together(r) && r->cols % d->block == 0 ? r->t->type : DT_COUNT;
}

void cut_packed_row(const struct cut_request *r, int64_t row, void *out)
{
    const struct dtype_info *d = &dtype_info[r->t->type];
    if (r->cut.how & CUT_MXFP4) {
        const int64_t groups = r->cols / 32,
                      group = (r->expert * r->rows * parts_of(r) + stored_row(r, row, r->rows)) * groups;
        mxfp4_from_pairs(out, (const char *)r->t->data + group * 16, (const char *)r->scale->data + group, r->cols);
    } else memcpy(out, at(r, first_element(r) + row * r->cols), (size_t)(r->cols / d->block * d->bytes));
}

/* ---- taking ---- */

/* All rows, in the type of *w */
static coe_status copy_rows(struct weight *w, struct arena *a, const struct cut_request *r)
{
    const int64_t rows = r->vector ? 1 : r->rows, cols = r->cols;
    char *out = arena_push(a, (size_t)(rows * cols) * (size_t)dtype_info[w->type].bytes);
    if (!out) return COE_E_NOMEM;
    w->data = out;
    struct arena_mark mark = arena_save(a);
    float *wide = arena_push(a, (size_t)omp_get_max_threads() * (size_t)cols * sizeof *wide);
    if (!wide) return COE_E_NOMEM;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < rows; i++) {
        float *x = wide + (int64_t)omp_get_thread_num() * cols;
        cut_part(r, i, 0, cols, x);
        if (w->type == DT_F32) memcpy(out + (size_t)(i * cols) * sizeof *x, x, (size_t)cols * sizeof *x);
        else narrow(out + i * cols * dtype_info[w->type].bytes, w->type, x, cols);
    }
    arena_rewind(a, mark);
    return COE_OK;
}

/* The same for pairs of heads: k_b is read along its own rows. */
static coe_status copy_heads(struct weight *w, struct arena *a, const struct cut_request *r)
{
    const struct tensor *k = r->t, *v = r->scale;
    const int64_t heads = k->dim[0], nope = k->dim[2], v_dim = v->dim[1], rank = r->cols;
    float *out = arena_push(a, (size_t)(r->rows * rank) * sizeof *out);
    if (!out) return COE_E_NOMEM;
    w->data = out;
    struct arena_mark mark = arena_save(a);
    float *wide = arena_push(a, (size_t)nope * sizeof *wide);
    if (!wide) return COE_E_NOMEM;
    for (int64_t h = 0; h < heads; h++) {
        float *head = out + h * (nope + v_dim) * rank;
        for (int64_t j = 0; j < rank; j++) {
            widen_from(k, (h * rank + j) * nope, nope, wide);
            for (int64_t i = 0; i < nope; i++) head[i * rank + j] = wide[i];
        }
        widen_from(v, h * v_dim * rank, v_dim * rank, head + nope * rank);
    }
    arena_rewind(a, mark);
    return COE_OK;
}

/* Used where it is: values of a type that products read, one row behind the other. */
static bool in_place(const struct cut_request *r)
{
    if (r->cut.how & (CUT_HEAD_PAIR | CUT_MXFP4) || !lies_together(r)) return false;
    return is_plain(r->t->type) || stays_packed(r);
}

coe_status cut_take(struct weight *w, struct arena *a, const struct cut_request *r)
{
    COE_TRY(check(r, &w->type));
    w->data = NULL;
    if (in_place(r)) {
        w->type = r->t->type;
        w->data = at(r, first_element(r));
    } else if (!r->later || r->vector) return r->cut.how & CUT_HEAD_PAIR ? copy_heads(w, a, r) : copy_rows(w, a, r);
    return COE_OK;
}
