/* added.c — added tokens: cut out of the text before the model sees it. Leftmost, then longest; lstrip and rstrip
 * swallow white space beside the token, single_word asks that no word character touches it. */
#include <string.h>

#include "text/tok.h"

#define MAX_ADDED (1 << 20)

static coe_status set_add(struct added_set *set, const char *text, size_t n, int32_t index)
{
    if (!n) return COE_OK;
    unsigned char a = (unsigned char)text[0], b = n > 1 ? (unsigned char)text[1] : 0;
    if (n == 1) memset(&set->pairs[a * 4], 0xFF, 4 * sizeof set->pairs[0]);
    else set->pairs[a * 4 + b / 64] |= 1ull << b % 64;
    set->any = true;
    return trie_insert(&set->trie, text, n, index);
}

static coe_status read_one(struct tokenizer *t, const json_t *item)
{
    const char *content = NULL;
    int32_t id = -1;
    bool normalized = true;
    struct added_token a = { 0 };
    COE_TRY(json_need_str(item, "content", &content, t->name));
    COE_TRY(json_need_i32(item, "id", 0, TOK_MAX_VOCAB - 1, &id, t->name));
    COE_TRY(json_get_bool(item, "single_word", &a.single_word, t->name));
    COE_TRY(json_get_bool(item, "lstrip", &a.lstrip, t->name));
    COE_TRY(json_get_bool(item, "rstrip", &a.rstrip, t->name));
    COE_TRY(json_get_bool(item, "special", &a.special, t->name));
    normalized = !a.special;
    COE_TRY(json_get_bool(item, "normalized", &normalized, t->name));
    a.normalized = normalized;
    a.id = id;
    a.at = (uint32_t)t->added_text.n;
    a.n = (uint32_t)json_string_length(json_object_get(item, "content"));
    str_add(&t->added_text, content, a.n);
    return !t->added_text.oom && VEC_PUSH(&t->added, a) ? COE_OK : COE_E_NOMEM;
}

/* Indices in order of id; of two tokens with one id the first counts. */
static coe_status sort_by_id(struct tokenizer *t)
{
    if (!VEC_RESERVE(&t->added_by_id, t->added.n)) return COE_E_NOMEM;
    uint32_t *at = t->added_by_id.at;
    bool sorted = true;
    for (uint32_t i = 0; i < t->added.n; i++) {
        at[i] = i;
        if (i && t->added.at[i].id <= t->added.at[i - 1].id) sorted = false;
    }
    t->added_by_id.n = t->added.n;
    for (size_t width = 1; width < t->added.n && !sorted; width *= 2) { /* merge sort: stable, and the table is small */
        VEC(uint32_t) out = { 0 };
        if (!VEC_RESERVE(&out, t->added.n)) return COE_E_NOMEM;
        for (size_t from = 0; from < t->added.n; from += 2 * width) {
            size_t i = from, mid = COE_MIN(from + width, t->added.n), j = mid, end = COE_MIN(mid + width, t->added.n);
            while (i < mid || j < end)
                out.at[out.n++] = j == end || (i < mid && t->added.at[at[i]].id <= t->added.at[at[j]].id) ? at[i++]
                                                                                                          : at[j++];
        }
        memcpy(at, out.at, out.n * sizeof *at);
        VEC_FREE(&out);
    }
    return COE_OK;
}

