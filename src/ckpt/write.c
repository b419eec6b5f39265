/* write.c — writes safetensors files and directories, one tensor at a time through one buffer.
 *
 * The header is padded with spaces so that the data begins at a page. Inside the data there can be no padding (readers
 * refuse holes), so tensors are laid down by falling alignment of their type: each is aligned to its own element size.
 */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "reader.h"
#include "work.h"

#define PAGE 4096u
#define COPY_STEP ((uint64_t)16 << 20)
#define SHARD_DEFAULT ((uint64_t)5 << 30)

/* Files that belong to a model beside its weights and config. */
static const char *const companions[] = {
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "LICENSE",
};

static int alignment(const struct tensor *t) { return dtype_info[t->type].block == 1 ? dtype_info[t->type].bytes : 1; }

/* Falling alignment; the order given among equals (items lie in one array, so addresses tell it). */
static int by_alignment(const void *a, const void *b)
{
    const struct ckpt_item *x = *(const struct ckpt_item *const *)a, *y = *(const struct ckpt_item *const *)b;
    int p = alignment(&x->t), q = alignment(&y->t);
    if (p != q) return p > q ? -1 : 1;
    return (x > y) - (x < y);
}

static coe_status add_entry(json_t *header, const struct tensor *t, uint64_t begin, const char *path)
{
    json_t *shape = json_array(), *entry;
    for (int32_t i = 0; i < t->n_dims; i++) json_array_append_new(shape, json_integer(t->dim[i]));
    entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype_info[t->type].name, "shape", shape, "data_offsets",
                      (json_int_t)begin, (json_int_t)(begin + tensor_bytes(t)));
    if (json_object_get(header, t->name)) {
        json_decref(entry);
        return coe_fail(COE_E_FAILED, "%s: two tensors to be written are called %s", path, t->name);
    }
    if (entry && !json_object_set_new(header, t->name, entry)) return COE_OK;
    return coe_fail(COE_E_FAILED, "%s: a tensor's name is not UTF-8 or memory ran out", path);
}

/* The eight bytes of length and the padded JSON. */
static coe_status header_text(struct str *out, const struct ckpt_item *const *item, size_t n,
                              const char *const metadata[][2], size_t n_metadata, const char *path)
{
    coe_status s = COE_OK;
    char *text = NULL;
    json_t *header = json_object(), *meta = json_object();
    for (size_t i = 0; i < n_metadata; i++) json_object_set_new(meta, metadata[i][0], json_string(metadata[i][1]));
    if (n_metadata) json_object_set(header, "__metadata__", meta);
    uint64_t begin = 0;
    for (size_t i = 0; i < n && !s; i++) {
        s = add_entry(header, &item[i]->t, begin, path);
        begin += tensor_bytes(&item[i]->t);
    }
    if (!s && !(text = json_dumps(header, JSON_COMPACT)))
        s = coe_fail(COE_E_NOMEM, "%s: no memory for the header", path);
    if (s) goto out;
    str_add(out, "\0\0\0\0\0\0\0\0", 8);
    str_addz(out, text);
    while (out->n % PAGE && !out->oom) str_addc(out, ' ');
    s = str_check(out);
    if (!s) store_u64((unsigned char *)out->at, out->n - 8);
out:
    free(text);
    json_decref(meta);
    json_decref(header);
    return s;
}

/* Elements to ask of a fill function at once: whole rows where they fit the buffer, else whole blocks. */
static int64_t elements_at_once(const struct tensor *t)
{
    const struct dtype_info *d = &dtype_info[t->type];
    int64_t fit = (int64_t)(CKPT_BUFFER / (size_t)d->bytes) * d->block, row = t->n_dims ? t->dim[t->n_dims - 1] : 1;
    return row > 0 && row <= fit ? fit / row * row : fit;
}

static coe_status check_interrupt(const struct file_out *f)
{
    return coe_interrupted() ? coe_fail(COE_E_FAILED, "%s: interrupted; nothing was changed", f->path) : COE_OK;
}

