/* jinja_value.c — what values do: making, comparing, adding, indexing. Python's rules, as far as templates can see
 * them. */
#include <math.h>
#include <string.h>
#include <xxhash.h>

#include "text/jinja.h"

#define MAX_NESTING 100
#define HASHED_FROM 12 /* keys */

void *jinja_alloc(struct jstate *s, size_t n)
{
    const size_t chunk = 1 << 16;
    n = (n + 15) / 16 * 16;
    if (n > JINJA_MAX_MEMORY || (s->memory += n) > JINJA_MAX_MEMORY) {
        jinja_error(s, "the template uses more than %zu MB", JINJA_MAX_MEMORY >> 20);
        return NULL;
    }
    if (n > chunk / 4) return arena_push(&s->arena, n);
    if (s->bump_left < n) {
        s->bump = arena_push(&s->arena, chunk);
        s->bump_left = s->bump ? chunk : 0;
        if (!s->bump) return NULL;
    }
    void *p = s->bump;
    s->bump += n;
    s->bump_left -= n;
    return p;
}

coe_status jv_copy_text(struct jstate *s, const char *text, size_t n, struct jvalue *out)
{
    char *copy = n < UINT32_MAX ? jinja_alloc(s, n + 1) : NULL;
    if (!copy) return jinja_failed();
    if (n) memcpy(copy, text, n);
    copy[n] = 0;
    *out = jv_text(copy, n);
    return COE_OK;
}

coe_status jv_take_str(struct jstate *s, struct str *text, struct jvalue *out)
{
    coe_status st = str_check(text);
    if (!st) st = jv_copy_text(s, text->at ? text->at : "", text->n, out);
    str_free(text);
    return st;
}

coe_status jv_new_list(struct jstate *s, enum jkind kind, struct jvalue *out)
{
    struct jlist *l = jinja_alloc(s, sizeof *l);
    if (!l) return jinja_failed();
    *l = (struct jlist){ 0 };
    *out = (struct jvalue){ .kind = (uint8_t)kind, .list = l };
    return COE_OK;
}

coe_status jv_push(struct jstate *s, struct jlist *l, struct jvalue v)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 4;
        struct jvalue *at = jinja_alloc(s, cap * sizeof *at);
        if (!at) return jinja_failed();
        if (l->n) memcpy(at, l->at, l->n * sizeof *at);
        l->at = at;
        l->cap = cap;
    }
    l->at[l->n++] = v;
    return COE_OK;
}

coe_status jv_new_dict(struct jstate *s, enum jkind kind, struct jvalue *out)
{
    struct jdict *d = jinja_alloc(s, sizeof *d);
    if (!d) return jinja_failed();
    *d = (struct jdict){ 0 };
    *out = (struct jvalue){ .kind = (uint8_t)kind, .dict = d };
    return COE_OK;
}

/* Equal keys have equal hashes: 1, 1.0 and true are one key. */
static uint32_t hash_of(struct jvalue v)
{
    if (v.kind == J_STRING) return (uint32_t)XXH3_64bits(v.s, v.n);
    double x = v.kind == J_FLOAT ? v.f : v.kind == J_INT || v.kind == J_BOOL ? (double)v.i : (double)v.kind;
    return (uint32_t)XXH3_64bits(&x, sizeof x);
}

static uint32_t find_key(const struct jdict *d, struct jvalue key)
{
    if (d->n_slots) {
        for (uint32_t at = hash_of(key);; at++) {
            uint32_t i = d->slot[at & (d->n_slots - 1)];
            if (!i) return UINT32_MAX;
            if (jv_equal(d->key[i - 1], key, 0)) return i - 1;
        }
    }
    for (uint32_t i = 0; i < d->n; i++)
        if (jv_equal(d->key[i], key, 0)) return i;
    return UINT32_MAX;
}

struct jvalue *jv_get(const struct jdict *d, struct jvalue key)
{
    uint32_t i = find_key(d, key);
    return i == UINT32_MAX ? NULL : &d->value[i];
}

static void put_slot(struct jdict *d, uint32_t i)
{
    uint32_t at = hash_of(d->key[i]);
    while (d->slot[at & (d->n_slots - 1)]) at++;
    d->slot[at & (d->n_slots - 1)] = i + 1;
}

static coe_status grow_dict(struct jstate *s, struct jdict *d)
{
    uint32_t cap = d->cap ? d->cap * 2 : 4;
    struct jvalue *key = jinja_alloc(s, cap * sizeof *key), *value = key ? jinja_alloc(s, cap * sizeof *value) : NULL;
    if (!value) return jinja_failed();
    if (d->n) {
        memcpy(key, d->key, d->n * sizeof *key);
        memcpy(value, d->value, d->n * sizeof *value);
    }
    d->key = key;
    d->value = value;
    d->cap = cap;
    if (cap < HASHED_FROM) return COE_OK;
    d->n_slots = cap * 2;
    d->slot = jinja_alloc(s, d->n_slots * sizeof *d->slot);
    if (!d->slot) return jinja_failed();
    memset(d->slot, 0, d->n_slots * sizeof *d->slot);
    for (uint32_t i = 0; i < d->n; i++) put_slot(d, i);
    return COE_OK;
}

