/* jinja_lists.c — filters on sequences and mappings. map, select and reject give generators, as in Jinja: they can be
 * walked, but have no length and no JSON. */
#include <string.h>

#include "text/jinja_string.h"

coe_status jinja_dotted(struct jstate *s, struct jvalue v, struct jvalue path, struct jvalue *out)
{
    if (path.kind == J_INT) return jv_item(s, v, path, out);
    if (path.kind != J_STRING) return jinja_error(s, "attribute is a %s, expected a name", jv_type(path));
    for (uint32_t at = 0; at <= path.n;) {
        const char *dot = memchr(path.s + at, '.', path.n - at);
        uint32_t n = dot ? (uint32_t)(dot - path.s) - at : path.n - at;
        int64_t index = 0;
        bool digits = n > 0 && n < 10;
        for (uint32_t i = 0; i < n && digits; i++) {
            digits = path.s[at + i] >= '0' && path.s[at + i] <= '9';
            index = index * 10 + (path.s[at + i] - '0');
        }
        COE_TRY(jv_item(s, v, digits ? jv_int(index) : jv_text(path.s + at, n), &v));
        at += n + 1;
    }
    *out = v;
    return COE_OK;
}

static coe_status sort_key(struct jstate *s, struct jvalue v, bool case_sensitive, struct jvalue attribute,
                           struct jvalue *out)
{
    if (attribute.kind != J_NONE) COE_TRY(jinja_dotted(s, v, attribute, &v));
    *out = v;
    return !case_sensitive && v.kind == J_STRING ? jinja_recase(s, v, CASE_LOWER, out) : COE_OK;
}

/* Merges the sorted halves of at[lo..hi) and their keys. */
struct sorting {
    struct jvalue *at, *key, *spare;
    bool reverse, by_attribute;
};

/* Keys that are attributes are compared as lists of one, in which equals need no order of their own. */
static coe_status compare_keys(struct jstate *s, const struct sorting *o, struct jvalue a, struct jvalue b, int *c)
{
    *c = 0;
    if (o->by_attribute && jv_equal(a, b, 0)) return COE_OK;
    COE_TRY(jv_compare(s, a, b, c));
    if (o->reverse) *c = -*c; /* equals keep their order both ways */
    return COE_OK;
}

/* Merges the sorted halves of at[lo..hi) and their keys. */
static coe_status merge(struct jstate *s, const struct sorting *o, size_t lo, size_t mid, size_t hi)
{
    struct jvalue *spare_key = o->spare + (hi - lo);
    size_t i = lo, j = mid, n = 0;
    while (i < mid || j < hi) {
        int c = -1;
        if (i < mid && j < hi) COE_TRY(compare_keys(s, o, o->key[i], o->key[j], &c));
        bool left = j == hi || (i < mid && c <= 0);
        o->spare[n] = o->at[left ? i : j];
        spare_key[n++] = o->key[left ? i : j];
        left ? i++ : j++;
    }
    memcpy(o->at + lo, o->spare, n * sizeof *o->at);
    memcpy(o->key + lo, spare_key, n * sizeof *o->key);
    return COE_OK;
}

coe_status jinja_sort(struct jstate *s, struct jlist *l, bool reverse, bool case_sensitive, struct jvalue attribute)
{
    struct sorting o = { .at = l->at, .reverse = reverse, .by_attribute = attribute.kind != J_NONE };
    o.key = jinja_alloc(s, (l->n + 1) * sizeof *o.key);
    o.spare = o.key ? jinja_alloc(s, (2 * l->n + 1) * sizeof *o.spare) : NULL;
    if (!o.spare) return jinja_failed();
    for (size_t i = 0; i < l->n; i++) COE_TRY(sort_key(s, l->at[i], case_sensitive, attribute, &o.key[i]));
    for (size_t width = 1; width < l->n; width *= 2)
        for (size_t lo = 0; lo + width < l->n; lo += 2 * width)
            COE_TRY(merge(s, &o, lo, lo + width, COE_MIN(lo + 2 * width, l->n)));
    return COE_OK;
}

