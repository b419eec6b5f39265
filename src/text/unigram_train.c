/* unigram_train.c — a unigram vocabulary from text (Kudo 2018): many candidate pieces, then expectation maximisation
 * and pruning in turn until the wanted number is left.
 *
 *   seed    every substring of a word of at most MAX_PIECE characters that occurs twice, the best by occurrences ×
 * length E step  expected uses of each piece over all ways to cut each word (forward and backward sums) M step  score =
 * digamma(uses) - digamma(sum of uses); a piece with fewer than half a use goes prune   the quarter whose loss is least
 * goes: the loss of a piece is its uses × (its score − that of the best other way to spell it). Single characters stay.
 *
 * Words are cut by the training pattern; spaces stay as they are, so any text comes back from its ids. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "text/text.h"
#include "text/tok_write.h"
#include "text/trie.h"

#define MAX_PIECE 16        /* characters */
#define MAX_SEED_WORD 64    /* bytes; longer words are counted but give no candidates */
#define MAX_WORD_BYTES 4096 /* longer words take no part in learning */
#define SEEDS_PER_PIECE 30
#define MIN_SEEDS 100000
#define EM_ROUNDS 2
#define KEEP 0.75

struct piece {
    uint32_t at, n; /* in the pool */
    double score, uses, loss;
    bool single; /* one character: stays */
};

struct trainer {
    struct wordcount words;
    struct str pool;
    VEC(struct piece) piece;
    struct trie trie; /* of the pieces' texts to their indices */
    VEC(double) forward, backward;
};

static const char *text_of(const struct trainer *t, const struct piece *p) { return t->pool.at + p->at; }

static size_t character(const char *text, size_t n)
{
    int k = utf8_decode(text, n, NULL);
    return k ? (size_t)k : 1;
}

/* The text of a byte piece must not become an ordinary one. */
static bool looks_like_byte(const char *text, size_t n) { return n == 6 && !memcmp(text, "<0x", 3) && text[5] == '>'; }

static bool is_utf8(const char *text, size_t n)
{
    for (int k; n; text += k, n -= (size_t)k)
        if (!(k = utf8_decode(text, n, NULL))) return false;
    return true;
}

/* Every substring of a word, at the boundaries of characters. */
static coe_status count_substrings(struct wordcount *c, const char *word, size_t n, uint64_t times)
{
    for (size_t i = 0; i < n; i += character(word + i, n - i)) {
        size_t end = i;
        for (int chars = 0; chars < MAX_PIECE && end < n; chars++) {
            end += character(word + end, n - end);
            if (!looks_like_byte(word + i, end - i)) COE_TRY(wordcount_add(c, word + i, end - i, times));
        }
    }
    return COE_OK;
}

static coe_status add_piece(struct trainer *t, const char *text, size_t n, double uses)
{
    struct piece p = { (uint32_t)t->pool.n, (uint32_t)n, 0, uses, 0, character(text, n) == n };
    str_add(&t->pool, text, n);
    return !t->pool.oom && VEC_PUSH(&t->piece, p) ? COE_OK : COE_E_NOMEM;
}

struct candidate {
    uint64_t gain; /* occurrences × bytes */
    uint32_t index;
};

static int by_gain(const void *x, const void *y)
{
    const struct candidate *a = x, *b = y;
    if (a->gain != b->gain) return a->gain < b->gain ? 1 : -1;
    return (a->index > b->index) - (a->index < b->index);
}

static coe_status choose_seeds(struct trainer *t, const struct wordcount *c, size_t limit)
{
    VEC(struct candidate) best = { 0 };
    coe_status s = COE_OK;
    for (uint32_t i = 0; i < c->word.n && !s; i++) {
        const struct word *w = &c->word.at[i];
        bool single = character(c->bytes.at + w->at, w->n) == w->n;
        struct candidate k = { w->count * w->n, i };
        if (single) s = add_piece(t, c->bytes.at + w->at, w->n, (double)w->count);
        else if (w->count > 1 && !VEC_PUSH(&best, k)) s = COE_E_NOMEM;
    }
    if (!s && best.n) qsort(best.at, best.n, sizeof *best.at, by_gain);
    for (size_t i = 0; i < best.n && i < limit && !s; i++) {
        const struct word *w = &c->word.at[best.at[i].index];
        s = add_piece(t, c->bytes.at + w->at, w->n, (double)w->count);
    }
    VEC_FREE(&best);
    return s;
}

