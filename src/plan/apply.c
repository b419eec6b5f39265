/* apply.c — the smaller checkpoint: every tensor of the source goes one of three ways, streamed from the mapping.
 *
 *     experts in tensors of their own    kept ones are written under their new number, the others left out
 *     experts fused in one tensor        [E, …] becomes [n_keep, …], slice by slice
 *     routers and their biases           rows (elements) of the kept experts, in every iteration
 *     everything else                    as it is
 *
 * Types and names are the source's, so the result has the bits of the masked original (live.c). */
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "model/convert.h"
#include "plan/plan.h"

/* One tensor of the source and what becomes of it. */
struct change {
    const struct plan_layer *keep; /* gather along the first dimension (or, for vectors, elements) */
    const char *name;              /* new name, or NULL */
    bool drop;
};

struct applier {
    const struct plan *p;
    const struct coe_model *m;
    struct arena arena;
    struct change *change; /* [ckpt_count] */
    struct ckpt_item *item;
    size_t n_items;
};

static size_t tensor_index(const struct ckpt *c, const char *name)
{
    return (size_t)(ckpt_find(c, name) - ckpt_at(c, 0));
}

static int32_t new_id(const struct plan_layer *l, int32_t e)
{
    for (int32_t i = 0; i < l->n_keep; i++)
        if (l->keep[i] == e) return i;
    return -1;
}

/* The same spelling of the family's name with another expert in it. */
static coe_status rename_expert(struct applier *a, const struct param *q, int32_t e, const char **out)
{
    char name[256];
    struct place to = q->at;
    to.expert = e;
    for (int i = 0; family_name(a->m->family, &a->m->spec, q->at, i, name, sizeof name); i++) {
        if (strcmp(name, q->w.name)) continue;
        if (!family_name(a->m->family, &a->m->spec, to, i, name, sizeof name)) break;
        *out = arena_strdup(&a->arena, name);
        return *out ? COE_OK : COE_E_NOMEM;
    }
    return coe_fail(COE_E_FAILED, "%s: tensor %s has no name for expert %d", a->m->path, q->w.name, e);
}

/* The scales of a packed tensor follow it: slice by slice, or under its new name. */
static coe_status change_scale(struct applier *a, const struct param *q, const struct change *of)
{
    if (!q->scale) return COE_OK;
    struct change *c = &a->change[tensor_index(a->m->ckpt, q->scale->name)];
    *c = *of;
    if (!of->name) return COE_OK;
    const size_t n = strlen(of->name) + strlen(q->scale->name) - strlen(q->w.name) + 1;
    char *name = arena_push(&a->arena, n);
    if (!name) return COE_E_NOMEM;
    snprintf(name, n, "%s%s", of->name, q->scale->name + strlen(q->w.name));
    c->name = name;
    return COE_OK;
}

static coe_status change_param(struct applier *a, const struct param *q, const struct plan_layer *l)
{
    struct change *c = &a->change[tensor_index(a->m->ckpt, q->w.name)];
    const enum slot slot = q->at.slot;
    const bool of_expert = slot_info[slot].scope == SCOPE_EXPERT, fused = of_expert && (q->cut.how & CUT_EXPERT);
    const struct part_weight *part = place_part(&a->m->spec, q->at);
    if (part && part->couples)
        return coe_fail(COE_E_USAGE,
                        "%s: tensor %s joins the experts of a layer with one another; such a model cannot lose some",
                        a->m->path, q->w.name);
    if (slot == SLOT_ROUTER || slot == SLOT_ROUTER_BIAS || slot == SLOT_SELECTION_BIAS || slot == SLOT_EXPERT_SCALE ||
        fused || (part && part->by_expert)) {
        c->keep = l;
        return change_scale(a, q, c);
    }
    if (!of_expert) return COE_OK;
    const int32_t e = new_id(l, q->at.expert);
    c->drop = e < 0;
    if (e >= 0) COE_TRY(rename_expert(a, q, e, &c->name));
    return change_scale(a, q, c);
}

static coe_status find_changes(struct applier *a)
{
    const struct plan_layer **of = arena_push_zero(&a->arena,
                                                   (size_t)a->m->spec.n_layers * sizeof(struct plan_layer *));
    a->change = arena_push_zero(&a->arena, ckpt_count(a->m->ckpt) * sizeof *a->change);
    if (!a->change || !of) return COE_E_NOMEM;
    for (int32_t i = 0; i < a->p->n_layers; i++)
        if (a->p->layer[i].n_keep < a->p->layer[i].n_experts) of[a->p->layer[i].layer] = &a->p->layer[i];
    for (size_t i = 0; i < a->m->n_params; i++) {
        const struct param *q = &a->m->params[i];
        if (slot_info[q->at.slot].scope != SCOPE_MODEL && of[q->at.layer]) COE_TRY(change_param(a, q, of[q->at.layer]));
    }
    return COE_OK;
}

