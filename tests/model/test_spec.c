/* config.json → spec: what is read, what is refused and how it is named, and the names of tensors. */
#include "support/arrays.h"

#include <string.h>

#include "model/bind.h"

#define BASE \
    "'vocab_size': 11, 'hidden_size': 8, 'num_hidden_layers': 3, 'num_attention_heads': 2, 'intermediate_size': 6"
#define COE(more) "{ 'model_type': 'coe', " BASE ", 'coe': { 'n_experts': 4, 'expert_ffn': 3" more " } }"
#define FAMILY(type, more) "{ 'model_type': '" type "', " BASE more " }"

/* JSON with ' for " */
static coe_status read(struct spec *s, const char *text)
{
    char *quoted = test_alloc(strlen(text) + 1);
    json_t *doc = NULL;
    for (size_t i = 0; text[i]; i++) quoted[i] = text[i] == '\'' ? '"' : text[i];
    assert_ok(json_read_text(&doc, quoted, strlen(quoted), "test"));
    const coe_status status = spec_read(s, test_arena(), doc, "config.json");
    json_decref(doc);
    return status;
}

static struct spec spec_of(const char *text)
{
    struct spec s;
    assert_ok(read(&s, text));
    return s;
}

static void assert_refused(const char *text, const char *part)
{
    struct spec s;
    if (read(&s, text) != COE_E_INPUT) fail_msg("%s: was not refused as bad input", text);
    assert_error_has("config.json");
    assert_error_has(part);
}

static void defaults_of_our_own_models(void **state)
{
    (void)state;
    const struct spec s = spec_of(COE(""));
    const struct moe_spec *m = &s.layer[2].moe;
    assert_string_equal(s.family, "coe");
    assert_int_equal(s.n_layers, 3);
    assert_true(s.layer[0].is_moe && s.layer[1].is_moe && s.layer[2].is_moe);
    assert_int_equal(m->n_experts, 4);
    assert_int_equal(m->router.top_k, 2);
    assert_int_equal(m->router.score, SCORE_SOFTMAX);
    assert_false(m->router.renormalize);
    assert_int_equal(m->chain.n_iterations, 1);
    assert_int_equal(m->chain.residual, RESIDUAL_PRENORM);
    assert_int_equal(m->n_losses, 0);
    assert_int_equal(s.layer[0].attn.head_dim, 4);
    assert_int_equal(s.layer[0].attn.n_kv_heads, 2);
    assert_int_equal(s.bos, -1);
}

static void every_key_of_the_coe_object_is_read(void **state)
{
    (void)state;
    const struct spec s = spec_of(COE(
        ", 'top_k': 1, 'score': 'sigmoid', 'renormalize': true, 'scale': 2.5, 'router': 'linear', 'router_bias': true,"
        "'selection': 'top_k', 'selection_bias': true, 'bias_update': 0.01, 'bias_rule': 'proportional', 'bias_decay': "
        "'inverse_sqrt', 'groups': 2, 'groups_kept': 1, "
        "'group_score': 'sum2',"
        "'shared_ffn': 5, 'shared_gate': true, 'qk_norm': 'head', 'dense_layers': [1], 'experts_per_layer': [4, 0, 2],"
        "'top_k_per_layer': [1, 1, 1], 'losses': [{'kind': 'z', 'coef': 0.5}, {'kind': 'sequence'}],"
        "'chain': {'iterations': 3, 'gate': 'shared', 'residual': 'prenorm', 'weight': 'learned'}"));
    const struct moe_spec *m = &s.layer[2].moe;
    assert_int_equal(m->router.score, SCORE_SIGMOID);
    assert_true(m->router.renormalize && m->router.bias && m->router.selection_bias);
    assert_near("scale", (double)m->router.scale, 2.5, 0);
    assert_int_equal(m->router.n_group, 2);
    assert_int_equal(m->router.topk_group, 1);
    assert_int_equal(m->router.group_score, GROUP_SUM2);
    assert_near("bias_update", m->bias_update, .01, 0);
    assert_int_equal(m->bias_rule, BIAS_PROPORTIONAL);
    assert_int_equal(m->bias_decay, BIAS_DECAY_INVERSE_SQRT);
    assert_int_equal(m->shared_ffn, 5);
    assert_true(m->shared_gate && m->chain.shared_gate && m->chain.learned_weight);
    assert_int_equal(m->chain.n_iterations, 3);
    assert_int_equal(m->n_losses, 2);
    assert_string_equal(m->loss[0].kind, "z");
    assert_near("coef", m->loss[0].coef, .5, 0);
    assert_string_equal(m->loss[1].kind, "sequence");
    assert_int_equal(s.layer[0].attn.qk_norm, QK_NORM_HEAD);
    assert_int_equal(s.layer[0].moe.n_experts, 4);
    assert_int_equal(m->n_experts, 2);
    assert_false(s.layer[1].is_moe);
}

