/* jinja_index.c — x[i], x[a:b:c] and x.name. Strings count in characters. */
#include <string.h>

#include "text/jinja.h"

size_t jv_characters(const char *text, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) count += ((unsigned char)text[i] & 0xC0) != 0x80;
    return count;
}

size_t jv_character_at(const char *text, size_t n, size_t i)
{
    size_t at = 0;
    for (; at < n; at++)
        if (((unsigned char)text[at] & 0xC0) != 0x80 && !i--) break;
    return at;
}

static struct jvalue character(struct jvalue v, size_t i)
{
    size_t from = jv_character_at(v.s, v.n, i), to = from + 1;
    while (to < v.n && ((unsigned char)v.s[to] & 0xC0) == 0x80) to++;
    return jv_text(v.s + from, to - from);
}

/* Python's rules for a slice of n items: first item, how many, step. */
static coe_status slice_range(struct jstate *s, const struct jvalue part[3], int64_t n, int64_t *from, int64_t *count,
                              int64_t *step)
{
    int64_t bound[2];
    *step = part[2].kind == J_NONE ? 1 : part[2].i;
    for (int i = 0; i < 3; i++)
        if (part[i].kind != J_NONE && part[i].kind != J_INT && part[i].kind != J_BOOL)
            return jinja_error(s, "slice indices must be integers, not %s", jv_type(part[i]));
    if (!*step) return jinja_error(s, "slice step cannot be zero");
    if (*step == INT64_MIN) ++*step;
    const int64_t lowest = *step < 0 ? -1 : 0, highest = *step < 0 ? n - 1 : n;
    for (int i = 0; i < 2; i++) {
        if (part[i].kind == J_NONE) {
            bound[i] = (i == 0) == (*step > 0) ? lowest : highest;
            continue;
        }
        int64_t x = part[i].i < 0 && part[i].i >= -n ? part[i].i + n : part[i].i;
        bound[i] = x < lowest ? lowest : x > highest ? highest : x;
    }
    int64_t distance = *step > 0 ? bound[1] - bound[0] : bound[0] - bound[1], width = *step > 0 ? *step : -*step;
    *from = bound[0];
    *count = distance > 0 ? (distance - 1) / width + 1 : 0;
    return COE_OK;
}

coe_status jv_slice(struct jstate *s, struct jvalue v, const struct jvalue part[3], struct jvalue *out)
{
    int64_t from = 0, count = 0, step = 1, n;
    if (v.kind == J_UNDEFINED) return jinja_error(s, "'%.*s' is undefined", (int)v.n, v.s ? v.s : "");
    if (v.kind != J_STRING && v.kind != J_LIST && v.kind != J_TUPLE)
        return jinja_error(s, "'%s' object cannot be sliced", jv_type(v));
    COE_TRY(jv_length(s, v, &n));
    COE_TRY(slice_range(s, part, n, &from, &count, &step));
    if (v.kind != J_STRING) {
        COE_TRY(jv_new_list(s, (enum jkind)v.kind, out));
        for (int64_t i = 0; i < count; i++) COE_TRY(jv_push(s, out->list, v.list->at[from + i * step]));
        return COE_OK;
    }
    if (step == 1) {
        size_t a = jv_character_at(v.s, v.n, (size_t)from), b = a + jv_character_at(v.s + a, v.n - a, (size_t)count);
        *out = jv_text(v.s + a, count ? b - a : 0);
        return COE_OK;
    }
    struct str text = { 0 };
    struct jlist *chars;
    COE_TRY(jv_items(s, v, &chars));
    for (int64_t i = 0; i < count; i++) str_add(&text, chars->at[from + i * step].s, chars->at[from + i * step].n);
    return jv_take_str(s, &text, out);
}

static coe_status bind(struct jstate *s, struct jvalue v, struct jvalue name, struct jvalue *out)
{
    struct jmethod *m = jinja_alloc(s, sizeof *m);
    if (!m) return jinja_failed();
    *m = (struct jmethod){ v, name.s, name.n };
    *out = (struct jvalue){ .kind = J_METHOD, .method = m };
    return COE_OK;
}

