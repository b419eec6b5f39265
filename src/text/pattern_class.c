/* pattern_class.c — character classes and escapes of Oniguruma's dialect as sets of code points: ranges, \p{…}, nested
 * classes, && (which binds weakest), negation, POSIX names. */
#include <string.h>

#include "text/pattern.h"

#define MAX_DEPTH 16

static coe_status bad(const char *where, const char *what)
{
    return coe_fail(COE_E_INPUT, "%s: pattern: %s", where, what);
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if ((c | 32) >= 'a' && (c | 32) <= 'f') return (c | 32) - 'a' + 10;
    return -1;
}

/* \xHH, \x{H…} and \uHHHH: from behind the letter. */
static coe_status read_hex(uint32_t *cp, const char **at, const char *end, size_t digits, const char *where)
{
    bool braces = *at < end && **at == '{';
    uint32_t value = 0;
    size_t n = 0;
    if (braces) ++*at;
    for (; *at < end && hex_value(**at) >= 0 && n < (braces ? 6 : digits); n++, ++*at)
        value = value * 16 + (uint32_t)hex_value(**at);
    if (!n || value > CP_MAX || (braces && (*at == end || *(*at)++ != '}')))
        return bad(where, "a hexadecimal escape is wrong");
    *cp = value;
    return COE_OK;
}

static coe_status read_property(struct cpset *out, const char **at, const char *end, bool negated, const char *where)
{
    const char *name = *at;
    size_t n = 1;
    if (name == end) return bad(where, "\\p without a name");
    if (*name == '{') {
        const char *close = memchr(name, '}', (size_t)(end - name));
        if (!close) return bad(where, "\\p{ without }");
        name++;
        if (name < close && *name == '^') {
            negated = !negated;
            name++;
        }
        n = (size_t)(close - name);
        *at = close + 1;
    } else {
        *at = name + 1;
    }
    coe_status s = cpset_property(out, name, n);
    if (s == COE_E_INPUT) return coe_fail(s, "%s: pattern: %s", where, coe_error());
    return s || !negated ? s : cpset_invert(out);
}

static coe_status named_escape(struct cpset *out, char letter, bool in_class, bool *known)
{
    *known = true;
    coe_status s = COE_OK;
    switch (letter | 32) {
    case 's': s = cpset_space(out); break;
    case 'd': s = cpset_property(out, "Nd", 2); break;
    case 'w': s = cpset_word(out, in_class); break;
    case 'h':
        s = cpset_add(out, '0', '9');
        if (!s) s = cpset_add(out, 'A', 'F');
        if (!s) s = cpset_add(out, 'a', 'f');
        break;
    default: *known = false; return COE_OK;
    }
    return s || (letter & 32) ? s : cpset_invert(out);
}

coe_status pattern_parse_escape(struct cpset *out, const char **at, const char *end, bool in_class, const char *where)
{
    if (*at == end) return bad(where, "ends with a backslash");
    char c = *(*at)++;
    if (c == 'p' || c == 'P') return read_property(out, at, end, c == 'P', where);
    bool known;
    COE_TRY(named_escape(out, c, in_class, &known));
    if (known) return COE_OK;
    static const char from[] = "rntfvae", to[] = "\r\n\t\f\v\a\033";
    const char *simple = memchr(from, c, sizeof from - 1);
    uint32_t cp;
    if (simple) cp = (unsigned char)to[simple - from];
    else if (c == 'x') COE_TRY(read_hex(&cp, at, end, 2, where));
    else if (c == 'u') COE_TRY(read_hex(&cp, at, end, 4, where));
    else if (c == '0') cp = 0;
    else if (((c | 32) >= 'a' && (c | 32) <= 'z') || (c >= '1' && c <= '9'))
        return coe_fail(COE_E_INPUT, "%s: pattern: \\%c is not supported", where, c);
    else {
        --*at;
        int len = utf8_decode(*at, (size_t)(end - *at), &cp);
        if (!len) return bad(where, "is not UTF-8");
        *at += len;
    }
    return cpset_add(out, cp, cp);
}

