/* safetensors.c — reads the header of one safetensors file.
 *
 *     0         8                   8+n                      end of file
 *     | n (u64) | JSON, n bytes     | data                   |
 *
 *     {"NAME": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, …, "__metadata__": {"format": "pt"}}
 *
 * Offsets count from the first byte of the data. As in the reference reader the tensors must cover the data completely,
 * without holes and overlaps: otherwise two readers could see different files. */
#include <stdlib.h>
#include <string.h>

#include "reader.h"

#define LENGTH_BYTES 8
#define MAX_HEADER 100000000u /* the reference reader's limit */

static coe_status read_header(json_t **out, const unsigned char *bytes, uint64_t n, const char *where)
{
    if (n < LENGTH_BYTES)
        return coe_fail(COE_E_INPUT, "%s: %llu bytes, too short for a safetensors header (8 bytes hold its length)",
                        where, (unsigned long long)n);
    uint64_t length = load_u64(bytes);
    if (length > MAX_HEADER || length > n - LENGTH_BYTES)
        return coe_fail(COE_E_INPUT, "%s: says its header has %llu bytes, expected at most %llu%s", where,
                        (unsigned long long)length, (unsigned long long)COE_MIN(n - LENGTH_BYTES, MAX_HEADER),
                        length > MAX_HEADER ? "; is it a safetensors file?" : "; the file is cut or damaged");
    const char *text = (const char *)bytes + LENGTH_BYTES;
    if (!length || text[0] != '{')
        return coe_fail(COE_E_INPUT, "%s: the header does not begin with '{'; is it a safetensors file?", where);
    json_error_t e;
    *out = json_loadb(text, (size_t)length, JSON_REJECT_DUPLICATES, &e);
    if (*out) return COE_OK;
    if (json_error_code(&e) != json_error_duplicate_key || e.position < 2)
        return coe_fail(COE_E_INPUT, "%s: header, byte %d: %s", where, e.position, e.text);
    /* jansson does not say which key; its closing quote is the last byte read */
    const char *quote = memrchr(text, '"', (size_t)e.position - 1);
    return coe_fail(COE_E_INPUT, "%s: %.*s is there twice in the header", where,
                    quote ? (int)COE_MIN(text + e.position - quote, 200) : 0, quote ? quote : "");
}

static coe_status check_metadata(const json_t *meta, const char *where)
{
    if (!json_is_object(meta))
        return coe_fail(COE_E_INPUT, "%s: __metadata__ is %s, expected an object", where, json_kind(meta));
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)meta, key, value)
        if (!json_is_string(value))
            return coe_fail(COE_E_INPUT, "%s: __metadata__: %s is %s, expected a string", where, key, json_kind(value));
    return COE_OK;
}

static coe_status read_shape(struct tensor *t, uint64_t *bytes, const json_t *shape, const char *where)
{
    if (!json_is_array(shape))
        return coe_fail(COE_E_INPUT, "%s: tensor %s: shape is %s, expected an array", where, t->name, json_kind(shape));
    size_t n_dims = json_array_size(shape);
    if (n_dims > MAX_DIMS)
        return coe_fail(COE_E_INPUT, "%s: tensor %s has %zu dimensions, expected at most %d", where, t->name, n_dims,
                        MAX_DIMS);
    t->n_dims = (int32_t)n_dims;
    int64_t count = 1;
    bool fits = true;
    for (size_t i = 0; i < n_dims; i++) {
        const json_t *d = json_array_get(shape, i);
        if (!json_is_integer(d) || json_integer_value(d) < 0)
            return coe_fail(COE_E_INPUT, "%s: tensor %s: dimension %zu is not a whole number of at least 0", where,
                            t->name, i);
        t->dim[i] = json_integer_value(d);
        fits = fits && !__builtin_mul_overflow(count, t->dim[i], &count);
    }
    char text[96];
    if (!fits || !dtype_bytes(t->type, (uint64_t)count, bytes))
        return coe_fail(COE_E_INPUT, "%s: tensor %s: shape %s has more elements than 64 bits can count", where, t->name,
                        tensor_shape_text(t, text));
    return COE_OK;
}

