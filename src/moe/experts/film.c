/* film.c — experts that modulate the features of one shared network: E_e(x) = A (γ_e ⊙ h + β_e), h = a(W1 x) ⊙ W2 x.
 *
 * Paper: Efficient Deweather Mixture-of-Experts with Uncertainty-aware Feature-wise Linear Modulation (MoFME), 2023
 * (card: composition.md). W1, W2 [F, d] and A [d, F] belong to the layer. `form: static` has two vectors for each
 * expert; `linear` adds what is linear in h: γ_e + G_e h and β_e + B_e h, G_e, B_e [F, F]. γ starts at one and the rest
 * at zero for `static`, so that all experts begin as the shared network.
 *
 * A token's modulations are mixed in h's space and A is applied once to the mixture: its cost does not depend on k. Its
 * experts' outputs one by one exist only when somebody watches. */
#include <string.h>

#include "moe/experts/rows.h"

enum { FC1, FC2, ADAPTOR, GAMMA, BETA, GAMMA_OF_H, BETA_OF_H };
static const char *const forms[] = { "static", "linear", NULL };
static const struct part_param params[] = {
    { "form", "whether the modulation is the same for all inputs", forms, 0, 0, 0, false },
    { 0 },
};

struct film_saved {
    struct val *h, *y; /* [n, F] */
    struct groups of;
    const struct weight *const *gamma, *const *beta;
};

static void film_back(struct nn *c, void *saved)
{
    const struct film_saved *s = saved;
    const int64_t f = s->h->cols;
    bool fresh = false;
    float *dh = s->y->grad ? nn_grad_raw(c, s->h, &fresh) : NULL;
    const struct arena_mark mark = arena_save(c->arena);
    float *room = dh ? arena_push(c->arena, (size_t)(s->of.n * f) * sizeof *room) : NULL;
    if (!room) return;
#pragma omp parallel for schedule(dynamic) if (s->h->rows * f > NN_ALONE_BELOW)
    for (int32_t e = 0; e < s->of.n; e++) {
        float *product = room + e * f;
        for (int64_t i = s->of.off[e]; i < s->of.off[e + 1]; i++) {
            const float *dy = s->y->grad + i * f, *h = s->h->data + i * f;
            kern->mul(fresh ? dh + i * f : product, dy, s->gamma[e]->data, f);
            if (!fresh) kern->add(dh + i * f, product, f);
            if (s->gamma[e]->grad) kern->mul(product, dy, h, f), kern->add(s->gamma[e]->grad, product, f);
            if (s->beta[e]->grad) kern->add(s->beta[e]->grad, dy, f);
        }
    }
    arena_rewind(c->arena, mark);
}

/* y = γ_e ⊙ h + β_e */
static struct val *modulated(struct nn *c, struct val *h, const struct expert_rows *rows)
{
    struct val *y = h ? nn_val(c, h->rows, h->cols) : NULL;
    struct film_saved *s = y ? arena_push(c->arena, sizeof *s) : NULL;
    if (!s) return NULL;
    *s = (struct film_saved){ h, y, rows->of, experts_weights(rows, GAMMA), experts_weights(rows, BETA) };
#pragma omp parallel for schedule(dynamic) if (h->rows * h->cols > NN_ALONE_BELOW)
    for (int32_t e = 0; e < s->of.n; e++)
        for (int64_t i = s->of.off[e]; i < s->of.off[e + 1]; i++) {
            kern->mul(y->data + i * h->cols, h->data + i * h->cols, s->gamma[e]->data, h->cols);
            kern->add(y->data + i * h->cols, s->beta[e]->data, h->cols);
        }
    return nn_record(c, film_back, s) ? y : NULL;
}

/* Rows in h's space, of the tokens in order of the route */
static struct val *body(struct nn *c, const struct expert_rows *rows)
{
    struct val *h = experts_inputs(c, rows), *y = modulated(c, h, rows);
    if (y && rows->range->param[0] > 0) {
        struct val *gamma = experts_linear(c, h, rows->of, experts_weights(rows, GAMMA_OF_H));
        y = gamma ? nn_add(c, y, nn_mul(c, h, gamma)) : NULL;
        y = y ? nn_add(c, y, experts_linear(c, h, rows->of, experts_weights(rows, BETA_OF_H))) : NULL;
    }
    if (y) experts_show_hidden(rows, y);
    return y;
}

struct add_saved {
    struct val *to, *y;
};

static void add_back(struct nn *c, void *saved)
{
    const struct add_saved *s = saved;
    float *dy = s->to->grad ? nn_grad(c, s->y) : NULL;
    if (dy) kern->add(dy, s->to->grad, s->y->rows * s->y->cols);
}

