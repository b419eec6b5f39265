/* spec_json.c — config → spec: finds the family, then lays the "coe" object over it.
 *
 *   "coe": { "n_experts": 16, "expert_ffn": 256, "top_k": 2, "score": "softmax", "renormalize": false, "scale": 1.0,
 *            "router": "linear" or { "kind": "two_layer", "width": 64 }, "router_bias": false,
 *            "selection": "top_k" or { "kind": "top_p", "p": 0.4 },
 *            "capacity": { "factor": 1.25, "tokens": 64, "tau": 1, "order": "position", "weigh_first": false,
 *                          "always": false },
 *            "experts": [ { "kind": "ffn", "n": 14, "expert_ffn": 256 }, { "kind": "copy", "n": 2 } ],
 *            "pool": { "layers": 2, "from": 1000, "to": 3000, "mask": "local_first" },
 *            "bias_in_weights": false, "unit_weights": false, "input_scale": 1.0,
 *            "selection_bias": false, "bias_update": 0.001, "bias_rule": "sign", "bias_decay": "none", "n_null": 0,
 *            "n_identity": 0, "groups": 1, "groups_kept": 1, "group_score": "max", "shared_ffn": 0,
 *            "shared_gate": false, "shared_segment": 0,
 *            "chain": { "iterations": 2, "gate": "independent", "residual": "prenorm", "weight": "learned" },
 *            "losses": [ { "kind": "sequence", "coef": 0.001 }, { "kind": "tsallis", "coef": 0.01, "q": 1.1 } ],
 *            "attention_experts": { "top_k": 2, "unit_weights": true, "score": "softmax", "selection": "top_k", … },
 *            "projection_experts": { "n": 8, "rank": 16, "alpha": 32, "targets": ["q", "v"], "init_range": 5,
 *                                    "top_k": 2, "selection": "hybrid", "losses": [ … ] },
 *            "dense_layers": [ 0 ], "top_k_per_layer": [ 2, 2, … ], "qk_norm": "head",
 *            "experts_per_layer": [ 16, 12, … ] or { "shape": "descending", "min": 8, "max": 24 } } */
#include <math.h>
#include <string.h>

#include "model/part_places.h"
#include "model/per_layer.h"

coe_status family_find(const struct part **out, const json_t *config, const char *where)
{
    const char *type = NULL;
    COE_TRY(json_need_str(config, "model_type", &type, where));
    const struct part *p;
    for (size_t i = 0; (p = part_at("family", i)); i++) {
        const struct family *f = p->impl;
        for (const char *const *t = f->model_types; *t; t++)
            if (!strcmp(*t, type)) {
                *out = p;
                return COE_OK;
            }
    }
    return coe_fail(COE_E_INPUT,
                    "%s: model_type '%s' is not a family this program knows (coe methods --kind family lists them)",
                    where, type);
}

static coe_status choice(const json_t *o, const char *key, const char *const *names, int n, int *out, const char *where)
{
    const char *text = NULL;
    COE_TRY(json_get_str(o, key, &text, where));
    if (!text) return COE_OK;
    for (int i = 0; i < n; i++)
        if (!strcmp(names[i], text)) {
            *out = i;
            return COE_OK;
        }
    return coe_fail(COE_E_INPUT, "%s: %s '%s' is unknown", where, key, text);
}

static coe_status read_chain(struct chain_spec *c, const json_t *o, const char *where)
{
    static const char *const keys[] = { "iterations", "gate", "residual", "weight", NULL };
    static const char *const gates[] = { "independent", "shared" };
    if (!o) return COE_OK;
    if (!json_is_object(o)) return coe_fail(COE_E_INPUT, "%s: chain is %s, expected an object", where, json_kind(o));
    COE_TRY(json_only_keys(o, keys, where));
    int gate = c->shared_gate, residual = c->residual, learned = c->learned_weight;
    static const char *const weights[] = { "one", "learned" };
    COE_TRY(json_get_i32(o, "iterations", 1, MAX_ITERATIONS, &c->n_iterations, where));
    COE_TRY(choice(o, "gate", gates, 2, &gate, where));
    COE_TRY(choice(o, "residual", residual_name, COE_COUNT(residual_name), &residual, where));
    COE_TRY(choice(o, "weight", weights, 2, &learned, where));
    c->shared_gate = gate;
    c->residual = (enum residual_mode)residual;
    c->learned_weight = learned;
    return COE_OK;
}

