/* gru.c — an expert with memory: a gated recurrent unit over the tokens that come to it, E(x_t) = W h_t.
 *
 * Paper: Hecto, 2025 (cards: routing.md 19, and 6 for the cell). Of each sequence, in order, with h = 0 at its start:
 *     h_t = GRU(x_t, h of the last token of the sequence that came to this expert)      h of width expert_ffn
 * Tokens that went elsewhere leave the state as it is, so experts specialise in parts of a text. Decoding keeps one
 * state for each expert, pass and sequence beside the key/value cache. */
#include <string.h>

#include "moe/experts/rows.h"

enum { INPUT, STATE, INPUT_BIAS, STATE_BIAS, OUT };

/* Rows row … row + n - 1 of an expert are tokens of one sequence: what one state walks over. */
struct walk {
    int32_t expert, seq, row, n;
    int32_t at; /* its row in the step at hand */
};
struct walks {
    struct walk *walk;
    int32_t n;
};

static bool starts_anew(const struct attn_batch *b, int32_t token, int32_t before, int32_t *seq)
{
    const int32_t was = *seq;
    while (b && token >= b->off[*seq + 1]) ++*seq;
    return *seq != was || (b && b->start && b->start[token] != b->start[before]);
}

static bool list_walks(struct nn *c, const struct expert_rows *rows, struct walks *list)
{
    const int32_t *token = rows->call->route->row_token + range_row(rows->call->route, rows->range);
    list->walk = arena_push(c->arena, (size_t)rows->n * sizeof *list->walk);
    list->n = 0;
    for (int32_t e = 0; list->walk && e < rows->of.n; e++)
        for (int32_t i = rows->of.off[e], seq = 0; i < rows->of.off[e + 1]; i++) {
            const bool first = i == rows->of.off[e];
            const bool anew = starts_anew(rows->call->batch, token[i], first ? token[i] : token[i - 1], &seq);
            if (first || anew) list->walk[list->n++] = (struct walk){ e, seq, i, 0, 0 };
            list->walk[list->n - 1].n++;
        }
    return list->walk;
}

/* The walks that have a step s: their rows among all (`row`) and in the step before (`before`), grouped by expert. */
struct step {
    int32_t n, *row, *before;
    struct groups of;
};

static bool make_step(struct nn *c, const struct expert_rows *rows, struct walks *list, int32_t s, struct step *out)
{
    int32_t *off = arena_push_zero(c->arena, (size_t)(rows->of.n + 1) * sizeof *off);
    out->row = arena_push(c->arena, (size_t)list->n * sizeof *out->row);
    out->before = arena_push(c->arena, (size_t)list->n * sizeof *out->before);
    if (!off || !out->row || !out->before) return false;
    out->n = 0;
    for (int32_t i = 0; i < list->n; i++) {
        struct walk *w = &list->walk[i];
        if (w->n <= s) continue;
        out->row[out->n] = w->row + s;
        out->before[out->n] = w->at;
        off[w->expert + 1]++;
        w->at = out->n++;
    }
    for (int32_t e = 0; e < rows->of.n; e++) off[e + 1] += off[e];
    out->of = (struct groups){ rows->of.n, off };
    return true;
}

/* Where a walk's state is kept between calls; NULL: whole sequences from nothing. */
static float *kept_state(const struct expert_rows *rows, const struct walk *w)
{
    const struct expert_call *call = rows->call;
    if (!call->kv) return NULL;
    return call->kv[w->seq].experts + moe_state_at(call->spec, call->iteration, rows->range->index) +
           (int64_t)w->expert * rows->range->ffn;
}

static struct val *first_states(struct nn *c, const struct expert_rows *rows, struct walks *list)
{
    const int64_t width = rows->range->ffn;
    struct val *h = nn_val(c, list->n, width);
    for (int32_t i = 0; h && i < list->n; i++) {
        const float *kept = kept_state(rows, &list->walk[i]);
        list->walk[i].at = i;
        if (kept) memcpy(h->data + i * width, kept, (size_t)width * sizeof(float));
        else memset(h->data + i * width, 0, (size_t)width * sizeof(float));
    }
    return h;
}

struct stored {
    struct val *all, *h;
    const int32_t *row;
};

