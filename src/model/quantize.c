/* quantize.c — see quantize.h.
 *
 * Every tensor of the file is a list of matrices (the experts of a layer, else one) whose rows are widened, brought
 * into the order of the file, and encoded, a buffer at a time. */
#include "model/quantize.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "model/bind.h"
#include "model/gguf_form.h"
#include "model/resume.h"
#include "model/stored.h"
#include "tensor/quant/quant.h"

#define ROW_BYTES_MAX ((uint64_t)1 << 20) /* the writer's buffer */

struct job;
struct matrix_source {
    struct job *of;
    const struct param *first; /* of expert 0; the others follow at `step` */
    int64_t n, step, rows;
    int64_t rows_before; /* of the parameter, in the new form, that belong to another tensor */
    bool packed; /* the rows are copied: they have the type already */
    struct row_change change;
    const struct imatrix_entry *importance;
    int64_t importance_at; /* of matrix 0 */
};

struct job {
    const struct coe_model *m;
    const struct quantize_opts *o;
    struct arena arena;
    json_t *config;
    struct spec spec; /* as the file will hold it */
    const struct gguf_arch *arch;
    struct ckpt_item *item;
    size_t n;
    bool separate; /* experts apart */
    float *rows;   /* [threads, 2, widest] */
    int64_t widest;
    struct quantize_report report;
    struct progress progress;
    uint64_t written;
};

struct quantize_opts quantize_default(void)
{
    struct quantize_opts o = { .type = DT_COUNT };
    for (int c = 0; c < CLASS_COUNT; c++) o.by_class[c] = DT_COUNT;
    return o;
}

/* ---- rows ---- */

static uint64_t count_overflow(const float *x, const uint16_t *half, int64_t n)
{
    uint64_t over = 0;
    for (int64_t i = 0; i < n; i++) over += (half[i] & 0x7FFF) == 0x7C00 && isfinite(x[i]);
    return over;
}

/* A vector in the order of the file */
static void read_vector(const struct matrix_source *s, const struct param *p, float *x, float *scratch)
{
    param_part(s->of->m, p, 0, 0, p->w.cols, scratch);
    for (int64_t i = 0; i < p->w.cols; i++)
        x[i] = row_change_value(&s->change, scratch[row_change_source(&s->change, i)]);
}

/* Row `row` of the tensor, counted through all its matrices. */
static uint64_t put_row(const struct matrix_source *s, const struct tensor *t, int64_t row, char *out)
{
    const struct param *p = &s->first[row / s->rows * s->step];
    const struct weight *w = &p->w;
    const bool vector = slot_info[p->at.slot].is_vector;
    const int64_t cols = w->cols, at = vector ? 0 : row_change_source(&s->change, row % s->rows);
    if (s->packed) {
        param_packed_row(s->of->m, p, at, out);
        return 0;
    }
    if (w->data && w->type == t->type && !row_change_of_values(&s->change) && !(vector && s->change.head_dim)) {
        const size_t bytes = (size_t)(cols * dtype_info[w->type].bytes);
        memcpy(out, (const char *)w->data + (size_t)at * bytes, bytes);
        return 0;
    }
    float *x = s->of->rows + (int64_t)omp_get_thread_num() * 2 * s->of->widest, *scratch = x + s->of->widest;
    const float *importance = NULL;
    if (vector) read_vector(s, p, x, scratch);
    else {
        param_part(s->of->m, p, at, 0, cols, x);
        if (s->importance && imatrix_weights(s->importance, s->importance_at + row / s->rows, scratch))
            importance = scratch;
    }
    dtype_encode_row(out, t->type, x, cols, importance);
    return t->type == DT_F16 ? count_overflow(x, (const uint16_t *)(const void *)out, cols) : 0;
}

