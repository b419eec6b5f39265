/* Importance matrices: the file, what is refused, and the weights by hand. */
#include <math.h>
#include <string.h>

#include "ckpt/gguf.h"
#include "model/imatrix.h"
#include "support/support.h"

static struct imatrix *make(float sum)
{
    const float sums[] = { 2, 4, 6, 0, 0, sum }, counts[] = { 2, 0 }, one[] = { 9 };
    struct imatrix *im = mem_zalloc("importance", sizeof *im);
    assert_non_null(im);
    im->dataset = "text";
    im->chunk_size = 512;
    im->n_chunks = 3;
    assert_ok(imatrix_add(im, "blk.0.ffn_up_exps.weight", 2, 3, sums, counts));
    assert_ok(imatrix_add(im, "blk.0.attn_q.weight", 1, 1, one, one));
    imatrix_sort(im);
    return im;
}

/* 2, 4, 6 over two visits: 1, 2, 3. Nobody came to the second matrix: it takes no weights. */
static void weights_are_means_of_squares(void **state)
{
    (void)state;
    struct imatrix *im = make(0);
    const struct imatrix_entry *e = imatrix_find(im, "blk.0.ffn_up_exps.weight");
    float w[3] = { 7, 7, 7 };
    assert_false(imatrix_weights(e, 1, w));
    assert_true(w[0] == 7);
    assert_true(imatrix_weights(e, 0, w));
    assert_true(w[0] == 1 && w[1] == 2 && w[2] == 3);
    assert_null(imatrix_find(im, "blk.0.attn_k.weight"));
    imatrix_free(im);
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    char path[1200];
    snprintf(path, sizeof path, "%s", temp_path("im.gguf"));
    struct imatrix *im = make(0), *back;
    assert_ok(imatrix_write(im, path));
    assert_ok(imatrix_read(&back, path));
    assert_int_equal(back->entry.n, 2);
    assert_int_equal(back->chunk_size, 512);
    assert_int_equal(back->n_chunks, 3);
    for (size_t i = 0; i < 2; i++) {
        const struct imatrix_entry *a = &im->entry.at[i], *b = &back->entry.at[i];
        assert_string_equal(a->name, b->name);
        assert_int_equal(a->n, b->n);
        assert_int_equal(a->cols, b->cols);
        assert_memory_equal(a->sum2, b->sum2, (size_t)(a->n * a->cols) * sizeof(float));
        assert_memory_equal(a->counts, b->counts, (size_t)a->n * sizeof(float));
    }
    imatrix_free(im);
    imatrix_free(back);
}

static void sums_that_are_no_squares_are_refused(void **state)
{
    (void)state;
    const float wrong[] = { -1, NAN, INFINITY };
    for (size_t i = 0; i < COE_COUNT(wrong); i++) {
        struct imatrix *im = make(wrong[i]), *back;
        const char *path = temp_path("wrong.gguf");
        assert_ok(imatrix_write(im, path));
        assert_int_equal(imatrix_read(&back, path), COE_E_INPUT);
        assert_error_has("blk.0.ffn_up_exps.weight.in_sum2[5]");
        assert_null(back);
        imatrix_free(im);
    }
}

static void other_files_are_refused_by_what_they_lack(void **state)
{
    (void)state;
    static const float sums[] = { 1, 2 };
    struct imatrix *back;
    struct gguf_out meta = { 0 };
    const struct ckpt_item item = { .t = { "a.in_sum2", DT_F32, 2, { 1, 2 }, sums } };
    const char *path = temp_path("lone.gguf");
    assert_ok(gguf_write(path, &meta, &item, 1));
    assert_int_equal(imatrix_read(&back, path), COE_E_INPUT);
    assert_error_has("no importance matrix");
    gguf_add_str(&meta, "general.type", "imatrix", 7);
    assert_ok(gguf_write(path, &meta, &item, 1));
    assert_int_equal(imatrix_read(&back, path), COE_E_INPUT);
    assert_error_has("a.counts is missing");
    gguf_out_free(&meta);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_are_means_of_squares),
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(sums_that_are_no_squares_are_refused),
        cmocka_unit_test(other_files_are_refused_by_what_they_lack),
    };
    return cmocka_run_group_tests_name("model/imatrix", tests, NULL, NULL);
}
