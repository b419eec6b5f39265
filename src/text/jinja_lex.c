/* jinja_lex.c — template source to tokens, with Jinja's rules for white space around tags: `-` strips, the line end
 * behind a block or comment goes (trim_blocks), the indentation in front of one that begins a line goes
 * (lstrip_blocks), `+` keeps. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "text/cpset.h"
#include "text/jinja.h"

static coe_status lex_error(const struct jlexer *lx, const char *what)
{
    return coe_fail(COE_E_INPUT, "%s: line %zu column %zu: %s", lx->t->name, lx->line, lx->at - lx->line_start + 1,
                    what);
}

static void place(const struct jlexer *lx, struct jtoken *out)
{
    out->line = (uint32_t)lx->line;
    out->column = (uint32_t)(lx->at - lx->line_start + 1);
}

static void move_to(struct jlexer *lx, size_t to)
{
    for (; lx->at < to; lx->at++)
        if (lx->t->source[lx->at] == '\n') {
            lx->line++;
            lx->line_start = lx->at + 1;
        }
}

static size_t skip_space(const struct template *t, size_t at)
{
    uint32_t cp;
    for (int k; at < t->n && (k = utf8_decode(t->source + at, t->n - at, &cp)) && cp_is_space(cp);) at += (size_t)k;
    return at;
}

static size_t strip_back(const char *text, size_t from, size_t to)
{
    while (to > from) {
        size_t k = 1;
        uint32_t cp;
        while (k < 4 && to - k > from && ((unsigned char)text[to - k] & 0xC0) == 0x80) k++;
        if (utf8_decode(text + to - k, k, &cp) != (int)k || !cp_is_space(cp)) break;
        to -= k;
    }
    return to;
}

/* Behind the end of a tag: what the sign and trim_blocks swallow. `sign` is the character in front of the end. */
static void end_tag(struct jlexer *lx, size_t behind, char sign, bool trims)
{
    const struct template *t = lx->t;
    size_t to = behind;
    if (sign == '-') to = skip_space(t, behind);
    else if (trims && sign != '+' && behind < t->n && t->source[behind] == '\n') to = behind + 1;
    lx->line_starting = to > 0 && t->source[to - 1] == '\n';
    move_to(lx, to);
}

/* Where the text before a tag ends, given the tag's start. */
static size_t text_end(const struct jlexer *lx, size_t tag)
{
    const char *s = lx->t->source;
    char sign = tag + 2 < lx->t->n ? s[tag + 2] : 0;
    if (sign == '-') return strip_back(s, lx->at, tag);
    if (sign == '+' || s[tag + 1] == '{') return tag;
    size_t line = tag;
    while (line > lx->at && s[line - 1] != '\n') line--;
    if (line == lx->at && !lx->line_starting) return tag;
    return strip_back(s, line, tag) == line ? line : tag;
}

static size_t find_tag(const struct template *t, size_t at)
{
    for (; at + 1 < t->n; at++) {
        const char *brace = memchr(t->source + at, '{', t->n - at - 1);
        if (!brace) break;
        at = (size_t)(brace - t->source);
        if (brace[1] == '{' || brace[1] == '%' || brace[1] == '#') return at;
    }
    return t->n;
}

/* {% raw %} … {% endraw %}: true, and the lexer stands behind the inner text, which becomes *out. */
static coe_status raw_block(struct jlexer *lx, struct jtoken *out, bool *is_raw)
{
    const struct template *t = lx->t;
    const char *s = t->source;
    size_t at = lx->at + 2;
    *is_raw = false;
    if (at < t->n && (s[at] == '-' || s[at] == '+')) at++;
    at = skip_space(t, at);
    if (t->n - at < 3 || memcmp(s + at, "raw", 3) != 0) return COE_OK;
    at = skip_space(t, at + 3);
    char sign = at < t->n && (s[at] == '-' || s[at] == '+') ? s[at++] : 0;
    if (t->n - at < 2 || memcmp(s + at, "%}", 2) != 0) return COE_OK;
    *is_raw = true;
    end_tag(lx, at + 2, sign, true);
    size_t from = lx->at;
    for (size_t tag = from; (tag = find_tag(t, tag)) < t->n; tag += 2) {
        size_t name = tag + 2;
        if (s[tag + 1] != '%') continue;
        if (name < t->n && (s[name] == '-' || s[name] == '+')) name++;
        name = skip_space(t, name);
        if (t->n - name < 6 || memcmp(s + name, "endraw", 6) != 0) continue;
        size_t end = skip_space(t, name + 6);
        sign = end < t->n && (s[end] == '-' || s[end] == '+') ? s[end++] : 0;
        if (t->n - end < 2 || memcmp(s + end, "%}", 2) != 0) continue;
        place(lx, out);
        out->kind = T_TEXT;
        out->at = s + from;
        out->n = text_end(lx, tag) - from;
        end_tag(lx, end + 2, sign, true);
        return COE_OK;
    }
    return lex_error(lx, "{% raw %} without {% endraw %}");
}

