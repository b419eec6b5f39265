/* The MoE layer with its losses in every router mode, and experts of every form: the FP64 twin agrees with central
 * differences, the FP32 layer with the twin: output, gradients of the stream, of the input and of every weight.
 *
 * Objective: Σ y ⊙ r + the losses of the spec. The choice of experts is constant under differentiation. */
#include "support/block.h"
#include "support/twin.h"

#include <string.h>

#include "gradient/modes.h"

#define ROWS 7
#define WIDTH 6
#define VALUE_TOL 2e-6
#define GRADIENT_TOL 1e-5

/* Two sequences of 3 and 4 tokens */
static const int32_t off[] = { 0, 3, ROWS };
static const struct attn_batch batch = { 2, off, NULL, NULL };

struct case_state {
    struct block *b;
    double **x; /* [n] weights, then the stream h and the input x0 */
    struct tv **leaf;
    double *r;
    struct twin_list frozen;
    struct tv *y;
};

static struct tv *leaf_named(const struct case_state *c, const char *format, int a)
{
    char name[64];
    snprintf(name, sizeof name, format, a);
    for (size_t i = 0; i < c->b->n; i++)
        if (!strcmp(c->b->list[i]->name, name)) return c->leaf[i];
    return NULL;
}

/* NULL when no expert has such a weight */
static struct tv **expert_row(const struct case_state *c, const char *format)
{
    struct tv **row = test_alloc((size_t)c->b->spec.n_experts * sizeof *row);
    bool any = false;
    for (int32_t e = 0; e < c->b->spec.n_experts; e++) any = (row[e] = leaf_named(c, format, e)) || any;
    return any ? row : NULL;
}

static void twin_kinds(const struct case_state *c, struct twin_moe *w)
{
    struct expert_range r[MAX_RANGES];
    for (int32_t g = 0, n = moe_ranges(&c->b->spec, r); g < n && c->b->spec.n_ranges; g++) {
        const struct part_weight *p = moe_kind(&r[g])->weights;
        for (int32_t i = 0; p && p[i].name; i++) {
            char format[64];
            const bool own = p[i].scope == PART_OF_EXPERT;
            snprintf(format, sizeof format, own ? "experts.%%d.%s" : "range.%%d.%s", p[i].name);
            if (own) w->expert_part[g][i] = expert_row(c, format);
            else w->kind_part[g][i] = leaf_named(c, format, g);
        }
    }
}

static struct twin_moe twin_weights(const struct case_state *c)
{
    struct twin_moe w = { .coe_weight = leaf_named(c, "coe_weight", 0) };
    for (int32_t t = 0; t < c->b->spec.chain.n_iterations; t++) {
        const int from = c->b->spec.chain.shared_gate ? 0 : t;
        w.router[t] = leaf_named(c, "router.%d", from);
        w.router_bias[t] = leaf_named(c, "router_bias.%d", from);
        w.selection_bias[t] = leaf_named(c, "selection_bias.%d", from);
    }
    w.gate = expert_row(c, "experts.%d.gate"), w.gate_bias = expert_row(c, "experts.%d.gate_bias");
    w.up = expert_row(c, "experts.%d.up"), w.up_bias = expert_row(c, "experts.%d.up_bias");
    w.down = expert_row(c, "experts.%d.down"), w.down_bias = expert_row(c, "experts.%d.down_bias");
    w.out_bias = leaf_named(c, "out_bias", 0);
    w.shared_gate = leaf_named(c, "shared.gate", 0);
    w.shared_up = leaf_named(c, "shared.up", 0);
    w.shared_down = leaf_named(c, "shared.down", 0);
    w.shared_expert_gate = leaf_named(c, "shared_expert_gate", 0);
    twin_kinds(c, &w);
    return w;
}

