/* gguf_pre.h — pre-tokenisers by the names that GGUF files use. */
#ifndef COE_TEXT_GGUF_PRE_H
#define COE_TEXT_GGUF_PRE_H

#include "base/base.h"

struct gguf_pre {
    const char *pre_tokenizer; /* JSON */
    bool ignore_merges;        /* words in the vocabulary are taken whole */
    bool bos;                  /* BOS is added where the file does not say */
};

/* False for a name nobody uses. */
bool gguf_pre_find(struct gguf_pre *out, const char *name, size_t n);
/* Kind number i and its most usual name [32]; false behind the last. */
bool gguf_pre_at(struct gguf_pre *out, char name[32], size_t i);

#endif