static coe_status read_param(const struct part *part, size_t i, const json_t *o, double *value, const char *where)
{
    const struct part_param *p = &part->params[i];
    int n = 0, word = (int)value[i];
    while (p->choices && p->choices[n]) n++;
    if (p->choices) {
        COE_TRY(choice(o, p->name, p->choices, n, &word, where));
        value[i] = word;
        return COE_OK;
    }
    COE_TRY(json_get_num(o, p->name, &value[i], where));
    if (!(value[i] >= p->lo && value[i] <= p->hi) || (p->whole && value[i] != rint(value[i])))
        return coe_fail(COE_E_INPUT, "%s: %s of %s is %g, expected a %snumber in %g … %g", where, p->name, part->name,
                        value[i], p->whole ? "whole " : "", p->lo, p->hi);
    return COE_OK;
}

/* A part by its name, or an object of its kind and settings; settings left out have their defaults. `other`: more keys
 * that are allowed, NULL-terminated, or NULL. Names that parts are known by live as long as the registry, not the
 * document. */
static coe_status read_part(const char *kind, const json_t *v, const char *const *other, const struct part **out,
                            double *value, const char *where)
{
    const char *name = json_string_value(v);
    const char *keys[PART_PARAMS + 4] = { "kind" };
    size_t n = 1;
    if (json_is_object(v)) COE_TRY(json_need_str(v, "kind", &name, where));
    if (!name) return coe_fail(COE_E_INPUT, "%s: a %s is %s, expected a name or an object", where, kind, json_kind(v));
    const struct part *p = *out = part_find(kind, name);
    if (!p) return coe_fail(COE_E_INPUT, "%s: there is no %s '%s'", where, kind, name);
    part_defaults(p, value);
    for (size_t i = 0; p->params && p->params[i].name; i++) keys[n++] = p->params[i].name;
    for (; other && *other; other++) keys[n++] = *other;
    if (!json_is_object(v)) return COE_OK;
    COE_TRY(json_only_keys(v, keys, where));
    for (size_t i = 0; p->params && p->params[i].name; i++) COE_TRY(read_param(p, i, v, value, where));
    return COE_OK;
}

static coe_status read_losses(struct moe_spec *m, const json_t *list, const char *where)
{
    if (!list) return COE_OK;
    if (!json_is_array(list) || json_array_size(list) > MAX_LOSSES)
        return coe_fail(COE_E_INPUT, "%s: losses is %s, expected a list of at most %d", where, json_kind(list),
                        MAX_LOSSES);
    m->n_losses = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *o = json_array_get(list, i);
        static const char *const more[] = { "coef", NULL };
        struct loss_spec l = { NULL, 0.001 };
        const struct part *p;
        if (!json_is_object(o))
            return coe_fail(COE_E_INPUT, "%s: a loss is %s, expected an object", where, json_kind(o));
        COE_TRY(read_part("loss", o, more, &p, m->loss_param[m->n_losses], where));
        COE_TRY(json_get_num(o, "coef", &l.coef, where));
        l.kind = p->name;
        m->loss[m->n_losses++] = l;
    }
    return COE_OK;
}

static coe_status read_router(struct router_spec *r, const json_t *o, const char *where)
{
    const struct part *p;
    const json_t *v = json_object_get(o, "router");
    if (!v) return COE_OK;
    COE_TRY(read_part("router", v, NULL, &p, r->kind_param, where));
    r->kind = p->name;
    return COE_OK;
}

