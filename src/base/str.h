/* str.h — a growing byte string with a sticky out-of-memory flag, so a run of appends is checked once. */
#ifndef COE_STR_H
#define COE_STR_H

#include "mem.h"

struct str {
    char *at; /* NUL-terminated once anything was appended; NULL before */
    size_t n, cap;
    bool oom;
};

void str_add(struct str *s, const char *bytes, size_t n);
void str_addz(struct str *s, const char *text);
void str_addc(struct str *s, char c);
void str_addf(struct str *s, const char *format, ...) COE_PRINTF(2, 3);
void str_clear(struct str *s);
void str_free(struct str *s);
/* COE_OK, or COE_E_NOMEM if any append failed. */
coe_status str_check(const struct str *s);

/* Length of the UTF-8 character that starts at p (1 to 4), or 0 if p[0..n) does not start with a valid one
 * (surrogates and overlong forms are invalid). *cp may be NULL. */
int utf8_decode(const char *p, size_t n, uint32_t *cp);
/* Writes 1 to 4 bytes, returns how many. */
int utf8_encode(uint32_t cp, char out[4]);
/* How many bytes at the end of text[0..n) are the beginning of a character that is not complete yet (0 to 3). */
size_t utf8_incomplete_tail(const char *text, size_t n);

/* "4G", "512M", "1.5GiB", "100k", "12345" → bytes (powers of 1024). COE_E_USAGE naming `what` otherwise. */
coe_status parse_size(const char *text, const char *what, uint64_t *bytes);
/* Whole-string numbers; COE_E_USAGE naming `what` and the text otherwise. */
coe_status parse_int(const char *text, const char *what, int64_t lo, int64_t hi, int64_t *out);
coe_status parse_double(const char *text, const char *what, double *out);

#endif