static coe_status fill(void *user, const struct tensor *t, int64_t first, int64_t count, void *out)
{
    struct matrix_source *s = user;
    const int64_t cols = s->first->w.cols;
    const struct dtype_info *to = &dtype_info[t->type];
    const size_t row_bytes = (size_t)(cols / to->block * to->bytes);
    uint64_t over = 0;
#pragma omp parallel for schedule(dynamic, 4) reduction(+ : over)
    for (int64_t i = 0; i < count / cols; i++)
        over += put_row(s, t, first / cols + i, (char *)out + (size_t)i * row_bytes);
    struct job *j = s->of;
    j->report.overflowed += over;
    j->written += (uint64_t)(count / cols) * row_bytes;
    progress_set(&j->progress, (double)j->written, "%s", t->name);
    for (int64_t i = 0; i < s->n && first + count == tensor_count(t); i++) param_release(&s->first[i * s->step]);
    return COE_OK;
}

/* ---- types ---- */

static bool is_plain(enum dtype t) { return t == DT_F32 || t == DT_F16 || t == DT_BF16; }

/* Bits per value, times 32 */
static int32_t size_of(enum dtype t) { return dtype_info[t].bytes * 256 / dtype_info[t].block; }

/* The next larger type with blocks of 32 */
static enum dtype with_short_blocks(enum dtype t, int64_t cols)
{
    if (cols % dtype_info[t].block == 0) return t;
    if (cols % 32) return DT_F16;
    switch (t) {
    case DT_Q4_K: return DT_Q5_0;
    case DT_Q5_K: return DT_Q5_1;
    case DT_Q6_K: return DT_Q8_0;
    default: return DT_IQ4_NL;
    }
}

static enum dtype expert_type_of(const struct job *j, int32_t layer, int32_t expert, enum dtype t)
{
    for (size_t i = 0; i < j->o->n_expert; i++) {
        const struct expert_type *x = &j->o->expert[i];
        if ((x->layer < 0 || x->layer == layer) && (x->expert < 0 || x->expert == expert)) t = x->type;
    }
    return t;
}

/* The block type that all matrices of a tensor have in their files; DT_COUNT when there is none. */
static enum dtype packed_type(const struct job *j, const struct matrix_source *s)
{
    const enum dtype t = param_packed_type(j->m, s->first);
    for (int64_t i = 1; i < s->n && t != DT_COUNT; i++)
        if (param_packed_type(j->m, &s->first[i * s->step]) != t) return DT_COUNT;
    return t;
}

static enum dtype asked_type(const struct job *j, const struct matrix_source *s)
{
    const struct param *p = s->first;
    const struct quantize_opts *o = j->o;
    enum slot_class class = slot_info[p->at.slot].class;
    if (p->at.slot == SLOT_EMBED && j->spec.tied && o->by_class[CLASS_EMBEDDING] == DT_COUNT) class = CLASS_HEAD;
    enum dtype t = o->by_class[class];
    if (t == DT_COUNT) {
        t = o->type;
        if (class == CLASS_HEAD && t != DT_COUNT && size_of(t) < size_of(DT_Q6_K)) t = DT_Q6_K;
    }
    if (slot_info[p->at.slot].scope == SCOPE_EXPERT) t = expert_type_of(j, p->at.layer, p->at.expert, t);
    if (t == DT_COUNT) t = packed_type(j, s);
    if (t != DT_COUNT) return t;
    for (int64_t i = 0; i < s->n; i++)
        if (s->first[i * s->step].w.type != p->w.type || !is_plain(p->w.type)) return DT_F32;
    return p->w.type;
}

static enum dtype type_of(struct job *j, const struct matrix_source *s)
{
    if (gguf_stays_f32(s->first->at.slot)) return DT_F32;
    const enum dtype asked = asked_type(j, s), got = with_short_blocks(asked, s->first->w.cols);
    if (got == asked) return got;
    struct quantize_report *r = &j->report;
    size_t i = 0;
    while (i < r->n_fallbacks && (r->fallback[i].asked != asked || r->fallback[i].got != got)) i++;
    if (i == COE_COUNT(r->fallback)) return got;
    if (i == r->n_fallbacks) r->fallback[r->n_fallbacks++] = (struct fallback){ asked, got, 0, s->first->w.cols };
    r->fallback[i].n++;
    return got;
}

/* ---- the list of tensors ---- */

