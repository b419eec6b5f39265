/* write.c — the trace file: a head that points to a JSON directory, and zstd frames for each column. docs/formats.md
 * describes it byte by byte.
 *
 *     0 "COETRACE"   8 version u32   12 0 u32   16 offset u64   24 bytes u64   32 xxh3 u64      the head: where the
 *    40 frames of the columns, one after another                                                JSON lies
 *     … JSON */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include <zstd.h>

#include "base/file.h"
#include "trace/trace_in.h"

#define LEVEL 6 /* of zstd: sums are nearly random, counts small after it */

static json_t *layer_json(const struct trace *t, const struct trace_layer *l)
{
    json_t *o = json_pack("{s:i, s:i, s:i, s:i, s:s, s:b, s:f, s:b, s:i, s:i}", "layer", l->layer, "experts",
                          l->n_experts, "top_k", l->top_k, "iterations", l->n_iterations, "score", score_name[l->score],
                          "renormalize", l->renormalize, "scale", l->scale, "shared_gate", l->shared_gate, "groups",
                          l->n_group, "groups_kept", l->groups_kept);
    if (t->kv != COE_KV_F32) json_object_set_new(json_object_get(o, "dtype"), "kv", json_string(model_kv_name(t->kv)));
    if (t->importance) json_object_set_new(o, "expert_ffn", json_integer(l->expert_ffn));
    return o;
}

static json_t *domain_json(const struct trace_domain *d)
{
    json_t *files = json_array();
    for (size_t f = 0; f < d->files.n; f++)
        json_array_append_new(files, json_pack("{s:s, s:I, s:I}", "file", path_base(d->files.at[f].path), "documents",
                                               (json_int_t)d->files.at[f].documents, "tokens",
                                               (json_int_t)d->files.at[f].tokens));
    return json_pack("{s:s, s:I, s:o}", "label", d->label, "tokens", (json_int_t)d->tokens, "files", files);
}

json_t *trace_header_json(const struct trace *t)
{
    json_t *layers = json_array(), *domains = json_array();
    for (int32_t l = 0; l < t->n_layers; l++) json_array_append_new(layers, layer_json(t, &t->layer[l]));
    for (size_t d = 0; d < t->domains.n; d++) json_array_append_new(domains, domain_json(&t->domains.at[d]));
    json_t *o = json_pack("{s:i, s:s, s:{s:s, s:s, s:i, s:i, s:i}, s:s, s:{s:s, s:s}, s:s, s:I, s:s, s:s, s:o, s:o}",
                          "coe_trace", (int)TRACE_VERSION, "level", trace_level_name[t->level], "model", "fingerprint",
                          t->model, "family", t->family, "n_layers", t->n_model_layers, "d_model", t->d_model, "vocab",
                          t->vocab, "tokenizer", t->tokenizer, "dtype", "weights", t->weights, "activations", "F32",
                          "mask", "none", "window", (json_int_t)t->window, "plan", t->plan, "route", t->route, "layers",
                          layers, "domains", domains);
    if (t->kv != COE_KV_F32) json_object_set_new(json_object_get(o, "dtype"), "kv", json_string(model_kv_name(t->kv)));
    if (t->importance) json_object_set_new(o, "importance", json_true());
    return o;
}