static coe_status read_selection(struct router_spec *r, const json_t *o, const char *where)
{
    const struct part *p;
    const json_t *v = json_object_get(o, "selection");
    if (!v) return COE_OK;
    COE_TRY(read_part("selection", v, NULL, &p, r->param, where));
    r->selection = p->name;
    return COE_OK;
}

/* "experts": kinds in order of expert id. Those with a width of their own say it, the others have expert_ffn. */
static coe_status read_experts(struct moe_spec *m, const json_t *list, const char *where)
{
    if (!list) return COE_OK;
    if (!json_is_array(list) || !json_array_size(list) || json_array_size(list) > MAX_RANGES)
        return coe_fail(COE_E_INPUT, "%s: experts is %s, expected a list of 1 to %d kinds", where, json_kind(list),
                        MAX_RANGES);
    int32_t n = 0, widest = 1;
    for (size_t i = 0; i < json_array_size(list); i++) {
        static const char *const more[] = { "n", "expert_ffn", NULL };
        const json_t *o = json_array_get(list, i);
        struct expert_range *r = &m->range[i];
        const struct part *p;
        *r = (struct expert_range){ .n = 1, .ffn = m->expert_ffn };
        COE_TRY(read_part("expert", o, more, &p, r->param, where));
        r->kind = p->name;
        COE_TRY(json_get_i32(o, "n", 1, 65536, &r->n, where));
        const struct expert_part *kind = p->impl;
        if (kind->wide) COE_TRY(json_get_i32(o, "expert_ffn", 1, 1 << 24, &r->ffn, where));
        else if (json_object_get(o, "expert_ffn"))
            return coe_fail(COE_E_INPUT, "%s: expert_ffn of kind %s, which has no width", where, p->name);
        else r->ffn = 0;
        widest = COE_MAX(widest, r->ffn);
        n += r->n;
    }
    if (n > 65536) return coe_fail(COE_E_INPUT, "%s: %d experts", where, n);
    m->n_ranges = (int32_t)json_array_size(list);
    m->expert_ffn = widest;
    if (!m->n_experts) m->n_experts = n;
    return COE_OK;
}

/* "pool": the experts of n layers are one pool, in each of which n_experts are stored. */
static coe_status read_pool(struct moe_spec *m, int32_t layer, const json_t *o, const char *where)
{
    static const char *const keys[] = { "layers", "from", "to", "mask", NULL };
    struct pool_spec *p = &m->pool;
    int mask = p->mask;
    if (!o) return COE_OK;
    if (!json_is_object(o)) return coe_fail(COE_E_INPUT, "%s: pool is %s, expected an object", where, json_kind(o));
    COE_TRY(json_only_keys(o, keys, where));
    COE_TRY(json_get_i32(o, "layers", 1, 1024, &p->layers, where));
    COE_TRY(json_get_i32(o, "from", 0, INT32_MAX, &p->from, where));
    COE_TRY(json_get_i32(o, "to", 0, INT32_MAX, &p->to, where));
    COE_TRY(choice(o, "mask", pool_mask_name, COE_COUNT(pool_mask_name), &mask, where));
    p->mask = (enum pool_mask)mask;
    p->at = p->layers > 1 ? layer % p->layers : 0;
    return COE_OK;
}

/* Layers of a pool have experts, as many and as wide ones as the others; then n_experts becomes that of the pool. */
static coe_status join_pools(struct spec *s, const char *where)
{
    for (int32_t l = 0; l < s->n_layers; l++) {
        const struct moe_spec *m = &s->layer[l].moe, *first = &s->layer[l - m->pool.at].moe;
        if (!s->layer[l].is_moe || m->pool.layers <= 1) continue;
        for (int32_t o = l - m->pool.at; o < l - m->pool.at + m->pool.layers; o++)
            if (o >= s->n_layers || !s->layer[o].is_moe || s->layer[o].moe.n_experts != first->n_experts ||
                s->layer[o].moe.expert_ffn != first->expert_ffn)
                return coe_fail(COE_E_INPUT,
                                "%s: layer %d: a pool of %d layers needs that many with equally many experts of one "
                                "width from layer %d on",
                                where, l, m->pool.layers, l - m->pool.at);
    }
    for (int32_t l = 0; l < s->n_layers; l++)
        if (s->layer[l].is_moe && s->layer[l].moe.pool.layers > 1)
            s->layer[l].moe.n_experts *= s->layer[l].moe.pool.layers;
    return COE_OK;
}

