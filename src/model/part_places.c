/* part_places.c — see part_places.h.
 *
 * A place is one of twelve slots (owner: router or kind of experts; scope; matrix or vector), so that whoever handles
 * slots needs to know no part; place.part says which row of whose table it is. */
#include <math.h>
#include <string.h>

#include "model/part_places.h"

static enum slot slot_of(int32_t owner, const struct part_weight *w)
{
    const int scope = w->scope == PART_OF_EXPERT ? 2 : (int)w->scope;
    const enum slot first = owner ? SLOT_KIND_OF_MODEL : SLOT_ROUTER_OF_MODEL;
    return (enum slot)((int)first + 2 * scope + w->vector);
}

const struct part_weight *place_part(const struct spec *s, struct place p)
{
    if (p.slot < SLOT_ROUTER_OF_MODEL || p.slot >= SLOT_COUNT) return NULL;
    return &moe_part_table(&s->layer[p.layer].moe, p.part / PART_WEIGHTS, NULL)[p.part % PART_WEIGHTS];
}

bool place_frozen(const struct spec *s, struct place p)
{
    const struct part_weight *w = place_part(s, p);
    if (p.slot == SLOT_ROUTER || p.slot == SLOT_ROUTER_BIAS) return moe_router(&s->layer[p.layer].moe)->frozen;
    return w && w->frozen;
}

static int32_t first_with_experts(const struct spec *s)
{
    int32_t l = 0;
    while (l < s->n_layers && !s->layer[l].is_moe) l++;
    return l;
}

static bool shape_of(const struct spec *s, struct place p, int32_t owner, const struct part_weight *w, int64_t *rows,
                     int64_t *cols)
{
    struct part_at at = { .spec = &s->layer[p.layer].moe, .d_model = s->d_model };
    for (int32_t l = 0; l < p.layer; l++) at.nth += s->layer[l].is_moe;
    at.iteration = p.iteration;
    const bool one_pass = w->scope == PART_OF_ITERATION && !at.spec->chain.shared_gate;
    at.first = !at.nth && !p.iteration && (one_pass || at.spec->chain.n_iterations == 1);
    (void)moe_part_table(at.spec, owner, &at.param);
    if (owner) at.range = &at.spec->range[owner - 1];
    *rows = *cols = 1;
    return w->shape(&at, rows, cols);
}

/* One owner's weights of a scope, for one expert and iteration */
static coe_status each_of(const struct spec *s, int32_t owner, enum part_scope scope, struct place p, each_fn *fn,
                          void *user)
{
    int64_t rows, cols;
    const struct part_weight *w = moe_part_table(&s->layer[p.layer].moe, owner, NULL);
    for (int32_t i = 0; w && w[i].name; i++) {
        if (w[i].scope != scope || !shape_of(s, p, owner, &w[i], &rows, &cols)) continue;
        p.slot = slot_of(owner, &w[i]);
        p.part = owner * PART_WEIGHTS + i;
        COE_TRY(fn(user, p, rows, cols));
    }
    return COE_OK;
}

coe_status each_part_of_model(const struct spec *s, each_fn *fn, void *user)
{
    const int32_t l = first_with_experts(s);
    if (l == s->n_layers) return COE_OK;
    for (int32_t owner = 0; owner <= s->layer[l].moe.n_ranges; owner++)
        COE_TRY(each_of(s, owner, PART_OF_MODEL, (struct place){ .layer = l }, fn, user));
    return COE_OK;
}

coe_status each_part_of_layer(const struct spec *s, int32_t layer, each_fn *fn, void *user)
{
    const struct moe_spec *m = &s->layer[layer].moe;
    if (!s->layer[layer].is_moe) return COE_OK;
    struct place p = { .layer = layer };
    COE_TRY(each_of(s, 0, PART_OF_LAYER, p, fn, user));
    for (; p.iteration < (m->chain.shared_gate ? 1 : m->chain.n_iterations); p.iteration++)
        COE_TRY(each_of(s, 0, PART_OF_ITERATION, p, fn, user));
    p.iteration = 0;
    for (int32_t owner = 1; owner <= m->n_ranges; owner++) COE_TRY(each_of(s, owner, PART_OF_LAYER, p, fn, user));
    struct expert_range r[MAX_RANGES];
    for (int32_t i = 0, n = moe_ranges(m, r); i < n && m->n_ranges; i++)
        for (p.expert = r[i].first; p.expert < r[i].first + r[i].n; p.expert++)
            COE_TRY(each_of(s, i + 1, PART_OF_EXPERT, p, fn, user));
    return COE_OK;
}

/* ---- between layers ---- */

static int64_t carries(const struct spec *s, int32_t l)
{
    const struct moe_spec *m = &s->layer[l].moe;
    const struct router_part *r = s->layer[l].is_moe ? moe_router(m) : NULL;
    return r && r->carries ? r->carries(m, s->d_model) : 0;
}

