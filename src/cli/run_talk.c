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

static const char help_text[] =
    "  a line of text   a message, or text to go on from; \\ at its end: another line follows\n"
    "  /reset           forget everything said\n"
    "  /system TEXT     begin anew with a system message (a model with a chat template)\n"
    "  /experts         which experts worked since the start or the last /reset\n"
    "  /context         how full the context is\n"
    "  /quit            leave (or Ctrl-D)\n"
    "Ctrl-C empties the line, or stops an answer.\n";

static coe_status forget(struct talk *t)
{
    expert_view_reset(&t->view);
    t->g.pending = -1;
    t->g.history.n = 0;
    if (t->chat) chat_reset(t->chat);
    return coe_session_rewind(t->s, 0);
}

static coe_status command(struct talk *t, const char *line, bool *leave)
{
    if (!strcmp(line, "/quit") || !strcmp(line, "/exit")) {
        *leave = true;
        return COE_OK;
    }
    if (!strcmp(line, "/reset")) return forget(t);
    if (!strncmp(line, "/system", 7) && (!line[7] || line[7] == ' ')) {
        if (!t->chat) printf("the model has no chat template: there is no system message\n");
        else COE_TRY(chat_set_system(t->chat, line[7] ? line + 8 : ""));
        return t->chat ? forget(t) : COE_OK;
    }
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
    if (!s && t->chat) s = chat_turn(t->chat, t, line);
    else if (!s) s = talk_answer(t, text.n ? text.at : "", text.n);
    str_free(&text);
    if (s == COE_E_USAGE || (t->chat && s == COE_E_INPUT)) {
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

/* A line, and those behind it while each ends with a backslash. false at the end. */
static bool read_message(struct str *text)
{
    str_clear(text);
    for (bool more = true; more;) {
        char *line = readline(text->n ? ". " : "> ");
        if (!line && !coe_interrupted()) return false;
        coe_interrupt_clear(); /* of a Ctrl-C before the keys were bound: the line is asked for again */
        if (!line) continue;
        const size_t n = strlen(line);
        more = n && line[n - 1] == '\\';
        str_add(text, line, n - more);
        if (more) str_addc(text, '\n');
        free(line); /* libedit allocates it */
    }
    return true;
}

/* While a line is typed Ctrl-C is a key that empties it, not a signal: a signal could fall between two reads and be
 * lost. */
static void bind_keys(void)
{
    rl_initialize();
    rl_parse_and_bind((char[]){ "setty -d -isig" });
    rl_parse_and_bind((char[]){ "bind ^C em-kill-line" });
}

coe_status talk_loop(struct talk *t)
{
    char *path = history_path();
    struct str line = { 0 };
    bool leave = false;
    coe_status s = COE_OK;
    using_history();
    stifle_history(HISTORY_LINES);
    if (path) read_history(path);
    bind_keys();
    log_note(t->chat ? "%s: type a message and Enter; /help lists the commands"
                     : "%s: type a text and Enter; /help lists the commands",
             t->m->path);
    while (!s && !leave && read_message(&line)) {
        s = str_check(&line);
        if (!s) s = take_line(t, line.n ? line.at : "", &leave);
    }
    if (path) write_history(path);
    mem_free(path);
    str_free(&line);
    return s;
}
