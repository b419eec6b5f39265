/* tune.c — fine-tuning: which parameters of a given model learn, the others staying frozen as they are stored.
 *
 *     tune:
 *       only: [router]                         classes: embedding, norm, attention, dense, router, expert, shared,
 *                                              head, adapter
 *       experts: [[0, 3], [1], …]              with the class expert: these ids of each layer that has experts
 *       lora: { rank: 8, alpha: 16, targets: [attention, expert] }     nothing but low-rank adapters learns (adapter.h)
 *
 * Without a tune section everything learns. `coe train` also takes `experts: { plan: P.json }` (the experts a plan
 * keeps) and `experts: { trace: T.coet, top: 4 }` (the most used ones), and puts lists in their place. */
#include <string.h>

#include "model/adapter.h"
#include "train/internal.h"

static coe_status check_classes(const struct recipe *r, const char *where)
{
    if (r->tune.only && !json_is_array(r->tune.only))
        return coe_fail(COE_E_INPUT, "%s: only is %s, expected a list of classes", where, json_kind(r->tune.only));
    for (size_t i = 0; i < json_array_size(r->tune.only); i++) {
        const char *name = json_string_value(json_array_get(r->tune.only, i));
        bool known = false;
        for (int k = 0; k < CLASS_COUNT && name; k++) known = known || !strcmp(name, class_name[k]);
        if (!known)
            return coe_fail(COE_E_INPUT,
                            "%s: only[%zu] is no class of parameters (embedding, norm, attention, dense, "
                            "router, expert, shared, head, adapter)",
                            where, i);
    }
    return COE_OK;
}

static coe_status read_lora(struct recipe *r, const json_t *o, const char *where)
{
    static const char *const keys[] = { "rank", "alpha", "targets", NULL };
    char place[700];
    snprintf(place, sizeof place, "%.600s.lora", where);
    if (!o) return COE_OK;
    if (!json_is_object(o)) return coe_fail(COE_E_INPUT, "%s is %s, expected an object", place, json_kind(o));
    COE_TRY(json_only_keys(o, keys, place));
    r->tune.rank = 8;
    COE_TRY(json_get_i32(o, "rank", 1, LOW_RANK_MAX, &r->tune.rank, place));
    r->tune.alpha = 2.0 * r->tune.rank;
    COE_TRY(json_get_num(o, "alpha", &r->tune.alpha, place));
    if (!(r->tune.alpha > 0 && r->tune.alpha < 1e6))
        return coe_fail(COE_E_INPUT, "%s: alpha is %g", place, r->tune.alpha);
    const json_t *list = json_object_get(o, "targets");
    if (list && !json_is_array(list))
        return coe_fail(COE_E_INPUT, "%s: targets is %s, expected a list", place, json_kind(list));
    r->tune.n_targets = list ? json_array_size(list) : 1;
    r->tune.target = mem_zalloc("recipe", (r->tune.n_targets + 1) * sizeof(const char *));
    if (!r->tune.target) return COE_E_NOMEM;
    for (size_t i = 0; i < r->tune.n_targets; i++) {
        r->tune.target[i] = list ? json_string_value(json_array_get(list, i)) : "attention";
        if (!r->tune.target[i]) return coe_fail(COE_E_INPUT, "%s: targets[%zu] is not a string", place, i);
    }
    return r->tune.n_targets ? COE_OK : coe_fail(COE_E_INPUT, "%s: targets names nothing", place);
}

coe_status tune_read(struct recipe *r, const char *where)
{
    static const char *const keys[] = { "only", "experts", "lora", NULL };
    const json_t *t = json_object_get(r->doc, "tune");
    char place[700];
    snprintf(place, sizeof place, "%.600s: tune", where);
    if (!t) return COE_OK;
    if (!json_is_object(t)) return coe_fail(COE_E_INPUT, "%s is %s, expected an object", place, json_kind(t));
    COE_TRY(json_only_keys(t, keys, place));
    if (!r->init) return coe_fail(COE_E_INPUT, "%s: what is not trained must be there: model.init is missing", place);
    r->tune.only = json_object_get(t, "only");
    r->tune.experts = json_object_get(t, "experts");
    COE_TRY(check_classes(r, place));
    COE_TRY(read_lora(r, json_object_get(t, "lora"), place));
    if (!r->tune.only && !r->tune.experts && !r->tune.rank)
        return coe_fail(COE_E_INPUT, "%s: says nothing (only, experts or lora)", place);
    if (r->tune.rank && (r->tune.only || r->tune.experts))
        return coe_fail(COE_E_INPUT, "%s: lora freezes every parameter; only and experts have nothing to choose",
                        place);
    return COE_OK;
}

