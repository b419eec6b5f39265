/* layer.c — the MoE layer with its chain and residual.
 *
 * Paper: Chain-of-Experts, 2025 (card: routing.md 1). x_0 = norm(h); for t = 0 … C-1
 *     y_t = Σ_e g_{t,e} E_e(x_t) + Shared(x_t)      g from the router of iteration t
 *   prenorm   s += a_t y_t;  x_{t+1} = x_0 + s;  output h + s      a_t = 1 for the last pass and unless learned
 *   inner     x_{t+1} = x_t + y_t;   output x_C                    the published default
 *   outer     x_{t+1} = y_t;         output x_C + h
 *   both      x_{t+1} = x_t + y_t;   output x_C + h
 *   neither   x_{t+1} = y_t;         output x_C
 * prenorm never forms x_C - x_0: with C = 1 it is the ordinary pre-norm layer, bit for bit, and a pass with a_t = 0
 * adds nothing (a converted model with coe_weight = 0 equals its original). */
#include <string.h>

#include "moe/pool.h"
#include "moe/segments.h"

struct moe_spec moe_spec_default(void)
{
    return (struct moe_spec){
        .act = ACT_SILU,
        .act_limit = 7.0f,
        .input_scale = 1.0f,
        .router = { .kind = "linear",
                    .kind_param = { 1 },
                    .selection = "top_k",
                    .top_k = 2,
                    .n_group = 1,
                    .topk_group = 1,
                    .scale = 1.0f },
        .chain = { .n_iterations = 1 },
    };
}

int32_t moe_max_choices(const struct moe_spec *m)
{
    const struct selection_part *s = part_find("selection", m->router.selection)->impl;
    return (int32_t)COE_MIN(s->max_slots(&m->router, 1, m->n_experts), (int64_t)m->n_experts);
}

const char *moe_needs_whole_sequence(const struct moe_spec *m)
{
    const struct capacity_spec *c = &m->router.capacity;
    const struct selection_part *s = part_find("selection", m->router.selection)->impl;
    if (c->always && (c->factor > 0 || c->tokens > 0)) return "a capacity";
    if (moe_router(m)->whole) return m->router.kind;
    if (m->shared_ffn && moe_shared_tokens(m) > 1) return "a shared expert over segments";
    return s->couples && s->couples(&m->router) ? m->router.selection : NULL;
}

static coe_status check_params(const struct part *p, const double *value, const char *where)
{
    for (size_t i = 0; p->params && p->params[i].name; i++) {
        const struct part_param *o = &p->params[i];
        if (!o->choices && !(value[i] >= o->lo && value[i] <= o->hi))
            return coe_fail(COE_E_INPUT, "%s: %s of %s is %g, expected %g … %g", where, o->name, p->name, value[i],
                            o->lo, o->hi);
    }
    return COE_OK;
}

static coe_status check_router(const struct moe_spec *m, const char *where)
{
    const struct part *p = part_find("router", m->router.kind);
    if (!p) return coe_fail(COE_E_INPUT, "%s: there is no router '%s'", where, m->router.kind);
    COE_TRY(check_params(p, m->router.kind_param, where));
    const struct router_part *r = p->impl;
    if (m->router.bias && !(r->matrix && r->matrix(m)))
        return coe_fail(COE_E_INPUT, "%s: router_bias belongs to a router of one matrix, not to %s", where, p->name);
    return r->check ? r->check(m, where) : COE_OK;
}

