/* work.h — inside src/ckpt: a result that grows over several runs of the same command.
 *
 * PATH.part-KEY is a directory that holds the finished files of the result, the one being written, and `progress`: one
 * line of fixed length, overwritten in place, for which even a full disk has room. KEY is a hash of all that the result
 * depends on (struct ckpt_resume), so what lies there is the beginning of this very result. The directory is locked
 * while a process works in it. */
#ifndef COE_CKPT_WORK_H
#define COE_CKPT_WORK_H

#include "ckpt.h"

/* What is finished and on the disk. */
struct work_done {
    uint64_t files;
    uint64_t items, bytes; /* of the file behind them: whole tensors, and its length up to there */
    uint64_t count;        /* the caller's sum over all that (struct ckpt_resume) */
};
struct work {
    char *path, *dir;
    int lock, progress;
    struct work_done done;
};

/* Makes or finds the directory; w->done says what earlier runs finished. Directories of the same PATH with other keys
 * (of commands nobody will repeat) are removed unless a process works there. COE_E_FAILED when one works in ours. */
coe_status work_begin(struct work *w, const char *path, const char *key);
/* The file `name` in the directory; mem_free it. */
char *work_file(const struct work *w, const char *name);
/* `done` becomes w->done and survives the end of the process; its bytes must have been synced. */
coe_status work_record(struct work *w, const struct work_done *done);
/* The directory becomes PATH, which it replaces as a whole. */
coe_status work_commit_dir(struct work *w);
/* The file `name` of the directory becomes `path`. */
coe_status work_commit_file(struct work *w, const char *name, const char *path);
/* After success the directory is removed; after a failure only when nothing in it is finished, otherwise a note says
 * how to go on. */
void work_end(struct work *w, coe_status s);

#endif
