/* recipe.c — reading a training recipe. docs/training.md lists the keys. */
#include <string.h>

#include "base/file.h"
#include "train/internal.h"

#define RECIPE_BYTES (1 << 20) /* no recipe is longer */

/* "label=path" → { label, path }, so that the document owns both strings */
static coe_status split_label(json_t **v, const char *where)
{
    const char *text = json_string_value(*v), *eq = strchr(text, '=');
    const bool labelled = eq && !memchr(text, '/', (size_t)(eq - text));
    json_t *o = labelled ? json_pack("{s:s#, s:s}", "label", text, (int)(eq - text), "path", eq + 1)
                         : json_pack("{s:s}", "path", text);
    if (!o) return coe_fail(COE_E_NOMEM, "%s", where);
    *v = o;
    return COE_OK;
}

static coe_status read_source(struct data_source *d, const json_t *v, const char *where)
{
    static const char *const keys[] = { "path", "label", "field", "task", NULL };
    *d = (struct data_source){ 0 };
    COE_TRY(json_only_keys(v, keys, where));
    COE_TRY(json_need_str(v, "path", &d->path, where));
    d->label = path_base(d->path);
    COE_TRY(json_get_str(v, "label", &d->label, where));
    COE_TRY(json_get_i32(v, "task", 0, 65535, &d->task, where));
    return json_get_str(v, "field", &d->field, where);
}

static coe_status read_sources(struct recipe *r, json_t *data, const char *key, struct data_source **out, size_t *n)
{
    char where[700];
    snprintf(where, sizeof where, "%s: data.%s", r->path, key);
    json_t *list = json_object_get(data, key);
    if (!list || json_is_null(list)) return COE_OK;
    if (!json_is_array(list)) {
        list = json_pack("[O]", list);
        if (!list || json_object_set_new(data, key, list)) return coe_fail(COE_E_NOMEM, "%s", where);
    }
    *n = json_array_size(list);
    *out = mem_zalloc("recipe", (*n + 1) * sizeof **out);
    if (!*out) return COE_E_NOMEM;
    for (size_t i = 0; i < *n; i++) {
        json_t *v = json_array_get(list, i);
        if (json_is_string(v)) {
            COE_TRY(split_label(&v, where));
            if (json_array_set_new(list, i, v)) return coe_fail(COE_E_NOMEM, "%s", where);
        }
        COE_TRY(read_source(&(*out)[i], v, where));
    }
    return COE_OK;
}

static coe_status read_data(struct recipe *r, const char *where)
{
    static const char *const keys[] = { "train", "valid", "hold_out_last", "sequence", "boundaries", NULL };
    json_t *d = json_object_get(r->doc, "data");
    if (!d) return coe_fail(COE_E_INPUT, "%s: data is missing", where);
    char place[700];
    snprintf(place, sizeof place, "%s: data", where);
    COE_TRY(json_only_keys(d, keys, place));
    COE_TRY(json_get_i32(d, "hold_out_last", 0, 1 << 30, &r->hold_out_last, place));
    COE_TRY(json_get_i32(d, "sequence", 2, 1 << 20, &r->sequence, place));
    COE_TRY(json_get_bool(d, "boundaries", &r->boundaries, place));
    COE_TRY(read_sources(r, d, "train", &r->train, &r->n_train));
    COE_TRY(read_sources(r, d, "valid", &r->valid, &r->n_valid));
    if (!r->n_train) return coe_fail(COE_E_INPUT, "%s: data.train names no file", where);
    if (r->n_valid && r->hold_out_last)
        return coe_fail(COE_E_INPUT, "%s: data.valid and data.hold_out_last exclude each other", where);
    return COE_OK;
}

static coe_status read_model(struct recipe *r, const char *where)
{
    static const char *const keys[] = { "config", "init", "init_std", NULL };
    const json_t *m = json_object_get(r->doc, "model");
    char place[700];
    snprintf(place, sizeof place, "%s: model", where);
    if (!m) return coe_fail(COE_E_INPUT, "%s: model is missing", where);
    COE_TRY(json_only_keys(m, keys, place));
    COE_TRY(json_get_str(m, "init", &r->init, place));
    COE_TRY(json_get_num(m, "init_std", &r->init_std, place));
    r->config = json_object_get(m, "config");
    if (!r->config == !r->init)
        return coe_fail(COE_E_INPUT, "%s: needs either config (a fresh model) or init (a directory)", place);
    if (!(r->init_std > 0 && r->init_std < 10)) return coe_fail(COE_E_INPUT, "%s: init_std %g", place, r->init_std);
    return COE_OK;
}

