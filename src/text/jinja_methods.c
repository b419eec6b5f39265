/* jinja_methods.c — methods of strings, lists and mappings, and the global functions. Methods that would change a value
 * are refused by name, as in Jinja's immutable sandbox; namespaces change by `set` only. */
#include <string.h>

#include "text/jinja_string.h"

typedef coe_status method_fn(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out);
struct named_method {
    const char *name;
    method_fn *fn; /* NULL: unsafe */
};

static coe_status strip_method(struct jstate *s, struct jvalue v, const struct jargs *a, bool left, bool right,
                               struct jvalue *out)
{
    struct jvalue chars = jv_none();
    COE_TRY(jinja_arg(s, a, 0, "chars", &chars));
    if (chars.kind != J_NONE && chars.kind != J_STRING) return jinja_error(s, "strip arg must be None or str");
    *out = jinja_strip(v, chars.kind == J_STRING ? &chars : NULL, left, right);
    return COE_OK;
}

static coe_status m_strip(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    return strip_method(s, v, a, true, true, out);
}
static coe_status m_lstrip(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    return strip_method(s, v, a, true, false, out);
}
static coe_status m_rstrip(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    return strip_method(s, v, a, false, true, out);
}

/* split at white space: runs count once, none at the ends */
static coe_status split_words(struct jstate *s, struct jvalue v, int64_t max, struct jvalue *out)
{
    struct jvalue rest = jinja_strip(v, NULL, true, false);
    while (rest.n) {
        uint32_t n = 0;
        for (; n < rest.n; n++) {
            struct jvalue behind = jinja_strip(jv_text(rest.s + n, rest.n - n), NULL, true, false);
            if (behind.s != rest.s + n) break; /* white space begins here */
        }
        if (max-- == 0) return jv_push(s, out->list, jinja_strip(rest, NULL, false, true));
        COE_TRY(jv_push(s, out->list, jv_text(rest.s, n)));
        rest = jinja_strip(jv_text(rest.s + n, rest.n - n), NULL, true, false);
    }
    return COE_OK;
}

static coe_status m_split(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    struct jvalue sep = jv_none();
    int64_t max = -1;
    COE_TRY(jinja_arg(s, a, 0, "sep", &sep));
    COE_TRY(jinja_arg_int(s, a, 1, "maxsplit", &max));
    COE_TRY(jv_new_list(s, J_LIST, out));
    if (sep.kind == J_NONE) return split_words(s, v, max, out);
    if (sep.kind != J_STRING || !sep.n) return jinja_error(s, "split needs a separator");
    const char *at = v.s, *end = v.s + v.n, *hit;
    while (max-- != 0 && (hit = memmem(at, (size_t)(end - at), sep.s, sep.n))) {
        COE_TRY(jv_push(s, out->list, jv_text(at, (size_t)(hit - at))));
        at = hit + sep.n;
    }
    return jv_push(s, out->list, jv_text(at, (size_t)(end - at)));
}

static const char *last_hit(const char *at, const char *end, struct jvalue sep)
{
    for (const char *p = end - sep.n; end - at >= (ptrdiff_t)sep.n && p >= at; p--)
        if (!memcmp(p, sep.s, sep.n)) return p;
    return NULL;
}

static coe_status m_rsplit(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    struct jvalue sep = jv_none(), parts;
    int64_t max = -1;
    COE_TRY(jinja_arg(s, a, 0, "sep", &sep));
    COE_TRY(jinja_arg_int(s, a, 1, "maxsplit", &max));
    if (max < 0) return m_split(s, v, a, out);
    if (sep.kind != J_STRING || !sep.n) return jinja_error(s, "rsplit needs a separator");
    COE_TRY(jv_new_list(s, J_LIST, &parts));
    const char *end = v.s + v.n, *hit;
    while (max-- > 0 && (hit = last_hit(v.s, end, sep))) {
        COE_TRY(jv_push(s, parts.list, jv_text(hit + sep.n, (size_t)(end - hit) - sep.n)));
        end = hit;
    }
    COE_TRY(jv_push(s, parts.list, jv_text(v.s, (size_t)(end - v.s))));
    COE_TRY(jv_new_list(s, J_LIST, out));
    for (size_t i = parts.list->n; i-- > 0;) COE_TRY(jv_push(s, out->list, parts.list->at[i]));
    return COE_OK;
}

