/* tok_write.c — see tok_write.h. The layout is that of the `tokenizers` library, version "1.0". */
#include "text/tok_write.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "text/bytemap.h"

/* Below any six pieces, so that the text "<0x41>" is never taken for a byte. */
#define BYTE_SCORE -1000.0

struct tok_specials tok_specials_or_default(const char *const *at, size_t n)
{
    static const char *const end_of_text[] = { "<|endoftext|>" };
    return at ? (struct tok_specials){ at, n } : (struct tok_specials){ end_of_text, 1 };
}

/* Words of one stretch of text. */
static coe_status count_stretch(struct wordcount *c, const struct pattern *p, const char *text, size_t n)
{
    struct pattern_scan scan;
    size_t lo = 0, hi = 0, from = 0;
    bool found = true;
    coe_status s = pattern_scan_begin(&scan, p, text, n);
    while (!s && found) {
        s = pattern_next(&scan, from, &lo, &hi, &found);
        if (!s && found) s = wordcount_add(c, text + lo, hi - lo, 1);
        from = hi;
    }
    pattern_scan_end(&scan);
    return s;
}

/* A text without the special tokens that stand in it. */
static coe_status count_text(struct wordcount *c, const struct pattern *p, const char *text, size_t n,
                             struct tok_specials specials)
{
    while (n) {
        size_t cut = n, skip = 0;
        for (size_t i = 0; i < specials.n; i++) {
            const char *at = memmem(text, cut, specials.at[i], strlen(specials.at[i]));
            if (!at) continue;
            cut = (size_t)(at - text);
            skip = strlen(specials.at[i]);
        }
        COE_TRY(count_stretch(c, p, text, cut));
        text += cut + skip;
        n -= cut + skip;
    }
    return COE_OK;
}

coe_status text_count_words(struct wordcount *c, const struct pattern *p, text_next_fn *next, void *user,
                            struct tok_specials specials)
{
    const char *text;
    size_t n, bytes = 0;
    bool more;
    coe_status s;
    while (!(s = next(user, &text, &n, &more)) && more) {
        bytes += n;
        COE_TRY(count_text(c, p, text, n, specials));
        if (coe_interrupted()) return coe_fail(COE_E_FAILED, "interrupted");
    }
    if (!s && !c->word.n) s = coe_fail(COE_E_INPUT, "there is no text to train a tokenizer on");
    if (!s) log_note("%.1f MB, %zu different words", (double)bytes / 1e6, c->word.n);
    return s;
}

static void add_quoted(struct str *out, const char *text, size_t n)
{
    str_addc(out, '"');
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\') str_addc(out, '\\');
        if (c < 0x20) str_addf(out, "\\u%04x", c);
        else str_addc(out, text[i]);
    }
    str_addc(out, '"');
}

