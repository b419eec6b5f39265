/* tok_image.c — compiling a definition: see tok_image.h for the layout. Merges become a hash table from pairs of ids;
 * the scores of a SentencePiece BPE vocabulary become such merges too, one for each way to cut a piece in two. */
#include "text/tok_image.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "text/bytemap.h"

struct build {
    struct tok_def *def;
    const char *where;
    uint32_t flags;
    bool lenient; /* merges with unknown parts are left out (GGUF) */
    struct str text;
    VEC(uint32_t) at; /* [n_symbols + 1] */
    VEC(uint8_t) type;
    uint32_t *vocab;
    uint32_t n_vocab_slots;
    VEC(struct pair_slot) merge; /* in order */
    struct pair_slot *pair;
    uint32_t n_pair_slots;
    struct trie trie;
    uint64_t joined[1024];
    struct tok_tables view; /* of what is there so far, for tok_find */
};

int32_t tok_find(const struct tok_tables *t, const char *text, size_t n)
{
    if (!t->n_vocab_slots) return -1;
    for (uint64_t at = XXH3_64bits(text, n);; at++) {
        uint32_t symbol = t->vocab[at & (t->n_vocab_slots - 1)];
        if (!symbol) return -1;
        const uint32_t *a = t->token_at + symbol - 1;
        if (a[1] - a[0] == n && !memcmp(t->token_text + a[0], text, n)) return (int32_t)symbol - 1;
    }
}

/* Undoes the byte map. False, with `out` as it was, when a character is outside it. */
static bool unmap(struct str *out, const char *text, size_t n)
{
    size_t before = out->n;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int len = utf8_decode(text + i, n - i, &cp), b = len ? bytemap_byte(cp) : -1;
        if (b < 0) {
            out->n = before;
            return false;
        }
        str_addc(out, (char)b);
        i += (size_t)len;
    }
    return true;
}

static bool has_byte_level(const json_t *step, int depth)
{
    const json_t *inner = json_object_get(step, "pretokenizers"), *type = json_object_get(step, "type");
    if (json_is_string(type) && !strcmp(json_string_value(type), "ByteLevel")) return true;
    for (size_t i = 0; depth < 8 && i < json_array_size(inner); i++)
        if (has_byte_level(json_array_get(inner, i), depth + 1)) return true;
    return false;
}

/* What of the model's options is not supported is refused by name. */
static coe_status check_model(const struct build *b, const json_t *model)
{
    static const char *const affixes[] = { "continuing_subword_prefix", "end_of_word_suffix" };
    const char *type = json_string_value(json_object_get(model, "type"));
    if (type && strcmp(type, "BPE") != 0 && strcmp(type, "Unigram") != 0)
        return coe_fail(COE_E_INPUT, "%s: a model of type %.40s is not supported", b->where, type);
    for (size_t i = 0; i < COE_COUNT(affixes); i++)
        if (json_string_length(json_object_get(model, affixes[i])))
            return coe_fail(COE_E_INPUT, "%s: model.%s is not supported", b->where, affixes[i]);
    return COE_OK;
}

static coe_status read_flags(struct build *b)
{
    const json_t *config = b->def->config, *model = json_object_get(config, "model");
    const json_t *type = json_object_get(model, "type");
    COE_TRY(check_model(b, model));
    if (has_byte_level(json_object_get(config, "pre_tokenizer"), 0)) b->flags |= TOK_RAW;
    if (json_is_string(type) && !strcmp(json_string_value(type), "Unigram")) b->flags |= TOK_UNIGRAM;
    if (json_is_true(json_object_get(config, "spm"))) b->flags |= TOK_SPM;
    b->lenient = json_is_true(json_object_get(config, "lenient_merges"));
    return COE_OK;
}

static coe_status spell_tokens(struct build *b)
{
    for (size_t i = 0; i < b->def->piece.n; i++) {
        const struct tok_piece *p = &b->def->piece.at[i];
        const char *text = b->def->text.at + p->at;
        uint8_t type = p->type;
        if (!VEC_PUSH(&b->at, (uint32_t)b->text.n)) return COE_E_NOMEM;
        if (!(b->flags & TOK_RAW)) {
            str_add(&b->text, text, p->n);
        } else if (!unmap(&b->text, text, p->n)) {
            str_add(&b->text, text, p->n);
            type |= TOK_LITERAL;
        }
        if (!VEC_PUSH(&b->type, type) || b->text.oom) return COE_E_NOMEM;
    }
    return VEC_PUSH(&b->at, (uint32_t)b->text.n) ? COE_OK : COE_E_NOMEM;
}

