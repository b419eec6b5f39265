/* unigram.c — the most probable way to cut a text into pieces (Viterbi over its bytes).
 *
 * best[end] is the best path to `end`; a later path replaces it only when strictly better. A character that no piece
 * covers alone may be unknown, at the lowest score minus 10. SentencePiece sums in float, the other libraries in
 * double, and on runs of one letter that decides. Neighbouring unknown characters become one. */
#include "text/tok.h"

static double piece_score(const struct tokenizer *t, int32_t id, size_t bytes)
{
    bool user = t->tab.type[id] == TOK_USER_DEFINED && t->tab.flags & TOK_SPM;
    if (!user) return t->tab.score[id];
    return t->single_precision ? (double)((float)bytes * (float)t->max_score) - 0.1 : 0.0;
}

static inline void offer(const struct tokenizer *t, struct best_path *to, double score, int32_t id, size_t from)
{
    if (t->single_precision) score = (double)(float)score;
    if (to->from != UINT32_MAX && !(score > to->score)) return;
    *to = (struct best_path){ score, id, (uint32_t)from };
}

static void extend_from(struct encoder *e, const char *text, size_t n, size_t at, size_t len)
{
    const struct tokenizer *t = e->t;
    const struct trie *trie = &t->tab.trie;
    struct best_path *best = e->path.at;
    const double here = best[at].score;
    bool covered = false;
    uint32_t node = 0;
    for (size_t i = at; i < n && (node = trie_step(trie, node, (unsigned char)text[i]));) {
        int32_t id = trie->value[node];
        i++;
        if (id < 0 || t->tab.type[id] == TOK_UNUSED) continue;
        offer(t, &best[i], piece_score(t, id, i - at) + here, id, at);
        if (i - at == len) covered = true;
    }
    if (!covered) offer(t, &best[at + len], t->unk_score + here, -1, at);
}

/* Ids along the best path, whose links go backwards: they are turned round first. */
static coe_status read_path(struct encoder *e, const char *text, uint32_t n)
{
    const struct best_path *best = e->path.at;
    uint32_t unknown = UINT32_MAX; /* where a run of unknown characters began */
    for (uint32_t at = n; at; at = best[at].from) {
        e->next.at[best[at].from] = at;
        e->rank.at[best[at].from] = best[at].id;
    }
    for (uint32_t at = 0; at < n; at = e->next.at[at]) {
        int32_t id = e->rank.at[at];
        if (id < 0) {
            if (unknown == UINT32_MAX) unknown = at;
            continue;
        }
        if (unknown != UINT32_MAX) COE_TRY(encode_unknown(e, text + unknown, at - unknown));
        unknown = UINT32_MAX;
        if (!VEC_PUSH(&e->word, id)) return COE_E_NOMEM;
    }
    return unknown == UINT32_MAX ? COE_OK : encode_unknown(e, text + unknown, n - unknown);
}

coe_status unigram_encode(struct encoder *e, const char *text, size_t n)
{
    if (n >= UINT32_MAX) return coe_fail(COE_E_INPUT, "a text of %zu bytes in one piece", n);
    if (!VEC_RESERVE(&e->path, n + 1) || !VEC_RESERVE(&e->rank, n + 1) || !VEC_RESERVE(&e->next, n + 1))
        return COE_E_NOMEM;
    for (size_t i = 0; i <= n; i++) e->path.at[i] = (struct best_path){ 0, -1, UINT32_MAX };
    e->path.at[0].from = 0;
    for (size_t at = 0; at < n;) {
        int len = utf8_decode(text + at, n - at, NULL);
        size_t k = len ? (size_t)len : 1;
        extend_from(e, text, n, at, k);
        at += k;
    }
    return read_path(e, text, (uint32_t)n);
}
