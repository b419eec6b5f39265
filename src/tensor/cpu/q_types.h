/* q_types.h — inside src/tensor/cpu: how the blocks of a panel are taken apart, one function a type.
 *
 * Each is written for the sixteen rows at p, one half of a panel's block, and hands codes, then scales and mins to a
 * sink: a tile in memory (q_unpack.c), or the registers of a product with one row of x (q_row.c). Fields lie in
 * the order of quant/panel.c, offsets are counted in bytes of one row. */
#ifndef COE_CPU_Q_TYPES_H
#define COE_CPU_Q_TYPES_H

#include "tensor/cpu/q_tile.h"
#include "tensor/quant/block.h"

/* Only where the sums of all runs fit into the registers is it worth to have them there. */
#if defined(ISA_portable) || defined(ISA_neon)
#define UNROLL_UNITS
#else
#define UNROLL_UNITS UNROLL(32)
#endif

/* With a tile, all goes there, to block b of it. Without, b is 0: codes meet x at once and are added to the sum of
 * their run, and scales, which come after the codes, multiply these sums. */
struct sink {
    struct q_tile *tile;
    const int8_t *x;
    const int16_t *sum, *pair;
    int run4;  /* fours of k under one scale */
    bool wide; /* codes of all eight bits */
    q16 part[16], isum, msum;
    v16 d, minus_dmin;
    ptrdiff_t ahead;   /* without a tile: from what is loaded to what is asked for */
    bool second_level; /* asked for into the second-level cache only */
};

LANES void put(struct sink *t, int k4, int half, q16 codes)
{
    if (t->tile) {
        q16_store(t->tile->code[k4][half * 16], codes);
        return;
    }
    const q16 x = q16_four(t->x + 4 * k4), part = t->part[k4 / t->run4];
    t->part[k4 / t->run4] = t->wide ? q16_dot4_wide(part, codes, x) : q16_dot4(part, codes, x);
}
LANES void put_scale(struct sink *t, int s, int half, q16 scale)
{
    if (t->tile) q16_store(t->tile->scale[s] + half * 16, scale);
    else t->isum = q16_add(t->isum, q16_mul(t->part[s], scale));
}
/* The i-th two mins, of runs of sixteen k; of sub-blocks of 32 as struct q_tile pairs them. */
LANES void put_min(struct sink *t, int i, int half, q16 min)
{
    if (t->tile) q16_store(t->tile->min[i][half * 16], min);
    else t->msum = q16_dot2(t->msum, min, q16_four(t->sum + 2 * i));
}
LANES void put_min32(struct sink *t, int i, int half, q16 min)
{
    if (t->tile) q16_store(t->tile->min[i][half * 16], min);
    else t->msum = q16_dot2(t->msum, min, q16_four(t->pair + 2 * i));
}
LANES void put_d(struct sink *t, int b, int half, v16 d)
{
    if (t->tile) v16_store(t->tile->d[b] + half * 16, d);
    else t->d = d;
}
LANES void put_minus_dmin(struct sink *t, int b, int half, v16 minus_dmin)
{
    if (t->tile) v16_store(t->tile->minus_dmin[b] + half * 16, minus_dmin);
    else t->minus_dmin = minus_dmin;
}

#define NIBBLE 0x0F0F0F0F

/* Without a tile panels come from memory, and each line is asked for some way ahead, with the load of the line that is
 * in use: a line that nobody asked for costs as much as ten that came in time. */
LANES void ask_ahead(const struct sink *t, const uint8_t *at)
{
    if (t->tile) return;
    if (t->second_level) __builtin_prefetch(at + t->ahead, 0, 2);
    else __builtin_prefetch(at + t->ahead, 0, 0);
}

