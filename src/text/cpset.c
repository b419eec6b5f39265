/* cpset.c — see cpset.h. Categories come from utf8proc, scripts from PCRE2, which knows no sets but can be asked about
 * every code point in one pass over a text that holds them all. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "cpset.h"

#include <pcre2.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/str.h"

coe_status cpset_add(struct cpset *s, uint32_t lo, uint32_t hi)
{
    struct cp_range r = { lo, hi };
    if (s->n && s->at[s->n - 1].hi + 1 == lo) {
        s->at[s->n - 1].hi = hi;
        return COE_OK;
    }
    return VEC_PUSH(s, r) ? COE_OK : COE_E_NOMEM;
}

static int by_lo(const void *a, const void *b)
{
    const struct cp_range *x = a, *y = b;
    return (x->lo > y->lo) - (x->lo < y->lo);
}

void cpset_tidy(struct cpset *s)
{
    if (!s->n) return;
    qsort(s->at, s->n, sizeof *s->at, by_lo);
    size_t n = 1;
    for (size_t i = 1; i < s->n; i++) {
        struct cp_range *last = &s->at[n - 1];
        if (s->at[i].lo <= last->hi + 1) last->hi = COE_MAX(last->hi, s->at[i].hi);
        else s->at[n++] = s->at[i];
    }
    s->n = n;
}

void cpset_free(struct cpset *s) { VEC_FREE(s); }

coe_status cpset_invert(struct cpset *s)
{
    struct cpset out = { 0 };
    uint32_t next = 0;
    coe_status st = COE_OK;
    for (size_t i = 0; i < s->n && !st; i++) {
        if (s->at[i].lo > next) st = cpset_add(&out, next, s->at[i].lo - 1);
        next = s->at[i].hi + 1;
    }
    if (!st && next <= CP_MAX) st = cpset_add(&out, next, CP_MAX);
    cpset_free(s);
    *s = out;
    return st;
}

coe_status cpset_intersect(struct cpset *s, const struct cpset *other)
{
    struct cpset out = { 0 };
    coe_status st = COE_OK;
    for (size_t i = 0, j = 0; i < s->n && j < other->n && !st;) {
        uint32_t lo = COE_MAX(s->at[i].lo, other->at[j].lo), hi = COE_MIN(s->at[i].hi, other->at[j].hi);
        if (lo <= hi) st = cpset_add(&out, lo, hi);
        if (s->at[i].hi < other->at[j].hi) i++;
        else j++;
    }
    cpset_free(s);
    *s = out;
    return st;
}

coe_status cpset_union(struct cpset *s, const struct cpset *other)
{
    for (size_t i = 0; i < other->n; i++) COE_TRY(cpset_add(s, other->at[i].lo, other->at[i].hi));
    cpset_tidy(s);
    return COE_OK;
}

bool cpset_has(const struct cpset *s, uint32_t cp)
{
    size_t lo = 0, hi = s->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (s->at[mid].hi < cp) lo = mid + 1;
        else hi = mid;
    }
    return lo < s->n && s->at[lo].lo <= cp;
}

bool cpset_equal(const struct cpset *a, const struct cpset *b)
{
    return a->n == b->n && (!a->n || !memcmp(a->at, b->at, a->n * sizeof *a->at));
}

coe_status cpset_fold_case(struct cpset *s)
{
    struct cpset more = { 0 };
    coe_status st = COE_OK;
    size_t members = 0;
    for (size_t i = 0; i < s->n; i++) members += s->at[i].hi - s->at[i].lo + 1;
    if (members > 4096) return coe_fail(COE_E_USAGE, "a class of %zu characters under (?i)", members);
    for (size_t i = 0; i < s->n; i++)
        for (uint32_t c = s->at[i].lo; c <= s->at[i].hi && !st; c++) {
            /* the characters outside the pairs of upper and lower: long s, Kelvin sign, Angstrom sign */
            static const uint32_t odd[][2] = { { 's', 0x17F }, { 'k', 0x212A }, { 0xE5, 0x212B } };
            uint32_t low = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c),
                     up = (uint32_t)utf8proc_toupper((utf8proc_int32_t)low);
            st = cpset_add(&more, low, low);
            if (!st) st = cpset_add(&more, up, up);
            for (size_t k = 0; k < COE_COUNT(odd) && !st; k++)
                if (odd[k][0] == low || odd[k][1] == c) {
                    st = cpset_add(&more, odd[k][1], odd[k][1]);
                    if (!st) st = cpset_add(&more, odd[k][0], odd[k][0]);
                    if (!st)
                        st = cpset_add(&more, (uint32_t)utf8proc_toupper((utf8proc_int32_t)odd[k][0]),
                                       (uint32_t)utf8proc_toupper((utf8proc_int32_t)odd[k][0]));
                }
        }
    if (!st) st = cpset_union(s, &more);
    cpset_free(&more);
    return st;
}