coe_status added_read(struct tokenizer *t, const json_t *list)
{
    struct encoder e = { .t = t };
    coe_status s = COE_OK;
    if (!list || json_is_null(list)) return COE_OK;
    if (!json_is_array(list))
        return coe_fail(COE_E_INPUT, "%s: added_tokens is %s, expected an array", t->name, json_kind(list));
    if (json_array_size(list) > MAX_ADDED)
        return coe_fail(COE_E_INPUT, "%s: more than %d added tokens", t->name, MAX_ADDED);
    for (size_t i = 0; i < json_array_size(list) && !s; i++) s = read_one(t, json_array_get(list, i));
    if (!s) s = sort_by_id(t);
    for (size_t i = 0; i < t->added.n && !s; i++) {
        struct added_token *a = &t->added.at[i];
        const char *written = t->added_text.at ? t->added_text.at + a->at : "", *text = written;
        size_t n = a->n;
        bool later = a->normalized && t->norm.n; /* found in the normalised text, by its own normalised content */
        if (later) s = normalize(&e, &text, &n);
        if (!s) s = set_add(later ? &t->normal : &t->raw, text, n, (int32_t)i);
        a->shown_at = text == written ? a->at : (uint32_t)t->added_text.n;
        a->shown_n = (uint32_t)n;
        if (text != written) str_add(&t->added_text, text, n);
        if (!s) s = str_check(&t->added_text);
    }
    str_free(&e.norm[0]);
    str_free(&e.norm[1]);
    return s;
}

const struct added_token *tok_added(const struct tokenizer *t, int32_t id)
{
    size_t lo = 0, hi = t->added_by_id.n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        const struct added_token *a = &t->added.at[t->added_by_id.at[mid]];
        if (a->id == id) return a;
        if (a->id < id) lo = mid + 1;
        else hi = mid;
    }
    return NULL;
}

static size_t spaces_before(const char *text, size_t at)
{
    while (at) {
        size_t k = 1;
        while (k < 4 && k < at && ((unsigned char)text[at - k] & 0xC0) == 0x80) k++;
        uint32_t cp;
        if (utf8_decode(text + at - k, k, &cp) != (int)k || !cp_is_space(cp)) break;
        at -= k;
    }
    return at;
}

static size_t spaces_behind(const char *text, size_t n, size_t at)
{
    uint32_t cp;
    for (int k; at < n && (k = utf8_decode(text + at, n - at, &cp)) && cp_is_space(cp); at += (size_t)k) {}
    return at;
}

static bool word_touches(const char *text, size_t n, size_t lo, size_t hi)
{
    uint32_t cp;
    size_t k = 1;
    while (k < 4 && k < lo && ((unsigned char)text[lo - k] & 0xC0) == 0x80) k++;
    if (lo && utf8_decode(text + lo - k, k, &cp) == (int)k && cp_is_word(cp)) return true;
    return hi < n && utf8_decode(text + hi, n - hi, &cp) && cp_is_word(cp);
}

/* The next match at or behind `from`: its token's index, or -1. */
static int32_t find_next(const struct added_set *set, const char *text, size_t n, size_t from, size_t *at, size_t *len)
{
    const unsigned char *u = (const unsigned char *)text;
    for (size_t i = from; i < n; i++) {
        unsigned b = i + 1 < n ? u[i + 1] : 0;
        if (!(set->pairs[u[i] * 4 + b / 64] >> b % 64 & 1)) continue;
        int32_t index = trie_longest(&set->trie, text + i, n - i, len);
        if (index < 0) continue;
        *at = i;
        return index;
    }
    return -1;
}

coe_status added_split(struct encoder *e, const struct added_set *set, const char *text, size_t n, bool first,
                       stretch_fn *stretch)
{
    if (!set->any) return stretch(e, text, n, first);
    size_t done = 0, at, len, from = 0;
    for (int32_t i; (i = find_next(set, text, n, from, &at, &len)) >= 0;) {
        const struct added_token *a = &e->t->added.at[i];
        size_t lo = at, hi = from = at + len;
        if (a->single_word && word_touches(text, n, lo, hi)) continue;
        if (a->lstrip) lo = COE_MAX(spaces_before(text, lo), done);
        if (a->rstrip) hi = spaces_behind(text, n, hi);
        if (lo >= hi) continue; /* swallowed whole by the token before */
        if (lo > done) COE_TRY(stretch(e, text + done, lo - done, first && !done));
        COE_TRY(emit_id(e, a->id));
        done = hi;
    }
    return done < n ? stretch(e, text + done, n - done, first && !done) : COE_OK;
}
