/* jinja_stmt.c — statements: what stands between {% and %}, and the text around them.
 *
 * Children: IF a test, b body, c else. FOR a targets, b items, c body, d else, e condition. SET a target, b value.
 * SET_BLOCK a target, b body, c filters. MACRO a parameters (default in each one's a), b body. CALL_BLOCK a parameters,
 * b body, c call. FILTER_BLOCK b body, c filters. WITH a targets, b values, c body. SCOPE b body. */
#include <string.h>

#include "text/jinja.h"

static coe_status statements(struct jparser *p, struct jnode **list, const char *const *ends);

static coe_status block_end(struct jparser *p)
{
    if (p->now.kind != T_BLOCK_END) return jinja_parse_error(p, "expected the end of the tag");
    return jinja_advance(p);
}

/* Behind an opening tag: the body up to one of `ends`; the parser stands behind that name. */
static coe_status body(struct jparser *p, struct jnode **list, const char *const *ends)
{
    COE_TRY(block_end(p));
    return statements(p, list, ends);
}

static coe_status body_and_end(struct jparser *p, struct jnode **list, const char *end)
{
    const char *const ends[] = { end, NULL };
    COE_TRY(body(p, list, ends));
    COE_TRY(jinja_advance(p));
    return block_end(p);
}

static coe_status if_statement(struct jparser *p, struct jnode **out)
{
    static const char *const ends[] = { "elif", "else", "endif", NULL };
    struct jnode *n = *out = jinja_node(p, N_IF);
    for (;;) {
        if (!n) return COE_E_NOMEM;
        COE_TRY(jinja_advance(p));
        COE_TRY(jinja_tuple(p, &n->a, false, false));
        COE_TRY(body(p, &n->b, ends));
        if (!jinja_is_name(p, "elif")) break;
        n->c = jinja_node(p, N_IF);
        n = n->c;
    }
    bool otherwise = jinja_is_name(p, "else");
    COE_TRY(jinja_advance(p));
    return otherwise ? body_and_end(p, &n->c, "endif") : block_end(p);
}

static coe_status for_statement(struct jparser *p, struct jnode **out)
{
    static const char *const ends[] = { "else", "endfor", NULL };
    struct jnode *n = *out = jinja_node(p, N_FOR);
    if (!n) return COE_E_NOMEM;
    COE_TRY(jinja_advance(p));
    COE_TRY(jinja_targets(p, &n->a));
    if (!jinja_is_name(p, "in")) return jinja_parse_error(p, "expected 'in'");
    COE_TRY(jinja_advance(p));
    COE_TRY(jinja_tuple(p, &n->b, false, false));
    if (jinja_is_name(p, "if")) {
        COE_TRY(jinja_advance(p));
        COE_TRY(jinja_expression(p, &n->e, true));
    }
    if (jinja_is_name(p, "recursive")) return jinja_parse_error(p, "recursive loops are not supported");
    p->loops++;
    COE_TRY(body(p, &n->c, ends));
    p->loops--;
    bool otherwise = jinja_is_name(p, "else");
    COE_TRY(jinja_advance(p));
    return otherwise ? body_and_end(p, &n->d, "endfor") : block_end(p);
}

static coe_status filters_of_block(struct jparser *p, struct jnode **out)
{
    *out = jinja_node(p, N_CAPTURED);
    return *out ? jinja_filters_behind(p, out) : COE_E_NOMEM;
}

static coe_status set_statement(struct jparser *p, struct jnode **out)
{
    struct jnode *n = *out = jinja_node(p, N_SET);
    if (!n) return COE_E_NOMEM;
    COE_TRY(jinja_advance(p));
    COE_TRY(jinja_targets(p, &n->a));
    if (jinja_is_op(p, "=")) {
        COE_TRY(jinja_advance(p));
        COE_TRY(jinja_tuple(p, &n->b, true, false));
        return block_end(p);
    }
    n->kind = N_SET_BLOCK;
    COE_TRY(filters_of_block(p, &n->c));
    return body_and_end(p, &n->b, "endset");
}

