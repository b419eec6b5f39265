/* wordcount.c — an open-addressing table of words over one pool of bytes. */
#include "text/wordcount.h"

#include <string.h>
#include <xxhash.h>

static coe_status grow(struct wordcount *c)
{
    size_t n = c->n_slots ? c->n_slots * 2 : 1024;
    uint32_t *slot = mem_zalloc("word counts", n * sizeof *slot);
    if (!slot) return COE_E_NOMEM;
    for (size_t i = 0; i < c->word.n; i++) {
        size_t at = c->word.at[i].hash & (n - 1);
        while (slot[at]) at = (at + 1) & (n - 1);
        slot[at] = (uint32_t)i + 1;
    }
    mem_free(c->slot);
    c->slot = slot;
    c->n_slots = n;
    return COE_OK;
}

coe_status wordcount_add(struct wordcount *c, const char *word, size_t n, uint64_t times)
{
    if (c->word.n * 2 >= c->n_slots) COE_TRY(grow(c));
    uint64_t hash = XXH3_64bits(word, n);
    size_t at = hash & (c->n_slots - 1);
    for (; c->slot[at]; at = (at + 1) & (c->n_slots - 1)) {
        struct word *w = &c->word.at[c->slot[at] - 1];
        if (w->hash == hash && w->n == n && !memcmp(c->bytes.at + w->at, word, n)) {
            w->count += times;
            return COE_OK;
        }
    }
    if (c->bytes.n + n > UINT32_MAX || c->word.n >= UINT32_MAX - 1)
        return coe_fail(COE_E_NOMEM, "more than 4 GB of different words");
    struct word w = { times, hash, (uint32_t)c->bytes.n, (uint32_t)n };
    str_add(&c->bytes, word, n);
    if (c->bytes.oom || !VEC_PUSH(&c->word, w)) return COE_E_NOMEM;
    c->slot[at] = (uint32_t)c->word.n;
    return COE_OK;
}

void wordcount_free(struct wordcount *c)
{
    VEC_FREE(&c->word);
    str_free(&c->bytes);
    mem_free(c->slot);
    *c = (struct wordcount){ 0 };
}
