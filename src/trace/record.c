/* record.c — one forward pass into the columns. Every sum is a chain over the tokens in their order: experts are shared
 * out between threads, tokens never are. */
#include "trace/trace.h"

#include <math.h>

static bool counts(const struct trace_recorder *r, int64_t t) { return !r->counted || r->counted[t]; }

static int32_t layer_index(const struct trace *t, int32_t layer)
{
    int32_t i = 0;
    while (i < t->n_layers - 1 && t->layer[i].layer != layer) i++;
    assert(t->layer[i].layer == layer);
    return i;
}

static void add_tokens(const struct trace_recorder *r, const struct route_record *rec, uint64_t *tokens,
                       double *probability)
{
    const int32_t n = rec->route.n_experts;
    for (int32_t t = 0; t < rec->route.n_tokens; t++) *tokens += counts(r, t);
#pragma omp parallel for schedule(static)
    for (int32_t e = 0; e < n; e++)
        for (int32_t t = 0; t < rec->route.n_tokens; t++)
            if (counts(r, t)) probability[e] += (double)rec->p[(int64_t)t * n + e];
}

/* pairs[a, b] += 1 for every expert a the token has in `one` and b in `two` */
static void add_pairs(const struct trace_recorder *r, const struct route *one, const struct route *two, uint64_t *pairs)
{
    for (int32_t t = 0; t < one->n_tokens; t++) {
        if (!counts(r, t)) continue;
        for (int32_t i = one->tok_off[t]; i < one->tok_off[t + 1]; i++)
            for (int32_t j = two->tok_off[t]; j < two->tok_off[t + 1]; j++)
                pairs[(int64_t)one->expert[i] * one->n_experts + two->expert[j]]++;
    }
}

static void on_route(void *user, const struct route_record *rec)
{
    struct trace_recorder *r = user;
    if (rec->of_attention) return; /* a trace is of feed-forward experts */
    const int32_t l = layer_index(r->trace, rec->layer), d = r->domain, c = rec->iteration;
    add_tokens(r, rec, trace_u64(r->trace, TRACE_TOKENS, d, l, c), trace_f64(r->trace, TRACE_PROBABILITY, d, l, c));
    add_pairs(r, &rec->route, &rec->route, trace_u64(r->trace, TRACE_COSELECT, d, l, c));
    if (c > 0) {
        assert(r->before && r->before->layer == rec->layer && r->before->iteration == c - 1);
        add_pairs(r, &r->before->route, &rec->route, trace_u64(r->trace, TRACE_CHAIN, d, l, c - 1));
    }
    r->before = rec;
}

/* The columns of one cell that outputs fill. */
struct cell {
    uint64_t *count;
    double *score, *renorm, *gate, *norm, *norm2, *score_norm, *renorm_norm, *gate_norm;
    float *max_abs, *max_out;
    int64_t *max_token, *max_position;
};

static struct cell cell_at(const struct trace *t, int32_t d, int32_t l, int32_t c)
{
    return (struct cell){
        .count = trace_at(t, TRACE_COUNT, d, l, c),
        .score = trace_at(t, TRACE_SCORE, d, l, c),
        .renorm = trace_at(t, TRACE_RENORM, d, l, c),
        .gate = trace_at(t, TRACE_GATE, d, l, c),
        .norm = trace_at(t, TRACE_NORM, d, l, c),
        .norm2 = trace_at(t, TRACE_NORM2, d, l, c),
        .score_norm = trace_at(t, TRACE_SCORE_NORM, d, l, c),
        .renorm_norm = trace_at(t, TRACE_RENORM_NORM, d, l, c),
        .gate_norm = trace_at(t, TRACE_GATE_NORM, d, l, c),
        .max_abs = trace_at(t, TRACE_MAX_ABS, d, l, c),
        .max_out = trace_at(t, TRACE_MAX_OUT, d, l, c),
        .max_token = trace_at(t, TRACE_MAX_TOKEN, d, l, c),
        .max_position = trace_at(t, TRACE_MAX_POSITION, d, l, c),
    };
}

static int64_t position_of(const struct attn_batch *b, int64_t t)
{
    if (!b) return t;
    int32_t s = 0;
    while (s < b->n_seq - 1 && t >= b->off[s + 1]) s++;
    return b->pos0[s] + t - b->off[s];
}

static double chosen_score(const struct route *rt, int32_t token)
{
    double sum = 0;
    for (int32_t i = rt->tok_off[token]; i < rt->tok_off[token + 1]; i++) sum += (double)rt->score[i];
    return sum;
}

