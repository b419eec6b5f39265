/* trainer.c — a run: opened from a recipe, stepped to its end or an interruption, saved on the way. */
#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "model/adapter.h"
#include "model/gguf_form.h"
#include "train/internal.h"

/* The i-th weight that may learn: of the model, then of its adapter; NULL behind the last. */
static struct weight *candidate(struct coe_model *m, size_t i, bool *decays)
{
    *decays = i >= m->n_params || !slot_info[m->params[i].at.slot].is_vector;
    if (i < m->n_params) return &m->params[i].w;
    return m->adapter && i - m->n_params < m->adapter->n ? &m->adapter->matrix[i - m->n_params] : NULL;
}

static coe_status make_optimizer(struct trainer *t)
{
    size_t floats = 0, n = 0;
    bool decays;
    struct weight *w;
    for (size_t i = 0; (w = candidate(t->model, i, &decays)); i++)
        if (w->master) floats += (size_t)weight_count(w), n++;
    t->params = mem_zalloc("optimiser", (n + 1) * sizeof *t->params);
    t->moments = mem_zalloc("optimiser", floats * 2 * sizeof(float) + 1);
    if (!t->params || !t->moments) return COE_E_NOMEM;
    float *first = (float *)(void *)t->moments, *second = first + floats;
    for (size_t i = 0; (w = candidate(t->model, i, &decays)); i++) {
        if (!w->master) continue;
        t->params[t->n_params++] = (struct optim_param){ w, first, second, decays };
        first += weight_count(w);
        second += weight_count(w);
    }
    return COE_OK;
}

static coe_status make_buffers(struct trainer *t)
{
    const size_t rows = (size_t)t->r->micro_batch, tokens = rows * (size_t)t->r->sequence;
    for (int32_t l = 0; l < t->model->spec.n_layers; l++)
        if (t->model->spec.layer[l].is_moe)
            t->max_experts = COE_MAX(t->max_experts, t->model->spec.layer[l].moe.n_experts);
    t->n_records = model_n_records(t->model);
    t->input = mem_alloc("batch", tokens * sizeof *t->input);
    t->target = mem_alloc("batch", tokens * sizeof *t->target);
    t->task = mem_alloc("batch", tokens * sizeof *t->task);
    t->start = mem_alloc("batch", tokens * sizeof *t->start);
    t->off = mem_alloc("batch", (rows + 1) * sizeof *t->off);
    t->pos0 = mem_zalloc("batch", rows * sizeof *t->pos0);
    t->records = mem_zalloc("batch", ((size_t)t->n_records + 1) * sizeof(struct route_record *));
    t->n_projections = model_n_projections(t->model);
    t->projection_records = mem_zalloc("batch", ((size_t)t->n_projections + 1) * sizeof(struct route_record *));
    t->counts = mem_zalloc("batch", ((size_t)t->n_records * (size_t)t->max_experts + 1) * sizeof *t->counts);
    const bool all = t->input && t->target && t->task && t->start && t->off && t->pos0 && t->records &&
                     t->projection_records && t->counts;
    return all ? COE_OK : COE_E_NOMEM;
}

/* The recipe's config; what it leaves to the tokenizer is filled in. */
static coe_status fresh_model(struct trainer *t)
{
    const struct recipe *r = t->r;
    char where[700];
    snprintf(where, sizeof where, "%s: model.config", r->path);
    json_t *config = t->config = json_deep_copy(r->config);
    if (!config) return coe_fail(COE_E_NOMEM, "%s", where);
    if (t->tokenizer && !json_object_get(config, "vocab_size"))
        json_object_set_new(config, "vocab_size", json_integer(tokenizer_vocab_size(t->tokenizer)));
    if (t->tokenizer && !json_object_get(config, "eos_token_id"))
        json_object_set_new(config, "eos_token_id", json_integer(tokenizer_eos(t->tokenizer)));
    return model_new(&t->model, config, where, r->seed, r->init_std);
}

