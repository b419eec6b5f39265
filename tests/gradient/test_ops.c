/* Every operation of nn.h with a backward: the FP64 twin agrees with central differences, the FP32 operation with the
 * twin.
 *
 * A case is a row of the table below: shapes of its leaves (activations and weights), the operation in both forms,
 * numbers. The loss is Σ y ⊙ r with random r; leaves are random floats, so both forms start from the same numbers. */
#include "support/twin.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define VALUE_TOL 1e-6    /* of the length of the output */
#define GRADIENT_TOL 1e-5 /* of the length of the gradient */
#define MAX_LEAVES 4

struct leaf_shape {
    int64_t rows, cols;
    bool weight;
};

struct op_case {
    const char *name;
    struct leaf_shape leaf[MAX_LEAVES];
    struct tv *(*twin)(const struct op_case *c, struct tv **v);
    struct val *(*fast)(const struct op_case *c, struct nn *nn, struct val **v, struct weight **w);
    double s, t; /* numbers of the operation */
    int i;
    double spread; /* of the leaves; 0: 1 */
    /* attention */
    struct attn_shape shape;
    int32_t n_seq, off[4];
    const int64_t *start;
};

/* ---- the operations ---- */

#define TWIN(name, ...)                                                                                                \
    static struct tv *twin_##name##_case(const struct op_case *c, struct tv **v)                                       \
    {                                                                                                                  \
        (void)c, (void)v;                                                                                              \
        return __VA_ARGS__;                                                                                            \
    }
#define FAST(name, ...)                                                                                                \
    static struct val *fast_##name##_case(const struct op_case *c, struct nn *nn, struct val **v, struct weight **w)   \
    {                                                                                                                  \
        (void)c, (void)v, (void)w;                                                                                     \
        return __VA_ARGS__;                                                                                            \
    }
#define FORMS(name) .twin = twin_##name##_case, .fast = fast_##name##_case

static const int32_t words[] = { 2, 0, 2, 4, 1 };
TWIN(embed, twin_embed(words, 5, v[0]))
FAST(embed, nn_embed(nn, words, 5, w[0]))
TWIN(linear, twin_linear(v[0], v[1], v[2]))
FAST(linear, nn_linear(nn, v[0], w[1], w[2]))
TWIN(rmsnorm, twin_rmsnorm(v[0], v[1], c->s, c->t))
FAST(rmsnorm, nn_rmsnorm(nn, v[0], w[1], (float)c->s, (float)c->t))
TWIN(layernorm, twin_layernorm(v[0], v[1], v[2], c->t))
FAST(layernorm, nn_layernorm(nn, v[0], w[1], w[2], (float)c->t))
TWIN(act, twin_act((enum activation)c->i, v[0], v[1]))
FAST(act, nn_act(nn, (enum activation)c->i, v[0], v[1]))
TWIN(add, twin_add(v[0], v[1]))
FAST(add, nn_add(nn, v[0], v[1]))
TWIN(add_self, twin_add(v[0], v[0]))
FAST(add_self, nn_add(nn, v[0], v[0]))
TWIN(add_scaled, twin_add_scaled(v[0], v[1], c->s, v[2]))
FAST(add_scaled, nn_add_scaled(nn, v[0], v[1], (float)c->s, w[2]))
TWIN(scale, twin_scale(v[0], c->s))
FAST(scale, nn_scale(nn, v[0], (float)c->s))
TWIN(clamp, twin_clamp(v[0], c->s))
FAST(clamp, nn_clamp(nn, v[0], (float)c->s))
TWIN(softcap, twin_softcap(v[0], c->s))
FAST(softcap, nn_softcap(nn, v[0], (float)c->s))
TWIN(sigmoid_gate, twin_sigmoid_gate(v[0], v[1]))
FAST(sigmoid_gate, nn_sigmoid_gate(nn, v[0], v[1]))
/* x used twice and summed: gradients from two consumers add up */
TWIN(two_uses, twin_add(twin_act(ACT_SILU, v[0], v[1]), twin_act(ACT_GELU, v[1], v[0])))
FAST(two_uses, nn_add(nn, nn_act(nn, ACT_SILU, v[0], v[1]), nn_act(nn, ACT_GELU, v[1], v[0])))

