/* adapter.c — adapters in memory: which parameters can have one, their names in a PEFT file, fresh ones. */
#include "model/adapter.h"

#include <math.h>
#include <string.h>
#include <xxhash.h>

#include "base/rng.h"
#include "ckpt/gguf.h"
#include "model/bind.h"

static bool of_gguf(const struct coe_model *m) { return m->ckpt && ckpt_gguf(m->ckpt); }

/* Adapters have the names of directories, whatever the base is stored as. */
static const struct family *names_of(const struct coe_model *m)
{
    return of_gguf(m) ? m->family_part->impl : m->family;
}

coe_status adapter_spec(const struct coe_model *m, struct arena *a, struct spec *out)
{
    *out = m->spec;
    return of_gguf(m) ? spec_read(out, a, model_config(m), m->path) : COE_OK;
}

bool adapter_fits(const struct param *p)
{
    switch (p->at.slot) {
    case SLOT_Q:
    case SLOT_K:
    case SLOT_V:
    case SLOT_O:
    case SLOT_ATTN_GATE:
    case SLOT_Q_A:
    case SLOT_KV_A:
    case SLOT_GATE:
    case SLOT_UP:
    case SLOT_DOWN:
    case SLOT_ROUTER:
    case SLOT_EXPERT_GATE:
    case SLOT_EXPERT_UP:
    case SLOT_EXPERT_DOWN:
    case SLOT_SHARED_GATE:
    case SLOT_SHARED_UP:
    case SLOT_SHARED_DOWN:
    case SLOT_HEAD: return !(p->cut.how & CUT_HEAD_PAIR);
    default: return false; /* kv_b is multiplied in pieces; vectors, filters and embeddings are no factors */
    }
}

static bool is_expert(const struct param *p)
{
    return p->at.slot == SLOT_EXPERT_GATE || p->at.slot == SLOT_EXPERT_UP || p->at.slot == SLOT_EXPERT_DOWN;
}

static void cut_suffix(char *name, const char *suffix)
{
    const size_t n = strlen(name), m = strlen(suffix);
    if (n > m && !strcmp(name + n - m, suffix)) name[n - m] = 0;
}

/* Whether a name lies in the folder of the family's fused experts: the newer spelling where a family has two. */
static bool beside_fused(const struct coe_model *m, struct place p, const char *name)
{
    const char *fused = names_of(m)->fused_gate_up, *experts = fused ? strstr(fused, "experts.") : NULL;
    char pattern[256], folder[256];
    if (!experts) return false;
    snprintf(pattern, sizeof pattern, "%.*s", (int)(experts - fused), fused);
    return expand_name(pattern, p, folder, sizeof folder) && !strncmp(name, folder, strlen(folder));
}

/* The i-th spelling of the family, those beside fused experts first */
static bool spelling(const struct coe_model *m, struct place p, int i, char *out, size_t cap, struct cut *cut)
{
    for (int pass = 0; pass < 2; pass++)
        for (int k = 0; family_name_cut(names_of(m), &m->spec, p, k, out, cap, cut); k++)
            if (beside_fused(m, p, out) == !pass && i-- == 0) return true;
    return false;
}

/* The tensor of experts that out->module names, and the module it belongs to */
static void stack(const struct coe_model *m, const struct param *p, struct adapter_key *out)
{
    memcpy(out->parameter, out->module, sizeof out->parameter);
    char *dot = strrchr(out->module, '.');
    if (dot) *dot = 0;
    out->stacked = true;
    out->n_experts = spec_experts(&m->spec, p->at);
}

/* A 3-D tensor of experts is a parameter of the module that its name lies in, or the weight of one. */
static bool stacked_key(const struct coe_model *m, const struct param *p, struct adapter_key *out)
{
    const bool down = p->at.slot == SLOT_EXPERT_DOWN;
    const char *pattern = down ? names_of(m)->fused_down : names_of(m)->fused_gate_up;
    if (!pattern || !expand_name(pattern, p->at, out->module, sizeof out->module)) return false;
    stack(m, p, out);
    out->cut = (struct cut){ 0, p->at.slot == SLOT_EXPERT_UP, down ? 1 : 2 };
    return true;
}

