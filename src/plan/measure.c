/* measure.c — windows of text through the model, once for each variant; logits row by row, so that memory stays bounded
 * whatever the vocabulary. Sums run over tokens in their order. */
#include "plan/measure.h"

#include <math.h>
#include <string.h>

#include "base/log.h"
#include "text/textin.h"
#include "trace/windows.h"

#define LOGIT_FLOATS ((int64_t)1 << 22) /* of one variant held at once */

/* ---- text ---- */

/* The token in front of every document, or -1. */
static coe_status first_token(int32_t *out, const char **name, const struct tokenizer *t)
{
    struct ids ids = { 0 };
    coe_status s = tokenizer_encode(t, &ids, "", 0, true);
    const int32_t bos = tokenizer_bos(t), end = tokenizer_token_id(t, "<|endoftext|>");
    const bool adds = !s && bos >= 0 && ids.n && ids.at[0] == bos;
    *out = adds ? bos : end;
    *name = adds ? "bos" : end >= 0 ? "endoftext" : "first token";
    VEC_FREE(&ids);
    return s;
}

struct offsets {
    int64_t *at;
    size_t n, cap;
};

static coe_status text_bytes(uint64_t *bytes, const struct tokenizer *t, const int32_t *ids, size_t n)
{
    struct str text = { 0 };
    coe_status s = tokenizer_decode(t, &text, ids, n, false);
    *bytes += text.n;
    str_free(&text);
    return s;
}

static coe_status add_document(struct measured_text *out, struct ids *ids, struct offsets *off,
                               const struct tokenizer *t, int32_t first, const char *text, size_t n, int64_t *left)
{
    if (first >= 0 && !VEC_PUSH(ids, first)) return COE_E_NOMEM;
    const size_t from = ids->n;
    const int64_t max = *left < 0 ? -1 : *left + (first < 0);
    COE_TRY(encode_prefix(t, ids, text, n, false, max));
    const size_t skip = first < 0 && ids->n > from, predicted = ids->n - from - skip;
    if (max >= 0 && (int64_t)(ids->n - from) == max) {
        COE_TRY(text_bytes(&out->bytes, t, ids->at + from + skip, predicted)); /* cut: only what was kept */
    } else {
        uint64_t unseen = 0;
        if (skip) COE_TRY(text_bytes(&unseen, t, ids->at + from, 1));
        out->bytes += n - COE_MIN(unseen, n);
    }
    if (*left >= 0) *left -= (int64_t)predicted;
    return VEC_PUSH(off, (int64_t)ids->n) ? COE_OK : COE_E_NOMEM;
}

coe_status measured_text_read(struct measured_text *out, const struct coe_model *m, const char *path,
                              int64_t max_tokens)
{
    const struct text_docs_opts whole = { .separator = "" };
    struct text_docs *docs = NULL;
    struct ids ids = { 0 };
    struct offsets off = { 0 };
    int32_t first;
    int64_t left = max_tokens > 0 ? max_tokens : -1;
    *out = (struct measured_text){ .path = path };
    coe_status s = first_token(&first, &out->begins, m->tokenizer);
    if (!s && !VEC_PUSH(&off, 0)) s = COE_E_NOMEM;
    if (!s) s = text_docs_open(&docs, path, &whole);
    while (!s && left) {
        const char *text;
        size_t n;
        bool more;
        if ((s = text_docs_next(docs, &text, &n, &more)) || !more) break;
        s = add_document(out, &ids, &off, m->tokenizer, first, text, n, &left);
    }
    text_docs_close(docs);
    out->ids = ids.at;
    out->off = off.at;
    out->n_docs = (int64_t)off.n - 1;
    if (!s && (!out->bytes || !ids.n)) s = coe_fail(COE_E_INPUT, "%s: holds no text to predict", path);
    if (s) measured_text_free(out);
    return s;
}

void measured_text_free(struct measured_text *t)
{
    mem_free(t->ids);
    mem_free(t->off);
    *t = (struct measured_text){ 0 };
}

/* ---- windows ---- */

struct job {
    struct coe_model *m;
    struct route_hook *const *hook;
    int32_t n_variants;
    const struct measured_text *t;
    struct measure *out;
    struct measure_opts o;
    struct arena arena;
    int64_t row_chunk;
    struct windows w;
    int32_t *target; /* [w.cap] of the windows' tokens; -1: not predicted in this window */
    float *hidden;   /* [n_variants, w.cap, d] */
    struct progress progress;
    int64_t progress_tokens; /* predicted so far */
};

coe_status measure_opts_fill(struct measure_opts *o, const struct coe_model *m)
{
    if (!o->window) o->window = COE_MIN(m->spec.max_positions, (int64_t)1024);
    if (!o->stride) o->stride = o->window;
    if (o->window > m->spec.max_positions)
        return coe_fail(COE_E_USAGE, "a window of %lld tokens; the model's context is %lld", (long long)o->window,
                        (long long)m->spec.max_positions);
    if (o->window < 1 || o->stride < 1 || o->stride > o->window)
        return coe_fail(COE_E_USAGE, "a stride of %lld tokens in windows of %lld", (long long)o->stride,
                        (long long)o->window);
    return COE_OK;
}