/* Is the piece found in text? SentencePiece keeps control pieces, bytes and the unknown piece apart. */
static bool matches_text(const struct build *b, size_t id)
{
    uint8_t type = b->type.at[id];
    if (type == TOK_ABSENT || (type & TOK_LITERAL)) return false;
    return !(b->flags & TOK_SPM) || type == TOK_NORMAL || type == TOK_USER_DEFINED || type == TOK_UNUSED;
}

static void refresh_view(struct build *b)
{
    b->view = (struct tok_tables){ .flags = b->flags,
                                    .n_vocab = (uint32_t)b->type.n,
                                    .token_at = b->at.at,
                                    .token_text = b->text.at ? b->text.at : "",
                                    .vocab = b->vocab,
                                    .n_vocab_slots = b->n_vocab_slots };
}

static void hash_symbol(struct build *b, uint32_t id)
{
    const char *text = b->view.token_text + b->at.at[id];
    size_t n = b->at.at[id + 1] - b->at.at[id];
    uint64_t at = XXH3_64bits(text, n);
    for (;; at++) {
        uint32_t *slot = &b->vocab[at & (b->n_vocab_slots - 1)];
        if (*slot) {
            uint32_t a = b->at.at[*slot - 1];
            if (b->at.at[*slot] - a != n || memcmp(b->view.token_text + a, text, n) != 0) continue;
        }
        *slot = id + 1;
        return;
    }
}

static coe_status make_vocab(struct build *b, size_t n_symbols)
{
    size_t n = 64;
    while (n < n_symbols * 2) n *= 2;
    mem_free(b->vocab);
    b->vocab = mem_zalloc("tokenizer", n * sizeof *b->vocab);
    if (!b->vocab) return COE_E_NOMEM;
    b->n_vocab_slots = (uint32_t)n;
    refresh_view(b);
    for (size_t i = 0; i + 1 < b->at.n; i++)
        if (i >= b->type.n || matches_text(b, i)) hash_symbol(b, (uint32_t)i);
    return COE_OK;
}

static coe_status no_such_token(const struct build *b, size_t i, const char *text, size_t n)
{
    return coe_fail(COE_E_INPUT, "%s: merge %zu: '%.*s' is not in the vocabulary", b->where, i,
                    (int)COE_MIN(n, (size_t)80), text);
}

/* The merges of a BPE vocabulary by their texts. */
static coe_status resolve_merges(struct build *b)
{
    struct str raw = { 0 };
    coe_status s = COE_OK;
    if (!VEC_RESERVE(&b->merge, b->def->merge.n)) return COE_E_NOMEM;
    for (size_t i = 0; i < b->def->merge.n && !s; i++) {
        const struct tok_merge_text *m = &b->def->merge.at[i];
        const char *text = b->def->text.at + m->at;
        size_t left = m->left, n = m->n;
        str_clear(&raw);
        if (b->flags & TOK_RAW && unmap(&raw, text, m->left)) {
            left = raw.n;
            if (unmap(&raw, text + m->left, m->n - m->left)) text = raw.at, n = raw.n;
            else left = m->left;
        }
        struct pair_slot p = { tok_find(&b->view, text, left), tok_find(&b->view, text + left, n - left), (int32_t)i,
                               tok_find(&b->view, text, n) };
        if (p.left < 0 || p.right < 0 || p.id < 0) {
            if (!b->lenient)
                s = no_such_token(b, i,
                                  p.left < 0    ? text
                                  : p.right < 0 ? text + left
                                                : text,
                                  p.left < 0    ? left
                                  : p.right < 0 ? n - left
                                                : n);
        } else if (!VEC_PUSH(&b->merge, p)) {
            s = COE_E_NOMEM;
        }
    }
    str_free(&raw);
    return s;
}

