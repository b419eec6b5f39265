/* Writing: round trips bit for bit, whole directories and shards, a full disk, an end by kill -9. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/rng.h"
#include "ckpt/reader.h"
#include "support/support.h"

static void same_tensor(const struct tensor *got, const struct tensor *put)
{
    if (!got) fail_msg("%s is missing", put->name);
    assert_int_equal(got->type, put->type);
    assert_int_equal(got->n_dims, put->n_dims);
    for (int32_t i = 0; i < put->n_dims; i++) assert_int_equal(got->dim[i], put->dim[i]);
    if (memcmp(got->data, put->data, (size_t)tensor_bytes(put))) fail_msg("%s: data differ", put->name);
}

static void every_type_and_shape_comes_back_bit_for_bit(void **state)
{
    (void)state;
    static const struct {
        int32_t n_dims;
        int64_t dim[MAX_DIMS];
    } shapes[] = {
        { 0, { 0 } }, { 1, { 0 } }, { 1, { 7 } }, { 2, { 3, 5 } }, { 3, { 2, 0, 5 } }, { 4, { 2, 3, 1, 5 } }
    };
    struct ckpt_item items[DT_COUNT * COE_COUNT(shapes)];
    static char names[COE_COUNT(items)][32];
    static unsigned char noise[8 * 64 + COE_COUNT(items)];
    for (size_t i = 0; i < sizeof noise; i++) noise[i] = (unsigned char)rng_at(1, RNG_TEST, i);
    size_t n = 0;
    for (int t = 0; t < DT_COUNT; t++)
        for (size_t k = 0; k < COE_COUNT(shapes) && dtype_info[t].block == 1; k++, n++) {
            snprintf(names[n], sizeof names[n], "%s.\xC3\xA9\"\\.%zu", dtype_info[t].name, k); /* é, quote, backslash */
            items[n].t = (struct tensor){ names[n], (enum dtype)t, shapes[k].n_dims, { 0 }, noise + n };
            memcpy(items[n].t.dim, shapes[k].dim, sizeof shapes[k].dim);
            items[n].fill = NULL;
        }
    static const char *const meta[][2] = { { "format", "pt" }, { "note", "two" } };
    struct ckpt *c;
    assert_ok(safetensors_write(temp_path("all.safetensors"), items, n, meta, 2));
    assert_ok(ckpt_open(&c, temp_path("all.safetensors")));
    assert_int_equal(ckpt_count(c), n);
    for (size_t i = 0; i < n; i++) same_tensor(ckpt_find(c, items[i].t.name), &items[i].t);
    ckpt_close(c);
}

static void data_begin_at_a_page_and_tensors_at_their_element_size(void **state)
{
    (void)state;
    static const double x[3] = { 1, 2, 3 };
    const struct ckpt_item items[] = { { .t = { "byte", DT_U8, 1, { 3 }, x } },
                                       { .t = { "half", DT_BF16, 1, { 3 }, x } },
                                       { .t = { "double", DT_F64, 1, { 3 }, x } },
                                       { .t = { "single", DT_F32, 1, { 3 }, x } } };
    struct ckpt *c;
    assert_ok(safetensors_write(temp_path("align.safetensors"), items, 4, NULL, 0));
    assert_ok(ckpt_open(&c, temp_path("align.safetensors")));
    assert_int_equal((uintptr_t)ckpt_find(c, "double")->data % 4096, 0); /* 24 bytes, then 12, 6, 3 */
    const unsigned char *at = ckpt_find(c, "double")->data;
    assert_ptr_equal(ckpt_find(c, "single")->data, at + 24);
    assert_ptr_equal(ckpt_find(c, "half")->data, at + 36);
    assert_ptr_equal(ckpt_find(c, "byte")->data, at + 42);
    ckpt_close(c);
}

struct count_calls {
    int calls;
    int64_t next, row;
};

/* Element i is the number i; notes whether the pieces come in order and in whole rows. */
static coe_status count_up(void *user, const struct tensor *t, int64_t first, int64_t count, void *out)
{
    (void)t;
    struct count_calls *u = user;
    if (first != u->next || first % u->row || count % u->row)
        return coe_fail(COE_E_FAILED, "piece %lld", (long long)first);
    for (int64_t i = 0; i < count; i++) ((int32_t *)out)[i] = (int32_t)(first + i);
    u->next = first + count;
    u->calls++;
    return COE_OK;
}

