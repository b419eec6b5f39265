/* open.c — opening, making and closing models, and the masters of training. */
#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/rng.h"
#include "model/adapter.h"
#include "model/bind.h"
#include "model/gguf.h"
#include "model/part_places.h"
#include "model/projection_form.h"

static coe_status make(struct coe_model **out, const char *path)
{
    COE_TRY(kernels_init());
    struct coe_model *m = mem_zalloc("model", sizeof *m);
    *out = m;
    if (!m) return COE_E_NOMEM;
    m->path = arena_strdup(&m->arena, path);
    return m->path ? COE_OK : COE_E_NOMEM;
}

static coe_status read_spec(struct coe_model *m, const json_t *config, const char *where)
{
    COE_TRY(spec_read(&m->spec, &m->arena, config, where));
    m->family_part = part_find("family", m->spec.family);
    m->family = m->family_part->impl;
    return COE_OK;
}

static coe_status open_tokenizer(struct coe_model *m)
{
    static const char *const names[] = { "tokenizer.json", "tokenizer.model" };
    const struct gguf *g = ckpt_gguf(m->ckpt);
    if (g && gguf_find(g, "tokenizer.ggml.model")) return tokenizer_open(&m->tokenizer, m->path);
    for (size_t i = 0; i < COE_COUNT(names) && dir_exists(m->path); i++) {
        char *p = path_join(m->path, names[i]);
        if (!p) return COE_E_NOMEM;
        const bool there = file_exists(p);
        mem_free(p);
        if (there) return tokenizer_open(&m->tokenizer, m->path);
    }
    return COE_OK;
}

static coe_status read_directory(struct coe_model *m)
{
    char where[600];
    const json_t *config = ckpt_config(m->ckpt);
    if (!config)
        return coe_fail(COE_E_INPUT, "%s: a model is a directory with config.json; this is only weights", m->path);
    snprintf(where, sizeof where, "%.560s/config.json", m->path);
    return read_spec(m, config, where);
}

static coe_status read_gguf(struct coe_model *m)
{
    COE_TRY(gguf_config(&m->gguf_config, m->ckpt));
    coe_status s = read_spec(m, m->gguf_config, m->path);
    if (!s) s = gguf_adjust(&m->spec, &m->arena, m->ckpt);
    if (s) return s;
    m->family = gguf_family(&m->arena, m->family, m->ckpt);
    return m->family ? COE_OK : COE_E_NOMEM;
}

const json_t *model_config(const struct coe_model *m)
{
    return m->gguf_config ? m->gguf_config : m->ckpt ? ckpt_config(m->ckpt) : NULL;
}

static coe_status open_model(struct coe_model **out, const char *path, bool wide, bool stored)
{
    struct coe_model *m = NULL;
    coe_status s = make(&m, path);
    if (s) goto out;
    m->wide = wide, m->stored = stored;
    if ((s = ckpt_open(&m->ckpt, path))) goto out;
    if ((s = ckpt_gguf(m->ckpt) ? read_gguf(m) : read_directory(m))) goto out;
    if ((s = model_bind(m))) goto out;
    s = open_tokenizer(m);
out:
    if (s) model_close(m), m = NULL;
    *out = m;
    return s;
}

coe_status model_open(struct coe_model **out, const char *path) { return open_model(out, path, false, false); }

coe_status model_open_wide(struct coe_model **out, const char *path) { return open_model(out, path, true, false); }

coe_status model_open_stored(struct coe_model **out, const char *path) { return open_model(out, path, true, true); }

void model_close(struct coe_model *m)
{
    if (!m) return;
    if (m->tokenizer) tokenizer_close(m->tokenizer);
    if (m->ckpt) ckpt_close(m->ckpt);
    json_decref(m->gguf_config);
    mem_free(m->masters);
    adapter_free(m->adapter);
    mem_free(m->panels);
    arena_free(&m->arena);
    mem_free(m);
}

static size_t padded_count(const struct weight *w) { return ((size_t)weight_count(w) + 15) / 16 * 16; }

static bool learns(const uint8_t *trained, size_t i) { return !trained || trained[i]; }

/* Data and gradients of the parameters that learn in one block, each at 64 bytes; what is never trained has no
 * gradient. */
static coe_status make_masters(struct coe_model *m, const uint8_t *trained)
{
    size_t floats = 0, gradients = 0;
    for (size_t i = 0; i < m->n_params; i++) {
        const size_t n = learns(trained, i) ? padded_count(&m->params[i].w) : 0;
        floats += n;
        gradients += place_frozen(&m->spec, m->params[i].at) ? 0 : n;
    }
    m->masters = mem_zalloc("parameters and gradients", (floats + gradients + 1) * sizeof(float));
    if (!m->masters) return COE_E_NOMEM;
    float *data = (float *)(void *)m->masters, *grad = data + floats;
    for (size_t i = 0; i < m->n_params; i++) {
        struct weight *w = &m->params[i].w;
        if (!learns(trained, i)) continue;
        w->master = data;
        data += padded_count(w);
        if (place_frozen(&m->spec, m->params[i].at)) continue;
        w->grad = grad;
        grad += padded_count(w);
    }
    return COE_OK;
}

