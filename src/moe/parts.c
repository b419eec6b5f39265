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
