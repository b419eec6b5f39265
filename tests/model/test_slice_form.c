/* Dense networks cut into experts. */
#include "support/arrays.h"
#include "support/tiny_model.h"

#include "model/bind.h"
#include "model/slice_form.h"

enum { N = 6, VOCAB = 11 };
static const int32_t ids[N] = { 1, 5, 2, 8, 3, 3 };

static void write_dense(const char *family, const char *dir)
{
    struct coe_model *m;
    json_t *config = json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "model_type", family, "vocab_size", VOCAB,
                               "hidden_size", 8, "num_hidden_layers", 2, "num_attention_heads", 2,
                               "num_key_value_heads", 1, "intermediate_size", 12, "max_position_embeddings", 64);
    assert_ok(model_new(&m, config, "test", 5, 0.5));
    assert_ok(model_write(m, dir, config, DT_F32, NULL));
    model_close(m);
    json_decref(config);
}

static coe_status slice(const char *from, const char *to, int32_t n, int32_t k)
{
    struct coe_model *m;
    assert_ok(model_open(&m, from));
    coe_status s = model_to_slices(m, &(struct slices){ n, k, 0 }, DT_F32, to);
    model_close(m);
    return s;
}

/* Card 14: exact when all are selected. */
static void all_slices_give_the_logits_of_the_dense_model(void **state)
{
    (void)state;
    static const char *const families[] = { "llama", "qwen3" };
    for (size_t i = 0; i < COE_COUNT(families); i++) {
        float want[N * VOCAB], all[N * VOCAB], half[N * VOCAB], far = 0;
        write_dense(families[i], temp_path(families[i]));
        assert_ok(slice(temp_path(families[i]), temp_path("all"), 4, 4));
        assert_ok(slice(temp_path(families[i]), temp_path("half"), 4, 2));
        saved_logits(temp_path(families[i]), ids, N, want);
        saved_logits(temp_path("all"), ids, N, all);
        saved_logits(temp_path("half"), ids, N, half);
        assert_close(families[i], all, want, N * VOCAB, 1e-5, 1e-5);
        for (int j = 0; j < N * VOCAB; j++) far = COE_MAX(far, half[j] - want[j]);
        assert_true(far > 1e-3f);
    }
}

static void what_cannot_be_sliced_is_refused(void **state)
{
    (void)state;
    write_dense("llama", temp_path("dense"));
    assert_int_equal(slice(temp_path("dense"), temp_path("never"), 5, 5), COE_E_USAGE);
    assert_error_has("networks of width 12 in 5 slices");
    assert_int_equal(slice(temp_path("dense"), temp_path("never"), 4, 5), COE_E_USAGE);
    assert_error_has("5 of 4 slices");
    assert_ok(slice(temp_path("dense"), temp_path("sliced"), 4, 4));
    assert_int_equal(slice(temp_path("sliced"), temp_path("never"), 2, 2), COE_E_USAGE);
    assert_error_has("has experts already");
    write_dense("qwen2", temp_path("biased"));
    assert_int_equal(slice(temp_path("biased"), temp_path("never"), 4, 4), COE_E_USAGE);
    assert_error_has("attention or an activation that family coe does not have");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_slices_give_the_logits_of_the_dense_model),
        cmocka_unit_test(what_cannot_be_sliced_is_refused),
    };
    return kernels_init() || cmocka_run_group_tests_name("model/slice_form", tests, NULL, NULL);
}
