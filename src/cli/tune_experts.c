/* tune_experts.c — which experts a recipe tunes, when it names a plan or a trace instead of listing them. */
#include "cli/tune_experts.h"

#include <string.h>

#include "plan/plan.h"
#include "trace/trace.h"

static json_t *all_of(int32_t n)
{
    json_t *list = json_array();
    for (int32_t e = 0; e < n; e++) json_array_append_new(list, json_integer(e));
    return list;
}

static const struct plan_layer *layer_of(const struct plan *p, int32_t layer)
{
    for (int32_t i = 0; i < p->n_layers; i++)
        if (p->layer[i].layer == layer) return &p->layer[i];
    return NULL;
}

/* What the plan keeps; layers that it does not name keep all. */
static coe_status from_plan(json_t *lists, const struct coe_model *m, const char *path)
{
    struct plan *p;
    COE_TRY(plan_read(&p, path));
    const coe_status s = plan_check(p, m);
    for (int32_t l = 0; l < m->spec.n_layers && !s; l++) {
        const struct plan_layer *of = layer_of(p, l);
        if (!m->spec.layer[l].is_moe) continue;
        json_t *list = of ? json_array() : all_of(m->spec.layer[l].moe.n_experts);
        for (int32_t i = 0; of && i < of->n_keep; i++) json_array_append_new(list, json_integer(of->keep[i]));
        json_array_append_new(lists, list);
    }
    plan_free(p);
    return s;
}

/* The `top` experts of most tokens; equal ones: the lower id. */
static json_t *most_used(const uint64_t *counts, int32_t n, int32_t top)
{
    json_t *list = json_array();
    for (int32_t e = 0; e < n; e++) {
        int32_t better = 0;
        for (int32_t o = 0; o < n; o++) better += counts[o] > counts[e] || (counts[o] == counts[e] && o < e);
        if (better < top) json_array_append_new(list, json_integer(e));
    }
    return list;
}

static coe_status check_trace(const struct trace *t, const struct coe_model *m, const char *path)
{
    char print[17] = "";
    int32_t layers = 0;
    for (int32_t l = 0; l < m->spec.n_layers; l++) layers += m->spec.layer[l].is_moe;
    if (m->ckpt) COE_TRY(ckpt_fingerprint(m->ckpt, print));
    if (strcmp(print, t->model) || layers != t->n_layers)
        return coe_fail(COE_E_INPUT, "%s: was recorded on another model than %s", path, m->path);
    return COE_OK;
}

static coe_status from_trace(json_t *lists, const struct coe_model *m, const char *path, int32_t top)
{
    struct trace *t = NULL;
    COE_TRY(trace_read(&t, path));
    coe_status s = check_trace(t, m, path);
    for (int32_t i = 0; i < t->n_layers && !s; i++) {
        const int32_t n = t->layer[i].n_experts;
        uint64_t *counts = mem_zalloc("trace", (size_t)n * sizeof *counts);
        if (!counts) s = COE_E_NOMEM;
        if (!s) {
            trace_counts(t, -1, i, -1, counts);
            json_array_append_new(lists, most_used(counts, n, top));
        }
        mem_free(counts);
    }
    trace_free(t);
    return s;
}

coe_status tune_experts_resolve(struct recipe *r)
{
    static const char *const keys[] = { "plan", "trace", "top", NULL };
    const json_t *o = r->tune.experts;
    const char *plan = NULL, *trace = NULL;
    int32_t top = 1;
    char where[700];
    struct coe_model *m = NULL;
    if (!json_is_object(o)) return COE_OK;
    snprintf(where, sizeof where, "%.600s: tune.experts", r->path);
    COE_TRY(json_only_keys(o, keys, where));
    COE_TRY(json_get_str(o, "plan", &plan, where));
    COE_TRY(json_get_str(o, "trace", &trace, where));
    COE_TRY(json_get_i32(o, "top", 1, 65536, &top, where));
    if (!plan == !trace) return coe_fail(COE_E_INPUT, "%s: needs either a plan or a trace", where);
    COE_TRY(model_open(&m, r->init));
    json_t *lists = json_array();
    coe_status s = lists ? plan ? from_plan(lists, m, plan) : from_trace(lists, m, trace, top) : COE_E_NOMEM;
    model_close(m);
    if (s) {
        json_decref(lists);
        return s;
    }
    /* into the document: a run is resumed with the experts it began with, or not at all */
    json_object_set_new(json_object_get(r->doc, "tune"), "experts", lists);
    r->tune.experts = lists;
    return COE_OK;
}
