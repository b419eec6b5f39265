/* tok_steps.c — the normaliser, pre-tokeniser, post-processor and decoder of a tokenizer.json, as steps.
 *
 * A "Sequence" is its members one after another. What the file may say is what the `tokenizers` library writes; a type
 * that is not known here is refused by name. */
#include <string.h>

#include "base/base64.h"
#include "text/tok.h"

#define MAX_NESTING 8
/* ByteLevel's own pattern (GPT-2) and the one of Whitespace */
#define GPT2_PATTERN "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define RUST_WORD "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{200C}\\x{200D}\\x{24B6}-\\x{24E9}\\x{1F130}-\\x{1F149}"
#define WORDS_PATTERN "[" RUST_WORD "]+|[^" RUST_WORD "\\s]+"

static coe_status step_type(const struct tokenizer *t, const json_t *step, int depth, const char *what,
                            const char **type)
{
    *type = NULL;
    if (!step || json_is_null(step)) return COE_OK;
    if (depth > MAX_NESTING) return coe_fail(COE_E_INPUT, "%s: %s: sequences are nested too deep", t->name, what);
    return json_need_str(step, "type", type, t->name);
}

static coe_status unknown_type(const struct tokenizer *t, const char *what, const char *type)
{
    return coe_fail(COE_E_INPUT, "%s: a %s of type %.40s is not supported", t->name, what, type);
}

/* A member that is a string, NULs included. */
static coe_status get_text(const struct tokenizer *t, const json_t *step, const char *key, struct str *out)
{
    const char *text = NULL;
    COE_TRY(json_get_str(step, key, &text, t->name));
    if (text) str_add(out, text, json_string_length(json_object_get(step, key)));
    return str_check(out);
}

static coe_status read_members(struct tokenizer *t, const json_t *step, const char *key, int depth,
                               coe_status (*read)(struct tokenizer *, const json_t *, int))
{
    const json_t *list = json_object_get(step, key);
    if (!json_is_array(list))
        return coe_fail(COE_E_INPUT, "%s: %s is %s, expected an array", t->name, key, json_kind(list));
    for (size_t i = 0; i < json_array_size(list); i++) COE_TRY(read(t, json_array_get(list, i), depth + 1));
    return COE_OK;
}

/* {"Regex": "…"} or {"String": "…"} */
static coe_status read_pattern(const struct tokenizer *t, const json_t *step, struct pattern **out)
{
    const json_t *p = json_object_get(step, "pattern"), *regex = json_object_get(p, "Regex"),
                 *text = json_object_get(p, "String");
    if (json_is_string(regex))
        return pattern_compile(out, json_string_value(regex), json_string_length(regex), t->name);
    if (json_is_string(text) && json_string_length(text))
        return pattern_literal(out, json_string_value(text), json_string_length(text));
    return coe_fail(COE_E_INPUT, "%s: a pattern is %s, expected {\"Regex\": …} or {\"String\": …}", t->name,
                    json_kind(p));
}

static coe_status too_many(const struct tokenizer *t, size_t n)
{
    return n < TOK_MAX_STEPS ? COE_OK : coe_fail(COE_E_INPUT, "%s: more than %d steps", t->name, TOK_MAX_STEPS);
}

static coe_status read_charsmap(struct tokenizer *t, const json_t *step, struct charsmap *map)
{
    struct str code = { 0 }, bytes = { 0 };
    coe_status s = get_text(t, step, "precompiled_charsmap", &code);
    if (!s && !base64_decode(&bytes, code.at ? code.at : "", code.n))
        s = coe_fail(COE_E_INPUT, "%s: precompiled_charsmap is not base64", t->name);
    if (!s) s = charsmap_read(map, bytes.at, bytes.n, t->name);
    str_free(&code);
    str_free(&bytes);
    return s;
}

static coe_status fill_norm_step(struct tokenizer *t, const json_t *step, struct norm_step *n)
{
    switch (n->kind) {
    case NORM_STRIP:
        n->left = n->right = true;
        COE_TRY(json_get_bool(step, "strip_left", &n->left, t->name));
        return json_get_bool(step, "strip_right", &n->right, t->name);
    case NORM_PREPEND: return get_text(t, step, "prepend", &n->text);
    case NORM_REPLACE: COE_TRY(read_pattern(t, step, &n->pattern)); return get_text(t, step, "content", &n->text);
    case NORM_CHARSMAP: return read_charsmap(t, step, &n->map);
    case NORM_SPM:
        COE_TRY(json_get_bool(step, "add_dummy_prefix", &n->dummy_prefix, t->name));
        COE_TRY(json_get_bool(step, "remove_extra_whitespaces", &n->extra_spaces_go, t->name));
        COE_TRY(json_get_bool(step, "escape_whitespaces", &n->escape, t->name));
        COE_TRY(json_get_bool(step, "treat_whitespace_as_suffix", &n->suffix, t->name));
        return read_charsmap(t, step, &n->map);
    default: return COE_OK;
    }
}

