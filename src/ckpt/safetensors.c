/* safetensors.c — reads the header of one safetensors file.
 *
 *     0         8                   8+n                      end of file
 *     | n (u64) | JSON, n bytes     | data                   |
 *
 *     {"NAME": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, …, "__metadata__": {"format": "pt"}}
 *
 * Offsets count from the first byte of the data. As in the reference reader the tensors must cover the data completely,
 * without holes and overlaps: otherwise two readers could see different files.
 *
 * The JSON is read as a stream of events: a model of 18000 expert matrices has a header of 2 MB, for which a document
 * tree takes 200 ms and 30 MB. */
#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_parse.h>

#include "reader.h"

#define LENGTH_BYTES 8
#define MAX_HEADER 100000000u /* the reference reader's limit */
#define METADATA "__metadata__"

enum field { DTYPE, SHAPE, OFFSETS, N_FIELDS };
static const char *const field_names[N_FIELDS] = { "dtype", "shape", "data_offsets" };

/* What has been read, and where in the header we are. */
struct header {
    const char *where;
    const unsigned char *data; /* the tensors' bytes */
    uint64_t n;
    VEC(struct tensor) tensor;
    char *names, *next_name;
    int depth; /* 1: between tensors, 2: in a tensor or the metadata, 3: in its array */
    bool in_metadata, had_metadata;
    struct tensor t; /* the one being read */
    enum field field;
    bool seen[N_FIELDS];
    int64_t offset[2];
    int n_offsets;
};

/* Callbacks answer 1 to go on; 0 stops the reader with the message set. */
static int stop(coe_status s)
{
    (void)s;
    return 0;
}

/* A value of kind `got` at a place where another is expected. */
static int unexpected(struct header *h, const char *got)
{
    const char *w = h->where;
    if (h->depth == 0) return stop(coe_fail(COE_E_INPUT, "%s: header is %s, expected an object", w, got));
    if (h->in_metadata)
        return stop(coe_fail(COE_E_INPUT, "%s: " METADATA " %s %s, expected %s", w, h->depth == 1 ? "is" : "holds", got,
                             h->depth == 1 ? "an object" : "strings"));
    if (h->depth == 1) return stop(coe_fail(COE_E_INPUT, "%s: tensor %s is %s, expected an object", w, h->t.name, got));
    return stop(coe_fail(COE_E_INPUT, "%s: tensor %s: %s %s %s, expected %s", w, h->t.name, field_names[h->field],
                         h->depth == 2 ? "is" : "holds", got,
                         h->depth == 3       ? "whole numbers of at least 0"
                         : h->field == DTYPE ? "a string"
                                             : "an array"));
}

static int on_null(void *user) { return unexpected(user, "null"); }
static int on_bool(void *user, int x) { return unexpected(user, x ? "true" : "false"); }
static int on_double(void *user, double x)
{
    (void)x;
    return unexpected(user, "a broken number");
}

static int begin_tensor(struct header *h, const char *key, size_t n)
{
    h->in_metadata = n == strlen(METADATA) && !memcmp(key, METADATA, n);
    if (h->in_metadata) {
        if (h->had_metadata) return stop(coe_fail(COE_E_INPUT, "%s: " METADATA " is there twice", h->where));
        h->had_metadata = true;
        return 1;
    }
    if (memchr(key, 0, n))
        return stop(coe_fail(COE_E_INPUT, "%s: the name of tensor %zu holds a zero byte", h->where, h->tensor.n));
    memcpy(h->next_name, key, n);
    h->next_name[n] = 0;
    h->t = (struct tensor){ .name = h->next_name };
    h->next_name += n + 1;
    h->n_offsets = 0;
    memset(h->seen, 0, sizeof h->seen);
    return 1;
}

static int on_key(void *user, const unsigned char *text, size_t n)
{
    struct header *h = user;
    const char *key = (const char *)text;
    if (h->depth == 1) return begin_tensor(h, key, n);
    if (h->in_metadata) return 1;
    enum field f = 0;
    while (f < N_FIELDS && (strlen(field_names[f]) != n || memcmp(field_names[f], key, n))) f++;
    if (f == N_FIELDS || h->seen[f])
        return stop(coe_fail(COE_E_INPUT, "%s: tensor %s: '%.*s' is %s", h->where, h->t.name, (int)COE_MIN(n, 60u), key,
                             f < N_FIELDS ? "there twice" : "unknown"));
    h->field = f;
    h->seen[f] = true;
    return 1;
}

