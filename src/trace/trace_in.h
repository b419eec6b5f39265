/* trace_in.h — inside src/trace: making a trace by hand, for file.c and tests. */
#ifndef COE_TRACE_IN_H
#define COE_TRACE_IN_H

#include "trace/trace.h"

/* Empty, with `path` for messages; NULL when memory is out. */
struct trace *trace_make(const char *path);
/* Room for n layers; fill them, then call trace_layers_done before the first domain. */
coe_status trace_make_layers(struct trace *t, int32_t n);
void trace_layers_done(struct trace *t);

#endif
