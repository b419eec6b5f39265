/* ffn.c — gated feed-forward experts, E_e(x) = W2_e (a(W1_e x) ⊙ W3_e x), all experts of a range in grouped products.
 *
 * Card: systems.md part D (dropless gradients) and SonicMoE: kept for backward are x, the pre-activations and the
 * weights; u is recomputed, the outputs are not kept because dg = ⟨dO·W2, u⟩.
 *   forward   H1 = X[τ]·W1ᵀ  H3 = X[τ]·W3ᵀ  U = a(H1)⊙H3  Y = U·W2ᵀ      rows by expert, tokens ascending
 *   backward  dU' = dO[τ]·W2   dg = ⟨dU', U⟩   dU = g·dU'   dW2 += dO[τ]ᵀ·(g U)   dH1, dH3 through a
 *             dW1 += dH1ᵀ·X[τ]  dW3 += dH3ᵀ·X[τ]  dX_t += Σ_slots dH1·W1 + dH3·W3   slots of a token in ascending id
 * Arrays hold the rows of the whole route; one call fills those of its range. */
#include <string.h>

#include "moe/experts/rows.h"
#include "tensor/gemm_experts.h"

struct ffn_saved {
    const struct moe_spec *spec;
    const struct moe_weights *w;
    struct val *x, *y;
    struct route *route;
    struct expert_range range;
    float *h1, *h3; /* [n_slots, F] */
};

static int32_t first_row(const struct ffn_saved *s) { return s->route->off[s->range.first]; }
static int32_t end_row(const struct ffn_saved *s) { return s->route->off[s->range.first + s->range.n]; }

static void add_bias_rows(float *y, int64_t cols, const struct ffn_saved *s, const struct weight *const *bias)
{
    const struct route *r = s->route;
    if (!bias) return;
    COE_SPREAD(
        r->n_slots * cols > NN_ALONE_BELOW, for (int32_t e = s->range.first; e < s->range.first + s->range.n; e++),
        for (int32_t row = r->off[e]; row < r->off[e + 1]; row++) kern->add(y + row * cols, bias[e]->data, cols));
}

/* Rows of the input as the experts see them: with weigh_input, times the weight. */
static struct val *weighed_input(struct nn *c, const struct ffn_saved *s)
{
    const struct route *r = s->route;
    const int64_t d = s->x->cols;
    struct val *rows = nn_val(c, r->n_slots, d);
    for (int32_t i = 0; rows && i < r->n_slots; i++)
        kern->scale(rows->data + i * d, s->x->data + r->row_token[i] * d, r->weight[r->row_slot[i]], d);
    return rows;
}

static void activate(const struct moe_spec *spec, float *u, const float *gate, const float *up, int64_t n)
{
    if (spec->act == ACT_SWIGLU_CLAMP)
        kern->act_clamp(spec->act_limit, u, gate, up, n);
    else
        kern->act(spec->act, u, gate, up, n);
}

static void activate_rows(const struct ffn_saved *s, float *u)
{
    const int64_t f = s->range.ffn;
    COE_SPREAD((end_row(s) - first_row(s)) * f > NN_ALONE_BELOW / 8,
               for (int32_t row = first_row(s); row < end_row(s); row++),
               activate(s->spec, u + row * f, s->h1 + row * f, s->h3 ? s->h3 + row * f : NULL, f));
}

static void hidden_back(struct ffn_saved *s, float *du, float *gu)
{
    const int64_t f = s->range.ffn;
#pragma omp parallel for schedule(static)
    for (int32_t row = first_row(s); row < end_row(s); row++) {
        float *du_row = du + row * f, *u = gu + row * f, *h1 = s->h1 + row * f, *h3 = s->h3 ? s->h3 + row * f : NULL;
        const int32_t slot = s->route->row_slot[row];
        const float g = s->route->weight[slot];
        activate(s->spec, u, h1, h3, f);
        s->route->weight_grad[slot] += kern->dot(du_row, u, f);
        kern->scale(du_row, du_row, g, f);
        kern->scale(u, u, g, f);
        /* dH1, dH3 in place of H1, H3 */
        if (s->spec->act == ACT_SWIGLU_CLAMP)
            kern->act_clamp_back(s->spec->act_limit, h1, h3, NULL, h1, h3, du_row, f);
        else
            kern->act_back(s->spec->act, h1, h3, NULL, h1, h3, du_row, f);
    }
}

