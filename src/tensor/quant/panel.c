/* panel.c — rows of blocks into panels and back: see panel.h. */
#include "panel.h"

#include <string.h>

/* A field of a block: `bytes` from `offset`, in units of `unit`. */
struct field {
    uint8_t offset, bytes, unit;
};
#define FIELDS_MAX 5

/* Fields in the order of the block, so a panel of one row would be the block itself. */
static const struct field fields[DT_COUNT][FIELDS_MAX] = {
    [DT_Q4_0] = { { 0, 2, 2 }, { 2, 16, 4 } },
    [DT_Q4_1] = { { 0, 4, 2 }, { 4, 16, 4 } },
    [DT_Q5_0] = { { 0, 2, 2 }, { 2, 20, 4 } },
    [DT_Q5_1] = { { 0, 4, 2 }, { 4, 20, 4 } },
    [DT_Q8_0] = { { 0, 2, 2 }, { 2, 32, 4 } },
    [DT_IQ4_NL] = { { 0, 2, 2 }, { 2, 16, 4 } },
    [DT_MXFP4] = { { 0, 1, 1 }, { 1, 16, 4 } },
    [DT_Q2_K] = { { 0, 80, 4 }, { 80, 4, 2 } },
    [DT_Q3_K] = { { 0, 108, 4 }, { 108, 2, 2 } },
    [DT_Q4_K] = { { 0, 4, 2 }, { 4, 140, 4 } },
    [DT_Q5_K] = { { 0, 4, 2 }, { 4, 172, 4 } },
    [DT_Q6_K] = { { 0, 208, 4 }, { 208, 2, 2 } },
    [DT_IQ4_XS] = { { 0, 4, 2 }, { 4, 132, 4 } },
};

const struct code_format code_format[DT_COUNT] = {
    [DT_Q4_0] = { 0, 8, false },      [DT_Q4_1] = { 0, 0, true },     [DT_Q5_0] = { 0, 16, false },
    [DT_Q5_1] = { 0, 0, true },       [DT_Q8_0] = { 0, 128, false },  [DT_IQ4_NL] = { 0, 128, false },
    [DT_MXFP4] = { 0, 12, false },    [DT_Q1_0] = { 0, 1, false },    [DT_Q2_0] = { 0, 1, false },
    [DT_Q2_K] = { 16, 0, true },      [DT_Q3_K] = { 16, 4, false },   [DT_Q4_K] = { 32, 0, true },
    [DT_Q5_K] = { 32, 0, true },      [DT_Q6_K] = { 16, 32, false },  [DT_IQ4_XS] = { 32, 128, false },
    [DT_IQ2_XXS] = { 32, 64, false }, [DT_IQ2_XS] = { 16, 64, false }, [DT_IQ2_S] = { 16, 64, false },
    [DT_IQ3_XXS] = { 32, 64, false }, [DT_IQ3_S] = { 32, 16, false },  [DT_IQ1_S] = { 32, 16, false },
    [DT_IQ1_M] = { 16, 16, false },   [DT_TQ1_0] = { 32, 1, false },   [DT_TQ2_0] = { 32, 1, false },
};

bool panel_type(enum dtype t) { return fields[t][0].bytes > 0; }

/* One unit of every row; unit is a constant where this is inlined. */
static inline void gather_unit(uint8_t *to, const uint8_t *from, size_t row_bytes, int valid, size_t unit)
{
    for (int r = 0; r < valid; r++) memcpy(to + (size_t)r * unit, from + (size_t)r * row_bytes, unit);
    memset(to + (size_t)valid * unit, 0, (size_t)(PANEL_ROWS - valid) * unit);
}

static inline void scatter_unit(uint8_t *to, size_t row_bytes, const uint8_t *from, size_t unit)
{
    for (int r = 0; r < PANEL_ROWS; r++) memcpy(to + (size_t)r * row_bytes, from + (size_t)r * unit, unit);
}

void panel_pack(uint8_t *panel, const uint8_t *src, size_t row_bytes, int valid, enum dtype t, int64_t n_blocks)
{
    const size_t block_bytes = (size_t)dtype_info[t].bytes;
    for (int64_t b = 0; b < n_blocks; b++, src += block_bytes)
        for (const struct field *f = fields[t]; f < fields[t] + FIELDS_MAX && f->bytes; f++)
            for (size_t u = 0; u < f->bytes; u += f->unit, panel += PANEL_ROWS * f->unit) {
                const uint8_t *from = src + f->offset + u;
                if (f->unit == 4) gather_unit(panel, from, row_bytes, valid, 4);
                else if (f->unit == 2) gather_unit(panel, from, row_bytes, valid, 2);
                else gather_unit(panel, from, row_bytes, valid, 1);
            }
}

void panel_unpack(uint8_t *dst, size_t row_bytes, const uint8_t *panel, enum dtype t, int64_t n_blocks)
{
    const size_t block_bytes = (size_t)dtype_info[t].bytes;
    for (int64_t b = 0; b < n_blocks; b++, dst += block_bytes)
        for (const struct field *f = fields[t]; f < fields[t] + FIELDS_MAX && f->bytes; f++)
            for (size_t u = 0; u < f->bytes; u += f->unit, panel += PANEL_ROWS * f->unit)
                scatter_unit(dst + f->offset + u, row_bytes, panel, f->unit);
}
