/* log.h — notes and progress on stderr. stdout belongs to results. */
#ifndef COE_LOG_H
#define COE_LOG_H

#include "base.h"

/* 0 only errors, 1 notes (default), 2 also details. */
void log_set_level(int level);
int log_level(void);
/* One line on stderr, newline added; clears a progress line first. */
void log_note(const char *format, ...) COE_PRINTF(1, 2);
void log_detail(const char *format, ...) COE_PRINTF(1, 2);
void log_warn(const char *format, ...) COE_PRINTF(1, 2);

/* A bar when stderr is a terminal, nothing otherwise. Redrawn at most ten times a second. Without a total (0) only the
 * text is shown.
 *     struct progress p = progress_start("tokenizing", n_bytes);
 *     progress_set(&p, done, "%zu tokens", n); … progress_end(&p); */
struct progress {
    const char *what;
    double total, started, drawn;
    bool on;
};
struct progress progress_start(const char *what, double total);
void progress_set(struct progress *p, double done, const char *format, ...) COE_PRINTF(3, 4);
void progress_end(struct progress *p);

#endif
