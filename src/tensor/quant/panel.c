/* panel.c — weights into panels: see panel.h. */
#include "panel.h"

#include <string.h>

#include "tensor/kernels.h"

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
