/* base64.c — see base64.h. */
#include "base64.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static int value_of(char c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool base64_decode(struct str *out, const char *text, size_t n)
{
    uint32_t bits = 0;
    int have = 0;
    size_t digits = 0;
    while (n && text[n - 1] == '=') n--;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\n' || text[i] == '\r') continue;
        int v = value_of(text[i]);
        if (v < 0) return false;
        bits = bits << 6 | (uint32_t)v;
        have += 6;
        digits++;
        if (have >= 8) str_addc(out, (char)(bits >> (have -= 8)));
    }
    return digits % 4 != 1;
}

void base64_encode(struct str *out, const void *bytes, size_t n)
{
    const unsigned char *b = bytes;
    for (size_t i = 0; i < n; i += 3) {
        uint32_t bits = (uint32_t)b[i] << 16 | (i + 1 < n ? (uint32_t)b[i + 1] << 8 : 0) | (i + 2 < n ? b[i + 2] : 0u);
        for (size_t k = 0; k < 4; k++) str_addc(out, i + k <= n ? alphabet[bits >> (18 - 6 * k) & 63] : '=');
    }
}
