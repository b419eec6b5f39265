/* jinja_filters.c — filters on texts and single values, arguments, and finding a filter by its name. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "text/cpset.h"
#include "text/jinja.h"
#include "text/jinja_string.h"

coe_status jinja_arg(struct jstate *s, const struct jargs *a, int i, const char *name, struct jvalue *out)
{
    if (i >= 0 && i < a->n) *out = a->at[i];
    for (int k = 0; k < a->n_keys; k++)
        if (a->key[k] < s->t->names.n && jv_is(s->t->names.at[a->key[k]], name)) *out = a->at[a->n + k];
    return COE_OK;
}

coe_status jinja_arg_int(struct jstate *s, const struct jargs *a, int i, const char *name, int64_t *out)
{
    struct jvalue v = jv_int(*out);
    COE_TRY(jinja_arg(s, a, i, name, &v));
    if (v.kind != J_INT && v.kind != J_BOOL) return jinja_error(s, "%s is a %s, expected an int", name, jv_type(v));
    *out = v.i;
    return COE_OK;
}

coe_status jinja_arg_bool(struct jstate *s, const struct jargs *a, int i, const char *name, bool *out)
{
    struct jvalue v = jv_bool(*out);
    COE_TRY(jinja_arg(s, a, i, name, &v));
    *out = jv_true(v);
    return COE_OK;
}

coe_status jinja_arg_text(struct jstate *s, const struct jargs *a, int i, const char *name, struct jvalue *out)
{
    COE_TRY(jinja_arg(s, a, i, name, out));
    if (out->kind != J_STRING) return jinja_error(s, "%s is a %s, expected a str", name, jv_type(*out));
    return COE_OK;
}

/* ---- what filters and methods share ---- */

struct jvalue jinja_strip(struct jvalue v, const struct jvalue *chars, bool left, bool right)
{
    const char *at = v.s, *end = v.s + v.n;
    uint32_t cp;
    for (int k; left && at < end && (k = utf8_decode(at, (size_t)(end - at), &cp)); at += k)
        if (chars ? !memmem(chars->s, chars->n, at, (size_t)k) : !cp_is_space(cp) && !(cp >= 0x1C && cp <= 0x1F)) break;
    while (right && end > at) {
        size_t k = 1;
        while (k < 4 && end - k > at && ((unsigned char)end[-(ptrdiff_t)k] & 0xC0) == 0x80) k++;
        if (!utf8_decode(end - k, k, &cp) ||
            (chars ? !memmem(chars->s, chars->n, end - k, k) : !cp_is_space(cp) && !(cp >= 0x1C && cp <= 0x1F)))
            break;
        end -= k;
    }
    return jv_text(at, (size_t)(end - at));
}

coe_status jinja_replace(struct jstate *s, struct jvalue v, struct jvalue from, struct jvalue to, int64_t count,
                         struct jvalue *out)
{
    struct str text = { 0 };
    const char *at = v.s, *end = v.s + v.n;
    coe_status st = COE_OK;
    while (count && !st) {
        const char *hit = from.n ? memmem(at, (size_t)(end - at), from.s, from.n) : at;
        if (!hit) break;
        int k = from.n || at == end
                    ? 0
                    : utf8_decode(at, (size_t)(end - at), NULL); /* an empty `from` is between characters */
        str_add(&text, at, (size_t)(hit - at));
        str_add(&text, to.s, to.n);
        str_add(&text, at, (size_t)(from.n ? 0 : k));
        if (!from.n && at == end) break;
        at = hit + (from.n ? (int)from.n : k);
        count -= count > 0;
        if (text.n > JINJA_MAX_OUTPUT) st = jinja_error(s, "a text of more than %zu MB", JINJA_MAX_OUTPUT >> 20);
    }
    if (!st && (from.n || !count)) str_add(&text, at, (size_t)(end - at));
    if (!st) return jv_take_str(s, &text, out);
    str_free(&text);
    return st;
}

coe_status jinja_recase(struct jstate *s, struct jvalue v, enum jinja_case how, struct jvalue *out)
{
    struct str text = { 0 };
    bool start = true;
    for (size_t i = 0; i < v.n;) {
        uint32_t cp = 0xFFFD;
        char c[4];
        int k = utf8_decode(v.s + i, v.n - i, &cp);
        utf8proc_int32_t p = (utf8proc_int32_t)cp;
        bool up = how == CASE_UPPER || (start && how != CASE_LOWER);
        if (up && cp == 0xDF) {
            str_addz(&text, how == CASE_UPPER ? "SS" : "Ss");
        } else if (!up && cp == 0x130) {
            str_addz(&text, "i\xCC\x87");
        } else {
            p = !up ? utf8proc_tolower(p) : how == CASE_UPPER ? utf8proc_toupper(p) : utf8proc_totitle(p);
            str_add(&text, c, (size_t)utf8_encode((uint32_t)p, c));
        }
        if (how == CASE_CAPITAL) start = false;
        else if (how == CASE_TITLE)
            start = cp_is_space(cp) || cp == '-' || cp == '(' || cp == '{' || cp == '[' || cp == '<';
        else if (how == CASE_PYTHON_TITLE)
            start = !(utf8proc_category((utf8proc_int32_t)cp) >= UTF8PROC_CATEGORY_LU &&
                      utf8proc_category((utf8proc_int32_t)cp) <= UTF8PROC_CATEGORY_LM);
        i += k ? (size_t)k : 1;
    }
    return jv_take_str(s, &text, out);
}