static coe_status m_splitlines(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    bool keep = false;
    COE_TRY(jinja_arg_bool(s, a, 0, "keepends", &keep));
    COE_TRY(jv_new_list(s, J_LIST, out));
    for (uint32_t at = 0; at < v.n;) {
        uint32_t end = at;
        while (end < v.n && v.s[end] != '\n' && v.s[end] != '\r') end++;
        uint32_t next = end + (end < v.n) + (end + 1 < v.n && v.s[end] == '\r' && v.s[end + 1] == '\n');
        COE_TRY(jv_push(s, out->list, jv_text(v.s + at, (keep ? next : end) - at)));
        at = next;
    }
    return COE_OK;
}

/* startswith and endswith take a string or a tuple of strings */
static coe_status affix(struct jstate *s, struct jvalue v, const struct jargs *a, bool end, struct jvalue *out)
{
    if (!a->n) return jinja_error(s, "needs an argument");
    struct jlist one = { .at = (struct jvalue[]){ a->at[0] }, .n = 1 },
                 *l = a->at[0].kind == J_TUPLE ? a->at[0].list : &one;
    bool yes = false;
    for (size_t i = 0; i < l->n && !yes; i++) {
        struct jvalue x = l->at[i];
        if (x.kind != J_STRING)
            return jinja_error(s, "the first argument must be str or a tuple of str, not %s", jv_type(x));
        yes = v.n >= x.n && !memcmp(end ? v.s + v.n - x.n : v.s, x.s, x.n);
    }
    *out = jv_bool(yes);
    return COE_OK;
}

static coe_status m_startswith(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    return affix(s, v, a, false, out);
}
static coe_status m_endswith(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    return affix(s, v, a, true, out);
}

static coe_status remove_affix(struct jstate *s, struct jvalue v, const struct jargs *a, bool end, struct jvalue *out)
{
    struct jvalue yes;
    COE_TRY(affix(s, v, a, end, &yes));
    *out = v;
    if (!yes.i || a->at[0].kind != J_STRING) return COE_OK;
    *out = end ? jv_text(v.s, v.n - a->at[0].n) : jv_text(v.s + a->at[0].n, v.n - a->at[0].n);
    return COE_OK;
}

static coe_status m_removeprefix(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    return remove_affix(s, v, a, false, out);
}
static coe_status m_removesuffix(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    return remove_affix(s, v, a, true, out);
}

static coe_status m_replace(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    struct jvalue from = jv_none(), to = jv_none();
    int64_t count = -1;
    COE_TRY(jinja_arg_text(s, a, 0, "old", &from));
    COE_TRY(jinja_arg_text(s, a, 1, "new", &to));
    COE_TRY(jinja_arg_int(s, a, 2, "count", &count));
    return jinja_replace(s, v, from, to, count, out);
}

static coe_status m_upper(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    (void)a;
    return jinja_recase(s, v, CASE_UPPER, out);
}
static coe_status m_lower(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    (void)a;
    return jinja_recase(s, v, CASE_LOWER, out);
}
static coe_status m_title(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    (void)a;
    return jinja_recase(s, v, CASE_PYTHON_TITLE, out);
}
static coe_status m_capitalize(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    (void)a;
    return jinja_recase(s, v, CASE_CAPITAL, out);
}

static coe_status m_find(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    struct jvalue what = jv_none();
    COE_TRY(jinja_arg_text(s, a, 0, "sub", &what));
    const char *hit = what.n ? memmem(v.s, v.n, what.s, what.n) : v.s;
    *out = jv_int(hit ? (int64_t)jv_characters(v.s, (size_t)(hit - v.s)) : -1);
    return COE_OK;
}

static coe_status m_rfind(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    struct jvalue what = jv_none();
    COE_TRY(jinja_arg_text(s, a, 0, "sub", &what));
    const char *hit = last_hit(v.s, v.s + v.n, what);
    *out = jv_int(hit ? (int64_t)jv_characters(v.s, (size_t)(hit - v.s)) : -1);
    return COE_OK;
}

