/* Golden: every folder of fixtures/families whose model_type is registered, against the numbers of the reference:
 * logits of all sequences, hidden states, router logits, choices and weights of the first, the greedy continuation
 * through a session and, where there is a train/ folder, losses and every gradient. Files and tolerances:
 * fixtures/families/README.md. */
#include "support/golden.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "model/model.h"

#define LOGIT_TOL 2e-4    /* of the range of the reference's values */
#define GRADIENT_TOL 1e-4 /* of the length of the reference's tensor */

/* A model that a failed assertion leaves open is closed by the next one, or at the end. */
static struct coe_model *model;
static struct coe_session *session;

static void close_model(void)
{
    if (session) coe_session_close(session);
    if (model) model_close(model);
    session = NULL;
    model = NULL;
}

static const json_t *sequence_of(const json_t *doc, const char *key, size_t i)
{
    const json_t *s = json_array_get(json_object_get(doc, key), i);
    if (!json_is_array(s) || !json_array_size(s)) fail_msg("%s[%zu] is not a sequence of ids", key, i);
    return s;
}

static int32_t *ids_of(const json_t *list, int64_t *n)
{
    *n = (int64_t)json_array_size(list);
    int32_t *ids = test_alloc((size_t)*n * sizeof *ids);
    for (int64_t i = 0; i < *n; i++) ids[i] = (int32_t)json_integer_value(json_array_get(list, (size_t)i));
    return ids;
}

/* max |got - want| against LOGIT_TOL of want's range */
static void assert_within(const char *what, const float *got, const float *want, int64_t n)
{
    assert_close(what, got, want, n, LOGIT_TOL * range_of(want, n), 0);
}

/* What a forward pass showed, in the layout of the fixture's arrays. */
struct seen {
    const struct golden_folder *folder;
    int64_t n;
    int32_t n_records, n_hidden;
    struct array hidden, router, topk, topw;
};

static void on_hidden(void *user, int32_t index, const struct val *h)
{
    struct seen *s = user;
    char what[80];
    snprintf(what, sizeof what, "hidden state %d of sequence 0", index);
    assert_int_equal(h->cols, s->hidden.dim[2]);
    if (index >= s->hidden.dim[0])
        fail_msg("hidden.0.npy has %lld states, the model more", (long long)s->hidden.dim[0]);
    assert_within(what, h->data, s->hidden.f + (int64_t)index * s->n * h->cols, s->n * h->cols);
    s->n_hidden++;
}

/* Expected ids of a token, in any order where weights are equal; the weight of each. */
static void check_token(const struct seen *s, const struct route *r, int64_t t, int32_t record, double limit)
{
    const int64_t k = s->topk.dim[2], at = ((int64_t)record * s->n + t) * k;
    int32_t used = 0;
    for (int64_t j = 0; j < k; j++) {
        const int32_t id = s->topk.i[at + j];
        const double want = (double)s->topw.f[at + j];
        int32_t slot = r->tok_off[t];
        if (id < 0) continue; /* a slot that this layer does not use */
        while (slot < r->tok_off[t + 1] && r->expert[slot] != id) slot++;
        if (slot == r->tok_off[t + 1])
            fail_msg("router %d, token %lld: expert %d (weight %.6g) was not chosen", record, (long long)t, id, want);
        if (!(fabs((double)r->weight[slot] - want) <= limit))
            fail_msg("router %d, token %lld, expert %d: weight %.9g, expected %.9g", record, (long long)t, id,
                     (double)r->weight[slot], want);
        used++;
    }
    if (used != r->tok_off[t + 1] - r->tok_off[t])
        fail_msg("router %d, token %lld: %d experts chosen, expected %d", record, (long long)t,
                 r->tok_off[t + 1] - r->tok_off[t], used);
}

static void on_route(void *user, const struct route_record *r)
{
    struct seen *s = user;
    const int64_t experts = s->router.dim[2], at = (int64_t)s->n_records * s->n * experts;
    const int64_t weights = s->n * s->topw.dim[2];
    char what[80];
    if (s->n_records >= s->router.dim[0])
        fail_msg("router.0.npy has %lld routers, the model more", (long long)s->router.dim[0]);
    assert_int_equal(r->z->cols, experts);
    snprintf(what, sizeof what, "router logits %d of sequence 0", s->n_records);
    assert_within(what, r->z->data, s->router.f + at, s->n * experts);
    const double limit = LOGIT_TOL * range_of(s->topw.f + s->n_records * weights, weights) + 1e-6;
    for (int64_t t = 0; t < s->n; t++) check_token(s, &r->route, t, s->n_records, limit);
    s->n_records++;
}

static void load_seen(struct seen *s, const struct golden_folder *f)
{
    s->hidden = npy_array(golden_path(f, "hidden.0.npy"));
    if (!model_n_records(model)) return;
    s->router = npy_array(golden_path(f, "router.0.npy"));
    s->topk = npy_array(golden_path(f, "topk.0.npy"));
    s->topw = npy_array(golden_path(f, "topw.0.npy"));
}

