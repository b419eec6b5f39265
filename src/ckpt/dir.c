/* dir.c — opens a checkpoint: one file, a GGUF model split over several, or a directory with config.json and one file
 * or many shards.
 *
 * A sharded directory is what its index says: every tensor of weight_map must be in the shard named there. Tensors that
 * the shards hold beyond the map are taken too, with a warning, as the reference loader does. */
#include "ckpt.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "gguf.h"
#include "reader.h"

#define SINGLE "model.safetensors"
#define INDEX "model.safetensors.index.json"
#define MAX_INDEX ((uint64_t)1 << 28)
#define MAX_SPLIT 65535 /* the count is a u16 in the files */

struct ckpt_file {
    char *name; /* within the directory, or the path of a lone file */
    char *path; /* what gguf.where borrows */
    struct file_map map;
    struct tensor_list list;
    struct gguf gguf; /* zero for safetensors */
};

struct ckpt {
    char *path;
    json_t *config;
    bool is_gguf;
    VEC(struct ckpt_file) file;
    VEC(struct tensor) tensor; /* of all files, ascending name */
    uint64_t bytes;
};

static char *text_copy(const char *s)
{
    size_t n = strlen(s) + 1;
    char *out = mem_alloc("paths", n);
    return out ? memcpy(out, s, n) : NULL;
}

static void file_free(struct ckpt_file *f)
{
    tensor_list_free(&f->list);
    gguf_free(&f->gguf);
    file_map_close(&f->map);
    mem_free(f->path);
    mem_free(f->name);
}

static coe_status add_file(struct ckpt *c, const char *path, const char *name)
{
    struct ckpt_file f = { .name = text_copy(name), .path = text_copy(path) };
    coe_status s = f.name && f.path ? file_map_open(&f.map, path) : COE_E_NOMEM;
    if (!s && c->is_gguf) s = gguf_parse(&f.gguf, &f.list, f.map.at, f.map.bytes, f.path);
    else if (!s) s = safetensors_parse(&f.list, f.map.at, f.map.bytes, f.path);
    if (!s && !VEC_PUSH(&c->file, f)) s = COE_E_NOMEM;
    if (s) file_free(&f);
    return s;
}

/* A shard's name comes from a foreign file: it must not lead out of the directory. */
static bool plain_name(const char *name)
{
    return name[0] && !strchr(name, '/') && strcmp(name, ".") && strcmp(name, "..");
}

coe_status shard_index_parse(json_t **map, const char *text, size_t n, const char *where)
{
    json_t *doc;
    *map = NULL;
    COE_TRY(json_read_text(&doc, text, n, where));
    coe_status s = COE_OK;
    json_t *found = json_object_get(doc, "weight_map"), *value;
    const char *key;
    if (!json_is_object(found)) {
        s = coe_fail(COE_E_INPUT, "%s: weight_map is %s, expected an object", where, json_kind(found));
        goto out;
    }
    json_object_foreach(found, key, value)
        if (!json_is_string(value) || strlen(json_string_value(value)) != json_string_length(value) ||
            !plain_name(json_string_value(value))) {
            s = coe_fail(COE_E_INPUT, "%s: tensor %s: '%s' is not the name of a file in the same directory", where, key,
                         json_is_string(value) ? json_string_value(value) : json_kind(value));
            goto out;
        }
    *map = json_incref(found);
out:
    json_decref(doc);
    return s;
}

static const struct ckpt_file *file_named(const struct ckpt *c, const char *name)
{
    size_t lo = 0, hi = c->file.n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        int order = strcmp(c->file.at[mid].name, name);
        if (!order) return &c->file.at[mid];
        if (order < 0) lo = mid + 1;
        else hi = mid;
    }
    return NULL;
}

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* Opens each shard that the map names once, in order of name. */
static coe_status open_shards(struct ckpt *c, json_t *map, const char *dir)
{
    coe_status s = COE_OK;
    size_t n = 0;
    const char **name = mem_alloc("paths", json_object_size(map) * sizeof *name), *key;
    json_t *value;
    if (!name) return COE_E_NOMEM;
    json_object_foreach(map, key, value) name[n++] = json_string_value(value);
    if (n) qsort(name, n, sizeof *name, by_text);
    for (size_t i = 0; i < n && !s; i++) {
        if (i && !strcmp(name[i - 1], name[i])) continue;
        char *path = path_join(dir, name[i]);
        s = path ? add_file(c, path, name[i]) : COE_E_NOMEM;
        mem_free(path);
    }
    mem_free(name);
    return s;
}