static coe_status skip_comment(struct jlexer *lx)
{
    const struct template *t = lx->t;
    const char *end = lx->at + 4 <= t->n ? memmem(t->source + lx->at + 2, t->n - lx->at - 2, "#}", 2) : NULL;
    if (!end) return lex_error(lx, "comment without end");
    size_t at = (size_t)(end - t->source);
    char sign = at > lx->at + 2 ? t->source[at - 1] : 0;
    end_tag(lx, at + 2, sign, true);
    return COE_OK;
}

/* The next text or the beginning of a tag. */
static coe_status next_outside(struct jlexer *lx, struct jtoken *out)
{
    const struct template *t = lx->t;
    for (;;) {
        size_t tag = find_tag(t, lx->at);
        place(lx, out);
        if (lx->at == t->n) {
            out->kind = T_END;
            return COE_OK;
        }
        size_t end = tag < t->n ? text_end(lx, tag) : t->n, from = lx->at;
        move_to(lx, tag);
        if (end > from) {
            /* the tag is read by the next call; it must not strip again what stands before it */
            out->kind = T_TEXT;
            out->at = t->source + from;
            out->n = end - from;
            return COE_OK;
        }
        if (tag == t->n) continue;
        place(lx, out);
        if (t->source[tag + 1] == '#') {
            COE_TRY(skip_comment(lx));
            continue;
        }
        if (t->source[tag + 1] == '%') {
            bool raw;
            COE_TRY(raw_block(lx, out, &raw));
            if (raw && out->n) return COE_OK;
            if (raw) continue;
        }
        lx->mode = t->source[tag + 1] == '%' ? IN_BLOCK : IN_PRINT;
        out->kind = lx->mode == IN_BLOCK ? T_BLOCK_BEGIN : T_PRINT_BEGIN;
        size_t behind = tag + 2;
        if (behind < t->n && (t->source[behind] == '-' || (t->source[behind] == '+' && lx->mode == IN_BLOCK))) behind++;
        lx->brackets = 0;
        move_to(lx, behind);
        return COE_OK;
    }
}

static coe_status string_token(struct jlexer *lx, struct jtoken *out)
{
    const char *s = lx->t->source + lx->at, *end = lx->t->source + lx->t->n, quote = *s, *p = s + 1;
    struct str text = { 0 };
    static const char from[] = "ntrabfv\\'\"", to[] = "\n\t\r\a\b\f\v\\'\"";
    for (; p < end && *p != quote; p++) {
        if (*p != '\\' || p + 1 == end) {
            str_addc(&text, *p);
            continue;
        }
        const char *simple = memchr(from, *++p, sizeof from - 1);
        size_t digits = *p == 'x' ? 2 : *p == 'u' ? 4 : *p == 'U' ? 8 : 0;
        if (simple) {
            str_addc(&text, to[simple - from]);
        } else if (*p == '\n') {
            continue; /* a line continued */
        } else if (digits && (size_t)(end - p) > digits) {
            char hex[9] = { 0 }, c[4], *stop;
            memcpy(hex, p + 1, digits);
            unsigned long cp = strtoul(hex, &stop, 16);
            if (*stop || cp > 0x10FFFF || (cp >= 0xD800 && cp < 0xE000)) {
                str_free(&text);
                return lex_error(lx, "a character escape in a string is wrong");
            }
            str_add(&text, c, (size_t)utf8_encode((uint32_t)cp, c));
            p += digits;
        } else {
            str_addc(&text, '\\');
            str_addc(&text, *p);
        }
    }
    coe_status st = p == end ? lex_error(lx, "string without end") : str_check(&text);
    char *copy = st ? NULL : arena_push(&lx->t->arena, text.n + 1);
    if (copy && text.n) memcpy(copy, text.at, text.n);
    out->kind = T_STRING;
    out->at = copy;
    out->n = text.n;
    str_free(&text);
    move_to(lx, (size_t)(p - lx->t->source) + 1);
    return st ? st : copy ? COE_OK : COE_E_NOMEM;
}

