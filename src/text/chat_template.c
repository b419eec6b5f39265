/* chat_template.c — where models keep their chat template, and the special tokens it may name. */
#include <string.h>

#include "base/file.h"
#include "base/gguf_meta.h"
#include "text/template.h"

#define MAX_TEMPLATE ((uint64_t)1 << 22)
#define MAX_CONFIG ((uint64_t)1 << 26)

enum { PLAIN, WITH_TOOLS, N_TEMPLATES };

struct chat_template {
    struct str source[N_TEMPLATES]; /* empty: none of that kind */
    struct template *compiled[N_TEMPLATES];
    json_t *tokens; /* bos_token, eos_token, … */
    struct str name;
};

static coe_status set_source(struct chat_template *c, int kind, const char *text, size_t n)
{
    str_clear(&c->source[kind]);
    str_add(&c->source[kind], text, n);
    return str_check(&c->source[kind]);
}

/* "chat_template": a text, or a list of {"name", "template"} of which default and tool_use count */
static coe_status take_member(struct chat_template *c, const json_t *v)
{
    if (json_is_string(v)) return set_source(c, PLAIN, json_string_value(v), json_string_length(v));
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *name = json_object_get(json_array_get(v, i), "name"),
                     *text = json_object_get(json_array_get(v, i), "template");
        if (!json_is_string(name) || !json_is_string(text)) continue;
        bool tools = !strcmp(json_string_value(name), "tool_use");
        if (tools || !strcmp(json_string_value(name), "default"))
            COE_TRY(set_source(c, tools ? WITH_TOOLS : PLAIN, json_string_value(text), json_string_length(text)));
    }
    return COE_OK;
}

static void take_tokens(struct chat_template *c, const json_t *config)
{
    static const char *const keys[] = { "bos_token", "eos_token", "unk_token", "sep_token",
                                        "pad_token", "cls_token", "mask_token" };
    for (size_t i = 0; i < COE_COUNT(keys); i++) {
        json_t *v = json_object_get(config, keys[i]);
        if (json_is_object(v)) v = json_object_get(v, "content");
        if (json_is_string(v)) json_object_set(c->tokens, keys[i], v);
    }
}

/* A document in a directory; NULL when it is not there. Numbers become reals: some are beyond int64. */
static coe_status read_in(json_t **out, const char *dir, const char *name)
{
    struct str text = { 0 };
    char *path = path_join(dir, name);
    coe_status s = COE_OK;
    *out = NULL;
    if (!path) return COE_E_NOMEM;
    if (file_exists(path)) {
        json_error_t e;
        s = file_read(&text, path, MAX_CONFIG);
        if (!s && !(*out = json_loadb(text.at ? text.at : "", text.n, JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL, &e)))
            s = coe_fail(COE_E_INPUT, "%s: line %d column %d: %s", path, e.line, e.column, e.text);
    }
    str_free(&text);
    mem_free(path);
    return s;
}

static coe_status read_source_file(struct chat_template *c, const char *path)
{
    str_clear(&c->name);
    str_addz(&c->name, path);
    str_clear(&c->source[PLAIN]);
    return file_read(&c->source[PLAIN], path, MAX_TEMPLATE);
}

static coe_status open_directory(struct chat_template *c, const char *dir)
{
    json_t *config = NULL, *extra = NULL;
    char *file = path_join(dir, "chat_template.jinja");
    if (!file) return COE_E_NOMEM;
    coe_status s = read_in(&config, dir, "tokenizer_config.json");
    if (!s) take_tokens(c, config);
    if (!s) s = take_member(c, json_object_get(config, "chat_template"));
    if (!s && !c->source[PLAIN].n) s = read_in(&extra, dir, "chat_template.json");
    if (!s && extra) s = take_member(c, json_object_get(extra, "chat_template"));
    if (!s && file_exists(file)) s = read_source_file(c, file);
    json_decref(config);
    json_decref(extra);
    mem_free(file);
    return s;
}

static coe_status open_gguf(struct chat_template *c, const char *path)
{
    struct file_map f;
    struct gguf_meta m;
    struct gguf_value v, tokens = { .count = 0 };
    struct gguf_text t;
    int64_t id[2] = { -1, -1 };
    bool more = true;
    COE_TRY(file_map_open(&f, path));
    coe_status s = gguf_meta_begin(&m, f.at ? (const char *)f.at : "", (size_t)f.bytes, path);
    while (!s && !(s = gguf_meta_next(&m, &v, &more)) && more) {
        if (gguf_key_is(&v, "tokenizer.ggml.tokens") && v.array && v.type == GGUF_STRING) tokens = v;
        if (gguf_key_is(&v, "tokenizer.ggml.bos_token_id")) s = gguf_get_int(&v, path, -1, UINT32_MAX, &id[0]);
        if (gguf_key_is(&v, "tokenizer.ggml.eos_token_id")) s = gguf_get_int(&v, path, -1, UINT32_MAX, &id[1]);
        if (!gguf_key_is(&v, "tokenizer.chat_template")) continue;
        s = gguf_get_text(&v, path, &t);
        if (!s) s = set_source(c, PLAIN, t.at, t.n);
    }
    const unsigned char *at = tokens.at;
    for (int64_t i = 0; !s && gguf_next_text(&tokens, &at, &t); i++)
        for (int k = 0; k < 2; k++)
            if (i == id[k]) json_object_set_new(c->tokens, k ? "eos_token" : "bos_token", json_stringn(t.at, t.n));
    file_map_close(&f);
    return s;
}

coe_status chat_template_open(struct chat_template **out, const char *path)
{
    size_t n = strlen(path);
    *out = NULL;
    struct chat_template *c = mem_zalloc("templates", sizeof *c);
    if (!c) return COE_E_NOMEM;
    c->tokens = json_object();
    str_addf(&c->name, "%s: chat template", path);
    coe_status s = c->tokens && !c->name.oom ? COE_OK : coe_fail(COE_E_NOMEM, "%s: no memory", path);
    if (!s && dir_exists(path)) s = open_directory(c, path);
    else if (!s && n > 5 && !strcmp(path + n - 5, ".gguf")) s = open_gguf(c, path);
    else if (!s) s = read_source_file(c, path);
    if (!s && (c->source[PLAIN].n || c->source[WITH_TOOLS].n)) *out = c;
    else chat_template_close(c);
    return s;
}

coe_status chat_template_render(struct chat_template *c, struct str *out, const json_t *variables, const struct tm *now)
{
    const json_t *tools = json_object_get(variables, "tools");
    bool with_tools = json_array_size(tools) > 0;
    int kind = c->source[with_tools].n ? with_tools : !with_tools;
    const char *key;
    json_t *value;
    if (!c->compiled[kind])
        COE_TRY(template_compile(&c->compiled[kind], c->source[kind].at, c->source[kind].n, c->name.at));
    json_t *all = json_copy((json_t *)(uintptr_t)variables); /* shallow: the values stay the caller's */
    if (!all) return coe_fail(COE_E_NOMEM, "%s: no memory", c->name.at);
    json_object_foreach (c->tokens, key, value)
        if (!json_object_get(all, key)) json_object_set(all, key, value);
    coe_status s = template_render(c->compiled[kind], out, all, now);
    json_decref(all);
    return s;
}

void chat_template_close(struct chat_template *c)
{
    if (!c) return;
    for (int i = 0; i < N_TEMPLATES; i++) {
        str_free(&c->source[i]);
        template_free(c->compiled[i]);
    }
    str_free(&c->name);
    json_decref(c->tokens);
    mem_free(c);
}