static struct tv *objective(struct case_state *c)
{
    const size_t n = c->b->n;
    struct twin_list *made = test_alloc(sizeof *made); /* the losses' notes point into it */
    twin_begin();
    for (size_t i = 0; i < n; i++) c->leaf[i] = twin_leaf(c->x[i], c->b->list[i]->rows, c->b->list[i]->cols);
    for (size_t i = n; i < n + 2; i++) c->leaf[i] = twin_leaf(c->x[i], ROWS, WIDTH);
    const struct twin_moe w = twin_weights(c);
    c->y = twin_moe_layer(&c->b->spec, &w, c->leaf[n], c->leaf[n + 1], made, c->frozen.n ? &c->frozen : NULL);
    struct tv *sum = twin_dot(c->y, c->r);
    for (int32_t i = 0; i < c->b->spec.n_losses; i++)
        sum = twin_add(sum, twin_loss(&c->b->spec.loss[i], made->records, made->n, &batch, NULL, NULL, 0));
    if (!c->frozen.n) c->frozen = *made;
    return sum;
}

static double value(void *user)
{
    struct case_state c = *(struct case_state *)user;
    const struct arena_mark mark = arena_save(test_arena());
    c.leaf = test_alloc((c.b->n + 2) * sizeof *c.leaf);
    const double y = objective(&c)->x[0];
    arena_rewind(test_arena(), mark);
    return y;
}

static double *doubles_of(const float *x, int64_t n)
{
    double *out = test_alloc((size_t)n * sizeof *out);
    for (int64_t i = 0; i < n; i++) out[i] = (double)x[i];
    return out;
}

static struct case_state make_case(struct block *b, uint64_t seed)
{
    struct case_state c = { .b = b };
    block_random(b, seed, 0.8);
    c.x = test_alloc((b->n + 2) * sizeof *c.x);
    c.leaf = test_alloc((b->n + 2) * sizeof *c.leaf);
    c.r = doubles_of(random_floats(seed + 1, ROWS * WIDTH, 1), ROWS * WIDTH);
    for (size_t i = 0; i < b->n; i++) c.x[i] = doubles_of(b->list[i]->master, weight_count(b->list[i]));
    for (size_t i = 0; i < 2; i++)
        c.x[b->n + i] = doubles_of(random_floats(seed + 2 + i, ROWS * WIDTH, 1), ROWS * WIDTH);
    return c;
}

#define ALONE 4 /* arrays of each mode whose derivative is taken by itself */

static void check_twin(struct case_state *c, const char *mode, uint64_t seed)
{
    const size_t n = c->b->n;
    bool *skip = test_alloc((n + 2) * sizeof *skip);
    const char **name = test_alloc((n + 2) * sizeof *name);
    twin_backward(objective(c));
    for (size_t i = 0; i < n + 2; i++) {
        name[i] = i < n ? c->b->list[i]->name : i == n ? "h" : "x0";
        skip[i] = strstr(name[i], "selection_bias") != NULL; /* it chooses; the choice is held */
    }
    const struct gradient_set set = { (int32_t)n + 2, c->x, c->leaf, skip, name };
    assert_derivatives(mode, &set, ALONE, seed, value, c);
}

static void check_choice(const struct twin_list *want, const struct block_run *run, const char *mode)
{
    assert_int_equal(want->n, run->n_records);
    for (int32_t i = 0; i < want->n; i++)
        for (int32_t s = 0; s < run->records[i]->route.n_slots; s++) {
            const struct route *r = &run->records[i]->route;
            const int32_t t = r->row_token[r->slot_row[s]];
            if (!want->records[i]->chosen[t * r->n_experts + r->expert[s]])
                fail_msg("%s: pass %d, token %d chose expert %d, the twin did not", mode, i, t, r->expert[s]);
        }
}

