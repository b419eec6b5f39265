/* bench_model.c — times prompts and single tokens of one open model, with readings of the machine's limits directly
 * before and after. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/rng.h"
#include "cli/bench.h"

#define PROMPT_PIECE 512   /* tokens that the engine evaluates in one pass over the cache */
#define UNSTEADY 0.1       /* readings that differ by more make a row disturbed */

/* What one model's rows share. */
struct bench {
    struct coe_model *m;
    struct coe_session *session;
    int32_t *ids;       /* [capacity], made up */
    coe_session_opts form; /* mla, kv and math */
    struct cost cost;
    const struct bench_settings *how;
    struct limits *limits;
};

/* Memory and FP32 (attention) always, other arithmetic when weights ask for it. */
static bool is_probed(const struct bench *b, enum limit l)
{
    return l == LIMIT_READ || l == LIMIT_FP32 || b->cost.ops[l] > 0 || b->cost.head[l] > 0;
}

const char *bench_test_name(const struct bench_row *r, char text[64])
{
    char behind[24] = "";
    if (r->depth) snprintf(behind, sizeof behind, " @ d%d", r->depth);
    if (r->prompt && r->generate) snprintf(text, 64, "pp%d+tg%d%s", r->prompt, r->generate, behind);
    else snprintf(text, 64, "%s%d%s", r->prompt ? "pp" : "tg", r->prompt ? r->prompt : r->generate, behind);
    return text;
}

/* The context before the interval that is measured: kept from row to row, so a sweep evaluates each token once. */
static coe_status go_to(struct bench *b, int64_t depth)
{
    const int64_t at = coe_session_position(b->session);
    if (at > depth) return coe_session_rewind(b->session, depth);
    if (at == depth) return COE_OK;
    return coe_session_eval(b->session, b->ids + at, (size_t)(depth - at), NULL, 1);
}

/* Seconds of a prompt and then of tokens one by one, behind `depth`. */
static coe_status one_run(struct bench *b, const struct bench_row *row, int generate, double *seconds)
{
    COE_TRY(go_to(b, row->depth));
    const int32_t *ids = b->ids + row->depth;
    const double start = coe_now();
    if (row->prompt) COE_TRY(coe_session_eval(b->session, ids, (size_t)row->prompt, NULL, 1));
    for (int i = 0; i < generate; i++) COE_TRY(coe_session_eval(b->session, ids + row->prompt + i, 1, NULL, 1));
    *seconds = coe_now() - start;
    return COE_OK;
}

/* Least seconds of the row's work: by the weights, and with attention's operations and bytes. A prompt is bound by
 * arithmetic, a single token by memory. */
static void bounds(const struct bench *b, struct bench_row *row, const double rate[LIMIT_COUNT])
{
    double weights = 0, most = 0, attention = 0;
    row->by = LIMIT_READ;
    if (row->prompt) {
        const int64_t pieces = (row->prompt + PROMPT_PIECE - 1) / PROMPT_PIECE;
        const struct attention_cost a = cost_attention(b->m, &b->form, row->depth, row->prompt, pieces);
        for (enum limit i = LIMIT_FP32; i < LIMIT_COUNT; i++) {
            row->ops[i] = b->cost.ops[i] * row->prompt + b->cost.head[i];
            if (row->ops[i] <= 0) continue;
            if (row->ops[i] / rate[i] > most) most = row->ops[i] / rate[i], row->by = i;
            weights += row->ops[i] / rate[i];
        }
        attention += fmax(a.ops / rate[LIMIT_FP32], a.bytes / rate[LIMIT_READ]);
    }
    if (row->generate) {
        const int64_t first = row->depth + row->prompt;
        const struct attention_cost a = cost_attention(b->m, &b->form, first, row->generate, row->generate);
        row->bytes = row->generate * b->cost.bytes;
        weights += row->bytes / rate[LIMIT_READ];
        attention += fmax(a.ops / rate[LIMIT_FP32], a.bytes / rate[LIMIT_READ]);
    }
    row->limit = (row->prompt + row->generate) / weights / 1e-9;
    row->limit_attention = (row->prompt + row->generate) / (weights + attention) / 1e-9;
}

static void probe(struct bench *b, int threads_at, double into[LIMIT_COUNT])
{
    for (enum limit l = 0; l < LIMIT_COUNT; l++)
        if (is_probed(b, l)) into[l] = limits_probe(b->limits, l, threads_at);
}

