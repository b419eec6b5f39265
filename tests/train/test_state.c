/* Saved runs: resuming gives the bits of an uninterrupted run; what does not fit or is damaged is refused. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/tiny_train.h"

#define HALF 3
#define HOW .train = "  dropout: 0.1\n  dtype: f32\n", .coe = "selection_bias: true, bias_update: 0.01,"

static const char *in_run(const struct recipe *r, const char *name)
{
    static char path[4][1200];
    static int next;
    char *out = path[next++ % 4];
    snprintf(out, sizeof path[0], "%s/%s", r->output, name);
    return out;
}

/* Steps from where the state is to `until`, as if interrupted there. */
static void run_until(const struct tiny_recipe *how, int64_t until, enum resume_mode mode)
{
    struct recipe r;
    struct trainer *t = NULL;
    struct step_report report;
    tiny_recipe_read(&r, how);
    assert_ok(trainer_open(&t, &r, mode));
    if (until == r.steps)
        assert_ok(trainer_run(t));
    else {
        do assert_ok(trainer_step(t, &report));
        while (report.step < until - 1);
        raise(SIGINT); /* trainer_run takes one more step, then stops and saves */
        assert_int_equal(trainer_run(t), COE_E_FAILED);
        assert_error_has("--resume");
        assert_error_has("--seed 1");
        assert_false(coe_interrupted());
    }
    trainer_close(t);
    recipe_free(&r);
}

static void assert_same_file(const char *a, const char *b)
{
    size_t n_a, n_b;
    unsigned char *x = slurp(a, &n_a), *y = slurp(b, &n_b);
    assert_int_equal(n_a, n_b);
    assert_memory_equal(x, y, n_a);
    free(x);
    free(y);
}

/* The metadata's seconds differ, so of the state the tensors are compared: what lies behind the header. */
static void assert_same_tensors(const char *a, const char *b)
{
    size_t n_a, n_b;
    unsigned char *x = slurp(a, &n_a), *y = slurp(b, &n_b);
    uint64_t h_a, h_b;
    memcpy(&h_a, x, 8);
    memcpy(&h_b, y, 8);
    assert_int_equal(n_a - h_a, n_b - h_b);
    assert_memory_equal(x + 8 + h_a, y + 8 + h_b, n_a - 8 - h_a);
    free(x);
    free(y);
}

static void a_resumed_run_has_the_bits_of_an_uninterrupted_one(void **state)
{
    (void)state;
    struct recipe whole, parts;
    const struct tiny_recipe one = { .output = "whole", HOW }, two = { .output = "parts", HOW };
    run_until(&one, 6, RESUME_REFUSE);
    run_until(&two, HALF, RESUME_REFUSE);
    run_until(&two, 6, RESUME_YES);
    tiny_recipe_read(&whole, &one);
    tiny_recipe_read(&parts, &two);
    assert_same_tensors(in_run(&whole, "state.safetensors"), in_run(&parts, "state.safetensors"));
    assert_same_file(in_run(&whole, "model/model.safetensors"), in_run(&parts, "model/model.safetensors"));
    assert_same_file(in_run(&whole, "model/config.json"), in_run(&parts, "model/config.json"));
    assert_same_file(in_run(&whole, "model/tokenizer.json"), in_run(&parts, "model/tokenizer.json"));
    recipe_free(&whole);
    recipe_free(&parts);
}

static void opens_with(const struct recipe *r, enum resume_mode mode, coe_status expected, const char *message)
{
    struct trainer *t = NULL;
    const coe_status s = trainer_open(&t, r, mode);
    if (s != expected) fail_msg("status %d, expected %d: %s", (int)s, (int)expected, coe_error());
    if (s) assert_error_has(message);
    trainer_close(t);
}

static void a_saved_run_is_not_overwritten_unasked(void **state)
{
    (void)state;
    struct recipe r;
    const struct tiny_recipe how = { .output = "kept", HOW };
    run_until(&how, HALF, RESUME_REFUSE);
    tiny_recipe_read(&r, &how);
    opens_with(&r, RESUME_REFUSE, COE_E_USAGE, "--resume");
    opens_with(&r, RESUME_YES, COE_OK, NULL);
    opens_with(&r, RESUME_RESTART, COE_OK, NULL);
    recipe_free(&r);
}

