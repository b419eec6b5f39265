/* Documents of text files: marks, JSONL fields and templates, compressed files, damage. */
#include <lzma.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "support/support.h"
#include "text/textin.h"

/* Reads all documents of the file, joined by "|". */
static coe_status read_all(char *to, size_t cap, const char *path, const struct text_docs_opts *opts)
{
    struct text_docs *d;
    const char *text;
    size_t n, at = 0;
    bool more = true;
    coe_status s = text_docs_open(&d, path, opts);
    if (s) return s;
    while (!(s = text_docs_next(d, &text, &n, &more)) && more) {
        assert_true(at + n + 2 < cap);
        if (at) to[at++] = '|';
        memcpy(to + at, text, n);
        at += n;
    }
    to[at] = 0;
    text_docs_close(d);
    return s;
}

static void expect(const char *name, const void *bytes, size_t n, const struct text_docs_opts *opts, const char *want)
{
    char got[4000];
    const char *path = temp_path(name);
    spill(path, bytes, n);
    assert_ok(read_all(got, sizeof got, path, opts));
    assert_string_equal(got, want);
}

#define PLAIN "one\n<|endoftext|>\ntwo\nlines\n\n<|endoftext|>\n<|endoftext|>three\n"

static void plain_text_is_cut_at_the_marks(void **state)
{
    (void)state;
    expect("a.txt", PLAIN, strlen(PLAIN), NULL, "one|two\nlines|three\n");
    expect("a.txt", "", 0, NULL, "");
    expect("a.txt", PLAIN, strlen(PLAIN), &(struct text_docs_opts){ .separator = "" }, PLAIN);
}

static void jsonl_gives_a_field_or_fills_a_template(void **state)
{
    (void)state;
    static const char rows[] =
        "{\"text\": \"a\\nb\", \"q\": {\"x\": [1, \"y\"]}}\n\n{\"text\": \"c\", \"q\": {\"x\": [2, \"z\"]}}";
    expect("r.jsonl", rows, strlen(rows), NULL, "a\nb|c");
    expect("r.txt", rows, strlen(rows), &(struct text_docs_opts){ .field = "q.x.1" }, "y|z");
    expect("r.txt", rows, strlen(rows), &(struct text_docs_opts){ .field = "{{n}} : {q.x.0} {text}" },
           "{n} : 1 a\nb|{n} : 2 c");
}

static void a_row_without_the_field_names_its_line(void **state)
{
    (void)state;
    char got[100];
    const char *path = temp_path("r.jsonl");
    spill(path, "{\"text\": \"a\"}\n{\"no\": 1}\n", 25);
    assert_int_equal(read_all(got, sizeof got, path, NULL), COE_E_INPUT);
    assert_error_has("line 2: field text is missing");
    spill(path, "{\"text\": \"a\"}\n{bad\n", 19);
    assert_int_equal(read_all(got, sizeof got, path, NULL), COE_E_INPUT);
    assert_error_has("record 2");
}

static size_t compress_gzip(unsigned char *to, size_t cap, const char *text)
{
    z_stream z = { 0 };
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (Bytef *)(uintptr_t)text;
    z.avail_in = (uInt)strlen(text);
    z.next_out = to;
    z.avail_out = (uInt)cap;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return cap - z.avail_out;
}

static void compressed_files_are_told_by_their_first_bytes(void **state)
{
    (void)state;
    unsigned char packed[1000];
    size_t n = compress_gzip(packed, sizeof packed, PLAIN);
    expect("a", packed, n, NULL, "one|two\nlines|three\n");
    n += compress_gzip(packed + n, sizeof packed - n, "tail"); /* two members are one file */
    expect("a", packed, n, NULL, "one|two\nlines|three\ntail");
    n = 0;
    assert_int_equal(lzma_easy_buffer_encode(6, LZMA_CHECK_CRC64, NULL, (const uint8_t *)PLAIN, strlen(PLAIN), packed,
                                             &n, sizeof packed),
                     LZMA_OK);
    expect("a", packed, n, NULL, "one|two\nlines|three\n");
    n = ZSTD_compress(packed, sizeof packed, PLAIN, strlen(PLAIN), 3);
    expect("a", packed, n, NULL, "one|two\nlines|three\n");
}

static void a_compressed_file_that_ends_too_early_is_refused(void **state)
{
    (void)state;
    unsigned char packed[3][1000];
    size_t n[3] = { 0 };
    char got[1000];
    n[0] = compress_gzip(packed[0], sizeof packed[0], PLAIN);
    lzma_easy_buffer_encode(6, LZMA_CHECK_CRC64, NULL, (const uint8_t *)PLAIN, strlen(PLAIN), packed[1], &n[1],
                            sizeof packed[1]);
    n[2] = ZSTD_compress(packed[2], sizeof packed[2], PLAIN, strlen(PLAIN), 3);
    for (int i = 0; i < 3; i++)
        for (size_t keep = 8; keep < n[i]; keep++) {
            const char *path = temp_path("cut");
            spill(path, packed[i], keep);
            if (read_all(got, sizeof got, path, NULL) != COE_E_INPUT)
                fail_msg("format %d: the first %zu of %zu bytes are read", i, keep, n[i]);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_text_is_cut_at_the_marks),
        cmocka_unit_test(jsonl_gives_a_field_or_fills_a_template),
        cmocka_unit_test(a_row_without_the_field_names_its_line),
        cmocka_unit_test(compressed_files_are_told_by_their_first_bytes),
        cmocka_unit_test(a_compressed_file_that_ends_too_early_is_refused),
    };
    return cmocka_run_group_tests_name("text/textin", tests, NULL, NULL);
}
