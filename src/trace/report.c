/* report.c — see report.h. Lists are the best of all layers; ties keep the lower layer and expert. */
#include "trace/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MIN_PAIR 20    /* tokens below which a pair's lift is noise */
#define MIN_SPECIAL 20 /* the same for a domain */

/* A short list ordered by falling score. */
struct best {
    double *score;
    void *item;
    size_t item_bytes;
    int32_t n, cap;
};

static coe_status best_make(struct best *b, struct arena *a, size_t item_bytes, int32_t cap)
{
    *b = (struct best){ arena_push(a, (size_t)cap * sizeof(double)), arena_push(a, (size_t)cap * item_bytes),
                        item_bytes, 0, cap };
    return b->score && b->item ? COE_OK : COE_E_NOMEM;
}

static void best_add(struct best *b, double score, const void *item)
{
    int32_t at = b->n;
    while (at > 0 && score > b->score[at - 1]) at--;
    if (at == b->cap) return;
    if (b->n < b->cap) b->n++;
    const size_t move = (size_t)(b->n - 1 - at);
    memmove(b->score + at + 1, b->score + at, move * sizeof(double));
    memmove((char *)b->item + (size_t)(at + 1) * b->item_bytes, (char *)b->item + (size_t)at * b->item_bytes,
            move * b->item_bytes);
    b->score[at] = score;
    memcpy((char *)b->item + (size_t)at * b->item_bytes, item, b->item_bytes);
}

static uint64_t tokens_of(const struct trace *t, int32_t domain, int32_t l, int32_t c)
{
    uint64_t n = 0;
    for (size_t d = 0; d < t->domains.n; d++)
        if (domain < 0 || (size_t)domain == d) n += *trace_u64(t, TRACE_TOKENS, (int32_t)d, l, c);
    return n;
}

static double effective_experts(const uint64_t *counts, int32_t n)
{
    double sum = 0, h = 0;
    for (int32_t e = 0; e < n; e++) sum += (double)counts[e];
    for (int32_t e = 0; e < n; e++)
        if (counts[e]) h -= (double)counts[e] / sum * log((double)counts[e] / sum);
    return sum > 0 ? exp(h) : 0;
}

static double balance_value(const struct trace *t, int32_t l, int32_t c, const uint64_t *counts, uint64_t tokens)
{
    const int32_t n = t->layer[l].n_experts;
    double routed = 0, sum = 0;
    for (int32_t e = 0; e < n; e++) routed += (double)counts[e];
    if (!tokens || !(routed > 0)) return 0;
    for (int32_t e = 0; e < n; e++) {
        double p = 0;
        for (size_t d = 0; d < t->domains.n; d++) p += trace_f64(t, TRACE_PROBABILITY, (int32_t)d, l, c)[e];
        sum += (double)counts[e] / routed * (p / (double)tokens);
    }
    return n * sum;
}

static coe_status make_row(struct report *r, const struct trace *t, int32_t l, int32_t c)
{
    const int32_t n = t->layer[l].n_experts;
    struct report_row *row = &r->row[r->n_rows++];
    uint64_t *counts = arena_push(&r->arena, (size_t)n * sizeof *counts);
    *row = (struct report_row){
        .l = l, .layer = t->layer[l].layer, .iteration = c, .n_experts = n, .tokens = tokens_of(t, -1, l, c)
    };
    row->share = arena_push(&r->arena, (size_t)n * sizeof *row->share);
    if (!counts || !row->share) return COE_E_NOMEM;
    trace_counts(t, -1, l, c, counts);
    for (int32_t e = 0; e < n; e++) row->share[e] = row->tokens ? (double)counts[e] / (double)row->tokens : 0;
    row->load = load_statistics(counts, n);
    row->effective = effective_experts(counts, n);
    row->balance = balance_value(t, l, c, counts, row->tokens);
    return COE_OK;
}

static coe_status make_rows(struct report *r, const struct trace *t)
{
    size_t n = 0;
    for (int32_t l = 0; l < t->n_layers; l++) n += (size_t)t->layer[l].n_iterations;
    r->row = arena_push(&r->arena, n * sizeof *r->row);
    if (!r->row) return COE_E_NOMEM;
    for (int32_t l = 0; l < t->n_layers; l++)
        for (int32_t c = 0; c < t->layer[l].n_iterations; c++) COE_TRY(make_row(r, t, l, c));
    return COE_OK;
}