static coe_status copy_list(struct jstate *s, struct jvalue v, struct jvalue *out)
{
    struct jlist *l;
    COE_TRY(jv_items(s, v, &l));
    COE_TRY(jv_new_list(s, J_LIST, out));
    for (size_t i = 0; i < l->n; i++) COE_TRY(jv_push(s, out->list, l->at[i]));
    return COE_OK;
}

static coe_status f_length(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    int64_t n;
    (void)a;
    COE_TRY(jv_length(s, v, &n));
    *out = jv_int(n);
    return COE_OK;
}

static coe_status f_list(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    (void)a;
    return copy_list(s, v, out);
}

static coe_status pairs_of(struct jstate *s, const struct jdict *d, enum jkind kind, struct jvalue *out)
{
    COE_TRY(jv_new_list(s, kind, out));
    for (uint32_t i = 0; i < d->n; i++) {
        struct jvalue pair;
        COE_TRY(jv_new_list(s, J_TUPLE, &pair));
        COE_TRY(jv_push(s, pair.list, d->key[i]));
        COE_TRY(jv_push(s, pair.list, d->value[i]));
        COE_TRY(jv_push(s, out->list, pair));
    }
    return COE_OK;
}

static coe_status f_items(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    (void)a;
    if (v.kind == J_UNDEFINED) return jv_new_list(s, J_GENERATOR, out);
    if (v.kind != J_DICT) return jinja_error(s, "Can only get item pairs from a mapping.");
    return pairs_of(s, v.dict, J_GENERATOR, out);
}

/* dictsort(case_sensitive=False, by='key', reverse=False) */
static coe_status f_dictsort(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    bool case_sensitive = false, reverse = false;
    struct jvalue by = jv_text("key", 3);
    COE_TRY(jinja_arg_bool(s, a, 0, "case_sensitive", &case_sensitive));
    COE_TRY(jinja_arg_text(s, a, 1, "by", &by));
    COE_TRY(jinja_arg_bool(s, a, 2, "reverse", &reverse));
    if (v.kind != J_DICT) return jinja_error(s, "'%s' object has no attribute 'items'", jv_type(v));
    COE_TRY(pairs_of(s, v.dict, J_LIST, out));
    return jinja_sort(s, out->list, reverse, case_sensitive, jv_int(jv_is(by, "value")));
}

/* sort(reverse=False, case_sensitive=False, attribute=None) */
static coe_status f_sort(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    bool case_sensitive = false, reverse = false;
    struct jvalue attribute = jv_none();
    COE_TRY(jinja_arg_bool(s, a, 0, "reverse", &reverse));
    COE_TRY(jinja_arg_bool(s, a, 1, "case_sensitive", &case_sensitive));
    COE_TRY(jinja_arg(s, a, 2, "attribute", &attribute));
    COE_TRY(copy_list(s, v, out));
    return jinja_sort(s, out->list, reverse, case_sensitive, attribute);
}

/* join(d='', attribute=None) */
static coe_status f_join(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    struct jvalue glue = jv_text("", 0), attribute = jv_none();
    struct jlist *l;
    struct str text = { 0 };
    COE_TRY(jinja_arg(s, a, 0, "d", &glue));
    COE_TRY(jinja_arg(s, a, 1, "attribute", &attribute));
    COE_TRY(jv_to_text(s, glue, &glue));
    COE_TRY(jv_items(s, v, &l));
    coe_status st = COE_OK;
    for (size_t i = 0; i < l->n && !st; i++) {
        struct jvalue item = l->at[i];
        if (i) str_add(&text, glue.s, glue.n);
        if (attribute.kind != J_NONE) st = jinja_dotted(s, item, attribute, &item);
        if (!st) st = jv_str(s, item, &text);
        if (!st && text.n > JINJA_MAX_OUTPUT) st = jinja_error(s, "a text of more than %zu MB", JINJA_MAX_OUTPUT >> 20);
    }
    if (!st) return jv_take_str(s, &text, out);
    str_free(&text);
    return st;
}

