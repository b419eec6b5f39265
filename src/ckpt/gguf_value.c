/* gguf_value.c — typed access to GGUF metadata. */
#include <math.h>
#include <string.h>

#include "gguf.h"
#include "reader.h"

static const char *const type_names[GGUF_TYPES] = { "u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                                    "bool", "string", "array", "u64", "i64", "f64" };

static enum gguf_type item_type(const struct gguf_value *v) { return v->type == GGUF_ARRAY ? v->item : v->type; }

bool gguf_is_int(const struct gguf_value *v)
{
    enum gguf_type t = item_type(v);
    return t <= GGUF_I32 || t == GGUF_U64 || t == GGUF_I64;
}

bool gguf_is_num(const struct gguf_value *v)
{
    enum gguf_type t = item_type(v);
    return gguf_is_int(v) || t == GGUF_F32 || t == GGUF_F64;
}

/* A u64 beyond INT64_MAX becomes INT64_MAX: no count or id is that large, and range checks then refuse it. */
int64_t gguf_int_at(const struct gguf_value *v, uint64_t i)
{
    assert(gguf_is_int(v) && i < v->n);
    switch (item_type(v)) {
    case GGUF_U8: return v->at[i];
    case GGUF_I8: return (int8_t)v->at[i];
    case GGUF_U16: return load_u16(v->at + 2 * i);
    case GGUF_I16: return (int16_t)load_u16(v->at + 2 * i);
    case GGUF_U32: return load_u32(v->at + 4 * i);
    case GGUF_I32: return (int32_t)load_u32(v->at + 4 * i);
    case GGUF_U64: return (int64_t)COE_MIN(load_u64(v->at + 8 * i), (uint64_t)INT64_MAX);
    default: return (int64_t)load_u64(v->at + 8 * i);
    }
}

double gguf_num_at(const struct gguf_value *v, uint64_t i)
{
    assert(gguf_is_num(v) && i < v->n);
    float f;
    double d;
    if (item_type(v) == GGUF_F32) {
        uint32_t bits = load_u32(v->at + 4 * i);
        memcpy(&f, &bits, sizeof f);
        return (double)f;
    }
    if (item_type(v) == GGUF_F64) {
        uint64_t bits = load_u64(v->at + 8 * i);
        memcpy(&d, &bits, sizeof d);
        return d;
    }
    return (double)gguf_int_at(v, i);
}

static coe_status wrong(const struct gguf *g, const char *key, const struct gguf_value *v, const char *expected)
{
    return coe_fail(COE_E_INPUT, "%s: %s is of type %s, expected %s", g->where, key, type_names[v->type], expected);
}

coe_status gguf_get_int(const struct gguf *g, const char *key, int64_t lo, int64_t hi, int64_t *out)
{
    const struct gguf_value *v = gguf_find(g, key);
    if (!v) return COE_OK;
    if (v->type == GGUF_ARRAY || !gguf_is_int(v)) return wrong(g, key, v, "a whole number");
    int64_t x = gguf_int_at(v, 0);
    if (x < lo || x > hi)
        return coe_fail(COE_E_INPUT, "%s: %s is %lld, outside %lld … %lld", g->where, key, (long long)x, (long long)lo,
                        (long long)hi);
    *out = x;
    return COE_OK;
}

coe_status gguf_get_num(const struct gguf *g, const char *key, double *out)
{
    const struct gguf_value *v = gguf_find(g, key);
    if (!v) return COE_OK;
    if (v->type == GGUF_ARRAY || !gguf_is_num(v)) return wrong(g, key, v, "a number");
    double x = gguf_num_at(v, 0);
    if (!isfinite(x)) return coe_fail(COE_E_INPUT, "%s: %s is %g, expected a finite number", g->where, key, x);
    *out = x;
    return COE_OK;
}

coe_status gguf_get_bool(const struct gguf *g, const char *key, bool *out)
{
    const struct gguf_value *v = gguf_find(g, key);
    if (!v) return COE_OK;
    if (v->type != GGUF_BOOL) return wrong(g, key, v, "true or false");
    *out = v->at[0] != 0;
    return COE_OK;
}

coe_status gguf_get_str(const struct gguf *g, const char *key, const char **out, size_t *n)
{
    const struct gguf_value *v = gguf_find(g, key);
    if (!v) return COE_OK;
    if (v->type != GGUF_STRING) return wrong(g, key, v, "a string");
    *out = (const char *)v->at;
    *n = (size_t)v->n;
    return COE_OK;
}

struct gguf_strings gguf_strings(const struct gguf_value *v)
{
    bool strings = v->type == GGUF_ARRAY && v->item == GGUF_STRING;
    return (struct gguf_strings){ v->at, strings ? v->n : 0 };
}

bool gguf_next(struct gguf_strings *s, const char **text, size_t *n)
{
    if (!s->left) return false;
    *n = (size_t)load_u64(s->at); /* lengths were checked when the file was read */
    *text = (const char *)s->at + 8;
    s->at += 8 + *n;
    s->left--;
    return true;
}

static json_t *or_null(json_t *v) { return v ? v : json_null(); }

static json_t *item_json(const struct gguf_value *v, uint64_t i)
{
    if (item_type(v) == GGUF_BOOL) return json_boolean(v->at[i] != 0);
    if (gguf_is_int(v)) return json_integer(gguf_int_at(v, i));
    double x = gguf_num_at(v, i);
    return isfinite(x) ? json_real(x) : json_null();
}

static json_t *value_json(const struct gguf_value *v, size_t max_items)
{
    if (v->type == GGUF_STRING) return or_null(json_stringn((const char *)v->at, (size_t)v->n));
    if (v->type != GGUF_ARRAY) return item_json(v, 0);
    json_t *list = json_array();
    struct gguf_strings s = gguf_strings(v);
    for (uint64_t i = 0; i < v->n && i < max_items; i++) {
        const char *text;
        size_t n;
        json_array_append_new(list, gguf_next(&s, &text, &n) ? or_null(json_stringn(text, n)) : item_json(v, i));
    }
    return list;
}

json_t *gguf_json(const struct gguf *g, size_t max_items)
{
    json_t *out = json_object();
    for (size_t i = 0; i < g->n; i++)
        if (json_object_set_new(out, g->at[i].key, or_null(value_json(&g->at[i].value, max_items)))) {
            json_decref(out);
            coe_fail(COE_E_NOMEM, "%s: no memory for the metadata", g->where);
            return NULL;
        }
    return out;
}
