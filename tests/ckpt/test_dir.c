/* Opening checkpoints: directories, sharded indexes, lone files, the hostile fixtures. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "ckpt/ckpt.h"
#include "support/support.h"

static const float ones[4] = { 1, 2, 3, 4 };

static struct ckpt_item item(const char *name, int64_t n)
{
    return (struct ckpt_item){ .t = { name, DT_F32, 1, { n }, ones } };
}

/* temp directory `name` with config.json and the shards x.safetensors (a, b) and y.safetensors (c, d) */
static const char *two_shards(const char *name, const char *index)
{
    static char dir[1024];
    snprintf(dir, sizeof dir, "%s", temp_path(name));
    assert_ok(dir_make(dir));
    char *config = path_join(dir, "config.json"), *x = path_join(dir, "x.safetensors"),
         *y = path_join(dir, "y.safetensors"), *i = path_join(dir, "model.safetensors.index.json");
    const struct ckpt_item xs[] = { item("a", 1), item("b", 2) }, ys[] = { item("c", 3), item("d", 4) };
    spill(config, "{\"n\": 1}", 8);
    assert_ok(safetensors_write(x, xs, 2, NULL, 0));
    assert_ok(safetensors_write(y, ys, 2, NULL, 0));
    spill(i, index, strlen(index));
    mem_free(config);
    mem_free(x);
    mem_free(y);
    mem_free(i);
    return dir;
}

static void refused(const char *name, const char *index, const char *message)
{
    struct ckpt *c;
    assert_int_equal(ckpt_open(&c, two_shards(name, index)), COE_E_INPUT);
    assert_null(c);
    assert_error_has(message);
}

static void shards_are_one_checkpoint(void **state)
{
    (void)state;
    struct ckpt *c;
    assert_ok(ckpt_open(&c, two_shards("two", "{\"weight_map\": {\"d\": \"y.safetensors\", \"a\": \"x.safetensors\","
                                              "\"b\": \"x.safetensors\", \"c\": \"y.safetensors\"}}")));
    assert_int_equal(ckpt_count(c), 4);
    assert_int_equal(ckpt_bytes(c), (1 + 2 + 3 + 4) * 4);
    for (size_t i = 0; i < 4; i++) {
        char name[2] = { (char)('a' + i), 0 };
        assert_string_equal(ckpt_at(c, i)->name, name);
        assert_ptr_equal(ckpt_find(c, name), ckpt_at(c, i));
    }
    assert_null(ckpt_find(c, "e"));
    assert_memory_equal(ckpt_find(c, "d")->data, ones, 16);
    assert_int_equal(json_integer_value(json_object_get(ckpt_config(c), "n")), 1);
    ckpt_close(c);
}

static void a_wrong_index_is_named(void **state)
{
    (void)state;
    refused("i1", "{\"weight_map\": {\"a\": \"y.safetensors\"}}", "tensor a is not in y.safetensors");
    refused("i2", "{\"weight_map\": {\"a\": \"z.safetensors\"}}", "z.safetensors: No such file");
    refused("i3", "{\"weight_map\": {\"a\": \"../i3/x.safetensors\"}}",
            "is not the name of a file in the same directory");
    refused("i4", "{\"weight_map\": {\"a\": \"..\"}}", "is not the name of a file");
    refused("i5", "{\"weight_map\": {\"a\": \"/etc/passwd\"}}", "is not the name of a file");
    refused("i6", "{\"weight_map\": {\"a\": 3}}", "a whole number");
    refused("i7", "{\"weight_map\": []}", "weight_map is an array, expected an object");
    refused("i8", "{}", "weight_map is missing");
    refused("i9", "{\"weight_map\": {\"a\": \"x.safetensors\", \"a\": \"x.safetensors\"}}", "duplicate");
    refused("i10", "{\"weight_map\": {\"a\": \"\"}}", "is not the name of a file");
}

static void tensors_beyond_the_index_are_taken(void **state)
{
    (void)state;
    struct ckpt *c;
    log_set_level(0);
    assert_ok(ckpt_open(&c, two_shards("beyond", "{\"weight_map\": {\"a\": \"x.safetensors\"}}")));
    assert_int_equal(ckpt_count(c), 2);
    assert_non_null(ckpt_find(c, "b"));
    ckpt_close(c);
}

static void a_directory_without_config_or_weights_is_refused(void **state)
{
    (void)state;
    struct ckpt *c;
    char config[1024];
    assert_ok(dir_make(temp_path("bare")));
    assert_int_equal(ckpt_open(&c, temp_path("bare")), COE_E_INPUT);
    assert_error_has("config.json: No such file");
    snprintf(config, sizeof config, "%s/config.json", temp_path("bare"));
    spill(config, "{}", 2);
    assert_int_equal(ckpt_open(&c, temp_path("bare")), COE_E_INPUT);
    assert_error_has("has neither model.safetensors nor");
    spill(config, "[]", 2);
    assert_int_equal(ckpt_open(&c, temp_path("bare")), COE_E_INPUT);
    assert_error_has("config.json: is an array, expected an object");
    assert_int_equal(ckpt_open(&c, temp_path("nowhere")), COE_E_INPUT);
    assert_error_has("nowhere: No such file");
}

