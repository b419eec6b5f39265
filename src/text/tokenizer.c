/* tokenizer.c — opening a tokenizer of any format, and encoding. */
#include "text/tok.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "base/gguf_meta.h"
#include "text/tok_cache.h"

static coe_status find_units(struct tokenizer *t)
{
    const struct tok_tables *tab = &t->tab;
    t->all_bytes = true;
    for (int i = 0; i < 256; i++) {
        char name[8], byte = (char)i;
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)i);
        t->unit[i] = tok_find(tab, &byte, 1);
        t->byte_id[i] = tab->flags & TOK_SPM ? -1 : tok_find(tab, name, 6);
    }
    for (uint32_t id = 0; id < tab->n_vocab; id++) {
        size_t n;
        const char *text = tok_text(tab, (int32_t)id, &n);
        uint8_t type = tab->type[id];
        int b = type == TOK_BYTE ? tok_byte_of(text, n) : -1;
        if (b >= 0) t->byte_id[b] = (int32_t)id;
        if (type == TOK_USER_DEFINED && tab->flags & TOK_SPM && n) COE_TRY(trie_insert(&t->user, text, n, (int32_t)id));
    }
    for (int i = 0; i < 256; i++)
        if (t->byte_id[i] < 0) t->all_bytes = false;
    return COE_OK;
}

/* The unknown score is 10 below the lowest; SentencePiece counts normal pieces only. */
static void find_scores(struct tokenizer *t)
{
    double lo = DBL_MAX, hi = -DBL_MAX;
    for (uint32_t id = 0; id < t->tab.n_vocab && t->tab.flags & TOK_UNIGRAM; id++) {
        if (t->tab.flags & TOK_SPM && t->tab.type[id] != TOK_NORMAL) continue;
        lo = fmin(lo, t->tab.score[id]);
        hi = fmax(hi, t->tab.score[id]);
    }
    t->unk_score = t->single_precision ? (double)((float)lo - 10.0f) : lo - 10.0;
    t->max_score = hi;
}

static coe_status read_model(struct tokenizer *t, const json_t *model, bool spm)
{
    const char *unk = NULL, *scores = NULL;
    COE_TRY(json_get_str(model, "unk_token", &unk, t->name));
    COE_TRY(json_get_i32(model, "unk_id", 0, TOK_MAX_VOCAB - 1, &t->unk, t->name));
    COE_TRY(json_get_bool(model, "byte_fallback", &t->byte_fallback, t->name));
    COE_TRY(json_get_bool(model, "fuse_unk", &t->fuse_unk, t->name));
    COE_TRY(json_get_bool(model, "ignore_merges", &t->ignore_merges, t->name));
    COE_TRY(json_get_str(model, "scores", &scores, t->name));
    if (unk) t->unk = tok_find(&t->tab, unk, strlen(unk));
    if (unk && t->unk < 0)
        for (size_t i = 0; i < t->added.n && t->unk < 0; i++)
            if (t->added.at[i].n == strlen(unk) && !memcmp(t->added_text.at + t->added.at[i].at, unk, strlen(unk)))
                t->unk = t->added.at[i].id;
    if (unk && t->unk < 0)
        return coe_fail(COE_E_INPUT, "%s: the unknown token '%.60s' is not in the vocabulary", t->name, unk);
    if (t->unk >= (int32_t)t->tab.n_vocab && !unk)
        return coe_fail(COE_E_INPUT, "%s: unk_id %d is outside the vocabulary", t->name, t->unk);
    t->single_precision = scores && !strcmp(scores, "single");
    t->fuse_across = spm;
    t->whole_run_lookup = t->tab.flags & TOK_UNIGRAM && !spm;
    return COE_OK;
}

static coe_status read_ids(struct tokenizer *t, const json_t *list, bool before)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        int32_t id = (int32_t)json_integer_value(json_array_get(list, i));
        if (!(before ? VEC_PUSH(&t->before, id) : VEC_PUSH(&t->after, id))) return COE_E_NOMEM;
    }
    return COE_OK;
}

static coe_status configure(struct tokenizer *t, const json_t *config)
{
    t->unk = t->bos = t->eos = -1;
    COE_TRY(find_units(t));
    COE_TRY(tok_read_normalizer(t, json_object_get(config, "normalizer"), 0));
    COE_TRY(tok_read_pre_tokenizer(t, json_object_get(config, "pre_tokenizer"), 0));
    COE_TRY(tok_read_decoder(t, json_object_get(config, "decoder"), 0));
    COE_TRY(tok_read_post_processor(t, json_object_get(config, "post_processor"), 0));
    COE_TRY(added_read(t, json_object_get(config, "added_tokens")));
    COE_TRY(read_model(t, json_object_get(config, "model"), t->tab.flags & TOK_SPM));
    find_scores(t);
    COE_TRY(read_ids(t, json_object_get(config, "before"), true));
    COE_TRY(read_ids(t, json_object_get(config, "after"), false));
    COE_TRY(json_get_i32(config, "bos", -1, TOK_MAX_VOCAB - 1, &t->bos, t->name));
    COE_TRY(json_get_i32(config, "eos", -1, TOK_MAX_VOCAB - 1, &t->eos, t->name));
    t->n_ids = (int32_t)t->tab.n_vocab;
    for (size_t i = 0; i < t->added.n; i++) t->n_ids = COE_MAX(t->n_ids, t->added.at[i].id + 1);
    return COE_OK;
}

