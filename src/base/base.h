/* base.h — what every room stands on: errors, counted memory, arenas, strings, files, JSON and YAML documents, random
 * numbers, logging and progress.
 *
 * Enters here: code that knows nothing of tensors, text or models. Includes nothing above it.
 * Reading order: base.h (errors), mem.h, str.h, file.h, json.h, rng.h, log.h, part.h.
 *
 * Errors. A function that can fail returns coe_status. Where the failure is known it sets the message once:
 *
 *     if (rows < 1) return coe_fail(COE_E_INPUT, "%s: tensor %s has %d rows, expected at least 1", path, name, rows);
 *
 * and everyone above passes the status on with COE_TRY(...), or with `goto out` where something must be released. */
#ifndef COE_BASE_H
#define COE_BASE_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../include/coe.h"

#if defined(__GNUC__)
#define COE_PRINTF(a, b) __attribute__((format(printf, a, b)))
#define COE_UNUSED __attribute__((unused))
#define COE_NOINLINE __attribute__((noinline))
#else
#define COE_PRINTF(a, b)
#define COE_UNUSED
#define COE_NOINLINE
#endif

/* Sets this thread's message and returns `status`. A message may quote coe_error() itself. */
coe_status coe_fail(coe_status status, const char *format, ...) COE_PRINTF(2, 3);
/* The status of the last coe_fail on this thread (for functions that answer NULL). */
coe_status coe_last_status(void);
void coe_clear_error(void);

#define COE_TRY(call)                                                                                                  \
    do {                                                                                                               \
        coe_status coe_try_ = (call);                                                                                  \
        if (coe_try_) return coe_try_;                                                                                 \
    } while (0)

/* *out = a*b, false when it does not fit. */
static inline bool coe_mul_size(size_t *out, size_t a, size_t b) { return !__builtin_mul_overflow(a, b, out); }
static inline bool coe_add_size(size_t *out, size_t a, size_t b) { return !__builtin_add_overflow(a, b, out); }

#define COE_COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define COE_MIN(a, b) ((a) < (b) ? (a) : (b))
#define COE_MAX(a, b) ((a) > (b) ? (a) : (b))

/* Set by the first Ctrl-C once coe_interrupt_install() ran; long loops look at it between steps. A second Ctrl-C ends
 * the process. */
bool coe_interrupted(void);
void coe_interrupt_install(void);
void coe_interrupt_clear(void);

/* Compute threads of this process: the number given, else OMP_NUM_THREADS, else the processors it may use. */
void coe_set_threads(int n);
int coe_threads(void);
/* Index of the calling thread inside a parallel loop, 0 … coe_threads()-1. */
int thread_index(void);

/* The loop `header` over its body, shared by the threads where there is enough to do. Where there is not, the OpenMP
 * runtime is not entered: it allocates and makes system calls even for one thread, which small steps would feel. */
#define COE_SPREAD(enough, header, ...)                                                                                \
    do {                                                                                                               \
        if (enough) {                                                                                                  \
            _Pragma("omp parallel for schedule(static)") header { __VA_ARGS__; }                                       \
        } else {                                                                                                       \
            header { __VA_ARGS__; }                                                                                    \
        }                                                                                                              \
    } while (0)

/* Seconds on a clock that never goes back. */
double coe_now(void);

#endif
