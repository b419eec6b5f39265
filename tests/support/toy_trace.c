/* toy_trace.c — see toy_trace.h. */
#include "toy_trace.h"

#include <stdio.h>
#include <string.h>

struct trace *toy_trace(int32_t n, int32_t iterations)
{
    struct trace *t = trace_make("toy.coet");
    if (!t) fail_msg("%s", coe_error());
    assert_ok(trace_make_layers(t, 1));
    t->layer[0] = (struct trace_layer){
        .n_experts = n, .n_iterations = iterations, .top_k = 1, .n_group = 1, .groups_kept = 1, .scale = 1
    };
    trace_layers_done(t);
    t->family = arena_strdup(&t->arena, "coe");
    t->weights = arena_strdup(&t->arena, "F32");
    t->n_model_layers = t->d_model = t->vocab = 1;
    t->window = 16;
    assert_int_equal(trace_add_domain(t, "toy"), 0);
    t->domains.at[0].tokens = 1;
    return t;
}

void toy_set(struct trace *t, enum trace_column c, int32_t iteration, const double *values)
{
    void *at = trace_at(t, c, 0, 0, iteration);
    for (int32_t e = 0; e < t->layer[0].n_experts; e++)
        if (trace_column_info[c].type == DT_U64) ((uint64_t *)at)[e] = (uint64_t)values[e];
        else ((double *)at)[e] = values[e];
}

static json_t *parameters_of(const struct planner *p, const char *const *params)
{
    json_t *o = json_object();
    for (const struct plan_param *q = p->params; q && q->name; q++)
        json_object_set_new(o, q->name, q->choices ? json_string(q->choices[0]) : json_real(q->otherwise));
    for (; params && *params; params++) {
        char name[32];
        const char *eq = strchr(*params, '=');
        snprintf(name, sizeof name, "%.*s", (int)(eq - *params), *params);
        json_object_set_new(o, name, json_string(eq + 1));
    }
    return o;
}

int32_t toy_plan(int32_t *keep, const char *planner, const struct trace *t, double ratio, uint64_t seed,
                 int32_t n_group, bool renormalize, const char *const *params)
{
    const struct part *part = part_find("planner", planner);
    if (!part) fail_msg("there is no planner %s", planner);
    struct layer_spec layer = { .is_moe = true, .moe = moe_spec_default() };
    layer.moe.n_experts = t->layer[0].n_experts;
    layer.moe.router.n_group = n_group;
    layer.moe.router.renormalize = renormalize;
    struct coe_model m = { .spec = { .n_layers = 1, .layer = &layer } };
    struct plan_layer decided = { 0 };
    struct plan p = { .n_layers = 1, .layer = &decided };
    json_t *set = parameters_of(part->impl, params);
    const struct plan_in in = { &m, t, test_arena(), ratio, seed, part->impl, set };
    assert_ok(in.planner->plan(&in, &p));
    for (int32_t i = 0; i < decided.n_keep; i++) keep[i] = decided.keep[i];
    json_decref(set);
    arena_free(&p.arena);
    return decided.n_keep;
}

void assert_keeps(const char *planner, const struct trace *t, double ratio, const char *const *params,
                  const int32_t *ids, int32_t n)
{
    int32_t *keep = test_alloc((size_t)t->layer[0].n_experts * sizeof *keep);
    const int32_t got = toy_plan(keep, planner, t, ratio, 0, 1, false, params);
    if (got != n) fail_msg("%s keeps %d experts, expected %d", planner, got, n);
    assert_ids(planner, keep, ids, n);
}
