/* q_unpack.c — the blocks of a panel taken apart: bytes of codes, scales as vectors over rows.
 *
 * One function a type, each written for sixteen rows; a panel has two halves. Field offsets are those of the stored
 * block (quant/plain.c, quant/kquant.c) times PANEL_ROWS. */
#include "tensor/cpu/q_tile.h"
#include "tensor/quant/block.h"

#define NIBBLE 0x0F0F0F0F

/* Four bytes of each of sixteen rows, the u-th such unit of a field. */
LANES q16 unit(const uint8_t *field, int u, int half) { return q16_load(field + (u * PANEL_ROWS + half * 16) * 4); }
LANES void put(struct q_tile *t, int k4, int half, q16 codes) { q16_store(t->code[k4][half * 16], codes); }
LANES v16 halves_scale(const uint8_t *field, int half)
{
    return v16_load_f16((const uint16_t *)(const void *)field + half * 16);
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
LANES void put_scale(struct q_tile *t, int s, int half, q16 scale) { q16_store(t->scale[s] + half * 16, scale); }

static void tile_q4_0(struct q_tile *t, int b, int half, const uint8_t *p)
{
    v16_store(t->d[b] + half * 16, halves_scale(p, half));
    for (int u = 0; u < 4; u++) {
        const q16 q = unit(p + 2 * PANEL_ROWS, u, half);
        put(t, 8 * b + u, half, low4(q));
        put(t, 8 * b + u + 4, half, high4(q));
    }
}

/* The minimum stands where the definition has -dmin. */
static void tile_q4_1(struct q_tile *t, int b, int half, const uint8_t *p)
{
    tile_q4_0(t, b, half, p + 2 * PANEL_ROWS);
    v16_store(t->d[b] + half * 16, halves_scale(p, half));
    v16_store(t->minus_dmin[b] + half * 16, halves_scale(p + 2 * PANEL_ROWS, half));
}

/* Fifth bits, then nibbles */
LANES void q5_codes(struct q_tile *t, int b, int half, const uint8_t *p)
{
    const q16 bits = unit(p, 0, half);
    for (int u = 0; u < 4; u++) {
        const q16 q = unit(p, 1 + u, half);
        put(t, 8 * b + u, half, q16_or(low4(q), fifth_bits(bits, 4 * u)));
        put(t, 8 * b + u + 4, half, q16_or(high4(q), fifth_bits(bits, 4 * u + 16)));
    }
}

static void tile_q5_0(struct q_tile *t, int b, int half, const uint8_t *p)
{
    v16_store(t->d[b] + half * 16, halves_scale(p, half));
    q5_codes(t, b, half, p + 2 * PANEL_ROWS);
}

static void tile_q5_1(struct q_tile *t, int b, int half, const uint8_t *p)
{
    v16_store(t->d[b] + half * 16, halves_scale(p, half));
    v16_store(t->minus_dmin[b] + half * 16, halves_scale(p + 2 * PANEL_ROWS, half));
    q5_codes(t, b, half, p + 4 * PANEL_ROWS);
}

static void tile_q8_0(struct q_tile *t, int b, int half, const uint8_t *p)
{
    v16_store(t->d[b] + half * 16, halves_scale(p, half));
    for (int u = 0; u < 8; u++) put(t, 8 * b + u, half, q16_wide(unit(p + 2 * PANEL_ROWS, u, half)));
}

static void tile_iq4_nl(struct q_tile *t, int b, int half, const uint8_t *p)
{
    v16_store(t->d[b] + half * 16, halves_scale(p, half));
    for (int u = 0; u < 4; u++) {
        const q16 q = unit(p + 2 * PANEL_ROWS, u, half);
        put(t, 8 * b + u, half, q16_wide(q16_table(iq4_values, low4(q))));
        put(t, 8 * b + u + 4, half, q16_wide(q16_table(iq4_values, high4(q))));
    }
}

static void tile_mxfp4(struct q_tile *t, int b, int half, const uint8_t *p)
{
    /* fp4_values + 12 */
    static const uint8_t codes[16] = { 12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0 };
    for (int r = half * 16; r < half * 16 + 16; r++) t->d[b][r] = e8m0_half(p[r]);
    for (int u = 0; u < 4; u++) {
        const q16 q = unit(p + PANEL_ROWS, u, half);
        put(t, 8 * b + u, half, q16_table(codes, low4(q)));
        put(t, 8 * b + u + 4, half, q16_table(codes, high4(q)));
    }
}

/* Two bits of four values of one of the four groups of 32 that share a unit. */
LANES q16 two_bits(q16 q, int group) { return q16_and(q16_shr(q, 2 * group), q16_set1(0x03030303)); }

static void tile_q2_k(struct q_tile *t, int b, int half, const uint8_t *p)
{
    v16_store(t->d[b] + half * 16, halves_scale(p + 80 * PANEL_ROWS, half));
    v16_store(t->minus_dmin[b] + half * 16, minus(halves_scale(p + 82 * PANEL_ROWS, half)));
    for (int j = 0; j < 4; j++) { /* four sub-blocks a unit: scales low, mins high */
        const q16 both = unit(p, j, half), scales = low4(both), mins = high4(both);
        for (int s = 0; s < 4; s++) put_scale(t, 16 * b + 4 * j + s, half, byte_of(scales, s));
        for (int s = 0; s < 4; s += 2)
            q16_store(t->min[8 * b + 2 * j + s / 2][half * 16],
                      q16_or(byte_of(mins, s), q16_shl(byte_of(mins, s + 1), 16)));
    }
    for (int u = 0; u < 16; u++) {
        const q16 q = unit(p + 16 * PANEL_ROWS, u, half);
        for (int c = 0; c < 4; c++) put(t, 64 * b + u / 8 * 32 + 8 * c + u % 8, half, two_bits(q, c));
    }
}

static void tile_q3_k(struct q_tile *t, int b, int half, const uint8_t *p)
{
    const uint8_t *packed = p + 96 * PANEL_ROWS;
    v16_store(t->d[b] + half * 16, halves_scale(p + 108 * PANEL_ROWS, half));
    for (int g = 0; g < 4; g++) { /* four sub-blocks: four bits of units 0 and 1, two of unit 2 */
        const q16 q = unit(packed, g % 2, half), high = q16_shl(two_bits(unit(packed, 2, half), g), 4);
        const q16 six = q16_or(g < 2 ? low4(q) : high4(q), high);
        for (int s = 0; s < 4; s++) put_scale(t, 16 * b + 4 * g + s, half, q16_add(byte_of(six, s), q16_set1(-32)));
    }
    for (int u = 0; u < 16; u++) {
        const q16 q = unit(p + 32 * PANEL_ROWS, u, half), mask = unit(p, u % 8, half);
        for (int c = 0; c < 4; c++) {
            const q16 set = q16_and(q16_shr(mask, u / 8 * 4 + c), q16_set1(0x01010101));
            put(t, 64 * b + u / 8 * 32 + 8 * c + u % 8, half, q16_or(two_bits(q, c), q16_shl(set, 2)));
        }
    }
}

/* The 6-bit scales and mins of Q4_K and Q5_K: out[0], out[1] hold scales 0 … 3, 4 … 7 as bytes, out[2], out[3] mins. */
LANES void six_bits(q16 out[4], const uint8_t *field, int half)
{
    const q16 a = unit(field, 0, half), b = unit(field, 1, half), c = unit(field, 2, half);
    const q16 six = q16_set1(0x3F3F3F3F), two = q16_set1(0x30303030);
    out[0] = q16_and(a, six);
    out[1] = q16_or(low4(c), q16_and(q16_shr(a, 2), two));
    out[2] = q16_and(b, six);
    out[3] = q16_or(high4(c), q16_and(q16_shr(b, 2), two));
}

LANES void k_scales(struct q_tile *t, int b, int half, const uint8_t *p)
{
    q16 s[4];
    v16_store(t->d[b] + half * 16, halves_scale(p, half));
    v16_store(t->minus_dmin[b] + half * 16, minus(halves_scale(p + 2 * PANEL_ROWS, half)));
    six_bits(s, p + 4 * PANEL_ROWS, half);
    for (int j = 0; j < 8; j++) {
        const q16 min = byte_of(s[2 + j / 4], j % 4);
        put_scale(t, 8 * b + j, half, byte_of(s[j / 4], j % 4));
        q16_store(t->min[8 * b + j][half * 16], q16_or(min, q16_shl(min, 16)));
    }
}

static void tile_q4_k(struct q_tile *t, int b, int half, const uint8_t *p)
{
    k_scales(t, b, half, p);
    for (int u = 0; u < 32; u++) { /* eight units are two sub-blocks */
        const q16 q = unit(p + 16 * PANEL_ROWS, u, half);
        const int k4 = 64 * b + u / 8 * 16 + u % 8;
        put(t, k4, half, low4(q));
        put(t, k4 + 8, half, high4(q));
    }
}

static void tile_q5_k(struct q_tile *t, int b, int half, const uint8_t *p)
{
    k_scales(t, b, half, p);
    for (int u = 0; u < 32; u++) {
        const q16 q = unit(p + 48 * PANEL_ROWS, u, half), bits = unit(p + 16 * PANEL_ROWS, u % 8, half);
        const q16 fifth = q16_shr(bits, u / 8 * 2), bit4 = q16_set1(0x10101010);
        const int k4 = 64 * b + u / 8 * 16 + u % 8;
        put(t, k4, half, q16_or(low4(q), q16_and(q16_shl(fifth, 4), bit4)));
        put(t, k4 + 8, half, q16_or(high4(q), q16_and(q16_shl(fifth, 3), bit4)));
    }
}

static void tile_q6_k(struct q_tile *t, int b, int half, const uint8_t *p)
{
    const q16 top = q16_set1(0x30303030);
    v16_store(t->d[b] + half * 16, halves_scale(p + 208 * PANEL_ROWS, half));
    for (int s = 0; s < 16; s++) {
        const q16 four = unit(p + 192 * PANEL_ROWS, s / 4, half);
        put_scale(t, 16 * b + s, half, q16_sar(q16_shl(four, 24 - 8 * (s % 4)), 24));
    }
    for (int u = 0; u < 16; u++) {
        const int pair = u / 8 * 16 + u % 8, k4 = 64 * b + u / 8 * 32 + u % 8;
        const q16 a = unit(p, pair, half), c = unit(p, pair + 8, half), h = unit(p + 128 * PANEL_ROWS, u, half);
        put(t, k4, half, q16_or(low4(a), q16_and(q16_shl(h, 4), top)));
        put(t, k4 + 8, half, q16_or(low4(c), q16_and(q16_shl(h, 2), top)));
        put(t, k4 + 16, half, q16_or(high4(a), q16_and(h, top)));
        put(t, k4 + 24, half, q16_or(high4(c), q16_and(q16_shr(h, 2), top)));
    }
}

static void tile_iq4_xs(struct q_tile *t, int b, int half, const uint8_t *p)
{
    v16_store(t->d[b] + half * 16, halves_scale(p, half));
    for (int r = half * 16; r < half * 16 + 16; r++) {
        const uint32_t high = get_u16(p + 2 * PANEL_ROWS + 2 * r), low = get_u32(p + 4 * PANEL_ROWS + 4 * r);
        for (int s = 0; s < 8; s++)
            t->scale[8 * b + s][r] = (int32_t)((low >> 4 * s & 15) | (high >> 2 * s & 3) << 4) - 32;
    }
    for (int u = 0; u < 32; u++) {
        const q16 q = unit(p + 8 * PANEL_ROWS, u, half);
        const int k4 = 64 * b + u / 4 * 8 + u % 4;
        put(t, k4, half, q16_wide(q16_table(iq4_values, low4(q))));
        put(t, k4 + 4, half, q16_wide(q16_table(iq4_values, high4(q))));
    }
}

typedef void unpack_fn(struct q_tile *t, int b, int half, const uint8_t *panel);
static unpack_fn *const unpack_of[DT_COUNT] = {
    [DT_Q4_0] = tile_q4_0, [DT_Q4_1] = tile_q4_1,   [DT_Q5_0] = tile_q5_0,     [DT_Q5_1] = tile_q5_1,
    [DT_Q8_0] = tile_q8_0, [DT_MXFP4] = tile_mxfp4, [DT_IQ4_NL] = tile_iq4_nl, [DT_IQ4_XS] = tile_iq4_xs,
    [DT_Q2_K] = tile_q2_k, [DT_Q3_K] = tile_q3_k,   [DT_Q4_K] = tile_q4_k,     [DT_Q5_K] = tile_q5_k,
    [DT_Q6_K] = tile_q6_k,
};

void LEVEL_FN(q_unpack)(struct q_tile *tile, const uint8_t *panel, enum dtype t, int n_blocks)
{
    const size_t step = (size_t)dtype_info[t].bytes * PANEL_ROWS;
    for (int b = 0; b < n_blocks; b++, panel += step)
        for (int half = 0; half < 2; half++) unpack_of[t](tile, b, half, panel);
}

/* Part [from, from + len) of an unpacked block of row r as the tile's b-th block */
static void put_block(struct q_tile *tile, const struct quant_block *u, int from, int len, int b, int r,
                      struct code_format f)
{
    const int offset = f.offset == 128 ? WIDE_OFFSET : f.offset;
    tile->d[b][r] = u->d;
    tile->minus_dmin[b][r] = -u->dmin;
    for (int i = 0; i < len; i++)
        tile->code[(b * len + i) / 4][r][i % 4] = (uint8_t)(u->code[from + i] + offset);
    if (!f.sub) return;
    for (int s = 0; s < len / f.sub; s++) tile->scale[b * len / f.sub + s][r] = u->scale[s * f.sub / 16];
    for (int s = 0; s < len / 16; s++) tile->min[b * len / 32 + s / 2][r][s % 2] = u->min[s];
}

void LEVEL_FN(q_unpack_stored)(struct q_tile *tile, const uint8_t *w, int64_t row_bytes, int valid, enum dtype t,
                               int64_t from, int n_blocks)
{
    const int block = dtype_info[t].block, len = dtype_info[t].x_block;
    const struct code_format f = code_format[t];
    memset(tile->code, 0, sizeof tile->code);
    memset(tile->d, 0, sizeof tile->d);
    memset(tile->minus_dmin, 0, sizeof tile->minus_dmin);
    for (int r = 0; r < valid; r++) {
        struct quant_block u;
        for (int b = 0; b < n_blocks; b++) {
            const int64_t k = from + (int64_t)b * len;
            if (b == 0 || k % block == 0) quant_unpacker(t)(&u, w + r * row_bytes + k / block * dtype_info[t].bytes);
            put_block(tile, &u, (int)(k % block), len, b, r, f);
        }
    }
}
