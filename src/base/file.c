/* file.c — see file.h. Targets appear by rename only, after fsync, so a crash leaves the old file or the new one. */
#include "file.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static coe_status io_fail(coe_status s, const char *path)
{
    return coe_fail(s, "%s: %s", *path ? path : "a file with an empty name", strerror(errno));
}

static char *copy_text(const char *a, const char *b, const char *c)
{
    size_t n = strlen(a) + strlen(b) + strlen(c) + 1;
    char *out = mem_alloc("paths", n);
    if (out) snprintf(out, n, "%s%s%s", a, b, c);
    return out;
}

char *path_join(const char *dir, const char *name)
{
    size_t n = strlen(dir);
    return copy_text(dir, n && dir[n - 1] == '/' ? "" : "/", name);
}

char *path_parent(const char *path)
{
    char *dir = copy_text(path, "", "");
    if (!dir) return NULL;
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/') dir[--n] = 0;
    char *slash = strrchr(dir, '/');
    if (!slash) dir[0] = '.', dir[n ? 1 : 0] = 0;
    else slash[slash == dir] = 0;
    return dir;
}

const char *path_base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

coe_status file_map_open(struct file_map *out, const char *path)
{
    coe_status s = COE_OK;
    struct stat st;
    *out = (struct file_map){ 0 };
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st)) {
        s = io_fail(COE_E_INPUT, path);
        goto out;
    }
    if (!S_ISREG(st.st_mode)) {
        s = coe_fail(COE_E_INPUT, "%s: is not a regular file", path);
        goto out;
    }
    if (st.st_size) {
        void *at = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (at == MAP_FAILED) {
            s = coe_fail(COE_E_NOMEM, "%s: cannot map %lld bytes: %s", path, (long long)st.st_size, strerror(errno));
            goto out;
        }
        *out = (struct file_map){ at, (uint64_t)st.st_size };
    }
out:
    if (fd >= 0) close(fd); /* the mapping keeps the file alive */
    return s;
}

void file_map_close(struct file_map *m)
{
    union {
        const unsigned char *c;
        void *v;
    } at = { m->at }; /* munmap wants a pointer to non-const for a mapping that was never writable */
    if (m->at) munmap(at.v, m->bytes);
    *m = (struct file_map){ 0 };
}

void file_ahead(const void *at, uint64_t bytes)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)at / page * page;
    if (bytes) (void)madvise((void *)begin, (uintptr_t)at + bytes - begin, MADV_WILLNEED); /* advice */
}

void file_present(const void *at, uint64_t bytes)
{
#ifdef MADV_POPULATE_READ
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)at / page * page;
    if (bytes) (void)madvise((void *)begin, (uintptr_t)at + bytes - begin, MADV_POPULATE_READ); /* advice */
#else
    (void)at, (void)bytes;
#endif
}

void file_release(const void *at, uint64_t bytes)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t begin = ((uintptr_t)at + page - 1) / page * page, end = ((uintptr_t)at + bytes) / page * page;
    if (begin < end)
        (void)madvise((void *)begin, end - begin, MADV_DONTNEED); /* advice: nothing to do when it is refused */
}

coe_status file_read(struct str *out, const char *path, uint64_t max_bytes)
{
    coe_status s = COE_OK;
    char buffer[1 << 16];
    uint64_t total = 0;
    FILE *f = fopen(path, "rbe");
    if (!f) return io_fail(COE_E_INPUT, path);
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, f)) > 0;) {
        total += n;
        if (total > max_bytes) {
            s = coe_fail(COE_E_INPUT, "%s: larger than the %llu bytes allowed here", path,
                         (unsigned long long)max_bytes);
            goto out;
        }
        str_add(out, buffer, n);
    }
    if (ferror(f)) s = io_fail(COE_E_INPUT, path);
    else s = str_check(out);
out:
    fclose(f);
    return s;
}

static char *temp_name(const char *path)
{
    char suffix[32];
    snprintf(suffix, sizeof suffix, ".part~%ld", (long)getpid());
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    char *out = mem_alloc("paths", n + sizeof suffix);
    if (out) {
        memcpy(out, path, n);
        memcpy(out + n, suffix, strlen(suffix) + 1);
    }
    return out;
}

coe_status file_check_target(const char *path)
{
    struct stat st;
    if (!*path) return coe_fail(COE_E_USAGE, "the name of the file to write is empty");
    if (!stat(path, &st)) {
        if (S_ISREG(st.st_mode)) return COE_OK;
        /* renaming over /dev/null would take the device away from the whole machine */
        return coe_fail(COE_E_FAILED, "%s: %s", path,
                        S_ISDIR(st.st_mode) ? "is a directory, expected the name of a file"
                                            : "is no regular file, and is not replaced by one");
    }
    if (path[strlen(path) - 1] == '/')
        return coe_fail(COE_E_FAILED, "%s: ends like a directory, expected the name of a file", path);
    COE_TRY(dir_check_parent(path));
    char *dir = path_parent(path);
    if (!dir) return COE_E_NOMEM;
    coe_status s = !access(dir, W_OK) ? COE_OK : io_fail(COE_E_FAILED, path);
    mem_free(dir);
    return s;
}

