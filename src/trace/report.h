/* report.h — what a trace says about a model's experts: load, the strongest experts, domains, experts that work
 * together. Definitions: methods card LOOK (composition.md part C). */
#ifndef COE_REPORT_H
#define COE_REPORT_H

#include "trace/trace.h"

/* One layer and iteration, all domains. */
struct report_row {
    int32_t l, layer, iteration, n_experts; /* l: index in the trace, layer: in the model */
    uint64_t tokens;
    double *share; /* [n_experts] of the tokens */
    struct load_stats load;
    double effective; /* exp of the entropy of the load: how many experts of equal load would be as varied */
    double balance;   /* E Σ f P: 1 when load or probability is uniform */
};

/* One expert of one layer, over iterations and domains. */
struct report_expert {
    int32_t layer, expert;
    uint64_t count;
    double output_share; /* of the layer's Σ g‖E(x)‖ */
    double mean_norm;    /* ‖E(x)‖ when chosen */
    float max_abs;
};

/* An expert that works more often in one domain than in the mean of all: lift = (count/tokens there) / (mean over
 * domains of count/tokens). */
struct report_special {
    int32_t domain, layer, expert;
    double lift, share; /* share of the domain's tokens */
};

/* Two experts chosen by the same token: in one iteration, or `b` in the iteration after `a`. */
struct report_pair {
    int32_t layer, iteration, a, b;
    bool chain;
    uint64_t count;
    double lift; /* times as often as if the two were independent */
};

struct report {
    struct arena arena;
    struct report_row *row;
    int32_t n_rows;
    struct report_expert *top;      /* by output_share, at most `limit` */
    struct report_special *special; /* at most `limit` for each domain, empty with one domain */
    struct report_pair *pair;       /* by lift, at most `limit` of each kind */
    int32_t n_top, n_special, n_pair;
};

/* limit: how many experts and pairs to list. */
coe_status report_make(struct report *r, const struct trace *t, int32_t limit);
void report_free(struct report *r);
/* Everything in it and the trace's header; a new reference. */
json_t *report_json(const struct report *r, const struct trace *t);

#endif