TWIN(sigmoid_mul, twin_sigmoid_mul(v[0], v[1]))
FAST(sigmoid_mul, nn_sigmoid_mul(nn, v[0], v[1]))
TWIN(mul, twin_mul(v[0], v[1]))
FAST(mul, nn_mul(nn, v[0], v[1]))
TWIN(square, twin_mul(v[0], v[0]))
FAST(square, nn_mul(nn, v[0], v[0]))
TWIN(add_row, twin_add_row(v[0], v[1]))
FAST(add_row, nn_add_row(nn, v[0], w[1]))
static const float row_factors[] = { 0.5f, -2, 0, 3 };
TWIN(scale_rows, twin_scale_rows(v[0], row_factors))
FAST(scale_rows, nn_scale_rows(nn, v[0], row_factors))
/* Groups of 5: columns 3 and 4 of each, then 0 to 2, then 4 again; column 4 is used twice */
static const struct columns taken[] = { { 3, 2 }, { 0, 3 }, { 4, 1 } };
TWIN(columns, twin_columns(v[0], 5, taken, 3))
FAST(columns, nn_columns(nn, v[0], 5, taken, 3))
TWIN(join, twin_join(v[0], v[1]))
FAST(join, nn_join(nn, v[0], v[1]))
static const struct latent_shape latent = { .n_heads = 2, .nope = 3, .rope = 2, .v_dim = 4, .rank = 6 };
TWIN(latent_query, twin_latent_query(v[0], v[1], &latent))
FAST(latent_query, nn_latent_query(nn, v[0], w[1], &latent))
TWIN(latent_output, twin_latent_output(v[0], v[1], &latent))
FAST(latent_output, nn_latent_output(nn, v[0], w[1], &latent))

#define ROPE_ROWS 5
static const float *angles(int which, int64_t half)
{
    float *x = test_alloc((size_t)(ROPE_ROWS * half) * sizeof *x);
    for (int64_t i = 0; i < ROPE_ROWS * half; i++) {
        const double angle = (double)(i / half) * pow(100, -(double)(i % half) / (double)half);
        x[i] = (float)(which ? sin(angle) : cos(angle));
    }
    return x;
}

/* i: rotated pairs; s != 0: interleaved. Heads of 6. */
TWIN(rope, twin_rope(v[0], 6, angles(0, c->i), angles(1, c->i), c->i, c->s != 0))
static struct val *fast_rope_case(const struct op_case *c, struct nn *nn, struct val **v, struct weight **w)
{
    (void)w;
    struct val *y = nn_scale(nn, v[0], 1.5f); /* in place: on an output that nobody keeps */
    return nn_rope(nn, y, 6, angles(0, c->i), angles(1, c->i), c->i, c->s != 0) ? nn_scale(nn, y, 1 / 1.5f) : NULL;
}

static const struct attn_batch *batch_of(const struct op_case *c)
{
    struct attn_batch *b = test_alloc(sizeof *b);
    *b = (struct attn_batch){ c->n_seq, c->off, test_alloc((size_t)c->n_seq * sizeof(int64_t)), c->start };
    return b;
}

TWIN(attention, twin_attention(v[0], v[1], v[2], v[3], &c->shape, batch_of(c)))
static struct val *fast_attention_case(const struct op_case *c, struct nn *nn, struct val **v, struct weight **w)
{
    struct attn_shape *shape = test_alloc(sizeof *shape);
    *shape = c->shape;
    shape->sink = w[3];
    return nn_attention(nn, v[0], v[1], v[2], shape, batch_of(c), NULL);
}

#define SHAPE(heads, kv, dim, dim_v, ...)                                                                              \
    {                                                                                                                  \
        .n_heads = heads, .n_kv_heads = kv, .head_dim = dim, .head_dim_v = dim_v, .scale = 0.6f, __VA_ARGS__           \
    }
static const int64_t documents[] = { 0, 0, 0, 3, 3, 3, 6 }; /* rows 3 to 5 are a second document, row 6 a third */
static int64_t long_documents[150];                         /* the second one begins at 90 */

