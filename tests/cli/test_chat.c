/* A conversation through a chat template: what the session has been fed is the rendered conversation, whatever came in
 * between; a template that refuses leaves the conversation as it was. */
#include <stdio.h>
#include <string.h>

#include "cli/run.h"
#include "support/support.h"
#include "support/tiny_model.h"

static const char template[] = "{% if messages[0].content == 'bad' %}{{ raise_exception('no such talk') }}{% endif %}"
                               "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>";

static struct talk talk;

static void start(void)
{
    const char *model = tiny_model("model", NULL);
    char path[1200];
    snprintf(path, sizeof path, "%.1000s/chat_template.jinja", model);
    spill(path, template, strlen(template));
    talk = (struct talk){ .quiet = true, .max_new = 5, .g.pending = -1 };
    assert_ok(model_open(&talk.m, model));
    assert_ok(coe_session_open(&talk.s, talk.m, NULL));
    assert_ok(generator_open(&talk.g, talk.s, &(coe_sampling){ .temperature = 0 }));
    assert_ok(chat_open(&talk.chat, model));
    assert_non_null(talk.chat);
}

static void stop(void)
{
    chat_close(talk.chat);
    generator_close(&talk.g);
    coe_session_close(talk.s);
    model_close(talk.m);
    str_free(&talk.text);
}

/* The tokens fed begin with those of the text. */
static void expect_fed(const char *text)
{
    struct ids want = { 0 };
    assert_ok(tokenizer_encode(talk.m->tokenizer, &want, text, strlen(text), false));
    assert_true((size_t)talk.s->position >= want.n);
    for (size_t i = 0; i < want.n; i++) assert_int_equal(talk.g.history.at[i], want.at[i]);
    VEC_FREE(&want);
}

static void turns_add_up_to_the_rendered_conversation(void **state)
{
    (void)state;
    struct str said = { 0 };
    start();
    assert_ok(chat_turn(talk.chat, &talk, "hi"));
    expect_fed("<user>hi\n<assistant>");
    str_addz(&said, "<user>hi\n<assistant>");
    utf8_lossy(&said, talk.text.at ? talk.text.at : "", talk.text.n);
    str_addz(&said, "\n<user>so\n<assistant>");
    assert_ok(chat_turn(talk.chat, &talk, "so"));
    expect_fed(said.at);
    str_free(&said);
    stop();
}

static void a_system_message_outlives_a_reset(void **state)
{
    (void)state;
    start();
    assert_ok(chat_set_system(talk.chat, "be kind"));
    assert_ok(chat_turn(talk.chat, &talk, "hi"));
    chat_reset(talk.chat);
    assert_ok(chat_turn(talk.chat, &talk, "ho"));
    expect_fed("<system>be kind\n<user>ho\n<assistant>");
    stop();
}

static void a_refused_message_is_forgotten(void **state)
{
    (void)state;
    start();
    assert_int_equal(chat_turn(talk.chat, &talk, "bad"), COE_E_INPUT);
    assert_error_has("line 1 column");
    assert_error_has("no such talk");
    assert_ok(chat_turn(talk.chat, &talk, "good"));
    expect_fed("<user>good\n<assistant>");
    stop();
}

static void a_model_without_a_template_does_not_chat(void **state)
{
    (void)state;
    struct chat *c;
    assert_ok(chat_open(&c, tiny_model("plain", NULL)));
    assert_null(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(turns_add_up_to_the_rendered_conversation),
        cmocka_unit_test(a_system_message_outlives_a_reset),
        cmocka_unit_test(a_refused_message_is_forgotten),
        cmocka_unit_test(a_model_without_a_template_does_not_chat),
    };
    return cmocka_run_group_tests_name("cli/chat", tests, NULL, NULL);
}
