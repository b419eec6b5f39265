/* convert.c — see convert.h.
 *
 * The new config is read into a spec; each of its places takes its bytes from the place of the old model that answers
 * to it:
 *
 *     new place                          source
 *     router of iteration t              router of iteration t, or the only one
 *     coe_weight                         zero
 *     experts of a layer, fused          one tensor made of the pieces gate 0, up 0, gate 1, up 1, … and
 *                                        down 0, down 1, …
 *     a part of a tensor (cut.h)         the tensor is put together again from all its parts
 *     anything else                      itself
 *
 * A model in training is written the same way (model_write). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "model/adapter.h"
#include "model/bind.h"
#include "model/convert.h"
#include "model/convert_rows.h"
#include "model/gguf_form.h"
#include "model/resume.h"

struct conversion {
    const struct coe_model *m;
    const struct convert_opts *o;
    struct arena arena;
    json_t *config;
    struct spec spec; /* of the new config */
    const struct param **sorted;
    struct ckpt_item *item;
    size_t n;
    bool fused, same_layout;
    const struct family *family; /* of a directory */
    enum dtype vectors;          /* out of a GGUF file: of vectors and packed matrices when types stay as they are */
    struct convert_report report;
    struct progress progress;
    uint64_t written;
};

static const float zero_weight;

/* ---- which source answers to a place ---- */

static int by_place(const void *a, const void *b)
{
    const struct place x = (*(const struct param *const *)a)->at, y = (*(const struct param *const *)b)->at;
    if (x.layer != y.layer) return x.layer < y.layer ? -1 : 1;
    if (x.slot != y.slot) return x.slot < y.slot ? -1 : 1;
    if (x.expert != y.expert) return x.expert < y.expert ? -1 : 1;
    if (x.part != y.part) return x.part < y.part ? -1 : 1;
    return (x.iteration > y.iteration) - (x.iteration < y.iteration);
}

static coe_status sort_params(struct conversion *c)
{
    c->sorted = arena_push(&c->arena, c->m->n_params * sizeof(struct param *));
    if (!c->sorted) return COE_E_NOMEM;
    for (size_t i = 0; i < c->m->n_params; i++) c->sorted[i] = &c->m->params[i];
    qsort(c->sorted, c->m->n_params, sizeof *c->sorted, by_place);
    return COE_OK;
}

static const struct param *find_param(const struct conversion *c, struct place p)
{
    struct param key = { .at = p };
    const struct param *at = &key;
    const struct param *const *found = bsearch(&at, c->sorted, c->m->n_params, sizeof *c->sorted, by_place);
    return found ? *found : NULL;
}

static const struct param *source_of(const struct conversion *c, struct place p)
{
    const struct param *found = find_param(c, p);
    if (!found && p.slot == SLOT_DELTA_QKVZ) p.slot = SLOT_DELTA_QKV, found = find_param(c, p);
    if (found || slot_info[p.slot].scope != SCOPE_ITERATION) return found;
    p.iteration = 0;
    return find_param(c, p);
}

/* Of two matrices that the new model has as one, the second */
static const struct param *second_half(const struct conversion *c, const struct param *p)
{
    struct place at = p->at;
    at.slot = SLOT_DELTA_Z;
    return p->at.slot == SLOT_DELTA_QKV ? find_param(c, at) : NULL;
}

static bool is_part(struct cut cut) { return cut.how || cut.parts > 1; }

/* The tensor that is this parameter and nothing else; NULL for a part of one, or a model without files. */
static const struct tensor *stored_alone(const struct conversion *c, const struct param *p)
{
    if (!c->m->ckpt || is_part(p->cut)) return NULL;
    const struct tensor *t = ckpt_find(c->m->ckpt, p->w.name);
    return t && tensor_count(t) == weight_count(&p->w) ? t : NULL;
}

