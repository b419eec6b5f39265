/* What a model looks like in a GGUF file: names, and what makes a network our own form. */
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

#define SIZES                                                                                                          \
    "\"hidden_size\": 32, \"num_hidden_layers\": 2, \"num_attention_heads\": 4, "                                      \
    "\"num_key_value_heads\": 2, \"intermediate_size\": 64, \"vocab_size\": 100, "                                     \
    "\"max_position_embeddings\": 64, \"num_local_experts\": 4, \"num_experts\": 4, "                                  \
    "\"num_experts_per_tok\": 2, \"moe_intermediate_size\": 32, \"tie_word_embeddings\": false, "                      \
    "\"shared_expert_intermediate_size\": 32"

static void assert_form(const char *config, const char *arch, const char *reason)
{
    char why[160] = "";
    read_spec(config);
    const struct gguf_arch *a = gguf_arch_of(&spec, why);
    if (!a != !arch || (a && arch && strcmp(a->name, arch))) fail_msg("%s: %s (%s)", config, a ? a->name : "coe", why);
    if (reason && !strstr(why, reason)) fail_msg("%s: '%s', expected '%s'", config, why, reason);
}

static void what_llama_cpp_computes_otherwise_is_our_own_form(void **state)
{
    (void)state;
    assert_form("{\"model_type\": \"mixtral\", " SIZES "}", "llama", NULL);
    assert_form("{\"model_type\": \"olmoe\", " SIZES "}", "olmoe", NULL);
    assert_form("{\"model_type\": \"olmoe\", \"clip_qkv\": 8.0, " SIZES "}", NULL, "clamped");
    assert_form("{\"model_type\": \"olmoe\", \"norm_topk_prob\": true, " SIZES "}", NULL, "rule for the weights");
    assert_form("{\"model_type\": \"qwen3_moe\", \"norm_topk_prob\": true, " SIZES "}", "qwen3moe", NULL);
    assert_form("{\"model_type\": \"qwen3_moe\", \"norm_topk_prob\": true, \"mlp_only_layers\": [0], " SIZES "}", NULL,
                "dense layers");
    assert_form("{\"model_type\": \"qwen2_moe\", " SIZES "}", "qwen2moe", NULL);
    assert_form("{\"model_type\": \"mixtral\", \"coe\": {\"chain\": {\"iterations\": 2}}, " SIZES "}", NULL, "chain");
    assert_form("{\"model_type\": \"coe\", \"coe\": {\"n_experts\": 4, \"expert_ffn\": 32}, " SIZES "}", NULL,
                "this family");
}

#define LLAMA4                                                                                                         \
    "{\"model_type\": \"llama4_text\", \"hidden_size\": 32, \"num_hidden_layers\": 8, "                                \
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"intermediate_size\": 64, "                              \
    "\"intermediate_size_mlp\": 96, \"vocab_size\": 100, \"max_position_embeddings\": 64, "                            \
    "\"num_experts_per_tok\": 1, "

static void llama_4_is_llama_cpp_s_with_the_constants_it_knows_by_heart(void **state)
{
    (void)state;
    assert_form(LLAMA4 "\"num_local_experts\": 4}", "llama4", NULL);
    assert_form(LLAMA4 "\"num_local_experts\": 4, \"interleave_moe_layer_step\": 2}", "llama4", NULL);
    assert_form(LLAMA4 "\"num_local_experts\": 128, \"interleave_moe_layer_step\": 2, \"use_qk_norm\": false}",
                "llama4", NULL);
    assert_form(LLAMA4 "\"num_local_experts\": 128}", NULL, "norm of queries and keys");
    assert_form(LLAMA4 "\"num_local_experts\": 4, \"use_qk_norm\": false}", NULL, "norm of queries and keys");
    assert_form(LLAMA4 "\"num_local_experts\": 4, \"moe_layers\": [1, 2, 5]}", NULL, "dense layers");
    assert_form(LLAMA4 "\"num_local_experts\": 4, \"moe_layers\": [0, 1, 2]}", NULL, "dense layers");
    assert_form(LLAMA4 "\"num_local_experts\": 4, \"interleave_moe_layer_step\": 9}", NULL, "without experts");
    assert_form(LLAMA4 "\"num_local_experts\": 4, \"attention_chunk_size\": 16}", NULL, "chunks");
    assert_form(LLAMA4 "\"num_local_experts\": 4, \"floor_scale\": 16}", NULL, "temper");
    assert_form(LLAMA4 "\"num_local_experts\": 4, \"attn_temperature_tuning\": false}", NULL, "temper");
    assert_form(LLAMA4 "\"num_local_experts\": 4, \"no_rope_layer_interval\": 2}", NULL, "layers without rope");
    assert_form(LLAMA4 "\"num_local_experts\": 4, \"attention_bias\": true}", NULL, "biases");
}

