/* bench.c — `coe bench`: speed of a model beside what the machine can do, measured in the same run. */
#include "cli/bench.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "cli/model_args.h"

#define USAGE "MODEL… | limits | cold MODEL | once MODEL | train [RECIPE.yaml]"
#define MOST_TOKENS 10000000

/* "128,512" → out[], at most BENCH_LIST of them */
static coe_status read_list(const char *text, const char *name, int lo, int hi, int *out, int *n)
{
    char what[32], item[24];
    snprintf(what, sizeof what, "--%s", name);
    *n = 0;
    for (const char *at = text;; at++) {
        const size_t len = strcspn(at, ",");
        int64_t x;
        if (len >= sizeof item) return coe_fail(COE_E_USAGE, "%s: '%s' is no list of numbers", what, text);
        memcpy(item, at, len);
        item[len] = 0;
        COE_TRY(parse_int(item, what, lo, hi, &x));
        if (*n == BENCH_LIST) return coe_fail(COE_E_USAGE, "%s: more than %d numbers", what, BENCH_LIST);
        out[(*n)++] = (int)x;
        at += len;
        if (!*at) return COE_OK;
    }
}

/* Numbers of a list option; without it the one number `otherwise`, or none when that is negative. */
static coe_status list_option(struct cli *c, const char *name, int lo, int hi, int otherwise, int *out, int *n)
{
    const char *text = cli_str(c, name, NULL);
    if (text) return read_list(text, name, lo, hi, out, n);
    *n = otherwise >= 0;
    out[0] = otherwise;
    return COE_OK;
}

/* 0 tokens are no test. */
static void drop_zeros(int *list, int *n)
{
    int kept = 0;
    for (int i = 0; i < *n; i++)
        if (list[i]) list[kept++] = list[i];
    *n = kept;
}

static coe_status read_form(const struct cli *c, enum bench_form *form)
{
    static const char *const name[] = { [BENCH_MD] = "md", [BENCH_CSV] = "csv", [BENCH_JSON] = "json" };
    const char *wanted = cli_str(c, "format", cli_flag(c, "json") ? "json" : "md");
    for (size_t i = 0; i < COE_COUNT(name); i++)
        if (!strcmp(wanted, name[i])) {
            *form = (enum bench_form)i;
            return COE_OK;
        }
    return coe_fail(COE_E_USAGE, "--format %s: the forms are md, csv and json", wanted);
}

static coe_status read_settings(struct cli *c, struct bench_settings *h)
{
    const bool any = cli_given(c, "prompt") || cli_given(c, "generate") || cli_given(c, "pg");
    int pairs[BENCH_LIST], n_pairs;
    *h = (struct bench_settings){ .runs = (int)cli_int(c, "runs", 5) };
    COE_TRY(list_option(c, "threads", 1, 1024, coe_threads(), h->threads, &h->n_threads));
    COE_TRY(list_option(c, "prompt", 0, MOST_TOKENS, any ? -1 : 512, h->prompt, &h->n_prompt));
    COE_TRY(list_option(c, "generate", 0, MOST_TOKENS, any ? -1 : 64, h->generate, &h->n_generate));
    COE_TRY(list_option(c, "depth", 0, MOST_TOKENS, 0, h->depth, &h->n_depth));
    COE_TRY(list_option(c, "pg", 1, MOST_TOKENS, -1, pairs, &n_pairs));
    if (n_pairs % 2)
        return coe_fail(COE_E_USAGE, "--pg %s: give pairs, a prompt and tokens behind it", cli_str(c, "pg", ""));
    for (h->n_both = 0; 2 * h->n_both < n_pairs; h->n_both++)
        memcpy(h->both[h->n_both], pairs + 2 * h->n_both, sizeof h->both[0]);
    drop_zeros(h->prompt, &h->n_prompt);
    drop_zeros(h->generate, &h->n_generate);
    return read_form(c, &h->form);
}

coe_status bench_session_form(const struct cli *c, const struct coe_model *m, coe_session_opts *form)
{
    COE_TRY(cli_mla(c, m, &form->mla));
    COE_TRY(cli_kv(c, &form->kv));
    return cli_math(c, &form->math);
}

