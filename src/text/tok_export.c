/* tok_export.c — the vocabulary of a GGUF file as a tokenizer.json.
 *
 * Byte-level BPE is copied. SentencePiece BPE has scores instead of merges: every way to cut a piece into two others is
 * a merge, and merges are ordered by the score of what they make, as the converters of such models order them. */
#include <stdlib.h>
#include <string.h>

#include "text/text.h"
#include "text/tok_def.h"

#define SPACE "\xE2\x96\x81"

static coe_status no_memory(const char *where) { return coe_fail(COE_E_NOMEM, "%s: no memory for a tokenizer", where); }

static json_t *vocabulary(const struct tok_def *d)
{
    json_t *vocab = json_object();
    for (size_t i = 0; i < d->piece.n; i++) {
        const struct tok_piece *p = &d->piece.at[i];
        if (p->type == TOK_ABSENT) continue;
        json_object_setn_new(vocab, d->text.at + p->at, p->n, json_integer((json_int_t)i));
    }
    return vocab;
}

static json_t *merges_of_file(const struct tok_def *d)
{
    json_t *list = json_array();
    for (size_t i = 0; i < d->merge.n; i++) {
        const struct tok_merge_text *m = &d->merge.at[i];
        const char *at = d->text.at + m->at;
        json_array_append_new(list, json_pack("[s%, s%]", at, (size_t)m->left, at + m->left, (size_t)(m->n - m->left)));
    }
    return list;
}

struct cut_piece {
    uint32_t piece, left; /* bytes of the left part */
    float score;
};

/* Better pieces first, then the longer left part, then the order of the vocabulary. */
static int by_score(const void *a, const void *b)
{
    const struct cut_piece *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    if (x->left != y->left) return x->left > y->left ? -1 : 1;
    return (x->piece > y->piece) - (x->piece < y->piece);
}

static json_t *merges_by_score(const struct tok_def *d, const json_t *vocab)
{
    VEC(struct cut_piece) cut = { 0 };
    json_t *list = json_array();
    for (size_t i = 0; i < d->piece.n; i++) {
        const struct tok_piece *p = &d->piece.at[i];
        const char *text = d->text.at + p->at;
        if (p->type != TOK_NORMAL && p->type != TOK_USER_DEFINED) continue;
        for (uint32_t k = 1; k < p->n; k++) {
            if (((unsigned char)text[k] & 0xC0) == 0x80) continue; /* inside a character */
            if (!json_object_getn(vocab, text, k) || !json_object_getn(vocab, text + k, p->n - k)) continue;
            if (VEC_PUSH(&cut, ((struct cut_piece){ (uint32_t)i, k, p->score }))) continue;
            json_decref(list);
            list = NULL;
            goto out;
        }
    }
    if (cut.n) qsort(cut.at, cut.n, sizeof *cut.at, by_score);
    for (size_t i = 0; i < cut.n; i++) {
        const struct tok_piece *p = &d->piece.at[cut.at[i].piece];
        const char *text = d->text.at + p->at;
        const size_t left = cut.at[i].left;
        json_array_append_new(list, json_pack("[s%, s%]", text, left, text + left, (size_t)p->n - left));
    }
out:
    VEC_FREE(&cut);
    return list;
}

/* A template around the text, or null. */
static json_t *frame(const struct tok_def *d)
{
    const json_t *before = json_object_get(d->config, "before"), *after = json_object_get(d->config, "after"), *id;
    const json_t *sides[] = { before, NULL, after };
    json_t *single = json_array(), *special = json_object();
    for (size_t s = 0; s < COE_COUNT(sides); s++) {
        size_t i;
        if (s == 1) json_array_append_new(single, json_pack("{s:{s:s, s:i}}", "Sequence", "id", "A", "type_id", 0));
        json_array_foreach(sides[s], i, id)
        {
            const struct tok_piece *p = &d->piece.at[json_integer_value(id)];
            const char *text = d->text.at + p->at;
            json_array_append_new(single,
                                  json_pack("{s:{s:s%, s:i}}", "SpecialToken", "id", text, (size_t)p->n, "type_id", 0));
            json_object_setn_new(special, text, p->n,
                                 json_pack("{s:s%, s:[I], s:[s%]}", "id", text, (size_t)p->n, "ids",
                                           json_integer_value(id), "tokens", text, (size_t)p->n));
        }
    }
    if (json_object_size(special))
        return json_pack("{s:s, s:o, s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}], s:o}", "type", "TemplateProcessing", "single",
                         single, "pair", "Sequence", "id", "A", "type_id", 0, "Sequence", "id", "B", "type_id", 1,
                         "special_tokens", special);
    json_decref(single);
    json_decref(special);
    return json_null();
}