/* Σ_i p_i (ln p_i - ln q_i), p and q the softmax of x and y whose logsumexp are given */
static double divergence(const float *x, float lse_x, const float *y, float lse_y, int64_t n, float *scratch)
{
    double sum = 0;
    kern->exp(scratch, x, lse_x, n);
    for (int64_t i = 0; i < n; i++)
        sum += (double)scratch[i] * (((double)x[i] - (double)lse_x) - ((double)y[i] - (double)lse_y));
    return sum;
}

static int32_t top(const float *x, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return (int32_t)best;
}

/* Rows of one variant that are predicted, gathered; their logits. */
static struct val *row_logits(struct job *j, struct nn *c, int32_t variant, const int32_t *row, int64_t n)
{
    const int64_t d = j->m->spec.d_model;
    struct val *h = nn_val(c, n, d);
    for (int64_t i = 0; h && i < n; i++)
        memcpy(h->data + i * d, j->hidden + ((int64_t)variant * j->w.cap + row[i]) * d,
               (size_t)d * sizeof(float));
    const double start = coe_now();
    struct val *y = h ? model_logits(j->m, c, h) : NULL;
    j->out[variant].seconds += coe_now() - start;
    return y;
}

/* The first variant's view of the rows in work. */
struct base {
    const struct val *logits;
    float *lse;
    int32_t *top;
};

static coe_status compare(struct job *j, struct measure *out, const struct base *base, const struct val *y,
                          const float *lse)
{
    const int64_t n = y->rows, v = y->cols;
    double *kl = arena_push(&j->arena, (size_t)n * sizeof *kl);
    int32_t *best = arena_push(&j->arena, (size_t)n * sizeof *best);
    float *scratch = arena_push(&j->arena, (size_t)coe_threads() * (size_t)v * sizeof *scratch);
    if (!kl || !best || !scratch) return COE_E_NOMEM;
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < n; t++) {
        kl[t] = divergence(base->logits->data + t * v, base->lse[t], y->data + t * v, lse[t], v,
                           scratch + thread_index() * v);
        best[t] = top(y->data + t * v, v);
    }
    for (int64_t t = 0; t < n; t++) {
        out->kl += kl[t];
        out->same_top += best[t] == base->top[t];
    }
    return COE_OK;
}

static coe_status score_rows(struct job *j, const int32_t *row, int64_t n)
{
    struct nn c = { .arena = &j->arena, .math = j->o.math };
    struct base base = { 0 };
    int32_t *target = arena_push(&j->arena, (size_t)n * sizeof *target);
    float *loss = arena_push(&j->arena, (size_t)n * sizeof *loss),
          *lse = arena_push(&j->arena, (size_t)n * sizeof *lse);
    base.lse = arena_push(&j->arena, (size_t)n * sizeof *base.lse);
    base.top = arena_push(&j->arena, (size_t)n * sizeof *base.top);
    if (!target || !loss || !lse || !base.lse || !base.top) return COE_E_NOMEM;
    for (int64_t i = 0; i < n; i++) target[i] = j->target[row[i]];
    for (int32_t v = 0; v < j->n_variants; v++) {
        const struct arena_mark mark = arena_save(&j->arena);
        const struct val *y = row_logits(j, &c, v, row, n);
        if (!y) return coe_last_status();
        nn_xent_rows(y->data, n, y->cols, target, loss, v ? lse : base.lse);
        for (int64_t i = 0; i < n; i++) j->out[v].nats += (double)loss[i];
        j->out[v].tokens += n;
        if (!v) {
            base.logits = y;
            for (int64_t i = 0; i < n; i++) base.top[i] = top(y->data + i * y->cols, y->cols);
            j->out[0].same_top += n;
            continue; /* its logits stay for the comparison */
        }
        COE_TRY(compare(j, &j->out[v], &base, y, lse));
        arena_rewind(&j->arena, mark);
    }
    return COE_OK;
}

static coe_status run_variant(struct job *j, int32_t v, int64_t n)
{
    const struct attn_batch batch = windows_batch(&j->w);
    struct forward f = { .batch = &batch, .no_logits = true, .mla = j->o.mla, .kv_type = j->o.kv };
    struct nn c = { .arena = &j->arena, .math = j->o.math };
    const struct arena_mark mark = arena_save(&j->arena);
    const double start = coe_now();
    j->m->hook = j->hook[v];
    const struct val *h = model_forward(j->m, &c, j->w.ids, n, &f);
    if (!h) return coe_last_status();
    j->out[v].seconds += coe_now() - start;
    j->out[v].processed += n;
    memcpy(j->hidden + (int64_t)v * j->w.cap * h->cols, h->data, (size_t)(n * h->cols) * sizeof(float));
    arena_rewind(&j->arena, mark);
    return COE_OK;
}

