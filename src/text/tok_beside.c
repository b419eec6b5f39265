/* tok_beside.c — what the files beside a tokenizer say: tokenizer_config.json (names of BOS and EOS, whether they are
 * added) and config.json (their ids). */
#include <string.h>

#include "text/tok.h"

#define MAX_BYTES ((uint64_t)1 << 26)

/* Numbers all become reals: "model_max_length" is often 10^30, which is no int64. */
static coe_status read_document(json_t **out, const char *path)
{
    struct str text = { 0 };
    json_error_t e;
    coe_status s = file_read(&text, path, MAX_BYTES);
    if (!s && !(*out = json_loadb(text.at ? text.at : "", text.n, JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL, &e)))
        s = coe_fail(COE_E_INPUT, "%s: line %d column %d: %s", path, e.line, e.column, e.text);
    str_free(&text);
    return s;
}

/* The document in a file of the tokenizer's directory, NULL when it is not there. */
static coe_status read_beside(json_t **out, const char *path, const char *name)
{
    *out = NULL;
    struct str dir = { 0 };
    str_add(&dir, path, (size_t)(path_base(path) - path));
    char *file = dir.oom ? NULL : path_join(dir.n ? dir.at : ".", name);
    str_free(&dir);
    if (!file) return COE_E_NOMEM;
    coe_status s = file_exists(file) ? read_document(out, file) : COE_OK;
    mem_free(file);
    return s;
}

/* "bos_token": "<s>" or {"content": "<s>", …} */
static void name_to_id(const struct tokenizer *t, const json_t *config, const char *key, int32_t *id)
{
    const json_t *v = json_object_get(config, key);
    if (json_is_object(v)) v = json_object_get(v, "content");
    int32_t found = json_is_string(v) ? tokenizer_token_id(t, json_string_value(v)) : -1;
    if (found >= 0) *id = found;
}

static void number_to_id(const struct tokenizer *t, const json_t *config, const char *key, int32_t *id)
{
    const json_t *v = json_object_get(config, key);
    if (json_is_array(v)) v = json_array_get(v, 0);
    double x = json_is_number(v) ? json_number_value(v) : -1;
    if (*id < 0 && x >= 0 && x < t->n_ids) *id = (int32_t)x;
}

static void guess_eos(struct tokenizer *t)
{
    static const char *const names[] = { "<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "<|im_end|>" };
    for (size_t i = 0; i < COE_COUNT(names) && t->eos < 0; i++)
        for (size_t k = 0; k < t->added.n && t->eos < 0; k++)
            if (t->added.at[k].n == strlen(names[i]) &&
                !memcmp(t->added_text.at + t->added.at[k].at, names[i], t->added.at[k].n))
                t->eos = t->added.at[k].id;
}

/* add_bos_token and add_eos_token count where the file itself adds nothing. A SentencePiece model never says; without a
 * configuration it gets the usual: BOS if it has one, else EOS. */
static coe_status add_ends(struct tokenizer *t, const json_t *config)
{
    bool spm = t->tab.flags & TOK_SPM, bos = spm && t->bos >= 0, eos = spm && t->bos < 0;
    if (t->before.n || t->after.n) return COE_OK;
    COE_TRY(json_get_bool(config, "add_bos_token", &bos, t->name));
    COE_TRY(json_get_bool(config, "add_eos_token", &eos, t->name));
    if (bos && t->bos >= 0 && !VEC_PUSH(&t->before, t->bos)) return COE_E_NOMEM;
    if (eos && t->eos >= 0 && !VEC_PUSH(&t->after, t->eos)) return COE_E_NOMEM;
    return COE_OK;
}

coe_status tok_take_config(struct tokenizer *t, const json_t *tokens, const json_t *model)
{
    name_to_id(t, tokens, "bos_token", &t->bos);
    name_to_id(t, tokens, "eos_token", &t->eos);
    number_to_id(t, model, "bos_token_id", &t->bos);
    number_to_id(t, model, "eos_token_id", &t->eos);
    guess_eos(t);
    return add_ends(t, tokens);
}

coe_status tok_read_config_beside(struct tokenizer *t, const char *path)
{
    json_t *tokens = NULL, *model = NULL;
    size_t n = strlen(path);
    if (n > 5 && !strcmp(path + n - 5, ".gguf")) return COE_OK; /* says everything itself */
    coe_status s = read_beside(&tokens, path, "tokenizer_config.json");
    if (!s) s = read_beside(&model, path, "config.json");
    if (!s) s = tok_take_config(t, tokens, model);
    json_decref(tokens);
    json_decref(model);
    return s;
}
