/* json.c — the plan file (docs/formats.md): read strictly, written readably, one layer a line. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "plan/plan_in.h"

#define VERSION 1
#define MAX_BYTES ((uint64_t)1 << 26)
#define MAX_LAYERS 4096
#define MAX_EXPERTS 65536
#define MAX_DEPTH 4

/* ---- reading ---- */

static coe_status read_keep(struct plan *p, struct plan_layer *l, const json_t *list, const char *where)
{
    const size_t n = json_array_size(list);
    if (!json_is_array(list))
        return coe_fail(COE_E_INPUT, "%s: keep is %s, expected a list of expert ids", where, json_kind(list));
    if (n < 1 || n > (size_t)l->n_experts)
        return coe_fail(COE_E_INPUT, "%s: keeps %zu of %d experts, expected 1 to %d", where, n, l->n_experts,
                        l->n_experts);
    l->keep = arena_push(&p->arena, n * sizeof *l->keep);
    if (!l->keep) return COE_E_NOMEM;
    l->n_keep = (int32_t)n;
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        const json_int_t id = json_integer_value(v);
        if (!json_is_integer(v))
            return coe_fail(COE_E_INPUT, "%s: keep[%zu] is %s, expected an expert id", where, i, json_kind(v));
        if (id < 0 || id >= l->n_experts)
            return coe_fail(COE_E_INPUT, "%s: keep[%zu] is %lld, outside 0 … %d", where, i, (long long)id,
                            l->n_experts - 1);
        if (i && id == l->keep[i - 1])
            return coe_fail(COE_E_INPUT, "%s: keep[%zu]: expert %lld is there twice", where, i, (long long)id);
        if (i && id < l->keep[i - 1])
            return coe_fail(COE_E_INPUT, "%s: keep[%zu]: %lld behind %d; ids ascend", where, i, (long long)id,
                            l->keep[i - 1]);
        l->keep[i] = (int32_t)id;
    }
    return COE_OK;
}

static coe_status read_layer(struct plan *p, int32_t i, const json_t *o)
{
    static const char *const keys[] = { "layer", "experts", "keep", NULL };
    struct plan_layer *l = &p->layer[i];
    char where[600];
    snprintf(where, sizeof where, "%.500s: layers[%d]", p->path, i);
    COE_TRY(json_only_keys(o, keys, where));
    COE_TRY(json_need_i32(o, "layer", 0, p->n_model_layers - 1, &l->layer, where));
    COE_TRY(json_need_i32(o, "experts", 1, MAX_EXPERTS, &l->n_experts, where));
    if (i && l->layer <= l[-1].layer)
        return coe_fail(COE_E_INPUT, "%s: layer %d behind layer %d; layers ascend", where, l->layer, l[-1].layer);
    return read_keep(p, l, json_object_get(o, "keep"), where);
}

static coe_status read_layers(struct plan *p, const json_t *list)
{
    const size_t n = json_array_size(list);
    if (!json_is_array(list) || n > (size_t)p->n_model_layers)
        return coe_fail(COE_E_INPUT, "%s: layers is %s, expected a list of at most %d", p->path, json_kind(list),
                        p->n_model_layers);
    p->n_layers = (int32_t)n;
    p->layer = arena_push_zero(&p->arena, n * sizeof *p->layer);
    if (!p->layer) return COE_E_NOMEM;
    for (int32_t i = 0; i < p->n_layers; i++) COE_TRY(read_layer(p, i, json_array_get(list, (size_t)i)));
    return COE_OK;
}

/* Numbers, texts, lists of texts, and objects of these: what methods and measurements leave for people. */
static coe_status check_notes(const json_t *o, const char *name, int depth, const char *where)
{
    const char *key;
    json_t *v;
    size_t i;
    const json_t *item;
    if (!json_is_object(o)) return coe_fail(COE_E_INPUT, "%s: %s is %s, expected an object", where, name, json_kind(o));
    if (depth == MAX_DEPTH)
        return coe_fail(COE_E_INPUT, "%s: %s: more than %d objects inside each other", where, name, MAX_DEPTH);
    json_object_foreach((json_t *)(uintptr_t)o, key, v) {
        if (json_is_object(v)) COE_TRY(check_notes(v, key, depth + 1, where));
        else if (json_is_array(v)) {
            json_array_foreach(v, i, item)
                if (!json_is_string(item))
                    return coe_fail(COE_E_INPUT, "%s: %s: %s[%zu] is %s, expected a text", where, name, key, i,
                                    json_kind(item));
        } else if (json_is_null(v)) return coe_fail(COE_E_INPUT, "%s: %s: %s is null", where, name, key);
    }
    return COE_OK;
}

static coe_status read_notes(json_t **out, const json_t *o, const char *key, const char *where)
{
    json_t *v = json_object_get(o, key);
    if (!v || json_is_null(v)) return COE_OK;
    COE_TRY(check_notes(v, key, 0, where));
    *out = json_incref(v);
    return COE_OK;
}

static coe_status read_model(struct plan *p, const json_t *o)
{
    static const char *const keys[] = { "fingerprint", "family", "n_layers", NULL };
    char where[600];
    const char *family = NULL;
    snprintf(where, sizeof where, "%.500s: model", p->path);
    COE_TRY(json_only_keys(o, keys, where));
    COE_TRY(json_need_print(o, "fingerprint", p->model, false, where));
    COE_TRY(json_need_str(o, "family", &family, where));
    COE_TRY(json_need_i32(o, "n_layers", 1, MAX_LAYERS, &p->n_model_layers, where));
    p->family = arena_strdup(&p->arena, family);
    return p->family ? COE_OK : COE_E_NOMEM;
}

