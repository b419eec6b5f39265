/* generate.c — continues a text with a model.
 *
 *     generate MODEL "Once upon a time" [max tokens] [temperature] [top-p] [seed]
 *
 * Build: cc -Iinclude examples/generate.c -lcoe … (the Makefile has the list of libraries). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coe.h"

/* Pieces arrive as they are made, always whole characters. */
static int print_piece(void *user, const char *bytes, size_t n)
{
    fwrite(bytes, 1, n, user);
    fflush(user);
    return 0; /* go on */
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: %s MODEL PROMPT [max tokens] [temperature] [top-p] [seed]\n", argv[0]);
        return COE_E_USAGE;
    }
    const int32_t max_new = argc > 3 ? (int32_t)strtol(argv[3], NULL, 10) : 100;
    const coe_sampling how = {
        .temperature = argc > 4 ? strtof(argv[4], NULL) : 0.8f,
        .top_p = argc > 5 ? strtof(argv[5], NULL) : 0.95f,
        .seed = argc > 6 ? strtoull(argv[6], NULL, 10) : 0,
    };
    coe_model *model = NULL;
    coe_session *session = NULL;
    int32_t *ids = NULL;
    size_t n = 0;

    coe_status s = coe_model_open(&model, argv[1], NULL);
    if (!s) s = coe_session_open(&session, model, NULL);
    if (!s) s = coe_tokenize(model, argv[2], strlen(argv[2]), 1, &ids, &n);
    if (!s) {
        fputs(argv[2], stdout);
        s = coe_generate(session, ids, n, max_new, &how, print_piece, stdout, NULL);
        putchar('\n');
    }
    if (s) fprintf(stderr, "%s: %s\n", argv[0], coe_error());

    free(ids);
    coe_session_close(session);
    coe_model_close(model);
    return s;
}