static void add_added(struct str *out, const char *text, size_t id, bool last)
{
    str_addf(out, "\n    {\"id\": %zu, \"content\": ", id);
    add_quoted(out, text, strlen(text));
    str_addz(out, ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, ");
    str_addf(out, "\"normalized\": false, \"special\": true}%s", last ? "" : ",");
}

/* Up to the model: added tokens, no normaliser, the split, a second pre-tokeniser or none, and the decoder. */
static void add_head(struct str *out, struct tok_specials specials, const char *unk, const char *second,
                     const char *decoder)
{
    str_addz(out, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": [");
    for (size_t i = 0; i < specials.n; i++) add_added(out, specials.at[i], i, i + 1 == specials.n && !unk);
    if (unk) add_added(out, unk, specials.n, true);
    str_addz(out,
             "\n  ],\n  \"normalizer\": null,\n  \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [\n"
             "    {\"type\": \"Split\", \"pattern\": {\"Regex\": ");
    add_quoted(out, TOK_TRAIN_PATTERN, strlen(TOK_TRAIN_PATTERN));
    str_addf(out, "}, \"behavior\": \"Isolated\", \"invert\": false}%s]},\n", second);
    str_addf(out, "  \"post_processor\": null,\n  \"decoder\": %s,\n  \"model\": {\n", decoder);
}

/* Spelling of the ids in the characters of the byte map: bytes.at[end[id-1] .. end[id]). */
struct spelling {
    struct str bytes;
    VEC(size_t) end;
};

static bool spell(struct spelling *sp, const struct tok_merges *merges, size_t n_special)
{
    for (size_t i = 0; i < n_special; i++)
        if (!VEC_PUSH(&sp->end, 0)) return false;
    for (int b = 0; b < 256; b++) {
        char c[4];
        str_add(&sp->bytes, c, (size_t)utf8_encode(bytemap_char((uint8_t)b), c));
        if (!VEC_PUSH(&sp->end, sp->bytes.n)) return false;
    }
    for (size_t i = 0; i < merges->n; i++) {
        const int32_t part[2] = { merges->at[i].left, merges->at[i].right };
        for (int k = 0; k < 2; k++) {
            size_t from = part[k] ? sp->end.at[part[k] - 1] : 0, n = sp->end.at[part[k]] - from;
            /* so that the source does not move under str_add */
            if (!VEC_RESERVE(&sp->bytes, sp->bytes.n + n + 1)) return false;
            str_add(&sp->bytes, sp->bytes.at + from, n);
        }
        if (!VEC_PUSH(&sp->end, sp->bytes.n)) return false;
    }
    return !sp->bytes.oom;
}

static void add_token(struct str *out, const struct spelling *sp, int32_t id)
{
    size_t from = id ? sp->end.at[id - 1] : 0;
    add_quoted(out, sp->bytes.at + from, sp->end.at[id] - from);
}

coe_status tok_write_bpe(const char *path, struct tok_specials specials, const struct tok_merges *merges)
{
    struct str out = { 0 };
    struct spelling sp = { 0 };
    coe_status s = COE_OK;
    if (!spell(&sp, merges, specials.n)) {
        s = COE_E_NOMEM;
        goto out;
    }
    add_head(
        &out, specials, NULL,
        ",\n    {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": false}",
        "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": false}");
    str_addz(&out,
             "    \"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, \"continuing_subword_prefix\": null,\n"
             "    \"end_of_word_suffix\": null, \"fuse_unk\": false, \"byte_fallback\": false,\n"
             "    \"ignore_merges\": false,\n    \"vocab\": {");
    for (size_t i = 0; i < sp.end.n; i++) {
        str_addz(&out, i ? ",\n      " : "\n      ");
        if (i < specials.n) add_quoted(&out, specials.at[i], strlen(specials.at[i]));
        else add_token(&out, &sp, (int32_t)i);
        str_addf(&out, ": %zu", i);
    }
    str_addz(&out, "\n    },\n    \"merges\": [");
    for (size_t i = 0; i < merges->n; i++) {
        str_addz(&out, i ? ",\n      [" : "\n      [");
        add_token(&out, &sp, merges->at[i].left);
        str_addz(&out, ", ");
        add_token(&out, &sp, merges->at[i].right);
        str_addc(&out, ']');
    }
    str_addz(&out, "\n    ]\n  }\n}\n");
    s = str_check(&out);
    if (!s) s = file_write(path, out.at, out.n);
out:
    str_free(&out);
    str_free(&sp.bytes);
    VEC_FREE(&sp.end);
    return s;
}

static void add_piece(struct str *out, const char *text, size_t n, double score, bool first)
{
    str_addz(out, first ? "\n      [" : ",\n      [");
    add_quoted(out, text, n);
    str_addf(out, ", %.17g]", score);
}

coe_status tok_write_unigram(const char *path, struct tok_specials specials, const struct tok_scored *pieces, size_t n)
{
    struct str out = { 0 };
    char name[8];
    add_head(&out, specials, "<unk>", "",
             "{\"type\": \"Sequence\", \"decoders\": [{\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}]}");
    str_addf(&out, "    \"type\": \"Unigram\", \"unk_id\": %zu, \"byte_fallback\": true,\n    \"vocab\": [",
             specials.n);
    for (size_t i = 0; i < specials.n; i++) add_piece(&out, specials.at[i], strlen(specials.at[i]), 0, !i);
    add_piece(&out, "<unk>", 5, 0, !specials.n);
    for (unsigned b = 0; b < 256; b++) {
        snprintf(name, sizeof name, "<0x%02X>", b);
        add_piece(&out, name, 6, BYTE_SCORE, false);
    }
    for (size_t i = 0; i < n; i++) add_piece(&out, pieces[i].text, pieces[i].n, pieces[i].score, false);
    str_addz(&out, "\n    ]\n  }\n}\n");
    coe_status s = str_check(&out);
    if (!s) s = file_write(path, out.at, out.n);
    str_free(&out);
    return s;
}