static const struct jvalue *loop_neighbour(const struct jloop *l, int step)
{
    if (step < 0 && !l->index) return NULL;
    if (step > 0 && l->index + 1 >= l->items->n) return NULL;
    return &l->items->at[step < 0 ? l->index - 1 : l->index + 1];
}

static bool loop_attribute(const struct jloop *l, struct jvalue name, struct jvalue *out)
{
    const int64_t i = (int64_t)l->index, n = (int64_t)l->items->n;
    const struct {
        const char *name;
        struct jvalue value;
    } table[] = {
        { "index", jv_int(i + 1) },         { "index0", jv_int(i) },           { "first", jv_bool(i == 0) },
        { "last", jv_bool(i + 1 == n) },    { "length", jv_int(n) },           { "revindex", jv_int(n - i) },
        { "revindex0", jv_int(n - i - 1) }, { "depth", jv_int(l->depth + 1) }, { "depth0", jv_int(l->depth) }
    };
    for (size_t k = 0; k < COE_COUNT(table); k++)
        if (jv_is(name, table[k].name)) {
            *out = table[k].value;
            return true;
        }
    if (!jv_is(name, "previtem") && !jv_is(name, "nextitem")) return false;
    const struct jvalue *v = loop_neighbour(l, jv_is(name, "nextitem") ? 1 : -1);
    *out = v ? *v : jv_undefined(name.s, name.n);
    return true;
}

/* x.name: an attribute or method first, then an item of that name. */
coe_status jv_attribute(struct jstate *s, struct jvalue v, struct jvalue name, struct jvalue *out)
{
    bool unsafe = false;
    if (v.kind == J_UNDEFINED) return jinja_error(s, "'%.*s' is undefined", (int)COE_MIN(v.n, 100u), v.s ? v.s : "");
    if (v.kind == J_LOOP && loop_attribute(v.loop, name, out)) return COE_OK;
    if (jinja_has_method(v, name, &unsafe)) return bind(s, v, name, out);
    if (unsafe)
        return jinja_error(s, "access to attribute '%.*s' of '%s' object is unsafe", (int)COE_MIN(name.n, 100u), name.s,
                           jv_type(v));
    const struct jvalue *item = v.kind == J_DICT || v.kind == J_NAMESPACE ? jv_get(v.dict, name) : NULL;
    *out = item ? *item : jv_undefined(name.s, name.n);
    return COE_OK;
}

/* x[key]: an item first, then an attribute. */
coe_status jv_item(struct jstate *s, struct jvalue v, struct jvalue key, struct jvalue *out)
{
    if (v.kind == J_UNDEFINED) return jinja_error(s, "'%.*s' is undefined", (int)COE_MIN(v.n, 100u), v.s ? v.s : "");
    if (v.kind == J_DICT && key.kind != J_LIST && key.kind != J_DICT) {
        const struct jvalue *item = jv_get(v.dict, key);
        if (item) {
            *out = *item;
            return COE_OK;
        }
    }
    if ((v.kind == J_LIST || v.kind == J_TUPLE || v.kind == J_STRING) && (key.kind == J_INT || key.kind == J_BOOL)) {
        int64_t n, i = key.i;
        COE_TRY(jv_length(s, v, &n));
        if (i < 0) i += n;
        if (i >= 0 && i < n) {
            *out = v.kind == J_STRING ? character(v, (size_t)i) : v.list->at[i];
            return COE_OK;
        }
    }
    if (key.kind == J_STRING) {
        if (v.kind == J_NAMESPACE || v.kind == J_LOOP) return jv_attribute(s, v, key, out);
        bool unsafe = false;
        if (jinja_has_method(v, key, &unsafe)) return bind(s, v, key, out);
        *out = jv_undefined(key.s, key.n);
        return COE_OK;
    }
    struct str text = { 0 };
    coe_status st = jv_repr(s, key, &text, 0);
    if (!st) st = jv_take_str(s, &text, out);
    else str_free(&text);
    if (!st) *out = jv_undefined(out->s, out->n);
    return st;
}
