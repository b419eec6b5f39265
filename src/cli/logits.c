/* logits.c — `coe logits`: the numbers behind a token sequence, as NumPy arrays. */
#include <string.h>

#include "base/file.h"
#include "cli/model_args.h"

struct collect {
    const struct coe_model *m;
    int64_t n;         /* tokens */
    float *hidden;     /* [L+1, T, d] or NULL */
    float *z, *topw;   /* [M, T, E], [M, T, k] */
    int32_t *topk;
    int32_t n_records, max_experts, max_k;
};

static void on_hidden(void *user, int32_t index, const struct val *h)
{
    struct collect *c = user;
    memcpy(c->hidden + (int64_t)index * c->n * h->cols, h->data, (size_t)(c->n * h->cols) * sizeof(float));
}

static void on_route(void *user, const struct route_record *r)
{
    struct collect *c = user;
    const struct route *rt = &r->route;
    for (int64_t t = 0; t < c->n; t++) {
        const int64_t row = (int64_t)c->n_records * c->n + t;
        memcpy(c->z + row * c->max_experts, r->z->data + t * r->z->cols, (size_t)r->z->cols * sizeof(float));
        for (int32_t j = 0; j < rt->tok_off[t + 1] - rt->tok_off[t]; j++) {
            c->topk[row * c->max_k + j] = rt->expert[rt->tok_off[t] + j];
            c->topw[row * c->max_k + j] = rt->weight[rt->tok_off[t] + j];
        }
    }
    c->n_records++;
}

static coe_status read_ids(const char *path, int32_t vocab, int32_t **out, int64_t *n)
{
    struct npy a;
    COE_TRY(npy_read(&a, path));
    coe_status s = COE_OK;
    *n = a.n_dims == 1 ? a.dim[0] : 0;
    *out = NULL;
    if (a.n_dims != 1 || (a.type != DT_I32 && a.type != DT_I64)) {
        s = coe_fail(COE_E_INPUT, "%s: %d dimensions of %s, expected int32 or int64 [T]", path, a.n_dims,
                     dtype_info[a.type].name);
        goto out;
    }
    if (*n < 1) {
        s = coe_fail(COE_E_INPUT, "%s: holds no token", path);
        goto out;
    }
    if (!(*out = mem_alloc("token ids", (size_t)*n * sizeof **out))) {
        s = COE_E_NOMEM;
        goto out;
    }
    for (int64_t i = 0; i < *n; i++) {
        const int64_t id = a.type == DT_I32 ? ((const int32_t *)a.data)[i] : ((const int64_t *)a.data)[i];
        if (id < 0 || id >= vocab) {
            s = coe_fail(COE_E_INPUT, "%s: token id %lld at position %lld is outside the vocabulary of %d", path,
                         (long long)id, (long long)i, vocab);
            goto out;
        }
        (*out)[i] = (int32_t)id;
    }
out:
    if (s) mem_free(*out), *out = NULL;
    npy_free(&a);
    return s;
}

static coe_status write_in(const char *dir, const char *name, enum dtype type, int32_t n_dims, const int64_t *dim,
                           const void *data)
{
    char *path = path_join(dir, name);
    if (!path) return COE_E_NOMEM;
    coe_status s = npy_write(path, type, n_dims, dim, data);
    mem_free(path);
    return s;
}

static coe_status make_collect(struct collect *c, bool hidden, bool routes)
{
    const struct spec *s = &c->m->spec;
    int32_t of_heads = 0; /* decisions that no loss sees */
    for (int32_t l = 0; l < s->n_layers; l++) {
        const struct moe_spec *of_attention = &s->layer[l].attn.moe, *m = &s->layer[l].moe;
        const enum mixer kind = s->layer[l].attn.kind;
        of_heads += kind == MIX_HEADS;
        if (kind == MIX_EXPERTS || kind == MIX_HEADS) {
            c->max_experts = COE_MAX(c->max_experts, of_attention->n_experts);
            c->max_k = COE_MAX(c->max_k, moe_max_choices(of_attention));
        }
        if (!s->layer[l].is_moe) continue;
        c->max_experts = COE_MAX(c->max_experts, m->n_experts);
        c->max_k = COE_MAX(c->max_k, moe_max_choices(m));
    }
    const size_t records = (size_t)(model_n_records(c->m) + of_heads) * (size_t)c->n;
    if (hidden && !(c->hidden = mem_zalloc("hidden states", (size_t)(s->n_layers / s->layers_per_block + 1) *
                                                                (size_t)c->n * (size_t)s->d_model * sizeof(float))))
        return COE_E_NOMEM;
    if (!routes) return COE_OK;
    c->z = mem_zalloc("routes", records * (size_t)c->max_experts * sizeof(float) + 1);
    c->topw = mem_zalloc("routes", records * (size_t)c->max_k * sizeof(float) + 1);
    c->topk = mem_alloc("routes", records * (size_t)c->max_k * sizeof(int32_t) + 1);
    if (!c->z || !c->topw || !c->topk) return COE_E_NOMEM;
    memset(c->topk, 0xFF, records * (size_t)c->max_k * sizeof(int32_t)); /* -1: no expert in this slot */
    return COE_OK;
}

