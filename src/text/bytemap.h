/* bytemap.h — the 256 printable characters that stand for the bytes in byte-level vocabularies (GPT-2's table): a byte
 * that is printable in Latin-1 is itself, the other 68 are U+0100 … U+0143 in order. */
#ifndef COE_TEXT_BYTEMAP_H
#define COE_TEXT_BYTEMAP_H

#include <stdint.h>

static inline uint32_t bytemap_char(uint8_t b)
{
    if (b < 33) return 256u + b;
    if (b < 127) return b;
    if (b < 161) return 256u + 33u + (b - 127u);
    return b == 173 ? 256u + 67u : b;
}

/* -1 for a character outside the table */
static inline int bytemap_byte(uint32_t cp)
{
    if (cp < 256) return (cp >= 33 && cp < 127) || (cp >= 161 && cp != 173) ? (int)cp : -1;
    if (cp < 256 + 33) return (int)(cp - 256);
    if (cp < 256 + 67) return (int)(cp - 256 - 33 + 127);
    return cp == 256 + 67 ? 173 : -1;
}

#endif