static coe_status given_model(struct trainer *t)
{
    COE_TRY(model_open(&t->model, t->r->init));
    COE_TRY(tune_model(t));
    enum dtype type;
    /* its config can be written; that of a base under an adapter is not */
    if (ckpt_gguf(t->model->ckpt) && !t->model->adapter) COE_TRY(gguf_plain_type(t->model, &type));
    t->config = json_deep_copy(model_config(t->model));
    return t->config ? COE_OK : coe_fail(COE_E_NOMEM, "%s: no memory for the config", t->r->init);
}

/* Two passes differ only where something is drawn. */
static coe_status check_consistency(const struct trainer *t)
{
    const struct recipe *r = t->r;
    bool draws = r->dropout > 0;
    for (int32_t l = 0; l < t->model->spec.n_layers; l++) {
        const struct layer_spec *s = &t->model->spec.layer[l];
        draws = draws || (s->is_moe && !strcmp(s->moe.router.selection, "random"));
    }
    if (r->consistency <= 0 || draws) return COE_OK;
    return coe_fail(COE_E_INPUT,
                    "%s: train.consistency compares passes with different draws, but this network draws nothing: no "
                    "layer has the selection random, and dropout is 0",
                    r->path);
}

static coe_status check_tasks(const struct trainer *t)
{
    const struct recipe *r = t->r;
    const int32_t n = spec_tasks(&t->model->spec);
    for (size_t i = 0; n && i < r->n_train + r->n_valid; i++) {
        const struct data_source *d = i < r->n_train ? &r->train[i] : &r->valid[i - r->n_train];
        if (d->task >= n)
            return coe_fail(COE_E_INPUT, "%s: %s is of task %d; the model knows tasks 0 … %d", r->path, d->path,
                            d->task, n - 1);
    }
    return COE_OK;
}

static coe_status check_model(const struct trainer *t)
{
    const struct recipe *r = t->r;
    const struct spec *s = &t->model->spec;
    const size_t n = strlen(r->tokenizer);
    if (n > 5 && !strcmp(r->tokenizer + n - 5, ".gguf") && !(r->init && !strcmp(r->init, r->tokenizer)))
        return coe_fail(COE_E_INPUT,
                        "%s: tokenizer %s: a GGUF file gives its tokenizer to the model in it only; name a directory "
                        "or a tokenizer.json",
                        r->path, r->tokenizer);
    if (t->tokenizer && s->vocab < tokenizer_vocab_size(t->tokenizer))
        return coe_fail(COE_E_INPUT, "%s: vocab_size %d is below the tokenizer's %d", r->path, s->vocab,
                        tokenizer_vocab_size(t->tokenizer));
    if (s->max_positions < r->sequence)
        return coe_fail(COE_E_INPUT, "%s: data.sequence %d, the model's context is %lld", r->path, r->sequence,
                        (long long)s->max_positions);
    COE_TRY(check_tasks(t));
    return check_consistency(t);
}

static coe_status open_texts(struct trainer *t)
{
    const struct recipe *r = t->r;
    COE_TRY(corpus_read(&t->train, &t->valid, t->tokenizer, r->train, r->n_train, r->hold_out_last));
    if (r->n_valid) COE_TRY(corpus_read(&t->valid, NULL, t->tokenizer, r->valid, r->n_valid, 0));
    if (!corpus_rows(&t->train, r->sequence))
        return coe_fail(COE_E_INPUT, "%s: the training text has %zu tokens, too few for rows of %d", r->path,
                        t->train.n, r->sequence);
    t->labels = mem_zalloc("trainer", (t->valid.n_parts + 1) * sizeof *t->labels);
    return t->labels ? COE_OK : COE_E_NOMEM;
}

static coe_status make(struct trainer **out, const struct recipe *r)
{
    COE_TRY(kernels_init());
    *out = mem_zalloc("trainer", sizeof **out);
    if (!*out) return COE_E_NOMEM;
    (*out)->r = r;
    (*out)->lock = -1;
    (*out)->loss = NAN;
    return COE_OK;
}

