/* Configs as programs save them today: other spellings, zeros for nothing, keys that the reference leaves unread; each
 * was found by comparing random models with transformers. */
#include "support/arrays.h"

#include <stdio.h>
#include <string.h>

#include "model/bind.h"

#define BASE \
    "'vocab_size': 11, 'hidden_size': 8, 'num_hidden_layers': 2, 'num_attention_heads': 2, 'intermediate_size': 6"
#define EXPERTS ", 'num_experts_per_tok': 2, 'moe_intermediate_size': 4"
#define LATENT ", 'kv_lora_rank': 4, 'qk_nope_head_dim': 4, 'qk_rope_head_dim': 2, 'v_head_dim': 3"

static struct spec spec_of(const char *text)
{
    char *quoted = test_alloc(strlen(text) + 1);
    struct spec s;
    json_t *doc = NULL;
    for (size_t i = 0; text[i]; i++) quoted[i] = text[i] == '\'' ? '"' : text[i];
    assert_ok(json_read_text(&doc, quoted, strlen(quoted), "test"));
    assert_ok(spec_read(&s, test_arena(), doc, "config.json"));
    json_decref(doc);
    return s;
}

/* transformers 5 saves the number of Qwen3's experts under Mixtral's key. */
static void experts_are_counted_under_another_family_s_key(void **state)
{
    (void)state;
    const struct spec s = spec_of("{ 'model_type': 'qwen3_moe', " BASE EXPERTS ", 'num_local_experts': 5 }");
    assert_int_equal(s.layer[1].moe.n_experts, 5);
    const struct spec own =
        spec_of("{ 'model_type': 'qwen3_moe', " BASE EXPERTS ", 'num_experts': 4, 'num_local_experts': 5 }");
    assert_int_equal(own.layer[1].moe.n_experts, 4);
}

static void the_key_of_a_pruned_model_is_the_one_it_has(void **state)
{
    (void)state;
    const struct family *f = part_find("family", "qwen3_moe")->impl;
    json_t *newer = json_pack("{s:i}", "num_local_experts", 5), *none = json_object();
    assert_string_equal(family_experts_key(f, newer), "num_local_experts");
    assert_string_equal(family_experts_key(f, none), "num_experts");
    json_decref(newer);
    json_decref(none);
}

static void a_window_of_nothing_is_none(void **state)
{
    (void)state;
    const struct spec s = spec_of("{ 'model_type': 'qwen2_moe', " BASE EXPERTS ", 'num_experts': 4, "
                                  "'shared_expert_intermediate_size': 4, 'sliding_window': 0 }");
    assert_int_equal(s.layer[0].attn.window, 0);
}

static void gpt_oss_without_a_rope_has_the_released_one(void **state)
{
    (void)state;
    const char *const config = "{ 'model_type': 'gpt_oss', " BASE EXPERTS ", 'num_local_experts': 4, 'head_dim': 4 }";
    const struct rope_spec r = spec_of(config).layer[1].attn.rope;
    assert_int_equal(r.kind, ROPE_YARN);
    assert_true(r.factor == 32 && r.original_positions == 4096 && !r.truncate);
    const struct spec given = spec_of("{ 'model_type': 'gpt_oss', " BASE EXPERTS ", 'num_local_experts': 4, "
                                      "'rope_parameters': { 'rope_type': 'default', 'rope_theta': 500 } }");
    assert_int_equal(given.layer[1].attn.rope.kind, ROPE_PLAIN);
}

static void trinity_s_weights_sum_to_one_whatever_route_norm_says(void **state)
{
    (void)state;
    const struct spec s =
        spec_of("{ 'model_type': 'afmoe', " BASE EXPERTS ", 'num_experts': 4, 'route_norm': false }");
    assert_true(s.layer[1].moe.router.renormalize);
}

static void gpt2_may_have_a_head_of_its_own(void **state)
{
    (void)state;
    const struct place head = { SLOT_HEAD, 0, 0, 0, 0 };
    int64_t rows, cols;
    const char *const sizes = "{ 'model_type': 'gpt2', 'vocab_size': 11, 'n_embd': 8, 'n_layer': 1, 'n_head': 2, "
                              "'n_positions': 16";
    char text[256];
    for (int own = 0; own < 2; own++) {
        snprintf(text, sizeof text, "%s%s }", sizes, own ? ", 'tie_word_embeddings': false" : "");
        const struct spec s = spec_of(text);
        assert_int_equal(place_shape(&s, head, &rows, &cols), own);
    }
}

