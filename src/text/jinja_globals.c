/* jinja_globals.c — functions every template may call. */
#include <string.h>
#include <time.h>

#include "text/jinja.h"

struct jglobal {
    const char *name;
    coe_status (*fn)(struct jstate *s, const struct jargs *a, struct jvalue *out);
};

static coe_status g_range(struct jstate *s, const struct jargs *a, struct jvalue *out)
{
    int64_t bound[3] = { 0, 0, 1 };
    if (a->n < 1 || a->n > 3 || a->n_keys) return jinja_error(s, "range expects 1 to 3 arguments");
    for (int i = 0; i < a->n; i++) {
        if (a->at[i].kind != J_INT && a->at[i].kind != J_BOOL)
            return jinja_error(s, "'%s' object cannot be interpreted as an integer", jv_type(a->at[i]));
        bound[a->n == 1 ? 1 : i] = a->at[i].i;
    }
    if (!bound[2]) return jinja_error(s, "range() arg 3 must not be zero");
    COE_TRY(jv_new_list(s, J_LIST, out));
    for (int64_t x = bound[0]; bound[2] > 0 ? x < bound[1] : x > bound[1];) {
        if (out->list->n == JINJA_MAX_RANGE)
            return jinja_error(s, "range too big: more than %d items", JINJA_MAX_RANGE);
        COE_TRY(jv_push(s, out->list, jv_int(x)));
        if (__builtin_add_overflow(x, bound[2], &x)) break;
    }
    return COE_OK;
}

static coe_status fill(struct jstate *s, const struct jargs *a, struct jvalue *out)
{
    for (int i = 0; i < a->n; i++) {
        if (a->at[i].kind != J_DICT) return jinja_error(s, "expected a mapping, not %s", jv_type(a->at[i]));
        for (uint32_t k = 0; k < a->at[i].dict->n; k++)
            COE_TRY(jv_set(s, out->dict, a->at[i].dict->key[k], a->at[i].dict->value[k]));
    }
    for (int k = 0; k < a->n_keys; k++)
        if (a->key[k] < s->t->names.n) COE_TRY(jv_set(s, out->dict, s->t->names.at[a->key[k]], a->at[a->n + k]));
    return COE_OK;
}

static coe_status g_namespace(struct jstate *s, const struct jargs *a, struct jvalue *out)
{
    COE_TRY(jv_new_dict(s, J_NAMESPACE, out));
    return fill(s, a, out);
}

static coe_status g_dict(struct jstate *s, const struct jargs *a, struct jvalue *out)
{
    COE_TRY(jv_new_dict(s, J_DICT, out));
    return fill(s, a, out);
}

static coe_status g_raise_exception(struct jstate *s, const struct jargs *a, struct jvalue *out)
{
    struct jvalue text = jv_text("", 0);
    (void)out;
    if (a->n) COE_TRY(jv_to_text(s, a->at[0], &text));
    return jinja_error(s, "%.*s", (int)COE_MIN(text.n, 250u), text.s);
}

static coe_status g_strftime_now(struct jstate *s, const struct jargs *a, struct jvalue *out)
{
    char format[128], text[512];
    if (a->n != 1 || a->at[0].kind != J_STRING) return jinja_error(s, "strftime_now expects a format");
    if (a->at[0].n >= sizeof format)
        return jinja_error(s, "the format of strftime_now is longer than %zu bytes", sizeof format - 1);
    memcpy(format, a->at[0].s, a->at[0].n);
    format[a->at[0].n] = 0;
    size_t n = strftime(text, sizeof text, format, s->now);
    return jv_copy_text(s, text, n, out);
}

static const struct jglobal globals[] = {
    { "range", g_range },
    { "namespace", g_namespace },
    { "dict", g_dict },
    { "raise_exception", g_raise_exception },
    { "strftime_now", g_strftime_now },
};

const struct jglobal *jinja_find_global(struct jvalue name)
{
    for (size_t i = 0; i < COE_COUNT(globals); i++)
        if (jv_is(name, globals[i].name)) return &globals[i];
    return NULL;
}

coe_status jinja_call_global(struct jstate *s, const struct jglobal *g, const struct jargs *args, struct jvalue *out)
{
    return g->fn(s, args, out);
}
