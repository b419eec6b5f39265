/* trace_in.h — inside src/trace: making a trace by hand, for read.c and tests. */
#ifndef COE_TRACE_IN_H
#define COE_TRACE_IN_H

#include "trace/trace.h"

/* of the file, see write.c */
#define TRACE_MAGIC "COETRACE"
#define TRACE_HEAD 40u
#define TRACE_VERSION 1u
#define TRACE_FRAME ((size_t)1 << 22) /* bytes of a column in one zstd frame */

/* Empty, with `path` for messages; NULL when memory is out. */
struct trace *trace_make(const char *path);
/* Room for n layers; fill them, then call trace_layers_done before the first domain. */
coe_status trace_make_layers(struct trace *t, int32_t n);
void trace_layers_done(struct trace *t);

/* Bytes of column c of all domains. */
size_t trace_column_bytes(const struct trace *t, int c);

#endif
