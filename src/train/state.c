/* state.c — a run on disk: OUTPUT/state.safetensors (parameters, moments, position) and OUTPUT/model. Both appear by rename. */
#include <string.h>
#include <xxhash.h>

#include "base/file.h"
#include "train/internal.h"

static char *in_output(const struct trainer *t, const char *name) { return path_join(t->r->output, name); }

bool state_exists(const struct trainer *t)
{
    char *path = in_output(t, "state.safetensors");
    const bool there = path && file_exists(path);
    mem_free(path);
    return there;
}

/* What must not change between sittings: everything in the recipe but how long and how often. */
static uint64_t recipe_hash(const struct trainer *t)
{
    json_t *doc = json_deep_copy(t->r->doc);
    static const char *const free_to_change[] = { "eval_every", "eval_tokens", "save_every", "log_every", "dtype", "micro_batch" };
    for (size_t i = 0; i < COE_COUNT(free_to_change); i++) json_object_del(json_object_get(doc, "train"), free_to_change[i]);
    json_object_del(doc, "output");
    json_object_del(doc, "about");
    char *text = json_dumps(doc, JSON_COMPACT | JSON_SORT_KEYS);
    const uint64_t hash = text ? XXH3_64bits(text, strlen(text)) ^ (uint64_t)t->r->micro_batch ^ t->r->seed << 32 ^ (uint64_t)t->r->steps << 8 : 0;
    free(text);
    json_decref(doc);
    return hash;
}

static void add_item(struct ckpt_item *out, struct trainer *t, const char *prefix, size_t i, const float *data)
{
    const struct weight *w = t->params[i].w;
    char name[300];
    snprintf(name, sizeof name, "%s%s", prefix, w->name);
    *out = (struct ckpt_item){ .t = { .name = arena_strdup(&t->arena, name), .type = DT_F32, .n_dims = 2, .data = data } };
    out->t.dim[0] = w->rows;
    out->t.dim[1] = w->cols;
}

coe_status state_save(struct trainer *t)
{
    const size_t n = t->model->n_params;
    char numbers[5][32];
    snprintf(numbers[0], 32, "%lld", (long long)t->step);
    snprintf(numbers[1], 32, "%lld", (long long)t->tokens);
    snprintf(numbers[2], 32, "%.3f", t->seconds);
    snprintf(numbers[3], 32, "%016llx", (unsigned long long)recipe_hash(t));
    snprintf(numbers[4], 32, "%016llx", (unsigned long long)t->train.hash);
    const char *const metadata[][2] = { { "step", numbers[0] }, { "tokens", numbers[1] }, { "seconds", numbers[2] }, { "recipe", numbers[3] }, { "data", numbers[4] } };
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
    snprintf(name, sizeof name, "%s%s", prefix, w->name);
    const struct tensor *x = ckpt_find(c, name);
    if (!x) return coe_fail(COE_E_INPUT, "%s: tensor %s is missing", ckpt_path(c), name);
    if (x->type != DT_F32 || tensor_count(x) != weight_count(w))
        return coe_fail(COE_E_INPUT, "%s: tensor %s does not have the shape of this recipe's model", ckpt_path(c), name);
    memcpy(to, x->data, (size_t)weight_count(w) * sizeof(float));
    return COE_OK;
}

/* Where the run stood; refuses a state of another recipe or other data. */
static coe_status load_position(struct trainer *t, const json_t *meta, const char *path)
{
    const char *text[5] = { NULL };
    static const char *const keys[] = { "step", "tokens", "seconds", "recipe", "data" };
    for (size_t i = 0; i < COE_COUNT(keys); i++) COE_TRY(json_need_str(meta, keys[i], &text[i], path));
    if (strtoull(text[3], NULL, 16) != recipe_hash(t))
        return coe_fail(COE_E_USAGE, "%s was saved by a different recipe, seed or number of steps; --restart begins again", path);
    if (strtoull(text[4], NULL, 16) != t->train.hash) return coe_fail(COE_E_USAGE, "%s was saved on other training text; --restart begins again", path);
    COE_TRY(parse_int(text[0], "step", 0, INT64_MAX, &t->step));
    COE_TRY(parse_int(text[1], "tokens", 0, INT64_MAX, &t->tokens));
    return parse_double(text[2], "seconds", &t->seconds);
}

coe_status state_load(struct trainer *t)
{
    struct ckpt *c = NULL;
    json_t *meta = NULL;
    char *path = in_output(t, "state.safetensors");
    coe_status s = path ? ckpt_open(&c, path) : COE_E_NOMEM;
    if (!s) s = safetensors_metadata(&meta, path);
    if (!s) s = load_position(t, meta, path);
    for (size_t i = 0; i < t->model->n_params && !s; i++) {
        s = load_one(t, c, "", i, t->params[i].w->master);
        if (!s) s = load_one(t, c, "adam.m.", i, t->params[i].m);
        if (!s) s = load_one(t, c, "adam.v.", i, t->params[i].v);
    }
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

coe_status state_write_model(const struct trainer *t)
{
    static const char *const type_names[] = { [DT_F32] = "float32", [DT_F16] = "float16", [DT_BF16] = "bfloat16" };
    char *path = in_output(t, "model"), *from = tokenizer_dir(t->r->tokenizer);
    json_t *config = json_deep_copy(t->config);
    coe_status s = path && from && config ? COE_OK : COE_E_NOMEM;
    if (!s) {
        json_object_set_new(config, "torch_dtype", json_string(type_names[t->r->dtype]));
        s = model_write(t->model, path, config, t->r->dtype, from);
    }
    json_decref(config);
    mem_free(from);
    mem_free(path);
    return s;
}