coe_status jv_set(struct jstate *s, struct jdict *d, struct jvalue key, struct jvalue value)
{
    uint32_t i = find_key(d, key);
    if (i != UINT32_MAX) {
        d->value[i] = value;
        return COE_OK;
    }
    if (key.kind == J_LIST || key.kind == J_DICT) return jinja_error(s, "a %s cannot be a key", jv_type(key));
    if (d->n == d->cap) COE_TRY(grow_dict(s, d));
    d->key[d->n] = key;
    d->value[d->n] = value;
    if (d->n_slots) put_slot(d, d->n);
    d->n++;
    return COE_OK;
}

const char *jv_type(struct jvalue v)
{
    static const char *const names[] = { "Undefined",   "NoneType", "bool",   "int",        "float",     "str",
                                         "list",        "tuple",    "dict",   "dict_items", "generator", "Namespace",
                                         "LoopContext", "Macro",    "method", "function" };
    return names[v.kind];
}

bool jv_true(struct jvalue v)
{
    switch (v.kind) {
    case J_UNDEFINED:
    case J_NONE: return false;
    case J_BOOL:
    case J_INT: return v.i != 0;
    case J_FLOAT: return v.f != 0;
    case J_STRING: return v.n != 0;
    case J_LIST:
    case J_TUPLE:
    case J_VIEW: return v.list->n != 0;
    case J_DICT: return v.dict->n != 0;
    default: return true;
    }
}

static bool is_number(struct jvalue v) { return v.kind == J_BOOL || v.kind == J_INT || v.kind == J_FLOAT; }
static double as_double(struct jvalue v) { return v.kind == J_FLOAT ? v.f : (double)v.i; }

bool jv_equal(struct jvalue a, struct jvalue b, int depth)
{
    if (is_number(a) && is_number(b))
        return a.kind == J_FLOAT || b.kind == J_FLOAT ? as_double(a) == as_double(b) : a.i == b.i;
    if (a.kind != b.kind || depth > MAX_NESTING) return false;
    switch (a.kind) {
    case J_UNDEFINED:
    case J_NONE: return true;
    case J_STRING: return a.n == b.n && !memcmp(a.s, b.s, a.n);
    case J_LIST:
    case J_TUPLE:
        if (a.list->n != b.list->n) return false;
        for (size_t i = 0; i < a.list->n; i++)
            if (!jv_equal(a.list->at[i], b.list->at[i], depth + 1)) return false;
        return true;
    case J_DICT:
        if (a.dict->n != b.dict->n) return false;
        for (uint32_t i = 0; i < a.dict->n; i++) {
            const struct jvalue *other = jv_get(b.dict, a.dict->key[i]);
            if (!other || !jv_equal(a.dict->value[i], *other, depth + 1)) return false;
        }
        return true;
    default: return a.list == b.list;
    }
}

static int sign_of(bool less, bool greater) { return greater - less; }

coe_status jv_compare(struct jstate *s, struct jvalue a, struct jvalue b, int *out)
{
    if (is_number(a) && is_number(b)) {
        if (a.kind == J_FLOAT || b.kind == J_FLOAT)
            *out = sign_of(as_double(a) < as_double(b), as_double(a) > as_double(b));
        else *out = sign_of(a.i<b.i, a.i> b.i);
        return COE_OK;
    }
    if (a.kind == J_STRING && b.kind == J_STRING) { /* the order of UTF-8 is the order of code points */
        int c = memcmp(a.s, b.s, COE_MIN(a.n, b.n));
        *out = c ? (c > 0) - (c < 0) : sign_of(a.n<b.n, a.n> b.n);
        return COE_OK;
    }
    if (a.kind == b.kind && (a.kind == J_LIST || a.kind == J_TUPLE)) {
        if (s->depth++ > MAX_NESTING) return jinja_error(s, "lists are nested too deep to compare");
        coe_status st = COE_OK;
        size_t i = 0, n = COE_MIN(a.list->n, b.list->n);
        for (*out = 0; i < n && !*out && !st; i++) st = jv_compare(s, a.list->at[i], b.list->at[i], out);
        if (!st && !*out) *out = sign_of(a.list->n<b.list->n, a.list->n> b.list->n);
        s->depth--;
        return st;
    }
    return jinja_error(s, "'<' not supported between '%s' and '%s'", jv_type(a), jv_type(b));
}

