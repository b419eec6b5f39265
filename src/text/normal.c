/* normal.c — the normaliser's steps one after another. */
#include <string.h>
#include <utf8proc.h>

#include "text/bytemap.h"
#include "text/tok.h"
#include "text/unicode_form.h"

/* Appends what a step makes of each character; bytes that are not UTF-8 stay. */
static void each_character(struct str *out, const char *text, size_t n, void (*fn)(struct str *out, uint32_t cp))
{
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int k = utf8_decode(text + i, n - i, &cp);
        if (k) fn(out, cp);
        else str_addc(out, text[i]);
        i += k ? (size_t)k : 1;
    }
}

static void add_cp(struct str *out, uint32_t cp)
{
    char c[4];
    str_add(out, c, (size_t)utf8_encode(cp, c));
}

static void lower(struct str *out, uint32_t cp)
{
    if (cp == 0x130) str_addz(out, "i\xCC\x87"); /* the one character whose small form is two */
    else add_cp(out, (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp));
}

static void without_marks(struct str *out, uint32_t cp)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    if (c != UTF8PROC_CATEGORY_MN && c != UTF8PROC_CATEGORY_MC && c != UTF8PROC_CATEGORY_ME) add_cp(out, cp);
}

/* The rule of SentencePiece's nmt maps: most controls vanish, white space of all kinds is a space. */
static void nmt(struct str *out, uint32_t cp)
{
    if ((cp >= 1 && cp <= 8) || cp == 0xB || (cp >= 0xE && cp <= 0x1F) || cp == 0x7F || cp == 0x8F || cp == 0x9F)
        return;
    bool space = cp == 9 || cp == 0xA || cp == 0xC || cp == 0xD || cp == 0x1680 || (cp >= 0x200B && cp <= 0x200F) ||
                 cp == 0x2028 || cp == 0x2029 || cp == 0x2581 || cp == 0xFEFF || cp == 0xFFFD;
    add_cp(out, space ? ' ' : cp);
}

static void strip(const char **text, size_t *n, bool left, bool right)
{
    uint32_t cp;
    for (int k; left && *n && (k = utf8_decode(*text, *n, &cp)) && cp_is_space(cp); *n -= (size_t)k) *text += k;
    while (right && *n) {
        size_t k = 1;
        while (k < 4 && k < *n && ((unsigned char)(*text)[*n - k] & 0xC0) == 0x80) k++;
        if (utf8_decode(*text + *n - k, k, &cp) != (int)k || !cp_is_space(cp)) break;
        *n -= k;
    }
}

static coe_status replace(struct str *out, const struct norm_step *step, const char *text, size_t n)
{
    struct pattern_scan scan;
    size_t at = 0, lo, hi;
    bool found = true;
    coe_status s = pattern_scan_begin(&scan, step->pattern, text, n);
    while (!s && !(s = pattern_next(&scan, at, &lo, &hi, &found)) && found) {
        str_add(out, text + at, lo - at);
        str_add(out, step->text.at, step->text.n);
        at = hi;
    }
    pattern_scan_end(&scan);
    if (!s) str_add(out, text + at, n - at);
    return s ? s : str_check(out);
}

static size_t grapheme(const char *text, size_t n)
{
    utf8proc_int32_t state = 0;
    uint32_t before, cp;
    int k = utf8_decode(text, n, &before);
    size_t len = k ? (size_t)k : 1;
    if (!k) return 1;
    while (len < n) {
        /* two ASCII characters are one cluster only as CR LF */
        if (before < 0x80 && (unsigned char)text[len] < 0x80 && before != '\r') return len;
        if (!(k = utf8_decode(text + len, n - len, &cp)) ||
            utf8proc_grapheme_break_stateful((utf8proc_int32_t)before, (utf8proc_int32_t)cp, &state))
            return len;
        before = cp;
        len += (size_t)k;
    }
    return len;
}

/* As the `tokenizers` library does it: a grapheme cluster below six bytes is looked up whole, the shortest key that it
 * begins with standing for all of it; else each character by itself. */
static void charsmap_by_clusters(struct str *out, const struct charsmap *map, const char *text, size_t n)
{
    const char *to;
    for (size_t k; n; text += k, n -= k) {
        k = grapheme(text, n);
        if (k < 6 && charsmap_shortest(map, text, k, &to)) {
            str_addz(out, to);
            continue;
        }
        for (size_t i = 0; i < k;) {
            int c = utf8_decode(text + i, k - i, NULL);
            size_t len = c ? (size_t)c : 1;
            if (charsmap_shortest(map, text + i, len, &to)) str_addz(out, to);
            else str_add(out, text + i, len);
            i += len;
        }
    }
}

static coe_status apply(const struct tokenizer *t, const struct norm_step *step, struct str *out, const char *text,
                        size_t n)
{
    switch (step->kind) {
    case NORM_NFC: return unicode_form(out, FORM_NFC, text, n);
    case NORM_NFD: return unicode_form(out, FORM_NFD, text, n);
    case NORM_NFKC: return unicode_form(out, FORM_NFKC, text, n);
    case NORM_NFKD: return unicode_form(out, FORM_NFKD, text, n);
    case NORM_LOWERCASE: each_character(out, text, n, lower); break;
    case NORM_STRIP_ACCENTS: each_character(out, text, n, without_marks); break;
    case NORM_NMT: each_character(out, text, n, nmt); break;
    case NORM_STRIP:
        strip(&text, &n, step->left, step->right);
        str_add(out, text, n);
        break;
    case NORM_PREPEND:
        if (n) str_add(out, step->text.at, step->text.n);
        str_add(out, text, n);
        break;
    case NORM_REPLACE: return replace(out, step, text, n);
    case NORM_CHARSMAP: charsmap_by_clusters(out, &step->map, text, n); break;
    case NORM_BYTE_LEVEL:
        for (size_t i = 0; i < n; i++) add_cp(out, bytemap_char((unsigned char)text[i]));
        break;
    case NORM_SPM: return spm_normalize(t, step, out, text, n);
    }
    return str_check(out);
}

/* The step would leave the text as it is. */
static bool is_idle(const struct norm_step *step, const char *text, size_t n)
{
    static const enum unicode_form form[] = {
        [NORM_NFC] = FORM_NFC, [NORM_NFD] = FORM_NFD, [NORM_NFKC] = FORM_NFKC, [NORM_NFKD] = FORM_NFKD
    };
    return step->kind <= NORM_NFKD && unicode_form_prefix(form[step->kind], text, n) == n;
}

coe_status normalize(struct encoder *e, const char **text, size_t *n)
{
    int turn = 0;
    for (size_t i = 0; i < e->t->norm.n; i++) {
        const struct norm_step *step = &e->t->norm.at[i];
        if (is_idle(step, *text, *n)) continue;
        struct str *out = &e->norm[turn];
        str_clear(out);
        COE_TRY(apply(e->t, step, out, *text, *n));
        *text = out->at ? out->at : "";
        *n = out->n;
        turn = !turn;
    }
    return COE_OK;
}