coe_status trace_fingerprint(const struct trace *t, char hex[17])
{
    coe_status s = COE_OK;
    XXH3_state_t *h = XXH3_createState();
    json_t *header = trace_header_json(t), *d;
    size_t i;
    char *text = NULL;
    json_array_foreach(json_object_get(header, "domains"), i, d) json_object_del(d, "files");
    text = json_dumps(header, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    if (!h || !text) {
        s = coe_fail(COE_E_NOMEM, "%s: no memory for a fingerprint", t->path);
        goto out;
    }
    XXH3_64bits_reset(h);
    XXH3_64bits_update(h, text, strlen(text));
    for (int c = 0; c < TRACE_N_COLUMNS; c++)
        if (trace_column_bytes(t, c)) XXH3_64bits_update(h, t->column[c], trace_column_bytes(t, c));
    snprintf(hex, 17, "%016" PRIx64, (uint64_t)XXH3_64bits_digest(h));
out:
    free(text);
    json_decref(header);
    XXH3_freeState(h);
    return s;
}

/* ---- writing ---- */

static json_t *hex_json(uint64_t x)
{
    char text[17];
    snprintf(text, sizeof text, "%016" PRIx64, x);
    return json_string(text);
}

/* One column's frames to f; *entry is its row of the directory. */
static coe_status write_column(struct file_out *f, const struct trace *t, int c, void *packed, size_t cap,
                               json_t **entry)
{
    static const char *const shape[] = { "iteration", "expert", "pair", "step", "input", "hidden" };
    const struct trace_column_info *i = &trace_column_info[c];
    const char *from = t->column[c];
    const size_t total = trace_column_bytes(t, c);
    json_t *frames = json_array();
    coe_status s = COE_OK;
    for (size_t at = 0; at < total && !s; at += TRACE_FRAME) {
        const size_t raw = COE_MIN(TRACE_FRAME, total - at), n = ZSTD_compress(packed, cap, from + at, raw, LEVEL);
        if (ZSTD_isError(n)) {
            s = coe_fail(COE_E_FAILED, "%s: column %s: %s", f->path, i->name, ZSTD_getErrorName(n));
            break;
        }
        json_array_append_new(frames,
                              json_pack("{s:I, s:I, s:I, s:o}", "offset", (json_int_t)f->bytes, "bytes", (json_int_t)n,
                                        "raw", (json_int_t)raw, "xxh3", hex_json(XXH3_64bits(from + at, raw))));
        s = file_put(f, packed, n);
    }
    *entry = json_pack("{s:s, s:s, s:s, s:o}", "name", i->name, "type", dtype_info[i->type].name, "per",
                       shape[i->shape], "frames", frames);
    return s;
}

static coe_status write_head(struct file_out *f, uint64_t offset, const char *text)
{
    unsigned char head[TRACE_HEAD] = { 0 };
    const uint32_t version = TRACE_VERSION;
    const uint64_t bytes = strlen(text), hash = XXH3_64bits(text, bytes);
    memcpy(head, TRACE_MAGIC, 8);
    memcpy(head + 8, &version, 4);
    memcpy(head + 16, &offset, 8);
    memcpy(head + 24, &bytes, 8);
    memcpy(head + 32, &hash, 8);
    if (fseek(f->stream, 0, SEEK_SET)) return coe_fail(COE_E_FAILED, "%s: cannot go back to the head", f->path);
    return file_put(f, head, sizeof head);
}

coe_status trace_write(struct trace *t, const char *path)
{
    static const unsigned char empty[TRACE_HEAD];
    struct file_out f;
    json_t *header = trace_header_json(t), *columns = json_array();
    char *text = NULL;
    const size_t cap = ZSTD_compressBound(TRACE_FRAME);
    void *packed = mem_alloc("trace", cap);
    coe_status s = packed && header && columns ? file_begin(&f, path)
                                               : coe_fail(COE_E_NOMEM, "%s: no memory to write a trace", path);
    if (s) goto out;
    s = file_put(&f, empty, sizeof empty);
    for (int c = 0; c < (t->importance ? TRACE_N_COLUMNS : TRACE_INPUT2) && !s; c++) {
        json_t *entry;
        s = write_column(&f, t, c, packed, cap, &entry);
        json_array_append_new(columns, entry);
    }
    json_object_set(header, "columns", columns);
    const uint64_t offset = f.bytes;
    if (!s && !(text = json_dumps(header, JSON_COMPACT | JSON_REAL_PRECISION(17))))
        s = coe_fail(COE_E_NOMEM, "%s: no memory for the directory", path);
    if (!s) s = file_put(&f, text, strlen(text));
    if (!s) s = write_head(&f, offset, text);
    if (s) file_abort(&f);
    else s = file_commit(&f);
out:
    mem_free(packed);
    free(text);
    json_decref(columns);
    json_decref(header);
    return s;
}
