/* planner.c — runs a planner: finds it, reads its parameters, sees that trace and model belong together, and says
 * beforehand what the plan will do. */
#include <string.h>

#include "plan/plan.h"

static const struct plan_param *find_param(const struct planner *p, const char *name, size_t n)
{
    for (const struct plan_param *q = p->params; q && q->name; q++)
        if (strlen(q->name) == n && !memcmp(q->name, name, n)) return q;
    return NULL;
}

static coe_status set_choice(json_t *parameters, const char *method, const struct plan_param *q, const char *value)
{
    struct str words = { 0 };
    for (const char *const *c = q->choices; *c; c++) {
        if (!strcmp(*c, value)) {
            str_free(&words);
            return json_object_set_new(parameters, q->name, json_string(value)) ? COE_E_NOMEM : COE_OK;
        }
        str_addf(&words, "%s%s", c == q->choices ? "" : ", ", *c);
    }
    coe_status s =
        coe_fail(COE_E_USAGE, "%s: --set %s=%s: expected one of %s", method, q->name, value, words.at ? words.at : "");
    str_free(&words);
    return s;
}

static coe_status set_param(json_t *parameters, const char *method, const struct planner *p, const char *text)
{
    const char *eq = strchr(text, '=');
    if (!eq) return coe_fail(COE_E_USAGE, "--set %s: expected name=value", text);
    const struct plan_param *q = find_param(p, text, (size_t)(eq - text));
    double x;
    if (!q)
        return coe_fail(COE_E_USAGE, "%s has no parameter '%.*s'; see: coe methods --kind planner", method,
                        (int)(eq - text), text);
    if (q->choices) return set_choice(parameters, method, q, eq + 1);
    COE_TRY(parse_double(eq + 1, q->name, &x));
    if (!(x >= q->lo && x <= q->hi))
        return coe_fail(COE_E_USAGE, "%s: --set %s is outside %g … %g", method, text, q->lo, q->hi);
    return json_object_set_new(parameters, q->name, json_real(x)) ? COE_E_NOMEM : COE_OK;
}

/* Everything the result depends on, defaults included. */
static coe_status read_parameters(json_t *parameters, const char *method, const struct planner *p,
                                  const struct plan_opts *o)
{
    json_object_set_new(parameters, "keep", json_real(o->keep));
    if (p->needs_seed) json_object_set_new(parameters, "seed", json_integer((json_int_t)o->seed));
    for (const struct plan_param *q = p->params; q && q->name; q++)
        json_object_set_new(parameters, q->name, q->choices ? json_string(q->choices[0]) : json_real(q->otherwise));
    for (size_t i = 0; i < o->n_set; i++) COE_TRY(set_param(parameters, method, p, o->set[i]));
    return COE_OK;
}

int plan_choice(const struct plan_in *in, const char *name)
{
    const struct plan_param *q = find_param(in->planner, name, strlen(name));
    const char *value = json_string_value(json_object_get(in->parameters, name));
    assert(q && q->choices && value);
    for (int i = 0; q->choices[i]; i++)
        if (!strcmp(q->choices[i], value)) return i;
    return 0;
}

double plan_number(const struct plan_in *in, const char *name)
{
    return json_number_value(json_object_get(in->parameters, name));
}

static coe_status check_trace(const struct planner *p, const char *method, const char *model, const struct coe_model *m,
                              const struct trace *t)
{
    if (!t && p->needs_trace)
        return coe_fail(COE_E_USAGE, "%s needs a trace: coe trace %s --data label=FILE -o T.coet, then --trace T.coet",
                        method, m->path);
    if (!t) return COE_OK;
    if (strcmp(t->model, model))
        return coe_fail(COE_E_INPUT, "%s: is a trace of another model: its fingerprint is %s, that of %s is %s",
                        t->path, t->model, m->path, model);
    if (p->needs_unpruned && *t->plan)
        return coe_fail(COE_E_INPUT, "%s: was recorded under a plan (%s); %s needs the routing of the whole model",
                        t->path, t->plan, method);
    if (p->needs_unpruned && *t->route)
        return coe_fail(COE_E_INPUT, "%s: was recorded with another routing (%s); %s needs the model's own", t->path,
                        t->route, method);
    return trace_tokens(t) ? COE_OK : coe_fail(COE_E_INPUT, "%s: holds no token", t->path);
}

