/* tokenize.c — `coe tokenize MODEL|FILE`: text to ids, ids to text. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/base64.h"
#include "cli/cli.h"
#include "text/text.h"

static coe_status read_stdin(struct str *out)
{
    char buffer[1 << 16];
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, stdin)) > 0;) str_add(out, buffer, n);
    if (ferror(stdin)) return coe_fail(COE_E_INPUT, "cannot read standard input: %s", strerror(errno));
    return str_check(out);
}

static void add_ids(struct str *out, const struct ids *ids)
{
    char text[16];
    str_addc(out, '[');
    for (size_t i = 0; i < ids->n; i++) {
        int n = snprintf(text, sizeof text, i ? ", %d" : "%d", ids->at[i]);
        str_add(out, text, (size_t)n);
    }
    str_addc(out, ']');
}

/* A JSON string of bytes; what is not UTF-8 shows as U+FFFD. */
static coe_status add_string(struct str *out, const struct str *bytes)
{
    struct str text = { 0 };
    utf8_lossy(&text, bytes->at ? bytes->at : "", bytes->n);
    json_t *s = text.oom ? NULL : json_stringn(text.at ? text.at : "", text.n);
    coe_status st = s ? json_add_text(out, s, 0) : COE_E_NOMEM;
    json_decref(s);
    str_free(&text);
    return st;
}

static coe_status ids_of_json(const struct tokenizer *t, struct ids *ids, const json_t *list)
{
    const int32_t vocab = tokenizer_vocab_size(t);
    if (!json_is_array(list))
        return coe_fail(COE_E_INPUT, "standard input is %s, expected an array of ids", json_kind(list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v))
            return coe_fail(COE_E_INPUT, "id %zu of the list is %s, expected a whole number", i, json_kind(v));
        if (json_integer_value(v) < 0 || json_integer_value(v) >= vocab)
            return coe_fail(COE_E_INPUT, "id %zu of the list is %lld, outside 0 … %d", i,
                            (long long)json_integer_value(v), vocab - 1);
        if (!VEC_PUSH(ids, (int32_t)json_integer_value(v))) return COE_E_NOMEM;
    }
    return COE_OK;
}

/* {"text" or "bytes_b64", "add_special"} → {"ids", "decoded"} */
static coe_status answer_text(const struct tokenizer *t, const json_t *request, struct str *out)
{
    struct str bytes = { 0 }, decoded = { 0 };
    struct ids ids = { 0 };
    const json_t *text = json_object_get(request, "text"), *code = json_object_get(request, "bytes_b64");
    bool special = true;
    coe_status s = json_get_bool(request, "add_special", &special, "request");
    if (json_is_string(text)) str_add(&bytes, json_string_value(text), json_string_length(text));
    else if (!s && (!json_is_string(code) || !base64_decode(&bytes, json_string_value(code), json_string_length(code))))
        s = coe_fail(COE_E_INPUT, "a request has neither \"text\" nor \"bytes_b64\" nor \"ids\"");
    if (!s) s = str_check(&bytes);
    if (!s) s = tokenizer_encode(t, &ids, bytes.at ? bytes.at : "", bytes.n, special);
    if (!s) s = tokenizer_decode(t, &decoded, ids.at, ids.n, false);
    if (!s) {
        str_addz(out, "{\"ids\": ");
        add_ids(out, &ids);
        str_addz(out, ", \"decoded\": ");
        s = add_string(out, &decoded);
        str_addz(out, "}\n");
    }
    str_free(&bytes);
    str_free(&decoded);
    VEC_FREE(&ids);
    return s;
}

/* {"ids", "stream": true} → {"pieces", "flush"} */
static coe_status answer_stream(const struct tokenizer *t, const struct ids *ids, struct str *out)
{
    struct decode_stream *d = NULL;
    struct str piece = { 0 };
    coe_status s = decode_stream_open(&d, t, false);
    str_addz(out, "{\"pieces\": [");
    for (size_t i = 0; i < ids->n && !s; i++) {
        str_clear(&piece);
        if (i) str_addz(out, ", ");
        s = decode_stream_push(d, &piece, ids->at[i]);
        if (!s) s = add_string(out, &piece);
    }
    str_clear(&piece);
    if (!s) s = decode_stream_flush(d, &piece);
    str_addz(out, "], \"flush\": ");
    if (!s) s = add_string(out, &piece);
    str_addz(out, "}\n");
    decode_stream_close(d);
    str_free(&piece);
    return s;
}