static void check_fast(struct case_state *c, const char *mode)
{
    struct tape tape = { 0 };
    struct nn nn = { .arena = test_arena(), .tape = &tape };
    const size_t n = c->b->n;
    char what[300];
    struct val *in[2];
    for (size_t i = 0; i < 2; i++) in[i] = nn_wrap(&nn, floats_of(c->x[n + i], ROWS * WIDTH), ROWS, WIDTH);
    struct block_run run = { 0 };
    struct val *y = block_forward(c->b, &nn, in[0], in[1], &run);
    check_choice(&c->frozen, &run, mode);
    assert_norm_close_d(mode, y->data, c->y->x, ROWS * WIDTH, VALUE_TOL);
    y->grad = floats_of(c->r, ROWS * WIDTH);
    const struct loss_call call = {
        .c = &nn, .records = run.records, .n_records = run.n_records, .batch = &batch, .scale = 1
    };
    double total;
    assert_ok(moe_losses(&call, &total, NULL));
    assert_ok(nn_backward(&nn));
    for (size_t i = 0; i < n; i++) {
        struct weight *w = c->b->list[i];
        snprintf(what, sizeof what, "%s: gradient of %s", mode, w->name);
        assert_norm_close_d(what, w->grad, c->leaf[i]->g, weight_count(w), GRADIENT_TOL);
    }
    snprintf(what, sizeof what, "%s: gradient of x0", mode);
    assert_norm_close_d(what, in[1]->grad, c->leaf[n + 1]->g, ROWS * WIDTH, GRADIENT_TOL);
    if (!in[0]->grad) return; /* a residual that leaves h out */
    snprintf(what, sizeof what, "%s: gradient of h", mode);
    assert_norm_close_d(what, in[0]->grad, c->leaf[n]->g, ROWS * WIDTH, GRADIENT_TOL);
}

static void check_layer(const struct moe_spec *spec, int form, const char *mode, uint64_t seed)
{
    const struct arena_mark mark = arena_save(test_arena());
    struct block b = block_make(spec, WIDTH, form);
    struct case_state c = make_case(&b, seed);
    check_twin(&c, mode, seed);
    check_fast(&c, mode);
    arena_rewind(test_arena(), mark);
}

struct group {
    char name[100];
    enum residual_mode residual;
    int shared;
};

static void every_router_mode(void **state)
{
    const struct group *g = *state;
    for (int router = 0; router < ROUTER_MODES; router++) {
        const struct moe_spec s = mode_spec(router, g->residual, g->shared);
        char mode[256];
        snprintf(mode, sizeof mode, "%s", mode_name(&s));
        check_layer(&s, BLOCK_GATED, mode, 1000 + (uint64_t)router);
    }
}

static void experts_of_every_form_and_activation(void **state)
{
    (void)state;
    for (int a = 0; a < ACT_COUNT; a++)
        for (int form = 0; form < 3; form++) {
            struct moe_spec s = mode_spec(2, RESIDUAL_PRENORM, 1);
            char mode[80];
            s.act = (enum activation)a;
            if (a == ACT_SWIGLU_CLAMP && form == BLOCK_UNGATED) continue; /* it is a gated form */
            snprintf(mode, sizeof mode, "%s, %s", activation_name[a],
                     form == BLOCK_UNGATED  ? "ungated"
                     : form == BLOCK_BIASES ? "with biases"
                                            : "gated");
            check_layer(&s, form, mode, 2000 + (uint64_t)a);
        }
}

/* Every expert on every token: a soft mixture; and one expert alone: a dense layer. */
static void limits_of_k(void **state)
{
    (void)state;
    for (int k = 1; k <= 4; k++) {
        struct moe_spec s = mode_spec(0, RESIDUAL_PRENORM, 0);
        s.router.top_k = k;
        check_layer(&s, BLOCK_GATED, "top-k of 4", 3000 + (uint64_t)k);
    }
    struct moe_spec s = mode_spec(0, RESIDUAL_PRENORM, 0);
    s.n_experts = s.router.top_k = 1;
    check_layer(&s, BLOCK_GATED, "one expert", 3010);
}