static coe_status posix_class(struct cpset *out, const char **at, const char *end, bool *is_posix, const char *where)
{
    static const struct {
        const char *name;
        const char *categories; /* separated by spaces */
    } names[] = { { "alpha", "Alphabetic" }, { "digit", "Nd" },        { "alnum", "Alphabetic Nd" },
                  { "upper", "Uppercase" },  { "lower", "Lowercase" }, { "punct", "P S" },
                  { "cntrl", "Cc" } };
    *is_posix = false;
    if (end - *at < 2 || (*at)[0] != '[' || (*at)[1] != ':') return COE_OK;
    const char *name = *at + 2, *close = name;
    while (close < end && *close != ':') close++;
    if (end - close < 2 || close[1] != ']') return COE_OK;
    *is_posix = true;
    bool negated = *name == '^';
    name += negated;
    size_t n = (size_t)(close - name);
    coe_status s = COE_E_INPUT;
    if (n == 5 && !memcmp(name, "space", 5)) s = cpset_space(out);
    if (n == 4 && !memcmp(name, "word", 4)) s = cpset_word(out, true);
    for (size_t i = 0; i < COE_COUNT(names) && s; i++) {
        if (strlen(names[i].name) != n || memcmp(names[i].name, name, n)) continue;
        s = COE_OK;
        for (const char *c = names[i].categories; *c && !s; c += strcspn(c, " "), c += *c == ' ') {
            struct cpset part = { 0 };
            s = cpset_property(&part, c, strcspn(c, " "));
            if (!s) s = cpset_union(out, &part);
            cpset_free(&part);
        }
    }
    if (s) return coe_fail(COE_E_INPUT, "%s: pattern: [:%.*s:] is not supported", where, (int)n, name);
    *at = close + 2;
    return negated ? cpset_invert(out) : COE_OK;
}

static coe_status parse_class(struct cpset *out, const char **at, const char *end, int depth, const char *where);

/* One member: a nested class, an escape or a character. *single: its code point, or CP_MAX + 1 when it is a set. */
static coe_status class_member(struct cpset *out, uint32_t *single, const char **at, const char *end, int depth,
                               const char *where)
{
    bool posix;
    *single = CP_MAX + 1;
    COE_TRY(posix_class(out, at, end, &posix, where));
    if (posix) return COE_OK;
    if (**at == '[') {
        ++*at;
        return parse_class(out, at, end, depth + 1, where);
    }
    if (**at == '\\') {
        ++*at;
        COE_TRY(pattern_parse_escape(out, at, end, true, where));
    } else {
        uint32_t cp;
        int len = utf8_decode(*at, (size_t)(end - *at), &cp);
        if (!len) return bad(where, "is not UTF-8");
        *at += len;
        COE_TRY(cpset_add(out, cp, cp));
    }
    if (out->n == 1 && out->at[0].lo == out->at[0].hi) *single = out->at[0].lo;
    return COE_OK;
}

static coe_status class_range(struct cpset *out, const char **at, const char *end, int depth, const char *where)
{
    struct cpset one = { 0 }, high = { 0 };
    uint32_t lo, hi;
    coe_status s = class_member(&one, &lo, at, end, depth, where);
    if (!s && lo <= CP_MAX && end - *at >= 2 && **at == '-' && (*at)[1] != ']' && (*at)[1] != '[') {
        ++*at;
        s = class_member(&high, &hi, at, end, depth, where);
        if (!s && (hi > CP_MAX || hi < lo)) s = bad(where, "a range of a class is out of order");
        if (!s) s = cpset_add(&one, lo, hi);
        cpset_tidy(&one);
    }
    if (!s) s = cpset_union(out, &one);
    cpset_free(&one);
    cpset_free(&high);
    return s;
}

static coe_status parse_class(struct cpset *out, const char **at, const char *end, int depth, const char *where)
{
    if (depth > MAX_DEPTH) return bad(where, "classes are nested too deep");
    struct cpset left = { 0 }; /* what stood before the last && */
    bool any_left = false, negated = *at < end && **at == '^', first = true;
    coe_status s = COE_OK;
    *at += negated;
    while (!s) {
        if (*at == end) {
            s = bad(where, "[ without ]");
        } else if (**at == ']' && !first) {
            ++*at;
            break;
        } else if (end - *at >= 2 && (*at)[0] == '&' && (*at)[1] == '&') {
            *at += 2;
            if (any_left) s = cpset_intersect(&left, out);
            else s = cpset_union(&left, out);
            any_left = true;
            out->n = 0;
        } else {
            s = class_range(out, at, end, depth, where);
        }
        first = false;
    }
    if (!s && any_left) s = cpset_intersect(out, &left);
    if (!s && negated) s = cpset_invert(out);
    cpset_free(&left);
    return s;
}

coe_status pattern_parse_class(struct cpset *out, const char **at, const char *end, const char *where)
{
    return parse_class(out, at, end, 0, where);
}
