/* q_pack.c — rows of blocks as stored into panel order: definition in quant/panel.h. Done once when a model is packed,
 * and TILE_K of k at a time where there is no room for that. */
#include "tensor/cpu/q_tile.h"

/* `units` units of four bytes of sixteen rows; in the panel each is `apart` units behind the one before. A field of
 * fewer than four is read together with what is behind it in its block. */
static void pack_fours(uint8_t *panel, const uint8_t *rows, size_t row_bytes, int units, int apart)
{
    const int step = COE_MIN(units, 4);
    for (int u = 0; u < units; u += step) {
        const int first = COE_MIN(u, units - step); /* the last four may repeat some */
        q16 four[4];
        q16_columns(four, rows + 4 * first, row_bytes);
        for (int i = 0; i < step; i++) q16_store(panel + (first + i) * apart * PANEL_HALF * 4, four[i]);
    }
}

/* One unit of one or two bytes; unit is a constant where this is inlined. */
LANES void pack_small(uint8_t *panel, const uint8_t *rows, size_t row_bytes, size_t unit)
{
    UNROLL(16) for (size_t r = 0; r < PANEL_HALF; r++) memcpy(panel + r * unit, rows + r * row_bytes, unit);
}

static int beside(const struct panel_field *f) { return f->beside[0] ? f->beside[1] ? 2 : 1 : 0; }

/* One field of one block of sixteen rows; returns what lies behind it in the panel. */
static uint8_t *pack_field(uint8_t *panel, const uint8_t *rows, size_t row_bytes, const struct panel_field *f)
{
    const int together = 1 + beside(f);
    if (f->unit == 4)
        for (int i = 0; i < together; i++)
            pack_fours(panel + i * PANEL_HALF * 4, rows + (i ? f->beside[i - 1] : f->offset), row_bytes, f->bytes / 4,
                       together);
    else
        for (int at = 0; at < f->bytes; at += f->unit) {
            if (f->unit == 2) pack_small(panel + at * PANEL_HALF, rows + f->offset + at, row_bytes, 2);
            else pack_small(panel + at * PANEL_HALF, rows + f->offset + at, row_bytes, 1);
        }
    return panel + f->bytes * together * PANEL_HALF;
}

static uint8_t *pack_half(uint8_t *panel, const uint8_t *rows, size_t row_bytes, enum dtype t)
{
    for (const struct panel_field *f = panel_fields[t]; f < panel_fields[t] + PANEL_FIELDS && f->bytes; f++)
        panel = pack_field(panel, rows, row_bytes, f);
    return panel;
}

/* Sixteen rows at once are more streams than the hardware follows: hence `next`. */
void LEVEL_FN(q_pack)(uint8_t *panel, const uint8_t *rows, size_t row_bytes, enum dtype t, int64_t n_blocks,
                      const uint8_t *next)
{
    const int64_t share = dtype_info[t].bytes * PANEL_ROWS;
    for (int64_t b = 0; b < n_blocks; b++, rows += dtype_info[t].bytes) {
        if (next) q_fetch(next + b * share, next + (b + 1) * share);
        panel = pack_half(panel, rows, row_bytes, t);
        panel = pack_half(panel, rows + PANEL_HALF * row_bytes, row_bytes, t);
    }
}