static coe_status make_top(struct report *r, const struct trace *t, int32_t limit)
{
    struct best best;
    COE_TRY(best_make(&best, &r->arena, sizeof *r->top, limit));
    for (int32_t l = 0; l < t->n_layers; l++) {
        const int32_t n = t->layer[l].n_experts;
        struct expert_sums *sums = arena_push(&r->arena, (size_t)n * sizeof *sums);
        if (!sums) return COE_E_NOMEM;
        trace_expert_sums(t, -1, l, -1, sums);
        double all = 0;
        for (int32_t e = 0; e < n; e++) all += sums[e].gate_norm;
        for (int32_t e = 0; e < n; e++) {
            if (!sums[e].count) continue;
            const struct report_expert x = { t->layer[l].layer,
                                             e,
                                             sums[e].count,
                                             all > 0 ? sums[e].gate_norm / all : 0,
                                             sums[e].norm / (double)sums[e].count,
                                             sums[e].max_abs };
            best_add(&best, x.output_share, &x);
        }
    }
    r->top = best.item;
    r->n_top = best.n;
    return COE_OK;
}

/* Rates of domain d in layer l, over iterations, against the mean rate of the domains. */
static coe_status add_special(struct report *r, const struct trace *t, int32_t d, int32_t l, struct best *best)
{
    const int32_t n = t->layer[l].n_experts;
    const struct arena_mark mark = arena_save(&r->arena);
    uint64_t *counts = arena_push(&r->arena, (size_t)n * sizeof *counts);
    double *rate = arena_push_zero(&r->arena, (size_t)n * sizeof *rate);
    if (!counts || !rate) return COE_E_NOMEM;
    for (size_t o = 0; o < t->domains.n; o++) {
        const double tokens = (double)tokens_of(t, (int32_t)o, l, 0);
        trace_counts(t, (int32_t)o, l, -1, counts);
        for (int32_t e = 0; e < n && tokens > 0; e++) rate[e] += (double)counts[e] / tokens / (double)t->domains.n;
    }
    trace_counts(t, d, l, -1, counts);
    const double tokens = (double)tokens_of(t, d, l, 0);
    for (int32_t e = 0; e < n && tokens > 0; e++) {
        const double share = (double)counts[e] / tokens;
        const struct report_special x = { d, t->layer[l].layer, e, share / rate[e], share };
        if (counts[e] >= MIN_SPECIAL && x.lift > 1) best_add(best, x.lift, &x);
    }
    arena_rewind(&r->arena, mark);
    return COE_OK;
}

static coe_status make_special(struct report *r, const struct trace *t, int32_t limit)
{
    const size_t domains = t->domains.n;
    if (domains < 2) return COE_OK;
    r->special = arena_push(&r->arena, domains * (size_t)limit * sizeof *r->special);
    if (!r->special) return COE_E_NOMEM;
    for (size_t d = 0; d < domains; d++) {
        struct best best;
        COE_TRY(best_make(&best, &r->arena, sizeof *r->special, limit));
        for (int32_t l = 0; l < t->n_layers; l++) COE_TRY(add_special(r, t, (int32_t)d, l, &best));
        memcpy(r->special + r->n_special, best.item, (size_t)best.n * sizeof *r->special);
        r->n_special += best.n;
    }
    return COE_OK;
}

/* Pairs of one layer and iteration, experts of `two` being those of the next iteration when chain. */
static coe_status add_pairs(struct report *r, const struct trace *t, int32_t l, int32_t c, bool chain,
                            struct best *best)
{
    const int32_t n = t->layer[l].n_experts;
    uint64_t *pairs = arena_push(&r->arena, (size_t)n * (size_t)n * sizeof *pairs);
    uint64_t *one = arena_push(&r->arena, (size_t)n * sizeof *one),
             *two = arena_push(&r->arena, (size_t)n * sizeof *two);
    if (!pairs || !one || !two) return COE_E_NOMEM;
    trace_pairs(t, chain ? TRACE_CHAIN : TRACE_COSELECT, -1, l, c, pairs);
    trace_counts(t, -1, l, c, one);
    trace_counts(t, -1, l, chain ? c + 1 : c, two);
    const double tokens = (double)tokens_of(t, -1, l, c);
    for (int32_t a = 0; a < n; a++)
        for (int32_t b = chain ? 0 : a + 1; b < n; b++) {
            const uint64_t both = pairs[(int64_t)a * n + b];
            if (both < MIN_PAIR) continue;
            const struct report_pair x = {
                t->layer[l].layer, c, a, b, chain, both, (double)both * tokens / ((double)one[a] * (double)two[b])
            };
            best_add(best, x.lift, &x);
        }
    return COE_OK;
}

