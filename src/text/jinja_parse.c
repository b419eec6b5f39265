/* jinja_parse.c — expressions, in Jinja's order of binding from loose to tight:
 *     x if c else y | or | and | not | comparisons and in | + - | ~ | * / // % | ** | unary - + | postfix . [] () |
 * filters, tests
 *
 * Children: ITEM, ATTR, CALL, FILTER, TEST have their object in a, index or arguments in b. SLICE: a[b:c:d]. DICT: keys
 * in a, values in b. COMPARE: first operand in a, then in b a list of nodes with op and operand a. COND: b if a else c.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "text/jinja.h"

coe_status jinja_parse_error(const struct jparser *p, const char *format, ...)
{
    char text[300];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    return coe_fail(COE_E_INPUT, "%s: line %u column %u: %s", p->t->name, p->now.line, p->now.column, text);
}

coe_status jinja_advance(struct jparser *p)
{
    if (p->has_ahead) {
        p->now = p->ahead;
        p->has_ahead = false;
        return COE_OK;
    }
    return jinja_next(&p->lx, &p->now);
}

static coe_status look_ahead(struct jparser *p)
{
    if (p->has_ahead) return COE_OK;
    COE_TRY(jinja_next(&p->lx, &p->ahead));
    p->has_ahead = true;
    return COE_OK;
}

bool jinja_is_op(const struct jparser *p, const char *op)
{
    return p->now.kind == T_OP && p->now.n == strlen(op) && !memcmp(p->now.at, op, p->now.n);
}

bool jinja_is_name(const struct jparser *p, const char *name)
{
    return p->now.kind == T_NAME && p->now.n == strlen(name) && !memcmp(p->now.at, name, p->now.n);
}

coe_status jinja_expect_op(struct jparser *p, const char *op)
{
    if (!jinja_is_op(p, op)) return jinja_parse_error(p, "expected '%s'", op);
    return jinja_advance(p);
}

struct jnode *jinja_node(struct jparser *p, enum jnode_kind kind)
{
    struct jnode *n = arena_push_zero(&p->t->arena, sizeof *n);
    if (!n) return NULL;
    n->kind = (uint8_t)kind;
    n->line = p->now.line;
    n->column = p->now.column;
    return n;
}

uint32_t jinja_name_number(struct template *t, const char *name, size_t n)
{
    for (size_t i = 0; i < t->names.n; i++)
        if (t->names.at[i].n == n && !memcmp(t->names.at[i].s, name, n)) return (uint32_t)i;
    return VEC_PUSH(&t->names, jv_text(name, n)) ? (uint32_t)t->names.n - 1 : UINT32_MAX;
}

static coe_status enter(struct jparser *p)
{
    if (++p->nesting > JINJA_MAX_NESTING) return jinja_parse_error(p, "nested deeper than %d", JINJA_MAX_NESTING);
    return COE_OK;
}

static coe_status unary(struct jparser *p, struct jnode **out, bool with_filter);
static coe_status disjunction(struct jparser *p, struct jnode **out);

static coe_status name_node(struct jparser *p, struct jnode **out)
{
    struct jnode *n = *out = jinja_node(p, N_NAME);
    if (!n) return COE_E_NOMEM;
    n->value = jv_text(p->now.at, p->now.n);
    n->id = jinja_name_number(p->t, p->now.at, p->now.n);
    return n->id == UINT32_MAX ? COE_E_NOMEM : jinja_advance(p);
}

static coe_status constant(struct jparser *p, struct jnode **out, struct jvalue v)
{
    struct jnode *n = *out = jinja_node(p, N_CONST);
    if (!n) return COE_E_NOMEM;
    n->value = v;
    return jinja_advance(p);
}

/* Adjacent strings are one. */
static coe_status string_constant(struct jparser *p, struct jnode **out)
{
    struct str text = { 0 };
    struct jnode *n = *out = jinja_node(p, N_CONST);
    coe_status s = n ? COE_OK : COE_E_NOMEM;
    while (!s && p->now.kind == T_STRING) {
        str_add(&text, p->now.at, p->now.n);
        s = jinja_advance(p);
    }
    char *copy = s || text.oom ? NULL : arena_push(&p->t->arena, text.n + 1);
    if (copy && text.n) memcpy(copy, text.at, text.n);
    if (copy) n->value = jv_text(copy, text.n);
    str_free(&text);
    return s ? s : copy ? COE_OK : COE_E_NOMEM;
}

