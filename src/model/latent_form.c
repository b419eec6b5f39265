/* latent_form.c — see latent_form.h.
 *
 * Paper: Mixture of Latent Experts, 2025 (card: routing.md 13). The group's matrices stacked, W = [W_1; …; W_k], have
 * the best approximation of rank m
 *     W_i ~ (W_i V) Vᵀ,   V [d, m] the eigenvectors of Wᵀ W = Σ W_iᵀ W_i of the largest eigenvalues
 * so that B = Vᵀ is shared and A_i = W_i V an expert's own; what is lost is the sum of the other eigenvalues. Exact,
 * but for rounding, where m is the rank of W. Down matrices, routers and everything else stay. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "model/bind.h"
#include "model/latent_form.h"

enum { SHARED_GATE, SHARED_UP, OWN_GATE, OWN_UP, OWN_DOWN }; /* rows of kind latent's table */

/* ---- eigenvectors ---- */

/* One rotation that makes g[p, q] zero; g and the columns of v turn. */
static void rotate(double *g, double *v, int64_t n, int64_t p, int64_t q)
{
    const double theta = (g[q * n + q] - g[p * n + p]) / (2 * g[p * n + q]);
    const double t = (theta < 0 ? -1 : 1) / (fabs(theta) + sqrt(theta * theta + 1));
    const double c = 1 / sqrt(t * t + 1), s = t * c;
    for (int64_t k = 0; k < n; k++) {
        const double a = g[k * n + p], b = g[k * n + q];
        g[k * n + p] = c * a - s * b, g[k * n + q] = s * a + c * b;
    }
    for (int64_t k = 0; k < n; k++) {
        const double a = g[p * n + k], b = g[q * n + k], x = v[p * n + k], y = v[q * n + k];
        g[p * n + k] = c * a - s * b, g[q * n + k] = s * a + c * b;
        v[p * n + k] = c * x - s * y, v[q * n + k] = s * x + c * y;
    }
}

/* Symmetric g [n, n] becomes diagonal, its eigenvectors the rows of v: Jacobi's rotations in sweeps. */
static void eigen(double *g, double *v, int64_t n)
{
    double trace = 0;
    memset(v, 0, (size_t)(n * n) * sizeof *v);
    for (int64_t i = 0; i < n; i++) v[i * n + i] = 1, trace += g[i * n + i];
    for (int sweep = 0; sweep < 60; sweep++) {
        double off = 0;
        for (int64_t p = 0; p < n; p++)
            for (int64_t q = p + 1; q < n; q++) off += g[p * n + q] * g[p * n + q];
        if (off <= 1e-26 * trace * trace) return;
        for (int64_t p = 0; p < n; p++)
            for (int64_t q = p + 1; q < n; q++)
                if (g[p * n + q] * g[p * n + q] > 1e-34 * trace * trace) rotate(g, v, n, p, q);
    }
}

struct value {
    double x;
    int64_t i;
};

static int larger_first(const void *a, const void *b)
{
    const struct value *x = a, *y = b;
    if (x->x != y->x) return x->x < y->x ? 1 : -1;
    return (x->i > y->i) - (x->i < y->i);
}

/* ---- one group ---- */

struct job {
    struct coe_model *from, *to;
    int64_t d, f;
    int32_t latent, group;
    double *g, *v;       /* [d, d] */
    struct value *order; /* [d] */
    double lost, all;    /* squared lengths */
};

/* W·V of one expert: rows of `own` [f, m] against the rows of `shared` [m, d] */
static void project(const struct job *j, const float *w, const float *shared, float *own)
{
    for (int64_t i = 0; i < j->f; i++)
        for (int32_t k = 0; k < j->latent; k++) {
            double sum = 0;
            for (int64_t c = 0; c < j->d; c++) sum += (double)w[i * j->d + c] * (double)shared[k * j->d + c];
            own[i * j->latent + k] = (float)sum;
        }
}

static void factor(struct job *j, const struct weight *const *w, const struct weight *shared, int32_t group,
                   const struct weight *const *own)
{
    float *b = shared->master + (int64_t)group * j->latent * j->d;
    memset(j->g, 0, (size_t)(j->d * j->d) * sizeof *j->g);
    for (int32_t e = group * j->group; e < (group + 1) * j->group; e++)
        for (int64_t i = 0; i < j->f; i++) {
            const float *row = w[e]->master + i * j->d;
            for (int64_t a = 0; a < j->d; a++)
                for (int64_t c = 0; c < j->d; c++) j->g[a * j->d + c] += (double)row[a] * (double)row[c];
        }
    eigen(j->g, j->v, j->d);
    for (int64_t i = 0; i < j->d; i++) j->order[i] = (struct value){ j->g[i * j->d + i], i };
    qsort(j->order, (size_t)j->d, sizeof *j->order, larger_first);
    for (int64_t k = 0; k < j->d; k++) {
        const double x = COE_MAX(j->order[k].x, 0.0);
        j->all += x;
        if (k >= j->latent) j->lost += x;
        for (int64_t c = 0; k < j->latent && c < j->d; c++)
            b[k * j->d + c] = (float)j->v[j->order[k].i * j->d + c];
    }
    for (int32_t e = group * j->group; e < (group + 1) * j->group; e++) project(j, w[e]->master, b, own[e]->master);
}

