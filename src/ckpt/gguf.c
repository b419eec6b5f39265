/* gguf.c — reads the header of a GGUF file, version 2 or 3, little endian.
 *
 *     "GGUF" | version u32 | n_tensors u64 | n_entries u64
 *     entries: key | type u32 | value              a string is its length (u64) and its bytes
 *     tensors: name | n_dims u32 | n_dims x u64 | type u32 | offset u64
 *     padding to the alignment (general.alignment, 32 when absent) | data, each tensor at its offset
 *
 * A count is believed only if the rest of the file could hold that many of the smallest such thing. As in the reference
 * reader the tensors lie without overlaps and without holes beyond the alignment. */
#include "gguf.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "reader.h"
#include "tensor/quant/quant.h"

#define MAX_NAME 65535u
#define MIN_ENTRY (8u + 4u + 1u)
#define MIN_TENSOR (8u + 4u + 4u + 8u)
#define MAX_ALIGNMENT (1u << 20)

/* Reads forward; the first failure sets the message, later reads give 0. */
struct cursor {
    const unsigned char *at, *end;
    const char *where, *what; /* what is being read, for messages */
    bool failed;
};

static uint64_t left(const struct cursor *c) { return (uint64_t)(c->end - c->at); }

static const unsigned char *take(struct cursor *c, uint64_t n)
{
    if (c->failed) return NULL;
    if (n > left(c)) {
        c->failed = true;
        coe_fail(COE_E_INPUT, "%s: %s needs %" PRIu64 " bytes, but the file ends after %" PRIu64, c->where, c->what, n,
                 left(c));
        return NULL;
    }
    c->at += n;
    return c->at - n;
}

static uint32_t take_u32(struct cursor *c)
{
    const unsigned char *p = take(c, 4);
    return p ? load_u32(p) : 0;
}

static uint64_t take_u64(struct cursor *c)
{
    const unsigned char *p = take(c, 8);
    return p ? load_u64(p) : 0;
}

static bool printable_utf8(const char *p, size_t n)
{
    for (size_t i = 0; i < n;) {
        int k = utf8_decode(p + i, n - i, NULL);
        if (!k || (unsigned char)p[i] < 0x20 || p[i] == 0x7F) return false;
        i += (size_t)k;
    }
    return true;
}

/* A key or a tensor's name, copied into `names`. NULL: failed. */
static const char *take_name(struct cursor *c, struct arena *names)
{
    uint64_t n = take_u64(c);
    if (!c->failed && n > MAX_NAME) {
        coe_fail(COE_E_INPUT, "%s: the name of %s has %" PRIu64 " bytes, expected at most %u", c->where, c->what, n,
                 MAX_NAME);
        c->failed = true;
    }
    const char *p = (const char *)take(c, n);
    if (!p) return NULL;
    if (!printable_utf8(p, (size_t)n)) {
        coe_fail(COE_E_INPUT, "%s: the name of %s is not printable UTF-8", c->where, c->what);
        c->failed = true;
        return NULL;
    }
    char *copy = arena_push(names, (size_t)n + 1);
    if (!copy) {
        c->failed = true;
        return NULL;
    }
    memcpy(copy, p, (size_t)n);
    copy[n] = 0;
    return copy;
}

static int compare_text(struct gguf_text a, struct gguf_text b)
{
    int order = memcmp(a.at, b.at, COE_MIN(a.n, b.n));
    return order ? order : (a.n > b.n) - (a.n < b.n);
}

static int by_key(const void *a, const void *b)
{
    return compare_text(((const struct gguf_value *)a)->key, ((const struct gguf_value *)b)->key);
}

const struct gguf_value *gguf_find(const struct gguf *g, const char *key)
{
    struct gguf_value probe = { .key = { key, strlen(key) } };
    return g->n ? bsearch(&probe, g->at, g->n, sizeof probe, by_key) : NULL;
}

