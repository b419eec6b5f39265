/* support.c — see support.h. */
#include "support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"

#define PATHS 8
#define PATH_BYTES 1024

static char *next_buffer(void)
{
    static char buffer[PATHS][PATH_BYTES];
    static int next;
    return buffer[next++ % PATHS];
}

const char *fixture(const char *relative)
{
    const char *top = getenv("COE_FIXTURES");
    char *out = next_buffer();
    snprintf(out, PATH_BYTES, "%s/%s", top ? top : "../shared/fixtures", relative);
    return out;
}

bool fixture_exists(const char *relative) { return !access(fixture(relative), R_OK); }

void need_fixture(const char *relative)
{
    if (fixture_exists(relative)) return;
    print_message("%s is not there\n", fixture(relative));
    skip();
}

static char temp_top[PATH_BYTES];
static pid_t temp_owner;

static void remove_temp(void)
{
    if (temp_top[0] && getpid() == temp_owner) (void)dir_remove(temp_top); /* a forked child leaves it to its parent */
}

const char *temp_path(const char *name)
{
    if (!temp_top[0]) {
        const char *tmp = getenv("TMPDIR");
        snprintf(temp_top, sizeof temp_top, "%s/coe-test-XXXXXX", tmp ? tmp : "/tmp");
        if (!mkdtemp(temp_top)) fail_msg("%s: no temporary directory", temp_top);
        temp_owner = getpid();
        atexit(remove_temp);
    }
    char *out = next_buffer();
    snprintf(out, PATH_BYTES, "%.900s/%.100s", temp_top, name);
    return out;
}

unsigned char *slurp(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rbe");
    struct stat st;
    if (!f || fstat(fileno(f), &st)) fail_msg("%s: cannot be read", path);
    *n = (size_t)st.st_size;
    unsigned char *bytes = malloc(*n ? *n : 1);
    if (!bytes || fread(bytes, 1, *n, f) != *n) fail_msg("%s: cannot be read", path);
    fclose(f);
    return bytes;
}

void spill(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wbe"); /* not file_write, whose fsync would take most of a test's time */
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f)) fail_msg("%s: cannot be written", path);
}

void assert_error_has(const char *part)
{
    if (!strstr(coe_error(), part)) fail_msg("message is '%s', expected it to contain '%s'", coe_error(), part);
}

void assert_ok(coe_status s)
{
    if (s) fail_msg("status %d: %s", (int)s, coe_error());
}

coe_status on_full_disk(uint64_t bytes, coe_status (*fn)(void *user), void *user)
{
    fflush(NULL);
    pid_t child = fork();
    if (child < 0) fail_msg("fork failed");
    if (!child) {
        struct rlimit limit = { bytes, bytes };
        signal(SIGXFSZ, SIG_IGN); /* writes then fail with an error, as on a full disk */
        if (setrlimit(RLIMIT_FSIZE, &limit)) _exit(99);
        _exit((int)fn(user));
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (!WIFEXITED(status)) fail_msg("the child ended by signal %d", WTERMSIG(status));
    return (coe_status)WEXITSTATUS(status);
}