/* The kinds of a layer: known, of a width, as many as there are experts, and not all of them nothing. */
static coe_status check_experts(const struct moe_spec *m, const char *where)
{
    struct expert_range r[MAX_RANGES];
    int32_t total = 0;
    bool any = false;
    if (m->n_identity < 0 || m->n_null < 0 || m->n_identity + m->n_null >= m->n_experts)
        return coe_fail(COE_E_INPUT, "%s: %d identity experts and %d null experts among %d", where, m->n_identity,
                        m->n_null, m->n_experts);
    if (m->n_ranges && m->n_identity + m->n_null)
        return coe_fail(COE_E_INPUT, "%s: a list of experts has its copy and null experts in it, not beside it", where);
    if (m->n_ranges < 0 || m->n_ranges > MAX_RANGES)
        return coe_fail(COE_E_INPUT, "%s: %d kinds of experts, expected at most %d", where, m->n_ranges, MAX_RANGES);
    for (int32_t i = 0; i < m->n_ranges; total += m->range[i++].n)
        if (!m->range[i].kind || !part_find("expert", m->range[i].kind) || m->range[i].n < 1)
            return coe_fail(COE_E_INPUT, "%s: %d experts of kind '%s'", where, m->range[i].n,
                            m->range[i].kind ? m->range[i].kind : "");
    if (m->n_ranges && total != m->n_experts)
        return coe_fail(COE_E_INPUT, "%s: n_experts is %d, the list of experts has %d", where, m->n_experts, total);
    for (int32_t i = 0, n = moe_ranges(m, r); i < n; i++) {
        const struct expert_part *kind = moe_kind(&r[i]);
        any = any || kind->run;
        if (kind->wide && (r[i].ffn < 1 || r[i].ffn > m->expert_ffn))
            return coe_fail(COE_E_INPUT, "%s: experts of width %d, expected 1 to %d", where, r[i].ffn, m->expert_ffn);
        if (m->weigh_input && kind->run && !kind->matrices && !kind->idle)
            return coe_fail(COE_E_INPUT, "%s: %s experts with weights on their inputs", where, r[i].kind);
        if (kind->check) COE_TRY(kind->check(m, &r[i], where));
    }
    COE_TRY(pool_check(m, where));
    return any ? COE_OK : coe_fail(COE_E_INPUT, "%s: all experts are null", where);
}

static coe_status check_selection(const struct moe_spec *m, const char *where)
{
    const struct router_spec *r = &m->router;
    const struct capacity_spec *c = &r->capacity;
    const struct part *p = part_find("selection", r->selection);
    if (!p) return coe_fail(COE_E_INPUT, "%s: there is no selection '%s'", where, r->selection);
    COE_TRY(check_params(p, r->param, where));
    if (!(c->factor >= 0 && c->factor <= 65536) || c->tokens < 0 || !(c->tau >= 0 && c->tau <= 1000))
        return coe_fail(COE_E_INPUT, "%s: a capacity of factor %g, %d tokens, tau %g", where, c->factor, c->tokens,
                        c->tau);
    if (c->weigh_first && !r->renormalize)
        return coe_fail(COE_E_INPUT, "%s: weights before drops differ from those after only when they are renormalised",
                        where);
    if (r->bias_in_weights && !r->selection_bias)
        return coe_fail(COE_E_INPUT, "%s: bias_in_weights without a selection_bias", where);
    if (r->unit_weights && (r->renormalize || r->bias_in_weights))
        return coe_fail(COE_E_INPUT,
                        "%s: unit_weights are not made from scores: neither renormalize nor "
                        "bias_in_weights changes them",
                        where);
    const struct selection_part *s = p->impl;
    return s->check ? s->check(m, where) : COE_OK;
}

