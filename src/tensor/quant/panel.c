/* panel.c — rows of blocks into panels and back: see panel.h. */
#include "panel.h"

#include <string.h>

/* A field of a block: `bytes` from `offset`, in units of `unit`; behind each unit come those of other fields, `beside`
 * instead of `offset`, that are used with it. */
struct field {
    uint8_t offset, bytes, unit, beside[2];
};
#define FIELDS_MAX 5

/* Fields in the order in which the kernels use them: memory is fast when it is read from front to back. */
static const struct field fields[DT_COUNT][FIELDS_MAX] = {
    [DT_Q4_0] = { { 0, 2, 2 }, { 2, 16, 4 } },
    [DT_Q4_1] = { { 0, 4, 2 }, { 4, 16, 4 } },
    [DT_Q5_0] = { { 0, 2, 2 }, { 2, 20, 4 } },
    [DT_Q5_1] = { { 0, 4, 2 }, { 4, 20, 4 } },
    [DT_Q8_0] = { { 0, 2, 2 }, { 2, 32, 4 } },
    [DT_IQ4_NL] = { { 0, 2, 2 }, { 2, 16, 4 } },
    [DT_MXFP4] = { { 0, 1, 1 }, { 1, 16, 4 } },
    [DT_Q2_K] = { { 16, 64, 4 }, { 0, 16, 4 }, { 80, 4, 2 } },
    [DT_Q3_K] = { { 0, 108, 4 }, { 108, 2, 2 } },
    [DT_Q4_K] = { { 16, 128, 4 }, { 4, 12, 4 }, { 0, 4, 2 } },
    [DT_Q5_K] = { { 16, 160, 4 }, { 4, 12, 4 }, { 0, 4, 2 } },
    [DT_Q6_K] = { { 0, 32, 4, { 32, 128 } }, { 64, 32, 4, { 96, 160 } }, { 192, 16, 4 }, { 208, 2, 2 } },
    [DT_IQ4_XS] = { { 8, 128, 4 }, { 4, 4, 4 }, { 0, 4, 2 } },
};

bool panel_type(enum dtype t) { return fields[t][0].bytes > 0; }

/* One unit of sixteen rows; unit is a constant where this is inlined. */
static inline void gather_unit(uint8_t *to, const uint8_t *from, size_t row_bytes, size_t unit)
{
    for (size_t r = 0; r < PANEL_HALF; r++) memcpy(to + r * unit, from + r * row_bytes, unit);
}

static inline void scatter_unit(uint8_t *to, size_t row_bytes, const uint8_t *from, size_t unit)
{
    for (size_t r = 0; r < PANEL_HALF; r++) memcpy(to + r * row_bytes, from + r * unit, unit);
}

static uint8_t *pack_unit(uint8_t *panel, const uint8_t *from, size_t row_bytes, size_t unit)
{
    if (unit == 4) gather_unit(panel, from, row_bytes, 4);
    else if (unit == 2) gather_unit(panel, from, row_bytes, 2);
    else gather_unit(panel, from, row_bytes, 1);
    return panel + PANEL_HALF * unit;
}

/* One block of sixteen rows; returns what lies behind it in the panel. */
static uint8_t *pack_half(uint8_t *panel, const uint8_t *src, size_t row_bytes, enum dtype t)
{
    for (const struct field *f = fields[t]; f < fields[t] + FIELDS_MAX && f->bytes; f++)
        for (size_t u = 0; u < f->bytes; u += f->unit) {
            panel = pack_unit(panel, src + f->offset + u, row_bytes, f->unit);
            for (int i = 0; i < 2 && f->beside[i]; i++)
                panel = pack_unit(panel, src + f->beside[i] + u, row_bytes, f->unit);
        }
    return panel;
}

static void fetch(const uint8_t *at, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(at + i, 0, 2);
}

/* While one panel is packed, the bytes of the next, if there is one, are fetched in the order in which they lie: a walk
 * along sixteen rows at once is more streams than the hardware follows, and half as fast. */
static void pack_and_fetch(uint8_t *panel, const uint8_t *src, size_t row_bytes, enum dtype t, int64_t n_blocks,
                           const uint8_t *next)
{
    const size_t share = PANEL_ROWS * dtype_info[t].bytes;
    for (int64_t b = 0; b < n_blocks; b++, src += dtype_info[t].bytes) {
        if (next) fetch(next + (size_t)b * share, share);
        panel = pack_half(panel, src, row_bytes, t);
        panel = pack_half(panel, src + PANEL_HALF * row_bytes, row_bytes, t);
    }
}

void panel_pack(uint8_t *panel, const uint8_t *src, size_t row_bytes, enum dtype t, int64_t n_blocks)
{
    pack_and_fetch(panel, src, row_bytes, t, n_blocks, NULL);
}

static const uint8_t *unpack_half(uint8_t *dst, size_t row_bytes, const uint8_t *panel, enum dtype t)
{
    for (const struct field *f = fields[t]; f < fields[t] + FIELDS_MAX && f->bytes; f++)
        for (size_t u = 0; u < f->bytes; u += f->unit) {
            scatter_unit(dst + f->offset + u, row_bytes, panel, f->unit);
            panel += PANEL_HALF * f->unit;
            for (int i = 0; i < 2 && f->beside[i]; i++, panel += PANEL_HALF * f->unit)
                scatter_unit(dst + f->beside[i] + u, row_bytes, panel, f->unit);
        }
    return panel;
}

void panel_unpack(uint8_t *dst, size_t row_bytes, const uint8_t *panel, enum dtype t, int64_t n_blocks)
{
    for (int64_t b = 0; b < n_blocks; b++, dst += dtype_info[t].bytes) {
        panel = unpack_half(dst, row_bytes, panel, t);
        panel = unpack_half(dst + PANEL_HALF * row_bytes, row_bytes, panel, t);
    }
}

void panel_pack_rows(void *dst, const struct weight *w, int64_t row, int64_t n)
{
    const size_t row_bytes = (size_t)(w->cols / dtype_info[w->type].block * dtype_info[w->type].bytes);
    const uint8_t *src = (const uint8_t *)w->data + (size_t)row * row_bytes;
    uint8_t *to = dst;
    assert(panel_type(w->type) && row % PANEL_ROWS == 0);
    for (; n >= PANEL_ROWS; n -= PANEL_ROWS, src += PANEL_ROWS * row_bytes, to += PANEL_ROWS * row_bytes)
        pack_and_fetch(to, src, row_bytes, w->type, w->cols / dtype_info[w->type].block,
                       n >= 2 * PANEL_ROWS ? src + PANEL_ROWS * row_bytes : NULL);
    memcpy(to, src, (size_t)n * row_bytes);
}
