/* pattern_match.c — finding matches of a compiled pattern. One table look-up per character; a repeat runs as far as it
 * can and gives back one character at a time, but only where what follows could begin.
 *
 * Linear in the text for every pattern in use: where an alternative begins with an unlimited repeat and fails, it fails
 * at every later start within the same run too (it could only have ended that run at the same places), and `dead`
 * remembers it. */
#include <string.h>

#include "text/pattern.h"

/* Classes of the character at p (p < end) and its length. */
static inline uint32_t class_at(const struct pattern *pt, const unsigned char *p, const unsigned char *end, size_t *len)
{
    uint32_t cp = 0xFFFD;
    if (*p < 0x80) {
        *len = 1;
        return pt->ascii[*p];
    }
    int n = utf8_decode((const char *)p, (size_t)(end - p), &cp);
    *len = n ? (size_t)n : 1;
    return pt->mask.at[pt->page[cp >> 8] + (cp & 255)];
}

/* The character in front of p, p > start. */
static const unsigned char *step_back(const unsigned char *start, const unsigned char *p)
{
    for (size_t k = 1; k <= 4 && k <= (size_t)(p - start); k++)
        if (utf8_decode((const char *)p - k, k, NULL) == (int)k) return p - k;
    return p - 1;
}

struct walk {
    const struct pattern *p;
    const unsigned char *text, *end;
    const struct pattern_item *leading; /* the item whose run end is noted */
    const unsigned char *run_end;
};

static bool can_follow(const struct walk *w, const struct pattern_item *it, const unsigned char *at)
{
    size_t len;
    if (it->after & PATTERN_ANY) return true;
    return at < w->end && (class_at(w->p, at, w->end, &len) & it->after);
}

/* A choice of a group: single characters one after another. NULL: no match. */
static const unsigned char *match_fixed(const struct walk *w, const struct pattern_seq *seq, const unsigned char *at)
{
    const struct pattern_item *it = w->p->item.at + seq->at;
    for (uint32_t i = 0; i < seq->n; i++) {
        size_t len;
        if (at == w->end || !(class_at(w->p, at, w->end, &len) & it[i].bits)) return NULL;
        at += len;
    }
    return at;
}

/* As in Ruby, every line has an end, and so has the text. */
static bool line_ends(const struct walk *w, const unsigned char *at) { return at == w->end || *at == '\n'; }

static const unsigned char *match_items(struct walk *w, const struct pattern_item *it, const struct pattern_item *end,
                                        const unsigned char *at);

static const unsigned char *match_group(struct walk *w, const struct pattern_item *it, const struct pattern_item *end,
                                        const unsigned char *at)
{
    for (uint32_t i = 0; i < it->n; i++) {
        const unsigned char *q = match_fixed(w, &w->p->seq.at[it->first + i], at);
        if (q && (q = match_items(w, it + 1, end, q))) return q;
    }
    return it->optional ? match_items(w, it + 1, end, at) : NULL;
}

/* The end of the match of items it … end-1 at `at`, or NULL. */
static const unsigned char *match_items(struct walk *w, const struct pattern_item *it, const struct pattern_item *end,
                                        const unsigned char *at)
{
    for (; it < end; it++) {
        size_t len;
        if (it->kind == ITEM_GROUP) return match_group(w, it, end, at);
        if (it->kind == ITEM_LINE_END) {
            if (!line_ends(w, at)) return NULL;
            continue;
        }
        if (it->kind != ITEM_SET) {
            bool there = at < w->end && (class_at(w->p, at, w->end, &len) & it->bits);
            if (there != (it->kind == ITEM_AHEAD)) return NULL;
            continue;
        }
        const unsigned char *q = at;
        uint32_t k = 0;
        for (; k < it->max && q < w->end && (class_at(w->p, q, w->end, &len) & it->bits); k++) q += len;
        if (it == w->leading) w->run_end = q;
        if (k < it->min) return NULL;
        if (it + 1 == end || it->possessive || it->min == it->max) {
            at = q;
            continue;
        }
        for (;; k--) {
            const unsigned char *r = can_follow(w, it, q) ? match_items(w, it + 1, end, q) : NULL;
            if (r || k == it->min) return r;
            q = step_back(at, q);
        }
    }
    return at;
}

/* The end of a match that begins at `at`, or NULL. */
static const unsigned char *match_here(struct pattern_scan *s, const unsigned char *at, uint32_t classes)
{
    struct walk w = { s->p, s->text, s->end, NULL, NULL };
    for (uint32_t i = 0; i < s->p->n_alts; i++) {
        const struct pattern_seq *alt = &s->p->seq.at[i];
        if (!(classes & alt->starts) || at < s->dead[i]) continue;
        const struct pattern_item *it = s->p->item.at + alt->at;
        w.leading = it->kind == ITEM_SET && it->max == UINT32_MAX ? it : NULL;
        w.run_end = NULL;
        const unsigned char *q = match_items(&w, it, it + alt->n, at);
        if (q) return q;
        if (w.run_end) s->dead[i] = w.run_end;
    }
    return NULL;
}

static bool next_fast(struct pattern_scan *s, size_t from, size_t *lo, size_t *hi)
{
    const uint32_t starts = s->p->starts;
    size_t len;
    for (const unsigned char *at = s->text + from; at < s->end; at += len) {
        uint32_t classes = class_at(s->p, at, s->end, &len);
        if (!(classes & starts)) continue;
        const unsigned char *q = match_here(s, at, classes);
        if (!q) continue;
        *lo = (size_t)(at - s->text);
        *hi = (size_t)(q - s->text);
        return true;
    }
    return false;
}

coe_status pattern_scan_begin(struct pattern_scan *s, const struct pattern *p, const char *text, size_t n)
{
    s->p = p;
    s->text = (const unsigned char *)text;
    s->end = s->text + n;
    s->pcre_data = NULL;
    s->empty_at = SIZE_MAX;
    if (p->kind == PATTERN_FAST) memset(s->dead, 0, p->n_alts * sizeof s->dead[0]);
    return COE_OK;
}

coe_status pattern_next(struct pattern_scan *s, size_t from, size_t *lo, size_t *hi, bool *found)
{
    size_t n = (size_t)(s->end - s->text);
    *found = false;
    if (s->p->kind == PATTERN_FAST) {
        *found = next_fast(s, from, lo, hi);
        return COE_OK;
    }
    if (s->p->kind == PATTERN_PCRE) return pattern_pcre_next(s, from, lo, hi, found);
    const struct str *word = &s->p->literal;
    const unsigned char *at = from < n ? memmem(s->text + from, n - from, word->at, word->n) : NULL;
    if (at) {
        *found = true;
        *lo = (size_t)(at - s->text);
        *hi = *lo + word->n;
    }
    return COE_OK;
}