static coe_status read_values(struct gguf *g, struct gguf_meta *m)
{
    const uint64_t room = (uint64_t)(m->end - m->at) / MIN_ENTRY;
    if (m->n_keys > room)
        return coe_fail(COE_E_INPUT, "%s: says it has %" PRIu64 " metadata entries, its size allows at most %" PRIu64,
                        g->where, m->n_keys, room);
    g->at = mem_alloc("metadata", (size_t)m->n_keys * sizeof *g->at);
    if (!g->at) return COE_E_NOMEM;
    for (bool more = true; more;) {
        struct gguf_value v;
        COE_TRY(gguf_meta_next(m, &v, &more));
        if (!more) break;
        if (!printable_utf8(v.key.at, v.key.n))
            return coe_fail(COE_E_INPUT, "%s: a key of the metadata is not printable UTF-8", g->where);
        g->at[g->n++] = v;
    }
    if (g->n) qsort(g->at, g->n, sizeof *g->at, by_key);
    for (size_t i = 1; i < g->n; i++)
        if (!by_key(&g->at[i - 1], &g->at[i]))
            return coe_fail(COE_E_INPUT, "%s: %.*s is there twice", g->where, (int)COE_MIN(g->at[i].key.n, 200u),
                            g->at[i].key.at);
    return COE_OK;
}

/* Keys whose type everything relies on. */
static coe_status check_values(struct gguf *g)
{
    struct gguf_text text;
    int64_t alignment = 32;
    COE_TRY(gguf_str(g, "general.architecture", &text));
    COE_TRY(gguf_int(g, "general.alignment", 1, MAX_ALIGNMENT, &alignment));
    if (alignment & (alignment - 1))
        return coe_fail(COE_E_INPUT, "%s: general.alignment is %lld, expected a power of two", g->where,
                        (long long)alignment);
    g->alignment = (uint64_t)alignment;
    return COE_OK;
}

/* `offset` of each tensor is kept in `data` until the place of the data is known. */
static coe_status read_tensor(struct tensor *t, uint64_t *offset, struct cursor *c, struct arena *names)
{
    c->what = "a tensor";
    *t = (struct tensor){ .name = take_name(c, names) };
    if (!t->name) return coe_last_status();
    c->what = t->name;
    uint32_t n_dims = take_u32(c);
    if (n_dims > MAX_DIMS)
        return coe_fail(COE_E_INPUT, "%s: tensor %s has %u dimensions, expected at most %d", c->where, t->name, n_dims,
                        MAX_DIMS);
    t->n_dims = (int32_t)n_dims;
    bool fits = true;
    for (uint32_t i = 0; i < n_dims; i++) {
        uint64_t d = take_u64(c);
        t->dim[n_dims - 1 - i] = (int64_t)d;
        fits = fits && d <= INT64_MAX;
    }
    uint32_t type = take_u32(c);
    *offset = take_u64(c);
    if (c->failed) return coe_last_status();
    t->type = dtype_of_ggml(type);
    if (t->type == DT_COUNT)
        return coe_fail(COE_E_INPUT, "%s: tensor %s has the unknown type %u", c->where, t->name, type);
    char text[96];
    uint64_t bytes, block = (uint64_t)dtype_info[t->type].block;
    if (n_dims ? t->dim[n_dims - 1] % (int64_t)block : block > 1)
        return coe_fail(COE_E_INPUT, "%s: tensor %s is %s %s, expected rows of a multiple of %llu", c->where, t->name,
                        dtype_info[t->type].name, tensor_shape_text(t, text), (unsigned long long)block);
    if (!fits || !shape_fits(t->dim, t->n_dims) || !dtype_bytes(t->type, (uint64_t)tensor_count(t), &bytes))
        return coe_fail(COE_E_INPUT, "%s: tensor %s: shape %s has more elements than 64 bits can count", c->where,
                        t->name, tensor_shape_text(t, text));
    return COE_OK;
}

static coe_status place_tensor(struct tensor *t, uint64_t offset, const struct gguf *g, const struct cursor *data)
{
    uint64_t bytes = tensor_bytes(t);
    if (offset % g->alignment)
        return coe_fail(COE_E_INPUT, "%s: tensor %s is at offset %" PRIu64 ", expected a multiple of %" PRIu64,
                        g->where, t->name, offset, g->alignment);
    if (offset > left(data) || bytes > left(data) - offset)
        return coe_fail(COE_E_INPUT,
                        "%s: tensor %s has %" PRIu64 " bytes at offset %" PRIu64 ", but the file has %" PRIu64
                        " bytes of data",
                        g->where, t->name, bytes, offset, left(data));
    t->data = data->at + offset;
    return COE_OK;
}

