/* latent.c — experts whose gate and up matrices are factored over one latent space for each group of them:
 * E_e(x) = W_e (a(G_e Bg x) ⊙ U_e Bu x), with Bg, Bu [m, d] of e's group, G_e, U_e [F, m], W_e [d, F].
 *
 * Paper: Mixture of Latent Experts (MoLAE), 2025 (card: routing.md 13). A group is `group` experts with consecutive
 * ids. Bg x and Bu x are made once for every token that comes to a group, however many of its experts it visits. With
 * m = min(d, group · F) any feed-forward layer has such a form. */
#include "moe/experts/rows.h"

#include <string.h>

enum { LATENT_GATE, LATENT_UP, GATE, UP, DOWN };
enum { LATENT, GROUP };

static const struct part_param params[] = {
    { "latent", "width m of the shared space", NULL, 1, 1 << 24, 64, true },
    { "group", "experts that share one", NULL, 1, 65536, 8, true },
    { 0 },
};

/* The tokens that come to each group, a token once for a group: first come, first listed. */
struct visits {
    int32_t n, *token;      /* [n] */
    int32_t *of_row;        /* [rows] which of them a row is */
    struct groups of_group; /* of the list */
};

static bool list_visits(struct nn *c, const struct expert_rows *rows, struct visits *v)
{
    const struct route *r = rows->call->route;
    const int32_t size = (int32_t)rows->range->param[GROUP], groups = rows->of.n / size;
    const int32_t from = range_row(r, rows->range);
    int32_t *off = arena_push_zero(c->arena, (size_t)(groups + 1) * sizeof *off);
    v->token = arena_push(c->arena, (size_t)rows->n * sizeof *v->token);
    v->of_row = arena_push(c->arena, (size_t)rows->n * sizeof *v->of_row);
    int32_t *seen = arena_push(c->arena, (size_t)r->n_tokens * sizeof *seen);
    if (!off || !v->token || !v->of_row || !seen) return false;
    v->n = 0;
    for (int32_t g = 0; g < groups; g++) {
        memset(seen, 0xff, (size_t)r->n_tokens * sizeof *seen);
        for (int32_t i = rows->of.off[g * size]; i < rows->of.off[(g + 1) * size]; i++) {
            const int32_t t = r->row_token[from + i];
            if (seen[t] < 0) {
                seen[t] = v->n;
                v->token[v->n++] = t;
            }
            v->of_row[i] = seen[t];
        }
        off[g + 1] = v->n;
    }
    v->of_group = (struct groups){ groups, off };
    return true;
}

/* Rows of gate or up: through the group's space, then by expert */
static struct val *factored(struct nn *c, const struct expert_rows *rows, const struct visits *v, int32_t latent,
                            int32_t own)
{
    const struct weight *all = experts_weight(rows, latent);
    const struct weight *const *w = experts_blocks(c, all, v->of_group.n);
    struct val *x = w ? experts_pick(c, rows->call->x, v->token, v->n) : NULL;
    struct val *h = experts_linear(c, x, v->of_group, w);
    return experts_linear(c, experts_pick(c, h, v->of_row, rows->n), rows->of, experts_weights(rows, own));
}

static struct val *body(struct nn *c, const struct expert_rows *rows)
{
    struct visits v;
    if (!list_visits(c, rows, &v)) return NULL;
    struct val *gate = factored(c, rows, &v, LATENT_GATE, GATE);
    struct val *u = nn_act(c, rows->call->spec->act, gate, gate ? factored(c, rows, &v, LATENT_UP, UP) : NULL);
    if (u) experts_show_hidden(rows, u);
    return experts_linear(c, u, rows->of, experts_weights(rows, DOWN));
}

static coe_status run(struct nn *c, struct expert_call *call, const struct expert_range *g)
{
    return experts_composed(c, call, g, body);
}

static coe_status check(const struct moe_spec *m, const struct expert_range *r, const char *where)
{
    if (r->n % (int32_t)r->param[GROUP])
        return coe_fail(COE_E_INPUT, "%s: %d latent experts in groups of %d", where, r->n, (int32_t)r->param[GROUP]);
    if (m->act == ACT_SWIGLU_CLAMP || m->expert_bias)
        return coe_fail(COE_E_INPUT, "%s: latent experts with a clamp or biases", where);
    return COE_OK;
}

static bool latent_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    *rows = at->range->n / (int64_t)at->param[GROUP] * (int64_t)at->param[LATENT], *cols = at->d_model;
    return true;
}

static bool own_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    *rows = at->range->ffn, *cols = (int64_t)at->param[LATENT];
    return true;
}

static bool down_shape(const struct part_at *at, int64_t *rows, int64_t *cols)
{
    *rows = at->d_model, *cols = at->range->ffn;
    return true;
}

static const struct part_weight weights[] = {
    { .name = "latent_gate.weight", .scope = PART_OF_LAYER, .couples = true, .shape = latent_shape },
    { .name = "latent_up.weight", .scope = PART_OF_LAYER, .couples = true, .shape = latent_shape },
    { .name = "gate_proj.weight", .scope = PART_OF_EXPERT, .shape = own_shape },
    { .name = "up_proj.weight", .scope = PART_OF_EXPERT, .shape = own_shape },
    { .name = "down_proj.weight", .scope = PART_OF_EXPERT, .shape = down_shape },
    { 0 },
};

static const struct expert_part latent = { .run = run, .check = check, .weights = weights, .wide = true,
                                          .reads = true };
COE_PART(expert, latent, .summary = "feed-forward experts that share the input factor of their group",
         .paper = "Mixture of Latent Experts, 2025", .card = "routing.md 13", .unit = "token", .params = params,
         .impl = &latent)
