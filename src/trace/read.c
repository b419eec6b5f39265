/* read.c — the trace file read back. Everything it says is checked before it is believed: shapes against caps, frames
 * against the file, unpacked sizes against shapes, contents against their xxh3. */
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <xxhash.h>
#include <zstd.h>

#include "base/file.h"
#include "trace/trace_in.h"

#define MAX_FRAMES 65536u
#define MAX_DIRECTORY ((uint64_t)1 << 26)
#define MAX_COLUMNS_BYTES ((uint64_t)1 << 36)
#define MAX_LAYERS 4096
#define MAX_EXPERTS 65536
#define MAX_WIDTH (1 << 20)
#define MAX_DOMAINS 4096
#define MAX_TOKENS ((int64_t)1 << 48) /* of a file; sums of such numbers stay exact */

static uint64_t load64(const unsigned char *p)
{
    uint64_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

struct reader {
    struct trace *t;
    const unsigned char *bytes;
    uint64_t frames_end; /* frames lie in [TRACE_HEAD, frames_end) */
    const char *where;
    uint64_t max_bytes;
};

static coe_status read_layer(struct trace_layer *l, const json_t *o, const char *where)
{
    static const char *const keys[] = { "layer", "experts",     "top_k",  "iterations",  "score",      "renormalize",
                                        "scale", "shared_gate", "groups", "groups_kept", "expert_ffn", NULL };
    const char *score = "softmax";
    COE_TRY(json_only_keys(o, keys, where));
    COE_TRY(json_need_i32(o, "layer", 0, MAX_LAYERS - 1, &l->layer, where));
    COE_TRY(json_need_i32(o, "experts", 1, MAX_EXPERTS, &l->n_experts, where));
    COE_TRY(json_need_i32(o, "top_k", 1, l->n_experts, &l->top_k, where));
    COE_TRY(json_need_i32(o, "iterations", 1, MAX_ITERATIONS, &l->n_iterations, where));
    COE_TRY(json_need_i32(o, "groups", 1, l->n_experts, &l->n_group, where));
    COE_TRY(json_need_i32(o, "groups_kept", 1, l->n_group, &l->groups_kept, where));
    COE_TRY(json_get_i32(o, "expert_ffn", 1, MAX_WIDTH, &l->expert_ffn, where));
    COE_TRY(json_get_bool(o, "renormalize", &l->renormalize, where));
    COE_TRY(json_get_bool(o, "shared_gate", &l->shared_gate, where));
    COE_TRY(json_get_num(o, "scale", &l->scale, where));
    COE_TRY(json_need_str(o, "score", &score, where));
    if (l->n_experts % l->n_group)
        return coe_fail(COE_E_INPUT, "%s: %d experts in %d groups", where, l->n_experts, l->n_group);
    for (size_t i = 0; i < COE_COUNT(score_name); i++)
        if (!strcmp(score, score_name[i])) {
            l->score = (enum score_kind)i;
            return COE_OK;
        }
    return coe_fail(COE_E_INPUT, "%s: score '%s' is unknown", where, score);
}

static coe_status read_layers(struct trace *t, const json_t *list, const char *where)
{
    const size_t n = json_array_size(list);
    char place[600];
    if (!json_is_array(list) || n < 1 || n > MAX_LAYERS)
        return coe_fail(COE_E_INPUT, "%s: layers is %s, expected a list of 1 to %d", where, json_kind(list),
                        MAX_LAYERS);
    COE_TRY(trace_make_layers(t, (int32_t)n));
    for (size_t i = 0; i < n; i++) {
        snprintf(place, sizeof place, "%.500s: layers[%zu]", where, i);
        COE_TRY(read_layer(&t->layer[i], json_array_get(list, i), place));
        if (i && t->layer[i].layer <= t->layer[i - 1].layer)
            return coe_fail(COE_E_INPUT, "%s: layer %d is not behind layer %d", place, t->layer[i].layer,
                            t->layer[i - 1].layer);
    }
    trace_layers_done(t);
    return COE_OK;
}

static coe_status read_file_source(struct trace *t, struct trace_domain *d, const json_t *o, const char *where)
{
    static const char *const keys[] = { "file", "documents", "tokens", NULL };
    const char *path = NULL;
    struct trace_file_source f = { 0 };
    COE_TRY(json_only_keys(o, keys, where));
    COE_TRY(json_need_str(o, "file", &path, where));
    COE_TRY(json_get_int(o, "documents", 0, MAX_TOKENS, &f.documents, where));
    COE_TRY(json_get_int(o, "tokens", 0, MAX_TOKENS, &f.tokens, where));
    f.path = arena_strdup(&t->arena, path);
    return f.path && VEC_PUSH(&d->files, f) ? COE_OK : COE_E_NOMEM;
}

/* The label is checked and its files are read; the columns are made when all labels are known. */
static coe_status read_domain(struct trace *t, const json_t *o, const char *where)
{
    static const char *const keys[] = { "label", "tokens", "files", NULL };
    const char *label = NULL;
    struct trace_domain domain = { 0 };
    COE_TRY(json_only_keys(o, keys, where));
    COE_TRY(json_need_str(o, "label", &label, where));
    COE_TRY(json_get_int(o, "tokens", 0, MAX_TOKENS, &domain.tokens, where));
    for (size_t d = 0; d < t->domains.n; d++)
        if (!strcmp(t->domains.at[d].label, label))
            return coe_fail(COE_E_INPUT, "%s: label '%s' is there twice", where, label);
    domain.label = arena_strdup(&t->arena, label);
    if (!domain.label || !VEC_PUSH(&t->domains, domain)) return COE_E_NOMEM;
    const json_t *files = json_object_get(o, "files"), *file;
    size_t i;
    if (!json_is_array(files))
        return coe_fail(COE_E_INPUT, "%s: files is %s, expected a list", where, json_kind(files));
    json_array_foreach(files, i, file) COE_TRY(read_file_source(t, &t->domains.at[t->domains.n - 1], file, where));
    return COE_OK;
}

static coe_status read_domains(struct trace *t, const json_t *list, const char *where)
{
    char place[600];
    if (!json_is_array(list) || json_array_size(list) > MAX_DOMAINS)
        return coe_fail(COE_E_INPUT, "%s: domains is %s, expected a list of at most %d", where, json_kind(list),
                        MAX_DOMAINS);
    for (size_t i = 0; i < json_array_size(list); i++) {
        snprintf(place, sizeof place, "%.500s: domains[%zu]", where, i);
        COE_TRY(read_domain(t, json_array_get(list, i), place));
    }
    return COE_OK;
}

static coe_status read_model(struct trace *t, const json_t *o, const char *where)
{
    static const char *const keys[] = { "fingerprint", "family", "n_layers", "d_model", "vocab", NULL };
    char place[600];
    const char *family = NULL;
    snprintf(place, sizeof place, "%.500s: model", where);
    COE_TRY(json_only_keys(o, keys, place));
    COE_TRY(json_need_print(o, "fingerprint", t->model, true, place));
    COE_TRY(json_need_str(o, "family", &family, place));
    COE_TRY(json_need_i32(o, "n_layers", 1, MAX_LAYERS, &t->n_model_layers, place));
    COE_TRY(json_need_i32(o, "d_model", 1, INT32_MAX, &t->d_model, place));
    COE_TRY(json_need_i32(o, "vocab", 1, INT32_MAX, &t->vocab, place));
    t->family = arena_strdup(&t->arena, family);
    return t->family ? COE_OK : COE_E_NOMEM;
}

static coe_status expect_text(const json_t *o, const char *key, const char *expected, const char *where)
{
    const char *text = NULL;
    COE_TRY(json_need_str(o, key, &text, where));
    return strcmp(text, expected)
               ? coe_fail(COE_E_INPUT, "%s: %s is '%s'; this program reads '%s'", where, key, text, expected)
               : COE_OK;
}

static coe_status read_header(struct trace *t, const json_t *o, const char *where)
{
    static const char *const keys[] = { "coe_trace", "level",  "model",   "tokenizer", "dtype",      "mask",  "window",
                                        "plan",      "layers", "domains", "columns",   "importance", "route", NULL };
    static const char *const types[] = { "weights", "activations", "kv", NULL };
    const char *weights = NULL, *route = "", *kv = model_kv_name(COE_KV_F32);
    int32_t version = 0;
    COE_TRY(json_only_keys(o, keys, where));
    COE_TRY(json_need_i32(o, "coe_trace", (int32_t)TRACE_VERSION, (int32_t)TRACE_VERSION, &version, where));
    COE_TRY(expect_text(o, "level", trace_level_name[TRACE_COUNTS], where));
    COE_TRY(expect_text(o, "mask", "none", where));
    COE_TRY(json_get_int(o, "window", 1, INT64_MAX, &t->window, where));
    COE_TRY(json_need_print(o, "tokenizer", t->tokenizer, true, where));
    COE_TRY(json_need_print(o, "plan", t->plan, true, where));
    COE_TRY(json_only_keys(json_object_get(o, "dtype"), types, where));
    COE_TRY(json_need_str(json_object_get(o, "dtype"), "weights", &weights, where));
    COE_TRY(expect_text(json_object_get(o, "dtype"), "activations", "F32", where));
    COE_TRY(json_get_str(json_object_get(o, "dtype"), "kv", &kv, where));
    if (!model_kv_by_name(&t->kv, kv))
        return coe_fail(COE_E_INPUT, "%s: keys and values of type '%s'; the types are f32, f16 and q8_0", where, kv);
    COE_TRY(json_get_str(o, "route", &route, where));
    if (!(t->weights = arena_strdup(&t->arena, weights)) || !(t->route = arena_strdup(&t->arena, route)))
        return COE_E_NOMEM;
    COE_TRY(read_model(t, json_object_get(o, "model"), where));
    COE_TRY(json_get_bool(o, "importance", &t->importance, where));
    if (t->importance && t->d_model > MAX_WIDTH)
        return coe_fail(COE_E_INPUT, "%s: d_model is %d, expected at most %d", where, t->d_model, MAX_WIDTH);
    COE_TRY(read_layers(t, json_object_get(o, "layers"), where));
    if (t->layer[t->n_layers - 1].layer >= t->n_model_layers)
        return coe_fail(COE_E_INPUT, "%s: layer %d of a model with %d layers", where, t->layer[t->n_layers - 1].layer,
                        t->n_model_layers);
    return read_domains(t, json_object_get(o, "domains"), where);
}

static coe_status read_frame(struct reader *r, const json_t *o, char *to, size_t left, size_t *got, const char *where)
{
    static const char *const keys[] = { "offset", "bytes", "raw", "xxh3", NULL };
    int64_t offset = -1, bytes = -1, raw = -1;
    const char *hash = NULL;
    COE_TRY(json_only_keys(o, keys, where));
    COE_TRY(json_get_int(o, "offset", TRACE_HEAD, INT64_MAX, &offset, where));
    COE_TRY(json_get_int(o, "bytes", 1, INT64_MAX, &bytes, where));
    COE_TRY(json_get_int(o, "raw", 1, (int64_t)TRACE_FRAME, &raw, where));
    COE_TRY(json_need_str(o, "xxh3", &hash, where));
    if (offset < 0 || bytes < 0 || raw < 0) return coe_fail(COE_E_INPUT, "%s: offset, bytes or raw is missing", where);
    if ((uint64_t)offset > r->frames_end || (uint64_t)bytes > r->frames_end - (uint64_t)offset)
        return coe_fail(COE_E_INPUT, "%s: bytes %lld to %lld lie outside the frames, which end at %llu", where,
                        (long long)offset, (long long)(offset + COE_MIN(bytes, INT64_MAX - offset)),
                        (unsigned long long)r->frames_end);
    if ((size_t)raw > left)
        return coe_fail(COE_E_INPUT, "%s: %lld bytes where the layers leave room for %zu", where, (long long)raw, left);
    const size_t n = ZSTD_decompress(to, (size_t)raw, r->bytes + offset, (size_t)bytes);
    if (ZSTD_isError(n)) return coe_fail(COE_E_INPUT, "%s: damaged: %s", where, ZSTD_getErrorName(n));
    if (n != (size_t)raw)
        return coe_fail(COE_E_INPUT, "%s: unpacks to %zu bytes, expected %lld", where, n, (long long)raw);
    char found[17];
    snprintf(found, sizeof found, "%016" PRIx64, (uint64_t)XXH3_64bits(to, n));
#ifndef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION /* a fuzzer cannot guess hashes */
    if (strcmp(found, hash))
        return coe_fail(COE_E_INPUT, "%s: checksum is %s, expected %.40s: the file is damaged", where, found, hash);
#endif
    *got = n;
    return COE_OK;
}

static coe_status read_column(struct reader *r, const json_t *o, int c)
{
    static const char *const keys[] = { "name", "type", "per", "frames", NULL };
    const struct trace_column_info *i = &trace_column_info[c];
    const json_t *frames = json_object_get(o, "frames");
    const size_t total = trace_column_bytes(r->t, c);
    const char *type = NULL;
    char where[600];
    snprintf(where, sizeof where, "%.500s: column %s", r->where, i->name);
    COE_TRY(json_only_keys(o, keys, where));
    COE_TRY(json_need_str(o, "type", &type, where));
    if (strcmp(type, dtype_info[i->type].name))
        return coe_fail(COE_E_INPUT, "%s: type %s, expected %s", where, type, dtype_info[i->type].name);
    if (!json_is_array(frames) || json_array_size(frames) > MAX_FRAMES)
        return coe_fail(COE_E_INPUT, "%s: frames is %s, expected a list", where, json_kind(frames));
    if (!(r->t->column[c] = mem_zalloc("trace", total))) return COE_E_NOMEM;
    size_t at = 0;
    for (size_t f = 0; f < json_array_size(frames); f++) {
        char place[700];
        size_t got = 0;
        snprintf(place, sizeof place, "%s: frame %zu", where, f);
        COE_TRY(read_frame(r, json_array_get(frames, f), (char *)r->t->column[c] + at, total - at, &got, place));
        at += got;
    }
    return at == total ? COE_OK : coe_fail(COE_E_INPUT, "%s: holds %zu bytes, the layers need %zu", where, at, total);
}

static const json_t *find_column(const json_t *columns, const char *name)
{
    const json_t *o;
    size_t i;
    json_array_foreach(columns, i, o) {
        const char *found = json_string_value(json_object_get(o, "name"));
        if (found && !strcmp(found, name)) return o;
    }
    return NULL;
}

/* All columns together, before any is allocated. */
static coe_status check_size(const struct reader *r)
{
    uint64_t total = 0;
    for (int c = 0; c < TRACE_N_COLUMNS; c++) {
        uint64_t n;
        if (__builtin_mul_overflow((uint64_t)r->t->domains.n, (uint64_t)r->t->stride[trace_column_info[c].shape] * 8,
                                   &n) ||
            __builtin_add_overflow(total, n, &total) || total > r->max_bytes)
            return coe_fail(COE_E_INPUT, "%s: its layers and domains need more than the %llu bytes allowed", r->where,
                            (unsigned long long)r->max_bytes);
    }
    return COE_OK;
}

/* Indices that other code follows must be what they claim. */
static coe_status check_values(const struct reader *r)
{
    const int64_t *token = r->t->column[TRACE_MAX_TOKEN];
    for (size_t i = 0; i < r->t->domains.n * r->t->stride[PER_EXPERT]; i++)
        if (token[i] < -1 || token[i] > MAX_TOKENS)
            return coe_fail(COE_E_INPUT, "%s: column max_token: %lld at value %zu", r->where, (long long)token[i], i);
    for (int c = TRACE_INPUT2; c <= TRACE_HIDDEN2 && r->t->importance; c++) {
        const double *sum = r->t->column[c];
        for (size_t i = 0; i < r->t->domains.n * r->t->stride[trace_column_info[c].shape]; i++)
            if (!(sum[i] >= 0) || isinf(sum[i]))
                return coe_fail(COE_E_INPUT, "%s: column %s: %g at value %zu is no sum of squares", r->where,
                                trace_column_info[c].name, sum[i], i);
    }
    return COE_OK;
}

static coe_status read_columns(struct reader *r, const json_t *columns)
{
    if (!json_is_array(columns))
        return coe_fail(COE_E_INPUT, "%s: columns is %s, expected a list", r->where, json_kind(columns));
    COE_TRY(check_size(r));
    for (int c = 0; c < (r->t->importance ? TRACE_N_COLUMNS : TRACE_INPUT2); c++) {
        const json_t *o = find_column(columns, trace_column_info[c].name);
        if (!o) return coe_fail(COE_E_INPUT, "%s: column %s is missing", r->where, trace_column_info[c].name);
        COE_TRY(read_column(r, o, c));
    }
    return check_values(r);
}

static coe_status read_directory(struct reader *r, json_t **out, size_t n)
{
    uint32_t version = 0, zero = 0;
    *out = NULL;
    if (n < TRACE_HEAD || memcmp(r->bytes, TRACE_MAGIC, 8))
        return coe_fail(COE_E_INPUT, "%s: does not begin like a trace (COETRACE)", r->where);
    memcpy(&version, r->bytes + 8, sizeof version);
    if (version != TRACE_VERSION)
        return coe_fail(COE_E_INPUT, "%s: trace version %u; this program reads version %u", r->where, version,
                        TRACE_VERSION);
    memcpy(&zero, r->bytes + 12, sizeof zero);
    if (zero) return coe_fail(COE_E_INPUT, "%s: bytes 12 to 15 are %u, expected 0", r->where, zero);
    const uint64_t offset = load64(r->bytes + 16), bytes = load64(r->bytes + 24);
    if (offset < TRACE_HEAD || offset > n || bytes > n - offset || bytes > MAX_DIRECTORY)
        return coe_fail(COE_E_INPUT,
                        "%s: the directory should be %llu bytes at %llu, the file has %zu: it is cut or damaged",
                        r->where, (unsigned long long)bytes, (unsigned long long)offset, n);
#ifndef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
    if (XXH3_64bits(r->bytes + offset, (size_t)bytes) != load64(r->bytes + 32))
        return coe_fail(COE_E_INPUT, "%s: checksum of the directory at byte %llu is wrong: the file is damaged",
                        r->where, (unsigned long long)offset);
#endif
    r->frames_end = offset;
    return json_read_text(out, (const char *)r->bytes + offset, (size_t)bytes, r->where);
}

coe_status trace_parse(struct trace **out, const unsigned char *bytes, size_t n, const char *where, uint64_t max_bytes)
{
    struct reader r = { .bytes = bytes, .where = where, .max_bytes = max_bytes };
    json_t *directory = NULL;
    *out = NULL;
    if (!(r.t = trace_make(where))) return COE_E_NOMEM;
    coe_status s = read_directory(&r, &directory, n);
    if (!s) s = read_header(r.t, directory, where);
    if (!s) s = read_columns(&r, json_object_get(directory, "columns"));
    json_decref(directory);
    if (s) trace_free(r.t);
    else *out = r.t;
    return s;
}

coe_status trace_read(struct trace **out, const char *path)
{
    struct file_map m;
    *out = NULL;
    COE_TRY(file_map_open(&m, path));
    coe_status s = trace_parse(out, m.at, (size_t)m.bytes, path, MAX_COLUMNS_BYTES);
    file_map_close(&m);
    return s;
}
