/* Any bytes through tokenizers of every kind: ids lie in the vocabulary, byte-level tokenizers give the bytes back, a
 * stream gives the same text as decoding at once. The first byte chooses the tokenizer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/bytemap.h"
#include "text/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

/* What stands before the model, and whether bytes come back. */
static const struct {
    const char *head;
    bool unigram, exact;
} kinds[] = {
    { "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}, \"decoder\": {\"type\": "
      "\"ByteLevel\"},",
      false, true },
    { "\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"behavior\": "
      "\"Isolated\", \"pattern\": {\"Regex\": "
      "\"(?i:'s|'ll)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?[\\\\p{Lu}\\\\p{M}]*[\\\\p{Ll}\\\\p{M}]+|\\\\p{N}{1,3}| "
      "?[^\\\\s\\\\p{L}\\\\p{N}]++[\\\\r\\\\n]*|"
      "\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"}}, {\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
      "\"use_regex\": false}]},"
      "\"decoder\": {\"type\": \"ByteLevel\"},",
      false, true },
    { "\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Punctuation\", \"behavior\": "
      "\"Contiguous\"}, {\"type\": \"ByteLevel\","
      "\"add_prefix_space\": false}, {\"type\": \"Digits\"}, {\"type\": \"Split\", \"behavior\": \"MergedWithNext\", "
      "\"pattern\": {\"Regex\": \"(?:ab)+?c\"}}]},"
      "\"decoder\": {\"type\": \"ByteLevel\"},",
      false, true },
    { "\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFKC\"}, {\"type\": \"Lowercase\"}, "
      "{\"type\": \"NFD\"}, {\"type\": \"StripAccents\"},"
      "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"\\\\s{2,}\"}, \"content\": \" \"}, {\"type\": \"Nmt\"}]},"
      "\"pre_tokenizer\": {\"type\": \"ByteLevel\"}, \"decoder\": {\"type\": \"ByteLevel\"},",
      false, false },
    { "\"normalizer\": {\"type\": \"NFC\"}, \"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": "
      "\"\xE2\x96\x81\", \"prepend_scheme\": \"first\"},"
      "\"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": {\"String\": "
      "\"\xE2\x96\x81\"}, \"content\": \" \"},"
      "{\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}, {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, "
      "\"stop\": 0}]},",
      true, false },
};
#define N_KINDS (sizeof kinds / sizeof *kinds)

static const char added[] = "\"added_tokens\": [{\"id\": 260, \"content\": \"<s>\", \"special\": true, \"normalized\": "
                            "false}, {\"id\": 261, \"content\": \"Ab\","
                            "\"normalized\": true, \"single_word\": true}, {\"id\": 262, \"content\": \"  \", "
                            "\"normalized\": false, \"lstrip\": false}],";

/* 256 bytes, and three merges; or the same as scored pieces. */
static void add_model(struct str *out, bool unigram)
{
    char c[5] = { 0 };
    str_addz(out, unigram ? "\"model\": {\"type\": \"Unigram\", \"unk_id\": 0, \"byte_fallback\": true, \"vocab\": "
                            "[[\"<unk>\", 0], [\"th\", -2.5],"
                            "[\"\xE2\x96\x81the\", -3], [\"a\", -1], [\"aa\", -2]"
                          : "\"model\": {\"type\": \"BPE\", \"vocab\": {\"th\": 256, \"the\": 257, \"aa\": 258");
    for (int b = 0; b < 256; b++) {
        if (unigram) {
            str_addf(out, ", [\"<0x%02X>\", -50]", (unsigned)b);
            continue;
        }
        c[utf8_encode(bytemap_char((uint8_t)b), c)] = 0;
        str_addf(out, ", \"%s%s\": %d", *c == '"' || *c == '\\' ? "\\" : "", c, b);
    }
    str_addz(out, unigram ? "]}}" : "}, \"merges\": [\"t h\", \"a a\", \"th e\"]}}");
}

static struct tokenizer *open_kind(size_t i)
{
    struct tokenizer *t;
    struct str text = { 0 };
    str_addc(&text, '{');
    str_addz(&text, kinds[i].head);
    str_addz(&text, added);
    add_model(&text, kinds[i].unigram);
    if (tokenizer_from_memory(&t, text.at, text.n, NULL, "fuzz")) {
        fprintf(stderr, "%s\n", coe_error());
        abort();
    }
    str_free(&text);
    return t;
}

static void check_stream(const struct tokenizer *t, const struct ids *ids, const struct str *whole)
{
    struct decode_stream *d;
    struct str all = { 0 }, shown = { 0 };
    if (decode_stream_open(&d, t, false)) abort();
    for (size_t i = 0; i < ids->n; i++)
        if (decode_stream_push(d, &all, ids->at[i])) abort();
    if (decode_stream_flush(d, &all)) abort();
    utf8_lossy(&shown, whole->at ? whole->at : "", whole->n);
    if (all.n != shown.n || (all.n && memcmp(all.at, shown.at, all.n) != 0)) abort();
    decode_stream_close(d);
    str_free(&all);
    str_free(&shown);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static struct tokenizer *t[N_KINDS];
    struct ids ids = { 0 };
    struct str back = { 0 };
    if (!n) return 0;
    size_t kind = bytes[0] % N_KINDS;
    if (!t[kind]) t[kind] = open_kind(kind);
    if (tokenizer_encode(t[kind], &ids, (const char *)bytes + 1, n - 1, true)) abort();
    for (size_t i = 0; i < ids.n; i++)
        if (ids.at[i] < 0 || ids.at[i] >= tokenizer_vocab_size(t[kind])) abort();
    if (tokenizer_decode(t[kind], &back, ids.at, ids.n, false)) abort();
    if (kinds[kind].exact && (back.n != n - 1 || (back.n && memcmp(back.at, bytes + 1, back.n) != 0))) abort();
    if (!kinds[kind].unigram) check_stream(t[kind], &ids, &back);
    VEC_FREE(&ids);
    str_free(&back);
    return 0;
}