coe_status tok_read_normalizer(struct tokenizer *t, const json_t *step, int depth)
{
    static const struct {
        const char *name;
        enum norm_kind kind;
    } kinds[] = { { "NFC", NORM_NFC },
                  { "NFD", NORM_NFD },
                  { "NFKC", NORM_NFKC },
                  { "NFKD", NORM_NFKD },
                  { "Lowercase", NORM_LOWERCASE },
                  { "StripAccents", NORM_STRIP_ACCENTS },
                  { "Nmt", NORM_NMT },
                  { "Strip", NORM_STRIP },
                  { "Prepend", NORM_PREPEND },
                  { "Replace", NORM_REPLACE },
                  { "Precompiled", NORM_CHARSMAP },
                  { "ByteLevel", NORM_BYTE_LEVEL },
                  { "SentencePiece", NORM_SPM } };
    const char *type;
    COE_TRY(step_type(t, step, depth, "normalizer", &type));
    if (!type) return COE_OK;
    if (!strcmp(type, "Sequence")) return read_members(t, step, "normalizers", depth, tok_read_normalizer);
    COE_TRY(too_many(t, t->norm.n));
    for (size_t i = 0; i < COE_COUNT(kinds); i++) {
        if (strcmp(type, kinds[i].name)) continue;
        struct norm_step n = { .kind = kinds[i].kind };
        if (!VEC_PUSH(&t->norm, n)) return COE_E_NOMEM;
        return fill_norm_step(t, step, &t->norm.at[t->norm.n - 1]);
    }
    return unknown_type(t, "normalizer", type);
}

static coe_status read_behavior(const struct tokenizer *t, const json_t *step, enum split_behavior *out)
{
    static const char *const names[] = { "Removed", "Isolated", "Contiguous", "MergedWithPrevious", "MergedWithNext" };
    const char *name = NULL;
    COE_TRY(json_get_str(step, "behavior", &name, t->name));
    if (!name) return COE_OK;
    for (size_t i = 0; i < COE_COUNT(names); i++)
        if (!strcmp(name, names[i])) {
            *out = (enum split_behavior)i;
            return COE_OK;
        }
    return coe_fail(COE_E_INPUT, "%s: behavior '%.40s' is not known", t->name, name);
}

static coe_status fill_byte_level(struct tokenizer *t, const json_t *step, struct pre_step *p)
{
    bool regex = true;
    p->kind = PRE_BYTE_LEVEL;
    p->prefix_space = true;
    COE_TRY(json_get_bool(step, "add_prefix_space", &p->prefix_space, t->name));
    COE_TRY(json_get_bool(step, "use_regex", &regex, t->name));
    return regex ? pattern_compile(&p->pattern, GPT2_PATTERN, strlen(GPT2_PATTERN), t->name) : COE_OK;
}

static coe_status fill_metaspace(struct tokenizer *t, const json_t *step, struct pre_step *p)
{
    const char *scheme = NULL;
    bool prefix = true;
    p->kind = PRE_METASPACE;
    p->split = true;
    p->behavior = SPLIT_WITH_NEXT;
    COE_TRY(json_get_bool(step, "split", &p->split, t->name));
    COE_TRY(json_get_bool(step, "add_prefix_space", &prefix, t->name)); /* files from before there were schemes */
    COE_TRY(json_get_str(step, "prepend_scheme", &scheme, t->name));
    COE_TRY(get_text(t, step, "replacement", &p->replacement));
    if (!p->replacement.n) str_addz(&p->replacement, "\xE2\x96\x81");
    if (!scheme) p->scheme = prefix ? PREPEND_ALWAYS : PREPEND_NEVER;
    else if (!strcmp(scheme, "always")) p->scheme = PREPEND_ALWAYS;
    else if (!strcmp(scheme, "first")) p->scheme = PREPEND_FIRST;
    else if (!strcmp(scheme, "never")) p->scheme = PREPEND_NEVER;
    else return coe_fail(COE_E_INPUT, "%s: prepend_scheme '%.40s' is not known", t->name, scheme);
    COE_TRY(str_check(&p->replacement));
    return pattern_literal(&p->pattern, p->replacement.at, p->replacement.n);
}

