/* losses.c — applies the losses of a spec to the routing records of a forward pass; load statistics. */
#include <math.h>
#include <string.h>

#include "moe/moe.h"

float *loss_dz(struct nn *c, struct route_record *r)
{
    if (!r->dz) r->dz = arena_push_zero(c->arena, (size_t)(r->z->rows * r->z->cols) * sizeof(float));
    return r->dz;
}

coe_status moe_losses(const struct loss_call *base, double *total, double value[MAX_LOSSES])
{
    *total = 0;
    if (value) memset(value, 0, MAX_LOSSES * sizeof *value);
    if (!base->n_records) return COE_OK;
    const struct moe_spec *spec = base->records[0]->spec; /* one list of losses per model */
    for (int32_t i = 0; i < spec->n_losses; i++) {
        const struct loss_part *part = part_find("loss", spec->loss[i].kind)->impl;
        struct loss_call call = *base;
        call.coef = spec->loss[i].coef;
        call.param = spec->loss_param[i];
        double v = 0;
        COE_TRY(part->apply(&call, &v));
        *total += call.coef * v;
        if (value) value[i] = v;
    }
    return COE_OK;
}

void moe_add_counts(const struct route_record *r, uint64_t *counts)
{
    const struct route *rt = r->wanted.tok_off ? &r->wanted : &r->route;
    for (int32_t i = 0; i < rt->n_slots; i++) counts[rt->expert[i]]++;
}

double load_imbalance(const uint64_t *counts, int32_t n_experts, int32_t n_groups, uint64_t n_tokens)
{
    const int32_t size = n_experts / n_groups;
    uint64_t most = 0, least = UINT64_MAX;
    for (int32_t g = 0; g < n_groups; g++) {
        uint64_t sum = 0;
        for (int32_t i = 0; i < size; i++) sum += counts[g * size + i];
        most = COE_MAX(most, sum);
        least = COE_MIN(least, sum);
    }
    return n_tokens ? (double)(most - least) / (double)n_tokens : 0;
}

struct load_stats load_statistics(const uint64_t *counts, int32_t n_experts)
{
    struct load_stats s = { 0 };
    double mean = 0, square = 0, max = 0;
    for (int32_t e = 0; e < n_experts; e++) {
        mean += (double)counts[e];
        max = COE_MAX(max, (double)counts[e]);
        s.dead += counts[e] == 0;
    }
    mean /= n_experts;
    if (mean <= 0) return s;
    for (int32_t e = 0; e < n_experts; e++) square += ((double)counts[e] - mean) * ((double)counts[e] - mean);
    for (int32_t e = 0; e < n_experts; e++) {
        const double share = (double)counts[e] / (mean * n_experts);
        s.avg_vio += fabs((double)counts[e] / mean - 1) / n_experts;
        s.entropy -= share > 0 ? share * log(share) : 0;
    }
    s.entropy = n_experts > 1 ? s.entropy / log(n_experts) : 1;
    s.cv = sqrt(square / n_experts) / mean;
    s.max_vio = max / mean - 1;
    return s;
}
