/* bpe.c — byte-pair merging of one word: always the adjacent pair of lowest rank, the leftmost of equals.
 *
 * Short words are scanned for the lowest rank each time; long ones keep a heap of (rank, place), so that n units cost
 * n log n. A heap entry is out of date when the pair at its place has another rank by now. */
#include <string.h>

#include "text/tok.h"

#define SHORT_WORD 48
#define NO_RANK INT32_MAX
#define NONE UINT32_MAX

static bool push_unit(struct encoder *e, int32_t id, size_t n)
{
    return VEC_PUSH(&e->symbol, id) && VEC_PUSH(&e->length, (uint32_t)n);
}

static coe_status units_of_bytes(struct encoder *e, const char *text, size_t n)
{
    const struct tokenizer *t = e->t;
    for (size_t i = 0; i < n; i++) {
        int32_t id = t->unit[(unsigned char)text[i]];
        if (id < 0) id = t->unk;
        if (id >= 0 && !push_unit(e, id, 1))
            return COE_E_NOMEM; /* a byte that the vocabulary lacks disappears, as in the library */
    }
    return COE_OK;
}

/* SentencePiece: characters, known or not; what is unknown in the end is dealt with then. */
static coe_status units_of_pieces(struct encoder *e, const char *text, size_t n)
{
    for (size_t i = 0; i < n;) {
        int len = utf8_decode(text + i, n - i, NULL);
        size_t k = len ? (size_t)len : 1;
        if (!push_unit(e, tok_find(&e->t->tab, text + i, k), k)) return COE_E_NOMEM;
        i += k;
    }
    return COE_OK;
}

/* Characters; an unknown one becomes its bytes or the unknown token at once and may merge as such. An unknown token
 * waits until a known character follows, so that several fuse into one. */
static coe_status units_of_characters(struct encoder *e, const char *text, size_t n)
{
    const struct tokenizer *t = e->t;
    size_t waiting = 0;
    for (size_t i = 0; i < n;) {
        int len = utf8_decode(text + i, n - i, NULL);
        size_t k = len ? (size_t)len : 1;
        int32_t id = tok_find(&t->tab, text + i, k);
        bool bytes = id < 0 && t->byte_fallback;
        for (size_t b = 0; b < k && bytes; b++) bytes = t->byte_id[(unsigned char)text[i + b]] >= 0;
        if (id >= 0) {
            if (waiting && !push_unit(e, t->unk, waiting)) return COE_E_NOMEM;
            waiting = 0;
            if (!push_unit(e, id, k)) return COE_E_NOMEM;
        } else if (bytes) {
            for (size_t b = 0; b < k; b++)
                if (!push_unit(e, t->byte_id[(unsigned char)text[i + b]], 1)) return COE_E_NOMEM;
        } else if (t->unk >= 0) {
            if (waiting && !t->fuse_unk) {
                if (!push_unit(e, t->unk, waiting)) return COE_E_NOMEM;
                waiting = 0;
            }
            waiting += k;
        }
        i += k;
    }
    return !waiting || push_unit(e, t->unk, waiting) ? COE_OK : COE_E_NOMEM;
}

static const struct pair_slot *look_up(const struct encoder *e, int32_t left, int32_t right)
{
    return left < 0 || right < 0 ? NULL : pair_find(&e->t->tab, left, right);
}

/* Merges in place; the result is the first *n of symbol and length. */
static void merge_short(struct encoder *e, uint32_t *n_symbols)
{
    int32_t *id = e->symbol.at, rank[SHORT_WORD], merged[SHORT_WORD];
    uint32_t *len = e->length.at, n = *n_symbols;
    const struct pair_slot *p;
    for (uint32_t i = 0; i + 1 < n; i++) {
        p = look_up(e, id[i], id[i + 1]);
        rank[i] = p ? p->rank : NO_RANK;
        merged[i] = p ? p->id : 0;
    }
    while (n > 1) {
        uint32_t best = 0;
        for (uint32_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == NO_RANK) break;
        id[best] = merged[best];
        len[best] += len[best + 1];
        n--;
        for (uint32_t i = best + 1; i < n; i++) {
            id[i] = id[i + 1];
            len[i] = len[i + 1];
            rank[i] = rank[i + 1];
            merged[i] = merged[i + 1];
        }
        for (uint32_t i = best ? best - 1 : 0; i <= best && i + 1 < n; i++) {
            p = look_up(e, id[i], id[i + 1]);
            rank[i] = p ? p->rank : NO_RANK;
            merged[i] = p ? p->id : 0;
        }
    }
    *n_symbols = n;
}

