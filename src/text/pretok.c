/* pretok.c — the pre-tokeniser: each step cuts the text it is given, or rewrites it, and hands the pieces to the next;
 * behind the last stands the model. Nothing is collected: a piece goes through all steps before the next one is cut. */
#include <string.h>

#include "text/bytemap.h"
#include "text/tok.h"

static coe_status run_step(struct encoder *e, size_t step, const char *text, size_t n, bool first);

/* Where a cutter's stretches go, put together as the behaviour says. A stretch is held back while it may still grow. */
struct joiner {
    struct encoder *e;
    const struct pre_step *step;
    size_t next; /* step */
    const char *text;
    size_t lo, hi; /* held back, empty when lo == hi and !holds */
    bool holds, held_match, first;
};

static coe_status flush(struct joiner *j)
{
    if (!j->holds) return COE_OK;
    j->holds = false;
    return j->hi > j->lo ? run_step(j->e, j->next, j->text + j->lo, j->hi - j->lo, j->first && !j->lo) : COE_OK;
}

/* The stretches come in order and touch. */
static coe_status take(struct joiner *j, size_t lo, size_t hi, bool match)
{
    match ^= j->step->invert;
    bool grows = false;
    switch (j->step->behavior) {
    case SPLIT_REMOVED:
        if (match) return COE_OK;
        break;
    case SPLIT_ISOLATED: break;
    case SPLIT_CONTIGUOUS: grows = j->holds && j->held_match == match; break;
    case SPLIT_WITH_PREVIOUS: grows = j->holds && match && !j->held_match; break;
    case SPLIT_WITH_NEXT: grows = j->holds && j->held_match && !match; break;
    }
    if (grows) {
        j->hi = hi;
        j->held_match = match;
        return COE_OK;
    }
    COE_TRY(flush(j));
    j->lo = lo;
    j->hi = hi;
    j->holds = true;
    j->held_match = match;
    return COE_OK;
}

static coe_status split(struct joiner *j, const struct pattern *p, size_t n)
{
    struct pattern_scan scan;
    size_t at = 0, lo = 0, hi = 0;
    bool found = true;
    coe_status s = pattern_scan_begin(&scan, p, j->text, n);
    while (!s) {
        s = pattern_next(&scan, at, &lo, &hi, &found);
        if (s || !found) break;
        if (lo > at) s = take(j, at, lo, false);
        if (!s) s = take(j, lo, hi, true);
        at = hi;
    }
    pattern_scan_end(&scan);
    if (!s && at < n) s = take(j, at, n, false);
    return s ? s : flush(j);
}

static coe_status split_characters(struct joiner *j, size_t n)
{
    size_t from = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp = 0xFFFD;
        int k = utf8_decode(j->text + i, n - i, &cp);
        size_t len = k ? (size_t)k : 1;
        if (j->step->is_match(cp)) {
            if (i > from) COE_TRY(take(j, from, i, false));
            COE_TRY(take(j, i, i + len, true));
            from = i + len;
        }
        i += len;
    }
    if (from < n) COE_TRY(take(j, from, n, false));
    return flush(j);
}

/* Every byte as its character of the byte map, for the steps behind. */
static coe_status map_bytes(struct encoder *e, struct str *out, const char *text, size_t n)
{
    str_clear(out);
    for (size_t i = 0; i < n; i++) {
        char c[4];
        str_add(out, c, (size_t)utf8_encode(bytemap_char((unsigned char)text[i]), c));
    }
    e->mapped = true;
    return str_check(out);
}

/* The byte level's own split comes before the mapping; the steps behind see one mapped piece at a time. */
static coe_status byte_level_piece(struct encoder *e, size_t step, const char *text, size_t n, bool first)
{
    const struct pre_step *p = &e->t->pre.at[step];
    if (!p->maps) return run_step(e, step + 1, text, n, first);
    COE_TRY(map_bytes(e, &e->pre[step], text, n));
    coe_status s = run_step(e, step + 1, e->pre[step].at, e->pre[step].n, first);
    e->mapped = false;
    return s;
}

static coe_status byte_level(struct encoder *e, size_t step, const char *text, size_t n, bool first)
{
    const struct pre_step *p = &e->t->pre.at[step];
    struct pattern_scan scan;
    size_t at = 0, lo = 0, hi = 0;
    bool found = true;
    if (!p->pattern) return byte_level_piece(e, step, text, n, first);
    coe_status s = pattern_scan_begin(&scan, p->pattern, text, n);
    while (!s) {
        s = pattern_next(&scan, at, &lo, &hi, &found);
        if (s || !found) break;
        if (lo > at) s = byte_level_piece(e, step, text + at, lo - at, first && !at);
        if (!s && hi > lo) s = byte_level_piece(e, step, text + lo, hi - lo, first && !lo);
        at = hi;
    }
    pattern_scan_end(&scan);
    return s || at == n ? s : byte_level_piece(e, step, text + at, n - at, first && !at);
}

static coe_status metaspace(struct encoder *e, size_t step, const char *text, size_t n, bool first)
{
    const struct pre_step *p = &e->t->pre.at[step];
    const struct str *mark = &p->replacement;
    struct str *out = &e->pre[step];
    bool has = n && (text[0] == ' ' || (n >= mark->n && !memcmp(text, mark->at, mark->n)));
    str_clear(out);
    if (!has && (p->scheme == PREPEND_ALWAYS || (p->scheme == PREPEND_FIRST && first))) str_add(out, mark->at, mark->n);
    for (const char *end = text + n; text < end;) {
        const char *space = memchr(text, ' ', (size_t)(end - text));
        size_t k = (size_t)((space ? space : end) - text);
        str_add(out, text, k);
        if (space) str_add(out, mark->at, mark->n);
        text += k + (space != NULL);
    }
    COE_TRY(str_check(out));
    if (!p->split) return run_step(e, step + 1, out->at, out->n, first);
    struct joiner j = { .e = e, .step = p, .next = step + 1, .text = out->at, .first = first };
    return split(&j, p->pattern, out->n);
}

static coe_status run_step(struct encoder *e, size_t step, const char *text, size_t n, bool first)
{
    if (step == e->t->pre.n) return encode_piece(e, text, n);
    const struct pre_step *p = &e->t->pre.at[step];
    if (p->kind == PRE_METASPACE) return metaspace(e, step, text, n, first);
    if (p->kind == PRE_BYTE_LEVEL) {
        if (p->prefix_space && n && text[0] != ' ') {
            struct str *out = &e->lead[step];
            str_clear(out);
            str_addc(out, ' ');
            str_add(out, text, n);
            COE_TRY(str_check(out));
            text = out->at;
            n = out->n;
        }
        return byte_level(e, step, text, n, first);
    }
    struct joiner j = { .e = e, .step = p, .next = step + 1, .text = text, .first = first };
    return p->kind == PRE_SPLIT ? split(&j, p->pattern, n) : split_characters(&j, n);
}

coe_status pretokenize(struct encoder *e, const char *text, size_t n, bool first)
{
    return n ? run_step(e, 0, text, n, first) : COE_OK;
}