static void fields_that_families_set(void **state)
{
    (void)state;
    for (int router = 0; router < ROUTER_MODES; router++) {
        struct moe_spec s = mode_spec(router, RESIDUAL_PRENORM, router % 3);
        s.n_identity = 1;
        check_layer(&s, BLOCK_GATED, "an identity expert", 4000 + (uint64_t)router);
        s.n_identity = s.router.n_group > 1 ? 2 : 3;
        s.out_bias = true;
        check_layer(&s, BLOCK_GATED, "identity experts and a bias of the output", 4020 + (uint64_t)router);
    }
    struct moe_spec s = mode_spec(2, RESIDUAL_PRENORM, 0);
    s.router.renorm_min = 0.6f; /* above the sum of the two best of some tokens, below that of others */
    check_layer(&s, BLOCK_GATED, "a floor under the sum of the weights", 4040);
    s = mode_spec(2, RESIDUAL_PRENORM, 0);
    s.act = ACT_SWIGLU_CLAMP;
    s.act_limit = 0.5f;
    check_layer(&s, BLOCK_GATED, "a clamp of 0.5", 4041);
}

/* Six experts of a kind between two feed-forward ones and a copy, in every router mode */
static void kinds_of_experts(void **state)
{
    (void)state;
    static const struct expert_range kinds[] = { { .kind = "ffn", .n = 2, .ffn = 2 },
                                                 { .kind = "const", .n = 2 },
                                                 { .kind = "gru", .n = 2, .ffn = 2 },
                                                 { .kind = "lora", .n = 2, .param = { 2, 3 } },
                                                 { .kind = "rank1", .n = 2, .param = { 5 } },
                                                 { .kind = "film", .n = 3, .ffn = 3 },
                                                 { .kind = "normed", .n = 2, .ffn = 3, .param = { 2, 2 } },
                                                 { .kind = "normed", .n = 2, .ffn = 3, .param = { 0, 1, 1 } },
                                                 { .kind = "film", .n = 3, .ffn = 3, .param = { 1 } },
                                                 { .kind = "latent", .n = 4, .ffn = 3, .param = { 2, 2 } } };
    for (size_t k = 0; k < COE_COUNT(kinds); k++)
        for (int router = 0; router < 8; router++) {
            struct moe_spec s = mode_spec(router, RESIDUAL_PRENORM, router % 3);
            char mode[80];
            s.range[0] = (struct expert_range){ .kind = "ffn", .n = 2, .ffn = 3 };
            s.range[1] = kinds[k];
            s.range[2] = (struct expert_range){ .kind = "copy", .n = 1 };
            s.n_ranges = 3;
            s.n_experts = 3 + kinds[k].n;
            snprintf(mode, sizeof mode, "%s, router mode %d", kinds[k].kind, router);
            check_layer(&s, BLOCK_GATED, mode, 5000 + 10 * k + (uint64_t)router);
        }
}

int main(void)
{
    enum { GROUPS = 5 * SHARED_MODES };
    static struct group groups[GROUPS];
    struct CMUnitTest tests[GROUPS + 4] = { cmocka_unit_test(experts_of_every_form_and_activation),
                                            cmocka_unit_test(kinds_of_experts),
                                            cmocka_unit_test(limits_of_k), cmocka_unit_test(fields_that_families_set) };
    for (int i = 0; i < GROUPS; i++) {
        struct group *g = &groups[i];
        *g = (struct group){ .residual = (enum residual_mode)(i % 5), .shared = i / 5 };
        snprintf(g->name, sizeof g->name, "%s residual, %s, every router mode", residual_name[g->residual],
                 shared_name[g->shared]);
        tests[4 + i] = (struct CMUnitTest){ g->name, every_router_mode, NULL, NULL, g };
    }
    coe_set_threads(1); /* small products; that threads change nothing is tests/model/test_identity.c's business */
    return kernels_init() || cmocka_run_group_tests_name("gradient/layer", tests, NULL, NULL);
}
