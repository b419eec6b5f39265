/* cpset.h — sets of Unicode code points as sorted ranges: what a character class of a pattern means. */
#ifndef COE_TEXT_CPSET_H
#define COE_TEXT_CPSET_H

#include "base/mem.h"

#define CP_MAX 0x10FFFFu

struct cp_range {
    uint32_t lo, hi; /* both inside */
};
/* Ranges ascending, neither touching nor overlapping, once cpset_tidy ran. */
struct cpset {
    struct cp_range *at;
    size_t n, cap;
};

/* Adds lo … hi at the end; call cpset_tidy before any other use. COE_E_NOMEM. */
coe_status cpset_add(struct cpset *s, uint32_t lo, uint32_t hi);
void cpset_tidy(struct cpset *s);
coe_status cpset_invert(struct cpset *s);
/* s = s ∩ other; both tidy. */
coe_status cpset_intersect(struct cpset *s, const struct cpset *other);
coe_status cpset_union(struct cpset *s, const struct cpset *other);
bool cpset_has(const struct cpset *s, uint32_t cp);
bool cpset_equal(const struct cpset *a, const struct cpset *b);
/* Adds the other-case forms of every member (ſ with s, K with k). COE_E_USAGE for sets of more than 4096 members. */
coe_status cpset_fold_case(struct cpset *s);
void cpset_free(struct cpset *s);

/* Adds \p{name}: a general category (L, Lu, …) or a script (Han, …; Script, not Script_Extensions). COE_E_INPUT for a
 * name nobody knows. */
coe_status cpset_property(struct cpset *s, const char *name, size_t n);
/* White_Space: what Rust, Oniguruma and the tokenizer libraries mean by \s. */
coe_status cpset_space(struct cpset *s);
/* \w of Oniguruma: letters, marks, decimal digits, letter numbers, connectors, circled letters. Outside a class, where
 * the library asks its Latin-1 table, the superscripts and fractions below U+0100 as well. */
coe_status cpset_word(struct cpset *s, bool in_class);

/* The same questions for one code point. */
bool cp_is_space(uint32_t cp);
bool cp_is_word(uint32_t cp);        /* \w of Rust: that of Oniguruma and the joiners */
bool cp_is_numeric(uint32_t cp);     /* N* */
bool cp_is_punctuation(uint32_t cp); /* P* or one of ASCII's !"#$%&'()*+,-./:;<=>?@[\]^_`{|}~ */

#endif
