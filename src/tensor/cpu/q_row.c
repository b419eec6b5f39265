/* q_row.c — one row of x times a panel: what generating a token does, at the speed of memory if it can.
 *
 * Codes go from the stream through registers into the products; nothing is written but the result. What was tried:
 * bench/kernels/q_row.md. */
#include "tensor/cpu/q_types.h"

/* The portable level has no registers to speak of and goes through tiles. */
#if defined(ISA_portable)
typedef int no_rows_here;
#else
/* Codes of x are read again for the second half: kept in registers, they would push everything else out. */
#define KEEP_APART __asm__ volatile("" ::: "memory")

/* The sums of all runs begin at what takes the codes' offset away. */
LANES void begin(struct sink *s, struct code_format f, const struct x_row *x)
{
    const int offset = f.offset == 128 ? WIDE_OFFSET : f.offset, runs = f.sub ? 256 / f.sub : 1;
    const q16 both = q16_set1((int32_t)((uint32_t)(uint16_t)-offset * 0x10001u));
    const q16 first = q16_set1((uint16_t)-offset), second = q16_set1(-offset * 65536);
    s->x = x->q;
    s->sum = x->sum, s->pair = x->pair;
    s->isum = s->msum = q16_zero();
    s->run4 = f.sub ? f.sub / 4 : 8;
    s->wide = f.offset == 128;
    UNROLL(16) for (int r = 0; r < runs; r++) {
        const q16 one = f.sub != 16 ? both : r % 2 ? second : first;
        const int16_t *pair = x->sum + (f.sub == 16 ? r / 2 * 2 : 2 * r);
        s->part[r] = offset ? q16_dot2(q16_zero(), one, q16_four(pair)) : q16_zero();
    }
}

/* y + the block's products */
LANES v16 finish(const struct sink *s, struct code_format f, v16 y, const struct x_row *x)
{
    const v16 dx = v16_set1(*x->d);
    y = v16_fma(v16_mul(s->d, dx), q16_float(f.sub ? s->isum : s->part[0]), y);
    if (!f.mins) return y;
    const q16 msum = f.sub ? s->msum : q16_set1(x->sum[0] + x->sum[1]);
    return v16_fma(v16_mul(s->minus_dmin, dx), q16_float(msum), y);
}

/* From the half at p to what is asked for meanwhile: `ahead` bytes of what will be read, across the end of a run. */
LANES ptrdiff_t distance(const struct run *run, const uint8_t *p, ptrdiff_t ahead)
{
    return run->next && run->end - p <= ahead ? run->next - run->end + ahead : ahead;
}

/* Whether lines are asked into the second level, and how far ahead, in bytes. The second level is faster for eight-bit
 * codes and much slower for all others (bench/kernels/q_row.md). */
#define FIRST false, 5120
#define SECOND true, 3072

typedef void row_fn(float *y, const uint8_t *p, struct x_row x, int64_t n_blocks, const struct run *run);
/* block_bytes is a constant, so that a block's places are constants, too. */
#define ROW(name, type, block_bytes, to) ROW_(name, type, block_bytes, to)
#define ROW_(name, type, block_bytes, second, ahead_bytes)                                                             \
    LANES v16 half_##name(v16 y, const uint8_t *p, int half, const struct x_row *x, const struct run *run)             \
    {                                                                                                                  \
        struct sink s = { .tile = NULL, .ahead = distance(run, p, ahead_bytes), .second_level = second };              \
        begin(&s, code_format[DT_##type], x);                                                                          \
        take_##name(&s, 0, half, p);                                                                                   \
        return finish(&s, code_format[DT_##type], y, x);                                                               \
    }                                                                                                                  \
    static void row_##name(float *y, const uint8_t *p, struct x_row x, int64_t n_blocks, const struct run *run)        \
    {                                                                                                                  \
        const int len = code_format[DT_##type].sub ? 256 : 32, bytes = block_bytes * PANEL_HALF;                       \
        v16 low = v16_load(y), high = v16_load(y + 16);                                                                \
        const int pairs = len == 256 ? 8 : 0;                                                                          \
        for (int64_t b = 0; b < n_blocks; b++, p += 2 * bytes) {                                                       \
            low = half_##name(low, p, 0, &x, run);                                                                     \
            KEEP_APART;                                                                                                \
            high = half_##name(high, p + bytes, 1, &x, run);                                                           \
            x.q += len, x.sum += len / 16, x.pair += pairs, x.d++;                                                     \
        }                                                                                                              \
        v16_store(y, low);                                                                                             \
        v16_store(y + 16, high);                                                                                       \
    }
ROW(q4_0, Q4_0, 18, FIRST)
ROW(q4_1, Q4_1, 20, FIRST)
ROW(q5_0, Q5_0, 22, FIRST)
ROW(q5_1, Q5_1, 24, FIRST)
ROW(q8_0, Q8_0, 34, SECOND)
ROW(mxfp4, MXFP4, 17, FIRST)
ROW(iq4_nl, IQ4_NL, 18, FIRST)
ROW(iq4_xs, IQ4_XS, 136, FIRST)
ROW(q2_k, Q2_K, 84, FIRST)
ROW(q3_k, Q3_K, 110, FIRST)
ROW(q4_k, Q4_K, 144, FIRST)
ROW(q5_k, Q5_K, 176, FIRST)
ROW(q6_k, Q6_K, 210, FIRST)
static row_fn *const row_of[DT_COUNT] = {
    [DT_Q4_0] = row_q4_0,
    [DT_Q4_1] = row_q4_1,
    [DT_Q5_0] = row_q5_0,
    [DT_Q5_1] = row_q5_1,
    [DT_Q8_0] = row_q8_0,
    [DT_MXFP4] = row_mxfp4,
    [DT_IQ4_NL] = row_iq4_nl,
    [DT_IQ4_XS] = row_iq4_xs,
    [DT_Q2_K] = row_q2_k,
    [DT_Q3_K] = row_q3_k,
    [DT_Q4_K] = row_q4_k,
    [DT_Q5_K] = row_q5_k,
    [DT_Q6_K] = row_q6_k,
};

void LEVEL_FN(q_row)(float *y, const uint8_t *panel, enum dtype t, struct x_row x, int64_t n_blocks,
                     const struct run *run)
{
    row_of[t](y, panel, x, n_blocks, run);
}
#endif
