/* corpus.c — text files through the model: documents are tokenized with what the tokenizer adds (BOS), cut into
 * windows, and windows are gathered into forward passes. */
#include "trace/trace.h"
#include "trace/windows.h"

#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "text/textin.h"

struct job {
    struct trace *t;
    const struct coe_model *m;
    struct trace_recorder recorder;
    struct arena arena;
    int64_t left; /* tokens the label may still take; -1: no limit */
    struct windows w;
    struct progress progress;
};

static coe_status flush(struct job *j)
{
    const int64_t n = windows_tokens(&j->w);
    if (!n) return COE_OK;
    if (coe_interrupted()) return coe_fail(COE_E_FAILED, "interrupted; nothing was written");
    const struct attn_batch batch = windows_batch(&j->w);
    j->recorder.batch = &batch;
    const struct moe_observer observer = trace_observer(&j->recorder);
    struct forward f = { .batch = &batch, .observer = &observer, .no_logits = true, .kv_type = j->t->kv };
    struct nn nn = { .arena = &j->arena };
    const struct arena_mark mark = arena_save(&j->arena);
    const struct val *h = model_forward(j->m, &nn, j->w.ids, n, &f);
    arena_rewind(&j->arena, mark);
    if (!h) return coe_last_status();
    trace_batch_done(&j->recorder, n);
    j->w.n = 0;
    return COE_OK;
}

static coe_status add_window(struct job *j, const int32_t *ids, int64_t n)
{
    if (!windows_fit(&j->w, n)) COE_TRY(flush(j));
    windows_add(&j->w, ids, n);
    return COE_OK;
}

static coe_status add_document(struct job *j, const struct ids *ids)
{
    const int64_t n = (int64_t)ids->n;
    for (int64_t i = 0; i < n; i += j->t->window) COE_TRY(add_window(j, ids->at + i, COE_MIN(j->t->window, n - i)));
    if (j->left >= 0) j->left -= n;
    return COE_OK;
}

coe_status encode_prefix(const struct tokenizer *t, struct ids *out, const char *text, size_t n, bool special,
                         int64_t max)
{
    const size_t first = out->n;
    for (size_t part = max < 0 ? n : COE_MIN(n, (size_t)max * 8 + 1024);;) {
        for (int back = 0; back < 3 && part < n && ((unsigned char)text[part] & 0xC0) == 0x80; back++) part--;
        out->n = first;
        COE_TRY(tokenizer_encode(t, out, text, part, special));
        if (part >= n) break;
        /* what lies near the cut may be split another way; the tokens before it are not touched by it */
        if ((int64_t)(out->n - first) >= max + 64) break;
        part = part > n / 4 ? n : part * 4;
    }
    if (max >= 0) out->n = COE_MIN(out->n, first + (size_t)max);
    return COE_OK;
}

static coe_status read_documents(struct job *j, struct text_docs *docs, struct trace_file_source *file)
{
    struct ids ids = { 0 };
    coe_status s = COE_OK;
    const char *text;
    size_t n;
    bool more;
    double done = 0;
    while (j->left && !(s = text_docs_next(docs, &text, &n, &more)) && more) {
        ids.n = 0;
        if ((s = encode_prefix(j->m->tokenizer, &ids, text, n, true, j->left))) break;
        const int64_t before = j->left;
        if ((s = add_document(j, &ids))) break;
        file->documents++;
        file->tokens += j->left >= 0 ? before - j->left : (int64_t)ids.n;
        done = j->progress.total > 0 && j->left < 0 ? done + (double)n : (double)file->tokens;
        progress_set(&j->progress, done, "%lld tokens", (long long)file->tokens);
    }
    VEC_FREE(&ids);
    return s;
}

/* What the bar counts: tokens when they are limited, else bytes of an uncompressed file. */
static double work_of(const char *path, int64_t left)
{
    struct file_map m;
    double bytes = 0;
    if (left >= 0) return (double)left;
    if (!file_exists(path) || file_map_open(&m, path)) return 0;
    bytes = (double)m.bytes;
    file_map_close(&m);
    return bytes;
}

static coe_status prepare(struct job *j, const char *label, const struct trace_opts *o)
{
    if (!j->m->tokenizer) return coe_fail(COE_E_INPUT, "%s: has no tokenizer; text cannot be traced", j->m->path);
    if (j->t->window < 1) return coe_fail(COE_E_USAGE, "a window of %lld tokens", (long long)j->t->window);
    j->recorder.domain = trace_add_domain(j->t, label);
    if (j->recorder.domain < 0) return COE_E_NOMEM;
    j->recorder.n_tokens = j->t->domains.at[j->recorder.domain].tokens;
    j->left = o->max_tokens > 0 ? COE_MAX(o->max_tokens - j->recorder.n_tokens, 0) : -1;
    return windows_make(&j->w, COE_MAX(o->batch_tokens > 0 ? o->batch_tokens : WINDOWS_TOKENS, j->t->window));
}

coe_status trace_text(struct trace *t, const struct coe_model *m, const char *label, const char *path,
                      const struct trace_opts *o)
{
    struct job j = { .t = t, .m = m, .recorder = { .trace = t } };
    struct text_docs *docs = NULL;
    struct trace_file_source file = { .path = arena_strdup(&t->arena, path) };
    coe_status s = file.path ? prepare(&j, label, o) : COE_E_NOMEM;
    if (s) goto out;
    if ((s = text_docs_open(&docs, path, NULL))) goto out;
    j.progress = progress_start(label, work_of(path, j.left));
    s = read_documents(&j, docs, &file);
    if (!s) s = flush(&j);
    progress_end(&j.progress);
    if (s) goto out;
    struct trace_domain *domain = &t->domains.at[j.recorder.domain];
    domain->tokens = j.recorder.n_tokens;
    if (!VEC_PUSH(&domain->files, file)) s = COE_E_NOMEM;
out:
    text_docs_close(docs);
    windows_free(&j.w);
    arena_free(&j.arena);
    return s;
}
