/* gguf_tokens.c — a model directory's tokenizer as the metadata of a GGUF file; see gguf_form.h.
 *
 * Byte-level BPE becomes "gpt2" with the name of its pre-tokeniser, BPE over ▁ text becomes "llama", whose scores are
 * the ranks of the merges; SentencePiece files and unigram models are gguf_spm.c's. The tokenizer.json itself goes
 * along under the key that the GGUF format has for it, and the small files beside it under "coe.file.NAME". */
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "model/gguf_form.h"
#include "text/gguf_pre.h"

#define KEY_TOKENIZER "tokenizer.huggingface.json"
#define FILE_MAX ((uint64_t)1 << 20)
#define TOKENIZER_MAX ((uint64_t)1 << 28)

enum { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER, TYPE_UNUSED, TYPE_BYTE };

static const char *const small_files[] = { "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
                                           "chat_template.jinja", "generation_config.json" };

struct vocabulary {
    struct str *token; /* [n]; `at` borrowed from the document, or owned for unused ids */
    int32_t *type;
    float *score;
    int64_t n;
    struct arena arena;
};

/* ---- which pre-tokeniser ---- */

/* The parts of a pre-tokeniser that change a split, as text. */
static void describe(struct str *out, const json_t *pre)
{
    const char *type = json_string_value(json_object_get(pre, "type"));
    if (!type) return;
    if (!strcmp(type, "Sequence")) {
        const json_t *list = json_object_get(pre, "pretokenizers");
        for (size_t i = 0; i < json_array_size(list); i++) describe(out, json_array_get(list, i));
        return;
    }
    str_addf(out, "\n%s", type);
    if (!strcmp(type, "ByteLevel")) {
        str_addf(out, " %d %d", !json_is_false(json_object_get(pre, "use_regex")),
                 json_is_true(json_object_get(pre, "add_prefix_space")));
        return;
    }
    static const char *const keys[] = { "pattern", "behavior", "invert", "individual_digits", "prepend_scheme" };
    for (size_t i = 0; i < COE_COUNT(keys); i++) {
        const json_t *v = json_object_get(pre, keys[i]);
        if (!v || json_is_false(v)) continue;
        str_addc(out, ' ');
        (void)json_add_text(out, v, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
    }
}

/* Name of the kind that splits so, best one that treats whole words so too; "default" when nobody does. */
static coe_status find_pre(char name[32], const json_t *doc)
{
    struct gguf_pre pre;
    struct str ours = { 0 }, theirs = { 0 };
    char candidate[32];
    coe_status s = COE_OK;
    const bool ignore = json_is_true(json_object_get(json_object_get(doc, "model"), "ignore_merges"));
    bool exact = false;
    memcpy(name, "default", 8);
    describe(&ours, json_object_get(doc, "pre_tokenizer"));
    for (size_t i = 0; !exact && gguf_pre_at(&pre, candidate, i); i++) {
        json_t *known;
        if ((s = json_read_text(&known, pre.pre_tokenizer, strlen(pre.pre_tokenizer), "built-in pre-tokeniser"))) break;
        str_clear(&theirs);
        describe(&theirs, known);
        json_decref(known);
        if (!ours.n || ours.n != theirs.n || memcmp(ours.at, theirs.at, ours.n)) continue;
        exact = pre.ignore_merges == ignore;
        if (exact || !strcmp(name, "default")) memcpy(name, candidate, sizeof candidate);
    }
    if (!s) s = str_check(&ours);
    str_free(&ours);
    str_free(&theirs);
    return s;
}

static bool has_type(const json_t *part, const char *type)
{
    const char *own = json_string_value(json_object_get(part, "type"));
    if (own && !strcmp(own, type)) return true;
    static const char *const lists[] = { "pretokenizers", "normalizers", "decoders" };
    for (size_t k = 0; k < COE_COUNT(lists); k++) {
        const json_t *list = json_object_get(part, lists[k]);
        for (size_t i = 0; i < json_array_size(list); i++)
            if (has_type(json_array_get(list, i), type)) return true;
    }
    return false;
}

/* ---- tokens ---- */

static int64_t highest_id(const json_t *doc)
{
    int64_t high = -1;
    const char *key;
    json_t *v;
    size_t i;
    json_object_foreach(json_object_get(json_object_get(doc, "model"), "vocab"), key, v)
        high = COE_MAX(high, (int64_t)json_integer_value(v));
    json_array_foreach(json_object_get(doc, "added_tokens"), i, v)
        high = COE_MAX(high, (int64_t)json_integer_value(json_object_get(v, "id")));
    return high;
}

static coe_status make_room(struct vocabulary *v, int64_t n, const char *where)
{
    if (n < 1 || n > INT32_MAX / 8) return coe_fail(COE_E_INPUT, "%s: %lld tokens", where, (long long)n);
    v->n = n;
    v->token = arena_push_zero(&v->arena, (size_t)n * sizeof *v->token);
    v->type = arena_push_zero(&v->arena, (size_t)n * sizeof *v->type);
    v->score = arena_push_zero(&v->arena, (size_t)n * sizeof *v->score);
    return v->token && v->type && v->score ? COE_OK : COE_E_NOMEM;
}

static bool is_byte_token(const char *t, size_t n) { return n == 6 && !memcmp(t, "<0x", 3) && t[5] == '>'; }

static void set_token(struct vocabulary *v, const json_t *id_json, const char *text, size_t n, int32_t type)
{
    const int64_t id = json_integer_value(id_json);
    if (!json_is_integer(id_json) || id < 0 || id >= v->n) return;
    v->token[id].at = (char *)(uintptr_t)text; /* only read */
    v->token[id].n = n;
    v->type[id] = type;
}

static coe_status read_tokens(struct vocabulary *v, const json_t *doc, bool bytes)
{
    const json_t *model = json_object_get(doc, "model");
    const char *key, *unk = json_string_value(json_object_get(model, "unk_token"));
    json_t *x;
    size_t i;
    json_object_foreach(json_object_get(model, "vocab"), key, x)
    {
        const size_t n = strlen(key);
        set_token(v, x, key, n,
                  unk && !bytes && !strcmp(key, unk) ? TYPE_UNKNOWN
                  : !bytes && is_byte_token(key, n)  ? TYPE_BYTE
                                                     : TYPE_NORMAL);
    }
    json_array_foreach(json_object_get(doc, "added_tokens"), i, x)
    {
        const json_t *content = json_object_get(x, "content");
        const char *text = json_string_value(content);
        if (!text || (unk && !bytes && !strcmp(text, unk))) continue;
        set_token(v, json_object_get(x, "id"), text, json_string_length(content),
                  json_is_true(json_object_get(x, "special")) ? TYPE_CONTROL : TYPE_USER);
    }
    for (int64_t id = 0; id < v->n; id++) {
        char pad[32];
        if (v->type[id]) continue;
        snprintf(pad, sizeof pad, "[PAD%lld]", (long long)id);
        v->token[id].at = arena_strdup(&v->arena, pad);
        if (!v->token[id].at) return COE_E_NOMEM;
        v->token[id].n = strlen(pad);
        v->type[id] = TYPE_UNUSED;
    }
    return COE_OK;
}

/* "left right", whether the file has lines or pairs */
static coe_status read_merges(struct str **out, size_t *n, struct arena *a, const json_t *doc)
{
    const json_t *list = json_object_get(json_object_get(doc, "model"), "merges");
    struct str *merge = arena_push_zero(a, (json_array_size(list) + 1) * sizeof *merge);
    if (!merge) return COE_E_NOMEM;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *m = json_array_get(list, i);
        const char *left = json_string_value(json_array_get(m, 0)), *right = json_string_value(json_array_get(m, 1));
        if (json_is_string(m)) {
            merge[i].at = (char *)(uintptr_t)json_string_value(m); /* only read */
        } else if (left && right) {
            const size_t cap = strlen(left) + strlen(right) + 2;
            if (!(merge[i].at = arena_push(a, cap))) return COE_E_NOMEM;
            snprintf(merge[i].at, cap, "%s %s", left, right);
        }
        merge[i].n = merge[i].at ? strlen(merge[i].at) : 0;
    }
    *out = merge;
    *n = json_array_size(list);
    return COE_OK;
}