static bool class_learns(const struct recipe *r, enum slot_class class)
{
    if (!r->tune.only) return class == CLASS_EXPERT;
    for (size_t i = 0; i < json_array_size(r->tune.only); i++)
        if (!strcmp(json_string_value(json_array_get(r->tune.only, i)), class_name[class])) return true;
    return false;
}

/* experts: one list for each layer that has experts, in order; keep [n_layers] of the model are those lists. */
static coe_status expert_lists(const struct trainer *t, const json_t **keep)
{
    const struct spec *s = &t->model->spec;
    const json_t *lists = t->r->tune.experts;
    size_t at = 0;
    if (!json_is_array(lists))
        return coe_fail(COE_E_INPUT, "%s: tune.experts is %s, expected a list of lists", t->r->path, json_kind(lists));
    for (int32_t l = 0; l < s->n_layers; l++) {
        if (!s->layer[l].is_moe) continue;
        const json_t *list = json_array_get(lists, at);
        if (!json_is_array(list))
            return coe_fail(COE_E_INPUT, "%s: tune.experts[%zu] is %s, expected the ids of layer %d", t->r->path, at,
                            json_kind(list), l);
        for (size_t i = 0; i < json_array_size(list); i++) {
            const json_t *id = json_array_get(list, i);
            if (!json_is_integer(id) || json_integer_value(id) < 0 ||
                json_integer_value(id) >= s->layer[l].moe.n_experts)
                return coe_fail(COE_E_INPUT, "%s: tune.experts[%zu][%zu] is no expert of layer %d (0 … %d)", t->r->path,
                                at, i, l, s->layer[l].moe.n_experts - 1);
        }
        keep[l] = list;
        at++;
    }
    if (at == json_array_size(lists)) return COE_OK;
    return coe_fail(COE_E_INPUT, "%s: tune.experts has %zu lists, the model %zu layers of experts", t->r->path,
                    json_array_size(lists), at);
}

static bool has_id(const json_t *list, int32_t id)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (json_integer_value(json_array_get(list, i)) == id) return true;
    return false;
}

/* trained [n_params] */
static coe_status choose(const struct trainer *t, uint8_t *trained, const json_t **keep)
{
    const struct recipe *r = t->r;
    size_t n = 0;
    if (r->tune.experts) COE_TRY(expert_lists(t, keep));
    for (size_t i = 0; i < t->model->n_params && !r->tune.rank; i++) {
        const struct place p = t->model->params[i].at;
        const bool of_expert = slot_info[p.slot].scope == SCOPE_EXPERT;
        trained[i] = class_learns(r, slot_info[p.slot].class) && !place_frozen(&t->model->spec, p) &&
                     !(r->tune.experts && slot_info[p.slot].class == CLASS_EXPERT &&
                       (!of_expert || !has_id(keep[p.layer], p.expert)));
        n += trained[i];
    }
    return n || r->tune.rank ? COE_OK : coe_fail(COE_E_INPUT, "%s: tune leaves nothing to learn", r->path);
}

coe_status tune_model(struct trainer *t)
{
    const struct recipe *r = t->r;
    struct coe_model *m = t->model;
    if (!r->tune.only && !r->tune.experts && !r->tune.rank) return model_make_trainable(m, NULL);
    uint8_t *trained = mem_zalloc("trainer", m->n_params + 1);
    const json_t **keep = mem_zalloc("trainer", ((size_t)m->spec.n_layers + 1) * sizeof *keep);
    coe_status s = trained && keep ? choose(t, trained, keep) : COE_E_NOMEM;
    if (!s) s = model_make_trainable(m, trained);
    if (!s && r->tune.rank) {
        const struct adapter_opts o = { r->tune.rank, r->tune.alpha, r->tune.target, r->tune.n_targets };
        s = adapter_attach(m, &o, r->seed);
    }
    mem_free(trained);
    mem_free(keep);
    return s;
}
