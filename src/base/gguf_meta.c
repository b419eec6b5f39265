/* gguf_meta.c — see gguf_meta.h. Every length is checked against what is left of the file before it is used. */
#include "gguf_meta.h"

#include <string.h>

#define MAX_KEYS 65536
#define MAX_KEY_BYTES 65535

static const uint8_t type_bytes[GGUF_N_TYPES] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };

static size_t left(const struct gguf_meta *m) { return (size_t)(m->end - m->at); }

/* key: empty where it is the key that is cut */
static coe_status short_file(const struct gguf_meta *m, struct gguf_text key, const char *what)
{
    return coe_fail(COE_E_INPUT, "%s: GGUF: the file ends inside %s%s%.*s (key %llu of %llu)", m->where, what,
                    key.n ? " of " : "", (int)COE_MIN(key.n, (size_t)80), key.at, (unsigned long long)m->done + 1,
                    (unsigned long long)m->n_keys);
}

static bool take(struct gguf_meta *m, void *to, size_t n)
{
    if (left(m) < n) return false;
    memcpy(to, m->at, n);
    m->at += n;
    return true;
}

coe_status gguf_meta_begin(struct gguf_meta *m, const void *bytes, size_t n, const char *where)
{
    *m = (struct gguf_meta){ .at = bytes, .end = (const unsigned char *)bytes + n, .where = where };
    if (n < 24 || memcmp(bytes, "GGUF", 4) != 0)
        return coe_fail(COE_E_INPUT, "%s: %s", where, n ? "is not a GGUF file" : "is empty, expected a GGUF file");
    m->at += 4;
    take(m, &m->version, 4);
    take(m, &m->n_tensors, 8);
    take(m, &m->n_keys, 8);
    if (m->version && !(m->version & 0xFFFF))
        return coe_fail(COE_E_INPUT, "%s: GGUF: is big-endian, expected little-endian", where);
    if (m->version < 2 || m->version > 3)
        return coe_fail(COE_E_INPUT, "%s: GGUF version %u, expected 2 or 3", where, m->version);
    if (m->n_keys > MAX_KEYS)
        return coe_fail(COE_E_INPUT, "%s: GGUF: %llu keys, at most %d", where, (unsigned long long)m->n_keys, MAX_KEYS);
    return COE_OK;
}

static coe_status skip_strings(struct gguf_meta *m, struct gguf_text key, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        uint64_t n;
        if (!take(m, &n, 8) || n > left(m)) return short_file(m, key, "a string");
        m->at += n;
    }
    return COE_OK;
}

static coe_status take_value(struct gguf_meta *m, struct gguf_value *out)
{
    uint32_t type;
    out->count = 1;
    if (!take(m, &type, 4)) return short_file(m, out->key, "the type");
    out->array = type == GGUF_ARRAY;
    if (out->array && (!take(m, &type, 4) || !take(m, &out->count, 8))) return short_file(m, out->key, "the array");
    if (type >= GGUF_N_TYPES || type == GGUF_ARRAY)
        return coe_fail(
            COE_E_INPUT, "%s: GGUF: %.*s %s %u", m->where, (int)COE_MIN(out->key.n, (size_t)80), out->key.at,
            out->array && type == GGUF_ARRAY ? "is an array of arrays, type" : "has the unknown type", type);
    out->type = (enum gguf_type)type;
    out->at = m->at;
    if (type == GGUF_STRING) {
        COE_TRY(skip_strings(m, out->key, out->count));
    } else {
        if (out->count > left(m) / type_bytes[type]) return short_file(m, out->key, "the array");
        m->at += out->count * type_bytes[type];
    }
    out->end = m->at;
    return COE_OK;
}

