/* expert_view.c — see expert_view.h. */
#include "cli/expert_view.h"

#include <math.h>
#include <string.h>

#include "cli/heatmap.h"

#define LABEL 48 /* bytes of "layer 12 pass 1", for any number */

static const struct moe_spec *moe_at(const struct coe_model *m, int32_t l)
{
    return m->spec.layer[l].is_moe ? &m->spec.layer[l].moe : NULL;
}

coe_status expert_view_open(struct expert_view *v, const struct coe_model *m, bool keep_tokens)
{
    const int32_t n_layers = m->spec.n_layers;
    *v = (struct expert_view){ .m = m, .n_records = model_n_records(m), .keep_tokens = keep_tokens };
    const size_t n = (size_t)v->n_records;
    v->first = mem_alloc("expert view", (size_t)n_layers * sizeof *v->first);
    v->counts = mem_zalloc("expert view", (n + 1) * sizeof *v->counts);
    v->tokens = mem_zalloc("expert view", (n + 1) * sizeof *v->tokens);
    if (keep_tokens) v->token = mem_zalloc("expert view", (n + 1) * sizeof *v->token);
    bool ok = v->first && v->counts && v->tokens && (v->token || !keep_tokens);
    int32_t r = 0;
    for (int32_t l = 0; ok && l < n_layers; l++) {
        const struct moe_spec *moe = moe_at(m, l);
        v->first[l] = moe ? r : -1;
        for (int32_t t = 0; ok && moe && t < moe->chain.n_iterations; t++, r++)
            ok = (v->counts[r] = mem_zalloc("expert view", (size_t)moe->n_experts * sizeof **v->counts)) != NULL;
    }
    if (!ok) expert_view_close(v);
    return ok ? COE_OK : COE_E_NOMEM;
}

void expert_view_close(struct expert_view *v)
{
    for (int32_t r = 0; r < v->n_records; r++) {
        if (v->counts) mem_free(v->counts[r]);
        if (v->token) VEC_FREE(&v->token[r]);
    }
    mem_free(v->first);
    mem_free(v->counts);
    mem_free(v->tokens);
    mem_free(v->token);
    *v = (struct expert_view){ 0 };
}

void expert_view_add(void *user, const coe_route_event *e)
{
    struct expert_view *v = user;
    const int32_t r = v->first[e->layer] + e->iteration;
    int32_t best = -1;
    v->tokens[r]++;
    for (int32_t i = 0; i < e->n; i++) {
        v->counts[r][e->expert[i]]++;
        if (best < 0 || e->weight[i] > e->weight[best]) best = i;
    }
    if (!v->keep_tokens) return;
    const struct token_route t = { e->position, best < 0 ? -1 : e->expert[best] };
    if (!VEC_PUSH(&v->token[r], t)) v->oom = true;
}

void expert_view_reset(struct expert_view *v)
{
    for (int32_t l = 0; l < v->m->spec.n_layers; l++)
        for (int32_t t = 0; v->first[l] >= 0 && t < moe_at(v->m, l)->chain.n_iterations; t++) {
            const int32_t r = v->first[l] + t;
            memset(v->counts[r], 0, (size_t)moe_at(v->m, l)->n_experts * sizeof **v->counts);
            v->tokens[r] = 0;
            if (v->token) v->token[r].n = 0;
        }
}

/* Shares of one record; an expert that a live plan masks has none. */
static void fill_row(const struct expert_view *v, int32_t l, int32_t iteration, struct heat_row *row, double *value,
                     char *label)
{
    const struct moe_spec *moe = moe_at(v->m, l);
    const int32_t r = v->first[l] + iteration;
    const uint8_t *keep = v->m->hook ? v->m->hook[l].keep : NULL;
    for (int32_t e = 0; e < moe->n_experts; e++)
        value[e] = keep && !keep[e] ? NAN : v->tokens[r] ? (double)v->counts[r][e] / (double)v->tokens[r] : 0;
    if (moe->chain.n_iterations > 1) snprintf(label, LABEL, "layer %d pass %d", l, iteration);
    else snprintf(label, LABEL, "layer %d", l);
    *row = (struct heat_row){ label, moe->n_experts, value };
}