static void a_fingerprint_sees_name_type_shape_and_data(void **state)
{
    (void)state;
    static const float other[4] = { 1, 2, 3, 5 };
    const struct ckpt_item one[] = {
        { .t = { "w", DT_F32, 1, { 4 }, ones } },    { .t = { "w", DT_F32, 1, { 4 }, ones } },
        { .t = { "v", DT_F32, 1, { 4 }, ones } },    { .t = { "w", DT_I32, 1, { 4 }, ones } },
        { .t = { "w", DT_F32, 2, { 2, 2 }, ones } }, { .t = { "w", DT_F32, 1, { 4 }, other } },
    };
    char hex[COE_COUNT(one)][17];
    for (size_t i = 0; i < COE_COUNT(one); i++) {
        struct ckpt *c;
        assert_ok(safetensors_write(temp_path("print.safetensors"), &one[i], 1, NULL, 0));
        assert_ok(ckpt_open(&c, temp_path("print.safetensors")));
        assert_ok(ckpt_fingerprint(c, hex[i]));
        assert_int_equal(strlen(hex[i]), 16);
        assert_null(ckpt_config(c));
        ckpt_close(c);
    }
    assert_string_equal(hex[0], hex[1]);
    for (size_t i = 2; i < COE_COUNT(one); i++) assert_string_not_equal(hex[0], hex[i]);
}

static void released_pages_come_back_from_the_file(void **state)
{
    (void)state;
    enum { N = 1 << 15 };
    float *x = mem_alloc("test", N * sizeof *x);
    for (int i = 0; i < N; i++) x[i] = (float)i;
    const struct ckpt_item big = { .t = { "w", DT_F32, 1, { N }, x } };
    struct ckpt *c;
    assert_ok(safetensors_write(temp_path("pages.safetensors"), &big, 1, NULL, 0));
    assert_ok(ckpt_open(&c, temp_path("pages.safetensors")));
    assert_memory_equal(ckpt_at(c, 0)->data, x, N * sizeof *x);
    ckpt_release_pages(ckpt_at(c, 0));
    assert_memory_equal(ckpt_at(c, 0)->data, x, N * sizeof *x);
    ckpt_close(c);
    mem_free(x);
}

/* Alone, and as model.safetensors of a directory beside config.json. */
static void open_both_ways(const char *file, coe_status expected)
{
    struct ckpt *c;
    char path[1100], to[1100], message[1200];
    snprintf(path, sizeof path, "%s", fixture("hostile/"));
    strcat(path, file);
    for (int in_dir = 0; in_dir < 2; in_dir++) {
        assert_ok(dir_make(temp_path("hostile")));
        if (in_dir) {
            snprintf(to, sizeof to, "%s/config.json", temp_path("hostile"));
            assert_ok(file_copy(fixture("hostile/config.json"), to));
            snprintf(to, sizeof to, "%s/model.safetensors", temp_path("hostile"));
            assert_ok(file_copy(path, to));
        }
        coe_status s = ckpt_open(&c, in_dir ? temp_path("hostile") : path);
        snprintf(message, sizeof message, "%s", s ? coe_error() : "");
        ckpt_close(c);
        if (s != expected) fail_msg("%s: status %d, expected %d; message '%s'", file, (int)s, (int)expected, message);
        if (s && (!strstr(message, in_dir ? "model.safetensors" : file) || strchr(message, '\n')))
            fail_msg("%s: '%s' is not one line that names the file", file, message);
    }
}

static void every_hostile_safetensors_file_is_refused(void **state)
{
    (void)state;
    need_fixture("hostile/expect.txt");
    open_both_ways("ok.safetensors", COE_OK);
    char line[512];
    FILE *f = fopen(fixture("hostile/expect.txt"), "re");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        char *tab = strchr(line, '\t');
        if (tab) *tab = 0;
        if (strstr(line, ".safetensors")) open_both_ways(line, COE_E_INPUT);
    }
    fclose(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shards_are_one_checkpoint),
        cmocka_unit_test(a_wrong_index_is_named),
        cmocka_unit_test(tensors_beyond_the_index_are_taken),
        cmocka_unit_test(a_directory_without_config_or_weights_is_refused),
        cmocka_unit_test(a_fingerprint_sees_name_type_shape_and_data),
        cmocka_unit_test(released_pages_come_back_from_the_file),
        cmocka_unit_test(every_hostile_safetensors_file_is_refused),
    };
    return cmocka_run_group_tests_name("ckpt/dir", tests, NULL, NULL);
}
