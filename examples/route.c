/* route.c — shows which experts each token of a text visits: one table for each layer and each pass of its chain.
 *
 *     route MODEL "The king laughed."
 *
 *     layer 0, pass 0, 16 experts
 *       The          3 61%   9 39%
 *        king       12 55%   3 45% */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coe.h"

struct prompt {
    const coe_model *model;
    const int32_t *ids;
    int32_t layer, pass; /* of the table being printed */
};

static void print_token(const struct prompt *p, int64_t position)
{
    char *text = NULL, shown[16];
    if (coe_detokenize(p->model, &p->ids[position], 1, &text, NULL)) return;
    size_t n = 0;
    for (; text[n] && n < sizeof shown - 1; n++) /* one line a token, whatever bytes it is made of */
        shown[n] = text[n] >= ' ' && text[n] <= '~' ? text[n] : '.';
    shown[n] = 0;
    printf("  %-16s", shown);
    free(text);
}

/* Called for every token, in order, of layer 0 pass 0, then of layer 0 pass 1, and so on. */
static void on_route(void *user, const coe_route_event *e)
{
    struct prompt *p = user;
    if (e->layer != p->layer || e->iteration != p->pass)
        printf("layer %d, pass %d, %d experts\n", e->layer, e->iteration, e->n_experts);
    p->layer = e->layer;
    p->pass = e->iteration;
    print_token(p, e->position);
    for (int32_t i = 0; i < e->n; i++) printf("%4d %3.0f%%", e->expert[i], 100 * (double)e->weight[i]);
    putchar('\n');
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s MODEL TEXT\n", argv[0]);
        return COE_E_USAGE;
    }
    struct prompt prompt = { .layer = -1 };
    coe_model *model = NULL;
    coe_session *session = NULL;
    int32_t *ids = NULL;
    size_t n = 0;

    coe_status s = coe_model_open(&model, argv[1], NULL);
    if (!s) s = coe_tokenize(model, argv[2], strlen(argv[2]), 1, &ids, &n);
    prompt.model = model;
    prompt.ids = ids;
    if (!s) s = coe_session_open(&session, model, &(coe_session_opts){ .on_route = on_route, .user = &prompt });
    if (!s) s = coe_session_eval(session, ids, n, NULL, 1);
    if (s) fprintf(stderr, "%s: %s\n", argv[0], coe_error());

    free(ids);
    coe_session_close(session);
    coe_model_close(model);
    return s;
}
