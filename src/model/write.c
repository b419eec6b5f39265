/* write.c — a model as a Hugging Face directory. */
#include <string.h>

#include "model/model.h"

struct source {
    const struct weight *w;
};

static coe_status fill(void *user, const struct tensor *t, int64_t first, int64_t count, void *out)
{
    const struct weight *w = ((const struct source *)user)->w;
    float wide[4096];
    char *to = out;
    const char *from = (const char *)w->data;
    const size_t in = (size_t)dtype_info[w->type].bytes, size = (size_t)dtype_info[t->type].bytes;
    for (int64_t i = 0; i < count; i += (int64_t)COE_COUNT(wide)) {
        const int64_t n = COE_MIN((int64_t)COE_COUNT(wide), count - i);
        widen(wide, from + (size_t)(first + i) * in, w->type, n);
        narrow(to + (size_t)i * size, t->type, wide, n);
    }
    return COE_OK;
}

/* Selection biases stay F32 whatever the file's type: they are a controller's state, not weights. */
static enum dtype stored_type(const struct param *p, enum dtype type)
{
    return p->at.slot == SLOT_SELECTION_BIAS || p->at.slot == SLOT_COE_WEIGHT ? DT_F32 : type;
}

coe_status model_write(const struct coe_model *m, const char *dir, const json_t *config, enum dtype type,
                       const char *from_dir)
{
    coe_status s = COE_OK;
    struct ckpt_item *items = mem_zalloc("writing", m->n_params * sizeof *items);
    struct source *sources = mem_alloc("writing", m->n_params * sizeof *sources);
    if (!items || !sources) {
        s = COE_E_NOMEM;
        goto out;
    }
    for (size_t i = 0; i < m->n_params; i++) {
        const struct param *p = &m->params[i];
        const bool vector = slot_info[p->at.slot].is_vector;
        sources[i].w = &p->w;
        items[i] = (struct ckpt_item){ .t = { .name = p->w.name, .type = stored_type(p, type),
                                              .n_dims = vector ? 1 : 2 }, .fill = fill, .user = &sources[i] };
        items[i].t.dim[0] = vector ? p->w.cols : p->w.rows;
        items[i].t.dim[1] = vector ? 0 : p->w.cols;
    }
    s = ckpt_write_dir(dir, config, items, m->n_params, 0, from_dir);
out:
    mem_free(sources);
    mem_free(items);
    return s;
}