#define X(rows, cols) { rows, cols, false } /* an activation */
#define W(rows, cols) { rows, cols, true }  /* a weight */
static const struct op_case cases[] = {
    { "embed", { W(5, 3) }, FORMS(embed) },
    { "linear", { X(4, 7), W(5, 7) }, FORMS(linear) },
    { "linear with bias", { X(4, 7), W(5, 7), W(1, 5) }, FORMS(linear) },
    { "linear of many rows", { X(70, 33), W(18, 33), W(1, 18) }, FORMS(linear) },
    { "rmsnorm", { X(4, 7), W(1, 7) }, FORMS(rmsnorm), .t = 1e-5 },
    { "rmsnorm, weight stored minus one", { X(4, 7), W(1, 7) }, FORMS(rmsnorm), .s = 1, .t = 1e-6 },
    { "rmsnorm per head", { X(3, 12), W(1, 4) }, FORMS(rmsnorm), .t = 1e-5 },
    { "rmsnorm of more rows than a strip", { X(150, 5), W(1, 5) }, FORMS(rmsnorm), .t = 1e-5 },
    { "rmsnorm with a large epsilon", { X(4, 7), W(1, 7) }, FORMS(rmsnorm), .t = 0.5 },
    { "layernorm", { X(4, 7), W(1, 7), W(1, 7) }, FORMS(layernorm), .t = 1e-5 },
    { "layernorm without bias", { X(4, 7), W(1, 7) }, FORMS(layernorm), .t = 1e-5 },
    { "layernorm of more rows than a strip", { X(150, 5), W(1, 5), W(1, 5) }, FORMS(layernorm), .t = 1e-5 },
    { "silu", { X(5, 9) }, FORMS(act), .i = ACT_SILU, .spread = 3 },
    { "silu, gated", { X(5, 9), X(5, 9) }, FORMS(act), .i = ACT_SILU, .spread = 3 },
    { "gelu", { X(5, 9) }, FORMS(act), .i = ACT_GELU, .spread = 2 },
    { "gelu, gated", { X(5, 9), X(5, 9) }, FORMS(act), .i = ACT_GELU, .spread = 2 },
    { "gelu_tanh", { X(5, 9) }, FORMS(act), .i = ACT_GELU_TANH, .spread = 2 },
    { "gelu_tanh, gated", { X(5, 9), X(5, 9) }, FORMS(act), .i = ACT_GELU_TANH, .spread = 2 },
    { "relu", { X(5, 9) }, FORMS(act), .i = ACT_RELU },
    { "relu, gated", { X(5, 9), X(5, 9) }, FORMS(act), .i = ACT_RELU },
    { "relu2", { X(5, 9) }, FORMS(act), .i = ACT_RELU2 },
    { "relu2, gated", { X(5, 9), X(5, 9) }, FORMS(act), .i = ACT_RELU2 },
    { "swiglu_clamp, gated", { X(5, 9), X(5, 9) }, FORMS(act), .i = ACT_SWIGLU_CLAMP, .spread = 6 },
    { "silu of many elements", { X(90, 200), X(90, 200) }, FORMS(act), .i = ACT_SILU },
    { "add", { X(4, 5), X(4, 5) }, FORMS(add) },
    { "add of a value to itself", { X(4, 5) }, FORMS(add_self) },
    { "add_scaled by a number", { X(4, 5), X(4, 5) }, FORMS(add_scaled), .s = -1.75 },
    { "add_scaled by a weight", { X(4, 5), X(4, 5), W(1, 1) }, FORMS(add_scaled) },
    { "add_scaled by a weight, many elements", { X(90, 100), X(90, 100), W(1, 1) }, FORMS(add_scaled) },
    { "scale", { X(4, 5) }, FORMS(scale), .s = 0.3 },
    { "clamp", { X(6, 9) }, FORMS(clamp), .s = 0.8 },
    { "softcap", { X(6, 9) }, FORMS(softcap), .s = 1.5, .spread = 3 },
    { "sigmoid_gate", { X(6, 9), X(6, 1) }, FORMS(sigmoid_gate) },
    { "values with two uses", { X(5, 9), X(5, 9) }, FORMS(two_uses) },
    { "sigmoid_mul", { X(5, 9), X(5, 9) }, FORMS(sigmoid_mul), .spread = 2 },
    { "mul", { X(5, 9), X(5, 9) }, FORMS(mul) },
    { "mul of a value with itself", { X(5, 9) }, FORMS(square) },
    { "add_row", { X(5, 9), W(1, 9) }, FORMS(add_row) },
    { "scale_rows", { X(4, 5) }, FORMS(scale_rows) },
    { "columns", { X(4, 10) }, FORMS(columns) },
    { "columns of many rows", { X(40, 15) }, FORMS(columns) },
    { "join", { X(4, 5), X(4, 3) }, FORMS(join) },
    { "latent query", { X(7, 10), W(14, 6) }, FORMS(latent_query) },
    { "latent output", { X(7, 12), W(14, 6) }, FORMS(latent_output) },
    { "rope", { X(ROPE_ROWS, 12) }, FORMS(rope), .i = 3 },
    { "rope of a part of each head", { X(ROPE_ROWS, 12) }, FORMS(rope), .i = 2 },
    { "rope, interleaved", { X(ROPE_ROWS, 12) }, FORMS(rope), .i = 3, .s = 1 },
    { "attention",
      { X(6, 8), X(6, 8), X(6, 8) },
      FORMS(attention),
      .shape = SHAPE(2, 2, 4, 4),
      .n_seq = 1,
      .off = { 0, 6 } },
    { "attention, grouped heads, values wider than keys",
      { X(6, 12), X(6, 6), X(6, 10) },
      FORMS(attention),
      .shape = SHAPE(4, 2, 3, 5),
      .n_seq = 1,
      .off = { 0, 6 } },
    { "attention over three sequences",
      { X(9, 8), X(9, 4), X(9, 4) },
      FORMS(attention),
      .shape = SHAPE(2, 1, 4, 4),
      .n_seq = 3,
      .off = { 0, 2, 3, 9 } },
    { "attention with a window",
      { X(9, 8), X(9, 8), X(9, 8) },
      FORMS(attention),
      .shape = SHAPE(2, 2, 4, 4, .window = 3),
      .n_seq = 1,
      .off = { 0, 9 } },
    { "attention in chunks",
      { X(9, 8), X(9, 8), X(9, 8) },
      FORMS(attention),
      .shape = SHAPE(2, 2, 4, 4, .chunk = 4),
      .n_seq = 2,
      .off = { 0, 3, 9 } },
    { "attention with sinks",
      { X(6, 8), X(6, 4), X(6, 4), W(1, 2) },
      FORMS(attention),
      .shape = SHAPE(2, 1, 4, 4),
      .n_seq = 1,
      .off = { 0, 6 } },
    { "attention with soft-capped scores",
      { X(6, 8), X(6, 8), X(6, 8) },
      FORMS(attention),
      .shape = SHAPE(2, 2, 4, 4, .cap = 1.5f),
      .n_seq = 1,
      .off = { 0, 6 },
      .spread = 1.5 },
    { "attention between document boundaries",
      { X(7, 8), X(7, 8), X(7, 8) },
      FORMS(attention),
      .shape = SHAPE(2, 2, 4, 4),
      .n_seq = 1,
      .off = { 0, 7 },
      .start = documents },
    { "attention longer than a tile",
      { X(150, 8), X(150, 4), X(150, 4), W(1, 2) },
      FORMS(attention),
      .shape = SHAPE(2, 1, 4, 4),
      .n_seq = 2,
      .off = { 0, 20, 150 } },
    { "attention longer than a tile between document boundaries",
      { X(150, 8), X(150, 4), X(150, 4) },
      FORMS(attention),
      .shape = SHAPE(2, 1, 4, 4),
      .n_seq = 1,
      .off = { 0, 150 },
      .start = long_documents },
    { "attention longer than a tile with a window and a cap",
      { X(150, 8), X(150, 4), X(150, 4) },
      FORMS(attention),
      .shape = SHAPE(2, 1, 4, 4, .window = 70, .cap = 4),
      .n_seq = 2,
      .off = { 0, 20, 150 } },
};

