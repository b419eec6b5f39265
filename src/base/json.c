/* json.c — jansson with our errors. */
#include "json.h"

#include <math.h>
#include <string.h>

#include "file.h"

#define MAX_DOC_BYTES ((uint64_t)1 << 28)

coe_status json_read_text(json_t **out, const char *text, size_t n, const char *where)
{
    json_error_t e;
    *out = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &e);
    if (*out) return COE_OK;
    return coe_fail(COE_E_INPUT, "%s: line %d column %d: %s", where, e.line, e.column, e.text);
}

coe_status json_read_file(json_t **out, const char *path)
{
    *out = NULL;
    struct str text = { 0 };
    coe_status s = file_read(&text, path, MAX_DOC_BYTES);
    if (!s) s = json_read_text(out, text.at ? text.at : "", text.n, path);
    str_free(&text);
    return s;
}

coe_status json_write_file(const json_t *doc, const char *path)
{
    char *text = json_dumps(doc, JSON_INDENT(2) | JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
    if (!text) return coe_fail(COE_E_NOMEM, "%s: document does not fit in memory", path);
    struct file_out f;
    coe_status s = file_begin(&f, path);
    if (!s) {
        s = file_put(&f, text, strlen(text));
        if (!s) s = file_put(&f, "\n", 1);
        if (s) file_abort(&f);
        else s = file_commit(&f);
    }
    free(text);
    return s;
}

static int append(const char *text, size_t n, void *user)
{
    str_add(user, text, n);
    return 0;
}

coe_status json_add_text(struct str *out, const json_t *value, size_t flags)
{
    if (json_dump_callback(value, append, out, flags | JSON_ENCODE_ANY))
        return coe_fail(COE_E_NOMEM, "no memory to write JSON");
    return str_check(out);
}

const char *json_kind(const json_t *v)
{
    if (!v) return "missing";
    switch (json_typeof(v)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "a whole number";
    case JSON_REAL: return "a number";
    case JSON_NULL: return "null";
    default: return "a boolean";
    }
}

static const json_t *find(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    return v && !json_is_null(v) ? v : NULL;
}

static coe_status wrong(const char *where, const char *key, const json_t *v, const char *expected)
{
    return coe_fail(COE_E_INPUT, "%s: %s is %s, expected %s", where, key, json_kind(v), expected);
}

coe_status json_get_int(const json_t *object, const char *key, int64_t lo, int64_t hi, int64_t *out, const char *where)
{
    const json_t *v = find(object, key);
    if (!v) return COE_OK;
    if (!json_is_integer(v)) return wrong(where, key, v, "a whole number");
    int64_t x = json_integer_value(v);
    if (x < lo || x > hi)
        return coe_fail(COE_E_INPUT, "%s: %s is %lld, outside %lld … %lld", where, key, (long long)x, (long long)lo,
                        (long long)hi);
    *out = x;
    return COE_OK;
}

coe_status json_get_i32(const json_t *object, const char *key, int32_t lo, int32_t hi, int32_t *out, const char *where)
{
    int64_t x = *out;
    COE_TRY(json_get_int(object, key, lo, hi, &x, where));
    *out = (int32_t)x;
    return COE_OK;
}

coe_status json_get_num(const json_t *object, const char *key, double *out, const char *where)
{
    const json_t *v = find(object, key);
    if (!v) return COE_OK;
    if (!json_is_number(v)) return wrong(where, key, v, "a number");
    *out = json_number_value(v);
    return COE_OK;
}

coe_status json_get_f32(const json_t *object, const char *key, float *out, const char *where)
{
    double x = (double)*out;
    COE_TRY(json_get_num(object, key, &x, where));
    if (!isfinite((float)x)) return coe_fail(COE_E_INPUT, "%s: %s is %g, too large", where, key, x);
    *out = (float)x;
    return COE_OK;
}

coe_status json_get_bool(const json_t *object, const char *key, bool *out, const char *where)
{
    const json_t *v = find(object, key);
    if (!v) return COE_OK;
    if (!json_is_boolean(v)) return wrong(where, key, v, "true or false");
    *out = json_is_true(v);
    return COE_OK;
}

coe_status json_get_str(const json_t *object, const char *key, const char **out, const char *where)
{
    const json_t *v = find(object, key);
    if (!v) return COE_OK;
    if (!json_is_string(v)) return wrong(where, key, v, "a string");
    *out = json_string_value(v);
    return COE_OK;
}

static coe_status need(const json_t *object, const char *key, const char *expected, const char *where)
{
    if (!json_is_object(object))
        return coe_fail(COE_E_INPUT, "%s: is %s, expected an object", where, json_kind(object));
    if (!find(object, key)) return coe_fail(COE_E_INPUT, "%s: %s is missing, expected %s", where, key, expected);
    return COE_OK;
}

coe_status json_need_i32(const json_t *object, const char *key, int32_t lo, int32_t hi, int32_t *out, const char *where)
{
    COE_TRY(need(object, key, "a whole number", where));
    return json_get_i32(object, key, lo, hi, out, where);
}

coe_status json_need_str(const json_t *object, const char *key, const char **out, const char *where)
{
    COE_TRY(need(object, key, "a string", where));
    return json_get_str(object, key, out, where);
}

coe_status json_need_print(const json_t *object, const char *key, char hex[17], bool may_be_empty,
                           const char *where)
{
    const char *text = "";
    COE_TRY(json_need_str(object, key, &text, where));
    const size_t n = strlen(text);
    if (!(n == 16 && strspn(text, "0123456789abcdef") == 16) && !(may_be_empty && !n))
        return coe_fail(COE_E_INPUT, "%s: %s '%.40s' is not a fingerprint of 16 hexadecimal digits", where, key, text);
    memcpy(hex, text, n + 1);
    return COE_OK;
}

coe_status json_only_keys(const json_t *object, const char *const *keys, const char *where)
{
    if (!json_is_object(object))
        return coe_fail(COE_E_INPUT, "%s: is %s, expected an object", where, json_kind(object));
    void *it = json_object_iter((json_t *)(uintptr_t)object);
    for (; it; it = json_object_iter_next((json_t *)(uintptr_t)object, it)) {
        const char *key = json_object_iter_key(it);
        size_t i = 0;
        while (keys[i] && strcmp(keys[i], key)) i++;
        if (!keys[i]) return coe_fail(COE_E_INPUT, "%s: unknown key '%s'", where, key);
    }
    return COE_OK;
}