/* `name`: only what was to become this; NULL: anything. */
static void sweep(const char *dir, const char *name)
{
    struct file_list list;
    const size_t n = name ? strlen(name) : 0;
    if (dir_list(&list, dir)) return;
    for (size_t i = 0; i < list.n; i++) {
        const char *mark = strstr(list.name[i], ".part~");
        const long pid = mark ? strtol(mark + 6, NULL, 10) : 0;
        if (name && (mark != list.name[i] + n || memcmp(list.name[i], name, n))) continue;
        char *path = pid > 0 && kill((pid_t)pid, 0) && errno == ESRCH ? path_join(dir, list.name[i]) : NULL;
        if (path && unlink(path)) (void)dir_remove(path);
        mem_free(path);
    }
    file_list_free(&list);
}

void file_sweep(const char *dir) { sweep(dir, NULL); }

void file_sweep_for(const char *path)
{
    char *dir = path_parent(path), *name = copy_text(path, "", "");
    size_t n = name ? strlen(name) : 0;
    while (n > 1 && name[n - 1] == '/') name[--n] = 0;
    if (dir && n) sweep(dir, path_base(name));
    mem_free(dir);
    mem_free(name);
}

char *file_behind(const char *path)
{
    struct stat st;
    char *real = !lstat(path, &st) && S_ISLNK(st.st_mode) ? realpath(path, NULL) : NULL; /* NULL: leads nowhere */
    char *out = copy_text(real ? real : path, "", "");
    free(real); /* realpath's own */
    return out;
}

coe_status file_begin(struct file_out *f, const char *path)
{
    *f = (struct file_out){ 0 };
    COE_TRY(file_check_target(path));
    f->path = file_behind(path);
    f->temp = f->path ? temp_name(f->path) : NULL;
    if (!f->path || !f->temp) {
        file_abort(f);
        return COE_E_NOMEM;
    }
    file_sweep_for(f->path);
    f->stream = fopen(f->temp, "wbe");
    if (!f->stream) {
        coe_status s = io_fail(COE_E_FAILED, path);
        file_abort(f);
        return s;
    }
    return COE_OK;
}

coe_status file_put(struct file_out *f, const void *bytes, size_t n)
{
    if (n && fwrite(bytes, 1, n, f->stream) != n) return io_fail(COE_E_FAILED, f->path);
    f->bytes += n;
    return COE_OK;
}

static void sync_parent(const char *path)
{
    char *dir = path_parent(path);
    int fd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    mem_free(dir);
}

coe_status file_commit(struct file_out *f)
{
    coe_status s = COE_OK;
    if (fflush(f->stream) || fsync(fileno(f->stream))) s = io_fail(COE_E_FAILED, f->path);
    if (fclose(f->stream) && !s) s = io_fail(COE_E_FAILED, f->path);
    f->stream = NULL;
    if (!s && rename(f->temp, f->path)) s = io_fail(COE_E_FAILED, f->path);
    if (!s) {
        sync_parent(f->path);
        mem_free(f->temp);
        f->temp = NULL;
    }
    file_abort(f);
    return s;
}

void file_abort(struct file_out *f)
{
    if (f->stream) fclose(f->stream);
    if (f->temp) unlink(f->temp);
    mem_free(f->temp);
    mem_free(f->path);
    *f = (struct file_out){ 0 };
}

coe_status file_write(const char *path, const void *bytes, size_t n)
{
    struct file_out f;
    COE_TRY(file_begin(&f, path));
    coe_status s = file_put(&f, bytes, n);
    if (s) {
        file_abort(&f);
        return s;
    }
    return file_commit(&f);
}

bool file_exists(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISREG(st.st_mode);
}

bool dir_exists(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISDIR(st.st_mode);
}

coe_status dir_make(const char *path)
{
    char *p = copy_text(path, "", "");
    if (!p) return COE_E_NOMEM;
    coe_status s = COE_OK;
    for (char *c = p + 1;; c++)
        if (*c == '/' || !*c) {
            char keep = *c;
            *c = 0;
            if (mkdir(p, 0777) && errno != EEXIST) {
                s = io_fail(COE_E_FAILED, p);
                break;
            }
            if (!keep) break;
            *c = keep;
        }
    if (!s && !dir_exists(path)) s = coe_fail(COE_E_FAILED, "%s: is not a directory", path);
    mem_free(p);
    return s;
}