/* Expressions up to `close`, separated by commas; a comma may stand at the end. */
static coe_status items_until(struct jparser *p, struct jnode **list, const char *close)
{
    while (!jinja_is_op(p, close)) {
        COE_TRY(jinja_expression(p, list, true));
        list = &(*list)->next;
        if (!jinja_is_op(p, close)) COE_TRY(jinja_expect_op(p, ","));
    }
    return jinja_advance(p);
}

static coe_status dict_literal(struct jparser *p, struct jnode **out)
{
    struct jnode *n = *out = jinja_node(p, N_DICT), **key, **value;
    if (!n) return COE_E_NOMEM;
    key = &n->a;
    value = &n->b;
    COE_TRY(jinja_advance(p));
    while (!jinja_is_op(p, "}")) {
        COE_TRY(jinja_expression(p, key, true));
        COE_TRY(jinja_expect_op(p, ":"));
        COE_TRY(jinja_expression(p, value, true));
        key = &(*key)->next;
        value = &(*value)->next;
        if (!jinja_is_op(p, "}")) COE_TRY(jinja_expect_op(p, ","));
    }
    return jinja_advance(p);
}

static coe_status primary(struct jparser *p, struct jnode **out)
{
    if (p->now.kind == T_NAME) {
        if (jinja_is_name(p, "true") || jinja_is_name(p, "True")) return constant(p, out, jv_bool(true));
        if (jinja_is_name(p, "false") || jinja_is_name(p, "False")) return constant(p, out, jv_bool(false));
        if (jinja_is_name(p, "none") || jinja_is_name(p, "None")) return constant(p, out, jv_none());
        return name_node(p, out);
    }
    if (p->now.kind == T_STRING) return string_constant(p, out);
    if (p->now.kind == T_INT) return constant(p, out, jv_int(p->now.i));
    if (p->now.kind == T_FLOAT) return constant(p, out, jv_float(p->now.f));
    if (jinja_is_op(p, "(")) {
        COE_TRY(jinja_advance(p));
        if (jinja_is_op(p, ")")) {
            *out = jinja_node(p, N_TUPLE);
            return *out ? jinja_advance(p) : COE_E_NOMEM;
        }
        COE_TRY(jinja_tuple(p, out, true, false));
        return jinja_expect_op(p, ")");
    }
    if (jinja_is_op(p, "[")) {
        *out = jinja_node(p, N_LIST);
        if (!*out) return COE_E_NOMEM;
        COE_TRY(jinja_advance(p));
        return items_until(p, &(*out)->a, "]");
    }
    if (jinja_is_op(p, "{")) return dict_literal(p, out);
    return jinja_parse_error(p, "expected an expression");
}

static coe_status keyword_arg(struct jparser *p, struct jnode **out)
{
    struct jnode *n = *out = jinja_node(p, N_KEYWORD);
    if (!n) return COE_E_NOMEM;
    n->value = jv_text(p->now.at, p->now.n);
    n->id = jinja_name_number(p->t, p->now.at, p->now.n);
    if (n->id == UINT32_MAX) return COE_E_NOMEM;
    COE_TRY(jinja_advance(p));
    COE_TRY(jinja_advance(p)); /* the = */
    return jinja_expression(p, &n->a, true);
}

