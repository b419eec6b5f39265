/* imatrix.c — see imatrix.h. */
#include "model/imatrix.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/gguf.h"

#define SUMS ".in_sum2"
#define COUNTS ".counts"

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct imatrix_entry *)a)->name, ((const struct imatrix_entry *)b)->name);
}

void imatrix_sort(struct imatrix *im)
{
    if (im->entry.n) qsort(im->entry.at, im->entry.n, sizeof *im->entry.at, by_name);
}

const struct imatrix_entry *imatrix_find(const struct imatrix *im, const char *name)
{
    const struct imatrix_entry key = { .name = name };
    return im->entry.n ? bsearch(&key, im->entry.at, im->entry.n, sizeof key, by_name) : NULL;
}

coe_status imatrix_add(struct imatrix *im, const char *name, int64_t n, int64_t cols, const float *sum2,
                       const float *counts)
{
    float *sums = arena_push(&im->arena, (size_t)(n * cols) * sizeof *sums);
    float *count = arena_push(&im->arena, (size_t)n * sizeof *count);
    const struct imatrix_entry e = { arena_strdup(&im->arena, name), n, cols, sums, count };
    if (!sums || !count || !e.name) return COE_E_NOMEM;
    memcpy(sums, sum2, (size_t)(n * cols) * sizeof *sums);
    memcpy(count, counts, (size_t)n * sizeof *count);
    return VEC_PUSH(&im->entry, e) ? COE_OK : COE_E_NOMEM;
}

bool imatrix_weights(const struct imatrix_entry *e, int64_t i, float *out)
{
    if (!(e->counts[i] > 0)) return false;
    for (int64_t j = 0; j < e->cols; j++) out[j] = e->sum2[i * e->cols + j] / e->counts[i];
    return true;
}

void imatrix_free(struct imatrix *im)
{
    if (!im) return;
    VEC_FREE(&im->entry);
    arena_free(&im->arena);
    mem_free(im);
}

/* ---- reading ---- */

static coe_status check_values(const struct imatrix_entry *e, const char *path)
{
    for (int64_t i = 0; i < e->n; i++)
        if (!(e->counts[i] == 0 || e->counts[i] >= 1) || !isfinite(e->counts[i]))
            return coe_fail(COE_E_INPUT, "%s: %s" COUNTS "[%lld] is %g, expected a count", path, e->name, (long long)i,
                            (double)e->counts[i]);
    for (int64_t i = 0; i < e->n * e->cols; i++)
        if (!(e->sum2[i] >= 0) || !isfinite(e->sum2[i]))
            return coe_fail(COE_E_INPUT, "%s: %s" SUMS "[%lld] is %g, expected a sum of squares", path, e->name,
                            (long long)i, (double)e->sum2[i]);
    return COE_OK;
}

/* The tensors lie in the mapping at any address: they are copied. */
static coe_status read_entry(struct imatrix *im, const struct ckpt *c, const struct tensor *t, size_t name_len)
{
    char name[256], counts_name[300], shape[96];
    snprintf(name, sizeof name, "%.*s", (int)name_len, t->name);
    snprintf(counts_name, sizeof counts_name, "%s" COUNTS, name);
    const struct tensor *counts = ckpt_find(c, counts_name);
    if (!counts) return coe_fail(COE_E_INPUT, "%s: tensor %s is missing", ckpt_path(c), counts_name);
    const int64_t cols = t->n_dims ? t->dim[t->n_dims - 1] : 1, n = cols ? tensor_count(t) / cols : 0;
    if (t->type != DT_F32 || counts->type != DT_F32 || n < 1 || tensor_count(counts) != n)
        return coe_fail(COE_E_INPUT, "%s: tensor %s is %s, which does not fit %s", ckpt_path(c), t->name,
                        tensor_shape_text(t, shape), counts_name);
    COE_TRY(imatrix_add(im, name, n, cols, t->data, counts->data));
    return check_values(&im->entry.at[im->entry.n - 1], ckpt_path(c));
}

static coe_status read_all(struct imatrix *im, const struct ckpt *c)
{
    const struct gguf *g = ckpt_gguf(c);
    struct gguf_text type = { 0 };
    if (g) COE_TRY(gguf_str(g, "general.type", &type));
    if (type.n != 7 || memcmp(type.at, "imatrix", 7))
        return coe_fail(COE_E_INPUT, "%s: is no importance matrix (a GGUF file with general.type imatrix)",
                        ckpt_path(c));
    COE_TRY(gguf_int(g, "imatrix.chunk_size", 0, INT32_MAX, &im->chunk_size));
    COE_TRY(gguf_int(g, "imatrix.chunk_count", 0, INT32_MAX, &im->n_chunks));
    for (size_t i = 0; i < ckpt_count(c); i++) {
        const struct tensor *t = ckpt_at(c, i);
        const size_t len = strlen(t->name), end = strlen(SUMS);
        if (len > end && len < 256 && !strcmp(t->name + len - end, SUMS)) COE_TRY(read_entry(im, c, t, len - end));
    }
    if (!im->entry.n) return coe_fail(COE_E_INPUT, "%s: holds no NAME" SUMS, ckpt_path(c));
    imatrix_sort(im);
    return COE_OK;
}

coe_status imatrix_read(struct imatrix **out, const char *path)
{
    struct ckpt *c = NULL;
    struct imatrix *im = NULL;
    coe_status s = ckpt_open(&c, path);
    if (s) goto out;
    if (!(im = mem_zalloc("importance", sizeof *im))) s = COE_E_NOMEM;
    if (!s) im->dataset = "";
    if (!s) s = read_all(im, c);
out:
    if (s) imatrix_free(im), im = NULL;
    if (c) ckpt_close(c);
    *out = im;
    return s;
}

/* ---- writing ---- */

static coe_status add_items(struct ckpt_item *item, struct arena *a, const struct imatrix_entry *e)
{
    const size_t cap = strlen(e->name) + sizeof SUMS + sizeof COUNTS;
    char *sums = arena_push(a, cap), *counts = arena_push(a, cap);
    if (!sums || !counts) return COE_E_NOMEM;
    snprintf(sums, cap, "%s" SUMS, e->name);
    snprintf(counts, cap, "%s" COUNTS, e->name);
    item[0].t = (struct tensor){ sums, DT_F32, 2, { e->n, e->cols }, e->sum2 };
    item[1].t = (struct tensor){ counts, DT_F32, 2, { e->n, 1 }, e->counts };
    return COE_OK;
}

coe_status imatrix_write(const struct imatrix *im, const char *path)
{
    struct arena a = { 0 };
    struct gguf_out meta = { 0 };
    coe_status s = COE_OK;
    struct str dataset = { 0 };
    struct ckpt_item *item = arena_push_zero(&a, 2 * im->entry.n * sizeof *item);
    if (!item) s = COE_E_NOMEM;
    str_addz(&dataset, im->dataset);
    gguf_add_str(&meta, "general.type", "imatrix", 7);
    gguf_add_strs(&meta, "imatrix.datasets", &dataset, 1);
    gguf_add_u32(&meta, "imatrix.chunk_count", (uint32_t)im->n_chunks);
    gguf_add_u32(&meta, "imatrix.chunk_size", (uint32_t)im->chunk_size);
    for (size_t i = 0; i < im->entry.n && !s; i++) s = add_items(&item[2 * i], &a, &im->entry.at[i]);
    if (!s) s = gguf_write(path, &meta, item, 2 * im->entry.n);
    str_free(&dataset);
    gguf_out_free(&meta);
    arena_free(&a);
    return s;
}
