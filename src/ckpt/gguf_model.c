/* gguf_model.c — a model as one GGUF file or several, written so that a later process can go on (work.h).
 *
 * Several files are named as llama.cpp's gguf-split names them and say so in split.no, split.count and
 * split.tensors.count; all other metadata are in the first. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gguf.h"
#include "reader.h"
#include "work.h"

#define STEP ((uint64_t)16 << 20)
#define MAX_FILES 65535 /* the numbers are u16 in the files */

struct model_out {
    const char *path;
    const struct gguf_out *metadata;
    const struct ckpt_item *item;
    size_t n, n_files;
    uint64_t limit, step;
    struct work *work;
    uint64_t *count;
    void *buffer;
};

static size_t file_end(const struct model_out *m, size_t first)
{
    return m->limit ? ckpt_shard_end(m->item, m->n, first, m->limit) : m->n;
}

static coe_status count_files(struct model_out *m)
{
    m->n_files = 0;
    for (size_t first = 0; first < m->n; first = file_end(m, first)) m->n_files++;
    m->n_files = COE_MAX(m->n_files, 1);
    if (m->n_files <= MAX_FILES) return COE_OK;
    return coe_fail(COE_E_USAGE, "%s: %zu files; a larger --shard-size makes at most %d", m->path, m->n_files,
                    MAX_FILES);
}

char *gguf_file_name(const char *path, size_t i, size_t n)
{
    size_t stem = strlen(path);
    const size_t cap = stem + 64;
    if (stem > 5 && !strcmp(path + stem - 5, ".gguf")) stem -= 5;
    char *out = mem_alloc("paths", cap);
    if (out && n == 1) snprintf(out, cap, "%s", path);
    else if (out) snprintf(out, cap, "%.*s-%05zu-of-%05zu.gguf", (int)stem, path, i + 1, n);
    return out;
}

/* Header of file i, whose tensors begin at item `first`. */
static coe_status header_of(struct str *out, const struct model_out *m, size_t i, size_t first)
{
    struct gguf_out meta = { 0 };
    if (!i) {
        str_add(&meta.text, m->metadata->text.at, m->metadata->text.n);
        meta.text.oom |= m->metadata->text.oom;
        meta.n = m->metadata->n;
    }
    if (m->n_files > 1) {
        gguf_add_u16(&meta, "split.no", (uint16_t)i);
        gguf_add_u16(&meta, "split.count", (uint16_t)m->n_files);
        gguf_add_i32(&meta, "split.tensors.count", (int32_t)m->n);
    }
    const coe_status s = gguf_header(out, &meta, m->item + first, file_end(m, first) - first, m->path);
    gguf_out_free(&meta);
    return s;
}

coe_status gguf_model_size(uint64_t *bytes, size_t *n_files, const char *path, const struct gguf_out *metadata,
                           const struct ckpt_item *items, size_t n, uint64_t shard_bytes)
{
    struct model_out m = { .path = path, .metadata = metadata, .item = items, .n = n, .limit = shard_bytes };
    COE_TRY(count_files(&m));
    *bytes = 0;
    *n_files = m.n_files;
    for (size_t i = 0, first = 0; i < m.n_files; first = file_end(&m, first), i++) {
        struct str header = { 0 };
        const coe_status s = header_of(&header, &m, i, first);
        *bytes += header.n;
        str_free(&header);
        if (s) return s;
    }
    for (size_t i = 0; i < n; i++) *bytes += tensor_bytes(&items[i].t) + gguf_padding(tensor_bytes(&items[i].t));
    return COE_OK;
}

/* Puts the file where the last record of it ends; at its beginning when there is none. */
static coe_status go_to_record(const struct model_out *m, FILE *f, const struct str *header, struct work_done *at)
{
    struct stat st;
    const int fd = fileno(f);
    const bool there = at->items && !fstat(fd, &st) && (uint64_t)st.st_size >= at->bytes;
    if (!there) at->items = at->bytes = 0;
    if (ftruncate(fd, (off_t)at->bytes) || fseeko(f, (off_t)at->bytes, SEEK_SET) ||
        (!there && fwrite(header->at, 1, header->n, f) != header->n))
        return coe_fail(COE_E_FAILED, "%s: %s", m->path, strerror(errno));
    if (!there) at->bytes = header->n;
    return COE_OK;
}

static coe_status record(const struct model_out *m, FILE *f, const struct work_done *at)
{
    if (fdatasync(fileno(f))) return coe_fail(COE_E_FAILED, "%s: %s", m->path, strerror(errno));
    return work_record(m->work, at);
}

