/* jinja_exec.c — statements, and the template as a whole. Loops, macros, blocks and `with` have their own variables;
 * `if` has not. */
#include <stdlib.h>
#include <string.h>

#include "text/jinja.h"

static coe_status exec_one(struct jstate *s, const struct jnode *node);

coe_status jinja_exec(struct jstate *s, const struct jnode *list)
{
    for (const struct jnode *n = list; n && s->flow == FLOW_ON; n = n->next) {
        s->node = n;
        if (++s->steps > JINJA_MAX_STEPS) return jinja_error(s, "more than %u steps", JINJA_MAX_STEPS);
        COE_TRY(exec_one(s, n));
    }
    return COE_OK;
}

static coe_status write_text(struct jstate *s, const char *text, size_t n)
{
    if (s->out->n + n > JINJA_MAX_OUTPUT) return jinja_error(s, "more than %zu MB of output", JINJA_MAX_OUTPUT >> 20);
    str_add(s->out, text, n);
    return str_check(s->out);
}

coe_status jinja_capture(struct jstate *s, const struct jnode *list, struct jvalue *out)
{
    struct str text = { 0 }, *before = s->out;
    if (++s->depth > JINJA_MAX_DEPTH) return jinja_error(s, "nested deeper than %d", JINJA_MAX_DEPTH);
    s->out = &text;
    coe_status st = jinja_exec(s, list);
    s->out = before;
    s->depth--;
    if (!st) return jv_take_str(s, &text, out);
    str_free(&text);
    return st;
}

/* A new scope inside the current one. */
static coe_status push_frame(struct jstate *s)
{
    struct jframe *f = jinja_alloc(s, sizeof *f);
    if (!f) return jinja_failed();
    *f = (struct jframe){ .parent = s->frame };
    s->frame = f;
    return COE_OK;
}

static coe_status in_scope(struct jstate *s, const struct jnode *list, struct jvalue *captured)
{
    struct jframe *before = s->frame;
    COE_TRY(push_frame(s));
    coe_status st = captured ? jinja_capture(s, list, captured) : jinja_exec(s, list);
    s->frame = before;
    return st;
}

static coe_status assign_to(struct jstate *s, const struct jnode *target, struct jvalue v)
{
    if (target->kind == N_NAME) return jinja_assign(s, target->id, v);
    if (target->kind == N_ATTR) {
        struct jvalue object;
        COE_TRY(jinja_eval(s, target->a, &object));
        s->node = target;
        if (object.kind != J_NAMESPACE) return jinja_error(s, "cannot assign attribute on non-namespace object");
        return jv_set(s, object.dict, target->value, v);
    }
    struct jlist *l;
    size_t n = 0;
    COE_TRY(jv_items(s, v, &l));
    for (const struct jnode *c = target->a; c; c = c->next) n++;
    if (n != l->n) return jinja_error(s, "%zu values to unpack into %zu names", l->n, n);
    size_t i = 0;
    for (const struct jnode *c = target->a; c; c = c->next) COE_TRY(assign_to(s, c, l->at[i++]));
    return COE_OK;
}

/* The items that pass the loop's condition. */
static coe_status filter_items(struct jstate *s, const struct jnode *node, struct jlist **items)
{
    struct jvalue kept;
    struct jlist *all = *items;
    struct jframe *before = s->frame;
    COE_TRY(jv_new_list(s, J_LIST, &kept));
    for (size_t i = 0; i < all->n; i++) {
        struct jvalue yes;
        COE_TRY(push_frame(s));
        COE_TRY(assign_to(s, node->a, all->at[i]));
        COE_TRY(jinja_eval(s, node->e, &yes));
        s->frame = before;
        if (jv_true(yes)) COE_TRY(jv_push(s, kept.list, all->at[i]));
    }
    *items = kept.list;
    return COE_OK;
}

/* The number of the name `loop`, which the template may not mention. */
static uint32_t loop_name(const struct template *t)
{
    for (size_t i = 0; i < t->names.n; i++)
        if (jv_is(t->names.at[i], "loop")) return (uint32_t)i;
    return UINT32_MAX;
}

