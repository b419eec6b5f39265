/* segment.c — an expert that works on a whole segment of tokens at once: E([x_1 | … | x_w]) = W2 a(W1 [x_1 | … | x_w]),
 * cut into the outputs of its tokens.
 *
 * Paper: Seg-MoE, 2026, in the form of the paper (card: routing.md 17). Needs the router `segment` of the same width,
 * so that the tokens of a segment come together; those that a capacity keeps away, and the end of a last segment, are
 * zeros. */
#include "moe/experts/rows.h"
#include "moe/segments.h"

#include <string.h>

enum { UP, DOWN };
static const struct part_param params[] = {
    { "hidden", "hidden units of the segment's network", NULL, 1, 1 << 24, 256, true },
    { 0 },
};

static int32_t width_of(const struct moe_spec *m) { return (int32_t)m->router.kind_param[0]; }

/* place [n] of the range's rows, segments counted expert by expert; off [n experts + 1] where an expert's begin */
static int32_t segments_of_rows(const struct expert_rows *rows, const int32_t *token_place, int32_t width,
                                int32_t *place, int32_t *off)
{
    const struct route *r = rows->call->route;
    const int32_t from = range_row(r, rows->range);
    int32_t segments = 0;
    for (int32_t e = 0; e < rows->of.n; e++) {
        int32_t last = -1;
        off[e] = segments;
        for (int32_t i = rows->of.off[e]; i < rows->of.off[e + 1]; i++) {
            const int32_t at = token_place[r->row_token[from + i]];
            if (at / width != last) segments++;
            last = at / width;
            place[i] = (segments - 1) * width + at % width;
        }
    }
    off[rows->of.n] = segments;
    return segments;
}

static struct val *body(struct nn *c, const struct expert_rows *rows)
{
    const struct expert_call *call = rows->call;
    const int32_t width = width_of(call->spec);
    int32_t *tokens = arena_push(c->arena, (size_t)call->x->rows * sizeof *tokens);
    int32_t *place = arena_push(c->arena, (size_t)rows->n * sizeof *place);
    int32_t *off = arena_push(c->arena, ((size_t)rows->of.n + 1) * sizeof *off);
    if (!tokens || !place || !off) return NULL;
    segments_of(call->batch, call->x->rows, width, tokens);
    const int32_t n = segments_of_rows(rows, tokens, width, place, off);
    const struct groups of = { rows->of.n, off };
    struct val *u = nn_fold(c, experts_inputs(c, rows), place, n, width);
    u = nn_act(c, call->spec->act, experts_linear(c, u, of, experts_weights(rows, UP)), NULL);
    return nn_unfold(c, experts_linear(c, u, of, experts_weights(rows, DOWN)), place, rows->n, width);
}

static coe_status run(struct nn *c, struct expert_call *call, const struct expert_range *g)
{
    return experts_composed(c, call, g, body);
}

static bool up_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    *rows = (int64_t)at->param[0], *cols = at->d_model * width_of(at->spec);
    return true;
}

static bool down_shape(const struct part_at *at, int64_t *rows, int64_t *cols) { return up_shape(at, cols, rows); }

static coe_status check(const struct moe_spec *m, const struct expert_range *r, const char *where)
{
    (void)r;
    if (!strcmp(m->router.kind, "segment")) return COE_OK;
    return coe_fail(COE_E_INPUT, "%s: segment experts need the router segment, which keeps a segment's tokens together",
                    where);
}

static const struct part_weight weights[] = {
    { .name = "up_proj.weight", .scope = PART_OF_EXPERT, .shape = up_shape },
    { .name = "down_proj.weight", .scope = PART_OF_EXPERT, .shape = down_shape },
    { 0 },
};
static const struct expert_part segment = { .run = run, .check = check, .weights = weights };
COE_PART(expert, segment, .summary = "a network over all tokens of a segment at once", .paper = "Seg-MoE, 2026",
         .card = "routing.md 17", .unit = "segment", .params = params, .impl = &segment)