coe_status dir_check_parent(const char *path)
{
    coe_status s = COE_OK;
    char *dir = path_parent(path);
    if (!dir) return COE_E_NOMEM;
    if (!dir_exists(dir))
        s = coe_fail(COE_E_FAILED,
                     file_exists(dir) ? "%s: %s is not a directory" : "%s: there is no directory %s; mkdir -p makes it",
                     path, dir);
    mem_free(dir);
    return s;
}

static int compare_names(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

coe_status dir_list(struct file_list *out, const char *path)
{
    *out = (struct file_list){ 0 };
    DIR *d = opendir(path);
    if (!d) return io_fail(COE_E_INPUT, path);
    coe_status s = COE_OK;
    for (struct dirent *e; (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        char *name = copy_text(e->d_name, "", "");
        if (!name || !(out->n < out->cap || vec_grow((void **)&out->name, &out->cap, out->n + 1, sizeof *out->name))) {
            mem_free(name);
            s = COE_E_NOMEM;
            break;
        }
        out->name[out->n++] = name;
    }
    closedir(d);
    if (s) file_list_free(out);
    else if (out->n) qsort(out->name, out->n, sizeof *out->name, compare_names);
    return s;
}

void file_list_free(struct file_list *l)
{
    for (size_t i = 0; i < l->n; i++) mem_free(l->name[i]);
    mem_free(l->name);
    *l = (struct file_list){ 0 };
}

coe_status dir_remove(const char *path)
{
    struct file_list names;
    coe_status s = dir_list(&names, path);
    if (s) return s;
    for (size_t i = 0; i < names.n && !s; i++) {
        char *p = path_join(path, names.name[i]);
        struct stat st;
        if (!p) s = COE_E_NOMEM;
        else if (!lstat(p, &st) && S_ISDIR(st.st_mode)) s = dir_remove(p);
        else if (unlink(p)) s = io_fail(COE_E_FAILED, p);
        mem_free(p);
    }
    file_list_free(&names);
    if (!s && rmdir(path)) s = io_fail(COE_E_FAILED, path);
    return s;
}

coe_status dir_begin(struct dir_out *d, const char *path)
{
    *d = (struct dir_out){ copy_text(path, "", ""), temp_name(path) };
    if (!d->path || !d->temp) {
        dir_abort(d);
        return COE_E_NOMEM;
    }
    if (dir_exists(d->temp)) (void)dir_remove(d->temp);
    file_sweep_for(d->path);
    coe_status s = dir_check_parent(path);
    if (!s) s = dir_make(d->temp);
    if (s) dir_abort(d);
    return s;
}

static coe_status swap_by_two_renames(struct dir_out *d)
{
    coe_status s = COE_OK;
    char *old = copy_text(d->temp, ".old", "");
    if (!old) return COE_E_NOMEM;
    if (rename(d->path, old)) s = io_fail(COE_E_FAILED, d->path);
    else if (rename(d->temp, d->path)) {
        s = io_fail(COE_E_FAILED, d->path);
        if (rename(old, d->path)) s = io_fail(COE_E_FAILED, old);
    } else (void)dir_remove(old); /* the new directory is in place; a leftover is litter, not loss */
    mem_free(old);
    return s;
}

coe_status dir_commit(struct dir_out *d)
{
    coe_status s = COE_OK;
    bool had = dir_exists(d->path);
    /* An exchange has no moment without a directory; where the file system lacks it there is a short one. */
    if (!had) s = rename(d->temp, d->path) ? io_fail(COE_E_FAILED, d->path) : COE_OK;
    else if (renameat2(AT_FDCWD, d->temp, AT_FDCWD, d->path, RENAME_EXCHANGE)) s = swap_by_two_renames(d);
    if (!s) sync_parent(d->path);
    dir_abort(d); /* what lies under the temporary name: the old directory, or after a failure the incomplete one */
    return s;
}

void dir_abort(struct dir_out *d)
{
    if (d->temp && dir_exists(d->temp)) (void)dir_remove(d->temp);
    mem_free(d->temp);
    mem_free(d->path);
    *d = (struct dir_out){ 0 };
}

coe_status dir_lock(int *lock, const char *path)
{
    *lock = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*lock < 0) return io_fail(COE_E_FAILED, path);
    if (!flock(*lock, LOCK_EX | LOCK_NB) || errno != EWOULDBLOCK) return COE_OK; /* some file systems have no locks */
    close(*lock);
    *lock = -1;
    return coe_fail(COE_E_FAILED, "%s: another process is writing there", path);
}

void dir_unlock(int lock)
{
    if (lock >= 0) close(lock);
}

coe_status file_move(const char *from, const char *to)
{
    if (rename(from, to)) return io_fail(COE_E_FAILED, to);
    sync_parent(to);
    return COE_OK;
}

coe_status file_copy(const char *from, const char *to)
{
    struct file_map m;
    COE_TRY(file_map_open(&m, from));
    coe_status s = file_write(to, m.at, (size_t)m.bytes);
    file_map_close(&m);
    return s;
}