static void check_sequence(const struct golden_folder *f, const int32_t *ids, int64_t n, size_t index, coe_mla mla)
{
    struct seen seen = { .folder = f, .n = n };
    if (!index) load_seen(&seen, f);
    const int32_t off[] = { 0, (int32_t)n };
    const int64_t pos0[] = { 0 }, vocab = model->spec.vocab;
    const struct attn_batch batch = { 1, off, pos0, NULL };
    const struct moe_observer observer = { .user = &seen, .route = seen.router.f ? on_route : NULL };
    struct forward pass = {
        .batch = &batch, .observer = &observer, .hidden = seen.hidden.f ? on_hidden : NULL, .hidden_user = &seen,
        .mla = mla
    };
    struct nn c = { .arena = test_arena() };
    const struct val *y = model_forward(model, &c, ids, n, &pass);
    if (!y) fail_msg("%s", coe_error());
    if (seen.router.f) assert_int_equal(seen.n_records, seen.router.dim[0]);
    if (seen.hidden.f) assert_int_equal(seen.n_hidden, seen.hidden.dim[0]);
    const struct array want = npy_array(golden_path(f, "logits.%zu.npy", index));
    char what[80];
    snprintf(what, sizeof what, "logits of sequence %zu", index);
    assert_int_equal(want.dim[0], n);
    assert_int_equal(want.dim[1], vocab);
    assert_within(what, y->data, want.f, n * vocab);
    for (int64_t t = 0; t < n; t++)
        if (arg_max(y->data + t * vocab, vocab) != arg_max(want.f + t * vocab, vocab))
            fail_msg("%s: arg-max at position %lld is %lld, expected %lld", what, (long long)t,
                     (long long)arg_max(y->data + t * vocab, vocab), (long long)arg_max(want.f + t * vocab, vocab));
}

static void check_greedy(const struct golden_folder *f, const int32_t *ids, int64_t n, coe_mla mla)
{
    int64_t count;
    const int32_t *want = ids_of(json_object_get(golden_json(f, "greedy.json"), "ids"), &count);
    const coe_session_opts opts = { .max_tokens = (int32_t)(n + count), .mla = mla };
    float *logits = test_alloc((size_t)model->spec.vocab * sizeof *logits);
    if (session) coe_session_close(session);
    session = NULL;
    assert_ok(coe_session_open(&session, model, &opts));
    assert_ok(coe_session_eval(session, ids, (size_t)n, logits, 1));
    for (int64_t i = 0; i < count; i++) {
        const int32_t got = (int32_t)arg_max(logits, model->spec.vocab);
        if (got != want[i]) fail_msg("greedy token %lld is %d, expected %d", (long long)i, got, want[i]);
        assert_ok(coe_session_eval(session, &got, 1, logits, 1));
    }
}

/* ---- train/ ---- */

/* The rows one after the other as one batch, the target of each position the next id of its row. */
struct rows {
    int32_t n_seq, *off, *ids, *target;
    int64_t *pos0, n;
};

static struct rows read_rows(const json_t *loss)
{
    const json_t *list = json_object_get(loss, "rows");
    struct rows r = { .n_seq = (int32_t)json_array_size(list) };
    r.off = test_alloc(((size_t)r.n_seq + 1) * sizeof *r.off);
    r.pos0 = test_alloc((size_t)r.n_seq * sizeof *r.pos0);
    for (int32_t i = 0; i < r.n_seq; i++)
        r.off[i + 1] = r.off[i] + (int32_t)json_array_size(json_array_get(list, (size_t)i));
    r.n = r.off[r.n_seq];
    r.ids = test_alloc((size_t)r.n * sizeof *r.ids);
    r.target = test_alloc((size_t)r.n * sizeof *r.target);
    for (int32_t i = 0; i < r.n_seq; i++) {
        int64_t n;
        memcpy(r.ids + r.off[i], ids_of(sequence_of(loss, "rows", (size_t)i), &n),
               (size_t)(r.off[i + 1] - r.off[i]) * sizeof *r.ids);
        for (int32_t t = r.off[i]; t < r.off[i + 1]; t++) r.target[t] = t + 1 < r.off[i + 1] ? r.ids[t + 1] : -1;
    }
    return r;
}

static double number(const json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }

static void check_losses(const json_t *want, double lm, double aux, double total)
{
    assert_near("lm_loss", lm, number(want, "lm_loss"), 1e-5 * fabs(number(want, "lm_loss")));
    if (!json_is_null(json_object_get(want, "aux_loss")))
        assert_near("aux_loss", aux, number(want, "aux_loss"), 1e-5 * fabs(number(want, "aux_loss")));
    assert_near("total_loss", lm + total, number(want, "total_loss"), 1e-5 * fabs(number(want, "total_loss")));
}