/* A token's score is minus the rank of the merge that makes it, so that the best pair is the first merge. */
static coe_status rank_scores(struct vocabulary *v, const json_t *doc, const struct str *merge, size_t n)
{
    const json_t *vocab = json_object_get(json_object_get(doc, "model"), "vocab");
    struct str joined = { 0 };
    for (size_t i = n; i-- > 0;) {
        const char *space = merge[i].n ? strchr(merge[i].at, ' ') : NULL;
        if (!space) continue;
        str_clear(&joined);
        str_add(&joined, merge[i].at, (size_t)(space - merge[i].at));
        str_addz(&joined, space + 1);
        if (joined.oom) break;
        const json_t *id = json_object_get(vocab, joined.at);
        if (id && json_integer_value(id) < v->n) v->score[json_integer_value(id)] = -(float)i;
    }
    const coe_status s = str_check(&joined);
    str_free(&joined);
    return s;
}

/* ---- metadata ---- */

/* What the tokenizer puts before and behind a text; -1: nothing. */
static coe_status find_frame(const struct tokenizer *t, int32_t *before, int32_t *behind)
{
    struct ids bare = { 0 }, framed = { 0 };
    coe_status s = tokenizer_encode(t, &bare, "a", 1, false);
    if (!s) s = tokenizer_encode(t, &framed, "a", 1, true);
    *before = *behind = -1;
    for (size_t k = 0; !s && k + bare.n <= framed.n; k++) {
        if (bare.n && memcmp(framed.at + k, bare.at, bare.n * sizeof *bare.at)) continue;
        if (k) *before = framed.at[0];
        if (k + bare.n < framed.n) *behind = framed.at[k + bare.n];
        break;
    }
    VEC_FREE(&bare);
    VEC_FREE(&framed);
    return s;
}

