/* file.h — mapped files, whole-file reads, and writes that are never half done. */
#ifndef COE_FILE_H
#define COE_FILE_H

#include <stdio.h>

#include "str.h"

struct file_map {
    const unsigned char *at; /* NULL for an empty file */
    uint64_t bytes;
};

/* Read-only mapping. COE_E_INPUT with path and reason. */
coe_status file_map_open(struct file_map *out, const char *path);
void file_map_close(struct file_map *m);
/* Asks the kernel to begin reading these bytes of a mapping, without waiting for them. */
void file_ahead(const void *at, uint64_t bytes);
/* Waits until these bytes of a mapping are in memory and can be reached without faults; where the system has no call
 * for it, they come one by one as they are touched. */
void file_present(const void *at, uint64_t bytes);
/* Tells the kernel that these bytes of a mapping are not needed soon; pages shared with neighbours stay. */
void file_release(const void *at, uint64_t bytes);

/* Appends the whole file to out; refuses more than max_bytes. */
coe_status file_read(struct str *out, const char *path, uint64_t max_bytes);

/* Whether a file can be written under this name, asked before long work: its directory is there, and what has the name
 * already is a regular file. COE_E_FAILED, or COE_E_USAGE for an empty name. */
coe_status file_check_target(const char *path);
/* What a link leads to, which is what gets replaced, else the path itself; mem_free it. */
char *file_behind(const char *path);

/* A file written beside its target: file_begin opens PATH.part~PID and removes those of killed writers, file_commit
 * syncs and renames it, file_abort removes it.
 *     struct file_out f; COE_TRY(file_begin(&f, path)); s = file_put(&f, p, n); … s ? file_abort(&f) : (s =
 *     file_commit(&f)); */
struct file_out {
    char *path, *temp;
    FILE *stream;
    uint64_t bytes;
};
coe_status file_begin(struct file_out *f, const char *path);
coe_status file_put(struct file_out *f, const void *bytes, size_t n);
coe_status file_commit(struct file_out *f);
void file_abort(struct file_out *f);
/* The three in one. */
coe_status file_write(const char *path, const void *bytes, size_t n);

/* A directory filled beside its target and renamed over it: dir_begin makes PATH.part~PID (the directory above must be
 * there: dir_check_parent), dir_commit swaps it in (an older PATH is replaced as a whole), dir_abort removes it. */
struct dir_out {
    char *path, *temp;
};
coe_status dir_begin(struct dir_out *d, const char *path);
coe_status dir_commit(struct dir_out *d);
void dir_abort(struct dir_out *d);

/* Takes the directory for this process alone until dir_unlock (or the process's end); nothing is written for it.
 * COE_E_FAILED when another process has it. */
coe_status dir_lock(int *lock, const char *path);
void dir_unlock(int lock);

bool file_exists(const char *path);
bool dir_exists(const char *path);
coe_status dir_make(const char *path); /* with parents */
/* COE_E_FAILED when the directory that would hold `path` is not there: results are not written below a mistyped name,
 * so nobody makes it silently. */
coe_status dir_check_parent(const char *path);
coe_status dir_remove(const char *path);
coe_status file_copy(const char *from, const char *to);
/* Another name in the same file system, for good: the directory is synced too. */
coe_status file_move(const char *from, const char *to);
/* Sorted names in a directory, without . and ..; free with file_list_free. */
struct file_list {
    char **name;
    size_t n, cap;
};
coe_status dir_list(struct file_list *out, const char *path);
void file_list_free(struct file_list *l);

/* Removes from `dir` what writers that were killed left there: NAME.part~PID of processes that this machine has no
 * longer. */
void file_sweep(const char *dir);
/* The same for what was to become `path` only. */
void file_sweep_for(const char *path);

/* dir + "/" + name, mem_free it. */
char *path_join(const char *dir, const char *name);
/* The directory that holds it, "." for a bare name; mem_free it. */
char *path_parent(const char *path);
const char *path_base(const char *path);

#endif
