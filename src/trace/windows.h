/* windows.h — windows of texts gathered into one forward pass, whole sequences from position 0. */
#ifndef COE_TRACE_WINDOWS_H
#define COE_TRACE_WINDOWS_H

#include <string.h>

#include "moe/moe.h"

#define WINDOWS_TOKENS 1024 /* of one forward pass, where nobody says else; changes no bit */
#define WINDOWS_MOST 1024

struct windows {
    int32_t *ids; /* [cap] */
    int64_t cap;
    int32_t n, off[WINDOWS_MOST + 1];
    int64_t pos0[WINDOWS_MOST]; /* all 0 */
};

/* An empty batch for so many tokens; COE_E_NOMEM. */
static inline coe_status windows_make(struct windows *w, int64_t tokens)
{
    *w = (struct windows){ .cap = tokens };
    w->ids = mem_alloc("windows", (size_t)tokens * sizeof *w->ids);
    return w->ids ? COE_OK : COE_E_NOMEM;
}
static inline void windows_free(struct windows *w) { mem_free(w->ids); }
static inline int32_t windows_tokens(const struct windows *w) { return w->off[w->n]; }
/* Whether a window of n tokens has room; else run what is there and set w->n to 0. */
static inline bool windows_fit(const struct windows *w, int64_t n)
{
    return w->n < WINDOWS_MOST && windows_tokens(w) + n <= w->cap;
}
/* Adds it; answers the index of its first token. */
static inline int32_t windows_add(struct windows *w, const int32_t *ids, int64_t n)
{
    const int32_t at = windows_tokens(w);
    memcpy(w->ids + at, ids, (size_t)n * sizeof *ids);
    w->off[++w->n] = at + (int32_t)n;
    return at;
}
static inline struct attn_batch windows_batch(const struct windows *w)
{
    return (struct attn_batch){ w->n, w->off, w->pos0, NULL };
}

#endif