static coe_status find_importance(struct job *j, struct matrix_source *s, const char *name)
{
    const struct slot_info *i = &slot_info[s->first->at.slot];
    if (!j->o->imatrix) return COE_OK;
    const struct imatrix_entry *e = imatrix_find(j->o->imatrix, name);
    char fused[256];
    int64_t n = s->n;
    if (!e && s->n == 1 && i->scope == SCOPE_EXPERT &&
        gguf_name(NULL, &j->spec, s->first->at, false, fused, sizeof fused)) {
        e = imatrix_find(j->o->imatrix, fused);
        n = j->spec.layer[s->first->at.layer].moe.n_experts;
        s->importance_at = s->first->at.expert;
    }
    if (!e) return COE_OK;
    const bool with_identity = e->n == j->spec.layer[s->first->at.layer].moe.n_experts;
    if (e->cols != s->first->w.cols || (e->n != n && !(i->scope == SCOPE_EXPERT && with_identity)))
        return coe_fail(COE_E_INPUT, "%s: importance is [%lld, %lld], the matrices are [%lld, %lld]: another model's",
                        e->name, (long long)e->n, (long long)e->cols, (long long)n, (long long)s->first->w.cols);
    s->importance = e;
    return COE_OK;
}

/* As the model has it where it can: llama.cpp does not see the one of a gate [1, d], but does that of filters
 * [C, 1, K]. */
static bool keep_shape(struct tensor *t, const struct matrix_source *s)
{
    const struct param *p = s->first;
    const struct tensor *old = s->of->m->ckpt ? ckpt_find(s->of->m->ckpt, p->w.name) : NULL;
    if (!old || (s->of->arch && p->at.slot == SLOT_CONV)) return false;
    if (s->n > 1 || s->step || p->cut.how || p->cut.parts > 1 || s->rows != p->w.rows) return false;
    if (tensor_count(old) != weight_count(&p->w) || old->dim[old->n_dims - 1] != p->w.cols) return false;
    t->n_dims = old->n_dims;
    memcpy(t->dim, old->dim, sizeof t->dim);
    return true;
}

static void set_shape(struct tensor *t, const struct matrix_source *s)
{
    if (keep_shape(t, s)) return;
    const bool vector = slot_info[s->first->at.slot].is_vector || s->first->w.rows == 1;
    t->n_dims = 0;
    if (s->n > 1 || s->step) t->dim[t->n_dims++] = s->n;
    if (!vector) t->dim[t->n_dims++] = s->rows;
    t->dim[t->n_dims++] = s->first->w.cols;
}

static coe_status count_bytes(struct job *j, const struct tensor *t)
{
    uint64_t bytes = 0;
    if (!dtype_bytes(t->type, (uint64_t)tensor_count(t), &bytes))
        return coe_fail(COE_E_FAILED, "%s: the size overflows", t->name);
    j->report.bytes += bytes;
    j->report.by_type[t->type] += bytes;
    j->report.n_tensors++;
    return COE_OK;
}

static coe_status add_tensor(struct job *j, struct matrix_source *s, const char *name)
{
    struct tensor *t = &j->item[j->n].t;
    uint64_t bytes = 0;
    char *kept = arena_strdup(&j->arena, name);
    if (!kept) return COE_E_NOMEM;
    s->change = row_change_between(&j->m->spec, &j->spec, s->first);
    s->change.first = s->rows_before;
    *t = (struct tensor){ .name = kept, .type = type_of(j, s) };
    set_shape(t, s);
    s->packed = dtype_info[t->type].block > 1 && packed_type(j, s) == t->type;
    if (!s->packed && !dtype_can_encode(t->type))
        return coe_fail(COE_E_USAGE, "%s: no encoder for %s", name, dtype_info[t->type].name);
    if (!dtype_bytes(t->type, (uint64_t)s->first->w.cols, &bytes) || bytes > ROW_BYTES_MAX)
        return coe_fail(COE_E_USAGE, "%s: rows of %lld values are too long", name, (long long)s->first->w.cols);
    if (!gguf_stays_f32(s->first->at.slot)) COE_TRY(find_importance(j, s, name));
    j->item[j->n].fill = fill, j->item[j->n].user = s;
    j->n++;
    j->widest = COE_MAX(j->widest, s->first->w.cols);
    j->report.n_weighted += s->importance && !s->packed && !is_plain(t->type);
    return count_bytes(j, t);
}

