/* quant.h — block types: rows of values stored as blocks of codes with shared scales, as GGUF files hold them.
 *
 * Enters here: the layout of each type, decoding to float, encoding from float. Knows no files. Reading order: quant.h,
 * table.c (one row a type), plain.c, kquant.c, codebook.c (decoding), then encode_*.c.
 *
 * A row of n values, n a multiple of dtype_info[t].block, is n / block consecutive blocks without padding. */
#ifndef COE_TENSOR_QUANT_H
#define COE_TENSOR_QUANT_H

#include "tensor/tensor.h"

/* dst[n] = the values of n elements of type t at src (any address), whole blocks. Any type; the same as widen(). */
void dtype_decode_row(float *dst, const void *src, enum dtype t, int64_t n);

/* Whether dtype_encode_row knows t: F32, F16, BF16 and the block types that have an encoder. */
bool dtype_can_encode(enum dtype t);
/* dst = src[n] as type t, whole blocks. importance [n] or NULL: how much an error in each column costs (mean square of
 * the input that meets it); types that round plainly ignore it; where it is zero throughout a
 * sub-block nothing holds the codes to the values, so an expert that was never visited gets ones or NULL.
 * Deterministic; a row's bytes depend on nothing but the row. */
void dtype_encode_row(void *dst, enum dtype t, const float *src, int64_t n, const float *importance);

/* Numbers of the types in GGUF files. DT_COUNT and -1 when there is none. */
enum dtype dtype_of_ggml(uint32_t id);
int32_t dtype_ggml_id(enum dtype t);

/* FP8 E4M3 weights with one scale for each block of block_rows x block_cols values (DeepSeek: 128 x 128):
 * dst[r, c] = f8(src[r, c]) * scale[r / block_rows, c / block_cols] for rows first_row … first_row + n_rows - 1 of a
 * matrix with `cols` columns; src points to row first_row, scale [ceil(rows/block_rows), ceil(cols/block_cols)] to its
 * beginning. */
void fp8_decode_rows(float *dst, const void *src, const float *scale, int64_t first_row, int64_t n_rows, int64_t cols,
                     int64_t block_rows, int64_t block_cols);

/* MXFP4 as gpt-oss checkpoints hold it: NAME_blocks [rows, cols / 32, 16], where byte b of a block has value 2b in its
 * low and 2b + 1 in its high nibble, and NAME_scales [rows, cols / 32]. dst = the same n values as blocks of DT_MXFP4,
 * without loss; and back. */
void mxfp4_from_pairs(void *dst, const void *blocks, const void *scales, int64_t n);
void mxfp4_to_pairs(void *blocks, void *scales, const void *src, int64_t n);

#endif