static coe_status number_token(struct jlexer *lx, struct jtoken *out)
{
    const char *s = lx->t->source + lx->at, *end = lx->t->source + lx->t->n, *p = s;
    char digits[64], *stop;
    size_t n = 0;
    bool real = false;
    for (; p < end && n < sizeof digits - 1; p++) {
        bool exponent = (*p | 32) == 'e' && n && p + 1 < end &&
                        ((p[1] >= '0' && p[1] <= '9') ||
                         ((p[1] == '+' || p[1] == '-') && p + 2 < end && p[2] >= '0' && p[2] <= '9'));
        bool point = *p == '.' && !real && p + 1 < end && p[1] >= '0' && p[1] <= '9';
        if (*p == '_') continue;
        if (!exponent && !point && !(*p >= '0' && *p <= '9')) break;
        digits[n++] = *p;
        if (exponent && (p[1] == '+' || p[1] == '-')) digits[n++] = *++p;
        real |= exponent || point;
    }
    digits[n] = 0;
    errno = 0;
    out->kind = real ? T_FLOAT : T_INT;
    if (real) out->f = strtod(digits, &stop);
    else out->i = strtoll(digits, &stop, 10);
    if (errno || n >= sizeof digits - 2) return lex_error(lx, "number too large");
    move_to(lx, (size_t)(p - lx->t->source));
    return COE_OK;
}

static bool starts_name(char c) { return c == '_' || ((c | 32) >= 'a' && (c | 32) <= 'z') || (unsigned char)c >= 0x80; }

static coe_status operator_token(struct jlexer *lx, struct jtoken *out)
{
    static const char *const two[] = { "==", "!=", "<=", ">=", "//", "**" };
    const char *s = lx->t->source + lx->at;
    size_t left = lx->t->n - lx->at;
    out->kind = T_OP;
    out->at = s;
    out->n = 1;
    for (size_t i = 0; i < COE_COUNT(two); i++)
        if (left >= 2 && !memcmp(s, two[i], 2)) out->n = 2;
    if (out->n == 1 && !strchr("+-*/%~<>=()[]{}.,:|;", *s))
        return lex_error(lx, "a character that has no meaning here");
    if (strchr("([{", *s)) lx->brackets++;
    if (strchr(")]}", *s) && lx->brackets) lx->brackets--;
    move_to(lx, lx->at + out->n);
    return COE_OK;
}

/* The end of the tag, when it stands here. */
static bool tag_ends(struct jlexer *lx, struct jtoken *out)
{
    const char *s = lx->t->source + lx->at;
    size_t left = lx->t->n - lx->at;
    const char *end = lx->mode == IN_BLOCK ? "%}" : "}}";
    bool sign = left >= 3 && (*s == '-' || (*s == '+' && lx->mode == IN_BLOCK)) && !memcmp(s + 1, end, 2);
    if (!sign && (left < 2 || memcmp(s, end, 2) != 0 || lx->brackets)) return false;
    out->kind = lx->mode == IN_BLOCK ? T_BLOCK_END : T_PRINT_END;
    end_tag(lx, lx->at + 2 + sign, sign ? *s : 0, lx->mode == IN_BLOCK);
    lx->mode = IN_TEXT;
    return true;
}

coe_status jinja_next(struct jlexer *lx, struct jtoken *out)
{
    *out = (struct jtoken){ 0 };
    if (lx->mode == IN_TEXT) return next_outside(lx, out);
    move_to(lx, skip_space(lx->t, lx->at));
    place(lx, out);
    if (lx->at == lx->t->n) return lex_error(lx, "the template ends inside a tag");
    if (tag_ends(lx, out)) return COE_OK;
    const char *s = lx->t->source + lx->at;
    if (*s == '"' || *s == '\'') return string_token(lx, out);
    if (*s >= '0' && *s <= '9') return number_token(lx, out);
    if (!starts_name(*s)) return operator_token(lx, out);
    size_t end = lx->at;
    while (end < lx->t->n &&
           (starts_name(lx->t->source[end]) || (lx->t->source[end] >= '0' && lx->t->source[end] <= '9')))
        end++;
    out->kind = T_NAME;
    out->at = s;
    out->n = end - lx->at;
    move_to(lx, end);
    return COE_OK;
}