/* ---- running a case ---- */

struct leaves {
    const struct op_case *c;
    double *x[MAX_LEAVES], *r;
    struct tv *v[MAX_LEAVES];
};

static int64_t size_of(const struct op_case *c, int i) { return c->leaf[i].rows * c->leaf[i].cols; }

static double evaluate(struct leaves *l)
{
    twin_begin();
    for (int i = 0; i < MAX_LEAVES; i++)
        if (l->x[i]) l->v[i] = twin_leaf(l->x[i], l->c->leaf[i].rows, l->c->leaf[i].cols);
    struct tv *y = l->c->twin(l->c, l->v);
    if (!l->r) l->r = random_doubles(77, y->rows * y->cols, 1);
    return twin_dot(y, l->r)->x[0];
}

static double value(void *user)
{
    const struct arena_mark mark = arena_save(test_arena());
    const double x = evaluate(user);
    arena_rewind(test_arena(), mark);
    return x;
}

static void check_twin(struct leaves *l)
{
    char what[160];
    evaluate(l);
    twin_begin();
    for (int i = 0; i < MAX_LEAVES; i++)
        if (l->x[i]) l->v[i] = twin_leaf(l->x[i], l->c->leaf[i].rows, l->c->leaf[i].cols);
    twin_backward(twin_dot(l->c->twin(l->c, l->v), l->r));
    struct tv *leaf[MAX_LEAVES];
    memcpy(leaf, l->v, sizeof leaf); /* value() makes leaves of its own */
    for (int i = 0; i < MAX_LEAVES; i++) {
        if (!l->x[i]) continue;
        snprintf(what, sizeof what, "%s, leaf %d", l->c->name, i);
        assert_derivative(what, l->x[i], leaf[i]->g, size_of(l->c, i), size_of(l->c, i) > 100 ? 3 : 25, 1, value, l);
    }
    memcpy(l->v, leaf, sizeof leaf);
}