coe_status jinja_call_args(struct jparser *p, struct jnode **args)
{
    int count = 0;
    COE_TRY(jinja_expect_op(p, "("));
    while (!jinja_is_op(p, ")")) {
        if (++count > JINJA_MAX_ARGS) return jinja_parse_error(p, "more than %d arguments", JINJA_MAX_ARGS);
        bool star = jinja_is_op(p, "*"), stars = jinja_is_op(p, "**");
        bool keyword = false;
        if (p->now.kind == T_NAME) {
            COE_TRY(look_ahead(p));
            keyword = p->ahead.kind == T_OP && p->ahead.n == 1 && *p->ahead.at == '=';
        }
        if (keyword) {
            COE_TRY(keyword_arg(p, args));
        } else if (star || stars) {
            *args = jinja_node(p, star ? N_STAR : N_STAR_STAR);
            if (!*args) return COE_E_NOMEM;
            COE_TRY(jinja_advance(p));
            COE_TRY(jinja_expression(p, &(*args)->a, true));
        } else {
            COE_TRY(jinja_expression(p, args, true));
        }
        args = &(*args)->next;
        if (!jinja_is_op(p, ")")) COE_TRY(jinja_expect_op(p, ","));
    }
    return jinja_advance(p);
}

static coe_status call(struct jparser *p, struct jnode **node)
{
    struct jnode *n = jinja_node(p, N_CALL);
    if (!n) return COE_E_NOMEM;
    n->a = *node;
    *node = n;
    return jinja_call_args(p, &n->b);
}

/* [index], [start:stop:step] */
static coe_status subscript(struct jparser *p, struct jnode **node)
{
    struct jnode *n = jinja_node(p, N_ITEM), *part[3] = { 0 };
    int k = 0;
    bool slice = false;
    if (!n) return COE_E_NOMEM;
    COE_TRY(jinja_advance(p));
    while (!jinja_is_op(p, "]")) {
        if (jinja_is_op(p, ":") && k < 2) {
            slice = true;
            k++;
            COE_TRY(jinja_advance(p));
        } else if (part[k]) {
            return jinja_parse_error(p, "expected ']'");
        } else {
            COE_TRY(jinja_expression(p, &part[k], true));
        }
    }
    if (!slice && !part[0]) return jinja_parse_error(p, "expected an index");
    n->kind = slice ? N_SLICE : N_ITEM;
    n->a = *node;
    n->b = part[0];
    n->c = part[1];
    n->d = part[2];
    *node = n;
    return jinja_advance(p);
}

static coe_status attribute(struct jparser *p, struct jnode **node)
{
    COE_TRY(jinja_advance(p));
    struct jnode *n = jinja_node(p, p->now.kind == T_INT ? N_ITEM : N_ATTR);
    if (!n) return COE_E_NOMEM;
    n->a = *node;
    *node = n;
    if (p->now.kind == T_INT) return constant(p, &n->b, jv_int(p->now.i)); /* x.0 is x[0] */
    if (p->now.kind != T_NAME) return jinja_parse_error(p, "expected a name behind '.'");
    n->value = jv_text(p->now.at, p->now.n);
    return jinja_advance(p);
}

static coe_status postfix(struct jparser *p, struct jnode **node)
{
    for (int length = 0;; length++) {
        if (length > 10 * JINJA_MAX_NESTING)
            return jinja_parse_error(p, "a chain of more than %d steps", 10 * JINJA_MAX_NESTING);
        if (jinja_is_op(p, ".")) COE_TRY(attribute(p, node));
        else if (jinja_is_op(p, "[")) COE_TRY(subscript(p, node));
        else if (jinja_is_op(p, "(")) COE_TRY(call(p, node));
        else return COE_OK;
    }
}