static coe_status fill_character(struct pre_step *p, bool (*is_match)(uint32_t), enum split_behavior behavior)
{
    p->kind = PRE_CHARACTER;
    p->is_match = is_match;
    p->behavior = behavior;
    return COE_OK;
}

static coe_status fill_pre_step(struct tokenizer *t, const json_t *step, const char *type, struct pre_step *p)
{
    p->behavior = SPLIT_ISOLATED;
    if (!strcmp(type, "Split")) {
        COE_TRY(read_behavior(t, step, &p->behavior));
        COE_TRY(json_get_bool(step, "invert", &p->invert, t->name));
        return read_pattern(t, step, &p->pattern);
    }
    if (!strcmp(type, "ByteLevel")) return fill_byte_level(t, step, p);
    if (!strcmp(type, "Metaspace")) return fill_metaspace(t, step, p);
    if (!strcmp(type, "WhitespaceSplit")) return fill_character(p, cp_is_space, SPLIT_REMOVED);
    if (!strcmp(type, "Digits")) {
        bool single = false;
        COE_TRY(json_get_bool(step, "individual_digits", &single, t->name));
        return fill_character(p, cp_is_numeric, single ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS);
    }
    if (!strcmp(type, "Punctuation")) {
        COE_TRY(read_behavior(t, step, &p->behavior));
        return fill_character(p, cp_is_punctuation, p->behavior);
    }
    if (!strcmp(type, "Whitespace")) {
        p->behavior = SPLIT_REMOVED;
        p->invert = true;
        return pattern_compile(&p->pattern, WORDS_PATTERN, strlen(WORDS_PATTERN), t->name);
    }
    if (!strcmp(type, "CharDelimiterSplit")) {
        struct str c = { 0 };
        coe_status s = get_text(t, step, "delimiter", &c);
        p->behavior = SPLIT_REMOVED;
        if (!s)
            s = c.n ? pattern_literal(&p->pattern, c.at, c.n)
                    : coe_fail(COE_E_INPUT, "%s: CharDelimiterSplit without a delimiter", t->name);
        str_free(&c);
        return s;
    }
    return unknown_type(t, "pre_tokenizer", type);
}

coe_status tok_read_pre_tokenizer(struct tokenizer *t, const json_t *step, int depth)
{
    const char *type;
    COE_TRY(step_type(t, step, depth, "pre_tokenizer", &type));
    if (!type) return COE_OK;
    if (!strcmp(type, "Sequence")) return read_members(t, step, "pretokenizers", depth, tok_read_pre_tokenizer);
    COE_TRY(too_many(t, t->pre.n));
    struct pre_step p = { 0 };
    for (size_t i = 0; i < t->pre.n; i++) /* a byte level with steps behind it shows them mapped characters */
        if (t->pre.at[i].kind == PRE_BYTE_LEVEL) t->pre.at[i].maps = true;
    if (!VEC_PUSH(&t->pre, p)) return COE_E_NOMEM;
    return fill_pre_step(t, step, type, &t->pre.at[t->pre.n - 1]);
}

static coe_status fill_decoder(struct tokenizer *t, const json_t *step, struct dec_step *d)
{
    int64_t start = 0, stop = 0;
    const char *scheme = NULL;
    switch (d->kind) {
    case DEC_REPLACE: COE_TRY(read_pattern(t, step, &d->pattern)); return get_text(t, step, "content", &d->text);
    case DEC_STRIP:
        COE_TRY(get_text(t, step, "content", &d->text));
        COE_TRY(json_get_int(step, "start", 0, 1 << 20, &start, t->name));
        COE_TRY(json_get_int(step, "stop", 0, 1 << 20, &stop, t->name));
        d->start = (size_t)start;
        d->stop = (size_t)stop;
        return COE_OK;
    case DEC_METASPACE:
        COE_TRY(get_text(t, step, "replacement", &d->text));
        d->drop_first = true;
        COE_TRY(json_get_bool(step, "add_prefix_space", &d->drop_first, t->name));
        COE_TRY(json_get_str(step, "prepend_scheme", &scheme, t->name));
        if (scheme) d->drop_first = strcmp(scheme, "never") != 0;
        if (!d->text.n) str_addz(&d->text, "\xE2\x96\x81");
        return str_check(&d->text);
    case DEC_SPM:
    case DEC_LLAMA:
        COE_TRY(json_get_bool(step, "drop_first", &d->drop_first, t->name));
        return json_get_bool(step, "all_spaces", &d->all_spaces, t->name);
    default: return COE_OK;
    }
}

