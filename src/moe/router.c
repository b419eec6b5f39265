/* router.c — from router logits to a route, and back: activation, mask, bias, group constraint, selection, weights.
 *
 * Forward, per token (sums over experts are one chain in ascending id; a masked expert adds +0):
 *   softmax   p = exp(z - max) / Σ exp(z - max)           sigmoid   p = σ(z)
 *   choose from p + b, outside the best groups -inf
 *   weight    g = scale · p_e,  or  scale · p_e / (Σ_chosen p + eps),  or  scale (unit_weights);  + scale · added_e
 * Backward (systems.md part D, modes A, B, C; the choice is constant), with D = scale·dg on the chosen:
 *   dp = D,  or  (D - Σ_j D_j g̃_j) / (Σ_chosen p + eps)  with g̃ = p / (Σ + eps);  then through the activation. */
#include <math.h>
#include <string.h>

#include "moe/capacity.h"

const char *const score_name[2] = { "softmax", "sigmoid" };
const char *const group_score_name[2] = { "max", "sum2" };
const char *const capacity_order_name[3] = { "position", "best", "score" };
const char *const residual_name[5] = { "prenorm", "inner", "outer", "both", "neither" };

/* A plan has masked the expert, or the token's task does not see it. */
static bool is_hidden(const struct route_hook *hook, const float *z, int32_t e)
{
    return z[e] == -INFINITY || (hook && hook->keep && !hook->keep[e]);
}

static void activate(const struct moe_spec *spec, const struct route_hook *hook, const float *z, float *p, int32_t n)
{
    float max = -INFINITY, sum = 0;
    int32_t seen = 0;
    for (int32_t e = 0; e < n; e++) {
        if (is_hidden(hook, z, e)) continue;
        seen++;
        if (z[e] > max) max = z[e];
    }
    if (spec->router.score == SCORE_SIGMOID) kern->sigmoid(p, z, n);
    else if (seen) kern->exp(p, z, max, n);
    for (int32_t e = 0; e < n; e++) {
        if (is_hidden(hook, z, e)) p[e] = 0;
        sum += p[e];
    }
    for (int32_t e = 0; seen && spec->router.score == SCORE_SOFTMAX && e < n; e++) p[e] /= sum;
}

static float group_value(enum group_score kind, const float *s, int32_t n)
{
    float best = -INFINITY, second = -INFINITY;
    for (int32_t i = 0; i < n; i++) {
        if (s[i] > best) second = best, best = s[i];
        else if (s[i] > second) second = s[i];
    }
    /* second stays -inf when the group has one expert left: a masked group scores like the smaller one it stands for */
    return kind == GROUP_MAX || second == -INFINITY ? best : best + second;
}

/* Scores outside the topk_group best groups become -inf; equal groups: the lower one stays. */
static void keep_best_groups(const struct router_spec *r, float *s, int32_t n)
{
    const int32_t size = n / r->n_group;
    float value[1024];
    for (int32_t g = 0; g < r->n_group; g++) value[g] = group_value(r->group_score, s + g * size, size);
    for (int32_t g = 0; g < r->n_group; g++) {
        int32_t better = 0;
        for (int32_t o = 0; o < r->n_group; o++) better += value[o] > value[g] || (value[o] == value[g] && o < g);
        if (better >= r->topk_group)
            for (int32_t i = 0; i < size; i++) s[g * size + i] = -INFINITY;
    }
}

static void selection_scores(const struct moe_spec *spec, const struct route_hook *hook, const float *bias,
                             const float *z, const float *p, float *s, int32_t n)
{
    for (int32_t e = 0; e < n; e++)
        s[e] = is_hidden(hook, z, e) ? -INFINITY : bias ? p[e] + bias[e] : p[e];
    if (spec->router.n_group > 1) keep_best_groups(&spec->router, s, n);
}

/* Σ of the chosen scores in ascending expert id: each round adds the lowest id not yet added */
static float chosen_sum(const float *score, const int32_t *expert, int32_t n)
{
    float sum = 0;
    for (int32_t last = -1, round = 0; round < n; round++) {
        int32_t at = -1;
        for (int32_t i = 0; i < n; i++)
            if (expert[i] > last && (at < 0 || expert[i] < expert[at])) at = i;
        last = expert[at];
        sum += score[at];
    }
    return sum;
}