coe_status gguf_add_special(struct gguf_out *o, const struct coe_model *m)
{
    int32_t before, behind;
    COE_TRY(find_frame(m->tokenizer, &before, &behind));
    const int32_t known_bos = m->spec.bos >= 0 ? m->spec.bos : tokenizer_bos(m->tokenizer);
    const int32_t known_eos = m->spec.n_eos ? m->spec.eos[0] : tokenizer_eos(m->tokenizer);
    const int32_t bos = before >= 0 ? before : known_bos, eos = behind >= 0 ? behind : known_eos;
    if (bos >= 0) gguf_add_u32(o, "tokenizer.ggml.bos_token_id", (uint32_t)bos);
    if (eos >= 0) gguf_add_u32(o, "tokenizer.ggml.eos_token_id", (uint32_t)eos);
    gguf_add_bool(o, "tokenizer.ggml.add_bos_token", before >= 0);
    gguf_add_bool(o, "tokenizer.ggml.add_eos_token", behind >= 0);
    return COE_OK;
}

static coe_status add_vocabulary(struct gguf_out *o, struct vocabulary *v, const json_t *doc, bool bytes)
{
    struct str *merge;
    size_t n_merges;
    char pre[32];
    COE_TRY(read_tokens(v, doc, bytes));
    COE_TRY(read_merges(&merge, &n_merges, &v->arena, doc));
    if (bytes) {
        COE_TRY(find_pre(pre, doc));
        if (!strcmp(pre, "default"))
            log_note("the pre-tokeniser has no name in GGUF: other programs will split text differently");
        gguf_add_str(o, "tokenizer.ggml.model", "gpt2", 4);
        gguf_add_str(o, "tokenizer.ggml.pre", pre, strlen(pre));
        gguf_add_strs(o, "tokenizer.ggml.merges", merge, n_merges);
    } else {
        const json_t *normal = json_object_get(doc, "normalizer"), *split = json_object_get(doc, "pre_tokenizer");
        const char *scheme = json_string_value(json_object_get(split, "prepend_scheme"));
        COE_TRY(rank_scores(v, doc, merge, n_merges));
        gguf_add_str(o, "tokenizer.ggml.model", "llama", 5);
        gguf_add_f32s(o, "tokenizer.ggml.scores", v->score, (size_t)v->n);
        gguf_add_bool(o, "tokenizer.ggml.add_space_prefix",
                      has_type(normal, "Prepend") ||
                          (has_type(split, "Metaspace") && !(scheme && !strcmp(scheme, "never"))));
    }
    gguf_add_strs(o, "tokenizer.ggml.tokens", v->token, (size_t)v->n);
    gguf_add_i32s(o, "tokenizer.ggml.token_type", v->type, (size_t)v->n);
    return COE_OK;
}

