/* twin_moe.c — routing, experts, chain and balancing losses of the FP64 twin (twin.h). Jacobians are written out. */
#include "support/twin.h"

#include <math.h>
#include <string.h>

static double *zeros(int64_t n) { return test_alloc((size_t)n * sizeof(double)); }

/* ---- routing ---- */

static void scores(const struct moe_spec *s, const double *z, double *p)
{
    double sum = 0;
    for (int32_t e = 0; e < s->n_experts; e++) {
        p[e] = s->router.score == SCORE_SIGMOID ? 1 / (1 + exp(-z[e])) : exp(z[e]);
        sum += p[e];
    }
    for (int32_t e = 0; e < s->n_experts && s->router.score == SCORE_SOFTMAX; e++) p[e] /= sum;
}

/* Score of a group: its best, or its two best added */
static double group_score(const struct moe_spec *s, const double *c, int32_t size)
{
    double best = -INFINITY, pair = -INFINITY;
    for (int32_t i = 0; i < size; i++) {
        best = fmax(best, c[i]);
        for (int32_t j = 0; j < i; j++) pair = fmax(pair, c[i] + c[j]);
    }
    return s->router.group_score == GROUP_MAX || size < 2 ? best : pair;
}

/* Marks the n largest of c[m], lower index first among equals. */
static void mark_best(const double *c, int32_t m, int32_t n, uint8_t *mark)
{
    for (int32_t i = 0; i < n; i++) {
        int32_t best = -1;
        for (int32_t e = 0; e < m; e++)
            if (!mark[e] && c[e] > -INFINITY && (best < 0 || c[e] > c[best])) best = e;
        if (best >= 0) mark[best] = 1;
    }
}

static void choose(const struct moe_spec *s, const double *z, const double *p, const double *bias, uint8_t *chosen)
{
    const int32_t n = s->n_experts, groups = s->router.n_group, size = n / groups;
    double *c = zeros(n), *value = zeros(groups);
    uint8_t *kept = test_alloc((size_t)groups);
    for (int32_t e = 0; e < n; e++) c[e] = z[e] == -INFINITY ? -INFINITY : p[e] + (bias ? bias[e] : 0);
    for (int32_t g = 0; g < groups; g++) value[g] = group_score(s, c + g * size, size);
    mark_best(value, groups, s->router.topk_group, kept);
    for (int32_t e = 0; e < n; e++)
        if (!kept[e / size]) c[e] = -INFINITY;
    mark_best(c, n, s->router.top_k, chosen);
}

static double chosen_sum(const struct twin_route *r, const double *p, const uint8_t *chosen)
{
    double sum = 0;
    for (int32_t e = 0; e < r->spec->n_experts; e++) sum += chosen[e] ? p[e] : 0;
    return sum;
}

/* What weights are divided by: the sum of the chosen, or the floor under it, which is a constant */
static bool at_floor(const struct twin_route *r, const double *p, const uint8_t *chosen)
{
    return chosen_sum(r, p, chosen) < (double)r->spec->router.renorm_min;
}

static double chosen_total(const struct twin_route *r, const double *p, const uint8_t *chosen)
{
    if (!r->spec->router.renormalize) return 1;
    if (at_floor(r, p, chosen)) return (double)r->spec->router.renorm_min;
    return chosen_sum(r, p, chosen) + (double)r->spec->router.renorm_eps;
}

/* dz_j = Σ_i dp_i ∂p_i/∂z_j */
static void through_scores(const struct moe_spec *s, const double *p, const double *dp, double *dz)
{
    for (int32_t i = 0; i < s->n_experts; i++)
        for (int32_t j = 0; j < s->n_experts; j++)
            dz[j] += dp[i] *
                     (s->router.score == SCORE_SIGMOID ? (i == j) * p[i] * (1 - p[i]) : p[i] * ((i == j) - p[j]));
}

/* g_e = c p_e / D, D = Σ_chosen p + eps or 1: ∂g_e/∂p_i = c (δ_ei / D - p_e / D²) among the chosen (second term with D)
 */
static void route_back(void *saved)
{
    const struct twin_route *r = saved;
    const int32_t n = r->spec->n_experts;
    const double c = (double)r->spec->router.scale;
    for (int64_t t = 0; t < r->z->rows; t++) {
        const double *p = r->p + t * n, *dg = r->gates->g + t * n;
        const uint8_t *chosen = r->chosen + t * n;
        const double total = chosen_total(r, p, chosen);
        const bool shared = r->spec->router.renormalize && !at_floor(r, p, chosen); /* the divisor moves with p */
        double *dp = zeros(n);
        for (int32_t e = 0; e < n; e++)
            for (int32_t i = 0; i < n; i++)
                if (chosen[e] && chosen[i])
                    dp[i] += dg[e] * c * ((e == i) / total - (shared ? p[e] / (total * total) : 0));
        through_scores(r->spec, p, dp, r->z->g + t * n);
    }
}

