/* gating_residual.c — logits with pathway memory: z = score(x) + W_g z_before.
 *
 * Paper: MoE++: Accelerating Mixture-of-Experts with Zero-Computation Experts, 2024 (card: routing.md 5). What is
 * carried on is z after the addition, so the memory reaches back through all decisions of a token: passes of a chain
 * and layers, all of as many experts. The first decision has no W_g [E, E]; W_g = 0, where it starts, is the router
 * without memory. `gate: two_layer` scores as the released model does. `norm_std` > 0 gives each token's logits that
 * standard deviation (n - 1) before the softmax; what is carried on is not normalised. */
#include <math.h>

#include "moe/routers/two_layer.h"

enum { GATE, WIDTH, NORM_STD };
enum { RESIDUAL, FC1, FC2 };
static const char *const gates[] = { "linear", "two_layer", NULL };
static const struct part_param params[] = {
    { "gate", "what scores the input", gates, 0, 0, 0, false },
    { "width", "hidden units of two_layer; MoE++ has eight for each expert", NULL, 1, 65536, 64, true },
    { "norm_std", "standard deviation of a token's logits; 0: as they are", NULL, 0, 1e6, 0, false },
    { 0 },
};

struct norm_saved {
    struct val *z, *y;
    float to;
};

static void mean_and_std(const float *z, int64_t n, float *mean, float *std)
{
    float sum = 0, square = 0;
    for (int64_t e = 0; e < n; e++) sum += z[e];
    *mean = sum / (float)n;
    for (int64_t e = 0; e < n; e++) square = fmaf(z[e] - *mean, z[e] - *mean, square);
    *std = sqrtf(square / (float)(n - 1));
}

/* y = to z / σ:  dz = (to / σ) (dy - (z - μ) ⟨dy, z⟩ / ((n - 1) σ²)) */
static void norm_back(struct nn *c, void *saved)
{
    const struct norm_saved *s = saved;
    const int64_t n = s->z->cols;
    float *dz = s->y->grad ? nn_grad(c, s->z) : NULL;
    for (int64_t t = 0; dz && t < s->z->rows; t++) {
        const float *z = s->z->data + t * n, *dy = s->y->grad + t * n;
        float mean, std, dot = 0;
        mean_and_std(z, n, &mean, &std);
        if (!(std > 0)) continue;
        for (int64_t e = 0; e < n; e++) dot = fmaf(dy[e], z[e], dot);
        for (int64_t e = 0; e < n; e++)
            dz[t * n + e] += s->to / std * (dy[e] - (z[e] - mean) * dot / ((float)(n - 1) * std * std));
    }
}

/* Equal logits have no deviation to scale: they become 0, which is equal too. */
static struct val *normalised(struct nn *c, struct val *z, float to)
{
    if (!z || !(to > 0)) return z;
    struct val *y = nn_val(c, z->rows, z->cols);
    struct norm_saved *s = y ? arena_push(c->arena, sizeof *s) : NULL;
    if (!s) return NULL;
    for (int64_t t = 0; t < z->rows; t++) {
        float mean, std;
        mean_and_std(z->data + t * z->cols, z->cols, &mean, &std);
        kern->scale(y->data + t * y->cols, z->data + t * z->cols, std > 0 ? to / std : 0, z->cols);
    }
    *s = (struct norm_saved){ z, y, to };
    return nn_record(c, norm_back, s) ? y : NULL;
}

static struct val *logits(const struct router_call *call)
{
    struct nn *c = call->pass->c;
    const struct weight *const *w = call->w->router_part[call->iteration];
    const double *param = call->spec->router.kind_param;
    struct val *z =
        param[GATE] > 0 ? router_two_layer(c, call->x, w[FC1], w[FC2], ROUTER_TANH) : router_scores(call, call->x);
    if (call->pass->carried) z = nn_add(c, z, nn_linear(c, call->pass->carried, w[RESIDUAL], NULL));
    return moe_carry(call->pass, z) ? normalised(c, z, (float)param[NORM_STD]) : NULL;
}

static bool residual_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    *rows = *cols = at->spec->n_experts;
    return !at->first;
}

static bool fc1_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    *rows = (int64_t)at->param[WIDTH], *cols = at->d_model;
    return at->param[GATE] > 0;
}

static bool fc2_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    *rows = at->spec->n_experts, *cols = (int64_t)at->param[WIDTH];
    return at->param[GATE] > 0;
}

static const struct part_weight weights[] = {
    { .name = "residual.weight",
      .scope = PART_OF_ITERATION,
      .couples = true,
      .init = INIT_ZERO,
      .shape = residual_shape },
    { .name = "fc1.weight", .scope = PART_OF_ITERATION, .shape = fc1_shape },
    { .name = "fc2.weight", .scope = PART_OF_ITERATION, .by_expert = true, .shape = fc2_shape },
    { 0 },
};

static bool linear_gate(const struct moe_spec *m) { return m->router.kind_param[GATE] == 0; }
static int64_t carries(const struct moe_spec *m, int64_t d_model)
{
    (void)d_model;
    return m->n_experts;
}

static coe_status check(const struct moe_spec *m, const char *where)
{
    if (m->router.kind_param[NORM_STD] > 0 && m->n_experts < 2)
        return coe_fail(COE_E_INPUT, "%s: norm_std of gating_residual needs two experts at least", where);
    return COE_OK;
}

static const struct router_part gating_residual = {
    .logits = logits, .weights = weights, .matrix = linear_gate, .carries = carries, .check = check
};
COE_PART(router, gating_residual, .summary = "logits of a token's last decision enter its next one",
         .paper = "MoE++, 2024", .card = "routing.md 5", .unit = "token", .params = params, .impl = &gating_residual)
