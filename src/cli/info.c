/* info.c — `coe info`: what a model is, how large, and what it weighs on disk. */
#include "cli/info.h"

#include <stdio.h>
#include <string.h>

#include "cli/model_args.h"
#include "model/gguf.h"
#include "model/stored.h"

/* Bytes on disk by class of tensor and storage type. */
struct weights {
    struct type_bytes by_class[CLASS_COUNT];
    uint64_t total[CLASS_COUNT];
};

/* As the file has it, whatever opening made of it. */
static enum dtype type_on_disk(const struct coe_model *m, const struct param *p)
{
    const enum dtype packed = param_packed_type(m, p);
    return packed != DT_COUNT ? packed : p->stored->type;
}

static void weigh(const struct coe_model *m, struct weights *w)
{
    for (size_t i = 0; i < m->n_params; i++) {
        const struct param *p = &m->params[i];
        const enum dtype type = type_on_disk(m, p);
        uint64_t bytes = 0;
        (void)dtype_bytes(type, (uint64_t)weight_count(&p->w), &bytes); /* fits: it is mapped */
        w->by_class[slot_info[p->at.slot].class].of[type] += bytes;
        w->total[slot_info[p->at.slot].class] += bytes;
    }
}

static int32_t count_moe(const struct spec *s)
{
    int32_t n = 0;
    for (int32_t l = 0; l < s->n_layers; l++) n += s->layer[l].is_moe;
    return n;
}

static const struct moe_spec *first_moe(const struct spec *s)
{
    for (int32_t l = 0; l < s->n_layers; l++)
        if (s->layer[l].is_moe) return &s->layer[l].moe;
    return NULL;
}

/* ---- as text ---- */

/* "12 to 16" where layers differ */
static void print_range(const struct spec *s, int32_t (*of)(const struct moe_spec *))
{
    int32_t lo = INT32_MAX, hi = 0;
    for (int32_t l = 0; l < s->n_layers; l++) {
        if (!s->layer[l].is_moe) continue;
        lo = COE_MIN(lo, of(&s->layer[l].moe));
        hi = COE_MAX(hi, of(&s->layer[l].moe));
    }
    if (lo == hi)
        printf("%d", lo);
    else
        printf("%d to %d", lo, hi);
}

static int32_t experts_of(const struct moe_spec *m) { return m->n_experts; }
static int32_t top_k_of(const struct moe_spec *m) { return m->router.top_k; }

/* "gru (width 64)" */
static void print_part(const char *kind, const char *name, const double *param)
{
    const struct part_param *p = part_find(kind, name)->params;
    printf("%s", name);
    for (int i = 0; p && p[i].name; i++) {
        printf("%s%s ", i ? ", " : " (", p[i].name);
        if (p[i].choices)
            printf("%s", p[i].choices[(int)param[i]]);
        else
            printf("%g", param[i]);
    }
    if (p) putchar(')');
}

static void print_router(const struct router_spec *r)
{
    if (!strcmp(r->kind, "linear") && r->kind_param[0] == 1 && !strcmp(r->selection, "top_k")) return;
    printf("  router        ");
    print_part("router", r->kind, r->kind_param);
    printf("; selection ");
    print_part("selection", r->selection, r->param);
    putchar('\n');
}

/* "8 ffn of width 256, 2 lora (rank 8, alpha 16), 1 null" where experts are not all of kind ffn and one width */
static void print_kinds(const struct moe_spec *m)
{
    struct expert_range r[MAX_RANGES];
    const int32_t n = moe_ranges(m, r);
    if (n == 1 && !strcmp(r[0].kind, "ffn")) return;
    printf("  kinds         ");
    for (int32_t i = 0; i < n; i++) {
        printf("%s%d ", i ? ", " : "", r[i].n);
        print_part("expert", r[i].kind, r[i].param);
        if (r[i].ffn) printf(" of width %d", r[i].ffn);
    }
    putchar('\n');
}

static void print_pool(const struct moe_spec *m)
{
    const struct pool_spec *p = &m->pool;
    if (p->layers <= 1) return;
    printf("  pool          %d layers share the %d experts that they store", p->layers, m->n_experts);
    if (p->to) printf("; in training all are seen from step %d on", p->to);
    putchar('\n');
}