static bool same_weight(const struct param *p, const struct param *q)
{
    return p->at.slot == q->at.slot && p->at.part == q->at.part;
}

/* How many parameters behind expert 0's the same one of expert 1 stands. */
static int64_t step_between_experts(const struct job *j, const struct param *p)
{
    const struct param *end = j->m->params + j->m->n_params;
    for (const struct param *q = p; q < end && q->at.layer == p->at.layer; q++)
        if (same_weight(p, q) && q->at.expert == 1) return q - p;
    return 1; /* the only expert: the dimension stays */
}

static int64_t count_experts(const struct job *j, const struct param *p, int64_t step)
{
    const struct param *end = j->m->params + j->m->n_params;
    int64_t n = 1;
    while (p + n * step < end && same_weight(p, p + n * step) && p[n * step].at.layer == p->at.layer) n++;
    return n;
}

/* One matrix of the model that is two in the file. */
static coe_status add_halves(struct job *j, const struct param *p)
{
    static const enum slot half[] = { SLOT_DELTA_QKV, SLOT_DELTA_Z };
    int64_t before = 0, cols;
    char name[256];
    for (size_t i = 0; i < COE_COUNT(half); i++) {
        const struct place at = { half[i], p->at.layer, 0, 0, 0 };
        struct matrix_source *s = arena_push_zero(&j->arena, sizeof *s);
        if (!s) return COE_E_NOMEM;
        *s = (struct matrix_source){ .of = j, .first = p, .n = 1, .rows_before = before };
        if (!place_shape(&j->spec, at, &s->rows, &cols) ||
            !gguf_name(j->arch ? j->arch->name : NULL, &j->spec, at, false, name, sizeof name))
            return coe_fail(COE_E_USAGE, "%s: GGUF has no name for %s", j->m->path, slot_info[half[i]].name);
        before += s->rows;
        COE_TRY(add_tensor(j, s, name));
    }
    return COE_OK;
}

static coe_status add_param(struct job *j, const struct param *p)
{
    char name[256];
    if (p->at.slot == SLOT_DELTA_QKVZ) return add_halves(j, p);
    const enum slot_scope scope = slot_info[p->at.slot].scope;
    const bool expert = scope == SCOPE_EXPERT || scope == SCOPE_ATTN_EXPERT;
    /* ranges of experts have widths of their own, and what kinds declare has no joined form */
    const bool ranges = scope == SCOPE_EXPERT && j->spec.layer[p->at.layer].moe.n_ranges;
    const bool apart = ranges || (j->separate && scope == SCOPE_EXPERT && !slot_info[p->at.slot].is_vector);
    if (expert && !apart && p->at.expert) return COE_OK; /* a part of what expert 0 opened */
    if (!gguf_name(j->arch ? j->arch->name : NULL, &j->spec, p->at, apart, name, sizeof name))
        return coe_fail(COE_E_USAGE, "%s: GGUF has no name for %s", j->m->path, slot_info[p->at.slot].name);
    struct matrix_source *s = arena_push_zero(&j->arena, sizeof *s);
    if (!s) return COE_E_NOMEM;
    *s = (struct matrix_source){ .of = j, .first = p, .n = 1, .rows = p->w.rows };
    if (expert && !apart) s->step = step_between_experts(j, p), s->n = count_experts(j, p, s->step);
    return add_tensor(j, s, name);
}

/* Architectures that always want a head get the embedding once more. */
static coe_status repeat_embedding(struct job *j)
{
    static const char *const shared[] = { "llama", "qwen2", "qwen3", "gemma2",  "gemma3",
                                         "smollm3", "afmoe", "lfm2moe", "qwen3next" };
    if (!j->spec.tied || !j->arch) return COE_OK;
    for (size_t i = 0; i < COE_COUNT(shared); i++)
        if (!strcmp(shared[i], j->arch->name)) return COE_OK;
    struct matrix_source *s = arena_push_zero(&j->arena, sizeof *s);
    if (!s) return COE_E_NOMEM;
    *s = (struct matrix_source){ .of = j, .first = &j->m->params[0], .n = 1, .rows = j->m->params[0].w.rows };
    return add_tensor(j, s, "output.weight");
}