static coe_status exec_for(struct jstate *s, const struct jnode *node)
{
    struct jvalue v;
    struct jlist *items;
    COE_TRY(jinja_eval(s, node->b, &v));
    s->node = node;
    COE_TRY(jv_items(s, v, &items));
    if (node->e) COE_TRY(filter_items(s, node, &items));
    struct jframe *before = s->frame;
    struct jloop *loop = jinja_alloc(s, sizeof *loop);
    if (!loop) return jinja_failed();
    *loop = (struct jloop){ .items = items, .depth = s->loop_depth };
    const uint32_t name = loop_name(s->t);
    coe_status st = COE_OK;
    s->loop_depth++;
    for (; loop->index < items->n && !st; loop->index++) {
        st = push_frame(s);
        if (!st && name != UINT32_MAX) st = jinja_assign(s, name, (struct jvalue){ .kind = J_LOOP, .loop = loop });
        if (!st) st = assign_to(s, node->a, items->at[loop->index]);
        if (!st) st = jinja_exec(s, node->c);
        s->frame = before;
        bool stop = s->flow == FLOW_BREAK;
        s->flow = FLOW_ON;
        if (stop) break;
    }
    s->loop_depth--;
    if (!st && !items->n && node->d) st = in_scope(s, node->d, NULL);
    return st;
}

/* A rendered block through the filters behind it. */
static coe_status filtered(struct jstate *s, const struct jnode *filters, struct jvalue *text)
{
    struct jvalue before = s->captured;
    s->captured = *text;
    coe_status st = jinja_eval(s, filters, text);
    s->captured = before;
    return st;
}

static coe_status exec_macro(struct jstate *s, const struct jnode *node, struct jvalue *out)
{
    struct jmacro *m = jinja_alloc(s, sizeof *m);
    if (!m) return jinja_failed();
    *m = (struct jmacro){ .node = node, .scope = s->frame };
    *out = (struct jvalue){ .kind = J_MACRO, .macro = m };
    return COE_OK;
}

/* The block becomes a macro named caller, handed over as one more argument. */
static coe_status exec_call_block(struct jstate *s, const struct jnode *node)
{
    struct jvalue fn, out, caller;
    struct jargs args = { .n = 0 };
    COE_TRY(exec_macro(s, node, &caller));
    COE_TRY(jinja_eval(s, node->c->a, &fn));
    for (const struct jnode *a = node->c->b; a; a = a->next) {
        if (args.n + args.n_keys + 1 >= JINJA_MAX_ARGS) return jinja_error(s, "too many arguments");
        struct jvalue *to = &args.at[args.n + args.n_keys];
        COE_TRY(jinja_eval(s, a->kind == N_KEYWORD ? a->a : a, to));
        if (a->kind == N_KEYWORD) args.key[args.n_keys++] = a->id;
        else args.n++;
    }
    for (uint32_t i = 0; i < s->t->names.n; i++)
        if (jv_is(s->t->names.at[i], "caller")) {
            args.key[args.n_keys] = i;
            args.at[args.n + args.n_keys++] = caller;
            break;
        }
    s->node = node;
    COE_TRY(jinja_call(s, fn, &args, &out));
    COE_TRY(jv_to_text(s, out, &out));
    return write_text(s, out.s, out.n);
}

static coe_status exec_with(struct jstate *s, const struct jnode *node)
{
    struct jframe *before = s->frame;
    COE_TRY(push_frame(s));
    coe_status st = COE_OK;
    for (const struct jnode *to = node->a, *value = node->b; to && !st; to = to->next, value = value->next) {
        struct jvalue v;
        st = jinja_eval(s, value, &v);
        if (!st) st = assign_to(s, to, v);
    }
    if (!st) st = jinja_exec(s, node->c);
    s->frame = before;
    return st;
}

static coe_status exec_print(struct jstate *s, const struct jnode *node)
{
    struct jvalue v;
    COE_TRY(jinja_eval(s, node->a, &v));
    s->node = node;
    COE_TRY(jv_to_text(s, v, &v));
    return write_text(s, v.s, v.n);
}

static coe_status exec_if(struct jstate *s, const struct jnode *node)
{
    for (; node; node = node->c) {
        struct jvalue v;
        if (node->kind != N_IF || node->next) return jinja_exec(s, node); /* the else part */
        COE_TRY(jinja_eval(s, node->a, &v));
        if (jv_true(v)) return jinja_exec(s, node->b);
    }
    return COE_OK;
}