/* The name of a filter or test, which may have dots. */
static coe_status dotted_name(struct jparser *p, struct jvalue *name)
{
    if (p->now.kind != T_NAME) return jinja_parse_error(p, "expected a name");
    *name = jv_text(p->now.at, p->now.n);
    COE_TRY(jinja_advance(p));
    while (jinja_is_op(p, ".")) {
        COE_TRY(jinja_advance(p));
        if (p->now.kind != T_NAME) return jinja_parse_error(p, "expected a name behind '.'");
        name->n = (uint32_t)(p->now.at + p->now.n - name->s);
        COE_TRY(jinja_advance(p));
    }
    return COE_OK;
}

static coe_status filter(struct jparser *p, struct jnode **node)
{
    struct jnode *n = jinja_node(p, N_FILTER);
    if (!n) return COE_E_NOMEM;
    n->a = *node;
    *node = n;
    COE_TRY(dotted_name(p, &n->value));
    return jinja_is_op(p, "(") ? jinja_call_args(p, &n->b) : COE_OK;
}

/* Does a test's argument without parentheses stand here? */
static bool argument_follows(const struct jparser *p)
{
    if (p->now.kind == T_NAME) return !jinja_is_name(p, "else") && !jinja_is_name(p, "or") && !jinja_is_name(p, "and");
    if (p->now.kind == T_STRING || p->now.kind == T_INT || p->now.kind == T_FLOAT) return true;
    return jinja_is_op(p, "[") || jinja_is_op(p, "{");
}

static coe_status test(struct jparser *p, struct jnode **node)
{
    struct jnode *n = jinja_node(p, N_TEST);
    if (!n) return COE_E_NOMEM;
    n->a = *node;
    *node = n;
    COE_TRY(jinja_advance(p)); /* is */
    if (jinja_is_name(p, "not")) {
        n->negated = true;
        COE_TRY(jinja_advance(p));
    }
    COE_TRY(dotted_name(p, &n->value));
    if (jinja_is_op(p, "(")) return jinja_call_args(p, &n->b);
    if (!argument_follows(p)) return COE_OK;
    if (jinja_is_name(p, "is")) return jinja_parse_error(p, "tests cannot be chained with is");
    COE_TRY(primary(p, &n->b));
    return postfix(p, &n->b);
}

coe_status jinja_filters_behind(struct jparser *p, struct jnode **node)
{
    for (int length = 0;; length++) {
        if (length > JINJA_MAX_NESTING) return jinja_parse_error(p, "more than %d filters", JINJA_MAX_NESTING);
        if (jinja_is_op(p, "|")) {
            COE_TRY(jinja_advance(p));
            COE_TRY(filter(p, node));
        } else if (jinja_is_name(p, "is")) {
            COE_TRY(test(p, node));
        } else if (jinja_is_op(p, "(")) {
            COE_TRY(call(p, node));
        } else {
            return COE_OK;
        }
    }
}

static coe_status unary(struct jparser *p, struct jnode **out, bool with_filter)
{
    if (jinja_is_op(p, "-") || jinja_is_op(p, "+")) {
        struct jnode *n = jinja_node(p, jinja_is_op(p, "-") ? N_NEG : N_POS);
        if (!n) return COE_E_NOMEM;
        COE_TRY(enter(p));
        COE_TRY(jinja_advance(p));
        COE_TRY(unary(p, &n->a, false));
        p->nesting--;
        *out = n;
    } else {
        COE_TRY(primary(p, out));
    }
    COE_TRY(postfix(p, out));
    return with_filter ? jinja_filters_behind(p, out) : COE_OK;
}

typedef coe_status level_fn(struct jparser *p, struct jnode **out);
struct operators {
    const char *sign;
    enum jop op;
};

