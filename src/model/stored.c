/* stored.c — see stored.h. */
#include "model/stored.h"

struct cut_request stored_request(const struct coe_model *m, const struct param *p)
{
    return (struct cut_request){ .path = m->path,
                                 .t = p->stored,
                                 .scale = p->scale,
                                 .block = { m->scale_block[0], m->scale_block[1] },
                                 .cut = p->cut,
                                 .n_experts = spec_experts(&m->spec, p->at),
                                 .n_identity = m->spec.layer[p->at.layer].moe.n_identity,
                                 .expert = p->at.expert,
                                 .rows = p->w.rows,
                                 .cols = p->w.cols,
                                 .vector = slot_info[p->at.slot].is_vector,
                                 .wide = m->wide || p->at.slot == SLOT_KV_B || p->at.slot == SLOT_CONV,
                                 .later = m->stored };
}

void param_part(const struct coe_model *m, const struct param *p, int64_t row, int64_t col, int64_t n, float *out)
{
    const struct dtype_info *d = &dtype_info[p->w.type];
    if (p->w.data && d->block == 1) {
        widen(out, (const char *)p->w.data + (row * p->w.cols + col) * d->bytes, p->w.type, n);
        return;
    }
    const struct cut_request r = stored_request(m, p);
    cut_part(&r, row, col, n, out);
}

enum dtype param_packed_type(const struct coe_model *m, const struct param *p)
{
    if (!p->stored) return DT_COUNT;
    const struct cut_request r = stored_request(m, p);
    return cut_packed_type(&r);
}

void param_packed_row(const struct coe_model *m, const struct param *p, int64_t row, void *out)
{
    const struct cut_request r = stored_request(m, p);
    cut_packed_row(&r, row, out);
}

void param_release(const struct param *p)
{
    if (p->stored) ckpt_release_pages(p->stored);
    if (p->scale) ckpt_release_pages(p->scale);
}