static void add_maximum(const struct trace_recorder *r, const struct cell *c, int32_t e, int32_t token, const float *y,
                        int64_t d)
{
    float abs = 0, out = 0;
    for (int64_t j = 0; j < d; j++) {
        abs = fabsf(y[j]) > abs ? fabsf(y[j]) : abs;
        out = y[j] > out ? y[j] : out;
    }
    c->max_out[e] = COE_MAX(c->max_out[e], out);
    if (c->max_token[e] >= 0 && !(abs > c->max_abs[e])) return;
    c->max_abs[e] = abs;
    c->max_token[e] = r->n_tokens + token;
    c->max_position[e] = position_of(r->batch, token);
}

/* weighed: the weight multiplied the expert's input, so that its output already holds it. */
static void add_expert(const struct trace_recorder *r, const struct cell *c, const struct route *rt, bool weighed,
                       int32_t e, const float *y, int64_t d)
{
    for (int32_t row = rt->off[e]; row < rt->off[e + 1]; row++) {
        const int32_t token = rt->row_token[row], slot = rt->row_slot[row];
        if (!counts(r, token)) continue;
        const float *out = y + (int64_t)row * d;
        const double square = kern->sumsq(out, d), norm = sqrt(square);
        const double p = (double)rt->score[slot], g = (double)rt->weight[slot], sum = chosen_score(rt, token);
        const double q = sum > 0 ? p / sum : 0;
        c->count[e]++;
        c->score[e] += p;
        c->renorm[e] += q;
        c->gate[e] += g;
        c->norm[e] += norm;
        c->norm2[e] += square;
        c->score_norm[e] += p * norm;
        c->renorm_norm[e] += q * norm;
        c->gate_norm[e] += weighed ? norm : g * norm;
        add_maximum(r, c, e, token, out, d);
    }
}

static void on_outputs(void *user, const struct route_record *rec, const struct val *x, const float *y)
{
    const struct trace_recorder *r = user;
    const struct cell c = cell_at(r->trace, r->domain, layer_index(r->trace, rec->layer), rec->iteration);
#pragma omp parallel for schedule(dynamic, 1)
    for (int32_t e = 0; e < rec->route.n_experts; e++)
        add_expert(r, &c, &rec->route, rec->spec && rec->spec->weigh_input, e, y, x->cols);
}

/* sums[j] += (scale · x[j])² */
static void add_squares(double *sums, const float *x, double scale, int64_t n)
{
    for (int64_t j = 0; j < n; j++) sums[j] += scale * (double)x[j] * (scale * (double)x[j]);
}

static void on_hidden(void *user, const struct route_record *rec, const float *u)
{
    const struct trace_recorder *r = user;
    const int32_t l = layer_index(r->trace, rec->layer);
    const int64_t f = rec->spec->expert_ffn;
    double *sums = trace_f64(r->trace, TRACE_HIDDEN2, r->domain, l, rec->iteration);
    const struct route *rt = &rec->route;
#pragma omp parallel for schedule(dynamic, 1)
    for (int32_t e = 0; e < rt->n_experts; e++) {
        const struct expert_range range = moe_range_of(rec->spec, e); /* width 0: a kind without such a matrix */
        for (int32_t row = rt->off[e]; row < rt->off[e + 1]; row++)
            if (counts(r, rt->row_token[row])) add_squares(sums + e * f, u + row * f, 1, range.ffn);
    }
}

/* Some networks weigh what goes into an expert instead of what comes out. */
static void add_inputs(const struct trace_recorder *r, const struct route_record *rec, const struct val *x)
{
    const int32_t l = layer_index(r->trace, rec->layer);
    double *sums = trace_f64(r->trace, TRACE_INPUT2, r->domain, l, rec->iteration);
    const struct route *rt = &rec->route;
#pragma omp parallel for schedule(dynamic, 1)
    for (int32_t e = 0; e < rt->n_experts; e++)
        for (int32_t row = rt->off[e]; row < rt->off[e + 1]; row++) {
            const double scale = rec->spec->weigh_input ? (double)rt->weight[rt->row_slot[row]] : 1;
            if (counts(r, rt->row_token[row]))
                add_squares(sums + e * x->cols, x->data + rt->row_token[row] * x->cols, scale, x->cols);
        }
}

static void on_outputs_and_inputs(void *user, const struct route_record *rec, const struct val *x, const float *y)
{
    on_outputs(user, rec, x, y);
    add_inputs(user, rec, x);
}

struct moe_observer trace_observer(struct trace_recorder *r)
{
    r->before = NULL;
    struct moe_observer o = { .user = r, .route = on_route, .outputs = on_outputs };
    if (r->trace->importance) o.outputs = on_outputs_and_inputs, o.hidden = on_hidden;
    return o;
}

void trace_batch_done(struct trace_recorder *r, int64_t n)
{
    r->n_tokens += n;
    r->before = NULL;
}
