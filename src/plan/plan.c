/* plan.c — a plan in memory, and running a planner: finding it, reading its parameters, checking that trace and model
 * belong together, predicting what the plan does. */
#include "plan/plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "plan/plan_in.h"

struct plan *plan_alloc(const char *path)
{
    struct plan *p = mem_zalloc("plan", sizeof *p);
    if (!p) return NULL;
    p->path = arena_strdup(&p->arena, path);
    if (p->path) return p;
    plan_free(p);
    return NULL;
}

coe_status plan_new(struct plan **out, const struct coe_model *m, const char *method, int32_t n_layers)
{
    struct plan *p = plan_alloc("plan");
    *out = NULL;
    if (!p) return COE_E_NOMEM;
    coe_status s = COE_E_NOMEM;
    p->method = arena_strdup(&p->arena, method);
    p->variant = arena_strdup(&p->arena, "published");
    p->family = arena_strdup(&p->arena, m->spec.family);
    p->layer = arena_push_zero(&p->arena, (size_t)n_layers * sizeof *p->layer);
    p->parameters = json_object();
    p->n_layers = n_layers;
    p->n_model_layers = m->spec.n_layers;
    if (!p->method || !p->variant || !p->family || !p->layer || !p->parameters) goto out;
    s = m->ckpt ? ckpt_fingerprint(m->ckpt, p->model)
                : coe_fail(COE_E_USAGE, "%s: has no checkpoint to plan for", m->path);
out:
    if (s) plan_free(p);
    else *out = p;
    return s;
}

void plan_free(struct plan *p)
{
    if (!p) return;
    json_decref(p->parameters);
    json_decref(p->predicted);
    json_decref(p->measured);
    arena_free(&p->arena);
    mem_free(p);
}

coe_status plan_keep(struct plan *p, int32_t i, int32_t layer, int32_t n_experts, const int32_t *keep, int32_t n)
{
    struct plan_layer *l = &p->layer[i];
    *l = (struct plan_layer){ layer, n_experts, n, arena_push(&p->arena, (size_t)n * sizeof *keep) };
    if (!l->keep) return COE_E_NOMEM;
    memcpy(l->keep, keep, (size_t)n * sizeof *keep);
    for (int32_t j = 1; j < n; j++) assert(keep[j] > keep[j - 1]);
    return COE_OK;
}

coe_status plan_fingerprint(const struct plan *p, char hex[17])
{
    XXH3_state_t *h = XXH3_createState();
    if (!h) return coe_fail(COE_E_NOMEM, "%s: no memory for a fingerprint", p->path);
    XXH3_64bits_reset(h);
    XXH3_64bits_update(h, p->model, strlen(p->model));
    for (int32_t i = 0; i < p->n_layers; i++) {
        XXH3_64bits_update(h, &p->layer[i].layer, sizeof p->layer[i].layer);
        XXH3_64bits_update(h, &p->layer[i].n_keep, sizeof p->layer[i].n_keep);
        XXH3_64bits_update(h, p->layer[i].keep, (size_t)p->layer[i].n_keep * sizeof *p->layer[i].keep);
    }
    snprintf(hex, 17, "%016" PRIx64, (uint64_t)XXH3_64bits_digest(h));
    XXH3_freeState(h);
    return COE_OK;
}