static coe_status flush(struct job *j)
{
    const int64_t n = windows_tokens(&j->w);
    if (!n) return COE_OK;
    if (coe_interrupted()) return coe_fail(COE_E_FAILED, "interrupted");
    const struct arena_mark mark = arena_save(&j->arena);
    for (int32_t v = 0; v < j->n_variants; v++) COE_TRY(run_variant(j, v, n));
    int32_t *row = arena_push(&j->arena, (size_t)n * sizeof *row), n_rows = 0;
    if (!row) return COE_E_NOMEM;
    for (int32_t t = 0; t < n; t++)
        if (j->target[t] >= 0) row[n_rows++] = t;
    for (int64_t i = 0; i < n_rows; i += j->row_chunk) {
        const struct arena_mark rows = arena_save(&j->arena);
        COE_TRY(score_rows(j, row + i, COE_MIN(j->row_chunk, n_rows - i)));
        arena_rewind(&j->arena, rows);
    }
    arena_rewind(&j->arena, mark);
    j->w.n = 0;
    j->progress_tokens += n_rows;
    progress_set(&j->progress, (double)j->progress_tokens, "%lld tokens", (long long)j->progress_tokens);
    return COE_OK;
}

/* ids[0..n) are fed, ids[1..n] are their targets, of which those below `from` were predicted before. */
static coe_status add_window(struct job *j, const int32_t *ids, int64_t n, int64_t from)
{
    if (!windows_fit(&j->w, n) || (j->o.batch && j->w.n == j->o.batch)) COE_TRY(flush(j));
    const int32_t at = windows_add(&j->w, ids, n);
    for (int64_t i = 0; i < n; i++) j->target[at + i] = i < from ? -1 : ids[i + 1];
    return COE_OK;
}

static coe_status add_document_windows(struct job *j, const int32_t *ids, int64_t n)
{
    int64_t reached = 0; /* targets up to ids[reached] are predicted */
    for (int64_t begin = 0; reached < n - 1; begin += j->o.stride) {
        const int64_t length = COE_MIN(j->o.window, n - 1 - begin);
        COE_TRY(add_window(j, ids + begin, length, reached - begin));
        reached = begin + length;
    }
    return COE_OK;
}

static coe_status prepare(struct job *j)
{
    const struct spec *s = &j->m->spec;
    COE_TRY(measure_opts_fill(&j->o, j->m));
    const int64_t tokens = COE_MAX(j->o.window * COE_MAX(j->o.batch, 1), j->o.batch ? 0 : (int64_t)WINDOWS_TOKENS);
    j->row_chunk = COE_MAX(COE_MIN(LOGIT_FLOATS / s->vocab, (int64_t)256), (int64_t)8);
    const size_t n = (size_t)tokens;
    COE_TRY(windows_make(&j->w, tokens));
    j->target = mem_alloc("evaluation", n * sizeof *j->target);
    j->hidden = mem_alloc("evaluation", n * (size_t)j->n_variants * (size_t)s->d_model * sizeof *j->hidden);
    return j->target && j->hidden ? COE_OK : COE_E_NOMEM;
}

coe_status measure_text(struct measure *out, struct coe_model *m, struct route_hook *const *hook, int32_t n_variants,
                        const struct measured_text *t, const struct measure_opts *o)
{
    struct job j = { .m = m, .hook = hook, .n_variants = n_variants, .t = t, .out = out, .o = *o };
    struct route_hook *const before = m->hook;
    coe_status s = prepare(&j);
    j.progress = progress_start("measuring", (double)t->off[t->n_docs]);
    for (int64_t d = 0; d < t->n_docs && !s; d++)
        s = add_document_windows(&j, t->ids + t->off[d], t->off[d + 1] - t->off[d]);
    if (!s) s = flush(&j);
    progress_end(&j.progress);
    for (int32_t v = 0; v < n_variants; v++) out[v].bytes += t->bytes;
    m->hook = before;
    mem_free(j.hidden);
    mem_free(j.target);
    windows_free(&j.w);
    arena_free(&j.arena);
    return s;
}

/* ---- results ---- */

double measure_loss(const struct measure *r) { return r->tokens ? r->nats / (double)r->tokens : 0; }

double measure_bits_per_byte(const struct measure *r) { return r->bytes ? r->nats / (double)r->bytes / log(2) : 0; }

static json_t *cost_json(const struct measure *r, uint64_t bytes)
{
    return json_pack("{s:I, s:f, s:f, s:f}", "bytes", (json_int_t)bytes, "tokens_per_second",
                     r->seconds > 0 ? (double)r->processed / r->seconds : 0.0, "nats_per_token", measure_loss(r),
                     "bits_per_byte", measure_bits_per_byte(r));
}

json_t *measure_json(const struct measure *plan, uint64_t bytes, const struct measure *unedited,
                     uint64_t bytes_unedited)
{
    json_t *o = cost_json(plan, bytes);
    const double n = plan->tokens ? (double)plan->tokens : 1;
    json_object_set_new(o, "kl", json_real(COE_MAX(plan->kl / n, 0.0)));
    json_object_set_new(o, "same_top", json_real((double)plan->same_top / n));
    json_object_set_new(o, "tokens", json_integer(plan->tokens));
    json_object_set_new(o, "unedited", cost_json(unedited, bytes_unedited));
    return o;
}
