/* live.c — a plan on a model in memory: checked, then laid over the router as masks. */
#include <string.h>

#include "plan/plan.h"

/* Grouped routers keep their groups: each must lose the same number of experts. */
static coe_status check_groups(const struct plan *p, const struct plan_layer *l, int32_t n_group)
{
    const int32_t size = l->n_experts / n_group, expected = l->n_keep / n_group;
    for (int32_t g = 0, i = 0; g < n_group; g++) {
        int32_t n = 0;
        for (; i < l->n_keep && l->keep[i] < (g + 1) * size; i++) n++;
        if (n != expected || !n)
            return coe_fail(
                COE_E_INPUT,
                "%s: layer %d: keeps %d experts of group %d; its %d groups must keep the same number of experts",
                p->path, l->layer, n, g, n_group);
    }
    return COE_OK;
}

static coe_status check_layer(const struct plan *p, const struct plan_layer *l, const struct coe_model *m)
{
    const struct layer_spec *s = &m->spec.layer[l->layer];
    if (!s->is_moe) return coe_fail(COE_E_INPUT, "%s: layer %d of %s has no experts", p->path, l->layer, m->path);
    if (l->n_experts != s->moe.n_experts)
        return coe_fail(COE_E_INPUT, "%s: layer %d: made for %d experts, %s has %d", p->path, l->layer, l->n_experts,
                        m->path, s->moe.n_experts);
    return check_groups(p, l, s->moe.router.n_group);
}

coe_status plan_check(const struct plan *p, const struct coe_model *m)
{
    char print[17] = "";
    if (m->ckpt) COE_TRY(ckpt_fingerprint(m->ckpt, print));
    if (strcmp(print, p->model))
        return coe_fail(COE_E_INPUT, "%s: was made for another model: its fingerprint is %s, that of %s is %s", p->path,
                        p->model, m->path, print);
    if (p->n_model_layers != m->spec.n_layers)
        return coe_fail(COE_E_INPUT, "%s: was made for %d layers, %s has %d", p->path, p->n_model_layers, m->path,
                        m->spec.n_layers);
    for (int32_t i = 0; i < p->n_layers; i++) COE_TRY(check_layer(p, &p->layer[i], m));
    return COE_OK;
}

static coe_status mask_layer(const struct plan_layer *l, struct coe_model *m)
{
    if (l->n_keep == l->n_experts) return COE_OK;
    uint8_t *keep = mem_zalloc("plan", (size_t)l->n_experts);
    if (!keep) return COE_E_NOMEM;
    for (int32_t i = 0; i < l->n_keep; i++) keep[l->keep[i]] = 1;
    coe_status s = model_set_keep(m, l->layer, keep);
    mem_free(keep);
    return s;
}

coe_status plan_apply_live(const struct plan *p, struct coe_model *m)
{
    COE_TRY(plan_check(p, m));
    for (int32_t i = 0; i < p->n_layers; i++) COE_TRY(mask_layer(&p->layer[i], m));
    return COE_OK;
}

coe_status plan_open_live(struct coe_model *m, const char *path)
{
    struct plan *p;
    COE_TRY(plan_read(&p, path));
    coe_status s = plan_apply_live(p, m);
    plan_free(p);
    return s;
}
