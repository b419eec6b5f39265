/* quantize.c — `coe quantize TYPE MODEL -o OUT.gguf`: matrices in fewer bits. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/file.h"
#include "ckpt/gguf.h"
#include "cli/model_args.h"
#include "model/quantize.h"
#include "trace/trace.h"
#include "tensor/quant/quant.h"

#define MAX_EXPERT_TYPES 4096

/* Lower case or upper. */
static coe_status read_type(const char *text, size_t n, const char *what, enum dtype *out)
{
    char name[32] = "";
    if (n < sizeof name) memcpy(name, text, n), name[n] = 0;
    for (int t = 0; t < DT_COUNT; t++)
        if (!strcasecmp(dtype_info[t].name, name) && dtype_can_encode((enum dtype)t)) {
            *out = (enum dtype)t;
            return COE_OK;
        }
    return coe_fail(COE_E_USAGE,
                    "%s %.*s: expected f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, q2_k, q3_k, q4_k, q5_k, q6_k, "
                    "iq4_nl, iq4_xs, tq1_0, tq2_0, mxfp4 or nvfp4",
                    what, (int)COE_MIN(n, (size_t)40), text);
}

/* CLASS=TYPE,CLASS=TYPE… */
static coe_status read_classes(struct quantize_opts *o, const char *text)
{
    while (text && *text) {
        const size_t n = strcspn(text, ",");
        const char *eq = memchr(text, '=', n);
        int class = 0;
        while (class < CLASS_COUNT && !(eq && strlen(class_name[class]) == (size_t)(eq - text) &&
                                        !memcmp(class_name[class], text, (size_t)(eq - text))))
            class ++;
        if (class == CLASS_COUNT)
            return coe_fail(
                COE_E_USAGE,
                "--class %.*s: expected CLASS=TYPE with embedding, attention, dense, expert, shared or head", (int)n,
                text);
        if (class == CLASS_ROUTER || class == CLASS_NORM)
            return coe_fail(COE_E_USAGE, "--class %.*s: routers and norms are never quantised", (int)n, text);
        COE_TRY(read_type(eq + 1, n - (size_t)(eq + 1 - text), "--class", &o->by_class[class]));
        text += n + (text[n] == ',');
    }
    return COE_OK;
}

/* L:E=TYPE; either may be * */
static coe_status read_expert(struct expert_type *x, const char *text)
{
    const char *colon = strchr(text, ':'), *eq = strchr(text, '=');
    char *end_layer, *end_expert;
    if (!colon || !eq || eq < colon) goto wrong;
    const long layer = strtol(text, &end_layer, 10), expert = strtol(colon + 1, &end_expert, 10);
    const bool all_layers = colon == text + 1 && *text == '*', all_experts = eq == colon + 2 && colon[1] == '*';
    if ((!all_layers && (end_layer != colon || colon == text || layer < 0 || layer > INT32_MAX)) ||
        (!all_experts && (end_expert != eq || eq == colon + 1 || expert < 0 || expert > INT32_MAX)))
        goto wrong;
    x->layer = all_layers ? -1 : (int32_t)layer;
    x->expert = all_experts ? -1 : (int32_t)expert;
    return read_type(eq + 1, strlen(eq + 1), "--expert", &x->type);
wrong:
    return coe_fail(COE_E_USAGE, "--expert %s: expected LAYER:EXPERT=TYPE; * stands for all", text);
}

static coe_status check_experts(const struct coe_model *m, const struct quantize_opts *o)
{
    for (size_t i = 0; i < o->n_expert; i++) {
        const struct expert_type *x = &o->expert[i];
        bool fits = x->layer < m->spec.n_layers;
        if (fits && x->layer >= 0)
            fits = m->spec.layer[x->layer].is_moe && x->expert < m->spec.layer[x->layer].moe.n_experts;
        if (!fits) return coe_fail(COE_E_USAGE, "--expert %d:%d: %s has no such expert", x->layer, x->expert, m->path);
    }
    return COE_OK;
}

