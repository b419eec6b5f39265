/* q_tile.h — inside src/tensor/cpu: weights of a panel taken apart for the products, TILE_K of k at a time. */
#ifndef COE_CPU_Q_TILE_H
#define COE_CPU_Q_TILE_H

#include "tensor/cpu/qlanes.h"
#include "tensor/quant/panel.h"

#define TILE_K 512

/* One for each of the panel's rows where [PANEL_ROWS] stands; k counts from the tile's beginning. */
struct q_tile {
    _Alignas(64) uint8_t code[TILE_K / 4][PANEL_ROWS][4]; /* code + offset, or q16_wide of codes of all eight bits */
    float d[TILE_K / 32][PANEL_ROWS];                     /* block by block */
    float minus_dmin[TILE_K / 32][PANEL_ROWS];
    int32_t scale[TILE_K / 16][PANEL_ROWS];               /* sub-block by sub-block */
    /* Eight a block, each of two runs of sixteen k; with sub-blocks of 32 four, of two of those as struct codes has
     * their sums: 0 and 2, 1 and 3, 4 and 6, 5 and 7 */
    int16_t min[TILE_K / 32][PANEL_ROWS][2];
};

/* Takes apart n_blocks blocks of x_block k at `panel` (quant/panel.h); n_blocks * x_block <= TILE_K. */
void LEVEL_FN(q_unpack)(struct q_tile *tile, const uint8_t *panel, enum dtype t, int n_blocks);
/* The same from rows as stored, `from` elements behind w (a multiple of x_block), for types without panels; rows >=
 * valid are zero. */
void LEVEL_FN(q_unpack_stored)(struct q_tile *tile, const uint8_t *w, int64_t row_bytes, int valid, enum dtype t,
                               int64_t from, int n_blocks);

/* A row of x from some k on: its codes, scales and sums as in struct codes. */
struct x_row {
    const int8_t *q;
    const float *d;
    const int16_t *sum, *pair;
};

/* What kernels.h calls q_pack */
void LEVEL_FN(q_pack)(uint8_t *panel, const uint8_t *rows, size_t row_bytes, enum dtype t, int64_t n_blocks,
                      const uint8_t *next);

/* Asks for the lines that begin in [from, to), into the second-level cache. */
static inline void q_fetch(const uint8_t *from, const uint8_t *to)
{
    for (uintptr_t line = ((uintptr_t)from + 63) / 64 * 64; line < (uintptr_t)to; line += 64)
        __builtin_prefetch((const void *)line, 0, 2);
}

/* Memory that is read from front to back until `end` and then, unless that is NULL, goes on at `next`. */
struct run {
    const uint8_t *end, *next;
};

/* y [PANEL_ROWS] goes on from what it holds: n_blocks blocks of x_block k at `panel`, which lies in the run, times
 * x. */
void LEVEL_FN(q_row)(float *y, const uint8_t *panel, enum dtype t, struct x_row x, int64_t n_blocks,
                     const struct run *run);

#endif