/* {"ids"} → {"decoded"} */
static coe_status answer_ids(const struct tokenizer *t, const json_t *request, struct str *out)
{
    struct ids ids = { 0 };
    struct str text = { 0 };
    coe_status s = ids_of_json(t, &ids, json_object_get(request, "ids"));
    if (!s && json_is_true(json_object_get(request, "stream"))) {
        s = answer_stream(t, &ids, out);
    } else if (!s) {
        s = tokenizer_decode(t, &text, ids.at, ids.n, false);
        str_addz(out, "{\"decoded\": ");
        if (!s) s = add_string(out, &text);
        str_addz(out, "}\n");
    }
    VEC_FREE(&ids);
    str_free(&text);
    return s;
}

static coe_status answer_line(const struct tokenizer *t, const char *line, size_t n, size_t number)
{
    char where[64];
    struct str out = { 0 };
    json_t *request = NULL;
    snprintf(where, sizeof where, "request %zu", number);
    coe_status s = json_read_text(&request, line, n, where);
    if (!s) s = json_object_get(request, "ids") ? answer_ids(t, request, &out) : answer_text(t, request, &out);
    json_decref(request);
    if (!s) s = str_check(&out);
    if (!s) fwrite(out.at, 1, out.n, stdout);
    str_free(&out);
    return s;
}

static coe_status answer_lines(const struct tokenizer *t)
{
    char *line = NULL;
    size_t cap = 0, number = 0;
    coe_status s = COE_OK;
    for (ssize_t n; !s && (n = getline(&line, &cap, stdin)) >= 0;) {
        number++;
        if (strspn(line, " \t\r\n") < (size_t)n) s = answer_line(t, line, (size_t)n, number);
        fflush(stdout);
    }
    free(line); /* getline's own */
    return s;
}

static coe_status decode_stdin(const struct tokenizer *t, const struct str *input)
{
    json_t *list = NULL;
    struct ids ids = { 0 };
    struct str text = { 0 };
    coe_status s = json_read_text(&list, input->at ? input->at : "", input->n, "standard input");
    if (!s) s = ids_of_json(t, &ids, list);
    if (!s) s = tokenizer_decode(t, &text, ids.at, ids.n, false);
    if (!s && text.n) fwrite(text.at, 1, text.n, stdout);
    json_decref(list);
    VEC_FREE(&ids);
    str_free(&text);
    return s;
}

static coe_status encode_stdin(const struct tokenizer *t, const struct str *input, bool special, bool json)
{
    struct ids ids = { 0 };
    struct str out = { 0 };
    coe_status s = tokenizer_encode(t, &ids, input->at ? input->at : "", input->n, special);
    if (!s && json) add_ids(&out, &ids);
    for (size_t i = 0; i < ids.n && !json && !s; i++) {
        struct str text = { 0 };
        s = tokenizer_decode(t, &text, &ids.at[i], 1, false);
        str_addf(&out, "%7d  ", ids.at[i]);
        if (!s) s = add_string(&out, &text);
        if (i + 1 < ids.n) str_addc(&out, '\n');
        str_free(&text);
    }
    if (!s) s = str_check(&out);
    if (!s && out.n) printf("%s\n", out.at);
    VEC_FREE(&ids);
    str_free(&out);
    return s;
}

static coe_status run(struct cli *c)
{
    struct tokenizer *t = NULL;
    struct str input = { 0 };
    coe_status s = tokenizer_open(&t, cli_arg(c, 0));
    if (!s && cli_flag(c, "jsonl")) {
        s = answer_lines(t);
    } else if (!s) {
        s = read_stdin(&input);
        if (!s)
            s = cli_flag(c, "decode") ? decode_stdin(t, &input)
                                      : encode_stdin(t, &input, !cli_flag(c, "no-special"), cli_flag(c, "json"));
    }
    str_free(&input);
    tokenizer_close(t);
    return s;
}

static const struct cli_opt opts[] = {
    { "json", 'j', OPT_FLAG, NULL, "print the ids as a JSON array", 0, 0, false },
    { "no-special", 0, OPT_FLAG, NULL, "without the tokens around a text (BOS, EOS)", 0, 0, false },
    { "decode", 'd', OPT_FLAG, NULL, "read a JSON array of ids, print their text", 0, 0, false },
    { "jsonl", 0, OPT_FLAG, NULL, "answer requests, one JSON object a line", 0, 0, false },
};
static const struct verb verb = {
    .usage = "MODEL|FILE",
    .details =
        "Reads text on standard input and prints its token ids; FILE is a tokenizer.json, tokenizer.model or .gguf.\n"
        "With --jsonl: {\"text\" or \"bytes_b64\", \"add_special\"} is answered by {\"ids\", \"decoded\"},\n"
        "{\"ids\"} by {\"decoded\"}, and {\"ids\", \"stream\": true} by {\"pieces\", \"flush\"}: the text after each\n"
        "id, whole characters only.",
    .example = "  echo 'Once upon a time' | coe tokenize models/tales --json",
    .opts = opts,
    .n_opts = COE_COUNT(opts),
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
COE_PART(verb, tokenize, .summary = "text to token ids and back", .impl = &verb)