static void store_back(struct nn *c, void *saved)
{
    const struct stored *s = saved;
    float *dh = s->all->grad ? nn_grad(c, s->h) : NULL;
    for (int64_t i = 0; dh && i < s->h->rows; i++)
        kern->add(dh + i * s->h->cols, s->all->grad + s->row[i] * s->h->cols, s->h->cols);
}

static bool store(struct nn *c, struct val *all, struct val *h, const int32_t *row)
{
    struct stored *s = arena_push(c->arena, sizeof *s);
    if (!s) return false;
    *s = (struct stored){ all, h, row };
    for (int64_t i = 0; i < h->rows; i++)
        memcpy(all->data + row[i] * h->cols, h->data + i * h->cols, (size_t)h->cols * sizeof(float));
    return nn_record(c, store_back, s);
}

static void keep_states(const struct expert_rows *rows, const struct walks *list, const struct val *all)
{
    for (int32_t i = 0; i < list->n; i++) {
        const struct walk *w = &list->walk[i];
        float *kept = kept_state(rows, w);
        if (kept) memcpy(kept, all->data + (w->row + w->n - 1) * all->cols, (size_t)all->cols * sizeof(float));
    }
}

/* All walks go on one token at a time, side by side. */
static struct val *states(struct nn *c, const struct expert_rows *rows, struct val *gates)
{
    struct walks list;
    struct val *all = gates ? nn_val(c, rows->n, rows->range->ffn) : NULL;
    struct val *h = all && list_walks(c, rows, &list) ? first_states(c, rows, &list) : NULL;
    for (int32_t s = 0; h; s++) {
        struct step step;
        if (!make_step(c, rows, &list, s, &step)) return NULL;
        if (!step.n) break;
        struct val *before = experts_pick(c, h, step.before, step.n);
        struct val *b = experts_linear(c, before, step.of, experts_weights(rows, STATE));
        b = experts_add_bias(c, b, step.of, experts_weights(rows, STATE_BIAS));
        h = nn_gru(c, experts_pick(c, gates, step.row, step.n), b, before);
        if (!h || !store(c, all, h, step.row)) return NULL;
    }
    if (h) keep_states(rows, &list, all);
    return h ? all : NULL;
}

static struct val *body(struct nn *c, const struct expert_rows *rows)
{
    struct val *gates = experts_linear(c, experts_inputs(c, rows), rows->of, experts_weights(rows, INPUT));
    gates = experts_add_bias(c, gates, rows->of, experts_weights(rows, INPUT_BIAS));
    struct val *h = states(c, rows, gates);
    if (h) experts_show_hidden(rows, h);
    return experts_linear(c, h, rows->of, experts_weights(rows, OUT));
}

static coe_status run(struct nn *c, struct expert_call *call, const struct expert_range *g)
{
    return experts_composed(c, call, g, body);
}

static int64_t state(const struct expert_range *r) { return (int64_t)r->n * r->ffn; }

static bool input_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    *rows = 3 * (int64_t)at->range->ffn, *cols = at->d_model;
    return true;
}

static bool state_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    *rows = 3 * (int64_t)at->range->ffn, *cols = at->range->ffn;
    return true;
}

static bool bias_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    *rows = 1, *cols = 3 * (int64_t)at->range->ffn;
    return true;
}

static bool out_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    *rows = at->d_model, *cols = at->range->ffn;
    return true;
}

static const struct part_weight weights[] = {
    { .name = "gru.weight_ih", .scope = PART_OF_EXPERT, .shape = input_shape },
    { .name = "gru.weight_hh", .scope = PART_OF_EXPERT, .init = INIT_ORTHOGONAL, .shape = state_shape },
    { .name = "gru.bias_ih", .scope = PART_OF_EXPERT, .vector = true, .init = INIT_ZERO, .shape = bias_shape },
    { .name = "gru.bias_hh", .scope = PART_OF_EXPERT, .vector = true, .init = INIT_ZERO, .shape = bias_shape },
    { .name = "out.weight", .scope = PART_OF_EXPERT, .shape = out_shape },
    { 0 },
};

static const struct expert_part gru = { .run = run, .weights = weights, .state = state, .wide = true };
COE_PART(expert, gru, .summary = "a gated recurrent unit over the tokens that come to it", .paper = "Hecto, 2025",
         .card = "routing.md 19", .unit = "sequence", .impl = &gru)
