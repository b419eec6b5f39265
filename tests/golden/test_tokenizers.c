/* Tokenizers: ids, decoded text and streaming of every folder of COE_FIXTURES/tokenizers against the reference
 * libraries. Files may be compressed; they are unpacked in memory. */
#include <stdio.h>
#include <string.h>

#include "base/base64.h"
#include "base/file.h"
#include "base/input.h"
#include "support/golden.h"
#include "text/text.h"

static const char *const kinds[] = { "tokenizer.json", "tokenizer.model", "vocab.gguf" };

static char why[1000];

/* The folder's file or its .xz; false when there is neither. */
static bool load(struct str *out, const struct golden_folder *f, const char *name)
{
    struct input *in;
    char chunk[1 << 16];
    const char *path = golden_path(f, "%s", name);
    if (!file_exists(path)) path = golden_path(f, "%s.xz", name);
    if (!file_exists(path)) return false;
    assert_ok(input_open(&in, path));
    for (size_t n = 1; n;) {
        assert_ok(input_read(in, chunk, sizeof chunk, &n));
        str_add(out, chunk, n);
    }
    input_close(in);
    assert_ok(str_check(out));
    return true;
}

static bool differ(const char *name, const char *what, size_t at)
{
    snprintf(why, sizeof why, "case %s: %s, at %zu", name, what, at);
    return false;
}

static bool same_ids(const char *name, const json_t *want, const struct ids *got)
{
    for (size_t i = 0; i < json_array_size(want) || i < got->n; i++) {
        long long w = i < json_array_size(want) ? json_integer_value(json_array_get(want, i)) : -1;
        long long g = i < got->n ? got->at[i] : -1;
        if (w == g) continue;
        snprintf(why, sizeof why, "case %s: id %zu of %zu is %lld, expected %lld (%zu ids)", name, i,
                 json_array_size(want), g, w, got->n);
        return false;
    }
    return true;
}

static bool same_text(const char *name, const json_t *want, const struct str *got)
{
    struct str shown = { 0 };
    utf8_lossy(&shown, got->at ? got->at : "", got->n);
    const char *w = json_string_value(want);
    size_t n = json_string_length(want), at = 0;
    while (at < n && at < shown.n && w[at] == shown.at[at]) at++;
    bool same = at == n && at == shown.n;
    str_free(&shown);
    return same || differ(name, "decoded text differs", at);
}

static bool check_case(const struct tokenizer *t, const json_t *c)
{
    const json_t *text = json_object_get(c, "text"), *code = json_object_get(c, "bytes_b64");
    const char *name = json_string_value(json_object_get(c, "name"));
    struct str bytes = { 0 }, decoded = { 0 };
    struct ids ids = { 0 };
    if (text) str_add(&bytes, json_string_value(text), json_string_length(text));
    else base64_decode(&bytes, json_string_value(code), json_string_length(code));
    bool good = !tokenizer_encode(t, &ids, bytes.at ? bytes.at : "", bytes.n,
                                  json_is_true(json_object_get(c, "add_special"))) ||
                differ(name, coe_error(), 0);
    if (good) good = same_ids(name, json_object_get(c, "ids"), &ids);
    if (good) good = !tokenizer_decode(t, &decoded, ids.at, ids.n, false) || differ(name, coe_error(), 0);
    if (good) good = same_text(name, json_object_get(c, "decoded"), &decoded);
    str_free(&bytes);
    str_free(&decoded);
    VEC_FREE(&ids);
    return good;
}

static bool check_stream(const struct tokenizer *t, const json_t *c)
{
    const json_t *ids = json_object_get(c, "ids"), *pieces = json_object_get(c, "pieces");
    const char *name = json_string_value(json_object_get(c, "name"));
    struct decode_stream *d;
    struct str piece = { 0 };
    assert_ok(decode_stream_open(&d, t, false));
    bool good = true;
    for (size_t i = 0; i < json_array_size(ids) && good; i++) {
        str_clear(&piece);
        good = !decode_stream_push(d, &piece, (int32_t)json_integer_value(json_array_get(ids, i))) &&
               same_text(name, json_array_get(pieces, i), &piece);
    }
    str_clear(&piece);
    good = good && !decode_stream_flush(d, &piece) && same_text(name, json_object_get(c, "flush"), &piece);
    decode_stream_close(d);
    str_free(&piece);
    return good;
}

static size_t check_lines(const struct tokenizer *t, const struct str *lines,
                          bool (*check)(const struct tokenizer *, const json_t *))
{
    size_t n = 0;
    for (const char *at = lines->at, *end = at + lines->n, *stop; at < end; at = stop + 1, n++) {
        stop = memchr(at, '\n', (size_t)(end - at));
        if (!stop) stop = end;
        json_t *c;
        if (stop == at) continue;
        assert_ok(json_read_text(&c, at, (size_t)(stop - at), "cases"));
        bool good = check(t, c);
        json_decref(c);
        if (!good) fail_msg("%s", why);
    }
    return n;
}

static void test_folder(const struct golden_folder *f)
{
    struct str file = { 0 }, cases = { 0 }, streams = { 0 };
    struct tokenizer *t = NULL;
    json_t *config = NULL;
    for (size_t i = 0; i < COE_COUNT(kinds) && !file.n; i++) load(&file, f, kinds[i]);
    if (file_exists(golden_path(f, "tokenizer_config.json"))) {
        struct str text = { 0 };
        load(&text, f, "tokenizer_config.json");
        config = json_loadb(text.at, text.n, JSON_DECODE_INT_AS_REAL, NULL); /* some hold 10^30 */
        str_free(&text);
    }
    assert_ok(tokenizer_from_memory(&t, file.at, file.n, config, f->name));
    size_t n = 0;
    if (load(&cases, f, "ids.jsonl")) n += check_lines(t, &cases, check_case);
    if (load(&streams, f, "stream.jsonl")) n += check_lines(t, &streams, check_stream);
    if (!n) fail_msg("%s: no cases", f->path);
    tokenizer_close(t);
    json_decref(config);
    str_free(&file);
    str_free(&cases);
    str_free(&streams);
}

static golden_fn *choose(struct golden_folder *f)
{
    for (size_t i = 0; i < COE_COUNT(kinds); i++)
        if (file_exists(golden_path(f, "%s", kinds[i])) || file_exists(golden_path(f, "%s.xz", kinds[i])))
            return test_folder;
    bool cases = file_exists(golden_path(f, "ids.jsonl")) || file_exists(golden_path(f, "ids.jsonl.xz"));
    return cases ? golden_without : NULL; /* licences/ and the like are no tokenizers */
}

int main(void) { return golden_run("golden/tokenizers", "tokenizers", choose); }