/* JSON begins with a brace, perhaps behind a byte order mark and white space. */
static bool looks_like_json(const char *bytes, size_t n)
{
    size_t i = n > 3 && !memcmp(bytes, "\xEF\xBB\xBF", 3) ? 3 : 0;
    while (i < n && (bytes[i] == ' ' || bytes[i] == '\t' || bytes[i] == '\r' || bytes[i] == '\n')) i++;
    return i < n && bytes[i] == '{';
}

static coe_status read_definition(struct tok_def *def, const char *bytes, size_t n, const char *where)
{
    if (n > 4 && !memcmp(bytes, "GGUF", 4)) return tok_read_gguf(def, bytes, n, where);
    if (looks_like_json(bytes, n)) return tok_read_json(def, bytes, n, where);
    return tok_read_spm(def, bytes, n, where);
}

static coe_status compile(struct tokenizer *t, const char *bytes, size_t n, uint64_t hash)
{
    struct tok_def def = { 0 };
    coe_status s = read_definition(&def, bytes, n, t->name);
    if (!s) s = tok_image_build(&t->owned, &def, hash, n, t->name);
    tok_def_free(&def);
    return s;
}

/* What of the file matters: of a GGUF file only its head, for gigabytes of weights may follow. */
static coe_status size_of_definition(const char *bytes, size_t *n, const char *where)
{
    struct gguf_meta m;
    struct gguf_value v;
    bool more = true;
    if (*n < 4 || memcmp(bytes, "GGUF", 4) != 0) return COE_OK;
    COE_TRY(gguf_meta_begin(&m, bytes, *n, where));
    while (more) COE_TRY(gguf_meta_next(&m, &v, &more));
    *n = (size_t)(m.at - (const unsigned char *)bytes);
    return COE_OK;
}

/* From the bytes of a file, or from the cache when it holds their compiled form. */
static coe_status load(struct tokenizer *t, const char *bytes, size_t n, bool cached)
{
    COE_TRY(size_of_definition(bytes, &n, t->name));
    uint64_t hash = XXH3_64bits(bytes, n);
    json_t *config = NULL;
    snprintf(t->fingerprint, sizeof t->fingerprint, "%016llx", (unsigned long long)hash);
    if (cached && tok_cache_find(&t->map, hash, n)) {
        COE_TRY(tok_image_view(&t->tab, (const void *)t->map.at, t->map.bytes));
    } else {
        COE_TRY(compile(t, bytes, n, hash));
        if (cached) tok_cache_store(t->owned);
        COE_TRY(tok_image_view(&t->tab, t->owned, t->owned->bytes));
    }
    coe_status s = json_read_text(&config, t->tab.config, t->tab.n_config, t->name);
    if (!s) s = configure(t, config);
    json_decref(config);
    return s;
}

coe_status tokenizer_from_memory(struct tokenizer **out, const char *bytes, size_t n, const json_t *config,
                                 const char *name)
{
    *out = NULL;
    struct tokenizer *t = mem_zalloc("tokenizer", sizeof *t);
    if (!t) return COE_E_NOMEM;
    coe_status s = COE_E_NOMEM;
    t->name = arena_strdup(&t->arena, name);
    if (t->name) s = load(t, bytes, n, false);
    if (!s && (n < 4 || memcmp(bytes, "GGUF", 4))) s = tok_take_config(t, config, NULL);
    if (s) tokenizer_close(t);
    else *out = t;
    return s;
}

/* The tokenizer's file in a directory, or the path itself; mem_free it. */
static coe_status find_file(char **out, const char *path)
{
    static const char *const names[] = { "tokenizer.json", "tokenizer.model" };
    *out = NULL;
    if (!dir_exists(path)) {
        *out = mem_alloc("paths", strlen(path) + 1);
        if (*out) memcpy(*out, path, strlen(path) + 1);
        return *out ? COE_OK : COE_E_NOMEM;
    }
    for (size_t i = 0; i < COE_COUNT(names); i++) {
        char *p = path_join(path, names[i]);
        if (!p) return COE_E_NOMEM;
        if (file_exists(p)) {
            *out = p;
            return COE_OK;
        }
        mem_free(p);
    }
    return coe_fail(COE_E_INPUT, "%s: has neither tokenizer.json nor tokenizer.model", path);
}