/* The tensor as the file has it: opening widened the vectors. */
static struct piece piece_of(const struct conversion *c, const struct param *p)
{
    const bool vector = slot_info[p->at.slot].is_vector;
    const struct tensor *t = vector && !p->w.master ? stored_alone(c, p) : NULL;
    struct piece piece = { .from = p,
                           .data = p->w.data,
                           .type = p->w.type,
                           .cols = p->w.cols,
                           .change = row_change_between(&c->m->spec, &c->spec, p) };
    if (piece.change.regroup) piece.also = second_half(c, p);
    if (vector && piece.change.head_dim) piece.cols = 1;
    if (t && dtype_info[t->type].block == 1) piece.data = t->data, piece.type = t->type;
    return piece;
}

static coe_status fill(void *user, const struct tensor *t, int64_t first, int64_t count, void *out)
{
    struct source *s = user;
    struct conversion *c = s->of;
    c->report.overflowed += source_fill(s, t->type, first, count, out);
    c->written += (uint64_t)count * (uint64_t)dtype_info[t->type].bytes;
    progress_set(&c->progress, (double)c->written, "%s", t->name);
    for (int64_t i = 0; i < s->n_pieces && first + count == tensor_count(t); i++)
        for (int also = 0; also < 2; also++) {
            const struct param *p = also ? s->piece[i].also : s->piece[i].from;
            if (p) param_release(p);
        }
    return COE_OK;
}

/* ---- the list of tensors ---- */

/* Whether every value is one of that type. */
static bool fits(const struct piece *p, int64_t n, enum dtype type)
{
    float wide[1024], again[1024];
    char narrowed[sizeof wide];
    for (int64_t i = 0; i < n; i += (int64_t)COE_COUNT(wide)) {
        const int64_t m = COE_MIN((int64_t)COE_COUNT(wide), n - i);
        widen(wide, (const char *)p->data + i * dtype_info[p->type].bytes, p->type, m); /* such slots are plain */
        for (int64_t j = 0; j < m; j++) wide[j] = row_change_value(&p->change, wide[j]);
        narrow(narrowed, type, wide, m);
        widen(again, narrowed, type, m);
        if (memcmp(wide, again, (size_t)m * sizeof *wide)) return false;
    }
    return true;
}

/* Out of a GGUF file: matrices keep a plain type; what such files hold as F32 always becomes the config's type where
 * that loses nothing; packed weights become it in any case. */
static enum dtype unpacked_type(const struct conversion *c, struct place p, const struct piece *piece)
{
    const struct param *from = source_of(c, p);
    const struct tensor *t = from ? ckpt_find(c->m->ckpt, from->w.name) : NULL;
    const bool plain = t && (t->type == DT_F32 || t->type == DT_F16 || t->type == DT_BF16);
    if (!plain) return c->vectors;
    if (piece->also && piece->also->w.type != from->w.type) return DT_F32; /* two plain types in one tensor */
    if (!gguf_stays_f32(p.slot)) return t->type;
    return fits(piece, weight_count(&from->w), c->vectors) ? c->vectors : DT_F32;
}

static enum dtype stored_type(const struct conversion *c, struct place p, const struct piece *piece, int64_t n)
{
    if (p.slot == SLOT_SELECTION_BIAS || p.slot == SLOT_COE_WEIGHT)
        return DT_F32; /* a controller's state, no weights */
    if (c->o->type != DT_COUNT) return c->o->type;
    if (c->m->ckpt && ckpt_gguf(c->m->ckpt)) return unpacked_type(c, p, piece);
    for (int64_t i = 1; i < n; i++)
        if (piece[i].type != piece[0].type)
            return DT_F32; /* experts stored in several types fit one tensor only widened */
    return piece[0].type;
}

