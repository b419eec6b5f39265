/* convert.c — `coe convert IN OUT`: storage types, expert layout, directory or GGUF file, a chain around the
 * layers. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cli/model_args.h"
#include "model/adapter.h"
#include "model/convert.h"
#include "model/latent_form.h"
#include "model/projection_form.h"
#include "model/quantize.h"
#include "model/slice_form.h"

static coe_status read_type(const struct cli *c, enum dtype *out)
{
    static const struct {
        const char *name;
        enum dtype type;
    } types[] = { { "f32", DT_F32 }, { "bf16", DT_BF16 }, { "f16", DT_F16 } };
    const char *text = cli_str(c, "dtype", NULL);
    *out = DT_COUNT;
    if (!text) return COE_OK;
    for (size_t i = 0; i < COE_COUNT(types); i++)
        if (!strcmp(types[i].name, text)) *out = types[i].type;
    return *out == DT_COUNT ? coe_fail(COE_E_USAGE, "--dtype %s: expected f32, bf16 or f16", text) : COE_OK;
}

static coe_status read_opts(const struct cli *c, struct convert_opts *o)
{
    const char *gate = cli_str(c, "gate", "independent");
    COE_TRY(read_type(c, &o->type));
    if (strcmp(gate, "independent") && strcmp(gate, "shared"))
        return coe_fail(COE_E_USAGE, "--gate %s: expected independent or shared", gate);
    if (cli_given(c, "gate") && !cli_given(c, "chain")) return coe_fail(COE_E_USAGE, "--gate belongs to --chain");
    if (cli_flag(c, "fuse") && cli_flag(c, "unfuse")) return coe_fail(COE_E_USAGE, "--fuse or --unfuse, not both");
    o->chain = (int32_t)cli_int(c, "chain", 0);
    o->router = cli_str(c, "router", NULL);
    o->shared_gate = !strcmp(gate, "shared");
    o->layout = cli_flag(c, "fuse") ? LAYOUT_FUSED : cli_flag(c, "unfuse") ? LAYOUT_SEPARATE : LAYOUT_AS_IS;
    o->shard_bytes = cli_size(c, "shard-size", 0);
    return COE_OK;
}

static coe_status same_place(const char *in, const char *out)
{
    char a[PATH_MAX], b[PATH_MAX];
    if (!realpath(in, a) || !realpath(out, b) || strcmp(a, b)) return COE_OK;
    return coe_fail(COE_E_USAGE, "%s is the model itself; choose another place for the result", out);
}

static void print_report(const struct convert_report *r, const char *out, bool dry, bool json)
{
    char before[32], after[32];
    if (json) {
        cli_print_json(json_pack("{s:s, s:b, s:I, s:I, s:I, s:I}", "output", out, "dry_run", dry, "tensors",
                                 (json_int_t)r->n_tensors, "bytes_before", (json_int_t)r->bytes_before, "bytes",
                                 (json_int_t)r->bytes, "overflowed", (json_int_t)r->overflowed));
        return;
    }
    printf("%s%s: %zu tensors, %s (before: %s)\n", dry ? "would write " : "", out, r->n_tensors,
           cli_bytes(r->bytes, after), cli_bytes(r->bytes_before, before));
}

static bool is_gguf(const char *out)
{
    const size_t n = strlen(out);
    return n > 5 && !strcmp(out + n - 5, ".gguf");
}

/* Into one file: quantize does it, with plain types. */
static coe_status to_gguf(const struct coe_model *m, const char *out, bool dry, const struct convert_opts *o,
                          struct convert_report *r)
{
    struct quantize_opts q = quantize_default();
    struct quantize_report report;
    q.type = o->type;
    for (int i = 0; i < CLASS_COUNT; i++) q.by_class[i] = o->type;
    q.shard_bytes = o->shard_bytes;
    if (m->adapter)
        return coe_fail(COE_E_USAGE, "%s: --merge-adapter writes a directory; convert that to a GGUF file then", out);
    if (o->chain || o->router || o->layout != LAYOUT_AS_IS)
        return coe_fail(COE_E_USAGE, "%s: --chain, --router, --fuse and --unfuse are for directories", out);
    COE_TRY(model_quantize(m, dry ? NULL : out, &q, &report));
    *r = (struct convert_report){ report.n_tensors, report.bytes_before, report.file_bytes, report.overflowed };
    if (report.n_files > 1)
        log_note("%s: %s %zu files, NAME-00001-of-%05zu.gguf and so on", out, dry ? "would be" : "became",
                 report.n_files, report.n_files);
    if (*report.why_coe) log_note("%s: architecture coe, for coe alone: %s", out, report.why_coe);
    return COE_OK;
}

/* What goes with a change of form: nothing that works tensor by tensor. */
static coe_status check_form(const struct cli *c, const char *out, const struct convert_opts *o, const char *option,
                             const char *its)
{
    if (!is_gguf(out) && !o->chain && !o->router && o->layout == LAYOUT_AS_IS && !o->shard_bytes &&
        !cli_flag(c, "dry-run") && !cli_given(c, "merge-adapter"))
        return COE_OK;
    return coe_fail(COE_E_USAGE, "%s writes a directory and goes with %s and --dtype only", option, its);
}

