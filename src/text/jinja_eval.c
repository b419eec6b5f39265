/* jinja_eval.c — expressions to values, calls of macros and functions. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "text/jinja.h"

coe_status jinja_error(struct jstate *s, const char *format, ...)
{
    char text[300];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    for (char *c = text; *c; c++)
        if (*c == '\n') *c = ' ';
    return coe_fail(COE_E_INPUT, "%s: line %u column %u: %s", s->t->name, s->node ? s->node->line : 0,
                    s->node ? s->node->column : 0, text);
}

static coe_status enter(struct jstate *s, const struct jnode *node)
{
    s->node = node;
    if (++s->steps > JINJA_MAX_STEPS) return jinja_error(s, "more than %u steps", JINJA_MAX_STEPS);
    if (++s->depth > JINJA_MAX_DEPTH) return jinja_error(s, "nested deeper than %d", JINJA_MAX_DEPTH);
    return COE_OK;
}

static coe_status look_up(struct jstate *s, const struct jnode *node, struct jvalue *out)
{
    for (const struct jframe *f = s->frame; f; f = f->parent)
        for (uint32_t i = 0; i < f->n; i++)
            if (f->var[i].id == node->id) {
                *out = f->var[i].value;
                return COE_OK;
            }
    const struct jglobal *g = jinja_find_global(node->value);
    *out = g ? (struct jvalue){ .kind = J_GLOBAL, .global = g } : jv_undefined(node->value.s, node->value.n);
    return COE_OK;
}

coe_status jinja_assign(struct jstate *s, uint32_t id, struct jvalue value)
{
    struct jframe *f = s->frame;
    for (uint32_t i = 0; i < f->n; i++)
        if (f->var[i].id == id) {
            f->var[i].value = value;
            return COE_OK;
        }
    if (f->n == f->cap) {
        uint32_t cap = f->cap ? f->cap * 2 : 4;
        void *var = jinja_alloc(s, cap * sizeof *f->var);
        if (!var) return jinja_failed();
        if (f->n) memcpy(var, f->var, f->n * sizeof *f->var);
        f->var = var;
        f->cap = cap;
    }
    f->var[f->n].id = id;
    f->var[f->n++].value = value;
    return COE_OK;
}

static coe_status eval_list(struct jstate *s, const struct jnode *node, struct jvalue *out)
{
    COE_TRY(jv_new_list(s, node->kind == N_LIST ? J_LIST : J_TUPLE, out));
    for (const struct jnode *c = node->a; c; c = c->next) {
        struct jvalue v;
        COE_TRY(jinja_eval(s, c, &v));
        COE_TRY(jv_push(s, out->list, v));
    }
    return COE_OK;
}

static coe_status eval_dict(struct jstate *s, const struct jnode *node, struct jvalue *out)
{
    COE_TRY(jv_new_dict(s, J_DICT, out));
    for (const struct jnode *k = node->a, *v = node->b; k; k = k->next, v = v->next) {
        struct jvalue key, value;
        COE_TRY(jinja_eval(s, k, &key));
        COE_TRY(jinja_eval(s, v, &value));
        COE_TRY(jv_set(s, out->dict, key, value));
    }
    return COE_OK;
}

static coe_status spread(struct jstate *s, const struct jnode *node, struct jargs *args)
{
    struct jvalue v;
    COE_TRY(jinja_eval(s, node->a, &v));
    if (node->kind == N_STAR) {
        struct jlist *l;
        COE_TRY(jv_items(s, v, &l));
        for (size_t i = 0; i < l->n; i++) {
            if (args->n == JINJA_MAX_ARGS || args->n_keys) return jinja_error(s, "too many arguments");
            args->at[args->n++] = l->at[i];
        }
        return COE_OK;
    }
    if (v.kind != J_DICT) return jinja_error(s, "argument after ** must be a mapping, not %s", jv_type(v));
    for (uint32_t i = 0; i < v.dict->n; i++) {
        uint32_t id = 0;
        if (v.dict->key[i].kind != J_STRING) return jinja_error(s, "keywords must be strings");
        while (id < s->t->names.n && !jv_equal(s->t->names.at[id], v.dict->key[i], 0)) id++;
        if (args->n + args->n_keys == JINJA_MAX_ARGS) return jinja_error(s, "too many arguments");
        args->key[args->n_keys] = id;
        args->at[args->n + args->n_keys++] = v.dict->value[i];
    }
    return COE_OK;
}

static coe_status eval_args(struct jstate *s, const struct jnode *list, struct jargs *args)
{
    args->n = args->n_keys = 0;
    for (const struct jnode *a = list; a; a = a->next) {
        if (a->kind == N_STAR || a->kind == N_STAR_STAR) {
            COE_TRY(spread(s, a, args));
            continue;
        }
        if (args->n + args->n_keys == JINJA_MAX_ARGS) return jinja_error(s, "too many arguments");
        struct jvalue *to = &args->at[args->n + args->n_keys];
        if (a->kind == N_KEYWORD) {
            COE_TRY(jinja_eval(s, a->a, to));
            args->key[args->n_keys++] = a->id;
        } else {
            if (args->n_keys) return jinja_error(s, "an argument behind a keyword argument");
            COE_TRY(jinja_eval(s, a, to));
            args->n++;
        }
    }
    return COE_OK;
}

static coe_status compare_op(struct jstate *s, enum jop op, struct jvalue a, struct jvalue b, bool *out)
{
    int c = 0;
    switch (op) {
    case OP_EQ: *out = jv_equal(a, b, 0); return COE_OK;
    case OP_NE: *out = !jv_equal(a, b, 0); return COE_OK;
    case OP_IN: return jv_contains(s, b, a, out);
    case OP_NOT_IN:
        COE_TRY(jv_contains(s, b, a, out));
        *out = !*out;
        return COE_OK;
    default: break;
    }
    if (a.kind == J_UNDEFINED || b.kind == J_UNDEFINED) {
        struct jvalue u = a.kind == J_UNDEFINED ? a : b;
        return jinja_error(s, "'%.*s' is undefined", (int)COE_MIN(u.n, 100u), u.s ? u.s : "");
    }
    COE_TRY(jv_compare(s, a, b, &c));
    *out = op == OP_LT ? c < 0 : op == OP_GT ? c > 0 : op == OP_LE ? c <= 0 : c >= 0;
    return COE_OK;
}

static coe_status eval_compare(struct jstate *s, const struct jnode *node, struct jvalue *out)
{
    struct jvalue a, b;
    bool yes = true;
    COE_TRY(jinja_eval(s, node->a, &a));
    for (const struct jnode *c = node->b; c && yes; c = c->next, a = b) {
        COE_TRY(jinja_eval(s, c->a, &b));
        s->node = c;
        COE_TRY(compare_op(s, (enum jop)c->op, a, b, &yes));
    }
    *out = jv_bool(yes);
    return COE_OK;
}

static coe_status eval_concat(struct jstate *s, const struct jnode *node, struct jvalue *out)
{
    struct str text = { 0 };
    coe_status st = COE_OK;
    for (const struct jnode *c = node->a; c && !st; c = c->next) {
        struct jvalue v;
        st = jinja_eval(s, c, &v);
        if (!st) st = jv_str(s, v, &text);
        if (!st && text.n > JINJA_MAX_OUTPUT) st = jinja_error(s, "a text of more than %zu MB", JINJA_MAX_OUTPUT >> 20);
    }
    if (!st) return jv_take_str(s, &text, out);
    str_free(&text);
    return st;
}

static coe_status eval_sign(struct jstate *s, const struct jnode *node, struct jvalue *out)
{
    struct jvalue v;
    COE_TRY(jinja_eval(s, node->a, &v));
    s->node = node;
    if (v.kind != J_INT && v.kind != J_FLOAT && v.kind != J_BOOL)
        return jinja_error(s, "bad operand type for unary sign: '%s'", jv_type(v));
    if (node->kind == N_POS) *out = v.kind == J_BOOL ? jv_int(v.i) : v;
    else if (v.kind == J_FLOAT) *out = jv_float(-v.f);
    else if (v.i == INT64_MIN) return jinja_error(s, "a whole number beyond 64 bits");
    else *out = jv_int(-v.i);
    return COE_OK;
}

static coe_status eval_slice(struct jstate *s, const struct jnode *node, struct jvalue *out)
{
    struct jvalue v, part[3] = { jv_none(), jv_none(), jv_none() };
    COE_TRY(jinja_eval(s, node->a, &v));
    if (node->b) COE_TRY(jinja_eval(s, node->b, &part[0]));
    if (node->c) COE_TRY(jinja_eval(s, node->c, &part[1]));
    if (node->d) COE_TRY(jinja_eval(s, node->d, &part[2]));
    s->node = node;
    return jv_slice(s, v, part, out);
}

static coe_status eval_call(struct jstate *s, const struct jnode *node, struct jvalue *out)
{
    struct jvalue fn;
    struct jargs args;
    COE_TRY(jinja_eval(s, node->a, &fn));
    COE_TRY(eval_args(s, node->b, &args));
    s->node = node;
    return jinja_call(s, fn, &args, out);
}

/* A filter, or a test, and what it is applied to. */
static coe_status eval_applied(struct jstate *s, const struct jnode *node, struct jvalue *out)
{
    struct jvalue v;
    struct jargs args;
    bool yes = false;
    COE_TRY(jinja_eval(s, node->a, &v));
    if (node->kind == N_TEST && node->b && node->b->kind != N_KEYWORD && !node->b->next && node->b->kind != N_STAR) {
        args.n_keys = 0;
        args.n = 1;
        COE_TRY(jinja_eval(s, node->b, &args.at[0]));
    } else {
        COE_TRY(eval_args(s, node->b, &args));
    }
    s->node = node;
    if (node->kind == N_FILTER) return jinja_filter(s, node->value, v, &args, out);
    COE_TRY(jinja_test(s, node->value, v, &args, &yes));
    *out = jv_bool(yes != node->negated);
    return COE_OK;
}