static coe_status seed(struct trainer *t, size_t limit)
{
    struct wordcount c = { 0 };
    coe_status s = COE_OK;
    for (char a = ' '; a < 127 && !s; a++) s = wordcount_add(&c, &a, 1, 1); /* ASCII is always covered */
    for (size_t i = 0; i < t->words.word.n && !s; i++) {
        const struct word *w = &t->words.word.at[i];
        const char *text = t->words.bytes.at + w->at;
        if (is_utf8(text, w->n)) s = count_substrings(&c, text, COE_MIN(w->n, MAX_SEED_WORD), w->count);
        if (coe_interrupted()) s = coe_fail(COE_E_FAILED, "interrupted");
    }
    if (!s) s = choose_seeds(t, &c, limit);
    wordcount_free(&c);
    return s;
}

static coe_status build_trie(struct trainer *t)
{
    trie_free(&t->trie);
    for (size_t i = 0; i < t->piece.n; i++)
        COE_TRY(trie_insert(&t->trie, text_of(t, &t->piece.at[i]), t->piece.at[i].n, (int32_t)i));
    return COE_OK;
}

static double digamma(double x)
{
    double r = 0;
    for (; x < 7; x++) r -= 1 / x;
    x -= 0.5;
    const double xx = 1 / x, xx2 = xx * xx, xx4 = xx2 * xx2;
    return r + log(x) + (1.0 / 24) * xx2 - (7.0 / 960) * xx4 + (31.0 / 8064) * xx4 * xx2 - (127.0 / 30720) * xx4 * xx4;
}

/* log(exp(a) + exp(b)) */
static double log_add(double a, double b)
{
    double hi = fmax(a, b), lo = fmin(a, b);
    return hi == -INFINITY ? hi : hi + log1p(exp(lo - hi));
}

/* The loop over the pieces that stand at word[i .. end). */
#define EACH_PIECE(t, word, n, i, end, p)                                                                              \
    for (uint32_t node_ = 0, end = (i);                                                                                \
         end < (n) && (node_ = trie_step(&(t)->trie, node_, (unsigned char)(word)[end])) && (++end, true);)            \
        for (int32_t p = (t)->trie.value[node_]; p >= 0; p = -1)

/* Adds the expected uses of the pieces in one word. */
static void expect_word(struct trainer *t, const char *word, uint32_t n, double times)
{
    double *f = t->forward.at, *b = t->backward.at;
    for (uint32_t i = 0; i <= n; i++) f[i] = b[i] = -INFINITY;
    f[0] = b[n] = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (f[i] == -INFINITY) continue;
        EACH_PIECE (t, word, n, i, end, p) f[end] = log_add(f[end], f[i] + t->piece.at[p].score);
    }
    if (f[n] == -INFINITY) return;
    for (uint32_t i = n; i-- > 0;) {
        if (f[i] == -INFINITY) continue;
        EACH_PIECE (t, word, n, i, end, p) {
            b[i] = log_add(b[i], b[end] + t->piece.at[p].score);
            t->piece.at[p].uses += times * exp(f[i] + t->piece.at[p].score + b[end] - f[n]);
        }
    }
}

static coe_status expect(struct trainer *t)
{
    for (size_t i = 0; i < t->piece.n; i++) t->piece.at[i].uses = 0;
    for (size_t i = 0; i < t->words.word.n; i++) {
        const struct word *w = &t->words.word.at[i];
        if (w->n <= MAX_WORD_BYTES) expect_word(t, t->words.bytes.at + w->at, w->n, (double)w->count);
        if (coe_interrupted()) return coe_fail(COE_E_FAILED, "interrupted");
    }
    return COE_OK;
}

static void maximise(struct trainer *t)
{
    double sum = 0;
    size_t n = 0;
    for (size_t i = 0; i < t->piece.n; i++) {
        struct piece p = t->piece.at[i];
        if (p.uses < 0.5 && !p.single) continue;
        p.uses = fmax(p.uses, 0.5);
        sum += p.uses;
        t->piece.at[n++] = p;
    }
    t->piece.n = n;
    const double log_sum = digamma(sum);
    for (size_t i = 0; i < n; i++) t->piece.at[i].score = digamma(t->piece.at[i].uses) - log_sum;
}

/* The best score of a text cut without the piece `without`; -INFINITY when there is no way. */
static double best_score(struct trainer *t, const char *word, uint32_t n, int32_t without)
{
    double *f = t->forward.at;
    for (uint32_t i = 0; i <= n; i++) f[i] = -INFINITY;
    f[0] = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (f[i] == -INFINITY) continue;
        EACH_PIECE (t, word, n, i, end, p) {
            double score = f[i] + t->piece.at[p].score;
            if (p != without && score > f[end]) f[end] = score;
        }
    }
    return f[n];
}

