/* unicode_form.h — Unicode normal forms of bytes: what is not UTF-8 stays as it is. Linear in the text. */
#ifndef COE_TEXT_UNICODE_FORM_H
#define COE_TEXT_UNICODE_FORM_H

#include "base/str.h"

enum unicode_form { FORM_NFC, FORM_NFD, FORM_NFKC, FORM_NFKD };

/* Bytes at the beginning of the text that the form leaves as they are, whatever follows; n when the whole text is. */
size_t unicode_form_prefix(enum unicode_form form, const char *text, size_t n);
/* Appends the form of the text. */
coe_status unicode_form(struct str *out, enum unicode_form form, const char *text, size_t n);

#endif
