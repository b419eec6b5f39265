/* mem.h — counted memory, growable arrays and arenas. malloc, free and mmap for data appear in src/base only.
 *
 * Every allocation carries a tag (a string literal naming its use) and counts towards the budget of `--memory`;
 * exceeding it fails with COE_E_NOMEM and a message, never with a crash.
 *
 * An arena holds everything with the life of one request, step or plan:
 *     struct arena a = {0};                       grows by chunks, or arena_reserve() sizes it once
 *     float *x = arena_push(&a, n * sizeof *x);   64-byte aligned, NOT zeroed; NULL with the message set when out of
 *     memory
 *     struct arena_mark m = arena_save(&a); … arena_rewind(&a, m);
 *     arena_free(&a); */
#ifndef COE_MEM_H
#define COE_MEM_H

#include "base.h"

/* Zero or the limit in bytes of all counted memory. */
void mem_set_budget(uint64_t bytes);
uint64_t mem_budget(void);
uint64_t mem_used(void);
uint64_t mem_peak(void);
void mem_reset_peak(void);

/* 64-byte aligned; blocks of 4 MB and more sit in anonymous 2 MB pages where the kernel gives them. NULL with the
 * message set on failure. mem_free(NULL) is a no-op. Contents undefined (mem_alloc) or zero (mem_zalloc). */
void *mem_alloc(const char *tag, size_t bytes);
void *mem_zalloc(const char *tag, size_t bytes);
/* Old contents kept up to the smaller size; ptr may be NULL. On failure NULL, ptr still valid. */
void *mem_resize(const char *tag, void *ptr, size_t bytes);
void mem_free(void *ptr);

/* Allocation guard: while set, any mem_alloc of this process counts; tests assert zero in the decode loop. */
void mem_guard(bool on);
uint64_t mem_guard_hits(void);

/* Calls fn(tag, bytes now, user) for each tag in use. */
void mem_ledger(void (*fn)(void *user, const char *tag, uint64_t bytes), void *user);

struct arena_chunk;
struct arena {
    struct arena_chunk *first, *current;
    size_t used; /* bytes of `current` */
};
struct arena_mark {
    struct arena_chunk *chunk;
    size_t used;
};

coe_status arena_reserve(struct arena *a, size_t bytes);
void *arena_push(struct arena *a, size_t bytes);
void *arena_push_zero(struct arena *a, size_t bytes);
char *arena_strdup(struct arena *a, const char *s);
struct arena_mark arena_save(struct arena *a);
void arena_rewind(struct arena *a, struct arena_mark m);
void arena_free(struct arena *a);

/* Growable array: struct { T *at; size_t n, cap; } v = {0};  VEC_PUSH(&v, x) is false (message set) when out of
 * memory. */
#define VEC(T)                                                                                                         \
    struct {                                                                                                           \
        T *at;                                                                                                         \
        size_t n, cap;                                                                                                 \
    }
bool vec_grow(void **at, size_t *cap, size_t need, size_t item_bytes);
#define VEC_RESERVE(v, need) ((need) <= (v)->cap || vec_grow((void **)&(v)->at, &(v)->cap, (need), sizeof *(v)->at))
#define VEC_PUSH(v, x) (VEC_RESERVE(v, (v)->n + 1) && ((v)->at[(v)->n++] = (x), true))
#define VEC_FREE(v) (mem_free((v)->at), (v)->at = NULL, (v)->n = (v)->cap = 0)

#endif
