/* tok_gguf.c — the vocabulary in a GGUF file's metadata: byte-level BPE ("gpt2"), SentencePiece BPE ("llama"), unigram
 * ("t5") and BPE over ▁ text ("gemma4"). */
#include <string.h>

#include "base/base64.h"
#include "base/gguf_meta.h"
#include "text/gguf_pre.h"
#include "text/tok_def.h"

struct gguf {
    const char *where;
    struct gguf_value tokens, scores, types, merges, charsmap; /* count 0: not there */
    struct gguf_value carried; /* a whole tokenizer.model, in files that were written here */
    struct gguf_text model, pre, name, json;
    int64_t bos, eos, unk;
    bool add_bos, add_eos, add_bos_given, add_eos_given;
    bool space_prefix, extra_spaces_go, suffix;
};

static bool is(struct gguf_text t, const char *text) { return t.n == strlen(text) && !memcmp(t.at, text, t.n); }

static coe_status keep_array(const struct gguf *g, struct gguf_value *to, const struct gguf_value *v, bool strings)
{
    if (!v->array || (v->type == GGUF_STRING) != strings)
        return coe_fail(COE_E_INPUT, "%s: GGUF: %.*s is not an array of %s", g->where, (int)v->key.n, v->key.at,
                        strings ? "strings" : "numbers");
    *to = *v;
    return COE_OK;
}

static coe_status read_key(struct gguf *g, const struct gguf_value *v)
{
    const char *w = g->where;
    if (gguf_key_is(v, "tokenizer.ggml.model")) return gguf_get_text(v, w, &g->model);
    if (gguf_key_is(v, "tokenizer.ggml.pre")) return gguf_get_text(v, w, &g->pre);
    if (gguf_key_is(v, "general.name")) return gguf_get_text(v, w, &g->name);
    if (gguf_key_is(v, "tokenizer.huggingface.json")) return gguf_get_text(v, w, &g->json);
    if (gguf_key_is(v, "coe.file.tokenizer.model")) return keep_array(g, &g->carried, v, false);
    if (gguf_key_is(v, "tokenizer.ggml.tokens")) return keep_array(g, &g->tokens, v, true);
    if (gguf_key_is(v, "tokenizer.ggml.merges")) return keep_array(g, &g->merges, v, true);
    if (gguf_key_is(v, "tokenizer.ggml.scores")) return keep_array(g, &g->scores, v, false);
    if (gguf_key_is(v, "tokenizer.ggml.token_type")) return keep_array(g, &g->types, v, false);
    if (gguf_key_is(v, "tokenizer.ggml.precompiled_charsmap")) return keep_array(g, &g->charsmap, v, false);
    if (gguf_key_is(v, "tokenizer.ggml.bos_token_id")) return gguf_get_int(v, w, -1, UINT32_MAX, &g->bos);
    if (gguf_key_is(v, "tokenizer.ggml.eos_token_id")) return gguf_get_int(v, w, -1, UINT32_MAX, &g->eos);
    if (gguf_key_is(v, "tokenizer.ggml.unknown_token_id")) return gguf_get_int(v, w, -1, UINT32_MAX, &g->unk);
    if (gguf_key_is(v, "tokenizer.ggml.add_space_prefix")) return gguf_get_bool(v, w, &g->space_prefix);
    if (gguf_key_is(v, "tokenizer.ggml.remove_extra_whitespaces")) return gguf_get_bool(v, w, &g->extra_spaces_go);
    if (gguf_key_is(v, "tokenizer.ggml.add_bos_token")) {
        g->add_bos_given = true;
        return gguf_get_bool(v, w, &g->add_bos);
    }
    if (gguf_key_is(v, "tokenizer.ggml.add_eos_token")) {
        g->add_eos_given = true;
        return gguf_get_bool(v, w, &g->add_eos);
    }
    return COE_OK;
}

static coe_status read_pieces(const struct gguf *g, struct tok_def *d)
{
    const unsigned char *at = g->tokens.at;
    struct gguf_text t;
    for (uint64_t i = 0; gguf_next_text(&g->tokens, &at, &t); i++) {
        int64_t type = i < g->types.count ? gguf_int_at(&g->types, i) : TOK_NORMAL;
        double score = i < g->scores.count ? gguf_float_at(&g->scores, i) : 0;
        if (type < TOK_NORMAL || type > TOK_BYTE) type = TOK_NORMAL;
        COE_TRY(tok_def_set(d, (int64_t)i, t.at, t.n, score, (enum tok_type)type, g->where));
    }
    at = g->merges.at;
    while (gguf_next_text(&g->merges, &at, &t)) COE_TRY(tok_def_merge_line(d, t.at, t.n, g->where));
    return COE_OK;
}