static void bias_back(const struct ffn_saved *s, const float *go)
{
    const struct route *r = s->route;
    const int64_t f = s->range.ffn, d = s->x->cols;
    if (!s->w->gate_bias && !s->w->down_bias) return;
#pragma omp parallel for schedule(static)
    for (int32_t e = s->range.first; e < s->range.first + s->range.n; e++)
        for (int32_t row = r->off[e]; row < r->off[e + 1]; row++) {
            const float *g = go + (int64_t)r->row_token[row] * d, weight = r->weight[r->row_slot[row]];
            if (s->w->gate_bias && s->w->gate_bias[e]->grad) kern->add(s->w->gate_bias[e]->grad, s->h1 + row * f, f);
            if (s->w->up_bias && s->w->up_bias[e]->grad) kern->add(s->w->up_bias[e]->grad, s->h3 + row * f, f);
            if (!s->w->down_bias) continue;
            if (s->w->down_bias[e]->grad) kern->fma_row(s->w->down_bias[e]->grad, weight, g, d);
            r->weight_grad[r->row_slot[row]] += kern->dot(g, s->w->down_bias[e]->data, d);
        }
}

static void ffn_back(struct nn *c, void *saved)
{
    struct ffn_saved *s = saved;
    if (!s->y->grad || first_row(s) == end_row(s)) return;
    const struct route *r = s->route;
    const int64_t f = s->range.ffn, d = s->x->cols;
    const int32_t e = s->range.first;
    const struct groups g = { s->range.n, r->off + e };
    float *dx = nn_grad(c, s->x);
    struct arena_mark mark = arena_save(c->arena);
    float *du = arena_push(c->arena, (size_t)r->n_slots * (size_t)f * sizeof(float));
    float *gu = arena_push(c->arena, (size_t)r->n_slots * (size_t)f * sizeof(float));
    float *da = arena_push(c->arena, (size_t)r->n_slots * (size_t)d * sizeof(float));
    if (!dx || !du || !gu || !da) return;
    gemm_grouped_dx(du, f, s->y->grad, d, r->row_token, g, s->w->down + e, false);
    hidden_back(s, du, gu);
    bias_back(s, s->y->grad);
    gemm_grouped_dw(s->w->down + e, s->y->grad, d, r->row_token, gu, f, NULL, g);
    gemm_grouped_dw(s->w->gate + e, s->h1, f, NULL, s->x->data, d, r->row_token, g);
    gemm_grouped_dx(da, d, s->h1, f, NULL, g, s->w->gate + e, false);
    if (s->h3) {
        gemm_grouped_dw(s->w->up + e, s->h3, f, NULL, s->x->data, d, r->row_token, g);
        gemm_grouped_dx(da, d, s->h3, f, NULL, g, s->w->up + e, true);
    }
    experts_add_dx(dx, r, &s->range, da + first_row(s) * d, d);
    arena_rewind(c->arena, mark);
}

static bool adapted(const struct weight *const *w, const struct ffn_saved *s)
{
    for (int32_t e = s->range.first; w && e < s->range.first + s->range.n; e++)
        if (w[e] && w[e]->low_rank) return true;
    return false;
}

/* Nobody will ask for the pre-activations, and nothing comes between products and activation. */
static bool can_fuse(const struct nn *c, const struct ffn_saved *s)
{
    return !c->tape && !s->w->gate_bias && !s->w->up_bias && !adapted(s->w->gate, s) && !adapted(s->w->up, s);
}

