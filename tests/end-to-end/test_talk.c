/* `coe run MODEL` at a terminal: lines, commands, Ctrl-C. */
#include <poll.h>
#include <pty.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/process.h"
#include "support/tiny_model.h"

static int terminal;
static pid_t child;
static char seen[65536];
static size_t n_seen;

static void start(void)
{
    const char *coe = getenv("COE"), *model = tiny_model("model", NULL), *home = temp_path("home");
    n_seen = 0;
    fflush(NULL);
    child = forkpty(&terminal, NULL, NULL, NULL);
    if (child < 0) {
        print_message("this machine has no pseudo-terminals\n");
        skip();
    }
    if (child) return;
    setenv("XDG_STATE_HOME", home, 1);
    setenv("NO_COLOR", "1", 1);
    execl(coe ? coe : "./coe", "coe", "run", model, "-n", "8", "-t", "1", (char *)NULL);
    _exit(127);
}

/* Reads what the program writes until `part` is there; what came before it is forgotten. */
static void expect(const char *part)
{
    struct pollfd p = { terminal, POLLIN, 0 };
    for (;;) {
        seen[n_seen] = 0;
        char *at = memmem(seen, n_seen, part, strlen(part));
        if (at) {
            const size_t used = (size_t)(at - seen) + strlen(part);
            memmove(seen, seen + used, n_seen - used);
            n_seen -= used;
            return;
        }
        if (n_seen > sizeof seen - 1024 || poll(&p, 1, 20000) <= 0) fail_msg("waiting for '%s' after '%s'", part, seen);
        const ssize_t n = read(terminal, seen + n_seen, 1023);
        if (n <= 0) fail_msg("the program ended; waiting for '%s' after '%s'", part, seen);
        n_seen += (size_t)n;
    }
}

static void type(const char *text) { assert_int_equal(write(terminal, text, strlen(text)), strlen(text)); }

static int finish(void)
{
    int status = 0;
    char rest[256];
    while (read(terminal, rest, sizeof rest) > 0) {}
    waitpid(child, &status, 0);
    close(terminal);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/* Types Ctrl-D until the program has gone: one that comes while an answer is being written is nobody's. */
static int leave(void)
{
    struct pollfd p = { terminal, POLLIN, 0 };
    char rest[256];
    for (int tries = 0; tries < 100; tries++) {
        type("\x04");
        while (poll(&p, 1, 200) > 0)
            if (read(terminal, rest, sizeof rest) <= 0) return finish();
    }
    fail_msg("the program did not end");
    return -1;
}

static void lines_are_answered_and_go_on_until_reset(void **state)
{
    (void)state;
    start();
    expect("/help lists the commands");
    expect("> ");
    type("the king\n");
    expect("the king\r\n");
    expect("> ");
    type("/context\n");
    expect(" of 256 tokens");
    expect("> ");
    type("/experts\n");
    expect("layer 1 pass 1");
    expect("of the tokens");
    type("/reset\n");
    expect("> ");
    type("/context\n");
    expect("\n0 of 256 tokens");
    type("/wings\n");
    expect("there is no /wings");
    type("/quit\n");
    assert_int_equal(finish(), 0);
}

static void ctrl_c_empties_the_line_and_ctrl_d_ends_the_program(void **state)
{
    (void)state;
    start();
    expect("> ");
    type("half a line\x03");
    type("/context\n");
    expect("\n0 of 256 tokens"); /* nothing of the line was fed, and the command stands alone */
    expect("> ");
    type("\n"); /* an empty line at the start is an empty prompt, not the end */
    expect("> ");
    assert_int_equal(leave(), 0);
}

static void a_backslash_continues_a_message(void **state)
{
    (void)state;
    start();
    expect("> ");
    type("the king\\\n");
    expect(". ");
    type("and the queen\n");
    expect("and the queen\r\n");
    expect("> ");
    type("/quit\n");
    assert_int_equal(finish(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_answered_and_go_on_until_reset),
        cmocka_unit_test(ctrl_c_empties_the_line_and_ctrl_d_ends_the_program),
        cmocka_unit_test(a_backslash_continues_a_message),
    };
    return cmocka_run_group_tests_name("end-to-end/talk", tests, NULL, NULL);
}