static coe_status make_pairs(struct report *r, const struct trace *t, int32_t limit)
{
    r->pair = arena_push(&r->arena, (size_t)limit * 2 * sizeof *r->pair);
    if (!r->pair) return COE_E_NOMEM;
    for (int chain = 0; chain < 2; chain++) {
        struct best best;
        COE_TRY(best_make(&best, &r->arena, sizeof *r->pair, limit));
        for (int32_t l = 0; l < t->n_layers; l++)
            for (int32_t c = 0; c < t->layer[l].n_iterations - chain; c++) {
                const struct arena_mark mark = arena_save(&r->arena);
                COE_TRY(add_pairs(r, t, l, c, chain, &best));
                arena_rewind(&r->arena, mark);
            }
        memcpy(r->pair + r->n_pair, best.item, (size_t)best.n * sizeof *r->pair);
        r->n_pair += best.n;
    }
    return COE_OK;
}

coe_status report_make(struct report *r, const struct trace *t, int32_t limit)
{
    *r = (struct report){ 0 };
    coe_status s = make_rows(r, t);
    if (!s) s = make_top(r, t, limit);
    if (!s) s = make_special(r, t, limit);
    if (!s) s = make_pairs(r, t, limit);
    if (s) report_free(r);
    return s;
}

void report_free(struct report *r)
{
    arena_free(&r->arena);
    *r = (struct report){ 0 };
}

/* ---- JSON ---- */

/* JSON has no NaN and no infinity: a model that computed them shows null. */
static json_t *number(double x) { return isfinite(x) ? json_real(x) : json_null(); }

static json_t *row_json(const struct report_row *x)
{
    json_t *share = json_array();
    for (int32_t e = 0; e < x->n_experts; e++) json_array_append_new(share, number(x->share[e]));
    return json_pack("{s:i, s:i, s:I, s:o, s:o, s:o, s:i, s:o, s:o}", "layer", x->layer, "iteration", x->iteration,
                     "tokens", (json_int_t)x->tokens, "share", share, "cv", number(x->load.cv), "max_vio",
                     number(x->load.max_vio), "dead", x->load.dead, "effective_experts", number(x->effective),
                     "balance", number(x->balance));
}

json_t *report_json(const struct report *r, const struct trace *t)
{
    json_t *rows = json_array(), *top = json_array(), *special = json_array(), *pairs = json_array();
    for (int32_t i = 0; i < r->n_rows; i++) json_array_append_new(rows, row_json(&r->row[i]));
    for (int32_t i = 0; i < r->n_top; i++) {
        const struct report_expert *x = &r->top[i];
        json_array_append_new(top, json_pack("{s:i, s:i, s:I, s:o, s:o, s:o}", "layer", x->layer, "expert", x->expert,
                                             "count", (json_int_t)x->count, "output_share", number(x->output_share),
                                             "mean_norm", number(x->mean_norm), "max_abs", number((double)x->max_abs)));
    }
    for (int32_t i = 0; i < r->n_special; i++) {
        const struct report_special *x = &r->special[i];
        json_array_append_new(special, json_pack("{s:s, s:i, s:i, s:o, s:o}", "domain", t->domains.at[x->domain].label,
                                                 "layer", x->layer, "expert", x->expert, "lift", number(x->lift),
                                                 "share", number(x->share)));
    }
    for (int32_t i = 0; i < r->n_pair; i++) {
        const struct report_pair *x = &r->pair[i];
        json_array_append_new(pairs,
                              json_pack("{s:s, s:i, s:i, s:i, s:i, s:I, s:o}", "kind", x->chain ? "chain" : "coselect",
                                        "layer", x->layer, "iteration", x->iteration, "a", x->a, "b", x->b, "count",
                                        (json_int_t)x->count, "lift", number(x->lift)));
    }
    return json_pack("{s:o, s:o, s:o, s:o, s:o}", "trace", trace_header_json(t), "layers", rows, "top", top, "domains",
                     special, "pairs", pairs);
}
