/* jinja_tests.c — what stands behind `is`. */
#include <string.h>

#include "text/jinja_string.h"

static coe_status argument(struct jstate *s, const struct jargs *a, struct jvalue *out)
{
    if (a->n < 1) return jinja_error(s, "the test needs an argument");
    *out = a->at[0];
    return COE_OK;
}

/* Tests of one value: true or false, -1 when the name is none of them. */
static int plain_test(struct jvalue name, struct jvalue v)
{
    const bool number = v.kind == J_INT || v.kind == J_FLOAT || v.kind == J_BOOL;
    const bool sequence = v.kind == J_STRING || v.kind == J_LIST || v.kind == J_TUPLE || v.kind == J_DICT ||
                          v.kind == J_UNDEFINED;
    const struct {
        const char *name;
        bool yes;
    } table[] = { { "defined", v.kind != J_UNDEFINED },
                  { "undefined", v.kind == J_UNDEFINED },
                  { "none", v.kind == J_NONE },
                  { "string", v.kind == J_STRING },
                  { "mapping", v.kind == J_DICT },
                  { "iterable", sequence || v.kind == J_VIEW || v.kind == J_GENERATOR || v.kind == J_LOOP },
                  { "sequence", sequence },
                  { "number", number },
                  { "integer", v.kind == J_INT },
                  { "float", v.kind == J_FLOAT },
                  { "boolean", v.kind == J_BOOL },
                  { "true", v.kind == J_BOOL && v.i },
                  { "false", v.kind == J_BOOL && !v.i },
                  { "callable",
                    v.kind == J_MACRO || v.kind == J_METHOD || v.kind == J_GLOBAL || v.kind == J_UNDEFINED },
                  { "escaped", v.kind == J_STRING && v.safe } };
    for (size_t i = 0; i < COE_COUNT(table); i++)
        if (jv_is(name, table[i].name)) return table[i].yes;
    return -1;
}

static coe_status order_test(struct jstate *s, struct jvalue name, struct jvalue v, struct jvalue other, bool *out,
                             bool *known)
{
    static const struct {
        const char *names[4];
        int8_t less, equal, greater;
    } table[] = { { { "lt", "lessthan", "<" }, 1, 0, 0 },
                  { { "le", "<=" }, 1, 1, 0 },
                  { { "gt", "greaterthan", ">" }, 0, 0, 1 },
                  { { "ge", ">=" }, 0, 1, 1 } };
    *known = false;
    for (size_t i = 0; i < COE_COUNT(table); i++)
        for (size_t k = 0; k < 4 && table[i].names[k]; k++) {
            if (!jv_is(name, table[i].names[k])) continue;
            int c = 0;
            *known = true;
            COE_TRY(jv_compare(s, v, other, &c));
            *out = c < 0 ? table[i].less : c ? table[i].greater : table[i].equal;
            return COE_OK;
        }
    return COE_OK;
}

static coe_status number_test(struct jstate *s, struct jvalue name, struct jvalue v, const struct jargs *args,
                              bool *out, bool *known)
{
    bool odd = jv_is(name, "odd"), even = jv_is(name, "even"), divisible = jv_is(name, "divisibleby");
    struct jvalue by = jv_int(2), rest;
    *known = odd || even || divisible;
    if (!*known) return COE_OK;
    if (divisible) COE_TRY(argument(s, args, &by));
    COE_TRY(jv_binary(s, OP_MOD, v, by, &rest));
    *out = odd ? jv_equal(rest, jv_int(1), 0) : !jv_true(rest);
    return COE_OK;
}

static coe_status case_test(struct jstate *s, struct jvalue name, struct jvalue v, bool *out, bool *known)
{
    bool upper = jv_is(name, "upper"), lower = jv_is(name, "lower");
    struct jvalue text, up, low;
    *known = upper || lower;
    if (!*known) return COE_OK;
    COE_TRY(jv_to_text(s, v, &text));
    COE_TRY(jinja_recase(s, text, CASE_UPPER, &up));
    COE_TRY(jinja_recase(s, text, CASE_LOWER, &low));
    *out = jv_equal(text, upper ? up : low, 0) && !jv_equal(up, low, 0); /* at least one letter, and all of that case */
    return COE_OK;
}

coe_status jinja_test(struct jstate *s, struct jvalue name, struct jvalue v, const struct jargs *args, bool *out)
{
    bool known;
    struct jvalue other = jv_none();
    int plain = plain_test(name, v);
    *out = plain > 0;
    if (plain >= 0) return COE_OK;
    COE_TRY(number_test(s, name, v, args, out, &known));
    if (!known) COE_TRY(case_test(s, name, v, out, &known));
    if (known) return COE_OK;
    if (args->n) other = args->at[0];
    bool equal = jv_is(name, "eq") || jv_is(name, "equalto") || jv_is(name, "=="),
         different = jv_is(name, "ne") || jv_is(name, "!=");
    if (equal || different || jv_is(name, "sameas")) {
        COE_TRY(argument(s, args, &other));
        *out = jv_equal(v, other, 0) != different && (!jv_is(name, "sameas") || v.kind == other.kind);
        return COE_OK;
    }
    if (jv_is(name, "in")) {
        COE_TRY(argument(s, args, &other));
        return jv_contains(s, other, v, out);
    }
    COE_TRY(order_test(s, name, v, other, out, &known));
    return known ? COE_OK : jinja_error(s, "No test named '%.*s' found", (int)COE_MIN(name.n, 60u), name.s);
}