/* What W2 multiplies is wanted in one kind of codes only: blocks of so many; else 0. Also 0 where whole blocks would be
 * too few parts for all threads. */
static int32_t codes_only(const struct nn *c, const struct ffn_saved *s)
{
    const struct route *r = s->route;
    int32_t only = 0;
    int64_t parts = 0;
    for (int32_t e = s->range.first; e < s->range.first + s->range.n; e++) {
        if (r->off[e] == r->off[e + 1]) continue;
        const int32_t block = nn_code_block(c, s->w->down[e]->type);
        if (block <= 1 || (only && block != only)) return 0;
        only = block;
        parts += s->range.ffn / block;
    }
    return parts < 2 * coe_threads() ? 0 : only;
}

/* A place for what W2 multiplies, [n_slots, F]: its codes in blocks of `block`, or with 0 itself. */
static struct val *hidden_place(struct nn *c, const struct ffn_saved *s, int32_t block)
{
    const int64_t n = s->route->n_slots, f = s->range.ffn;
    const size_t bytes = block ? codes_bytes(n, f, block) : (size_t)(n * f) * sizeof(float);
    void *memory = arena_push(c->arena, bytes);
    struct codes *made = block ? arena_push(c->arena, sizeof *made) : NULL;
    struct val *u = nn_wrap(c, block ? NULL : memory, n, f);
    if (!memory || !u || (block && !made)) return NULL;
    if (!block) return u;
    codes_lay_out(made, memory, n, f, block);
    u->codes[codes_kind(block)] = made;
    return u;
}

/* Fills the range's rows of `hidden`. With h1 that and h3 are left, too. false when memory is out. */
static bool hidden_rows_of(struct nn *c, struct ffn_saved *s, struct val *x, const int32_t *token, struct val *hidden,
                           int32_t block)
{
    const int64_t f = s->range.ffn;
    const int32_t e = s->range.first;
    const struct groups g = { s->range.n, s->route->off + e };
    const struct weight *const *gate = s->w->gate + e, *const *up = s->w->up ? s->w->up + e : NULL;
    if (!s->h1) {
        if (!nn_codes_for(c, x, g, gate) || (up && !nn_codes_for(c, x, g, up))) return false;
        const struct gemm_rows rows = { x->data, x->cols, x->codes, token };
        gemm_gate_up(hidden->data, f, block ? hidden->codes[codes_kind(block)] : NULL, &rows, g, gate, up,
                     s->spec->act, s->spec->act_limit);
        return true;
    }
    if (!nn_grouped(c, s->h1, f, x, token, g, gate)) return false;
    add_bias_rows(s->h1, f, s, s->w->gate_bias);
    if (up && !nn_grouped(c, s->h3, f, x, token, g, up)) return false;
    if (up) add_bias_rows(s->h3, f, s, s->w->up_bias);
    activate_rows(s, hidden->data);
    return true;
}

/* Observers read all experts' hidden rows at one stride, that of the widest. */
static void show_hidden(const struct ffn_saved *s, const struct expert_call *call, const float *u)
{
    const int64_t f = s->range.ffn, stride = s->spec->expert_ffn;
    for (int32_t row = first_row(s); call->hidden && row < end_row(s); row++)
        memcpy(call->hidden + row * stride, u + row * f, (size_t)f * sizeof(float));
}

/* Outputs go to their tokens as they are made: nobody asks for the rows, for training or to look at. */
static bool can_combine(const struct nn *c, const struct ffn_saved *s, const struct expert_call *call)
{
    return !c->tape && !call->rows && !call->spec->weigh_input && !adapted(s->w->down, s);
}

