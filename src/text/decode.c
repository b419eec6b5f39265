/* decode.c — ids to text: the spelling of each token through the decoder's steps, each of which turns a list of strings
 * into a list of strings, as in the `tokenizers` library. The byte level alone, the common case, goes straight from ids
 * to bytes. */
#include <string.h>

#include "text/bytemap.h"
#include "text/tok.h"

struct list { /* strings, one after another: text.at[end[i-1] .. end[i]) */
    struct str text;
    VEC(size_t) end;
};

static const char *item(const struct list *l, size_t i, size_t *n)
{
    size_t from = i ? l->end.at[i - 1] : 0;
    *n = l->end.at[i] - from;
    return l->text.at ? l->text.at + from : "";
}

static coe_status end_item(struct list *l)
{
    return !l->text.oom && VEC_PUSH(&l->end, l->text.n) ? COE_OK : COE_E_NOMEM;
}

static void add_mapped(struct str *out, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char c[4];
        str_add(out, c, (size_t)utf8_encode(bytemap_char((unsigned char)bytes[i]), c));
    }
}

bool tok_spelling(const struct tokenizer *t, int32_t id, struct str *out)
{
    const struct added_token *a = tok_added(t, id);
    if (a) {
        if (a->shown_n) str_add(out, t->added_text.at + a->shown_at, a->shown_n);
        return true;
    }
    if (id < 0 || id >= (int32_t)t->tab.n_vocab || t->tab.type[id] == TOK_ABSENT) return false;
    size_t n;
    const char *text = tok_text(&t->tab, id, &n);
    if (t->tab.flags & TOK_RAW && !(t->tab.type[id] & TOK_LITERAL)) add_mapped(out, text, n);
    else str_add(out, text, n);
    return true;
}

/* Bytes of a spelled token: its characters through the byte map, or as they are when one is outside it. */
static void add_unmapped(struct str *out, const char *text, size_t n)
{
    size_t before = out->n;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int k = utf8_decode(text + i, n - i, &cp), b = k ? bytemap_byte(cp) : -1;
        if (b < 0) {
            out->n = before;
            str_add(out, text, n);
            return;
        }
        str_addc(out, (char)b);
        i += (size_t)k;
    }
}

static coe_status replace(const struct dec_step *d, struct str *out, const char *text, size_t n)
{
    struct pattern_scan scan;
    size_t at = 0, lo, hi;
    bool found = true;
    coe_status s = pattern_scan_begin(&scan, d->pattern, text, n);
    while (!s && !(s = pattern_next(&scan, at, &lo, &hi, &found)) && found) {
        str_add(out, text + at, lo - at);
        str_add(out, d->text.at, d->text.n);
        at = hi;
    }
    pattern_scan_end(&scan);
    str_add(out, text + at, n - at);
    return s ? s : str_check(out);
}