static coe_status read_capacity(struct capacity_spec *c, const json_t *o, const char *where)
{
    static const char *const keys[] = { "factor", "tokens", "tau", "order", "weigh_first", "always", NULL };
    int order = c->order;
    if (!o) return COE_OK;
    COE_TRY(json_only_keys(o, keys, where));
    COE_TRY(json_get_num(o, "factor", &c->factor, where));
    COE_TRY(json_get_i32(o, "tokens", 0, 1 << 30, &c->tokens, where));
    COE_TRY(json_get_num(o, "tau", &c->tau, where));
    COE_TRY(choice(o, "order", capacity_order_name, COE_COUNT(capacity_order_name), &order, where));
    COE_TRY(json_get_bool(o, "weigh_first", &c->weigh_first, where));
    c->order = (enum capacity_order)order;
    return json_get_bool(o, "always", &c->always, where);
}

static coe_status read_moe(struct moe_spec *m, const json_t *o, const char *where)
{
    struct router_spec *r = &m->router;
    int score = r->score, group = r->group_score, rule = m->bias_rule,
        decay = m->bias_decay;
    const json_t *experts = json_object_get(o, "experts");
    if (experts) m->n_experts = 0; /* as many as the list has, or that many must be in it */
    COE_TRY(json_get_i32(o, "n_experts", 1, 65536, &m->n_experts, where));
    COE_TRY(json_get_i32(o, "n_identity", 0, 65535, &m->n_identity, where));
    COE_TRY(json_get_i32(o, "n_null", 0, 65535, &m->n_null, where));
    COE_TRY(json_get_i32(o, "expert_ffn", 1, 1 << 24, &m->expert_ffn, where));
    COE_TRY(read_experts(m, experts, where));
    COE_TRY(json_get_i32(o, "top_k", 1, 1024, &r->top_k, where));
    COE_TRY(choice(o, "score", score_name, 2, &score, where));
    COE_TRY(choice(o, "group_score", group_score_name, 2, &group, where));
    COE_TRY(json_get_i32(o, "groups", 1, 1024, &r->n_group, where));
    COE_TRY(json_get_i32(o, "groups_kept", 1, 1024, &r->topk_group, where));
    COE_TRY(json_get_bool(o, "renormalize", &r->renormalize, where));
    COE_TRY(json_get_f32(o, "scale", &r->scale, where));
    COE_TRY(json_get_f32(o, "input_scale", &m->input_scale, where));
    COE_TRY(json_get_bool(o, "router_bias", &r->bias, where));
    COE_TRY(json_get_bool(o, "selection_bias", &r->selection_bias, where));
    COE_TRY(json_get_bool(o, "bias_in_weights", &r->bias_in_weights, where));
    COE_TRY(json_get_bool(o, "unit_weights", &r->unit_weights, where));
    COE_TRY(json_get_num(o, "bias_update", &m->bias_update, where));
    COE_TRY(choice(o, "bias_rule", bias_rule_name, 2, &rule, where));
    COE_TRY(choice(o, "bias_decay", bias_decay_name, 3, &decay, where));
    m->bias_rule = (enum bias_rule)rule;
    m->bias_decay = (enum bias_decay)decay;
    COE_TRY(read_router(r, o, where));
    COE_TRY(read_selection(r, o, where));
    COE_TRY(read_capacity(&r->capacity, json_object_get(o, "capacity"), where));
    COE_TRY(json_get_i32(o, "shared_ffn", 0, 1 << 24, &m->shared_ffn, where));
    COE_TRY(json_get_bool(o, "shared_gate", &m->shared_gate, where));
    COE_TRY(json_get_i32(o, "shared_segment", 0, 4096, &m->shared_segment, where));
    r->score = (enum score_kind)score;
    r->group_score = (enum group_score)group;
    COE_TRY(read_chain(&m->chain, json_object_get(o, "chain"), where));
    return read_losses(m, json_object_get(o, "losses"), where);
}

