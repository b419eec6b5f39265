/* base64.h — base64 as files and requests carry bytes in text (RFC 4648, padding optional, line ends skipped). */
#ifndef COE_BASE64_H
#define COE_BASE64_H

#include "str.h"

/* Appends; false for a character outside the alphabet or a length that no bytes have. */
bool base64_decode(struct str *out, const char *text, size_t n);
void base64_encode(struct str *out, const void *bytes, size_t n);

#endif