coe_status tok_read_decoder(struct tokenizer *t, const json_t *step, int depth)
{
    static const struct {
        const char *name;
        enum dec_kind kind;
    } kinds[] = { { "ByteLevel", DEC_BYTE_LEVEL },
                  { "Replace", DEC_REPLACE },
                  { "ByteFallback", DEC_BYTE_FALLBACK },
                  { "Fuse", DEC_FUSE },
                  { "Strip", DEC_STRIP },
                  { "Metaspace", DEC_METASPACE },
                  { "SentencePiece", DEC_SPM },
                  { "Llama", DEC_LLAMA } };
    const char *type;
    COE_TRY(step_type(t, step, depth, "decoder", &type));
    if (!type) return COE_OK;
    if (!strcmp(type, "Sequence")) return read_members(t, step, "decoders", depth, tok_read_decoder);
    COE_TRY(too_many(t, t->dec.n));
    for (size_t i = 0; i < COE_COUNT(kinds); i++) {
        if (strcmp(type, kinds[i].name)) continue;
        struct dec_step d = { .kind = kinds[i].kind };
        if (!VEC_PUSH(&t->dec, d)) return COE_E_NOMEM;
        return fill_decoder(t, step, &t->dec.at[t->dec.n - 1]);
    }
    return unknown_type(t, "decoder", type);
}

static coe_status push_id(struct tokenizer *t, int64_t id, bool before)
{
    if (id < 0 || id >= TOK_MAX_VOCAB)
        return coe_fail(COE_E_INPUT, "%s: post_processor: id %lld", t->name, (long long)id);
    bool ok = before ? VEC_PUSH(&t->before, (int32_t)id) : VEC_PUSH(&t->after, (int32_t)id);
    return ok ? COE_OK : COE_E_NOMEM;
}

/* "single": […, {"SpecialToken": {"id": NAME}}, {"Sequence": …}, …] with the ids in special_tokens[NAME].ids */
static coe_status read_template(struct tokenizer *t, const json_t *step)
{
    const json_t *single = json_object_get(step, "single");
    bool before = true;
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *part = json_array_get(single, i), *token = json_object_get(part, "SpecialToken");
        if (json_object_get(part, "Sequence")) before = false;
        if (!token) continue;
        const char *name = NULL;
        COE_TRY(json_need_str(token, "id", &name, t->name));
        const json_t *ids = json_object_get(json_object_get(json_object_get(step, "special_tokens"), name), "ids");
        if (!json_is_array(ids)) return coe_fail(COE_E_INPUT, "%s: post_processor: '%.60s' has no ids", t->name, name);
        for (size_t k = 0; k < json_array_size(ids); k++)
            COE_TRY(push_id(t, json_integer_value(json_array_get(ids, k)), before));
    }
    return COE_OK;
}

coe_status tok_read_post_processor(struct tokenizer *t, const json_t *step, int depth)
{
    const char *type;
    COE_TRY(step_type(t, step, depth, "post_processor", &type));
    if (!type || !strcmp(type, "ByteLevel")) return COE_OK;
    if (!strcmp(type, "Sequence")) return read_members(t, step, "processors", depth, tok_read_post_processor);
    if (!strcmp(type, "TemplateProcessing")) return read_template(t, step);
    if (strcmp(type, "RobertaProcessing") && strcmp(type, "BertProcessing"))
        return unknown_type(t, "post_processor", type);
    COE_TRY(push_id(t, json_integer_value(json_array_get(json_object_get(step, "cls"), 1)), true));
    return push_id(t, json_integer_value(json_array_get(json_object_get(step, "sep"), 1)), false);
}

void tok_free_steps(struct tokenizer *t)
{
    for (size_t i = 0; i < t->norm.n; i++) {
        str_free(&t->norm.at[i].text);
        pattern_free(t->norm.at[i].pattern);
        charsmap_free(&t->norm.at[i].map);
    }
    for (size_t i = 0; i < t->pre.n; i++) {
        pattern_free(t->pre.at[i].pattern);
        str_free(&t->pre.at[i].replacement);
    }
    for (size_t i = 0; i < t->dec.n; i++) {
        pattern_free(t->dec.at[i].pattern);
        str_free(&t->dec.at[i].text);
    }
    VEC_FREE(&t->norm);
    VEC_FREE(&t->pre);
    VEC_FREE(&t->dec);
    VEC_FREE(&t->before);
    VEC_FREE(&t->after);
}
