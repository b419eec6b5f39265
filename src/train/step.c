/* step.c — one optimiser step.
 *
 * For each micro-batch forward, losses, backward (gradients add up); then clipping, AdamW, the bias controller. The
 * loss is the mean over all targets of the step, auxiliary losses the mean over its micro-batches. */
#include <math.h>
#include <string.h>

#include "train/internal.h"

static coe_status fill_batch(struct trainer *t, int64_t first_row)
{
    const int32_t n = t->r->sequence;
    t->off[0] = 0;
    for (int32_t i = 0; i < t->r->micro_batch; i++) {
        COE_TRY(
            corpus_row(&t->train, t->r->seed, first_row + i, n, t->input + i * n, t->target + i * n, t->start + i * n));
        corpus_tasks(&t->train, corpus_row_at(&t->train, t->r->seed, first_row + i, n), n, t->task + i * n);
        t->off[i + 1] = (i + 1) * n;
    }
    return COE_OK;
}

static void add_counts(struct trainer *t, int32_t n_records)
{
    for (int32_t i = 0; i < n_records; i++) {
        moe_add_counts(t->records[i], t->counts + (int64_t)i * t->max_experts);
        t->slots += t->records[i]->route.n_slots;
        t->routed += t->records[i]->route.n_tokens;
    }
}

/* One forward pass over the micro-batch with its draws numbered `index`; objective and routing losses are recorded. */
static struct val *forward_once(struct trainer *t, struct nn *c, const struct attn_batch *batch, int32_t index,
                                struct forward *f)
{
    c->dropout_index = (uint32_t)index << 10;
    *f = (struct forward){ .batch = batch, .task = t->task, .records = t->records, .max_records = t->n_records,
                           .projection_records = t->projection_records, .max_projection_records = t->n_projections };
    return model_forward(t->model, c, t->input, (int64_t)t->r->micro_batch * t->r->sequence, f);
}

/* What the routing of one pass adds; its counts join those of the step. */
static coe_status routing_losses(struct trainer *t, struct nn *c, const struct forward *f, int64_t n_seen,
                                 struct step_report *out)
{
    const int32_t n_micro = t->r->batch / t->r->micro_batch;
    const struct loss_call losses = { .c = c,
                                      .records = t->records,
                                      .n_records = f->n_records,
                                      .batch = f->batch,
                                      .scale = 1.0 / n_micro,
                                      .step_counts = n_seen ? t->counts : NULL,
                                      .step_stride = t->max_experts,
                                      .step_tokens = (uint64_t)n_seen };
    double aux;
    COE_TRY(moe_losses(&losses, &aux, NULL));
    add_counts(t, f->n_records);
    out->aux += aux / n_micro;
    if (!f->n_projection_records) return COE_OK;
    struct loss_call beside = losses;
    beside.records = t->projection_records;
    beside.n_records = f->n_projection_records;
    beside.step_counts = NULL;
    COE_TRY(moe_losses(&beside, &aux, NULL));
    out->aux += aux / n_micro;
    return COE_OK;
}

/* With a consistency weight the tokens go through the network twice, and a second loss asks both for one answer. */
static coe_status micro_step(struct trainer *t, int32_t index, struct step_report *out)
{
    const struct recipe *r = t->r;
    const int32_t n_micro = r->batch / r->micro_batch, passes = r->consistency > 0 ? 2 : 1;
    const int64_t n = (int64_t)r->micro_batch * r->sequence;
    const double share = 1.0 / (double)(n * n_micro);
    COE_TRY(fill_batch(t, t->step * r->batch + (int64_t)index * r->micro_batch));
    arena_rewind(&t->arena, (struct arena_mark){ 0 });
    struct tape tape = { 0 };
    struct nn c = {
        .arena = &t->arena, .tape = &tape, .dropout = (float)r->dropout, .seed = r->seed, .step = (uint64_t)t->step
    };
    const struct attn_batch batch = { r->micro_batch, t->off, t->pos0, r->boundaries ? t->start : NULL };
    struct val *logits[2] = { 0 };
    double sum, apart = 0;
    int64_t count;
    for (int32_t pass = 0; pass < passes; pass++) {
        struct forward f;
        if (!(logits[pass] = forward_once(t, &c, &batch, index + pass * n_micro, &f))) return coe_last_status();
        COE_TRY(routing_losses(t, &c, &f, (index * passes + pass) * n, out));
    }
    if (passes == 2) COE_TRY(nn_consistency(&c, logits[0], logits[1], t->target, r->consistency * share, &apart));
    for (int32_t pass = 0; pass < passes; pass++) {
        COE_TRY(nn_xent(&c, logits[pass], t->target, share, r->z_loss / n_micro, &sum, &count));
        out->loss += sum * share / passes;
    }
    COE_TRY(nn_backward(&c));
    out->aux += r->consistency * apart * share;
    out->tokens += n;
    return COE_OK;
}

