/* run.h — what the two halves of `coe run` share: run.c (options, one prompt) and run_talk.c (the conversation at a
 * terminal). */
#ifndef COE_CLI_RUN_H
#define COE_CLI_RUN_H

#include "cli/expert_view.h"

enum stop_reason { STOP_END, STOP_LENGTH, STOP_CONTEXT, STOP_INTERRUPTED };

struct talk {
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
/* What was asked for with --show-experts and --show-tokens. */
coe_status talk_show(const struct talk *t);
/* Reads lines from the terminal and answers them, until its end or /quit. */
coe_status talk_loop(struct talk *t);

#endif