int64_t spec_carries(const struct spec *s)
{
    int64_t widest = 0;
    for (int32_t l = 0; l < s->n_layers; l++) widest = COE_MAX(widest, carries(s, l));
    return widest;
}

int32_t spec_tasks(const struct spec *s)
{
    int32_t least = 0;
    for (int32_t l = 0; l < s->n_layers; l++) {
        const struct router_part *r = s->layer[l].is_moe ? moe_router(&s->layer[l].moe) : NULL;
        const int32_t n = r && r->tasks ? r->tasks(&s->layer[l].moe) : 0;
        if (n && (!least || n < least)) least = n;
    }
    return least;
}

static const char *owner_name(const struct moe_spec *m, int32_t owner)
{
    return owner ? m->range[owner - 1].kind : m->router.kind;
}

/* The weights of the model that layer l shares with the first of them */
static coe_status check_shared(const struct spec *s, int32_t first, int32_t l, int32_t owner, const char *where)
{
    const struct moe_spec *a = &s->layer[first].moe, *b = &s->layer[l].moe;
    const struct part_weight *w = moe_part_table(a, owner, NULL);
    for (; w && w->name; w++) {
        int64_t rows, cols, rows_here, cols_here;
        if (w->scope != PART_OF_MODEL) continue;
        if (moe_part_table(b, owner, NULL) == NULL || strcmp(owner_name(a, owner), owner_name(b, owner)))
            return coe_fail(COE_E_INPUT, "%s: layer %d has another %s than layer %d, with which it would share %s",
                            where, l, owner ? "kind of experts" : "router", first, w->name);
        const bool there = shape_of(s, (struct place){ .layer = first }, owner, w, &rows, &cols);
        const bool here = shape_of(s, (struct place){ .layer = l }, owner, w, &rows_here, &cols_here);
        if (there != here || rows != rows_here || cols != cols_here)
            return coe_fail(COE_E_INPUT, "%s: layer %d would share %s of %s with layer %d, but in another shape", where,
                            l, w->name, owner_name(a, owner), first);
    }
    return COE_OK;
}

static coe_status check_attention(const struct spec *s, const char *where)
{
    for (int32_t l = 0; l < s->n_layers; l++) {
        const struct layer_spec *a = &s->layer[l];
        if (a->is_moe && moe_router(&a->moe)->sees_attention && a->attn.kind != MIX_ATTENTION)
            return coe_fail(COE_E_INPUT, "%s: layer %d: router %s needs a layer with plain attention", where, l,
                            a->moe.router.kind);
    }
    return COE_OK;
}

coe_status part_places_check(const struct spec *s, const char *where)
{
    const int32_t first = first_with_experts(s);
    COE_TRY(check_attention(s, where));
    for (int32_t l = first + 1, before = first; l < s->n_layers; l++) {
        const struct moe_spec *a = &s->layer[before].moe, *m = &s->layer[l].moe;
        if (!s->layer[l].is_moe) continue;
        if (carries(s, l) != carries(s, before) || (carries(s, l) && strcmp(a->router.kind, m->router.kind)))
            return coe_fail(COE_E_INPUT,
                            "%s: layer %d: its router (%s) reads %lld values of a token, the one before it (%s, "
                            "layer %d) leaves %lld; between them the number of experts must not change",
                            where, l, m->router.kind, (long long)carries(s, l), a->router.kind, before,
                            (long long)carries(s, before));
        for (int32_t owner = 0; owner <= s->layer[first].moe.n_ranges; owner++)
            COE_TRY(check_shared(s, first, l, owner, where));
        before = l;
    }
    return COE_OK;
}

static bool is_one_matrix(const struct router_part *r, const struct moe_spec *m)
{
    return !r->weights && r->matrix && r->matrix(m);
}

coe_status spec_router_fits(const struct spec *s, const char *router, const char *where)
{
    const struct part *to = part_find("router", router);
    if (!to) return coe_fail(COE_E_USAGE, "%s: there is no router '%s'", where, router);
    for (int32_t l = 0; l < s->n_layers; l++) {
        const struct moe_spec *m = &s->layer[l].moe;
        if (!s->layer[l].is_moe) continue;
        if (!is_one_matrix(to->impl, m))
            return coe_fail(COE_E_USAGE, "%s: router %s has weights of its own, which a model must be trained with",
                            where, router);
        if (!is_one_matrix(moe_router(m), m))
            return coe_fail(COE_E_USAGE, "%s: layer %d: the weights of its router %s are not those of %s", where, l,
                            m->router.kind, router);
    }
    return COE_OK;
}

/* ---- names ---- */