/* Four bytes of each of sixteen rows, the u-th such unit of a field. */
LANES q16 unit(const struct sink *t, const uint8_t *field, int u)
{
    const uint8_t *at = field + u * PANEL_HALF * 4;
    ask_ahead(t, at);
    return q16_load(at);
}
LANES v16 halves_scale(const struct sink *t, const uint8_t *field)
{
    ask_ahead(t, field);
    return v16_load_f16((const uint16_t *)(const void *)field);
}
/* Sixteen bits of each row, without sign. */
LANES q16 halves(const uint8_t *field)
{
    int32_t wide[16];
    for (int r = 0; r < 16; r++) wide[r] = (int32_t)get_u16(field + r * 2);
    return q16_load(wide);
}
LANES v16 minus(v16 v) { return v16_xor_sign(v, v16_set1(-1.0f)); }
LANES q16 low4(q16 v) { return q16_and(v, q16_set1(NIBBLE)); }
LANES q16 high4(q16 v) { return q16_and(q16_shr(v, 4), q16_set1(NIBBLE)); }

/* Byte n of each lane. */
LANES q16 byte_of(q16 v, int n) { return q16_and(q16_shr(v, 8 * n), q16_set1(255)); }
/* Bits n … n+3 of each lane as the four bytes' bit 4. */
LANES q16 fifth_bits(q16 bits, int n)
{
    const q16 spread = q16_mul(q16_and(q16_shr(bits, n), q16_set1(15)), q16_set1(0x00204081));
    return q16_shl(q16_and(spread, q16_set1(0x01010101)), 4);
}

LANES void take_q4_0(struct sink *t, int b, int half, const uint8_t *p)
{
    put_d(t, b, half, halves_scale(t, p));
    UNROLL_UNITS for (int u = 0; u < 4; u++) {
        const q16 q = unit(t, p + 2 * PANEL_HALF, u);
        put(t, 8 * b + u, half, low4(q));
        put(t, 8 * b + u + 4, half, high4(q));
    }
}

/* The minimum stands where the definition has -dmin. */
LANES void take_q4_1(struct sink *t, int b, int half, const uint8_t *p)
{
    take_q4_0(t, b, half, p + 2 * PANEL_HALF);
    put_d(t, b, half, halves_scale(t, p));
    put_minus_dmin(t, b, half, halves_scale(t, p + 2 * PANEL_HALF));
}

/* Fifth bits, then nibbles */
LANES void q5_codes(struct sink *t, int b, int half, const uint8_t *p)
{
    const q16 bits = unit(t, p, 0);
    UNROLL_UNITS for (int u = 0; u < 4; u++) {
        const q16 q = unit(t, p, 1 + u);
        put(t, 8 * b + u, half, q16_or(low4(q), fifth_bits(bits, 4 * u)));
        put(t, 8 * b + u + 4, half, q16_or(high4(q), fifth_bits(bits, 4 * u + 16)));
    }
}

LANES void take_q5_0(struct sink *t, int b, int half, const uint8_t *p)
{
    put_d(t, b, half, halves_scale(t, p));
    q5_codes(t, b, half, p + 2 * PANEL_HALF);
}

LANES void take_q5_1(struct sink *t, int b, int half, const uint8_t *p)
{
    put_d(t, b, half, halves_scale(t, p));
    put_minus_dmin(t, b, half, halves_scale(t, p + 2 * PANEL_HALF));
    q5_codes(t, b, half, p + 4 * PANEL_HALF);
}

LANES void take_q8_0(struct sink *t, int b, int half, const uint8_t *p)
{
    put_d(t, b, half, halves_scale(t, p));
    UNROLL_UNITS for (int u = 0; u < 8; u++) put(t, 8 * b + u, half, q16_wide(unit(t, p + 2 * PANEL_HALF, u)));
}

LANES void take_iq4_nl(struct sink *t, int b, int half, const uint8_t *p)
{
    put_d(t, b, half, halves_scale(t, p));
    UNROLL_UNITS for (int u = 0; u < 4; u++) {
        const q16 q = unit(t, p + 2 * PANEL_HALF, u);
        put(t, 8 * b + u, half, q16_wide(q16_table(iq4_values, low4(q))));
        put(t, 8 * b + u + 4, half, q16_wide(q16_table(iq4_values, high4(q))));
    }
}