static void check_fast(const struct leaves *l)
{
    const struct op_case *c = l->c;
    struct tape tape = { 0 };
    struct nn nn = { .arena = test_arena(), .tape = &tape };
    struct val *v[MAX_LEAVES] = { 0 };
    struct weight *w[MAX_LEAVES] = { 0 };
    char what[160];
    for (int i = 0; i < MAX_LEAVES; i++) {
        if (!l->x[i]) continue;
        float *x = floats_of(l->x[i], size_of(c, i));
        if (c->leaf[i].weight) w[i] = test_weight("leaf", x, c->leaf[i].rows, c->leaf[i].cols);
        else v[i] = nn_wrap(&nn, x, c->leaf[i].rows, c->leaf[i].cols);
    }
    struct val *y = c->fast(c, &nn, v, w);
    if (!y) fail_msg("%s: %s", c->name, coe_error());
    twin_begin();
    const struct tv *want = c->twin(c, (struct tv **)(uintptr_t)l->v);
    assert_norm_close_d(c->name, y->data, want->x, y->rows * y->cols, VALUE_TOL);
    y->grad = floats_of(l->r, y->rows * y->cols);
    assert_ok(nn_backward(&nn));
    for (int i = 0; i < MAX_LEAVES; i++) {
        if (!l->x[i]) continue;
        snprintf(what, sizeof what, "%s, gradient of leaf %d", c->name, i);
        const float *got = w[i] ? w[i]->grad : v[i]->grad;
        if (!got) fail_msg("%s was not made", what);
        assert_norm_close_d(what, got, l->v[i]->g, size_of(c, i), GRADIENT_TOL);
    }
}

static void run_case(void **state)
{
    const struct arena_mark mark = arena_save(test_arena());
    struct leaves l = { .c = *state };
    for (int i = 0; i < MAX_LEAVES; i++) {
        if (!l.c->leaf[i].rows) continue;
        const float *x = random_floats(100 + (uint64_t)i, size_of(l.c, i), l.c->spread > 0 ? l.c->spread : 1);
        l.x[i] = test_alloc((size_t)size_of(l.c, i) * sizeof(double));
        for (int64_t j = 0; j < size_of(l.c, i); j++) l.x[i][j] = (double)x[j];
    }
    check_twin(&l);
    check_fast(&l);
    arena_rewind(test_arena(), mark);
}

/* ---- operations that are no value of values ---- */

struct xent_case {
    double *x;
    const int32_t *target;
    double scale, z;
    int64_t rows, cols;
};

