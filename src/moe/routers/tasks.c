/* tasks.c — each task has gates of its own and sees the shared experts, those of its group of tasks, and its own.
 *
 * Paper: HoME: Hierarchy of Multi-Gate Experts, 2024 (card: routing.md 28). T tasks in G groups of consecutive ones; S
 * experts are shared, each group has N_g, each task N_t. Expert ids, with `levels: 1` the second line alone:
 *
 *     groups' level   S shared | N_g of group 0 | … | N_g of group G-1
 *     tasks' level    S shared | N_g of group 0 | … | N_g of group G-1 | N_t of task 0 | … | N_t of task T-1
 *
 * With `levels: 2` all passes of the layer's chain but the last are the groups' level: what they add to the token is
 * the sum of two meta-representations, its group's (a gate of the group over shared and group experts) and the global
 * one (a gate that all groups have in common, over the shared experts). The last pass is the tasks' level: a gate of
 * the task over all that it sees. Logits of experts that a token does not see are -inf. The paper's gates are dense:
 * top_k as large as what is seen, scores softmax.
 *
 * `self_gate`: a token's weights of its task's own experts are raised by s = sigmoid(W_s x) or softmax(W_s x), so that
 * these experts learn however small the gate makes them; which is y += Σ_own s_e E_e(x).
 *
 * The paper's levels have experts between which everything is dense and whose inputs are concatenated; here the two
 * representations are added, as everything on a residual stream is. */
#include <math.h>
#include <string.h>

#include "moe/experts/rows.h"
#include "moe/routers/probability.h"

enum { TASKS, GROUPS, GROUP_EXPERTS, TASK_EXPERTS, LEVELS, SELF_GATE };
enum { GATE, SELF, GLOBAL };
enum { SELF_NONE, SELF_SIGMOID, SELF_SOFTMAX };
static const char *const self_gates[] = { "none", "sigmoid", "softmax", NULL };

static const struct part_param params[] = {
    { "tasks", "how many there are", NULL, 1, 4096, 1, true },
    { "groups", "of tasks, equally many in each", NULL, 1, 4096, 1, true },
    { "group_experts", "of each group, on each level; what n_experts leaves is shared", NULL, 0, 65536, 0, true },
    { "task_experts", "experts of each task", NULL, 0, 65536, 0, true },
    { "levels", "2: all passes but the last are of groups", NULL, 1, 2, 1, true },
    { "self_gate", "what a task's own experts get besides", self_gates, 0, 0, 0, false },
    { 0 },
};

/* One pass's view: whoever has a gate ("owner": a task or a group) sees `n` experts. */
struct level {
    bool meta;
    int32_t tasks, groups, shared, of_group, of_task;
    int32_t first;  /* expert id of the level's first expert */
    int32_t owners, n;
};

/* Experts of one level beside those of tasks; negative or a fraction when n_experts does not fit. */
static double level_experts(const struct moe_spec *m, const double *p)
{
    return (m->n_experts - p[TASKS] * p[TASK_EXPERTS]) / p[LEVELS];
}

static struct level level_of(const struct moe_spec *m, const double *p, int32_t iteration)
{
    struct level v = { .tasks = (int32_t)p[TASKS],
                       .groups = (int32_t)p[GROUPS],
                       .shared = (int32_t)(level_experts(m, p) - p[GROUPS] * p[GROUP_EXPERTS]),
                       .of_group = (int32_t)p[GROUP_EXPERTS],
                       .of_task = (int32_t)p[TASK_EXPERTS] };
    v.meta = p[LEVELS] > 1 && iteration < m->chain.n_iterations - 1;
    if (v.meta) v.of_task = 0;
    v.first = p[LEVELS] > 1 && !v.meta ? (int32_t)level_experts(m, p) : 0;
    v.owners = v.meta ? v.groups : v.tasks;
    v.n = v.shared + v.of_group + v.of_task;
    return v;
}

static int32_t group_of(const struct level *v, int32_t task) { return task / (v->tasks / v->groups); }

/* Id of the j-th expert that a task sees */
static int32_t expert_of(const struct level *v, int32_t task, int32_t j)
{
    if (j < v->shared) return v->first + j;
    j -= v->shared;
    const int32_t of_groups = v->first + v->shared;
    if (j < v->of_group) return of_groups + group_of(v, task) * v->of_group + j;
    return of_groups + v->groups * v->of_group + task * v->of_task + j - v->of_group;
}

/* ---- tokens by owner ---- */

struct sorted {
    const int32_t *task; /* [T] */
    int32_t *row;        /* [T] tokens in order of owner */
    int32_t *at;         /* [T] where a token stands in it */
    struct groups of;    /* owners over it */
};

