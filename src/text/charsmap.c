/* charsmap.c — SentencePiece's precompiled character map.
 *
 *     uint32 bytes of the double array | its units, little-endian | replacements, each ended by NUL
 *
 * A unit is label (low 8 bits and bit 31), "a value is below" (bit 8), offset (bits 10 …, times 256 when bit 9 is set);
 * a unit with bit 31 is a value: an index into the replacements. Every index is checked: the map comes from a file. */
#include "text/tok.h"

#include <string.h>

static uint32_t unit_offset(uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); }
static uint32_t unit_label(uint32_t unit) { return unit & (1u << 31 | 0xFF); }

coe_status charsmap_read(struct charsmap *m, const char *bytes, size_t n, const char *where)
{
    uint32_t table;
    if (!n) return COE_OK;
    if (n < 4) return coe_fail(COE_E_INPUT, "%s: the precompiled character map is %zu bytes, too short", where, n);
    memcpy(&table, bytes, 4);
    if (table % 4 || table > n - 4 || !table)
        return coe_fail(COE_E_INPUT, "%s: the precompiled character map says %u bytes of table in %zu", where, table,
                        n);
    m->n_units = table / 4;
    m->n_text = n - 4 - table;
    m->unit = mem_alloc("tokenizer", table);
    m->text = mem_alloc("tokenizer", m->n_text + 1);
    if (!m->unit || !m->text) return COE_E_NOMEM;
    memcpy(m->unit, bytes + 4, table);
    memcpy(m->text, bytes + 4 + table, m->n_text);
    m->text[m->n_text] = 0;
    return COE_OK;
}

void charsmap_free(struct charsmap *m)
{
    mem_free(m->unit);
    mem_free(m->text);
    *m = (struct charsmap){ 0 };
}

static size_t search(const struct charsmap *m, const char *text, size_t n, const char **to, bool shortest)
{
    size_t best = 0;
    if (!m->n_units) return 0;
    uint64_t at = unit_offset(m->unit[0]);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        at ^= c;
        if (at >= m->n_units || !c || unit_label(m->unit[at]) != c) break;
        uint32_t unit = m->unit[at];
        at ^= unit_offset(unit);
        if (!(unit >> 8 & 1)) continue;
        if (at >= m->n_units) break;
        uint32_t value = m->unit[at] & 0x7FFFFFFF;
        if (value > m->n_text) break;
        *to = m->text + value;
        best = i + 1;
        if (shortest) break;
    }
    return best;
}

size_t charsmap_longest(const struct charsmap *m, const char *text, size_t n, const char **to)
{
    return search(m, text, n, to, false);
}
size_t charsmap_shortest(const struct charsmap *m, const char *text, size_t n, const char **to)
{
    return search(m, text, n, to, true);
}
