/* cosine.c — experts as prototypes: z_e = cos(P x, c_e) / τ.
 *
 * Paper: On the Representation Collapse of Sparse Mixture of Experts (X-MoE), 2022 (no card; named in routing.md 6 as a
 * baseline). P [width, d] projects to a small space, width 0 compares in the space of x itself; c [E, width]. τ is a
 * setting, or a learned number of each layer that starts there. A vector of length 0 has cosine 0 with everything. */
#include <math.h>
#include <string.h>

#include "moe/moe.h"

enum { WIDTH, TEMPERATURE, LEARNED };
enum { PROJ, PROTOTYPES, TAU };
#define TAU_MIN 0.01f /* a learned temperature does not sharpen beyond it */
static const char *const temperatures[] = { "fixed", "learned", NULL };
static const struct part_param params[] = {
    { "width", "of the space in which they are compared; 0: that of the input", NULL, 0, 65536, 0, true },
    { "temperature", "divides the cosines", NULL, TAU_MIN, 100, 0.07, false },
    { "scale", "whether the temperature is learned from there", temperatures, 0, 0, 0, false },
    { 0 },
};

struct cosine_saved {
    struct val *x, *z; /* projected input [T, n]; cosines / τ [T, E] */
    const struct weight *c, *tau;
    float *prototype;             /* c in F32 */
    float *x_inverse, *c_inverse; /* 1 / length of each row; 0 for rows of length 0 */
    float temperature;
};

static float inverse_length(const float *x, int64_t n)
{
    const float square = kern->dot(x, x, n);
    return square > 0 ? 1.0f / sqrtf(square) : 0;
}

/* With a = 1/|x|, b = 1/|c|:  dx = Σ_e dz_e (a b c_e / τ - z_e a² x),  dc_e = Σ_t dz (a b x / τ - z b² c_e) */
static void cosine_back(struct nn *nn, void *saved)
{
    const struct cosine_saved *s = saved;
    const int64_t n = s->x->cols, experts = s->z->cols, rows = s->x->rows;
    const float *dz = s->z->grad;
    float *dx = dz ? nn_grad(nn, s->x) : NULL;
    if (!dx) return;
#pragma omp parallel for schedule(static) if (rows * experts * n > NN_ALONE_BELOW)
    for (int64_t t = 0; t < rows; t++)
        for (int64_t e = 0; e < experts; e++) {
            const float g = dz[t * experts + e], a = s->x_inverse[t], z = s->z->data[t * experts + e];
            kern->fma_row(dx + t * n, g * a * s->c_inverse[e] / s->temperature, s->prototype + e * n, n);
            kern->fma_row(dx + t * n, -g * z * a * a, s->x->data + t * n, n);
        }
#pragma omp parallel for schedule(static) if (s->c->grad && rows * experts * n > NN_ALONE_BELOW)
    for (int64_t e = 0; e < experts; e++)
        for (int64_t t = 0; s->c->grad && t < rows; t++) {
            const float g = dz[t * experts + e], b = s->c_inverse[e], z = s->z->data[t * experts + e];
            kern->fma_row(s->c->grad + e * n, g * s->x_inverse[t] * b / s->temperature, s->x->data + t * n, n);
            kern->fma_row(s->c->grad + e * n, -g * z * b * b, s->prototype + e * n, n);
        }
    if (!s->tau || !s->tau->grad || s->temperature <= TAU_MIN) return;
    float sum = 0;
    for (int64_t i = 0; i < rows * experts; i++) sum = fmaf(dz[i], s->z->data[i], sum);
    s->tau->grad[0] -= sum / s->temperature;
}

static bool make_room(struct cosine_saved *s, struct arena *a)
{
    const int64_t n = s->c->cols, experts = s->c->rows;
    s->prototype = arena_push(a, (size_t)(experts * n) * sizeof(float));
    s->x_inverse = arena_push(a, (size_t)s->x->rows * sizeof(float));
    s->c_inverse = arena_push(a, (size_t)experts * sizeof(float));
    return s->prototype && s->x_inverse && s->c_inverse;
}

static struct val *cosines(struct nn *nn, struct val *x, const struct weight *c, const struct weight *tau, float fixed)
{
    struct val *z = nn_val(nn, x->rows, c->rows);
    struct cosine_saved *s = z ? arena_push(nn->arena, sizeof *s) : NULL;
    if (!s) return NULL;
    *s = (struct cosine_saved){ .x = x, .z = z, .c = c, .tau = tau, .temperature = fixed };
    if (!make_room(s, nn->arena)) return NULL;
    if (tau) widen(&s->temperature, tau->data, tau->type, 1);
    s->temperature = COE_MAX(s->temperature, TAU_MIN);
    widen(s->prototype, c->data, c->type, weight_count(c));
    for (int64_t e = 0; e < c->rows; e++) s->c_inverse[e] = inverse_length(s->prototype + e * c->cols, c->cols);
    gemm_xwt(z->data, z->cols, x->data, x->cols, x->rows, c, NULL);
    for (int64_t t = 0; t < x->rows; t++) {
        s->x_inverse[t] = inverse_length(x->data + t * x->cols, x->cols);
        for (int64_t e = 0; e < z->cols; e++)
            z->data[t * z->cols + e] *= s->x_inverse[t] * s->c_inverse[e] / s->temperature;
    }
    return nn_record(nn, cosine_back, s) ? z : NULL;
}

static struct val *logits(const struct router_call *call)
{
    const struct weight *const *w = call->w->router_part[call->iteration];
    struct val *x = w[PROJ] ? nn_linear(call->pass->c, call->x, w[PROJ], NULL) : call->x;
    return x ? cosines(call->pass->c, x, w[PROTOTYPES], w[TAU], (float)call->spec->router.kind_param[TEMPERATURE])
             : NULL;
}

static bool proj_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    *rows = (int64_t)at->param[WIDTH], *cols = at->d_model;
    return *rows > 0;
}

static bool prototypes_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    *rows = at->spec->n_experts, *cols = at->param[WIDTH] > 0 ? (int64_t)at->param[WIDTH] : at->d_model;
    return true;
}

static bool tau_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    *rows = *cols = 1;
    return at->param[LEARNED] > 0;
}

static const struct part_weight weights[] = {
    { .name = "proj.weight", .scope = PART_OF_ITERATION, .shape = proj_shape },
    { .name = "prototypes", .scope = PART_OF_ITERATION, .by_expert = true, .shape = prototypes_shape },
    { .name = "temperature",
      .scope = PART_OF_ITERATION,
      .vector = true,
      .init = INIT_CONSTANT,
      .from_param = 1 + TEMPERATURE,
      .shape = tau_shape },
    { 0 },
};

static const struct router_part cosine = { .logits = logits, .weights = weights };
COE_PART(router, cosine, .summary = "cosine to a prototype of each expert, over a temperature", .paper = "X-MoE, 2022",
         .card = "routing.md 6", .unit = "token", .params = params, .impl = &cosine)