static double xent_value(void *user)
{
    const struct xent_case *c = user;
    const struct arena_mark mark = arena_save(test_arena());
    twin_begin();
    const double y = twin_xent(twin_leaf(c->x, c->rows, c->cols), c->target, c->scale, c->z)->x[0];
    arena_rewind(test_arena(), mark);
    return y;
}

static void check_xent(double z)
{
    static const int32_t target[] = { 3, -1, 0, 10, -1 }; /* rows 1 and 4 do not count */
    float *x = random_floats(5, 55, 2);
    struct xent_case c = { test_alloc(55 * sizeof(double)), target, 1.0 / 3, z, 5, 11 };
    for (int i = 0; i < 55; i++) c.x[i] = (double)x[i];
    twin_begin();
    struct tv *leaf = twin_leaf(c.x, 5, 11), *want = twin_xent(leaf, target, c.scale, z);
    twin_backward(want);
    assert_derivative("cross-entropy", c.x, leaf->g, 55, 25, 1, xent_value, &c);
    struct tape tape = { 0 };
    struct nn nn = { .arena = test_arena(), .tape = &tape };
    struct val *logits = nn_wrap(&nn, x, 5, 11);
    double sum;
    int64_t count;
    assert_ok(nn_xent(&nn, logits, target, c.scale, z, &sum, &count));
    assert_int_equal(count, 3);
    if (!(z > 0)) assert_near("mean", sum / 3, want->x[0], 1e-6);
    assert_ok(nn_backward(&nn));
    assert_norm_close_d("gradient of the logits", logits->grad, leaf->g, 55, GRADIENT_TOL);
}

static void cross_entropy(void **state)
{
    (void)state;
    check_xent(0);
}

static void cross_entropy_with_the_output_z_loss(void **state)
{
    (void)state;
    check_xent(0.3);
}

/* Dropout is multiplication by a mask of (seed, step, index): 0 or 1/keep; the gradient goes through the same mask. */
static void dropout_goes_back_through_its_mask(void **state)
{
    (void)state;
    struct tape tape = { 0 };
    struct nn nn = { .arena = test_arena(), .tape = &tape, .dropout = 0.25f, .seed = 3, .step = 9 };
    const int64_t n = 40 * 50;
    float ones[40 * 50], r[40 * 50];
    for (int64_t i = 0; i < n; i++) ones[i] = 1, r[i] = (float)i;
    struct val *x = nn_wrap(&nn, ones, 40, 50), *y = nn_dropout(&nn, x), *other = nn_dropout(&nn, x);
    int64_t kept = 0, same = 0;
    for (int64_t i = 0; i < n; i++) {
        assert_true(y->data[i] == 0 || y->data[i] == 1 / 0.75f);
        kept += y->data[i] != 0;
        same += (y->data[i] != 0) == (other->data[i] != 0);
    }
    assert_true(kept > n * 7 / 10 && kept < n * 8 / 10);
    assert_true(same < n * 7 / 10); /* the next operation has a mask of its own: 62.5 % agree by chance */
    y->grad = r;
    assert_ok(nn_backward(&nn));
    for (int64_t i = 0; i < n; i++) assert_true(x->grad[i] == y->data[i] * r[i]);
    nn.dropout_index = 0;
    assert_same_bits("repeated", nn_dropout(&nn, x)->data, y->data, n);
    nn.tape = NULL;
    assert_ptr_equal(nn_dropout(&nn, x), x);
}

int main(void)
{
    enum { N = COE_COUNT(cases) };
    for (int t = 90; t < 150; t++) long_documents[t] = 90;
    struct CMUnitTest tests[N + 3] = { cmocka_unit_test(cross_entropy),
                                       cmocka_unit_test(cross_entropy_with_the_output_z_loss),
                                       cmocka_unit_test(dropout_goes_back_through_its_mask) };
    for (size_t i = 0; i < N; i++)
        tests[3 + i] = (struct CMUnitTest){ cases[i].name, run_case, NULL, NULL, (void *)(uintptr_t)&cases[i] };
    coe_set_threads(1); /* small products; that threads change nothing is tests/model/test_identity.c's business */
    return kernels_init() || cmocka_run_group_tests_name("gradient/ops", tests, NULL, NULL);
}