/* --latent M --group K: weights are factored in F32, so unlike the others this holds the model in memory. */
static coe_status to_latent(struct cli *c, const char *in, const char *out, const struct convert_opts *o)
{
    struct coe_model *m = NULL;
    struct latent_report r;
    COE_TRY(check_form(c, out, o, "--latent", "--group"));
    coe_status s = model_open(&m, in);
    const enum dtype type = o->type == DT_COUNT ? DT_BF16 : o->type;
    if (!s) s = model_to_latent(m, (int32_t)cli_int(c, "latent", 1), (int32_t)cli_int(c, "group", 8), type, out, &r);
    if (!s && cli_flag(c, "json"))
        cli_print_json(json_pack("{s:s, s:f, s:I, s:I}", "output", out, "relative_error", r.error,
                                 "expert_parameters_before", (json_int_t)r.experts_before, "expert_parameters",
                                 (json_int_t)r.experts));
    else if (!s)
        printf("%s: %.2f million parameters of experts (before: %.2f), gate and up matrices to within %.3f%%\n", out,
               (double)r.experts / 1e6, (double)r.experts_before / 1e6, 100 * r.error);
    model_close(m);
    return s;
}

/* --slices N --top-k K, --heads H, likewise */
static coe_status to_slices(struct cli *c, const char *in, const char *out, const struct convert_opts *o)
{
    struct coe_model *m = NULL;
    const int32_t n = (int32_t)cli_int(c, "slices", 0), k = (int32_t)cli_int(c, "top-k", n);
    const struct slices how = { n, k, (int32_t)cli_int(c, "heads", 0) };
    COE_TRY(check_form(c, out, o, n ? "--slices" : "--heads", "--top-k, --heads"));
    coe_status s = model_open(&m, in);
    if (!s) s = model_to_slices(m, &how, o->type == DT_COUNT ? DT_BF16 : o->type, out);
    const bool say = !s && !cli_flag(c, "json");
    if (!s && !say)
        cli_print_json(json_pack("{s:s, s:i, s:i, s:i}", "output", out, "slices", n, "top_k", k, "heads", how.heads));
    if (say && n) printf("%s: every network in %d slices, of which a token takes %d\n", out, n, k);
    if (say && how.heads) printf("%s: a token takes part in %d key heads of every attention\n", out, how.heads);
    model_close(m);
    return s;
}

/* "q,v" → a list */
static json_t *split_names(const char *text)
{
    json_t *list = json_array();
    for (const char *at = text; list && *at;) {
        const size_t n = strcspn(at, ",");
        json_array_append_new(list, json_stringn(at, n));
        at += n + (at[n] == ',');
    }
    return list;
}

/* --projection-experts E --rank R --alpha A --targets LIST, likewise */
static coe_status to_projections(struct cli *c, const char *in, const char *out, const struct convert_opts *o)
{
    struct coe_model *m = NULL;
    const int32_t n = (int32_t)cli_int(c, "projection-experts", 8), rank = (int32_t)cli_int(c, "rank", 16);
    COE_TRY(check_form(c, out, o, "--projection-experts", "--rank, --targets"));
    json_t *how = json_pack("{s:i, s:i, s:o*}", "n", n, "rank", rank, "targets",
                            cli_given(c, "targets") ? split_names(cli_str(c, "targets", "")) : NULL);
    if (!how) return coe_fail(COE_E_NOMEM, "%s", out);
    coe_status s = model_open(&m, in);
    if (!s) s = model_to_projections(m, how, 0, o->type == DT_COUNT ? DT_BF16 : o->type, out);
    if (!s && cli_flag(c, "json")) cli_print_json(json_pack("{s:s, s:O}", "output", out, "projection_experts", how));
    else if (!s) printf("%s: %d experts of rank %d beside each projection\n", out, n, rank);
    model_close(m);
    json_decref(how);
    return s;
}

static coe_status run(struct cli *c)
{
    struct convert_opts o = { 0 };
    struct convert_report r = { 0 };
    struct coe_model *m = NULL;
    const char *in = cli_arg(c, 0), *out = cli_arg(c, 1);
    const bool dry = cli_flag(c, "dry-run");
    COE_TRY(read_opts(c, &o));
    COE_TRY(same_place(in, out));
    if (is_gguf(out) && dir_exists(out)) return coe_fail(COE_E_USAGE, "%s: is a directory", out);
    if (!is_gguf(out)) COE_TRY(cli_check_out_dir(out));
    coe_interrupt_install();
    if (cli_given(c, "group") && !cli_given(c, "latent")) return coe_fail(COE_E_USAGE, "--group belongs to --latent");
    if (cli_given(c, "top-k") && !cli_given(c, "slices")) return coe_fail(COE_E_USAGE, "--top-k belongs to --slices");
    if (cli_given(c, "latent")) return to_latent(c, in, out, &o);
    if (cli_given(c, "projection-experts")) return to_projections(c, in, out, &o);
    if (cli_given(c, "rank") || cli_given(c, "targets"))
        return coe_fail(COE_E_USAGE, "--rank and --targets belong to --projection-experts");
    if (cli_given(c, "slices") || cli_given(c, "heads")) return to_slices(c, in, out, &o);
    coe_status s = model_open_stored(&m, in);
    if (!s && cli_given(c, "merge-adapter")) s = adapter_open(m, cli_str(c, "merge-adapter", NULL));
    if (!s) s = is_gguf(out) ? to_gguf(m, out, dry, &o, &r) : model_convert(m, dry ? NULL : out, &o, &r);
    if (!s && r.overflowed)
        log_warn("%s: %llu values are beyond the range of F16 and became infinite; bf16 would hold them", out,
                 (unsigned long long)r.overflowed);
    if (!s) print_report(&r, out, dry, cli_flag(c, "json"));
    model_close(m);
    return s;
}

