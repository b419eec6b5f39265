/* kv.h — how keys and values lie in a cache, one head of one sequence.
 *
 * Keys lie in blocks of KEY_BLOCK positions, so that sixteen scores are computed side by side; values row by row.
 *
 *   type   a key block                                             a value row
 *   F32    [head_dim][16] floats                                   [head_dim_v] floats
 *   F16    [head_dim][16] halves                                   [head_dim_v] halves
 *   Q8_0   for each 32 elements of a key: 16 scales (F16, one a    blocks {scale F16, 32 codes of one byte} as in the
 *          position), then [32][16] codes of one byte              file format, the last filled up with zeros
 *
 * The last group of a Q8_0 key has head_dim mod 32 rows of codes if that is not 0. A code times its scale is exact in
 * FP32 (8 + 11 bits), so every type has one meaning: attention over the FP32 values that the bytes stand for. */
#ifndef COE_TENSOR_KV_H
#define COE_TENSOR_KV_H

#include "tensor/tensor.h"

#define KEY_BLOCK 16
#define KV_GROUP 32 /* elements of a key or value that share a Q8_0 scale */

static inline bool kv_type_known(enum dtype t) { return t == DT_F32 || t == DT_F16 || t == DT_Q8_0; }

/* Bytes of one key block, of one value row. */
static inline int64_t kv_key_bytes(enum dtype t, int64_t head_dim)
{
    if (t == DT_Q8_0) return KEY_BLOCK * (head_dim + (head_dim + KV_GROUP - 1) / KV_GROUP * 2);
    return KEY_BLOCK * head_dim * (t == DT_F16 ? 2 : 4);
}
static inline int64_t kv_value_bytes(enum dtype t, int64_t head_dim_v)
{
    if (t == DT_Q8_0) return (head_dim_v + KV_GROUP - 1) / KV_GROUP * (KV_GROUP + 2);
    return head_dim_v * (t == DT_F16 ? 2 : 4);
}

/* Rounds one key or value [head_dim] to type t (nearest even; Q8_0 as dtype_encode_row) and puts it in its place. */
void kv_store_key(void *blocks, enum dtype t, int64_t position, const float *key, int64_t head_dim);
void kv_store_value(void *rows, enum dtype t, int64_t position, const float *value, int64_t head_dim_v);
/* The values that the bytes stand for. */
void kv_load_key(float *key, const void *blocks, enum dtype t, int64_t position, int64_t head_dim);
void kv_load_value(float *value, const void *rows, enum dtype t, int64_t position, int64_t head_dim_v);

#endif