/* Characters of pieces that are no pieces themselves still merge: they become symbols behind the ids. */
static coe_status add_characters(struct build *b)
{
    size_t n_pieces = b->type.n;
    for (size_t i = 0; i < n_pieces; i++) {
        if (!matches_text(b, i)) continue;
        for (uint32_t k = b->at.at[i]; k < b->at.at[i + 1];) {
            uint32_t end = b->at.at[i + 1];
            int len = utf8_decode(b->text.at + k, end - k, NULL);
            uint32_t n = len ? (uint32_t)len : 1;
            if (tok_find(&b->view, b->text.at + k, n) < 0) {
                char copy[4];
                memcpy(copy, b->text.at + k, n);
                str_add(&b->text, copy, n);
                if (b->text.oom || !VEC_PUSH(&b->at, (uint32_t)b->text.n)) return COE_E_NOMEM;
                if (b->at.n * 2 > b->n_vocab_slots) {
                    COE_TRY(make_vocab(b, b->at.n * 2));
                } else {
                    refresh_view(b);
                    hash_symbol(b, (uint32_t)b->at.n - 2);
                }
            }
            k += n;
        }
    }
    return COE_OK;
}

static int by_score(const void *x, const void *y)
{
    float a = *(const float *)x, b = *(const float *)y;
    return (a < b) - (a > b);
}

/* rank[id]: how many different scores are higher. */
static coe_status rank_pieces(const struct build *b, int32_t *rank)
{
    size_t n = b->def->piece.n, unique = 0;
    float *sorted = mem_alloc("tokenizer", (n + 1) * sizeof *sorted);
    if (!sorted) return COE_E_NOMEM;
    for (size_t i = 0; i < n; i++) sorted[i] = b->def->piece.at[i].score;
    qsort(sorted, n, sizeof *sorted, by_score);
    for (size_t i = 0; i < n; i++)
        if (!i || sorted[i] != sorted[unique - 1]) sorted[unique++] = sorted[i];
    for (size_t i = 0; i < n; i++) {
        size_t lo = 0, hi = unique;
        while (hi - lo > 1) {
            size_t mid = (lo + hi) / 2;
            if (sorted[mid] >= b->def->piece.at[i].score) lo = mid;
            else hi = mid;
        }
        rank[i] = (int32_t)lo;
    }
    mem_free(sorted);
    return COE_OK;
}

static coe_status merges_by_score(struct build *b)
{
    COE_TRY(add_characters(b));
    size_t n = b->type.n;
    int32_t *rank = mem_alloc("tokenizer", (n + 1) * sizeof *rank);
    if (!rank) return COE_E_NOMEM;
    coe_status s = rank_pieces(b, rank);
    for (size_t i = 0; i < n && !s; i++) {
        if (!matches_text(b, i)) continue;
        const char *text = b->text.at + b->at.at[i];
        size_t len = b->at.at[i + 1] - b->at.at[i];
        for (size_t k = 1; k < len && !s; k++) {
            if (((unsigned char)text[k] & 0xC0) == 0x80) continue;
            struct pair_slot p = { tok_find(&b->view, text, k), tok_find(&b->view, text + k, len - k), rank[i],
                                   (int32_t)i };
            if (p.left >= 0 && p.right >= 0 && !VEC_PUSH(&b->merge, p)) s = COE_E_NOMEM;
        }
    }
    mem_free(rank);
    return s;
}

static coe_status make_pairs(struct build *b)
{
    size_t n = b->merge.n + b->merge.n * 3 / 5 + 8;
    if (n > UINT32_MAX) return coe_fail(COE_E_INPUT, "%s: too many merges", b->where);
    b->pair = mem_alloc("tokenizer", n * sizeof *b->pair);
    if (!b->pair) return COE_E_NOMEM;
    b->n_pair_slots = (uint32_t)n;
    for (size_t i = 0; i < n; i++) b->pair[i] = (struct pair_slot){ -1, -1, 0, 0 };
    for (size_t i = 0; i < b->merge.n; i++) {
        struct pair_slot m = b->merge.at[i];
        uint32_t at = pair_slot_of(m.left, m.right, b->n_pair_slots);
        while (b->pair[at].left >= 0 && (b->pair[at].left != m.left || b->pair[at].right != m.right))
            at = at + 1 == b->n_pair_slots ? 0 : at + 1;
        b->pair[at] = m; /* of two equal merges the later counts */
        if (b->at.at[m.left] == b->at.at[m.left + 1] || b->at.at[m.right] == b->at.at[m.right + 1]) continue;
        unsigned char last = (unsigned char)b->text.at[b->at.at[m.left + 1] - 1],
                      first = (unsigned char)b->text.at[b->at.at[m.right]];
        b->joined[last * 4 + first / 64] |= 1ull << first % 64;
    }
    return COE_OK;
}