static coe_status named(const json_t *o, const char *key, const char *const *names, int n, int *out, const char *where)
{
    const char *text = NULL;
    COE_TRY(json_get_str(o, key, &text, where));
    for (int i = 0; text && i < n; i++)
        if (!strcmp(names[i], text)) {
            *out = i;
            return COE_OK;
        }
    return text ? coe_fail(COE_E_INPUT, "%s: %s '%s' is unknown", where, key, text) : COE_OK;
}

#define MAX_TOKENS (1 << 24) /* of one forward pass: indices of its activations stay below 2^31 rows */

static coe_status check_numbers(const struct recipe *r, const char *where)
{
    const struct {
        const char *key;
        double value, lo, hi;
    } ranges[] = { { "lr", r->lr, 0, 10 },
                   { "min_lr", r->min_lr, 0, r->lr },
                   { "beta1", r->beta1, 0, 0.999999 },
                   { "beta2", r->beta2, 0, 0.9999999 },
                   { "eps", r->eps, 0, 1 },
                   { "weight_decay", r->weight_decay, 0, 10 },
                   { "clip", r->clip, 0, 1e9 },
                   { "dropout", r->dropout, 0, 0.95 },
                   { "z_loss", r->z_loss, 0, 10 },
                   { "consistency", r->consistency, 0, 1e6 } };
    for (size_t i = 0; i < COE_COUNT(ranges); i++)
        if (!(ranges[i].value >= ranges[i].lo && ranges[i].value <= ranges[i].hi))
            return coe_fail(COE_E_INPUT, "%s: %s is %g, outside %g … %g", where, ranges[i].key, ranges[i].value,
                            ranges[i].lo, ranges[i].hi);
    if (r->batch % r->micro_batch)
        return coe_fail(COE_E_INPUT, "%s: batch %d is not a multiple of micro_batch %d", where, r->batch,
                        r->micro_batch);
    if ((int64_t)r->micro_batch * r->sequence > MAX_TOKENS)
        return coe_fail(COE_E_INPUT, "%s: micro_batch %d times sequence %d is more than %d tokens", where,
                        r->micro_batch, r->sequence, MAX_TOKENS);
    return COE_OK;
}

static coe_status read_train(struct recipe *r, const char *where)
{
    static const char *const keys[] = { "steps",        "batch",       "micro_batch", "lr",        "min_lr",
                                        "warmup",       "schedule",    "beta1",       "beta2",     "eps",
                                        "weight_decay", "clip",        "dropout",     "z_loss",    "seed",
                                        "eval_every",   "eval_tokens", "save_every",  "log_every", "dtype",
                                        "consistency",  NULL };
    const json_t *t = json_object_get(r->doc, "train");
    char place[700];
    snprintf(place, sizeof place, "%s: train", where);
    if (!t) return coe_fail(COE_E_INPUT, "%s: train is missing", where);
    COE_TRY(json_only_keys(t, keys, place));
    const struct {
        const char *key;
        int64_t *to, lo;
    } wholes[] = { { "steps", &r->steps, 1 },           { "warmup", &r->warmup, 0 },
                   { "eval_every", &r->eval_every, 0 }, { "eval_tokens", &r->eval_tokens, 0 },
                   { "save_every", &r->save_every, 0 }, { "log_every", &r->log_every, 1 } };
    for (size_t i = 0; i < COE_COUNT(wholes); i++)
        COE_TRY(json_get_int(t, wholes[i].key, wholes[i].lo, (int64_t)1 << 50, wholes[i].to, place));
    const struct {
        const char *key;
        double *to;
    } reals[] = { { "lr", &r->lr },
                  { "beta1", &r->beta1 },
                  { "beta2", &r->beta2 },
                  { "eps", &r->eps },
                  { "weight_decay", &r->weight_decay },
                  { "clip", &r->clip },
                  { "dropout", &r->dropout },
                  { "z_loss", &r->z_loss },
                  { "consistency", &r->consistency } };
    for (size_t i = 0; i < COE_COUNT(reals); i++) COE_TRY(json_get_num(t, reals[i].key, reals[i].to, place));
    r->min_lr = r->lr / 10;
    COE_TRY(json_get_num(t, "min_lr", &r->min_lr, place));
    COE_TRY(json_get_i32(t, "batch", 1, 1 << 20, &r->batch, place));
    r->micro_batch = r->batch;
    COE_TRY(json_get_i32(t, "micro_batch", 1, 1 << 20, &r->micro_batch, place));
    int64_t seed = 0;
    COE_TRY(json_get_int(t, "seed", 0, INT64_MAX, &seed, place));
    r->seed = (uint64_t)seed;
    static const char *const schedules[] = { "cosine", "constant", "linear" }, *const types[] = { "f32", "bf16",
                                                                                                  "f16" };
    static const enum dtype dtypes[] = { DT_F32, DT_BF16, DT_F16 };
    int schedule = SCHEDULE_COSINE, type = 1;
    COE_TRY(named(t, "schedule", schedules, 3, &schedule, place));
    COE_TRY(named(t, "dtype", types, 3, &type, place));
    r->schedule = (enum schedule_kind)schedule;
    r->dtype = dtypes[type];
    return check_numbers(r, place);
}

