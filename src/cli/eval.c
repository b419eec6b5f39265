/* eval.c — `coe eval ppl`: how well a model predicts text; `coe eval harm`: what plans cost beside the unedited model;
 * `coe eval oracle` is eval_oracle.c, `coe eval routes` eval_routes.c. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "cli/eval_oracle.h"
#include "cli/eval_routes.h"
#include "cli/model_args.h"
#include "plan/measure.h"

static struct measure_opts window_opts(const struct cli *c)
{
    return (struct measure_opts){ .window = cli_int(c, "window", 0),
                                  .stride = cli_int(c, "stride", 0),
                                  .batch = (int32_t)cli_int(c, "batch", 0) };
}

/* ---- ppl ---- */

static double per_second(const struct measure *r) { return r->seconds > 0 ? (double)r->processed / r->seconds : 0; }

static json_t *result_json(const struct measure *r)
{
    return json_pack("{s:I, s:I, s:f, s:f, s:f, s:f}", "tokens", (json_int_t)r->tokens, "bytes", (json_int_t)r->bytes,
                     "nats_per_token", measure_loss(r), "perplexity", exp(measure_loss(r)), "bits_per_byte",
                     measure_bits_per_byte(r), "tokens_per_second", per_second(r));
}

static void print_result(const char *name, const struct measure *r)
{
    printf("%-28s %10lld %10llu %12.4f %12.4f %14.4f\n", name, (long long)r->tokens, (unsigned long long)r->bytes,
           measure_loss(r), exp(measure_loss(r)), measure_bits_per_byte(r));
}

static void add(struct measure *total, const struct measure *r)
{
    total->tokens += r->tokens;
    total->bytes += r->bytes;
    total->nats += r->nats;
    total->seconds += r->seconds;
    total->processed += r->processed;
}

static void print_forms(const struct coe_model *m, const struct measure_opts *o)
{
    const char *form = model_mla_name(m, o->mla);
    if (form) printf("mla %s  ", form);
    printf("kv %s  math %s  ", model_kv_name(o->kv), model_math_name(o->math));
}

static void print_head(const struct coe_model *m, const struct measure_opts *o, const char *begins)
{
    char print[17];
    tokenizer_fingerprint(m->tokenizer, print);
    printf("model %s  tokenizer %s  ", m->path, print);
    print_forms(m, o);
    printf("window %lld  stride %lld  begins with: %s\n%-28s %10s %10s %12s %12s %14s\n", (long long)o->window,
           (long long)o->stride, begins, "file", "tokens", "bytes", "nats/token", "perplexity", "bits per byte");
}

static coe_status measure_file(struct measure *out, json_t *list, struct cli *c, struct coe_model *m, int i,
                               const struct measure_opts *o)
{
    struct measured_text t;
    struct route_hook *const hook[] = { m->hook };
    const char *path = cli_arg(c, i);
    COE_TRY(measured_text_read(&t, m, path, cli_int(c, "tokens", 0)));
    if (i == 2 && !cli_flag(c, "json")) print_head(m, o, t.begins);
    coe_status s = measure_text(out, m, hook, 1, &t, o);
    if (!s) {
        json_t *row = result_json(out);
        json_object_set_new(row, "file", json_string(path));
        json_object_set_new(row, "documents", json_integer(t.n_docs));
        json_object_set_new(row, "begins", json_string(t.begins));
        json_array_append_new(list, row);
        if (!cli_flag(c, "json")) print_result(path_base(path), out);
    }
    measured_text_free(&t);
    return s;
}