/* "rank1", the layer's second range of that kind "rank1.1" */
static void kind_folder(const struct moe_spec *m, int32_t owner, char out[64])
{
    int32_t before = 0;
    for (int32_t i = 0; i < owner - 1; i++) before += !strcmp(m->range[i].kind, m->range[owner - 1].kind);
    if (before) snprintf(out, 64, "%s.%d", m->range[owner - 1].kind, before);
    else snprintf(out, 64, "%s", m->range[owner - 1].kind);
}

bool part_tensor_name(const struct family *f, const struct spec *s, struct place p, const struct part_weight *w,
                      char *out, size_t cap)
{
    const struct moe_spec *m = &s->layer[p.layer].moe;
    const int32_t owner = p.part / PART_WEIGHTS;
    char folder[64] = "router";
    const bool each = w->scope == PART_OF_ITERATION && m->chain.n_iterations > 1 && !m->chain.shared_gate;
    char name[160];
    if (owner) kind_folder(m, owner, folder);
    if (w->scope == PART_OF_MODEL) {
        snprintf(name, sizeof name, "%smodel.%s.%s", f->prefixes ? *f->prefixes : "", folder, w->name);
        return expand_name(name, p, out, cap);
    }
    snprintf(name, sizeof name, "%s%s.%s", w->scope == PART_OF_EXPERT ? "experts.{e}" : folder,
             each ? ".{t}" : "", w->name);
    return name_beside_router(f, p, name, out, cap);
}

/* ---- first values ---- */

/* Rows of length one, each without its share of those before it; with more rows than columns they begin anew. */
static void orthogonal(float *x, int64_t rows, int64_t cols, struct rng *r)
{
    for (int64_t i = 0; i < rows; i++) {
        float *row = x + i * cols;
        double length = 0;
        for (int64_t j = 0; j < cols; j++) row[j] = (float)rng_normal(r);
        for (int64_t o = i / cols * cols; o < i; o++) {
            double dot = 0;
            for (int64_t j = 0; j < cols; j++) dot += (double)row[j] * (double)x[o * cols + j];
            for (int64_t j = 0; j < cols; j++) row[j] -= (float)(dot * (double)x[o * cols + j]);
        }
        for (int64_t j = 0; j < cols; j++) length += (double)row[j] * (double)row[j];
        for (int64_t j = 0; j < cols; j++) row[j] = (float)((double)row[j] / sqrt(length));
    }
}

const double *place_param(const struct spec *s, struct place p)
{
    const double *param = NULL;
    (void)moe_part_table(&s->layer[p.layer].moe, p.part / PART_WEIGHTS, &param);
    return param;
}

void part_init(float *x, const struct part_weight *w, const double *param, int64_t rows, int64_t cols, double std,
               struct rng *r)
{
    const double value = w->from_param ? param[w->from_param - 1] : w->value;
    if (w->init == INIT_ORTHOGONAL) {
        orthogonal(x, rows, cols, r);
        return;
    }
    const double scale = value > 0 ? value : std;
    for (int64_t i = 0; i < rows * cols; i++)
        x[i] = w->init == INIT_NORMAL ? (float)(scale * rng_normal(r)) : w->init == INIT_CONSTANT ? (float)value : 0.0f;
}

/* ---- links ---- */

coe_status part_tables(struct coe_model *m, const struct moe_spec *s, struct moe_weights *w)
{
    for (int32_t owner = 1; owner <= s->n_ranges; owner++) {
        const struct part_weight *row = moe_part_table(s, owner, NULL);
        for (int32_t i = 0; row && row[i].name; i++)
            if (row[i].scope == PART_OF_EXPERT) COE_TRY(expert_table(m, &w->expert_part[owner - 1][i], s->n_experts));
    }
    return COE_OK;
}

static void link_router(struct moe_weights *to, const struct moe_spec *m, const struct part_weight *w, struct place at,
                        const struct weight *weight)
{
    const int32_t i = at.part % PART_WEIGHTS;
    const bool all = w->scope != PART_OF_ITERATION || m->chain.shared_gate;
    for (int32_t t = 0; t < m->chain.n_iterations; t++)
        if (all || t == at.iteration) to->router_part[t][i] = weight;
}

void part_link(struct coe_model *m, const struct param *p)
{
    const struct part_weight *w = place_part(&m->spec, p->at);
    const int32_t owner = p->at.part / PART_WEIGHTS, i = p->at.part % PART_WEIGHTS;
    const bool shared = w->scope == PART_OF_MODEL;
    for (int32_t l = shared ? 0 : p->at.layer; l < (shared ? m->spec.n_layers : p->at.layer + 1); l++) {
        struct moe_weights *to = &m->layer[l].moe;
        if (!m->spec.layer[l].is_moe) continue;
        if (!owner)
            link_router(to, &m->spec.layer[l].moe, w, p->at, &p->w);
        else if (w->scope == PART_OF_EXPERT)
            set_expert(to->expert_part[owner - 1][i], p->at.expert, &p->w);
        else
            to->kind_part[owner - 1][i] = &p->w;
    }
}
