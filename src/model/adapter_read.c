/* adapter_read.c — adapters out of PEFT directories: adapter_config.json and adapter_model.safetensors.
 *
 *     base_model.model.MODULE.lora_A.weight [r, in]           MODULE.lora_B.weight [out, r]
 *     of a 3-D tensor of experts, A [E r, in]: expert e has rows e r …;  B [out, r E]: expert e has columns k E + e;
 * where a module has several such tensors, each but the last is called MODULE.base_layer…lora_A.weight Parts of one
 * stored matrix (gate and up; q, k and v) take their rows of B and share A. */
#include <math.h>
#include <string.h>

#include "base/file.h"
#include "model/adapter.h"
#include "model/gguf_form.h"

#define NESTED 4 /* tensors of one module that can have adapters */

struct reading {
    struct coe_model *m;
    const char *dir;
    struct ckpt *file;
    uint8_t *used;
    struct found *found; /* [n_params] */
    struct arena arena;
    struct spec spec; /* of the directory that the model is, or stands for */
    json_t *config;
};
struct found {
    const struct tensor *a, *b;
    struct adapter_key key;
    int32_t rank;
};

/* ---- the config ---- */

static coe_status refuse_flag(const struct reading *r, const char *key)
{
    const json_t *v = json_object_get(r->config, key);
    const bool off = !v || json_is_null(v) || json_is_false(v) || (json_is_array(v) && !json_array_size(v)) ||
                     (json_is_object(v) && !json_object_size(v));
    return off ? COE_OK
               : coe_fail(COE_E_INPUT, "%s/adapter_config.json: %s is set; only plain LoRA on weights is read", r->dir,
                          key);
}

static coe_status read_config(struct reading *r)
{
    static const char *const flags[] = { "use_dora",          "modules_to_save", "alpha_pattern",
                                         "layer_replication", "megatron_config", "use_qalora",
                                         "lora_bias",         "arrow_config",    "trainable_token_indices" };
    const char *kind = NULL, *bias = "none";
    char where[700];
    struct adapter *a = r->m->adapter;
    snprintf(where, sizeof where, "%.600s/adapter_config.json", r->dir);
    COE_TRY(json_need_str(r->config, "peft_type", &kind, where));
    if (strcmp(kind, "LORA")) return coe_fail(COE_E_INPUT, "%s: peft_type %s; only LORA is read", where, kind);
    COE_TRY(json_get_str(r->config, "bias", &bias, where));
    if (strcmp(bias, "none")) return coe_fail(COE_E_INPUT, "%s: bias %s; only none is read", where, bias);
    for (size_t i = 0; i < COE_COUNT(flags); i++) COE_TRY(refuse_flag(r, flags[i]));
    COE_TRY(json_need_i32(r->config, "r", 1, LOW_RANK_MAX, &a->rank, where));
    COE_TRY(json_get_num(r->config, "lora_alpha", &a->alpha, where));
    COE_TRY(json_get_bool(r->config, "use_rslora", &a->root, where));
    if (!(fabs(a->alpha) < 1e9)) return coe_fail(COE_E_INPUT, "%s: lora_alpha is %g", where, a->alpha);
    return COE_OK;
}

/* ---- which tensors ---- */

static const struct tensor *find(const struct reading *r, const char *module, int nested, const char *which)
{
    char name[400];
    int n = snprintf(name, sizeof name, "base_model.model.%s", module);
    for (int i = 0; i < nested; i++) n += snprintf(name + n, sizeof name - (size_t)n, ".base_layer");
    snprintf(name + n, sizeof name - (size_t)n, ".lora_%s.weight", which);
    return ckpt_find(r->file, name);
}

static coe_status misfit(const struct reading *r, const struct tensor *t, const struct param *p)
{
    char shape[96];
    return coe_fail(COE_E_INPUT, "%s: tensor %s has shape %s, which does not fit %s [%lld, %lld] of %s", r->dir,
                    t->name, tensor_shape_text(t, shape), p->w.name, (long long)p->w.rows, (long long)p->w.cols,
                    r->m->path);
}

static bool is_matrix(const struct tensor *t, int64_t rows, int64_t cols)
{
    return t && t->n_dims == 2 && t->dim[0] == rows && t->dim[1] == cols && t->dim[0] && t->dim[1] &&
           dtype_info[t->type].is_float && dtype_info[t->type].block == 1;
}

static bool fits(const struct found *f, const struct param *p)
{
    const int64_t parts = f->key.cut.parts > 1 ? f->key.cut.parts : 1;
    const int64_t experts = f->key.stacked ? f->key.n_experts : 1, rank = f->a->dim[0] / COE_MAX(experts, 1);
    return rank >= 1 && rank <= LOW_RANK_MAX && is_matrix(f->a, rank * experts, p->w.cols) &&
           is_matrix(f->b, parts * p->w.rows, rank * experts);
}

static coe_status find_pair(struct reading *r, size_t i)
{
    const struct param *p = &r->m->params[i];
    struct found f = { 0 };
    for (int k = 0; adapter_key(r->m, p, k, &f.key); k++)
        for (int nested = 0; nested < (f.key.stacked ? NESTED : 1); nested++) {
            f.a = find(r, f.key.module, nested, "A");
            f.b = find(r, f.key.module, nested, "B");
            if (!f.a || !f.b) continue;
            if (fits(&f, p)) {
                f.rank = (int32_t)(f.a->dim[0] / (f.key.stacked ? f.key.n_experts : 1));
                r->used[f.a - ckpt_at(r->file, 0)] = r->used[f.b - ckpt_at(r->file, 0)] = 1;
                r->found[i] = f;
                return COE_OK;
            }
            if (!f.key.stacked) return misfit(r, is_matrix(f.a, f.a->dim[0], p->w.cols) ? f.b : f.a, p);
        }
    return COE_OK;
}