/* left-associative operators of one level */
static coe_status binary(struct jparser *p, struct jnode **out, level_fn *operand, const struct operators *ops,
                         size_t n_ops)
{
    COE_TRY(operand(p, out));
    for (int length = 0;; length++) {
        size_t i = 0;
        while (i < n_ops && !jinja_is_op(p, ops[i].sign)) i++;
        if (i == n_ops) return COE_OK;
        if (length > 10 * JINJA_MAX_NESTING)
            return jinja_parse_error(p, "a chain of more than %d operators", 10 * JINJA_MAX_NESTING);
        struct jnode *n = jinja_node(p, N_BINARY);
        if (!n) return COE_E_NOMEM;
        n->op = (uint8_t)ops[i].op;
        n->a = *out;
        *out = n;
        COE_TRY(jinja_advance(p));
        COE_TRY(operand(p, &n->b));
    }
}

static coe_status signed_operand(struct jparser *p, struct jnode **out) { return unary(p, out, true); }

static coe_status power(struct jparser *p, struct jnode **out)
{
    static const struct operators ops[] = { { "**", OP_POW } };
    return binary(p, out, signed_operand, ops, 1);
}

static coe_status product(struct jparser *p, struct jnode **out)
{
    static const struct operators ops[] = { { "*", OP_MUL }, { "/", OP_DIV }, { "//", OP_FLOOR_DIV }, { "%", OP_MOD } };
    return binary(p, out, power, ops, 4);
}

static coe_status concatenation(struct jparser *p, struct jnode **out)
{
    COE_TRY(product(p, out));
    if (!jinja_is_op(p, "~")) return COE_OK;
    struct jnode *n = jinja_node(p, N_CONCAT), **last = &(*out)->next;
    if (!n) return COE_E_NOMEM;
    n->a = *out;
    *out = n;
    while (jinja_is_op(p, "~")) {
        COE_TRY(jinja_advance(p));
        COE_TRY(product(p, last));
        last = &(*last)->next;
    }
    return COE_OK;
}

static coe_status sum(struct jparser *p, struct jnode **out)
{
    static const struct operators ops[] = { { "+", OP_ADD }, { "-", OP_SUB } };
    return binary(p, out, concatenation, ops, 2);
}

/* The comparison that stands here. */
static coe_status comparison_op(struct jparser *p, enum jop *op, bool *is)
{
    static const struct operators ops[] = { { "==", OP_EQ }, { "!=", OP_NE }, { "<", OP_LT },
                                            { ">", OP_GT },  { "<=", OP_LE }, { ">=", OP_GE } };
    *is = false;
    for (size_t i = 0; i < COE_COUNT(ops); i++)
        if (jinja_is_op(p, ops[i].sign)) {
            *op = ops[i].op;
            *is = true;
            return jinja_advance(p);
        }
    if (jinja_is_name(p, "in")) {
        *op = OP_IN;
        *is = true;
        return jinja_advance(p);
    }
    if (!jinja_is_name(p, "not")) return COE_OK;
    COE_TRY(look_ahead(p));
    if (p->ahead.kind != T_NAME || p->ahead.n != 2 || memcmp(p->ahead.at, "in", 2) != 0) return COE_OK;
    *op = OP_NOT_IN;
    *is = true;
    COE_TRY(jinja_advance(p));
    return jinja_advance(p);
}

static coe_status comparison(struct jparser *p, struct jnode **out)
{
    COE_TRY(sum(p, out));
    struct jnode *all = NULL, **last = NULL;
    for (;;) {
        enum jop op = OP_EQ;
        bool is;
        struct jnode *n = jinja_node(p, N_COMPARE);
        if (!n) return COE_E_NOMEM;
        COE_TRY(comparison_op(p, &op, &is));
        if (!is) return COE_OK;
        if (!all) {
            all = jinja_node(p, N_COMPARE);
            if (!all) return COE_E_NOMEM;
            all->line = n->line;
            all->column = n->column;
            all->a = *out;
            *out = all;
            last = &all->b;
        }
        n->op = (uint8_t)op;
        *last = n;
        last = &n->next;
        COE_TRY(sum(p, &n->a));
    }
}