/* Runs of equal category over all code points, found once: every class of a pattern is made from them. */
#define MAX_RUNS 8192
static struct {
    uint32_t first;
    uint8_t category;
} run[MAX_RUNS];
static size_t n_runs;
static pthread_once_t runs_once = PTHREAD_ONCE_INIT;

static void find_runs(void)
{
    int last = -1;
    for (uint32_t cp = 0; cp <= CP_MAX; cp++) {
        if (cp == 0x40000) cp = 0xE0000; /* planes 4 to 13 are empty */
        if (cp == 0xF0002) cp = 0xFFFFE; /* and the private planes are uniform up to their two noncharacters */
        if (cp == 0x100002) cp = 0x10FFFE;
        int c = utf8proc_category((utf8proc_int32_t)cp);
        if (c == last || n_runs == MAX_RUNS) continue;
        run[n_runs].first = cp;
        run[n_runs++].category = (uint8_t)c;
        last = c;
    }
}

static const char category_names[][3] = { "Cn", "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd",
                                          "Nl", "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm",
                                          "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co" };

/* Bit c set: category c is meant by the name; 0: no such category. */
static uint32_t category_mask(const char *name, size_t n)
{
    uint32_t mask = 0;
    if (n == 1 || n == 2)
        for (size_t c = 0; c < COE_COUNT(category_names); c++)
            if (!strncmp(category_names[c], name, n)) mask |= 1u << c;
    return mask;
}

static coe_status add_categories(struct cpset *s, uint32_t mask)
{
    pthread_once(&runs_once, find_runs);
    for (size_t i = 0; i < n_runs; i++)
        if (mask >> run[i].category & 1)
            COE_TRY(cpset_add(s, run[i].first, i + 1 < n_runs ? run[i + 1].first - 1 : CP_MAX));
    cpset_tidy(s);
    return COE_OK;
}

/* Every assigned code point in order, each in its UTF-8 form. */
static coe_status all_characters(struct str *out)
{
    for (uint32_t cp = 0; cp < 0xE2000; cp++) {
        if (cp == 0xD800) cp = 0xE000;
        if (cp == 0x40000) cp = 0xE0000;
        char b[4];
        str_add(out, b, (size_t)utf8_encode(cp, b));
    }
    return str_check(out);
}

static coe_status add_matches(struct cpset *s, pcre2_code *code)
{
    struct str text = { 0 };
    coe_status st = all_characters(&text);
    pcre2_match_data *found = pcre2_match_data_create_from_pattern(code, NULL);
    if (!found) st = coe_fail(COE_E_NOMEM, "no memory for a script of the pattern");
    size_t from = 0;
    while (!st && pcre2_match(code, (PCRE2_SPTR)text.at, text.n, from, PCRE2_NO_UTF_CHECK, found, NULL) > 0) {
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(found);
        uint32_t lo = 0, hi = 0;
        size_t last = at[1] - 1;
        while (last > at[0] && ((unsigned char)text.at[last] & 0xC0) == 0x80) last--;
        utf8_decode(text.at + at[0], text.n - at[0], &lo);
        utf8_decode(text.at + last, text.n - last, &hi);
        st = cpset_add(s, lo, hi);
        from = at[1];
    }
    pcre2_match_data_free(found);
    str_free(&text);
    cpset_tidy(s);
    return st;
}

static coe_status add_script(struct cpset *s, const char *name, size_t n)
{
    char pattern[80];
    int error;
    PCRE2_SIZE where;
    /* a run must not cross the gaps of all_characters: single characters join again in cpset_add */
    pcre2_code *code = NULL;
    for (int binary = 0; binary < 2 && !code; binary++) { /* a script, or a property such as Alphabetic */
        snprintf(pattern, sizeof pattern, binary ? "\\p{%.*s}" : "\\p{sc:%.*s}", (int)n, name);
        code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &error, &where, NULL);
    }
    if (!code) return coe_fail(COE_E_INPUT, "\\p{%.*s}: no such category or script", (int)n, name);
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
    coe_status st = add_matches(s, code);
    pcre2_code_free(code);
    return st;
}

