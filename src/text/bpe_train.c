/* bpe_train.c — a byte-level BPE vocabulary from text.
 *
 * Words are cut by the pattern in PATTERN and counted; then the most frequent adjacent pair of symbols becomes a new
 * symbol, again and again, until the vocabulary is full or no pair is frequent enough. Ties go to the pair of lower
 * ids, so the result depends on the text alone. Each pair keeps its count and the words it was seen in; a heap with
 * outdated entries finds the next pair (an entry is put back with its true count when it comes up). */
#include <string.h>

#include "base/log.h"
#include "text/bytemap.h"
#include "text/pattern.h"
#include "text/text.h"
#include "text/tok_write.h"
#include "text/wordcount.h"

struct pair {
    int32_t left, right;
    int64_t count;
    VEC(uint32_t) words; /* where it was seen, perhaps no longer is; ascending within one round */
};

struct heap_entry {
    int64_t count;
    uint32_t pair;
};

struct trainer {
    struct wordcount counts;
    VEC(int32_t) symbol;      /* symbols of all words, one after another */
    VEC(uint32_t) first, len; /* of each word */
    VEC(struct pair) pair;
    uint32_t *slot; /* index + 1 into pair */
    size_t n_slots;
    VEC(struct heap_entry) heap;
    VEC(uint32_t) touched; /* pairs whose count rose in this round */
    struct tok_merges merges;
};

static uint64_t pair_hash(int32_t left, int32_t right)
{
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u;
    return h ^ h >> 29;
}

static bool grow_slots(struct trainer *t)
{
    size_t n = t->n_slots ? t->n_slots * 2 : 1 << 14;
    uint32_t *slot = mem_zalloc("tokenizer training", n * sizeof *slot);
    if (!slot) return false;
    for (size_t i = 0; i < t->pair.n; i++) {
        size_t at = pair_hash(t->pair.at[i].left, t->pair.at[i].right) & (n - 1);
        while (slot[at]) at = (at + 1) & (n - 1);
        slot[at] = (uint32_t)i + 1;
    }
    mem_free(t->slot);
    t->slot = slot;
    t->n_slots = n;
    return true;
}

/* Index of the pair, made if it is new; UINT32_MAX when out of memory. */
static uint32_t find_pair(struct trainer *t, int32_t left, int32_t right)
{
    if (t->pair.n * 2 >= t->n_slots && !grow_slots(t)) return UINT32_MAX;
    size_t at = pair_hash(left, right) & (t->n_slots - 1);
    for (; t->slot[at]; at = (at + 1) & (t->n_slots - 1)) {
        const struct pair *p = &t->pair.at[t->slot[at] - 1];
        if (p->left == left && p->right == right) return t->slot[at] - 1;
    }
    struct pair fresh = { .left = left, .right = right };
    if (!VEC_PUSH(&t->pair, fresh)) return UINT32_MAX;
    t->slot[at] = (uint32_t)t->pair.n;
    return (uint32_t)t->pair.n - 1;
}

static bool higher(const struct trainer *t, struct heap_entry a, struct heap_entry b)
{
    const struct pair *p = &t->pair.at[a.pair], *q = &t->pair.at[b.pair];
    if (a.count != b.count) return a.count > b.count;
    return p->left != q->left ? p->left < q->left : p->right < q->right;
}

static bool heap_push(struct trainer *t, uint32_t pair)
{
    struct heap_entry e = { t->pair.at[pair].count, pair };
    if (!VEC_PUSH(&t->heap, e)) return false;
    size_t i = t->heap.n - 1;
    for (; i && higher(t, e, t->heap.at[(i - 1) / 2]); i = (i - 1) / 2) t->heap.at[i] = t->heap.at[(i - 1) / 2];
    t->heap.at[i] = e;
    return true;
}

static struct heap_entry heap_pop(struct trainer *t)
{
    struct heap_entry top = t->heap.at[0], e = t->heap.at[--t->heap.n];
    size_t i = 0;
    for (size_t c; (c = 2 * i + 1) < t->heap.n; i = c) {
        if (c + 1 < t->heap.n && higher(t, t->heap.at[c + 1], t->heap.at[c])) c++;
        if (!higher(t, t->heap.at[c], e)) break;
        t->heap.at[i] = t->heap.at[c];
    }
    if (t->heap.n) t->heap.at[i] = e;
    return top;
}

/* Adds `times` (of word w) to a pair; a rise is remembered in `touched`. */
static bool count_pair(struct trainer *t, int32_t left, int32_t right, int64_t times, uint32_t w)
{
    uint32_t i = find_pair(t, left, right);
    if (i == UINT32_MAX) return false;
    struct pair *p = &t->pair.at[i];
    p->count += times;
    if (times < 0) return true;
    if (!p->words.n || p->words.at[p->words.n - 1] != w)
        if (!VEC_PUSH(&p->words, w)) return false;
    return VEC_PUSH(&t->touched, i);
}