static void families_say_how_they_route(void **state)
{
    (void)state;
    struct spec s =
        spec_of(FAMILY("mixtral", ", 'num_local_experts': 6, 'num_experts_per_tok': 3, 'router_aux_loss_coef': 0.02"));
    assert_true(s.layer[0].moe.router.renormalize);
    assert_int_equal(s.layer[0].moe.router.top_k, 3);
    assert_int_equal(s.layer[0].moe.expert_ffn, 6);
    assert_string_equal(s.layer[0].moe.loss[0].kind, "hf");
    assert_near("coef", s.layer[0].moe.loss[0].coef, .02, 1e-12);
    s = spec_of(FAMILY("olmoe", ", 'num_experts': 8, 'clip_qkv': 1.5"));
    assert_false(s.layer[0].moe.router.renormalize);
    assert_int_equal(s.layer[0].attn.qk_norm, QK_NORM_FULL);
    assert_near("clip", (double)s.layer[0].attn.clip, 1.5, 0);
    s = spec_of(FAMILY(
        "llama", ", 'tie_word_embeddings': true, 'num_key_value_heads': 1, 'head_dim': 6, 'eos_token_id': [2, 3]"));
    assert_true(s.tied);
    assert_false(s.layer[0].is_moe);
    assert_int_equal(s.layer[0].attn.head_dim, 6);
    assert_int_equal(s.n_eos, 2);
    assert_int_equal(s.eos[1], 3);
}

/* A coe object may lie over any family: a converted Mixtral with a chain. */
static void a_coe_object_extends_another_family(void **state)
{
    (void)state;
    const struct spec s = spec_of(
        FAMILY("mixtral", ", 'num_local_experts': 6, 'coe': {'chain': {'iterations': 2, 'weight': 'learned'}}"));
    assert_string_equal(s.family, "mixtral");
    assert_int_equal(s.layer[0].moe.chain.n_iterations, 2);
    assert_true(s.layer[0].moe.router.renormalize && s.layer[0].moe.chain.learned_weight);
    assert_int_equal(s.layer[0].moe.n_experts, 6);
}

static void rope_scalings_are_read_in_both_spellings(void **state)
{
    (void)state;
    struct spec s = spec_of(FAMILY("llama", ", 'rope_theta': 500, 'rope_scaling': {'type': 'linear', 'factor': 4}"));
    assert_int_equal(s.layer[0].attn.rope.kind, ROPE_LINEAR);
    assert_near("theta", s.layer[0].attn.rope.theta, 500, 0);
    assert_near("factor", s.layer[0].attn.rope.factor, 4, 0);
    s = spec_of(FAMILY("llama", ", 'rope_parameters': {'rope_theta': 700, 'rope_type': 'yarn', 'factor': 8,"
                                "'original_max_position_embeddings': 512}"));
    assert_int_equal(s.layer[0].attn.rope.kind, ROPE_YARN);
    assert_near("theta", s.layer[0].attn.rope.theta, 700, 0);
    assert_int_equal(s.layer[0].attn.rope.original_positions, 512);
    s = spec_of(
        FAMILY("llama", ", 'rope_scaling': null, 'rope_parameters': {'rope_type': 'default', 'rope_theta': 9}"));
    assert_int_equal(s.layer[0].attn.rope.kind, ROPE_PLAIN);
}

