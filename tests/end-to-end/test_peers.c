/* bench/peers with a made-up peer: what it runs, what it writes, what it refuses. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "support/process.h"
#include "support/tiny_model.h"

static bool have_python(void)
{
    return !system("command -v python3 >/dev/null 2>&1");
}

static const char *coe(void)
{
    const char *name = getenv("COE");
    return name ? name : "./coe";
}

/* A program that answers like llama-bench: noise, then a list with the rates of three repetitions. */
static const char *made_up_peer(void)
{
    static const char text[] = "#!/bin/sh\necho noise >&2\necho 'noise [{\"samples_ts\": [10.0, 30.0, 20.0]}]'\n";
    const char *path = temp_path("peer");
    spill(path, text, sizeof text - 1);
    assert_int_equal(chmod(path, 0700), 0);
    return path;
}

static void a_table_holds_both_programs_and_their_commands(void **state)
{
    (void)state;
    char peer[1300], out[1200], raw[1200];
    size_t n, n_raw;
    if (!have_python()) skip();
    const char *model = tiny_model("peers", &(struct tiny){ .no_tokenizer = true });
    snprintf(peer, sizeof peer, "other=%s,-rtr,1", made_up_peer());
    snprintf(out, sizeof out, "%s", temp_path("peers.md"));
    snprintf(raw, sizeof raw, "%s", temp_path("peers.jsonl"));
    struct ran r = run_program(NULL, COE_ARGS("bench/peers", "--coe", coe(), "--peer", peer, "-p", "0", "-n", "2", "-t",
                                              "1", "-r", "1", "--tries", "1", "--raw", raw, "-o", out, model));
    if (r.status) fail_msg("bench/peers: status %d: %s", r.status, r.err);
    char *text = (char *)slurp(out, &n), *lines = (char *)slurp(raw, &n_raw);
    text = realloc(text, n + 1);
    assert_non_null(text);
    text[n] = 0;
    assert_non_null(strstr(text, "| tg2 | 1 | other | 20.00 (10.00 – 30.00) |"));
    assert_non_null(strstr(text, "| tg2 | 1 | coe |"));
    assert_non_null(strstr(text, "-r 1 -o json -p 0 -n 2 -rtr 1`"));
    int n_lines = 0;
    for (size_t i = 0; i < n_raw; i++) n_lines += lines[i] == '\n';
    assert_int_equal(n_lines, 2);
    free(text);
    free(lines);
    ran_free(&r);
}

static void what_is_not_there_is_named(void **state)
{
    (void)state;
    if (!have_python()) skip();
    static const char *const wrong[][3] = { { "/nowhere/m.gguf", NULL, "/nowhere/m.gguf" },
                                            { "--peer", "x=/nowhere/bench", "/nowhere/bench" },
                                            { "-p", "many", "many" },
                                            { "--wings", "2", "--wings" },
                                            { "-n", NULL, "-n needs a value" } };
    for (size_t i = 0; i < COE_COUNT(wrong); i++) {
        struct ran r = run_program(NULL, (const char *const[]){ "bench/peers", wrong[i][0], wrong[i][1],
                                                                wrong[i][1] ? "src" : NULL, NULL });
        if (r.status != 1 || r.n_out || !strstr(r.err, wrong[i][2]) || strstr(r.err, "Traceback"))
            fail_msg("case %zu: status %d, '%s' '%s'", i, r.status, r.out, r.err);
        ran_free(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_table_holds_both_programs_and_their_commands),
        cmocka_unit_test(what_is_not_there_is_named),
    };
    return cmocka_run_group_tests_name("end-to-end/peers", tests, NULL, NULL);
}