coe_status trainer_open(struct trainer **out, const struct recipe *r, enum resume_mode mode)
{
    struct trainer *t = NULL;
    *out = NULL;
    COE_TRY(make(&t, r));
    coe_status s = COE_OK;
    if (state_exists(t) && mode == RESUME_REFUSE)
        s = coe_fail(COE_E_USAGE, "%s holds a saved run: continue it with --resume, or begin again with --restart",
                     r->output);
    if (!s) s = tokenizer_open(&t->tokenizer, r->tokenizer);
    if (!s) s = r->init ? given_model(t) : fresh_model(t);
    if (!s) s = check_model(t);
    if (!s) s = open_texts(t);
    if (!s) s = make_optimizer(t);
    if (!s) s = make_buffers(t);
    if (!s) s = dir_make(r->output);
    if (!s) s = dir_lock(&t->lock, r->output);
    if (!s) file_sweep(r->output);
    if (!s && mode == RESUME_YES && state_exists(t))
        s = state_load(t);
    else if (!s && mode == RESUME_YES)
        log_note("%s holds no saved run: this one begins at step 1", r->output);
    if (!s) s = monitor_open(t);
    if (s)
        trainer_close(t);
    else
        *out = t;
    return s;
}

coe_status trainer_open_random(struct trainer **out, const struct recipe *r)
{
    struct trainer *t = NULL;
    *out = NULL;
    COE_TRY(make(&t, r));
    coe_status s = COE_OK;
    if (!r->init && !json_object_get(r->config, "vocab_size")) s = tokenizer_open(&t->tokenizer, r->tokenizer);
    if (!s) s = r->init ? given_model(t) : fresh_model(t);
    if (!s) s = check_model(t);
    if (!s) s = corpus_random(&t->train, r->seed, t->model->spec.vocab, (size_t)(r->batch + 2) * (size_t)r->sequence);
    if (!s) s = make_optimizer(t);
    if (!s) s = make_buffers(t);
    if (s)
        trainer_close(t);
    else
        *out = t;
    return s;
}

void trainer_close(struct trainer *t)
{
    if (!t) return;
    monitor_close(t);
    void *const owned[] = { t->input,   t->target, t->task,   t->start,   t->off,   t->pos0,
                            t->records, t->counts, t->params, t->moments, t->labels, t->projection_records };
    for (size_t i = 0; i < COE_COUNT(owned); i++) mem_free(owned[i]);
    corpus_free(&t->train);
    corpus_free(&t->valid);
    model_close(t->model);
    if (t->tokenizer) tokenizer_close(t->tokenizer);
    json_decref(t->config);
    arena_free(&t->arena);
    dir_unlock(t->lock);
    mem_free(t);
}

struct coe_model *trainer_model(struct trainer *t) { return t->model; }

static coe_status validate_and_log(struct trainer *t, bool whole)
{
    if (!t->valid.n) return COE_OK;
    COE_TRY(trainer_validate(t, whole ? 0 : t->r->eval_tokens, &t->valid_result));
    return monitor_valid(t, &t->valid_result);
}

/* Writers stop at an interruption; what was asked for by one, or begun before it, is written all the same. */
static coe_status save_all(struct trainer *t)
{
    coe_status s;
    do {
        t->stop |= coe_interrupted();
        coe_interrupt_clear();
        s = state_save(t);
        if (!s) s = state_write_model(t);
    } while (s && coe_interrupted());
    return s;
}

static coe_status stopped(const struct trainer *t)
{
    const struct recipe *r = t->r;
    return coe_fail(COE_E_FAILED,
                    "stopped and saved after step %lld of %lld; continue with: "
                    "coe train %s --seed %llu --steps %lld -o %s --resume",
                    (long long)t->step, (long long)r->steps, r->path, (unsigned long long)r->seed, (long long)r->steps,
                    r->output);
}

static bool due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

coe_status trainer_run(struct trainer *t)
{
    const struct recipe *r = t->r;
    while (t->step < r->steps) {
        struct step_report report;
        COE_TRY(trainer_step(t, &report));
        COE_TRY(monitor_step(t, &report));
        if (t->step == r->steps) break;
        if (due(t->step, r->eval_every)) COE_TRY(validate_and_log(t, false));
        t->stop |= coe_interrupted();
        if (t->stop || due(t->step, r->save_every)) COE_TRY(save_all(t));
        if (t->stop) return stopped(t);
    }
    COE_TRY(validate_and_log(t, true));
    return save_all(t);
}