coe_status jv_contains(struct jstate *s, struct jvalue c, struct jvalue item, bool *out)
{
    *out = false;
    if (c.kind == J_STRING) {
        if (item.kind != J_STRING)
            return jinja_error(s, "'in <string>' needs a string on the left, not %s", jv_type(item));
        *out = !item.n || (c.n >= item.n && memmem(c.s, c.n, item.s, item.n));
        return COE_OK;
    }
    if (c.kind == J_DICT) {
        if (item.kind == J_LIST || item.kind == J_DICT) return jinja_error(s, "unhashable type: '%s'", jv_type(item));
        *out = jv_get(c.dict, item) != NULL;
        return COE_OK;
    }
    struct jlist *l;
    if (c.kind == J_NONE || is_number(c)) return jinja_error(s, "argument of type '%s' is not iterable", jv_type(c));
    COE_TRY(jv_items(s, c, &l));
    for (size_t i = 0; i < l->n && !*out; i++) *out = jv_equal(l->at[i], item, 0);
    return COE_OK;
}

static coe_status undefined_error(struct jstate *s, struct jvalue v)
{
    return jinja_error(s, "'%.*s' is undefined", (int)COE_MIN(v.n, 100u), v.s ? v.s : "");
}

static coe_status bad_operands(struct jstate *s, const char *op, struct jvalue a, struct jvalue b)
{
    if (a.kind == J_UNDEFINED) return undefined_error(s, a);
    if (b.kind == J_UNDEFINED) return undefined_error(s, b);
    if (a.kind == J_STRING && *op == '+')
        return jinja_error(s, "can only concatenate str (not \"%s\") to str", jv_type(b));
    return jinja_error(s, "unsupported operands for %s: '%s' and '%s'", op, jv_type(a), jv_type(b));
}

static const char *const op_signs[] = { "+", "-", "*", "/", "//", "%", "**" };

static coe_status int_arithmetic(struct jstate *s, enum jop op, int64_t a, int64_t b, struct jvalue *out)
{
    int64_t r = 0;
    bool over = false;
    if ((op == OP_DIV || op == OP_FLOOR_DIV || op == OP_MOD) && !b) return jinja_error(s, "division by zero");
    switch (op) {
    case OP_ADD: over = __builtin_add_overflow(a, b, &r); break;
    case OP_SUB: over = __builtin_sub_overflow(a, b, &r); break;
    case OP_MUL: over = __builtin_mul_overflow(a, b, &r); break;
    case OP_DIV: *out = jv_float((double)a / (double)b); return COE_OK;
    case OP_FLOOR_DIV:
    case OP_MOD: /* rounding down, so the remainder has the divisor's sign */
        if (a == INT64_MIN && b == -1) over = op == OP_FLOOR_DIV;
        else {
            int64_t q = a / b, m = a % b;
            if (m && (m < 0) != (b < 0)) q--, m += b;
            r = op == OP_MOD ? m : q;
        }
        break;
    default:
        if (b < 0) {
            *out = jv_float(pow((double)a, (double)b));
            return COE_OK;
        }
        r = 1;
        for (int64_t i = 0; i < b && !over && (a > 1 || a < -1 || i < 2 + (b & 1)); i++)
            over = __builtin_mul_overflow(r, a, &r);
    }
    if (over) return jinja_error(s, "a whole number beyond 64 bits");
    *out = jv_int(r);
    return COE_OK;
}

static coe_status float_arithmetic(struct jstate *s, enum jop op, double a, double b, struct jvalue *out)
{
    double r;
    if ((op == OP_DIV || op == OP_FLOOR_DIV || op == OP_MOD) && b == 0) return jinja_error(s, "division by zero");
    switch (op) {
    case OP_ADD: r = a + b; break;
    case OP_SUB: r = a - b; break;
    case OP_MUL: r = a * b; break;
    case OP_DIV: r = a / b; break;
    case OP_FLOOR_DIV: r = floor(a / b); break;
    case OP_MOD:
        r = fmod(a, b);
        if (r != 0 && (r < 0) != (b < 0)) r += b;
        break;
    default: r = pow(a, b);
    }
    *out = jv_float(r);
    return COE_OK;
}

static void add_escaped(struct str *out, struct jvalue v)
{
    for (uint32_t i = 0; i < v.n; i++) {
        const char *e = v.safe           ? NULL
                        : v.s[i] == '&'  ? "&amp;"
                        : v.s[i] == '<'  ? "&lt;"
                        : v.s[i] == '>'  ? "&gt;"
                        : v.s[i] == '\'' ? "&#39;"
                        : v.s[i] == '"'  ? "&#34;"
                                         : NULL;
        if (e) str_addz(out, e);
        else str_addc(out, v.s[i]);
    }
}

