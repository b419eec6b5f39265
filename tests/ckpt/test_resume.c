/* Writing that is gone on with: ended at any tensor by kill -9, a full disk or Ctrl-C, the next run of the same command
 * makes the very bytes of an undisturbed one and does only what is left. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "ckpt/gguf.h"
#include "support/support.h"

#define N_ITEMS 6
#define ROWS 5
#define COLS (1 << 16) /* four rows of 256 KB are a piece: a tensor is filled in two */
#define MB ((uint64_t)1 << 20)

/* What a child does: the item and the piece of it where it ends, and how. */
struct job {
    char path[1200];
    bool gguf;
    uint64_t shard_bytes;
    int end_item, end_piece, end_signal;
    uint64_t sum;   /* what the fill functions count */
    int64_t filled; /* pieces filled in this run */
    const char *key;
};
static struct job *job;

static coe_status fill(void *user, const struct tensor *t, int64_t first, int64_t count, void *out)
{
    const int item = (int)(intptr_t)user;
    uint32_t *x = out;
    (void)t;
    if (item == job->end_item && first == (int64_t)job->end_piece * 4 * COLS) {
        if (job->end_signal) (void)raise(job->end_signal);
        else return coe_fail(COE_E_FAILED, "the end");
    }
    for (int64_t i = 0; i < count; i++) x[i] = (uint32_t)((first + i) * 7 + item);
    job->sum += (uint64_t)count * (uint64_t)(item + 1);
    job->filled++;
    return COE_OK;
}

static coe_status write_all(void *user)
{
    static char names[N_ITEMS][16];
    struct ckpt_item items[N_ITEMS];
    job = user;
    for (int i = 0; i < N_ITEMS; i++) {
        snprintf(names[i], sizeof names[i], "t%d", i);
        items[i] = (struct ckpt_item){ .t = { names[i], DT_F32, 2, { ROWS, COLS }, NULL },
                                       .fill = fill,
                                       .user = (void *)(intptr_t)i };
    }
    struct ckpt_resume resume = { .count = &job->sum, .step = 1 };
    snprintf(resume.key, sizeof resume.key, "%s", job->key);
    if (job->gguf) {
        struct gguf_out meta = { 0 };
        gguf_add_u32(&meta, "test.number", 7);
        const coe_status s = gguf_write_model(job->path, &meta, items, N_ITEMS, job->shard_bytes, &resume);
        gguf_out_free(&meta);
        return s;
    }
    json_t *config = json_pack("{s:s}", "model_type", "test");
    const coe_status s = ckpt_write_dir(job->path, config, items, N_ITEMS, job->shard_bytes, NULL, &resume);
    json_decref(config);
    return s;
}