static coe_status check_unused(const struct reading *r)
{
    for (size_t i = 0; i < ckpt_count(r->file); i++)
        if (!r->used[i])
            return coe_fail(COE_E_INPUT, "%s: tensor %s is no adapter of anything in %s that can have one", r->dir,
                            ckpt_at(r->file, i)->name, r->m->path);
    return COE_OK;
}

/* ---- their values ---- */

static void read_row(float *out, const struct tensor *t, int64_t row)
{
    const int64_t cols = t->dim[1];
    widen(out, (const char *)t->data + row * cols * dtype_info[t->type].bytes, t->type, cols);
}

static void fill_a(float *out, const struct found *f, int32_t expert)
{
    const int64_t first = f->key.stacked ? (int64_t)expert * f->rank : 0;
    for (int64_t k = 0; k < f->rank; k++) read_row(out + k * f->a->dim[1], f->a, first + k);
}

/* scratch [columns of B] */
static void fill_b(float *out, const struct found *f, const struct row_change *change, int64_t rows, int32_t expert,
                   float *scratch)
{
    const int64_t parts = f->key.cut.parts > 1 ? f->key.cut.parts : 1, part = f->key.cut.part;
    const int64_t step = f->key.stacked ? f->key.n_experts : 1;
    for (int64_t o = 0; o < rows; o++) {
        read_row(scratch, f->b, f->key.cut.how & CUT_ALTERNATE ? o * parts + part : part * rows + o);
        float *to = out + row_change_source(change, o) * f->rank;
        for (int64_t k = 0; k < f->rank; k++) to[k] = scratch[k * step + (f->key.stacked ? expert : 0)];
    }
}

static coe_status fill_pair(struct reading *r, size_t i, float *scratch)
{
    struct param *p = &r->m->params[i];
    const struct found *f = &r->found[i];
    struct adapter *a = r->m->adapter;
    struct low_rank *l = &a->part[i];
    l->a = adapter_matrix(r->m, f->a->name, f->rank, p->w.cols);
    l->b = adapter_matrix(r->m, f->b->name, p->w.rows, f->rank);
    if (!l->a || !l->b) return COE_E_NOMEM;
    fill_a(l->a->master, f, p->at.expert);
    const struct row_change change = row_change_between(&r->m->spec, &r->spec, p);
    fill_b(l->b->master, f, &change, p->w.rows, p->at.expert, scratch);
    l->scale = (float)(a->root ? a->alpha / sqrt(f->rank) : a->alpha / f->rank);
    p->w.low_rank = l;
    return COE_OK;
}

static coe_status take_all(struct reading *r)
{
    size_t n = 0, floats = 0;
    int64_t widest = 1;
    for (size_t i = 0; i < r->m->n_params; i++) {
        const struct param *p = &r->m->params[i];
        if (adapter_fits(p)) COE_TRY(find_pair(r, i));
        const struct found *f = &r->found[i];
        if (!f->a) continue;
        n += 2;
        floats += (size_t)f->rank * (size_t)(p->w.rows + p->w.cols);
        widest = COE_MAX(widest, f->b->dim[1]);
    }
    COE_TRY(check_unused(r));
    COE_TRY(adapter_spec(r->m, &r->arena, &r->spec));
    COE_TRY(adapter_make(r->m, n, floats, false));
    COE_TRY(read_config(r));
    float *scratch = mem_alloc("adapter", (size_t)widest * sizeof *scratch);
    coe_status s = scratch ? COE_OK : COE_E_NOMEM;
    for (size_t i = 0; i < r->m->n_params && !s; i++)
        if (r->found[i].a) s = fill_pair(r, i, scratch);
    mem_free(scratch);
    return s;
}

static coe_status open_files(struct reading *r)
{
    char *config = path_join(r->dir, "adapter_config.json"), *weights = path_join(r->dir, "adapter_model.safetensors");
    coe_status s = config && weights ? COE_OK : COE_E_NOMEM;
    if (!s && !file_exists(config))
        s = coe_fail(COE_E_INPUT, "%s: an adapter is a directory with adapter_config.json", r->dir);
    if (!s) s = json_read_file(&r->config, config);
    if (!s) s = ckpt_open(&r->file, weights);
    mem_free(config);
    mem_free(weights);
    return s;
}

coe_status adapter_open(struct coe_model *m, const char *dir)
{
    struct reading r = { .m = m, .dir = dir };
    COE_TRY(adapter_allowed(m));
    coe_status s = open_files(&r);
    if (!s) {
        r.used = mem_zalloc("adapter", ckpt_count(r.file) + 1);
        r.found = mem_zalloc("adapter", (m->n_params + 1) * sizeof *r.found);
        s = r.used && r.found ? take_all(&r) : COE_E_NOMEM;
    }
    if (r.file) ckpt_close(r.file);
    json_decref(r.config);
    arena_free(&r.arena);
    mem_free(r.used);
    mem_free(r.found);
    return s;
}
