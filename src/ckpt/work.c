/* work.c — see work.h. */
#include "work.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/log.h"

#define MARK ".part-"
#define PROGRESS "progress"
#define LINE "files %20" PRIu64 " items %20" PRIu64 " bytes %20" PRIu64 " count %20" PRIu64

static char *with_suffix(const char *path, const char *suffix, const char *key)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    const size_t cap = n + strlen(suffix) + strlen(key) + 1;
    char *out = mem_alloc("paths", cap);
    if (out) snprintf(out, cap, "%.*s%s%s", (int)n, path, suffix, key);
    return out;
}

char *work_file(const struct work *w, const char *name) { return path_join(w->dir, name); }

/* What others began under the same name, unless they still work there. */
static void remove_others(const struct work *w)
{
    struct file_list list;
    const char *own = path_base(w->dir);
    const size_t n = (size_t)(strstr(own, MARK) - own) + strlen(MARK);
    char *parent = path_parent(w->dir);
    if (!parent || dir_list(&list, parent)) {
        mem_free(parent);
        return;
    }
    for (size_t i = 0; i < list.n; i++) {
        int lock;
        if (strncmp(list.name[i], own, n) || !strcmp(list.name[i], own)) continue;
        char *path = path_join(parent, list.name[i]);
        if (path && dir_exists(path) && !dir_lock(&lock, path)) {
            (void)dir_remove(path);
            dir_unlock(lock);
        }
        mem_free(path);
    }
    file_list_free(&list);
    mem_free(parent);
}

static uint64_t check_of(const struct work_done *d) { return XXH3_64bits(d, sizeof *d); }

static void read_progress(struct work *w)
{
    char text[256];
    struct work_done d = { 0 };
    uint64_t check = 0;
    const ssize_t n = pread(w->progress, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = 0;
    if (sscanf(text, "files %" SCNu64 " items %" SCNu64 " bytes %" SCNu64 " count %" SCNu64 " check %" SCNx64, &d.files,
               &d.items, &d.bytes, &d.count, &check) == 5 &&
        check == check_of(&d))
        w->done = d;
}

coe_status work_record(struct work *w, const struct work_done *done)
{
    char text[256];
    const int n = snprintf(text, sizeof text, LINE " check %016" PRIx64 "\n", done->files, done->items, done->bytes,
                           done->count, check_of(done));
    if (pwrite(w->progress, text, (size_t)n, 0) != n || fdatasync(w->progress))
        return coe_fail(COE_E_FAILED, "%s/" PROGRESS ": %s", w->dir, strerror(errno));
    w->done = *done;
    return COE_OK;
}

/* A directory without a record is what an exchange left (dir_commit), or one begun a moment ago. */
static coe_status make_empty(const struct work *w)
{
    struct file_list list;
    coe_status s = dir_list(&list, w->dir);
    if (s) return s;
    for (size_t i = 0; i < list.n; i++) {
        char *path = strcmp(list.name[i], PROGRESS) ? path_join(w->dir, list.name[i]) : NULL;
        if (path && unlink(path)) s = dir_remove(path);
        mem_free(path);
    }
    file_list_free(&list);
    return s;
}

coe_status work_begin(struct work *w, const char *path, const char *key)
{
    *w = (struct work){
        .path = with_suffix(path, "", ""), .dir = with_suffix(path, MARK, key), .lock = -1, .progress = -1
    };
    coe_status s = w->path && w->dir ? COE_OK : COE_E_NOMEM;
    char *progress = s ? NULL : work_file(w, PROGRESS);
    const struct work_done nothing = { 0 };
    if (!s && !progress) s = COE_E_NOMEM;
    if (!s) s = dir_check_parent(path);
    if (!s) s = dir_make(w->dir);
    if (!s) s = dir_lock(&w->lock, w->dir);
    if (s) goto out;
    remove_others(w);
    file_sweep_for(w->path);
    w->progress = open(progress, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (w->progress < 0) {
        s = coe_fail(COE_E_FAILED, "%s: %s", progress, strerror(errno));
        goto out;
    }
    read_progress(w);
    if (!w->done.files && !w->done.items) s = make_empty(w);
    if (!s && !w->done.files && !w->done.items) s = work_record(w, &nothing); /* takes its block of the disk now */
    if (!s && (w->done.files || w->done.items)) log_note("%s: going on with what %s holds", path, w->dir);
out:
    mem_free(progress);
    if (s) work_end(w, s);
    return s;
}

coe_status work_commit_dir(struct work *w)
{
    struct dir_out d = { w->path, w->dir };
    char *progress = work_file(w, PROGRESS);
    if (!progress) return COE_E_NOMEM;
    (void)unlink(progress);
    mem_free(progress);
    w->path = w->dir = NULL; /* released by dir_commit */
    return dir_commit(&d);
}

coe_status work_commit_file(struct work *w, const char *name, const char *path)
{
    coe_status s = COE_OK;
    char *from = work_file(w, name);
    if (!from) return COE_E_NOMEM;
    if (file_exists(from) || !file_exists(path)) s = file_move(from, path); /* else moved by a run that was killed */
    mem_free(from);
    return s;
}

void work_end(struct work *w, coe_status s)
{
    const bool keep = s && w->dir && (w->done.files || w->done.items);
    if (w->progress >= 0) close(w->progress);
    if (keep) log_note("%s holds what is finished; the same command goes on from there", w->dir);
    else if (w->dir && w->lock >= 0) (void)dir_remove(w->dir);
    dir_unlock(w->lock);
    mem_free(w->path);
    mem_free(w->dir);
    *w = (struct work){ .lock = -1, .progress = -1 };
}
