/* agreement.c — see agreement.h. Each batch of windows goes through the first model, whose decisions are kept, and then
 * through the second, whose decisions are counted against them in order of execution. */
#include "plan/agreement.h"

#include <string.h>

#include "base/log.h"
#include "trace/windows.h"

/* The experts of a decision: those of token t at off[t] … off[t+1]-1, by falling weight. */
struct decision {
    int32_t *off, *expert;
};

struct job {
    struct agreement *g;
    const struct coe_model *a, *b;
    const struct measure_opts *o;
    struct arena kept, work; /* decisions of the batch; activations */
    VEC(struct decision) first;
    size_t at; /* the decision that the second model takes next */
    coe_status status;
    struct windows w;
};

static struct agreement_row row_of(const struct route_record *r)
{
    return (struct agreement_row){ .layer = r->layer,
                                   .iteration = r->iteration,
                                   .n_experts = r->route.n_experts,
                                   .of_attention = r->of_attention };
}

static void keep(void *user, const struct route_record *r)
{
    struct job *j = user;
    const size_t n = (size_t)r->route.n_tokens + 1, slots = (size_t)r->route.n_slots;
    struct decision d = { arena_push(&j->kept, n * sizeof *d.off), arena_push(&j->kept, (slots + 1) * sizeof *d.off) };
    if (j->status) return;
    if (!d.off || !d.expert || !VEC_PUSH(&j->first, d) ||
        (j->first.n > j->g->rows.n && !VEC_PUSH(&j->g->rows, row_of(r)))) {
        j->status = COE_E_NOMEM;
        return;
    }
    memcpy(d.off, r->route.tok_off, n * sizeof *d.off);
    memcpy(d.expert, r->route.expert, slots * sizeof *d.expert);
}

static double share(const int32_t *a, int32_t n_a, const int32_t *b, int32_t n_b)
{
    int32_t both = 0;
    for (int32_t i = 0; i < n_a; i++)
        for (int32_t k = 0; k < n_b; k++) both += a[i] == b[k];
    return n_a + n_b ? (double)both / (n_a + n_b - both) : 1;
}

static void count(struct agreement_row *row, const struct decision *d, const struct route *r)
{
    for (int32_t t = 0; t < r->n_tokens; t++) {
        const int32_t n_a = d->off[t + 1] - d->off[t], n_b = r->tok_off[t + 1] - r->tok_off[t];
        const int32_t *a = d->expert + d->off[t], *b = r->expert + r->tok_off[t];
        row->moved += n_a && n_b ? a[0] != b[0] : n_a != n_b;
        row->shared += share(a, n_a, b, n_b);
    }
    row->tokens += r->n_tokens;
}

static void compare(void *user, const struct route_record *r)
{
    struct job *j = user;
    if (j->status) return;
    const struct agreement_row *row = j->at < j->first.n ? &j->g->rows.at[j->at] : NULL;
    if (row && row->layer == r->layer && row->iteration == r->iteration && row->of_attention == r->of_attention &&
        row->n_experts == r->route.n_experts)
        count(&j->g->rows.at[j->at], &j->first.at[j->at], &r->route);
    else
        j->status = coe_fail(COE_E_USAGE,
                             "%s and %s cannot be compared: they do not decide the same number of times, or among as "
                             "many experts (layer %d, pass %d: %d experts)",
                             j->a->path, j->b->path, r->layer, r->iteration, r->route.n_experts);
    j->at++;
}

static coe_status run(struct job *j, const struct coe_model *m, void (*see)(void *, const struct route_record *))
{
    const struct attn_batch batch = windows_batch(&j->w);
    const struct moe_observer observer = { .user = j, .route = see };
    struct forward f = {
        .batch = &batch, .observer = &observer, .no_logits = true, .mla = j->o->mla, .kv_type = j->o->kv
    };
    struct nn c = { .arena = &j->work, .math = j->o->math };
    const struct arena_mark mark = arena_save(&j->work);
    const struct val *h = model_forward(m, &c, j->w.ids, windows_tokens(&j->w), &f);
    arena_rewind(&j->work, mark);
    return h ? j->status : coe_last_status();
}

static coe_status flush(struct job *j)
{
    if (!j->w.n) return COE_OK;
    if (coe_interrupted()) return coe_fail(COE_E_FAILED, "interrupted");
    const struct arena_mark mark = arena_save(&j->kept);
    j->first.n = j->at = 0;
    COE_TRY(run(j, j->a, keep));
    if (!j->first.n) return coe_fail(COE_E_USAGE, "%s: has no experts", j->a->path);
    COE_TRY(run(j, j->b, compare));
    if (j->at != j->first.n)
        return coe_fail(COE_E_USAGE, "%s decides %zu times for a token, %s %zu times", j->a->path, j->first.n,
                        j->b->path, j->at);
    arena_rewind(&j->kept, mark);
    j->w.n = 0;
    return COE_OK;
}

static coe_status add_window(struct job *j, const int32_t *ids, int64_t n)
{
    if (!windows_fit(&j->w, n)) COE_TRY(flush(j));
    windows_add(&j->w, ids, n);
    return COE_OK;
}

coe_status agreement_text(struct agreement *g, const struct coe_model *a, const struct coe_model *b,
                          const struct measured_text *t, const struct measure_opts *o)
{
    const int64_t total = t->off[t->n_docs];
    struct job j = { .g = g, .a = a, .b = b, .o = o };
    coe_status s = windows_make(&j.w, COE_MAX(o->window, (int64_t)WINDOWS_TOKENS));
    struct progress progress = progress_start("comparing", (double)total);
    for (int64_t d = 0; d < t->n_docs; d++)
        for (int64_t i = t->off[d]; i < t->off[d + 1] && !s; i += o->window) {
            const int64_t n = COE_MIN(o->window, t->off[d + 1] - i);
            s = add_window(&j, t->ids + i, n);
            progress_set(&progress, (double)(i + n), "%lld tokens", (long long)(i + n));
        }
    if (!s) s = flush(&j);
    progress_end(&progress);
    VEC_FREE(&j.first);
    windows_free(&j.w);
    arena_free(&j.kept);
    arena_free(&j.work);
    return s;
}

static double mean(const struct agreement *g, bool moved)
{
    double sum = 0, tokens = 0;
    for (size_t i = 0; i < g->rows.n; i++) {
        sum += moved ? (double)g->rows.at[i].moved : g->rows.at[i].shared;
        tokens += (double)g->rows.at[i].tokens;
    }
    return tokens > 0 ? sum / tokens : 0;
}

double agreement_moved(const struct agreement *g) { return mean(g, true); }
double agreement_shared(const struct agreement *g) { return mean(g, false); }

void agreement_free(struct agreement *g)
{
    VEC_FREE(&g->rows);
    *g = (struct agreement){ 0 };
}