static struct source *add_item(struct conversion *c, const char *name, int64_t n_pieces, int64_t piece_count)
{
    struct source *s = arena_push(&c->arena, sizeof *s);
    char *kept = arena_strdup(&c->arena, name);
    if (!s || !kept) return NULL;
    *s = (struct source){ .of = c,
                          .m = c->m,
                          .piece = arena_push(&c->arena, (size_t)n_pieces * sizeof(struct piece)),
                          .n_pieces = n_pieces,
                          .piece_count = piece_count };
    if (!s->piece) return NULL;
    c->item[c->n++] = (struct ckpt_item){ .t = { .name = kept }, .fill = fill, .user = s };
    return s;
}

/* Whether the tensor is one of the old model as it lies: then it is copied without being taken apart. */
static const struct tensor *old_whole(const struct conversion *c, const struct source *s, const struct tensor *t)
{
    const struct tensor *old = c->same_layout && c->m->ckpt ? ckpt_find(c->m->ckpt, t->name) : NULL;
    if (!old || old->type != t->type || old->n_dims != t->n_dims || memcmp(old->dim, t->dim, sizeof t->dim))
        return NULL;
    for (int64_t i = 0; i < s->n_pieces; i++) {
        const struct piece *p = &s->piece[i];
        if (!p->from || p->from->stored != old || p->from->w.master || p->from->w.low_rank ||
            row_change_any(&p->change) || p->from->cut.how != s->cut.how || p->from->cut.parts != s->cut.parts)
            return NULL;
    }
    return old;
}

/* `as_was`: DT_COUNT, or the type of the old tensor whose pieces opening widened. */
static void close_item(struct conversion *c, struct source *s, struct place p, enum dtype as_was)
{
    struct tensor *t = &c->item[c->n - 1].t;
    uint64_t bytes = 0;
    t->type = as_was != DT_COUNT ? as_was : stored_type(c, p, s->piece, s->n_pieces);
    s->whole = old_whole(c, s, t);
    (void)dtype_bytes(t->type, (uint64_t)tensor_count(t), &bytes); /* no larger than what was mapped, four times over */
    c->report.bytes += bytes;
    c->report.n_tensors++;
}

/* Which of a family's spellings the old model's tensor has; 0 when it has none of them or is packed, and when experts
 * come apart or together. */
static int spelling_of(const struct conversion *c, const struct param *from)
{
    char name[256];
    struct cut cut;
    for (int i = 0; from && c->same_layout; i++) {
        if (!family_name_cut(c->family, &c->m->spec, from->at, i, name, sizeof name, &cut)) return 0;
        if (!strcmp(name, from->w.name)) return cut.how & (CUT_MXFP4 | CUT_HEAD_PAIR) ? 0 : i;
    }
    return 0;
}

/* Of a family's spellings the one that lives beside its fused experts, when these are written. */
static bool name_of(const struct conversion *c, struct place p, char *out, size_t cap, struct cut *cut)
{
    *cut = (struct cut){ 0 };
    const char *fused = c->fused ? c->family->fused_gate_up : NULL;
    const char *experts = fused ? strstr(fused, "experts.") : NULL;
    char folder[256];
    for (int i = 0; experts && family_name(c->family, &c->spec, p, i, out, cap); i++) {
        char pattern[256];
        snprintf(pattern, sizeof pattern, "%.*s", (int)(experts - fused), fused);
        if (expand_name(pattern, p, folder, sizeof folder) && !strncmp(out, folder, strlen(folder))) return true;
    }
    return family_name_cut(c->family, &c->spec, p, spelling_of(c, source_of(c, p)), out, cap, cut);
}