/* Shares of a trace that the kept experts carry, and what a random choice of as many would carry on average. */
struct share {
    double kept, all, random;
};

static void add_share(struct share *s, const struct plan_layer *l, const double *value, int32_t n)
{
    double sum = 0;
    for (int32_t e = 0; e < n; e++) sum += value[e];
    for (int32_t i = 0; i < l->n_keep; i++) s->kept += value[l->keep[i]];
    s->all += sum;
    s->random += sum * l->n_keep / n;
}

static json_t *share_json(const struct share *s, bool random)
{
    return json_real(s->all > 0 ? (random ? s->random : s->kept) / s->all : 0.0);
}

static coe_status traced_shares(json_t *predicted, const struct plan *p, const struct trace *t, struct arena *a)
{
    struct share count = { 0 }, output = { 0 };
    for (int32_t i = 0; i < p->n_layers; i++) {
        const int32_t n = t->layer[i].n_experts;
        struct arena_mark mark = arena_save(a);
        struct expert_sums *sums = arena_push(a, (size_t)n * sizeof *sums);
        double *value = arena_push(a, (size_t)n * sizeof *value);
        if (!sums || !value) return COE_E_NOMEM;
        trace_expert_sums(t, -1, i, -1, sums);
        for (int32_t e = 0; e < n; e++) value[e] = (double)sums[e].count;
        add_share(&count, &p->layer[i], value, n);
        for (int32_t e = 0; e < n; e++) value[e] = sums[e].gate_norm;
        add_share(&output, &p->layer[i], value, n);
        arena_rewind(a, mark);
    }
    json_object_set_new(predicted, "routed_share", share_json(&count, false));
    json_object_set_new(predicted, "output_share", share_json(&output, false));
    json_object_set_new(
        predicted, "random",
        json_pack("{s:o, s:o}", "routed_share", share_json(&count, true), "output_share", share_json(&output, true)));
    return COE_OK;
}

static coe_status predict(struct plan *p, const struct coe_model *m, const struct trace *t, struct arena *a)
{
    p->predicted = json_pack("{s:I, s:I}", "bytes", (json_int_t)plan_bytes(p, m), "bytes_unedited",
                             (json_int_t)ckpt_bytes(m->ckpt));
    if (!p->predicted) return COE_E_NOMEM;
    return t ? traced_shares(p->predicted, p, t, a) : COE_OK;
}

static coe_status run(struct plan *p, const struct part *part, const struct coe_model *m, const struct trace *t,
                      const struct plan_opts *o)
{
    const struct planner *planner = part->impl;
    struct arena scratch = { 0 };
    coe_status s = check_trace(planner, part->name, p->model, m, t);
    if (!s && !(o->keep > 0 && o->keep <= 1))
        s = coe_fail(COE_E_USAGE, "%s: --keep %g is outside (0, 1]", part->name, o->keep);
    if (!s) s = read_parameters(p->parameters, part->name, planner, o);
    const struct trace *used = planner->needs_trace ? t : NULL;
    if (!s && used) s = trace_fingerprint(t, p->trace);
    const struct plan_in in = { m, used, &scratch, o->keep, o->seed, planner, p->parameters };
    if (!s) s = planner->plan(&in, p);
    if (!s) s = predict(p, m, t, &scratch); /* a trace that the method did not need still tells what it does */
    arena_free(&scratch);
    return s;
}

coe_status plan_make(struct plan **out, const char *method, const struct coe_model *m, const struct trace *t,
                     const struct plan_opts *o)
{
    const struct part *part = part_find("planner", method);
    struct plan *p = NULL;
    *out = NULL;
    int32_t n = 0;
    for (int32_t l = 0; l < m->spec.n_layers; l++) n += m->spec.layer[l].is_moe;
    if (!part) return coe_fail(COE_E_USAGE, "there is no planner '%s'; see: coe methods --kind planner", method);
    if (!n) return coe_fail(COE_E_USAGE, "%s: is a dense model; it has no experts to plan for", m->path);
    COE_TRY(plan_new(&p, m, method, n));
    const struct planner *planner = part->impl;
    coe_status s = COE_OK;
    if (planner->variant && !(p->variant = arena_strdup(&p->arena, planner->variant))) s = COE_E_NOMEM;
    if (!s) s = run(p, part, m, t, o);
    if (s) plan_free(p);
    else *out = p;
    return s;
}