static void set_defaults(struct recipe *r)
{
    r->init_std = 0.02;
    r->sequence = 256;
    r->boundaries = true;
    r->steps = 1000;
    r->batch = 16;
    r->lr = 1e-3;
    r->beta1 = 0.9, r->beta2 = 0.95, r->eps = 1e-8;
    r->weight_decay = 0.1;
    r->clip = 1;
    r->warmup = 100;
    r->log_every = 10;
    r->eval_every = 200;
    r->eval_tokens = 100000;
    r->save_every = 200;
}

/* What a recipe says over another: objects member by member, everything else instead of it; null takes away. */
static coe_status lay_over(json_t *base, const json_t *over, const char *where)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)over, key, value)
    {
        json_t *below = json_object_get(base, key);
        int failed = 0;
        if (json_is_null(value)) json_object_del(base, key);
        else if (json_is_object(below) && json_is_object(value)) COE_TRY(lay_over(below, value, where));
        else failed = json_object_set(base, key, value);
        if (failed) return coe_fail(COE_E_NOMEM, "%s", where);
    }
    return COE_OK;
}

#define EXTENDS_DEPTH 8

/* extends: FILE — this recipe is that one but for what it says itself. */
static coe_status extend(json_t **doc, const char *where, int depth)
{
    const char *name = NULL;
    struct str text = { 0 };
    json_t *base = NULL;
    if (!json_is_object(*doc)) return COE_OK; /* what it is instead is said by whoever reads it */
    COE_TRY(json_get_str(*doc, "extends", &name, where));
    if (!name) return COE_OK;
    if (depth == EXTENDS_DEPTH)
        return coe_fail(COE_E_INPUT, "%s: more than %d recipes extend one another", where, depth);
    coe_status s = file_read(&text, name, RECIPE_BYTES);
    if (!s) s = yaml_read_text(&base, text.at ? text.at : "", text.n, name);
    if (!s) s = extend(&base, name, depth + 1);
    if (!s && !json_is_object(base))
        s = coe_fail(COE_E_INPUT, "%s: is %s, expected a recipe", name, json_kind(base));
    if (!s) {
        json_object_del(*doc, "extends");
        s = lay_over(base, *doc, where);
    }
    str_free(&text);
    if (s) {
        json_decref(base);
        return s;
    }
    json_decref(*doc);
    *doc = base;
    return COE_OK;
}

/* Of comparisons: read by scripts/claims, not by the trainer. */
static const char *const for_people[] = { "about", "claim", "paper", "card", "measure", "expect", "against" };

/* r->doc → everything else */
static coe_status from_document(struct recipe *r)
{
    static const char *const keys[] = { "model", "tokenizer", "data", "train", "tune", "output", NULL };
    COE_TRY(json_only_keys(r->doc, keys, r->path));
    COE_TRY(json_need_str(r->doc, "output", &r->output, r->path));
    COE_TRY(read_model(r, r->path));
    COE_TRY(json_get_str(r->doc, "tokenizer", &r->tokenizer, r->path));
    if (!r->tokenizer) r->tokenizer = r->init;
    if (!r->tokenizer) return coe_fail(COE_E_INPUT, "%s: tokenizer is missing", r->path);
    COE_TRY(read_data(r, r->path));
    COE_TRY(tune_read(r, r->path));
    return read_train(r, r->path);
}

coe_status recipe_read_text(struct recipe *r, const char *text, size_t n, const char *path)
{
    *r = (struct recipe){ .path = path };
    set_defaults(r);
    coe_status s = yaml_read_text(&r->doc, text, n, path);
    if (!s) s = extend(&r->doc, path, 0);
    for (size_t i = 0; i < COE_COUNT(for_people) && !s; i++) json_object_del(r->doc, for_people[i]);
    if (!s) s = from_document(r);
    if (s) recipe_free(r);
    return s;
}

coe_status recipe_read(struct recipe *r, const char *path)
{
    struct str text = { 0 };
    *r = (struct recipe){ 0 };
    coe_status s = file_read(&text, path, RECIPE_BYTES);
    if (!s) s = recipe_read_text(r, text.at ? text.at : "", text.n, path);
    str_free(&text);
    return s;
}

void recipe_free(struct recipe *r)
{
    mem_free(r->tune.target);
    mem_free(r->train);
    mem_free(r->valid);
    json_decref(r->doc);
    *r = (struct recipe){ 0 };
}
