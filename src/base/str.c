/* str.c — growing strings, UTF-8, numbers written by people. */
#include "str.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool room(struct str *s, size_t more)
{
    size_t need;
    if (s->oom || !coe_add_size(&need, s->n, more) || !coe_add_size(&need, need, 1)) return !(s->oom = true);
    if (need > s->cap && !vec_grow((void **)&s->at, &s->cap, need, 1)) s->oom = true;
    return !s->oom;
}

void str_add(struct str *s, const char *bytes, size_t n)
{
    if (!room(s, n)) return;
    if (n) memcpy(s->at + s->n, bytes, n);
    s->n += n;
    s->at[s->n] = 0;
}

void str_addz(struct str *s, const char *text) { str_add(s, text, strlen(text)); }
void str_addc(struct str *s, char c) { str_add(s, &c, 1); }

void str_addf(struct str *s, const char *format, ...)
{
    va_list ap, again;
    va_start(ap, format);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, format, ap);
    if (n >= 0 && room(s, (size_t)n)) {
        vsnprintf(s->at + s->n, (size_t)n + 1, format, again);
        s->n += (size_t)n;
    }
    va_end(again);
    va_end(ap);
}

void str_clear(struct str *s)
{
    s->n = 0;
    if (s->at) s->at[0] = 0;
}

void str_free(struct str *s)
{
    mem_free(s->at);
    *s = (struct str){ 0 };
}

coe_status str_check(const struct str *s) { return s->oom ? COE_E_NOMEM : COE_OK; }

int utf8_decode(const char *p, size_t n, uint32_t *cp)
{
    const unsigned char *u = (const unsigned char *)p;
    if (!n) return 0;
    uint32_t c = u[0];
    int len = c < 0x80 ? 1 : c < 0xC2 ? 0 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : c < 0xF5 ? 4 : 0;
    if (!len || (size_t)len > n) return 0;
    if (len > 1) c &= 0x7Fu >> len;
    for (int i = 1; i < len; i++) {
        if ((u[i] & 0xC0) != 0x80) return 0;
        c = c << 6 | (u[i] & 0x3Fu);
    }
    if ((len == 3 && (c < 0x800 || (c >= 0xD800 && c < 0xE000))) || (len == 4 && (c < 0x10000 || c > 0x10FFFF)))
        return 0;
    if (cp) *cp = c;
    return len;
}

int utf8_encode(uint32_t cp, char out[4])
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xC0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3F));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xE0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3F));
        out[2] = (char)(0x80 | (cp & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3F));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3F));
    out[3] = (char)(0x80 | (cp & 0x3F));
    return 4;
}

size_t utf8_incomplete_tail(const char *text, size_t n)
{
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        unsigned char c = (unsigned char)text[n - back];
        if ((c & 0xC0) == 0x80) continue;
        int len = c >= 0xC2 && c < 0xE0 ? 2 : c >= 0xE0 && c < 0xF0 ? 3 : c >= 0xF0 && c < 0xF5 ? 4 : 1;
        if ((size_t)len <= back) return 0;
        /* the bytes so far must still be able to become a character: E0 needs A0.., ED ..9F, F0 90.., F4 ..8F */
        if (back > 1) {
            unsigned char d = (unsigned char)text[n - back + 1];
            if ((c == 0xE0 && d < 0xA0) || (c == 0xED && d > 0x9F) || (c == 0xF0 && d < 0x90) ||
                (c == 0xF4 && d > 0x8F))
                return 0;
        }
        return back;
    }
    return 0;
}

coe_status parse_double(const char *text, const char *what, double *out)
{
    char *end;
    errno = 0;
    double x = strtod(text, &end);
    if (end == text || *end || errno || !isfinite(x))
        return coe_fail(COE_E_USAGE, "%s: '%s' is not a number", what, text);
    *out = x;
    return COE_OK;
}

coe_status parse_int(const char *text, const char *what, int64_t lo, int64_t hi, int64_t *out)
{
    char *end;
    errno = 0;
    long long x = strtoll(text, &end, 10);
    if (end == text || *end || errno) return coe_fail(COE_E_USAGE, "%s: '%s' is not a whole number", what, text);
    if (x < lo || x > hi)
        return coe_fail(COE_E_USAGE, "%s: %lld is outside %lld … %lld", what, x, (long long)lo, (long long)hi);
    *out = x;
    return COE_OK;
}

coe_status parse_size(const char *text, const char *what, uint64_t *bytes)
{
    static const struct {
        const char *suffix;
        double factor;
    } units[] = { { "", 1 },
                  { "B", 1 },
                  { "K", 1024 },
                  { "M", 1048576.0 },
                  { "G", 1073741824.0 },
                  { "T", 1099511627776.0 },
                  { "KB", 1024 },
                  { "MB", 1048576.0 },
                  { "GB", 1073741824.0 },
                  { "TB", 1099511627776.0 },
                  { "KiB", 1024 },
                  { "MiB", 1048576.0 },
                  { "GiB", 1073741824.0 },
                  { "TiB", 1099511627776.0 } };
    char *end;
    double x = strtod(text, &end);
    if (end != text && isfinite(x) && x >= 0)
        for (size_t i = 0; i < COE_COUNT(units); i++)
            if (!strcasecmp(end, units[i].suffix) && x * units[i].factor < 9e18) {
                *bytes = (uint64_t)(x * units[i].factor);
                return COE_OK;
            }
    return coe_fail(COE_E_USAGE, "%s: '%s' is not a size such as 512M or 4G", what, text);
}
