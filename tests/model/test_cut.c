/* Places taken out of stored tensors: slices of experts, parts, turned round, taking turns, packed. */
#include "support/arrays.h"

#include <string.h>

#include "model/cut.h"
#include "tensor/quant/quant.h"

/* A tensor of the numbers 0, 1, 2, … */
static struct tensor counting(enum dtype type, int32_t n_dims, int64_t a, int64_t b, int64_t c)
{
    struct tensor t = { .name = "t", .type = type, .n_dims = n_dims, .dim = { a, b, c } };
    const int64_t n = tensor_count(&t);
    float *x = test_alloc((size_t)n * sizeof *x);
    char *data = test_alloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = (float)i;
    narrow(data, type, x, n);
    t.data = data;
    return t;
}

static const float *taken(const struct cut_request *r, enum dtype expected)
{
    struct weight w = { 0 };
    assert_ok(cut_take(&w, test_arena(), r));
    assert_int_equal(w.type, expected);
    float *x = test_alloc((size_t)(r->rows * r->cols) * sizeof *x);
    widen(x, w.data, w.type, r->rows * r->cols);
    return x;
}

/* [2 experts, gate 2 + up 2 rows, 3 columns]: up of expert 1 begins at 12 + 6 */
static void a_part_of_one_expert_stays_where_it_lies(void **state)
{
    (void)state;
    const struct tensor t = counting(DT_BF16, 3, 2, 4, 3);
    const struct cut_request r = {
        .path = "m", .t = &t, .cut = { CUT_EXPERT, 1, 2 }, .n_experts = 2, .expert = 1, .rows = 2, .cols = 3
    };
    struct weight w = { 0 };
    assert_ok(cut_take(&w, test_arena(), &r));
    assert_ptr_equal(w.data, (const char *)t.data + 18 * 2);
    const float want[] = { 18, 19, 20, 21, 22, 23 };
    assert_same_bits("part", taken(&r, DT_BF16), want, 6);
}

/* LongCat as transformers 5 saves it: rows for two identity experts behind those of one that has matrices. */
static void rows_of_identity_experts_are_left_alone(void **state)
{
    (void)state;
    const struct tensor t = counting(DT_F32, 3, 3, 4, 2);
    struct cut_request r = {
        .path = "m", .t = &t, .cut = { CUT_EXPERT, 1, 2 }, .n_experts = 1, .n_identity = 2, .rows = 2, .cols = 2
    };
    struct weight w = { 0 };
    const float want[] = { 4, 5, 6, 7 };
    assert_same_bits("up", taken(&r, DT_F32), want, 4);
    r.n_identity = 1;
    assert_int_equal(cut_take(&w, test_arena(), &r), COE_E_INPUT);
}

/* gpt-oss: [1 expert, 2 in, 4 out], gate and up columns taking turns: gate has out 0 and 2 */
static void turned_and_alternating_rows_are_gathered(void **state)
{
    (void)state;
    const struct tensor t = counting(DT_F32, 3, 1, 2, 4);
    struct cut_request r = { .path = "m",
                             .t = &t,
                             .cut = { CUT_EXPERT | CUT_IN_OUT | CUT_ALTERNATE, 0, 2 },
                             .n_experts = 1,
                             .rows = 2,
                             .cols = 2 };
    const float gate[] = { 0, 4, 2, 6 }, up[] = { 1, 5, 3, 7 };
    assert_same_bits("gate", taken(&r, DT_F32), gate, 4);
    r.cut.part = 1;
    assert_same_bits("up", taken(&r, DT_F32), up, 4);
}

static void parts_of_a_vector(void **state)
{
    (void)state;
    const struct tensor t = counting(DT_F32, 1, 6, 0, 0);
    const struct cut_request middle = {
        .path = "m", .t = &t, .cut = { 0, 1, 3 }, .rows = 1, .cols = 2, .vector = true
    };
    const struct cut_request odd = {
        .path = "m", .t = &t, .cut = { CUT_ALTERNATE, 1, 2 }, .rows = 1, .cols = 3, .vector = true
    };
    const float want_middle[] = { 2, 3 }, want_odd[] = { 1, 3, 5 };
    assert_same_bits("middle", taken(&middle, DT_F32), want_middle, 2);
    assert_same_bits("odd", taken(&odd, DT_F32), want_odd, 3);
}