static coe_status add_fused(struct conversion *c, struct place p, int64_t rows, int64_t cols)
{
    const bool down = p.slot == SLOT_EXPERT_DOWN;
    const int64_t experts = c->spec.layer[p.layer].moe.n_experts, per_expert = down ? 1 : 2;
    char name[256];
    if (p.expert || p.slot == SLOT_EXPERT_UP)
        return COE_OK; /* part of the tensor that expert 0's gate or down opened */
    if (!expand_name(down ? c->family->fused_down : c->family->fused_gate_up, p, name, sizeof name))
        return coe_fail(COE_E_FAILED, "%s: a tensor name is too long", c->m->path);
    struct source *s = add_item(c, name, experts * per_expert, rows * cols);
    if (!s) return COE_E_NOMEM;
    for (int64_t i = 0; i < s->n_pieces; i++) {
        const struct place at = { !down && i % 2 ? SLOT_EXPERT_UP : p.slot, p.layer, (int32_t)(i / per_expert), 0, 0 };
        s->piece[i] = piece_of(c, find_param(c, at));
    }
    struct tensor *t = &c->item[c->n - 1].t;
    t->n_dims = 3, t->dim[0] = experts, t->dim[1] = per_expert * rows, t->dim[2] = cols;
    close_item(c, s, p, DT_COUNT);
    return COE_OK;
}

/* The slot that is part `part` of the same tensor */
static enum slot slot_of_part(const struct conversion *c, struct place p, const char *name, int part)
{
    const struct name_row *r = c->family->names;
    char other[256];
    struct cut cut;
    for (; r->pattern; r++) {
        p.slot = r->slot;
        for (int i = 0; r->cut.part == part && family_name_cut(c->family, &c->spec, p, i, other, sizeof other, &cut);
             i++)
            if (cut.part == part && !strcmp(other, name)) return r->slot;
    }
    return SLOT_COUNT;
}

/* A tensor of several places, opened by the first of them. */
static coe_status add_parts(struct conversion *c, struct place p, const char *name, struct cut cut, int64_t rows,
                            int64_t cols)
{
    const bool vector = slot_info[p.slot].is_vector, many = cut.how & CUT_EXPERT;
    const int64_t parts = cut.parts > 1 ? cut.parts : 1, experts = many ? spec_experts(&c->spec, p) : 1;
    if (p.expert || cut.part) return COE_OK;
    struct source *s = add_item(c, name, experts * parts, rows * cols);
    if (!s) return COE_E_NOMEM;
    s->cut = cut;
    s->rows = vector ? cols : rows, s->cols = vector ? 1 : cols;
    for (int64_t i = 0; i < s->n_pieces; i++) {
        const struct place at = { slot_of_part(c, p, name, (int)(i % parts)), p.layer, (int32_t)(i / parts), 0, 0 };
        const struct param *from = at.slot < SLOT_COUNT ? find_param(c, at) : NULL;
        if (!from) return coe_fail(COE_E_FAILED, "%s: nothing to write into part of %s", c->m->path, name);
        s->piece[i] = piece_of(c, from);
    }
    const struct cut_request shape = { .cut = cut, .n_experts = experts, .rows = rows, .cols = cols, .vector = vector };
    struct tensor *t = &c->item[c->n - 1].t;
    t->n_dims = cut_shape(&shape, t->dim);
    const struct tensor *old = c->m->ckpt && !ckpt_gguf(c->m->ckpt) ? ckpt_find(c->m->ckpt, name) : NULL;
    close_item(c, s, p, c->o->type == DT_COUNT && vector && old ? old->type : DT_COUNT);
    return COE_OK;
}

/* As it was: [1, E] of a bias; filters are [C, 1, K] in directories, which GGUF has without the one. */
static void set_shape(struct tensor *t, const struct conversion *c, const struct param *from, struct place p,
                      int64_t rows, int64_t cols)
{
    const bool vector = slot_info[p.slot].is_vector, gguf = c->m->ckpt && ckpt_gguf(c->m->ckpt);
    const struct tensor *old = from ? stored_alone(c, from) : NULL;
    if (old && tensor_count(old) == rows * cols && !(gguf && p.slot == SLOT_CONV)) {
        t->n_dims = old->n_dims;
        memcpy(t->dim, old->dim, sizeof t->dim);
        return;
    }
    t->n_dims = 0;
    t->dim[t->n_dims++] = vector ? cols : rows;
    if (p.slot == SLOT_CONV) t->dim[t->n_dims++] = 1;
    if (!vector) t->dim[t->n_dims++] = cols;
}

