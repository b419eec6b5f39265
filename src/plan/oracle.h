/* oracle.h — what the best choice of experts, token by token, would be worth: every route is tried. */
#ifndef COE_PLAN_ORACLE_H
#define COE_PLAN_ORACLE_H

#include "model/model.h"
#include "plan/measure.h"

/* An expert that is forced has the weight that the router gives the only one left: 1 with softmax scores.
 * A route is one expert for each layer with experts; number r has at layer i digit i of r, the first layer lowest. All
 * sums are nats over the same predicted tokens. */
struct oracle {
    int32_t n_layers, *layer; /* layers with experts, and which they are */
    int64_t n_routes, tokens;
    double *by_route;         /* [n_routes] of that route for all tokens */
    double *by_budget;        /* [n_layers + 1] of each token's best route with exactly so many of the widest experts;
                                 inf where there is no such route */
    double own, best;         /* of the model's own routing; of each token's best route */
    double control, control_mean; /* of the best route for a label drawn from the text, and of the mean route for it */
};
/* Most routes that are tried. */
#define ORACLE_ROUTES 4096
/* COE_E_USAGE for a model with more routes, or whose layers choose several experts. Owned by the caller. */
coe_status oracle_open(struct oracle *o, const struct coe_model *m);
/* Adds the tokens of a text. Attention sees the tokens before as the model's own routing left them (teacher forcing), a
 * document up to the model's context. Masks of m are set aside meanwhile. COE_E_FAILED when interrupted. */
coe_status oracle_text(struct oracle *o, struct coe_model *m, const struct measured_text *t);
/* Digit of a layer in a route; how many layers of it use their widest expert. */
int32_t oracle_choice(const struct oracle *o, const struct coe_model *m, int64_t route, int32_t i);
int32_t oracle_big(const struct oracle *o, const struct coe_model *m, int64_t route);
void oracle_free(struct oracle *o);

#endif
