/* golden.h — golden tests walk the folders of one kind of fixtures; each folder is one test and one line
 *
 *     families/mixtral: passed        (or failed, skipped, without a test)
 *
 * Shapes and parameters come from the files: the same programs run on folders they have never seen. */
#ifndef COE_TESTS_GOLDEN_H
#define COE_TESTS_GOLDEN_H

#include "support/arrays.h"

struct golden_folder {
    char label[160]; /* "families/mixtral" */
    char path[1024];
    const char *name; /* "mixtral" */
    void *user;       /* what the chooser left */
    bool decided;     /* the verdict is printed */
};
typedef void golden_fn(const struct golden_folder *f);

/* The function that tests a folder, NULL when this program leaves it to others; golden_without lists it as without a
 * test. */
typedef golden_fn *golden_chooser(struct golden_folder *f);
void golden_without(const struct golden_folder *f);

/* Runs the group over COE_FIXTURES/kind; prints "kind: skipped" when there is no such folder. Returns main's status. */
int golden_run(const char *group, const char *kind, golden_chooser *choose);

/* A JSON file of the folder, freed behind the test. */
const json_t *golden_json(const struct golden_folder *f, const char *file);
/* The same for choosers, where nothing may fail: NULL when it cannot be read. */
const json_t *golden_peek(const struct golden_folder *f, const char *file);
const char *golden_path(const struct golden_folder *f, const char *format, ...) COE_PRINTF(2, 3);
struct ckpt *golden_ckpt(const struct golden_folder *f, const char *file);

#endif