static coe_status exec_block(struct jstate *s, const struct jnode *node)
{
    struct jvalue v;
    COE_TRY(in_scope(s, node->b, &v));
    COE_TRY(filtered(s, node->c, &v));
    if (node->kind == N_SET_BLOCK) return assign_to(s, node->a, v);
    COE_TRY(jv_to_text(s, v, &v));
    return write_text(s, v.s, v.n);
}

static coe_status exec_one(struct jstate *s, const struct jnode *node)
{
    struct jvalue v;
    switch (node->kind) {
    case N_TEXT: return write_text(s, node->value.s, node->value.n);
    case N_PRINT: return exec_print(s, node);
    case N_IF: {
        COE_TRY(jinja_eval(s, node->a, &v));
        return jv_true(v) ? jinja_exec(s, node->b) : exec_if(s, node->c);
    }
    case N_FOR: return exec_for(s, node);
    case N_SET: COE_TRY(jinja_eval(s, node->b, &v)); return assign_to(s, node->a, v);
    case N_SET_BLOCK:
    case N_FILTER_BLOCK: return exec_block(s, node);
    case N_MACRO: COE_TRY(exec_macro(s, node, &v)); return jinja_assign(s, node->id, v);
    case N_CALL_BLOCK: return exec_call_block(s, node);
    case N_WITH: return exec_with(s, node);
    case N_SCOPE: return in_scope(s, node->b, NULL);
    case N_BREAK: s->flow = FLOW_BREAK; return COE_OK;
    default: s->flow = FLOW_CONTINUE; return COE_OK;
    }
}

/* Line ends become \n, and one at the end goes, as Jinja does it. */
static coe_status take_source(struct template *t, const char *source, size_t n)
{
    char *to = t->source = arena_push(&t->arena, n + 1);
    if (!to) return COE_E_NOMEM;
    for (size_t i = 0; i < n; i++) {
        if (source[i] == '\r' && i + 1 < n && source[i + 1] == '\n') continue;
        *to++ = source[i] == '\r' ? '\n' : source[i];
    }
    if (to > t->source && to[-1] == '\n') to--;
    *to = 0;
    t->n = (size_t)(to - t->source);
    for (size_t i = 0; i < t->n;) {
        int k = utf8_decode(t->source + i, t->n - i, NULL);
        if (!k) return coe_fail(COE_E_INPUT, "%s: byte %zu is not UTF-8", t->name, i);
        i += (size_t)k;
    }
    return COE_OK;
}

coe_status template_compile(struct template **out, const char *source, size_t n, const char *name)
{
    *out = NULL;
    if (n > JINJA_MAX_SOURCE)
        return coe_fail(COE_E_INPUT, "%s: a template of %zu bytes, at most %zu", name, n, JINJA_MAX_SOURCE);
    struct template *t = mem_zalloc("templates", sizeof *t);
    if (!t) return COE_E_NOMEM;
    t->name = arena_strdup(&t->arena, name);
    coe_status s = t->name ? take_source(t, source, n) : COE_E_NOMEM;
    if (!s) s = jinja_parse(t);
    if (s) template_free(t);
    else *out = t;
    return s;
}

void template_free(struct template *t)
{
    if (!t) return;
    VEC_FREE(&t->names);
    arena_free(&t->arena);
    mem_free(t);
}

static coe_status set_variables(struct jstate *s, const json_t *variables)
{
    for (uint32_t id = 0; id < s->t->names.n; id++) {
        const json_t *j = json_object_getn(variables, s->t->names.at[id].s, s->t->names.at[id].n);
        struct jvalue v;
        if (!j) continue;
        COE_TRY(jv_of_json(s, j, &v, 0));
        COE_TRY(jinja_assign(s, id, v));
    }
    return COE_OK;
}

coe_status template_render(const struct template *t, struct str *out, const json_t *variables, const struct tm *now)
{
    struct jframe root = { 0 };
    struct tm local;
    time_t clock = time(NULL);
    if (!now) now = localtime_r(&clock, &local);
    struct jstate s = { .t = t, .out = out, .frame = &root, .now = now };
    coe_status st = set_variables(&s, variables);
    if (!st) st = jinja_exec(&s, t->body);
    arena_free(&s.arena);
    return st;
}