static coe_status read_trace(struct plan *p, const json_t *o)
{
    static const char *const keys[] = { "fingerprint", NULL };
    char where[600];
    if (!o || json_is_null(o)) return COE_OK;
    snprintf(where, sizeof where, "%.500s: trace", p->path);
    COE_TRY(json_only_keys(o, keys, where));
    return json_need_print(o, "fingerprint", p->trace, false, where);
}

static coe_status read_plan(struct plan *p, const json_t *o)
{
    static const char *const keys[] = { "coe_plan", "method", "parameters", "variant",  "model",
                                        "trace",    "layers", "predicted",  "measured", NULL };
    const char *method = NULL, *variant = "published";
    int32_t version = 0;
    COE_TRY(json_need_i32(o, "coe_plan", VERSION, VERSION, &version, p->path));
    COE_TRY(json_only_keys(o, keys, p->path));
    COE_TRY(json_need_str(o, "method", &method, p->path));
    COE_TRY(json_get_str(o, "variant", &variant, p->path));
    p->method = arena_strdup(&p->arena, method);
    p->variant = arena_strdup(&p->arena, variant);
    if (!p->method || !p->variant) return COE_E_NOMEM;
    COE_TRY(read_notes(&p->parameters, o, "parameters", p->path));
    COE_TRY(read_notes(&p->predicted, o, "predicted", p->path));
    COE_TRY(read_notes(&p->measured, o, "measured", p->path));
    if (!p->parameters && !(p->parameters = json_object())) return COE_E_NOMEM;
    COE_TRY(read_model(p, json_object_get(o, "model")));
    COE_TRY(read_trace(p, json_object_get(o, "trace")));
    return read_layers(p, json_object_get(o, "layers"));
}

coe_status plan_parse(struct plan **out, const char *text, size_t n, const char *where)
{
    json_t *o = NULL;
    struct plan *p = plan_alloc(where);
    *out = NULL;
    if (!p) return COE_E_NOMEM;
    coe_status s = json_read_text(&o, text, n, where);
    if (!s) s = read_plan(p, o);
    json_decref(o);
    if (s) plan_free(p);
    else *out = p;
    return s;
}

coe_status plan_read(struct plan **out, const char *path)
{
    struct str text = { 0 };
    *out = NULL;
    coe_status s = file_read(&text, path, MAX_BYTES);
    if (!s) s = plan_parse(out, text.at ? text.at : "", text.n, path);
    str_free(&text);
    return s;
}

/* ---- writing ---- */

static json_t *layer_json(const struct plan_layer *l)
{
    json_t *keep = json_array();
    for (int32_t i = 0; i < l->n_keep; i++) json_array_append_new(keep, json_integer(l->keep[i]));
    return json_pack("{s:i, s:i, s:o}", "layer", l->layer, "experts", l->n_experts, "keep", keep);
}

json_t *plan_json(const struct plan *p)
{
    json_t *layers = json_array();
    for (int32_t i = 0; i < p->n_layers; i++) json_array_append_new(layers, layer_json(&p->layer[i]));
    json_t *trace = *p->trace ? json_pack("{s:s}", "fingerprint", p->trace) : json_null();
    return json_pack("{s:i, s:s, s:O, s:s, s:{s:s, s:s, s:i}, s:o, s:o, s:O?, s:O?}", "coe_plan", VERSION, "method",
                     p->method, "parameters", p->parameters, "variant", p->variant, "model", "fingerprint", p->model,
                     "family", p->family, "n_layers", p->n_model_layers, "trace", trace, "layers", layers, "predicted",
                     p->predicted, "measured", p->measured);
}

/* One top-level key a line, one layer a line: people read and compare plans. */
static coe_status plan_text(struct str *out, const json_t *doc, const char *path)
{
    const char *key;
    json_t *v, *layer;
    size_t i, n = 0;
    str_addz(out, "{\n");
    json_object_foreach((json_t *)(uintptr_t)doc, key, v) {
        str_addf(out, "%s  \"%s\": ", n++ ? ",\n" : "", key);
        const bool layers = !strcmp(key, "layers") && json_array_size(v);
        json_array_foreach(v, i, layer) {
            char *text = json_dumps(layer, 0);
            if (!layers || !text) {
                free(text);
                return coe_fail(COE_E_NOMEM, "%s: no memory for the plan", path);
            }
            str_addf(out, "%s    %s", i ? ",\n" : "[\n", text);
            free(text);
        }
        if (layers) {
            str_addz(out, "\n  ]");
            continue;
        }
        char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(10));
        if (!text) return coe_fail(COE_E_NOMEM, "%s: no memory for the plan", path);
        str_addz(out, text);
        free(text);
    }
    str_addz(out, "\n}\n");
    return str_check(out);
}

coe_status plan_write(const struct plan *p, const char *path)
{
    struct str text = { 0 };
    json_t *doc = plan_json(p);
    coe_status s = doc ? plan_text(&text, doc, path) : coe_fail(COE_E_NOMEM, "%s: no memory for the plan", path);
    if (!s) s = file_write(path, text.at, text.n);
    str_free(&text);
    json_decref(doc);
    return s;
}
