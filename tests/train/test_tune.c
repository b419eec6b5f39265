/* Fine-tuning: what a recipe chooses learns and nothing else changes a bit; adapters learn over a frozen base, resume,
 * and come out as PEFT directories; wrong choices are refused by name. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/adapter.h"
#include "support/arrays.h"
#include "support/tiny_train.h"

#define STEPS 5

/* A model to tune: what six steps made, BF16 */
static const char *base(void)
{
    static char dir[700];
    struct recipe r;
    struct trainer *t = NULL;
    if (*dir) return dir;
    tiny_recipe_read(&r, &(struct tiny_recipe){ .output = "base" });
    assert_ok(trainer_open(&t, &r, RESUME_RESTART));
    assert_ok(trainer_run(t));
    snprintf(dir, sizeof dir, "%s/model", r.output);
    trainer_close(t);
    recipe_free(&r);
    return dir;
}

static char *section(const char *tune)
{
    char *text = test_alloc(strlen(tune) + 80);
    sprintf(text, "  weight_decay: 0\n  schedule: constant\ntune:\n%s\n", tune);
    return text;
}

static struct trainer *open_trainer(struct recipe *r, const char *name, const char *tune, enum resume_mode mode)
{
    struct trainer *t = NULL;
    tiny_recipe_read(r,
                     &(struct tiny_recipe){ .output = name, .init = base(), .train = section(tune), .steps = STEPS });
    assert_ok(trainer_open(&t, r, mode));
    return t;
}

static bool changed(const struct param *p, const struct coe_model *before, size_t i)
{
    const int64_t n = weight_count(&p->w);
    float *now = test_alloc((size_t)n * sizeof *now), *then = test_alloc((size_t)n * sizeof *then);
    widen(now, p->w.data, p->w.type, n);
    widen(then, before->params[i].w.data, before->params[i].w.type, n);
    return memcmp(now, then, (size_t)n * sizeof *now) != 0;
}

typedef bool chosen_fn(struct place p);

static void check_tuning(const char *name, const char *tune, chosen_fn *chosen)
{
    struct recipe r;
    struct coe_model *before;
    struct trainer *t = open_trainer(&r, name, tune, RESUME_RESTART);
    struct step_report report;
    int learned = 0;
    assert_ok(model_open(&before, base()));
    for (int i = 0; i < STEPS; i++) assert_ok(trainer_step(t, &report));
    const struct coe_model *m = trainer_model(t);
    for (size_t i = 0; i < m->n_params; i++) {
        const struct param *p = &m->params[i];
        const bool learns = chosen(p->at);
        if (!learns && (changed(p, before, i) || p->w.grad)) fail_msg("%s: %s is not frozen", name, p->w.name);
        if (!learns && !slot_info[p->at.slot].is_vector) assert_int_equal(p->w.type, DT_BF16); /* as it is stored */
        learned += learns && changed(p, before, i);
    }
    assert_true(learned > 0);
    model_close(before);
    trainer_close(t);
    recipe_free(&r);
}

static bool routers(struct place p) { return slot_info[p.slot].class == CLASS_ROUTER; }
static bool some_experts(struct place p)
{
    return slot_info[p.slot].scope == SCOPE_EXPERT && (p.layer ? p.expert == 1 : p.expert == 0 || p.expert == 3);
}
static bool norms_and_attention(struct place p)
{
    return slot_info[p.slot].class == CLASS_NORM || slot_info[p.slot].class == CLASS_ATTENTION;
}

static void what_is_chosen_learns_and_the_rest_keeps_its_bits(void **state)
{
    (void)state;
    check_tuning("router", "  only: [router]", routers);
    check_tuning("experts", "  experts: [[0, 3], [1]]", some_experts);
    check_tuning("mixed", "  only: [norm, attention]", norms_and_attention);
}

static void an_adapter_learns_over_a_base_that_stays_as_it_is(void **state)
{
    (void)state;
    struct recipe r;
    struct step_report first, last;
    struct trainer *t = open_trainer(&r, "lora", "  lora: { rank: 4, targets: [attention, expert] }", RESUME_RESTART);
    struct coe_model *m = trainer_model(t), *before;
    assert_ok(model_open(&before, base()));
    for (int i = 0; i < 25; i++) assert_ok(trainer_step(t, i ? &last : &first));
    assert_true(last.loss < first.loss - .05);
    for (size_t i = 0; i < m->n_params; i++) {
        assert_null(m->params[i].w.master);
        assert_false(changed(&m->params[i], before, i));
    }
    assert_near("alpha", m->adapter->alpha, 8, 0); /* twice the rank unless given */
    model_close(before);
    trainer_close(t);
    recipe_free(&r);
}

