/* gguf_spm.c — SentencePiece vocabularies in the metadata of a GGUF file: a tokenizer.model ("llama" when it merges by
 * score, "t5" when it is a unigram model), and the unigram vocabulary of a tokenizer.json; see gguf_form.h. */
#include <string.h>

#include "base/base64.h"
#include "base/file.h"
#include "model/gguf_form.h"
#include "text/tok_def.h"

#define MODEL_MAX ((uint64_t)1 << 28)

/* Pieces by id, padded to the model's vocabulary. */
static coe_status add_pieces(struct gguf_out *o, const struct tok_def *d, int32_t vocab, struct arena *a)
{
    struct str *token = arena_push_zero(a, (size_t)vocab * sizeof *token);
    float *score = arena_push_zero(a, (size_t)vocab * sizeof *score);
    int32_t *type = arena_push_zero(a, (size_t)vocab * sizeof *type);
    if (!token || !score || !type) return COE_E_NOMEM;
    for (int32_t i = 0; i < vocab; i++) {
        char pad[32];
        const struct tok_piece *p = (size_t)i < d->piece.n ? &d->piece.at[i] : NULL;
        if (p && p->type != TOK_ABSENT) {
            token[i].at = d->text.at + p->at, token[i].n = p->n;
            score[i] = p->score, type[i] = p->type;
            continue;
        }
        snprintf(pad, sizeof pad, "[PAD%d]", i);
        if (!(token[i].at = arena_strdup(a, pad))) return COE_E_NOMEM;
        token[i].n = strlen(pad), type[i] = TOK_UNUSED;
    }
    gguf_add_strs(o, "tokenizer.ggml.tokens", token, (size_t)vocab);
    gguf_add_f32s(o, "tokenizer.ggml.scores", score, (size_t)vocab);
    gguf_add_i32s(o, "tokenizer.ggml.token_type", type, (size_t)vocab);
    return COE_OK;
}

/* The first step of that type in a normalizer or pre-tokeniser; NULL when there is none. */
static const json_t *step_of(const json_t *steps, const char *type)
{
    static const char *const lists[] = { "normalizers", "pretokenizers" };
    const char *own = json_string_value(json_object_get(steps, "type"));
    if (own && !strcmp(own, type)) return steps;
    for (size_t k = 0; k < COE_COUNT(lists); k++) {
        const json_t *list = json_object_get(steps, lists[k]);
        for (size_t i = 0; i < json_array_size(list); i++) {
            const json_t *found = step_of(json_array_get(list, i), type);
            if (found) return found;
        }
    }
    return NULL;
}

static coe_status add_charsmap(struct gguf_out *o, const char *text, const char *where)
{
    struct str map = { 0 };
    if (!text || !*text) return COE_OK;
    if (!base64_decode(&map, text, strlen(text)))
        return coe_fail(COE_E_INPUT, "%s: precompiled_charsmap is not base64", where);
    const coe_status s = str_check(&map);
    if (!s) gguf_add_bytes(o, "tokenizer.ggml.precompiled_charsmap", map.at, map.n);
    str_free(&map);
    return s;
}

/* What happens to spaces, as SentencePiece says it or as the steps of a tokenizer.json do. */
static coe_status add_normalizer(struct gguf_out *o, const json_t *config, const char *where)
{
    const json_t *normal = json_object_get(config, "normalizer"), *split = json_object_get(config, "pre_tokenizer");
    const json_t *spm = step_of(normal, "SentencePiece"), *map = step_of(normal, "Precompiled");
    const json_t *meta = step_of(split, "Metaspace"), *replace = step_of(normal, "Replace");
    const char *scheme = json_string_value(json_object_get(meta, "prepend_scheme"));
    const char *pattern = json_string_value(json_object_get(json_object_get(replace, "pattern"), "Regex"));
    const bool prefix = spm ? json_is_true(json_object_get(spm, "add_dummy_prefix"))
                            : step_of(normal, "Prepend") || (meta && !(scheme && !strcmp(scheme, "never")));
    const bool fewer = spm ? json_is_true(json_object_get(spm, "remove_extra_whitespaces"))
                           : pattern && !strcmp(pattern, " {2,}");
    gguf_add_bool(o, "tokenizer.ggml.add_space_prefix", prefix);
    gguf_add_bool(o, "tokenizer.ggml.remove_extra_whitespaces", fewer);
    return add_charsmap(o, json_string_value(json_object_get(spm ? spm : map, "precompiled_charsmap")), where);
}

static coe_status add_definition(struct gguf_out *o, const struct tok_def *d, const struct coe_model *m,
                                 const char *where)
{
    struct arena a = { 0 };
    const json_t *model = json_object_get(d->config, "model");
    const char *type = json_string_value(json_object_get(model, "type"));
    const char *kind = type && !strcmp(type, "Unigram") ? "t5" : "llama";
    const json_t *unk = json_object_get(model, "unk_id");
    gguf_add_str(o, "tokenizer.ggml.model", kind, strlen(kind));
    if (json_is_integer(unk)) gguf_add_u32(o, "tokenizer.ggml.unknown_token_id", (uint32_t)json_integer_value(unk));
    coe_status s = add_pieces(o, d, m->spec.vocab, &a);
    if (!s) s = add_normalizer(o, d->config, where);
    arena_free(&a);
    return s ? s : gguf_add_special(o, m);
}

/* Types that a tokenizer.json does not give its pieces. */
static void set_types(struct tok_def *d)
{
    const json_t *unk = json_object_get(json_object_get(d->config, "model"), "unk_id"), *t;
    size_t i;
    for (i = 0; i < d->piece.n; i++) {
        struct tok_piece *p = &d->piece.at[i];
        const char *text = d->text.at + p->at;
        if (p->n == 6 && !memcmp(text, "<0x", 3) && text[5] == '>') p->type = TOK_BYTE;
        if (i < d->score.n) p->score = (float)d->score.at[i];
        if (json_is_integer(unk) && (size_t)json_integer_value(unk) == i) p->type = TOK_UNKNOWN;
    }
    json_array_foreach(json_object_get(d->config, "added_tokens"), i, t)
    {
        const json_int_t id = json_integer_value(json_object_get(t, "id"));
        if (id < 0 || (size_t)id >= d->piece.n || d->piece.at[id].type == TOK_UNKNOWN) continue;
        d->piece.at[id].type = json_is_true(json_object_get(t, "special")) ? TOK_CONTROL : TOK_USER_DEFINED;
    }
}

coe_status gguf_add_pieces(struct gguf_out *o, const struct coe_model *m, const char *path, bool spm)
{
    struct str bytes = { 0 };
    struct tok_def d = { 0 };
    coe_status s = file_read(&bytes, path, MODEL_MAX);
    const char *at = bytes.at ? bytes.at : "";
    if (!s) s = spm ? tok_read_spm(&d, at, bytes.n, path) : tok_read_json(&d, at, bytes.n, path);
    if (!s && !spm) set_types(&d);
    if (!s) s = add_definition(o, &d, m, path);
    if (!s && spm) gguf_add_bytes(o, GGUF_KEY_FILE "tokenizer.model", at, bytes.n);
    tok_def_free(&d);
    str_free(&bytes);
    return s;
}