coe_status expert_view_draw(const struct expert_view *v, FILE *to)
{
    struct arena a = { 0 };
    if (!v->n_records)
        return fputs("this model has no experts: every layer is dense\n", to) < 0 ? COE_E_FAILED : COE_OK;
    struct heat_row *row = arena_push(&a, (size_t)v->n_records * sizeof *row);
    bool ok = row;
    int32_t n = 0;
    for (int32_t l = 0; ok && l < v->m->spec.n_layers; l++) {
        const struct moe_spec *moe = moe_at(v->m, l);
        for (int32_t t = 0; ok && moe && t < moe->chain.n_iterations; t++) {
            double *value = arena_push(&a, (size_t)moe->n_experts * sizeof *value);
            char *label = arena_push(&a, LABEL);
            ok = value && label;
            if (ok) fill_row(v, l, t, &row[n++], value, label);
        }
    }
    if (ok)
        heatmap_print(to, &(struct heatmap){ .row = row,
                                             .n_rows = n,
                                             .columns = "expert",
                                             .values = "of the tokens",
                                             .percent = true,
                                             .colours = terminal_colours(to),
                                             .width = terminal_width(to) });
    arena_free(&a);
    return ok ? COE_OK : COE_E_NOMEM;
}

/* A token's text in 14 columns: characters as they are, control characters and lone bytes as dots. */
static coe_status print_token(const struct expert_view *v, FILE *to, int32_t id)
{
    struct str text = { 0 };
    coe_status s = v->m->tokenizer ? tokenizer_decode(v->m->tokenizer, &text, &id, 1, false) : COE_OK;
    if (!s) s = str_check(&text);
    int columns = 0;
    for (size_t i = 0; !s && i < text.n && columns < 13; columns++) {
        const int len = utf8_decode(text.at + i, text.n - i, NULL);
        if (len < 1 || (unsigned char)text.at[i] < ' ' || text.at[i] == 127) fputc('.', to);
        else fwrite(text.at + i, 1, (size_t)len, to);
        i += len > 0 ? (size_t)len : 1;
    }
    if (!s) fprintf(to, "%*s", 14 - columns, "");
    str_free(&text);
    return s;
}

static void print_token_axis(const struct expert_view *v, FILE *to, int32_t columns)
{
    fprintf(to, "%-14s", "layer");
    for (int32_t l = 0, r = 0; l < v->m->spec.n_layers; l++)
        for (int32_t t = 0; v->first[l] >= 0 && t < moe_at(v->m, l)->chain.n_iterations && r < columns; t++, r++)
            if (t) fputs("    ·", to);
            else fprintf(to, "%5d", l);
    fputc('\n', to);
}

coe_status expert_view_tokens(const struct expert_view *v, FILE *to, const int32_t *ids, size_t n)
{
    if (v->oom) return COE_E_NOMEM;
    if (!v->n_records) return COE_OK;
    const int32_t columns = COE_MIN(v->n_records, COE_MAX(1, (terminal_width(to) - 14) / 5));
    print_token_axis(v, to, columns);
    for (size_t i = 0; i < v->token[0].n; i++) {
        const int64_t position = v->token[0].at[i].position;
        if (position < 0 || (size_t)position >= n) continue;
        COE_TRY(print_token(v, to, ids[position]));
        for (int32_t r = 0; r < columns; r++) fprintf(to, "%5d", v->token[r].at[i].expert);
        fputc('\n', to);
    }
    if (columns < v->n_records) fprintf(to, "(the screen has room for %d of %d passes)\n", columns, v->n_records);
    return COE_OK;
}

json_t *expert_view_json(const struct expert_view *v)
{
    json_t *list = json_array();
    for (int32_t l = 0; l < v->m->spec.n_layers; l++)
        for (int32_t t = 0; v->first[l] >= 0 && t < moe_at(v->m, l)->chain.n_iterations; t++) {
            const int32_t r = v->first[l] + t;
            json_t *counts = json_array();
            for (int32_t e = 0; e < moe_at(v->m, l)->n_experts; e++)
                json_array_append_new(counts, json_integer((json_int_t)v->counts[r][e]));
            json_array_append_new(list, json_pack("{s:i, s:i, s:I, s:o}", "layer", l, "iteration", t, "tokens",
                                                  (json_int_t)v->tokens[r], "counts", counts));
        }
    return list;
}