/* "attention_experts": the heads of attention are experts, a key head with its query heads each. */
static coe_status read_heads(struct attn_spec *a, const json_t *o, const char *where)
{
    static const char *const keys[] = { "top_k", "unit_weights", "renormalize", "scale", "score", "selection", NULL };
    if (!o) return COE_OK;
    if (!json_is_object(o))
        return coe_fail(COE_E_INPUT, "%s: attention_experts is %s, expected an object", where, json_kind(o));
    COE_TRY(json_only_keys(o, keys, where));
    struct moe_spec *m = &a->moe;
    struct router_spec *r = &m->router;
    int score = SCORE_SOFTMAX;
    *m = moe_spec_default();
    m->n_experts = a->n_kv_heads;
    m->expert_ffn = 1; /* no expert is a network */
    r->top_k = COE_MAX(1, a->n_kv_heads / 2); /* the paper's data selection: half of them */
    COE_TRY(json_get_i32(o, "top_k", 1, 1024, &r->top_k, where));
    COE_TRY(json_get_bool(o, "unit_weights", &r->unit_weights, where));
    COE_TRY(json_get_bool(o, "renormalize", &r->renormalize, where));
    COE_TRY(json_get_f32(o, "scale", &r->scale, where));
    COE_TRY(choice(o, "score", score_name, 2, &score, where));
    COE_TRY(read_selection(r, o, where));
    r->score = (enum score_kind)score;
    if (a->kind == MIX_ATTENTION) a->kind = MIX_HEADS;
    return heads_check(a, where);
}

static coe_status read_targets(struct projection_spec *x, const json_t *list, const char *where)
{
    x->targets = (1u << PROJECTIONS) - 1;
    if (!list) return COE_OK;
    if (!json_is_array(list))
        return coe_fail(COE_E_INPUT, "%s: targets of projection_experts is %s, expected a list", where,
                        json_kind(list));
    x->targets = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        int32_t at = 0;
        while (name && at < PROJECTIONS && strcmp(name, projection_name[at])) at++;
        if (!name || at == PROJECTIONS)
            return coe_fail(COE_E_INPUT,
                            "%s: targets of projection_experts: '%s' is none of q, k, v, o, gate, up, down", where,
                            name ? name : json_kind(json_array_get(list, i)));
        x->targets |= 1u << at;
    }
    return COE_OK;
}