coe_status cpset_property(struct cpset *s, const char *name, size_t n)
{
    static const struct {
        const char *name, *category;
    } longer[] = { { "Letter", "L" },           { "Mark", "M" },  { "Number", "N" },
                   { "Punctuation", "P" },      { "Punct", "P" }, { "Symbol", "S" },
                   { "Separator", "Z" },        { "Other", "C" }, { "Uppercase_Letter", "Lu" },
                   { "Lowercase_Letter", "Ll" } };
    for (size_t i = 0; i < COE_COUNT(longer); i++)
        if (strlen(longer[i].name) == n && !strncmp(longer[i].name, name, n))
            return cpset_property(s, longer[i].category, strlen(longer[i].category));
    uint32_t mask = category_mask(name, n);
    if (mask) return add_categories(s, mask);
    if (n < 2 || n > 40)
        return coe_fail(COE_E_INPUT, "\\p{%.*s}: no such category or script", (int)COE_MIN(n, (size_t)40), name);
    return add_script(s, name, n);
}

static const struct cp_range spaces[] = { { 9, 13 },          { 0x20, 0x20 },     { 0x85, 0x85 },
                                          { 0xA0, 0xA0 },     { 0x1680, 0x1680 }, { 0x2000, 0x200A },
                                          { 0x2028, 0x2029 }, { 0x202F, 0x202F }, { 0x205F, 0x205F },
                                          { 0x3000, 0x3000 } };

coe_status cpset_space(struct cpset *s)
{
    for (size_t i = 0; i < COE_COUNT(spaces); i++) COE_TRY(cpset_add(s, spaces[i].lo, spaces[i].hi));
    cpset_tidy(s);
    return COE_OK;
}

#define BIT(c) (1u << UTF8PROC_CATEGORY_##c)
#define LETTERS (BIT(LU) | BIT(LL) | BIT(LT) | BIT(LM) | BIT(LO))
#define MARKS (BIT(MN) | BIT(MC) | BIT(ME))
#define NUMBERS (BIT(ND) | BIT(NL) | BIT(NO))
#define PUNCTUATION (BIT(PC) | BIT(PD) | BIT(PS) | BIT(PE) | BIT(PI) | BIT(PF) | BIT(PO))

#define WORD (LETTERS | MARKS | BIT(ND) | BIT(NL) | BIT(PC))
/* Letters in circles and squares, which are symbols by category. */
static const struct cp_range circled[] = {
    { 0x24B6, 0x24E9 }, { 0x1F130, 0x1F149 }, { 0x1F150, 0x1F169 }, { 0x1F170, 0x1F189 }
};

coe_status cpset_word(struct cpset *s, bool in_class)
{
    static const struct cp_range latin1[] = { { 0xB2, 0xB3 }, { 0xB9, 0xB9 }, { 0xBC, 0xBE } };
    COE_TRY(add_categories(s, WORD));
    for (size_t i = 0; i < COE_COUNT(latin1) && !in_class; i++) COE_TRY(cpset_add(s, latin1[i].lo, latin1[i].hi));
    for (size_t i = 0; i < COE_COUNT(circled); i++) COE_TRY(cpset_add(s, circled[i].lo, circled[i].hi));
    cpset_tidy(s);
    return COE_OK;
}

static bool in_categories(uint32_t cp, uint32_t mask) { return mask >> utf8proc_category((utf8proc_int32_t)cp) & 1; }

bool cp_is_space(uint32_t cp)
{
    if (cp < 0x85) return cp == ' ' || (cp >= 9 && cp <= 13);
    for (size_t i = 2; i < COE_COUNT(spaces); i++)
        if (cp <= spaces[i].hi) return cp >= spaces[i].lo;
    return false;
}

bool cp_is_word(uint32_t cp)
{
    if (cp == 0x200C || cp == 0x200D) return true; /* joiners */
    for (size_t i = 0; i < COE_COUNT(circled); i++)
        if (cp >= circled[i].lo && cp <= circled[i].hi) return true;
    return in_categories(cp, WORD);
}

bool cp_is_numeric(uint32_t cp) { return in_categories(cp, NUMBERS); }
bool cp_is_punctuation(uint32_t cp)
{
    if (cp < 0x80)
        return cp > 0x20 && cp < 0x7F && !((cp | 32) >= 'a' && (cp | 32) <= 'z') && !(cp >= '0' && cp <= '9');
    return in_categories(cp, PUNCTUATION);
}