static coe_status write_routes(const struct collect *c, const char *dir)
{
    const int64_t z[] = { c->n_records, c->n, c->max_experts }, k[] = { c->n_records, c->n, c->max_k };
    COE_TRY(dir_make(dir));
    COE_TRY(write_in(dir, "router.npy", DT_F32, 3, z, c->z));
    COE_TRY(write_in(dir, "topk.npy", DT_I32, 3, k, c->topk));
    return write_in(dir, "topw.npy", DT_F32, 3, k, c->topw);
}

static coe_status write_hidden(const struct collect *c, const char *dir)
{
    const int64_t dim[] = { c->m->spec.n_layers / c->m->spec.layers_per_block + 1, c->n, c->m->spec.d_model };
    COE_TRY(dir_make(dir));
    return write_in(dir, "hidden.npy", DT_F32, 3, dim, c->hidden);
}

static coe_status compute(struct collect *c, const int32_t *ids, struct cli *cli)
{
    struct arena arena = { 0 };
    const int32_t off[] = { 0, (int32_t)c->n };
    const int64_t pos0[] = { 0 };
    const struct attn_batch batch = { 1, off, pos0, NULL };
    const struct moe_observer observer = { .user = c, .route = on_route };
    struct forward f = { .batch = &batch, .observer = c->z ? &observer : NULL, .hidden = c->hidden ? on_hidden : NULL,
                         .hidden_user = c };
    struct nn nn = { .arena = &arena };
    COE_TRY(cli_mla(cli, c->m, &f.mla));
    COE_TRY(cli_kv(cli, &f.kv_type));
    COE_TRY(cli_math(cli, &nn.math));
    const struct val *y = model_forward(c->m, &nn, ids, c->n, &f);
    coe_status s = y ? COE_OK : coe_last_status();
    const int64_t dim[] = { c->n, c->m->spec.vocab };
    if (!s && cli_str(cli, "output", NULL)) s = npy_write(cli_str(cli, "output", NULL), DT_F32, 2, dim, y->data);
    if (!s && c->hidden) s = write_hidden(c, cli_str(cli, "hidden", ""));
    if (!s && c->z) s = write_routes(c, cli_str(cli, "routes", ""));
    arena_free(&arena);
    return s;
}

static coe_status run(struct cli *cli)
{
    struct coe_model *m = NULL;
    struct collect c = { 0 };
    int32_t *ids = NULL;
    if (!cli_given(cli, "ids")) return coe_fail(COE_E_USAGE, "--ids IDS.npy is needed");
    if (!cli_given(cli, "output") && !cli_given(cli, "hidden") && !cli_given(cli, "routes"))
        return coe_fail(COE_E_USAGE, "nothing to write: give -o OUT.npy, --hidden DIR or --routes DIR");
    coe_status s = cli_open_model(cli, 0, &m);
    c.m = m;
    if (!s) s = read_ids(cli_str(cli, "ids", NULL), m->spec.vocab, &ids, &c.n);
    if (!s) s = make_collect(&c, cli_given(cli, "hidden"), cli_given(cli, "routes"));
    if (!s) s = compute(&c, ids, cli);
    mem_free(c.hidden);
    mem_free(c.z);
    mem_free(c.topw);
    mem_free(c.topk);
    mem_free(ids);
    model_close(m);
    return s;
}

static const struct cli_opt opts[] = {
    { "ids", 'i', OPT_STR, "IDS.npy", "token ids, int32 or int64 [T]", 0, 0, false },
    { "output", 'o', OPT_STR, "OUT.npy", "logits, float32 [T, vocab]", 0, 0, false },
    { "hidden", 0, OPT_STR, "DIR", "write hidden.npy [layers+1, T, d]: the stream before each layer and after the last",
      0, 0, false },
    { "routes", 0, OPT_STR, "DIR",
      "write router.npy [M, T, E], topk.npy and topw.npy [M, T, k]; M = MoE layer and iteration", 0, 0, false },
    CLI_PLAN, CLI_ADAPTER, CLI_ROUTE, CLI_MLA, CLI_KV, CLI_MATH, CLI_THREADS, CLI_MEMORY,
};
static const struct verb verb = {
    .usage = "MODEL --ids IDS.npy -o OUT.npy",
    .opts = opts,
    .n_opts = COE_COUNT(opts),
    .min_args = 1,
    .max_args = 1,
    .details =
        "Runs the model over one token sequence from position 0 and writes what it computed. In topk.npy -1 marks\n"
        "a slot that the layer does not use.",
    .example = "  coe logits models/tales --ids ids.npy -o logits.npy --routes routes/",
    .run = run
};
COE_PART(verb, logits, .summary = "logits, hidden states and routes of a token sequence, as .npy", .impl = &verb)
