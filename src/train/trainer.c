/* trainer.c — the training loop.
 *
 * A step: for each micro-batch forward, losses, backward (gradients add up); then clipping, AdamW, the bias controller. The loss
 * is the mean over all targets of the step, auxiliary losses the mean over its micro-batches. */
#include "train/internal.h"

#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"

static coe_status make_optimizer(struct trainer *t)
{
    size_t floats = 0;
    struct coe_model *m = t->model;
    for (size_t i = 0; i < m->n_params; i++) floats += (size_t)weight_count(&m->params[i].w);
    t->params = mem_zalloc("optimiser", m->n_params * sizeof *t->params);
    t->moments = mem_zalloc("optimiser", floats * 2 * sizeof(float));
    if (!t->params || !t->moments) return COE_E_NOMEM;
    float *first = (float *)(void *)t->moments, *second = first + floats;
    for (size_t i = 0; i < m->n_params; i++) {
        struct param *p = &m->params[i];
        t->params[i] = (struct optim_param){ &p->w, first, second, !slot_info[p->at.slot].is_vector };
        first += weight_count(&p->w);
        second += weight_count(&p->w);
    }
    return COE_OK;
}

static coe_status make_buffers(struct trainer *t)
{
    const size_t rows = (size_t)t->r->micro_batch, tokens = rows * (size_t)t->r->sequence;
    for (int32_t l = 0; l < t->model->spec.n_layers; l++)
        if (t->model->spec.layer[l].is_moe) t->max_experts = COE_MAX(t->max_experts, t->model->spec.layer[l].moe.n_experts);
    t->n_records = model_n_records(t->model);
    t->input = mem_alloc("batch", tokens * sizeof *t->input);
    t->target = mem_alloc("batch", tokens * sizeof *t->target);
    t->start = mem_alloc("batch", tokens * sizeof *t->start);
    t->off = mem_alloc("batch", (rows + 1) * sizeof *t->off);
    t->pos0 = mem_zalloc("batch", rows * sizeof *t->pos0);
    t->records = mem_zalloc("batch", ((size_t)t->n_records + 1) * sizeof(struct route_record *));
    t->counts = mem_zalloc("batch", ((size_t)t->n_records * (size_t)t->max_experts + 1) * sizeof *t->counts);
    return t->input && t->target && t->start && t->off && t->pos0 && t->records && t->counts ? COE_OK : COE_E_NOMEM;
}

static coe_status open_model(struct trainer *t)
{
    const struct recipe *r = t->r;
    if (r->init) {
        COE_TRY(model_open(&t->model, r->init));
        COE_TRY(model_make_trainable(t->model));
        t->config = json_deep_copy(ckpt_config(t->model->ckpt));
    } else {
        char where[700];
        snprintf(where, sizeof where, "%s: model.config", r->path);
        json_t *config = json_deep_copy(r->config); /* the recipe may leave to the tokenizer what the tokenizer knows */
        t->config = config;
        if (config && !json_object_get(config, "vocab_size")) json_object_set_new(config, "vocab_size", json_integer(tokenizer_vocab_size(t->tokenizer)));
        if (config && !json_object_get(config, "eos_token_id")) json_object_set_new(config, "eos_token_id", json_integer(tokenizer_eos(t->tokenizer)));
        COE_TRY(model_new(&t->model, config, where, r->seed, r->init_std));
    }
    if (!t->config) return coe_fail(COE_E_NOMEM, "%s: config", r->path);
    if (t->model->spec.vocab < tokenizer_vocab_size(t->tokenizer))
        return coe_fail(COE_E_INPUT, "%s: vocab_size %d is below the tokenizer's %d", r->path, t->model->spec.vocab, tokenizer_vocab_size(t->tokenizer));
    if (t->model->spec.max_positions < r->sequence)
        return coe_fail(COE_E_INPUT, "%s: rows of %d tokens, the model's context is %lld", r->path, r->sequence, (long long)t->model->spec.max_positions);
    return COE_OK;
}

coe_status trainer_open(struct trainer **out, const struct recipe *r, enum resume_mode mode)
{
    *out = NULL;
    COE_TRY(kernels_init());
    struct trainer *t = mem_zalloc("trainer", sizeof *t);
    if (!t) return COE_E_NOMEM;
    t->r = r;
    coe_status s = tokenizer_open(&t->tokenizer, r->tokenizer);
    if (!s && state_exists(t) && mode == RESUME_REFUSE)
        s = coe_fail(COE_E_USAGE, "%s holds a saved run: continue it with --resume, or begin again with --restart", r->output);
    if (!s) s = open_model(t);
    if (!s) s = corpus_read(&t->train, &t->valid, t->tokenizer, r->train, r->n_train, r->hold_out_last);
    if (!s && r->n_valid) s = corpus_read(&t->valid, NULL, t->tokenizer, r->valid, r->n_valid, 0);
    if (!s && !corpus_rows(&t->train, r->sequence))
        s = coe_fail(COE_E_INPUT, "%s: the training text has %zu tokens, too few for rows of %d", r->path, t->train.n, r->sequence);
    if (!s) s = make_optimizer(t);
    if (!s) s = make_buffers(t);
    if (!s) s = dir_make(r->output);
    if (!s && mode == RESUME_YES && state_exists(t)) s = state_load(t);
    if (!s) s = monitor_open(t);
    if (s) trainer_close(t);
    else *out = t;
    return s;
}

