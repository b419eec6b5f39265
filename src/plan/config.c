/* config.c — config.json of a model that lost experts. Where all MoE layers agree, the family's own keys change and
 * every program can read the result; where they differ, the "coe" object (model/spec_json.c) lists the numbers layer by
 * layer. */
#include <string.h>

#include "plan/plan.h"

int32_t plan_top_k(const struct plan_layer *l, const struct moe_spec *spec)
{
    const struct router_spec *r = &spec->router;
    return COE_MIN(r->top_k, r->topk_group * (l->n_keep / r->n_group));
}

/* Numbers of every layer of the model after the plan; 0 for a dense layer. */
struct after {
    int32_t *n_experts, *top_k;
};

static coe_status numbers_after(struct after *a, struct arena *arena, const struct plan *p, const struct coe_model *m)
{
    const size_t bytes = (size_t)m->spec.n_layers * sizeof(int32_t);
    a->n_experts = arena_push_zero(arena, bytes);
    a->top_k = arena_push_zero(arena, bytes);
    if (!a->n_experts || !a->top_k) return COE_E_NOMEM;
    for (int32_t l = 0; l < m->spec.n_layers; l++) {
        if (!m->spec.layer[l].is_moe) continue;
        a->n_experts[l] = m->spec.layer[l].moe.n_experts;
        a->top_k[l] = m->spec.layer[l].moe.router.top_k;
    }
    for (int32_t i = 0; i < p->n_layers; i++) {
        a->n_experts[p->layer[i].layer] = p->layer[i].n_keep;
        a->top_k[p->layer[i].layer] = plan_top_k(&p->layer[i], &m->spec.layer[p->layer[i].layer].moe);
    }
    return COE_OK;
}

/* The value all MoE layers share, or 0. */
static int32_t common(const struct spec *s, const int32_t *value)
{
    int32_t found = 0;
    for (int32_t l = 0; l < s->n_layers; l++) {
        if (!s->layer[l].is_moe) continue;
        if (found && value[l] != found) return 0;
        found = value[l];
    }
    return found;
}

/* Experts that return their input, kept by all layers alike. */
static coe_status kept_identity(int32_t *out, const struct plan *p, const struct coe_model *m)
{
    *out = -1;
    for (int32_t i = 0; i < p->n_layers; i++) {
        const struct plan_layer *l = &p->layer[i];
        const struct moe_spec *s = &m->spec.layer[l->layer].moe;
        int32_t n = 0;
        for (int32_t j = 0; j < l->n_keep; j++) n += l->keep[j] >= s->n_experts - s->n_identity;
        if (*out >= 0 && n != *out)
            return coe_fail(COE_E_USAGE,
                            "%s: the plan keeps %d identity experts in one layer and %d in another; its config has "
                            "one number for all",
                            m->path, *out, n);
        *out = n;
    }
    return COE_OK;
}

/* Identity experts have a key of their own beside the others'. */
static coe_status set_identity(json_t *config, const struct plan *p, const struct coe_model *m, int32_t *n_experts)
{
    int32_t n;
    for (int32_t l = 0; l < m->spec.n_layers; l++)
        if (m->spec.layer[l].moe.n_ranges)
            return coe_fail(COE_E_USAGE, "%s: layer %d has a list of kinds of experts; a plan on it works live only",
                            m->path, l);
        else if (m->spec.layer[l].moe.pool.layers > 1)
            return coe_fail(COE_E_USAGE, "%s: layer %d shares its experts with others; a plan on it works live only",
                            m->path, l);
        else if (m->spec.layer[l].moe.n_null)
            return coe_fail(COE_E_USAGE, "%s: layer %d has null experts; a plan on it works live only", m->path, l);
    if (!m->family->key_n_identity) return COE_OK;
    COE_TRY(kept_identity(&n, p, m));
    for (int32_t l = 0; l < m->spec.n_layers; l++)
        if (n >= 0 && n_experts[l]) n_experts[l] -= n;
    if (n >= 0) json_object_set_new(config, m->family->key_n_identity, json_integer(n));
    if (common(&m->spec, n_experts)) return COE_OK;
    return coe_fail(COE_E_USAGE,
                    "%s: the plan keeps different numbers of experts in its layers; the config has one for all",
                    m->path);
}