static float *adapter_values(const struct trainer *t, int64_t *n)
{
    const struct adapter *a = trainer_model((struct trainer *)(uintptr_t)t)->adapter;
    *n = 0;
    for (size_t i = 0; i < a->n; i++) *n += weight_count(&a->matrix[i]);
    float *all = test_alloc((size_t)*n * sizeof *all), *to = all;
    for (size_t i = 0; i < a->n; i++) {
        memcpy(to, a->matrix[i].master, (size_t)weight_count(&a->matrix[i]) * sizeof *to);
        to += weight_count(&a->matrix[i]);
    }
    return all;
}

/* Five steps at once, and three, a break, and two more; on one thread and on three. The result opens as an adapter. */
static void a_run_resumes_to_the_same_bits_and_ends_as_a_peft_directory(void **state)
{
    (void)state;
    const char *const tune = "  lora: { rank: 2, alpha: 3, targets: [all] }";
    struct recipe r;
    struct step_report report;
    int64_t n[2];
    struct trainer *t = open_trainer(&r, "whole", tune, RESUME_RESTART);
    assert_ok(trainer_run(t));
    float *whole = adapter_values(t, &n[0]);
    char dir[700];
    snprintf(dir, sizeof dir, "%s/adapter", r.output);
    struct coe_model *m;
    assert_ok(model_open(&m, base()));
    assert_ok(adapter_open(m, dir));
    assert_near("alpha", m->adapter->alpha, 3, 0);
    model_close(m);
    trainer_close(t);
    recipe_free(&r);
    coe_set_threads(3);
    t = open_trainer(&r, "parts", tune, RESUME_RESTART);
    for (int i = 0; i < 2; i++) assert_ok(trainer_step(t, &report));
    coe_interrupt_install();
    raise(SIGINT);
    assert_int_equal(trainer_run(t), COE_E_FAILED); /* one step more, then saved */
    coe_interrupt_clear();
    trainer_close(t);
    recipe_free(&r);
    t = open_trainer(&r, "parts", tune, RESUME_YES);
    assert_ok(trainer_run(t));
    assert_same_bits("adapter", adapter_values(t, &n[1]), whole, n[0]);
    assert_int_equal(n[0], n[1]);
    coe_set_threads(1);
    trainer_close(t);
    recipe_free(&r);
}

static void wrong_choices_are_refused_by_name(void **state)
{
    (void)state;
    const struct {
        const char *tune, *why;
        bool on_opening;
    } cases[] = {
        { "  only: [routers]", "only[0] is no class", false },
        { "  only: router", "expected a list", false },
        { "  nosuch: 1", "nosuch", false },
        { "  {}", "says nothing", false },
        { "  lora: { rank: 0 }", "rank is 0", false },
        { "  lora: { targets: [] }", "names nothing", false },
        { "  lora: { alpha: -1 }", "alpha is -1", false },
        { "  lora: { rank: 2 }\n  only: [router]", "nothing to choose", false },
        { "  experts: [[0]]", "tune.experts[1] is missing", true },
        { "  experts: [[0], [1], [2]]", "has 3 lists, the model 2", true },
        { "  experts: [[0], [4]]", "tune.experts[1][0] is no expert of layer 1 (0 … 3)", true },
        { "  experts: [[], []]", "leaves nothing to learn", true },
        { "  lora: { targets: [nosuch_proj] }", "nosuch_proj", true },
    };
    for (size_t i = 0; i < COE_COUNT(cases); i++) {
        struct recipe r;
        struct trainer *t = NULL;
        const char *text = tiny_recipe_text(
            &(struct tiny_recipe){ .output = "wrong", .init = base(), .train = section(cases[i].tune) });
        coe_status s = recipe_read_text(&r, text, strlen(text), "wrong.yaml");
        if (cases[i].on_opening) {
            assert_ok(s);
            s = trainer_open(&t, &r, RESUME_RESTART);
            recipe_free(&r);
        }
        assert_true(s == COE_E_INPUT || s == COE_E_USAGE);
        assert_error_has(cases[i].why);
    }
    struct recipe r;
    const char *text =
        tiny_recipe_text(&(struct tiny_recipe){ .output = "fresh", .train = section("  only: [router]") });
    assert_int_equal(recipe_read_text(&r, text, strlen(text), "fresh.yaml"), COE_E_INPUT);
    assert_error_has("model.init is missing");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_chosen_learns_and_the_rest_keeps_its_bits),
        cmocka_unit_test(an_adapter_learns_over_a_base_that_stays_as_it_is),
        cmocka_unit_test(a_run_resumes_to_the_same_bits_and_ends_as_a_peft_directory),
        cmocka_unit_test(wrong_choices_are_refused_by_name),
    };
    return kernels_init() || cmocka_run_group_tests_name("train/tune", tests, NULL, NULL);
}
