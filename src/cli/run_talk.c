/* run_talk.c — the conversation at a terminal: line editing with history, commands that begin with a slash. */
#include <editline/readline.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "cli/run.h"

#define HISTORY_LINES 1000

/* $XDG_STATE_HOME/coe/history, else ~/.local/state/coe/history; NULL when there is no home. mem_free it. */
static char *history_path(void)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    struct str path = { 0 };
    if (state && *state) str_addf(&path, "%s/coe", state);
    else if (home && *home) str_addf(&path, "%s/.local/state/coe", home);
    if (path.n && !path.oom && !dir_make(path.at)) str_addz(&path, "/history");
    else str_free(&path);
    return path.at;
}

static const char help_text[] = "  a line of text   goes on where the last answer ended\n"
                                "  /reset           forget everything said\n"
                                "  /experts         which experts worked since the start or the last /reset\n"
                                "  /context         how full the context is\n"
                                "  /quit            leave (or Ctrl-D)\n"
                                "Ctrl-C stops an answer, a second one the program.\n";

static coe_status forget(struct talk *t)
{
    expert_view_reset(&t->view);
    t->g.pending = -1;
    t->g.history.n = 0;
    return coe_session_rewind(t->s, 0);
}

static coe_status command(struct talk *t, const char *line, bool *leave)
{
    if (!strcmp(line, "/quit") || !strcmp(line, "/exit")) {
        *leave = true;
        return COE_OK;
    }
    if (!strcmp(line, "/reset")) return forget(t);
    if (!strcmp(line, "/experts")) return expert_view_draw(&t->view, stdout);
    if (!strcmp(line, "/context"))
        printf("%lld of %lld tokens\n", (long long)t->s->position, (long long)t->s->capacity);
    else if (!strcmp(line, "/help")) fputs(help_text, stdout);
    else printf("there is no %s; /help lists the commands\n", line);
    return COE_OK;
}

/* One line of the user's. A full context or a wrong token is said and ends nothing. */
static coe_status answer_line(struct talk *t, const char *line)
{
    struct str text = { 0 };
    if (t->s->position > 0) str_addc(&text, '\n');
    str_addz(&text, line);
    coe_status s = str_check(&text);
    if (!s) s = talk_answer(t, text.n ? text.at : "", text.n);
    str_free(&text);
    if (s == COE_E_USAGE) {
        log_note("%s (/reset starts anew)", coe_error());
        return COE_OK;
    }
    if (!s && t->stop == STOP_CONTEXT) log_note("the context is full; /reset starts anew");
    return s ? s : talk_show(t);
}

static coe_status take_line(struct talk *t, const char *line, bool *leave)
{
    if (*line) add_history(line);
    if (*line == '/') return command(t, line, leave);
    return *line || !t->s->position ? answer_line(t, line) : COE_OK;
}

coe_status talk_loop(struct talk *t)
{
    char *path = history_path(), *line;
    bool leave = false;
    coe_status s = COE_OK;
    using_history();
    stifle_history(HISTORY_LINES);
    if (path) read_history(path);
    log_note("%s: type a text and Enter; /help lists the commands", t->m->path);
    while (!s && !leave) {
        line = readline("> ");
        if (!line && !coe_interrupted()) break;
        if (line) s = take_line(t, line, &leave);
        else putchar('\n'); /* Ctrl-C only ends the line that was being typed */
        coe_interrupt_clear();
        free(line); /* libedit allocates it */
    }
    if (path) write_history(path);
    mem_free(path);
    return s;
}