static coe_status tasks_of(const struct router_call *call, const struct level *v, int32_t **out)
{
    const struct moe_pass *p = call->pass;
    const int64_t n = call->x->rows;
    int32_t *task = *out = arena_push(p->c->arena, (size_t)n * sizeof *task);
    if (!task) return COE_E_NOMEM;
    for (int64_t t = 0; t < n; t++) {
        task[t] = p->task ? p->task[t] : p->task_of_all;
        if (task[t] < 0 || task[t] >= v->tasks)
            return coe_fail(COE_E_USAGE, "layer %d: a token of task %d; the router knows tasks 0 … %d", call->layer,
                            task[t], v->tasks - 1);
    }
    return COE_OK;
}

static bool sort_tokens(const struct router_call *call, const struct level *v, struct sorted *s)
{
    struct arena *a = call->pass->c->arena;
    const int32_t n = (int32_t)call->x->rows;
    int32_t *task, *off = arena_push_zero(a, (size_t)(v->owners + 2) * sizeof *off);
    s->row = arena_push(a, (size_t)n * sizeof *s->row);
    s->at = arena_push(a, (size_t)n * sizeof *s->at);
    if (tasks_of(call, v, &task) || !off || !s->row || !s->at) return false;
    for (int32_t t = 0; t < n; t++) off[(v->meta ? group_of(v, task[t]) : task[t]) + 2]++;
    for (int32_t o = 0; o < v->owners; o++) off[o + 2] += off[o + 1];
    for (int32_t t = 0; t < n; t++) {
        s->at[t] = off[(v->meta ? group_of(v, task[t]) : task[t]) + 1]++;
        s->row[s->at[t]] = t;
    }
    s->task = task;
    s->of = (struct groups){ v->owners, off };
    return true;
}

/* x [T, d] · the owner's rows of w [owners·n, d], in order of owner */
static struct val *by_owner(const struct router_call *call, const struct sorted *s, const struct weight *w)
{
    struct nn *c = call->pass->c;
    const struct weight *const *own = experts_blocks(c, w, s->of.n);
    return own ? experts_linear(c, experts_pick(c, call->x, s->row, call->x->rows), s->of, own) : NULL;
}

/* ---- from what an owner sees to all experts ---- */

struct placed {
    struct val *from, *to;
    struct level level;
    const int32_t *task, *at; /* at NULL: rows of `from` are the tokens */
    int32_t first;            /* column 0 of `from` is the owner's expert number `first` */
};

static int64_t row_of(const struct placed *s, int64_t t) { return s->at ? s->at[t] : t; }

static void place_back(struct nn *c, void *saved)
{
    const struct placed *s = saved;
    float *dfrom = s->to->grad ? nn_grad(c, s->from) : NULL;
    for (int64_t t = 0; dfrom && t < s->to->rows; t++)
        for (int32_t j = 0; j < s->from->cols; j++)
            dfrom[row_of(s, t) * s->from->cols + j] +=
                s->to->grad[t * s->to->cols + expert_of(&s->level, s->task[t], s->first + j)];
}

/* to [T, E] takes the columns of `from`, beside what it holds. */
static bool place(struct nn *c, struct val *to, const struct placed *how)
{
    struct placed *s = how->from && to ? arena_push(c->arena, sizeof *s) : NULL;
    if (!s) return false;
    *s = *how;
    s->to = to;
    for (int64_t t = 0; t < to->rows; t++)
        for (int32_t j = 0; j < s->from->cols; j++)
            to->data[t * to->cols + expert_of(&s->level, s->task[t], s->first + j)] =
                s->from->data[row_of(s, t) * s->from->cols + j];
    return nn_record(c, place_back, s);
}

static struct val *filled(struct nn *c, int64_t rows, int64_t cols, float value)
{
    struct val *y = nn_val(c, rows, cols);
    for (int64_t i = 0; y && i < rows * cols; i++) y->data[i] = value;
    return y;
}

/* What the level adds to the weights: the global gate's share of the shared experts, or the self gate's of its own */
static bool add_weights(const struct router_call *call, const struct level *v, const struct sorted *s)
{
    struct nn *c = call->pass->c;
    const struct weight *const *w = call->w->router_part[call->iteration];
    const int64_t rows = call->x->rows;
    struct placed how = { .level = *v, .task = s->task };
    if (v->meta && v->shared) {
        how.from = router_softmax(c, nn_linear(c, call->x, w[GLOBAL], NULL), NULL);
    } else if (!v->meta && w[SELF]) {
        struct val *z = by_owner(call, s, w[SELF]);
        how.from = call->spec->router.kind_param[SELF_GATE] == SELF_SOFTMAX
                       ? router_softmax(c, z, NULL)
                       : nn_sigmoid_mul(c, filled(c, rows, v->of_task, 1), z);
        how.at = s->at;
        how.first = v->shared + v->of_group;
    } else {
        return true;
    }
    *call->added = filled(c, rows, call->spec->n_experts, 0);
    return place(c, *call->added, &how);
}

