/* panel.h — block types as the kernels read them: rows interleaved in panels, and what their integers look like.
 *
 * A panel is PANEL_ROWS rows side by side, the same bytes in another order: block by block along k, each block's fields
 * cut into units of 1, 2 or 4 bytes, and each unit of all rows before the next unit. Codes have units of 4 bytes, so a
 * register of them holds four consecutive k (for two halves of a block, in types of nibbles) of each row; scales come
 * as a vector over rows. Rows behind the last whole panel stay as stored. Row r's panel begins where row r would. */
#ifndef COE_TENSOR_QUANT_PANEL_H
#define COE_TENSOR_QUANT_PANEL_H

#include "tensor/tensor.h"

#define PANEL_ROWS 32

/* What the codes of a type are to the kernels: code + offset is a byte without sign; a scale serves `sub` codes (0: the
 * whole of x_block); mins or not. Types with mins have offset 0. Types with offset 128 use all eight bits. */
struct code_format {
    uint8_t sub, offset;
    bool mins;
};
/* Of every type with x_block. */
extern const struct code_format code_format[DT_COUNT];

/* Whether panels of t exist. */
bool panel_type(enum dtype t);
/* n_blocks blocks of PANEL_ROWS stored rows, row_bytes apart, into panel order at `panel`; of rows >= valid zeros are
 * written instead of what src holds. */
void panel_pack(uint8_t *panel, const uint8_t *src, size_t row_bytes, int valid, enum dtype t, int64_t n_blocks);
/* The inverse, all rows. */
void panel_unpack(uint8_t *dst, size_t row_bytes, const uint8_t *panel, enum dtype t, int64_t n_blocks);

#endif