/* The layer's output so far += y */
static bool add_into(struct nn *c, struct expert_call *call, struct val *y)
{
    struct add_saved *s = arena_push(c->arena, sizeof *s);
    if (!s) return false;
    const int64_t n = y->rows * y->cols;
    if (call->filled)
        kern->add(call->y->data, y->data, n);
    else
        memcpy(call->y->data, y->data, (size_t)n * sizeof(float));
    call->filled = true;
    *s = (struct add_saved){ call->y, y };
    return nn_record(c, add_back, s);
}

/* What each expert alone gives, for whoever watches: A applied to the rows of the range */
static bool outputs(struct nn *c, struct expert_call *call, const struct expert_range *g, float *rows, int64_t f)
{
    struct nn plain = *c;
    plain.tape = NULL;
    const int64_t n = range_rows(call->route, g), from = range_row(call->route, g), d = call->y->cols;
    const struct val *y =
        nn_linear(&plain, nn_wrap(&plain, rows + from * f, n, f), call->w->kind_part[g->index][ADAPTOR], NULL);
    if (y) memcpy(call->rows + from * d, y->data, (size_t)(n * d) * sizeof(float));
    return y;
}

static coe_status run(struct nn *c, struct expert_call *call, const struct expert_range *g)
{
    if (!range_rows(call->route, g)) {
        experts_combine(call, g, NULL);
        return COE_OK;
    }
    const struct arena_mark mark = arena_save(c->arena);
    const struct weight *const *w = call->w->kind_part[g->index];
    struct val *gate = nn_linear(c, call->x, w[FC1], NULL);
    struct val *h = gate ? nn_act(c, call->spec->act, gate, nn_linear(c, call->x, w[FC2], NULL)) : NULL;
    if (!h) return coe_last_status();
    struct expert_call inner = *call;
    inner.x = h;
    inner.y = nn_val(c, h->rows, h->cols);
    inner.filled = false;
    if (call->rows) inner.rows = arena_push(c->arena, (size_t)call->route->n_slots * (size_t)h->cols * sizeof(float));
    if (!inner.y || (call->rows && !inner.rows)) return COE_E_NOMEM;
    COE_TRY(experts_composed(c, &inner, g, body));
    if (call->rows && !outputs(c, call, g, inner.rows, h->cols)) return coe_last_status();
    struct val *y = nn_linear(c, inner.y, w[ADAPTOR], NULL);
    if (!y || !add_into(c, call, y)) return coe_last_status();
    if (!c->tape) arena_rewind(c->arena, mark);
    return COE_OK;
}

static coe_status check(const struct moe_spec *m, const struct expert_range *r, const char *where)
{
    (void)r;
    if (m->act == ACT_SWIGLU_CLAMP || m->expert_bias || m->weigh_input)
        return coe_fail(COE_E_INPUT, "%s: film experts with a clamp, biases or weighed inputs", where);
    return COE_OK;
}

static bool fc_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    *rows = at->range->ffn, *cols = at->d_model;
    return true;
}

static bool adaptor_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    *rows = at->d_model, *cols = at->range->ffn;
    return true;
}

static bool vector_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    *rows = 1, *cols = at->range->ffn;
    return true;
}

static bool square_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    *rows = *cols = at->range->ffn;
    return at->param[0] > 0;
}

static const struct part_weight weights[] = {
    { .name = "fc1.weight", .scope = PART_OF_LAYER, .shape = fc_shape },
    { .name = "fc2.weight", .scope = PART_OF_LAYER, .shape = fc_shape },
    { .name = "adaptor.weight", .scope = PART_OF_LAYER, .shape = adaptor_shape },
    { .name = "gamma",
      .scope = PART_OF_EXPERT,
      .vector = true,
      .init = INIT_CONSTANT,
      .value = 1,
      .shape = vector_shape },
    { .name = "beta", .scope = PART_OF_EXPERT, .vector = true, .init = INIT_ZERO, .shape = vector_shape },
    { .name = "gamma.weight", .scope = PART_OF_EXPERT, .shape = square_shape },
    { .name = "beta.weight", .scope = PART_OF_EXPERT, .shape = square_shape },
    { 0 },
};

static const struct expert_part film = { .run = run, .check = check, .weights = weights, .wide = true };
COE_PART(expert, film, .summary = "modulates the features of one network that all experts share",
         .paper = "MoFME, 2023", .card = "composition.md MoFME", .unit = "token", .params = params, .impl = &film)