/* 300 rows of 4000 bytes: 262 rows fit 1 MB, so two calls */
static void a_tensor_is_filled_by_whole_rows(void **state)
{
    (void)state;
    struct count_calls u = { .row = 1000 };
    const struct ckpt_item item = { .t = { "w", DT_I32, 2, { 300, 1000 }, NULL }, .fill = count_up, .user = &u };
    struct ckpt *c;
    assert_ok(safetensors_write(temp_path("fill.safetensors"), &item, 1, NULL, 0));
    assert_int_equal(u.calls, 2);
    assert_ok(ckpt_open(&c, temp_path("fill.safetensors")));
    const int32_t *x = ckpt_at(c, 0)->data;
    for (int32_t i = 0; i < 300000; i++)
        if (x[i] != i) fail_msg("element %d is %d", i, x[i]);
    ckpt_close(c);
}

static coe_status fail_late(void *user, const struct tensor *t, int64_t first, int64_t count, void *out)
{
    (void)user, (void)t, (void)count, (void)out;
    return first ? coe_fail(COE_E_FAILED, "no more") : COE_OK;
}

static void assert_only(const char *path, const char *text)
{
    size_t n;
    char *bytes = (char *)slurp(path, &n);
    if (n != strlen(text) || memcmp(bytes, text, n)) fail_msg("%s was changed", path);
    free(bytes);
    char *dir = strdup(path), *slash = strrchr(dir, '/');
    struct file_list l;
    *slash = 0;
    assert_ok(dir_list(&l, dir));
    for (size_t i = 0; i < l.n; i++)
        if (strstr(l.name[i], ".part~")) fail_msg("%s was left behind", l.name[i]);
    file_list_free(&l);
    free(dir);
}

static void a_failing_source_leaves_the_old_file(void **state)
{
    (void)state;
    const struct ckpt_item item = { .t = { "w", DT_F32, 1, { 1 << 20 }, NULL }, .fill = fail_late };
    spill(temp_path("old.safetensors"), "old", 3);
    assert_int_equal(safetensors_write(temp_path("old.safetensors"), &item, 1, NULL, 0), COE_E_FAILED);
    assert_only(temp_path("old.safetensors"), "old");
}

static void two_tensors_of_one_name_are_refused(void **state)
{
    (void)state;
    static const float x[1] = { 1 };
    const struct ckpt_item items[] = { { .t = { "w", DT_F32, 1, { 1 }, x } }, { .t = { "w", DT_F32, 1, { 1 }, x } } };
    assert_int_equal(safetensors_write(temp_path("twice.safetensors"), items, 2, NULL, 0), COE_E_FAILED);
    assert_error_has("two tensors to be written are called w");
    assert_false(file_exists(temp_path("twice.safetensors")));
}

static float numbers[1024];

static coe_status write_numbers(void *path)
{
    const struct ckpt_item item = { .t = { "w", DT_F32, 1, { 1024 }, numbers } };
    return safetensors_write(path, &item, 1, NULL, 0);
}

static void a_full_disk_leaves_the_old_file(void **state)
{
    (void)state;
    char path[1024]; /* the child needs a modifiable pointer that outlives the rotating buffers */
    snprintf(path, sizeof path, "%s", temp_path("full.safetensors"));
    spill(path, "old", 3);
    for (uint64_t limit = 0; limit < 8192; limit += 1365) /* the file needs 4096 + 4096 */
        assert_int_equal(on_full_disk(limit, write_numbers, path), COE_E_FAILED);
    assert_only(path, "old");
    assert_int_equal(on_full_disk(8192, write_numbers, path), COE_OK);
}

static coe_status write_model(void *dir)
{
    const struct ckpt_item items[] = { { .t = { "a", DT_F32, 1, { 512 }, numbers } },
                                       { .t = { "b", DT_F32, 1, { 256 }, numbers } },
                                       { .t = { "c", DT_F32, 1, { 1024 }, numbers } } };
    json_t *config = json_pack("{s:s}", "model_type", "test");
    coe_status s = ckpt_write_dir(dir, config, items, 3, 3072, temp_path("from"), NULL);
    json_decref(config);
    return s;
}

