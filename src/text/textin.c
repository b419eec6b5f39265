/* textin.c — see textin.h. Bytes are collected in `buffer` until a whole document or line is there. */
#include "text/textin.h"

#include <string.h>

#include "base/input.h"
#include "base/json.h"

#define MAX_DOCUMENT ((size_t)1 << 30)
#define MAX_LINE ((size_t)1 << 26)
#define MAX_STEPS 16

struct text_docs {
    struct input *in;
    struct str buffer;
    size_t at, looked; /* buffer[0..at) is used up; the separator does not begin in buffer[at..looked) */
    bool file_end, jsonl, after_mark;
    struct str field, separator;
    struct str document; /* made from a template */
    uint64_t line;
};

static bool is_jsonl_name(const char *path)
{
    static const char *const packed[] = { ".gz", ".xz", ".zst" };
    size_t n = strlen(path);
    for (size_t i = 0; i < COE_COUNT(packed); i++) {
        size_t k = strlen(packed[i]);
        if (n > k && !memcmp(path + n - k, packed[i], k)) {
            n -= k;
            break;
        }
    }
    return n > 6 && !memcmp(path + n - 6, ".jsonl", 6);
}

coe_status text_docs_open(struct text_docs **out, const char *path, const struct text_docs_opts *opts)
{
    *out = NULL;
    struct text_docs *d = mem_zalloc("documents", sizeof *d);
    if (!d) return COE_E_NOMEM;
    const char *field = opts ? opts->field : NULL,
               *separator = opts && opts->separator ? opts->separator : "<|endoftext|>";
    d->jsonl = field || is_jsonl_name(path);
    str_addz(&d->field, field ? field : "text");
    str_addz(&d->separator, separator);
    coe_status s = str_check(&d->field);
    if (!s) s = str_check(&d->separator);
    if (!s) s = input_open(&d->in, path);
    if (s) text_docs_close(d);
    else *out = d;
    return s;
}

void text_docs_close(struct text_docs *d)
{
    if (!d) return;
    input_close(d->in);
    str_free(&d->buffer);
    str_free(&d->field);
    str_free(&d->separator);
    str_free(&d->document);
    mem_free(d);
}

/* Reads on; bytes that are used up make room first. */
static coe_status more_bytes(struct text_docs *d, size_t limit)
{
    char chunk[1 << 16];
    size_t n;
    if (d->at > d->buffer.n / 2) {
        memmove(d->buffer.at, d->buffer.at + d->at, d->buffer.n - d->at);
        d->buffer.n -= d->at;
        d->looked -= d->at;
        d->at = 0;
    }
    if (d->buffer.n - d->at > limit)
        return coe_fail(COE_E_INPUT, "%s: a %s of more than %zu MB", input_path(d->in), d->jsonl ? "line" : "document",
                        limit >> 20);
    COE_TRY(input_read(d->in, chunk, sizeof chunk, &n));
    if (!n) d->file_end = true;
    str_add(&d->buffer, chunk, n);
    return str_check(&d->buffer);
}

struct stretch {
    const char *text;
    size_t n;
    bool marked; /* the mark follows, not the end of the file */
};

/* The next stretch up to `mark` or the end of the file; *found false behind the last. */
static coe_status next_stretch(struct text_docs *d, struct stretch *out, const char *mark, size_t n_mark, size_t limit,
                               bool *found)
{
    *found = false;
    *out = (struct stretch){ "", 0, false };
    for (;;) {
        const char *at = NULL;
        if (n_mark && d->buffer.n > d->looked)
            at = memmem(d->buffer.at + d->looked, d->buffer.n - d->looked, mark, n_mark);
        size_t end = at ? (size_t)(at - d->buffer.at) : d->buffer.n;
        if (at || (d->file_end && end > d->at)) {
            *out = (struct stretch){ d->buffer.at + d->at, end - d->at, at != NULL };
            d->at = d->looked = at ? end + n_mark : end;
            *found = true;
            return COE_OK;
        }
        if (d->file_end) return COE_OK;
        d->looked = COE_MAX(d->at, d->buffer.n >= n_mark ? d->buffer.n - n_mark + !!n_mark : 0);
        COE_TRY(more_bytes(d, limit));
    }
}