/* ---- filters ---- */

static coe_status as_text(struct jstate *s, struct jvalue *v) { return jv_to_text(s, *v, v); }

static coe_status f_upper(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    (void)a;
    COE_TRY(as_text(s, &v));
    return jinja_recase(s, v, CASE_UPPER, out);
}

static coe_status f_lower(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    (void)a;
    COE_TRY(as_text(s, &v));
    return jinja_recase(s, v, CASE_LOWER, out);
}

static coe_status f_capitalize(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    (void)a;
    COE_TRY(as_text(s, &v));
    return jinja_recase(s, v, CASE_CAPITAL, out);
}

static coe_status f_title(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    (void)a;
    COE_TRY(as_text(s, &v));
    return jinja_recase(s, v, CASE_TITLE, out);
}

static coe_status f_trim(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    struct jvalue chars = jv_none();
    COE_TRY(as_text(s, &v));
    COE_TRY(jinja_arg(s, a, 0, "chars", &chars));
    if (chars.kind != J_NONE && chars.kind != J_STRING) return jinja_error(s, "strip arg must be None or str");
    *out = jinja_strip(v, chars.kind == J_STRING ? &chars : NULL, true, true);
    return COE_OK;
}

static coe_status f_string(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    (void)a;
    return jv_to_text(s, v, out);
}

static coe_status f_safe(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    (void)a;
    COE_TRY(jv_to_text(s, v, out));
    out->safe = true;
    return COE_OK;
}

static coe_status f_escape(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    (void)a;
    struct jvalue empty = jv_text("", 0);
    COE_TRY(as_text(s, &v));
    empty.safe = true;
    return jv_binary(s, OP_ADD, empty, v, out); /* adding to markup escapes */
}

static coe_status f_replace(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    struct jvalue from = jv_none(), to = jv_none(), count = jv_none();
    COE_TRY(as_text(s, &v));
    COE_TRY(jinja_arg(s, a, 0, "old", &from));
    COE_TRY(jinja_arg(s, a, 1, "new", &to));
    COE_TRY(jinja_arg(s, a, 2, "count", &count));
    COE_TRY(as_text(s, &from));
    COE_TRY(as_text(s, &to));
    return jinja_replace(s, v, from, to, count.kind == J_NONE ? -1 : count.i, out);
}

/* indent(width=4, first=False, blank=False) */
static coe_status f_indent(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    struct jvalue width = jv_int(4);
    bool first = false, blank = false;
    struct str pad = { 0 }, text = { 0 };
    if (v.kind != J_STRING) return jinja_error(s, "indent: expected a str, not %s", jv_type(v));
    COE_TRY(jinja_arg(s, a, 0, "width", &width));
    COE_TRY(jinja_arg_bool(s, a, 1, "first", &first));
    COE_TRY(jinja_arg_bool(s, a, 2, "blank", &blank));
    if (width.kind == J_STRING) str_add(&pad, width.s, width.n);
    for (int64_t i = 0; width.kind == J_INT && i < COE_MIN(width.i, 1000); i++) str_addc(&pad, ' ');
    const char *at = v.s, *end = v.s + v.n;
    bool line_one = true;
    while (at <= end && text.n <= JINJA_MAX_OUTPUT) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        if (!stop) stop = end;
        bool empty = stop == at;
        if ((line_one ? first : true) && pad.n && (!empty || blank)) str_add(&text, pad.at, pad.n);
        str_add(&text, at, (size_t)(stop - at));
        if (stop == end) break;
        str_addc(&text, '\n');
        at = stop + 1;
        line_one = false;
    }
    str_free(&pad);
    return jv_take_str(s, &text, out);
}

/* tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False) as transformers defines it */
static coe_status f_tojson(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    struct jtojson how = { .indent = jv_undefined("", 0), .item = jv_undefined("", 0), .key = jv_undefined("", 0) };
    struct jvalue indent = jv_none(), separators = jv_none();
    struct str text = { 0 };
    COE_TRY(jinja_arg_bool(s, a, 0, "ensure_ascii", &how.ascii));
    COE_TRY(jinja_arg(s, a, 1, "indent", &indent));
    COE_TRY(jinja_arg(s, a, 2, "separators", &separators));
    COE_TRY(jinja_arg_bool(s, a, 3, "sort_keys", &how.sort));
    if (indent.kind == J_INT || indent.kind == J_STRING || indent.kind == J_BOOL) how.indent = indent;
    if (separators.kind == J_LIST || separators.kind == J_TUPLE) {
        if (separators.list->n != 2) return jinja_error(s, "separators must be two strings");
        how.item = separators.list->at[0];
        how.key = separators.list->at[1];
    }
    coe_status st = jv_to_json(s, v, &how, &text, 0);
    if (!st) return jv_take_str(s, &text, out);
    str_free(&text);
    return st;
}

