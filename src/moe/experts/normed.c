/* normed.c — feed-forward experts whose outputs have one scale, behind a gate on the features of their input:
 *
 *     E_e(x) = swish(Norm(W2 (a(W1 x') ⊙ W3 x')))      x' = x ⊙ 1/M Σ_m 2 sigmoid(B_m A_m x)
 *
 * Paper: HoME, 2024 (card: routing.md 28): no expert's output fades or dominates, and each chooses what it reads. The
 * paper normalises over the batch; here it is the root mean square of the row, without a weight, so that a token's
 * output depends on no other token and has a root mean square of one before the swish. A_m [rank, d], and B_m [d, rank]
 * from zero: the gates begin at one. M of them are averaged, so that this holds for any M. */
#include "moe/experts/rows.h"

enum { RANK, FEATURE_GATES, ACTIVATION };
enum { A = 0, B = 3, MAX_FEATURE_GATES = 3 };
static const char *const activations[] = { "swish", "none", NULL };
static const struct part_param params[] = {
    { "rank", "of the gate on the input's features; 0: no gate", NULL, 0, 65536, 8, true },
    { "gates", "such gates, averaged", NULL, 1, MAX_FEATURE_GATES, 1, true },
    { "activation", "behind the norm", activations, 0, 0, 0, false },
    { 0 },
};

/* A vector of n ones that lives as long as the pass */
static struct weight *ones(struct nn *c, int64_t n)
{
    struct weight *w = arena_push_zero(c->arena, sizeof *w);
    float *x = arena_push(c->arena, (size_t)n * sizeof *x);
    if (!w || !x) return NULL;
    for (int64_t i = 0; i < n; i++) x[i] = 1;
    *w = (struct weight){ .name = "ones", .type = DT_F32, .rows = 1, .cols = n, .data = x };
    return w;
}

static struct val *gated_features(struct nn *c, const struct expert_rows *rows, struct val *x)
{
    struct val *sum = NULL;
    const int32_t n = (int32_t)rows->range->param[FEATURE_GATES];
    if (!(rows->range->param[RANK] > 0)) return x;
    for (int32_t m = 0; m < n; m++) {
        struct val *u = experts_linear(c, x, rows->of, experts_weights(rows, A + m));
        struct val *y = nn_sigmoid_mul(c, x, experts_linear(c, u, rows->of, experts_weights(rows, B + m)));
        sum = sum ? nn_add(c, sum, y) : y;
        if (!sum) return NULL;
    }
    return nn_scale(c, sum, 2.0f / (float)n);
}

static struct val *body(struct nn *c, const struct expert_rows *rows)
{
    const struct moe_weights *w = rows->call->w;
    const int32_t e = rows->range->first;
    struct val *x = gated_features(c, rows, experts_inputs(c, rows));
    struct val *gate = experts_linear(c, x, rows->of, w->gate + e);
    struct val *up = gate && w->up ? experts_linear(c, x, rows->of, w->up + e) : NULL;
    struct val *u = gate && (up || !w->up) ? nn_act(c, rows->call->spec->act, gate, up) : NULL;
    if (u) experts_show_hidden(rows, u);
    const struct weight *one = ones(c, rows->call->x->cols);
    struct val *y = one ? nn_rmsnorm(c, experts_linear(c, u, rows->of, w->down + e), one, 0, 1e-6f) : NULL;
    return y && rows->range->param[ACTIVATION] == 0 ? nn_act(c, ACT_SILU, y, NULL) : y;
}

static coe_status run(struct nn *c, struct expert_call *call, const struct expert_range *g)
{
    return experts_composed(c, call, g, body);
}

static coe_status check(const struct moe_spec *m, const struct expert_range *r, const char *where)
{
    (void)r;
    if (m->act == ACT_SWIGLU_CLAMP || m->expert_bias || m->weigh_input)
        return coe_fail(COE_E_INPUT, "%s: normed experts with a clamp, biases or weighed inputs", where);
    return COE_OK;
}

static bool has_gate(const struct part_at *at, int32_t m)
{
    return at->param[RANK] > 0 && m < (int32_t)at->param[FEATURE_GATES];
}

static bool a_shape(const struct part_at *at, int64_t *rows, int64_t *cols, int32_t m)
{
    *rows = (int64_t)at->param[RANK], *cols = at->d_model;
    return has_gate(at, m);
}

static bool b_shape(const struct part_at *at, int64_t *rows, int64_t *cols, int32_t m)
{
    *rows = at->d_model, *cols = (int64_t)at->param[RANK];
    return has_gate(at, m);
}

static bool a0(const struct part_at *at, int64_t *rows, int64_t *cols) { return a_shape(at, rows, cols, 0); }
static bool a1(const struct part_at *at, int64_t *rows, int64_t *cols) { return a_shape(at, rows, cols, 1); }
static bool a2(const struct part_at *at, int64_t *rows, int64_t *cols) { return a_shape(at, rows, cols, 2); }
static bool b0(const struct part_at *at, int64_t *rows, int64_t *cols) { return b_shape(at, rows, cols, 0); }
static bool b1(const struct part_at *at, int64_t *rows, int64_t *cols) { return b_shape(at, rows, cols, 1); }
static bool b2(const struct part_at *at, int64_t *rows, int64_t *cols) { return b_shape(at, rows, cols, 2); }

static const struct part_weight weights[] = {
    { .name = "feature_A.weight", .scope = PART_OF_EXPERT, .shape = a0 },
    { .name = "feature_A.1.weight", .scope = PART_OF_EXPERT, .shape = a1 },
    { .name = "feature_A.2.weight", .scope = PART_OF_EXPERT, .shape = a2 },
    { .name = "feature_B.weight", .scope = PART_OF_EXPERT, .init = INIT_ZERO, .shape = b0 },
    { .name = "feature_B.1.weight", .scope = PART_OF_EXPERT, .init = INIT_ZERO, .shape = b1 },
    { .name = "feature_B.2.weight", .scope = PART_OF_EXPERT, .init = INIT_ZERO, .shape = b2 },
    { 0 },
};

static const struct expert_part normed = {
    .run = run, .check = check, .weights = weights, .wide = true, .matrices = true
};
COE_PART(expert, normed, .summary = "feed-forward expert with outputs of one scale and a gate on its input's features",
         .paper = "HoME, 2024", .card = "routing.md 28", .unit = "token", .params = params, .impl = &normed)
