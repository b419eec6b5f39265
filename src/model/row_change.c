/* row_change.c — see row_change.h. */
#include "model/row_change.h"

#include <math.h>

#include "model/gguf_form.h"

struct row_change row_change_between(const struct spec *from, const struct spec *to, const struct param *p)
{
    const enum slot slot = p->at.slot;
    const struct attn_spec *now = &from->layer[p->at.layer].attn, *then = &to->layer[p->at.layer].attn;
    const struct recurrent_spec *r = &now->recurrent;
    const bool turned = slot == SLOT_Q || slot == SLOT_K || slot == SLOT_Q_BIAS || slot == SLOT_K_BIAS;
    const bool in_delta = slot == SLOT_DELTA_QKVZ || slot == SLOT_DELTA_QKV || slot == SLOT_DELTA_Z;
    struct row_change c = { .cols = slot_info[slot].is_vector ? 1 : p->w.cols };
    if (turned && now->rope.interleaved != then->rope.interleaved)
        c.head_dim = then->rope.interleaved ? now->head_dim : -now->head_dim;
    if (gguf_is_norm_weight(slot)) c.add = from->norm_add - to->norm_add;
    if (slot == SLOT_DELTA_A) c.decay = (int8_t)(then->recurrent.negative_a - r->negative_a);
    if (!in_delta || r->ungrouped == then->recurrent.ungrouped) return c;
    c.regroup = then->recurrent.ungrouped ? 1 : -1;
    c.delta = (struct delta_rows){ r->n_k, r->d_k, (int64_t)(r->n_v / r->n_k) * r->d_v };
    return c;
}

/* Row of all heads, [q | k | v | z] → its place in the groups */
static int64_t in_groups(const struct delta_rows *d, int64_t row)
{
    const int64_t k = d->n_k * d->d_k, v = d->n_k * d->values, group = 2 * (d->d_k + d->values);
    if (row < 2 * k) return row % k / d->d_k * group + row / k * d->d_k + row % d->d_k;
    row -= 2 * k;
    return row % v / d->values * group + 2 * d->d_k + row / v * d->values + row % d->values;
}

/* The other way round */
static int64_t of_all_heads(const struct delta_rows *d, int64_t row)
{
    const int64_t k = d->n_k * d->d_k, v = d->n_k * d->values, group = 2 * (d->d_k + d->values);
    const int64_t head = row / group, in = row % group, value = in - 2 * d->d_k;
    if (value < 0) return in / d->d_k * k + head * d->d_k + in % d->d_k;
    return 2 * k + value / d->values * v + head * d->values + value % d->values;
}

int64_t row_change_source(const struct row_change *c, int64_t row)
{
    if (c->regroup > 0) return in_groups(&c->delta, c->first + row);
    if (c->regroup < 0) return of_all_heads(&c->delta, row);
    if (!c->head_dim) return row;
    const int64_t head = c->head_dim > 0 ? c->head_dim : -c->head_dim, half = head / 2, in = row % head;
    return row - in + (c->head_dim > 0 ? in % 2 * half + in / 2 : in % half * 2 + in / half);
}

static float rounded(float x, enum dtype type)
{
    uint16_t half;
    narrow(&half, type, &x, 1);
    widen(&x, &half, type, 1);
    return x;
}

/* The shortest logarithm whose exponential is `a` here; where none is, the nearest. */
static float log_of(float a)
{
    const float x = (float)log((double)a), bf16 = rounded(x, DT_BF16), f16 = rounded(x, DT_F16);
    const float near[] = { bf16, f16, x, nextafterf(x, INFINITY), nextafterf(x, -INFINITY) };
    for (size_t i = 0; i < COE_COUNT(near); i++)
        if (fm_exp(near[i]) == a) return near[i];
    return x;
}

float row_change_value(const struct row_change *c, float x)
{
    if (c->decay) return c->decay > 0 ? -fm_exp(x) : log_of(-x);
    return x + c->add;
}
