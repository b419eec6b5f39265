/* resume.c — see resume.h. */
#include "model/resume.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "tensor/low_rank.h"

static void add(XXH3_state_t *h, const void *bytes, size_t n) { XXH3_64bits_update(h, bytes, n); }

static void add_number(XXH3_state_t *h, uint64_t x) { add(h, &x, sizeof x); }

static void add_text(XXH3_state_t *h, const char *text) { add(h, text, strlen(text) + 1); }

static void add_items(XXH3_state_t *h, const struct ckpt_item *item, size_t n)
{
    add_number(h, n);
    for (size_t i = 0; i < n; i++) {
        const struct tensor *t = &item[i].t;
        add_text(h, t->name);
        add_text(h, dtype_info[t->type].name);
        add_number(h, (uint64_t)t->n_dims);
        for (int32_t k = 0; k < t->n_dims; k++) add_number(h, (uint64_t)t->dim[k]);
    }
}

static void add_imatrix(XXH3_state_t *h, const struct imatrix *im)
{
    add_number(h, im ? im->entry.n : 0);
    for (size_t i = 0; im && i < im->entry.n; i++) {
        const struct imatrix_entry *e = &im->entry.at[i];
        add_text(h, e->name);
        add(h, e->sum2, (size_t)(e->n * e->cols) * sizeof *e->sum2);
        add(h, e->counts, (size_t)e->n * sizeof *e->counts);
    }
}

/* An adapter that is merged while writing */
static void add_adapter(XXH3_state_t *h, const struct coe_model *m)
{
    for (size_t i = 0; m->adapter && i < m->n_params; i++) {
        const struct low_rank *l = m->params[i].w.low_rank;
        if (!l) continue;
        add_number(h, i);
        add(h, &l->scale, sizeof l->scale);
        add(h, l->a->data, (size_t)weight_count(l->a) * sizeof(float));
        add(h, l->b->data, (size_t)weight_count(l->b) * sizeof(float));
    }
}

static void add_program(XXH3_state_t *h)
{
    struct stat st;
    if (stat("/proc/self/exe", &st)) return;
    add_number(h, (uint64_t)st.st_size);
    add_number(h, (uint64_t)st.st_mtim.tv_sec);
    add_number(h, (uint64_t)st.st_mtim.tv_nsec);
}

coe_status resume_key(struct ckpt_resume *r, const struct resume_of *of)
{
    char fingerprint[17] = "";
    if (of->m->ckpt) COE_TRY(ckpt_fingerprint(of->m->ckpt, fingerprint));
    XXH3_state_t *h = XXH3_createState();
    if (!h) return coe_fail(COE_E_NOMEM, "%s: no memory for a hash", of->m->path);
    XXH3_64bits_reset(h);
    add_program(h);
    add_text(h, fingerprint);
    add_adapter(h, of->m);
    add(h, of->head, of->n_head);
    add_items(h, of->item, of->n);
    add_number(h, of->shard_bytes);
    add_imatrix(h, of->imatrix);
    snprintf(r->key, sizeof r->key, "%016" PRIx64, (uint64_t)XXH3_64bits_digest(h));
    XXH3_freeState(h);
    return COE_OK;
}