/* After a failure: what ends with a whole tensor stays. The message is the failure's. */
static void keep_whole(const struct model_out *m, FILE *f, const struct work_done *at)
{
    if (at->items && !ftruncate(fileno(f), (off_t)at->bytes) && !fdatasync(fileno(f))) (void)work_record(m->work, at);
}

static coe_status put_tensors(const struct model_out *m, FILE *f, size_t first, size_t n, struct work_done *at)
{
    struct file_out out = { .path = (char *)(uintptr_t)m->path, .stream = f, .bytes = at->bytes }; /* only read */
    uint64_t recorded = at->bytes;
    for (size_t i = at->items; i < n; i++) {
        const coe_status s = gguf_put_tensor(&out, &m->item[first + i], m->buffer);
        if (s) {
            keep_whole(m, f, at);
            return s;
        }
        at->items = i + 1, at->bytes = out.bytes, at->count = m->count ? *m->count : 0;
        if (at->bytes - recorded < m->step) continue;
        COE_TRY(record(m, f, at));
        recorded = at->bytes;
    }
    return COE_OK;
}

static coe_status write_file(const struct model_out *m, size_t i, size_t first)
{
    char name[32];
    struct str header = { 0 };
    struct work_done at = m->work->done;
    snprintf(name, sizeof name, "%05zu", i + 1);
    char *path = work_file(m->work, name);
    int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666) : -1;
    FILE *f = fd >= 0 ? fdopen(fd, "r+b") : NULL;
    coe_status s = f ? header_of(&header, m, i, first) : coe_fail(COE_E_FAILED, "%s: %s", m->path, strerror(errno));
    if (s) goto out;
    (void)setvbuf(f, NULL, _IONBF, 0); /* what was put is in the file, not half of it here when the disk is full */
    s = go_to_record(m, f, &header, &at);
    if (!s) s = put_tensors(m, f, first, file_end(m, first) - first, &at);
    if (!s) s = record(m, f, &(struct work_done){ .files = i + 1, .count = at.count });
out:
    if (f && fclose(f) && !s) s = coe_fail(COE_E_FAILED, "%s: %s", m->path, strerror(errno));
    if (!f && fd >= 0) close(fd);
    str_free(&header);
    mem_free(path);
    return s;
}

/* The first file, which is the one to be opened, comes last. */
static coe_status move_files(const struct model_out *m)
{
    coe_status s = COE_OK;
    for (size_t i = m->n_files; i-- > 0 && !s;) {
        char name[32], *path = gguf_file_name(m->path, i, m->n_files);
        snprintf(name, sizeof name, "%05zu", i + 1);
        s = path ? work_commit_file(m->work, name, path) : COE_E_NOMEM;
        mem_free(path);
    }
    return s;
}

static coe_status check_targets(const struct model_out *m)
{
    coe_status s = COE_OK;
    for (size_t i = 0; i < m->n_files && !s; i++) {
        char *path = gguf_file_name(m->path, i, m->n_files);
        s = path ? file_check_target(path) : COE_E_NOMEM;
        mem_free(path);
    }
    return s;
}

coe_status gguf_write_model(const char *path, const struct gguf_out *metadata, const struct ckpt_item *items, size_t n,
                            uint64_t shard_bytes, const struct ckpt_resume *resume)
{
    struct work w;
    struct model_out m = { .path = path,
                           .metadata = metadata,
                           .item = items,
                           .n = n,
                           .limit = shard_bytes,
                           .step = resume->step ? resume->step : STEP,
                           .work = &w,
                           .count = resume->count };
    char name[32], *behind = file_behind(path);
    if (!behind) return COE_E_NOMEM;
    coe_status s = count_files(&m);
    if (m.n_files == 1) m.path = behind;
    if (!s) s = check_targets(&m);
    if (!s) s = work_begin(&w, m.path, resume->key);
    if (s) goto out;
    s = (m.buffer = mem_alloc("writing", CKPT_BUFFER)) ? COE_OK : COE_E_NOMEM;
    if (m.count) *m.count += w.done.count;
    for (size_t i = 0, first = 0; i < m.n_files && !s; first = file_end(&m, first), i++) {
        snprintf(name, sizeof name, "%05zu", i + 1);
        if (i >= w.done.files) s = write_file(&m, i, first);
    }
    if (!s) s = move_files(&m);
    work_end(&w, s);
    mem_free(m.buffer);
out:
    mem_free(behind);
    return s;
}