static coe_status m_count(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    struct jvalue what = jv_none();
    int64_t n = 0;
    COE_TRY(jinja_arg(s, a, 0, "sub", &what));
    if (v.kind == J_LIST || v.kind == J_TUPLE) {
        for (size_t i = 0; i < v.list->n; i++) n += jv_equal(v.list->at[i], what, 0);
    } else {
        if (what.kind != J_STRING || !what.n) return jinja_error(s, "count needs a string");
        for (const char *at = v.s, *end = v.s + v.n; (at = memmem(at, (size_t)(end - at), what.s, what.n));
             at += what.n)
            n++;
    }
    *out = jv_int(n);
    return COE_OK;
}

static coe_status m_index(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    struct jvalue what = jv_none();
    COE_TRY(jinja_arg(s, a, 0, "value", &what));
    if (v.kind == J_STRING) {
        COE_TRY(m_find(s, v, a, out));
        return out->i < 0 ? jinja_error(s, "substring not found") : COE_OK;
    }
    for (size_t i = 0; i < v.list->n; i++)
        if (jv_equal(v.list->at[i], what, 0)) {
            *out = jv_int((int64_t)i);
            return COE_OK;
        }
    return jinja_error(s, "the value is not in the list");
}

static coe_status m_join(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    struct jlist *l;
    struct str text = { 0 };
    if (a->n != 1) return jinja_error(s, "join needs one argument");
    COE_TRY(jv_items(s, a->at[0], &l));
    for (size_t i = 0; i < l->n; i++)
        if (l->at[i].kind != J_STRING)
            return jinja_error(s, "item %zu to join is a %s, expected a str", i, jv_type(l->at[i]));
    for (size_t i = 0; i < l->n; i++) {
        if (i) str_add(&text, v.s, v.n);
        str_add(&text, l->at[i].s, l->at[i].n);
    }
    return jv_take_str(s, &text, out);
}