static void train_step(const json_t *want)
{
    const struct rows r = read_rows(want);
    const struct attn_batch batch = { r.n_seq, r.off, r.pos0, NULL };
    struct tape tape = { 0 };
    struct nn c = { .arena = test_arena(), .tape = &tape };
    const int32_t n_records = model_n_records(model);
    struct route_record **records = test_alloc((size_t)(n_records + 1) * sizeof *records);
    struct forward pass = { .batch = &batch, .records = records, .max_records = n_records };
    struct val *y = model_forward(model, &c, r.ids, r.n, &pass);
    if (!y) fail_msg("%s", coe_error());
    assert_int_equal(pass.n_records, n_records);
    double sum = 0, total = 0, aux[MAX_LOSSES];
    int64_t count = 0;
    assert_ok(nn_xent(&c, y, r.target, 1.0 / (double)(r.n - r.n_seq), 0, &sum, &count));
    assert_int_equal(count, r.n - r.n_seq);
    const struct loss_call call = { .c = &c, .records = records, .n_records = n_records, .batch = &batch, .scale = 1 };
    assert_ok(moe_losses(&call, &total, aux));
    check_losses(want, sum / (double)count, aux[0], total);
    assert_ok(nn_backward(&c));
}

/* Adds |got - want|² of the part of tensor t that parameter p is (fused experts: its slice) and counts the elements. */
static void add_error(const struct param *p, const struct tensor *t, double *error, int64_t *covered)
{
    const int64_t n = weight_count(&p->w), all = tensor_count(t);
    int64_t from = 0;
    if (n != all) {
        const int64_t slice = all / t->dim[0];
        from = p->at.expert * slice + (p->at.slot == SLOT_EXPERT_UP ? slice / 2 : 0);
    }
    assert_true(from + n <= all);
    for (int64_t i = 0; i < n; i++) {
        float want;
        widen(&want, (const char *)t->data + (size_t)(from + i) * (size_t)dtype_info[t->type].bytes, t->type, 1);
        *error += ((double)p->w.grad[i] - (double)want) * ((double)p->w.grad[i] - (double)want);
    }
    *covered += n;
}

static double square_length(const struct tensor *t)
{
    float *x = test_alloc((size_t)tensor_count(t) * sizeof *x);
    double sum = 0;
    widen(x, t->data, t->type, tensor_count(t));
    for (int64_t i = 0; i < tensor_count(t); i++) sum += (double)x[i] * (double)x[i];
    return sum;
}

static void check_gradients(const struct ckpt *want)
{
    for (size_t i = 0; i < ckpt_count(want); i++) {
        const struct tensor *t = ckpt_at(want, i);
        double error = 0;
        int64_t covered = 0;
        for (size_t j = 0; j < model->n_params; j++)
            if (!strcmp(model->params[j].w.name, t->name)) add_error(&model->params[j], t, &error, &covered);
        if (covered != tensor_count(t))
            fail_msg("gradient of %s: %lld elements expected, %lld in the model", t->name, (long long)tensor_count(t),
                     (long long)covered);
        const double norm = sqrt(square_length(t));
        if (!(sqrt(error) <= GRADIENT_TOL * norm))
            fail_msg("gradient of %s: off by %.3g of its length %.4g, allowed %g", t->name, sqrt(error) / norm, norm,
                     GRADIENT_TOL);
    }
}

static void check_training(const struct golden_folder *f)
{
    const json_t *want = golden_json(f, "train/loss.json");
    assert_ok(model_make_trainable(model, NULL));
    train_step(want);
    check_gradients(golden_ckpt(f, "train/grads.safetensors"));
    struct optim_param *all = test_alloc(model->n_params * sizeof *all);
    for (size_t i = 0; i < model->n_params; i++) all[i].w = &model->params[i].w;
    const double norm = number(want, "gradient_norm");
    assert_near("gradient_norm", optim_grad_norm(all, model->n_params), norm, GRADIENT_TOL * norm);
}

static void family(const struct golden_folder *f)
{
    close_model();
    const json_t *inputs = golden_json(f, "inputs.json");
    int64_t n;
    assert_ok(model_open(&model, f->path));
    for (size_t i = 0; i < json_array_size(json_object_get(inputs, "sequences")); i++) {
        const int32_t *ids = ids_of(sequence_of(inputs, "sequences", i), &n);
        const bool greedy = !i && !access(golden_path(f, "greedy.json"), R_OK);
        check_sequence(f, ids, n, i, COE_MLA_ABSORBED);
        if (greedy) check_greedy(f, ids, n, COE_MLA_ABSORBED);
        if (!model_mla_name(model, COE_MLA_EXPANDED)) continue;
        check_sequence(f, ids, n, i, COE_MLA_EXPANDED);
        if (greedy) check_greedy(f, ids, n, COE_MLA_EXPANDED);
    }
    if (!access(golden_path(f, "train/loss.json"), R_OK)) check_training(f);
    close_model();
}

/* Folders of families nobody registered are without a test; those that are not models are not folders of this kind. */
static golden_fn *choose(struct golden_folder *f)
{
    const struct part *part;
    if (access(golden_path(f, "config.json"), R_OK)) return NULL;
    const json_t *config = golden_peek(f, "config.json");
    return config && family_find(&part, config, f->label) ? golden_without : family;
}

int main(void)
{
    const int failed = golden_run("golden/families", "families", choose);
    close_model();
    return failed;
}
