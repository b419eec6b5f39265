/* process.h — runs a program of the build and looks at what it did. */
#ifndef COE_TESTS_PROCESS_H
#define COE_TESTS_PROCESS_H

#include "support.h"

/* One run: exit status (128 + signal when it was ended by one), and what it wrote, NUL-terminated. */
struct ran {
    int status;
    char *out, *err;
    size_t n_out, n_err;
};

/* Runs argv[0] with its NULL-terminated arguments and `input` (NULL: nothing) as standard input, and waits. Release the
 * answer with ran_free. Fails the test when the program cannot be started. */
struct ran run_program(const char *input, const char *const *argv);
void ran_free(struct ran *r);

/* `coe ARGS…` (COE names the program, default ./coe); ends the test unless the exit status is `status`, printing the
 * command and what it wrote. */
struct ran run_coe(int status, const char *input, const char *const *args);
#define COE_ARGS(...) ((const char *const[]){ __VA_ARGS__, NULL })

/* Path of a program beside the tests' own build folder: built("examples/route"). One of eight rotating buffers. */
const char *built(const char *relative);

#endif
