/* log.c — see log.h. */
#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int level = 1;
static bool line_open;

void log_set_level(int l) { level = l; }
int log_level(void) { return level; }

static void put_line(const char *prefix, const char *format, va_list ap)
{
    char text[1024];
    vsnprintf(text, sizeof text, format, ap);
    if (line_open) fputs("\r\033[K", stderr);
    line_open = false;
    fprintf(stderr, "%s%s\n", prefix, text);
}

#define LINE(prefix, from)                                                                                             \
    if (level >= (from)) {                                                                                             \
        va_list ap;                                                                                                    \
        va_start(ap, format);                                                                                          \
        put_line(prefix, format, ap);                                                                                  \
        va_end(ap);                                                                                                    \
    }

void log_note(const char *format, ...) { LINE("", 1) }
void log_detail(const char *format, ...) { LINE("", 2) }
void log_warn(const char *format, ...) { LINE("coe: warning: ", 0) }

struct progress progress_start(const char *what, double total)
{
    double now = coe_now();
    return (struct progress){ what, total, now, 0, level >= 1 && isatty(2) };
}

void progress_set(struct progress *p, double done, const char *format, ...)
{
    double now = coe_now();
    if (!p->on || now - p->drawn < 0.1) return;
    p->drawn = now;
    char text[160];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    line_open = true;
    if (p->total <= 0) { /* nobody knows how long it takes: no bar, only what is done */
        fprintf(stderr, "\r\033[K%s: %s", p->what, text);
        fflush(stderr);
        return;
    }
    enum { WIDTH = 24 };
    char bar[WIDTH + 1];
    double share = done / p->total;
    share = share < 0 ? 0 : share > 1 ? 1 : share;
    int full = (int)(share * WIDTH);
    memset(bar, '#', (size_t)full);
    memset(bar + full, '.', (size_t)(WIDTH - full));
    bar[WIDTH] = 0;
    double left = share > 0.01 ? (now - p->started) * (1 - share) / share : 0;
    fprintf(stderr, "\r\033[K%s [%s] %3.0f%% %s", p->what, bar, 100 * share, text);
    if (left > 1) fprintf(stderr, "  %.0f s left", left);
    fflush(stderr);
}

void progress_end(struct progress *p)
{
    if (p->on && line_open) fputs("\r\033[K", stderr);
    line_open = false;
    p->on = false;
}