static coe_status put_as_it_is(struct file_out *f, const struct tensor *t)
{
    const uint64_t n = tensor_bytes(t);
    for (uint64_t i = 0; i < n; i += COPY_STEP) {
        COE_TRY(file_put(f, (const char *)t->data + i, (size_t)COE_MIN(COPY_STEP, n - i)));
        COE_TRY(check_interrupt(f));
    }
    return COE_OK;
}

coe_status ckpt_put_tensor(struct file_out *f, const struct ckpt_item *item, void *buffer)
{
    const struct tensor *t = &item->t;
    if (!item->fill) return put_as_it_is(f, t);
    int64_t n = tensor_count(t), step = elements_at_once(t);
    for (int64_t i = 0; i < n; i += step) {
        int64_t count = COE_MIN(step, n - i);
        uint64_t bytes = 0;
        COE_TRY(item->fill(item->user, t, i, count, buffer));
        if (!dtype_bytes(t->type, (uint64_t)count, &bytes))
            return coe_fail(COE_E_FAILED, "%s: %s: size", f->path, t->name);
        COE_TRY(file_put(f, buffer, (size_t)bytes));
        COE_TRY(check_interrupt(f));
    }
    return COE_OK;
}

coe_status safetensors_write(const char *path, const struct ckpt_item *items, size_t n, const char *const metadata[][2],
                             size_t n_metadata)
{
    struct str header = { 0 };
    struct file_out f = { 0 };
    const struct ckpt_item **order = mem_alloc("writing", n * sizeof *order);
    void *buffer = mem_alloc("writing", CKPT_BUFFER);
    coe_status s = order && buffer ? COE_OK : COE_E_NOMEM;
    if (s) goto out;
    for (size_t i = 0; i < n; i++) order[i] = &items[i];
    if (n) qsort(order, n, sizeof *order, by_alignment);
    if ((s = header_text(&header, order, n, metadata, n_metadata, path))) goto out;
    if ((s = file_begin(&f, path))) goto out;
    s = file_put(&f, header.at, header.n);
    for (size_t i = 0; i < n && !s; i++) s = ckpt_put_tensor(&f, order[i], buffer);
    if (s) file_abort(&f);
    else s = file_commit(&f);
out:
    str_free(&header);
    mem_free(buffer);
    mem_free(order);
    return s;
}

size_t ckpt_shard_end(const struct ckpt_item *items, size_t n, size_t first, uint64_t limit)
{
    uint64_t bytes = 0;
    size_t i = first;
    for (; i < n; i++) {
        uint64_t more = tensor_bytes(&items[i].t);
        if (i > first && (more > limit || bytes > limit - more)) break;
        bytes += more;
    }
    return i;
}

static const char *const pytorch[][2] = { { "format", "pt" } }; /* transformers refuses files without it */

/* Where a directory grows: in a temporary one, or in one that a later process finds again. */
struct place_out {
    const char *dir;
    struct work *work; /* NULL: temporary */
    uint64_t *count;
};

/* The first n shards are finished. */
static coe_status record_shards(const struct place_out *p, size_t n)
{
    if (!p->work) return COE_OK;
    return work_record(p->work, &(struct work_done){ .files = n, .count = p->count ? *p->count : 0 });
}

static coe_status write_shard(const struct place_out *p, const char *name, size_t shard, const struct ckpt_item *items,
                              size_t n)
{
    char *path = path_join(p->dir, name);
    if (!path) return COE_E_NOMEM;
    coe_status s = COE_OK;
    if (!p->work || shard > p->work->done.files || !file_exists(path)) {
        s = safetensors_write(path, items, n, pytorch, 1);
        if (!s) s = record_shards(p, shard);
    }
    mem_free(path);
    return s;
}

