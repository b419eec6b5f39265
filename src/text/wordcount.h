/* wordcount.h — how often each word (any bytes) occurs: what the trainers of tokenizers start from. */
#ifndef COE_TEXT_WORDCOUNT_H
#define COE_TEXT_WORDCOUNT_H

#include "base/str.h"

struct word {
    uint64_t count, hash;
    uint32_t at, n; /* its bytes: bytes.at[at .. at+n) */
};
/* In order of first appearance. */
struct wordcount {
    VEC(struct word) word;
    struct str bytes;
    uint32_t *slot; /* index + 1 into word, 0 empty */
    size_t n_slots;
};

coe_status wordcount_add(struct wordcount *c, const char *word, size_t n, uint64_t times);
void wordcount_free(struct wordcount *c);

#endif