static coe_status end_of(struct jstate *s, struct jvalue v, bool last, struct jvalue *out)
{
    struct jlist *l;
    if (last && v.kind == J_GENERATOR) return jinja_error(s, "'generator' object is not reversible");
    COE_TRY(jv_items(s, v, &l));
    *out = l->n ? l->at[last ? l->n - 1 : 0]
                : jv_undefined(last ? "No last item, sequence was empty." : "No first item, sequence was empty.", 33);
    return COE_OK;
}

static coe_status f_first(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    (void)a;
    return end_of(s, v, false, out);
}

static coe_status f_last(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    (void)a;
    return end_of(s, v, true, out);
}

static coe_status f_reverse(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    struct jlist *l;
    (void)a;
    COE_TRY(jv_items(s, v, &l));
    if (v.kind == J_STRING) {
        struct str text = { 0 };
        for (size_t i = l->n; i-- > 0;) str_add(&text, l->at[i].s, l->at[i].n);
        return jv_take_str(s, &text, out);
    }
    COE_TRY(jv_new_list(s, J_GENERATOR, out));
    for (size_t i = l->n; i-- > 0;) COE_TRY(jv_push(s, out->list, l->at[i]));
    return COE_OK;
}

/* unique(case_sensitive=False, attribute=None) */
static coe_status f_unique(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    bool case_sensitive = false;
    struct jvalue attribute = jv_none(), seen;
    struct jlist *l;
    COE_TRY(jinja_arg_bool(s, a, 0, "case_sensitive", &case_sensitive));
    COE_TRY(jinja_arg(s, a, 1, "attribute", &attribute));
    COE_TRY(jv_items(s, v, &l));
    COE_TRY(jv_new_list(s, J_GENERATOR, out));
    COE_TRY(jv_new_dict(s, J_DICT, &seen));
    for (size_t i = 0; i < l->n; i++) {
        struct jvalue key;
        COE_TRY(sort_key(s, l->at[i], case_sensitive, attribute, &key));
        if (key.kind != J_LIST && key.kind != J_DICT && jv_get(seen.dict, key)) continue;
        COE_TRY(jv_set(s, seen.dict, key, jv_none()));
        COE_TRY(jv_push(s, out->list, l->at[i]));
    }
    return COE_OK;
}

/* map(attribute=…, default=…) or map('filter', arguments…) */
static coe_status f_map(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    struct jvalue attribute = jv_none(), otherwise = jv_undefined("", 0);
    struct jlist *l;
    struct jargs rest = *a;
    COE_TRY(jinja_arg(s, a, -1, "attribute", &attribute));
    COE_TRY(jinja_arg(s, a, -1, "default", &otherwise));
    if (attribute.kind == J_NONE) {
        if (!a->n || a->at[0].kind != J_STRING) return jinja_error(s, "map requires a filter argument");
        rest.n--;
        memmove(rest.at, a->at + 1, (size_t)(rest.n + rest.n_keys) * sizeof rest.at[0]);
    }
    COE_TRY(jv_new_list(s, J_GENERATOR, out));
    if (!jv_true(v)) return COE_OK; /* as in Jinja, even for what cannot be walked */
    COE_TRY(jv_items(s, v, &l));
    for (size_t i = 0; i < l->n; i++) {
        struct jvalue item;
        if (attribute.kind == J_NONE) COE_TRY(jinja_filter(s, a->at[0], l->at[i], &rest, &item));
        else COE_TRY(jinja_dotted(s, l->at[i], attribute, &item));
        if (item.kind == J_UNDEFINED && otherwise.kind != J_UNDEFINED) item = otherwise;
        COE_TRY(jv_push(s, out->list, item));
    }
    return COE_OK;
}