static struct val *logits(const struct router_call *call)
{
    struct nn *c = call->pass->c;
    const struct level v = level_of(call->spec, call->spec->router.kind_param, call->iteration);
    struct sorted s;
    if (!call->x || !sort_tokens(call, &v, &s)) return NULL;
    struct val *z = filled(c, call->x->rows, call->spec->n_experts, -INFINITY);
    const struct placed gate = { .from = by_owner(call, &s, call->w->router_part[call->iteration][GATE]),
                                 .level = v,
                                 .task = s.task,
                                 .at = s.at };
    return place(c, z, &gate) && add_weights(call, &v, &s) ? z : NULL;
}

/* ---- the spec ---- */

static int32_t n_tasks(const struct moe_spec *m) { return (int32_t)m->router.kind_param[TASKS]; }

static coe_status check_gates(const struct moe_spec *m, const char *where)
{
    const double *p = m->router.kind_param;
    const struct level v = level_of(m, p, m->chain.n_iterations - 1);
    const bool adds = p[SELF_GATE] > 0 || (p[LEVELS] > 1 && v.shared);
    if (p[SELF_GATE] > 0 && !v.of_task)
        return coe_fail(COE_E_INPUT, "%s: a self gate without experts that belong to a task (task_experts)", where);
    if (adds && (strcmp(m->router.selection, "top_k") || m->router.top_k < v.n))
        return coe_fail(COE_E_INPUT,
                        "%s: router tasks adds weights of its own (self_gate, or levels 2 with shared experts): all %d "
                        "experts that a task sees must run, with selection top_k and top_k %d",
                        where, v.n, v.n);
    if (m->router.top_k > v.n)
        return coe_fail(COE_E_INPUT, "%s: top_k %d, but a task sees %d experts", where, m->router.top_k, v.n);
    return COE_OK;
}

static coe_status check(const struct moe_spec *m, const char *where)
{
    const double *p = m->router.kind_param;
    const double shared = level_experts(m, p) - p[GROUPS] * p[GROUP_EXPERTS];
    if ((int32_t)p[TASKS] % (int32_t)p[GROUPS])
        return coe_fail(COE_E_INPUT, "%s: %g tasks in %g groups of equal size", where, p[TASKS], p[GROUPS]);
    if (shared < 0 || shared != floor(shared))
        return coe_fail(COE_E_INPUT,
                        "%s: n_experts %d leaves %g shared experts on each of %g levels beside %g of each of %g groups "
                        "there and %g of each of %g tasks (router tasks)",
                        where, m->n_experts, shared, p[LEVELS], p[GROUP_EXPERTS], p[GROUPS], p[TASK_EXPERTS], p[TASKS]);
    if (shared + p[GROUP_EXPERTS] < 1 && (p[LEVELS] > 1 || p[TASK_EXPERTS] < 1))
        return coe_fail(COE_E_INPUT, "%s: router tasks: a level without experts", where);
    if (p[LEVELS] > 1 && (m->chain.n_iterations < 2 || m->chain.shared_gate))
        return coe_fail(COE_E_INPUT,
                        "%s: router tasks with levels 2 needs a chain of at least two passes with independent gates: "
                        "the last is the tasks' level, those before it the groups'",
                        where);
    if (m->pool.layers > 1)
        return coe_fail(COE_E_INPUT, "%s: router tasks in a pool of layers: the pool would add experts of no task",
                        where);
    if (!strcmp(m->router.selection, "sinkhorn") || !strcmp(m->router.selection, "transport"))
        return coe_fail(COE_E_INPUT,
                        "%s: %s spreads all tokens over all experts, but a task sees only some of them (router tasks)",
                        where, m->router.selection);
    return check_gates(m, where);
}

static bool gate_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    const struct level v = level_of(at->spec, at->param, at->iteration);
    *rows = (int64_t)v.owners * v.n, *cols = at->d_model;
    return true;
}

static bool self_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    const struct level v = level_of(at->spec, at->param, at->iteration);
    *rows = (int64_t)v.tasks * v.of_task, *cols = at->d_model;
    return !v.meta && at->param[SELF_GATE] > 0;
}

static bool global_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    const struct level v = level_of(at->spec, at->param, at->iteration);
    *rows = v.shared, *cols = at->d_model;
    return v.meta && v.shared > 0;
}

static const struct part_weight weights[] = {
    { .name = "gate.weight", .scope = PART_OF_ITERATION, .couples = true, .shape = gate_shape },
    { .name = "self_gate.weight", .scope = PART_OF_ITERATION, .couples = true, .shape = self_shape },
    { .name = "global_gate.weight", .scope = PART_OF_ITERATION, .couples = true, .shape = global_shape },
    { 0 },
};

static const struct router_part tasks = {
    .logits = logits, .weights = weights, .check = check, .masks = true, .tasks = n_tasks
};
COE_PART(router, tasks, .summary = "each task gates the shared experts, those of its group and its own",
         .paper = "HoME, 2024", .card = "routing.md 28", .unit = "token", .params = params, .impl = &tasks)