static coe_status add_place(void *user, struct place p, int64_t rows, int64_t cols)
{
    struct conversion *c = user;
    char name[256];
    struct cut cut;
    const bool fusable = p.slot == SLOT_EXPERT_GATE || p.slot == SLOT_EXPERT_UP || p.slot == SLOT_EXPERT_DOWN;
    if (c->fused && fusable) return add_fused(c, p, rows, cols);
    if (!name_of(c, p, name, sizeof name, &cut))
        return coe_fail(COE_E_USAGE, "%s: family %s has no tensor name for %s", c->m->path, c->m->family_part->name,
                        slot_info[p.slot].name);
    if (is_part(cut)) return add_parts(c, p, name, cut, rows, cols);
    const struct param *from = source_of(c, p);
    struct source *s = add_item(c, name, 1, rows * cols);
    if (!s) return COE_E_NOMEM;
    s->piece[0] = from ? piece_of(c, from) : (struct piece){ .data = &zero_weight, .type = DT_F32, .cols = 1 };
    if (!from && p.slot != SLOT_COE_WEIGHT)
        return coe_fail(COE_E_FAILED, "%s: nothing to write into %s (layer %d)", c->m->path, slot_info[p.slot].name,
                        p.layer);
    set_shape(&c->item[c->n - 1].t, c, from, p, rows, cols);
    close_item(c, s, p, DT_COUNT);
    return COE_OK;
}

/* ---- the new config ---- */

static coe_status check_chain(const struct coe_model *m, int32_t n)
{
    bool any = false;
    if (n < 2 || n > MAX_ITERATIONS)
        return coe_fail(COE_E_USAGE, "a chain of %d iterations; expected 2 to %d", n, MAX_ITERATIONS);
    for (int32_t l = 0; l < m->spec.n_layers; l++) {
        const struct chain_spec *c = &m->spec.layer[l].moe.chain;
        if (!m->spec.layer[l].is_moe) continue;
        any = true;
        if (moe_router(&m->spec.layer[l].moe)->carries)
            return coe_fail(COE_E_USAGE,
                            "%s: layer %d: its router (%s) remembers the last decision: a second pass would change "
                            "what the next layer computes",
                            m->path, l, m->spec.layer[l].moe.router.kind);
        if (c->n_iterations > 1)
            return coe_fail(COE_E_USAGE, "%s: layer %d is a chain of %d already", m->path, l, c->n_iterations);
        if (c->residual != RESIDUAL_PRENORM)
            return coe_fail(COE_E_USAGE,
                            "%s: layer %d has the %s residual; only prenorm can be continued without a change", m->path,
                            l, residual_name[c->residual]);
    }
    return any ? COE_OK : coe_fail(COE_E_USAGE, "%s: has no experts to chain", m->path);
}

/* The "coe" object of the new config, made when there is none. */
static json_t *coe_object(struct conversion *c)
{
    json_t *coe = json_object_get(c->config, "coe");
    if (coe) return coe;
    coe = json_object();
    json_object_set_new(c->config, "coe", coe);
    return coe;
}

static coe_status set_router(struct conversion *c)
{
    json_t *rule = spec_rule(&c->m->spec, "--router", c->o->router);
    if (!rule) return coe_last_status();
    const bool failed = json_object_update(coe_object(c), rule);
    json_decref(rule);
    return failed ? coe_fail(COE_E_NOMEM, "%s: no memory for the config", c->m->path) : COE_OK;
}

