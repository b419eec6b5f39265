/* attn_tiles.h — the products of attention as register tiles: scores of some rows against key blocks, probabilities
 * times values, each for every type of cache. attn.c takes all of them, attn_back.c those of FP32.
 *
 * A tile of mr rows and nv registers loads a key or value once for all its rows. What lies in a cache is widened to
 * FP32 exactly (kv.h), in registers or, for many rows, once into scratch memory. */
#ifndef COE_CPU_ATTN_TILES_H
#define COE_CPU_ATTN_TILES_H

#include "tensor/cpu/fmath.h"

/* ROWS: rows of the largest tile. WIDE: registers of keys in a tile of several rows; with one row WIDE1 and, of values,
 * WIDER1, so that the latency of the multiply-add does not show. Rests take half of a WIDE of 4, then one. */
#if defined(ISA_avx512)
#define ROWS 6
#define WIDE 4
#define WIDE1 4
#define WIDER1 8
#elif defined(ISA_avx2)
#define ROWS 6
#define WIDE 1
#define WIDE1 4
#define WIDER1 4
#else
#define ROWS 4
#define WIDE 1
#define WIDE1 1
#define WIDER1 1
#endif
#define REGISTERS 8 /* the largest of them */

/* Sixteen keys' element `row` of a group; scale is of Q8_0. */
LANES v16 load_keys(enum dtype t, const char *group, int64_t row, v16 scale)
{
    if (t == DT_Q8_0) return v16_mul(v16_load_i8((const int8_t *)group + 2 * KEY_BLOCK + row * KEY_BLOCK), scale);
    return v16_load_as(group, t, row * KEY_BLOCK);
}

/* While sixteen elements of the cache are used, those that the next call needs are fetched into the second level: their
 * address is p, their index (in sixteens) i. A line is asked for once. */
LANES void fetch(enum dtype t, const char *p, int64_t i)
{
    if (t == DT_F32 || i % (t == DT_F16 ? 2 : 4) == 0) __builtin_prefetch(p, 0, 2);
}

/* Scores of mr rows against nv key blocks that follow each other, s[r][16 v + lane]. */
LANES void score_block(enum dtype t, int mr, int nv, float *s, const float *const *q, const char *k, int64_t head_dim)
{
    v16 acc[ROWS][REGISTERS], scale[REGISTERS], key[REGISTERS];
    const int64_t block = kv_key_bytes(t, head_dim), group = kv_key_bytes(t, KV_GROUP);
    const int64_t row = KEY_BLOCK * (t == DT_F32 ? 4 : t == DT_F16 ? 2 : 1);
    UNROLL(8) for (int r = 0; r < mr; r++)
        UNROLL(8) for (int v = 0; v < nv; v++) acc[r][v] = v16_zero();
    for (int64_t first = 0; first < head_dim; first += KV_GROUP, k += group) {
        const int64_t n = COE_MIN(head_dim - first, (int64_t)KV_GROUP);
        UNROLL(8) for (int v = 0; v < nv; v++)
            scale[v] = t == DT_Q8_0 ? v16_load_f16((const uint16_t *)(const void *)(k + v * block)) : v16_zero();
        for (int64_t e = 0; e < n; e++) {
            UNROLL(8) for (int v = 0; v < nv; v++) {
                key[v] = load_keys(t, k + v * block, e, scale[v]);
                fetch(t, k + (v + nv) * block + e * row, e);
            }
            UNROLL(8) for (int r = 0; r < mr; r++) {
                const v16 x = v16_set1(q[r][first + e]);
                UNROLL(8) for (int v = 0; v < nv; v++) acc[r][v] = v16_fma(x, key[v], acc[r][v]);
            }
        }
    }
    UNROLL(8) for (int r = 0; r < mr; r++)
        UNROLL(8) for (int v = 0; v < nv; v++) v16_store(s + r * ATTN_BLOCK + v * 16, acc[r][v]);
}

/* Sixteen columns from c on of a value row, of which `left` are there. */
LANES v16 load_values(enum dtype t, const char *row, int64_t c, int64_t left)
{
    if (t == DT_Q8_0) {
        const char *b = row + c / KV_GROUP * (KV_GROUP + 2);
        uint16_t scale;
        memcpy(&scale, b, 2);
        return v16_mul(v16_load_i8((const int8_t *)b + 2 + c % KV_GROUP), v16_set1_f16(scale));
    }
    return left >= 16 ? v16_load_as(row, t, c) : v16_load_part_as(row, t, c, left);
}

/* out[r][c …] of 16 nv columns, of the last sixteen `last`, by chains over keys lo … hi-1; p[r] and v are of key 0, the
 * next key's p `step` floats on. */