void trainer_close(struct trainer *t)
{
    if (!t) return;
    monitor_close(t);
    void *const owned[] = { t->input, t->target, t->start, t->off, t->pos0, t->records, t->counts, t->params, t->moments };
    for (size_t i = 0; i < COE_COUNT(owned); i++) mem_free(owned[i]);
    corpus_free(&t->train);
    corpus_free(&t->valid);
    model_close(t->model);
    if (t->tokenizer) tokenizer_close(t->tokenizer);
    json_decref(t->config);
    arena_free(&t->arena);
    mem_free(t);
}

struct coe_model *trainer_model(struct trainer *t) { return t->model; }

static coe_status fill_batch(struct trainer *t, int64_t first_row)
{
    const int32_t n = t->r->sequence;
    t->off[0] = 0;
    for (int32_t i = 0; i < t->r->micro_batch; i++) {
        COE_TRY(corpus_row(&t->train, t->r->seed, first_row + i, n, t->input + i * n, t->target + i * n, t->start + i * n));
        t->off[i + 1] = (i + 1) * n;
    }
    return COE_OK;
}

static void add_counts(struct trainer *t, int32_t n_records)
{
    for (int32_t i = 0; i < n_records; i++)
        for (int32_t e = 0; e < t->records[i]->route.n_experts; e++)
            t->counts[(int64_t)i * t->max_experts + e] += (uint64_t)route_count(&t->records[i]->route, e);
}

static coe_status micro_step(struct trainer *t, int32_t index, struct step_report *out)
{
    const struct recipe *r = t->r;
    const int32_t n_micro = r->batch / r->micro_batch;
    const int64_t n = (int64_t)r->micro_batch * r->sequence;
    COE_TRY(fill_batch(t, t->step * r->batch + (int64_t)index * r->micro_batch));
    arena_rewind(&t->arena, (struct arena_mark){ 0 });
    struct tape tape = { 0 };
    struct nn c = { .arena = &t->arena, .tape = &tape, .dropout = (float)r->dropout, .seed = r->seed, .step = (uint64_t)t->step,
                    .dropout_index = (uint32_t)index << 10 };
    const struct attn_batch batch = { r->micro_batch, t->off, t->pos0, r->boundaries ? t->start : NULL };
    struct forward f = { .batch = &batch, .records = t->records, .max_records = t->n_records };
    struct val *logits = model_forward(t->model, &c, t->input, n, &f);
    double sum, aux;
    int64_t count;
    COE_TRY(nn_xent(&c, logits, t->target, 1.0 / (double)(n * n_micro), r->z_loss / n_micro, &sum, &count));
    const struct loss_call losses = { .c = &c, .records = t->records, .n_records = f.n_records, .batch = &batch, .scale = 1.0 / n_micro,
                                      .step_counts = index ? t->counts : NULL, .step_stride = t->max_experts,
                                      .step_tokens = (uint64_t)(index * n) };
    COE_TRY(moe_losses(&losses, &aux, NULL));
    COE_TRY(nn_backward(&c));
    add_counts(t, f.n_records);
    out->loss += sum / (double)(n * n_micro);
    out->aux += aux / n_micro;
    out->tokens += n;
    return COE_OK;
}

static void update_biases(struct trainer *t)
{
    int32_t record = 0;
    for (int32_t l = 0; l < t->model->spec.n_layers; l++) {
        const struct layer_spec *s = &t->model->spec.layer[l];
        if (!s->is_moe) continue;
        for (int32_t i = 0; i < s->moe.chain.n_iterations; i++, record++) {
            const struct weight *b = t->model->layer[l].moe.selection_bias[i];
            if (b && s->moe.bias_update > 0)
                moe_bias_update(b->master, t->counts + (int64_t)record * t->max_experts, s->moe.n_experts, s->moe.bias_update);
        }
    }
}

static void load_report(struct trainer *t, struct step_report *out)
{
    int32_t record = 0;
    for (int32_t l = 0; l < t->model->spec.n_layers; l++) {
        const struct layer_spec *s = &t->model->spec.layer[l];
        for (int32_t i = 0; s->is_moe && i < s->moe.chain.n_iterations; i++, record++) {
            const struct load_stats load = load_statistics(t->counts + (int64_t)record * t->max_experts, s->moe.n_experts);
            out->load.cv = COE_MAX(out->load.cv, load.cv);
            out->load.max_vio = COE_MAX(out->load.max_vio, load.max_vio);
            out->load.dead += load.dead;
        }
    }
}

