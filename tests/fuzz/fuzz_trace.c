/* One trace file: an accepted trace can be summed, reported and merged with its twin, and keeps its fingerprint.
 *
 * The input is the frames and the directory behind four bytes that say where the directory begins; the head is written
 * here, so that a longer directory is not just a wrong length. Checksums are not compared in this build (trace/read.c).
 */
#include <stdlib.h>
#include <string.h>

#include "trace/report.h"
#include "trace/trace_in.h"

#define MAX_BYTES ((uint64_t)1 << 22)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void use(struct trace *t, struct trace *twin)
{
    struct report r;
    char print[17];
    if (trace_fingerprint(t, print)) abort();
    if (!report_make(&r, t, 4)) {
        json_decref(report_json(&r, t));
        report_free(&r);
    }
    if (trace_merge(t, twin)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static uint8_t file[TRACE_HEAD + 65536];
    struct trace *t, *twin;
    uint32_t frames, version = TRACE_VERSION;
    if (n < sizeof frames || n - sizeof frames > 65536) return 0;
    memcpy(&frames, bytes, sizeof frames);
    const uint64_t body = n - sizeof frames, offset = TRACE_HEAD + frames % (body + 1),
                   length = TRACE_HEAD + body - offset;
    memset(file, 0, TRACE_HEAD);
    memcpy(file, TRACE_MAGIC, 8);
    memcpy(file + 8, &version, sizeof version);
    memcpy(file + 16, &offset, sizeof offset);
    memcpy(file + 24, &length, sizeof length);
    memcpy(file + TRACE_HEAD, bytes + sizeof frames, body);
    if (trace_parse(&t, file, TRACE_HEAD + body, "fuzz", MAX_BYTES)) return 0;
    if (trace_parse(&twin, file, TRACE_HEAD + body, "twin", MAX_BYTES)) abort();
    use(t, twin);
    trace_free(twin);
    trace_free(t);
    return 0;
}