static coe_status check_map(const struct ckpt *c, json_t *map, const char *index)
{
    const char *key;
    json_t *value;
    json_object_foreach(map, key, value) {
        const struct ckpt_file *f = file_named(c, json_string_value(value));
        if (!tensor_find(f->list.at, f->list.n, key))
            return coe_fail(COE_E_INPUT, "%s: tensor %s is not in %s, where the index says it is", index, key, f->name);
    }
    return COE_OK;
}

/* All tensors into one sorted array. With a map, a tensor that lies in several shards is taken from the one it names.
 */
static coe_status gather(struct ckpt *c, json_t *map)
{
    size_t extra = 0;
    const char *first_extra = NULL;
    for (size_t i = 0; i < c->file.n; i++) {
        const struct ckpt_file *f = &c->file.at[i];
        for (size_t k = 0; k < f->list.n; k++) {
            const char *name = f->list.at[k].name;
            const json_t *shard = json_object_get(map, name);
            if (shard && strcmp(json_string_value(shard), f->name)) continue;
            if (map && !shard && !extra++) first_extra = name;
            if (!VEC_PUSH(&c->tensor, f->list.at[k])) return COE_E_NOMEM;
            c->bytes += tensor_bytes(&f->list.at[k]);
        }
    }
    if (extra)
        log_warn("%s: %zu tensors are in the shards but not in the index (the first is %s)", c->path, extra,
                 first_extra);
    struct tensor_list all = { c->tensor.at, c->tensor.n, NULL };
    return tensor_list_sort(&all, c->path);
}

static coe_status open_index(struct ckpt *c, const char *index)
{
    struct str text = { 0 };
    json_t *map = NULL;
    coe_status s = file_read(&text, index, MAX_INDEX);
    if (!s) s = shard_index_parse(&map, text.at ? text.at : "", text.n, index);
    str_free(&text); /* before the shards are mapped: an index of 100 000 tensors has 10 MB */
    if (!s) s = open_shards(c, map, c->path);
    if (!s) s = check_map(c, map, index);
    if (!s) s = gather(c, map);
    json_decref(map);
    return s;
}

static coe_status open_dir(struct ckpt *c)
{
    char *config = path_join(c->path, "config.json"), *single = path_join(c->path, SINGLE),
         *index = path_join(c->path, INDEX);
    coe_status s = config && single && index ? json_read_file(&c->config, config) : COE_E_NOMEM;
    if (s) goto out;
    if (!json_is_object(c->config))
        s = coe_fail(COE_E_INPUT, "%s: is %s, expected an object", config, json_kind(c->config));
    else if (file_exists(single)) {
        s = add_file(c, single, SINGLE);
        if (!s) s = gather(c, NULL);
    } else if (file_exists(index)) s = open_index(c, index);
    else s = coe_fail(COE_E_INPUT, "%s: has neither " SINGLE " nor " INDEX, c->path);
out:
    mem_free(config);
    mem_free(single);
    mem_free(index);
    return s;
}

/* Does the file begin like GGUF, or claim to by its name? */
static bool looks_like_gguf(const char *path)
{
    struct file_map m;
    size_t n = strlen(path);
    if (n > 5 && !strcmp(path + n - 5, ".gguf")) return true;
    if (file_map_open(&m, path)) return false; /* whoever opens it next says why */
    bool yes = m.bytes >= 4 && !memcmp(m.at, "GGUF", 4);
    file_map_close(&m);
    return yes;
}

/* File i of a split model opens and is what its name says. *total: what it claims all files together hold. */
static coe_status add_part(struct ckpt *c, const char *path, int64_t i, int64_t *total)
{
    int64_t number = -1;
    COE_TRY(add_file(c, path, path));
    const struct gguf *g = &c->file.at[i].gguf;
    COE_TRY(gguf_int(g, "split.no", 0, MAX_SPLIT, &number));
    if (number != i)
        return coe_fail(COE_E_INPUT, "%s: split.no is %lld, expected %lld", path, (long long)number, (long long)i);
    return gguf_int(g, "split.tensors.count", 0, INT32_MAX, total);
}

