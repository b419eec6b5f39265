/* state.c — a run on disk: OUTPUT/state.safetensors (parameters, moments, position) and OUTPUT/model. Both appear by
 * rename. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/file.h"
#include "ckpt/gguf.h"
#include "model/adapter.h"
#include "train/internal.h"

static char *in_output(const struct trainer *t, const char *name) { return path_join(t->r->output, name); }

bool state_exists(const struct trainer *t)
{
    char *path = in_output(t, "state.safetensors");
    const bool there = path && file_exists(path);
    mem_free(path);
    return there;
}

/* What must not change between sittings: everything in the recipe but how often it reports and what it writes. */
static coe_status recipe_hash(const struct trainer *t, uint64_t *out)
{
    static const char *const free_to_change[] = { "eval_every", "eval_tokens", "save_every",
                                                  "log_every",  "dtype",       "micro_batch" };
    const struct recipe *r = t->r;
    struct str text = { 0 };
    json_t *doc = json_deep_copy(r->doc), *train = json_object_get(doc, "train");
    for (size_t i = 0; i < COE_COUNT(free_to_change); i++) json_object_del(train, free_to_change[i]);
    json_object_del(doc, "output");
    coe_status s = doc ? json_add_text(&text, doc, JSON_COMPACT | JSON_SORT_KEYS) : COE_E_NOMEM;
    /* as they count, wherever they were given: rows of a forward pass change the rounding of sums over them */
    if (!s) *out = XXH3_64bits(text.at, text.n) ^ (uint64_t)r->micro_batch ^ r->seed << 32 ^ (uint64_t)r->steps << 8;
    str_free(&text);
    json_decref(doc);
    return s;
}

/* Of all parameters and moments: a page that the disk lost is noticed. */
static uint64_t checksum(const struct trainer *t)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < t->n_params; i++) {
        const struct optim_param *p = &t->params[i];
        const float *const data[] = { p->w->master, p->m, p->v };
        for (size_t k = 0; k < COE_COUNT(data); k++)
            sum = XXH3_64bits_withSeed(data[k], (size_t)weight_count(p->w) * sizeof(float), sum);
    }
    return sum;
}

/* The tensor's name; where several parameters share one (fused experts, q with k and v), with the expert and part. */
static void name_in_state(char out[300], const struct trainer *t, const char *prefix, const struct weight *w)
{
    const struct coe_model *m = t->model;
    const uintptr_t at = (uintptr_t)w, first = (uintptr_t)m->params, end = (uintptr_t)(m->params + m->n_params);
    const struct param *p = at >= first && at < end ? &m->params[(at - first) / sizeof *p]
                                                    : NULL; /* else an adapter's */
    if (p && (p->cut.how || p->cut.parts > 1))
        snprintf(out, 300, "%s%s#%d.%d", prefix, w->name, p->at.expert, p->cut.part);
    else snprintf(out, 300, "%s%s", prefix, w->name);
}

static void add_item(struct ckpt_item *out, struct trainer *t, const char *prefix, size_t i, const float *data)
{
    const struct weight *w = t->params[i].w;
    char name[300];
    name_in_state(name, t, prefix, w);
    *out =
        (struct ckpt_item){ .t = { .name = arena_strdup(&t->arena, name), .type = DT_F32, .n_dims = 2, .data = data } };
    out->t.dim[0] = w->rows;
    out->t.dim[1] = w->cols;
}

coe_status state_save(struct trainer *t)
{
    const size_t n = t->n_params;
    uint64_t recipe = 0;
    COE_TRY(recipe_hash(t, &recipe));
    char text[6][32];
    snprintf(text[0], sizeof text[0], "%lld", (long long)t->step);
    snprintf(text[1], sizeof text[1], "%lld", (long long)t->tokens);
    snprintf(text[2], sizeof text[2], "%.3f", t->seconds);
    snprintf(text[3], sizeof text[3], "%016llx", (unsigned long long)recipe);
    snprintf(text[4], sizeof text[4], "%016llx", (unsigned long long)t->train.hash);
    snprintf(text[5], sizeof text[5], "%016llx", (unsigned long long)checksum(t));
    const char *const metadata[][2] = { { "step", text[0] },   { "tokens", text[1] }, { "seconds", text[2] },
                                        { "recipe", text[3] }, { "data", text[4] },   { "sum", text[5] } };
    arena_rewind(&t->arena, (struct arena_mark){ 0 });
    struct ckpt_item *items = arena_push(&t->arena, 3 * n * sizeof *items);
    char *path = in_output(t, "state.safetensors");
    coe_status s = items && path ? COE_OK : COE_E_NOMEM;
    for (size_t i = 0; i < n && !s; i++) {
        add_item(&items[3 * i], t, "", i, t->params[i].w->master);
        add_item(&items[3 * i + 1], t, "adam.m.", i, t->params[i].m);
        add_item(&items[3 * i + 2], t, "adam.v.", i, t->params[i].v);
        if (!items[3 * i].t.name || !items[3 * i + 1].t.name || !items[3 * i + 2].t.name) s = COE_E_NOMEM;
    }
    if (!s) s = safetensors_write(path, items, 3 * n, metadata, COE_COUNT(metadata));
    mem_free(path);
    return s;
}

