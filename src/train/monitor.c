/* monitor.c — what a run shows: a line on stderr and OUTPUT/log.jsonl. On resuming, lines behind the resumed step are
 * dropped. */
#include <math.h>
#include <string.h>

#include "base/file.h"
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
    log_note(
        "%s: %.2f M parameters, %.2f M active; %zu documents, %zu tokens (%.2f bytes each), %lld rows of %d a pass; "
        "%zu tokens held out",
        t->r->path, (double)sizes.total / 1e6, (double)sizes.active / 1e6, t->train.n_documents, t->train.n,
        (double)t->train.bytes / (double)t->train.n, (long long)corpus_rows(&t->train, t->r->sequence), t->r->sequence,
        t->valid.n);
    int64_t learns = 0;
    for (size_t i = 0; i < t->n_params; i++) learns += t->params[i].w->grad ? weight_count(t->params[i].w) : 0;
    if (t->r->tune.only || t->r->tune.experts || t->r->tune.rank)
        log_note("%lld parameters learn, the others stay as they are stored", (long long)learns);
    if (t->step) log_note("resumed behind step %lld", (long long)t->step);
    t->bar = progress_start("training", (double)(t->r->steps - t->step));
    t->bar_from = t->step;
    return COE_OK;
}

void monitor_close(struct trainer *t)
{
    progress_end(&t->bar);
    if (t->log) fclose(t->log);
    t->log = NULL;
}

static coe_status put(struct trainer *t, json_t *line)
{
    if (!line) return coe_fail(COE_E_NOMEM, "%s: log line", t->r->path);
    const bool failed =
        json_dumpf(line, t->log, JSON_COMPACT | JSON_REAL_PRECISION(7)) || fputc('\n', t->log) == EOF || fflush(t->log);
    json_decref(line);
    return failed ? coe_fail(COE_E_FAILED, "%s/log.jsonl: cannot be written", t->r->output) : COE_OK;
}

/* On a terminal one line is drawn again and again; elsewhere there is a line every log_every steps. */
static void show_step(struct trainer *t, const struct step_report *s, double bits, bool due)
{
    const double rate = (double)s->tokens / s->seconds;
    if (t->bar.on)
        progress_set(&t->bar, (double)(s->step - t->bar_from),
                     "step %lld/%lld  loss %.4f  %.3f bits/byte  load cv %.2f dead %d  %.0f tokens/s",
                     (long long)s->step, (long long)t->r->steps, s->loss, bits, s->load.cv, s->load.dead, rate);
    else if (due)
        log_note("step %lld/%lld  loss %.4f  ppl %.2f  %.3f bits/byte  lr %.2e  |g| %.2f  aux %.4f  "
                 "load cv %.2f maxvio %.2f dead %d  %.0f tokens/s",
                 (long long)s->step, (long long)t->r->steps, s->loss, exp(s->loss), bits, s->lr, s->grad_norm, s->aux,
                 s->load.cv, s->load.max_vio, s->load.dead, rate);
}

static bool has_groups(const struct spec *s)
{
    for (int32_t l = 0; l < s->n_layers; l++)
        if (s->layer[l].is_moe && s->layer[l].moe.router.n_group > 1) return true;
    return false;
}

coe_status monitor_step(struct trainer *t, const struct step_report *s)
{
    const double bits = s->loss / log(2) * (double)t->train.n / (double)t->train.bytes;
    const bool due = step_is_logged(t->r, s->step);
    show_step(t, s, bits, due);
    if (!due) return COE_OK;
    json_t *load = json_pack("{s:f, s:f, s:f, s:f, s:i, s:f}", "cv", s->load.cv, "max_vio", s->load.max_vio, "avg_vio",
                             s->load.avg_vio, "entropy", s->load.entropy, "dead", (int)s->load.dead, "active",
                             s->active);
    if (has_groups(&t->model->spec)) json_object_set_new(load, "imbalance", json_real(s->load.imbalance));
    json_t *line = json_pack("{s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:o, s:f, s:I, s:f}", "step", (json_int_t)s->step,
                             "loss", s->loss, "perplexity", exp(s->loss), "bits_per_byte", bits, "aux", s->aux, "lr",
                             s->lr, "grad_norm", s->grad_norm, "load", load, "tokens_per_s",
                             (double)s->tokens / s->seconds, "tokens", (json_int_t)t->tokens, "seconds", t->seconds);
    if (s->priced)
        json_object_set_new(line, "prices",
                            json_pack("{s:f, s:f}", "switches", (double)s->switches / (double)s->priced, "lagrangian",
                                      s->lagrangian / (double)s->priced));
    return put(t, line);
}

/* {"stories": {"loss": …, "bits_per_byte": …, "tokens": …}, …}; labels that no row came from are left out */
static json_t *by_label(const struct validation *v)
{
    json_t *all = json_object();
    for (size_t i = 0; i < v->n_labels && all; i++) {
        const struct label_loss *l = &v->label[i];
        if (l->n_tokens)
            json_object_set_new(all, l->label,
                                json_pack("{s:f, s:f, s:I}", "loss", l->nats, "bits_per_byte", l->bits_per_byte,
                                          "tokens", (json_int_t)l->n_tokens));
    }
    return all;
}

static json_t *validation_json(const struct trainer *t, const struct validation *v)
{
    json_t *o = json_pack("{s:I, s:f, s:f, s:f, s:b}", "step", (json_int_t)t->step, "valid_loss", v->nats,
                          "valid_perplexity", exp(v->nats), "valid_bits_per_byte", v->bits_per_byte, "whole", v->whole);
    if (o && v->n_labels > 1) json_object_set_new(o, "valid_by_label", by_label(v));
    return o;
}

coe_status monitor_valid(struct trainer *t, const struct validation *v)
{
    log_note("step %lld  validation%s: loss %.4f  ppl %.2f  %.4f bits/byte", (long long)t->step,
             v->whole ? " (whole text)" : "", v->nats, exp(v->nats), v->bits_per_byte);
    for (size_t i = 0; v->n_labels > 1 && i < v->n_labels; i++)
        if (v->label[i].n_tokens)
            log_note("    %-16s loss %.4f  %.4f bits/byte  (%lld tokens)", v->label[i].label, v->label[i].nats,
                     v->label[i].bits_per_byte, (long long)v->label[i].n_tokens);
    return put(t, validation_json(t, v));
}

json_t *trainer_report(const struct trainer *t)
{
    const struct spec_sizes sizes = spec_sizes(&t->model->spec);
    char *model = path_join(t->r->output, t->model->adapter ? "adapter" : "model");
    json_t *o = !model ? NULL
                       : json_pack("{s:s, s:s, s:I, s:I, s:I, s:f, s:I, s:I}", "recipe", t->r->path, "model", model,
                                   "seed", (json_int_t)t->r->seed, "step", (json_int_t)t->step, "tokens",
                                   (json_int_t)t->tokens, "seconds", t->seconds, "parameters", (json_int_t)sizes.total,
                                   "active", (json_int_t)sizes.active);
    mem_free(model);
    if (o && !isnan(t->loss)) json_object_set_new(o, "loss", json_real(t->loss));
    if (o && t->valid_result.n_tokens) json_object_update_new(o, validation_json(t, &t->valid_result));
    return o;
}