struct twin_route *twin_route(const struct moe_spec *spec, struct tv *z, const double *selection_bias,
                              const struct twin_route *frozen)
{
    struct twin_route *r = test_alloc(sizeof *r);
    const int32_t n = spec->n_experts;
    *r = (struct twin_route){ spec, z, twin_leaf(zeros(z->rows * n), z->rows, n), zeros(z->rows * n), NULL, NULL };
    r->chosen = frozen ? frozen->chosen : test_alloc((size_t)(z->rows * n));
    r->first = frozen ? frozen->first : test_alloc((size_t)z->rows * sizeof *r->first);
    for (int64_t t = 0; t < z->rows; t++) {
        double *p = r->p + t * n;
        uint8_t *chosen = r->chosen + t * n;
        scores(spec, z->x + t * n, p);
        if (!frozen) choose(spec, z->x + t * n, p, selection_bias, chosen);
        const double total = chosen_total(r, p, chosen);
        for (int32_t e = 0; e < n; e++)
            r->gates->x[t * n + e] = chosen[e] ? (double)spec->router.scale * p[e] / total : 0;
        for (int32_t e = 1; e < n && !frozen; e++)
            if (r->gates->x[t * n + e] > r->gates->x[t * n + r->first[t]]) r->first[t] = e;
    }
    twin_note(route_back, r);
    return r;
}

/* ---- losses: coef · norm · Σ_e f_e P_e over sets of (record, token), and z ---- */

struct loss_note {
    struct tv *y;
    double coef;
    struct twin_route *const *records;
    int32_t n_records;
    int64_t first, end, count; /* tokens of every record; how many (record, token) pairs count */
    const uint8_t *counted;
    double *f; /* [E], with the norm */
};

static bool counts(const uint8_t *counted, int64_t t) { return !counted || counted[t]; }

/* q = p / Σ p for sigmoid scores, p for softmax */
static double total_score(const struct twin_route *r, const double *p)
{
    double sum = 0;
    for (int32_t e = 0; e < r->spec->n_experts; e++) sum += p[e];
    return r->spec->router.score == SCORE_SIGMOID ? sum : 1;
}

static void set_back(void *saved)
{
    const struct loss_note *l = saved;
    for (int32_t i = 0; i < l->n_records; i++) {
        const struct twin_route *r = l->records[i];
        const int32_t n = r->spec->n_experts;
        for (int64_t t = l->first; t < l->end; t++) {
            if (!counts(l->counted, t)) continue;
            const double *p = r->p + t * n, total = total_score(r, p);
            double *dp = zeros(n);
            for (int32_t e = 0; e < n; e++)
                for (int32_t j = 0; j < n; j++) {
                    const double slope = (e == j) / total -
                                         (r->spec->router.score == SCORE_SIGMOID ? p[e] / (total * total) : 0);
                    dp[j] += l->y->g[0] * l->coef * l->f[e] / (double)l->count * slope;
                }
            through_scores(r->spec, p, dp, r->z->g + t * n);
        }
    }
}

/* Scalar of one set; f [E] given (the norm is multiplied in here) or, NULL, assignments per pair of the set. */
static struct tv *balance(double coef, double norm, struct twin_route *const *records, int32_t n_records, int64_t first,
                          int64_t end, const uint8_t *counted, const double *f)
{
    const int32_t n = records[0]->spec->n_experts;
    struct loss_note *l = test_alloc(sizeof *l);
    *l = (struct loss_note){ twin_leaf(zeros(1), 1, 1), coef, records, n_records, first, end, 0, counted, zeros(n) };
    double *sum = zeros(n);
    for (int32_t i = 0; i < n_records; i++)
        for (int64_t t = first; t < end; t++) {
            if (!counts(counted, t)) continue;
            const double *p = records[i]->p + t * n;
            l->count++;
            for (int32_t e = 0; e < n; e++) {
                sum[e] += p[e] / total_score(records[i], p);
                l->f[e] += records[i]->chosen[t * n + e];
            }
        }
    if (!l->count) return l->y;
    for (int32_t e = 0; e < n; e++) {
        l->f[e] = norm * (f ? f[e] : l->f[e] / (double)l->count);
        l->y->x[0] += coef * l->f[e] * sum[e] / (double)l->count;
    }
    twin_note(set_back, l);
    return l->y;
}

static void z_back(void *saved)
{
    const struct loss_note *l = saved;
    const struct twin_route *r = l->records[0];
    const int32_t n = r->spec->n_experts;
    for (int64_t t = 0; t < r->z->rows; t++) {
        double sum = 0;
        if (!counts(l->counted, t)) continue;
        for (int32_t e = 0; e < n; e++) sum += exp(r->z->x[t * n + e]);
        for (int32_t e = 0; e < n; e++)
            r->z->g[t * n + e] += l->y->g[0] * l->coef * 2 * log(sum) * exp(r->z->x[t * n + e]) / sum /
                                  (double)l->count;
    }
}