/* is… methods: every character passes, and there is one */
static coe_status all_are(struct jvalue v, bool (*is)(char), struct jvalue *out)
{
    bool yes = v.n > 0;
    for (uint32_t i = 0; i < v.n && yes; i++) yes = is(v.s[i]);
    *out = jv_bool(yes);
    return COE_OK;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_space(char c) { return strchr(" \t\r\n\f\v", c) && c; }
static coe_status m_isdigit(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    (void)s;
    (void)a;
    return all_are(v, is_digit, out);
}
static coe_status m_isspace(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    (void)s;
    (void)a;
    return all_are(v, is_space, out);
}

static const struct named_method string_methods[] = {
    { "strip", m_strip },
    { "lstrip", m_lstrip },
    { "rstrip", m_rstrip },
    { "split", m_split },
    { "rsplit", m_rsplit },
    { "splitlines", m_splitlines },
    { "startswith", m_startswith },
    { "endswith", m_endswith },
    { "removeprefix", m_removeprefix },
    { "removesuffix", m_removesuffix },
    { "replace", m_replace },
    { "upper", m_upper },
    { "lower", m_lower },
    { "title", m_title },
    { "capitalize", m_capitalize },
    { "find", m_find },
    { "rfind", m_rfind },
    { "count", m_count },
    { "index", m_index },
    { "join", m_join },
    { "isdigit", m_isdigit },
    { "isnumeric", m_isdigit },
    { "isspace", m_isspace },
    { NULL, NULL },
};

/* ---- mappings ---- */

/* part 0: keys, 1: values, 2: pairs */
static coe_status view(struct jstate *s, struct jvalue v, int part, struct jvalue *out)
{
    COE_TRY(jv_new_list(s, J_VIEW, out));
    for (uint32_t i = 0; i < v.dict->n; i++) {
        struct jvalue pair = part ? v.dict->value[i] : v.dict->key[i];
        if (part == 2) {
            COE_TRY(jv_new_list(s, J_TUPLE, &pair));
            COE_TRY(jv_push(s, pair.list, v.dict->key[i]));
            COE_TRY(jv_push(s, pair.list, v.dict->value[i]));
        }
        COE_TRY(jv_push(s, out->list, pair));
    }
    return COE_OK;
}

static coe_status m_keys(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    (void)a;
    return view(s, v, 0, out);
}
static coe_status m_values(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    (void)a;
    return view(s, v, 1, out);
}
static coe_status m_items(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    (void)a;
    return view(s, v, 2, out);
}

static coe_status m_get(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    if (a->n < 1 || a->n > 2 || a->n_keys)
        return jinja_error(s, "get expects 1 or 2 arguments, got %d", a->n + a->n_keys);
    if (a->at[0].kind == J_LIST || a->at[0].kind == J_DICT)
        return jinja_error(s, "unhashable type: '%s'", jv_type(a->at[0]));
    const struct jvalue *item = jv_get(v.dict, a->at[0]);
    *out = item ? *item : a->n == 2 ? a->at[1] : jv_none();
    return COE_OK;
}

static coe_status m_copy(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    (void)a;
    if (v.kind == J_DICT) {
        COE_TRY(jv_new_dict(s, J_DICT, out));
        for (uint32_t i = 0; i < v.dict->n; i++) COE_TRY(jv_set(s, out->dict, v.dict->key[i], v.dict->value[i]));
        return COE_OK;
    }
    COE_TRY(jv_new_list(s, J_LIST, out));
    for (size_t i = 0; i < v.list->n; i++) COE_TRY(jv_push(s, out->list, v.list->at[i]));
    return COE_OK;
}

static const struct named_method dict_methods[] = {
    { "items", m_items }, { "keys", m_keys },     { "values", m_values }, { "get", m_get },
    { "copy", m_copy },   { "pop", NULL },        { "popitem", NULL },    { "clear", NULL },
    { "update", NULL },   { "setdefault", NULL }, { NULL, NULL },
};
static const struct named_method list_methods[] = {
    { "index", m_index }, { "count", m_count }, { "copy", m_copy }, { "append", NULL },
    { "pop", NULL },      { "insert", NULL },   { "extend", NULL }, { "remove", NULL },
    { "reverse", NULL },  { "sort", NULL },     { "clear", NULL },  { NULL, NULL },
};

/* ---- loop ---- */

static coe_status m_cycle(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    if (!a->n) return jinja_error(s, "no items for cycling given");
    *out = a->at[v.loop->index % (size_t)a->n];
    return COE_OK;
}

static coe_status m_changed(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    struct jvalue now;
    COE_TRY(jv_new_list(s, J_TUPLE, &now));
    for (int i = 0; i < a->n; i++) COE_TRY(jv_push(s, now.list, a->at[i]));
    *out = jv_bool(!v.loop->has_seen || !jv_equal(v.loop->seen, now, 0));
    v.loop->seen = now;
    v.loop->has_seen = true;
    return COE_OK;
}

static const struct named_method loop_methods[] = { { "cycle", m_cycle }, { "changed", m_changed }, { NULL, NULL } };
static const struct named_method no_methods[] = { { NULL, NULL } };

static const struct named_method *methods_of(struct jvalue v)
{
    switch (v.kind) {
    case J_STRING: return string_methods;
    case J_DICT: return dict_methods;
    case J_LIST:
    case J_TUPLE: return list_methods;
    case J_LOOP: return loop_methods;
    default: return no_methods;
    }
}

bool jinja_has_method(struct jvalue v, struct jvalue name, bool *unsafe)
{
    *unsafe = false;
    for (const struct named_method *m = methods_of(v); m->name; m++)
        if (jv_is(name, m->name)) {
            *unsafe = !m->fn;
            return m->fn != NULL;
        }
    return false;
}

coe_status jinja_method(struct jstate *s, const struct jmethod *m, const struct jargs *args, struct jvalue *out)
{
    struct jvalue name = jv_text(m->name, m->n);
    for (const struct named_method *k = methods_of(m->self); k->name; k++)
        if (k->fn && jv_is(name, k->name)) return k->fn(s, m->self, args, out);
    return jinja_error(s, "'%s' object has no method '%.*s'", jv_type(m->self), (int)COE_MIN(m->n, 60u), m->name);
}
