/* tok_json.c — tokenizer.json, read as a stream of events: the vocabulary and the merges go straight into their tables,
 * all else becomes a small document. */
#include <string.h>
#include <yajl/yajl_parse.h>

#include "text/tok_def.h"

#define MAX_DEPTH 48

enum place { IN_DOCUMENT, IN_VOCAB_MAP, IN_VOCAB_LIST, IN_MERGES };

struct reader {
    struct tok_def *def;
    const char *where;
    coe_status status;
    enum place place;
    json_t *stack[MAX_DEPTH]; /* open containers of the document; borrowed from config */
    struct str key[MAX_DEPTH];
    int depth;
    int inner;          /* depth inside a table */
    struct str word[2]; /* of a merge, or the piece of a vocabulary entry */
    int n_words;
    double score;
};

/* Ends the parse; the message is set. */
static int stop(struct reader *r, coe_status s)
{
    r->status = s;
    return 0;
}

static int wrong(struct reader *r, const char *what)
{
    return stop(r, coe_fail(COE_E_INPUT, "%s: %s", r->where, what));
}

static int attach(struct reader *r, json_t *value)
{
    if (!value) return stop(r, coe_fail(COE_E_NOMEM, "%s: no memory", r->where));
    json_t *top = r->depth ? r->stack[r->depth - 1] : NULL;
    int bad;
    if (!top) {
        json_decref(value);
        return wrong(r, "is not an object");
    }
    if (json_is_array(top)) bad = json_array_append_new(top, value);
    else
        bad = json_object_setn_new_nocheck(top, r->key[r->depth - 1].at ? r->key[r->depth - 1].at : "",
                                           r->key[r->depth - 1].n, value);
    return bad ? stop(r, coe_fail(COE_E_NOMEM, "%s: no memory", r->where)) : 1;
}

static int scalar(struct reader *r, json_t *value)
{
    if (r->place == IN_DOCUMENT) return attach(r, value);
    json_decref(value);
    return wrong(r, r->place == IN_MERGES ? "model.merges: expected pairs of strings"
                                          : "model.vocab: expected pieces with numbers");
}

static int on_null(void *user) { return scalar(user, json_null()); }
static int on_boolean(void *user, int value) { return scalar(user, json_boolean(value)); }

static int list_number(struct reader *r, double value)
{
    if (r->inner != 1 || r->n_words != 1) return wrong(r, "model.vocab: expected [piece, score]");
    r->score = value;
    r->n_words = 2;
    return 1;
}

static int on_integer(void *user, long long value)
{
    struct reader *r = user;
    if (r->place == IN_VOCAB_LIST) return list_number(r, (double)value);
    if (r->place != IN_VOCAB_MAP || r->inner) return scalar(r, json_integer(value));
    coe_status s = tok_def_set(r->def, value, r->word[0].at ? r->word[0].at : "", r->word[0].n, 0, TOK_NORMAL,
                               r->where);
    return s ? stop(r, s) : 1;
}

static int on_double(void *user, double value)
{
    struct reader *r = user;
    return r->place == IN_VOCAB_LIST ? list_number(r, value) : scalar(r, json_real(value));
}

static int on_string(void *user, const unsigned char *text, size_t n)
{
    struct reader *r = user;
    const char *t = (const char *)text;
    if (r->place == IN_DOCUMENT || r->place == IN_VOCAB_MAP) return scalar(r, json_stringn_nocheck(t, n));
    if (r->place == IN_MERGES && !r->inner) {
        coe_status s = tok_def_merge_line(r->def, t, n, r->where);
        return s ? stop(r, s) : 1;
    }
    if (r->inner != 1 || r->n_words >= (r->place == IN_MERGES ? 2 : 1))
        return wrong(r, "model: a merge or a piece has too many parts");
    struct str *w = &r->word[r->n_words++];
    str_clear(w);
    str_add(w, t, n);
    return w->oom ? stop(r, COE_E_NOMEM) : 1;
}

static int on_key(void *user, const unsigned char *text, size_t n)
{
    struct reader *r = user;
    struct str *to = r->place == IN_DOCUMENT ? &r->key[r->depth - 1] : &r->word[0];
    if (r->place != IN_DOCUMENT && (r->place != IN_VOCAB_MAP || r->inner))
        return wrong(r, "model: an object where a list belongs");
    str_clear(to);
    str_add(to, (const char *)text, n);
    return to->oom ? stop(r, COE_E_NOMEM) : 1;
}

static bool key_is(const struct reader *r, int level, const char *name)
{
    const struct str *k = &r->key[level];
    return k->n == strlen(name) && !memcmp(k->at ? k->at : "", name, k->n);
}