static coe_status layer(struct job *j, int32_t l)
{
    const struct moe_weights *from = &j->from->layer[l].moe, *to = &j->to->layer[l].moe;
    const int32_t n = j->from->spec.layer[l].moe.n_experts;
    for (int32_t g = 0; g < n / j->group; g++) {
        if (coe_interrupted()) return coe_fail(COE_E_FAILED, "interrupted");
        factor(j, from->gate, to->kind_part[0][SHARED_GATE], g, to->expert_part[0][OWN_GATE]);
        factor(j, from->up, to->kind_part[0][SHARED_UP], g, to->expert_part[0][OWN_UP]);
    }
    for (int32_t e = 0; e < n; e++)
        memcpy(to->expert_part[0][OWN_DOWN][e]->master, from->down[e]->master,
               (size_t)(j->d * j->f) * sizeof(float));
    return COE_OK;
}

/* ---- the model ---- */

static coe_status check(const struct coe_model *m, int32_t latent, int32_t group, int32_t *first)
{
    *first = -1;
    for (int32_t l = 0; l < m->spec.n_layers; l++) {
        const struct moe_spec *s = &m->spec.layer[l].moe;
        if (!m->spec.layer[l].is_moe) continue;
        if (*first < 0) *first = l;
        if (moe_weighted(s) != s->n_experts || s->n_ranges > 1 || s->pool.layers > 1 || s->expert_bias)
            return coe_fail(COE_E_USAGE, "%s: layer %d has experts that are not plain feed-forward ones", m->path, l);
        const struct moe_spec *like = &m->spec.layer[*first].moe;
        if (s->n_experts != like->n_experts || s->expert_ffn != like->expert_ffn)
            return coe_fail(COE_E_USAGE, "%s: layers %d and %d differ in their experts", m->path, *first, l);
        if (s->n_experts % group)
            return coe_fail(COE_E_USAGE, "%s: %d experts in groups of %d", m->path, s->n_experts, group);
    }
    if (*first < 0) return coe_fail(COE_E_USAGE, "%s: has no experts", m->path);
    if (latent > m->spec.d_model)
        return coe_fail(COE_E_USAGE, "%s: a latent width of %d, more than the model's %d", m->path, latent,
                        m->spec.d_model);
    return COE_OK;
}

static json_t *latent_config(const struct coe_model *m, const struct moe_spec *s, int32_t latent, int32_t group)
{
    json_t *config = json_deep_copy(model_config(m)), *coe = json_object_get(config, "coe");
    if (!coe) json_object_set_new(config, "coe", coe = json_object());
    json_object_del(coe, "n_experts");
    json_object_del(coe, "expert_ffn");
    json_object_set_new(coe, "experts",
                        json_pack("[{s:s, s:i, s:i, s:i, s:i}]", "kind", "latent", "n", s->n_experts, "expert_ffn",
                                  s->expert_ffn, "latent", latent, "group", group));
    return config;
}

static coe_status convert(struct job *j, const struct spec_sizes *before, struct latent_report *out)
{
    coe_status s = COE_OK;
    const size_t n = (size_t)j->d;
    j->g = mem_alloc("latent form", n * n * sizeof *j->g);
    j->v = mem_alloc("latent form", n * n * sizeof *j->v);
    j->order = mem_alloc("latent form", n * sizeof *j->order);
    if (!j->g || !j->v || !j->order) s = COE_E_NOMEM;
    if (!s) model_copy_params(j->to, j->from);
    for (int32_t l = 0; l < j->from->spec.n_layers && !s; l++)
        if (j->from->spec.layer[l].is_moe) s = layer(j, l);
    const struct spec_sizes after = spec_sizes(&j->to->spec);
    const int64_t shared = after.by_class[CLASS_SHARED] - before->by_class[CLASS_SHARED];
    *out = (struct latent_report){ j->all > 0 ? sqrt(j->lost / j->all) : 0, before->by_class[CLASS_EXPERT],
                                   after.by_class[CLASS_EXPERT] + shared };
    mem_free(j->g);
    mem_free(j->v);
    mem_free(j->order);
    return s;
}

coe_status model_to_latent(struct coe_model *m, int32_t latent, int32_t group, enum dtype type, const char *dir,
                           struct latent_report *out)
{
    int32_t first;
    struct coe_model *to = NULL;
    COE_TRY(check(m, latent, group, &first));
    const struct moe_spec *s = &m->spec.layer[first].moe;
    const struct spec_sizes before = spec_sizes(&m->spec);
    json_t *config = latent_config(m, s, latent, group);
    coe_status status = config ? model_make_trainable(m, NULL) : COE_E_NOMEM;
    if (!status) status = model_new(&to, config, m->path, 0, 0);
    struct job j = { .from = m, .to = to, .d = m->spec.d_model, .f = s->expert_ffn, .latent = latent, .group = group };
    if (!status) status = convert(&j, &before, out);
    if (!status) status = model_write(to, dir, config, type, m->gguf_config ? NULL : m->path);
    model_close(to);
    json_decref(config);
    return status;
}
