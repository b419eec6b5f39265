/* mem.c — counted allocation with a header in front of each block, and arenas made of such blocks. */
#include "mem.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define ALIGN 64u
#define HUGE_FROM ((size_t)4 << 20)
#define MAX_TAGS 64

struct header { /* exactly one alignment unit in front of the user's bytes */
    size_t bytes;
    int tag;
    int mapped;
    size_t map_bytes;
};

static struct {
    const char *name;
    atomic_ullong bytes;
} ledger[MAX_TAGS];
static atomic_int n_tags;
static atomic_ullong used, peak, budget, guard_hits;
static atomic_int guard_on;

void mem_set_budget(uint64_t bytes) { atomic_store(&budget, bytes); }
uint64_t mem_budget(void) { return atomic_load(&budget); }
uint64_t mem_used(void) { return atomic_load(&used); }
uint64_t mem_peak(void) { return atomic_load(&peak); }
void mem_reset_peak(void) { atomic_store(&peak, atomic_load(&used)); }
void mem_guard(bool on)
{
    atomic_store(&guard_on, on);
    if (on) atomic_store(&guard_hits, 0);
}
uint64_t mem_guard_hits(void) { return atomic_load(&guard_hits); }

static int tag_index(const char *tag)
{
    int n = atomic_load(&n_tags);
    for (int i = 0; i < n; i++)
        if (ledger[i].name == tag || !strcmp(ledger[i].name, tag)) return i;
    int result = MAX_TAGS - 1;
#pragma omp critical(coe_mem_tags)
    {
        n = atomic_load(&n_tags);
        int i = 0;
        while (i < n && strcmp(ledger[i].name, tag)) i++;
        if (i == n && n < MAX_TAGS) {
            ledger[n].name = tag;
            atomic_store(&n_tags, n + 1);
        }
        if (i < MAX_TAGS) result = i;
    }
    return result;
}

void mem_ledger(void (*fn)(void *user, const char *tag, uint64_t bytes), void *user)
{
    int n = atomic_load(&n_tags);
    for (int i = 0; i < n; i++) fn(user, ledger[i].name, atomic_load(&ledger[i].bytes));
}

static bool count_in(const char *tag, size_t bytes)
{
    uint64_t limit = atomic_load(&budget), now = atomic_fetch_add(&used, bytes) + bytes;
    if (limit && now > limit) {
        atomic_fetch_sub(&used, bytes);
        coe_fail(COE_E_NOMEM, "out of memory budget: %s needs %.1f MB, %.1f of %.1f MB are in use; raise --memory", tag,
                 (double)bytes / 1e6, (double)(now - bytes) / 1e6, (double)limit / 1e6);
        return false;
    }
    unsigned long long top = atomic_load(&peak);
    while (now > top && !atomic_compare_exchange_weak(&peak, &top, now)) {}
    return true;
}