coe_status moe_spec_check(const struct moe_spec *m, const char *where)
{
    const struct router_spec *r = &m->router;
    if (m->n_experts < 1 || m->n_experts > 65536) return coe_fail(COE_E_INPUT, "%s: %d experts", where, m->n_experts);
    if (m->expert_ffn < 1) return coe_fail(COE_E_INPUT, "%s: expert width %d", where, m->expert_ffn);
    if (r->top_k < 1 || r->top_k > m->n_experts || r->top_k > 1024)
        return coe_fail(COE_E_INPUT, "%s: top_k %d of %d experts", where, r->top_k, m->n_experts);
    COE_TRY(check_experts(m, where));
    if (r->n_group < 1 || r->n_group > 1024 || m->n_experts % r->n_group || r->topk_group < 1 ||
        r->topk_group > r->n_group)
        return coe_fail(COE_E_INPUT, "%s: %d experts in %d groups, %d of them kept", where, m->n_experts, r->n_group,
                        r->topk_group);
    if (r->top_k > r->topk_group * (m->n_experts / r->n_group))
        return coe_fail(COE_E_INPUT, "%s: top_k %d is more than the %d groups kept hold", where, r->top_k,
                        r->topk_group);
    if (m->chain.n_iterations < 1 || m->chain.n_iterations > MAX_ITERATIONS)
        return coe_fail(COE_E_INPUT, "%s: a chain of %d iterations, expected 1 to %d", where, m->chain.n_iterations,
                        MAX_ITERATIONS);
    if (m->chain.learned_weight && m->chain.residual != RESIDUAL_PRENORM)
        return coe_fail(COE_E_INPUT, "%s: a chain weight needs the prenorm residual, not %s", where,
                        residual_name[m->chain.residual]);
    if (!(m->input_scale > 0 && m->input_scale < 1e6f))
        return coe_fail(COE_E_INPUT, "%s: input_scale %g", where, (double)m->input_scale);
    if (m->shared_segment < 0 || m->shared_segment > 4096)
        return coe_fail(COE_E_INPUT, "%s: a shared expert over segments of %d tokens", where, m->shared_segment);
    COE_TRY(check_router(m, where));
    COE_TRY(check_selection(m, where));
    for (int32_t i = 0; i < m->n_losses; i++) {
        const struct part *p = part_find("loss", m->loss[i].kind);
        if (!p) return coe_fail(COE_E_INPUT, "%s: there is no loss '%s'", where, m->loss[i].kind);
        const struct loss_part *loss = p->impl;
        if (loss->check) COE_TRY(loss->check(m, where));
    }
    return COE_OK;
}

static struct val *shared_once(struct nn *c, const struct moe_spec *spec, const struct moe_weights *w, struct val *x)
{
    struct val *gate = nn_linear(c, x, w->shared_gate, w->shared_gate_bias);
    struct val *up = w->shared_up ? nn_linear(c, x, w->shared_up, w->shared_up_bias) : NULL;
    struct val *y = nn_linear(c, nn_act(c, spec->act, gate, up), w->shared_down, w->shared_down_bias);
    return spec->shared_gate ? nn_sigmoid_gate(c, y, nn_linear(c, x, w->shared_expert_gate, NULL)) : y;
}

static struct val *shared_expert(struct moe_pass *p, const struct moe_spec *spec, const struct moe_weights *w,
                                 struct val *x)
{
    const int32_t width = (int32_t)moe_shared_tokens(spec);
    if (width == 1) return shared_once(p->c, spec, w, x);
    int32_t *place = arena_push(p->c->arena, (size_t)x->rows * sizeof *place);
    if (!place) return NULL;
    const int32_t n = segments_of(p->batch, x->rows, width, place);
    return nn_unfold(p->c, shared_once(p->c, spec, w, nn_fold(p->c, x, place, n, width)), place, x->rows, width);
}

/* y_t: one routing decision and its experts */
static struct val *pass_once(struct moe_pass *p, const struct moe_spec *spec, const struct moe_weights *w,
                             const struct route_hook *hook, int32_t layer, int32_t iteration, struct val *x)
{
    struct nn *c = p->c;
    struct route_record *rec = arena_push_zero(c->arena, sizeof *rec);
    if (!rec) return NULL;
    rec->layer = layer;
    rec->iteration = iteration;
    rec->batch = p->batch;
    rec->w = w;
    struct route_hook seen;
    if (!pool_hide(c, spec, rec, hook, &seen)) return NULL;
    if (seen.keep) hook = &seen;
    const struct router_call routing = { p, spec, w, layer, iteration, x, hook, &rec->added };
    const coe_math math = c->math;
    c->math = COE_MATH_FP32; /* a rounded input would choose other experts */
    struct val *z = moe_router(spec)->logits(&routing);
    c->math = math;
    rec->expert_scale = w->expert_scale;
    if (moe_route(c, rec, spec, z, w->selection_bias[iteration], hook)) return NULL;
    if (p->records && p->n_records < p->max_records) p->records[p->n_records++] = rec;
    if (p->observer && p->observer->route) p->observer->route(p->observer->user, rec);
    struct expert_call call = { .spec = spec,
                                .w = w,
                                .x = nn_scale(c, x, spec->input_scale),
                                .route = &rec->route,
                                .y = nn_val(c, x->rows, x->cols),
                                .layer = layer,
                                .iteration = iteration,
                                .batch = p->batch,
                                .kv = p->kv };
    if (!call.x || !call.y) return NULL;
    const bool wants_rows = p->observer && p->observer->outputs;
    if (wants_rows && !(call.rows = arena_push(c->arena, (size_t)rec->route.n_slots * (size_t)x->cols * sizeof(float))))
        return NULL;
    const bool wants_hidden = wants_rows && p->observer->hidden;
    const size_t hidden = (size_t)rec->route.n_slots * (size_t)spec->expert_ffn * sizeof(float);
    if (wants_hidden && !(call.hidden = arena_push(c->arena, hidden))) return NULL;
    if (p->executor->run(p->executor, c, &call)) return NULL;
    if (wants_rows) p->observer->outputs(p->observer->user, rec, call.x, call.rows);
    if (wants_hidden) p->observer->hidden(p->observer->user, rec, call.hidden);
    struct val *y = spec->out_bias ? nn_add_row(c, call.y, w->out_bias) : call.y;
    return spec->shared_ffn ? nn_add(c, y, shared_expert(p, spec, w, x)) : y;
}