static void trim_line_ends(const char **text, size_t *n, bool front, bool back)
{
    while (front && *n && (**text == '\n' || **text == '\r')) ++*text, --*n;
    while (back && *n && ((*text)[*n - 1] == '\n' || (*text)[*n - 1] == '\r')) --*n;
}

static coe_status next_plain(struct text_docs *d, const char **text, size_t *n, bool *more)
{
    struct stretch part;
    do {
        COE_TRY(next_stretch(d, &part, d->separator.at, d->separator.n, MAX_DOCUMENT, more));
        trim_line_ends(&part.text, &part.n, d->after_mark, part.marked);
        d->after_mark = true;
    } while (*more && !part.n);
    *text = part.text;
    *n = part.n;
    return COE_OK;
}

/* "a.0.b" in a document; NULL when it leads nowhere. */
static const json_t *follow(const json_t *doc, const char *path, size_t n)
{
    for (int steps = 0; doc && steps < MAX_STEPS; steps++) {
        const char *dot = memchr(path, '.', n);
        size_t k = dot ? (size_t)(dot - path) : n;
        if (json_is_array(doc)) {
            size_t i = 0;
            for (size_t c = 0; c < k; c++) {
                if (path[c] < '0' || path[c] > '9' || i > 1u << 20) return NULL;
                i = i * 10 + (size_t)(path[c] - '0');
            }
            doc = json_array_get(doc, i);
        } else {
            doc = json_object_getn(doc, path, k);
        }
        if (!dot) return doc;
        path = dot + 1;
        n -= k + 1;
    }
    return NULL;
}

static coe_status add_field(struct text_docs *d, const json_t *doc, const char *path, size_t n)
{
    const json_t *v = follow(doc, path, n);
    if (json_is_string(v)) {
        str_add(&d->document, json_string_value(v), json_string_length(v));
    } else if (json_is_number(v)) {
        COE_TRY(json_add_text(&d->document, v, 0));
    } else {
        return coe_fail(COE_E_INPUT, "%s: line %llu: field %.*s is %s, expected a string", input_path(d->in),
                        (unsigned long long)d->line, (int)n, path, json_kind(v));
    }
    return COE_OK;
}

static coe_status fill_template(struct text_docs *d, const json_t *doc)
{
    const char *t = d->field.at, *end = t + d->field.n;
    str_clear(&d->document);
    if (!strpbrk(t, "{}")) return add_field(d, doc, t, d->field.n);
    while (t < end) {
        if ((t[0] == '{' && t[1] == '{') || (t[0] == '}' && t[1] == '}')) {
            str_addc(&d->document, *t);
            t += 2;
        } else if (*t == '{') {
            const char *close = strchr(t, '}');
            if (!close) return coe_fail(COE_E_USAGE, "template '%s': { without }", d->field.at);
            COE_TRY(add_field(d, doc, t + 1, (size_t)(close - t - 1)));
            t = close + 1;
        } else {
            str_addc(&d->document, *t++);
        }
    }
    return str_check(&d->document);
}

static coe_status next_json(struct text_docs *d, const char **text, size_t *n, bool *more)
{
    struct stretch line;
    do {
        COE_TRY(next_stretch(d, &line, "\n", 1, MAX_LINE, more));
        if (!*more) return COE_OK;
        d->line++;
        str_clear(&d->document);
        if (strspn(line.text, " \t\r") >= line.n) continue;
        char where[512];
        snprintf(where, sizeof where, "%s: record %llu", input_path(d->in), (unsigned long long)d->line);
        json_t *doc;
        coe_status s = json_read_text(&doc, line.text, line.n, where);
        if (!s) s = fill_template(d, doc);
        json_decref(doc);
        if (s) return s;
    } while (!d->document.n);
    *text = d->document.at;
    *n = d->document.n;
    return COE_OK;
}

coe_status text_docs_next(struct text_docs *d, const char **text, size_t *n, bool *more)
{
    return d->jsonl ? next_json(d, text, n, more) : next_plain(d, text, n, more);
}