coe_status trainer_step(struct trainer *t, struct step_report *out)
{
    const struct recipe *r = t->r;
    const double began = coe_now();
    *out = (struct step_report){ 0 };
    model_zero_grad(t->model);
    memset(t->counts, 0, (size_t)t->n_records * (size_t)t->max_experts * sizeof *t->counts);
    for (int32_t i = 0; i < r->batch / r->micro_batch; i++) COE_TRY(micro_step(t, i, out));
    out->grad_norm = optim_grad_norm(t->params, t->model->n_params);
    if (!isfinite(out->loss) || !isfinite(out->grad_norm))
        return coe_fail(COE_E_FAILED, "step %lld: loss %g, gradient norm %g; the last saved state is intact, try a lower lr", (long long)t->step + 1, out->loss,
                        out->grad_norm);
    out->lr = schedule_lr(r, t->step);
    t->step++;
    const struct adamw_args args = {
        .lr = (float)out->lr, .beta1 = (float)r->beta1, .beta2 = (float)r->beta2, .eps = (float)r->eps, .weight_decay = (float)r->weight_decay,
        .correction1 = (float)(1 - pow(r->beta1, (double)t->step)), .correction2 = (float)(1 - pow(r->beta2, (double)t->step)),
        .grad_scale = r->clip > 0 && out->grad_norm > r->clip ? (float)(r->clip / out->grad_norm) : 1.0f };
    optim_adamw(t->params, t->model->n_params, &args);
    update_biases(t);
    load_report(t, out);
    out->step = t->step;
    out->seconds = coe_now() - began;
    t->tokens += out->tokens;
    t->seconds += out->seconds;
    return COE_OK;
}

coe_status trainer_validate(struct trainer *t, int64_t n_tokens, double *nats, double *bits_per_byte)
{
    const int32_t n = t->r->sequence;
    double sum = 0;
    int64_t done = 0;
    if (!n_tokens) n_tokens = (int64_t)t->valid.n;
    for (int64_t window = 0; done < n_tokens;) {
        int32_t rows = 0;
        t->off[0] = 0;
        for (int32_t got; rows < t->r->micro_batch && done + t->off[rows] < n_tokens; rows++, window++) {
            got = corpus_window(&t->valid, window, n, t->input + t->off[rows], t->target + t->off[rows], t->start + t->off[rows]);
            if (!got) break;
            t->off[rows + 1] = t->off[rows] + got;
        }
        if (!rows) break;
        arena_rewind(&t->arena, (struct arena_mark){ 0 });
        struct nn c = { .arena = &t->arena };
        const struct attn_batch batch = { rows, t->off, t->pos0, t->r->boundaries ? t->start : NULL };
        struct forward f = { .batch = &batch };
        double part;
        int64_t count;
        COE_TRY(nn_xent(&c, model_forward(t->model, &c, t->input, t->off[rows], &f), t->target, 0, 0, &part, &count));
        sum += part;
        done += count;
    }
    if (!done) return coe_fail(COE_E_FAILED, "%s: the validation text is empty", t->r->path);
    *nats = sum / (double)done;
    *bits_per_byte = *nats / log(2) * (double)(t->valid.n - 1) / (double)t->valid.bytes;
    return COE_OK;
}

static coe_status validate_and_log(struct trainer *t, bool whole)
{
    double nats, bits;
    if (!t->valid.n) return COE_OK;
    COE_TRY(trainer_validate(t, whole ? 0 : t->r->eval_tokens, &nats, &bits));
    return monitor_valid(t, nats, bits, whole);
}

/* Writers stop at an interruption; saving because of one must not. */
static coe_status save_all(struct trainer *t)
{
    coe_interrupt_clear();
    COE_TRY(state_save(t));
    return state_write_model(t);
}

static bool due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

coe_status trainer_run(struct trainer *t)
{
    const struct recipe *r = t->r;
    while (t->step < r->steps) {
        struct step_report report;
        COE_TRY(trainer_step(t, &report));
        COE_TRY(monitor_step(t, &report));
        const bool last = t->step == r->steps;
        if (!last && due(t->step, r->eval_every)) COE_TRY(validate_and_log(t, false));
        if (coe_interrupted() && !last) {
            COE_TRY(save_all(t));
            return coe_fail(COE_E_FAILED, "stopped and saved after step %lld of %lld; continue with: coe train %s --resume", (long long)t->step,
                            (long long)r->steps, r->path);
        }
        if (!last && due(t->step, r->save_every)) COE_TRY(save_all(t));
    }
    COE_TRY(validate_and_log(t, true));
    return save_all(t);
}
