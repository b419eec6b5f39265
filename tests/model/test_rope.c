/* Rotary frequencies of each scaling, and the tables of cos and sin. */
#include "support/arrays.h"

#include <math.h>
#include <string.h>

#include "model/spec.h"

#define MAX_HALF 64

static float frequencies(const struct rope_spec *r, float *f)
{
    float factor = 0;
    rope_frequencies(r, f, &factor);
    return factor;
}

/* theta 100, width 4: 100^0 = 1, 100^(-1/2) = 0.1 */
static void plain_frequencies_by_hand(void **state)
{
    (void)state;
    float f[2];
    const float factor = frequencies(&(struct rope_spec){ .kind = ROPE_PLAIN, .n_rot = 4, .theta = 100 }, f);
    assert_close("inv_freq", f, (float[]){ 1, .1f }, 2, 1e-8, 0);
    assert_true(factor == 1);
}

static void linear_scaling_divides_all(void **state)
{
    (void)state;
    float f[2];
    frequencies(&(struct rope_spec){ .kind = ROPE_LINEAR, .n_rot = 4, .theta = 100, .factor = 8 }, f);
    assert_close("inv_freq", f, (float[]){ .125f, .0125f }, 2, 1e-8, 0);
}

/* Llama 3: wavelengths 2π/f against 8192/4 = 2048 and 8192/1 = 8192. theta 5e5, width 8: f = 1, .0376060, .00141421,
 * .0000531830; wavelengths 6.28, 167, 4442.9, 118142: the first two stay, the last is divided by 8, the third lies
 * between: smooth = (8192 / 4442.88 - 1) / (4 - 1) = .281283; f = (1 - .281283) f/8 + .281283 f = .000524845 */
static void llama3_scaling_has_three_bands(void **state)
{
    (void)state;
    const struct rope_spec r = { .kind = ROPE_LLAMA3,
                                 .n_rot = 8,
                                 .theta = 5e5,
                                 .factor = 8,
                                 .low_freq = 1,
                                 .high_freq = 4,
                                 .original_positions = 8192 };
    float f[4];
    assert_true(frequencies(&r, f) == 1);
    assert_close("inv_freq", f, (float[]){ 1, .0376060f, .000524845f, .0000531830f / 8 }, 4, 0, 2e-5);
}

/* Correction range [low, high] of a YaRN: below low the plain frequency, above high plain / factor, between them
 * linear. */
static void assert_yarn(const struct rope_spec *r, double low, double high)
{
    float f[MAX_HALF];
    frequencies(r, f);
    for (int j = 0; j < r->n_rot / 2; j++) {
        const double base = pow(r->theta, -2.0 * j / r->n_rot), ramp = fmin(fmax((j - low) / (high - low), 0), 1);
        const float want = (float)(base / r->factor * ramp + base * (1 - ramp));
        assert_close("inv_freq", &f[j], &want, 1, 0, 2e-6);
    }
}

/* Card F5: DeepSeek, theta 1e4, width 64, factor 40, original 4096: low 10, high 23; equal mscales leave cos and sin
 * alone. */
static void yarn_of_deepseek(void **state)
{
    (void)state;
    struct rope_spec r = { .kind = ROPE_YARN,
                           .n_rot = 64,
                           .theta = 1e4,
                           .factor = 40,
                           .beta_fast = 32,
                           .beta_slow = 1,
                           .truncate = true,
                           .mscale = .707,
                           .mscale_all_dim = .707,
                           .original_positions = 4096 };
    float f[MAX_HALF];
    assert_yarn(&r, 10, 23);
    assert_near("factor", (double)frequencies(&r, f), 1, 1e-6);
    r.mscale = 1; /* (.1 ln 40 + 1) / (.0707 ln 40 + 1) = 1.368888 / 1.260804 */
    assert_near("factor of unequal mscales", (double)frequencies(&r, f), 1.368888 / 1.260804, 1e-6);
}

/* Card F8: gpt-oss, theta 150000, factor 32, not truncated: low 8.0928, high 17.3980; cos and sin times 1.346574. */
static void yarn_of_gpt_oss(void **state)
{
    (void)state;
    const struct rope_spec r = { .kind = ROPE_YARN,
                                 .n_rot = 64,
                                 .theta = 150000,
                                 .factor = 32,
                                 .beta_fast = 32,
                                 .beta_slow = 1,
                                 .original_positions = 4096 };
    float f[MAX_HALF];
    const double low = 64 * log(4096 / (32 * 2 * 3.14159265358979323846)) / (2 * log(150000));
    const double high = 64 * log(4096 / (2 * 3.14159265358979323846)) / (2 * log(150000));
    assert_near("low", low, 8.0928, 1e-4);
    assert_near("high", high, 17.3980, 1e-4);
    assert_yarn(&r, low, high);
    assert_near("factor", (double)frequencies(&r, f), 1.346574, 1e-6);
}

static void an_attention_factor_in_the_config_wins(void **state)
{
    (void)state;
    float f[MAX_HALF];
    const struct rope_spec r = { .kind = ROPE_YARN,
                                 .n_rot = 64,
                                 .theta = 1e4,
                                 .factor = 4,
                                 .beta_fast = 32,
                                 .beta_slow = 1,
                                 .attention_factor = 1.5,
                                 .original_positions = 4096 };
    assert_near("factor", (double)frequencies(&r, f), 1.5, 1e-7);
}

