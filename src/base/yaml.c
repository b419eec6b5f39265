/* yaml.c — libyaml events into jansson values. Depth, node count and alias expansion are limited, so a small hostile
 * file cannot grow into a large document. */
#include <yaml.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "json.h"

#define MAX_DEPTH 64
#define MAX_NODES 200000
#define MAX_YAML_BYTES ((uint64_t)16 << 20)

struct reader {
    yaml_parser_t parser;
    const char *where;
    json_t *anchors; /* name → value */
    int nodes;
};

static coe_status fail_at(const struct reader *r, const yaml_mark_t *m, const char *what)
{
    return coe_fail(COE_E_INPUT, "%s: line %zu column %zu: %s", r->where, m->line + 1, m->column + 1, what);
}

static coe_status next_event(struct reader *r, yaml_event_t *e)
{
    if (yaml_parser_parse(&r->parser, e)) return COE_OK;
    return fail_at(r, &r->parser.problem_mark, r->parser.problem ? r->parser.problem : "not YAML");
}

static bool is_one_of(const char *s, const char *const *words)
{
    for (; *words; words++)
        if (!strcmp(s, *words)) return true;
    return false;
}

/* Plain scalars by the YAML 1.2 core schema; quoted ones are strings. */
static json_t *scalar_value(const yaml_event_t *e)
{
    const char *s = (const char *)e->data.scalar.value;
    size_t n = e->data.scalar.length;
    if (e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && strlen(s) == n) {
        static const char *const nulls[] = { "", "~", "null", "Null", "NULL", NULL };
        static const char *const yes[] = { "true", "True", "TRUE", NULL };
        static const char *const no[] = { "false", "False", "FALSE", NULL };
        if (is_one_of(s, nulls)) return json_null();
        if (is_one_of(s, yes)) return json_true();
        if (is_one_of(s, no)) return json_false();
        if (strspn(s, "+-.0123456789eE") == n && strpbrk(s, "0123456789")) {
            char *end;
            errno = 0;
            long long i = strtoll(s, &end, 10);
            if (!*end && !errno) return json_integer(i);
            double x = strtod(s, &end);
            if (!*end && isfinite(x)) return json_real(x);
        }
    }
    return json_stringn(s, n);
}

static coe_status read_node(struct reader *r, yaml_event_t *e, int depth, json_t **out);

static coe_status keep_anchor(struct reader *r, const yaml_char_t *anchor, json_t *value)
{
    if (anchor && json_object_set(r->anchors, (const char *)anchor, value))
        return coe_fail(COE_E_NOMEM, "%s: anchors", r->where);
    return COE_OK;
}

static size_t count_nodes(const json_t *v)
{
    size_t n = 1, i;
    const char *key;
    json_t *item;
    if (json_is_array(v)) {
        json_array_foreach((json_t *)(uintptr_t)v, i, item) n += count_nodes(item);
    } else if (json_is_object(v)) {
        json_object_foreach((json_t *)(uintptr_t)v, key, item) n += count_nodes(item);
    }
    return n;
}

static coe_status read_sequence(struct reader *r, int depth, json_t *array)
{
    for (;;) {
        yaml_event_t e;
        COE_TRY(next_event(r, &e));
        if (e.type == YAML_SEQUENCE_END_EVENT) {
            yaml_event_delete(&e);
            return COE_OK;
        }
        json_t *item = NULL;
        coe_status s = read_node(r, &e, depth + 1, &item);
        yaml_event_delete(&e);
        if (s) return s;
        if (json_array_append_new(array, item)) return coe_fail(COE_E_NOMEM, "%s: list", r->where);
    }
}

static coe_status read_mapping(struct reader *r, int depth, json_t *object)
{
    for (;;) {
        yaml_event_t e;
        COE_TRY(next_event(r, &e));
        if (e.type == YAML_MAPPING_END_EVENT) {
            yaml_event_delete(&e);
            return COE_OK;
        }
        yaml_mark_t mark = e.start_mark;
        if (e.type != YAML_SCALAR_EVENT || strlen((char *)e.data.scalar.value) != e.data.scalar.length) {
            yaml_event_delete(&e);
            return fail_at(r, &mark, "a key must be a plain word");
        }
        char *key = strdup((char *)e.data.scalar.value);
        yaml_event_delete(&e);
        if (!key) return coe_fail(COE_E_NOMEM, "%s: key", r->where);
        json_t *value = NULL;
        coe_status s = next_event(r, &e);
        if (!s) {
            s = read_node(r, &e, depth + 1, &value);
            yaml_event_delete(&e);
        }
        if (!s && !strcmp(key, "<<")) {
            if (!json_is_object(value)) s = fail_at(r, &mark, "<< takes a mapping");
            else json_object_update_missing(object, value);
            json_decref(value);
        } else if (!s && json_object_get(object, key)) {
            s = fail_at(r, &mark, "this key stands here twice");
            json_decref(value);
        } else if (!s && json_object_set_new(object, key, value)) {
            s = coe_fail(COE_E_INPUT, "%s: line %zu: key is not UTF-8", r->where, mark.line + 1);
        }
        free(key);
        if (s) return s;
    }
}