coe_status gguf_meta_next(struct gguf_meta *m, struct gguf_value *out, bool *more)
{
    uint64_t n;
    *more = m->done < m->n_keys;
    if (!*more) return COE_OK;
    if (!take(m, &n, 8) || n > left(m)) return short_file(m, (struct gguf_text){ "", 0 }, "a key");
    if (n > MAX_KEY_BYTES)
        return coe_fail(COE_E_INPUT, "%s: GGUF: a key of %llu bytes", m->where, (unsigned long long)n);
    out->key = (struct gguf_text){ (const char *)m->at, (size_t)n };
    m->at += n;
    COE_TRY(take_value(m, out));
    m->done++;
    return COE_OK;
}

bool gguf_key_is(const struct gguf_value *v, const char *key)
{
    return v->key.n == strlen(key) && !memcmp(v->key.at, key, v->key.n);
}

int64_t gguf_int_at(const struct gguf_value *v, uint64_t i)
{
    const unsigned char *p = v->at + i * type_bytes[v->type];
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        int64_t i64;
    } x = { 0 };
    memcpy(&x, p, type_bytes[v->type]);
    switch (v->type) {
    case GGUF_U8:
    case GGUF_BOOL: return x.u8;
    case GGUF_I8: return x.i8;
    case GGUF_U16: return x.u16;
    case GGUF_I16: return x.i16;
    case GGUF_U32: return x.u32;
    case GGUF_I32: return x.i32;
    case GGUF_U64: return x.i64 < 0 ? INT64_MAX : x.i64;
    case GGUF_I64: return x.i64;
    default: return 0;
    }
}

double gguf_float_at(const struct gguf_value *v, uint64_t i)
{
    float f;
    double d;
    if (v->type == GGUF_F32) {
        memcpy(&f, v->at + 4 * i, 4);
        return (double)f;
    }
    if (v->type != GGUF_F64) return (double)gguf_int_at(v, i);
    memcpy(&d, v->at + 8 * i, 8);
    return d;
}

static coe_status wrong(const struct gguf_value *v, const char *where, const char *expected)
{
    return coe_fail(COE_E_INPUT, "%s: GGUF: %.*s is of another type, expected %s", where,
                    (int)COE_MIN(v->key.n, (size_t)80), v->key.at, expected);
}

coe_status gguf_get_int(const struct gguf_value *v, const char *where, int64_t lo, int64_t hi, int64_t *out)
{
    if (v->array || v->type == GGUF_STRING || v->type == GGUF_F32 || v->type == GGUF_F64)
        return wrong(v, where, "a whole number");
    int64_t x = gguf_int_at(v, 0);
    if (x < lo || x > hi)
        return coe_fail(COE_E_INPUT, "%s: GGUF: %.*s is %lld, outside %lld … %lld", where, (int)v->key.n, v->key.at,
                        (long long)x, (long long)lo, (long long)hi);
    *out = x;
    return COE_OK;
}

coe_status gguf_get_bool(const struct gguf_value *v, const char *where, bool *out)
{
    if (v->array || v->type != GGUF_BOOL) return wrong(v, where, "true or false");
    *out = gguf_int_at(v, 0) != 0;
    return COE_OK;
}

coe_status gguf_get_float(const struct gguf_value *v, const char *where, double *out)
{
    if (v->array || v->type == GGUF_STRING) return wrong(v, where, "a number");
    *out = gguf_float_at(v, 0);
    return COE_OK;
}

bool gguf_next_text(const struct gguf_value *v, const unsigned char **at, struct gguf_text *out)
{
    uint64_t n;
    if (v->type != GGUF_STRING || *at >= v->end) return false;
    memcpy(&n, *at, 8); /* lengths were checked by gguf_meta_next */
    *out = (struct gguf_text){ (const char *)*at + 8, (size_t)n };
    *at += 8 + n;
    return true;
}

coe_status gguf_get_text(const struct gguf_value *v, const char *where, struct gguf_text *out)
{
    const unsigned char *at = v->at;
    if (v->array || !gguf_next_text(v, &at, out)) return wrong(v, where, "a string");
    return COE_OK;
}