static bool count_all_pairs(struct trainer *t, int32_t first_byte_id)
{
    for (size_t w = 0; w < t->counts.word.n; w++) {
        const struct word *word = &t->counts.word.at[w];
        if (!VEC_PUSH(&t->first, (uint32_t)t->symbol.n) || !VEC_PUSH(&t->len, word->n)) return false;
        for (uint32_t i = 0; i < word->n; i++)
            if (!VEC_PUSH(&t->symbol, first_byte_id + (unsigned char)t->counts.bytes.at[word->at + i])) return false;
        const int32_t *s = t->symbol.at + t->first.at[w];
        for (uint32_t i = 0; i + 1 < word->n; i++)
            if (!count_pair(t, s[i], s[i + 1], (int64_t)word->count, (uint32_t)w)) return false;
        t->touched.n = 0;
    }
    for (uint32_t i = 0; i < t->pair.n; i++)
        if (!heap_push(t, i)) return false;
    return true;
}

/* Replaces the pair in word w from left to right and moves the counts of its neighbours. */
static bool merge_in_word(struct trainer *t, uint32_t w, int32_t left, int32_t right, int32_t merged)
{
    int32_t *s = t->symbol.at + t->first.at[w];
    uint32_t n = t->len.at[w], k = 0;
    int64_t times = (int64_t)t->counts.word.at[w].count;
    bool ok = true;
    for (uint32_t i = 0; i < n; i++) {
        if (i + 1 == n || s[i] != left || s[i + 1] != right) {
            s[k++] = s[i];
            continue;
        }
        ok = ok && count_pair(t, left, right, -times, w);
        if (k) ok = ok && count_pair(t, s[k - 1], left, -times, w) && count_pair(t, s[k - 1], merged, times, w);
        if (i + 2 < n)
            ok = ok && count_pair(t, right, s[i + 2], -times, w) && count_pair(t, merged, s[i + 2], times, w);
        s[k++] = merged;
        i++;
    }
    t->len.at[w] = k;
    return ok;
}

static bool merge_everywhere(struct trainer *t, uint32_t pair, int32_t merged)
{
    int32_t left = t->pair.at[pair].left, right = t->pair.at[pair].right;
    uint32_t *words = t->pair.at[pair].words.at;
    size_t n = t->pair.at[pair].words.n;
    /* taken over: find_pair may move the pairs, and this one is not seen again */
    t->pair.at[pair].words.at = NULL;
    t->pair.at[pair].words.n = t->pair.at[pair].words.cap = 0;
    bool ok = true;
    t->touched.n = 0;
    for (size_t i = 0; i < n && ok; i++) ok = merge_in_word(t, words[i], left, right, merged);
    mem_free(words);
    t->pair.at[pair].count = 0;
    for (size_t i = 0; i < t->touched.n && ok; i++) ok = heap_push(t, t->touched.at[i]);
    return ok;
}

static coe_status learn(struct trainer *t, int32_t first_byte_id, int32_t n_merges, int64_t min_count)
{
    if (!count_all_pairs(t, first_byte_id)) return COE_E_NOMEM;
    struct progress bar = progress_start("learning merges", n_merges);
    int32_t next_id = first_byte_id + 256;
    while ((int32_t)t->merges.n < n_merges && t->heap.n) {
        struct heap_entry top = heap_pop(t);
        const struct pair *p = &t->pair.at[top.pair];
        if (p->count < min_count) continue; /* it comes back when it rises again */
        if (top.count != p->count) {
            if (top.count > p->count && !heap_push(t, top.pair)) return COE_E_NOMEM;
            continue;
        }
        struct tok_merge m = { p->left, p->right };
        if (!VEC_PUSH(&t->merges, m)) return COE_E_NOMEM;
        if (!merge_everywhere(t, top.pair, next_id++)) return COE_E_NOMEM;
        if (coe_interrupted()) return coe_fail(COE_E_FAILED, "interrupted");
        progress_set(&bar, (double)t->merges.n, "%zu", t->merges.n);
    }
    progress_end(&bar);
    return COE_OK;
}

static void free_trainer(struct trainer *t)
{
    wordcount_free(&t->counts);
    for (size_t i = 0; i < t->pair.n; i++) VEC_FREE(&t->pair.at[i].words);
    VEC_FREE(&t->pair);
    VEC_FREE(&t->symbol);
    VEC_FREE(&t->first);
    VEC_FREE(&t->len);
    VEC_FREE(&t->heap);
    VEC_FREE(&t->touched);
    VEC_FREE(&t->merges);
    mem_free(t->slot);
}

coe_status bpe_train(const char *out_path, text_next_fn *next, void *user, const struct bpe_train_opts *opts)
{
    const struct tok_specials specials = tok_specials_or_default(opts->special, opts->n_special);
    const int32_t n_special = (int32_t)specials.n, n_merges = opts->vocab_size - 256 - n_special;
    if (n_merges < 0)
        return coe_fail(COE_E_USAGE, "a vocabulary of %d has no room for 256 bytes and %d special tokens",
                        opts->vocab_size, n_special);
    struct trainer t = { 0 };
    struct pattern *p = NULL;
    coe_status s = pattern_compile(&p, TOK_TRAIN_PATTERN, strlen(TOK_TRAIN_PATTERN), "training pattern");
    if (!s) s = text_count_words(&t.counts, p, next, user, specials);
    if (!s) s = learn(&t, n_special, n_merges, opts->min_count ? opts->min_count : 2);
    if (!s && (int32_t)t.merges.n < n_merges)
        log_warn("the text has only %zu pairs that repeat: the vocabulary has %zu entries", t.merges.n,
                 t.merges.n + 256 + specials.n);
    if (!s) s = tok_write_bpe(out_path, specials, &t.merges);
    pattern_free(p);
    free_trainer(&t);
    return s;
}