static json_t *spm_decoder(bool prefix)
{
    json_t *steps = json_pack("[{s:s, s:{s:s}, s:s}, {s:s}, {s:s}]", "type", "Replace", "pattern", "String", SPACE,
                              "content", " ", "type", "ByteFallback", "type", "Fuse");
    if (prefix)
        json_array_append_new(
            steps, json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip", "content", " ", "start", 1, "stop", 0));
    return json_pack("{s:s, s:o}", "type", "Sequence", "decoders", steps);
}

static json_t *model_of(const struct tok_def *d, bool spm)
{
    const json_t *given = json_object_get(d->config, "model"), *unk = json_object_get(given, "unk_id");
    json_t *vocab = vocabulary(d), *merges = spm ? merges_by_score(d, vocab) : merges_of_file(d);
    json_t *model = json_pack("{s:s, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout", "fuse_unk", spm,
                              "byte_fallback", spm, "ignore_merges",
                              json_is_true(json_object_get(given, "ignore_merges")), "vocab", vocab, "merges", merges);
    if (spm && json_is_integer(unk)) {
        const struct tok_piece *p = &d->piece.at[json_integer_value(unk)];
        json_object_set_new(model, "unk_token", json_stringn(d->text.at + p->at, p->n));
    }
    return model;
}

/* Other readers want every field. */
static json_t *added_tokens(const json_t *list)
{
    static const char *const flags[] = { "single_word", "lstrip", "rstrip", "normalized", "special" };
    json_t *copy = json_deep_copy(list), *item;
    size_t i;
    json_array_foreach(copy, i, item)
    {
        for (size_t k = 0; k < COE_COUNT(flags); k++)
            if (!json_object_get(item, flags[k])) json_object_set_new(item, flags[k], json_false());
    }
    return copy;
}

static void set_missing(json_t *o, const char *key, bool value)
{
    if (!json_object_get(o, key)) json_object_set_new(o, key, json_boolean(value));
}

static void complete_step(json_t *step)
{
    const char *type = json_string_value(json_object_get(step, "type"));
    json_t *list = json_object_get(step, "pretokenizers"), *item;
    size_t i;
    json_array_foreach(list, i, item) complete_step(item);
    if (type && !strcmp(type, "Split")) set_missing(step, "invert", false);
    if (!type || strcmp(type, "ByteLevel")) return;
    set_missing(step, "add_prefix_space", false);
    set_missing(step, "trim_offsets", true);
    set_missing(step, "use_regex", true);
}

static json_t *complete(const json_t *step)
{
    json_t *copy = json_deep_copy(step);
    if (copy) complete_step(copy);
    return copy;
}

static coe_status export(json_t **out, const struct tok_def *d, const char *where)
{
    const json_t *c = d->config, *normalizer = json_object_get(c, "normalizer");
    const bool spm = json_is_true(json_object_get(c, "spm"));
    const char *type = json_string_value(json_object_get(json_object_get(c, "model"), "type"));
    const bool byte_level = json_object_get(c, "pre_tokenizer") != NULL;
    if (!type || strcmp(type, "BPE") || (!spm && !byte_level)) return COE_OK;
    json_t *decoder = spm ? spm_decoder(json_is_true(json_object_get(json_object_get(c, "decoder"), "drop_first")))
                          : complete(json_object_get(c, "decoder"));
    *out = json_pack("{s:s, s:n, s:n, s:o, s:O?, s:o?, s:o, s:o, s:o}", "version", "1.0", "truncation", "padding",
                     "added_tokens", added_tokens(json_object_get(c, "added_tokens")), "normalizer", normalizer,
                     "pre_tokenizer", complete(json_object_get(c, "pre_tokenizer")), "post_processor", frame(d),
                     "decoder", decoder, "model", model_of(d, spm));
    return *out ? COE_OK : no_memory(where);
}

coe_status tokenizer_json_of_gguf(json_t **out, const char *bytes, size_t n, const char *where)
{
    struct tok_def d = { 0 };
    *out = NULL;
    coe_status s = tok_read_gguf(&d, bytes, n, where);
    if (!s) s = export(out, &d, where);
    tok_def_free(&d);
    return s;
}