static bool heap_push(struct encoder *e, uint64_t key)
{
    if (!VEC_PUSH(&e->heap, key)) return false;
    size_t i = e->heap.n - 1;
    for (; i && e->heap.at[(i - 1) / 4] > key; i = (i - 1) / 4) e->heap.at[i] = e->heap.at[(i - 1) / 4];
    e->heap.at[i] = key;
    return true;
}

static uint64_t heap_pop(struct encoder *e)
{
    uint64_t *h = e->heap.at, top = h[0], key = h[--e->heap.n];
    size_t n = e->heap.n, i = 0;
    for (size_t c; (c = 4 * i + 1) < n;) {
        size_t best = c;
        for (size_t k = c + 1; k < c + 4 && k < n; k++)
            if (h[k] < h[best]) best = k;
        if (h[best] >= key) break;
        h[i] = h[best];
        i = best;
    }
    h[i] = key;
    return top;
}

/* Notes the rank of the pair that begins at i and queues it. */
static bool queue_pair(struct encoder *e, uint32_t i)
{
    uint32_t j = e->next.at[i];
    const struct pair_slot *p = j == NONE ? NULL : look_up(e, e->symbol.at[i], e->symbol.at[j]);
    e->rank.at[i] = p ? p->rank : NO_RANK;
    return !p || heap_push(e, (uint64_t)(uint32_t)p->rank << 32 | i);
}

static coe_status merge_long(struct encoder *e, uint32_t *n_symbols)
{
    const uint32_t n = *n_symbols;
    if (!VEC_RESERVE(&e->next, n) || !VEC_RESERVE(&e->previous, n) || !VEC_RESERVE(&e->rank, n)) return COE_E_NOMEM;
    for (uint32_t i = 0; i < n; i++) {
        e->next.at[i] = i + 1 < n ? i + 1 : NONE;
        e->previous.at[i] = i ? i - 1 : NONE;
    }
    e->heap.n = 0;
    for (uint32_t i = 0; i < n; i++)
        if (!queue_pair(e, i)) return COE_E_NOMEM;
    while (e->heap.n) {
        uint64_t key = heap_pop(e);
        uint32_t i = (uint32_t)key, j;
        if (e->rank.at[i] != (int32_t)(key >> 32)) continue;
        j = e->next.at[i];
        e->symbol.at[i] = look_up(e, e->symbol.at[i], e->symbol.at[j])->id;
        e->length.at[i] += e->length.at[j];
        e->rank.at[j] = NO_RANK; /* gone: its entries are out of date */
        e->next.at[i] = e->next.at[j];
        if (e->next.at[j] != NONE) e->previous.at[e->next.at[j]] = i;
        if (!queue_pair(e, i) || (e->previous.at[i] != NONE && !queue_pair(e, e->previous.at[i]))) return COE_E_NOMEM;
    }
    uint32_t k = 0;
    for (uint32_t i = 0; i != NONE; i = e->next.at[i], k++) {
        e->symbol.at[k] = e->symbol.at[i];
        e->length.at[k] = e->length.at[i];
    }
    *n_symbols = k;
    return COE_OK;
}

/* The units' ids; symbols that are no pieces become bytes or the unknown token. */
static coe_status give_out(struct encoder *e, const char *text, uint32_t n)
{
    const int32_t n_vocab = (int32_t)e->t->tab.n_vocab;
    for (uint32_t i = 0; i < n; text += e->length.at[i++]) {
        int32_t id = e->symbol.at[i];
        if (id < 0 || id >= n_vocab) COE_TRY(encode_unknown(e, text, e->length.at[i]));
        else if (!VEC_PUSH(&e->word, id)) return COE_E_NOMEM;
    }
    return COE_OK;
}

coe_status bpe_encode(struct encoder *e, const char *text, size_t n)
{
    if (n > UINT32_MAX / 2) return coe_fail(COE_E_INPUT, "a word of %zu bytes", n);
    e->symbol.n = e->length.n = 0;
    if (e->t->tab.flags & TOK_RAW) COE_TRY(units_of_bytes(e, text, n));
    else if (e->t->tab.flags & TOK_SPM) COE_TRY(units_of_pieces(e, text, n));
    else COE_TRY(units_of_characters(e, text, n));
    uint32_t k = (uint32_t)e->symbol.n;
    if (!k) return COE_OK;
    if (k <= SHORT_WORD) merge_short(e, &k);
    else COE_TRY(merge_long(e, &k));
    return give_out(e, text, k);
}