/* What the new prices do to the tokens of the last micro-batch, all layers and passes together. */
static coe_status report_prices(struct trainer *t, const struct route_record *r, const float *before,
                                struct step_report *out)
{
    struct price_report p;
    COE_TRY(moe_price_report(&t->arena, r->p, r->z->rows, r->route.n_experts, r->spec->router.top_k, before,
                             r->selection_bias->master, &p));
    out->priced += r->z->rows;
    out->switches += p.switches;
    out->lagrangian += p.lagrangian;
    return COE_OK;
}

static coe_status update_biases(struct trainer *t, struct step_report *out)
{
    int32_t record = 0;
    for (int32_t l = 0; l < t->model->spec.n_layers; l++) {
        const struct layer_spec *s = &t->model->spec.layer[l];
        for (int32_t i = 0; s->is_moe && i < s->moe.chain.n_iterations; i++, record++) {
            const struct weight *b = t->model->layer[l].moe.selection_bias[i];
            if (!b || !b->master || !(s->moe.bias_update > 0)) continue;
            float *before = arena_push(&t->arena, (size_t)s->moe.n_experts * sizeof *before);
            if (!before) return COE_E_NOMEM;
            memcpy(before, b->master, (size_t)s->moe.n_experts * sizeof *before);
            moe_price_update(b->master, t->counts + (int64_t)record * t->max_experts, &s->moe, t->step);
            if (step_is_logged(t->r, t->step)) COE_TRY(report_prices(t, t->records[record], before, out));
        }
    }
    return COE_OK;
}

static void load_report(struct trainer *t, struct step_report *out)
{
    int32_t record = 0;
    const uint64_t tokens = (uint64_t)out->tokens * (t->r->consistency > 0 ? 2 : 1);
    for (int32_t l = 0; l < t->model->spec.n_layers; l++) {
        const struct layer_spec *s = &t->model->spec.layer[l];
        for (int32_t i = 0; s->is_moe && i < s->moe.chain.n_iterations; i++, record++) {
            const struct load_stats load =
                load_statistics(t->counts + (int64_t)record * t->max_experts, s->moe.n_experts);
            out->load.cv = COE_MAX(out->load.cv, load.cv);
            out->load.max_vio = COE_MAX(out->load.max_vio, load.max_vio);
            out->load.avg_vio = COE_MAX(out->load.avg_vio, load.avg_vio);
            out->load.entropy = record ? COE_MIN(out->load.entropy, load.entropy) : load.entropy;
            out->load.dead += load.dead;
            const uint64_t *counts = t->counts + (int64_t)record * t->max_experts;
            const double groups = load_imbalance(counts, s->moe.n_experts, s->moe.router.n_group, tokens);
            out->load.imbalance = COE_MAX(out->load.imbalance, groups);
        }
    }
}

coe_status trainer_step(struct trainer *t, struct step_report *out)
{
    const struct recipe *r = t->r;
    const double began = coe_now();
    *out = (struct step_report){ 0 };
    model_zero_grad(t->model);
    t->slots = t->routed = 0;
    memset(t->counts, 0, (size_t)t->n_records * (size_t)t->max_experts * sizeof *t->counts);
    for (int32_t i = 0; i < r->batch / r->micro_batch; i++) COE_TRY(micro_step(t, i, out));
    out->grad_norm = optim_grad_norm(t->params, t->n_params);
    if (!isfinite(out->loss) || !isfinite(out->grad_norm))
        return coe_fail(COE_E_FAILED,
                        "step %lld: loss %g, gradient norm %g; the last saved state is intact, try a lower lr",
                        (long long)t->step + 1, out->loss, out->grad_norm);
    out->lr = schedule_lr(r, t->step);
    t->step++;
    const struct adamw_args args = { .lr = (float)out->lr,
                                     .beta1 = (float)r->beta1,
                                     .beta2 = (float)r->beta2,
                                     .eps = (float)r->eps,
                                     .weight_decay = (float)r->weight_decay,
                                     .correction1 = (float)(1 - pow(r->beta1, (double)t->step)),
                                     .correction2 = (float)(1 - pow(r->beta2, (double)t->step)),
                                     .grad_scale = r->clip > 0 && out->grad_norm > r->clip
                                                       ? (float)(r->clip / out->grad_norm)
                                                       : 1.0f };
    optim_adamw(t->params, t->n_params, &args);
    COE_TRY(update_biases(t, out));
    load_report(t, out);
    out->active = t->routed ? (double)t->slots / (double)t->routed : 0;
    out->step = t->step;
    out->seconds = coe_now() - began;
    t->tokens += out->tokens;
    t->seconds += out->seconds;
    t->loss = out->loss;
    return COE_OK;
}
