/* error.c — one message per thread, the version, interruption, threads and the clock. */
#include "base.h"

#include <omp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static _Thread_local char message[1024];
static _Thread_local coe_status last_status;

coe_status coe_fail(coe_status status, const char *format, ...)
{
    char text[sizeof message];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    for (char *c = text; *c; c++) /* names from foreign files: a message stays one line and steers no terminal */
        if ((unsigned char)*c < 0x20 || *c == 0x7F) *c = '?';
    memcpy(message, text, sizeof message);
    last_status = status;
    return status;
}

coe_status coe_last_status(void) { return last_status ? last_status : COE_E_FAILED; }

void coe_clear_error(void)
{
    message[0] = 0;
    last_status = COE_OK;
}

const char *coe_error(void) { return message; }

const char *coe_version(void) { return "0.1.0"; }

static volatile sig_atomic_t interrupts;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    if (interrupts++) _exit(130);
}

void coe_interrupt_install(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_interrupt;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool coe_interrupted(void) { return interrupts != 0; }

void coe_interrupt_clear(void) { interrupts = 0; }

void coe_set_threads(int n)
{
    if (n > 0) omp_set_num_threads(n);
}

int coe_threads(void) { return omp_get_max_threads(); }

int thread_index(void) { return omp_get_thread_num(); }

double coe_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
