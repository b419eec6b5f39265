/* pattern_pcre.c — the general case: a pattern translated from Oniguruma's dialect to PCRE2's, where the two differ.
 *
 * Classes are written out as ranges (PCRE2 10.42 has neither && nor nested classes), \s as White_Space (PCRE2 counts
 * U+180E), \w, \d, \h and \p{…} as our sets, ^ and $ match at every line. What remains is common to both. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "text/pattern.h"

#define MATCH_LIMIT 10000000u

static void write_set(struct str *out, const struct cpset *set)
{
    if (!set->n) {
        str_addz(out, "(?!)");
        return;
    }
    str_addc(out, '[');
    for (size_t i = 0; i < set->n; i++) {
        uint32_t lo = set->at[i].lo, hi = set->at[i].hi;
        if (lo >= 0xD800 && lo <= 0xDFFF) lo = 0xE000; /* surrogates have no UTF-8 form and PCRE2 refuses them */
        if (hi >= 0xD800 && hi <= 0xDFFF) hi = 0xD7FF;
        if (lo > hi) continue;
        str_addf(out, "\\x{%X}", lo);
        if (hi > lo) str_addf(out, "-\\x{%X}", hi);
    }
    str_addc(out, ']');
}

/* \b and \B in terms of our \w: PCRE2's has no marks. */
static coe_status write_boundary(struct str *out, bool inside)
{
    struct cpset word = { 0 };
    struct str w = { 0 };
    coe_status s = cpset_word(&word, false);
    write_set(&w, &word);
    if (!s) s = str_check(&w);
    if (!s && inside) str_addf(out, "(?:(?<=%s)(?=%s)|(?<!%s)(?!%s))", w.at, w.at, w.at, w.at);
    else if (!s) str_addf(out, "(?:(?<=%s)(?!%s)|(?<!%s)(?=%s))", w.at, w.at, w.at, w.at);
    cpset_free(&word);
    str_free(&w);
    return s;
}

coe_status pattern_translate(struct str *out, const char *regex, size_t n, const char *where)
{
    const char *at = regex, *end = regex + n;
    coe_status s = COE_OK;
    while (at < end && !s) {
        struct cpset set = { 0 };
        if (*at == '[') {
            at++;
            s = pattern_parse_class(&set, &at, end, where);
            write_set(out, &set);
        } else if (*at == '\\' && end - at > 1 && strchr("sSdDwWhHpP", at[1])) {
            at++;
            s = pattern_parse_escape(&set, &at, end, false, where);
            write_set(out, &set);
        } else if (*at == '\\' && end - at > 1 && (at[1] | 32) == 'b') {
            s = write_boundary(out, at[1] == 'B');
            at += 2;
        } else if (*at == '\\' && end - at > 1) {
            str_add(out, at, 2);
            at += 2;
        } else {
            str_addc(out, *at++);
        }
        cpset_free(&set);
    }
    return s ? s : str_check(out);
}

coe_status pattern_pcre_compile(struct pattern *p, const char *regex, size_t n, const char *where)
{
    struct str text = { 0 };
    coe_status s = pattern_translate(&text, regex, n, where);
    pcre2_compile_context *ctx = pcre2_compile_context_create(NULL);
    if (!s && !ctx) s = coe_fail(COE_E_NOMEM, "%s: no memory for a pattern", where);
    if (!s) {
        int error;
        PCRE2_SIZE offset;
        PCRE2_UCHAR why[120];
        pcre2_set_newline(ctx, PCRE2_NEWLINE_LF);
        pcre2_set_parens_nest_limit(ctx, 100);
        p->kind = PATTERN_PCRE;
        p->pcre = pcre2_compile((PCRE2_SPTR)(text.at ? text.at : ""), text.n,
                                PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_MATCH_INVALID_UTF |
                                    PCRE2_NEVER_BACKSLASH_C,
                                &error, &offset, ctx);
        if (!p->pcre) {
            pcre2_get_error_message(error, why, sizeof why);
            s = coe_fail(COE_E_INPUT, "%s: pattern, near character %zu: %s", where, (size_t)offset, (char *)why);
        } else {
            pcre2_jit_compile(p->pcre, PCRE2_JIT_COMPLETE); /* without it the interpreter finds the same */
        }
    }
    pcre2_compile_context_free(ctx);
    str_free(&text);
    return s;
}

struct pcre_data {
    pcre2_match_data *found;
    pcre2_match_context *ctx;
};

static coe_status begin(struct pattern_scan *s)
{
    struct pcre_data *d = mem_zalloc("patterns", sizeof *d);
    if (!d) return COE_E_NOMEM;
    s->pcre_data = d;
    d->found = pcre2_match_data_create_from_pattern(s->p->pcre, NULL);
    d->ctx = pcre2_match_context_create(NULL);
    if (!d->found || !d->ctx) return coe_fail(COE_E_NOMEM, "no memory for a pattern's matches");
    pcre2_set_match_limit(d->ctx, MATCH_LIMIT);
    return COE_OK;
}

void pattern_scan_end(struct pattern_scan *s)
{
    struct pcre_data *d = s->pcre_data;
    if (!d) return;
    pcre2_match_data_free(d->found);
    pcre2_match_context_free(d->ctx);
    mem_free(d);
    s->pcre_data = NULL;
}

/* An empty match is found once at a place; then the search goes on for one that is not empty there. */
coe_status pattern_pcre_next(struct pattern_scan *s, size_t from, size_t *lo, size_t *hi, bool *found)
{
    size_t n = (size_t)(s->end - s->text);
    if (!s->pcre_data) COE_TRY(begin(s));
    if (from > n) return COE_OK;
    struct pcre_data *d = s->pcre_data;
    const char *text = n ? (const char *)s->text : "";
    uint32_t options = from == s->empty_at ? PCRE2_NOTEMPTY_ATSTART : 0;
    int rc = pcre2_match(s->p->pcre, (PCRE2_SPTR)text, n, from, options, d->found, d->ctx);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(s->p->pcre, (PCRE2_SPTR)text, n, from, options | PCRE2_NO_JIT, d->found, d->ctx);
    if (rc == PCRE2_ERROR_NOMATCH) return COE_OK;
    if (rc < 0) {
        PCRE2_UCHAR why[120];
        pcre2_get_error_message(rc, why, sizeof why);
        return coe_fail(COE_E_INPUT, "the tokenizer's pattern gives up on this text at byte %zu: %s", from,
                        (char *)why);
    }
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(d->found);
    *lo = at[0];
    *hi = COE_MAX(at[1], at[0]); /* \K in a look-ahead could put the end first */
    *found = true;
    s->empty_at = *lo == *hi ? *hi : SIZE_MAX;
    return COE_OK;
}
