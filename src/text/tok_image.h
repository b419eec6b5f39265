/* tok_image.h — the compiled form of a tokenizer: one block of bytes without pointers, used as it lies in memory or in
 * a file of the user's cache.
 *
 *     head | config (JSON) | token_at | token_text | type | vocab slots | pair slots | scores | trie slots | trie
 * values | joined
 *
 * Two ways of spelling. In a byte-level tokenizer ("raw") a token's text is its bytes, the byte map undone; a token
 * with a character outside the map keeps its spelling and the flag TOK_LITERAL, and no text is ever made of it.
 * Otherwise a token's text is its spelling. */
#ifndef COE_TEXT_TOK_IMAGE_H
#define COE_TEXT_TOK_IMAGE_H

#include "text/tok_def.h"
#include "text/trie.h"

#define TOK_LITERAL 0x80 /* flag beside enum tok_type in `type` */

struct pair_slot { /* merging left and right gives id; left < 0: empty */
    int32_t left, right, rank, id;
};

enum section {
    SEC_CONFIG,
    SEC_TOKEN_AT,
    SEC_TOKEN_TEXT,
    SEC_TYPE,
    SEC_VOCAB,
    SEC_PAIRS,
    SEC_SCORES,
    SEC_TRIE_SLOTS,
    SEC_TRIE_VALUES,
    SEC_JOINED,
    N_SECTIONS
};

#define TOK_IMAGE_MAGIC "coetok\0"
#define TOK_IMAGE_VERSION 2u

struct tok_image_head {
    char magic[8];
    uint32_t version, flags;
    uint64_t source_hash, source_bytes;
    uint64_t payload_hash; /* of everything else; only in a file */
    uint64_t bytes;        /* of the whole image */
    uint32_t n_vocab, n_symbols;
    struct {
        uint64_t at, bytes;
    } section[N_SECTIONS];
};

enum { TOK_RAW = 1, TOK_UNIGRAM = 2, TOK_SPM = 4, TOK_SPLITTABLE = 8 }; /* flags */

struct tok_tables {
    uint32_t flags;
    const char *config;
    size_t n_config;
    uint32_t n_vocab;         /* ids of the model; added tokens may lie behind */
    uint32_t n_symbols;       /* with SentencePiece BPE: and the characters that are no piece but part of one */
    const uint32_t *token_at; /* [n_symbols + 1] */
    const char *token_text;
    const uint8_t *type;   /* [n_vocab] enum tok_type | TOK_LITERAL */
    const uint32_t *vocab; /* hash slots: symbol + 1; a power of two of them, 0 when empty */
    uint32_t n_vocab_slots;
    const struct pair_slot *pair;
    uint32_t n_pair_slots;
    const double *score;    /* [n_vocab], unigram */
    struct trie trie;       /* unigram: pieces by text; SentencePiece BPE: user-defined pieces. Not owned */
    const uint64_t *joined; /* bit 256·a + b: some merge joins a token ending in byte a with one beginning with b */
};

/* *image is one mem_alloc block. source_hash names the file it was made from. */
coe_status tok_image_build(struct tok_image_head **image, struct tok_def *def, uint64_t source_hash,
                           uint64_t source_bytes, const char *where);
/* Checks the layout (not payload_hash) and points into it. COE_E_INPUT. */
coe_status tok_image_view(struct tok_tables *out, const struct tok_image_head *image, uint64_t bytes);

/* Symbol of a text, -1 when there is none. */
int32_t tok_find(const struct tok_tables *t, const char *text, size_t n);

static inline const char *tok_text(const struct tok_tables *t, int32_t id, size_t *n)
{
    *n = t->token_at[id + 1] - t->token_at[id];
    return t->token_text + t->token_at[id];
}

static inline uint32_t pair_slot_of(int32_t left, int32_t right, uint32_t n_slots)
{
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u;
    h ^= h >> 32;
    return (uint32_t)((uint64_t)(uint32_t)(h * 0xD6E8FEB9u) * n_slots >> 32);
}

/* NULL: the two are not merged. */
static inline const struct pair_slot *pair_find(const struct tok_tables *t, int32_t left, int32_t right)
{
    if (!t->n_pair_slots) return NULL;
    for (uint32_t at = pair_slot_of(left, right, t->n_pair_slots);; at = at + 1 == t->n_pair_slots ? 0 : at + 1) {
        const struct pair_slot *p = &t->pair[at];
        if (p->left < 0) return NULL;
        if (p->left == left && p->right == right) return p;
    }
}

#endif