static struct tv *z_loss(double coef, struct twin_route *const *record, const uint8_t *counted)
{
    const struct twin_route *r = record[0];
    struct loss_note *l = test_alloc(sizeof *l);
    *l = (struct loss_note){ twin_leaf(zeros(1), 1, 1), coef, record, 1, 0, r->z->rows, 0, counted, NULL };
    double square = 0;
    for (int64_t t = 0; t < r->z->rows; t++) {
        double sum = 0;
        if (!counts(counted, t)) continue;
        for (int32_t e = 0; e < r->spec->n_experts; e++) sum += exp(r->z->x[t * r->spec->n_experts + e]);
        square += log(sum) * log(sum);
        l->count++;
    }
    if (l->count) l->y->x[0] = coef * square / (double)l->count;
    twin_note(z_back, l);
    return l->y;
}

/* f of first choices, or of all choices of the step so far per slot */
static double *special_f(const struct twin_route *r, const uint8_t *counted, const uint64_t *step_counts,
                         uint64_t step_tokens, bool first_only)
{
    const int32_t n = r->spec->n_experts;
    double *f = zeros(n), tokens = first_only ? 0 : (double)step_tokens;
    for (int64_t t = 0; t < r->z->rows; t++) {
        if (!counts(counted, t)) continue;
        tokens++;
        for (int32_t e = 0; e < n; e++) f[e] += first_only ? r->first[t] == e : r->chosen[t * n + e];
    }
    for (int32_t e = 0; e < n && !first_only && step_counts; e++) f[e] += (double)step_counts[e];
    for (int32_t e = 0; e < n; e++) f[e] /= fmax(tokens, 1) * (first_only ? 1 : r->spec->router.top_k);
    return f;
}

static struct tv *one_record(const struct loss_spec *loss, struct twin_route *const *record,
                             const struct attn_batch *batch, const uint8_t *counted, const uint64_t *step_counts,
                             uint64_t step_tokens)
{
    const struct twin_route *r = record[0];
    const double n = r->spec->n_experts, k = r->spec->router.top_k;
    const int64_t all = r->z->rows;
    if (!strcmp(loss->kind, "switch")) return balance(loss->coef, n, record, 1, 0, all, counted, NULL);
    if (!strcmp(loss->kind, "assign")) return balance(loss->coef, n / k, record, 1, 0, all, counted, NULL);
    if (!strcmp(loss->kind, "z")) return z_loss(loss->coef, record, counted);
    if (!strcmp(loss->kind, "sequence")) {
        struct tv *sum = twin_leaf(zeros(1), 1, 1);
        for (int32_t b = 0; b < batch->n_seq; b++)
            sum = twin_add(sum, balance(loss->coef / batch->n_seq, n / k, record, 1, batch->off[b], batch->off[b + 1],
                                        counted, NULL));
        return sum;
    }
    const bool first_only = !strcmp(loss->kind, "gshard");
    if (!first_only) assert_string_equal(loss->kind, "global");
    return balance(loss->coef, n, record, 1, 0, all, counted,
                   special_f(r, counted, step_counts, step_tokens, first_only));
}

struct tv *twin_loss(const struct loss_spec *loss, struct twin_route *const *records, int32_t n_records,
                     const struct attn_batch *batch, const uint8_t *counted, const uint64_t *step_counts,
                     uint64_t step_tokens)
{
    struct tv *sum = twin_leaf(zeros(1), 1, 1);
    if (!strcmp(loss->kind, "hf"))
        return balance(loss->coef, records[0]->spec->n_experts, records, n_records, 0, records[0]->z->rows, counted,
                       NULL);
    for (int32_t i = 0; i < n_records; i++) {
        const uint64_t *earlier = step_counts ? step_counts + (int64_t)i * records[i]->spec->n_experts : NULL;
        sum = twin_add(sum, one_record(loss, records + i, batch, counted, earlier, step_tokens));
    }
    return sum;
}

/* ---- the layer ---- */

struct column {
    struct tv *y, *gates, *out;
    int32_t expert;
};

static void column_back(void *saved)
{
    const struct column *c = saved;
    for (int64_t t = 0; t < c->y->rows; t++)
        for (int64_t j = 0; j < c->y->cols; j++) {
            const int64_t at = t * c->y->cols + j, gate = t * c->gates->cols + c->expert;
            c->gates->g[gate] += c->y->g[at] * c->out->x[at];
            c->out->g[at] += c->y->g[at] * c->gates->x[gate];
        }
}

