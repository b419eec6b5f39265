/* trie.h — byte strings to numbers, for finding the strings that begin at a place of a text. Edges are a hash table
 * from (node, byte) to node, so a trie is three flat arrays that can be stored as they are. Node 0 is the root. */
#ifndef COE_TEXT_TRIE_H
#define COE_TEXT_TRIE_H

#include "base/mem.h"

#define TRIE_MAX_NODES (1u << 24)

struct trie_edge {
    uint32_t key, child; /* key: node << 8 | byte; child 0: empty slot */
};
struct trie {
    struct trie_edge *slot;
    int32_t *value;            /* of a node; -1: no string ends here */
    uint32_t n_slots, n_nodes; /* n_slots is a power of two */
    size_t cap_nodes;
};

/* The last value given to a string stays. The empty string is allowed. COE_E_NOMEM; COE_E_INPUT beyond TRIE_MAX_NODES.
 */
coe_status trie_insert(struct trie *t, const char *text, size_t n, int32_t value);
void trie_free(struct trie *t);

static inline uint32_t trie_slot(uint32_t key, uint32_t n_slots)
{
    return (uint32_t)(((uint64_t)(key * 0x9E3779B1u) * n_slots) >> 32);
}

/* The node behind `node` and byte, 0 when there is none. */
static inline uint32_t trie_step(const struct trie *t, uint32_t node, unsigned char byte)
{
    uint32_t key = node << 8 | byte;
    if (!t->n_slots) return 0;
    for (uint32_t at = trie_slot(key, t->n_slots);; at = (at + 1) & (t->n_slots - 1)) {
        if (t->slot[at].key == key || !t->slot[at].child) return t->slot[at].child;
    }
}

/* The longest string that text[0..n) begins with: its value and length, or -1. */
int32_t trie_longest(const struct trie *t, const char *text, size_t n, size_t *length);

#endif