static int by_place(const void *a, const void *b)
{
    const struct tensor *x = a, *y = b;
    uintptr_t p = (uintptr_t)x->data, q = (uintptr_t)y->data;
    if (p != q) return p < q ? -1 : 1;
    uint64_t m = tensor_bytes(x), n = tensor_bytes(y);
    return (m > n) - (m < n);
}

static coe_status check_cover(struct tensor_list *l, const struct gguf *g, const unsigned char *data)
{
    if (l->n) qsort(l->at, l->n, sizeof *l->at, by_place);
    uint64_t end = 0;
    for (size_t i = 0; i < l->n; i++) {
        const struct tensor *t = &l->at[i];
        uint64_t begin = (uint64_t)((const unsigned char *)t->data - data);
        if (begin < end)
            return coe_fail(COE_E_INPUT,
                            "%s: tensor %s begins at offset %" PRIu64 " and overlaps %s, which ends at %" PRIu64,
                            g->where, t->name, begin, l->at[i - 1].name, end);
        if (begin - end >= g->alignment)
            return coe_fail(COE_E_INPUT,
                            "%s: a hole of %" PRIu64 " bytes in front of tensor %s, expected less than %" PRIu64,
                            g->where, begin - end, t->name, g->alignment);
        end = begin + tensor_bytes(t);
    }
    return COE_OK;
}

static coe_status read_tensors(struct tensor_list *l, struct gguf *g, struct cursor *c, uint64_t n,
                               const unsigned char *bytes)
{
    if (n > left(c) / MIN_TENSOR)
        return coe_fail(COE_E_INPUT, "%s: says it has %" PRIu64 " tensors, its size allows at most %" PRIu64, c->where,
                        n, left(c) / MIN_TENSOR);
    l->at = mem_alloc("tensor names", (size_t)n * sizeof *l->at);
    uint64_t *offset = mem_alloc("tensor names", (size_t)n * sizeof *offset);
    coe_status s = l->at && offset ? COE_OK : COE_E_NOMEM;
    for (; l->n < n && !s; l->n += !s) s = read_tensor(&l->at[l->n], &offset[l->n], c, &g->names);
    if (s) goto out;
    uint64_t used = (uint64_t)(c->at - bytes), padding = (g->alignment - used % g->alignment) % g->alignment;
    struct cursor data = *c;
    data.at += COE_MIN(padding, left(c)); /* a file of metadata only may end before the padding */
    for (size_t i = 0; i < l->n && !s; i++) s = place_tensor(&l->at[i], offset[i], g, &data);
    if (!s) s = check_cover(l, g, data.at);
    if (!s) s = tensor_list_sort(l, c->where);
out:
    mem_free(offset);
    return s;
}

coe_status gguf_parse(struct gguf *g, struct tensor_list *out, const unsigned char *bytes, uint64_t n,
                      const char *where)
{
    struct gguf_meta m;
    *g = (struct gguf){ .where = where };
    *out = (struct tensor_list){ 0 };
    coe_status s = gguf_meta_begin(&m, bytes, (size_t)n, where);
    if (!s) s = arena_reserve(&g->names, (size_t)COE_MIN(n, 1u << 16)); /* no more than the file for a small one */
    if (!s) s = read_values(g, &m);
    if (!s) s = check_values(g);
    if (!s) {
        struct cursor c = { m.at, m.end, where, "a tensor", false };
        g->version = m.version;
        s = read_tensors(out, g, &c, m.n_tensors, bytes);
    }
    if (s) {
        tensor_list_free(out);
        gguf_free(g);
    }
    return s;
}

void gguf_free(struct gguf *g)
{
    mem_free(g->at);
    arena_free(&g->names);
    *g = (struct gguf){ 0 };
}