static coe_status make_trie(struct build *b)
{
    for (size_t i = 0; i < b->type.n; i++)
        if (matches_text(b, i) && b->at.at[i + 1] > b->at.at[i])
            COE_TRY(trie_insert(&b->trie, b->text.at + b->at.at[i], b->at.at[i + 1] - b->at.at[i], (int32_t)i));
    return COE_OK;
}

/* Every text is cut into known units and no unit's treatment depends on its neighbours: then words may be cut where
 * nothing is ever merged. */
static bool splittable(const struct build *b)
{
    if (b->flags & TOK_UNIGRAM) return false;
    if (b->flags & TOK_SPM) return true;
    const json_t *model = json_object_get(b->def->config, "model");
    if (!(b->flags & TOK_RAW) && !json_is_true(json_object_get(model, "byte_fallback"))) return false;
    for (int i = 0; i < 256; i++) {
        char text[8] = { (char)i };
        size_t n = 1;
        if (!(b->flags & TOK_RAW)) n = (size_t)snprintf(text, sizeof text, "<0x%02X>", (unsigned)i);
        int32_t id = tok_find(&b->view, text, n);
        if (id < 0) return false;
        for (size_t k = 0; n > 1 && k < b->merge.n; k++)
            if (b->merge.at[k].left == id || b->merge.at[k].right == id) return false;
    }
    return true;
}

static coe_status make_scores(const struct build *b, double **out)
{
    size_t n = b->type.n;
    *out = mem_alloc("tokenizer", (n + 1) * sizeof **out);
    if (!*out) return COE_E_NOMEM;
    bool full = b->def->score.n == n;
    for (size_t i = 0; i < n; i++) (*out)[i] = full ? b->def->score.at[i] : (double)b->def->piece.at[i].score;
    return COE_OK;
}

/* Lays the parts one after another. */
static coe_status assemble(struct tok_image_head **image, const struct build *b, const struct str *config,
                           const double *score)
{
    const struct {
        const void *at;
        size_t bytes;
    } part[N_SECTIONS] = {
        [SEC_CONFIG] = { config->at, config->n },
        [SEC_TOKEN_AT] = { b->at.at, b->at.n * sizeof *b->at.at },
        [SEC_TOKEN_TEXT] = { b->text.at, b->text.n },
        [SEC_TYPE] = { b->type.at, b->type.n },
        [SEC_VOCAB] = { b->vocab, b->n_vocab_slots * sizeof *b->vocab },
        [SEC_PAIRS] = { b->pair, b->n_pair_slots * sizeof *b->pair },
        [SEC_SCORES] = { score, score ? b->type.n * sizeof *score : 0 },
        [SEC_TRIE_SLOTS] = { b->trie.slot, b->trie.n_slots * sizeof *b->trie.slot },
        [SEC_TRIE_VALUES] = { b->trie.value, b->trie.n_nodes * sizeof *b->trie.value },
        [SEC_JOINED] = { b->joined, sizeof b->joined },
    };
    struct tok_image_head head = { .magic = TOK_IMAGE_MAGIC,
                                   .version = TOK_IMAGE_VERSION,
                                   .flags = b->flags,
                                   .n_vocab = (uint32_t)b->type.n,
                                   .n_symbols = (uint32_t)b->at.n - 1 };
    uint64_t total = (sizeof head + 63) / 64 * 64;
    for (int i = 0; i < N_SECTIONS; i++) {
        head.section[i].at = total;
        head.section[i].bytes = part[i].bytes;
        total += (part[i].bytes + 63) / 64 * 64;
    }
    head.bytes = total;
    char *out = mem_zalloc("tokenizer", total);
    if (!out) return COE_E_NOMEM;
    for (int i = 0; i < N_SECTIONS; i++)
        if (part[i].bytes) memcpy(out + head.section[i].at, part[i].at, part[i].bytes);
    memcpy(out, &head, sizeof head);
    *image = (struct tok_image_head *)(void *)out;
    return COE_OK;
}

