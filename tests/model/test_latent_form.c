/* Experts turned into latent ones. */
#include "support/arrays.h"
#include "support/tiny_model.h"

#include <math.h>
#include <string.h>

#include "model/bind.h"
#include "model/latent_form.h"

enum { N = 6, D = 8, E = 4, F = 3, VOCAB = 11 };
static const int32_t ids[N] = { 1, 5, 2, 8, 3, 3 };

static const char *plain_model(const char *name)
{
    struct coe_model *m;
    const char *dir = temp_path(name);
    json_t *config = json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:{s:i, s:i, s:i}}", "model_type", "coe", "vocab_size",
                               VOCAB, "hidden_size", D, "num_hidden_layers", 2, "num_attention_heads", 2,
                               "intermediate_size", 6, "coe", "n_experts", E, "expert_ffn", F, "top_k", 2);
    assert_ok(model_new(&m, config, "test", 5, 0.5));
    assert_ok(model_write(m, dir, config, DT_F32, NULL));
    model_close(m);
    json_decref(config);
    return dir;
}

static double error_of(const char *name, const char *from, int32_t latent, int32_t group, struct latent_report *r)
{
    struct coe_model *m;
    assert_ok(model_open(&m, from));
    assert_ok(model_to_latent(m, latent, group, DT_F32, temp_path(name), r));
    model_close(m);
    return r->error;
}

/* Card 13: exact with m = min(d, group · F) = 6; parameters E (2 F m + d F) + E/k 2 m d of each layer. */
static void with_the_full_rank_nothing_is_lost(void **state)
{
    (void)state;
    char from[512];
    snprintf(from, sizeof from, "%s", plain_model("plain"));
    struct latent_report r;
    float want[N * VOCAB], got[N * VOCAB];
    assert_true(error_of("exact", from, 6, 2, &r) < 1e-7);
    assert_int_equal(r.experts_before, 2 * E * 3 * D * F);
    assert_int_equal(r.experts, 2 * (E * (2 * F * 6 + D * F) + E / 2 * 2 * 6 * D));
    saved_logits(from, ids, N, want);
    saved_logits(temp_path("exact"), ids, N, got);
    assert_close("logits", got, want, N * VOCAB, 1e-4, 1e-4);
}

/* Card 13: the error falls as m grows, and is what a group of one loses least. */
static void the_error_falls_as_the_space_grows(void **state)
{
    (void)state;
    char from[512];
    snprintf(from, sizeof from, "%s", plain_model("plain2"));
    struct latent_report r;
    double before = 1;
    for (int32_t m = 1; m <= 6; m++) {
        char name[32];
        snprintf(name, sizeof name, "rank%d", m);
        const double error = error_of(name, from, m, 2, &r);
        assert_true(error < before);
        before = error;
    }
    assert_true(error_of("alone", from, 2, 1, &r) < error_of("shared", from, 2, 4, &r));
}

/* One expert of one row (3, 4, 0, …): a space of one dimension holds it; the shared row is (.6, .8) up to sign. */
static void the_lost_share_is_that_of_the_discarded_values(void **state)
{
    (void)state;
    struct coe_model *m;
    struct latent_report r;
    assert_ok(model_open(&m, plain_model("hand")));
    assert_ok(model_make_trainable(m, NULL));
    for (int32_t l = 0; l < 2; l++)
        for (int32_t e = 0; e < E; e++) {
            float *gate = m->layer[l].moe.gate[e]->master, *up = m->layer[l].moe.up[e]->master;
            memset(gate, 0, F * D * sizeof(float)), memset(up, 0, F * D * sizeof(float));
            gate[0] = up[0] = 4, gate[D + 1] = up[D + 1] = 3; /* singular values 4 and 3 */
        }
    const char *dir = temp_path("hand_from");
    assert_ok(model_write(m, dir, model_config(m), DT_F32, NULL));
    model_close(m);
    assert_near("error", error_of("hand_to", dir, 1, 1, &r), 3.0 / 5.0, 1e-9);
}

static void what_has_no_latent_form_is_refused(void **state)
{
    (void)state;
    struct coe_model *m;
    struct latent_report r;
    assert_ok(model_open(&m, plain_model("refused")));
    assert_int_equal(model_to_latent(m, 4, 3, DT_F32, temp_path("never"), &r), COE_E_USAGE);
    assert_error_has("4 experts in groups of 3");
    assert_int_equal(model_to_latent(m, 9, 2, DT_F32, temp_path("never"), &r), COE_E_USAGE);
    assert_error_has("a latent width of 9");
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_the_full_rank_nothing_is_lost),
        cmocka_unit_test(the_error_falls_as_the_space_grows),
        cmocka_unit_test(the_lost_share_is_that_of_the_discarded_values),
        cmocka_unit_test(what_has_no_latent_form_is_refused),
    };
    return kernels_init() || cmocka_run_group_tests_name("model/latent_form", tests, NULL, NULL);
}
