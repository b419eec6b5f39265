/* One trace file: an accepted trace can be summed, reported, merged with its twin, and keeps its fingerprint when its
 * columns are read again. Checksums are not compared in this build (trace/read.c), or no mutation would get past them.
 */
#include <stdlib.h>

#include "trace/report.h"

#define MAX_BYTES ((uint64_t)1 << 22)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct trace *t, *twin;
    struct report r;
    char print[17];
    if (trace_parse(&t, bytes, n, "fuzz", MAX_BYTES)) return 0;
    if (trace_fingerprint(t, print)) abort();
    if (!report_make(&r, t, 4)) {
        json_decref(report_json(&r, t));
        report_free(&r);
    }
    if (trace_parse(&twin, bytes, n, "twin", MAX_BYTES) || trace_merge(t, twin)) abort();
    trace_free(twin);
    trace_free(t);
    return 0;
}