static int open_container(struct reader *r, json_t *value)
{
    if (!value) return stop(r, coe_fail(COE_E_NOMEM, "%s: no memory", r->where));
    if (r->depth == MAX_DEPTH) {
        json_decref(value);
        return wrong(r, "is nested too deep");
    }
    if (!r->depth) r->def->config = value;
    else if (!attach(r, value)) return 0;
    r->stack[r->depth] = value;
    str_clear(&r->key[r->depth++]);
    return 1;
}

static int on_open(struct reader *r, bool map)
{
    if (r->place != IN_DOCUMENT) {
        r->inner++;
        r->n_words = 0;
        if (map || r->inner > 1 || r->place == IN_VOCAB_MAP) return wrong(r, "model: a table is nested too deep");
        return 1;
    }
    if (r->depth == 2 && json_is_object(r->stack[1]) && key_is(r, 0, "model")) {
        bool vocab = key_is(r, 1, "vocab"), merges = key_is(r, 1, "merges");
        if (merges && map) return wrong(r, "model.merges is an object, expected an array");
        if (vocab || merges) {
            r->place = merges ? IN_MERGES : map ? IN_VOCAB_MAP : IN_VOCAB_LIST;
            r->inner = 0;
            return 1;
        }
    }
    if (!r->depth && !map) return wrong(r, "is an array, expected an object");
    return open_container(r, map ? json_object() : json_array());
}

static int on_close(struct reader *r)
{
    if (r->place == IN_DOCUMENT) {
        r->depth--;
        return 1;
    }
    if (!r->inner) {
        r->place = IN_DOCUMENT;
        return 1;
    }
    r->inner--;
    if (r->n_words != 2) return wrong(r, "model: a merge or a piece has too few parts");
    const char *a = r->word[0].at ? r->word[0].at : "", *b = r->word[1].at ? r->word[1].at : "";
    coe_status s;
    if (r->place == IN_MERGES) {
        s = tok_def_merge(r->def, a, r->word[0].n, b, r->word[1].n, r->where);
    } else {
        s = tok_def_set(r->def, (int64_t)r->def->piece.n, a, r->word[0].n, r->score, TOK_NORMAL, r->where);
        if (!s && !VEC_PUSH(&r->def->score, r->score)) s = COE_E_NOMEM;
    }
    return s ? stop(r, s) : 1;
}

static int on_start_map(void *user) { return on_open(user, true); }
static int on_start_array(void *user) { return on_open(user, false); }
static int on_end(void *user) { return on_close(user); }

static void line_and_column(const char *bytes, size_t at, size_t *line, size_t *column)
{
    *line = *column = 1;
    for (size_t i = 0; i < at; i++) {
        if (bytes[i] == '\n') {
            ++*line;
            *column = 0;
        }
        ++*column;
    }
}

static coe_status parse_error(yajl_handle y, const char *bytes, size_t n, const char *where)
{
    size_t line, column;
    line_and_column(bytes, COE_MIN(yajl_get_bytes_consumed(y), n), &line, &column);
    unsigned char *why = yajl_get_error(y, 0, (const unsigned char *)bytes, n);
    size_t length = why ? strcspn((char *)why, "\n") : 0;
    coe_fail(COE_E_INPUT, "%s: line %zu column %zu: %.*s", where, line, column, (int)length, why ? (char *)why : "");
    yajl_free_error(y, why);
    return COE_E_INPUT;
}

coe_status tok_read_json(struct tok_def *d, const char *bytes, size_t n, const char *where)
{
    static const yajl_callbacks calls = { on_null,      on_boolean, on_integer, on_double,      NULL,  on_string,
                                          on_start_map, on_key,     on_end,     on_start_array, on_end };
    struct reader r = { .def = d, .where = where };
    yajl_handle y = yajl_alloc(&calls, NULL, &r);
    if (!y) return coe_fail(COE_E_NOMEM, "%s: no memory", where);
    if (n >= 3 && !memcmp(bytes, "\xEF\xBB\xBF", 3)) { /* a byte order mark */
        bytes += 3;
        n -= 3;
    }
    yajl_status ys = yajl_parse(y, (const unsigned char *)bytes, n);
    if (ys == yajl_status_ok) ys = yajl_complete_parse(y);
    coe_status s = r.status;
    if (!s && ys != yajl_status_ok) s = parse_error(y, bytes, n, where);
    if (!s && !json_is_object(json_object_get(d->config, "model")))
        s = coe_fail(COE_E_INPUT, "%s: has no \"model\"", where);
    if (!s && !d->piece.n) s = coe_fail(COE_E_INPUT, "%s: model: has no \"vocab\", or an empty one", where);
    yajl_free(y);
    for (int i = 0; i < MAX_DEPTH; i++) str_free(&r.key[i]);
    str_free(&r.word[0]);
    str_free(&r.word[1]);
    return s;
}