static coe_status run_ppl(struct cli *c)
{
    struct coe_model *m = NULL;
    struct measure_opts o = window_opts(c);
    struct measure total = { 0 };
    json_t *files = json_array();
    char print[17];
    size_t n_plans;
    (void)cli_list(c, "plan", &n_plans);
    coe_status s = n_plans > 1 ? coe_fail(COE_E_USAGE, "ppl measures one plan; for several: coe eval harm")
                               : cli_open_text_model(c, 1, &m);
    if (!s) s = cli_mla(c, m, &o.mla);
    if (!s) s = cli_kv(c, &o.kv);
    if (!s) s = cli_math(c, &o.math);
    if (!s && !o.stride)
        o.stride = COE_MAX(1, (o.window ? o.window : COE_MIN(m->spec.max_positions, (int64_t)1024)) / 2);
    if (!s) s = measure_opts_fill(&o, m);
    for (int i = 2; i < cli_n_args(c) && !s; i++) {
        struct measure r = { 0 };
        s = measure_file(&r, files, c, m, i, &o);
        add(&total, &r);
    }
    if (s) goto out;
    if (cli_flag(c, "json")) {
        tokenizer_fingerprint(m->tokenizer, print);
        cli_print_json(json_pack("{s:s, s:s, s:s?, s:s, s:s, s:I, s:I, s:O, s:o}", "model", m->path, "tokenizer",
                                 print, "mla", model_mla_name(m, o.mla), "kv", model_kv_name(o.kv), "math",
                                 model_math_name(o.math), "window", (json_int_t)o.window, "stride",
                                 (json_int_t)o.stride, "files", files, "total", result_json(&total)));
    } else {
        if (cli_n_args(c) > 3) print_result("all", &total);
        printf("%.0f tokens/s\n", per_second(&total));
    }
out:
    json_decref(files);
    model_close(m);
    return s;
}

/* ---- harm ---- */

struct harm {
    struct cli *c;
    struct coe_model *m;
    size_t n;
    const char *const *path;  /* [n] */
    struct plan **plan;       /* [n] */
    struct route_hook **hook; /* [n+1], the first NULL: unedited */
    struct measure *result;   /* [n+1] */
    struct arena arena;
    struct measure_opts o;
};

/* The masks of each plan, without leaving them on the model. */
static coe_status open_plans(struct harm *h)
{
    h->plan = arena_push_zero(&h->arena, (h->n + 1) * sizeof(struct plan *));
    h->hook = arena_push_zero(&h->arena, (h->n + 1) * sizeof(struct route_hook *));
    h->result = arena_push_zero(&h->arena, (h->n + 1) * sizeof *h->result);
    if (!h->plan || !h->hook || !h->result) return COE_E_NOMEM;
    for (size_t i = 0; i < h->n; i++) {
        COE_TRY(plan_read(&h->plan[i], h->path[i]));
        COE_TRY(plan_apply_live(h->plan[i], h->m));
        h->hook[i + 1] = h->m->hook;
        h->m->hook = NULL;
    }
    return COE_OK;
}

static coe_status measure_all(struct harm *h)
{
    for (int i = 2; i < cli_n_args(h->c); i++) {
        struct measured_text t;
        COE_TRY(measured_text_read(&t, h->m, cli_arg(h->c, i), cli_int(h->c, "tokens", 0)));
        coe_status s = measure_text(h->result, h->m, h->hook, (int32_t)h->n + 1, &t, &h->o);
        measured_text_free(&t);
        if (s) return s;
    }
    return COE_OK;
}

static json_t *file_names(const struct cli *c)
{
    json_t *list = json_array();
    for (int i = 2; i < cli_n_args(c); i++) json_array_append_new(list, json_string(path_base(cli_arg(c, i))));
    return list;
}

static json_t *plan_result(const struct harm *h, size_t i)
{
    json_t *o = measure_json(&h->result[i + 1], plan_bytes(h->plan[i], h->m), &h->result[0], ckpt_bytes(h->m->ckpt));
    json_object_set_new(o, "window", json_integer(h->o.window));
    json_object_set_new(o, "stride", json_integer(h->o.stride));
    json_object_set_new(o, "files", file_names(h->c));
    const char *form = model_mla_name(h->m, h->o.mla);
    if (form) json_object_set_new(o, "mla", json_string(form));
    json_object_set_new(o, "kv", json_string(model_kv_name(h->o.kv)));
    json_object_set_new(o, "math", json_string(model_math_name(h->o.math)));
    return o;
}

static coe_status write_plans(const struct harm *h)
{
    for (size_t i = 0; i < h->n; i++) {
        json_decref(h->plan[i]->measured);
        h->plan[i]->measured = plan_result(h, i);
        COE_TRY(plan_write(h->plan[i], h->path[i]));
    }
    return COE_OK;
}

