/* Models opened for rewriting: what is read by rows where it lies has the bits of what opening for computing copies, in
 * every family and every file of the fixtures; and nothing is in memory. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/rng.h"
#include "model/stored.h"
#include "support/support.h"

/* A row in three pieces that end anywhere. */
static void read_row(const struct coe_model *m, const struct param *p, int64_t row, float *out, uint64_t seed)
{
    const int64_t cols = p->w.cols, a = (int64_t)(rng_at(1, RNG_TEST, seed) % (uint64_t)(cols + 1)),
                  b = a + (int64_t)(rng_at(2, RNG_TEST, seed) % (uint64_t)(cols - a + 1));
    param_part(m, p, row, 0, a, out);
    param_part(m, p, row, a, b - a, out + a);
    param_part(m, p, row, b, cols - b, out + b);
}

static void check_param(const struct coe_model *wide, const struct coe_model *stored, size_t i)
{
    const struct param *w = &wide->params[i], *s = &stored->params[i];
    const int64_t cols = w->w.cols;
    float *want = mem_alloc("test", (size_t)cols * sizeof *want), *got = mem_alloc("test", (size_t)cols * sizeof *got);
    assert_int_equal(s->w.type, w->w.type);
    for (int64_t row = 0; row < w->w.rows; row += 1 + w->w.rows / 7) {
        widen(want, (const char *)w->w.data + row * cols * dtype_info[w->w.type].bytes, w->w.type, cols);
        read_row(stored, s, row, got, i * 1000 + (uint64_t)row);
        if (memcmp(want, got, (size_t)cols * sizeof *got))
            fail_msg("%s: %s, row %lld", wide->path, w->w.name, (long long)row);
        const enum dtype packed = param_packed_type(stored, s);
        if (packed == DT_COUNT || packed == DT_MXFP4) continue; /* MXFP4: below */
        char *block = mem_alloc("test", (size_t)cols * sizeof *want);
        param_packed_row(stored, s, row, block);
        widen(got, block, packed, cols);
        mem_free(block);
        assert_memory_equal(want, got, (size_t)cols * sizeof *got);
    }
    mem_free(want);
    mem_free(got);
}

static int compare(const char *path)
{
    struct coe_model *wide = NULL, *stored = NULL;
    if (model_open_wide(&wide, path)) return 0; /* not a model: another test's */
    const uint64_t before = mem_used();
    assert_ok(model_open_stored(&stored, path));
    assert_int_equal(stored->n_params, wide->n_params);
    for (size_t i = 0; i < wide->n_params; i++) {
        const struct param *p = &stored->params[i];
        if (p->w.data && !slot_info[p->at.slot].is_vector) /* in the file, not a copy */
            assert_true((const char *)p->w.data >= (const char *)p->stored->data);
        check_param(wide, stored, i);
    }
    assert_true(mem_used() > before);
    model_close(wide);
    model_close(stored);
    return 1;
}

static int compare_all(const char *folder)
{
    struct file_list l;
    int n = 0;
    assert_ok(dir_list(&l, folder));
    for (size_t i = 0; i < l.n; i++) {
        char *path = path_join(folder, l.name[i]);
        const size_t len = strlen(path);
        if (dir_exists(path)) {
            char *config = path_join(path, "config.json");
            n += file_exists(config) ? compare(path) : compare_all(path);
            mem_free(config);
        } else if (len > 5 && !strcmp(path + len - 5, ".gguf")) n += compare(path);
        mem_free(path);
    }
    file_list_free(&l);
    return n;
}

static void every_family_reads_the_same_by_rows(void **state)
{
    (void)state;
    need_fixture("families");
    assert_true(compare_all(fixture("families")) > 0);
}

static void every_gguf_model_reads_the_same_by_rows(void **state)
{
    (void)state;
    need_fixture("gguf");
    assert_true(compare_all(fixture("gguf")) > 0);
}

/* Two groups of 32: byte 0x21 holds 0.5 (low nibble 1) and 1 (nibble 2), the second group's scale doubles. */
static void pairs_of_mxfp4_become_rows_of_blocks(void **state)
{
    (void)state;
    unsigned char pairs[32] = { 0x21 }, scales[2] = { 127, 128 }, block[34];
    pairs[16] = 0x21;
    const struct tensor t = { .name = "x_blocks", .type = DT_U8, .n_dims = 4, .dim = { 1, 1, 2, 16 }, .data = pairs };
    const struct tensor s = { .name = "x_scales", .type = DT_U8, .n_dims = 3, .dim = { 1, 1, 2 }, .data = scales };
    const struct cut_request r = { .path = "m",
                                   .t = &t,
                                   .scale = &s,
                                   .cut = { CUT_EXPERT | CUT_MXFP4, 0, 1 },
                                   .n_experts = 1,
                                   .rows = 1,
                                   .cols = 64 };
    float x[64], part[34];
    assert_int_equal(cut_packed_type(&r), DT_MXFP4);
    cut_packed_row(&r, 0, block);
    widen(x, block, DT_MXFP4, 64);
    assert_true(x[0] == 0.5f && x[1] == 1 && x[32] == 1 && x[33] == 2);
    cut_part(&r, 0, 1, 34, part);
    assert_memory_equal(part, x + 1, sizeof part);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_family_reads_the_same_by_rows),
        cmocka_unit_test(every_gguf_model_reads_the_same_by_rows),
        cmocka_unit_test(pairs_of_mxfp4_become_rows_of_blocks),
    };
    return cmocka_run_group_tests_name("model/stored", tests, NULL, NULL);
}