coe_status tokenizer_open(struct tokenizer **out, const char *path)
{
    struct tokenizer *t = NULL;
    struct file_map file = { 0 };
    char *name = NULL;
    *out = NULL;
    coe_status s = find_file(&name, path);
    if (!s && !(t = mem_zalloc("tokenizer", sizeof *t))) s = COE_E_NOMEM;
    if (!s && !(t->name = arena_strdup(&t->arena, name))) s = COE_E_NOMEM;
    if (!s) s = file_map_open(&file, name);
    if (!s) s = load(t, file.at ? (const char *)file.at : "", (size_t)file.bytes, true);
    if (!s) s = tok_read_config_beside(t, name);
    file_map_close(&file);
    mem_free(name);
    if (s) tokenizer_close(t);
    else *out = t;
    return s;
}

static void free_encoder(struct encoder *e)
{
    if (!e) return;
    mem_free(e->line);
    VEC_FREE(&e->symbol);
    VEC_FREE(&e->length);
    VEC_FREE(&e->next);
    VEC_FREE(&e->previous);
    VEC_FREE(&e->rank);
    VEC_FREE(&e->heap);
    VEC_FREE(&e->path);
    VEC_FREE(&e->word);
    str_free(&e->raw);
    str_free(&e->norm[0]);
    str_free(&e->norm[1]);
    for (int i = 0; i < TOK_MAX_STEPS; i++) {
        str_free(&e->pre[i]);
        str_free(&e->lead[i]);
    }
    mem_free(e);
}

void tokenizer_close(struct tokenizer *t)
{
    if (!t) return;
    for (int i = 0; i < TOK_SCRATCHES; i++) free_encoder((struct encoder *)atomic_load(&t->scratch[i]));
    tok_free_steps(t);
    VEC_FREE(&t->added);
    VEC_FREE(&t->added_by_id);
    str_free(&t->added_text);
    trie_free(&t->raw.trie);
    trie_free(&t->normal.trie);
    trie_free(&t->user);
    mem_free(t->owned);
    file_map_close(&t->map);
    arena_free(&t->arena);
    mem_free(t);
}

int32_t tokenizer_vocab_size(const struct tokenizer *t) { return t->n_ids; }
void tokenizer_fingerprint(const struct tokenizer *t, char hex[17]) { memcpy(hex, t->fingerprint, 17); }
int32_t tokenizer_bos(const struct tokenizer *t) { return t->bos; }
int32_t tokenizer_eos(const struct tokenizer *t) { return t->eos; }

int32_t tokenizer_token_id(const struct tokenizer *t, const char *token)
{
    size_t n = strlen(token);
    struct str spelled = { 0 };
    int32_t found = -1;
    for (size_t i = 0; i < t->added.n; i++)
        if (t->added.at[i].n == n && !memcmp(t->added_text.at + t->added.at[i].at, token, n)) return t->added.at[i].id;
    if (!(t->tab.flags & (TOK_RAW | TOK_SPM))) return tok_find(&t->tab, token, n);
    for (int32_t id = 0; id < (int32_t)t->tab.n_vocab && found < 0; id++) {
        str_clear(&spelled);
        if (tok_spelling(t, id, &spelled) && spelled.n == n && (!n || !memcmp(spelled.at, token, n))) found = id;
    }
    str_free(&spelled);
    return found;
}

/* An idle encoder of this tokenizer, or a new one; several threads may ask at once. */
static struct encoder *borrow(const struct tokenizer *t)
{
    atomic_uintptr_t *scratch = ((struct tokenizer *)(uintptr_t)t)->scratch;
    for (int i = 0; i < TOK_SCRATCHES; i++) {
        struct encoder *e = (struct encoder *)atomic_exchange(&scratch[i], 0);
        if (e) return e;
    }
    struct encoder *e = mem_zalloc("tokenizer", sizeof *e);
    if (e) e->t = t;
    return e;
}

static void give_back(struct encoder *e)
{
    atomic_uintptr_t *scratch = ((struct tokenizer *)(uintptr_t)e->t)->scratch;
    for (int i = 0; i < TOK_SCRATCHES; i++) {
        uintptr_t empty = 0;
        if (atomic_compare_exchange_strong(&scratch[i], &empty, (uintptr_t)e)) return;
    }
    free_encoder(e);
}

static coe_status encode_raw_stretch(struct encoder *e, const char *text, size_t n, bool first)
{
    COE_TRY(normalize(e, &text, &n));
    return n ? added_split(e, &e->t->normal, text, n, first, pretokenize) : COE_OK;
}

coe_status tokenizer_encode(const struct tokenizer *t, struct ids *out, const char *text, size_t n, bool add_special)
{
    struct encoder *e = borrow(t);
    if (!e) return COE_E_NOMEM;
    e->out = out;
    e->mapped = e->ends_unk = false;
    coe_status s = COE_OK;
    for (size_t i = 0; i < t->before.n && add_special && !s; i++) s = emit_id(e, t->before.at[i]);
    if (!s && n) s = added_split(e, &t->raw, text, n, true, encode_raw_stretch);
    for (size_t i = 0; i < t->after.n && add_special && !s; i++) s = emit_id(e, t->after.at[i]);
    give_back(e);
    return s;
}