/* The byte of a token spelled <0xNN>, or -1. */
int tok_byte_of(const char *text, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    if (n != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    const char *hi = memchr(digits, text[3] | (text[3] >= 'A' ? 32 : 0), 16),
               *lo = memchr(digits, text[4] | (text[4] >= 'A' ? 32 : 0), 16);
    return hi && lo ? (int)(hi - digits) * 16 + (int)(lo - digits) : -1;
}

static bool is_utf8(const char *text, size_t n)
{
    for (int k; n; text += k, n -= (size_t)k)
        if (!(k = utf8_decode(text, n, NULL))) return false;
    return true;
}

/* A run of byte tokens: text when the whole run is, else one U+FFFD for each byte. */
static coe_status end_byte_run(struct list *out, struct str *run)
{
    if (!run->n) return COE_OK;
    bool valid = is_utf8(run->at, run->n);
    if (valid) str_add(&out->text, run->at, run->n);
    for (size_t i = 0; i < run->n && !valid; i++) str_addz(&out->text, "\xEF\xBF\xBD");
    str_clear(run);
    return end_item(out);
}

static coe_status byte_fallback(struct list *out, const struct list *in)
{
    struct str run = { 0 };
    coe_status s = COE_OK;
    for (size_t i = 0; i < in->end.n && !s; i++) {
        size_t n;
        const char *text = item(in, i, &n);
        int b = tok_byte_of(text, n);
        if (b >= 0) {
            str_addc(&run, (char)b);
            continue;
        }
        s = end_byte_run(out, &run);
        str_add(&out->text, text, n);
        if (!s) s = end_item(out);
    }
    if (!s) s = end_byte_run(out, &run);
    str_free(&run);
    return s;
}

static void strip(const struct dec_step *d, struct str *out, const char *text, size_t n)
{
    const struct str *c = &d->text;
    for (size_t i = 0; i < d->start && c->n && n >= c->n && !memcmp(text, c->at, c->n); i++) text += c->n, n -= c->n;
    for (size_t i = 0; i < d->stop && c->n && n >= c->n && !memcmp(text + n - c->n, c->at, c->n); i++) n -= c->n;
    str_add(out, text, n);
}

static void metaspace(const struct dec_step *d, struct str *out, const char *text, size_t n, bool first)
{
    for (size_t i = 0; i < n;) {
        bool mark = n - i >= d->text.n && !memcmp(text + i, d->text.at, d->text.n);
        if (!mark) str_addc(out, text[i]);
        else if (!first || !d->drop_first) str_addc(out, ' ');
        i += mark ? d->text.n : 1;
    }
}

coe_status tok_decode_token(const struct dec_step *d, struct str *out, const char *text, size_t n, bool first)
{
    switch (d->kind) {
    case DEC_REPLACE: return replace(d, out, text, n);
    case DEC_STRIP: strip(d, out, text, n); break;
    case DEC_METASPACE: metaspace(d, out, text, n, first); break;
    case DEC_BYTE_LEVEL: add_unmapped(out, text, n); break;
    default: str_add(out, text, n); break;
    }
    return str_check(out);
}

static coe_status apply(const struct dec_step *d, struct list *out, const struct list *in)
{
    const bool joins = d->kind == DEC_BYTE_LEVEL || d->kind == DEC_FUSE;
    if (d->kind == DEC_BYTE_FALLBACK) return byte_fallback(out, in);
    for (size_t i = 0; i < in->end.n; i++) {
        size_t n;
        const char *text = item(in, i, &n);
        COE_TRY(tok_decode_token(d, &out->text, text, n, !i));
        if (!joins) COE_TRY(end_item(out));
    }
    return joins ? end_item(out) : COE_OK;
}

coe_status tok_no_such_id(const struct tokenizer *t, int32_t id)
{
    return coe_fail(COE_E_USAGE, "%s: there is no token %d (the vocabulary ends at %d)", t->name, id, t->n_ids - 1);
}

bool tok_is_special(const struct tokenizer *t, int32_t id)
{
    const struct added_token *a = tok_added(t, id);
    if (a) return a->special;
    return t->tab.flags & TOK_SPM && id >= 0 && id < (int32_t)t->tab.n_vocab && t->tab.type[id] == TOK_CONTROL;
}

static coe_status decode_in_steps(const struct tokenizer *t, struct str *out, const int32_t *ids, size_t n,
                                  bool skip_special)
{
    struct list a = { 0 }, b = { 0 };
    coe_status s = COE_OK;
    for (size_t i = 0; i < n && !s; i++) {
        if (skip_special && tok_is_special(t, ids[i])) continue;
        s = tok_spelling(t, ids[i], &a.text) ? end_item(&a) : tok_no_such_id(t, ids[i]);
    }
    for (size_t i = 0; i < t->dec.n && !s; i++) {
        s = apply(&t->dec.at[i], &b, &a);
        struct list spare = a;
        a = b;
        b = spare;
        str_clear(&b.text);
        b.end.n = 0;
    }
    for (size_t i = 0; i < a.end.n && !s; i++) {
        size_t k;
        const char *text = item(&a, i, &k);
        if (i && !t->dec.n) str_addc(out, ' '); /* without a decoder the library joins with spaces */
        str_add(out, text, k);
    }
    str_free(&a.text);
    str_free(&b.text);
    VEC_FREE(&a.end);
    VEC_FREE(&b.end);
    return s ? s : str_check(out);
}

coe_status tok_add_bytes(const struct tokenizer *t, struct str *out, int32_t id)
{
    const struct added_token *a = tok_added(t, id);
    size_t n;
    if (a) {
        if (a->shown_n) str_add(out, t->added_text.at + a->shown_at, a->shown_n);
        return COE_OK;
    }
    if (id < 0 || id >= (int32_t)t->tab.n_vocab || t->tab.type[id] == TOK_ABSENT) return tok_no_such_id(t, id);
    const char *text = tok_text(&t->tab, id, &n);
    str_add(out, text, n);
    return COE_OK;
}

bool tok_is_plain_bytes(const struct tokenizer *t)
{
    return t->tab.flags & TOK_RAW && t->dec.n == 1 && t->dec.at[0].kind == DEC_BYTE_LEVEL;
}

coe_status tokenizer_decode(const struct tokenizer *t, struct str *out, const int32_t *ids, size_t n, bool skip_special)
{
    if (t->dec.n && (t->dec.at[0].kind == DEC_SPM || t->dec.at[0].kind == DEC_LLAMA)) {
        struct spm_state state = { .at_start = true };
        coe_status s = COE_OK;
        for (size_t i = 0; i < n && !s; i++) s = spm_decode_id(t, &state, out, ids[i], skip_special);
        if (!s) s = spm_decode_end(t, &state, out);
        str_free(&state.run);
        return s;
    }
    if (!tok_is_plain_bytes(t)) return decode_in_steps(t, out, ids, n, skip_special);
    for (size_t i = 0; i < n; i++)
        if (!skip_special || !tok_is_special(t, ids[i])) COE_TRY(tok_add_bytes(t, out, ids[i]));
    return str_check(out);
}

static void lossy(struct str *out, const char *text, size_t n, bool each_byte)
{
    while (n) {
        int k = utf8_decode(text, n, NULL);
        size_t len = k ? (size_t)k : 1;
        if (k) {
            str_add(out, text, len);
        } else {
            /* the longest beginning of a character counts as one: try how many bytes could still have become one */
            while (!each_byte && len < n && len < 3 && utf8_incomplete_tail(text, len + 1) == len + 1) len++;
            str_addz(out, "\xEF\xBF\xBD");
        }
        text += len;
        n -= len;
    }
}

void utf8_lossy(struct str *out, const char *text, size_t n) { lossy(out, text, n, false); }
void utf8_lossy_bytes(struct str *out, const char *text, size_t n) { lossy(out, text, n, true); }