static coe_status negation(struct jparser *p, struct jnode **out)
{
    if (!jinja_is_name(p, "not")) return comparison(p, out);
    *out = jinja_node(p, N_NOT);
    if (!*out) return COE_E_NOMEM;
    COE_TRY(enter(p));
    COE_TRY(jinja_advance(p));
    COE_TRY(negation(p, &(*out)->a));
    p->nesting--;
    return COE_OK;
}

static coe_status junction(struct jparser *p, struct jnode **out, const char *word, enum jnode_kind kind,
                           level_fn *operand)
{
    COE_TRY(operand(p, out));
    for (int length = 0; jinja_is_name(p, word); length++) {
        if (length > 10 * JINJA_MAX_NESTING)
            return jinja_parse_error(p, "a chain of more than %d conditions", 10 * JINJA_MAX_NESTING);
        struct jnode *n = jinja_node(p, kind);
        if (!n) return COE_E_NOMEM;
        n->a = *out;
        *out = n;
        COE_TRY(jinja_advance(p));
        COE_TRY(operand(p, &n->b));
    }
    return COE_OK;
}

static coe_status conjunction(struct jparser *p, struct jnode **out)
{
    return junction(p, out, "and", N_AND, negation);
}
static coe_status disjunction(struct jparser *p, struct jnode **out)
{
    return junction(p, out, "or", N_OR, conjunction);
}

coe_status jinja_expression(struct jparser *p, struct jnode **out, bool with_condition)
{
    COE_TRY(enter(p));
    COE_TRY(disjunction(p, out));
    for (int length = 0; with_condition && jinja_is_name(p, "if"); length++) {
        if (length > JINJA_MAX_NESTING) return jinja_parse_error(p, "more than %d conditions", JINJA_MAX_NESTING);
        struct jnode *n = jinja_node(p, N_COND);
        if (!n) return COE_E_NOMEM;
        n->b = *out;
        *out = n;
        COE_TRY(jinja_advance(p));
        COE_TRY(disjunction(p, &n->a));
        if (!jinja_is_name(p, "else")) continue;
        COE_TRY(jinja_advance(p));
        COE_TRY(jinja_expression(p, &n->c, true));
    }
    p->nesting--;
    return COE_OK;
}

/* A name, or an attribute of one: what can be assigned to. */
static coe_status target(struct jparser *p, struct jnode **out)
{
    if (jinja_is_op(p, "(")) {
        COE_TRY(jinja_advance(p));
        COE_TRY(jinja_targets(p, out));
        return jinja_expect_op(p, ")");
    }
    if (p->now.kind != T_NAME) return jinja_parse_error(p, "expected a name");
    COE_TRY(name_node(p, out));
    return jinja_is_op(p, ".") ? attribute(p, out) : COE_OK;
}

static bool tuple_ends(const struct jparser *p)
{
    return p->now.kind == T_BLOCK_END || p->now.kind == T_PRINT_END || jinja_is_op(p, ")") || jinja_is_op(p, "=") ||
           jinja_is_name(p, "in");
}

coe_status jinja_tuple(struct jparser *p, struct jnode **out, bool with_condition, bool names_only)
{
    struct jnode *first = NULL, *tuple, **last;
    COE_TRY(names_only ? target(p, &first) : jinja_expression(p, &first, with_condition));
    *out = first;
    if (!jinja_is_op(p, ",")) return COE_OK;
    tuple = *out = jinja_node(p, N_TUPLE);
    if (!tuple) return COE_E_NOMEM;
    tuple->a = first;
    last = &first->next;
    while (jinja_is_op(p, ",")) {
        COE_TRY(jinja_advance(p));
        if (tuple_ends(p)) break;
        COE_TRY(names_only ? target(p, last) : jinja_expression(p, last, with_condition));
        last = &(*last)->next;
    }
    return COE_OK;
}

coe_status jinja_targets(struct jparser *p, struct jnode **out)
{
    COE_TRY(enter(p));
    COE_TRY(jinja_tuple(p, out, false, true));
    p->nesting--;
    return COE_OK;
}
