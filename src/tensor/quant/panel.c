/* panel.c — the order of bytes in panels: see panel.h. */
#include "panel.h"

#include <string.h>

#include "tensor/kernels.h"

/* Fields in the order in which the kernels use them: memory is fast when it is read from front to back. */
const struct panel_field panel_fields[DT_COUNT][PANEL_FIELDS] = {
    [DT_Q4_0] = { { 0, 2, 2 }, { 2, 16, 4 } },
    [DT_Q4_1] = { { 0, 4, 2 }, { 4, 16, 4 } },
    [DT_Q5_0] = { { 0, 2, 2 }, { 2, 20, 4 } },
    [DT_Q5_1] = { { 0, 4, 2 }, { 4, 20, 4 } },
    [DT_Q8_0] = { { 0, 2, 2 }, { 2, 32, 4 } },
    [DT_IQ4_NL] = { { 0, 2, 2 }, { 2, 16, 4 } },
    [DT_MXFP4] = { { 0, 1, 1 }, { 1, 16, 4 } },
    [DT_Q2_K] = { { 16, 64, 4 }, { 0, 16, 4 }, { 80, 4, 2 } },
    [DT_Q3_K] = { { 0, 108, 4 }, { 108, 2, 2 } },
    [DT_Q4_K] = { { 16, 128, 4 }, { 4, 12, 4 }, { 0, 4, 2 } },
    [DT_Q5_K] = { { 16, 160, 4 }, { 4, 12, 4 }, { 0, 4, 2 } },
    [DT_Q6_K] = { { 0, 32, 4, { 32, 128 } }, { 64, 32, 4, { 96, 160 } }, { 192, 16, 4 }, { 208, 2, 2 } },
    [DT_IQ4_XS] = { { 8, 128, 4 }, { 4, 4, 4 }, { 0, 4, 2 } },
};

bool panel_type(enum dtype t) { return panel_fields[t][0].bytes > 0; }

void panel_pack_rows(void *dst, const struct weight *w, int64_t row, int64_t n)
{
    const size_t row_bytes = (size_t)(w->cols / dtype_info[w->type].block * dtype_info[w->type].bytes);
    const uint8_t *src = (const uint8_t *)w->data + (size_t)row * row_bytes;
    uint8_t *to = dst;
    assert(panel_type(w->type) && row % PANEL_ROWS == 0);
    for (; n >= PANEL_ROWS; n -= PANEL_ROWS, src += PANEL_ROWS * row_bytes, to += PANEL_ROWS * row_bytes)
        kern->q_pack(to, src, row_bytes, w->type, w->cols / dtype_info[w->type].block,
                     n >= 2 * PANEL_ROWS ? src + PANEL_ROWS * row_bytes : NULL);
    memcpy(to, src, (size_t)n * row_bytes);
}