static coe_status eval_two(struct jstate *s, const struct jnode *node, struct jvalue *out)
{
    struct jvalue a, b;
    COE_TRY(jinja_eval(s, node->a, &a));
    COE_TRY(jinja_eval(s, node->b, &b));
    s->node = node;
    return node->kind == N_ITEM ? jv_item(s, a, b, out) : jv_binary(s, (enum jop)node->op, a, b, out);
}

static coe_status eval_lazy(struct jstate *s, const struct jnode *node, struct jvalue *out)
{
    COE_TRY(jinja_eval(s, node->a, out));
    bool yes = jv_true(*out);
    if (node->kind == N_NOT) *out = jv_bool(!yes);
    else if (node->kind == N_AND ? yes : node->kind == N_OR && !yes) return jinja_eval(s, node->b, out);
    else if (node->kind == N_COND && yes) return jinja_eval(s, node->b, out);
    else if (node->kind == N_COND && node->c) return jinja_eval(s, node->c, out);
    else if (node->kind == N_COND) *out = jv_undefined("inline if without else", 22);
    return COE_OK;
}

static coe_status eval_inside(struct jstate *s, const struct jnode *node, struct jvalue *out)
{
    struct jvalue v;
    switch (node->kind) {
    case N_CONST: *out = node->value; return COE_OK;
    case N_CAPTURED: *out = s->captured; return COE_OK;
    case N_NAME: return look_up(s, node, out);
    case N_LIST:
    case N_TUPLE: return eval_list(s, node, out);
    case N_DICT: return eval_dict(s, node, out);
    case N_ATTR:
        COE_TRY(jinja_eval(s, node->a, &v));
        s->node = node;
        return jv_attribute(s, v, node->value, out);
    case N_ITEM:
    case N_BINARY: return eval_two(s, node, out);
    case N_SLICE: return eval_slice(s, node, out);
    case N_CALL: return eval_call(s, node, out);
    case N_FILTER:
    case N_TEST: return eval_applied(s, node, out);
    case N_NEG:
    case N_POS: return eval_sign(s, node, out);
    case N_COMPARE: return eval_compare(s, node, out);
    case N_CONCAT: return eval_concat(s, node, out);
    default: return eval_lazy(s, node, out);
    }
}