static bool has_place(const struct spec *s, enum slot slot, int64_t want)
{
    int64_t rows, cols;
    const struct place p = { slot, 1, 0, 0, 0 };
    return place_shape(s, p, &rows, &cols) && rows == 1 && cols == want;
}

/* Of both first factors and of the output; the second factors have none. */
static void latent_attention_may_have_biases(void **state)
{
    (void)state;
    const struct spec s = spec_of("{ 'model_type': 'deepseek_v3', " BASE EXPERTS LATENT
                                  ", 'n_routed_experts': 4, 'q_lora_rank': 6, 'attention_bias': true }");
    assert_true(has_place(&s, SLOT_Q_A_BIAS, 6) && has_place(&s, SLOT_KV_A_BIAS, 4 + 2));
    assert_true(has_place(&s, SLOT_O_BIAS, 8) && !has_place(&s, SLOT_Q_BIAS, 0));
    const struct spec plain = spec_of("{ 'model_type': 'deepseek_v3', " BASE EXPERTS LATENT
                                      ", 'n_routed_experts': 4, 'attention_bias': true }");
    assert_true(!has_place(&plain, SLOT_Q_A_BIAS, 0) && has_place(&plain, SLOT_KV_A_BIAS, 4 + 2));
}

static void ernie_may_have_biases_everywhere_but_in_experts(void **state)
{
    (void)state;
    const struct spec s =
        spec_of("{ 'model_type': 'ernie4_5_moe', " BASE ", 'moe_num_experts': 4, 'moe_k': 2, 'moe_intermediate_size': "
                "4, 'moe_num_shared_experts': 2, 'use_bias': true, 'moe_layer_start_index': 1 }");
    assert_true(has_place(&s, SLOT_SHARED_GATE_BIAS, 8) && has_place(&s, SLOT_SHARED_UP_BIAS, 8));
    assert_true(has_place(&s, SLOT_SHARED_DOWN_BIAS, 8) && has_place(&s, SLOT_HEAD_BIAS, 11));
    assert_false(has_place(&s, SLOT_EXPERT_GATE_BIAS, 4));
}

static void assert_named(const char *config, struct place p, const char *want)
{
    const struct spec s = spec_of(config);
    const struct family *f = part_find("family", s.family)->impl;
    char name[256], seen[1024] = "";
    for (int i = 0; family_name(f, &s, p, i, name, sizeof name); i++) {
        if (!strcmp(name, want)) return;
        snprintf(seen + strlen(seen), sizeof seen - strlen(seen), " %s", name);
    }
    fail_msg("%s is none of%s", want, seen);
}

static void granite_has_newer_names(void **state)
{
    (void)state;
    const char *const config = "{ 'model_type': 'granitemoe', " BASE EXPERTS ", 'num_local_experts': 4 }";
    assert_named(config, (struct place){ SLOT_ROUTER, 1, 0, 0, 0 }, "model.layers.1.block_sparse_moe.router.weight");
    assert_named(config, (struct place){ SLOT_EXPERT_UP, 1, 2, 0, 0 },
                 "model.layers.1.block_sparse_moe.experts.gate_up_proj");
    assert_named(config, (struct place){ SLOT_EXPERT_DOWN, 1, 2, 0, 0 },
                 "model.layers.1.block_sparse_moe.experts.down_proj");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(experts_are_counted_under_another_family_s_key),
        cmocka_unit_test(the_key_of_a_pruned_model_is_the_one_it_has),
        cmocka_unit_test(a_window_of_nothing_is_none),
        cmocka_unit_test(gpt_oss_without_a_rope_has_the_released_one),
        cmocka_unit_test(trinity_s_weights_sum_to_one_whatever_route_norm_says),
        cmocka_unit_test(gpt2_may_have_a_head_of_its_own),
        cmocka_unit_test(latent_attention_may_have_biases),
        cmocka_unit_test(ernie_may_have_biases_everywhere_but_in_experts),
        cmocka_unit_test(granite_has_newer_names),
    };
    return cmocka_run_group_tests_name("model/saved_configs", tests, NULL, NULL);
}