/* One group of 32: byte 0x21 is 0.5 (low nibble 1) then 1 (nibble 2); scale 128 doubles. */
static void mxfp4_pairs_become_bf16(void **state)
{
    (void)state;
    unsigned char blocks[16] = { 0x21 }, scales[1] = { 128 };
    const struct tensor t = { .name = "x_blocks", .type = DT_U8, .n_dims = 4, .dim = { 1, 1, 1, 16 }, .data = blocks };
    const struct tensor s = { .name = "x_scales", .type = DT_U8, .n_dims = 3, .dim = { 1, 1, 1 }, .data = scales };
    const struct cut_request r = { .path = "m",
                                   .t = &t,
                                   .scale = &s,
                                   .cut = { CUT_EXPERT | CUT_MXFP4, 0, 1 },
                                   .n_experts = 1,
                                   .rows = 1,
                                   .cols = 32 };
    const float *x = taken(&r, DT_BF16);
    assert_true(x[0] == 1 && x[1] == 2 && x[2] == 0);
}

/* 2 x 3 of FP8 ones (0x38), blocks of 1 x 2: four scales */
static void fp8_is_scaled_block_by_block(void **state)
{
    (void)state;
    unsigned char ones[6] = { 0x38, 0x38, 0x38, 0x38, 0x38, 0x38 };
    float scales[] = { 1, 2, 3, 4 };
    const struct tensor t = { .name = "w", .type = DT_F8_E4M3, .n_dims = 2, .dim = { 2, 3 }, .data = ones };
    const struct tensor s = { .name = "w_scale_inv", .type = DT_F32, .n_dims = 2, .dim = { 2, 2 }, .data = scales };
    struct cut_request r = { .path = "m", .t = &t, .scale = &s, .block = { 1, 2 }, .rows = 2, .cols = 3 };
    const float want[] = { 1, 1, 2, 3, 3, 4 };
    assert_same_bits("fp8", taken(&r, DT_F32), want, 6);
    struct weight w = { 0 };
    r.scale = NULL;
    assert_int_equal(cut_take(&w, test_arena(), &r), COE_E_INPUT);
    assert_error_has("m: tensor w is FP8 and has no scales (w_scale_inv)");
}

/* One head, nope 2, v 1, rank 2: k_b [1, rank, nope] is turned round, v_b follows. */
static void the_halves_of_a_head_are_joined(void **state)
{
    (void)state;
    const struct tensor k = counting(DT_F32, 3, 1, 2, 2), v = counting(DT_F32, 3, 1, 1, 2);
    const struct cut_request r = {
        .path = "m", .t = &k, .scale = &v, .cut = { CUT_HEAD_PAIR, 0, 0 }, .rows = 3, .cols = 2
    };
    const float want[] = { 0, 2, 1, 3, 0, 1 };
    assert_same_bits("kv_b", taken(&r, DT_F32), want, 6);
}

static void wrong_shapes_are_named(void **state)
{
    (void)state;
    const struct tensor t = counting(DT_F32, 2, 4, 3, 0);
    struct weight w = { 0 };
    const struct cut_request r = { .path = "m", .t = &t, .rows = 3, .cols = 4 };
    assert_int_equal(cut_take(&w, test_arena(), &r), COE_E_INPUT);
    assert_error_has("m: tensor t is [4, 3], expected [3, 4]");
    const struct cut_request parts = { .path = "m", .t = &t, .cut = { 0, 0, 3 }, .rows = 2, .cols = 3 };
    assert_int_equal(cut_take(&w, test_arena(), &parts), COE_E_INPUT);
    assert_error_has("expected [6, 3]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_part_of_one_expert_stays_where_it_lies),
        cmocka_unit_test(rows_of_identity_experts_are_left_alone),
        cmocka_unit_test(turned_and_alternating_rows_are_gathered),
        cmocka_unit_test(parts_of_a_vector),
        cmocka_unit_test(mxfp4_pairs_become_bf16),
        cmocka_unit_test(fp8_is_scaled_block_by_block),
        cmocka_unit_test(the_halves_of_a_head_are_joined),
        cmocka_unit_test(wrong_shapes_are_named),
    };
    return kernels_init() || cmocka_run_group_tests_name("model/cut", tests, NULL, NULL);
}