static void *take(const char *tag, size_t bytes, bool zero)
{
    if (atomic_load(&guard_on)) atomic_fetch_add(&guard_hits, 1);
    size_t total;
    if (!coe_add_size(&total, bytes, ALIGN) || total > SIZE_MAX / 2) {
        coe_fail(COE_E_NOMEM, "%s: %zu bytes is more than any machine has", tag, bytes);
        return NULL;
    }
    if (!count_in(tag, bytes)) return NULL;
    char *raw = NULL;
    size_t map_bytes = 0;
    if (total >= HUGE_FROM) {
        const size_t page = (size_t)2 << 20;
        map_bytes = (total + page - 1) / page * page;
        raw = mmap(NULL, map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (raw == MAP_FAILED) raw = NULL;
        else madvise(raw, map_bytes, MADV_HUGEPAGE);
    } else {
        raw = aligned_alloc(ALIGN, (total + ALIGN - 1) / ALIGN * ALIGN);
        if (raw && zero) memset(raw, 0, total);
    }
    if (!raw) {
        atomic_fetch_sub(&used, bytes);
        coe_fail(COE_E_NOMEM, "%s: the machine has no %.1f MB left", tag, (double)bytes / 1e6);
        return NULL;
    }
    struct header *h = (struct header *)raw;
    h->bytes = bytes;
    h->tag = tag_index(tag);
    h->mapped = map_bytes != 0;
    h->map_bytes = map_bytes;
    atomic_fetch_add(&ledger[h->tag].bytes, bytes);
    return raw + ALIGN;
}

static struct header *header_of(void *ptr) { return (struct header *)((char *)ptr - ALIGN); }

void *mem_alloc(const char *tag, size_t bytes) { return take(tag, bytes, false); }
void *mem_zalloc(const char *tag, size_t bytes) { return take(tag, bytes, true); }

void mem_free(void *ptr)
{
    if (!ptr) return;
    struct header *h = header_of(ptr);
    atomic_fetch_sub(&used, h->bytes);
    atomic_fetch_sub(&ledger[h->tag].bytes, h->bytes);
    if (h->mapped) munmap(h, h->map_bytes);
    else free(h);
}

void *mem_resize(const char *tag, void *ptr, size_t bytes)
{
    void *bigger = mem_alloc(tag, bytes);
    if (!bigger) return NULL;
    if (ptr) {
        size_t old = header_of(ptr)->bytes;
        memcpy(bigger, ptr, old < bytes ? old : bytes);
        mem_free(ptr);
    }
    return bigger;
}

bool vec_grow(void **at, size_t *cap, size_t need, size_t item_bytes)
{
    size_t n = *cap ? *cap * 2 : 8, bytes;
    if (n < need) n = need;
    if (!coe_mul_size(&bytes, n, item_bytes)) {
        coe_fail(COE_E_NOMEM, "array of %zu items of %zu bytes", n, item_bytes);
        return false;
    }
    void *bigger = mem_resize("arrays", *at, bytes);
    if (!bigger) return false;
    *at = bigger;
    *cap = n;
    return true;
}

struct arena_chunk {
    struct arena_chunk *next;
    size_t bytes; /* behind this header, which takes one alignment unit */
};

#define CHUNK_MIN ((size_t)1 << 20)
/* Larger ones would mostly stand empty, and huge pages make what was touched once resident. Activations are often of
 * whole megabytes: four of 4 MB fit with small ones beside them; with the two headers all are whole huge pages. */
#define CHUNK_MAX (((size_t)18 << 20) - 2 * ALIGN)

static struct arena_chunk *new_chunk(size_t bytes)
{
    struct arena_chunk *c = mem_alloc("arena", ALIGN + bytes);
    if (c) *c = (struct arena_chunk){ NULL, bytes };
    return c;
}

coe_status arena_reserve(struct arena *a, size_t bytes)
{
    if (a->first) return COE_OK;
    a->first = a->current = new_chunk(bytes);
    a->used = 0;
    return a->first ? COE_OK : COE_E_NOMEM;
}

void *arena_push(struct arena *a, size_t bytes)
{
    size_t need;
    if (!coe_add_size(&need, bytes, ALIGN - 1)) {
        coe_fail(COE_E_NOMEM, "arena: %zu bytes", bytes);
        return NULL;
    }
    need = need / ALIGN * ALIGN;
    if (!a->current || a->current->bytes - a->used < need) {
        /* chunks behind the current one are kept by rewinds and used again */
        struct arena_chunk *next = a->current ? a->current->next : a->first;
        if (!next || next->bytes < need) {
            size_t size = a->current ? a->current->bytes * 2 : CHUNK_MIN;
            if (size > CHUNK_MAX) size = CHUNK_MAX;
            struct arena_chunk *fresh = new_chunk(COE_MAX(size, need));
            if (!fresh) return NULL;
            fresh->next = next;
            if (a->current) a->current->next = fresh;
            else a->first = fresh;
            next = fresh;
        }
        a->current = next;
        a->used = 0;
    }
    void *p = (char *)a->current + ALIGN + a->used;
    a->used += need;
    return p;
}

void *arena_push_zero(struct arena *a, size_t bytes)
{
    void *p = arena_push(a, bytes);
    if (p) memset(p, 0, bytes);
    return p;
}

char *arena_strdup(struct arena *a, const char *s)
{
    size_t n = strlen(s) + 1;
    char *copy = arena_push(a, n);
    if (copy) memcpy(copy, s, n);
    return copy;
}

struct arena_mark arena_save(struct arena *a) { return (struct arena_mark){ a->current, a->used }; }

void arena_rewind(struct arena *a, struct arena_mark m)
{
    a->current = m.chunk;
    a->used = m.used;
}

void arena_free(struct arena *a)
{
    for (struct arena_chunk *c = a->first, *next; c; c = next) {
        next = c->next;
        mem_free(c);
    }
    *a = (struct arena){ 0 };
}