static json_t *kinds_json(const struct moe_spec *m)
{
    struct expert_range r[MAX_RANGES];
    json_t *list = json_array();
    for (int32_t i = 0, n = moe_ranges(m, r); i < n; i++)
        json_array_append_new(list, json_pack("{s:s, s:i, s:i}", "kind", r[i].kind, "n", r[i].n, "width", r[i].ffn));
    return list;
}

static void print_experts(const struct spec *s)
{
    const struct moe_spec *m = first_moe(s);
    if (!m) return;
    printf("  experts       ");
    print_range(s, experts_of);
    printf(" a layer, %s %d wide, top-", m->n_ranges > 1 ? "up to" : "each", m->expert_ffn);
    print_range(s, top_k_of);
    printf(" of the %s%s", score_name[m->router.score], m->router.renormalize ? ", renormalised" : "");
    if (m->shared_ffn) printf("; a shared expert of width %d", m->shared_ffn);
    putchar('\n');
    print_kinds(m);
    print_pool(m);
    print_router(&m->router);
    const struct chain_spec *c = &m->chain;
    if (c->n_iterations > 1)
        printf("  chain         %d passes, %s, %s residual%s\n", c->n_iterations,
               c->shared_gate ? "one router" : "a router each", residual_name[c->residual],
               c->learned_weight ? ", learned weight" : "");
}

static void print_classes(const struct spec_sizes *sizes, const struct weights *w)
{
    char text[32];
    printf("\n  %-10s %14s %12s  types\n", "class", "parameters", "bytes");
    for (int i = 0; i < CLASS_COUNT; i++) {
        if (!sizes->by_class[i]) continue;
        printf("  %-10s %14lld %12s  ", class_name[i], (long long)sizes->by_class[i], cli_bytes(w->total[i], text));
        info_print_types(&w->by_class[i]);
        putchar('\n');
    }
}

static void print_model(const struct coe_model *m, const struct spec_sizes *sizes, const struct weights *w,
                        const char *hex)
{
    const struct spec *s = &m->spec;
    const struct attn_spec *a = &s->layer[0].attn;
    char text[32];
    printf("%s: %s\n", m->path, m->family_part->summary);
    printf("  family        %s\n", s->family);
    printf("  layers        %d, %d of them with experts\n", s->n_layers, count_moe(s));
    printf("  width         %d; %d heads of %d over %d key/value heads; context %lld\n", s->d_model, a->n_heads,
           a->head_dim, a->n_kv_heads, (long long)s->max_positions);
    if (a->kind == MIX_HEADS)
        printf("  attention     a token takes part in %d of the key heads (%s)\n", a->moe.router.top_k,
               a->moe.router.selection);
    if (model_mla_name(m, COE_MLA_ABSORBED))
        printf("  mla           %s (run, eval, logits and bench take --mla expanded)\n",
               model_mla_name(m, COE_MLA_ABSORBED));
    print_experts(s);
    printf("  parameters    %.2f million, %.2f million active for a token (%.1f%%)\n", (double)sizes->total / 1e6,
           (double)sizes->active / 1e6, 100.0 * (double)sizes->active / (double)sizes->total);
    printf("  weights       %s\n", cli_bytes(ckpt_bytes(m->ckpt), text));
    printf("  vocabulary    %d", s->vocab);
    if (m->tokenizer) {
        char tok[17];
        tokenizer_fingerprint(m->tokenizer, tok);
        printf("; tokenizer of %d, fingerprint %s\n", tokenizer_vocab_size(m->tokenizer), tok);
    } else {
        printf("; no tokenizer\n");
    }
    printf("  fingerprint   %s\n", hex);
    print_classes(sizes, w);
}

/* ---- as JSON ---- */

