/* erc.c — a router row shall excite its own expert more than it excites others, and more than others excite that
 * expert.
 *
 * Paper: Coupling Experts and Routers in MoE via an Auxiliary Loss (ERC), 2025 (card: routing.md 12c). With R_i the
 * router's rows, W_j the gate matrix of expert j (before the activation), M_ij = |W_j R~_i| and
 *     eps_i = min_{j≠i} |R_i - R_j| / (2 |R_i|), at most 1;   R~_i = R_i · delta, delta ~ U(1 - eps_i, 1 + eps_i)
 *     L = 1/n² Σ_i Σ_{j≠i} max(M_ij - alpha M_ii, 0) + max(M_ji - alpha M_ii, 0)
 * Mean over layers and chain iterations; gradients go to the router and the gate matrices, eps and delta are constants.
 * No token is looked at: the cost is 2 n² F d for a layer, whatever the batch. delta is a function of (seed, step,
 * layer, iteration); `noise: 0` leaves it out. */
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "moe/losses/weights.h"
#include "tensor/low_rank.h"

enum { ALPHA, NOISE };

static double row_distance(const float *a, const float *b, int64_t d)
{
    double sum = 0;
    for (int64_t i = 0; i < d; i++) sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sqrt(sum);
}

/* Half the distance to the nearest other row over the row's length, at most 1: the factors stay above 0. */
static double spread_of(const float *rows, int32_t n, int64_t d, int32_t i)
{
    const double length = sqrt((double)kern->sumsq(rows + i * d, d));
    double nearest = INFINITY;
    for (int32_t j = 0; j < n; j++)
        if (j != i) nearest = COE_MIN(nearest, row_distance(rows + i * d, rows + j * d, d));
    return length > 0 ? COE_MIN(nearest / (2 * length), 1) : 0;
}

/* delta [n, d], and rows times it in place */
static void perturb(const struct loss_call *c, const struct route_record *r, float *rows, float *delta, int32_t n,
                    int64_t d)
{
    const uint64_t place = (uint64_t)r->layer * MAX_ITERATIONS + (uint64_t)r->iteration;
    const uint64_t stream = rng_stream(RNG_ROUTE, (uint64_t)3 << 52 ^ place << 36 ^ c->c->step);
    for (int32_t i = 0; i < n; i++) {
        const double eps = c->param[NOISE] * spread_of(rows, n, d, i);
        for (int64_t k = 0; k < d; k++) {
            const double u = rng_unit(rng_at(c->c->seed, stream, (uint64_t)(i * d + k)));
            delta[i * d + k] = (float)(1 + eps * (2 * u - 1));
        }
    }
    for (int64_t k = 0; k < n * d; k++) rows[k] *= delta[k]; /* behind all distances, which are those of R */
}

/* Value of L; dm [n, n] its gradient by M */
static double coupling(const double *m, double *dm, int32_t n, double alpha)
{
    double sum = 0;
    memset(dm, 0, (size_t)n * (size_t)n * sizeof *dm);
    for (int32_t i = 0; i < n; i++)
        for (int32_t j = 0; j < n; j++) {
            const int32_t pair[2] = { i * n + j, j * n + i }, own = i * n + i;
            for (int k = 0; k < 2 && j != i; k++) {
                const double excess = m[pair[k]] - alpha * m[own];
                if (excess <= 0) continue;
                sum += excess;
                dm[pair[k]] += 1;
                dm[own] -= alpha;
            }
        }
    return sum;
}

struct scratch {
    float *rows, *delta, *u, *back; /* [n, d], [n, d], [n, F] for every expert, [n, d] */
    double *m, *dm;                 /* [n, n] */
};

static bool make(struct scratch *s, struct arena *a, size_t n, size_t d, size_t f)
{
    s->rows = arena_push(a, n * d * sizeof *s->rows);
    s->delta = arena_push(a, n * d * sizeof *s->delta);
    s->back = arena_push_zero(a, n * d * sizeof *s->back);
    s->u = arena_push(a, n * n * f * sizeof *s->u);
    s->m = arena_push(a, n * n * sizeof *s->m);
    s->dm = arena_push(a, n * n * sizeof *s->dm);
    return s->rows && s->delta && s->back && s->u && s->m && s->dm;
}

/* dM → gate matrices and router rows; u becomes its own gradient */
static void back(const struct moe_weights *w, struct scratch *s, int32_t n, int64_t d, int64_t f, double factor,
                 const struct weight *router)
{
    for (int32_t j = 0; j < n; j++) {
        float *u = s->u + (int64_t)j * n * f;
        for (int32_t i = 0; i < n; i++) {
            const double m = s->m[i * n + j];
            kern->scale(u + i * f, u + i * f, m > 0 ? (float)(factor * s->dm[i * n + j] / m) : 0, f);
        }
        gemm_dw(w->gate[j], NULL, u, f, s->rows, d, n);
        gemm_dx(s->back, d, u, f, n, w->gate[j], true);
    }
    for (int64_t k = 0; k < n * d && router->grad; k++) router->grad[k] += s->back[k] * s->delta[k];
}

static coe_status one(const struct loss_call *c, struct route_record *r, double *value)
{
    const int32_t n = moe_weighted(r->spec);
    const struct weight *router;
    COE_TRY(loss_router_rows(r, "erc", &router));
    COE_TRY(loss_gate_matrices(r, "erc", router->cols));
    if (n < 2) return COE_OK;
    const int64_t d = router->cols, f = r->w->gate[0]->rows;
    struct arena_mark mark = arena_save(c->c->arena);
    struct scratch s;
    if (!make(&s, c->c->arena, (size_t)n, (size_t)d, (size_t)f)) return COE_E_NOMEM;
    widen(s.rows, router->data, router->type, n * d);
    perturb(c, r, s.rows, s.delta, n, d);
    for (int32_t j = 0; j < n; j++) {
        float *u = s.u + (int64_t)j * n * f;
        gemm_xwt(u, f, s.rows, d, n, r->w->gate[j], NULL);
        low_rank_add(u, f, s.rows, d, NULL, (struct groups){ 1, (const int32_t[]){ 0, n } }, &r->w->gate[j]);
        for (int32_t i = 0; i < n; i++) s.m[i * n + j] = sqrt((double)kern->sumsq(u + i * f, f));
    }
    const double share = 1.0 / ((double)n * n * c->n_records);
    *value += share * coupling(s.m, s.dm, n, c->param[ALPHA]);
    if (c->scale != 0) back(r->w, &s, n, d, f, c->coef * c->scale * share, router);
    arena_rewind(c->c->arena, mark);
    return COE_OK;
}

static coe_status apply(const struct loss_call *c, double *value)
{
    for (int32_t i = 0; i < c->n_records; i++) COE_TRY(one(c, c->records[i], value));
    return COE_OK;
}

static const struct part_param params[] = {
    { "alpha", "how far below its own excitement others shall stay", NULL, 0, 1e3, 1, false },
    { "noise", "share of eps that perturbs the rows", NULL, 0, 1, 1, false },
    { 0 },
};
static const struct loss_part erc = { .apply = apply };
COE_PART(loss, erc, .summary = "router rows excite their own expert most, and experts their own row",
         .paper = "ERC: Coupling Experts and Routers, 2025", .card = "routing.md 12c", .unit = "block", .impl = &erc,
         .params = params)
