/* Where results go: devices, closed streams, directories in the place of files, leftovers, two writers at once. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "support/process.h"
#include "support/tiny_model.h"

static const char *model(void)
{
    static const char *path;
    return path ? path : (path = strdup(tiny_model("model", NULL)));
}

/* A shell line; names come in through the environment. */
static struct ran shell(const char *line)
{
    const char *program = getenv("COE");
    setenv("COE", program ? program : "./coe", 1);
    setenv("MODEL", model(), 1);
    setenv("TEMP", temp_path(""), 1);
    return run_program(NULL, (const char *const[]){ "/bin/sh", "-c", line, NULL });
}

static void expect(const char *line, int status, const char *part)
{
    struct ran r = shell(line);
    if (r.status != status || !strstr(r.err, part))
        fail_msg("%s\nstatus %d, expected %d; '%s', expected '%s'", line, r.status, status, r.err, part);
    ran_free(&r);
}

static void a_device_is_never_replaced_by_a_file(void **state)
{
    (void)state;
    /* a pipe stands for /dev/null, which a bug here would take away from the machine */
    char pipe[1200];
    struct stat st;
    snprintf(pipe, sizeof pipe, "%s", temp_path("pipe"));
    assert_int_equal(mkfifo(pipe, 0600), 0);
    expect("exec $COE plan random $MODEL -o $TEMP/pipe", 1, "no regular file");
    assert_int_equal(lstat(pipe, &st), 0);
    assert_true(S_ISFIFO(st.st_mode));
}

static void a_link_stays_and_what_it_leads_to_is_written(void **state)
{
    (void)state;
    char link[1200], file[1200];
    struct stat st;
    snprintf(link, sizeof link, "%s", temp_path("link.json"));
    snprintf(file, sizeof file, "%s", temp_path("behind.json"));
    spill(file, "old", 3);
    assert_int_equal(symlink(file, link), 0);
    expect("exec $COE plan random $MODEL -o $TEMP/link.json", 0, "");
    assert_int_equal(lstat(link, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_int_equal(stat(file, &st), 0);
    assert_true(st.st_size > 100);
}

static void places_that_cannot_be_written_are_named_before_the_work(void **state)
{
    (void)state;
    expect("exec $COE trace $MODEL -d a=README.md -o $TEMP", 1, "is a directory");
    expect("exec $COE trace $MODEL -d a=README.md -o $TEMP/none/t.coet", 1, "none; mkdir -p makes it");
    expect("exec $COE trace $MODEL -d a=README.md -o README.md/t.coet", 1, "README.md is not a directory");
    expect("exec $COE plan random $MODEL -o ''", 2, "is empty");
    expect("exec $COE data tokenizer README.md -o $TEMP/none/", 1, "ends like a directory");
}

static void output_that_does_not_arrive_is_a_failure(void **state)
{
    (void)state;
    expect("exec $COE run $MODEL -p king -n 8 >/dev/full", 1, "cannot write to standard output");
    expect("exec $COE run $MODEL -p king -n 8 >&-", 1, "cannot write to standard output");
    expect("exec $COE methods >&-", 1, "cannot write to standard output");
    expect("exec $COE tokenize $MODEL <&-", 3, "cannot read standard input");
}

static void closed_streams_do_not_write_into_results(void **state)
{
    (void)state;
    expect("$COE plan random $MODEL -o $TEMP/a.json; $COE plan random $MODEL -o $TEMP/b.json 2>&- >&-; "
           "cmp $TEMP/a.json $TEMP/b.json", 0, "");
    expect("$COE convert $MODEL $TEMP/a; $COE convert $MODEL $TEMP/b >&- 2>&-; "
           "cmp $TEMP/a/model.safetensors $TEMP/b/model.safetensors", 0, "");
}

static void a_killed_writer_s_leftovers_go_with_the_next_one(void **state)
{
    (void)state;
    char left[1200], others[1200];
    const pid_t child = fork();
    if (!child) _exit(0);
    waitpid(child, NULL, 0); /* a process that is no more */
    snprintf(left, sizeof left, "%s", temp_path("out.part~"));
    snprintf(others, sizeof others, "%s", temp_path("another.part~"));
    snprintf(left + strlen(left), 16, "%d", (int)child);
    snprintf(others + strlen(others), 16, "%d", (int)child);
    spill(others, "x", 1);
    assert_int_equal(mkdir(left, 0700), 0);
    expect("exec $COE convert $MODEL $TEMP/out", 0, "");
    assert_false(dir_exists(left));
    assert_true(file_exists(others)); /* not ours to remove */
}

static void a_directory_is_one_writer_s_at_a_time(void **state)
{
    (void)state;
    int first, second;
    assert_ok(dir_lock(&first, temp_path("")));
    assert_int_equal(dir_lock(&second, temp_path("")), COE_E_FAILED);
    assert_error_has("another process");
    dir_unlock(first);
    assert_ok(dir_lock(&second, temp_path("")));
    dir_unlock(second);
}

static void wrong_values_are_wrong_usage_and_wrong_input_is_wrong_input(void **state)
{
    (void)state;
    expect("exec $COE run $MODEL -p king --memory 0", 2, "--memory");
    expect("exec $COE info ''", 3, "empty name");
    expect("exec $COE train recipe.yaml --resume --restart", 2, "not both");
    expect("exec $COE run $MODEL -p king --experts-used 99", 2, "top_k 99");
    expect("echo '[1, 99999]' | $COE tokenize $MODEL --decode", 3, "99999");
    expect("echo '[1, -2]' | $COE tokenize $MODEL --decode", 3, "-2");
    expect("echo '{\"model\": {\"type\": \"BPE\"}}' >$TEMP/t.json; exec $COE tokenize $TEMP/t.json </dev/null", 3,
           "has no \"vocab\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_device_is_never_replaced_by_a_file),
        cmocka_unit_test(a_link_stays_and_what_it_leads_to_is_written),
        cmocka_unit_test(places_that_cannot_be_written_are_named_before_the_work),
        cmocka_unit_test(output_that_does_not_arrive_is_a_failure),
        cmocka_unit_test(closed_streams_do_not_write_into_results),
        cmocka_unit_test(a_killed_writer_s_leftovers_go_with_the_next_one),
        cmocka_unit_test(a_directory_is_one_writer_s_at_a_time),
        cmocka_unit_test(wrong_values_are_wrong_usage_and_wrong_input_is_wrong_input),
    };
    return cmocka_run_group_tests_name("end-to-end/outputs", tests, NULL, NULL);
}
