/* export.c — a trace for other programs: NumPy arrays, a table, or lines of JSON. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "trace/trace.h"

static coe_status write_header(const struct trace *t, const char *dir)
{
    char *path = path_join(dir, "header.json");
    json_t *header = trace_header_json(t);
    coe_status s = path && header ? json_write_file(header, path) : COE_E_NOMEM;
    mem_free(path);
    json_decref(header);
    return s;
}

/* layer03.count.npy [domains, iterations, E]; pairs [domains, iterations, E, E] */
static coe_status write_array(const struct trace *t, const char *dir, enum trace_column c, int32_t l)
{
    const struct trace_column_info *i = &trace_column_info[c];
    const struct trace_layer *layer = &t->layer[l];
    const int64_t e = layer->n_experts,
                  iterations = i->shape == PER_STEP ? layer->n_iterations - 1 : layer->n_iterations;
    const int64_t last = i->shape == PER_INPUT ? t->d_model : i->shape == PER_HIDDEN ? layer->expert_ffn : e;
    const int64_t dim[] = { (int64_t)t->domains.n, iterations, e, last };
    const int32_t n_dims = i->shape == PER_ITERATION ? 2 : i->shape == PER_EXPERT ? 3 : 4;
    const enum dtype type = i->type == DT_U64 ? DT_I64 : i->type; /* counts stay far below 2^63 */
    const size_t bytes = trace_count(t, c, l, 0) * (size_t)iterations * (size_t)dtype_info[i->type].bytes;
    char name[64];
    coe_status s = COE_E_NOMEM;
    snprintf(name, sizeof name, "layer%02d.%s.npy", layer->layer, i->name);
    char *path = path_join(dir, name), *data = mem_alloc("export", bytes * t->domains.n + 1);
    if (!path || !data) goto out;
    for (size_t d = 0; d < t->domains.n; d++) memcpy(data + d * bytes, trace_at(t, c, (int32_t)d, l, 0), bytes);
    s = npy_write(path, type, n_dims, dim, data);
out:
    mem_free(data);
    mem_free(path);
    return s;
}

static coe_status export_npy(const struct trace *t, const char *dir)
{
    for (int32_t l = 0; l < t->n_layers; l++)
        for (int c = 0; c < TRACE_N_COLUMNS; c++)
            if (trace_count(t, (enum trace_column)c, l, 0)) COE_TRY(write_array(t, dir, (enum trace_column)c, l));
    return COE_OK;
}

static void add_value(struct str *s, const struct trace *t, enum trace_column c, int32_t d, int32_t l, int32_t it,
                      int32_t e)
{
    const void *at = trace_at(t, c, d, l, it);
    switch (trace_column_info[c].type) {
    case DT_U64: str_addf(s, "%llu", (unsigned long long)((const uint64_t *)at)[e]); break;
    case DT_I64: str_addf(s, "%lld", (long long)((const int64_t *)at)[e]); break;
    case DT_F32: str_addf(s, "%.9g", (double)((const float *)at)[e]); break;
    default: str_addf(s, "%.17g", ((const double *)at)[e]);
    }
}

static void add_text(struct str *s, const char *text)
{
    json_t *v = json_string(text);
    char *quoted = json_dumps(v, JSON_ENCODE_ANY);
    str_addz(s, quoted ? quoted : "\"\"");
    free(quoted);
    json_decref(v);
}

/* Label quoted as CSV does it: quotes doubled. */
static void add_csv_text(struct str *s, const char *text)
{
    str_addc(s, '"');
    for (; *text; text++) str_addf(s, *text == '"' ? "\"\"" : "%c", *text);
    str_addc(s, '"');
}

static void csv_row(struct str *s, const struct trace *t, int32_t d, int32_t l, int32_t it, int32_t e)
{
    add_csv_text(s, t->domains.at[d].label);
    str_addf(s, ",%d,%d,%d", t->layer[l].layer, it, e);
    for (int c = 0; c < TRACE_N_COLUMNS; c++) {
        if (trace_column_info[c].shape != PER_EXPERT) continue;
        str_addc(s, ',');
        add_value(s, t, (enum trace_column)c, d, l, it, e);
    }
    str_addc(s, '\n');
}

static void json_row(struct str *s, const struct trace *t, int32_t d, int32_t l, int32_t it, int32_t e)
{
    str_addz(s, "{\"domain\":");
    add_text(s, t->domains.at[d].label);
    str_addf(s, ",\"layer\":%d,\"iteration\":%d,\"expert\":%d", t->layer[l].layer, it, e);
    for (int c = 0; c < TRACE_N_COLUMNS; c++) {
        if (trace_column_info[c].shape != PER_EXPERT) continue;
        str_addf(s, ",\"%s\":", trace_column_info[c].name);
        add_value(s, t, (enum trace_column)c, d, l, it, e);
    }
    str_addz(s, "}\n");
}

static void csv_head(struct str *s)
{
    str_addz(s, "domain,layer,iteration,expert");
    for (int c = 0; c < TRACE_N_COLUMNS; c++)
        if (trace_column_info[c].shape == PER_EXPERT) str_addf(s, ",%s", trace_column_info[c].name);
    str_addc(s, '\n');
}

static coe_status export_rows(const struct trace *t, const char *dir, const char *name, bool csv)
{
    struct str text = { 0 };
    char *path = path_join(dir, name);
    if (csv) csv_head(&text);
    for (size_t d = 0; d < t->domains.n; d++)
        for (int32_t l = 0; l < t->n_layers; l++)
            for (int32_t it = 0; it < t->layer[l].n_iterations; it++)
                for (int32_t e = 0; e < t->layer[l].n_experts; e++)
                    (csv ? csv_row : json_row)(&text, t, (int32_t)d, l, it, e);
    coe_status s = path ? str_check(&text) : COE_E_NOMEM;
    if (!s) s = file_write(path, text.at ? text.at : "", text.n);
    mem_free(path);
    str_free(&text);
    return s;
}

coe_status trace_export(const struct trace *t, const char *format, const char *dir)
{
    const bool npy = !strcmp(format, "npy"), csv = !strcmp(format, "csv");
    if (!npy && !csv && strcmp(format, "jsonl"))
        return coe_fail(COE_E_USAGE, "--export %s: expected npy, csv or jsonl", format);
    COE_TRY(dir_make(dir));
    COE_TRY(write_header(t, dir));
    return npy ? export_npy(t, dir) : export_rows(t, dir, csv ? "experts.csv" : "experts.jsonl", csv);
}
