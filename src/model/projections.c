/* projections.c — experts beside single projections: each adapted matrix W has a router and low-rank pairs of its own,
 *
 *     y = W x (+ b) + Σ_{i chosen} p_i · alpha/r · B_i A_i x      p = softmax(W_r x), not renormalised
 *
 * Paper: DynMoLE, 2025 (card: routing.md 22). Selection `hybrid` unless the config says another; W_r [E, in] and A_i
 * [r, in] start uniform (Kaiming with a² = init_range, and 5), B_i [out, r] at zero, so that the model starts as its
 * base. `tune: { only: [adapter] }` trains them alone. The losses of projection_experts run over the routers of all
 * projections together (masked 0.001 and tsallis 0.01, unless others are named). */
#include <math.h>
#include <string.h>

#include "ckpt/gguf.h"
#include "model/bind.h"
#include "model/pass.h"
#include "model/projection_form.h"
#include "moe/experts/rows.h"

/* ---- forward ---- */

/* What the experts' body needs besides the call */
struct beside {
    struct expert_call call;
    const struct weight *a, *b;
    float scale;
};

static struct val *body(struct nn *c, const struct expert_rows *rows)
{
    const struct beside *s = (const struct beside *)rows->call; /* its first member */
    const struct weight *const *a = experts_blocks(c, s->a, rows->of.n);
    const struct weight *const *b = experts_blocks(c, s->b, rows->of.n);
    if (!a || !b) return NULL;
    struct val *u = nn_scale(c, experts_linear(c, experts_inputs(c, rows), rows->of, a), s->scale);
    return experts_linear(c, u, rows->of, b);
}

static struct route_record *decide(struct pass *p, const struct projection_spec *x, int32_t l,
                                   const struct weight *router, struct val *in)
{
    struct route_record *rec = moe_route_attention(p->c, &x->moe, router, l, p->f->batch, in);
    if (!rec) return NULL;
    struct forward *f = p->f;
    if (f->projection_records && f->n_projection_records < f->max_projection_records)
        f->projection_records[f->n_projection_records++] = rec;
    return rec;
}

struct val *pass_linear(struct pass *p, int32_t l, struct val *x, int32_t projection, const struct weight *bias)
{
    const struct projection_spec *s = &p->m->spec.layer[l].projections;
    const struct layer_weights *w = &p->m->layer[l];
    const enum slot slot = projection_slot(projection);
    struct val *y = nn_linear(p->c, x, w->slot[slot], bias);
    if (!y || !s->rank || !w->mix[projection][0]) return y;
    struct route_record *rec = decide(p, s, l, w->mix[projection][0], x);
    if (!rec) return NULL;
    struct beside *b = arena_push_zero(p->c->arena, sizeof *b);
    if (!b) return NULL;
    /* y is added to in place: a product keeps its input only */
    *b = (struct beside){ { .spec = &s->moe, .x = x, .route = &rec->route, .y = y, .layer = l, .filled = true },
                          w->mix[projection][1],
                          w->mix[projection][2],
                          (float)(s->alpha / s->rank) };
    const struct expert_range all = { .kind = "lora", .n = s->moe.n_experts };
    if (experts_composed(p->c, &b->call, &all, body)) return NULL;
    val_changed(y);
    return y;
}

int32_t model_n_projections(const struct coe_model *m)
{
    int32_t n = 0;
    for (size_t i = 0; i < m->n_params; i++) n += m->params[i].at.slot == SLOT_MIX_ROUTER;
    return n;
}

/* ---- the spec ---- */

static coe_status check_layer(const struct spec *s, int32_t l, const char *where)
{
    const struct layer_spec *a = &s->layer[l];
    const uint32_t of_attention = a->projections.targets & 15;
    if (of_attention && a->attn.kind != MIX_ATTENTION && a->attn.kind != MIX_CONV && a->attn.kind != MIX_DELTA)
        return coe_fail(COE_E_INPUT,
                        "%s: layer %d: projection_experts of q, k, v and o need plain attention, not latent attention "
                        "or attention with experts of its own",
                        where, l);
    if (moe_needs_whole_sequence(&a->projections.moe))
        return coe_fail(COE_E_INPUT, "%s: projection_experts: %s routes whole sequences", where,
                        moe_needs_whole_sequence(&a->projections.moe));
    return moe_spec_check(&a->projections.moe, where);
}

coe_status projections_check(const struct spec *s, const char *where)
{
    bool any = false, there = false;
    for (int32_t l = 0; l < s->n_layers; l++) {
        if (!s->layer[l].projections.rank) continue;
        any = true;
        COE_TRY(check_layer(s, l, where));
        for (int32_t i = 0; i < PROJECTIONS; i++) {
            int64_t rows, cols;
            there = there || place_shape(s, (struct place){ SLOT_MIX_ROUTER, l, 0, i, 0 }, &rows, &cols);
        }
    }
    if (!any || there) return COE_OK;
    return coe_fail(COE_E_INPUT,
                    "%s: projection_experts: no layer has one of the targets (gate, up and down are those of dense "
                    "layers; experts run in grouped products and have no such projections)",
                    where);
}

/* ---- first values ---- */

void projection_init(float *x, const struct projection_spec *s, enum slot slot, int64_t rows, int64_t cols,
                     struct rng *r)
{
    const double limit = sqrt(6 / ((1 + (slot == SLOT_MIX_ROUTER ? s->init_range : 5)) * (double)cols));
    for (int64_t i = 0; i < rows * cols; i++)
        x[i] = slot == SLOT_MIX_B ? 0.0f : (float)(limit * (2 * rng_uniform(r) - 1));
}

/* ---- onto a model that exists ---- */

coe_status model_to_projections(struct coe_model *m, const json_t *experts, uint64_t seed, enum dtype type,
                                const char *dir)
{
    struct coe_model *to = NULL;
    if (m->gguf_config)
        return coe_fail(COE_E_USAGE, "%s: experts beside projections are for Hugging Face directories", m->path);
    json_t *config = json_deep_copy(model_config(m));
    json_t *coe = json_object_get(config, "coe");
    if (!coe) json_object_set_new(config, "coe", coe = json_object());
    if (!coe || json_object_set(coe, "projection_experts", (json_t *)(uintptr_t)experts))
        return coe_fail(COE_E_NOMEM, "%s", m->path);
    coe_status s = model_make_trainable(m, NULL);
    if (!s) s = model_new(&to, config, m->path, seed, 0.02);
    if (!s) model_copy_params(to, m);
    if (!s) s = model_write(to, dir, config, type, m->path);
    model_close(to);
    json_decref(config);
    return s;
}

COE_PART(tuning, projection_experts, .summary = "low-rank experts beside single projections, each with its own router",
         .paper = "DynMoLE, 2025", .card = "routing.md 22", .unit = "token")