/* Phi-3 files say nothing of it, but their special tokens swallow the white space behind them. */
static bool strips_right(const struct gguf *g, struct gguf_text t, bool special)
{
    static const char *const keep[] = { "<unk>", "<s>", "<|endoftext|>" };
    bool phi3 = false;
    for (size_t i = 0; i + 4 <= g->name.n && !phi3; i++) {
        const char *p = g->name.at + i;
        phi3 = (p[0] | 32) == 'p' && (p[1] | 32) == 'h' && (p[2] | 32) == 'i' &&
               (p[3] == '3' || (i + 5 <= g->name.n && p[3] == '-' && p[4] == '3'));
    }
    for (size_t i = 0; i < COE_COUNT(keep); i++)
        if (is(t, keep[i])) return false;
    return phi3 && (special || is(t, "</s>"));
}

/* Special tokens and user-defined ones are found in the text. */
static coe_status list_added(const struct gguf *g, const struct tok_def *d, json_t *list)
{
    for (size_t i = 0; i < d->piece.n; i++) {
        uint8_t type = d->piece.at[i].type;
        if (type != TOK_CONTROL && type != TOK_USER_DEFINED && type != TOK_UNKNOWN) continue;
        struct gguf_text t = { d->text.at + d->piece.at[i].at, d->piece.at[i].n };
        json_t *item = json_pack("{s:i, s:s%, s:b, s:b, s:b}", "id", (int)i, "content", t.at, t.n, "special",
                                 type != TOK_USER_DEFINED, "normalized", 0, "rstrip", strips_right(g, t, true));
        if (!item) continue; /* not UTF-8: no text can hold it */
        if (json_array_append_new(list, item)) return coe_fail(COE_E_NOMEM, "%s: no memory", g->where);
    }
    return COE_OK;
}

static json_t *replace_spaces(bool prepend)
{
    json_t *replace = json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", " ", "content",
                                "\xE2\x96\x81");
    if (!prepend) return replace;
    return json_pack("{s:s, s:[{s:s, s:s}, o]}", "type", "Sequence", "normalizers", "type", "Prepend", "prepend",
                     "\xE2\x96\x81", replace);
}

static coe_status byte_level(struct gguf *g, json_t *config)
{
    struct gguf_pre pre;
    json_t *steps;
    if (!g->pre.n) g->pre = (struct gguf_text){ "default", 7 };
    if (!gguf_pre_find(&pre, g->pre.at, g->pre.n))
        return coe_fail(COE_E_INPUT, "%s: GGUF: pre-tokeniser '%.*s' is not known", g->where,
                        (int)COE_MIN(g->pre.n, (size_t)60), g->pre.at);
    COE_TRY(json_read_text(&steps, pre.pre_tokenizer, strlen(pre.pre_tokenizer), "built-in pre-tokeniser"));
    if (!g->add_bos_given) g->add_bos = pre.bos;
    json_object_set_new(config, "pre_tokenizer", steps);
    json_object_set_new(config, "decoder", json_pack("{s:s}", "type", "ByteLevel"));
    json_object_set_new(config, "model", json_pack("{s:s, s:b}", "type", "BPE", "ignore_merges", pre.ignore_merges));
    return COE_OK;
}

static coe_status gemma(struct gguf *g, json_t *config)
{
    json_object_set_new(config, "normalizer", replace_spaces(false));
    json_object_set_new(config, "decoder",
                        json_pack("{s:s, s:[{s:s, s:{s:s}, s:s}, {s:s}, {s:s}]}", "type", "Sequence", "decoders",
                                  "type", "Replace", "pattern", "String", "\xE2\x96\x81", "content", " ", "type",
                                  "ByteFallback", "type", "Fuse"));
    json_t *model = json_pack("{s:s, s:b, s:b}", "type", "BPE", "byte_fallback", 1, "fuse_unk", 1);
    if (g->unk >= 0) json_object_set_new(model, "unk_id", json_integer(g->unk));
    json_object_set_new(config, "model", model);
    return COE_OK;
}

static coe_status spm_bpe(struct gguf *g, json_t *config)
{
    if (!g->add_bos_given) g->add_bos = true;
    if (g->bos < 0) g->bos = 1;
    if (g->eos < 0) g->eos = 2;
    json_object_set_new(config, "spm", json_true());
    json_object_set_new(config, "normalizer", replace_spaces(g->space_prefix));
    json_object_set_new(config, "decoder", json_pack("{s:s, s:b}", "type", "Llama", "drop_first", g->space_prefix));
    json_object_set_new(
        config, "model",
        json_pack("{s:s, s:b, s:I}", "type", "BPE", "byte_fallback", 1, "unk_id", (json_int_t)COE_MAX(g->unk, 0)));
    return COE_OK;
}

