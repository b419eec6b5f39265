/* pattern.h — the regular expressions that tokenizers split text with, in Oniguruma's dialect.
 *
 * Nearly all of them are alternatives of short sequences of character classes with greedy or possessive repeats, a few
 * literals, and a look-ahead for one character. Such a pattern is compiled (pattern_parse.c) into a table that gives,
 * for each code point, the set of its classes as bits, and a list of items that pattern_match.c walks. Anything else
 * goes to PCRE2 after translation (pattern_pcre.c). Both find the same matches; the tests compare them.
 *
 * Bytes that are not UTF-8 count as one U+FFFD each. Matches begin and end at characters. */
#ifndef COE_TEXT_PATTERN_H
#define COE_TEXT_PATTERN_H

#include "base/str.h"
#include "text/cpset.h"

#define PATTERN_MAX_ALTS 32
#define PATTERN_MAX_CLASSES 31
#define PATTERN_ANY (1u << 31) /* the bit every code point has */

enum pattern_item_kind { ITEM_SET, ITEM_GROUP, ITEM_AHEAD, ITEM_NOT_AHEAD, ITEM_LINE_END };

struct pattern_item {
    enum pattern_item_kind kind;
    bool possessive, optional; /* optional: of a group */
    uint32_t bits;             /* class of a SET or look-ahead */
    uint32_t min, max;         /* repeats of a SET; max UINT32_MAX: no limit */
    uint32_t after;            /* classes that can begin what follows in this alternative, or PATTERN_ANY */
    uint32_t first, n;         /* of a GROUP: its choices are sequence[first .. first+n) */
};

struct pattern_seq { /* items[at .. at+n) */
    uint32_t at, n;
    uint32_t starts; /* classes it can begin with */
};

struct pattern {
    enum { PATTERN_LITERAL, PATTERN_FAST, PATTERN_PCRE } kind;
    struct str literal;
    uint32_t n_alts; /* the first sequences are the alternatives; behind them those of the groups */
    VEC(struct pattern_seq) seq;
    VEC(struct pattern_item) item;
    uint32_t starts;     /* of all alternatives */
    uint32_t ascii[128]; /* classes of a code point: ascii[cp], or mask[page[cp >> 8] + (cp & 255)] */
    uint32_t *page;      /* [0x1100] */
    VEC(uint32_t) mask;
    void *pcre; /* pcre2_code */
};

/* `where` names the place in messages. COE_E_INPUT for a pattern that neither way accepts. */
coe_status pattern_compile(struct pattern **out, const char *regex, size_t n, const char *where);
/* Through PCRE2 whatever the pattern; for tests. */
coe_status pattern_compile_pcre(struct pattern **out, const char *regex, size_t n, const char *where);
/* A plain substring; n > 0. */
coe_status pattern_literal(struct pattern **out, const char *text, size_t n);
void pattern_free(struct pattern *p);

/* A walk over the matches of one text. */
struct pattern_scan {
    const struct pattern *p;
    const unsigned char *text, *end;
    const unsigned char *dead[PATTERN_MAX_ALTS]; /* alternative i fails at every start before dead[i] */
    void *pcre_data;
    size_t empty_at; /* an empty match found there is not found again */
};
coe_status pattern_scan_begin(struct pattern_scan *s, const struct pattern *p, const char *text, size_t n);
/* Leftmost match at or behind byte `from`: text[*lo .. *hi); *found false when there is none. COE_E_INPUT when PCRE2
 * gives up. */
coe_status pattern_next(struct pattern_scan *s, size_t from, size_t *lo, size_t *hi, bool *found);
void pattern_scan_end(struct pattern_scan *s);

/* Parts of the compiler, used by the two ways. */
coe_status pattern_parse_fast(struct pattern *p, const char *regex, size_t n, bool *understood, const char *where);
/* A class from just behind its '[' up to and with its ']', or an escape from just behind its '\'; *at moves behind it.
 */
coe_status pattern_parse_class(struct cpset *out, const char **at, const char *end, const char *where);
coe_status pattern_parse_escape(struct cpset *out, const char **at, const char *end, bool in_class, const char *where);
coe_status pattern_build_table(struct pattern *p, struct cpset *classes, size_t n);
coe_status pattern_translate(struct str *out, const char *regex, size_t n, const char *where);
coe_status pattern_pcre_compile(struct pattern *p, const char *regex, size_t n, const char *where);
coe_status pattern_pcre_next(struct pattern_scan *s, size_t from, size_t *lo, size_t *hi, bool *found);

#endif