coe_status jinja_eval(struct jstate *s, const struct jnode *node, struct jvalue *out)
{
    COE_TRY(enter(s, node));
    *out = jv_none();
    coe_status st = eval_inside(s, node, out);
    s->depth--;
    return st;
}

/* Values of a macro's parameters into the current frame: by place, by name, by default. */
static coe_status bind_parameters(struct jstate *s, const struct jmacro *m, const struct jargs *args)
{
    int place = 0, used = 0;
    for (const struct jnode *p = m->node->a; p; p = p->next, place++) {
        struct jvalue v = jv_undefined(p->value.s, p->value.n);
        bool given = place < args->n;
        if (given) v = args->at[place];
        for (int k = 0; k < args->n_keys; k++) {
            if (args->key[k] != p->id) continue;
            if (given) return jinja_error(s, "macro got two values for '%.*s'", (int)p->value.n, p->value.s);
            v = args->at[args->n + k];
            given = true;
            used++;
        }
        if (!given && p->a) COE_TRY(jinja_eval(s, p->a, &v));
        COE_TRY(jinja_assign(s, p->id, v));
    }
    for (int k = 0; k < args->n_keys && used < args->n_keys;
         k++) { /* the block of a call, which any macro may ask for */
        uint32_t id = args->key[k];
        if (id >= s->t->names.n || !jv_is(s->t->names.at[id], "caller")) continue;
        COE_TRY(jinja_assign(s, id, args->at[args->n + k]));
        used++;
    }
    if (args->n > place) return jinja_error(s, "macro takes %d arguments, got %d", place, args->n);
    if (used < args->n_keys) return jinja_error(s, "macro got an unexpected keyword argument");
    return COE_OK;
}

static coe_status call_macro(struct jstate *s, const struct jmacro *m, const struct jargs *args, struct jvalue *out)
{
    struct jframe frame = { .parent = m->scope }, *heap = jinja_alloc(s, sizeof *heap), *before = s->frame;
    int loops = s->loop_depth;
    if (!heap) return jinja_failed();
    *heap = frame; /* macros defined inside may outlive the call */
    s->frame = heap;
    s->loop_depth = 0;
    coe_status st = bind_parameters(s, m, args);
    if (!st) st = jinja_capture(s, m->node->b, out);
    s->frame = before;
    s->loop_depth = loops;
    return st;
}

coe_status jinja_call(struct jstate *s, struct jvalue fn, const struct jargs *args, struct jvalue *out)
{
    switch (fn.kind) {
    case J_MACRO: return call_macro(s, fn.macro, args, out);
    case J_METHOD: return jinja_method(s, fn.method, args, out);
    case J_GLOBAL: return jinja_call_global(s, fn.global, args, out);
    case J_UNDEFINED: return jinja_error(s, "'%.*s' is undefined", (int)COE_MIN(fn.n, 100u), fn.s ? fn.s : "");
    default: return jinja_error(s, "'%s' object is not callable", jv_type(fn));
    }
}