bool adapter_key(const struct coe_model *m, const struct param *p, int i, struct adapter_key *out)
{
    *out = (struct adapter_key){ 0 };
    if (is_expert(p) && names_of(m)->fused_gate_up && i-- == 0) return stacked_key(m, p, out);
    if (!spelling(m, p->at, i, out->module, sizeof out->module, &out->cut)) return false;
    if (out->cut.how & CUT_EXPERT) {
        cut_suffix(out->module, "_blocks"); /* MXFP4 */
        stack(m, p, out);
        return true;
    }
    cut_suffix(out->module, ".weight");
    return true;
}

coe_status adapter_add_text(const struct coe_model *m, struct str *out)
{
    uint64_t hash = 0;
    for (size_t i = 0; i < m->n_params; i++) {
        const struct low_rank *l = m->params[i].w.low_rank;
        if (!l) continue;
        hash = XXH3_64bits_withSeed(l->a->data, (size_t)weight_count(l->a) * sizeof(float), hash ^ i);
        hash = XXH3_64bits_withSeed(l->b->data, (size_t)weight_count(l->b) * sizeof(float), hash);
        hash = XXH3_64bits_withSeed(&l->scale, sizeof l->scale, hash);
    }
    str_addf(out, "\nadapter %016llx\n", (unsigned long long)hash);
    return str_check(out);
}

void adapter_free(struct adapter *a)
{
    if (!a) return;
    mem_free(a->part);
    mem_free(a->matrix);
    mem_free(a->memory);
    mem_free(a);
}

static size_t padded(int64_t n) { return ((size_t)n + 15) / 16 * 16; }

coe_status adapter_allowed(const struct coe_model *m)
{
    return m->adapter ? coe_fail(COE_E_USAGE, "%s: has an adapter already", m->path) : COE_OK;
}

coe_status adapter_make(struct coe_model *m, size_t n, size_t floats, bool learns)
{
    struct adapter *a = m->adapter = mem_zalloc("adapter", sizeof *a);
    if (!a) return COE_E_NOMEM;
    const size_t room = floats + 16 * n; /* each matrix at 64 bytes */
    a->part = mem_zalloc("adapter", (m->n_params + 1) * sizeof *a->part);
    a->matrix = mem_zalloc("adapter", (n + 1) * sizeof *a->matrix);
    a->memory = mem_zalloc("adapter", (room * (learns ? 2 : 1) + 1) * sizeof(float));
    if (!a->part || !a->matrix || !a->memory) return COE_E_NOMEM;
    a->n = n;
    a->values = (float *)(void *)a->memory;
    a->gradients = learns ? a->values + room : NULL;
    return COE_OK;
}

struct weight *adapter_matrix(struct coe_model *m, const char *name, int64_t rows, int64_t cols)
{
    struct adapter *a = m->adapter;
    struct weight *w = &a->matrix[a->made++];
    assert(a->made <= a->n);
    *w = (struct weight){ .name = arena_strdup(&m->arena, name),
                          .type = DT_F32,
                          .rows = rows,
                          .cols = cols,
                          .data = a->values,
                          .master = a->values,
                          .grad = a->gradients };
    if (a->gradients) a->gradients += padded(rows * cols);
    a->values += padded(rows * cols);
    return w->name ? w : NULL;
}

/* ---- fresh ones ---- */

static bool names(const char *target, const struct param *p, const char *module)
{
    const enum slot_class class = slot_info[p->at.slot].class;
    const char *last = strrchr(module, '.');
    if (!strcmp(target, "all"))
        return class == CLASS_ATTENTION || class == CLASS_EXPERT || class == CLASS_SHARED || class == CLASS_DENSE;
    return !strcmp(target, class_name[class]) || !strcmp(target, slot_info[p->at.slot].name) ||
           !strcmp(target, last ? last + 1 : module);
}

/* What a parameter is called in a directory */
static void module_name(const struct coe_model *m, const struct param *p, char out[256])
{
    struct adapter_key key;
    const char *name = p->w.name;
    if (of_gguf(m) && adapter_key(m, p, 0, &key)) name = key.stacked ? key.parameter : key.module;
    snprintf(out, 256, "%s", name);
    cut_suffix(out, ".weight");
}