/* "projection_experts": low-rank experts beside projections (projections.c), with DynMoLE's settings. */
static coe_status read_projections(struct projection_spec *x, const json_t *o, const char *where)
{
    static const char *const keys[] = { "n",     "rank",        "alpha", "targets", "init_range",  "top_k",
                                        "score", "renormalize", "scale", "losses",  "unit_weights", "selection", NULL };
    struct moe_spec *m = &x->moe;
    int score = SCORE_SOFTMAX;
    if (!o) return COE_OK;
    if (!json_is_object(o))
        return coe_fail(COE_E_INPUT, "%s: projection_experts is %s, expected an object", where, json_kind(o));
    COE_TRY(json_only_keys(o, keys, where));
    *m = moe_spec_default();
    (void)moe_select(&m->router, "hybrid");
    m->n_experts = 8;
    m->expert_ffn = 1; /* no expert is a network */
    *x = (struct projection_spec){ .rank = 16, .init_range = 5, .moe = *m };
    COE_TRY(json_get_i32(o, "n", 1, 65536, &m->n_experts, where));
    COE_TRY(json_get_i32(o, "rank", 1, 65536, &x->rank, where));
    x->alpha = 2.0 * x->rank;
    COE_TRY(json_get_num(o, "alpha", &x->alpha, where));
    COE_TRY(json_get_num(o, "init_range", &x->init_range, where));
    if (!(x->alpha > 0 && x->alpha < 1e6) || !(x->init_range >= 0 && x->init_range < 1e6))
        return coe_fail(COE_E_INPUT, "%s: projection_experts with alpha %g, init_range %g", where, x->alpha,
                        x->init_range);
    m->router.top_k = COE_MIN(2, m->n_experts);
    COE_TRY(json_get_i32(o, "top_k", 1, 1024, &m->router.top_k, where));
    COE_TRY(json_get_bool(o, "renormalize", &m->router.renormalize, where));
    COE_TRY(json_get_bool(o, "unit_weights", &m->router.unit_weights, where));
    COE_TRY(json_get_f32(o, "scale", &m->router.scale, where));
    COE_TRY(choice(o, "score", score_name, 2, &score, where));
    m->router.score = (enum score_kind)score;
    COE_TRY(read_selection(&m->router, o, where));
    COE_TRY(read_targets(x, json_object_get(o, "targets"), where));
    const json_t *losses = json_object_get(o, "losses");
    if (losses) return read_losses(m, losses, where);
    json_t *own = json_pack("[{s:s, s:f}, {s:s, s:f, s:s}]", "kind", "masked", "coef", 0.001, "kind", "tsallis", "coef",
                            0.01, "over", "mean");
    coe_status status = own ? read_losses(m, own, where) : coe_fail(COE_E_NOMEM, "%s", where);
    json_decref(own);
    return status;
}

static coe_status dense_layers(struct spec *s, const json_t *list, const char *where)
{
    if (list && !json_is_array(list))
        return coe_fail(COE_E_INPUT, "%s: dense_layers is %s, expected a list of layers", where, json_kind(list));
    for (size_t i = 0; list && i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) >= s->n_layers)
            return coe_fail(COE_E_INPUT, "%s: dense_layers[%zu] is not a layer of 0 … %d", where, i, s->n_layers - 1);
        s->layer[json_integer_value(v)].is_moe = false;
    }
    return COE_OK;
}

coe_status spec_overlay(struct spec *s, const json_t *o, const char *where)
{
    static const char *const keys[] = {
        "n_experts",    "expert_ffn",        "top_k",           "score",          "renormalize", "scale",
        "router",       "router_bias",       "selection",       "selection_bias", "bias_update", "groups",
        "groups_kept",  "group_score",       "shared_ffn",      "shared_gate",    "chain",       "losses",
        "dense_layers", "experts_per_layer", "top_k_per_layer", "qk_norm",        "capacity",    "n_identity",
        "n_null",       "bias_rule",         "bias_decay",      "experts",        "bias_in_weights",
        "input_scale",  "unit_weights",      "shared_segment",  "pool",           "attention_experts",
        "projection_experts", NULL
    };
    static const char *const qk[] = { "none", "head", "full" };
    COE_TRY(json_only_keys(o, keys, where));
    bool any = false; /* a family with MoE layers knows which they are */
    for (int32_t l = 0; l < s->n_layers; l++) any = any || s->layer[l].is_moe;
    for (int32_t l = 0; l < s->n_layers; l++) {
        int norm = s->layer[l].attn.qk_norm;
        COE_TRY(choice(o, "qk_norm", qk, 3, &norm, where));
        s->layer[l].attn.qk_norm = (enum qk_norm)norm;
        COE_TRY(read_heads(&s->layer[l].attn, json_object_get(o, "attention_experts"), where));
        COE_TRY(read_projections(&s->layer[l].projections, json_object_get(o, "projection_experts"), where));
        if (!any && (json_object_get(o, "n_experts") || json_object_get(o, "experts"))) s->layer[l].is_moe = true;
        if (s->layer[l].is_moe) COE_TRY(read_moe(&s->layer[l].moe, o, where));
        if (s->layer[l].is_moe) COE_TRY(read_pool(&s->layer[l].moe, l, json_object_get(o, "pool"), where));
    }
    COE_TRY(dense_layers(s, json_object_get(o, "dense_layers"), where));
    COE_TRY(spec_per_layer(s, o, "experts_per_layer", false, where));
    COE_TRY(spec_per_layer(s, o, "top_k_per_layer", true, where));
    return json_object_get(o, "pool") ? join_pools(s, where) : COE_OK;
}

