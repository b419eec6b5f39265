/* q_unpack.c — weights taken apart into tiles: from panels, and from rows as stored. */
#include "tensor/cpu/q_types.h"

typedef void unpack_fn(struct q_tile *tile, int b, int half, const uint8_t *panel);
#define UNPACK(name)                                                                                                   \
    static void tile_##name(struct q_tile *tile, int b, int half, const uint8_t *panel)                              \
    {                                                                                                                  \
        struct sink sink = { .tile = tile };                                                                           \
        take_##name(&sink, b, half, panel);                                                                            \
    }
UNPACK(q4_0)
UNPACK(q4_1)
UNPACK(q5_0)
UNPACK(q5_1)
UNPACK(q8_0)
UNPACK(mxfp4)
UNPACK(iq4_nl)
UNPACK(iq4_xs)
UNPACK(q2_k)
UNPACK(q3_k)
UNPACK(q4_k)
UNPACK(q5_k)
UNPACK(q6_k)
static unpack_fn *const unpack_of[DT_COUNT] = {
    [DT_Q4_0] = tile_q4_0,
    [DT_Q4_1] = tile_q4_1,
    [DT_Q5_0] = tile_q5_0,
    [DT_Q5_1] = tile_q5_1,
    [DT_Q8_0] = tile_q8_0,
    [DT_MXFP4] = tile_mxfp4,
    [DT_IQ4_NL] = tile_iq4_nl,
    [DT_IQ4_XS] = tile_iq4_xs,
    [DT_Q2_K] = tile_q2_k,
    [DT_Q3_K] = tile_q3_k,
    [DT_Q4_K] = tile_q4_k,
    [DT_Q5_K] = tile_q5_k,
    [DT_Q6_K] = tile_q6_k,
};

void LEVEL_FN(q_unpack)(struct q_tile *tile, const uint8_t *panel, enum dtype t, int n_blocks)
{
    const size_t step = (size_t)dtype_info[t].bytes * PANEL_HALF;
    for (int b = 0; b < n_blocks; b++)
        for (int half = 0; half < 2; half++, panel += step) unpack_of[t](tile, b, half, panel);
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
    int16_t(*min)[PANEL_ROWS][2] = tile->min + b * len / 32;
    if (f.sub == 32)
        for (int s = 0; s < len / 32; s++) min[s / 4 * 2 + s % 2][r][s / 2 % 2] = u->min[2 * s];
    else
        for (int s = 0; s < len / 16; s++) min[s / 2][r][s % 2] = u->min[s];
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