static void what_is_missing_or_wrong_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *config, *part;
    } cases[] = {
        { "[]", "expected an object" },
        { "{}", "model_type" },
        { "{ 'model_type': 7 }", "model_type" },
        { "{ 'model_type': 'nosuch' }", "'nosuch'" },
        { "{ 'model_type': 'coe', " BASE " }", "\"coe\" object is missing" },
        { "{ 'model_type': 'llama', 'vocab_size': 11 }", "hidden_size" },
        { FAMILY("llama", ", 'num_key_value_heads': 3"), "not a multiple of 3" },
        { FAMILY("llama", ", 'head_dim': 0"), "head_dim" },
        { FAMILY("llama", ", 'head_dim': 5"), "5 rotated dimensions" },
        { FAMILY("llama", ", 'rope_theta': -1"), "rope_theta" },
        { FAMILY("llama", ", 'rope_theta': 'big'"), "rope_theta" },
        { FAMILY("llama", ", 'rope_scaling': {'type': 'nosuch'}"), "'nosuch'" },
        { FAMILY("llama", ", 'rope_scaling': {'type': 'linear', 'factor': 0}"), "rope factor 0" },
        { FAMILY("llama", ", 'rope_scaling': 7"), "rope_scaling" },
        { FAMILY("llama", ", 'hidden_act': 'nosuch'"), "'nosuch'" },
        { FAMILY("mixtral", ""), "num_local_experts" },
        { FAMILY("mixtral", ", 'num_local_experts': 4, 'num_experts_per_tok': 5"), "top_k 5 of 4 experts" },
        { FAMILY("olmoe", ", 'num_experts': 'many'"), "num_experts" },
        { COE(", 'nosuch': 1"), "nosuch" },
        { COE(", 'score': 'nosuch'"), "score 'nosuch'" },
        { COE(", 'top_k': 0"), "top_k" },
        { COE(", 'top_k': 5"), "top_k 5 of 4 experts" },
        { COE(", 'router': 'nosuch'"), "no router 'nosuch'" },
        { COE(", 'selection': 'nosuch'"), "no selection 'nosuch'" },
        { COE(", 'groups': 3"), "4 experts in 3 groups" },
        { COE(", 'chain': {'iterations': 0}"), "iterations" },
        { COE(", 'chain': {'iterations': 17}"), "iterations" },
        { COE(", 'chain': {'nosuch': 1}"), "nosuch" },
        { COE(", 'chain': {'residual': 'nosuch'}"), "residual 'nosuch'" },
        { COE(", 'chain': {'gate': 'nosuch'}"), "gate 'nosuch'" },
        { COE(", 'chain': {'residual': 'inner', 'weight': 'learned'}"), "not inner" },
        { COE(", 'losses': 'z'"), "losses" },
        { COE(", 'losses': [{'coef': 1}]"), "kind is missing" },
        { COE(", 'losses': [{'kind': 'nosuch'}]"), "no loss 'nosuch'" },
        { COE(", 'losses': [{'kind': 'z', 'nosuch': 1}]"), "nosuch" },
        { COE(", 'losses': "
              "[{'kind':'z'},{'kind':'z'},{'kind':'z'},{'kind':'z'},{'kind':'z'},{'kind':'z'},{'kind':'z'},{'kind':'z'}"
              ","
              "{'kind':'z'}]"),
          "at most 8" },
        { COE(", 'dense_layers': [3]"), "dense_layers[0]" },
        { COE(", 'dense_layers': ['x']"), "dense_layers[0]" },
        { COE(", 'dense_layers': 1"), "dense_layers" },
        { COE(", 'experts_per_layer': [4]"), "experts_per_layer" },
        { COE(", 'experts_per_layer': [4, 4, -1]"), "experts_per_layer[2]" },
        { COE(", 'experts_per_layer': [4, 4, 1]"), "layer 2" },
        { COE(", 'top_k_per_layer': [1, 1, 9]"), "layer 2" },
        { COE(", 'experts_per_layer': 4"), "expected a list or a shape" },
        { COE(", 'experts_per_layer': {'shape': 'nosuch'}"), "shape 'nosuch'" },
        { COE(", 'experts_per_layer': {'shape': 'wave', 'min': 5, 'max': 4}"), "min 5, max 4" },
        { COE(", 'qk_norm': 'nosuch'"), "qk_norm 'nosuch'" },
        { COE(", 'chain': 5"), "chain" },
        { COE(", 'scale': 'big'"), "scale" },
    };
    for (size_t i = 0; i < COE_COUNT(cases); i++) assert_refused(cases[i].config, cases[i].part);
}