/* y_t = gates[t, e] · out_t */
static struct tv *weighted(struct tv *gates, int32_t expert, struct tv *out)
{
    struct column *c = test_alloc(sizeof *c);
    *c = (struct column){ twin_leaf(zeros(out->rows * out->cols), out->rows, out->cols), gates, out, expert };
    for (int64_t i = 0; i < out->rows * out->cols; i++)
        c->y->x[i] = gates->x[i / out->cols * gates->cols + expert] * out->x[i];
    twin_note(column_back, c);
    return c->y;
}

static struct tv *bias_of(struct tv *const *row, int32_t e) { return row ? row[e] : NULL; }

struct added_note {
    const struct twin_route *r;
    struct tv *gates, *added;
};

static void added_back(void *saved)
{
    const struct added_note *a = saved;
    for (int64_t i = 0; i < a->gates->rows * a->gates->cols; i++) {
        a->r->gates->g[i] += a->gates->g[i];
        if (a->r->chosen[i]) a->added->g[i] += a->gates->g[i] * (double)a->r->spec->router.scale;
    }
}

/* The gates of the chosen, raised by what the router left */
static struct tv *raised(const struct twin_route *r, struct tv *added)
{
    struct added_note *a = test_alloc(sizeof *a);
    if (!added) return r->gates;
    const int64_t n = added->rows * added->cols;
    *a = (struct added_note){ r, twin_leaf(zeros(n), added->rows, added->cols), added };
    for (int64_t i = 0; i < n; i++)
        a->gates->x[i] = r->gates->x[i] + (r->chosen[i] ? added->x[i] * (double)r->spec->router.scale : 0);
    twin_note(added_back, a);
    return a->gates;
}

static struct tv *one_pass(const struct moe_spec *s, struct twin_moe *w, int32_t t, struct tv *x,
                           struct twin_list *made, const struct twin_list *frozen)
{
    struct tv *z = twin_router(s, w, t, x), *y = twin_leaf(zeros(x->rows * x->cols), x->rows, x->cols);
    struct twin_route *r = twin_route(s, z, w->selection_bias[t] ? w->selection_bias[t]->x : NULL,
                                      frozen ? frozen->records[made->n] : NULL);
    made->records[made->n++] = r;
    struct tv *gates = raised(r, w->added);
    twin_clamp_limit = (double)s->act_limit;
    struct tv *seen = twin_scale(x, (double)s->input_scale);
    for (int32_t e = 0; e < s->n_experts; e++) { /* every expert on every token; the gates of the others are 0 */
        const struct expert_range range = moe_range_of(s, e);
        if (!moe_kind(&range)->matrices || !strcmp(range.kind, "normed")) {
            y = twin_add(y, weighted(gates, e, twin_expert(s, w, e, seen, r)));
            continue;
        }
        struct tv *up = w->up ? twin_linear(seen, w->up[e], bias_of(w->up_bias, e)) : NULL;
        struct tv *u = twin_act(s->act, twin_linear(seen, w->gate[e], bias_of(w->gate_bias, e)), up);
        y = twin_add(y, weighted(gates, e, twin_linear(u, w->down[e], bias_of(w->down_bias, e))));
    }
    if (s->out_bias) y = twin_add_row(y, w->out_bias);
    if (!s->shared_ffn) return y;
    struct tv *u = twin_act(s->act, twin_linear(x, w->shared_gate, NULL), twin_linear(x, w->shared_up, NULL));
    struct tv *shared = twin_linear(u, w->shared_down, NULL);
    if (s->shared_gate) shared = twin_sigmoid_gate(shared, twin_linear(x, w->shared_expert_gate, NULL));
    return twin_add(y, shared);
}

struct tv *twin_moe_layer(const struct moe_spec *s, const struct twin_moe *weights, struct tv *h, struct tv *x0,
                          struct twin_list *made, const struct twin_list *frozen)
{
    struct twin_moe copy = *weights, *w = &copy;
    const enum residual_mode mode = s->chain.residual;
    const bool inner = mode == RESIDUAL_INNER || mode == RESIDUAL_BOTH,
               outer = mode == RESIDUAL_OUTER || mode == RESIDUAL_BOTH;
    struct tv *x = x0, *sum = twin_leaf(zeros(h->rows * h->cols), h->rows, h->cols);
    for (int32_t t = 0; t < s->chain.n_iterations; t++) {
        struct tv *y = one_pass(s, w, t, x, made, frozen);
        if (mode == RESIDUAL_PRENORM) {
            const bool learned = s->chain.learned_weight && t < s->chain.n_iterations - 1;
            sum = twin_add_scaled(sum, y, 1, learned ? w->coe_weight : NULL);
            x = twin_add(x0, sum);
        } else {
            x = inner ? twin_add(x, y) : y;
        }
    }
    if (mode == RESIDUAL_PRENORM) return twin_add(h, sum);
    return outer ? twin_add(x, h) : x;
}