static coe_status parameters(struct jparser *p, struct jnode **list)
{
    int count = 0;
    COE_TRY(jinja_expect_op(p, "("));
    while (!jinja_is_op(p, ")")) {
        if (++count > JINJA_MAX_ARGS) return jinja_parse_error(p, "more than %d parameters", JINJA_MAX_ARGS);
        if (p->now.kind != T_NAME) return jinja_parse_error(p, "expected a parameter");
        struct jnode *n = *list = jinja_node(p, N_NAME);
        if (!n) return COE_E_NOMEM;
        n->value = jv_text(p->now.at, p->now.n);
        n->id = jinja_name_number(p->t, p->now.at, p->now.n);
        if (n->id == UINT32_MAX) return COE_E_NOMEM;
        COE_TRY(jinja_advance(p));
        if (jinja_is_op(p, "=")) {
            COE_TRY(jinja_advance(p));
            COE_TRY(jinja_expression(p, &n->a, true));
        }
        list = &n->next;
        if (!jinja_is_op(p, ")")) COE_TRY(jinja_expect_op(p, ","));
    }
    return jinja_advance(p);
}

static coe_status macro_statement(struct jparser *p, struct jnode **out)
{
    struct jnode *n = *out = jinja_node(p, N_MACRO);
    int loops = p->loops;
    if (!n) return COE_E_NOMEM;
    COE_TRY(jinja_advance(p));
    if (p->now.kind != T_NAME) return jinja_parse_error(p, "expected the macro's name");
    n->value = jv_text(p->now.at, p->now.n);
    n->id = jinja_name_number(p->t, p->now.at, p->now.n);
    if (n->id == UINT32_MAX) return COE_E_NOMEM;
    COE_TRY(jinja_advance(p));
    COE_TRY(parameters(p, &n->a));
    p->loops = 0;
    COE_TRY(body_and_end(p, &n->b, "endmacro"));
    p->loops = loops;
    return COE_OK;
}

static coe_status call_statement(struct jparser *p, struct jnode **out)
{
    struct jnode *n = *out = jinja_node(p, N_CALL_BLOCK);
    int loops = p->loops;
    if (!n) return COE_E_NOMEM;
    COE_TRY(jinja_advance(p));
    if (jinja_is_op(p, "(")) COE_TRY(parameters(p, &n->a));
    COE_TRY(jinja_expression(p, &n->c, true));
    if (n->c->kind != N_CALL) return jinja_parse_error(p, "expected a call");
    p->loops = 0;
    COE_TRY(body_and_end(p, &n->b, "endcall"));
    p->loops = loops;
    return COE_OK;
}

static coe_status filter_statement(struct jparser *p, struct jnode **out)
{
    struct jnode *n = *out = jinja_node(p, N_FILTER_BLOCK), *f;
    if (!n) return COE_E_NOMEM;
    COE_TRY(jinja_advance(p));
    f = n->c = jinja_node(p, N_FILTER);
    if (!f || !(f->a = jinja_node(p, N_CAPTURED))) return COE_E_NOMEM;
    if (p->now.kind != T_NAME) return jinja_parse_error(p, "expected a filter");
    f->value = jv_text(p->now.at, p->now.n);
    COE_TRY(jinja_advance(p));
    if (jinja_is_op(p, "(")) COE_TRY(jinja_call_args(p, &f->b));
    COE_TRY(jinja_filters_behind(p, &n->c));
    return body_and_end(p, &n->b, "endfilter");
}

static coe_status with_statement(struct jparser *p, struct jnode **out)
{
    struct jnode *n = *out = jinja_node(p, N_WITH), **to, **value;
    if (!n) return COE_E_NOMEM;
    to = &n->a;
    value = &n->b;
    COE_TRY(jinja_advance(p));
    while (p->now.kind != T_BLOCK_END) {
        COE_TRY(jinja_targets(p, to));
        COE_TRY(jinja_expect_op(p, "="));
        COE_TRY(jinja_expression(p, value, true));
        to = &(*to)->next;
        value = &(*value)->next;
        if (p->now.kind != T_BLOCK_END) COE_TRY(jinja_expect_op(p, ","));
    }
    return body_and_end(p, &n->c, "endwith");
}

