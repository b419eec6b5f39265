/* Identity for every family of the fixtures: a sequence gives the same bits in one piece, token by token, in odd
 * pieces, after a rewind, beside another sequence, with two threads and at every instruction-set level. The weights are
 * those of fixtures/families; their expected values are the golden tests' business. */
#include "support/arrays.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "model/model.h"

#define TOKENS 37 /* longer than every window and chunk of the fixtures */

static coe_mla mla;             /* the form of latent attention under test */
static coe_kv kv;               /* the type of cache under test */
static struct coe_model *model; /* closed by the next folder when a check fails */
static struct coe_session *sessions[2];

static void close_all(void)
{
    for (int i = 0; i < 2; i++) {
        if (sessions[i]) coe_session_close(sessions[i]);
        sessions[i] = NULL;
    }
    if (model) model_close(model);
    model = NULL;
}

static struct coe_session *open_session(int i)
{
    if (sessions[i]) coe_session_close(sessions[i]);
    sessions[i] = NULL;
    assert_ok(
        coe_session_open(&sessions[i], model, &(coe_session_opts){ .max_tokens = TOKENS + 3, .mla = mla, .kv = kv }));
    return sessions[i];
}

static int32_t *some_ids(uint64_t seed)
{
    int32_t *ids = test_alloc(TOKENS * sizeof *ids);
    struct rng r = rng_make(seed, rng_stream(RNG_TEST, 5));
    for (int i = 0; i < TOKENS; i++) ids[i] = (int32_t)rng_below(&r, (uint64_t)model->spec.vocab);
    return ids;
}

static float *logits_buffer(void) { return test_alloc((size_t)TOKENS * (size_t)model->spec.vocab * sizeof(float)); }

static const float *in_pieces(const int32_t *ids, const size_t *piece, size_t n_pieces)
{
    struct coe_session *s = open_session(0);
    float *y = logits_buffer();
    for (size_t done = 0, i = 0; done < TOKENS; i++) {
        const size_t take = COE_MIN(TOKENS - done, piece[i % n_pieces]);
        assert_ok(coe_session_eval(s, ids + done, take, y + done * (size_t)model->spec.vocab, 0));
        done += take;
    }
    return y;
}

static const float *whole(const int32_t *ids) { return in_pieces(ids, (size_t[]){ TOKENS }, 1); }

static void assert_same(const char *family, const char *what, const float *got, const float *want, int64_t rows)
{
    char text[160];
    snprintf(text, sizeof text, "%s, kv %s, %s", family, model_kv_name(kv), what);
    assert_same_bits(text, got, want, rows * model->spec.vocab);
}

/* In both forms of latent attention, where there are two */
static void each_form(void (*check)(const char *family, const int32_t *ids, const float *want), const char *family,
                      const int32_t *ids)
{
    mla = COE_MLA_ABSORBED;
    check(family, ids, whole(ids));
    if (!model_mla_name(model, COE_MLA_EXPANDED)) return;
    mla = COE_MLA_EXPANDED;
    check(family, ids, whole(ids));
    mla = COE_MLA_ABSORBED;
}

/* Runs `check` on every family's folder that opens, with caches of types up to `last`. */
static void each_family(void (*check)(const char *family, const int32_t *ids, const float *want), coe_kv last)
{
    struct file_list names = { 0 };
    need_fixture("families");
    assert_ok(dir_list(&names, fixture("families")));
    for (size_t i = 0; i < names.n; i++) {
        char config[300], path[300];
        snprintf(path, sizeof path, "families/%.200s", names.name[i]);
        snprintf(config, sizeof config, "%.220s/config.json", path);
        if (!fixture_exists(config)) continue;
        const struct arena_mark mark = arena_save(test_arena());
        close_all();
        if (model_open(&model, fixture(path))) continue; /* the golden test says why */
        const int32_t *ids = some_ids(i);
        for (kv = COE_KV_F32; kv <= last; kv++) each_form(check, names.name[i], ids);
        kv = COE_KV_F32;
        close_all();
        arena_rewind(test_arena(), mark);
    }
    file_list_free(&names);
}

static void check_forms(const char *family, const int32_t *ids, const float *want)
{
    struct coe_session *s[2];
    const float *y;
    if (mla == COE_MLA_ABSORBED) return; /* once, for models that have both forms */
    mla = COE_MLA_ABSORBED;
    y = whole(ids);
    double most = 0;
    for (int64_t i = 0; i < TOKENS * (int64_t)model->spec.vocab; i++)
        most = fmax(most, fabs((double)y[i] - (double)want[i]));
    if (!(most > 0 && most < 1e-3)) fail_msg("%s: the forms differ by %g, expected rounding", family, most);
    s[0] = open_session(0);
    mla = COE_MLA_EXPANDED;
    s[1] = open_session(1);
    const size_t n[] = { 2, 2 };
    assert_int_equal(session_eval_batch(s, (const int32_t *[]){ ids, ids }, n, 2, NULL, true), COE_E_USAGE);
}

static void forms_of_latent_attention_differ_by_rounding_and_share_no_batch(void **state)
{
    (void)state;
    each_family(check_forms, COE_KV_F32);
}

static void check_pieces(const char *family, const int32_t *ids, const float *want)
{
    assert_same(family, "token by token", in_pieces(ids, (size_t[]){ 1 }, 1), want, TOKENS);
    assert_same(family, "in odd pieces", in_pieces(ids, (size_t[]){ 5, 1, 13, 2 }, 4), want, TOKENS);
}

