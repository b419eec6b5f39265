/* run.h — what the parts of `coe run` share: run.c (options, one prompt), run_talk.c (lines and commands at a terminal)
 * and run_chat.c (a conversation through the model's chat template). */
#ifndef COE_CLI_RUN_H
#define COE_CLI_RUN_H

#include "cli/expert_view.h"

enum stop_reason { STOP_END, STOP_LENGTH, STOP_CONTEXT, STOP_INTERRUPTED };

struct chat;
struct talk {
    struct chat *chat; /* NULL: the model has no chat template, and lines are text to go on from */
    struct coe_model *m;
    struct coe_session *s;
    struct generator g;
    struct expert_view view;
    bool show_experts, show_tokens, quiet; /* quiet: nothing is written while generating */
    int32_t max_new;
    /* of the last answer */
    struct str text;
    size_t n_prompt;
    int32_t n_new;
    enum stop_reason stop;
    double prompt_seconds, seconds;
};

/* Feeds the text [n] and writes what the model goes on with to stdout, piece by piece. COE_E_USAGE when the context has
 * no room for it; the session is then as it was. */
coe_status talk_answer(struct talk *t, const char *text, size_t n);
/* The same from token ids [n]. */
coe_status talk_go_on(struct talk *t, const int32_t *ids, size_t n);
/* What was asked for with --show-experts and --show-tokens. */
coe_status talk_show(const struct talk *t);
/* Reads lines from the terminal and answers them, until its end or /quit. */
coe_status talk_loop(struct talk *t);

/* *out = NULL when the model has no chat template. */
coe_status chat_open(struct chat **out, const char *model_path);
void chat_close(struct chat *c);
/* Starts anew; the system message stays. */
void chat_reset(struct chat *c);
/* Sets the system message ("" takes it away) and starts anew. */
coe_status chat_set_system(struct chat *c, const char *text);
/* One turn: the user's message through the template, then the model's answer, written as it comes. An answer that was
 * stopped stays in the conversation as far as it came. COE_E_INPUT when the template refuses the conversation,
 * COE_E_USAGE when the context has no room; the message is then forgotten. */
coe_status chat_turn(struct chat *c, struct talk *t, const char *message);

#endif
