/* monitor.c — what a run shows: a line on stderr and OUTPUT/log.jsonl. On resuming, lines behind the resumed step are dropped. */
#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "train/internal.h"

/* Keeps the lines of the log whose step is at most t->step. */
static coe_status trim(const struct trainer *t, const char *path)
{
    struct str old = { 0 }, kept = { 0 };
    coe_status s = file_read(&old, path, (uint64_t)1 << 30);
    for (char *line = old.at, *end; !s && line && *line; line = end) {
        end = strchr(line, '\n');
        end = end ? end + 1 : line + strlen(line);
        json_t *o = json_loadb(line, (size_t)(end - line), 0, NULL);
        if (o && json_integer_value(json_object_get(o, "step")) <= t->step) str_add(&kept, line, (size_t)(end - line));
        json_decref(o);
    }
    if (!s) s = str_check(&kept);
    if (!s) s = file_write(path, kept.at, kept.n);
    str_free(&old);
    str_free(&kept);
    return s;
}

coe_status monitor_open(struct trainer *t)
{
    char *path = path_join(t->r->output, "log.jsonl");
    if (!path) return COE_E_NOMEM;
    coe_status s = COE_OK;
    if (t->step && file_exists(path)) s = trim(t, path);
    if (!s && !(t->log = fopen(path, t->step ? "ae" : "we"))) s = coe_fail(COE_E_FAILED, "%s: cannot be written", path);
    mem_free(path);
    if (s) return s;
    const struct spec_sizes sizes = spec_sizes(&t->model->spec);
    log_note("%s: %.2f M parameters, %.2f M active; %zu documents, %zu tokens (%.2f bytes each), %lld rows of %d a pass; %zu tokens held out", t->r->path,
             (double)sizes.total / 1e6, (double)sizes.active / 1e6, t->train.n_documents, t->train.n, (double)t->train.bytes / (double)t->train.n,
             (long long)corpus_rows(&t->train, t->r->sequence), t->r->sequence, t->valid.n);
    if (t->step) log_note("resumed behind step %lld", (long long)t->step);
    return COE_OK;
}

void monitor_close(struct trainer *t)
{
    if (t->log) fclose(t->log);
    t->log = NULL;
}

static coe_status put(struct trainer *t, json_t *line)
{
    if (!line) return coe_fail(COE_E_NOMEM, "%s: log line", t->r->path);
    const bool failed = json_dumpf(line, t->log, JSON_COMPACT | JSON_REAL_PRECISION(7)) || fputc('\n', t->log) == EOF || fflush(t->log);
    json_decref(line);
    return failed ? coe_fail(COE_E_FAILED, "%s/log.jsonl: cannot be written", t->r->output) : COE_OK;
}

coe_status monitor_step(struct trainer *t, const struct step_report *s)
{
    const int64_t step = s->step;
    if (step % t->r->log_every && step != t->r->steps && step != 1) return COE_OK;
    const double bits = s->loss / log(2) * (double)t->train.n / (double)t->train.bytes, rate = (double)s->tokens / s->seconds;
    log_note("step %lld/%lld  loss %.4f  ppl %.2f  %.3f bits/byte  lr %.2e  |g| %.2f  aux %.4f  load cv %.2f maxvio %.2f dead %d  %.0f tokens/s",
             (long long)step, (long long)t->r->steps, s->loss, exp(s->loss), bits, s->lr, s->grad_norm, s->aux, s->load.cv, s->load.max_vio, s->load.dead, rate);
    return put(t, json_pack("{s:I,s:f,s:f,s:f,s:f,s:f,s:f,s:{s:f,s:f,s:i},s:f,s:I,s:f}", "step", (json_int_t)step, "loss", s->loss, "perplexity", exp(s->loss),
                            "bits_per_byte", bits, "aux", s->aux, "lr", s->lr, "grad_norm", s->grad_norm, "load", "cv", s->load.cv, "max_vio",
                            s->load.max_vio, "dead", (int)s->load.dead, "tokens_per_s", rate, "tokens", (json_int_t)t->tokens, "seconds", t->seconds));
}

coe_status monitor_valid(struct trainer *t, double nats, double bits_per_byte, bool whole)
{
    log_note("step %lld  validation%s: loss %.4f  ppl %.2f  %.4f bits/byte", (long long)t->step, whole ? " (whole text)" : "", nats, exp(nats), bits_per_byte);
    return put(t, json_pack("{s:I,s:f,s:f,s:f,s:b}", "step", (json_int_t)t->step, "valid_loss", nats, "valid_perplexity", exp(nats), "valid_bits_per_byte",
                            bits_per_byte, "whole", whole));
}