static void any_split_of_a_prompt_agrees(void **state)
{
    (void)state;
    each_family(check_pieces, COE_KV_Q8_0);
}

static void check_rewind(const char *family, const int32_t *ids, const float *want)
{
    struct coe_session *s = open_session(0);
    float *y = logits_buffer();
    const int32_t *other = some_ids(999);
    assert_ok(coe_session_eval(s, ids, 20, NULL, 1));
    assert_ok(coe_session_eval(s, other, 9, NULL, 1));
    assert_ok(coe_session_rewind(s, 17));
    assert_ok(coe_session_eval(s, ids + 17, TOKENS - 17, y, 0));
    assert_same(family, "after a rewind", y, want + 17 * (int64_t)model->spec.vocab, TOKENS - 17);
}

static void a_rewind_leaves_no_trace(void **state)
{
    (void)state;
    each_family(check_rewind, COE_KV_F32);
}

static void check_batch(const char *family, const int32_t *ids, const float *want)
{
    const int32_t *other = some_ids(998);
    struct coe_session *s[] = { open_session(0), open_session(1) };
    float *y[] = { logits_buffer(), logits_buffer() };
    const size_t first[] = { 11, 23 }, then[] = { TOKENS - 11, 5 };
    float *late[] = { y[0] + 11 * (int64_t)model->spec.vocab, y[1] + 23 * (int64_t)model->spec.vocab };
    assert_ok(session_eval_batch(s, (const int32_t *[]){ ids, other }, first, 2, y, false));
    assert_ok(session_eval_batch(s, (const int32_t *[]){ ids + 11, other + 23 }, then, 2, late, false));
    assert_same(family, "beside another sequence", y[0], want, TOKENS);
    assert_same(family, "the other sequence", y[1], whole(other), 28);
}

static void a_sequence_alone_equals_itself_in_a_batch(void **state)
{
    (void)state;
    each_family(check_batch, COE_KV_F16);
}

static void check_levels(const char *family, const int32_t *ids, const float *want)
{
    const struct kernels *best = kern;
    for (const struct kernels *const *k = kernels_all(); *k; k++) {
        kern = *k;
        const float *got = whole(ids);
        kern = best;
        assert_same(family, (*k)->name, got, want, TOKENS);
    }
    coe_set_threads(2);
    const float *got = whole(ids);
    coe_set_threads(1);
    assert_same(family, "two threads", got, want, TOKENS);
}

static void threads_and_instruction_sets_agree(void **state)
{
    (void)state;
    each_family(check_levels, COE_KV_F32);
}

/* What the cache rounds is seen in the logits, and little: F16 keeps 11 bits, Q8_0 8. Routing may turn on a rounded
 * score, so that single logits can move more; the mean is what rounding does. */
static void check_rounding(const char *family, const int32_t *ids, const float *want)
{
    static float *exact;
    const int64_t n = TOKENS * (int64_t)model->spec.vocab;
    double off = 0, size = 0;
    if (kv == COE_KV_F32) exact = logits_buffer();
    if (kv == COE_KV_F32) memcpy(exact, want, (size_t)n * sizeof *exact);
    for (int64_t i = 0; i < n; i++) {
        off += fabs((double)want[i] - (double)exact[i]);
        size += fabs((double)exact[i]);
    }
    (void)ids;
    if (kv && !(off > 0 && off < (kv == COE_KV_F16 ? 0.05 : 0.5) * size))
        fail_msg("%s: a cache of %s moves the logits by %g of %g", family, model_kv_name(kv), off, size);
}

static void rounded_caches_move_logits_by_their_rounding(void **state)
{
    (void)state;
    each_family(check_rounding, COE_KV_Q8_0);
}

static void sessions_of_different_caches_share_no_batch(void **state)
{
    (void)state;
    need_fixture("families/mixtral/config.json");
    close_all();
    assert_ok(model_open(&model, fixture("families/mixtral")));
    struct coe_session *s[2] = { open_session(0) };
    kv = COE_KV_F16;
    s[1] = open_session(1);
    const int32_t *ids = some_ids(1);
    const size_t n[] = { 2, 2 };
    assert_int_equal(session_eval_batch(s, (const int32_t *[]){ ids, ids }, n, 2, NULL, true), COE_E_USAGE);
    assert_error_has("f32 and f16");
    kv = (coe_kv)7;
    coe_session *none;
    assert_int_equal(coe_session_open(&none, model, &(coe_session_opts){ .kv = kv }), COE_E_USAGE);
    kv = COE_KV_F32;
}

static int tear_down(void **state)
{
    (void)state;
    close_all();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_split_of_a_prompt_agrees),
        cmocka_unit_test(a_rewind_leaves_no_trace),
        cmocka_unit_test(a_sequence_alone_equals_itself_in_a_batch),
        cmocka_unit_test(threads_and_instruction_sets_agree),
        cmocka_unit_test(rounded_caches_move_logits_by_their_rounding),
        cmocka_unit_test(sessions_of_different_caches_share_no_batch),
        cmocka_unit_test(forms_of_latent_attention_differ_by_rounding_and_share_no_batch),
    };
    coe_set_threads(1);
    return kernels_init() || cmocka_run_group_tests_name("model/family_identity", tests, NULL, tear_down);
}