static json_t *experts_json(const struct spec *s)
{
    const struct moe_spec *m = first_moe(s);
    if (!m) return json_null();
    json_t *experts = json_array(), *top_k = json_array();
    for (int32_t l = 0; l < s->n_layers; l++) {
        const struct layer_spec *layer = &s->layer[l];
        json_array_append_new(experts, json_integer(layer->is_moe ? layer->moe.n_experts : 0));
        json_array_append_new(top_k, json_integer(layer->is_moe ? layer->moe.router.top_k : 0));
    }
    json_t *chain = json_pack("{s:i, s:s, s:s, s:s}", "iterations", m->chain.n_iterations, "gate",
                              m->chain.shared_gate ? "shared" : "independent", "residual",
                              residual_name[m->chain.residual], "weight", m->chain.learned_weight ? "learned" : "one");
    return json_pack("{s:o, s:o, s:o, s:i, s:i, s:s, s:s, s:s, s:b, s:f, s:i, s:o}", "per_layer", experts, "top_k",
                     top_k, "kinds", kinds_json(m), "pool_layers", COE_MAX(m->pool.layers, 1), "width", m->expert_ffn,
                     "router", m->router.kind, "selection", m->router.selection, "score",
                     score_name[m->router.score], "renormalize", m->router.renormalize, "scale",
                     (double)m->router.scale, "shared_width", m->shared_ffn, "chain", chain);
}

static json_t *sizes_json(const struct spec_sizes *sizes)
{
    json_t *by_class = json_object();
    for (int i = 0; i < CLASS_COUNT; i++)
        if (sizes->by_class[i]) json_object_set_new(by_class, class_name[i], json_integer(sizes->by_class[i]));
    return json_pack("{s:I, s:I, s:o}", "total", (json_int_t)sizes->total, "active", (json_int_t)sizes->active,
                     "by_class", by_class);
}

static json_t *bytes_json(const struct coe_model *m, const struct weights *w)
{
    json_t *by_class = json_object();
    for (int i = 0; i < CLASS_COUNT; i++)
        if (w->total[i]) json_object_set_new(by_class, class_name[i], info_types_json(&w->by_class[i]));
    return json_pack("{s:I, s:o}", "total", (json_int_t)ckpt_bytes(m->ckpt), "by_class", by_class);
}

static json_t *tokenizer_json(const struct coe_model *m)
{
    char hex[17];
    if (!m->tokenizer) return json_null();
    tokenizer_fingerprint(m->tokenizer, hex);
    return json_pack("{s:i, s:s}", "vocab", tokenizer_vocab_size(m->tokenizer), "fingerprint", hex);
}

static json_t *model_json(const struct coe_model *m, const struct spec_sizes *sizes, const struct weights *w,
                          const char *hex)
{
    const struct spec *s = &m->spec;
    const struct attn_spec *a = &s->layer[0].attn;
    json_t *attention = json_pack("{s:i, s:i, s:i, s:s?}", "heads", a->n_heads, "kv_heads", a->n_kv_heads, "head_dim",
                                  a->head_dim, "mla", model_mla_name(m, COE_MLA_ABSORBED));
    return json_pack("{s:o, s:s, s:s, s:i, s:i, s:i, s:i, s:I, s:o, s:o, s:o, s:o, s:o, s:s}", "path",
                     cli_json_text(m->path, strlen(m->path)), "format",
                     ckpt_gguf(m->ckpt) ? "gguf" : "safetensors", "family", s->family, "layers",
                     s->n_layers, "moe_layers", count_moe(s), "d_model", s->d_model, "vocab", s->vocab, "context",
                     (json_int_t)s->max_positions, "attention", attention, "experts", experts_json(s), "parameters",
                     sizes_json(sizes), "bytes", bytes_json(m, w), "tokenizer", tokenizer_json(m), "fingerprint", hex);
}

/* ---- the ledger ---- */

static void print_tag(void *user, const char *tag, uint64_t bytes)
{
    char text[32];
    (void)user;
    printf("  %-28s %12s\n", tag, cli_bytes(bytes, text));
}

static void add_tag(void *user, const char *tag, uint64_t bytes)
{
    json_object_set_new(user, tag, json_integer((json_int_t)bytes));
}

/* What an open model and one session of it hold; the weights are mapped and not among it. */
static coe_status ledger(struct cli *c, const struct coe_model *m, json_t *into)
{
    coe_session *session = NULL;
    coe_session_opts opts = { 0 };
    COE_TRY(cli_kv(c, &opts.kv));
    COE_TRY(coe_session_open(&session, m, &opts));
    if (into) {
        json_t *o = json_object();
        mem_ledger(add_tag, o);
        json_object_set_new(into, "memory", o);
        json_object_set_new(into, "kv", json_string(model_kv_name(opts.kv)));
    } else {
        printf("\n  memory of the open model and a session of %lld tokens, kv %s (weights are mapped, not counted)\n",
               (long long)session->capacity, model_kv_name(opts.kv));
        mem_ledger(print_tag, NULL);
    }
    coe_session_close(session);
    return COE_OK;
}