/* chosen [n_params]; used [n_targets] */
static coe_status choose(const struct coe_model *m, const struct adapter_opts *o, uint8_t *chosen, uint8_t *used)
{
    for (size_t i = 0; i < m->n_params; i++) {
        char module[256];
        module_name(m, &m->params[i], module);
        for (size_t k = 0; k < o->n_targets && adapter_fits(&m->params[i]); k++)
            if (names(o->target[k], &m->params[i], module)) chosen[i] = used[k] = 1;
    }
    for (size_t k = 0; k < o->n_targets; k++)
        if (!used[k])
            return coe_fail(COE_E_USAGE,
                            "%s: nothing to adapt is called %s (expected a class such as attention or expert, "
                            "a place such as q or expert_down, or the last part of a module's name)",
                            m->path, o->target[k]);
    return COE_OK;
}

/* The parameter before i whose A serves i too: both are parts of one matrix in a PEFT file. */
static size_t partner_of(const struct coe_model *m, size_t i, const uint8_t *chosen)
{
    struct adapter_key own, other;
    const struct param *p = &m->params[i];
    if (!adapter_key(m, p, 0, &own) || own.cut.parts < 2) return i;
    for (size_t k = i; k-- > 0 && m->params[k].at.layer == p->at.layer;) {
        const struct param *q = &m->params[k];
        if (!chosen[k] || q->at.expert != p->at.expert || !adapter_key(m, q, 0, &other)) continue;
        if (other.cut.parts == own.cut.parts && !strcmp(other.module, own.module)) return k;
    }
    return i;
}

static void draw(float *a, int64_t rows, int64_t cols, uint64_t seed, size_t param)
{
    const double limit = 1 / sqrt((double)cols);
    const uint64_t stream = rng_stream(RNG_INIT, (uint64_t)1 << 40 ^ param);
    for (int64_t k = 0; k < rows * cols; k++)
        a[k] = (float)(limit * (2 * rng_unit(rng_at(seed, stream, (uint64_t)k)) - 1));
}

static coe_status attach_one(struct coe_model *m, size_t i, size_t partner, int32_t rank, uint64_t seed)
{
    struct param *p = &m->params[i];
    struct low_rank *l = &m->adapter->part[i];
    char name[300];
    snprintf(name, sizeof name, "%s.%d.%s.lora_A", p->w.name, p->at.expert, slot_info[p->at.slot].name);
    if (partner == i) {
        if (!(l->a = adapter_matrix(m, name, rank, p->w.cols))) return COE_E_NOMEM;
        draw(l->a->master, rank, p->w.cols, seed, i);
    } else {
        l->a = m->adapter->part[partner].a;
    }
    name[strlen(name) - 1] = 'B';
    if (!(l->b = adapter_matrix(m, name, p->w.rows, rank))) return COE_E_NOMEM;
    l->scale = (float)(m->adapter->alpha / rank);
    p->w.low_rank = l;
    return COE_OK;
}

static coe_status attach_all(struct coe_model *m, const struct adapter_opts *o, const uint8_t *chosen, uint64_t seed)
{
    size_t n = 0, floats = 0;
    for (size_t i = 0; i < m->n_params; i++) {
        if (!chosen[i]) continue;
        const bool own = partner_of(m, i, chosen) == i;
        n += own ? 2 : 1;
        floats += (size_t)o->rank * (size_t)(m->params[i].w.rows + (own ? m->params[i].w.cols : 0));
    }
    COE_TRY(adapter_make(m, n, floats, true));
    m->adapter->rank = o->rank;
    m->adapter->alpha = o->alpha;
    for (size_t i = 0; i < m->n_params; i++)
        if (chosen[i]) COE_TRY(attach_one(m, i, partner_of(m, i, chosen), o->rank, seed));
    return COE_OK;
}

coe_status adapter_attach(struct coe_model *m, const struct adapter_opts *o, uint64_t seed)
{
    if (o->rank < 1 || o->rank > LOW_RANK_MAX)
        return coe_fail(COE_E_USAGE, "an adapter of rank %d, expected 1 to %d", o->rank, LOW_RANK_MAX);
    COE_TRY(adapter_allowed(m));
    uint8_t *chosen = mem_zalloc("adapter", m->n_params + o->n_targets + 1);
    if (!chosen) return COE_E_NOMEM;
    coe_status s = choose(m, o, chosen, chosen + m->n_params);
    if (!s) s = attach_all(m, o, chosen, seed);
    mem_free(chosen);
    return s;
}

COE_PART(tuning, lora, .summary = "low-rank adapters on any matrix, over a frozen base as it is stored",
         .paper = "LoRA, 2021", .card = "routing.md 22", .unit = "token")
