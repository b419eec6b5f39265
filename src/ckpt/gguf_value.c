/* gguf_value.c — metadata of a GGUF file by key, and as JSON. */
#include <math.h>

#include "gguf.h"

coe_status gguf_int(const struct gguf *g, const char *key, int64_t lo, int64_t hi, int64_t *out)
{
    const struct gguf_value *v = gguf_find(g, key);
    return v ? gguf_get_int(v, g->where, lo, hi, out) : COE_OK;
}

coe_status gguf_num(const struct gguf *g, const char *key, double *out)
{
    const struct gguf_value *v = gguf_find(g, key);
    double x = *out;
    if (v) COE_TRY(gguf_get_float(v, g->where, &x));
    if (!isfinite(x)) return coe_fail(COE_E_INPUT, "%s: %s is %g, expected a finite number", g->where, key, x);
    *out = x;
    return COE_OK;
}

coe_status gguf_bool(const struct gguf *g, const char *key, bool *out)
{
    const struct gguf_value *v = gguf_find(g, key);
    return v ? gguf_get_bool(v, g->where, out) : COE_OK;
}

coe_status gguf_str(const struct gguf *g, const char *key, struct gguf_text *out)
{
    const struct gguf_value *v = gguf_find(g, key);
    return v ? gguf_get_text(v, g->where, out) : COE_OK;
}

static json_t *text_json(struct gguf_text t)
{
    json_t *s = json_stringn(t.at, t.n);
    return s ? s : json_null();
}

static json_t *number_json(const struct gguf_value *v, uint64_t i)
{
    if (v->type == GGUF_BOOL) return json_boolean(gguf_int_at(v, i) != 0);
    if (v->type != GGUF_F32 && v->type != GGUF_F64) return json_integer(gguf_int_at(v, i));
    const double x = gguf_float_at(v, i);
    return isfinite(x) ? json_real(x) : json_null();
}

static json_t *value_json(const struct gguf_value *v, size_t max_items)
{
    const unsigned char *at = v->at;
    struct gguf_text t;
    if (!v->array) return v->type == GGUF_STRING && gguf_next_text(v, &at, &t) ? text_json(t) : number_json(v, 0);
    json_t *list = json_array();
    for (uint64_t i = 0; i < v->count && i < max_items; i++)
        json_array_append_new(list, gguf_next_text(v, &at, &t) ? text_json(t) : number_json(v, i));
    return list;
}

json_t *gguf_json(const struct gguf *g, size_t max_items)
{
    json_t *out = json_object();
    for (size_t i = 0; i < g->n; i++) {
        const struct gguf_text key = g->at[i].key;
        if (!json_object_setn_new(out, key.at, key.n, value_json(&g->at[i], max_items))) continue;
        json_decref(out);
        coe_fail(COE_E_NOMEM, "%s: no memory for the metadata", g->where);
        return NULL;
    }
    return out;
}