static json_t *fallbacks_json(const struct quantize_report *r)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->n_fallbacks; i++)
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:I}", "asked", dtype_info[r->fallback[i].asked].name, "got",
                                        dtype_info[r->fallback[i].got].name, "tensors", (json_int_t)r->fallback[i].n));
    return list;
}

static json_t *types_json(const struct quantize_report *r)
{
    json_t *types = json_object();
    for (int t = 0; t < DT_COUNT; t++)
        if (r->by_type[t]) json_object_set_new(types, dtype_info[t].name, json_integer((json_int_t)r->by_type[t]));
    return types;
}

static void print_report(const struct quantize_report *r, const char *out, bool dry, bool json)
{
    char before[32], after[32], one[32];
    if (json) {
        cli_print_json(json_pack("{s:s, s:b, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:I}", "output", out,
                                 "dry_run", dry, "architecture", r->arch, "files", (json_int_t)r->n_files, "tensors",
                                 (json_int_t)r->n_tensors, "bytes_before", (json_int_t)r->bytes_before, "bytes",
                                 (json_int_t)r->bytes, "file_bytes", (json_int_t)r->file_bytes, "weighted",
                                 (json_int_t)r->n_weighted, "types", types_json(r), "fallbacks", fallbacks_json(r),
                                 "overflowed", (json_int_t)r->overflowed));
        return;
    }
    char *first = gguf_file_name(out, 0, r->n_files);
    printf("%s%s", dry ? "would write " : "", first ? first : out);
    if (r->n_files > 1) printf(" and %zu more", r->n_files - 1);
    printf(": %zu tensors, %s (before: %s), architecture %s\n", r->n_tensors, cli_bytes(r->file_bytes, after),
           cli_bytes(r->bytes_before, before), r->arch);
    mem_free(first);
    for (int t = 0; t < DT_COUNT; t++)
        if (r->by_type[t]) printf("  %-8s %s\n", dtype_info[t].name, cli_bytes(r->by_type[t], one));
    if (r->n_weighted) printf("  %zu tensors with importance\n", r->n_weighted);
}

static void print_notes(const struct quantize_report *r, const char *out)
{
    if (*r->why_coe) log_note("%s: architecture coe, for coe alone: %s", out, r->why_coe);
    for (size_t i = 0; i < r->n_fallbacks; i++) {
        const struct fallback *f = &r->fallback[i];
        log_note("%s: %zu tensors have rows that are not whole blocks (%lld values): %s instead of %s", out, f->n,
                 (long long)f->cols, dtype_info[f->got].name, dtype_info[f->asked].name);
    }
    if (r->overflowed)
        log_warn("%s: %llu values are beyond the range of F16 and became infinite; bf16 would hold them", out,
                 (unsigned long long)r->overflowed);
}

static coe_status check_out(const char *in, const char *out)
{
    char a[PATH_MAX], b[PATH_MAX];
    const size_t n = out ? strlen(out) : 0;
    if (!out) return coe_fail(COE_E_USAGE, "-o OUT.gguf is needed: where to write");
    if (n < 6 || strcmp(out + n - 5, ".gguf") || dir_exists(out))
        return coe_fail(COE_E_USAGE, "-o %s: expected a file NAME.gguf; `coe convert` writes directories", out);
    if (realpath(in, a) && realpath(out, b) && !strcmp(a, b))
        return coe_fail(COE_E_USAGE, "%s is the model itself; choose another place for the result", out);
    return COE_OK;
}

/* A trace says what it is in its first bytes. */
static coe_status read_importance(struct imatrix **out, const char *path)
{
    struct file_map m;
    struct trace *t = NULL;
    *out = NULL;
    COE_TRY(file_map_open(&m, path));
    const bool is_trace = m.bytes >= 8 && !memcmp(m.at, "COETRACE", 8);
    file_map_close(&m);
    if (!is_trace) return imatrix_read(out, path);
    COE_TRY(trace_read(&t, path));
    const coe_status s = trace_imatrix(out, t);
    trace_free(t);
    return s;
}

