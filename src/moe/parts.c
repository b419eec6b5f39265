/* parts.c — the parts that a layer's spec names: choosing them with their default settings, their tables of weights,
 * and what one routing decision leaves to the next. */
#include <string.h>

#include "moe/moe.h"

bool moe_select(struct router_spec *r, const char *selection)
{
    const struct part *p = part_find("selection", selection);
    if (!p) return false;
    r->selection = p->name;
    part_defaults(p, r->param);
    return true;
}

bool moe_use_router(struct router_spec *r, const char *router)
{
    const struct part *p = part_find("router", router);
    if (!p) return false;
    r->kind = p->name;
    part_defaults(p, r->kind_param);
    return true;
}

const struct router_part *moe_router(const struct moe_spec *m) { return part_find("router", m->router.kind)->impl; }

bool router_has_matrix(const struct moe_spec *m)
{
    (void)m;
    return true;
}

bool moe_router_matrix(const struct moe_spec *m)
{
    const struct router_part *r = moe_router(m);
    return r->matrix && r->matrix(m);
}

const struct attn_batch *router_batch(const struct router_call *call, struct attn_batch *alone)
{
    static const int64_t start;
    if (call->pass->batch) return call->pass->batch;
    int32_t *off = arena_push(call->pass->c->arena, 2 * sizeof *off);
    if (!off) return NULL;
    off[0] = 0, off[1] = (int32_t)call->x->rows;
    *alone = (struct attn_batch){ 1, off, &start, NULL };
    return alone;
}

bool router_cache(const struct router_call *call, struct kv_layer **kv)
{
    const struct moe_pass *p = call->pass;
    *kv = NULL;
    if (!p->kv || !p->batch) return true;
    *kv = arena_push(p->c->arena, (size_t)p->batch->n_seq * sizeof **kv);
    for (int32_t i = 0; *kv && i < p->batch->n_seq; i++) (*kv)[i] = p->kv[i].router[call->iteration];
    return *kv != NULL;
}

struct val *router_scores(const struct router_call *call, struct val *x)
{
    const struct moe_weights *w = call->w;
    return nn_linear(call->pass->c, x, w->router[call->iteration], w->router_bias[call->iteration]);
}

const struct part_weight *moe_part_table(const struct moe_spec *m, int32_t owner, const double **param)
{
    if (!owner) {
        if (param) *param = m->router.kind_param;
        return moe_router(m)->weights;
    }
    if (owner > m->n_ranges) return NULL;
    const struct expert_part *kind = part_find("expert", m->range[owner - 1].kind)->impl;
    if (param) *param = m->range[owner - 1].param;
    return kind->weights;
}

bool moe_carry(struct moe_pass *p, struct val *v)
{
    if (!v) return false;
    p->carried = v;
    if (p->c->tape || !p->carry_room) return true;
    memcpy(p->carry_room, v->data, (size_t)(v->rows * v->cols) * sizeof(float));
    p->carry_val = (struct val){ .data = p->carry_room, .rows = v->rows, .cols = v->cols };
    p->carried = &p->carry_val;
    return true;
}
