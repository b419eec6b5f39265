/* heatmap.c — see heatmap.h. Colours are cells of the 256-colour palette, from near black over red to pale yellow, so
 * that they read on dark and light screens alike; without colours the four shades of a block stand for them. */
#include "cli/heatmap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const char *const shade[] = { "·", "░", "▒", "▓", "█" };
static const int palette[] = { 235, 53, 89, 125, 161, 202, 208, 214, 220, 229 };
#define SHADES ((int32_t)COE_COUNT(shade) - 1)
#define COLOURS ((int32_t)COE_COUNT(palette) - 1)

bool terminal_colours(FILE *to)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return isatty(fileno(to)) && !(no && *no) && !(term && !strcmp(term, "dumb"));
}

int32_t terminal_width(FILE *to)
{
    struct winsize w;
    return !ioctl(fileno(to), TIOCGWINSZ, &w) && w.ws_col > 20 ? w.ws_col : 100;
}

int32_t heat_level(double value, double max, int32_t n_levels)
{
    if (!(value > 0) || !(max > 0)) return 0;
    const double level = ceil(value / max * n_levels - 1e-9); /* a rounding error above a step is on the step */
    return level < 1 ? 1 : level > n_levels ? n_levels : (int32_t)level;
}

/* What all the lines of one drawing share. */
struct frame {
    FILE *to;
    const struct heatmap *h;
    double max;
    int32_t label;    /* columns of the longest label */
    int32_t n_cells;  /* of the longest row */
    int32_t cell;     /* columns of one cell: 2 where they fit, else 1 */
    int32_t per_line; /* cells of one line */
};

/* Columns on the screen: bytes that do not continue a UTF-8 character. */
static int32_t columns(const char *text)
{
    int32_t n = 0;
    for (; *text; text++) n += ((unsigned char)*text & 0xC0) != 0x80;
    return n;
}

static void pad(FILE *to, int32_t n)
{
    for (; n > 0; n--) fputc(' ', to);
}

static void print_label(const struct frame *f, const char *text)
{
    fputs(text, f->to);
    pad(f->to, f->label - columns(text) + 2);
}

static void print_cell(const struct frame *f, double value)
{
    if (isnan(value)) {
        pad(f->to, f->cell);
    } else if (f->h->colours) {
        fprintf(f->to, "\033[48;5;%dm%*s\033[0m", palette[heat_level(value, f->max, COLOURS)], f->cell, "");
    } else {
        const char *s = shade[heat_level(value, f->max, SHADES)];
        for (int32_t i = 0; i < f->cell; i++) fputs(s, f->to);
    }
}

/* Numbers above every fifth cell: "0    5    10". */
static void print_axis(const struct frame *f, int32_t first)
{
    print_label(f, f->h->columns ? f->h->columns : "");
    const int32_t end = COE_MIN(first + f->per_line, f->n_cells);
    int32_t at = 0;
    for (int32_t i = (first + 4) / 5 * 5; i < end; i += 5) {
        const int32_t want = (i - first) * f->cell;
        pad(f->to, want - at);
        at = want + fprintf(f->to, "%d", i);
    }
    fputc('\n', f->to);
}

static void print_row(const struct frame *f, const struct heat_row *r, int32_t first)
{
    print_label(f, r->label);
    for (int32_t i = first; i < COE_MIN(first + f->per_line, r->n); i++) print_cell(f, r->value[i]);
    fputc('\n', f->to);
}

static void print_legend(const struct frame *f)
{
    const int32_t n = f->h->colours ? COLOURS : SHADES;
    const double scale = f->h->percent ? 100 : 1;
    const char *unit = f->h->percent ? "%" : "";
    for (int32_t i = 0; i <= n; i++) {
        print_cell(f, f->max * i / n);
        if (i && f->h->colours && i != n) continue; /* the ramp speaks for itself: only its ends are named */
        fprintf(f->to, i ? " to %.3g%s  " : " %.3g%s  ", scale * f->max * i / n, unit);
    }
    fprintf(f->to, "%s\n", f->h->values ? f->h->values : "");
}

static void measure(struct frame *f)
{
    const struct heatmap *h = f->h;
    f->label = h->columns ? columns(h->columns) : 0;
    for (int32_t r = 0; r < h->n_rows; r++) {
        f->label = COE_MAX(f->label, columns(h->row[r].label));
        f->n_cells = COE_MAX(f->n_cells, h->row[r].n);
        for (int32_t i = 0; !(h->max > 0) && i < h->row[r].n; i++)
            if (h->row[r].value[i] > f->max) f->max = h->row[r].value[i];
    }
    const int32_t room = COE_MAX(10, (h->width > 0 ? h->width : 100) - f->label - 2);
    f->cell = f->n_cells * 2 <= room ? 2 : 1;
    f->per_line = room / f->cell / 5 * 5;
}

void heatmap_print(FILE *to, const struct heatmap *h)
{
    struct frame f = { .to = to, .h = h, .max = h->max };
    measure(&f);
    for (int32_t first = 0; first < f.n_cells; first += f.per_line) {
        print_axis(&f, first);
        for (int32_t r = 0; r < h->n_rows; r++)
            if (first < h->row[r].n) print_row(&f, &h->row[r], first);
    }
    print_legend(&f);
}
