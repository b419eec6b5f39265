/* trie.c — building, and the longest prefix. */
#include "text/trie.h"

#include <string.h>

static void put(struct trie_edge *slot, uint32_t n_slots, struct trie_edge e)
{
    uint32_t at = trie_slot(e.key, n_slots);
    while (slot[at].child) at = (at + 1) & (n_slots - 1);
    slot[at] = e;
}

static coe_status grow_slots(struct trie *t)
{
    uint32_t n = t->n_slots ? t->n_slots * 2 : 256;
    struct trie_edge *slot = mem_zalloc("tries", n * sizeof *slot);
    if (!slot) return COE_E_NOMEM;
    for (uint32_t i = 0; i < t->n_slots; i++)
        if (t->slot[i].child) put(slot, n, t->slot[i]);
    mem_free(t->slot);
    t->slot = slot;
    t->n_slots = n;
    return COE_OK;
}

static coe_status add_node(struct trie *t, uint32_t *node)
{
    if (t->n_nodes == TRIE_MAX_NODES)
        return coe_fail(COE_E_INPUT, "a vocabulary with more than %u different beginnings", TRIE_MAX_NODES);
    if (t->n_nodes == t->cap_nodes && !vec_grow((void **)&t->value, &t->cap_nodes, t->n_nodes + 1, sizeof *t->value))
        return COE_E_NOMEM;
    *node = t->n_nodes;
    t->value[t->n_nodes++] = -1;
    return COE_OK;
}

coe_status trie_insert(struct trie *t, const char *text, size_t n, int32_t value)
{
    uint32_t node = 0;
    if (!t->n_nodes) COE_TRY(add_node(t, &node));
    for (size_t i = 0; i < n; i++) {
        uint32_t child = trie_step(t, node, (unsigned char)text[i]);
        if (!child) {
            if ((uint64_t)t->n_nodes * 2 >= t->n_slots) COE_TRY(grow_slots(t));
            COE_TRY(add_node(t, &child));
            put(t->slot, t->n_slots, (struct trie_edge){ node << 8 | (unsigned char)text[i], child });
        }
        node = child;
    }
    t->value[node] = value;
    return COE_OK;
}

int32_t trie_longest(const struct trie *t, const char *text, size_t n, size_t *length)
{
    int32_t best = -1;
    uint32_t node = 0;
    for (size_t i = 0; i < n && (node = trie_step(t, node, (unsigned char)text[i])); i++)
        if (t->value[node] >= 0) {
            best = t->value[node];
            *length = i + 1;
        }
    return best;
}

void trie_free(struct trie *t)
{
    mem_free(t->slot);
    mem_free(t->value);
    *t = (struct trie){ 0 };
}