static coe_status run(struct cli *c)
{
    struct expert_type expert[MAX_EXPERT_TYPES];
    struct quantize_opts o = quantize_default();
    struct quantize_report r = { 0 };
    struct coe_model *m = NULL;
    struct imatrix *im = NULL;
    const char *type = cli_arg(c, 0), *out = cli_str(c, "output", NULL), *importance = cli_str(c, "imatrix", NULL);
    const bool dry = cli_flag(c, "dry-run");
    const char *const *list = cli_list(c, "expert", &o.n_expert);
    COE_TRY(read_type(type, strlen(type), "TYPE", &o.type));
    COE_TRY(read_classes(&o, cli_str(c, "class", NULL)));
    if (o.n_expert > MAX_EXPERT_TYPES) return coe_fail(COE_E_USAGE, "--expert: at most %d", MAX_EXPERT_TYPES);
    for (size_t i = 0; i < o.n_expert; i++) COE_TRY(read_expert(&expert[i], list[i]));
    o.expert = expert;
    o.shard_bytes = cli_size(c, "shard-size", 0);
    COE_TRY(check_out(cli_arg(c, 1), out));
    coe_interrupt_install();
    coe_status s = model_open_stored(&m, cli_arg(c, 1));
    if (!s) s = check_experts(m, &o);
    if (!s && importance) s = read_importance(&im, importance);
    o.imatrix = im;
    if (!s) s = model_quantize(m, dry ? NULL : out, &o, &r);
    if (!s) print_notes(&r, out);
    if (!s) print_report(&r, out, dry, cli_flag(c, "json"));
    imatrix_free(im);
    model_close(m);
    return s;
}

static const struct cli_opt opts[] = {
    { "output", 'o', OPT_STR, "OUT.gguf", "the file to write", 0, 0, false },
    { "class", 0, OPT_STR, "CLASS=TYPE,…", "another type for embedding, attention, dense, expert, shared or head", 0, 0,
      false },
    { "expert", 0, OPT_STR, "L:E=TYPE", "another type for expert E of layer L; * stands for all", 0, 0, true },
    { "imatrix", 'i', OPT_STR, "FILE", "importance of columns: a trace with --imatrix, or llama.cpp's imatrix", 0, 0,
      false },
    { "shard-size", 0, OPT_SIZE, "SIZE", "largest file; more become OUT-00001-of-0000N.gguf and so on", 0, 0, false },
    { "dry-run", 0, OPT_FLAG, NULL, "only say what would be written, with exact sizes", 0, 0, false },
    CLI_THREADS,
    CLI_MEMORY,
    CLI_JSON,
};
static const struct verb verb = {
    .usage = "TYPE MODEL -o OUT.gguf",
    .details =
        "TYPE: f32 f16 bf16, q4_0 q4_1 q5_0 q5_1 q8_0, q2_k q3_k q4_k q5_k q6_k, iq4_nl iq4_xs, tq1_0 tq2_0, mxfp4, "
        "nvfp4.\n"
        "Routers, norms and biases stay f32. The head takes q6_k when TYPE is smaller, unless --class says otherwise;\n"
        "rows that are not whole blocks take the next larger type with blocks of 32. Architectures that llama.cpp\n"
        "knows are written for it; anything else gets the architecture \"coe\". The file appears when all is written;\n"
        "after Ctrl-C, a kill or a full disk the same command goes on with the tensors that were finished.",
    .example = "  coe quantize q4_k OLMoE-1B-7B -o olmoe-q4.gguf --class attention=q8_0\n"
               "  coe quantize iq4_xs models/tales -o tales.gguf --imatrix tales.coet",
    .opts = opts,
    .n_opts = COE_COUNT(opts),
    .min_args = 2,
    .max_args = 2,
    .run = run,
};
COE_PART(verb, quantize, .summary = "write a GGUF file with matrices in fewer bits", .impl = &verb)
