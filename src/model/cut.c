/* cut.c — see cut.h. */
#include "model/cut.h"

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

static coe_status check_shape(const struct cut_request *r)
{
    struct tensor want = { 0 };
    char got[96], asked[96];
    want.n_dims = cut_shape(r, want.dim);
    if ((r->cut.how & CUT_MXFP4) && r->cols % 32)
        return coe_fail(COE_E_INPUT, "%s: tensor %s: rows of %lld values are not whole MXFP4 groups", r->path,
                        r->t->name, (long long)r->cols);
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

/* Element by element, in the type of the file */
static coe_status gather(struct weight *w, struct arena *a, const struct cut_request *r)
{
    const size_t size = (size_t)dtype_info[r->t->type].bytes;
    const int64_t rows = r->vector ? r->cols : r->rows, cols = r->vector ? 1 : r->cols, start = expert_start(r),
                  all = rows * parts_of(r);
    const bool turned = (r->cut.how & CUT_IN_OUT) && !r->vector;
    char *out = arena_push(a, (size_t)(rows * cols) * size);
    if (!out) return COE_E_NOMEM;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < rows; i++) {
        const int64_t row = stored_row(r, i, rows);
        if (!turned) {
            memcpy(out + (size_t)(i * cols) * size, at(r, start + row * cols), (size_t)cols * size);
            continue;
        }
        for (int64_t j = 0; j < cols; j++)
            memcpy(out + (size_t)(i * cols + j) * size, at(r, start + j * all + row), size);
    }
    w->type = r->t->type;
    w->data = out;
    return COE_OK;
}

static coe_status wide_scales(const float **out, struct arena *a, const struct tensor *scale, int64_t n)
{
    float *wide = arena_push(a, (size_t)n * sizeof *wide);
    if (!wide) return COE_E_NOMEM;
    widen(wide, scale->data, scale->type, n);
    *out = wide;
    return COE_OK;
}

static coe_status unpack_fp8(struct weight *w, struct arena *a, const struct cut_request *r)
{
    char got[96];
    const int64_t all = r->rows * parts_of(r), experts = r->cut.how & CUT_EXPERT ? r->n_experts : 1;
    const struct tensor *s = r->scale;
    if (!s)
        return coe_fail(COE_E_INPUT, "%s: tensor %s is FP8 and has no scales (%s_scale_inv)", r->path, r->t->name,
                        r->t->name);
    if (!lies_together(r) || r->vector)
        return coe_fail(COE_E_INPUT, "%s: tensor %s: FP8 in this layout", r->path, r->t->name);
    const bool one = tensor_count(s) == 1;
    const int64_t br = one ? all : r->block[0], bc = one ? r->cols : r->block[1];
    const int64_t down = (all + br - 1) / br, across = (r->cols + bc - 1) / bc;
    if ((!one && tensor_count(s) != experts * down * across) ||
        (s->type != DT_F32 && s->type != DT_BF16 && s->type != DT_F16))
        return coe_fail(COE_E_INPUT, "%s: tensor %s is %s of %s, expected [%lld, %lld] scales", r->path, s->name,
                        tensor_shape_text(s, got), dtype_info[s->type].name, (long long)down, (long long)across);
    float *out = arena_push(a, (size_t)(r->rows * r->cols) * sizeof *out);
    if (!out) return COE_E_NOMEM;
    struct arena_mark mark = arena_save(a);
    const float *scale;
    COE_TRY(wide_scales(&scale, a, s, tensor_count(s)));
    if (!one) scale += (r->cut.how & CUT_EXPERT ? r->expert : 0) * down * across;
    fp8_decode_rows(out, at(r, first_element(r)), scale, r->cut.part * r->rows, r->rows, r->cols, br, bc);
    arena_rewind(a, mark);
    w->type = DT_F32;
    w->data = out;
    return COE_OK;
}

static coe_status unpack_mxfp4(struct weight *w, struct arena *a, const struct cut_request *r)
{
    const int64_t groups = r->cols / 32, all = r->rows * parts_of(r), start = r->expert * all;
    const struct tensor *s = r->scale;
    if (r->t->type != DT_U8 || !s || s->type != DT_U8 || tensor_count(s) * 16 != tensor_count(r->t))
        return coe_fail(COE_E_INPUT, "%s: tensor %s needs bytes here and one scale for every 16 of them", r->path,
                        r->t->name);
    uint16_t *out = arena_push(a, (size_t)(r->rows * r->cols) * sizeof *out);
    if (!out) return COE_E_NOMEM;
    struct arena_mark mark = arena_save(a);
    char *block = arena_push(a, (size_t)(groups * dtype_info[DT_MXFP4].bytes));
    float *wide = arena_push(a, (size_t)r->cols * sizeof *wide);
    if (!block || !wide) return COE_E_NOMEM;
    for (int64_t i = 0; i < r->rows; i++) {
        const int64_t group = (start + stored_row(r, i, r->rows)) * groups;
        mxfp4_from_pairs(block, (const char *)r->t->data + group * 16, (const char *)s->data + group, r->cols);
        widen(wide, block, DT_MXFP4, r->cols);
        narrow(out + i * r->cols, DT_BF16, wide, r->cols);
    }
    arena_rewind(a, mark);
    w->type = DT_BF16;
    w->data = out;
    return COE_OK;
}