static bool weight_is_zero(const struct weight *w)
{
    float a;
    widen(&a, w->data, w->type, 1);
    return a == 0;
}

static struct val *prenorm_chain(struct moe_pass *p, const struct moe_spec *spec, const struct moe_weights *w,
                                 const struct route_hook *hook, int32_t layer, struct val *x0)
{
    struct nn *c = p->c;
    struct val *sum = NULL, *x = x0;
    for (int32_t t = 0; t < spec->chain.n_iterations; t++) {
        struct val *y = pass_once(p, spec, w, hook, layer, t, x);
        if (!y) return NULL;
        const bool last = t == spec->chain.n_iterations - 1;
        if (!spec->chain.learned_weight || last) {
            sum = sum ? nn_add(c, sum, y) : y;
        } else if (c->tape || !weight_is_zero(w->coe_weight)) {
            struct val *zero = NULL;
            if (!sum) {
                zero = nn_val(c, y->rows, y->cols);
                if (!zero) return NULL;
                memset(zero->data, 0, (size_t)(y->rows * y->cols) * sizeof(float));
            }
            sum = nn_add_scaled(c, sum ? sum : zero, y, 0, w->coe_weight);
        }
        if (!last && sum) x = nn_add(c, x0, sum);
    }
    return sum;
}

struct val *moe_output(struct moe_pass *p, const struct moe_spec *spec, const struct moe_weights *w,
                       const struct route_hook *hook, int32_t layer, struct val *x0)
{
    assert(spec->chain.residual == RESIDUAL_PRENORM);
    return x0 ? prenorm_chain(p, spec, w, hook, layer, x0) : NULL;
}

struct val *moe_layer(struct moe_pass *p, const struct moe_spec *spec, const struct moe_weights *w,
                      const struct route_hook *hook, int32_t layer, struct val *h, struct val *x0,
                      struct val *(*post)(struct nn *, void *, struct val *), void *post_user)
{
    struct nn *c = p->c;
    if (!h || !x0) return NULL;
    if (spec->chain.residual == RESIDUAL_PRENORM) {
        struct val *s = prenorm_chain(p, spec, w, hook, layer, x0);
        return nn_add(c, h, post ? post(c, post_user, s) : s);
    }
    const bool inner = spec->chain.residual == RESIDUAL_INNER || spec->chain.residual == RESIDUAL_BOTH;
    const bool outer = spec->chain.residual == RESIDUAL_OUTER || spec->chain.residual == RESIDUAL_BOTH;
    struct val *x = x0;
    for (int32_t t = 0; x && t < spec->chain.n_iterations; t++) {
        struct val *y = pass_once(p, spec, w, hook, layer, t, x);
        x = inner ? nn_add(c, x, y) : y;
    }
    if (post) x = post(c, post_user, x);
    return outer ? nn_add(c, x, h) : x;
}

COE_PART(layer, chain, .summary = "the experts of a layer applied in sequence, routed anew in each pass",
         .paper = "Chain-of-Experts, 2025", .card = "routing.md 1", .unit = "token")