coe_status model_make_trainable(struct coe_model *m, const uint8_t *trained)
{
    COE_TRY(make_masters(m, trained));
    for (size_t i = 0; i < m->n_params; i++) {
        struct weight *w = &m->params[i].w;
        if (!w->master) continue;
        widen(w->master, w->data, w->type, weight_count(w));
        w->data = w->master;
        w->type = DT_F32;
    }
    return COE_OK;
}

static void init_param(struct coe_model *m, size_t i, uint64_t seed, double std)
{
    struct param *p = &m->params[i];
    const int64_t n = weight_count(&p->w);
    const bool norm = slot_info[p->at.slot].class == CLASS_NORM;
    if (norm && p->at.slot != SLOT_ATTN_NORM_BIAS && p->at.slot != SLOT_FFN_NORM_BIAS &&
        p->at.slot != SLOT_FINAL_NORM_BIAS)
        for (int64_t j = 0; j < n; j++)
            p->w.master[j] = p->at.slot == SLOT_DELTA_NORM ? 1.0f : 1.0f - m->spec.norm_add;
    const struct part_weight *part = place_part(&m->spec, p->at);
    struct rng r = rng_make(seed, rng_stream(RNG_INIT, i));
    if (part) {
        part_init(p->w.master, part, place_param(&m->spec, p->at), p->w.rows, p->w.cols, std, &r);
        return;
    }
    if (slot_info[p->at.slot].scope == SCOPE_PROJECTION) {
        projection_init(p->w.master, &m->spec.layer[p->at.layer].projections, p->at.slot, p->w.rows, p->w.cols, &r);
        return;
    }
    /* biases start at zero, but those of a router that stays as it is drawn */
    if (slot_info[p->at.slot].is_vector && !place_frozen(&m->spec, p->at)) return;
    for (int64_t j = 0; j < n; j++) p->w.master[j] = (float)(std * rng_normal(&r));
}

static coe_status name_place(void *user, struct place p, int64_t rows, int64_t cols)
{
    struct coe_model *m = user;
    char name[256];
    if (!family_name(m->family, &m->spec, p, 0, name, sizeof name))
        return coe_fail(COE_E_INPUT, "%s: family %s has no tensor name for %s", m->path, m->family_part->name,
                        slot_info[p.slot].name);
    const char *kept = arena_strdup(&m->arena, name);
    if (!kept) return COE_E_NOMEM;
    m->params[m->n_params++] =
        (struct param){ .w = { .name = kept, .type = DT_F32, .rows = rows, .cols = cols }, .at = p };
    return COE_OK;
}

coe_status model_new(struct coe_model **out, const json_t *config, const char *where, uint64_t seed, double std)
{
    struct coe_model *m = NULL;
    coe_status s = make(&m, where);
    if (s) goto out;
    if ((s = read_spec(m, config, where))) goto out;
    if ((s = model_make_params(m))) goto out;
    m->n_params = 0;
    if ((s = spec_each_place(&m->spec, name_place, m))) goto out;
    if ((s = make_masters(m, NULL))) goto out;
#pragma omp parallel for schedule(dynamic, 1)
    for (size_t i = 0; i < m->n_params; i++) {
        init_param(m, i, seed, std);
        m->params[i].w.data = m->params[i].w.master;
    }
    s = model_link(m);
out:
    if (s) model_close(m), m = NULL;
    *out = m;
    return s;
}

void model_zero_grad(struct coe_model *m)
{
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < m->n_params; i++)
        if (m->params[i].w.grad) memset(m->params[i].w.grad, 0, (size_t)weight_count(&m->params[i].w) * sizeof(float));
    for (size_t i = 0; m->adapter && i < m->adapter->n; i++) {
        const struct weight *w = &m->adapter->matrix[i];
        if (w->grad) memset(w->grad, 0, (size_t)weight_count(w) * sizeof(float));
    }
}

void model_copy_params(struct coe_model *to, const struct coe_model *from)
{
    size_t next = 0; /* places come in the same order in both */
    for (size_t i = 0; i < to->n_params; i++) {
        struct param *p = &to->params[i];
        size_t j = next;
        while (j < from->n_params && memcmp(&from->params[j].at, &p->at, sizeof p->at)) j++;
        if (j == from->n_params || weight_count(&from->params[j].w) != weight_count(&p->w)) continue;
        memcpy(p->w.master, from->params[j].w.master, (size_t)weight_count(&p->w) * sizeof(float));
        next = j + 1;
    }
}

coe_status model_set_keep(struct coe_model *m, int32_t l, const uint8_t *keep)
{
    const int32_t n = m->spec.layer[l].is_moe ? m->spec.layer[l].moe.n_experts : 0;
    if (!n) return coe_fail(COE_E_USAGE, "%s: layer %d has no experts", m->path, l);
    if (!m->hook && !(m->hook = arena_push_zero(&m->arena, (size_t)m->spec.n_layers * sizeof *m->hook)))
        return COE_E_NOMEM;
    m->hook[l] = (struct route_hook){ 0 };
    if (!keep) return COE_OK;
    uint8_t *copy = arena_push(&m->arena, (size_t)n);
    if (!copy) return COE_E_NOMEM;
    memcpy(copy, keep, (size_t)n);
    for (int32_t e = 0; e < n; e++) m->hook[l].n_kept += copy[e] != 0;
    if (!m->hook[l].n_kept) return coe_fail(COE_E_USAGE, "%s: layer %d would keep no expert", m->path, l);
    m->hook[l].keep = copy;
    return COE_OK;
}