static coe_status set_chain(struct conversion *c)
{
    COE_TRY(check_chain(c->m, c->o->chain));
    json_t *coe = coe_object(c);
    json_t *chain = json_pack("{s:i, s:s, s:s, s:s}", "iterations", c->o->chain, "gate",
                              c->o->shared_gate ? "shared" : "independent", "residual", "prenorm", "weight", "learned");
    if (!chain || json_object_set_new(coe, "chain", chain))
        return coe_fail(COE_E_NOMEM, "%s: no memory for the config", c->m->path);
    return COE_OK;
}

static void set_type(json_t *config, enum dtype type)
{
    const char *name = type == DT_F32 ? "float32" : type == DT_F16 ? "float16" : "bfloat16";
    const char *key = json_object_get(config, "dtype") ? "dtype" : "torch_dtype"; /* the newer spelling and the older */
    json_object_set_new(config, key, json_string(name));
}

static bool source_is_fused(const struct coe_model *m)
{
    for (int32_t l = 0; l < m->spec.n_layers && m->family->fused_down && m->ckpt; l++) {
        char name[256];
        const struct place p = { SLOT_EXPERT_DOWN, l, 0, 0, 0 };
        if (m->spec.layer[l].is_moe && expand_name(m->family->fused_down, p, name, sizeof name) &&
            ckpt_find(m->ckpt, name))
            return true;
    }
    return false;
}

/* Packed weights are written unpacked. */
static void drop_quantization(struct conversion *c)
{
    for (size_t i = 0; i < c->m->n_params; i++)
        if (c->m->params[i].scale) json_object_del(c->config, "quantization_config");
}

/* The list of tensors, from c->config. */
static coe_status list(struct conversion *c)
{
    char where[600];
    snprintf(where, sizeof where, c->o->router ? "%.400s with --router '%.150s'" : "%.500s", c->m->path, c->o->router);
    const coe_status s = spec_read(&c->spec, &c->arena, c->config, where);
    /* the model's own config was read before: what is wrong now came with the command */
    if (s) return c->o->router && s == COE_E_INPUT ? COE_E_USAGE : s;
    COE_TRY(sort_params(c));
    /* a chain adds at most a router, its two biases, its own weights, and the chain's weight */
    const size_t each = 3 + PART_WEIGHTS, chain = (size_t)COE_MAX(c->o->chain, 0);
    const size_t most = c->m->n_params + (size_t)c->spec.n_layers * (each * chain + 1);
    if (!(c->item = arena_push(&c->arena, most * sizeof *c->item))) return COE_E_NOMEM;
    return spec_each_place(&c->spec, add_place, c);
}

static coe_status prepare(struct conversion *c)
{
    const struct convert_opts *o = c->o;
    const json_t *config = model_config(c->m);
    const bool gguf = c->m->ckpt && ckpt_gguf(c->m->ckpt);
    c->family = c->m->family_part->impl;
    if (!config) return coe_fail(COE_E_USAGE, "%s: has no config.json", c->m->path);
    if (!(c->config = json_deep_copy(config))) return coe_fail(COE_E_NOMEM, "%s: no memory for the config", c->m->path);
    if (o->layout == LAYOUT_FUSED && !c->family->fused_gate_up)
        return coe_fail(COE_E_USAGE, "%s: models of family %s have no fused form", c->m->path, c->m->family_part->name);
    c->fused = o->layout == LAYOUT_FUSED || (o->layout == LAYOUT_AS_IS && source_is_fused(c->m));
    if (o->chain) COE_TRY(set_chain(c));
    if (o->router) COE_TRY(set_router(c));
    if (o->type != DT_COUNT) set_type(c->config, o->type);
    else if (gguf) COE_TRY(gguf_plain_type(c->m, &c->vectors));
    c->same_layout = !gguf && c->fused == source_is_fused(c->m);
    drop_quantization(c);
    return list(c);
}

