/* json.h — documents: JSON and YAML read into one type (jansson's json_t), typed access with messages that name the
 * place.
 *
 * `where` in the getters is the file (and perhaps the section) the object came from; a message reads
 * "config.json: num_hidden_layers is a string, expected a whole number". */
#ifndef COE_JSON_H
#define COE_JSON_H

#include <jansson.h>

#include "str.h"

/* Parse; COE_E_INPUT with file, line and column. Duplicate keys are refused. *out is a new reference: json_decref
 * it. */
coe_status json_read_text(json_t **out, const char *text, size_t n, const char *where);
coe_status json_read_file(json_t **out, const char *path);
/* YAML (one document; anchors and merges resolved, depth and size limited) into the same type: plain scalars become
 * null, booleans, numbers or strings by the YAML 1.2 core schema. */
coe_status yaml_read_text(json_t **out, const char *text, size_t n, const char *where);
coe_status yaml_read_file(json_t **out, const char *path);
/* Sorted keys off, indent 2, newline at the end; file written atomically. */
coe_status json_write_file(const json_t *doc, const char *path);

/* Optional values: absent or null leaves *out as it is (set your default first); a wrong type or range is
 * COE_E_INPUT. */
coe_status json_get_int(const json_t *object, const char *key, int64_t lo, int64_t hi, int64_t *out, const char *where);
coe_status json_get_i32(const json_t *object, const char *key, int32_t lo, int32_t hi, int32_t *out, const char *where);
coe_status json_get_num(const json_t *object, const char *key, double *out, const char *where);
coe_status json_get_f32(const json_t *object, const char *key, float *out, const char *where);
coe_status json_get_bool(const json_t *object, const char *key, bool *out, const char *where);
/* Borrowed from the document. */
coe_status json_get_str(const json_t *object, const char *key, const char **out, const char *where);
/* As above but absent is an error too. */
coe_status json_need_i32(const json_t *object, const char *key, int32_t lo, int32_t hi, int32_t *out,
                         const char *where);
coe_status json_need_str(const json_t *object, const char *key, const char **out, const char *where);
/* A fingerprint: 16 hexadecimal digits, copied with the zero behind them. */
coe_status json_need_print(const json_t *object, const char *key, char hex[17], bool may_be_empty,
                           const char *where);
/* Appends the text of any value; `flags` are jansson's (JSON_COMPACT, JSON_INDENT(2), …). */
coe_status json_add_text(struct str *out, const json_t *value, size_t flags);
/* "a string", "an object", … for messages. */
const char *json_kind(const json_t *value);
/* COE_E_INPUT naming the first key of `object` that is not in the NULL-terminated list (for our own formats). */
coe_status json_only_keys(const json_t *object, const char *const *keys, const char *where);

#endif