/* A string that went through |safe is markup, and Markup's + escapes what it is added to. */
static coe_status add_texts(struct jstate *s, struct jvalue a, struct jvalue b, struct jvalue *out)
{
    struct str text = { 0 };
    bool safe = a.safe || b.safe;
    if (safe) {
        add_escaped(&text, a);
        add_escaped(&text, b);
    } else {
        str_add(&text, a.s, a.n);
        str_add(&text, b.s, b.n);
    }
    COE_TRY(jv_take_str(s, &text, out));
    out->safe = safe;
    return COE_OK;
}

static coe_status add_lists(struct jstate *s, struct jvalue a, struct jvalue b, struct jvalue *out)
{
    COE_TRY(jv_new_list(s, (enum jkind)a.kind, out));
    for (size_t i = 0; i < a.list->n; i++) COE_TRY(jv_push(s, out->list, a.list->at[i]));
    for (size_t i = 0; i < b.list->n; i++) COE_TRY(jv_push(s, out->list, b.list->at[i]));
    return COE_OK;
}

static coe_status repeat(struct jstate *s, struct jvalue v, int64_t times, struct jvalue *out)
{
    if (times < 0) times = 0;
    size_t n = v.kind == J_STRING ? v.n : v.list->n;
    if (n && (uint64_t)times > JINJA_MAX_OUTPUT / n) return jinja_error(s, "a repetition that is too long");
    if (v.kind != J_STRING) {
        COE_TRY(jv_new_list(s, (enum jkind)v.kind, out));
        for (int64_t k = 0; k < times && n; k++)
            for (size_t i = 0; i < n; i++) COE_TRY(jv_push(s, out->list, v.list->at[i]));
        return COE_OK;
    }
    struct str text = { 0 };
    for (int64_t k = 0; k < times && n; k++) str_add(&text, v.s, n);
    return jv_take_str(s, &text, out);
}

coe_status jv_binary(struct jstate *s, enum jop op, struct jvalue a, struct jvalue b, struct jvalue *out)
{
    if (is_number(a) && is_number(b)) {
        if (a.kind == J_FLOAT || b.kind == J_FLOAT) return float_arithmetic(s, op, as_double(a), as_double(b), out);
        return int_arithmetic(s, op, a.i, b.i, out);
    }
    if (op == OP_ADD && a.kind == J_STRING && b.kind == J_STRING) return add_texts(s, a, b, out);
    if (op == OP_ADD && a.kind == b.kind && (a.kind == J_LIST || a.kind == J_TUPLE)) return add_lists(s, a, b, out);
    bool a_seq = a.kind == J_STRING || a.kind == J_LIST || a.kind == J_TUPLE,
         b_seq = b.kind == J_STRING || b.kind == J_LIST || b.kind == J_TUPLE;
    if (op == OP_MUL && a_seq && (b.kind == J_INT || b.kind == J_BOOL)) return repeat(s, a, b.i, out);
    if (op == OP_MUL && b_seq && (a.kind == J_INT || a.kind == J_BOOL)) return repeat(s, b, a.i, out);
    return bad_operands(s, op_signs[op], a, b);
}

coe_status jv_items(struct jstate *s, struct jvalue v, struct jlist **out)
{
    struct jvalue list;
    switch (v.kind) {
    case J_LIST:
    case J_TUPLE:
    case J_VIEW:
    case J_GENERATOR: *out = v.list; return COE_OK;
    case J_UNDEFINED: COE_TRY(jv_new_list(s, J_LIST, &list)); break;
    case J_DICT:
        COE_TRY(jv_new_list(s, J_LIST, &list));
        for (uint32_t i = 0; i < v.dict->n; i++) COE_TRY(jv_push(s, list.list, v.dict->key[i]));
        break;
    case J_STRING:
        COE_TRY(jv_new_list(s, J_LIST, &list));
        for (size_t i = 0; i < v.n;) {
            int k = utf8_decode(v.s + i, v.n - i, NULL);
            COE_TRY(jv_push(s, list.list, jv_text(v.s + i, k ? (size_t)k : 1)));
            i += k ? (size_t)k : 1;
        }
        break;
    default: return jinja_error(s, "'%s' object is not iterable", jv_type(v));
    }
    *out = list.list;
    return COE_OK;
}

coe_status jv_length(struct jstate *s, struct jvalue v, int64_t *out)
{
    switch (v.kind) {
    case J_UNDEFINED: *out = 0; return COE_OK;
    case J_STRING: *out = (int64_t)jv_characters(v.s, v.n); return COE_OK;
    case J_LIST:
    case J_TUPLE:
    case J_VIEW: *out = (int64_t)v.list->n; return COE_OK;
    case J_DICT: *out = v.dict->n; return COE_OK;
    default: return jinja_error(s, "object of type '%s' has no len()", jv_type(v));
    }
}