/* Beside the target for a moment: the tokenizer and the small files of a GGUF file. */
static coe_status write_from_gguf(const struct conversion *c, const char *dir, const struct ckpt_resume *resume)
{
    struct str beside = { 0 };
    struct dir_out files = { 0 };
    str_addf(&beside, "%s.tokenizer", dir);
    coe_status s = str_check(&beside);
    if (!s) s = dir_begin(&files, beside.at);
    str_free(&beside);
    if (s) return s;
    s = gguf_write_companions(c->m, files.temp);
    if (!s) s = ckpt_write_dir(dir, c->config, c->item, c->n, c->o->shard_bytes, files.temp, resume);
    dir_abort(&files);
    return s;
}

coe_status model_write(const struct coe_model *m, const char *dir, const json_t *config, enum dtype type,
                       const char *from_dir)
{
    const struct convert_opts o = { .type = type };
    const bool gguf = m->ckpt && ckpt_gguf(m->ckpt);
    struct conversion c = {
        .m = m, .o = &o, .family = m->family_part->impl, .fused = source_is_fused(m), .same_layout = !gguf
    };
    coe_status s = COE_OK;
    if (!(c.config = json_deep_copy(config))) s = coe_fail(COE_E_NOMEM, "%s: no memory for the config", m->path);
    if (!s) drop_quantization(&c);
    if (!s && gguf) s = gguf_plain_type(m, &c.vectors);
    if (!s) s = list(&c);
    if (!s && gguf && !from_dir) s = write_from_gguf(&c, dir, NULL);
    else if (!s) s = ckpt_write_dir(dir, c.config, c.item, c.n, 0, from_dir, NULL);
    json_decref(c.config);
    arena_free(&c.arena);
    return s;
}

void config_note_own(const json_t *config, const char *dir)
{
    const json_t *type = json_object_get(config, "model_type");
    json_t *own = json_object_get(config, "coe"), *value;
    const char *key;
    struct str list = { 0 };
    if (!json_object_size(own) || (json_is_string(type) && !strcmp(json_string_value(type), "coe"))) return;
    json_object_foreach(own, key, value) str_addf(&list, "%s%s", list.n ? ", " : "", key);
    log_note("%s: its config has a \"coe\" object (%s) that transformers and other programs do not read: the model is "
             "for coe alone",
             dir, list.n ? list.at : "");
    str_free(&list);
}

static coe_status write_dir(struct conversion *c, const char *dir)
{
    struct str config = { 0 };
    struct ckpt_resume resume = { .count = &c->report.overflowed };
    const struct coe_model *m = c->m;
    coe_status s = json_add_text(&config, c->config, JSON_COMPACT | JSON_SORT_KEYS);
    if (!s && m->adapter) s = adapter_add_text(m, &config); /* another adapter is another result */
    if (!s)
        s = resume_key(&resume, &(struct resume_of){ .m = m,
                                                     .item = c->item,
                                                     .n = c->n,
                                                     .head = config.at,
                                                     .n_head = config.n,
                                                     .shard_bytes = c->o->shard_bytes });
    str_free(&config);
    if (s) return s;
    c->progress = progress_start("converting", (double)c->report.bytes);
    if (m->ckpt && ckpt_gguf(m->ckpt)) s = write_from_gguf(c, dir, &resume);
    else
        s = ckpt_write_dir(dir, c->config, c->item, c->n, c->o->shard_bytes, dir_exists(m->path) ? m->path : NULL,
                           &resume);
    progress_end(&c->progress);
    if (!s) config_note_own(c->config, dir);
    return s;
}

coe_status model_convert(const struct coe_model *m, const char *dir, const struct convert_opts *o,
                         struct convert_report *r)
{
    struct conversion c = { .m = m, .o = o };
    coe_status s = prepare(&c);
    c.report.bytes_before = m->ckpt ? ckpt_bytes(m->ckpt) : 0;
    if (!s && dir) s = write_dir(&c, dir);
    *r = c.report;
    json_decref(c.config);
    arena_free(&c.arena);
    return s;
}