coe_status tok_image_build(struct tok_image_head **image, struct tok_def *def, uint64_t source_hash,
                           uint64_t source_bytes, const char *where)
{
    struct build b = { .def = def, .where = where };
    struct str config = { 0 };
    double *score = NULL;
    *image = NULL;
    coe_status s = read_flags(&b);
    if (!s) s = spell_tokens(&b);
    if (!s) s = make_vocab(&b, def->piece.n);
    if (!s && b.flags & TOK_UNIGRAM) s = make_trie(&b);
    if (!s && b.flags & TOK_UNIGRAM) s = make_scores(&b, &score);
    if (!s && !(b.flags & TOK_UNIGRAM)) s = b.flags & TOK_SPM ? merges_by_score(&b) : resolve_merges(&b);
    if (!s && !(b.flags & TOK_UNIGRAM)) s = make_pairs(&b);
    if (!s && splittable(&b)) b.flags |= TOK_SPLITTABLE;
    if (!s) s = json_add_text(&config, def->config, JSON_COMPACT);
    if (!s) s = assemble(image, &b, &config, score);
    if (!s) {
        (*image)->source_hash = source_hash;
        (*image)->source_bytes = source_bytes;
    }
    str_free(&config);
    mem_free(score);
    mem_free(b.vocab);
    mem_free(b.pair);
    str_free(&b.text);
    VEC_FREE(&b.at);
    VEC_FREE(&b.type);
    VEC_FREE(&b.merge);
    trie_free(&b.trie);
    return s;
}

coe_status tok_image_view(struct tok_tables *out, const struct tok_image_head *h, uint64_t bytes)
{
    union { /* the trie's build-time type has no const; nothing writes through it here */
        const void *c;
        void *v;
    } at[N_SECTIONS];
    static const uint32_t item[N_SECTIONS] = { 1, 4, 1, 1, 4, sizeof(struct pair_slot), 8, sizeof(struct trie_edge),
                                               4, 8 };
    uint64_t n[N_SECTIONS];
    if (bytes < sizeof *h || memcmp(h->magic, TOK_IMAGE_MAGIC, 8) != 0 || h->version != TOK_IMAGE_VERSION ||
        h->bytes != bytes)
        goto damaged;
    for (int i = 0; i < N_SECTIONS; i++) {
        uint64_t from = h->section[i].at, length = h->section[i].bytes;
        if (from > bytes || length > bytes - from || from % 64 || length % item[i] || length / item[i] > UINT32_MAX)
            goto damaged;
        at[i].c = (const char *)h + from;
        n[i] = length / item[i];
    }
    if (n[SEC_TOKEN_AT] != (uint64_t)h->n_symbols + 1 || n[SEC_TYPE] != h->n_vocab || h->n_symbols < h->n_vocab ||
        n[SEC_JOINED] != 1024 || (n[SEC_VOCAB] & (n[SEC_VOCAB] - 1)) || (n[SEC_TRIE_SLOTS] & (n[SEC_TRIE_SLOTS] - 1)))
        goto damaged;
    *out = (struct tok_tables){
        .flags = h->flags,
        .config = at[SEC_CONFIG].c,
        .n_config = (size_t)n[SEC_CONFIG],
        .n_vocab = h->n_vocab,
        .n_symbols = h->n_symbols,
        .token_at = at[SEC_TOKEN_AT].c,
        .token_text = at[SEC_TOKEN_TEXT].c,
        .type = at[SEC_TYPE].c,
        .vocab = at[SEC_VOCAB].c,
        .n_vocab_slots = (uint32_t)n[SEC_VOCAB],
        .pair = at[SEC_PAIRS].c,
        .n_pair_slots = (uint32_t)n[SEC_PAIRS],
        .score = at[SEC_SCORES].c,
        .joined = at[SEC_JOINED].c,
        .trie = { at[SEC_TRIE_SLOTS].v, at[SEC_TRIE_VALUES].v, (uint32_t)n[SEC_TRIE_SLOTS],
                  (uint32_t)n[SEC_TRIE_VALUES], 0 },
    };
    return COE_OK;
damaged:
    return coe_fail(COE_E_INPUT, "the compiled form of a tokenizer is damaged");
}