static coe_status spm_unigram(struct gguf *g, json_t *config)
{
    struct str bytes = { 0 }, code = { 0 };
    if (!g->add_eos_given) g->add_eos = true;
    if (g->eos < 0) g->eos = 1;
    if (g->unk < 0) g->unk = 2;
    for (uint64_t i = 0; i < g->charsmap.count; i++) str_addc(&bytes, (char)gguf_int_at(&g->charsmap, i));
    base64_encode(&code, bytes.at ? bytes.at : "", bytes.n);
    coe_status s = bytes.oom || code.oom ? COE_E_NOMEM : COE_OK;
    json_object_set_new(config, "spm", json_true());
    json_object_set_new(config, "normalizer",
                        json_pack("{s:s, s:s, s:b, s:b, s:b}", "type", "SentencePiece", "precompiled_charsmap",
                                  code.at ? code.at : "", "add_dummy_prefix", g->space_prefix,
                                  "remove_extra_whitespaces", g->extra_spaces_go, "escape_whitespaces", 1));
    json_object_set_new(config, "decoder", json_pack("{s:s, s:b}", "type", "Llama", "drop_first", g->space_prefix));
    json_object_set_new(config, "model", json_pack("{s:s, s:I}", "type", "Unigram", "unk_id", (json_int_t)g->unk));
    str_free(&bytes);
    str_free(&code);
    return s;
}

static void set_frame(const struct gguf *g, json_t *config)
{
    if (g->add_bos && g->bos >= 0) json_object_set_new(config, "before", json_pack("[I]", (json_int_t)g->bos));
    if (g->add_eos && g->eos >= 0) json_object_set_new(config, "after", json_pack("[I]", (json_int_t)g->eos));
}

/* Files that carry their vocabulary's own file say there what the metadata cannot: which pieces of a unigram model
 * stand for bytes, how white space is brought in order. *found: d is filled. */
static coe_status read_carried(const struct gguf *g, struct tok_def *d, bool *found)
{
    const bool spm = g->carried.count && g->carried.type == GGUF_U8, json = !spm && is(g->model, "t5") && g->json.n;
    *found = spm || json;
    if (spm) COE_TRY(tok_read_spm(d, (const char *)g->carried.at, (size_t)(g->carried.end - g->carried.at), g->where));
    if (json) COE_TRY(tok_read_json(d, g->json.at, g->json.n, g->where));
    if (*found && !json_is_object(json_object_get(d->config, "post_processor"))) set_frame(g, d->config);
    return COE_OK;
}

static coe_status make_config(struct gguf *g, struct tok_def *d)
{
    static const struct {
        const char *model;
        coe_status (*fill)(struct gguf *, json_t *);
    } kinds[] = { { "gpt2", byte_level }, { "llama", spm_bpe }, { "t5", spm_unigram }, { "gemma4", gemma } };
    const int64_t n = (int64_t)d->piece.n;
    if (g->bos >= n || g->eos >= n || g->unk >= n)
        return coe_fail(COE_E_INPUT, "%s: GGUF: a special token's id is outside the vocabulary", g->where);
    d->config = json_pack("{s:b, s:[]}", "lenient_merges", 1, "added_tokens");
    if (!d->config) return coe_fail(COE_E_NOMEM, "%s: no memory", g->where);
    COE_TRY(list_added(g, d, json_object_get(d->config, "added_tokens")));
    size_t i = 0;
    while (i < COE_COUNT(kinds) && !is(g->model, kinds[i].model)) i++;
    if (i == COE_COUNT(kinds))
        return coe_fail(COE_E_INPUT, "%s: GGUF: tokenizer model '%.*s' is not supported", g->where,
                        (int)COE_MIN(g->model.n, (size_t)60), g->model.at);
    COE_TRY(kinds[i].fill(g, d->config));
    if (g->bos >= 0) json_object_set_new(d->config, "bos", json_integer(g->bos));
    if (g->eos >= 0) json_object_set_new(d->config, "eos", json_integer(g->eos));
    set_frame(g, d->config);
    return COE_OK;
}

coe_status tok_read_gguf(struct tok_def *d, const char *bytes, size_t n, const char *where)
{
    struct gguf g = { .where = where, .bos = -1, .eos = -1, .unk = -1, .space_prefix = true, .extra_spaces_go = false };
    struct gguf_meta m;
    struct gguf_value v;
    bool more;
    coe_status s = gguf_meta_begin(&m, bytes, n, where);
    while (!s && !(s = gguf_meta_next(&m, &v, &more)) && more) s = read_key(&g, &v);
    if (!s && (!g.model.n || !g.tokens.count)) s = coe_fail(COE_E_INPUT, "%s: GGUF: has no tokenizer", where);
    bool found = false;
    if (!s) s = read_carried(&g, d, &found);
    if (!s && !found) s = read_pieces(&g, d);
    if (!s && !found) s = make_config(&g, d);
    return s;
}