/* Llama 3's rope: what plain frequencies are divided by. */
static coe_status add_rope_factors(struct job *j)
{
    const struct tensor *given = ckpt_gguf(j->m->ckpt) ? ckpt_find(j->m->ckpt, "rope_freqs.weight") : NULL;
    const struct rope_spec *r = &j->spec.layer[0].attn.rope;
    const int32_t half = r->n_rot / 2;
    if (given) {
        j->item[j->n++].t = *given;
        return count_bytes(j, given);
    }
    if (!j->arch || r->kind != ROPE_LLAMA3) return COE_OK;
    float factor, *plain = arena_push(&j->arena, (size_t)half * sizeof *plain);
    float *scaled = arena_push(&j->arena, (size_t)half * sizeof *scaled);
    if (!plain || !scaled) return COE_E_NOMEM;
    struct rope_spec unscaled = *r;
    unscaled.kind = ROPE_PLAIN;
    rope_frequencies(&unscaled, plain, &factor);
    rope_frequencies(r, scaled, &factor);
    for (int32_t i = 0; i < half; i++) scaled[i] = plain[i] / scaled[i];
    struct tensor *t = &j->item[j->n++].t;
    *t = (struct tensor){ "rope_freqs.weight", DT_F32, 1, { half }, scaled };
    return count_bytes(j, t);
}

/* ---- the file ---- */

/* llama.cpp's number for what most of a file is; it only shows it. */
static uint32_t file_type(const struct job *j)
{
    static const struct {
        enum dtype type;
        uint32_t id;
    } ids[] = {
        { DT_F32, 0 },     { DT_F16, 1 },     { DT_Q4_0, 2 },  { DT_Q4_1, 3 },   { DT_Q8_0, 7 },   { DT_Q5_0, 8 },
        { DT_Q5_1, 9 },    { DT_Q2_K, 10 },   { DT_Q3_K, 11 }, { DT_Q4_K, 14 },  { DT_Q5_K, 16 },  { DT_Q6_K, 18 },
        { DT_IQ4_NL, 25 }, { DT_IQ4_XS, 30 }, { DT_BF16, 32 }, { DT_TQ1_0, 36 }, { DT_TQ2_0, 37 }, { DT_MXFP4, 38 },
    };
    size_t best = 0;
    for (size_t i = 0; i < COE_COUNT(ids); i++)
        if (j->report.by_type[ids[i].type] > j->report.by_type[ids[best].type]) best = i;
    return ids[best].id;
}

static bool experts_differ(const struct job *j)
{
    for (int32_t l = 0; l < j->spec.n_layers; l++) {
        if (!j->spec.layer[l].is_moe) continue;
        const enum dtype first = expert_type_of(j, l, 0, DT_COUNT);
        for (int32_t e = 1; e < j->spec.layer[l].moe.n_experts; e++)
            if (expert_type_of(j, l, e, DT_COUNT) != first) return true;
    }
    return false;
}