/* `bytes` is what type and shape need, data[0..n) what the file has. */
static coe_status read_offsets(struct tensor *t, uint64_t bytes, const json_t *offsets, const unsigned char *data,
                               uint64_t n, const char *where)
{
    const json_t *b = json_array_get(offsets, 0), *e = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(b) || !json_is_integer(e) || json_integer_value(b) < 0)
        return coe_fail(COE_E_INPUT, "%s: tensor %s: data_offsets is not an array of two whole numbers of at least 0",
                        where, t->name);
    long long begin = json_integer_value(b), end = json_integer_value(e);
    char text[96];
    if (end < begin)
        return coe_fail(COE_E_INPUT, "%s: tensor %s ends (%lld) before it begins (%lld)", where, t->name, end, begin);
    if ((uint64_t)(end - begin) != bytes)
        return coe_fail(COE_E_INPUT, "%s: tensor %s is %s %s, expected %llu bytes, data_offsets give %lld", where,
                        t->name, dtype_info[t->type].name, tensor_shape_text(t, text), (unsigned long long)bytes,
                        end - begin);
    if ((uint64_t)end > n)
        return coe_fail(COE_E_INPUT, "%s: tensor %s lies at bytes %lld to %lld, but the file has %llu bytes of data",
                        where, t->name, begin, end, (unsigned long long)n);
    t->data = data + begin;
    return COE_OK;
}

static coe_status read_entry(struct tensor *t, const json_t *entry, const unsigned char *data, uint64_t n,
                             const char *where)
{
    if (!json_is_object(entry))
        return coe_fail(COE_E_INPUT, "%s: tensor %s is %s, expected an object", where, t->name, json_kind(entry));
    const json_t *type = json_object_get(entry, "dtype");
    if (!json_is_string(type))
        return coe_fail(COE_E_INPUT, "%s: tensor %s: dtype is %s, expected a string", where, t->name, json_kind(type));
    t->type = dtype_by_name(json_string_value(type));
    /* block types have no spelling in safetensors: a file that uses our name for one is not a safetensors file */
    if (t->type == DT_COUNT || dtype_info[t->type].block != 1)
        return coe_fail(COE_E_INPUT, "%s: tensor %s: unknown dtype '%s'", where, t->name, json_string_value(type));
    uint64_t bytes;
    COE_TRY(read_shape(t, &bytes, json_object_get(entry, "shape"), where));
    return read_offsets(t, bytes, json_object_get(entry, "data_offsets"), data, n, where);
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

static coe_status allocate(struct tensor_list *l, const json_t *header)
{
    size_t text = 0;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)header, key, value) text += strlen(key) + 1;
    l->at = mem_alloc("tensor names", json_object_size(header) * sizeof *l->at);
    l->names = mem_alloc("tensor names", text);
    return l->at && l->names ? COE_OK : COE_E_NOMEM;
}

coe_status safetensors_parse(struct tensor_list *out, const unsigned char *bytes, uint64_t n, const char *where)
{
    json_t *header = NULL;
    *out = (struct tensor_list){ 0 };
    coe_status s = read_header(&header, bytes, n, where);
    if (!s) s = allocate(out, header);
    if (s) goto out;
    uint64_t skip = LENGTH_BYTES + load_u64(bytes);
    char *name = out->names;
    const char *key;
    json_t *value;
    json_object_foreach(header, key, value) {
        if (!strcmp(key, "__metadata__")) {
            if ((s = check_metadata(value, where))) goto out;
            continue;
        }
        struct tensor *t = &out->at[out->n];
        *t = (struct tensor){ .name = name };
        name = stpcpy(name, key) + 1;
        if ((s = read_entry(t, value, bytes + skip, n - skip, where))) goto out;
        out->n++;
    }
    s = check_cover(out, bytes + skip, n - skip, where);
    if (!s) s = tensor_list_sort(out, where);
out:
    json_decref(header);
    if (s) tensor_list_free(out);
    return s;
}