static double number(const json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }

static double kept_share(const struct plan *p)
{
    double kept = 0, all = 0;
    for (int32_t i = 0; i < p->n_layers; i++) kept += p->layer[i].n_keep, all += p->layer[i].n_experts;
    return all > 0 ? kept / all : 1;
}

static void print_row(const char *name, double kept, const json_t *r, bool edited)
{
    char bytes[32];
    if (number(r, "bytes") > 0) cli_bytes((uint64_t)number(r, "bytes"), bytes);
    else snprintf(bytes, sizeof bytes, "live only"); /* such a plan cannot be written into a model */
    printf("%-24s %6.1f%% %10s %10.0f %14.4f", name, 100 * kept, bytes, number(r, "tokens_per_second"),
           number(r, "bits_per_byte"));
    if (edited) printf(" %10.4f %8.1f%%\n", number(r, "kl"), 100 * number(r, "same_top"));
    else printf(" %10s %9s\n", "-", "-");
}

static void print_table(const struct harm *h)
{
    printf("model %s  ", h->m->path);
    print_forms(h->m, &h->o);
    printf("%lld tokens  window %lld\n%-24s %7s %10s %10s %14s %10s %9s\n", (long long)h->result[0].tokens,
           (long long)h->o.window, "plan", "experts", "bytes", "tokens/s", "bits per byte", "KL (nats)", "same top");
    for (size_t i = 0; i < h->n; i++) {
        json_t *r = plan_result(h, i);
        if (!i) print_row("unedited", 1, json_object_get(r, "unedited"), false);
        print_row(path_base(h->path[i]), kept_share(h->plan[i]), r, true);
        json_decref(r);
    }
}

static void print_harm_json(const struct harm *h)
{
    json_t *list = json_array();
    for (size_t i = 0; i < h->n; i++) {
        json_t *r = plan_result(h, i);
        json_object_set_new(r, "plan", json_string(h->path[i]));
        json_object_set_new(r, "method", json_string(h->plan[i]->method));
        json_object_set_new(r, "experts_kept", json_real(kept_share(h->plan[i])));
        json_array_append_new(list, r);
    }
    json_t *unedited = json_incref(json_object_get(json_array_get(list, 0), "unedited"));
    cli_print_json(json_pack("{s:s, s:s?, s:s, s:s, s:I, s:I, s:I, s:o, s:o, s:o}", "model", h->m->path, "mla",
                             model_mla_name(h->m, h->o.mla), "kv", model_kv_name(h->o.kv), "math",
                             model_math_name(h->o.math), "tokens", (json_int_t)h->result[0].tokens, "window",
                             (json_int_t)h->o.window, "stride", (json_int_t)h->o.stride, "files", file_names(h->c),
                             "unedited", unedited, "plans", list));
}

static coe_status run_harm(struct cli *c)
{
    struct harm h = { .c = c, .o = window_opts(c) };
    h.path = cli_list(c, "plan", &h.n);
    if (!h.n) return coe_fail(COE_E_USAGE, "--plan P.json… is needed: the plans to measure");
    coe_status s = model_open(&h.m, cli_arg(c, 1));
    if (!s && !h.m->tokenizer) s = coe_fail(COE_E_INPUT, "%s: has no tokenizer.json or tokenizer.model", h.m->path);
    if (!s) s = cli_mla(c, h.m, &h.o.mla);
    if (!s) s = cli_kv(c, &h.o.kv);
    if (!s) s = cli_math(c, &h.o.math);
    if (!s) s = measure_opts_fill(&h.o, h.m);
    if (!s) s = open_plans(&h);
    if (!s) s = measure_all(&h);
    if (!s && cli_flag(c, "write")) s = write_plans(&h);
    if (!s && cli_flag(c, "json")) print_harm_json(&h);
    else if (!s) print_table(&h);
    for (size_t i = 0; h.plan && i < h.n; i++) plan_free(h.plan[i]);
    arena_free(&h.arena);
    model_close(h.m);
    return s;
}