/* Elements of the source's slice for one expert. */
static int64_t slice_of(const struct tensor *t, const struct plan_layer *l) { return tensor_count(t) / l->n_experts; }

struct gather {
    const struct tensor *from;
    const struct plan_layer *keep;
};

static coe_status fill(void *user, const struct tensor *t, int64_t first, int64_t count, void *out)
{
    const struct gather *g = user;
    const int64_t slice = slice_of(g->from, g->keep);
    char *to = out;
    for (int64_t i = first, n; i < first + count; i += n) {
        uint64_t at = 0, bytes = 0;
        n = COE_MIN(slice - i % slice, first + count - i);
        if (!dtype_bytes(t->type, (uint64_t)(g->keep->keep[i / slice] * slice + i % slice), &at) ||
            !dtype_bytes(t->type, (uint64_t)n, &bytes))
            return coe_fail(COE_E_FAILED, "%s: size of a slice", t->name);
        memcpy(to, (const char *)g->from->data + at, (size_t)bytes);
        to += bytes;
    }
    return COE_OK;
}

static coe_status add_item(struct applier *a, const struct tensor *t, const struct change *c)
{
    struct ckpt_item *item = &a->item[a->n_items++];
    *item = (struct ckpt_item){ .t = *t };
    if (c->name) item->t.name = c->name;
    if (!c->keep) return COE_OK;
    struct gather *g = arena_push(&a->arena, sizeof *g);
    if (!g) return COE_E_NOMEM;
    *g = (struct gather){ t, c->keep };
    item->fill = fill;
    item->user = g;
    const int32_t along = t->dim[0] == c->keep->n_experts ? 0 : t->n_dims - 1; /* a bias may be stored as [1, E] */
    item->t.dim[along] = c->keep->n_keep;
    return COE_OK;
}

static coe_status make_items(struct applier *a)
{
    const struct ckpt *c = a->m->ckpt;
    COE_TRY(find_changes(a));
    a->item = arena_push(&a->arena, (ckpt_count(c) + 1) * sizeof *a->item);
    if (!a->item) return COE_E_NOMEM;
    for (size_t i = 0; i < ckpt_count(c); i++)
        if (!a->change[i].drop) COE_TRY(add_item(a, ckpt_at(c, i), &a->change[i]));
    return COE_OK;
}

static bool same_directory(const char *a, const char *b)
{
    struct stat x, y;
    return !stat(a, &x) && !stat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* A directory that is replaced must look like a model: nobody's home directory goes by a slip. */
static coe_status check_target(const char *dir, const char *source)
{
    struct file_list names;
    if (same_directory(dir, source))
        return coe_fail(COE_E_USAGE, "%s: is the model itself; write to another directory", dir);
    if (file_exists(dir)) return coe_fail(COE_E_USAGE, "%s: is a file; a model is written as a directory", dir);
    if (!dir_exists(dir)) return COE_OK;
    COE_TRY(dir_list(&names, dir));
    bool model = !names.n;
    for (size_t i = 0; i < names.n; i++) model |= !strcmp(names.name[i], "config.json");
    file_list_free(&names);
    return model ? COE_OK : coe_fail(COE_E_USAGE, "%s: holds files that are no model; write to another directory", dir);
}

coe_status plan_apply(const struct plan *p, const struct coe_model *m, const char *dir)
{
    struct applier a = { .p = p, .m = m };
    json_t *config = NULL;
    coe_status s = plan_check(p, m);
    if (!s) s = check_target(dir, m->path);
    if (!s) s = plan_config(&config, p, m);
    if (!s) s = make_items(&a);
    if (!s) s = ckpt_write_dir(dir, config, a.item, a.n_items, 0, m->path, NULL);
    if (!s) config_note_own(config, dir);
    json_decref(config);
    arena_free(&a.arena);
    return s;
}

uint64_t plan_bytes(const struct plan *p, const struct coe_model *m)
{
    struct applier a = { .p = p, .m = m };
    uint64_t total = 0;
    if (make_items(&a)) a.n_items = 0;
    for (size_t i = 0; i < a.n_items; i++) {
        uint64_t bytes = 0;
        (void)dtype_bytes(a.item[i].t.type, (uint64_t)tensor_count(&a.item[i].t), &bytes);
        total += bytes;
    }
    arena_free(&a.arena);
    return total;
}