coe_status spec_check(const struct spec *s, const char *where)
{
    for (int32_t l = 0; l < s->n_layers; l++) {
        char place[600];
        snprintf(place, sizeof place, "%.500s: layer %d", where, l);
        const struct attn_spec *a = &s->layer[l].attn;
        if (a->kind == MIX_HEADS) COE_TRY(heads_check(a, place));
        if (s->layer[l].is_moe) COE_TRY(moe_spec_check(&s->layer[l].moe, place));
        else if (s->layer[l].ffn < 1)
            return coe_fail(COE_E_INPUT, "%s: a dense layer without intermediate_size", place);
    }
    COE_TRY(projections_check(s, where));
    return part_places_check(s, where);
}

const char *family_experts_key(const struct family *f, const json_t *config)
{
    static const char *const keys[] = { "num_local_experts", "num_experts", "n_routed_experts" };
    if (!f->key_n_experts || json_object_get(config, f->key_n_experts)) return f->key_n_experts;
    for (size_t i = 0; i < COE_COUNT(keys); i++)
        if (json_object_get(config, keys[i])) return keys[i];
    return f->key_n_experts;
}

/* The family reads its own spelling of the number of experts. */
static coe_status translate(struct spec *s, struct arena *a, const struct family *f, const json_t *config,
                            const char *where)
{
    const char *key = family_experts_key(f, config);
    if (key == f->key_n_experts) return f->translate(s, a, config, where);
    json_t *copy = json_copy((json_t *)(uintptr_t)config); /* shallow; jansson counts references in it */
    if (!copy || json_object_set(copy, f->key_n_experts, json_object_get(config, key))) {
        json_decref(copy);
        return coe_fail(COE_E_NOMEM, "%s: no memory for the config", where);
    }
    const coe_status status = f->translate(s, a, copy, where);
    json_decref(copy);
    return status;
}

coe_status spec_read(struct spec *s, struct arena *a, const json_t *config, const char *where)
{
    const struct part *part = NULL;
    *s = (struct spec){ 0 };
    if (!json_is_object(config))
        return coe_fail(COE_E_INPUT, "%s: is %s, expected an object", where, json_kind(config));
    COE_TRY(family_find(&part, config, where));
    const struct family *f = part->impl;
    COE_TRY(translate(s, a, f, config, where));
    s->family = part->name;
    const json_t *coe = json_object_get(config, "coe");
    if (coe) COE_TRY(spec_overlay(s, coe, where));
    return spec_check(s, where);
}

/* {l}, {e}, {t}, {b}, {s} → numbers; the only blocks of several layers are pairs */
bool expand_name(const char *pattern, struct place p, char *out, size_t cap)
{
    size_t n = 0;
    for (const char *c = pattern; *c; c++) {
        if (n + 1 >= cap) return false;
        if (c[0] != '{' || !c[1] || c[2] != '}') {
            out[n++] = *c; /* names of models with many experts are made by the ten thousand */
            continue;
        }
        const int32_t v = c[1] == 'l'   ? p.layer
                          : c[1] == 'b' ? p.layer / 2
                          : c[1] == 's' ? p.layer % 2
                          : c[1] == 'e' ? p.expert
                                        : p.iteration;
        const int wrote = snprintf(out + n, cap - n, "%d", v);
        if (wrote < 0 || (size_t)wrote >= cap - n) return false;
        n += (size_t)wrote;
        c += 2;
    }
    out[n] = 0;
    return true;
}

