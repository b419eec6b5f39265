/* ternary.c — feed-forward experts whose weights are -alpha, 0 or alpha, trained through their rounding.
 *
 * Paper: Mixture of Ternary Experts (MoTE), 2025 (card: compress.md, MoTE). Each matrix, with alpha the mean of |W|:
 *     W~ = alpha · clip(round(W / (alpha + 1e-5)), -1, 1)       round half to even
 * and each row that it multiplies, with m its largest magnitude:  x~ = round(127 x / m) · m / 127.
 * Gradients pass both roundings unchanged. What is stored and trained are the masters W: rounding W~ again would give
 * another alpha. The frozen full-precision network beside them is the shared expert. */
#include <math.h>
#include <string.h>

#include "moe/experts/rows.h"

#define LANES 8 /* chains of a sum or maximum, so that it fills wide registers */

static double magnitudes(const float *x, int64_t n)
{
    double sum[LANES] = { 0 };
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++) sum[l] += fabs((double)x[i + l]);
    for (; i < n; i++) sum[0] += fabs((double)x[i]);
    return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

static float largest_of(const float *x, int64_t n)
{
    float most[LANES] = { 0 }, all = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++) most[l] = fabsf(x[i + l]) > most[l] ? fabsf(x[i + l]) : most[l];
    for (; i < n; i++) all = fmaxf(all, fabsf(x[i]));
    for (int l = 0; l < LANES; l++) all = fmaxf(all, most[l]);
    return all;
}

/* x [n] = W~ of one matrix. A half is rounded to even, to 0. */
static void round_matrix(float *x, const struct weight *w)
{
    const int64_t n = weight_count(w);
    widen(x, w->data, w->type, n);
    const float alpha = (float)(magnitudes(x, n) / (double)n), step = alpha + 1e-5f;
    for (int64_t i = 0; i < n; i++) {
        const float r = x[i] / step;
        x[i] = alpha * (float)((r > 0.5f) - (r < -0.5f));
    }
}

/* To the nearest whole number, even in the middle, of |x| < 2^22: there a float of 1.5 · 2^23 more has no fraction. */
static float round_small(float x) { return (x + 12582912.0f) - 12582912.0f; }

/* Of the experts that have rows, with the gradients of the masters; the others keep their masters, which nobody
 * multiplies. */
static const struct weight *const *rounded_all(struct nn *c, const struct expert_rows *rows,
                                               const struct weight *const *w)
{
    const int32_t n = rows->of.n;
    struct weight *own = arena_push(c->arena, (size_t)n * sizeof *own);
    const struct weight **out = arena_push(c->arena, (size_t)n * sizeof *out);
    float **room = arena_push_zero(c->arena, (size_t)n * sizeof *room);
    if (!own || !out || !room) return NULL;
    for (int32_t e = 0; e < n; e++) {
        const struct weight *master = w[rows->range->first + e];
        own[e] = (struct weight){ .name = master->name, .type = DT_F32, /* groups are of one type */
                                  .rows = master->rows, .cols = master->cols, .data = master->data,
                                  .master = master->master, .grad = master->grad };
        out[e] = &own[e];
        if (rows->of.off[e] == rows->of.off[e + 1]) continue;
        own[e].data = room[e] = arena_push(c->arena, (size_t)weight_count(master) * sizeof(float));
        if (!room[e]) return NULL;
    }
    COE_SPREAD(rows->n > 16, for (int32_t e = 0; e < n; e++),
               if (room[e]) round_matrix(room[e], w[rows->range->first + e]));
    return out;
}

/* x to eight bits a row, in place: whatever made it keeps no output for its backward pass, and a gradient passes
 * unchanged. */
static struct val *eight_bits(struct val *x)
{
    if (!x) return NULL;
    COE_SPREAD(x->rows > 16, for (int64_t i = 0; i < x->rows; i++), {
        float *row = x->data + i * x->cols;
        const float largest = largest_of(row, x->cols);
        const float up = largest > 0 ? 127.0f / largest : 0, down = largest / 127.0f;
        for (int64_t j = 0; j < x->cols; j++) row[j] = round_small(row[j] * up) * down;
    });
    return x;
}

static struct val *body(struct nn *c, const struct expert_rows *rows)
{
    const struct moe_weights *w = rows->call->w;
    const struct weight *const *gate = rounded_all(c, rows, w->gate), *const *up = rounded_all(c, rows, w->up),
                               *const *down = rounded_all(c, rows, w->down);
    struct val *x = gate && up && down ? eight_bits(experts_inputs(c, rows)) : NULL;
    struct val *h = experts_linear(c, x, rows->of, gate);
    struct val *u = nn_act(c, rows->call->spec->act, h, h ? experts_linear(c, x, rows->of, up) : NULL);
    if (u) experts_show_hidden(rows, u);
    return experts_linear(c, eight_bits(u), rows->of, down);
}

static coe_status run(struct nn *c, struct expert_call *call, const struct expert_range *g)
{
    return experts_composed(c, call, g, body);
}

static coe_status check(const struct moe_spec *m, const struct expert_range *r, const char *where)
{
    (void)r;
    if (m->act == ACT_SWIGLU_CLAMP || m->expert_bias)
        return coe_fail(COE_E_INPUT, "%s: ternary experts with a clamp or biases", where);
    return COE_OK;
}

static const struct expert_part ternary = { .run = run, .check = check, .wide = true, .matrices = true, .reads = true };
COE_PART(expert, ternary, .summary = "feed-forward expert whose weights are rounded to -alpha, 0, alpha",
         .paper = "MoTE, 2025", .card = "compress.md MoTE", .unit = "token", .impl = &ternary)
