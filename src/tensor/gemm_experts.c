/* gemm_experts.c — fused products of an expert layer: see gemm_experts.h. */
#include "tensor/gemm_experts.h"

#define STRIP_ROWS 96         /* rows of x of one part: what they make waits in the second-level cache */
#define STRIP_COLS 256        /* columns of it; a multiple of the panels' rows and of all blocks */
#define PANEL 32              /* their rows */
#define STRIP (STRIP_ROWS * STRIP_COLS)
#define ALONE_BELOW (1 << 17) /* multiply-adds that are done before a second thread has woken up */

static int64_t parts(int64_t n, int64_t part) { return (n + part - 1) / part; }

static const struct weight *first_weight(const struct weight *const *w, struct groups g)
{
    for (int32_t i = 0; i < g.n; i++)
        if (g.off[i + 1] > g.off[i]) return w[i];
    return NULL;
}

static bool worth_threads(const struct weight *w, struct groups g, int matrices)
{
    return (double)(g.off[g.n] - g.off[0]) * (double)w->rows * (double)w->cols * matrices > ALONE_BELOW;
}

static void count(double began, const struct weight *w, struct groups g, int matrices)
{
    if (!gemm_clock.on) return;
    gemm_clock.seconds += coe_now() - began;
    gemm_clock.operations += 2.0 * (g.off[g.n] - g.off[0]) * (double)w->rows * (double)w->cols * matrices;
}

/* What will be written behind a product, and was last in the caches of whoever: asked for before, it comes meanwhile. A
 * line from another core's cache takes as long as one from memory, and rows far apart are nothing that hardware
 * foresees. */
static void ask_row(const float *row, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16) __builtin_prefetch(row + i, 1);
}

struct gate_up {
    float *u;
    int64_t ldu;
    const struct codes *made;
    const struct gemm_rows *x;
    struct groups g;
    const struct weight *const *gate, *const *up;
    enum activation act;
    float act_limit;
};

/* Columns of a part, where there are `each` times the parts of w. Few rows of x are bound by reading the weights, and
 * reading is fast where it goes on for long: as many columns then as leave each thread a few parts. A multiple of unit,
 * or all. */
static int64_t part_cols(const struct weight *w, struct groups g, int64_t each, int64_t unit)
{
    const int64_t threads = coe_threads();
    int64_t rows = 0, cols = STRIP_COLS;
    for (int32_t e = 0; e < g.n; e++) rows = COE_MAX(rows, g.off[e + 1] - g.off[e]);
    const int64_t wanted = rows > 1 ? 4 * threads : threads > 1 ? 2 * threads : 1;
    while (cols < w->rows && rows * 2 * cols <= STRIP && each * parts(w->rows, 2 * cols) >= wanted) cols *= 2;
    while (cols > unit && each * parts(w->rows, cols) < wanted) cols /= 2;
    return cols;
}

static int32_t busy(struct groups g)
{
    int32_t n = 0;
    for (int32_t e = 0; e < g.n; e++) n += g.off[e + 1] > g.off[e];
    return n;
}

/* next: what this thread is likely to read behind it */
static void gate_up_part(const struct gate_up *p, int32_t g, int64_t first, int64_t m, int64_t c0, int64_t n,
                         const void *next)
{
    float gate[STRIP], up[STRIP];
    for (int64_t r = 0; !p->made && m > 1 && r < m; r++) ask_row(p->u + (first + r) * p->ldu + c0, n);
    gemm_part(gate, n, p->x, first, m, p->gate[g], c0, n, p->up ? gemm_row(p->up[g], c0) : next);
    if (p->up) gemm_part(up, n, p->x, first, m, p->up[g], c0, n, next);
    for (int64_t r = 0; r < m; r++) {
        float *u = p->made ? gate + r * n : p->u + (first + r) * p->ldu + c0;
        const float *b = p->up ? up + r * n : NULL;
        if (p->act == ACT_SWIGLU_CLAMP) kern->act_clamp(p->act_limit, u, gate + r * n, b, n);
        else kern->act(p->act, u, gate + r * n, b, n);
        if (p->made) codes_piece(p->made, first + r, c0, u, n);
    }
}

