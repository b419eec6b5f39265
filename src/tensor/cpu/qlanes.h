/* qlanes.h — sixteen whole numbers at once, beside lanes.h's sixteen floats.
 *
 *   q16   sixteen int32, or 64 bytes: one __m512i, two __m256i, or int32_t[16]
 *
 * All is exact, so levels agree whatever their instructions. The level's file defines:
 *   q16_zero() q16_set1(i) q16_load(p) q16_store(p,v)     64 bytes, unaligned
 *   q16_four(p)               the four bytes at p in every lane
 *   q16_and or add mul(a,b)   per lane of 32 bits; q16_shr(a,n) q16_shl(a,n) logical, q16_sar(a,n) arithmetic
 *   q16_dot4(s,w,x)           s + four products of bytes per lane: w without sign and at most 127, x in -127 … 127
 *   q16_wide(v)               bytes with sign into the form of q16_dot4_wide; WIDE_OFFSET is what that adds to them
 *   q16_dot4_wide(s,w,x)      the same as q16_dot4 with w in that form
 *   q16_dot2(s,a,b)           s + two products of int16 per lane
 * and where q16_dot4 is several instructions (PAIRS is defined)
 *   q16_pairs(w,x)            two sums of two of the four products, as int16; q16_add16 adds such
 *   q16_add_pairs(s,p)        s + both;  q16_pin(&p) lets the compiler not reorder what made p
 *   q16_table(t,i)            byte i (0 … 15) of the 16 bytes at t, for each byte of i
 *   q16_columns(out,p,stride) four bytes of each of the sixteen rows at p, p + stride …: out[u] bytes 4u … 4u+3
 *   q16_float(a)              to float, nearest even */
#ifndef COE_CPU_QLANES_H
#define COE_CPU_QLANES_H

#include "tensor/cpu/lanes.h"

#if defined(ISA_avx512) || defined(ISA_vnni)
#include "tensor/cpu/qlanes_avx512.h"
#elif defined(ISA_avx2)
#include "tensor/cpu/qlanes_avx2.h"
#elif defined(ISA_neon)
#include "tensor/cpu/qlanes_neon.h"
#else
#include "tensor/cpu/qlanes_portable.h"
#endif

#endif
