/* q_pack.c — rows of blocks as stored into panel order: definition in quant/panel.h. Done once when a model is packed,
 * and TILE_K of k at a time where there is no room for that. */
#include "tensor/cpu/q_tile.h"
#include "tensor/quant/block.h"

/* Units first … first + n - 1 (n <= 4) of four bytes of sixteen rows; in the panel each is `apart` units behind the one
 * before. Sixteen bytes are read of each row in any case. */
LANES void pack_up_to_four(uint8_t *panel, const uint8_t *rows, size_t row_bytes, int first, int n, int apart)
{
    q16 four[4];
    q16_columns(four, rows + 4 * first, row_bytes);
    UNROLL(4) for (int i = 0; i < n; i++) q16_store(panel + (first + i) * apart * PANEL_HALF * 4, four[i]);
}

/* A field of `units` such units. One of fewer than four is read together with what is behind it in its block. */
LANES void pack_fours(uint8_t *panel, const uint8_t *rows, size_t row_bytes, int units, int apart)
{
    int u = 0;
    for (; u + 4 <= units; u += 4) pack_up_to_four(panel, rows, row_bytes, u, 4, apart);
    if (units > 4 && u < units) pack_up_to_four(panel, rows, row_bytes, units - 4, 4, apart); /* some once more */
    else if (units == 3) pack_up_to_four(panel, rows, row_bytes, 0, 3, apart);
    else if (units == 1) pack_up_to_four(panel, rows, row_bytes, 0, 1, apart);
}

/* One unit of one or two bytes (a constant where this is inlined), gathered in words: stores of two bytes that are read
 * again as a register would wait for one another. */
LANES void pack_small(uint8_t *panel, const uint8_t *rows, size_t row_bytes, size_t unit)
{
    for (size_t r = 0; r < PANEL_HALF; r += 8 / unit) {
        uint64_t word = 0;
        UNROLL(8) for (size_t i = 0; i < 8 / unit; i++) {
            const uint8_t *at = rows + (r + i) * row_bytes;
            word |= (uint64_t)(unit == 2 ? get_u16(at) : *at) << 8 * unit * i;
        }
        memcpy(panel + r * unit, &word, sizeof word);
    }
}

LANES int together(struct panel_field f) { return f.beside[0] ? f.beside[1] ? 3 : 2 : 1; }

/* One field of one block of sixteen rows. */
LANES void pack_field(uint8_t *panel, const uint8_t *rows, size_t row_bytes, struct panel_field f)
{
    const int n = together(f);
    if (f.unit == 4)
        UNROLL(3) for (int i = 0; i < n; i++)
            pack_fours(panel + i * PANEL_HALF * 4, rows + (i ? f.beside[i - 1] : f.offset), row_bytes, f.bytes / 4, n);
    else
        UNROLL(2) for (int at = 0; at < f.bytes; at += f.unit)
            pack_small(panel + at * PANEL_HALF, rows + f.offset + at, row_bytes, f.unit);
}

typedef void pack_fn(uint8_t *panel, const uint8_t *rows, size_t row_bytes);
/* One block of sixteen rows, its fields one behind the other. */
#define PACK(name, type)                                                                                               \
    static void pack_##name(uint8_t *panel, const uint8_t *rows, size_t row_bytes)                                     \
    {                                                                                                                  \
        UNROLL(5) for (int i = 0; i < PANEL_FIELDS; i++)                                                               \
        {                                                                                                              \
            const struct panel_field f = panel_fields[DT_##type][i];                                                   \
            if (f.bytes) pack_field(panel, rows, row_bytes, f);                                                        \
            panel += f.bytes * together(f) * PANEL_HALF;                                                               \
        }                                                                                                              \
    }
PACK(q4_0, Q4_0)
PACK(q4_1, Q4_1)
PACK(q5_0, Q5_0)
PACK(q5_1, Q5_1)
PACK(q8_0, Q8_0)
PACK(mxfp4, MXFP4)
PACK(q2_k, Q2_K)
PACK(q3_k, Q3_K)
PACK(q4_k, Q4_K)
PACK(q5_k, Q5_K)
PACK(q6_k, Q6_K)
PACK(iq4_xs, IQ4_XS)
static pack_fn *const pack_of[DT_COUNT] = {
    [DT_Q4_0] = pack_q4_0,
    [DT_Q4_1] = pack_q4_1,
    [DT_Q5_0] = pack_q5_0,
    [DT_Q5_1] = pack_q5_1,
    [DT_Q8_0] = pack_q8_0,
    [DT_MXFP4] = pack_mxfp4,
    [DT_IQ4_NL] = pack_q4_0,
    [DT_Q2_K] = pack_q2_k,
    [DT_Q3_K] = pack_q3_k,
    [DT_Q4_K] = pack_q4_k,
    [DT_Q5_K] = pack_q5_k,
    [DT_Q6_K] = pack_q6_k,
    [DT_IQ4_XS] = pack_iq4_xs,
};

/* Sixteen rows at once are more streams than the hardware follows: hence `next`. */
void LEVEL_FN(q_pack)(uint8_t *panel, const uint8_t *rows, size_t row_bytes, enum dtype t, int64_t n_blocks,
                      const uint8_t *next)
{
    const int64_t bytes = dtype_info[t].bytes, half = bytes * PANEL_HALF;
    for (int64_t b = 0; b < n_blocks; b++, rows += bytes, panel += 2 * half) {
        if (next) q_fetch(next + 2 * b * half, next + 2 * (b + 1) * half);
        pack_of[t](panel, rows, row_bytes);
        pack_of[t](panel + half, rows + PANEL_HALF * row_bytes, row_bytes);
    }
}