static coe_status prepare(struct job *j)
{
    if (model_config(j->m) && !(j->config = json_deep_copy(model_config(j->m))))
        return coe_fail(COE_E_NOMEM, "%s: no memory for the config", j->m->path);
    const json_t *config = j->config;
    if (!config) return coe_fail(COE_E_USAGE, "%s: has no config", j->m->path);
    COE_TRY(spec_read(&j->spec, &j->arena, config, j->m->path));
    for (size_t i = 0; i < j->m->n_params; i++)
        if (j->m->params[i].scale) json_object_del(j->config, "quantization_config"); /* written unpacked */
    j->separate = experts_differ(j);
    j->arch = gguf_arch_of(&j->spec, j->report.why_coe);
    if (j->arch && j->separate) {
        j->arch = NULL;
        snprintf(j->report.why_coe, sizeof j->report.why_coe, "llama.cpp has no experts of different types");
    }
    j->report.arch = j->arch ? j->arch->name : GGUF_ARCH_COE;
    gguf_adapt_spec(&j->spec, j->arch, &j->m->spec);
    const size_t most = j->m->n_params + (size_t)j->spec.n_layers + 2; /* halves, a head, factors of a rope */
    if (!(j->item = arena_push_zero(&j->arena, most * sizeof *j->item))) return COE_E_NOMEM;
    for (size_t i = 0; i < j->m->n_params; i++) COE_TRY(add_param(j, &j->m->params[i]));
    COE_TRY(repeat_embedding(j));
    return add_rope_factors(j);
}

/* Some files are only alike up to the window's length; llama.cpp's converter writes them too. */
static void note_windows(const struct job *j)
{
    static const char *const windowed[] = { "gemma2", "gemma3", "gpt-oss", "afmoe" };
    for (size_t i = 0; i < COE_COUNT(windowed); i++)
        if (!j->arch || !strcmp(windowed[i], j->arch->name)) return;
    for (int32_t l = 0; l < j->spec.n_layers; l++) {
        const int64_t window = j->spec.layer[l].attn.window;
        if (!window || window >= j->spec.max_positions) continue;
        log_note("%s: llama.cpp ignores the window of %lld tokens of architecture %s", j->m->path, (long long)window,
                 j->arch->name);
        return;
    }
}

static coe_status add_metadata(struct job *j, struct gguf_out *meta)
{
    struct str config = { 0 };
    note_windows(j);
    coe_status s = gguf_add_spec(meta, &j->spec, j->arch, path_base(j->m->path));
    gguf_add_u32(meta, "general.file_type", file_type(j));
    if (!s) s = json_add_text(&config, j->config, JSON_COMPACT);
    if (!s) gguf_add_str(meta, GGUF_KEY_CONFIG, config.at, config.n);
    str_free(&config);
    return s ? s : gguf_add_tokenizer(meta, j->m);
}

static coe_status write_file(struct job *j, const char *path, const struct gguf_out *meta)
{
    const size_t threads = (size_t)omp_get_max_threads();
    struct ckpt_resume resume = { .count = &j->report.overflowed };
    COE_TRY(resume_key(&resume, &(struct resume_of){ .m = j->m,
                                                     .item = j->item,
                                                     .n = j->n,
                                                     .head = meta->text.at,
                                                     .n_head = meta->text.n,
                                                     .shard_bytes = j->o->shard_bytes,
                                                     .imatrix = j->o->imatrix }));
    j->rows = mem_alloc("rows to encode", threads * 2 * (size_t)j->widest * sizeof *j->rows);
    if (!j->rows) return COE_E_NOMEM;
    j->progress = progress_start("writing", (double)j->report.bytes);
    const coe_status s = gguf_write_model(path, meta, j->item, j->n, j->o->shard_bytes, &resume);
    progress_end(&j->progress);
    mem_free(j->rows);
    return s;
}

coe_status model_quantize(const struct coe_model *m, const char *path, const struct quantize_opts *o,
                          struct quantize_report *r)
{
    struct job j = { .m = m, .o = o };
    struct gguf_out meta = { 0 };
    coe_status s = prepare(&j);
    j.report.bytes_before = m->ckpt ? ckpt_bytes(m->ckpt) : 0;
    if (!s) s = add_metadata(&j, &meta);
    if (!s)
        s = gguf_model_size(&j.report.file_bytes, &j.report.n_files, path ? path : m->path, &meta, j.item, j.n,
                            o->shard_bytes);
    if (!s && o->imatrix && !j.report.n_weighted)
        s = coe_fail(COE_E_INPUT, "%s: the importance matrix names no matrix that is quantised here", m->path);
    if (!s && path) s = write_file(&j, path, &meta);
    *r = j.report;
    gguf_out_free(&meta);
    json_decref(j.config);
    arena_free(&j.arena);
    return s;
}