static coe_status load_one(const struct trainer *t, const struct ckpt *c, const char *prefix, size_t i, float *to)
{
    const struct weight *w = t->params[i].w;
    char name[300];
    name_in_state(name, t, prefix, w);
    const struct tensor *x = ckpt_find(c, name);
    if (!x) return coe_fail(COE_E_INPUT, "%s: tensor %s is missing", ckpt_path(c), name);
    if (x->type != DT_F32 || tensor_count(x) != weight_count(w))
        return coe_fail(COE_E_INPUT, "%s: tensor %s does not have the shape of this recipe's model", ckpt_path(c),
                        name);
    memcpy(to, x->data, (size_t)weight_count(w) * sizeof(float));
    return COE_OK;
}

/* A whole number of the metadata, which are all strings. */
static coe_status number(const json_t *meta, const char *key, int base, uint64_t *out, const char *path)
{
    const char *text = NULL;
    char *end = NULL;
    COE_TRY(json_need_str(meta, key, &text, path));
    errno = 0;
    *out = strtoull(text, &end, base);
    if (errno || end == text || *end || !isxdigit((unsigned char)*text) || *out > (base == 10 ? INT64_MAX : UINT64_MAX))
        return coe_fail(COE_E_INPUT, "%s: %s is '%.40s', expected a number", path, key, text);
    return COE_OK;
}

/* Where the run stood; refuses a state of another recipe or other data. */
static coe_status load_position(struct trainer *t, const json_t *meta, const char *path)
{
    uint64_t step, tokens, recipe, data, own = 0;
    const char *seconds = NULL;
    COE_TRY(number(meta, "step", 10, &step, path));
    COE_TRY(number(meta, "tokens", 10, &tokens, path));
    COE_TRY(number(meta, "recipe", 16, &recipe, path));
    COE_TRY(number(meta, "data", 16, &data, path));
    COE_TRY(json_need_str(meta, "seconds", &seconds, path));
    COE_TRY(recipe_hash(t, &own));
    if (recipe != own)
        return coe_fail(COE_E_USAGE,
                        "%s was saved by a different recipe, seed or number of steps; --restart begins again", path);
    if (data != t->train.hash)
        return coe_fail(COE_E_USAGE, "%s was saved on other training text; --restart begins again", path);
    t->step = (int64_t)step;
    t->tokens = (int64_t)tokens;
    t->seconds = strtod(seconds, NULL);
    if (!(t->seconds >= 0 && t->seconds < 1e12))
        return coe_fail(COE_E_INPUT, "%s: seconds is '%.40s', expected a number", path, seconds);
    return COE_OK;
}

static coe_status check_sum(const struct trainer *t, const json_t *meta, const char *path)
{
    uint64_t sum;
    if (!json_object_get(meta, "sum")) return COE_OK;
    COE_TRY(number(meta, "sum", 16, &sum, path));
    if (sum != checksum(t))
        return coe_fail(COE_E_INPUT, "%s: the values do not have the checksum they were saved with", path);
    return COE_OK;
}

coe_status state_load(struct trainer *t)
{
    struct ckpt *c = NULL;
    json_t *meta = NULL;
    char *path = in_output(t, "state.safetensors");
    coe_status s = path ? ckpt_open(&c, path) : COE_E_NOMEM;
    if (!s) s = safetensors_metadata(&meta, path);
    if (!s) s = load_position(t, meta, path);
    for (size_t i = 0; i < t->n_params && !s; i++) {
        s = load_one(t, c, "", i, t->params[i].w->master);
        if (!s) s = load_one(t, c, "adam.m.", i, t->params[i].m);
        if (!s) s = load_one(t, c, "adam.v.", i, t->params[i].v);
    }
    if (!s) s = check_sum(t, meta, path);
    if (c) ckpt_close(c);
    json_decref(meta);
    mem_free(path);
    return s;
}

/* The directory that holds the tokenizer's files: the recipe names it or one file in it. */
static char *tokenizer_dir(const char *path)
{
    const char *base = path_base(path);
    if (dir_exists(path)) return path_join(path, "");
    char *dir = path_join(base == path ? "." : path, "");
    if (dir && base != path) dir[base - path] = 0;
    return dir;
}

static coe_status write_adapter(const struct trainer *t)
{
    char *path = in_output(t, "adapter");
    coe_status s = path ? adapter_write(t->model, path, t->r->init) : COE_E_NOMEM;
    mem_free(path);
    return s;
}

coe_status state_write_model(const struct trainer *t)
{
    static const char *const type_names[] = { [DT_F32] = "float32", [DT_F16] = "float16", [DT_BF16] = "bfloat16" };
    if (t->model->adapter) return write_adapter(t);
    char *path = in_output(t, "model"), *from = tokenizer_dir(t->r->tokenizer);
    json_t *config = json_deep_copy(t->config);
    coe_status s = path && from && config ? COE_OK : COE_E_NOMEM;
    if (!s) {
        json_object_set_new(config, "torch_dtype", json_string(type_names[t->r->dtype]));
        /* a GGUF file has its tokenizer inside */
        const bool inside = t->model->ckpt && ckpt_gguf(t->model->ckpt) && !strcmp(t->r->init, t->r->tokenizer);
        s = model_write(t->model, path, config, t->r->dtype, inside ? NULL : from);
    }
    json_decref(config);
    mem_free(from);
    mem_free(path);
    return s;
}