static coe_status one_model(struct cli *c, int i, const struct bench_settings *how, struct limits *l,
                            struct bench_row *rows, int *n)
{
    struct coe_model *m = NULL;
    coe_session_opts form = { 0 };
    const int first = *n;
    coe_status s = cli_open_model(c, i, &m);
    if (!s) s = bench_session_form(c, m, &form);
    if (!s) s = bench_model(m, &form, how, l, rows, n);
    for (int r = first; r < *n; r++) rows[r].model = cli_arg(c, i);
    model_close(m);
    return s;
}

static coe_status models(struct cli *c, const struct bench_settings *how, struct limits *l)
{
    int n = 0;
    const int per_model = how->n_threads * how->n_depth * (how->n_prompt + how->n_generate + how->n_both);
    if (!per_model) return coe_fail(COE_E_USAGE, "nothing to measure: give --prompt, --generate or --pg");
    if (per_model > BENCH_ROWS / cli_n_args(c))
        return coe_fail(COE_E_USAGE, "%d rows for each model, %d models: more than %d rows", per_model, cli_n_args(c),
                        BENCH_ROWS);
    struct bench_row *rows = mem_zalloc("bench", BENCH_ROWS * sizeof *rows);
    coe_status s = rows ? COE_OK : COE_E_NOMEM;
    for (int i = 0; !s && i < cli_n_args(c); i++) s = one_model(c, i, how, l, rows, &n);
    if (!s) bench_report(how->form, l, rows, n);
    mem_free(rows);
    return s;
}

static coe_status only_limits(const struct bench_settings *how, struct limits *l)
{
    const struct watch w = watch_start();
    COE_TRY(limits_measure(l, how->runs));
    const double others = watch_others(&w);
    if (others > BENCH_OTHERS)
        log_warn("others kept %.1f processors busy meanwhile: these are not the limits of the machine", others);
    if (how->form == BENCH_JSON) cli_print_json(limits_json(l));
    else if (how->form == BENCH_CSV) limits_csv(l);
    else limits_print(l);
    return COE_OK;
}

static coe_status check_models(struct cli *c, int first)
{
    for (int i = first; i < cli_n_args(c); i++)
        if (!dir_exists(cli_arg(c, i)) && !file_exists(cli_arg(c, i)))
            return coe_fail(COE_E_INPUT, "%s: there is no such model", cli_arg(c, i));
    return COE_OK;
}

/* `coe bench limits` measures one thread too: the two together tell whether processors share a core. */
static void add_one_thread(struct bench_settings *how)
{
    if (how->n_threads != 1 || how->threads[0] == 1) return;
    how->threads[1] = how->threads[0];
    how->threads[0] = 1;
    how->n_threads = 2;
}

static coe_status with_limits(struct cli *c, struct bench_settings *how)
{
    const char *what = cli_arg(c, 0);
    struct limits l;
    if (!strcmp(what, "limits") && !cli_given(c, "threads")) add_one_thread(how);
    coe_status s = limits_open(&l, how->threads, how->n_threads);
    if (s) return s;
    if (!strcmp(what, "limits")) s = only_limits(how, &l);
    else if (!strcmp(what, "train")) s = bench_train(c, how, &l);
    else s = models(c, how, &l);
    limits_close(&l);
    return s;
}

/* Options that would have no effect are refused: one job (`once`, `cold`) has one prompt, limits and training have
 * none. */
static coe_status check_other_work(const struct cli *c, const char *what, bool of_model, const struct bench_settings *h)
{
    static const char *const none[] = { "depth", "pg", "prompt", "generate" };
    for (size_t i = 0; i < (of_model ? 2 : COE_COUNT(none)); i++)
        if (cli_given(c, none[i])) return coe_fail(COE_E_USAGE, "--%s has no meaning for coe bench %s", none[i], what);
    if (of_model && (h->n_threads > 1 || h->n_prompt > 1 || h->n_generate > 1))
        return coe_fail(COE_E_USAGE, "coe bench %s does one job: give one number each", what);
    return COE_OK;
}