static coe_status f_default(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    struct jvalue otherwise = jv_text("", 0);
    bool falsy = false;
    COE_TRY(jinja_arg(s, a, 0, "default_value", &otherwise));
    COE_TRY(jinja_arg_bool(s, a, 1, "boolean", &falsy));
    *out = v.kind == J_UNDEFINED || (falsy && !jv_true(v)) ? otherwise : v;
    return COE_OK;
}

static bool number_of(struct jvalue v, double *out)
{
    if (v.kind == J_INT || v.kind == J_BOOL) *out = (double)v.i;
    else if (v.kind == J_FLOAT) *out = v.f;
    else if (v.kind == J_STRING && v.n && v.n < 64) {
        char text[64], *end;
        struct jvalue t = jinja_strip(v, NULL, true, true);
        memcpy(text, t.s, t.n);
        text[t.n] = 0;
        *out = strtod(text, &end);
        return end != text && !*end;
    } else return false;
    return true;
}

static coe_status f_int(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    struct jvalue otherwise = jv_int(0);
    double x;
    COE_TRY(jinja_arg(s, a, 0, "default", &otherwise));
    if (v.kind == J_STRING && v.n < 64) { /* whole numbers in full, beyond what a double holds */
        char text[64], *end;
        struct jvalue t = jinja_strip(v, NULL, true, true);
        memcpy(text, t.s, t.n);
        text[t.n] = 0;
        errno = 0;
        long long i = strtoll(text, &end, 10);
        if (end != text && !*end && !errno) {
            *out = jv_int(i);
            return COE_OK;
        }
    }
    *out = v.kind == J_INT ? v : number_of(v, &x) && fabs(x) < 9.2e18 ? jv_int((int64_t)x) : otherwise;
    return COE_OK;
}

static coe_status f_float(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    struct jvalue otherwise = jv_float(0);
    double x;
    COE_TRY(jinja_arg(s, a, 0, "default", &otherwise));
    *out = number_of(v, &x) ? jv_float(x) : otherwise;
    return COE_OK;
}

static coe_status f_abs(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    (void)a;
    if (v.kind == J_FLOAT) *out = jv_float(fabs(v.f));
    else if ((v.kind == J_INT || v.kind == J_BOOL) && v.i != INT64_MIN) *out = jv_int(v.i < 0 ? -v.i : v.i);
    else return jinja_error(s, "bad operand type for abs(): '%s'", jv_type(v));
    return COE_OK;
}

static coe_status f_round(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    int64_t precision = 0;
    struct jvalue method = jv_text("common", 6);
    double x;
    COE_TRY(jinja_arg_int(s, a, 0, "precision", &precision));
    COE_TRY(jinja_arg_text(s, a, 1, "method", &method));
    if (v.kind == J_STRING || !number_of(v, &x)) return jinja_error(s, "type %s doesn't define round", jv_type(v));
    double scale = pow(10, (double)precision), y = x * scale;
    y = jv_is(method, "ceil") ? ceil(y) : jv_is(method, "floor") ? floor(y) : rint(y);
    *out = jv_float(y / scale);
    return COE_OK;
}

static coe_status f_wordcount(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    (void)a;
    int64_t n = 0;
    bool inside = false;
    COE_TRY(as_text(s, &v));
    for (uint32_t i = 0; i < v.n; i++) {
        bool word = !strchr(" \t\r\n\f\v", v.s[i]);
        n += word && !inside;
        inside = word;
    }
    *out = jv_int(n);
    return COE_OK;
}

const struct jfilter jinja_text_filters[] = {
    { "upper", f_upper },         { "lower", f_lower },   { "capitalize", f_capitalize },
    { "title", f_title },         { "trim", f_trim },     { "string", f_string },
    { "safe", f_safe },           { "escape", f_escape }, { "e", f_escape },
    { "replace", f_replace },     { "indent", f_indent }, { "tojson", f_tojson },
    { "default", f_default },     { "d", f_default },     { "int", f_int },
    { "float", f_float },         { "abs", f_abs },       { "round", f_round },
    { "wordcount", f_wordcount }, { NULL, NULL },
};

coe_status jinja_filter(struct jstate *s, struct jvalue name, struct jvalue v, const struct jargs *args,
                        struct jvalue *out)
{
    static const struct jfilter *const tables[] = { jinja_text_filters, jinja_list_filters };
    for (size_t t = 0; t < COE_COUNT(tables); t++)
        for (const struct jfilter *f = tables[t]; f->name; f++)
            if (jv_is(name, f->name)) return f->fn(s, v, args, out);
    return jinja_error(s, "No filter named '%.*s' found", (int)COE_MIN(name.n, 60u), name.s);
}