static coe_status add_tokenizer_json(struct gguf_out *o, const struct coe_model *m, const char *path)
{
    struct str text = { 0 };
    struct vocabulary v = { 0 };
    json_t *doc = NULL;
    coe_status s = file_read(&text, path, TOKENIZER_MAX);
    if (!s) s = json_read_text(&doc, text.at ? text.at : "", text.n, path);
    if (s) goto out;
    const char *type = json_string_value(json_object_get(json_object_get(doc, "model"), "type"));
    const json_t *merges = json_object_get(json_object_get(doc, "model"), "merges");
    gguf_add_str(o, KEY_TOKENIZER, text.at, text.n);
    if (type && !strcmp(type, "Unigram")) {
        s = gguf_add_pieces(o, m, path, false);
        goto out;
    }
    if (!(type ? !strcmp(type, "BPE") : merges != NULL)) {
        log_note("%s: a %s tokenizer has no form in GGUF; the file carries only the tokenizer.json", path,
                 type ? type : "nameless");
        goto out;
    }
    const bool bytes = has_type(json_object_get(doc, "pre_tokenizer"), "ByteLevel") ||
                       has_type(json_object_get(doc, "decoder"), "ByteLevel");
    if (highest_id(doc) >= m->spec.vocab)
        log_warn("%s: token %lld is beyond the model's vocabulary of %d", path, (long long)highest_id(doc),
                 m->spec.vocab);
    if ((s = make_room(&v, m->spec.vocab, path))) goto out;
    if ((s = add_vocabulary(o, &v, doc, bytes))) goto out;
    s = gguf_add_special(o, m);
out:
    arena_free(&v.arena);
    json_decref(doc);
    str_free(&text);
    return s;
}

static void add_template(struct gguf_out *o, const char *name, const char *text, size_t n)
{
    static const char key[] = "tokenizer.chat_template";
    if (!strcmp(name, "chat_template.jinja")) gguf_add_str(o, key, text, n);
}

/* chat_template of tokenizer_config.json: a string, or named ones of which "default" counts. */
static void add_template_of_config(struct gguf_out *o, const char *text, size_t n, const char *path)
{
    json_t *doc;
    if (json_read_text(&doc, text, n, path)) return;
    const json_t *t = json_object_get(doc, "chat_template");
    for (size_t i = 0; json_is_array(t) && i < json_array_size(t); i++) {
        const char *name = json_string_value(json_object_get(json_array_get(t, i), "name"));
        if (name && !strcmp(name, "default")) t = json_object_get(json_array_get(t, i), "template");
    }
    if (json_is_string(t)) gguf_add_str(o, "tokenizer.chat_template", json_string_value(t), json_string_length(t));
    json_decref(doc);
}

static coe_status add_small_file(struct gguf_out *o, const struct coe_model *m, const char *name)
{
    struct str text = { 0 };
    char key[64];
    char *path = path_join(m->path, name), *jinja = path_join(m->path, "chat_template.jinja");
    coe_status s = path && jinja ? COE_OK : COE_E_NOMEM;
    if (s || !file_exists(path)) goto out;
    if ((s = file_read(&text, path, FILE_MAX))) goto out;
    snprintf(key, sizeof key, GGUF_KEY_FILE "%s", name);
    gguf_add_str(o, key, text.at ? text.at : "", text.n);
    add_template(o, name, text.at ? text.at : "", text.n);
    if (!strcmp(name, "tokenizer_config.json") && !file_exists(jinja))
        add_template_of_config(o, text.at ? text.at : "", text.n, path);
out:
    str_free(&text);
    mem_free(path);
    mem_free(jinja);
    return s;
}