static json_t *overlay(json_t *config)
{
    json_t *coe = json_object_get(config, "coe");
    if (coe) return coe;
    json_object_set_new(config, "coe", json_object());
    return json_object_get(config, "coe");
}

/* One of the two numbers: `plain` and `list` are its keys in the overlay, `family` its key in the family's config. */
static void set_number(json_t *config, const struct spec *s, const int32_t *value, const char *family,
                       const char *plain, const char *list)
{
    const int32_t all = common(s, value);
    json_t *coe = json_object_get(config, "coe");
    if (coe) json_object_del(coe, list);
    if (all && family && !(coe && json_object_get(coe, plain))) {
        json_t *text = json_object_get(config, "text_config"); /* where a model of several kinds of input nests it */
        json_object_set_new(json_is_object(text) ? text : config, family, json_integer(all));
        return;
    }
    coe = overlay(config);
    if (all) {
        json_object_set_new(coe, plain, json_integer(all));
        return;
    }
    json_t *numbers = json_array();
    for (int32_t l = 0; l < s->n_layers; l++) json_array_append_new(numbers, json_integer(value[l]));
    json_object_set_new(coe, list, numbers);
}

/* The config must say what was meant, whatever the family makes of it. */
static coe_status check_config(const json_t *config, const struct after *a, const struct coe_model *m)
{
    struct arena arena = { 0 };
    struct spec spec;
    char where[600];
    snprintf(where, sizeof where, "%.500s: config with the plan applied", m->path);
    coe_status s = spec_read(&spec, &arena, config, where);
    for (int32_t l = 0; !s && l < m->spec.n_layers; l++)
        if (spec.layer[l].is_moe &&
            (spec.layer[l].moe.n_experts != a->n_experts[l] || spec.layer[l].moe.router.top_k != a->top_k[l]))
            s = coe_fail(COE_E_FAILED, "%s: layer %d reads as %d experts, top %d; meant were %d, top %d", where, l,
                         spec.layer[l].moe.n_experts, spec.layer[l].moe.router.top_k, a->n_experts[l], a->top_k[l]);
    arena_free(&arena);
    return s;
}

coe_status plan_config(json_t **out, const struct plan *p, const struct coe_model *m)
{
    struct arena arena = { 0 };
    struct after a;
    *out = NULL;
    if (!ckpt_config(m->ckpt))
        return coe_fail(
            COE_E_USAGE,
            "%s: a plan is applied to directories; `coe convert %s DIR` makes one, for which the plan is then "
            "made (live, --plan works on files too)",
            m->path, m->path);
    json_t *config = json_deep_copy(ckpt_config(m->ckpt));
    int32_t *stored = NULL;
    coe_status s = config ? numbers_after(&a, &arena, p, m)
                          : coe_fail(COE_E_NOMEM, "%s: no memory for the config", m->path);
    if (s) goto out;
    if (!(stored = arena_push(&arena, (size_t)m->spec.n_layers * sizeof *stored))) {
        s = COE_E_NOMEM;
        goto out;
    }
    memcpy(stored, a.n_experts, (size_t)m->spec.n_layers * sizeof *stored);
    if ((s = set_identity(config, p, m, stored))) goto out;
    set_number(config, &m->spec, stored, family_experts_key(m->family, config), "n_experts", "experts_per_layer");
    set_number(config, &m->spec, a.top_k, m->family->key_top_k, "top_k", "top_k_per_layer");
    s = check_config(config, &a, m);
out:
    arena_free(&arena);
    if (s) json_decref(config);
    else *out = config;
    return s;
}
