/* lanes.h — sixteen floats at once, the same bits from every instruction set.
 *
 *   v16   sixteen floats: one __m512, two __m256, four float32x4_t, or float[16] with fmaf
 *   m16   sixteen truth values
 *
 * Every operation rounds each lane once, as IEEE 754 says; min, max and comparisons follow x86 where a NaN takes part
 * (min(a,b) = a < b ? a : b). Kernels are written once over these operations and compiled once per level (ISA, see the
 * Makefile), so a level differs from another in registers only, never in results.
 *
 * The level's file defines:
 *   v16_zero() v16_set1(f) v16_load(p) v16_store(p,v) v16_load_part(p,n) v16_store_part(p,v,n)   0 <= n <= 16; the rest
 *   is +0
 *   v16_load_bf16(p) v16_load_f16(p) v16_store_f16(p,v)      unaligned sixteen of two bytes each
 *   v16_load_i8(p)      sixteen signed bytes           v16_set1_f16(h)     one half in all lanes
 *   v16_add sub mul div min max fma(a,b,c)=a*b+c sqrt abs xor_sign(v,s)=v with the sign of s flipped in
 *   v16_lt(a,b) v16_eq(a,b)  v16_lanes(lo,hi)=lanes lo <= l < hi  v16_select(m,a,b)=m ? a : b
 *   v16_scale2(p,z)     p * 2^n where z = n + 1.5*2^23, by adding to the exponent field: the result must be a normal
 *   number
 *   v16_split(x,&e)     x = m * 2^e, m in [sqrt(1/2), sqrt(2)), for normal x > 0
 *   v16_sum(v)          the tree 8+8, 4+4, 2+2, 1+1;  v16_tree4(out,a,b,c,d) four of them
 *   v16_first(v) v16_top(v)=largest lane   m16_all(m)
 *   v16_store_i8(p,v)   sixteen whole numbers of -128 … 127 as bytes */
#ifndef COE_CPU_LANES_H
#define COE_CPU_LANES_H

#include <math.h>
#include <string.h>

#include "tensor/cpu/levels.h"
#include "tensor/half.h"

#if defined(__has_feature) /* clang's way to say so */
#if __has_feature(address_sanitizer)
#define INSTRUMENTED 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define INSTRUMENTED 1
#endif
/* LANES: inlined, so that arguments which are constants at the call shape the code. UNROLL: so that arrays of v16
 * become registers. Instrumented code is spared both: it would be so large that it compiles for minutes. */
#define PRAGMA(text) _Pragma(#text)
#if defined(INSTRUMENTED)
#define LANES static COE_NOINLINE COE_UNUSED
#define UNROLL(n)
#else
#define LANES static inline __attribute__((always_inline)) COE_UNUSED
#define UNROLL(n) PRAGMA(GCC unroll n)
#endif

#if defined(ISA_avx512) || defined(ISA_vnni)
#include "tensor/cpu/lanes_avx512.h"
#elif defined(ISA_avx2)
#include "tensor/cpu/lanes_avx2.h"
#elif defined(ISA_neon)
#include "tensor/cpu/lanes_neon.h"
#else
#include "tensor/cpu/lanes_portable.h"
#endif

/* What a loop over n elements reads and writes at i: sixteen, or the rest. */
LANES v16 v16_load_upto(const float *p, int64_t left) { return left >= 16 ? v16_load(p) : v16_load_part(p, left); }
LANES void v16_store_upto(float *p, v16 v, int64_t left)
{
    if (left >= 16)
        v16_store(p, v);
    else
        v16_store_part(p, v, left);
}
/* v with +0 in the lanes behind the end. */
LANES v16 v16_keep(v16 v, int64_t left) { return left >= 16 ? v : v16_select(v16_lanes(0, (int)left), v, v16_zero()); }

/* Sixteen weights of type t from element i on; t is a constant where this is inlined. */
LANES v16 v16_load_as(const void *w, enum dtype t, int64_t i)
{
    if (t == DT_F32) return v16_load((const float *)w + i);
    if (t == DT_BF16) return v16_load_bf16((const uint16_t *)w + i);
    return v16_load_f16((const uint16_t *)w + i);
}
LANES v16 v16_load_part_as(const void *w, enum dtype t, int64_t i, int64_t n)
{
    if (t == DT_F32) return v16_load_part((const float *)w + i, n);
    uint16_t part[16] = { 0 };
    memcpy(part, (const uint16_t *)w + i, (size_t)n * sizeof part[0]);
    return v16_load_as(part, t, 0);
}

/* Weights pass from memory through the registers once for a strip of rows of x. Rows of at most FETCH_ROW bytes:
 * requests run ahead in the order of memory, whatever the tile's order, because the hardware foresees one stream far
 * better than the several short ones of a tile's rows; FETCH_NEAR brings lines into the first level (few rows of x: the
 * speed is that of memory), FETCH_FAR into the second (more rows: the tile itself needs the first). Longer rows are
 * streams that the hardware follows: FETCH_NOTHING for few rows of x, FETCH_ROWS, a little ahead in each row, for more.
 * Measured: bench/kernels/dot_tile.md. */
enum fetch { FETCH_NOTHING, FETCH_NEAR, FETCH_FAR, FETCH_ROWS };
#define FETCH_ROW 4096
/* Asks for what is used some time after the next `bytes` of the stream at p; returns p moved on. */
LANES const char *fetch_ahead(enum fetch fetch, const char *p, int bytes)
{
    UNROLL(8) for (int i = 0; i < bytes; i += 64) {
        if (fetch == FETCH_NEAR) __builtin_prefetch(p + 12 * 1024 + i, 0, 3);
        if (fetch == FETCH_FAR) __builtin_prefetch(p + 16 * 1024 + i, 0, 2);
    }
    return p + bytes;
}
LANES void fetch_in_row(enum fetch fetch, const void *p)
{
    if (fetch == FETCH_ROWS) __builtin_prefetch((const char *)p + 256);
}

/* The next strip of a dimension of which `left` remain: even shares rather than full tiles and a thin rest. */
LANES int strip(int64_t left, int most)
{
    int64_t strips = (left + most - 1) / most;
    return (int)((left + strips - 1) / strips);
}

#endif