#define NEXT                                                                                                           \
    "{\"model_type\": \"qwen3_next\", \"hidden_size\": 32, \"num_hidden_layers\": 4, "                                 \
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"intermediate_size\": 64, \"vocab_size\": 100, "         \
    "\"max_position_embeddings\": 64, \"num_experts\": 4, \"num_experts_per_tok\": 2, \"moe_intermediate_size\": 32, " \
    "\"linear_num_key_heads\": 2, \"linear_num_value_heads\": 4, \"linear_key_head_dim\": 8"
#define NEXT_SHARED ", \"shared_expert_intermediate_size\": 32"

static void qwen3_next_is_llama_cpp_s_with_heads_of_one_width(void **state)
{
    (void)state;
    assert_form(NEXT NEXT_SHARED ", \"linear_value_head_dim\": 8}", "qwen3next", NULL);
    assert_form(NEXT NEXT_SHARED ", \"linear_value_head_dim\": 16}", NULL, "different widths");
    assert_form(NEXT NEXT_SHARED ", \"linear_value_head_dim\": 8, \"rms_norm_eps\": 1e-5}", NULL, "epsilon");
    assert_form(NEXT NEXT_SHARED ", \"linear_value_head_dim\": 8, \"mlp_only_layers\": [1]}", NULL, "dense layers");
    assert_form(NEXT NEXT_SHARED ", \"linear_value_head_dim\": 8, \"norm_topk_prob\": false}", NULL, "weights");
    assert_form(NEXT NEXT_SHARED ", \"linear_value_head_dim\": 8, \"attention_bias\": true}", NULL, "biases");
    assert_form(NEXT ", \"linear_value_head_dim\": 8, \"shared_expert_intermediate_size\": 0}", NULL, "shared");
}

static void assert_name(const char *want, struct place p, bool separate)
{
    char name[256];
    assert_true(gguf_name(NULL, &spec, p, separate, name, sizeof name));
    assert_string_equal(name, want);
}

static void names_tell_layers_experts_and_iterations(void **state)
{
    (void)state;
    read_spec("{\"model_type\": \"coe\", \"coe\": {\"n_experts\": 4, \"expert_ffn\": 32, "
              "\"chain\": {\"iterations\": 2}}, " SIZES "}");
    assert_name("token_embd.weight", (struct place){ SLOT_EMBED, 0, 0, 0, 0 }, false);
    assert_name("blk.1.ffn_up_exps.weight", (struct place){ SLOT_EXPERT_UP, 1, 0, 0, 0 }, false);
    assert_name("blk.1.ffn_up.3.weight", (struct place){ SLOT_EXPERT_UP, 1, 3, 0, 0 }, true);
    assert_name("blk.0.ffn_gate_inp.1.weight", (struct place){ SLOT_ROUTER, 0, 0, 1, 0 }, false);
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
        cmocka_unit_test(what_llama_cpp_computes_otherwise_is_our_own_form),
        cmocka_unit_test(llama_4_is_llama_cpp_s_with_the_constants_it_knows_by_heart),
        cmocka_unit_test(qwen3_next_is_llama_cpp_s_with_heads_of_one_width),
        cmocka_unit_test(names_tell_layers_experts_and_iterations),
    };
    return cmocka_run_group_tests_name("model/gguf_form", tests, NULL, free_arena);
}
