/* jinja_text.c — values as text: Python's str() and repr(), JSON out and in. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "text/jinja.h"

#define MAX_NESTING 100

/* The shortest decimal that reads back as the same double, laid out as Python does. */
void jv_float_text(double f, char out[40])
{
    char digits[40];
    if (isnan(f) || isinf(f)) {
        snprintf(out, 40, "%s", isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
        return;
    }
    int precision = 1;
    for (; precision < 17; precision++) {
        snprintf(digits, sizeof digits, "%.*e", precision - 1, f);
        if (strtod(digits, NULL) == f) break;
    }
    snprintf(digits, sizeof digits, "%.*e", precision - 1, f);
    const char *e = strchr(digits, 'e');
    int exponent = (int)strtol(e + 1, NULL, 10), decimals = precision - 1 - exponent;
    if (exponent >= -4 && exponent < 16) snprintf(out, 40, "%.*f", decimals > 1 ? decimals : 1, f);
    else snprintf(out, 40, "%.*se%c%02d", (int)(e - digits), digits, exponent < 0 ? '-' : '+', abs(exponent));
}

static bool is_printable(uint32_t cp)
{
    if (cp < 0x7F) return cp >= 0x20;
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return !(c == UTF8PROC_CATEGORY_CN ||
             c >= UTF8PROC_CATEGORY_ZS); /* separators, controls, formats, surrogates, private use */
}

static void repr_text(struct jvalue v, struct str *out)
{
    bool single = memchr(v.s, '\'', v.n) && !memchr(v.s, '"', v.n);
    char quote = single ? '"' : '\'';
    str_addc(out, quote);
    for (size_t i = 0; i < v.n;) {
        uint32_t cp = 0xFFFD;
        int k = utf8_decode(v.s + i, v.n - i, &cp);
        if (cp == '\n' || cp == '\r' || cp == '\t') str_addf(out, "\\%c", cp == '\n' ? 'n' : cp == '\r' ? 'r' : 't');
        else if (cp == (uint32_t)quote || cp == '\\') str_addf(out, "\\%c", (char)cp);
        else if (is_printable(cp)) str_add(out, v.s + i, k ? (size_t)k : 1);
        else str_addf(out, cp < 0x100 ? "\\x%02x" : cp < 0x10000 ? "\\u%04x" : "\\U%08x", cp);
        i += k ? (size_t)k : 1;
    }
    str_addc(out, quote);
}

static coe_status repr_items(struct jstate *s, const struct jlist *l, struct str *out, const char *ends, int depth)
{
    str_addc(out, ends[0]);
    for (size_t i = 0; i < l->n; i++) {
        if (i) str_addz(out, ", ");
        COE_TRY(jv_repr(s, l->at[i], out, depth + 1));
    }
    if (ends[0] == '(' && l->n == 1) str_addc(out, ',');
    str_addc(out, ends[1]);
    return COE_OK;
}

static coe_status repr_dict(struct jstate *s, const struct jdict *d, struct str *out, int depth)
{
    str_addc(out, '{');
    for (uint32_t i = 0; i < d->n; i++) {
        if (i) str_addz(out, ", ");
        COE_TRY(jv_repr(s, d->key[i], out, depth + 1));
        str_addz(out, ": ");
        COE_TRY(jv_repr(s, d->value[i], out, depth + 1));
    }
    str_addc(out, '}');
    return COE_OK;
}

coe_status jv_repr(struct jstate *s, struct jvalue v, struct str *out, int depth)
{
    char number[40];
    if (depth > MAX_NESTING) return jinja_error(s, "a value nested too deep to print");
    if (out->n > JINJA_MAX_OUTPUT) return jinja_error(s, "a text of more than %zu MB", JINJA_MAX_OUTPUT >> 20);
    switch (v.kind) {
    case J_UNDEFINED: str_addz(out, "Undefined"); return COE_OK;
    case J_NONE: str_addz(out, "None"); return COE_OK;
    case J_BOOL: str_addz(out, v.i ? "True" : "False"); return COE_OK;
    case J_INT: str_addf(out, "%lld", (long long)v.i); return COE_OK;
    case J_FLOAT:
        jv_float_text(v.f, number);
        str_addz(out, number);
        return COE_OK;
    case J_STRING: repr_text(v, out); return COE_OK;
    case J_LIST: return repr_items(s, v.list, out, "[]", depth);
    case J_TUPLE: return repr_items(s, v.list, out, "()", depth);
    case J_DICT: return repr_dict(s, v.dict, out, depth);
    case J_VIEW:
        str_addz(out, "dict_items(");
        COE_TRY(repr_items(s, v.list, out, "[]", depth));
        str_addc(out, ')');
        return COE_OK;
    default: return jinja_error(s, "a %s cannot be printed", jv_type(v));
    }
}

coe_status jv_str(struct jstate *s, struct jvalue v, struct str *out)
{
    if (v.kind == J_UNDEFINED) return COE_OK;
    if (v.kind != J_STRING) return jv_repr(s, v, out, 0);
    str_add(out, v.s, v.n);
    return COE_OK;
}

coe_status jv_to_text(struct jstate *s, struct jvalue v, struct jvalue *out)
{
    if (v.kind == J_STRING) {
        *out = v;
        return COE_OK;
    }
    struct str text = { 0 };
    coe_status st = jv_str(s, v, &text);
    if (!st) return jv_take_str(s, &text, out);
    str_free(&text);
    return st;
}

static void json_text(struct jvalue v, bool ascii, struct str *out)
{
    static const char plain[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
    str_addc(out, '"');
    for (size_t i = 0; i < v.n;) {
        uint32_t cp = 0xFFFD;
        int k = utf8_decode(v.s + i, v.n - i, &cp);
        const char *e = cp && cp < 0x80 ? strchr(plain, (int)cp) : NULL;
        if (e) str_addf(out, "\\%c", letter[e - plain]);
        else if (cp < 0x20 || (ascii && cp >= 0x7F && cp < 0x10000)) str_addf(out, "\\u%04x", cp);
        else if (ascii && cp >= 0x10000)
            str_addf(out, "\\u%04x\\u%04x", 0xD800 + ((cp - 0x10000) >> 10), 0xDC00 + (cp & 0x3FF));
        else str_add(out, v.s + i, k ? (size_t)k : 1);
        i += k ? (size_t)k : 1;
    }
    str_addc(out, '"');
}

static coe_status json_break(struct jstate *s, const struct jtojson *how, struct str *out, int depth)
{
    if (how->indent.kind == J_UNDEFINED) return COE_OK;
    str_addc(out, '\n');
    for (int d = 0; d < depth; d++)
        if (how->indent.kind == J_STRING) str_add(out, how->indent.s, how->indent.n);
        else
            for (int64_t i = 0; i < COE_MIN(how->indent.i, 64); i++) str_addc(out, ' ');
    return out->n > JINJA_MAX_OUTPUT ? jinja_error(s, "a text of more than %zu MB", JINJA_MAX_OUTPUT >> 20) : COE_OK;
}

static void json_separator(const struct jtojson *how, struct str *out, bool key)
{
    struct jvalue sep = key ? how->key : how->item;
    if (sep.kind == J_STRING) str_add(out, sep.s, sep.n);
    else str_addz(out, key ? ": " : how->indent.kind == J_UNDEFINED ? ", " : ",");
}

static coe_status json_key(struct jstate *s, struct jvalue key, const struct jtojson *how, struct str *out)
{
    if (key.kind != J_STRING && key.kind != J_NONE && key.kind != J_BOOL && key.kind != J_INT && key.kind != J_FLOAT)
        return jinja_error(s, "keys must be str, int, float, bool or None, not %s", jv_type(key));
    if (key.kind == J_STRING) {
        json_text(key, how->ascii, out);
        return COE_OK;
    }
    str_addc(out, '"');
    COE_TRY(jv_to_json(s, key, how, out, 0));
    str_addc(out, '"');
    return COE_OK;
}

/* Indices of the keys in order; NULL: no memory. */
static coe_status key_order(struct jstate *s, const struct jdict *d, bool sort, uint32_t **order)
{
    uint32_t *at = *order = jinja_alloc(s, (d->n + 1) * sizeof *at);
    if (!at) return jinja_failed();
    for (uint32_t i = 0; i < d->n; i++) {
        uint32_t k = i;
        int c = 0;
        for (; sort && k > 0; k--) {
            COE_TRY(jv_compare(s, d->key[i], d->key[at[k - 1]], &c));
            if (c >= 0) break;
            at[k] = at[k - 1];
        }
        at[k] = i;
    }
    return COE_OK;
}

static coe_status json_dict(struct jstate *s, const struct jdict *d, const struct jtojson *how, struct str *out,
                            int depth)
{
    uint32_t *order;
    if (how->sort && d->n > 10000) return jinja_error(s, "more than 10000 keys to sort");
    COE_TRY(key_order(s, d, how->sort, &order));
    str_addc(out, '{');
    for (uint32_t i = 0; i < d->n; i++) {
        if (i) json_separator(how, out, false);
        COE_TRY(json_break(s, how, out, depth + 1));
        COE_TRY(json_key(s, d->key[order[i]], how, out));
        json_separator(how, out, true);
        COE_TRY(jv_to_json(s, d->value[order[i]], how, out, depth + 1));
    }
    if (d->n) COE_TRY(json_break(s, how, out, depth));
    str_addc(out, '}');
    return COE_OK;
}

static coe_status json_list(struct jstate *s, const struct jlist *l, const struct jtojson *how, struct str *out,
                            int depth)
{
    str_addc(out, '[');
    for (size_t i = 0; i < l->n; i++) {
        if (i) json_separator(how, out, false);
        COE_TRY(json_break(s, how, out, depth + 1));
        COE_TRY(jv_to_json(s, l->at[i], how, out, depth + 1));
    }
    if (l->n) COE_TRY(json_break(s, how, out, depth));
    str_addc(out, ']');
    return COE_OK;
}

coe_status jv_to_json(struct jstate *s, struct jvalue v, const struct jtojson *how, struct str *out, int depth)
{
    char number[40];
    if (depth > MAX_NESTING) return jinja_error(s, "a value nested too deep for JSON");
    if (out->n > JINJA_MAX_OUTPUT) return jinja_error(s, "a text of more than %zu MB", JINJA_MAX_OUTPUT >> 20);
    switch (v.kind) {
    case J_NONE: str_addz(out, "null"); return COE_OK;
    case J_BOOL: str_addz(out, v.i ? "true" : "false"); return COE_OK;
    case J_INT: str_addf(out, "%lld", (long long)v.i); return COE_OK;
    case J_FLOAT:
        jv_float_text(v.f, number);
        str_addz(out, isnan(v.f) ? "NaN" : isinf(v.f) ? v.f < 0 ? "-Infinity" : "Infinity" : number);
        return COE_OK;
    case J_STRING: json_text(v, how->ascii, out); return COE_OK;
    case J_LIST:
    case J_TUPLE: return json_list(s, v.list, how, out, depth);
    case J_DICT: return json_dict(s, v.dict, how, out, depth);
    default: return jinja_error(s, "Object of type %s is not JSON serializable", jv_type(v));
    }
}

coe_status jv_of_json(struct jstate *s, const json_t *j, struct jvalue *out, int depth)
{
    if (depth > MAX_NESTING) return jinja_error(s, "the data are nested deeper than %d", MAX_NESTING);
    switch (json_typeof(j)) {
    case JSON_STRING: *out = jv_text(json_string_value(j), json_string_length(j)); return COE_OK;
    case JSON_INTEGER: *out = jv_int(json_integer_value(j)); return COE_OK;
    case JSON_REAL: *out = jv_float(json_real_value(j)); return COE_OK;
    case JSON_TRUE: *out = jv_bool(true); return COE_OK;
    case JSON_FALSE: *out = jv_bool(false); return COE_OK;
    case JSON_NULL: *out = jv_none(); return COE_OK;
    case JSON_ARRAY:
        COE_TRY(jv_new_list(s, J_LIST, out));
        for (size_t i = 0; i < json_array_size(j); i++) {
            struct jvalue v;
            COE_TRY(jv_of_json(s, json_array_get(j, i), &v, depth + 1));
            COE_TRY(jv_push(s, out->list, v));
        }
        return COE_OK;
    default: break;
    }
    COE_TRY(jv_new_dict(s, J_DICT, out));
    json_t *object = (json_t *)(uintptr_t)j; /* jansson's iterator wants it writable */
    for (void *it = json_object_iter(object); it; it = json_object_iter_next(object, it)) {
        struct jvalue v;
        COE_TRY(jv_of_json(s, json_object_iter_value(it), &v, depth + 1));
        COE_TRY(jv_set(s, out->dict, jv_text(json_object_iter_key(it), json_object_iter_key_len(it)), v));
    }
    return COE_OK;
}