static int by_loss(const void *x, const void *y)
{
    const struct piece *a = x, *b = y;
    if (a->loss != b->loss) return a->loss < b->loss ? 1 : -1;
    return (a->at > b->at) - (a->at < b->at);
}

/* Keeps the `keep` pieces whose loss would be greatest. */
static void prune(struct trainer *t, size_t keep)
{
    for (size_t i = 0; i < t->piece.n; i++) {
        struct piece *p = &t->piece.at[i];
        double other = p->single ? -INFINITY : best_score(t, text_of(t, p), p->n, (int32_t)i);
        p->loss = p->uses * (p->score - other); /* infinite where nothing else can spell it */
    }
    qsort(t->piece.at, t->piece.n, sizeof *t->piece.at, by_loss);
    t->piece.n = COE_MIN(t->piece.n, keep);
}

static coe_status learn(struct trainer *t, size_t wanted)
{
    struct progress bar = progress_start("learning pieces", 1);
    const double first = (double)t->piece.n;
    size_t n_longest = MAX_WORD_BYTES + 1;
    if (!VEC_RESERVE(&t->forward, n_longest) || !VEC_RESERVE(&t->backward, n_longest)) return COE_E_NOMEM;
    maximise(t);
    for (bool last = false;;) {
        for (int round = 0; round < EM_ROUNDS; round++) {
            COE_TRY(build_trie(t));
            COE_TRY(expect(t));
            maximise(t);
        }
        progress_set(&bar, log(first / (double)t->piece.n) / log(first / (double)wanted + 1e-9), "%zu pieces",
                     t->piece.n);
        if (last || t->piece.n <= wanted) break;
        size_t keep = COE_MAX((size_t)(KEEP * (double)t->piece.n), wanted);
        last = keep == wanted;
        COE_TRY(build_trie(t));
        prune(t, keep);
    }
    progress_end(&bar);
    return COE_OK;
}

static int by_score(const void *x, const void *y)
{
    const struct tok_scored *a = x, *b = y;
    if (a->score != b->score) return a->score < b->score ? 1 : -1;
    int c = memcmp(a->text, b->text, COE_MIN(a->n, b->n));
    return c ? c : (a->n > b->n) - (a->n < b->n);
}

static coe_status write_pieces(const struct trainer *t, const char *path, struct tok_specials specials, size_t wanted)
{
    struct tok_scored *out = mem_alloc("tokenizer training", (t->piece.n + 1) * sizeof *out);
    if (!out) return COE_E_NOMEM;
    for (size_t i = 0; i < t->piece.n; i++)
        out[i] = (struct tok_scored){ text_of(t, &t->piece.at[i]), t->piece.at[i].n, t->piece.at[i].score };
    qsort(out, t->piece.n, sizeof *out, by_score);
    coe_status s = tok_write_unigram(path, specials, out, COE_MIN(t->piece.n, wanted));
    mem_free(out);
    return s;
}

coe_status unigram_train(const char *out_path, text_next_fn *next, void *user, const struct bpe_train_opts *opts)
{
    const struct tok_specials specials = tok_specials_or_default(opts->special, opts->n_special);
    const int32_t wanted = opts->vocab_size - 256 - (int32_t)specials.n - 1;
    if (wanted < 100)
        return coe_fail(COE_E_USAGE,
                        "a vocabulary of %d: %d are special tokens and bytes, and 100 pieces are the least",
                        opts->vocab_size, opts->vocab_size - wanted);
    struct trainer t = { 0 };
    struct pattern *p = NULL;
    coe_status s = pattern_compile(&p, TOK_TRAIN_PATTERN, strlen(TOK_TRAIN_PATTERN), "training pattern");
    if (!s) s = text_count_words(&t.words, p, next, user, specials);
    if (!s) s = seed(&t, COE_MAX((size_t)wanted * SEEDS_PER_PIECE, (size_t)MIN_SEEDS));
    if (!s) s = learn(&t, (size_t)wanted);
    if (!s && t.piece.n < (size_t)wanted)
        log_warn("the text has only %zu pieces that repeat: the vocabulary is smaller than asked for", t.piece.n);
    if (!s) s = write_pieces(&t, out_path, specials, (size_t)wanted);
    pattern_free(p);
    wordcount_free(&t.words);
    str_free(&t.pool);
    trie_free(&t.trie);
    VEC_FREE(&t.piece);
    VEC_FREE(&t.forward);
    VEC_FREE(&t.backward);
    return s;
}
