/* tsallis.c — mean Tsallis entropy of the router's probabilities, over its maximum: between 0 and 1.
 *
 * Paper: DynMoLE, 2025 (card: routing.md 22).  S = (1 - Σ p^q) / (1 - E^(1-q)),  q → 1: Shannon / log E. With
 * a_e = dS/dp_e  the gradient is  dz_e = p_e (a_e - Σ_j p_j a_j) / T. Summed over layers and chain iterations. */
#include "moe/losses/tsallis.h"

#include <math.h>

static bool shannon(double q) { return fabs(q - 1) < 1e-9; }

/* -p^q / (q - 1) or -p log p → *value, and its derivative times p → *slope; 0 at p = 0 */
static void term(double p, double q, double *value, double *slope)
{
    *value = *slope = 0;
    if (p <= 0) return;
    if (shannon(q)) {
        const double l = log(p);
        *value = -p * l, *slope = -p * (l + 1);
    } else {
        const double power = pow(p, q);
        *value = -power / (q - 1), *slope = -q * power / (q - 1);
    }
}

static double maximum(double q, int32_t n) { return n < 2 ? 1 : shannon(q) ? log(n) : (1 - pow(n, 1 - q)) / (q - 1); }

static coe_status one(const struct loss_call *c, struct route_record *r, double q, double norm, double *value)
{
    const int32_t n = r->route.n_experts;
    const int64_t tokens = r->z->rows;
    int64_t counted = 0;
    double sum = 0;
    for (int64_t t = 0; t < tokens; t++) counted += token_counts(c, t);
    float *dz = c->scale != 0 && counted ? loss_dz(c->c, r) : NULL;
    if (!counted) return COE_OK;
    const struct arena_mark mark = arena_save(c->c->arena);
    double *slope = arena_push(c->c->arena, (size_t)n * sizeof *slope);
    if (!slope || (c->scale != 0 && !dz)) return COE_E_NOMEM;
    for (int64_t t = 0; t < tokens; t++) {
        const float *p = r->p + t * n;
        double mean = 0;
        if (!token_counts(c, t)) continue;
        if (!shannon(q)) sum += 1 / (q - 1);
        for (int32_t e = 0; e < n; e++) {
            double entropy;
            term((double)p[e], q, &entropy, &slope[e]);
            sum += entropy, mean += slope[e];
        }
        for (int32_t e = 0; dz && e < n; e++)
            dz[t * n + e] += (float)(c->coef * c->scale / norm / (double)counted * (slope[e] - (double)p[e] * mean));
    }
    arena_rewind(c->c->arena, mark);
    *value += sum / norm / (double)counted;
    return COE_OK;
}

coe_status tsallis_apply(const struct loss_call *c, double q, bool normalized, double *value)
{
    for (int32_t i = 0; i < c->n_records; i++) {
        struct route_record *r = c->records[i];
        if (r->spec->router.score != SCORE_SOFTMAX)
            return coe_fail(COE_E_USAGE, "layer %d has sigmoid scores: their entropy is not one of probabilities",
                            r->layer);
        COE_TRY(one(c, r, q, normalized ? maximum(q, r->route.n_experts) : 1, value));
    }
    return COE_OK;
}

/* Averaged, each router has its share of the coefficient. */
static coe_status apply(const struct loss_call *c, double *value)
{
    struct loss_call share = *c;
    double sum = 0;
    const double n = c->param[1] > 0 ? c->n_records : 1;
    share.coef = c->coef / n;
    COE_TRY(tsallis_apply(&share, c->param[0], true, &sum));
    *value += sum / n;
    return COE_OK;
}

static const char *const over[] = { "sum", "mean", NULL };
static const struct part_param params[] = {
    { "q", "index of the entropy; 1: Shannon's", NULL, 1e-3, 100, 1.1, false },
    { "over", "whether the routers' means are added or averaged", over, 0, 0, 0, false },
    { 0 },
};
static coe_status check(const struct moe_spec *m, const char *where)
{
    return balance_needs_softmax(m, "tsallis", where);
}

static const struct loss_part tsallis_loss = { .apply = apply, .check = check };
COE_PART(loss, tsallis, .summary = "mean Tsallis entropy of the router's probabilities, between 0 and 1",
         .paper = "DynMoLE, 2025", .card = "routing.md 22", .unit = "token", .impl = &tsallis_loss, .params = params)
