/* support.h — what tests of several rooms share: fixtures, temporary files, damage.
 *
 * Tests run from the top of the checkout. Fixtures are found through COE_FIXTURES (default ../shared/fixtures). */
#ifndef COE_TESTS_SUPPORT_H
#define COE_TESTS_SUPPORT_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdbool.h>

#include "base/base.h"

/* Path of a fixture; one of eight rotating buffers. */
const char *fixture(const char *relative);
bool fixture_exists(const char *relative);
/* skip()s the running test when the fixture is absent. */
void need_fixture(const char *relative);

/* A path in a directory made on first use and removed when the program ends; one of eight rotating buffers. */
const char *temp_path(const char *name);

/* Whole file in malloc'ed memory of exactly its size, so that a read behind its end is seen by ASan. Fails the test
 * when it cannot be read. */
unsigned char *slurp(const char *path, size_t *n);
/* Writes a file or fails the test. */
void spill(const char *path, const void *bytes, size_t n);

/* The last error message contains `part`; prints both otherwise. */
void assert_error_has(const char *part);
/* The call succeeded; prints the message otherwise. */
void assert_ok(coe_status s);

/* Runs `fn(user)` in a child process with the largest file limited to `bytes` (a disk that is full), returns its
 * status. */
coe_status on_full_disk(uint64_t bytes, coe_status (*fn)(void *user), void *user);

#endif