static void a_state_of_another_recipe_is_refused(void **state)
{
    (void)state;
    struct recipe r, other;
    const struct tiny_recipe how = { .output = "other", HOW };
    run_until(&how, HALF, RESUME_REFUSE);
    tiny_recipe_read(&r, &how);
    r.seed = 2;
    opens_with(&r, RESUME_YES, COE_E_USAGE, "different recipe");
    r.seed = 1, r.steps = 7;
    opens_with(&r, RESUME_YES, COE_E_USAGE, "different recipe");
    recipe_free(&r);
    tiny_recipe_read(&other, &(struct tiny_recipe){ .output = "other", .train = "  dropout: 0.2\n" });
    opens_with(&other, RESUME_YES, COE_E_USAGE, "different recipe");
    recipe_free(&other);
    /* how often it reports may change */
    tiny_recipe_read(&other, &(struct tiny_recipe){ .output = "other",
                                                    .coe = "selection_bias: true, bias_update: 0.01,",
                                                    .train = "  dropout: 0.1\n  dtype: bf16\n  eval_tokens: 5\n" });
    opens_with(&other, RESUME_YES, COE_OK, NULL);
    recipe_free(&other);
}

static void a_state_of_other_text_is_refused(void **state)
{
    (void)state;
    struct recipe r;
    char path[1100];
    const struct tiny_recipe how = { .output = "text", HOW };
    run_until(&how, HALF, RESUME_REFUSE);
    tiny_recipe_read(&r, &how);
    snprintf(path, sizeof path, "%s", tiny_text_a());
    r.train[0].path = tiny_text_b();
    opens_with(&r, RESUME_YES, COE_E_USAGE, "other training text");
    recipe_free(&r);
}

/* Cut short at many lengths, and with one bit of any byte turned: refused with the file's name, never believed. Bits of
 * the header may turn a name of the metadata into another; then something is missing. */
static void a_damaged_state_is_refused(void **state)
{
    (void)state;
    struct recipe r;
    char path[1200];
    size_t n;
    const struct tiny_recipe how = { .output = "damaged", HOW };
    run_until(&how, HALF, RESUME_REFUSE);
    tiny_recipe_read(&r, &how);
    snprintf(path, sizeof path, "%s", in_run(&r, "state.safetensors"));
    unsigned char *bytes = slurp(path, &n);
    const size_t cuts[] = { 0, 7, 8, 100, n / 2, n - 1 };
    for (size_t i = 0; i < COE_COUNT(cuts); i++) {
        spill(path, bytes, cuts[i]);
        opens_with(&r, RESUME_YES, COE_E_INPUT, "state.safetensors");
    }
    const size_t flips[] = { 3, 8, n / 2, n - 1 };
    for (size_t i = 0; i < COE_COUNT(flips); i++) {
        bytes[flips[i]] ^= 0x10;
        spill(path, bytes, n);
        opens_with(&r, RESUME_YES, COE_E_INPUT, "state.safetensors");
        bytes[flips[i]] ^= 0x10;
    }
    spill(path, bytes, n);
    opens_with(&r, RESUME_YES, COE_OK, NULL);
    free(bytes);
    recipe_free(&r);
}

static coe_status save_on_full_disk(void *user)
{
    const struct recipe *r = user;
    struct trainer *t = NULL;
    coe_status s = trainer_open(&t, r, RESUME_YES);
    if (!s) s = trainer_run(t);
    return s == COE_E_FAILED ? COE_OK : COE_E_INPUT;
}

static void a_full_disk_leaves_the_old_state(void **state)
{
    (void)state;
    struct recipe r;
    size_t n_before, n_after;
    const struct tiny_recipe how = { .output = "full", HOW };
    run_until(&how, HALF, RESUME_REFUSE);
    tiny_recipe_read(&r, &how);
    unsigned char *before = slurp(in_run(&r, "state.safetensors"), &n_before);
    assert_int_equal(on_full_disk(20000, save_on_full_disk, &r), COE_OK);
    unsigned char *after = slurp(in_run(&r, "state.safetensors"), &n_after);
    assert_int_equal(n_before, n_after);
    assert_memory_equal(before, after, n_before);
    opens_with(&r, RESUME_YES, COE_OK, NULL);
    free(before);
    free(after);
    recipe_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_resumed_run_has_the_bits_of_an_uninterrupted_one),
        cmocka_unit_test(a_saved_run_is_not_overwritten_unasked),
        cmocka_unit_test(a_state_of_another_recipe_is_refused),
        cmocka_unit_test(a_state_of_other_text_is_refused),
        cmocka_unit_test(a_damaged_state_is_refused),
        cmocka_unit_test(a_full_disk_leaves_the_old_state),
    };
    coe_set_threads(1);
    coe_interrupt_install();
    return cmocka_run_group_tests_name("train/state", tests, NULL, NULL);
}