LANES void take_mxfp4(struct sink *t, int b, int half, const uint8_t *p)
{
    /* fp4_values + 12 */
    static const uint8_t codes[16] = { 12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0 };
    float d[16];
    for (int r = 0; r < 16; r++) d[r] = e8m0_half(p[r]);
    put_d(t, b, half, v16_load(d));
    UNROLL_UNITS for (int u = 0; u < 4; u++) {
        const q16 q = unit(t, p + PANEL_HALF, u);
        put(t, 8 * b + u, half, q16_table(codes, low4(q)));
        put(t, 8 * b + u + 4, half, q16_table(codes, high4(q)));
    }
}

/* Two bits of four values of one of the four groups of 32 that share a unit. */
LANES q16 two_bits(q16 q, int group) { return q16_and(q16_shr(q, 2 * group), q16_set1(0x03030303)); }

LANES void take_q2_k(struct sink *t, int b, int half, const uint8_t *p)
{
    UNROLL_UNITS for (int u = 0; u < 16; u++) {
        const q16 q = unit(t, p, u);
        UNROLL_UNITS for (int c = 0; c < 4; c++) put(t, 64 * b + u / 8 * 32 + 8 * c + u % 8, half, two_bits(q, c));
    }
    UNROLL_UNITS for (int j = 0; j < 4; j++) { /* four sub-blocks a unit: scales low, mins high */
        const q16 both = unit(t, p + 64 * PANEL_HALF, j), scales = low4(both), mins = high4(both);
        UNROLL_UNITS for (int s = 0; s < 4; s++) put_scale(t, 16 * b + 4 * j + s, half, byte_of(scales, s));
        UNROLL_UNITS for (int s = 0; s < 4; s += 2)
            put_min(t, 8 * b + 2 * j + s / 2, half, q16_or(byte_of(mins, s), q16_shl(byte_of(mins, s + 1), 16)));
    }
    put_d(t, b, half, halves_scale(t, p + 80 * PANEL_HALF));
    put_minus_dmin(t, b, half, minus(halves_scale(t, p + 82 * PANEL_HALF)));
}

LANES void take_q3_k(struct sink *t, int b, int half, const uint8_t *p)
{
    const uint8_t *packed = p + 96 * PANEL_HALF;
    UNROLL_UNITS for (int u = 0; u < 16; u++) {
        const q16 q = unit(t, p + 32 * PANEL_HALF, u), mask = unit(t, p, u % 8);
        UNROLL_UNITS for (int c = 0; c < 4; c++) {
            const q16 set = q16_and(q16_shr(mask, u / 8 * 4 + c), q16_set1(0x01010101));
            put(t, 64 * b + u / 8 * 32 + 8 * c + u % 8, half, q16_or(two_bits(q, c), q16_shl(set, 2)));
        }
    }
    UNROLL_UNITS for (int g = 0; g < 4; g++) { /* four sub-blocks: four bits of units 0 and 1, two of unit 2 */
        const q16 q = unit(t, packed, g % 2), high = q16_shl(two_bits(unit(t, packed, 2), g), 4);
        const q16 six = q16_or(g < 2 ? low4(q) : high4(q), high);
        UNROLL_UNITS for (int s = 0; s < 4; s++)
            put_scale(t, 16 * b + 4 * g + s, half, q16_add(byte_of(six, s), q16_set1(-32)));
    }
    put_d(t, b, half, halves_scale(t, p + 108 * PANEL_HALF));
}

/* The 6-bit scales and mins of Q4_K and Q5_K: out[0], out[1] hold scales 0 … 3, 4 … 7 as bytes, out[2], out[3] mins. */
LANES void six_bits(const struct sink *t, q16 out[4], const uint8_t *field)
{
    const q16 a = unit(t, field, 0), b = unit(t, field, 1), c = unit(t, field, 2);
    const q16 six = q16_set1(0x3F3F3F3F), two = q16_set1(0x30303030);
    out[0] = q16_and(a, six);
    out[1] = q16_or(low4(c), q16_and(q16_shr(a, 2), two));
    out[2] = q16_and(b, six);
    out[3] = q16_or(high4(c), q16_and(q16_shr(b, 2), two));
}