/* In a child; its status, or 128 + signal. */
static int end_early(struct job *j)
{
    fflush(NULL);
    const pid_t child = fork();
    if (child < 0) fail_msg("fork failed");
    if (!child) _exit((int)write_all(j));
    int status = 0;
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static struct job job_for(const char *name, bool gguf, uint64_t shard_bytes)
{
    struct job j = { .gguf = gguf, .shard_bytes = shard_bytes, .end_item = -1, .key = "0123456789abcdef" };
    snprintf(j.path, sizeof j.path, "%s", temp_path(name));
    return j;
}

static void assert_same_file(const char *a, const char *b)
{
    size_t n_a, n_b;
    unsigned char *x = slurp(a, &n_a), *y = slurp(b, &n_b);
    if (n_a != n_b || memcmp(x, y, n_a)) fail_msg("%s and %s differ", a, b);
    free(x);
    free(y);
}

/* Nothing of the work is left beside the results. */
static void assert_no_leftovers(void)
{
    struct file_list l;
    char *dir = path_parent(temp_path("x"));
    assert_ok(dir_list(&l, dir));
    for (size_t i = 0; i < l.n; i++)
        if (strstr(l.name[i], ".part")) fail_msg("%s was left behind", l.name[i]);
    file_list_free(&l);
    mem_free(dir);
}

static uint64_t whole_sum(void)
{
    uint64_t sum = 0;
    for (uint64_t i = 1; i <= N_ITEMS; i++) sum += i * ROWS * COLS;
    return sum;
}

/* Ends at item 0, 2 and 4 in turn, then goes through. Half a tensor was lost each time. */
static void check_gguf(const char *name, int signal, int status)
{
    struct job j = job_for(name, true, 0);
    for (int item = 0; item < 6; item += 2) {
        j.end_item = item, j.end_piece = 1, j.end_signal = signal, j.sum = 0;
        assert_int_equal(end_early(&j), status);
        assert_false(file_exists(j.path));
    }
    j.end_item = -1;
    assert_ok(write_all(&j));
    assert_int_equal(j.filled, 2 * 2); /* items 4 and 5 */
    assert_int_equal(j.sum, whole_sum());
    assert_no_leftovers();
}

static void a_killed_gguf_file_goes_on_at_its_last_tensor(void **state)
{
    (void)state;
    struct job whole = job_for("whole.gguf", true, 0);
    assert_ok(write_all(&whole));
    check_gguf("killed.gguf", SIGKILL, 128 + SIGKILL);
    assert_same_file(whole.path, temp_path("killed.gguf"));
    check_gguf("failed.gguf", 0, COE_E_FAILED);
    assert_same_file(whole.path, temp_path("failed.gguf"));
}

/* 3 MB are two tensors and a bit: the third does not fit. */
static void a_full_disk_keeps_whole_tensors(void **state)
{
    (void)state;
    struct job whole = job_for("whole2.gguf", true, 0), j = job_for("full.gguf", true, 0);
    assert_ok(write_all(&whole));
    assert_int_equal(on_full_disk(3 * MB, write_all, &j), COE_E_FAILED);
    assert_ok(write_all(&j));
    assert_int_equal(j.filled, 4 * 2);
    assert_int_equal(j.sum, whole_sum());
    assert_same_file(whole.path, j.path);
    assert_no_leftovers();
}

/* Files of 3 MB hold two tensors each. */
static void a_split_model_goes_on_in_the_file_where_it_was(void **state)
{
    (void)state;
    struct job j = job_for("split.gguf", true, 3 * MB);
    j.end_item = 3, j.end_piece = 1, j.end_signal = SIGKILL;
    assert_int_equal(end_early(&j), 128 + SIGKILL);
    j.end_item = -1;
    assert_ok(write_all(&j));
    assert_int_equal(j.filled, 3 * 2);
    struct ckpt *c;
    assert_ok(ckpt_open(&c, temp_path("split-00002-of-00003.gguf")));
    assert_int_equal(ckpt_count(c), N_ITEMS);
    int64_t number = 0;
    assert_ok(gguf_int(ckpt_gguf(c), "test.number", 0, 9, &number));
    assert_int_equal(number, 7);
    const uint32_t *x = ckpt_find(c, "t5")->data;
    assert_int_equal(x[ROWS * COLS - 1], (ROWS * COLS - 1) * 7 + 5);
    ckpt_close(c);
    assert_no_leftovers();
}

static void a_killed_directory_goes_on_at_its_last_shard(void **state)
{
    (void)state;
    struct job whole = job_for("whole.dir", false, 3 * MB), j = job_for("killed.dir", false, 3 * MB);
    assert_ok(write_all(&whole));
    for (int item = 1; item < 6; item += 2) {
        j.end_item = item, j.end_piece = 0, j.end_signal = SIGKILL;
        assert_int_equal(end_early(&j), 128 + SIGKILL);
        assert_false(dir_exists(j.path));
    }
    j.end_item = -1;
    assert_ok(write_all(&j));
    assert_int_equal(j.filled, 2 * 2); /* the last shard */
    assert_int_equal(j.sum, whole_sum());
    struct file_list l;
    assert_ok(dir_list(&l, whole.path));
    assert_int_equal(l.n, 5); /* config, index, three shards */
    for (size_t i = 0; i < l.n; i++) {
        char *a = path_join(whole.path, l.name[i]), *b = path_join(j.path, l.name[i]);
        assert_same_file(a, b);
        mem_free(a);
        mem_free(b);
    }
    file_list_free(&l);
    assert_ok(dir_list(&l, j.path));
    assert_int_equal(l.n, 5);
    file_list_free(&l);
    assert_no_leftovers();
}

static void another_command_begins_again_and_removes_the_old_beginning(void **state)
{
    (void)state;
    struct job j = job_for("other.gguf", true, 0);
    j.end_item = 3, j.end_signal = SIGKILL;
    assert_int_equal(end_early(&j), 128 + SIGKILL);
    j.end_item = -1, j.key = "fedcba9876543210";
    assert_ok(write_all(&j));
    assert_int_equal(j.filled, N_ITEMS * 2);
    assert_no_leftovers();
}

static void a_damaged_record_begins_again(void **state)
{
    (void)state;
    struct job j = job_for("damaged.gguf", true, 0);
    char record[1300];
    size_t n;
    j.end_item = 3, j.end_signal = SIGKILL;
    assert_int_equal(end_early(&j), 128 + SIGKILL);
    snprintf(record, sizeof record, "%s.part-%s/progress", j.path, j.key);
    unsigned char *text = slurp(record, &n);
    text[30] ^= 1;
    spill(record, text, n);
    free(text);
    j.end_item = -1;
    assert_ok(write_all(&j));
    assert_int_equal(j.filled, N_ITEMS * 2);
    assert_no_leftovers();
}

static void two_processes_do_not_write_the_same(void **state)
{
    (void)state;
    struct job j = job_for("twice.gguf", true, 0);
    char dir[1300];
    int lock;
    snprintf(dir, sizeof dir, "%s.part-%s", j.path, j.key);
    assert_ok(dir_make(dir));
    assert_ok(dir_lock(&lock, dir));
    assert_int_equal(write_all(&j), COE_E_FAILED);
    assert_error_has("another process is writing there");
    dir_unlock(lock);
    assert_ok(write_all(&j));
    assert_no_leftovers();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_gguf_file_goes_on_at_its_last_tensor),
        cmocka_unit_test(a_full_disk_keeps_whole_tensors),
        cmocka_unit_test(a_split_model_goes_on_in_the_file_where_it_was),
        cmocka_unit_test(a_killed_directory_goes_on_at_its_last_shard),
        cmocka_unit_test(another_command_begins_again_and_removes_the_old_beginning),
        cmocka_unit_test(a_damaged_record_begins_again),
        cmocka_unit_test(two_processes_do_not_write_the_same),
    };
    return cmocka_run_group_tests_name("ckpt/resume", tests, NULL, NULL);
}
