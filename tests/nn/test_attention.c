/* attention: the driver over the kernels. How a call is cut into tiles and parts of keys depends on threads, tokens,
 * heads and the cache's capacity; nothing of it changes a bit. */
#include "support/arrays.h"

#include <string.h>

#include "nn/nn.h"

#define TOKENS 2100 /* three parts */
#define LAST 7      /* tokens that are asked for, one at a time or together */
#define CAPACITY 2112
#define WIDEST 140 /* columns of the widest queries */

static const enum dtype types[] = { DT_F32, DT_F16, DT_Q8_0 };
static const struct attn_shape shapes[] = {
    { .n_heads = 4, .n_kv_heads = 2, .head_dim = 8, .head_dim_v = 8, .scale = 1 },
    { .n_heads = 14, .n_kv_heads = 1, .head_dim = 10, .head_dim_v = 6, .scale = 1 }, /* more heads than a tile */
    { .n_heads = 2, .n_kv_heads = 2, .head_dim = 8, .head_dim_v = 8, .scale = 1, .window = 1100 },
};

static struct kv_layer *new_cache(const struct attn_shape *s, int64_t capacity)
{
    struct kv_layer *kv = test_alloc(sizeof *kv);
    *kv = (struct kv_layer){ .capacity = capacity };
    kv->k = test_alloc((size_t)(s->n_kv_heads * capacity / KEY_BLOCK * kv_key_bytes(s->kv, s->head_dim)));
    kv->v = test_alloc((size_t)(s->n_kv_heads * capacity * kv_value_bytes(s->kv, s->head_dim_v)));
    return kv;
}

struct inputs {
    float *q, *k, *v; /* wide enough for every shape */
};
/* The same at every call; the first comes before any mark of the arena. */
static const struct inputs *inputs(void)
{
    static struct inputs in;
    if (in.q) return &in;
    in.q = random_floats(1, TOKENS * WIDEST, 1);
    in.k = random_floats(2, TOKENS * WIDEST, 1);
    in.v = random_floats(3, TOKENS * WIDEST, 1);
    return &in;
}

static struct val *rows(struct nn *c, float *x, int64_t from, int64_t to, int64_t cols)
{
    return nn_wrap(c, x + from * cols, to - from, cols);
}

static const float *attend(const struct attn_shape *s, struct kv_layer *kv, int64_t from, int64_t to)
{
    struct nn c = { .arena = test_arena() };
    const int32_t off[] = { 0, (int32_t)(to - from) };
    const struct attn_batch batch = { 1, off, &from, NULL };
    const struct inputs *in = inputs();
    const struct val *y = nn_attention(&c, rows(&c, in->q, from, to, s->n_heads * s->head_dim),
                                       rows(&c, in->k, from, to, s->n_kv_heads * s->head_dim),
                                       rows(&c, in->v, from, to, s->n_kv_heads * s->head_dim_v), s, &batch, kv);
    assert_non_null(y);
    return y->data;
}

/* A cache with the keys and values of all tokens but the last few. */
static struct kv_layer *filled_cache(const struct attn_shape *s, int64_t capacity)
{
    struct kv_layer *kv = new_cache(s, capacity);
    for (int64_t h = 0; h < s->n_kv_heads; h++)
        for (int64_t t = 0; t < TOKENS - LAST; t++) {
            kv_store_key((char *)kv->k + h * capacity / KEY_BLOCK * kv_key_bytes(s->kv, s->head_dim), s->kv, t,
                         inputs()->k + (t * s->n_kv_heads + h) * s->head_dim, s->head_dim);
            kv_store_value((char *)kv->v + h * capacity * kv_value_bytes(s->kv, s->head_dim_v), s->kv, t,
                           inputs()->v + (t * s->n_kv_heads + h) * s->head_dim_v, s->head_dim_v);
        }
    return kv;
}

/* want: the last tokens in one call on one thread */
static void each_shape(void (*check)(const struct attn_shape *s, const float *want))
{
    (void)inputs();
    for (size_t i = 0; i < COE_COUNT(shapes); i++)
        for (size_t t = 0; t < COE_COUNT(types); t++) {
            const struct arena_mark mark = arena_save(test_arena());
            struct attn_shape s = shapes[i];
            s.kv = types[t];
            coe_set_threads(1);
            check(&s, attend(&s, filled_cache(&s, CAPACITY), TOKENS - LAST, TOKENS));
            coe_set_threads(1);
            arena_rewind(test_arena(), mark);
        }
}

static void check_threads(const struct attn_shape *s, const float *want)
{
    for (int threads = 2; threads <= 8; threads += 3) {
        coe_set_threads(threads);
        assert_same_bits("threads", attend(s, filled_cache(s, CAPACITY), TOKENS - LAST, TOKENS), want,
                         LAST * s->n_heads * s->head_dim_v);
    }
}

static void any_number_of_threads_gives_the_same_bits(void **state)
{
    (void)state;
    each_shape(check_threads);
}

/* With one thread a token's keys are walked from end to end where there are heads enough, with more the parts are tasks
 * of their own. */
static void check_decoding(const struct attn_shape *s, const float *want)
{
    static const int threads[] = { 1, 2, 8 };
    const int64_t cols = s->n_heads * s->head_dim_v, first = TOKENS - LAST;
    for (size_t i = 0; i < COE_COUNT(threads); i++) {
        struct kv_layer *kv = filled_cache(s, i ? CAPACITY : 2 * CAPACITY);
        coe_set_threads(threads[i]);
        for (int64_t t = first; t < TOKENS; t++)
            assert_same_bits("a token", attend(s, kv, t, t + 1), want + (t - first) * cols, cols);
    }
}

static void a_token_at_a_time_gives_the_bits_of_several(void **state)
{
    (void)state;
    each_shape(check_decoding);
}

/* Without a cache, all tokens at once: passing caches of the same type. */
static void the_whole_sequence_at_once_gives_the_same_bits(void **state)
{
    (void)state;
    struct attn_shape s = shapes[0];
    (void)inputs();
    for (size_t t = 0; t < COE_COUNT(types); t++) {
        s.kv = types[t];
        coe_set_threads(2);
        const float *all = attend(&s, NULL, 0, TOKENS);
        const float *want = attend(&s, filled_cache(&s, CAPACITY), TOKENS - LAST, TOKENS);
        const int64_t cols = s.n_heads * s.head_dim_v;
        assert_same_bits("all at once", all + (TOKENS - LAST) * cols, want, LAST * cols);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_number_of_threads_gives_the_same_bits),
        cmocka_unit_test(a_token_at_a_time_gives_the_bits_of_several),
        cmocka_unit_test(the_whole_sequence_at_once_gives_the_same_bits),
    };
    return kernels_init() || cmocka_run_group_tests_name("nn/attention", tests, NULL, NULL);
}
