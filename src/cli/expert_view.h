/* expert_view.h — which experts worked while a session ran: counts and, on request, every token's experts, drawn for
 * people.
 *
 *     struct expert_view v;
 *     COE_TRY(expert_view_open(&v, model, keep_tokens));
 *     … coe_session_open(&s, m, &(coe_session_opts){ .on_route = expert_view_add, .user = &v }); …
 *     expert_view_draw(&v, stdout);
 *     expert_view_close(&v); */
#ifndef COE_EXPERT_VIEW_H
#define COE_EXPERT_VIEW_H

#include <stdio.h>

#include "model/model.h"

/* One token's best experts in one record (MoE layer and iteration). */
struct token_route {
    int64_t position;
    int32_t expert; /* the one with the largest weight, -1 when every one was masked */
};
struct token_routes {
    struct token_route *at;
    size_t n, cap;
};

struct expert_view {
    const struct coe_model *m;
    int32_t n_records;
    int32_t *first;    /* [n_layers] record of the layer's first iteration, -1 for a dense layer */
    uint64_t **counts; /* [n_records][n_experts] */
    uint64_t *tokens;  /* [n_records] */
    bool keep_tokens;
    struct token_routes *token; /* [n_records], with keep_tokens */
    bool oom;
};

coe_status expert_view_open(struct expert_view *v, const struct coe_model *m, bool keep_tokens);
void expert_view_close(struct expert_view *v);
/* A coe_route_fn; `user` is the view. */
void expert_view_add(void *user, const coe_route_event *e);
/* Forgets what was counted. */
void expert_view_reset(struct expert_view *v);
/* One line for each layer and chain iteration: the share of tokens that each expert worked on. */
coe_status expert_view_draw(const struct expert_view *v, FILE *to);
/* One line a token: its strongest expert in every layer and iteration. ids [n] are the tokens from position 0 on. */
coe_status expert_view_tokens(const struct expert_view *v, FILE *to, const int32_t *ids, size_t n);
/* [ {"layer", "iteration", "tokens", "counts": [E]}, … ], a new reference. */
json_t *expert_view_json(const struct expert_view *v);

#endif