static int on_string(void *user, const unsigned char *text, size_t n)
{
    struct header *h = user;
    char name[32];
    if (h->depth == 2 && h->in_metadata) return 1;
    if (h->depth != 2 || h->field != DTYPE) return unexpected(h, "a string");
    snprintf(name, sizeof name, "%.*s", (int)COE_MIN(n, 31u), (const char *)text);
    h->t.type = dtype_by_name(name);
    /* block types have no spelling in safetensors: a file that uses our name for one is not a safetensors file */
    if (h->t.type != DT_COUNT && dtype_info[h->t.type].block == 1) return 1;
    return stop(coe_fail(COE_E_INPUT, "%s: tensor %s: unknown dtype '%s'", h->where, h->t.name, name));
}

static int on_integer(void *user, long long x)
{
    struct header *h = user;
    if (h->depth != 3) return unexpected(h, "a whole number");
    if (x < 0) return unexpected(h, "a negative number");
    if (h->field == SHAPE) {
        if (h->t.n_dims == MAX_DIMS)
            return stop(
                coe_fail(COE_E_INPUT, "%s: tensor %s has more than %d dimensions", h->where, h->t.name, MAX_DIMS));
        h->t.dim[h->t.n_dims++] = x;
    } else if (h->n_offsets++ < 2) h->offset[h->n_offsets - 1] = x;
    return 1;
}

static int on_array(void *user)
{
    struct header *h = user;
    if (h->depth != 2 || h->in_metadata || h->field == DTYPE) return unexpected(h, "an array");
    h->depth = 3;
    return 1;
}

static int on_array_end(void *user)
{
    struct header *h = user;
    h->depth = 2;
    return 1;
}

static int on_object(void *user)
{
    struct header *h = user;
    if (h->depth > 1) return unexpected(h, "an object");
    h->depth++;
    return 1;
}

static coe_status check_shape(const struct tensor *t, uint64_t *bytes, const char *where)
{
    char text[96];
    if (shape_fits(t->dim, t->n_dims) && dtype_bytes(t->type, (uint64_t)tensor_count(t), bytes)) return COE_OK;
    return coe_fail(COE_E_INPUT, "%s: tensor %s: shape %s has more elements than 64 bits can count", where, t->name,
                    tensor_shape_text(t, text));
}

static coe_status check_place(const struct header *h, uint64_t bytes)
{
    const struct tensor *t = &h->t;
    const long long begin = h->offset[0], end = h->offset[1];
    char text[96];
    if (h->n_offsets != 2)
        return coe_fail(COE_E_INPUT, "%s: tensor %s: data_offsets has %d numbers, expected 2", h->where, t->name,
                        h->n_offsets);
    if (end < begin)
        return coe_fail(COE_E_INPUT, "%s: tensor %s ends (%lld) before it begins (%lld)", h->where, t->name, end,
                        begin);
    if ((uint64_t)(end - begin) != bytes)
        return coe_fail(COE_E_INPUT, "%s: tensor %s is %s %s, expected %llu bytes, data_offsets give %lld", h->where,
                        t->name, dtype_info[t->type].name, tensor_shape_text(t, text), (unsigned long long)bytes,
                        end - begin);
    if ((uint64_t)end > h->n)
        return coe_fail(COE_E_INPUT, "%s: tensor %s lies at bytes %lld to %lld, but the file has %llu bytes of data",
                        h->where, t->name, begin, end, (unsigned long long)h->n);
    return COE_OK;
}

static coe_status end_tensor(struct header *h)
{
    uint64_t bytes;
    for (enum field f = 0; f < N_FIELDS; f++)
        if (!h->seen[f])
            return coe_fail(COE_E_INPUT, "%s: tensor %s: %s is missing", h->where, h->t.name, field_names[f]);
    COE_TRY(check_shape(&h->t, &bytes, h->where));
    COE_TRY(check_place(h, bytes));
    h->t.data = h->data + h->offset[0];
    return VEC_PUSH(&h->tensor, h->t) ? COE_OK : COE_E_NOMEM;
}

static int on_object_end(void *user)
{
    struct header *h = user;
    if (h->depth-- == 2 && !h->in_metadata && end_tensor(h)) return 0;
    return 1;
}

