/* panel.h — block types as the kernels read them: rows interleaved in panels, and what their integers look like.
 *
 * A panel is PANEL_ROWS rows side by side, the same bytes in another order: block by block along k, of each block
 * first sixteen rows, then the other sixteen (so that sixteen rows are one run of bytes), of these the fields in the
 * order of their use (panel_fields), cut into units of 1, 2 or 4 bytes, and each unit of all sixteen rows before the
 * next unit. Codes have units of 4 bytes, so a register of them holds four consecutive k (for two parts of a block,
 * in types of nibbles) of each row; scales come as a vector over rows. Rows behind the last whole panel stay as
 * stored. Row r's panel begins where row r would. */
#ifndef COE_TENSOR_QUANT_PANEL_H
#define COE_TENSOR_QUANT_PANEL_H

#include "tensor/tensor.h"

#define PANEL_ROWS 32
#define PANEL_HALF 16

/* What the codes of a type are to the kernels: code + offset is a byte without sign; a scale serves `sub` codes (0: the
 * whole of x_block); mins or not. Types with mins have offset 0. Types with offset 128 use all eight bits. */
struct code_format {
    uint8_t sub, offset;
    bool mins;
};
/* Of every type with x_block. Here, because kernels are made for constants of it. */
COE_UNUSED static const struct code_format code_format[DT_COUNT] = {
    [DT_Q4_0] = { 0, 8, false },      [DT_Q4_1] = { 0, 0, true },     [DT_Q5_0] = { 0, 16, false },
    [DT_Q5_1] = { 0, 0, true },       [DT_Q8_0] = { 0, 128, false },  [DT_IQ4_NL] = { 0, 128, false },
    [DT_MXFP4] = { 0, 12, false },    [DT_Q1_0] = { 0, 1, false },    [DT_Q2_0] = { 0, 1, false },
    [DT_Q2_K] = { 16, 0, true },      [DT_Q3_K] = { 16, 4, false },   [DT_Q4_K] = { 32, 0, true },
    [DT_Q5_K] = { 32, 0, true },      [DT_Q6_K] = { 16, 32, false },  [DT_IQ4_XS] = { 32, 128, false },
    [DT_IQ2_XXS] = { 32, 64, false }, [DT_IQ2_XS] = { 16, 64, false }, [DT_IQ2_S] = { 16, 64, false },
    [DT_IQ3_XXS] = { 32, 64, false }, [DT_IQ3_S] = { 32, 16, false },  [DT_IQ1_S] = { 32, 16, false },
    [DT_IQ1_M] = { 16, 16, false },   [DT_TQ1_0] = { 32, 1, false },   [DT_TQ2_0] = { 32, 1, false },
};

/* Whether panels of t exist. */
bool panel_type(enum dtype t);
/* A field of a block: `bytes` from `offset`, in units of `unit`; behind each unit come those of other fields, `beside`
 * instead of `offset`, that are used with it. The list of a type ends with no bytes. */
struct panel_field {
    uint8_t offset, bytes, unit, beside[2];
};
#define PANEL_FIELDS 5
/* Fields in the order in which the kernels use them: memory is fast when it is read from front to back. */
COE_UNUSED static const struct panel_field panel_fields[DT_COUNT][PANEL_FIELDS] = {
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
/* Rows row … row+n-1 of a weight as stored, to where they lie in a weight with `panels` (dst: of row `row`); `row` is a
 * multiple of PANEL_ROWS, and so is n, or it reaches the last row. Threads may take ranges of rows. */
void panel_pack_rows(void *dst, const struct weight *w, int64_t row, int64_t n);

#endif