static coe_status read_node(struct reader *r, yaml_event_t *e, int depth, json_t **out)
{
    if (depth > MAX_DEPTH) return fail_at(r, &e->start_mark, "nested too deep");
    if (++r->nodes > MAX_NODES) return fail_at(r, &e->start_mark, "document too large");
    json_t *v = NULL;
    coe_status s = COE_OK;
    switch (e->type) {
    case YAML_SCALAR_EVENT:
        v = scalar_value(e);
        if (!v) return fail_at(r, &e->start_mark, "text is not UTF-8");
        s = keep_anchor(r, e->data.scalar.anchor, v);
        break;
    case YAML_SEQUENCE_START_EVENT:
        v = json_array();
        s = v ? read_sequence(r, depth, v) : coe_fail(COE_E_NOMEM, "%s: list", r->where);
        if (!s) s = keep_anchor(r, e->data.sequence_start.anchor, v);
        break;
    case YAML_MAPPING_START_EVENT:
        v = json_object();
        s = v ? read_mapping(r, depth, v) : coe_fail(COE_E_NOMEM, "%s: mapping", r->where);
        if (!s) s = keep_anchor(r, e->data.mapping_start.anchor, v);
        break;
    case YAML_ALIAS_EVENT: {
        const json_t *target = json_object_get(r->anchors, (char *)e->data.alias.anchor);
        if (!target) return fail_at(r, &e->start_mark, "alias of an anchor that is not defined");
        r->nodes += (int)COE_MIN(count_nodes(target), (size_t)MAX_NODES);
        if (r->nodes > MAX_NODES) return fail_at(r, &e->start_mark, "aliases expand to too large a document");
        v = json_deep_copy(target);
        if (!v) s = coe_fail(COE_E_NOMEM, "%s: alias", r->where);
        break;
    }
    default: return fail_at(r, &e->start_mark, "unexpected end or structure");
    }
    if (s) json_decref(v);
    else *out = v;
    return s;
}

static coe_status skip_to_root(struct reader *r, yaml_event_t *e)
{
    for (;;) {
        COE_TRY(next_event(r, e));
        if (e->type == YAML_STREAM_END_EVENT) {
            yaml_event_delete(e);
            return coe_fail(COE_E_INPUT, "%s: is empty", r->where);
        }
        if (e->type != YAML_STREAM_START_EVENT && e->type != YAML_DOCUMENT_START_EVENT) return COE_OK;
        yaml_event_delete(e);
    }
}

static coe_status check_end(struct reader *r)
{
    for (;;) {
        yaml_event_t e;
        COE_TRY(next_event(r, &e));
        yaml_event_type_t type = e.type;
        yaml_mark_t mark = e.start_mark;
        yaml_event_delete(&e);
        if (type == YAML_STREAM_END_EVENT) return COE_OK;
        if (type != YAML_DOCUMENT_END_EVENT) return fail_at(r, &mark, "a second document in one file");
    }
}

coe_status yaml_read_text(json_t **out, const char *text, size_t n, const char *where)
{
    struct reader r = { .where = where };
    *out = NULL;
    if (!yaml_parser_initialize(&r.parser)) return coe_fail(COE_E_NOMEM, "%s: YAML parser", where);
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, n);
    coe_status s = COE_OK;
    yaml_event_t e;
    r.anchors = json_object();
    if (!r.anchors) s = coe_fail(COE_E_NOMEM, "%s: anchors", where);
    if (!s) s = skip_to_root(&r, &e);
    if (!s) {
        s = read_node(&r, &e, 0, out);
        yaml_event_delete(&e);
    }
    if (!s) s = check_end(&r);
    if (s) {
        json_decref(*out);
        *out = NULL;
    }
    json_decref(r.anchors);
    yaml_parser_delete(&r.parser);
    return s;
}

coe_status yaml_read_file(json_t **out, const char *path)
{
    struct str text = { 0 };
    *out = NULL;
    coe_status s = file_read(&text, path, MAX_YAML_BYTES);
    if (!s) s = yaml_read_text(out, text.at ? text.at : "", text.n, path);
    str_free(&text);
    return s;
}