/* y += weight * (u · W2ᵀ + bias) over the range's rows; false when memory is out. */
static bool down_to_tokens(struct nn *c, const struct ffn_saved *s, struct expert_call *call, struct val *u)
{
    const struct route *r = s->route;
    const int32_t e = s->range.first;
    const struct groups g = { s->range.n, r->off + e };
    const struct weight *const *bias = s->w->down_bias ? s->w->down_bias + e : NULL;
    float *weight = arena_push(c->arena, (size_t)r->n_slots * sizeof *weight);
    if (!weight || !nn_codes_for(c, u, g, s->w->down + e)) return false;
    for (int32_t row = first_row(s); row < end_row(s); row++) weight[row] = r->weight[r->row_slot[row]];
    const struct gemm_rows rows = { u->data, u->cols, u->codes, NULL };
    experts_begin(call);
    gemm_down(call->y->data, call->y->cols, r->row_token, weight, &rows, g, s->w->down + e, bias);
    return true;
}

/* The same by way of call->rows, or rows of its own. */
static bool down_by_rows(struct nn *c, const struct ffn_saved *s, struct expert_call *call, struct val *u)
{
    const int64_t d = call->x->cols;
    const int32_t e = s->range.first;
    const struct groups g = { s->range.n, s->route->off + e };
    const size_t bytes = (size_t)s->route->n_slots * (size_t)d * sizeof(float);
    float *rows = call->rows ? call->rows : arena_push(c->arena, bytes);
    if (!rows || !nn_grouped(c, rows, d, u, NULL, g, s->w->down + e)) return false;
    add_bias_rows(rows, d, s, s->w->down_bias);
    experts_combine(call, &s->range, rows + first_row(s) * d);
    return true;
}

static coe_status run(struct nn *c, struct expert_call *call, const struct expert_range *range)
{
    const struct route *r = call->route;
    const int64_t f = range->ffn;
    const int32_t e = range->first;
    const size_t hidden = (size_t)r->n_slots * (size_t)f * sizeof(float);
    const bool weighed = call->spec->weigh_input;
    if (weighed && nn_forward_only(c, "an expert whose input is weighed")) return COE_E_USAGE;
    struct ffn_saved *s = arena_push(c->arena, sizeof *s);
    if (!s) return COE_E_NOMEM;
    *s = (struct ffn_saved){ call->spec, call->w, call->x, call->y, call->route, *range, NULL, NULL };
    const struct groups g = { range->n, r->off + e };
    if (!weighed) { /* before the mark: other ranges and the shared expert use the codes of the input again */
        if (!nn_codes_for(c, call->x, g, call->w->gate + e)) return COE_E_NOMEM;
        if (call->w->up && !nn_codes_for(c, call->x, g, call->w->up + e)) return COE_E_NOMEM;
    }
    struct arena_mark mark = arena_save(c->arena);
    const bool fused = can_fuse(c, s);
    if (!fused) s->h1 = arena_push(c->arena, hidden);
    if (!fused && call->w->up) s->h3 = arena_push(c->arena, hidden);
    struct arena_mark kept = arena_save(c->arena);
    const bool combines = can_combine(c, s, call);
    const int32_t block = fused && combines && !call->hidden ? codes_only(c, s) : 0;
    struct val *x = weighed ? weighed_input(c, s) : call->x, *u = hidden_place(c, s, block);
    const int32_t *token = weighed ? NULL : r->row_token;
    if ((!fused && (!s->h1 || (call->w->up && !s->h3))) || !u || !x) return COE_E_NOMEM;
    if (!hidden_rows_of(c, s, x, token, u, block)) return COE_E_NOMEM;
    show_hidden(s, call, u->data);
    if (!(combines ? down_to_tokens(c, s, call, u) : down_by_rows(c, s, call, u))) return COE_E_NOMEM;
    arena_rewind(c->arena, c->tape ? kept : mark);
    return nn_record(c, ffn_back, s) ? COE_OK : COE_E_NOMEM;
}

static const struct expert_part ffn = { .run = run, .wide = true, .matrices = true };
COE_PART(expert, ffn, .summary = "gated feed-forward expert, all experts of a range in grouped products",
         .paper = "GLU Variants Improve Transformer, 2020", .card = "systems.md part D", .unit = "token", .impl = &ffn)
