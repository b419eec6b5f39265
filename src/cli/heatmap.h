/* heatmap.h — values by row and column as shades or colours of terminal cells: which experts worked in which layer.
 *
 *     struct heat_row row[] = { { "layer 0 pass 1", 16, share } };
 *     heatmap_print(stdout, &(struct heatmap){ .row = row, .n_rows = 1, .columns = "expert", .values = "share of the
 *                                              tokens", .percent = true, .colours = terminal_colours(stdout) });
 *
 *     expert          0    5    10
 *     layer 0 pass 1  ░▒·█▓░░·▒▒░·░█░░
 *     · 0%  ░ to 6%  ▒ to 12%  ▓ to 19%  █ to 25%  share of the tokens */
#ifndef COE_HEATMAP_H
#define COE_HEATMAP_H

#include <stdio.h>

#include "base/base.h"

struct heat_row {
    const char *label;
    int32_t n;
    const double *value; /* [n], at least 0; NaN: there is no such cell (a pruned expert) and it stays blank */
};

struct heatmap {
    const struct heat_row *row; /* rows may differ in length */
    int32_t n_rows;
    double max;          /* the value of the full shade; 0: the largest value of all rows */
    const char *columns; /* what a column is, printed above the labels */
    const char *values;  /* what a value is, printed behind the legend */
    bool percent;        /* the legend shows 100 times the value with a % */
    bool colours;        /* escape codes instead of shades */
    int32_t width;       /* columns of the screen; longer rows continue on further lines. 0: 100 */
};

/* Draws the rows, column numbers above and the legend below. */
void heatmap_print(FILE *to, const struct heatmap *h);

/* Whether colours are welcome: `to` is a terminal, NO_COLOR is not set and TERM is not "dumb". */
bool terminal_colours(FILE *to);
/* Its width in columns, 100 when it is no terminal. */
int32_t terminal_width(FILE *to);

/* Level of a value: 0 for nothing at all, then 1 … n_levels in equal steps up to max. */
int32_t heat_level(double value, double max, int32_t n_levels);

#endif