/* select, reject and their attr forms: the items (or an attribute of theirs) that pass a test */
static coe_status choose(struct jstate *s, struct jvalue v, const struct jargs *a, bool attr, bool wanted,
                         struct jvalue *out)
{
    struct jlist *l;
    struct jargs rest = { .n = 0 };
    const int skip = attr + (a->n > attr);
    if (attr && !a->n) return jinja_error(s, "missing the attribute to select by");
    for (int i = skip; i < a->n; i++) rest.at[rest.n++] = a->at[i];
    COE_TRY(jv_new_list(s, J_GENERATOR, out));
    if (!jv_true(v)) return COE_OK;
    COE_TRY(jv_items(s, v, &l));
    for (size_t i = 0; i < l->n; i++) {
        struct jvalue item = l->at[i];
        bool yes;
        if (attr) COE_TRY(jinja_dotted(s, item, a->at[0], &item));
        if (a->n > attr) COE_TRY(jinja_test(s, a->at[attr], item, &rest, &yes));
        else yes = jv_true(item);
        if (yes == wanted) COE_TRY(jv_push(s, out->list, l->at[i]));
    }
    return COE_OK;
}

static coe_status f_select(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    return choose(s, v, a, false, true, out);
}
static coe_status f_reject(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    return choose(s, v, a, false, false, out);
}
static coe_status f_selectattr(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    return choose(s, v, a, true, true, out);
}
static coe_status f_rejectattr(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    return choose(s, v, a, true, false, out);
}

static coe_status f_sum(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    struct jvalue attribute = jv_none(), total = jv_int(0);
    struct jlist *l;
    COE_TRY(jinja_arg(s, a, 0, "attribute", &attribute));
    COE_TRY(jinja_arg(s, a, 1, "start", &total));
    COE_TRY(jv_items(s, v, &l));
    for (size_t i = 0; i < l->n; i++) {
        struct jvalue item = l->at[i];
        if (attribute.kind != J_NONE) COE_TRY(jinja_dotted(s, item, attribute, &item));
        COE_TRY(jv_binary(s, OP_ADD, total, item, &total));
    }
    *out = total;
    return COE_OK;
}

static coe_status extreme(struct jstate *s, struct jvalue v, const struct jargs *a, int sign, struct jvalue *out)
{
    struct jvalue attribute = jv_none(), best = jv_none(), key;
    bool case_sensitive = false;
    struct jlist *l;
    COE_TRY(jinja_arg_bool(s, a, 0, "case_sensitive", &case_sensitive));
    COE_TRY(jinja_arg(s, a, 1, "attribute", &attribute));
    COE_TRY(jv_items(s, v, &l));
    *out = jv_undefined("No aggregated item, sequence was empty.", 39);
    for (size_t i = 0; i < l->n; i++) {
        int c = -1;
        COE_TRY(sort_key(s, l->at[i], case_sensitive, attribute, &key));
        if (i) COE_TRY(jv_compare(s, key, best, &c));
        if (i && c * sign >= 0) continue;
        best = key;
        *out = l->at[i];
    }
    return COE_OK;
}

static coe_status f_min(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    return extreme(s, v, a, 1, out);
}
static coe_status f_max(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    return extreme(s, v, a, -1, out);
}

static coe_status f_attr(struct jstate *s, struct jvalue v, const struct jargs *a, struct jvalue *out)
{
    struct jvalue name = jv_none();
    bool unsafe;
    COE_TRY(jinja_arg_text(s, a, 0, "name", &name));
    if (v.kind == J_LOOP || jinja_has_method(v, name, &unsafe)) return jv_attribute(s, v, name, out);
    *out = jv_undefined(name.s, name.n); /* attributes only, no items */
    return COE_OK;
}

const struct jfilter jinja_list_filters[] = {
    { "length", f_length },
    { "count", f_length },
    { "list", f_list },
    { "items", f_items },
    { "dictsort", f_dictsort },
    { "sort", f_sort },
    { "join", f_join },
    { "first", f_first },
    { "last", f_last },
    { "reverse", f_reverse },
    { "unique", f_unique },
    { "map", f_map },
    { "select", f_select },
    { "reject", f_reject },
    { "selectattr", f_selectattr },
    { "rejectattr", f_rejectattr },
    { "sum", f_sum },
    { "min", f_min },
    { "max", f_max },
    { "attr", f_attr },
    { NULL, NULL },
};
