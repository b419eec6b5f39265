/* weights.c — see weights.h. */
#include "moe/losses/weights.h"

coe_status loss_router_rows(const struct route_record *r, const char *loss, const struct weight **out)
{
    const struct weight *w = r->w ? r->w->router[r->iteration] : NULL;
    if (!w || w->rows != r->route.n_experts)
        return coe_fail(COE_E_USAGE, "loss %s: the router of layer %d has no row for each expert", loss, r->layer);
    *out = w;
    return COE_OK;
}

coe_status loss_gate_matrices(const struct route_record *r, const char *loss, int64_t cols)
{
    for (int32_t e = 0; e < moe_weighted(r->spec); e++)
        if (!r->w->gate || !r->w->gate[e] || r->w->gate[e]->cols != cols)
            return coe_fail(COE_E_USAGE, "loss %s: expert %d of layer %d has no gate matrix over %lld inputs", loss, e,
                            r->layer, (long long)cols);
    return COE_OK;
}

bool loss_router_seen(const struct loss_call *c, int32_t record)
{
    const struct route_record *r = c->records[record];
    for (int32_t i = 0; i < record; i++)
        if (c->records[i]->w && c->records[i]->w->router[c->records[i]->iteration] == r->w->router[r->iteration])
            return true;
    return false;
}

bool loss_experts_seen(const struct loss_call *c, int32_t record)
{
    for (int32_t i = 0; i < record; i++)
        if (c->records[i]->w == c->records[record]->w) return true;
    return false;
}
