/* What a parameter needs between a directory and a GGUF file: rows inside heads and groups by hand, decays there and
 * back. */
#include <math.h>
#include <string.h>

#include "model/gguf_form.h"
#include "support/support.h"

static struct arena arena;
static struct spec spec;

static void read_spec(const char *config)
{
    json_t *doc;
    arena_free(&arena);
    assert_ok(json_read_text(&doc, config, strlen(config), "config"));
    assert_ok(spec_read(&spec, &arena, doc, "config"));
    json_decref(doc);
}

/* A head of 8: neighbours 0 4 | 1 5 | 2 6 | 3 7 of the halves; the second head begins at row 8. */
static void rows_of_heads_move_there_and_back(void **state)
{
    (void)state;
    static const int64_t want[] = { 0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15 };
    const struct row_change there = { .cols = 1, .head_dim = 8 }, back = { .cols = 1, .head_dim = -8 };
    for (int64_t i = 0; i < 16; i++) {
        assert_int_equal(row_change_source(&there, i), want[i]);
        assert_int_equal(row_change_source(&there, row_change_source(&back, i)), i);
    }
}

/* Two key heads of 1 row, two rows of v and of z each: the groups are q k v v z z | q k v v z z. */
static void groups_of_the_delta_rule_come_apart_and_together(void **state)
{
    (void)state;
    static const int64_t want[] = { 0, 6, 1, 7, 2, 3, 8, 9, 4, 5, 10, 11 };
    const struct delta_rows rows = { 2, 1, 2 };
    const struct row_change there = { .cols = 1, .regroup = 1, .delta = rows };
    const struct row_change gate = { .cols = 1, .regroup = 1, .first = 8, .delta = rows };
    const struct row_change back = { .cols = 1, .regroup = -1, .delta = rows };
    for (int64_t i = 0; i < 12; i++) {
        assert_int_equal(row_change_source(&there, i), want[i]);
        assert_int_equal(row_change_source(&there, row_change_source(&back, i)), i);
    }
    for (int64_t i = 0; i < 4; i++) assert_int_equal(row_change_source(&gate, i), want[8 + i]);
}

static void groups_of_wide_heads_come_back(void **state)
{
    (void)state;
    const struct delta_rows rows = { 3, 4, 10 };
    const struct row_change there = { .cols = 1, .regroup = 1, .delta = rows };
    const struct row_change back = { .cols = 1, .regroup = -1, .delta = rows };
    for (int64_t i = 0; i < 3 * (2 * 4 + 2 * 10); i++)
        assert_int_equal(row_change_source(&there, row_change_source(&back, i)), i);
}

/* Of F32 values the decay comes back: the logarithm of a number near one has more digits than the number. */
static void decays_come_back(void **state)
{
    (void)state;
    const struct row_change there = { .cols = 1, .decay = 1 }, back = { .cols = 1, .decay = -1 };
    assert_true(row_change_value(&there, 0) == -1);
    assert_true(fabsf(row_change_value(&there, 1) + 2.718281828f) < 3e-7f);
    for (int i = -300; i < 300; i++) {
        const float short_one = (float)i / 64, x = (float)i * 0.0123f, decay = row_change_value(&there, x);
        const float again = row_change_value(&back, decay);
        assert_true(row_change_value(&back, row_change_value(&there, short_one)) == short_one);
        assert_true(fabsf(again - x) <= 6e-8f * fmaxf(1, fabsf(x)));
        assert_true(row_change_value(&there, again) == decay);
    }
}

#define SIZES                                                                                                          \
    "\"hidden_size\": 32, \"num_hidden_layers\": 4, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, "          \
    "\"intermediate_size\": 64, \"vocab_size\": 100, \"max_position_embeddings\": 64, \"num_local_experts\": 4, "      \
    "\"num_experts\": 4, \"num_experts_per_tok\": 2, \"moe_intermediate_size\": 32, \"linear_num_key_heads\": 2, "     \
    "\"linear_num_value_heads\": 4, \"linear_key_head_dim\": 8, \"linear_value_head_dim\": 8"

static struct row_change change_of(const struct spec *there, int slot)
{
    const struct param p = { .w = { .cols = 32 }, .at = { (enum slot)slot, 0, 0, 0, 0 } };
    return row_change_between(&spec, there, &p);
}

static void adapt(struct spec *there, struct layer_spec layer[4], const char *family)
{
    *there = spec;
    for (int l = 0; l < spec.n_layers; l++) layer[l] = spec.layer[l];
    there->layer = layer;
    gguf_adapt_spec(there, gguf_arch_of_family(family), &spec);
}

static void of_mixtral_only_q_and_k_change(void **state)
{
    (void)state;
    struct spec there;
    struct layer_spec layer[4];
    read_spec("{\"model_type\": \"mixtral\", " SIZES "}");
    adapt(&there, layer, "mixtral");
    for (int slot = 0; slot < SLOT_COUNT; slot++) {
        const struct row_change c = change_of(&there, slot);
        const bool turned = slot == SLOT_Q || slot == SLOT_K || slot == SLOT_Q_BIAS || slot == SLOT_K_BIAS;
        assert_int_equal(c.head_dim, turned ? 8 : 0);
        assert_true(c.add == 0 && !c.decay && !c.regroup);
    }
}

/* The norm behind the delta rule is stored as it is. */
static void of_qwen3_next_norms_decays_and_projections_change(void **state)
{
    (void)state;
    struct spec there;
    struct layer_spec layer[4];
    read_spec("{\"model_type\": \"qwen3_next\", " SIZES "}");
    adapt(&there, layer, "qwen3_next");
    for (int slot = 0; slot < SLOT_COUNT; slot++) {
        const struct row_change c = change_of(&there, slot);
        const bool whole = gguf_is_norm_weight((enum slot)slot);
        const bool in_delta = slot >= SLOT_DELTA_QKVZ && slot <= SLOT_DELTA_Z;
        assert_true(c.add == (whole ? 1 : 0));
        assert_int_equal(c.decay, slot == SLOT_DELTA_A);
        assert_int_equal(c.regroup, in_delta);
        assert_int_equal(c.head_dim, 0);
    }
    assert_true(change_of(&there, SLOT_DELTA_NORM).add == 0);
    assert_true(change_of(&there, SLOT_Q_NORM).add == 1);
}

static int free_arena(void **state)
{
    (void)state;
    arena_free(&arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_heads_move_there_and_back),
        cmocka_unit_test(groups_of_the_delta_rule_come_apart_and_together),
        cmocka_unit_test(groups_of_wide_heads_come_back),
        cmocka_unit_test(decays_come_back),
        cmocka_unit_test(of_mixtral_only_q_and_k_change),
        cmocka_unit_test(of_qwen3_next_norms_decays_and_projections_change),
    };
    return cmocka_run_group_tests_name("model/row_change", tests, NULL, free_arena);
}