static coe_status read_events(struct header *h, const unsigned char *text, size_t n)
{
    static const yajl_callbacks callbacks = {
        .yajl_null = on_null,
        .yajl_boolean = on_bool,
        .yajl_integer = on_integer,
        .yajl_double = on_double,
        .yajl_string = on_string,
        .yajl_map_key = on_key,
        .yajl_start_map = on_object,
        .yajl_end_map = on_object_end,
        .yajl_start_array = on_array,
        .yajl_end_array = on_array_end,
    };
    yajl_handle y = yajl_alloc(&callbacks, NULL, h);
    if (!y) return coe_fail(COE_E_NOMEM, "%s: no memory for the header", h->where);
    coe_status s = COE_OK;
    yajl_status state = yajl_parse(y, text, n);
    const size_t at = yajl_get_bytes_consumed(y);
    if (state == yajl_status_ok) state = yajl_complete_parse(y);
    if (state == yajl_status_client_canceled) s = coe_last_status();
    else if (state != yajl_status_ok) {
        unsigned char *why = yajl_get_error(y, 0, text, n);
        s = coe_fail(COE_E_INPUT, "%s: header, byte %zu: %.*s", h->where, at, (int)strcspn((char *)why, "\n"),
                     (char *)why);
        yajl_free_error(y, why);
    }
    yajl_free(y);
    return s;
}

static coe_status header_length(uint64_t *length, const unsigned char *bytes, uint64_t n, const char *where)
{
    if (n < LENGTH_BYTES)
        return coe_fail(COE_E_INPUT, "%s: %llu bytes, too short for a safetensors header (8 bytes hold its length)",
                        where, (unsigned long long)n);
    *length = load_u64(bytes);
    if (*length > MAX_HEADER || *length > n - LENGTH_BYTES)
        return coe_fail(COE_E_INPUT, "%s: says its header has %llu bytes, expected at most %llu%s", where,
                        (unsigned long long)*length, (unsigned long long)COE_MIN(n - LENGTH_BYTES, MAX_HEADER),
                        *length > MAX_HEADER ? "; is it a safetensors file?" : "; the file is cut or damaged");
    if (!*length || bytes[LENGTH_BYTES] != '{')
        return coe_fail(COE_E_INPUT, "%s: the header does not begin with '{'; is it a safetensors file?", where);
    return COE_OK;
}

static int by_place(const void *a, const void *b)
{
    const struct tensor *x = a, *y = b;
    uintptr_t p = (uintptr_t)x->data, q = (uintptr_t)y->data;
    if (p != q) return p < q ? -1 : 1;
    uint64_t m = tensor_bytes(x),
             n = tensor_bytes(y); /* an empty tensor before the one that begins at the same place */
    return (m > n) - (m < n);
}

static coe_status check_cover(struct tensor_list *l, const unsigned char *data, uint64_t n, const char *where)
{
    if (l->n) qsort(l->at, l->n, sizeof *l->at, by_place);
    uint64_t at = 0;
    for (size_t i = 0; i < l->n; i++) {
        const struct tensor *t = &l->at[i];
        uint64_t begin = (uint64_t)((const unsigned char *)t->data - data);
        if (begin < at)
            return coe_fail(COE_E_INPUT, "%s: tensor %s begins at byte %llu and overlaps %s, which ends at %llu", where,
                            t->name, (unsigned long long)begin, l->at[i - 1].name, (unsigned long long)at);
        if (begin > at)
            return coe_fail(COE_E_INPUT, "%s: a hole of %llu bytes in front of tensor %s, expected none", where,
                            (unsigned long long)(begin - at), t->name);
        at += tensor_bytes(t);
    }
    if (at == n) return COE_OK;
    return coe_fail(COE_E_INPUT, "%s: %llu bytes behind the last tensor, expected none", where,
                    (unsigned long long)(n - at));
}

coe_status safetensors_parse(struct tensor_list *out, const unsigned char *bytes, uint64_t n, const char *where)
{
    uint64_t length = 0; /* gcc -O3 does not see that it is set or the function left */
    *out = (struct tensor_list){ 0 };
    COE_TRY(header_length(&length, bytes, n, where));
    const uint64_t skip = LENGTH_BYTES + length;
    struct header h = { .where = where, .data = bytes + skip, .n = n - skip };
    h.names = h.next_name =
        mem_alloc("tensor names", (size_t)length); /* a name takes two bytes more in JSON than here */
    coe_status s = h.names ? read_events(&h, bytes + LENGTH_BYTES, (size_t)length) : COE_E_NOMEM;
    *out = (struct tensor_list){ h.tensor.at, h.tensor.n, h.names };
    if (!s) s = check_cover(out, h.data, h.n, where);
    if (!s) s = tensor_list_sort(out, where);
    if (s) tensor_list_free(out);
    return s;
}