static coe_status generation_statement(struct jparser *p, struct jnode **out)
{
    *out = jinja_node(p, N_SCOPE);
    if (!*out) return COE_E_NOMEM;
    COE_TRY(jinja_advance(p));
    return body_and_end(p, &(*out)->b, "endgeneration");
}

static coe_status jump_statement(struct jparser *p, struct jnode **out)
{
    *out = jinja_node(p, jinja_is_name(p, "break") ? N_BREAK : N_CONTINUE);
    if (!*out) return COE_E_NOMEM;
    if (!p->loops) return jinja_parse_error(p, "'%.*s' outside a loop", (int)p->now.n, p->now.at);
    COE_TRY(jinja_advance(p));
    return block_end(p);
}

static coe_status statement(struct jparser *p, struct jnode **out)
{
    static const struct {
        const char *name;
        coe_status (*parse)(struct jparser *, struct jnode **);
    } table[] = { { "if", if_statement },      { "for", for_statement },
                  { "set", set_statement },    { "macro", macro_statement },
                  { "call", call_statement },  { "filter", filter_statement },
                  { "with", with_statement },  { "generation", generation_statement },
                  { "break", jump_statement }, { "continue", jump_statement } };
    for (size_t i = 0; i < COE_COUNT(table); i++)
        if (jinja_is_name(p, table[i].name)) return table[i].parse(p, out);
    return jinja_parse_error(p, "'%.*s' is no statement that is known here", (int)COE_MIN(p->now.n, (size_t)60),
                             p->now.kind == T_NAME ? p->now.at : "");
}

static coe_status print_tag(struct jparser *p, struct jnode **out)
{
    COE_TRY(jinja_advance(p));
    *out = jinja_node(p, N_PRINT);
    if (!*out) return COE_E_NOMEM;
    COE_TRY(jinja_tuple(p, &(*out)->a, true, false));
    if (p->now.kind != T_PRINT_END) return jinja_parse_error(p, "expected '}}'");
    return jinja_advance(p);
}

static bool is_one_of(const struct jparser *p, const char *const *names)
{
    for (; *names; names++)
        if (jinja_is_name(p, *names)) return true;
    return false;
}

/* Statements up to a tag that begins with one of `ends` (NULL: the end of the template); the parser stands at that
 * name. */
static coe_status statements(struct jparser *p, struct jnode **list, const char *const *ends)
{
    if (++p->nesting > JINJA_MAX_NESTING) return jinja_parse_error(p, "nested deeper than %d", JINJA_MAX_NESTING);
    for (;;) {
        if (p->now.kind == T_END) {
            if (ends)
                return jinja_parse_error(p, "the template ends where '%s' is missing",
                                         ends[0][0] == 'e' && ends[1] ? ends[ends[2] ? 2 : 1] : ends[0]);
            break;
        }
        if (p->now.kind == T_TEXT) {
            *list = jinja_node(p, N_TEXT);
            if (!*list) return COE_E_NOMEM;
            (*list)->value = jv_text(p->now.at, p->now.n);
            COE_TRY(jinja_advance(p));
        } else if (p->now.kind == T_PRINT_BEGIN) {
            COE_TRY(print_tag(p, list));
        } else {
            COE_TRY(jinja_advance(p)); /* {% */
            if (ends && is_one_of(p, ends)) break;
            COE_TRY(statement(p, list));
        }
        list = &(*list)->next;
    }
    p->nesting--;
    return COE_OK;
}

coe_status jinja_parse(struct template *t)
{
    struct jparser p = { .t = t, .lx = { .t = t, .line = 1, .line_starting = true } };
    COE_TRY(jinja_advance(&p));
    return statements(&p, &t->body, NULL);
}
