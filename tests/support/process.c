/* process.c — see process.h. */
#include "process.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* An unnamed file: its reader and writer cannot block each other, however much is written. */
static int scratch(const char *text)
{
    static char template[1100]; /* taken once: the buffers of temp_path are the tests' */
    char path[sizeof template];
    if (!template[0]) snprintf(template, sizeof template, "%s", temp_path("process-XXXXXX"));
    memcpy(path, template, sizeof path);
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0) fail_msg("%s: no temporary file", path);
    unlink(path);
    const size_t n = text ? strlen(text) : 0;
    if (n && (write(fd, text, n) != (ssize_t)n || lseek(fd, 0, SEEK_SET) < 0)) fail_msg("%s: cannot be written", path);
    return fd;
}

static char *take(int fd, size_t *n)
{
    const off_t end = lseek(fd, 0, SEEK_END);
    char *text = malloc((size_t)end + 1);
    if (end < 0 || !text || pread(fd, text, (size_t)end, 0) != (ssize_t)end) fail_msg("output cannot be read back");
    text[end] = 0;
    *n = (size_t)end;
    close(fd);
    return text;
}

struct ran run_program(const char *input, const char *const *argv)
{
    struct ran r = { 0 };
    const int in = scratch(input), out = scratch(NULL), err = scratch(NULL);
    fflush(NULL);
    const pid_t child = fork();
    if (child < 0) fail_msg("fork failed");
    if (!child) {
        dup2(in, 0);
        dup2(out, 1);
        dup2(err, 2);
        execv(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    int status = 0;
    waitpid(child, &status, 0);
    close(in);
    r.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    r.out = take(out, &r.n_out);
    r.err = take(err, &r.n_err);
    if (r.status == 127) fail_msg("%s: cannot be run", argv[0]);
    return r;
}

void ran_free(struct ran *r)
{
    free(r->out);
    free(r->err);
    *r = (struct ran){ 0 };
}

struct ran run_coe(int status, const char *input, const char *const *args)
{
    const char *program = getenv("COE"), *argv[40] = { program ? program : "./coe" };
    size_t n = 1;
    for (; args[n - 1] && n < COE_COUNT(argv) - 1; n++) argv[n] = args[n - 1];
    struct ran r = run_program(input, argv);
    if (r.status == status) return r;
    print_message("coe");
    for (size_t i = 1; i < n; i++) print_message(" %s", argv[i]);
    print_message("\nstdout: %.2000s\nstderr: %.2000s\n", r.out, r.err);
    fail_msg("exit status %d, expected %d", r.status, status);
    return r;
}

const char *built(const char *relative)
{
    static char buffer[8][1200];
    static int next;
    char self[1024], *out = buffer[next++ % 8], *tests;
    const ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = 0;
    tests = strstr(self, "/tests/");
    if (!tests) fail_msg("%s: not below a tests folder", self);
    snprintf(out, sizeof buffer[0], "%.*s/%s", (int)(tests - self), self, relative);
    return out;
}
