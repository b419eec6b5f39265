/* validate.c — the loss on the validation text, whole and by label. */
#include <math.h>
#include <string.h>

#include "train/internal.h"

/* Sums of one validation. */
struct tally {
    double nats;
    int64_t n_tokens;
    size_t part; /* where the next target lies; targets come in ascending order */
};

/* The label of the part that stream index `at` lies in. */
static struct label_loss *label_at(struct trainer *t, struct tally *sum, size_t at)
{
    const struct corpus *c = &t->valid;
    while (at >= c->parts[sum->part].end) sum->part++;
    return &t->labels[c->parts[sum->part].first_alike];
}

/* Windows first[0 … rows-1] in one forward pass. */
static coe_status forward_windows(struct trainer *t, const int64_t *first, int32_t rows, struct tally *sum)
{
    const int32_t n = t->off[rows];
    arena_rewind(&t->arena, (struct arena_mark){ 0 });
    struct nn c = { .arena = &t->arena };
    const struct attn_batch batch = { rows, t->off, t->pos0, t->r->boundaries ? t->start : NULL };
    struct forward f = { .batch = &batch, .task = t->task };
    const struct val *logits = model_forward(t->model, &c, t->input, n, &f);
    float *loss = logits ? arena_push(&t->arena, (size_t)n * sizeof *loss) : NULL;
    if (!loss) return coe_last_status();
    nn_xent_rows(logits->data, n, logits->cols, t->target, loss, NULL);
    for (int32_t row = 0; row < rows; row++)
        for (int32_t i = t->off[row]; i < t->off[row + 1]; i++) {
            const size_t target = (size_t)(first[row] * t->r->sequence + i - t->off[row] + 1);
            struct label_loss *label = label_at(t, sum, target);
            label->nats += (double)loss[i];
            label->n_tokens++;
            sum->nats += (double)loss[i];
            sum->n_tokens++;
        }
    return COE_OK;
}

/* Text bytes of a label for each of its tokens; the last end token predicts nothing. */
static double bytes_per_token(const struct corpus *c, int32_t alike)
{
    uint64_t bytes = 0;
    size_t tokens = 0;
    for (size_t i = 0; i < c->n_parts; i++) {
        if (alike >= 0 && c->parts[i].first_alike != alike) continue;
        bytes += c->parts[i].bytes;
        tokens += c->parts[i].end - (i ? c->parts[i - 1].end : 0) - (i + 1 == c->n_parts);
    }
    return (double)bytes / (double)tokens;
}

/* Sums become means; labels move to the front. */
static void finish(struct trainer *t, const struct tally *sum, struct validation *out)
{
    out->nats = sum->nats / (double)sum->n_tokens;
    out->bits_per_byte = out->nats / log(2) / bytes_per_token(&t->valid, -1);
    out->n_tokens = sum->n_tokens;
    out->label = t->labels;
    for (size_t i = 0; i < t->valid.n_parts; i++) {
        struct label_loss l = t->labels[i];
        if (t->valid.parts[i].first_alike != (int32_t)i) continue;
        l.label = t->valid.parts[i].label;
        l.nats = l.n_tokens ? l.nats / (double)l.n_tokens : NAN;
        l.bits_per_byte = l.nats / log(2) / bytes_per_token(&t->valid, (int32_t)i);
        t->labels[out->n_labels++] = l;
    }
}

coe_status trainer_validate(struct trainer *t, int64_t n_tokens, struct validation *out)
{
    const int64_t n = t->r->sequence, all = ((int64_t)t->valid.n - 1 + n - 1) / n;
    const int64_t wanted = n_tokens ? COE_MIN((n_tokens + n - 1) / n, all) : all;
    struct tally sum = { 0 };
    *out = (struct validation){ .whole = wanted == all };
    if (wanted < 1) return coe_fail(COE_E_INPUT, "%s: the validation text is empty", t->r->path);
    memset(t->labels, 0, t->valid.n_parts * sizeof *t->labels);
    int64_t *first = mem_alloc("batch", (size_t)t->r->micro_batch * sizeof *first);
    coe_status s = first ? COE_OK : COE_E_NOMEM;
    for (int64_t i = 0; i < wanted && !s;) {
        int32_t rows = 0;
        for (; rows < t->r->micro_batch && i < wanted; rows++, i++) {
            int32_t *off = &t->off[rows];
            first[rows] = i * all / wanted;
            off[0] = rows ? off[0] : 0;
            off[1] = off[0] + corpus_window(&t->valid, first[rows], (int32_t)n, t->input + off[0], t->target + off[0],
                                            t->start + off[0]);
            corpus_tasks(&t->valid, (size_t)(first[rows] * n), off[1] - off[0], t->task + off[0]);
        }
        s = forward_windows(t, first, rows, &sum);
    }
    mem_free(first);
    if (!s) finish(t, &sum, out);
    return s;
}