LANES void value_block(enum dtype t, int mr, int nv, float *const *out, const float *const *p, int64_t step,
                       const char *v, int64_t ldv, int64_t c, int lo, int hi, int64_t last)
{
    v16 acc[ROWS][REGISTERS], value[REGISTERS];
    const int64_t size = t == DT_F32 ? 4 : t == DT_F16 ? 2 : 1;
    UNROLL(8) for (int r = 0; r < mr; r++)
        UNROLL(8) for (int i = 0; i < nv; i++)
            acc[r][i] = v16_load_upto(out[r] + c + i * 16, i == nv - 1 ? last : 16);
    for (int j = lo; j < hi; j++) {
        UNROLL(8) for (int i = 0; i < nv; i++) {
            value[i] = load_values(t, v + j * ldv, c + i * 16, i == nv - 1 ? last : 16);
            fetch(t, v + (j + ATTN_BLOCK) * ldv + (c + i * 16) * size, c / 16 + i);
        }
        UNROLL(8) for (int r = 0; r < mr; r++) {
            const v16 x = v16_set1(p[r][j * step]);
            UNROLL(8) for (int i = 0; i < nv; i++) acc[r][i] = v16_fma(x, value[i], acc[r][i]);
        }
    }
    UNROLL(8) for (int r = 0; r < mr; r++)
        UNROLL(8) for (int i = 0; i < nv; i++)
            v16_store_upto(out[r] + c + i * 16, acc[r][i], i == nv - 1 ? last : 16);
}

typedef void score_fn(float *s, const float *const *q, const char *k, int64_t head_dim);
typedef void value_fn(float *const *out, const float *const *p, const char *v, int64_t ldv, int64_t c, int lo, int hi,
                      int64_t last);
#define SCORE(t, mr, nv)                                                                                               \
    static void score_##t##_##mr##_##nv(float *s, const float *const *q, const char *k, int64_t head_dim)              \
    {                                                                                                                  \
        score_block(DT_##t, mr, nv, s, q, k, head_dim);                                                                \
    }
#define VALUE(t, mr, nv)                                                                                               \
    static void value_##t##_##mr##_##nv(float *const *out, const float *const *p, const char *v, int64_t ldv,          \
                                        int64_t c, int lo, int hi, int64_t last)                                       \
    {                                                                                                                  \
        value_block(DT_##t, mr, nv, out, p, 1, v, ldv, c, lo, hi, last);                                               \
    }
#define ONE(t, mr) SCORE(t, mr, 1) VALUE(t, mr, 1)
#define FOUR(t, mr) ONE(t, mr) SCORE(t, mr, 2) SCORE(t, mr, 4) VALUE(t, mr, 2) VALUE(t, mr, 4)
/* By half the registers: 1, 2, 4 */
#define ONE_OF(kind, t, mr) { kind##_##t##_##mr##_1 }
#define FOUR_OF(kind, t, mr) { kind##_##t##_##mr##_1, kind##_##t##_##mr##_2, kind##_##t##_##mr##_4 }
#if WIDE == 4
#define TILES(t, mr) FOUR(t, mr)
#define TILES_OF(kind, t, mr) FOUR_OF(kind, t, mr)
#else
#define TILES(t, mr) ONE(t, mr)
#define TILES_OF(kind, t, mr) ONE_OF(kind, t, mr)
#endif
#if WIDE1 == 4
#define TILES1_OF(kind, t) FOUR_OF(kind, t, 1)
#else
#define TILES1_OF(kind, t) ONE_OF(kind, t, 1)
#endif
#if WIDER1 == 8
#define TILES1(t) FOUR(t, 1) VALUE(t, 1, 8)
#define WIDER1_OF(t) value_##t##_1_8
#elif WIDE1 == 4
#define TILES1(t) FOUR(t, 1)
#define WIDER1_OF(t) value_##t##_1_4
#else
#define TILES1(t) ONE(t, 1)
#define WIDER1_OF(t) value_##t##_1_1
#endif
#if ROWS == 6
#define ALL_TILES(t) TILES1(t) TILES(t, 2) TILES(t, 3) TILES(t, 4) TILES(t, 5) TILES(t, 6)
#define MORE(kind, t) , TILES_OF(kind, t, 5), TILES_OF(kind, t, 6)
#else
#define ALL_TILES(t) TILES1(t) TILES(t, 2) TILES(t, 3) TILES(t, 4)
#define MORE(kind, t)
#endif
/* By rows - 1, then half the registers */
struct tiles {
    score_fn *score[ROWS][3];
    value_fn *value[ROWS][3], *value1; /* value1: one row, WIDER1 registers */
};
#define ROWS_OF(kind, t) \
    { TILES1_OF(kind, t), TILES_OF(kind, t, 2), TILES_OF(kind, t, 3), TILES_OF(kind, t, 4) MORE(kind, t) }
#define TABLE_OF(t) { .score = ROWS_OF(score, t), .value = ROWS_OF(value, t), .value1 = WIDER1_OF(t) }

#endif