/* a and b (2048 + 1024 bytes) fill the first shard exactly, c (4096) is larger than any and gets its own */
static void a_directory_is_sharded_and_brings_the_tokenizer(void **state)
{
    (void)state;
    char dir[1024], path[1100];
    struct ckpt *c;
    snprintf(dir, sizeof dir, "%s", temp_path("model"));
    assert_ok(dir_make(temp_path("from")));
    snprintf(path, sizeof path, "%s/tokenizer.json", temp_path("from"));
    spill(path, "{}", 2);
    for (int again = 0; again < 2; again++) { /* the second time over the first */
        assert_ok(write_model(dir));
        assert_ok(ckpt_open(&c, dir));
        assert_int_equal(ckpt_count(c), 3);
        assert_memory_equal(ckpt_find(c, "c")->data, numbers, 4096);
        ckpt_close(c);
    }
    struct file_list l;
    static const char *const expected[] = { "config.json", "model-00001-of-00002.safetensors",
                                            "model-00002-of-00002.safetensors", "model.safetensors.index.json",
                                            "tokenizer.json" };
    assert_ok(dir_list(&l, dir));
    assert_int_equal(l.n, COE_COUNT(expected));
    for (size_t i = 0; i < l.n; i++) assert_string_equal(l.name[i], expected[i]);
    file_list_free(&l);
    json_t *index;
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir);
    assert_ok(json_read_file(&index, path));
    assert_int_equal(json_integer_value(json_object_get(json_object_get(index, "metadata"), "total_size")), 7168);
    json_decref(index);
}

static void a_full_disk_leaves_the_old_directory(void **state)
{
    (void)state;
    char dir[1024], path[1100];
    snprintf(dir, sizeof dir, "%s", temp_path("fulldir"));
    assert_ok(dir_make(dir));
    snprintf(path, sizeof path, "%s/config.json", dir);
    spill(path, "old", 3);
    assert_int_equal(on_full_disk(4096, write_model, dir), COE_E_FAILED);
    assert_only(path, "old");
    spill(temp_path("beside"), "old", 3);
    assert_only(temp_path("beside"), "old"); /* nothing half-made beside the directory either */
}

/* A child rewrites the directory for ever and is killed in the middle; a complete model must be there each time. */
static void a_kill_leaves_the_old_or_the_new_directory(void **state)
{
    (void)state;
    char dir[1024];
    snprintf(dir, sizeof dir, "%s", temp_path("killed"));
    assert_ok(dir_make(temp_path("from")));
    assert_ok(write_model(dir));
    for (int round = 0; round < 8; round++) {
        fflush(NULL);
        pid_t child = fork();
        if (!child)
            for (;;) (void)write_model(dir);
        struct timespec t = { 0, (long)(rng_below(&(struct rng){ 1, RNG_TEST, (uint64_t)round }, 4000000) + 100000) };
        nanosleep(&t, NULL);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        struct ckpt *c;
        assert_ok(ckpt_open(&c, dir));
        assert_int_equal(ckpt_count(c), 3);
        ckpt_close(c);
    }
}

static void the_reference_reader_agrees(void **state)
{
    (void)state;
    char command[2200];
    if (system("/usr/bin/python3 -c 'import numpy, safetensors' 2>/dev/null")) skip();
    snprintf(
        command, sizeof command,
        "/usr/bin/python3 -c 'import sys; from safetensors.numpy import load_file as l, save_file as s; a = sys.argv;"
        "s(l(a[1]), a[2])' %s %s",
        temp_path("ours.safetensors"), temp_path("theirs.safetensors"));
    assert_ok(write_numbers((char *)(uintptr_t)temp_path("ours.safetensors")));
    assert_int_equal(system(command), 0);
    struct ckpt *c;
    assert_ok(ckpt_open(&c, temp_path("theirs.safetensors")));
    assert_memory_equal(ckpt_find(c, "w")->data, numbers, sizeof numbers);
    ckpt_close(c);
}

int main(void)
{
    for (size_t i = 0; i < COE_COUNT(numbers); i++) numbers[i] = (float)i * 0.25f;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_and_shape_comes_back_bit_for_bit),
        cmocka_unit_test(data_begin_at_a_page_and_tensors_at_their_element_size),
        cmocka_unit_test(a_tensor_is_filled_by_whole_rows),
        cmocka_unit_test(a_failing_source_leaves_the_old_file),
        cmocka_unit_test(two_tensors_of_one_name_are_refused),
        cmocka_unit_test(a_full_disk_leaves_the_old_file),
        cmocka_unit_test(a_directory_is_sharded_and_brings_the_tokenizer),
        cmocka_unit_test(a_full_disk_leaves_the_old_directory),
        cmocka_unit_test(a_kill_leaves_the_old_or_the_new_directory),
        cmocka_unit_test(the_reference_reader_agrees),
    };
    return cmocka_run_group_tests_name("ckpt/write", tests, NULL, NULL);
}