static coe_status unpack_blocks(struct weight *w, struct arena *a, const struct cut_request *r)
{
    const int64_t n = r->vector ? r->cols : r->rows * r->cols;
    if (!lies_together(r) || n % dtype_info[r->t->type].block || first_element(r) % dtype_info[r->t->type].block)
        return coe_fail(COE_E_INPUT, "%s: tensor %s: %s in this layout", r->path, r->t->name,
                        dtype_info[r->t->type].name);
    float *out = arena_push(a, (size_t)n * sizeof *out);
    if (!out) return COE_E_NOMEM;
    const int64_t first = first_element(r), row = r->vector || r->cols % dtype_info[r->t->type].block ? n : r->cols;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n / row; i++) widen(out + i * row, at(r, first + i * row), r->t->type, row);
    w->type = DT_F32;
    w->data = out;
    return COE_OK;
}

/* Rows of a head: [nope of k_b, turned round | v of v_b] */
static void copy_head(float *out, const float *k, const float *v, int64_t nope, int64_t v_dim, int64_t rank)
{
    for (int64_t i = 0; i < nope; i++)
        for (int64_t j = 0; j < rank; j++) out[i * rank + j] = k[j * nope + i];
    memcpy(out + nope * rank, v, (size_t)(v_dim * rank) * sizeof *v);
}

static coe_status unpack_heads(struct weight *w, struct arena *a, const struct cut_request *r)
{
    const struct tensor *k = r->t, *v = r->scale;
    char got[96];
    if (!v || k->n_dims != 3 || v->n_dims != 3 || k->dim[0] != v->dim[0] || k->dim[1] != r->cols ||
        v->dim[2] != r->cols || k->dim[0] * (k->dim[2] + v->dim[1]) != r->rows)
        return coe_fail(COE_E_INPUT, "%s: tensor %s is %s, which does not make [%lld, %lld] with the values beside it",
                        r->path, k->name, tensor_shape_text(k, got), (long long)r->rows, (long long)r->cols);
    const int64_t heads = k->dim[0], nope = k->dim[2], v_dim = v->dim[1], rank = r->cols, nk = nope * rank,
                  nv = v_dim * rank;
    if (nk * heads % dtype_info[k->type].block || nk % dtype_info[k->type].block || nv % dtype_info[v->type].block)
        return coe_fail(COE_E_INPUT, "%s: tensor %s: heads are not whole blocks", r->path, k->name);
    float *out = arena_push(a, (size_t)(r->rows * rank) * sizeof *out);
    if (!out) return COE_E_NOMEM;
    struct arena_mark mark = arena_save(a);
    float *wide = arena_push(a, (size_t)(nk + nv) * sizeof *wide);
    if (!wide) return COE_E_NOMEM;
    for (int64_t h = 0; h < heads; h++) {
        widen(wide, (const char *)k->data + h * nk / dtype_info[k->type].block * dtype_info[k->type].bytes, k->type,
              nk);
        widen(wide + nk, (const char *)v->data + h * nv / dtype_info[v->type].block * dtype_info[v->type].bytes,
              v->type, nv);
        copy_head(out + h * (nk + nv), wide, wide + nk, nope, v_dim, rank);
    }
    arena_rewind(a, mark);
    w->type = DT_F32;
    w->data = out;
    return COE_OK;
}

coe_status cut_take(struct weight *w, struct arena *a, const struct cut_request *r)
{
    if (r->cut.how & CUT_HEAD_PAIR) return unpack_heads(w, a, r);
    COE_TRY(check_shape(r));
    if (r->cut.how & CUT_MXFP4) return unpack_mxfp4(w, a, r);
    if (r->t->type == DT_F8_E4M3) return unpack_fp8(w, a, r);
    if (dtype_info[r->t->type].block > 1 && !stays_packed(r)) return unpack_blocks(w, a, r);
    if (!stays_packed(r) && r->t->type != DT_F32 && r->t->type != DT_F16 && r->t->type != DT_BF16)
        return coe_fail(COE_E_INPUT,
                        "%s: tensor %s is stored as %s; this build computes with F32, F16, BF16 and packed types",
                        r->path, r->t->name, dtype_info[r->t->type].name);
    if (!lies_together(r)) return gather(w, a, r);
    w->type = r->t->type;
    w->data = at(r, first_element(r));
    return COE_OK;
}