static coe_status run(struct cli *c)
{
    static const struct {
        const char *option, *of;
    } only[] = { { "against", "routes" },
                 { "write", "harm" },
                 { "stride", "ppl, harm" },
                 { "batch", "ppl, harm" },
                 { "window", "ppl, harm, routes" } };
    const char *kind = cli_arg(c, 0);
    coe_interrupt_install();
    for (size_t i = 0; i < COE_COUNT(only); i++)
        if (cli_given(c, only[i].option) && !strstr(only[i].of, kind))
            return coe_fail(COE_E_USAGE, "--%s is nothing to `coe eval %s`, only to: %s", only[i].option, kind,
                            only[i].of);
    if (!strcmp(kind, "ppl")) return run_ppl(c);
    if (!strcmp(kind, "harm")) return run_harm(c);
    if (!strcmp(kind, "oracle")) return eval_oracle(c);
    if (!strcmp(kind, "routes")) return eval_routes(c, window_opts(c));
    return coe_fail(COE_E_USAGE, "there is no `coe eval %s`; there are: ppl, harm, oracle, routes", kind);
}

static const struct cli_opt opts[] = {
    { "plan", 'p', OPT_STR, "P.json", "ppl: measure the model under this plan; harm: the plans to compare", 0, 0,
      true },
    { "window", 'w', OPT_INT, "N", "tokens a prediction may look back on (default 1024, or the model's context)", 1,
      1 << 24, false },
    { "stride", 0, OPT_INT, "N", "tokens from one window to the next (default: ppl half a window, harm a window)", 1,
      1 << 24, false },
    { "batch", 'b', OPT_INT, "N", "windows in one forward pass; changes the speed and no bit (default: 1024 tokens)", 1,
      256, false },
    { "tokens", 'n', OPT_INT, "N", "at most N tokens of each file", 1, 9e15, false },
    { "against", 0, OPT_STR, "OTHER", "routes: the model to compare with (default: MODEL unchanged)", 0, 0, false },
    { "write", 0, OPT_FLAG, NULL, "harm: write what was measured into the plan files", 0, 0, false },
    CLI_ADAPTER, CLI_ROUTE,
    CLI_MLA,
    CLI_KV,
    CLI_MATH,
    CLI_THREADS,
    CLI_MEMORY,
    CLI_JSON,
};
static const struct verb verb = {
    .usage = "ppl|harm|oracle|routes MODEL FILE… [--plan P.json…]",
    .details = "ppl predicts each file as one stream (JSONL: each record) and prints nats per token, perplexity and "
               "bits per byte of\n"
               "the text. A document is preceded by the tokenizer's BOS, else by <|endoftext|> where the vocabulary "
               "has it; else its\n"
               "first token is not predicted. Windows overlap by window - stride tokens; every token is predicted "
               "once, and sees at\n"
               "least one token, and at least window - stride of them behind the first window.\n"
               "harm runs the unedited model and each plan (live) over the same windows: bytes of the model as it "
               "would be on disk,\n"
               "tokens/s of the passes, bits per byte, KL divergence (unedited to edited, nats per token) and how "
               "often the most\n"
               "probable next token is the same.\n"
               "oracle tries every choice of one expert for each layer, token by token (top_k 1, at most 4096 "
               "choices), against the\n"
               "true next token: what the best would be worth, beside the model's own, the best that is the same for "
               "all tokens, and\n"
               "budgets of the widest experts. A forced expert weighs 1 (softmax scores). --tokens N, default 200.\n"
               "routes compares decisions: the share of tokens whose strongest expert is another with --against OTHER, "
               "or with\n"
               "--plan, --route, --experts-used, --adapter than without, and how much of their sets of experts both "
               "share\n"
               "(intersection over union), for each layer and pass. Windows do not overlap.",
    .example = "  coe eval ppl models/tales models/tales/held-out.txt\n"
               "  coe eval harm models/tales models/tales/held-out.txt --plan reap.json frequency.json --write\n"
               "  coe eval routes runs/now/model held-out.txt --against runs/before/model",
    .opts = opts,
    .n_opts = COE_COUNT(opts),
    .min_args = 3,
    .max_args = -1,
    .run = run,
};
COE_PART(verb, eval, .summary = "measure a model on text, the harm of plans, the best and the changed routes",
         .impl = &verb)