/* Parts are numbered group by group; a thread goes through them in ascending order. */
struct cursor {
    int32_t group;
    int64_t before;      /* parts of earlier groups */
    int64_t first, c0; /* the part's first row and column */
};

/* false behind the last part */
static bool seek(struct cursor *at, struct groups g, int64_t number, int64_t cols, int64_t across)
{
    for (int64_t n; at->group < g.n; at->group++, at->before += n) {
        n = parts(g.off[at->group + 1] - g.off[at->group], STRIP_ROWS) * across;
        if (number - at->before < n) break;
    }
    if (at->group == g.n) return false;
    at->first = g.off[at->group] + (number - at->before) / across * STRIP_ROWS;
    at->c0 = (number - at->before) % across * cols;
    return true;
}

void gemm_gate_up(float *u, int64_t ldu, const struct codes *made, const struct gemm_rows *x, struct groups g,
                  const struct weight *const *gate, const struct weight *const *up, enum activation act,
                  float act_limit)
{
    const struct gate_up p = { u, ldu, made, x, g, gate, up, act, act_limit };
    const struct weight *w = first_weight(gate, g);
    if (!w) return;
    const double began = gemm_clock.on ? coe_now() : 0;
    const int64_t cols = part_cols(w, g, busy(g), made ? COE_MAX(made->block, PANEL) : PANEL),
                  across = parts(w->rows, cols);
    int64_t next = 0;
#pragma omp parallel if (worth_threads(w, g, 2))
    {
        struct cursor at = { 0 };
        for (;;) {
            int64_t mine;
#pragma omp atomic capture
            mine = next++;
            if (!seek(&at, g, mine, cols, across)) break;
            struct cursor then = at; /* where threads that are equally fast take turns */
            const bool more = seek(&then, g, mine + coe_threads(), cols, across);
            gate_up_part(&p, at.group, at.first, COE_MIN(g.off[at.group + 1] - at.first, STRIP_ROWS), at.c0,
                         COE_MIN(w->rows - at.c0, cols), more ? gemm_row(gate[then.group], then.c0) : NULL);
        }
    }
    count(began, w, g, up ? 2 : 1);
}

struct down {
    float *y;
    int64_t ldy;
    const int32_t *token;
    const float *weight;
    const struct gemm_rows *u;
    const struct weight *const *down, *const *bias;
};

/* Rows first … first+m-1, all of group g, columns c0 … c0+n-1 of y. */
static void down_part(const struct down *p, int32_t g, int64_t first, int64_t m, int64_t c0, int64_t n,
                      const void *next)
{
    float out[STRIP];
    for (int64_t r = 0; m > 1 && r < m; r++) ask_row(p->y + p->token[first + r] * p->ldy + c0, n);
    gemm_part(out, n, p->u, first, m, p->down[g], c0, n, next);
    for (int64_t r = 0; r < m; r++) {
        if (p->bias) kern->add(out + r * n, (const float *)p->bias[g]->data + c0, n);
        kern->fma_row(p->y + p->token[first + r] * p->ldy + c0, p->weight[first + r], out + r * n, n);
    }
}

void gemm_down(float *y, int64_t ldy, const int32_t *token, const float *weight, const struct gemm_rows *u,
               struct groups g, const struct weight *const *down, const struct weight *const *bias)
{
    const struct down p = { y, ldy, token, weight, u, down, bias };
    const struct weight *w = first_weight(down, g);
    if (!w) return;
    const double began = gemm_clock.on ? coe_now() : 0;
    const int64_t owned = part_cols(w, g, 1, PANEL); /* columns of y: their thread walks all groups */
#pragma omp parallel for schedule(dynamic) if (worth_threads(w, g, 1))
    for (int64_t c0 = 0; c0 < w->rows; c0 += owned)
        for (int32_t e = 0, then; e < g.n; e = then) {
            for (then = e + 1; then < g.n && g.off[then] == g.off[then + 1]; then++) continue;
            const void *next = then < g.n ? gemm_row(down[then], c0) : NULL;
            for (int64_t r = g.off[e]; r < g.off[e + 1]; r += STRIP_ROWS)
                down_part(&p, e, r, COE_MIN(g.off[e + 1] - r, STRIP_ROWS), c0, COE_MIN(w->rows - c0, owned), next);
        }
    count(began, w, g, 1);
}