static coe_status print_all(struct cli *c, const struct coe_model *m, const struct weights *w, const char *hex,
                            json_t *metadata)
{
    const struct spec_sizes sizes = spec_sizes(&m->spec);
    print_model(m, &sizes, w, hex);
    if (cli_flag(c, "memory")) COE_TRY(ledger(c, m, NULL));
    if (metadata) putchar('\n');
    if (metadata) info_print_metadata(metadata);
    if (!cli_flag(c, "tensors")) return COE_OK;
    putchar('\n');
    info_tensors(m->ckpt);
    return COE_OK;
}

static coe_status print_all_json(struct cli *c, const struct coe_model *m, const struct weights *w, const char *hex,
                                 json_t *metadata)
{
    const struct spec_sizes sizes = spec_sizes(&m->spec);
    json_t *o = model_json(m, &sizes, w, hex);
    if (!o) return coe_fail(COE_E_NOMEM, "%s: no memory for the JSON result", m->path);
    coe_status s = cli_flag(c, "memory") ? ledger(c, m, o) : COE_OK;
    if (metadata) json_object_set(o, "metadata", metadata);
    if (!s && cli_flag(c, "tensors")) json_object_set_new(o, "tensor_list", info_tensors_json(m->ckpt));
    if (s) json_decref(o);
    else cli_print_json(o);
    return s;
}

static coe_status info_model(struct cli *c, const struct coe_model *m)
{
    struct weights w = { 0 };
    json_t *metadata = NULL;
    char hex[17];
    COE_TRY(ckpt_fingerprint(m->ckpt, hex));
    COE_TRY(info_metadata_json(&metadata, m->ckpt));
    weigh(m, &w);
    const coe_status s = (cli_flag(c, "json") ? print_all_json : print_all)(c, m, &w, hex, metadata);
    json_decref(metadata);
    return s;
}

/* Whether this program knows what the tensors mean. */
static bool family_known(const struct ckpt *file)
{
    const struct part *part;
    return ckpt_config(file) && !family_find(&part, ckpt_config(file), ckpt_path(file));
}

static coe_status run(struct cli *c)
{
    struct ckpt *file = NULL;
    struct coe_model *m = NULL;
    if (cli_given(c, "kv") && !cli_flag(c, "memory")) return coe_fail(COE_E_USAGE, "--kv goes with --memory");
    if (cli_flag(c, "build")) return info_build(c);
    if (!cli_n_args(c)) return coe_fail(COE_E_USAGE, "name a model, or ask for --build");
    COE_TRY(ckpt_open(&file, cli_arg(c, 0)));
    const bool known = ckpt_gguf(file) ? gguf_is_known(file) : family_known(file);
    coe_status s = known ? COE_OK : info_file(c, file);
    ckpt_close(file);
    if (!known) return s;
    /* the ledger is that of a model to be run */
    s = cli_flag(c, "memory") ? model_open(&m, cli_arg(c, 0)) : model_open_stored(&m, cli_arg(c, 0));
    if (!s) s = info_model(c, m);
    model_close(m);
    return s;
}

static const struct cli_opt opts[] = {
    { "tensors", 0, OPT_FLAG, NULL, "list every tensor: name, type, shape, bytes", 0, 0, false },
    { "memory", 0, OPT_FLAG, NULL, "what an open session of the model holds in memory", 0, 0, false },
    { "build", 0, OPT_FLAG, NULL, "about this program: compiler, libraries, instruction sets", 0, 0, false },
    CLI_KV,
    CLI_JSON,
};
static const struct verb verb = {
    .usage = "MODEL",
    .details = "Describes a model directory, a .safetensors or a .gguf file. Only headers are read: a model of any "
               "size is described\n"
               "at once. Parameters that one token uses count each routed expert once for every pass that calls it. "
               "Of a GGUF\n"
               "file the metadata follows; one that is no model of a known architecture is described as a file.",
    .example = "  coe info models/tales\n  coe info --build",
    .opts = opts,
    .n_opts = COE_COUNT(opts),
    .max_args = 1,
    .run = run,
};
COE_PART(verb, info, .summary = "describe a model: experts, parameters, bytes", .impl = &verb)