static float divisor(const struct router_spec *r, const float *score, const int32_t *expert, int32_t n)
{
    const float sum = chosen_sum(score, expert, n);
    return sum < r->renorm_min ? r->renorm_min : sum + r->renorm_eps;
}

/* Weights are shares of the chosen scores, or have the gradient of shares. */
static bool by_share(const struct router_spec *r) { return r->renormalize || r->unit_weights; }

static void fill_weights(const struct route_record *rec, struct route *out)
{
    const struct router_spec *r = &rec->spec->router;
    const float *expert_scale = rec->expert_scale ? rec->expert_scale->data : NULL;
    const float *bias = r->bias_in_weights && rec->selection_bias ? rec->selection_bias->data : NULL;
    COE_SPREAD(out->n_tokens > 256, for (int32_t t = 0; t < out->n_tokens; t++), {
        const int32_t from = out->tok_off[t], n = out->tok_off[t + 1] - from;
        for (int32_t i = from; i < from + n; i++) {
            out->score[i] = rec->p[(int64_t)t * out->n_experts + out->expert[i]];
            if (bias) out->score[i] += bias[out->expert[i]];
        }
        float sum = r->renormalize ? divisor(r, out->score + from, out->expert + from, n) : 1.0f;
        for (int32_t i = from; i < from + n; i++) {
            float g = r->renormalize ? out->score[i] / sum : out->score[i];
            if (r->unit_weights) g = 1;
            if (rec->added) g += rec->added->data[(int64_t)t * out->n_experts + out->expert[i]];
            if (expert_scale) g *= expert_scale[out->expert[i]];
            out->weight[i] = g * r->scale;
        }
    });
}

/* dp of one token from the gradients of its weights */
static void weights_back(const struct router_spec *r, const struct route *rt, int32_t t, float *dp)
{
    const int32_t from = rt->tok_off[t], n = rt->tok_off[t + 1] - from;
    const float scale = r->unit_weights ? r->scale * (float)n : r->scale;
    if (!by_share(r)) {
        for (int32_t i = from; i < from + n; i++) dp[rt->expert[i]] += scale * rt->weight_grad[i];
        return;
    }
    const float sum = divisor(r, rt->score + from, rt->expert + from, n);
    float mean = 0; /* a sum below its floor is a constant */
    const bool at_floor = r->renorm_min > 0 && chosen_sum(rt->score + from, rt->expert + from, n) < r->renorm_min;
    for (int32_t i = from; i < from + n && !at_floor; i++) mean += scale * rt->weight_grad[i] * (rt->score[i] / sum);
    for (int32_t i = from; i < from + n; i++) dp[rt->expert[i]] += (scale * rt->weight_grad[i] - mean) / sum;
}

static void added_back(const struct route_record *rec, const struct route *rt, int32_t t, float *dadded)
{
    for (int32_t i = rt->tok_off[t]; i < rt->tok_off[t + 1]; i++)
        dadded[(int64_t)t * rt->n_experts + rt->expert[i]] += rec->spec->router.scale * rt->weight_grad[i];
}

/* The route whose weights were made from the scores: with weigh_first the choice before drops. */
static struct route *weighed_route(struct route_record *rec)
{
    return rec->wanted.tok_off && rec->spec->router.capacity.weigh_first ? &rec->wanted : &rec->route;
}

static void route_back(struct nn *c, void *saved)
{
    struct route_record *rec = saved;
    const int32_t n = rec->route.n_experts;
    float *dz = nn_grad(c, rec->z);
    if (!dz) return;
    if (weighed_route(rec) == &rec->wanted) capacity_back(rec);
    float *dadded = rec->added ? nn_grad(c, rec->added) : NULL;
    if (rec->added && !dadded) return;
    struct arena_mark mark = arena_save(c->arena);
    float *scratch = arena_push(c->arena, (size_t)coe_threads() * (size_t)n * sizeof(float));
    if (!scratch) return;
#pragma omp parallel for schedule(static)
    for (int32_t t = 0; t < rec->route.n_tokens; t++) {
        float *dp = scratch + (int64_t)thread_index() * n, *out = dz + (int64_t)t * n;
        const float *p = rec->p + (int64_t)t * n;
        memset(dp, 0, (size_t)n * sizeof(float));
        if (!rec->route.weighed) weights_back(&rec->spec->router, weighed_route(rec), t, dp);
        if (dadded) added_back(rec, weighed_route(rec), t, dadded);
        if (rec->spec->router.score == SCORE_SIGMOID) {
            for (int32_t e = 0; e < n; e++) out[e] += dp[e] * p[e] * (1.0f - p[e]);
        } else {
            float mean = 0;
            for (int32_t e = 0; e < n; e++) mean = fmaf(p[e], dp[e], mean);
            for (int32_t e = 0; e < n; e++) out[e] += p[e] * (dp[e] - mean);
        }
        if (rec->dz) kern->add(out, rec->dz + (int64_t)t * n, n);
    }
    arena_rewind(c->arena, mark);
}

