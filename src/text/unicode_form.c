/* unicode_form.c — normal forms from utf8proc's decompositions and compositions, with our own ordering of marks (a
 * stable counting sort for long runs; the library's exchange sort is quadratic).
 *
 * Most text is in its form already. A character is inert when its form is itself, it is no mark, and it never joins the
 * character before it: a stretch of inert characters is copied. The rest is worked on from the inert character before
 * it to the next one behind. */
#include "text/unicode_form.h"

#include <pthread.h>
#include <string.h>
#include <utf8proc.h>

#define INERT_LIMIT 0x30000u /* nothing above has a form other than itself */
#define SECOND 0x8000u       /* utf8proc: comb_index of a character that joins the one before it */

static uint8_t inert[4][INERT_LIMIT / 8];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static int options(enum unicode_form form)
{
    int o = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
    if (form == FORM_NFKC || form == FORM_NFKD) o |= UTF8PROC_COMPAT;
    return o;
}

static bool composes(enum unicode_form form) { return form == FORM_NFC || form == FORM_NFKC; }

static utf8proc_ssize_t decompose(enum unicode_form form, uint32_t cp, utf8proc_int32_t *to, size_t cap)
{
    int boundary = 0;
    return utf8proc_decompose_char((utf8proc_int32_t)cp, to, (utf8proc_ssize_t)cap, options(form), &boundary);
}

static bool is_inert(enum unicode_form form, uint32_t cp)
{
    const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)cp);
    utf8proc_int32_t d[32];
    if (p->combining_class || (p->comb_index != UINT16_MAX && p->comb_index >= SECOND)) return false;
    if ((cp >= 0x1160 && cp < 0x1200) || (cp >= 0x1100 && cp < 0x1160 && !composes(form))) return cp < 0x1160;
    utf8proc_ssize_t n = decompose(form, cp, d, 32);
    if (n < 1 || n > 32) return false;
    if (composes(form) && n > 1)
        n = utf8proc_normalize_utf32(d, n, (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    return n == 1 && d[0] == (utf8proc_int32_t)cp;
}

static void find_inert(void)
{
    for (int form = 0; form < 4; form++)
        for (uint32_t cp = 0; cp < INERT_LIMIT; cp++)
            if (is_inert((enum unicode_form)form, cp)) inert[form][cp / 8] |= (uint8_t)(1u << cp % 8);
}

size_t unicode_form_prefix(enum unicode_form form, const char *text, size_t n)
{
    size_t i = 0, last = 0; /* last: the start of the character before i */
    const uint32_t plain = composes(form) && form == FORM_NFC ? 0x300 : 0x80;
    bool ready = false;
    while (i < n) {
        uint32_t cp = 0xFFFD;
        int k = (unsigned char)text[i] < 0x80 ? (cp = (unsigned char)text[i], 1) : utf8_decode(text + i, n - i, &cp);
        if (cp >= plain && k) {
            if (!ready) pthread_once(&once, find_inert);
            ready = true;
            if (cp < INERT_LIMIT && !(inert[form][cp / 8] >> cp % 8 & 1)) return last;
        }
        last = i;
        i += k ? (size_t)k : 1;
    }
    return n;
}

struct work {
    VEC(utf8proc_int32_t) cp;
};

/* Canonical order within marks[0..n): by combining class, equals as they stand. */
static bool order_run(utf8proc_int32_t *cp, size_t n)
{
    size_t start[256] = { 0 };
    VEC(utf8proc_int32_t) sorted = { 0 };
    if (!VEC_RESERVE(&sorted, n)) return false;
    for (size_t i = 0; i < n; i++) start[(size_t)utf8proc_get_property(cp[i])->combining_class]++;
    for (size_t c = 0, at = 0; c < 256; c++) {
        size_t k = start[c];
        start[c] = at;
        at += k;
    }
    for (size_t i = 0; i < n; i++) sorted.at[start[(size_t)utf8proc_get_property(cp[i])->combining_class]++] = cp[i];
    memcpy(cp, sorted.at, n * sizeof *cp);
    VEC_FREE(&sorted);
    return true;
}

static bool order_marks(struct work *w)
{
    for (size_t i = 0; i < w->cp.n;) {
        if (!utf8proc_get_property(w->cp.at[i])->combining_class) {
            i++;
            continue;
        }
        size_t from = i;
        bool sorted = true;
        for (int last = 0; i < w->cp.n; i++) {
            int c = utf8proc_get_property(w->cp.at[i])->combining_class;
            if (!c) break;
            if (c < last) sorted = false;
            last = c;
        }
        if (!sorted && !order_run(w->cp.at + from, i - from)) return false;
    }
    return true;
}

/* Ends a stretch of characters: ordered, composed, appended. */
static coe_status settle(struct work *w, enum unicode_form form, struct str *out)
{
    if (!order_marks(w)) return COE_E_NOMEM;
    utf8proc_ssize_t n = (utf8proc_ssize_t)w->cp.n;
    if (composes(form) && n)
        n = utf8proc_normalize_utf32(w->cp.at, n, (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    for (utf8proc_ssize_t i = 0; i < n; i++) {
        char c[4];
        str_add(out, c, (size_t)utf8_encode((uint32_t)w->cp.at[i], c));
    }
    w->cp.n = 0;
    return str_check(out);
}

/* The form of a stretch without regard to what is around it. */
static coe_status work_on(struct work *w, struct str *out, enum unicode_form form, const char *text, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int k = utf8_decode(text + i, n - i, &cp);
        if (!k) { /* a byte that is no UTF-8 stands between characters */
            COE_TRY(settle(w, form, out));
            str_addc(out, text[i++]);
            continue;
        }
        if (!VEC_RESERVE(&w->cp, w->cp.n + 32)) return COE_E_NOMEM;
        utf8proc_ssize_t d = decompose(form, cp, w->cp.at + w->cp.n, 32);
        w->cp.n += d > 0 && d <= 32 ? (size_t)d : 0;
        i += (size_t)k;
    }
    return settle(w, form, out);
}

/* How far the characters at text reach that are not inert. */
static size_t lively(enum unicode_form form, const char *text, size_t n)
{
    size_t i = 0;
    while (i < n) {
        uint32_t cp;
        int k = utf8_decode(text + i, n - i, &cp);
        if (!k || cp >= INERT_LIMIT || (inert[form][cp / 8] >> cp % 8 & 1)) break;
        i += (size_t)k;
    }
    return i;
}

coe_status unicode_form(struct str *out, enum unicode_form form, const char *text, size_t n)
{
    struct work w = { 0 };
    coe_status s = COE_OK;
    while (n && !s) {
        size_t k = unicode_form_prefix(form, text, n);
        str_add(out, text, k);
        text += k;
        n -= k;
        if (!n) break;
        int first = utf8_decode(text, n, NULL); /* the inert character in front, or the first of the text */
        k = first ? (size_t)first : 1;
        k += lively(form, text + k, n - k);
        s = work_on(&w, out, form, text, k);
        text += k;
        n -= k;
    }
    VEC_FREE(&w.cp);
    return s ? s : str_check(out);
}