bool name_beside_router(const struct family *f, struct place p, const char *name, char *out, size_t cap)
{
    const struct name_row *r = f->names;
    while (r->pattern && r->slot != SLOT_ROUTER) r++;
    const char *end = r->pattern ? strrchr(r->pattern, '.') : NULL;
    while (end && end > r->pattern && *--end != '.') {} /* leaves out "gate" too */
    char pattern[256];
    if (!end || *end != '.') return false;
    snprintf(pattern, sizeof pattern, "%s%.*s.%s", f->prefixes ? *f->prefixes : "", (int)(end - r->pattern), r->pattern,
             name);
    return expand_name(pattern, p, out, cap);
}

static bool fits_layer(enum name_if only, const struct spec *s, int32_t layer)
{
    const struct attn_spec *a = &s->layer[layer].attn;
    switch (only) {
    case NAME_IN_CONV: return a->kind == MIX_CONV;
    case NAME_IN_DELTA: return a->kind == MIX_DELTA;
    case NAME_IN_LOW_RANK: return a->kind == MIX_LATENT && a->latent.q_rank > 0;
    default: return true;
    }
}

/* "….q_proj.weight" gives "….q_proj.router.weight", "….q_proj.lora_A.weight"; a part of a tensor has no such name. */
static bool projection_tensor(const struct family *f, const struct spec *s, struct place p, int which, char *out,
                              size_t cap)
{
    static const char *const tail[] = { "router", "lora_A", "lora_B" };
    const struct place of = { projection_slot(p.iteration), p.layer, 0, 0, 0 };
    char name[256];
    struct cut cut;
    if (!family_name_cut(f, s, of, which, name, sizeof name, &cut) || cut.how || cut.parts > 1) return false;
    const size_t n = strlen(name), end = strlen(".weight");
    if (n <= end || strcmp(name + n - end, ".weight")) return false;
    const int wrote = snprintf(out, cap, "%.*s.%s.weight", (int)(n - end), name, tail[p.slot - SLOT_MIX_ROUTER]);
    return wrote > 0 && (size_t)wrote < cap;
}

bool family_name_cut(const struct family *f, const struct spec *s, struct place p, int which, char *out, size_t cap,
                     struct cut *cut)
{
    static const char *const no_prefix[] = { "", NULL };
    for (const char *const *prefix = f->prefixes ? f->prefixes : no_prefix; *prefix; prefix++)
        for (const struct name_row *r = f->names; r->pattern; r++) {
            char pattern[256];
            if (r->slot != p.slot || !fits_layer(r->only, s, p.layer) || which-- > 0) continue;
            snprintf(pattern, sizeof pattern, "%s%s", *prefix, r->pattern);
            const struct chain_spec *c = &s->layer[p.layer].moe.chain;
            const char *dot = strrchr(r->pattern, '.');
            if (slot_info[p.slot].scope == SCOPE_ITERATION && c->n_iterations > 1 && !c->shared_gate &&
                !strstr(pattern, "{t}") && dot)
                snprintf(pattern, sizeof pattern, "%s%.*s.{t}%s", *prefix, (int)(dot - r->pattern), r->pattern, dot);
            *cut = r->cut;
            return expand_name(pattern, p, out, cap);
        }
    *cut = (struct cut){ 0 };
    if (slot_info[p.slot].scope == SCOPE_PROJECTION) return projection_tensor(f, s, p, which, out, cap);
    if (which) return false;
    const struct part_weight *w = place_part(s, p);
    if (w) return part_tensor_name(f, s, p, w, out, cap);
    return p.slot == SLOT_COE_WEIGHT && name_beside_router(f, p, "coe_weight", out, cap);
}

bool family_name(const struct family *f, const struct spec *s, struct place p, int which, char *out, size_t cap)
{
    struct cut cut;
    return family_name_cut(f, s, p, which, out, cap, &cut);
}