/* Opens all files of a split model in order. c->file holds the one that was named, PREFIX-00002-of-00003.gguf. */
static coe_status open_split(struct ckpt *c)
{
    int64_t count = 1, total = -1, tensors = 0;
    COE_TRY(gguf_int(&c->file.at[0].gguf, "split.count", 0, MAX_SPLIT, &count));
    if (count <= 1) return COE_OK;
    char suffix[64], *path = text_copy(c->path);
    if (!path) return COE_E_NOMEM;
    size_t n = strlen(path), tail = (size_t)snprintf(suffix, sizeof suffix, "-00000-of-%05lld.gguf", (long long)count);
    coe_status s = COE_OK;
    if (n <= tail || strcmp(path + n - tail + 6, suffix + 6)) {
        s = coe_fail(COE_E_INPUT, "%s: is one of %lld files, expected a name that ends with -00001%s", path,
                     (long long)count, suffix + 6);
        goto out;
    }
    file_free(&c->file.at[0]);
    c->file.n = 0;
    for (int64_t i = 0; i < count && !s; i++) {
        snprintf(suffix, sizeof suffix, "-%05lld-of-%05lld.gguf", (long long)i + 1, (long long)count);
        memcpy(path + n - tail, suffix, tail);
        s = add_part(c, path, i, &total);
        if (!s) tensors += (int64_t)c->file.at[i].list.n;
    }
    if (!s && total >= 0 && total != tensors)
        s = coe_fail(COE_E_INPUT, "%s: the %lld files have %lld tensors, split.tensors.count says %lld", c->path,
                     (long long)count, (long long)tensors, (long long)total);
out:
    mem_free(path);
    return s;
}

static coe_status open_file(struct ckpt *c)
{
    c->is_gguf = looks_like_gguf(c->path);
    COE_TRY(add_file(c, c->path, c->path));
    if (c->is_gguf) COE_TRY(open_split(c));
    return gather(c, NULL);
}

coe_status ckpt_open(struct ckpt **out, const char *path)
{
    *out = NULL;
    struct ckpt *c = mem_zalloc("checkpoint", sizeof *c);
    if (!c) return COE_E_NOMEM;
    c->path = text_copy(path);
    coe_status s = !c->path ? COE_E_NOMEM : dir_exists(path) ? open_dir(c) : open_file(c);
    if (s) ckpt_close(c);
    else *out = c;
    return s;
}

void ckpt_close(struct ckpt *c)
{
    if (!c) return;
    for (size_t i = 0; i < c->file.n; i++) file_free(&c->file.at[i]);
    VEC_FREE(&c->file);
    VEC_FREE(&c->tensor);
    json_decref(c->config);
    mem_free(c->path);
    mem_free(c);
}

const struct gguf *ckpt_gguf(const struct ckpt *c) { return c->is_gguf ? &c->file.at[0].gguf : NULL; }
const char *ckpt_file(const struct ckpt *c, size_t i) { return i < c->file.n ? c->file.at[i].path : NULL; }
const char *ckpt_path(const struct ckpt *c) { return c->path; }
const json_t *ckpt_config(const struct ckpt *c) { return c->config; }
size_t ckpt_count(const struct ckpt *c) { return c->tensor.n; }
uint64_t ckpt_bytes(const struct ckpt *c) { return c->bytes; }

const struct tensor *ckpt_at(const struct ckpt *c, size_t i)
{
    assert(i < c->tensor.n);
    return &c->tensor.at[i];
}

const struct tensor *ckpt_find(const struct ckpt *c, const char *name)
{
    return tensor_find(c->tensor.at, c->tensor.n, name);
}

void ckpt_advise(const struct ckpt *c, int advice)
{
    for (size_t i = 0; i < c->file.n; i++) {
        const struct file_map *m = &c->file.at[i].map;
        if (m->at) (void)madvise((void *)(uintptr_t)m->at, m->bytes, advice); /* advice: no harm when it is refused */
    }
}

void ckpt_release_pages(const struct tensor *t)
{
    file_release(t->data, tensor_bytes(t));
}
