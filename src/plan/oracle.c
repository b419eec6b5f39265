/* oracle.c — see oracle.h.
 *
 * Paper: Duo-LLM, 2024 (card: routing.md 18). For each token all routes are evaluated against the true next token. The
 * answer knows the label, so it is a bound and never a router; and the least of many numbers is small by itself: the
 * control takes the best route for labels drawn from elsewhere in the text. */
#include <math.h>
#include <string.h>

#include "base/log.h"
#include "base/rng.h"
#include "plan/oracle.h"

static int32_t experts_at(const struct oracle *o, const struct coe_model *m, int32_t i)
{
    return m->spec.layer[o->layer[i]].moe.n_experts;
}

int32_t oracle_choice(const struct oracle *o, const struct coe_model *m, int64_t route, int32_t i)
{
    for (int32_t l = 0; l < i; l++) route /= experts_at(o, m, l);
    return (int32_t)(route % experts_at(o, m, i));
}

int32_t oracle_big(const struct oracle *o, const struct coe_model *m, int64_t route)
{
    int32_t n = 0;
    for (int32_t i = 0; i < o->n_layers; i++) {
        const struct moe_spec *s = &m->spec.layer[o->layer[i]].moe;
        n += moe_range_of(s, oracle_choice(o, m, route, i)).ffn == s->expert_ffn;
    }
    return n;
}

coe_status oracle_open(struct oracle *o, const struct coe_model *m)
{
    *o = (struct oracle){ .n_routes = 1 };
    o->layer = mem_zalloc("oracle", (size_t)m->spec.n_layers * sizeof *o->layer);
    if (!o->layer) return COE_E_NOMEM;
    for (int32_t l = 0; l < m->spec.n_layers; l++) {
        const struct moe_spec *s = &m->spec.layer[l].moe;
        if (!m->spec.layer[l].is_moe) continue;
        if (s->router.top_k != 1 || moe_needs_whole_sequence(s))
            return coe_fail(COE_E_USAGE, "%s: layer %d does not choose one expert for each token by itself", m->path,
                            l);
        o->layer[o->n_layers++] = l;
        o->n_routes *= s->n_experts;
        if (o->n_routes > ORACLE_ROUTES)
            return coe_fail(COE_E_USAGE, "%s: more than %d routes through its experts; all of them are tried", m->path,
                            ORACLE_ROUTES);
    }
    if (!o->n_layers) return coe_fail(COE_E_USAGE, "%s: has no experts to choose", m->path);
    o->by_route = mem_zalloc("oracle", (size_t)o->n_routes * sizeof *o->by_route);
    o->by_budget = mem_zalloc("oracle", (size_t)(o->n_layers + 1) * sizeof *o->by_budget);
    return o->by_route && o->by_budget ? COE_OK : COE_E_NOMEM;
}

void oracle_free(struct oracle *o)
{
    mem_free(o->layer);
    mem_free(o->by_route);
    mem_free(o->by_budget);
    *o = (struct oracle){ 0 };
}

/* What one text needs besides the sums */
struct trial {
    struct oracle *o;
    struct coe_model *m;
    struct coe_session *s;
    struct arena arena;
    struct route_hook *hook; /* [n_layers of the model] */
    uint8_t *one_hot;        /* [widest, widest] rows with a single 1 */
    int32_t widest;
    float *logits;           /* [vocab] */
    double *least;           /* [n_layers + 1] of one token */
};

static coe_status make(struct trial *t)
{
    const struct spec *spec = &t->m->spec;
    for (int32_t i = 0; i < t->o->n_layers; i++) t->widest = COE_MAX(t->widest, experts_at(t->o, t->m, i));
    t->hook = arena_push_zero(&t->arena, (size_t)spec->n_layers * sizeof *t->hook);
    t->one_hot = arena_push_zero(&t->arena, (size_t)t->widest * (size_t)t->widest);
    t->logits = arena_push(&t->arena, (size_t)spec->vocab * sizeof *t->logits);
    t->least = arena_push(&t->arena, (size_t)(t->o->n_layers + 1) * sizeof *t->least);
    if (!t->hook || !t->one_hot || !t->logits || !t->least) return COE_E_NOMEM;
    for (int32_t e = 0; e < t->widest; e++) t->one_hot[e * t->widest + e] = 1;
    return coe_session_open(&t->s, t->m, NULL);
}

static void force(struct trial *t, int64_t route)
{
    for (int32_t i = 0; i < t->o->n_layers; i++, t->m->hook = t->hook) {
        const int32_t e = oracle_choice(t->o, t->m, route, i);
        t->hook[t->o->layer[i]] = (struct route_hook){ t->one_hot + (int64_t)e * t->widest, 1 };
    }
}

static double loss_of(const struct trial *t, int32_t target)
{
    float loss;
    nn_xent_rows(t->logits, 1, t->m->spec.vocab, &target, &loss, NULL);
    return (double)loss;
}

/* All routes for the token `id`, which is followed by `next`; `other` is the control's label. */
static coe_status try_routes(struct trial *t, int32_t id, int32_t next, int32_t other)
{
    struct oracle *o = t->o;
    const int64_t position = coe_session_position(t->s);
    double best = INFINITY, control = INFINITY, mean = 0;
    for (int32_t b = 0; b <= o->n_layers; b++) t->least[b] = INFINITY;
    for (int64_t r = 0; r < o->n_routes; r++) {
        if (coe_interrupted()) return coe_fail(COE_E_FAILED, "interrupted");
        force(t, r);
        coe_status s = coe_session_eval(t->s, &id, 1, t->logits, 1);
        t->m->hook = NULL;
        if (!s) s = coe_session_rewind(t->s, position);
        if (s) return s;
        const double loss = loss_of(t, next), drawn = loss_of(t, other);
        const int32_t big = oracle_big(o, t->m, r);
        o->by_route[r] += loss;
        t->least[big] = COE_MIN(t->least[big], loss);
        best = COE_MIN(best, loss);
        control = COE_MIN(control, drawn);
        mean += drawn / (double)o->n_routes;
    }
    for (int32_t b = 0; b <= o->n_layers; b++) o->by_budget[b] += t->least[b];
    o->best += best;
    o->control += control;
    o->control_mean += mean;
    return COE_OK;
}

static coe_status document(struct trial *t, const int32_t *ids, int64_t n, uint64_t seed)
{
    COE_TRY(coe_session_rewind(t->s, 0));
    n = COE_MIN(n, t->s->capacity);
    for (int64_t i = 0; i + 1 < n; i++) {
        const uint64_t drawn = rng_at(seed, rng_stream(RNG_PLAN, 0), (uint64_t)i) % (uint64_t)(n - 1);
        COE_TRY(try_routes(t, ids[i], ids[i + 1], ids[1 + drawn]));
        COE_TRY(coe_session_eval(t->s, ids + i, 1, t->logits, 1));
        t->o->own += loss_of(t, ids[i + 1]);
        t->o->tokens++;
    }
    return COE_OK;
}

coe_status oracle_text(struct oracle *o, struct coe_model *m, const struct measured_text *text)
{
    struct trial t = { .o = o, .m = m };
    struct route_hook *const masks = m->hook;
    m->hook = NULL;
    coe_status s = make(&t);
    for (int64_t d = 0; d < text->n_docs && !s; d++)
        s = document(&t, text->ids + text->off[d], text->off[d + 1] - text->off[d], (uint64_t)d);
    m->hook = masks;
    coe_session_close(t.s);
    arena_free(&t.arena);
    return s;
}
