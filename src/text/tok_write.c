/* tok_write.c — see tok_write.h. The layout is that of the `tokenizers` library, version "1.0". */
#include "text/tok_write.h"

#include <string.h>

#include "base/file.h"
#include "text/bytemap.h"

void tok_write_quoted(struct str *out, const char *text, size_t n)
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

void tok_write_added(struct str *out, const char *const *special, size_t n)
{
    str_addz(out, "  \"added_tokens\": [");
    for (size_t i = 0; i < n; i++) {
        str_addf(out, "%s\n    {\"id\": %zu, \"content\": ", i ? "," : "", i);
        tok_write_quoted(out, special[i], strlen(special[i]));
        str_addz(out, ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, \"special\": true}");
    }
    str_addz(out, "\n  ],\n");
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
            size_t from = sp->end.at[part[k] - 1], n = sp->end.at[part[k]] - from;
            if (!VEC_RESERVE(&sp->bytes, sp->bytes.n + n + 1)) return false; /* so that the source does not move under str_add */
            str_add(&sp->bytes, sp->bytes.at + from, n);
        }
        if (!VEC_PUSH(&sp->end, sp->bytes.n)) return false;
    }
    return !sp->bytes.oom;
}

static void add_token(struct str *out, const struct spelling *sp, int32_t id)
{
    size_t from = id ? sp->end.at[id - 1] : 0;
    tok_write_quoted(out, sp->bytes.at + from, sp->end.at[id] - from);
}

static void write_head(struct str *out, const char *const *special, size_t n_special)
{
    str_addz(out, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n");
    tok_write_added(out, special, n_special);
    str_addz(out, "  \"normalizer\": null,\n  \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [\n"
                  "    {\"type\": \"Split\", \"pattern\": {\"Regex\": ");
    tok_write_quoted(out, TOK_TRAIN_PATTERN, strlen(TOK_TRAIN_PATTERN));
    str_addz(out, "}, \"behavior\": \"Isolated\", \"invert\": false},\n"
                  "    {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": false}]},\n"
                  "  \"post_processor\": null,\n"
                  "  \"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": false},\n"
                  "  \"model\": {\n    \"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, \"continuing_subword_prefix\": null,\n"
                  "    \"end_of_word_suffix\": null, \"fuse_unk\": false, \"byte_fallback\": false, \"ignore_merges\": false,\n"
                  "    \"vocab\": {");
}

coe_status tok_write_bpe(const char *path, const char *const *special, size_t n_special, const struct tok_merges *merges)
{
    struct str out = { 0 };
    struct spelling sp = { 0 };
    coe_status s = COE_OK;
    if (!spell(&sp, merges, n_special)) {
        s = COE_E_NOMEM;
        goto out;
    }
    write_head(&out, special, n_special);
    for (size_t i = 0; i < sp.end.n; i++) {
        str_addz(&out, i ? ",\n      " : "\n      ");
        if (i < n_special) tok_write_quoted(&out, special[i], strlen(special[i]));
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