/* The better of both readings is the limit; readings far apart, or work of others, mark the row. */
static void judge(struct bench *b, struct bench_row *row)
{
    double rate[LIMIT_COUNT] = { 0 };
    row->disturbed = row->others > BENCH_OTHERS;
    for (enum limit l = 0; l < LIMIT_COUNT; l++) {
        rate[l] = fmax(row->before[l], row->after[l]);
        const bool asked = l == LIMIT_READ ? row->generate > 0 : row->prompt > 0;
        if (asked && fmin(row->before[l], row->after[l]) < (1 - UNSTEADY) * rate[l]) row->disturbed = true;
    }
    bounds(b, row, rate);
}

static coe_status measure(struct bench *b, struct bench_row *row, int threads_at)
{
    double seconds;
    coe_set_threads(row->threads);
    COE_TRY(one_run(b, row, COE_MIN(row->generate, 4), &seconds)); /* warms caches, makes the arena */
    probe(b, threads_at, row->before);
    const struct watch w = watch_start();
    for (int i = 0; i < b->how->runs; i++) {
        COE_TRY(one_run(b, row, row->generate, &seconds));
        rates_add(&row->rate, (row->prompt + row->generate) / seconds);
        if (coe_interrupted()) return coe_fail(COE_E_FAILED, "interrupted");
    }
    row->others = watch_others(&w);
    probe(b, threads_at, row->after);
    judge(b, row);
    return COE_OK;
}

static int largest(const int *list, int n)
{
    int most = 0;
    for (int i = 0; i < n; i++) most = COE_MAX(most, list[i]);
    return most;
}

static int64_t tokens_needed(const struct bench_settings *h)
{
    int most = COE_MAX(largest(h->prompt, h->n_prompt), largest(h->generate, h->n_generate));
    for (int i = 0; i < h->n_both; i++) most = COE_MAX(most, h->both[i][0] + h->both[i][1]);
    return (int64_t)most + largest(h->depth, h->n_depth);
}

static coe_status open_bench(struct bench *b)
{
    const int64_t n = tokens_needed(b->how);
    coe_session_opts opts = b->form;
    opts.max_tokens = (int32_t)n;
    struct rng r = rng_make(1, rng_stream(RNG_TEST, 0));
    b->cost = cost_token(b->m, b->form.math);
    b->ids = mem_alloc("bench", (size_t)n * sizeof *b->ids);
    if (!b->ids) return COE_E_NOMEM;
    for (int64_t i = 0; i < n; i++) b->ids[i] = (int32_t)rng_below(&r, (uint64_t)b->m->spec.vocab);
    return coe_session_open(&b->session, b->m, &opts);
}

static uint64_t stored_bytes(const struct coe_model *m)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < m->n_params; i++) {
        uint64_t bytes = 0;
        (void)dtype_bytes(m->params[i].w.type, (uint64_t)weight_count(&m->params[i].w), &bytes);
        sum += bytes;
    }
    return sum;
}

/* What every row of a model begins with. */
static struct bench_row row_of(const struct bench *b)
{
    const struct spec_sizes sizes = spec_sizes(&b->m->spec);
    return (struct bench_row){ .model = b->m->path,
                               .model_bytes = stored_bytes(b->m),
                               .parameters = sizes.total,
                               .active = sizes.active,
                               .token_bytes = b->cost.bytes,
                               .mla = model_mla_name(b->m, b->form.mla),
                               .kv = model_kv_name(b->form.kv),
                               .math = model_math_name(b->form.math) };
}

/* The tests at one depth with one thread count */
static int list_rows(const struct bench *b, int depth, int threads, struct bench_row *out, int room)
{
    const struct bench_settings *h = b->how;
    struct bench_row row = row_of(b);
    int n = 0;
    row.depth = depth;
    row.threads = threads;
    for (int i = 0; i < h->n_prompt + h->n_generate + h->n_both && n < room; i++, n++) {
        const int g = i - h->n_prompt, both = g - h->n_generate;
        row.prompt = g < 0 ? h->prompt[i] : both < 0 ? 0 : h->both[both][0];
        row.generate = g < 0 ? 0 : both < 0 ? h->generate[g] : h->both[both][1];
        out[n] = row;
    }
    return n;
}

coe_status bench_model(struct coe_model *m, const coe_session_opts *form, const struct bench_settings *how,
                       struct limits *l, struct bench_row *rows, int *n_rows)
{
    struct bench b = { .m = m, .form = *form, .how = how, .limits = l };
    coe_status s = open_bench(&b);
    for (int d = 0; !s && d < how->n_depth; d++)
        for (int t = 0; !s && t < how->n_threads; t++) {
            const int n = list_rows(&b, how->depth[d], how->threads[t], rows + *n_rows, BENCH_ROWS - *n_rows);
            for (int i = 0; !s && i < n; i++) s = measure(&b, &rows[*n_rows + i], t);
            *n_rows += n;
        }
    coe_session_close(b.session);
    mem_free(b.ids);
    return s;
}