static coe_status write_index(const char *dir, json_t *map, uint64_t total)
{
    char *path = path_join(dir, "model.safetensors.index.json");
    json_t *index = json_pack("{s:{s:I}, s:O}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    const coe_status s = path && index ? json_write_file(index, path)
                                       : coe_fail(COE_E_NOMEM, "%s: no memory for the index", dir);
    mem_free(path);
    json_decref(index);
    return s;
}

static coe_status write_shards(const struct place_out *p, const struct ckpt_item *items, size_t n, uint64_t limit,
                               size_t n_shards)
{
    json_t *map = json_object();
    uint64_t total = 0;
    coe_status s = COE_OK;
    for (size_t first = 0, shard = 1, end; first < n && !s; first = end, shard++) {
        char name[64];
        snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", shard, n_shards);
        end = ckpt_shard_end(items, n, first, limit);
        s = write_shard(p, name, shard, items + first, end - first);
        for (size_t i = first; i < end && !s; i++) {
            if (json_object_get(map, items[i].t.name))
                s = coe_fail(COE_E_FAILED, "%s: two tensors to be written are called %s", p->dir, items[i].t.name);
            json_object_set_new(map, items[i].t.name, json_string(name));
            total += tensor_bytes(&items[i].t);
        }
    }
    if (!s) s = write_index(p->dir, map, total);
    json_decref(map);
    return s;
}

static coe_status write_weights(const struct place_out *p, const struct ckpt_item *items, size_t n, uint64_t limit)
{
    size_t n_shards = 0;
    for (size_t first = 0; first < n; first = ckpt_shard_end(items, n, first, limit)) n_shards++;
    if (n_shards > 1) return write_shards(p, items, n, limit, n_shards);
    return write_shard(p, "model.safetensors", 1, items, n);
}

static coe_status copy_companions(const char *to, const char *from)
{
    coe_status s = COE_OK;
    for (size_t i = 0; i < COE_COUNT(companions) && !s; i++) {
        char *a = path_join(from, companions[i]), *b = path_join(to, companions[i]);
        if (!a || !b) s = COE_E_NOMEM;
        else if (file_exists(a)) s = file_copy(a, b);
        mem_free(a);
        mem_free(b);
    }
    return s;
}

static coe_status fill_dir(const struct place_out *p, const json_t *config, const struct ckpt_item *items, size_t n,
                           uint64_t shard_bytes, const char *from_dir)
{
    char *path = path_join(p->dir, "config.json");
    coe_status s = path ? json_write_file(config, path) : COE_E_NOMEM;
    mem_free(path);
    if (!s) s = write_weights(p, items, n, shard_bytes ? shard_bytes : SHARD_DEFAULT);
    return !s && from_dir ? copy_companions(p->dir, from_dir) : s;
}

static coe_status resume_dir(const char *dir, const json_t *config, const struct ckpt_item *items, size_t n,
                             uint64_t shard_bytes, const char *from_dir, const struct ckpt_resume *resume)
{
    struct work w;
    COE_TRY(work_begin(&w, dir, resume->key));
    if (resume->count) *resume->count += w.done.count;
    const struct place_out p = { w.dir, &w, resume->count };
    coe_status s = fill_dir(&p, config, items, n, shard_bytes, from_dir);
    if (!s) s = work_commit_dir(&w);
    work_end(&w, s);
    return s;
}

coe_status ckpt_write_dir(const char *dir, const json_t *config, const struct ckpt_item *items, size_t n,
                          uint64_t shard_bytes, const char *from_dir, const struct ckpt_resume *resume)
{
    struct dir_out d;
    if (resume) return resume_dir(dir, config, items, n, shard_bytes, from_dir, resume);
    COE_TRY(dir_begin(&d, dir));
    const struct place_out p = { .dir = d.temp };
    coe_status s = fill_dir(&p, config, items, n, shard_bytes, from_dir);
    if (s) dir_abort(&d);
    else s = dir_commit(&d);
    return s;
}