static void sizes_that_would_overflow_are_refused(void **state)
{
    (void)state;
    assert_refused("{ 'model_type': 'llama', 'vocab_size': 99999999999, 'hidden_size': 8, 'num_hidden_layers': 1,"
                   "'num_attention_heads': 2, 'intermediate_size': 6 }",
                   "vocab_size");
    assert_refused("{ 'model_type': 'llama', 'vocab_size': 11, 'hidden_size': 8, 'num_hidden_layers': 2000000000,"
                   "'num_attention_heads': 2, 'intermediate_size': 6 }",
                   "num_hidden_layers");
    assert_refused(COE(", 'experts_per_layer': [4, 4, 70000]"), "experts_per_layer[2]");
}

/* ---- places and names ---- */

static const char *name_of(const struct spec *s, struct place p)
{
    static char name[256];
    const struct family *f = part_find("family", s->family)->impl;
    return family_name(f, s, p, 0, name, sizeof name) ? name : "none";
}

static void names_of_routers_follow_the_chain(void **state)
{
    (void)state;
    struct spec s = spec_of(COE(""));
    assert_string_equal(name_of(&s, (struct place){ SLOT_ROUTER, 1, 0, 0, 0 }), "model.layers.1.mlp.gate.weight");
    s = spec_of(COE(", 'chain': {'iterations': 2}, 'selection_bias': true"));
    assert_string_equal(name_of(&s, (struct place){ SLOT_ROUTER, 1, 0, 1, 0 }), "model.layers.1.mlp.gate.1.weight");
    assert_string_equal(name_of(&s, (struct place){ SLOT_SELECTION_BIAS, 2, 0, 1, 0 }),
                        "model.layers.2.mlp.gate.1.e_score_correction_bias");
    assert_string_equal(name_of(&s, (struct place){ SLOT_EXPERT_UP, 2, 3, 0, 0 }),
                        "model.layers.2.mlp.experts.3.up_proj.weight");
    s = spec_of(COE(", 'chain': {'iterations': 2, 'gate': 'shared'}"));
    assert_string_equal(name_of(&s, (struct place){ SLOT_ROUTER, 1, 0, 0, 0 }), "model.layers.1.mlp.gate.weight");
}

struct visit {
    const struct spec *s;
    int n, routers, experts;
    int64_t floats;
};

static coe_status see(void *user, struct place p, int64_t rows, int64_t cols)
{
    struct visit *v = user;
    int64_t r, c;
    v->n++;
    v->routers += p.slot == SLOT_ROUTER;
    v->experts += slot_info[p.slot].scope == SCOPE_EXPERT;
    v->floats += rows * cols;
    assert_true(place_shape(v->s, p, &r, &c) && r == rows && c == cols);
    assert_true(strcmp(name_of(v->s, p), "none") != 0);
    return COE_OK;
}

/* 3 layers, one dense; 2 routers in each MoE layer; 4 and 2 experts of three matrices. Embedding 88, head 88, final
 * norm 8; per layer two norms 16, q k v o 4·64 = 256; dense 3·48 = 144; MoE: routers 2·32 and 2·16, experts 6 · 3·24 =
 * 432, shared 2 · 3·40, chain weights 2 */
static void every_place_is_visited_once(void **state)
{
    (void)state;
    const struct spec s = spec_of(COE(", 'dense_layers': [1], 'experts_per_layer': [4, 0, 2], 'shared_ffn': 5,"
                                      "'chain': {'iterations': 2, 'weight': 'learned'}"));
    struct visit v = { .s = &s };
    assert_ok(spec_each_place(&s, see, &v));
    assert_int_equal(v.routers, 4);
    assert_int_equal(v.experts, 18);
    assert_int_equal(v.floats, 184 + 3 * 272 + 144 + 96 + 432 + 240 + 2);
    assert_int_equal(spec_sizes(&s).total, v.floats);
}

static void name_patterns_are_expanded_and_never_overrun(void **state)
{
    (void)state;
    char name[20];
    assert_true(expand_name("a.{l}.{e}.{t}", (struct place){ SLOT_ROUTER, 12, 7, 3, 0 }, name, sizeof name));
    assert_string_equal(name, "a.12.7.3");
    const struct place first = { SLOT_ROUTER, 1, 0, 0, 0 };
    assert_false(expand_name("0123456789.{l}.0123456789", first, name, sizeof name));
    assert_false(expand_name("01234567890123456{l}", (struct place){ SLOT_ROUTER, 123, 0, 0, 0 }, name, sizeof name));
}

