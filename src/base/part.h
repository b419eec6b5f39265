/* part.h — the registry: every method, family and verb announces itself at the bottom of its own file.
 *
 *     COE_PART(prune, reap, .summary = "…", .paper = "REAP, 2025", .card = "compress.md", .impl = &reap)
 *
 * The Makefile collects the COE_PART lines of src/ into build/parts.c; there is no list to edit. `impl` points to the
 * struct that the kind's room defines (struct planner, struct family, struct verb, …). `coe methods` prints the rows
 * whose `paper` is set. */
#ifndef COE_PART_H
#define COE_PART_H

#include <stdbool.h>
#include <stddef.h>

/* A setting of a part, given in a spec as {"kind": NAME, "p": 0.4}: one of several words,
 * or a number in [lo, hi] when `choices` is NULL. */
struct part_param {
    const char *name, *help;
    const char *const *choices; /* NULL-terminated, the default first */
    double lo, hi, otherwise;
    bool whole;                 /* no fractions */
};
#define PART_PARAMS 6 /* at most, for one part */

struct part {
    const char *kind, *name;
    const char *summary; /* one line, no full stop */
    const char *paper;   /* title or short name, year; NULL for parts that are not methods (verbs, families) */
    const char *card;    /* the method card: file and section */
    const char *unit;    /* what the method couples: token, segment, block, sequence; NULL: token */
    const char *file;    /* filled in by COE_PART */
    const void *impl;
    const struct part_param *params; /* ends with a NULL name; or NULL */
};

#define COE_PART(kind_, name_, ...)                                                                                    \
    extern const struct part coe_part_##kind_##_##name_;                                                               \
    const struct part coe_part_##kind_##_##name_ = { .kind = #kind_, .name = #name_, .file = __FILE__, __VA_ARGS__ };

/* All parts, sorted by kind and name. */
extern const struct part *const coe_parts[];
extern const size_t coe_n_parts;

/* NULL when there is none. */
const struct part *part_find(const char *kind, const char *name);
/* i-th part of a kind, NULL behind the last. */
const struct part *part_at(const char *kind, size_t i);
/* value [PART_PARAMS] in the order of the table: the defaults. */
void part_defaults(const struct part *p, double *value);

#endif
