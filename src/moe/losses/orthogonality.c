/* orthogonality.c — soft orthogonality of the vectors v that stand for experts: L = Σ_{i<j} cos(v_i, v_j)²: 0 when they
 * are orthogonal, n(n-1)/2 when they are parallel. Summed over layers, each router and each pool of experts once.
 *
 *     d cos²/dv_i = 2 cos · (v_j / (|v_i| |v_j|) - cos v_i / |v_i|²)
 *
 * Paper: GMoPE, 2025 (card: composition.md GMoPE). `of: router` takes the router's rows; `of: experts` all entries of
 * an expert's matrices as one vector, which keeps experts from becoming copies of one another (not from being
 * permutations of one another). A vector of zeros is orthogonal to everything. No token is looked at. */
#include <math.h>

#include "moe/losses/weights.h"

enum { OF };
static const char *const vectors[] = { "router", "experts", NULL };

#define PIECES 3
/* Vector i is the concatenation of piece[k] + i·stride[k], of length[k] elements. */
struct family_of_vectors {
    const float *const *piece[PIECES]; /* [n] */
    float *const *grad[PIECES];        /* [n], NULL where nothing learns */
    int64_t length[PIECES];
    int32_t n, n_pieces;
};

static double gram(const struct family_of_vectors *v, int32_t i, int32_t j)
{
    double sum = 0;
    for (int32_t k = 0; k < v->n_pieces; k++) sum += (double)kern->dot(v->piece[k][i], v->piece[k][j], v->length[k]);
    return sum;
}

static void add_gradient(const struct family_of_vectors *v, int32_t i, int32_t j, double on_other, double on_self)
{
    for (int32_t k = 0; k < v->n_pieces; k++) {
        float *g = v->grad[k][i];
        if (!g) continue;
        kern->fma_row(g, (float)on_other, v->piece[k][j], v->length[k]);
        kern->fma_row(g, (float)on_self, v->piece[k][i], v->length[k]);
    }
}

static coe_status pairs(const struct loss_call *c, const struct family_of_vectors *v, double *value)
{
    struct arena_mark mark = arena_save(c->c->arena);
    double *square = arena_push(c->c->arena, (size_t)v->n * sizeof *square);
    if (!square) return COE_E_NOMEM;
    for (int32_t i = 0; i < v->n; i++) square[i] = gram(v, i, i);
    for (int32_t i = 0; i < v->n; i++)
        for (int32_t j = 0; j < i; j++) {
            if (!(square[i] > 0) || !(square[j] > 0)) continue;
            const double inner = gram(v, i, j), length = sqrt(square[i] * square[j]), cosine = inner / length;
            *value += cosine * cosine;
            if (c->scale == 0) continue;
            const double slope = 2 * cosine * c->coef * c->scale;
            add_gradient(v, i, j, slope / length, -slope * cosine / square[i]);
            add_gradient(v, j, i, slope / length, -slope * cosine / square[j]);
        }
    arena_rewind(c->c->arena, mark);
    return COE_OK;
}

/* F32 view of a weight: its own data, or a widened copy. */
static const float *floats_of(struct arena *a, const struct weight *w)
{
    if (w->type == DT_F32) return w->data;
    float *wide = arena_push(a, (size_t)weight_count(w) * sizeof *wide);
    if (wide) widen(wide, w->data, w->type, weight_count(w));
    return wide;
}

static coe_status router_pairs(const struct loss_call *c, const struct route_record *r, double *value)
{
    const struct weight *w;
    COE_TRY(loss_router_rows(r, "orthogonality", &w));
    const size_t n = (size_t)w->rows;
    const float *data = floats_of(c->c->arena, w), **row = arena_push(c->c->arena, n * sizeof *row);
    float **grad = arena_push(c->c->arena, n * sizeof *grad);
    if (!data || !row || !grad) return COE_E_NOMEM;
    for (size_t i = 0; i < n; i++) {
        row[i] = data + (int64_t)i * w->cols;
        grad[i] = w->grad ? w->grad + (int64_t)i * w->cols : NULL;
    }
    const struct family_of_vectors v = { { row }, { grad }, { w->cols }, (int32_t)n, 1 };
    return pairs(c, &v, value);
}

static coe_status expert_pairs(const struct loss_call *c, const struct route_record *r, double *value)
{
    const int32_t n = moe_weighted(r->spec);
    struct family_of_vectors v = { .n = n };
    if (!r->w || !r->w->gate || !r->w->gate[0])
        return coe_fail(COE_E_USAGE, "loss orthogonality: experts of layer %d have no matrices", r->layer);
    const struct weight *const *const table[PIECES] = { r->w->gate, r->w->up, r->w->down };
    for (int k = 0; k < PIECES; k++) {
        if (!table[k] || !table[k][0]) continue;
        const float **at = arena_push(c->c->arena, (size_t)n * sizeof *at);
        float **grad = arena_push(c->c->arena, (size_t)n * sizeof *grad);
        if (!at || !grad) return COE_E_NOMEM;
        for (int32_t e = 0; e < n; e++) {
            if (!table[k][e] || weight_count(table[k][e]) != weight_count(table[k][0]))
                return coe_fail(COE_E_USAGE, "loss orthogonality: experts 0 and %d of layer %d differ in shape", e,
                                r->layer);
            if (!(at[e] = floats_of(c->c->arena, table[k][e]))) return COE_E_NOMEM;
            grad[e] = table[k][e]->grad;
        }
        v.piece[v.n_pieces] = at;
        v.grad[v.n_pieces] = grad;
        v.length[v.n_pieces++] = weight_count(table[k][0]);
    }
    return pairs(c, &v, value);
}

static coe_status apply(const struct loss_call *c, double *value)
{
    const bool experts = c->param[OF] > 0;
    for (int32_t i = 0; i < c->n_records; i++) {
        struct arena_mark mark = arena_save(c->c->arena);
        if (c->records[i]->w && (experts ? loss_experts_seen(c, i) : loss_router_seen(c, i))) continue;
        COE_TRY(experts ? expert_pairs(c, c->records[i], value) : router_pairs(c, c->records[i], value));
        arena_rewind(c->c->arena, mark);
    }
    return COE_OK;
}

static const struct part_param params[] = {
    { "of", "whose vectors", vectors, 0, 0, 0, false },
    { 0 },
};
static const struct loss_part orthogonality = { .apply = apply };
COE_PART(loss, orthogonality, .summary = "squared cosines between router rows, or between experts",
         .paper = "GMoPE, 2025", .card = "composition.md GMoPE", .unit = "block", .impl = &orthogonality,
         .params = params)