/* 4 experts in each of 3 layers: 12 in the shape 6 4 2; with a dense layer 8 in the shape 6 2. */
static void a_shape_over_the_layers_keeps_their_sum(void **state)
{
    (void)state;
    const struct spec s = spec_of(COE(", 'experts_per_layer': {'shape': 'descending', 'min': 2, 'max': 6}"));
    for (int l = 0; l < 3; l++) assert_int_equal(s.layer[l].moe.n_experts, 6 - 2 * l);
    const struct spec d = spec_of(
        COE(", 'dense_layers': [1], 'experts_per_layer': {'shape': 'descending', 'min': 2, 'max': 6}"));
    assert_int_equal(d.layer[0].moe.n_experts, 6);
    assert_int_equal(d.layer[2].moe.n_experts, 2);
}

/* Card 8: Pangu Pro MoE has 71.9888 billion parameters, 16.4981 billion of them active. */
static void the_parameters_of_pangu_are_counted(void **state)
{
    (void)state;
    const struct spec s = spec_of("{ 'model_type': 'PanguProMoE', 'vocab_size': 153376, 'hidden_size': 5120, "
                                  "'num_hidden_layers': 48, 'num_attention_heads': 40, 'num_key_value_heads': 8, "
                                  "'head_dim': 128, 'intermediate_size': 1344, 'num_experts': 64, "
                                  "'num_experts_per_tok': 8, 'moe_intermediate_size': 1344, "
                                  "'shared_expert_intermediate_size': 5376, 'tie_word_embeddings': false }");
    const struct spec_sizes n = spec_sizes(&s);
    assert_near("total", (double)n.total, 71.9888e9, .00005e9);
    assert_near("active", (double)(n.active + (int64_t)153376 * 5120), 16.4981e9, .00005e9); /* the card counts both
                                                                                               * embeddings */
}

/* Card F5: scores are multiplied by 192^-1/2, and by mscale² where YaRN is configured. */
static void deepseek_scales_its_scores(void **state)
{
    (void)state;
#define DEEPSEEK(more)                                                                                                \
    "{ 'model_type': 'deepseek_v2', " BASE ", 'kv_lora_rank': 512, 'q_lora_rank': null, 'qk_nope_head_dim': 128, "     \
    "'qk_rope_head_dim': 64, 'v_head_dim': 128, 'n_routed_experts': 4, 'num_experts_per_tok': 2, "                     \
    "'moe_intermediate_size': 4, 'n_shared_experts': 1, 'first_k_dense_replace': 1" more " }"
#define YARN(all)                                                                                                     \
    ", 'rope_scaling': { 'type': 'yarn', 'factor': 40, 'original_max_position_embeddings': 4096, 'beta_fast': 32, "    \
    "'beta_slow': 1, 'mscale': " all ", 'mscale_all_dim': " all " }"
    assert_near("plain", (double)spec_of(DEEPSEEK("")).layer[0].attn.scale, .072169, 5e-7);
    assert_near("lite", (double)spec_of(DEEPSEEK(YARN("0.707"))).layer[0].attn.scale, .114721, 5e-7);
    assert_near("V2, V3", (double)spec_of(DEEPSEEK(YARN("1.0"))).layer[0].attn.scale, .135234, 5e-7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_shape_over_the_layers_keeps_their_sum),
        cmocka_unit_test(defaults_of_our_own_models),
        cmocka_unit_test(the_parameters_of_pangu_are_counted),
        cmocka_unit_test(deepseek_scales_its_scores),
        cmocka_unit_test(every_key_of_the_coe_object_is_read),
        cmocka_unit_test(families_say_how_they_route),
        cmocka_unit_test(a_coe_object_extends_another_family),
        cmocka_unit_test(rope_scalings_are_read_in_both_spellings),
        cmocka_unit_test(what_is_missing_or_wrong_is_named),
        cmocka_unit_test(sizes_that_would_overflow_are_refused),
        cmocka_unit_test(names_of_routers_follow_the_chain),
        cmocka_unit_test(every_place_is_visited_once),
        cmocka_unit_test(name_patterns_are_expanded_and_never_overrun),
    };
    return cmocka_run_group_tests_name("model/spec", tests, NULL, NULL);
}