static void copy_values(struct gguf_out *o, const struct gguf *g)
{
    static const char *const prefix[] = { "tokenizer.", GGUF_KEY_FILE };
    for (size_t i = 0; i < g->n; i++)
        for (size_t k = 0; k < COE_COUNT(prefix); k++)
            if (g->at[i].key.n > strlen(prefix[k]) && !memcmp(g->at[i].key.at, prefix[k], strlen(prefix[k])))
                gguf_add_value(o, &g->at[i]);
}

coe_status gguf_add_tokenizer(struct gguf_out *o, const struct coe_model *m)
{
    const struct gguf *g = m->ckpt ? ckpt_gguf(m->ckpt) : NULL;
    if (g) {
        copy_values(o, g);
        return COE_OK;
    }
    if (!dir_exists(m->path)) return COE_OK;
    char *path = path_join(m->path, "tokenizer.json"), *spm = path_join(m->path, "tokenizer.model");
    coe_status s = path && spm ? COE_OK : COE_E_NOMEM;
    if (!s && m->tokenizer && file_exists(path)) s = add_tokenizer_json(o, m, path);
    else if (!s && m->tokenizer && file_exists(spm)) s = gguf_add_pieces(o, m, spm, true);
    for (size_t i = 0; i < COE_COUNT(small_files) && !s; i++) s = add_small_file(o, m, small_files[i]);
    mem_free(path);
    mem_free(spm);
    return s;
}

static coe_status write_beside(const char *dir, const char *name, const char *text, size_t n)
{
    char *path = path_join(dir, name);
    const coe_status s = path ? file_write(path, text, n) : COE_E_NOMEM;
    mem_free(path);
    return s;
}

/* Made from the metadata of a file that carries no tokenizer.json. */
static coe_status make_tokenizer_json(const struct coe_model *m, const char *dir)
{
    struct file_map map;
    struct str text = { 0 };
    json_t *doc = NULL;
    COE_TRY(file_map_open(&map, m->path));
    coe_status s = tokenizer_json_of_gguf(&doc, (const char *)map.at, (size_t)map.bytes, m->path);
    file_map_close(&map);
    if (!s && !doc) log_note("%s: its tokenizer has no form as a tokenizer.json; the directory has none", m->path);
    if (!s && doc) s = json_add_text(&text, doc, JSON_COMPACT);
    if (!s && doc) s = write_beside(dir, "tokenizer.json", text.at, text.n);
    str_free(&text);
    json_decref(doc);
    return s;
}

coe_status gguf_write_companions(const struct coe_model *m, const char *dir)
{
    const struct gguf *g = ckpt_gguf(m->ckpt);
    struct gguf_text tokenizer = { 0 }, template = { 0 };
    bool small = false;
    for (size_t i = 0; i < COE_COUNT(small_files); i++) {
        struct gguf_text text = { 0 };
        char key[64];
        snprintf(key, sizeof key, GGUF_KEY_FILE "%s", small_files[i]);
        COE_TRY(gguf_str(g, key, &text));
        if (text.at) COE_TRY(write_beside(dir, small_files[i], text.at, text.n));
        small |= text.at != NULL;
    }
    const struct gguf_value *spm = gguf_find(g, GGUF_KEY_FILE "tokenizer.model");
    if (spm && spm->array && spm->type == GGUF_U8)
        COE_TRY(write_beside(dir, "tokenizer.model", (const char *)spm->at, (size_t)(spm->end - spm->at)));
    COE_TRY(gguf_str(g, KEY_TOKENIZER, &tokenizer));
    COE_TRY(gguf_str(g, "tokenizer.chat_template", &template));
    if (template.at && !small) COE_TRY(write_beside(dir, "chat_template.jinja", template.at, template.n));
    if (tokenizer.at) return write_beside(dir, "tokenizer.json", tokenizer.at, tokenizer.n);
    return gguf_find(g, "tokenizer.ggml.model") && !spm ? make_tokenizer_json(m, dir) : COE_OK;
}