/* p: the twelve bytes of scales; d and dmin are behind them. */
LANES void k_scales(struct sink *t, int b, int half, const uint8_t *p)
{
    q16 s[4];
    put_d(t, b, half, halves_scale(t, p + 12 * PANEL_HALF));
    put_minus_dmin(t, b, half, minus(halves_scale(t, p + 14 * PANEL_HALF)));
    six_bits(t, s, p);
    UNROLL_UNITS for (int j = 0; j < 8; j++) put_scale(t, 8 * b + j, half, byte_of(s[j / 4], j % 4));
    UNROLL_UNITS for (int j = 0; j < 4; j++) /* bytes 0 and 2, then 1 and 3 */
        put_min32(t, 8 * b + j, half, q16_and(q16_shr(s[2 + j / 2], j % 2 * 8), q16_set1(0x00FF00FF)));
}

LANES void take_q4_k(struct sink *t, int b, int half, const uint8_t *p)
{
    UNROLL_UNITS for (int u = 0; u < 32; u++) { /* eight units are two sub-blocks */
        const q16 q = unit(t, p, u);
        const int k4 = 64 * b + u / 8 * 16 + u % 8;
        put(t, k4, half, low4(q));
        put(t, k4 + 8, half, high4(q));
    }
    k_scales(t, b, half, p + 128 * PANEL_HALF);
}

LANES void take_q5_k(struct sink *t, int b, int half, const uint8_t *p)
{
    UNROLL_UNITS for (int u = 0; u < 32; u++) {
        const q16 q = unit(t, p + 32 * PANEL_HALF, u), bits = unit(t, p, u % 8);
        const q16 fifth = q16_shr(bits, u / 8 * 2), bit4 = q16_set1(0x10101010);
        const int k4 = 64 * b + u / 8 * 16 + u % 8;
        put(t, k4, half, q16_or(low4(q), q16_and(q16_shl(fifth, 4), bit4)));
        put(t, k4 + 8, half, q16_or(high4(q), q16_and(q16_shl(fifth, 3), bit4)));
    }
    k_scales(t, b, half, p + 160 * PANEL_HALF);
}

LANES void take_q6_k(struct sink *t, int b, int half, const uint8_t *p)
{
    const q16 top = q16_set1(0x30303030);
    UNROLL_UNITS for (int u = 0; u < 16; u++) {
        const int k4 = 64 * b + u / 8 * 32 + u % 8;
        const q16 a = unit(t, p, 3 * u), c = unit(t, p, 3 * u + 1), h = unit(t, p, 3 * u + 2);
        put(t, k4, half, q16_or(low4(a), q16_and(q16_shl(h, 4), top)));
        put(t, k4 + 8, half, q16_or(low4(c), q16_and(q16_shl(h, 2), top)));
        put(t, k4 + 16, half, q16_or(high4(a), q16_and(h, top)));
        put(t, k4 + 24, half, q16_or(high4(c), q16_and(q16_shr(h, 2), top)));
    }
    UNROLL_UNITS for (int s = 0; s < 16; s++) {
        const q16 four = unit(t, p + 192 * PANEL_HALF, s / 4);
        put_scale(t, 16 * b + s, half, q16_sar(q16_shl(four, 24 - 8 * (s % 4)), 24));
    }
    put_d(t, b, half, halves_scale(t, p + 208 * PANEL_HALF));
}

LANES void take_iq4_xs(struct sink *t, int b, int half, const uint8_t *p)
{
    UNROLL_UNITS for (int u = 0; u < 32; u++) {
        const q16 q = unit(t, p, u);
        const int k4 = 64 * b + u / 4 * 8 + u % 4;
        put(t, k4, half, q16_wide(q16_table(iq4_values, low4(q))));
        put(t, k4 + 4, half, q16_wide(q16_table(iq4_values, high4(q))));
    }
    const q16 low = unit(t, p + 128 * PANEL_HALF, 0), high = halves(p + 134 * PANEL_HALF), three = q16_set1(3);
    UNROLL_UNITS for (int s = 0; s < 8; s++) {
        const q16 two = q16_and(q16_shr(high, 2 * s), three);
        const q16 six = q16_or(q16_and(q16_shr(low, 4 * s), q16_set1(15)), q16_shl(two, 4));
        put_scale(t, 8 * b + s, half, q16_add(six, q16_set1(-32)));
    }
    put_d(t, b, half, halves_scale(t, p + 132 * PANEL_HALF));
}

#endif