/* Weights by renormalize and scale, before or after what does not fit is dropped. */
static coe_status drop_and_weigh(struct nn *c, struct route_record *rec)
{
    const struct router_spec *r = &rec->spec->router;
    const bool limited = (r->capacity.factor > 0 || r->capacity.tokens > 0) && (r->capacity.always || c->tape);
    const bool drops = limited || moe_has_null(rec->spec), before = !drops || r->capacity.weigh_first;
    if (before && !rec->route.weighed) fill_weights(rec, &rec->route);
    if (drops) COE_TRY(capacity_drop(c, rec, limited));
    if (!before && !rec->route.weighed) fill_weights(rec, &rec->route);
    return COE_OK;
}

coe_status moe_route(struct nn *c, struct route_record *rec, const struct moe_spec *spec, struct val *z,
                     const struct weight *selection_bias, const struct route_hook *hook)
{
    if (!z) return coe_last_status();
    const struct selection_part *selection = part_find("selection", spec->router.selection)->impl;
    const int32_t n = (int32_t)z->cols, tokens = (int32_t)z->rows;
    int32_t k = spec->router.top_k;
    if (rec->expert_scale && nn_forward_only(c, "a router with factors of its experts")) return COE_E_USAGE;
    if (hook && hook->keep) k = COE_MIN(k, COE_MAX(1, spec->router.topk_group * (hook->n_kept / spec->router.n_group)));
    rec->spec = spec;
    rec->z = z;
    rec->selection_bias = selection_bias;
    rec->p = arena_push(c->arena, (size_t)z->rows * (size_t)n * sizeof(float));
    if (!rec->p) return COE_E_NOMEM;
    COE_TRY(
        route_make(&rec->route, c->arena, tokens, n, selection->max_slots(&spec->router, tokens, n), c->tape != NULL));
    const bool plain =
        !selection_bias && spec->router.n_group <= 1 && !(hook && hook->keep) && !moe_router(spec)->masks;
    struct arena_mark mark = arena_save(c->arena);
    float *s = plain ? rec->p : arena_push(c->arena, (size_t)z->rows * (size_t)n * sizeof(float));
    if (!s) return COE_E_NOMEM;
    const float *bias = selection_bias ? selection_bias->data : NULL;
    COE_SPREAD(tokens > 64, for (int32_t t = 0; t < tokens; t++), {
        activate(spec, hook, z->data + (int64_t)t * n, rec->p + (int64_t)t * n, n);
        if (!plain) selection_scores(spec, hook, bias, z->data + (int64_t)t * n, rec->p + (int64_t)t * n,
                                     s + (int64_t)t * n, n);
    });
    COE_TRY(selection->choose(&(struct selection_call){ c, spec, k, s, rec->p, z->data, rec, &rec->route }));
    arena_rewind(c->arena, mark);
    COE_TRY(drop_and_weigh(c, rec));
    route_index(&rec->route);
    return nn_record(c, route_back, rec) ? COE_OK : COE_E_NOMEM;
}

struct route_record *moe_route_attention(struct nn *c, const struct moe_spec *spec, const struct weight *router,
                                         int32_t layer, const struct attn_batch *batch, struct val *x)
{
    struct route_record *rec = arena_push_zero(c->arena, sizeof *rec);
    if (!rec) return NULL;
    rec->layer = layer;
    rec->of_attention = true;
    rec->batch = batch;
    const coe_math math = c->math;
    c->math = COE_MATH_FP32; /* as in layer.c */
    struct val *z = nn_linear(c, x, router, NULL);
    c->math = math;
    return moe_route(c, rec, spec, z, NULL, NULL) ? NULL : rec;
}
