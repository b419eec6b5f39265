/* pattern.c — making and releasing patterns. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pattern.h"

#include <pcre2.h>

#define MAX_PATTERN_BYTES 65536

static coe_status compile(struct pattern **out, const char *regex, size_t n, bool fast, const char *where)
{
    *out = NULL;
    if (n > MAX_PATTERN_BYTES)
        return coe_fail(COE_E_INPUT, "%s: a pattern of %zu bytes, at most %d", where, n, MAX_PATTERN_BYTES);
    struct pattern *p = mem_zalloc("patterns", sizeof *p);
    if (!p) return COE_E_NOMEM;
    bool understood = false;
    p->kind = PATTERN_FAST;
    coe_status s = fast ? pattern_parse_fast(p, regex, n, &understood, where) : COE_OK;
    if (!s && !understood) s = pattern_pcre_compile(p, regex, n, where);
    if (s) pattern_free(p);
    else *out = p;
    return s;
}

coe_status pattern_compile(struct pattern **out, const char *regex, size_t n, const char *where)
{
    return compile(out, regex, n, true, where);
}

coe_status pattern_compile_pcre(struct pattern **out, const char *regex, size_t n, const char *where)
{
    return compile(out, regex, n, false, where);
}

coe_status pattern_literal(struct pattern **out, const char *text, size_t n)
{
    struct pattern *p = mem_zalloc("patterns", sizeof *p);
    *out = NULL;
    if (!p) return COE_E_NOMEM;
    assert(n > 0);
    p->kind = PATTERN_LITERAL;
    str_add(&p->literal, text, n);
    if (p->literal.oom) {
        pattern_free(p);
        return COE_E_NOMEM;
    }
    *out = p;
    return COE_OK;
}

void pattern_free(struct pattern *p)
{
    if (!p) return;
    str_free(&p->literal);
    VEC_FREE(&p->seq);
    VEC_FREE(&p->item);
    VEC_FREE(&p->mask);
    mem_free(p->page);
    if (p->pcre) pcre2_code_free(p->pcre);
    mem_free(p);
}
