/* model.c — one piece to ids: from a cache of short words, cut where no merge ever joins, or straight to the model. */
#include <string.h>
#include <xxhash.h>

#include "text/bytemap.h"
#include "text/tok.h"

static coe_status give(struct encoder *e, const int32_t *id, size_t n)
{
    if (!n) return COE_OK;
    if (!VEC_RESERVE(e->out, e->out->n + n)) return COE_E_NOMEM;
    if (!e->t->fuse_across) {
        memcpy(e->out->at + e->out->n, id, n * sizeof *id);
        e->out->n += n;
        return COE_OK;
    }
    for (size_t i = 0; i < n; i++) { /* neighbouring unknown tokens are one, across words too */
        bool unk = id[i] == e->t->unk;
        if (!unk || !e->ends_unk) e->out->at[e->out->n++] = id[i];
        e->ends_unk = unk;
    }
    return COE_OK;
}

coe_status emit_id(struct encoder *e, int32_t id)
{
    e->ends_unk = false;
    return VEC_PUSH(e->out, id) ? COE_OK : COE_E_NOMEM;
}

coe_status encode_unknown(struct encoder *e, const char *text, size_t n)
{
    const struct tokenizer *t = e->t;
    if (t->whole_run_lookup) {
        int32_t id = tok_find(&t->tab, text, n);
        if (id >= 0) return VEC_PUSH(&e->word, id) ? COE_OK : COE_E_NOMEM;
    }
    bool bytes = t->byte_fallback;
    for (size_t i = 0; i < n && bytes; i++) bytes = t->byte_id[(unsigned char)text[i]] >= 0;
    for (size_t i = 0; i < n && bytes; i++)
        if (!VEC_PUSH(&e->word, t->byte_id[(unsigned char)text[i]])) return COE_E_NOMEM;
    if (bytes) return COE_OK;
    if (t->unk < 0)
        return coe_fail(COE_E_INPUT,
                        "%s: the text has a character that is not in the vocabulary, and there is no unknown token",
                        t->name);
    return VEC_PUSH(&e->word, t->unk) ? COE_OK : COE_E_NOMEM;
}

static coe_status encode_uncached(struct encoder *e, const char *text, size_t n, bool whole)
{
    e->word.n = 0;
    if (e->t->tab.flags & TOK_UNIGRAM) return unigram_encode(e, text, n);
    if (whole && e->t->ignore_merges) {
        int32_t id = tok_find(&e->t->tab, text, n);
        if (id >= 0) return VEC_PUSH(&e->word, id) ? COE_OK : COE_E_NOMEM;
    }
    return bpe_encode(e, text, n);
}

static coe_status encode_short(struct encoder *e, const char *text, size_t n)
{
    if (!e->line && !(e->line = mem_zalloc("tokenizer", WORD_LINES * sizeof *e->line))) return COE_E_NOMEM;
    uint64_t hash = XXH3_64bits(text, n);
    struct word_line *line = &e->line[hash % WORD_LINES];
    uint32_t tag = (uint32_t)(hash >> 32);
    if (line->tag == tag && line->n_bytes == n && !memcmp(line->bytes, text, n)) return give(e, line->ids, line->n_ids);
    COE_TRY(encode_uncached(e, text, n, true));
    if (e->word.n <= WORD_MAX_IDS) {
        line->tag = tag;
        line->n_bytes = (uint8_t)n;
        line->n_ids = (uint8_t)e->word.n;
        memcpy(line->bytes, text, n);
        if (e->word.n) memcpy(line->ids, e->word.at, e->word.n * sizeof *e->word.at);
    }
    return give(e, e->word.at, e->word.n);
}

static inline bool never_joined(const struct tok_tables *t, unsigned char a, unsigned char b)
{
    return !(t->joined[a * 4 + b / 64] >> b % 64 & 1);
}

/* A long BPE word, cut wherever no merge joins the byte on the left with the one on the right. */
static coe_status encode_in_cuts(struct encoder *e, const char *text, size_t n)
{
    const struct tok_tables *tab = &e->t->tab;
    const bool characters = !(tab->flags & TOK_RAW);
    size_t from = 0;
    for (size_t i = 1; i <= n; i++) {
        if (i < n && (!never_joined(tab, (unsigned char)text[i - 1], (unsigned char)text[i]) ||
                      (characters && ((unsigned char)text[i] & 0xC0) == 0x80)))
            continue;
        if (i - from <= WORD_MAX_BYTES && !e->t->ignore_merges) {
            COE_TRY(encode_short(e, text + from, i - from));
        } else {
            COE_TRY(encode_uncached(e, text + from, i - from, false));
            COE_TRY(give(e, e->word.at, e->word.n));
        }
        from = i;
    }
    return COE_OK;
}

static coe_status encode_word(struct encoder *e, const char *text, size_t n)
{
    if (!n) return COE_OK;
    if (n <= WORD_MAX_BYTES) return encode_short(e, text, n);
    if (e->t->ignore_merges && !(e->t->tab.flags & TOK_UNIGRAM)) {
        int32_t id = tok_find(&e->t->tab, text, n);
        if (id >= 0) return give(e, &id, 1);
    }
    if (e->t->tab.flags & TOK_SPLITTABLE) return encode_in_cuts(e, text, n);
    COE_TRY(encode_uncached(e, text, n, false));
    return give(e, e->word.at, e->word.n);
}

/* SentencePiece BPE: user-defined pieces are cut out first, the longest at each place, and never merge. */
static coe_status encode_around_user_pieces(struct encoder *e, const char *text, size_t n)
{
    size_t from = 0;
    for (size_t i = 0; i < n;) {
        size_t len;
        int32_t id = trie_longest(&e->t->user, text + i, n - i, &len);
        if (id < 0) {
            int k = utf8_decode(text + i, n - i, NULL);
            i += k ? (size_t)k : 1;
            continue;
        }
        COE_TRY(encode_word(e, text + from, i - from));
        COE_TRY(emit_id(e, id));
        from = i += len;
    }
    return encode_word(e, text + from, n - from);
}

coe_status encode_piece(struct encoder *e, const char *text, size_t n)
{
    if (e->mapped) { /* back to bytes */
        str_clear(&e->raw);
        for (size_t i = 0; i < n;) {
            uint32_t cp = 0;
            int k = utf8_decode(text + i, n - i, &cp);
            str_addc(&e->raw, (char)bytemap_byte(cp));
            i += k ? (size_t)k : 1;
        }
        COE_TRY(str_check(&e->raw));
        text = e->raw.at;
        n = e->raw.n;
    }
    if (e->t->user.n_nodes && !(e->t->tab.flags & TOK_UNIGRAM)) return encode_around_user_pieces(e, text, n);
    return encode_word(e, text, n);
}