static const struct cli_opt opts[] = {
    { "dtype", 0, OPT_STR, "TYPE", "f32, bf16 or f16 (default: as stored)", 0, 0, false },
    { "chain", 0, OPT_INT, "C", "run each layer's experts C times, exact at the start (coe_weight = 0)", 2, 16, false },
    { "gate", 0, OPT_STR, "KIND", "with --chain: independent (a router for each pass, the default) or shared", 0, 0,
      false },
    { "router", 0, OPT_STR, "RULE",
      "route by another rule (coe help route), to be trained on: pre_gated, 'top_p=0.4', …", 0, 0, false },
    { "latent", 0, OPT_INT, "M",
      "experts as latent ones: --group consecutive experts share M rows that their gate and up matrices are made of "
      "(bf16 unless --dtype says else)",
      1, 1 << 24, false },
    { "group", 0, OPT_INT, "K", "with --latent: experts that share (default 8)", 1, 65536, false },
    { "slices", 0, OPT_INT, "N",
      "a dense model's networks as N experts that are added as they are, --top-k of them by a router to be trained", 1,
      1024, false },
    { "top-k", 0, OPT_INT, "K", "with --slices: slices of a token (default all: the same logits)", 1, 1024, false },
    { "heads", 0, OPT_INT, "H",
      "a dense model's key heads, with their query heads, as experts: H of a token by a router to be trained (all of "
      "them: the same logits)",
      1, 1024, false },
    { "projection-experts", 0, OPT_INT, "E",
      "low-rank experts, so many, and a router, to be trained, beside each projection: the same logits until then", 1,
      65536, false },
    { "rank", 0, OPT_INT, "R", "with --projection-experts: of each expert (default 16)", 1, 65536, false },
    { "targets", 0, OPT_STR, "LIST", "with --projection-experts: of q,k,v,o,gate,up,down (default all there are)", 0, 0,
      false },
    { "fuse", 0, OPT_FLAG, NULL, "write all experts of a layer as one tensor, where the family has such a form", 0, 0,
      false },
    { "unfuse", 0, OPT_FLAG, NULL, "write every expert's matrices apart", 0, 0, false },
    { "merge-adapter", 0, OPT_STR, "DIR", "add a LoRA adapter (a PEFT directory) to the weights it is for", 0, 0,
      false },
    { "shard-size", 0, OPT_SIZE, "SIZE", "largest file of weights (default: 5G in a directory, one GGUF file)", 0, 0,
      false },
    { "dry-run", 0, OPT_FLAG, NULL, "only say what would be written", 0, 0, false },
    CLI_JSON,
    CLI_THREADS,
    CLI_MEMORY,
};
static const struct verb verb = {
    .usage = "IN OUT",
    .details =
        "Writes the model IN (a directory or a GGUF file) as the directory OUT or as the file OUT.gguf, tensor by\n"
        "tensor, never holding more than one in memory. OUT appears as a whole when all is written; after Ctrl-C, a "
        "kill\n"
        "or a full disk the same command goes on with the files of weights (of OUT.gguf: the tensors) that were "
        "finished.\n"
        "A file written here turns back into the directory it came from. --chain turns the MoE layers of any model "
        "into chains: the "
        "experts are "
        "kept, each\n"
        "pass gets a copy of the router, and the result computes the same bits until it is trained further.",
    .example = "  coe convert models/tales tales-f32 --dtype f32\n"
               "  coe convert OLMoE-1B-7B olmoe-chain --chain 2\n"
               "  coe convert OLMoE-1B-7B olmoe-pre-gated --router pre_gated\n"
               "  coe convert SmolLM2-135M smol-heads --heads 2\n"
               "  coe convert OLMoE-1B-7B olmoe-dynmole --projection-experts 8 --targets q,v\n"
               "  coe convert OLMoE-1B-7B olmoe-tuned --merge-adapter runs/tuned/adapter",
    .opts = opts,
    .n_opts = COE_COUNT(opts),
    .min_args = 2,
    .max_args = 2,
    .run = run,
};
COE_PART(verb, convert, .summary = "change storage type, layout, chain, router or experts; merge an adapter",
         .impl = &verb)