static coe_status run(struct cli *c)
{
    static const char *const word[] = { "limits", "cold", "once", "train" };
    static const int least[] = { 1, 2, 2, 1 }, most[] = { 1, 2, 2, 2 };
    const char *what = cli_arg(c, 0);
    struct bench_settings how;
    size_t w = 0;
    while (w < COE_COUNT(word) && strcmp(what, word[w])) w++;
    const bool models_only = w == COE_COUNT(word), of_model = models_only || w == 1 || w == 2;
    if (!models_only && (cli_n_args(c) < least[w] || cli_n_args(c) > most[w]))
        return coe_fail(COE_E_USAGE, "usage: coe bench [options] " USAGE);
    if ((cli_given(c, "mla") || cli_given(c, "kv") || cli_given(c, "math")) && !of_model)
        return coe_fail(COE_E_USAGE, "--mla, --kv and --math are for coe bench MODEL");
    COE_TRY(read_settings(c, &how));
    if (how.form == BENCH_CSV && w > 0 && !models_only)
        return coe_fail(COE_E_USAGE, "--format csv: coe bench %s prints md and json", what);
    if (!models_only) COE_TRY(check_other_work(c, what, of_model, &how));
    if (of_model) COE_TRY(check_models(c, models_only ? 0 : 1));
    coe_interrupt_install();
    if (w == 1) return bench_cold(c, &how);
    if (w == 2) return bench_once(c, &how);
    return with_limits(c, &how);
}

static const struct cli_opt opts[] = {
    { "prompt", 'p', OPT_STR, "N[,N]", "tokens of prompts, evaluated at once (default 512)", 0, 0, false },
    { "generate", 'n', OPT_STR, "N[,N]", "numbers of tokens evaluated one by one (default 64)", 0, 0, false },
    { "pg", 0, OPT_STR, "P,N", "pairs: a prompt and tokens behind it in one interval", 0, 0, false },
    { "depth", 'd', OPT_STR, "N[,N]", "tokens already in the context before each test, not timed (default 0)", 0, 0,
      false },
    { "threads", 't', OPT_STR, "N[,N]", "compute threads (default: all processors)", 0, 0, false },
    { "runs", 'r', OPT_INT, "N", "repetitions; median, least and most are printed (default 5)", 1, BENCH_RUNS, false },
    { "format", 'o', OPT_STR, "FORM", "md (default), csv or json", 0, 0, false },
    { "plan", 0, OPT_STR, "P.json", "apply a plan live, without rewriting the model", 0, 0, false },
    CLI_MLA,
    CLI_KV,
    CLI_MATH,
    CLI_JSON,
    CLI_MEMORY,
};
static const struct verb verb = {
    .usage = USAGE,
    .details =
        "Times models on made-up tokens and prints each figure as a share of what this machine can do, which is "
        "measured\n"
        "directly before and after: arithmetic for prompts (pp), memory reads for tokens one by one (tg). Several "
        "models,\n"
        "prompts, numbers of threads and depths of context make a table. Without -p, -n and -pg: -p 512 -n 64.\n"
        "\n"
        "  limits   what memory, caches and arithmetic of this machine can do\n"
        "  cold     a fresh process from a file that is not in memory to its first token, beside reading the file\n"
        "  once     one prompt and tokens behind it in this process: time to the first token, peak memory\n"
        "  train    training steps of a recipe's model (default recipes/tales.yaml) on made-up text\n"
        "\n"
        "How limits and shares are counted is in bench/README.md. Numbers mean something on an idle machine only.",
    .example = "  coe bench models/tales\n  coe bench a.gguf b.gguf -p 128,512 -n 64 -t 1,2 -o csv\n"
               "  coe bench models/tales -p 16 -n 16 -d 0,256,512\n  coe bench limits --json",
    .opts = opts,
    .n_opts = COE_COUNT(opts),
    .min_args = 1,
    .max_args = -1,
    .run = run,
};
COE_PART(verb, bench, .summary = "measure speed beside the machine's limits", .impl = &verb)