/* theta 100, width 4: 1 and .1 over the short factors 1, 2 and the long ones 4, 5 */
static void longrope_has_factors_within_and_beyond_the_original_length(void **state)
{
    (void)state;
    const double within[] = { 1, 2 }, beyond[] = { 4, 5 };
    const struct rope_spec r = { .kind = ROPE_LONG,
                                 .n_rot = 4,
                                 .theta = 100,
                                 .divide = within,
                                 .attention_factor = 1.2,
                                 .far_divide = beyond,
                                 .far_attention_factor = 1.4 },
                           far = rope_far(&r);
    float f[2];
    assert_near("factor within", (double)frequencies(&r, f), 1.2, 1e-6);
    assert_close("inv_freq within", f, (float[]){ 1, .05f }, 2, 1e-8, 0);
    assert_near("factor beyond", (double)frequencies(&far, f), 1.4, 1e-6);
    assert_close("inv_freq beyond", f, (float[]){ .25f, .02f }, 2, 1e-8, 0);
}

static coe_status read_rope(struct rope_spec *r, const char *text)
{
    json_t *config = json_loads(text, 0, NULL);
    assert_non_null(config);
    *r = (struct rope_spec){ .n_rot = 4 };
    const coe_status s = config_rope(r, test_arena(), config, 4, NULL, "config.json");
    json_decref(config);
    return s;
}

/* max 64 of an original 16: sqrt(1 + ln 4 / ln 16) = sqrt(1.5) where no mscale is given */
static void longrope_is_read_with_both_lists(void **state)
{
    (void)state;
    struct rope_spec r;
    assert_ok(read_rope(&r, "{\"rope_theta\": 100, \"max_position_embeddings\": 64, \"rope_scaling\": {\"type\": "
                            "\"longrope\", \"original_max_position_embeddings\": 16, \"short_factor\": [1, 2], "
                            "\"long_factor\": [4, 5], \"short_mscale\": 1.2}}"));
    assert_int_equal(r.original_positions, 16);
    assert_true(r.divide[1] == 2 && r.far_divide[0] == 4 && r.far_divide[1] == 5);
    assert_near("short", r.attention_factor, 1.2, 1e-12);
    assert_near("long", r.far_attention_factor, sqrt(1.5), 1e-12);
    assert_int_equal(read_rope(&r, "{\"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": [1, 2], "
                                   "\"original_max_position_embeddings\": 16, \"long_factor\": [4]}}"),
                     COE_E_INPUT);
    assert_non_null(strstr(coe_error(), "long_factor has 1 numbers, expected 2"));
}

static void dynamic_scaling_ends_at_the_trained_length(void **state)
{
    (void)state;
    struct rope_spec r;
    assert_ok(read_rope(&r, "{\"max_position_embeddings\": 64, \"rope_scaling\": {\"type\": \"dynamic\", \"factor\": "
                            "2}}"));
    assert_int_equal(r.limit, 64);
    assert_ok(read_rope(&r, "{\"max_position_embeddings\": 64, \"rope_scaling\": {\"type\": \"dynamic\", \"alpha\": "
                            "1000}}"));
    assert_int_equal(r.limit, 0);
}

/* Angles are position × inv_freq in float, as the reference forms them; cos and sin of that float are exact to float.
 */
static void tables_hold_cos_and_sin_of_the_rounded_angle(void **state)
{
    (void)state;
    const float inv[] = { 1, .1f, .0123f };
    const int64_t position[] = { 0, 1, 7, 100000, 1048575 };
    float c[15], s[15];
    rope_fill(inv, 2, 3, position, 5, c, s);
    for (int i = 0; i < 15; i++) {
        const float angle = (float)position[i / 3] * inv[i % 3];
        assert_near("cos", (double)c[i], 2 * cos((double)angle), 3e-7);
        assert_near("sin", (double)s[i], 2 * sin((double)angle), 3e-7);
    }
}

/* Rotating query and key by their positions leaves a product that knows the distance only. */
static void scores_depend_on_the_distance(void **state)
{
    (void)state;
    float inv[2], c[4], s[4];
    frequencies(&(struct rope_spec){ .kind = ROPE_PLAIN, .n_rot = 4, .theta = 100 }, inv);
    const float *q = random_floats(1, 4, 1), *k = random_floats(2, 4, 1);
    double first = 0;
    for (int64_t shift = 0; shift < 50; shift += 7) {
        float a[4], b[4];
        rope_fill(inv, 1, 2, (int64_t[]){ 5 + shift, 2 + shift }, 2, c, s);
        for (int i = 0; i < 4; i++) a[i] = q[i], b[i] = k[i];
        kern->rope(a, c, s, 2, shift % 2, false);
        kern->rope(b, c + 2, s + 2, 2, shift % 2, false);
        const double dot = (double)kern->dot(a, b, 4);
        if (shift < 7) first = dot;
        else if (!(shift % 2)) assert_near("q·k", dot, first, 1e-5);
        kern->rope(a, c, s, 2, shift % 2, true);
        assert_close("rotated back", a, q, 4, 1e-6, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_frequencies_by_hand),
        cmocka_unit_test(linear_scaling_divides_all),
        cmocka_unit_test(llama3_scaling_has_three_bands),
        cmocka_unit_test(yarn_of_deepseek),
        cmocka_unit_test(yarn_of_gpt_oss),
        cmocka_unit_test(an_attention_factor_in_the_config_wins),
        cmocka_unit_test(longrope_has_factors_within_and_beyond_the_original_length),
        cmocka_unit_test(longrope_is_read_with_both_lists),
        cmocka_unit_test(dynamic_scaling_ends_at_the_trained_length),
        cmocka_unit_test(tables_hold_cos_and_sin_of_the_rounded_angle),
        cmocka_unit_test(scores_depend_on_the_distance),
    };
    return kernels_init() || cmocka_run_group_tests_name("model/rope", tests, NULL, NULL);
}
