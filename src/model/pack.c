/* pack.c — weights laid out for the kernels: matrices of block types are copied once into panels (quant/panel.h),
 * those of plain types as they are, in 2 MB pages, and the file's pages given back as they go. The products have the
 * same bits either way; a model that does not fit into memory beside what is in use stays in its file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "model/model.h"
#include "tensor/quant/panel.h"

#define ALIGN 64
/* Plain matrices of fewer bytes than this stay in the caches, whatever their pages: copying them would win nothing.
 * From memory, pages of 4 KB cost a fifth to a third of the speed (bench/kernels/dot_tile.md). */
#define PLAIN_LEAST (64 << 20)

static size_t row_bytes(const struct weight *w)
{
    return (size_t)(w->cols / dtype_info[w->type].block * dtype_info[w->type].bytes);
}

static size_t padded_bytes(const struct weight *w)
{
    return ((size_t)w->rows * row_bytes(w) + ALIGN - 1) / ALIGN * ALIGN;
}

/* Rows of the embedding are looked up one by one and stay as stored; a tied head is another weight (model_pack). */
static bool wants_panels(const struct coe_model *m, const struct weight *w)
{
    return panel_type(w->type) && !w->panels && !w->master && w != m->slot[SLOT_EMBED] && w->rows >= PANEL_ROWS;
}

/* Weights that a kind of experts reads by itself */
static bool read_by_kind(const struct coe_model *m, struct place at)
{
    const bool of_kind = at.slot == SLOT_KIND_OF_MODEL || at.slot == SLOT_KIND_OF_LAYER;
    const struct moe_spec *s = &m->spec.layer[at.layer].moe;
    struct expert_range r[MAX_RANGES];
    if (!of_kind && slot_info[at.slot].scope != SCOPE_EXPERT) return false;
    (void)moe_ranges(s, r);
    const struct expert_range range = of_kind ? r[at.part / PART_WEIGHTS - 1] : moe_range_of(s, at.expert);
    return moe_kind(&range)->reads;
}

/* Asked of the system before it is needed, so that the disk reads while the processors copy. 64 MB: what a fast disk
 * reads in the time of a few matrices. */
#define AHEAD ((size_t)64 << 20)

static void ask_for(const struct weight *w) { file_ahead(w->data, (uint64_t)w->rows * row_bytes(w)); }

/* How many of n matrices, `bytes` in all, make AHEAD */
static size_t matrices_ahead(size_t n, size_t bytes) { return COE_MIN(n, AHEAD / (bytes / n + 1) + 1); }

/* A matrix of a plain type that is used where it lies in the file */
static bool wants_pages(const struct coe_model *m, const struct param *p)
{
    const struct weight *w = &p->w;
    uint64_t all = 0;
    if (!p->stored || w->master || dtype_info[w->type].block > 1 || slot_info[p->at.slot].is_vector) return false;
    if (w == m->slot[SLOT_EMBED] && !m->spec.tied) return false; /* looked up, row by row */
    const uintptr_t begin = (uintptr_t)p->stored->data, at = (uintptr_t)w->data;
    return dtype_bytes(p->stored->type, (uint64_t)tensor_count(p->stored), &all) && at >= begin &&
           at + (uint64_t)w->rows * row_bytes(w) <= begin + all;
}

static uint64_t plain_bytes(const struct coe_model *m)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < m->n_params; i++)
        if (wants_pages(m, &m->params[i])) sum += padded_bytes(&m->params[i].w);
    return sum;
}

static int by_address(const void *a, const void *b)
{
    const struct weight *x = *(struct weight *const *)a, *y = *(struct weight *const *)b;
    return ((uintptr_t)x->data > (uintptr_t)y->data) - ((uintptr_t)x->data < (uintptr_t)y->data);
}

static void pack_one(struct weight *w, uint8_t *to)
{
    const size_t bytes = (size_t)w->rows * row_bytes(w);
    const bool panels = dtype_info[w->type].block > 1;
    file_present(w->data, bytes);
    if (panels) panel_pack_rows(to, w, 0, w->rows);
    else memcpy(to, w->data, bytes);
    file_release(w->data, bytes);
    w->data = to;
    w->panels = panels;
}

/* Bytes that this machine can still give without paging; UINT64_MAX when it does not say. */
static uint64_t available(void)
{
    char line[128];
    unsigned long long kb = 0;
    FILE *f = fopen("/proc/meminfo", "r");
    if (!f) return UINT64_MAX;
    while (fgets(line, sizeof line, f) && sscanf(line, "MemAvailable: %llu kB", &kb) != 1) {
    }
    fclose(f);
    return kb ? (uint64_t)kb * 1024 : UINT64_MAX;
}

static bool fits(size_t bytes)
{
    const uint64_t budget = mem_budget();
    return (!budget || mem_used() + bytes <= budget) && bytes <= available() / 10 * 9;
}

/* The head of a tied model as a weight of its own. */
static coe_status untie(struct coe_model *m)
{
    if (!m->spec.tied || !panel_type(m->slot[SLOT_EMBED]->type)) return COE_OK;
    struct weight *head = arena_push(&m->arena, sizeof *head);
    if (!head) return COE_E_NOMEM;
    *head = *m->slot[SLOT_EMBED];
    m->slot[SLOT_HEAD] = head;
    m->tied_head = head;
    return COE_OK;
}

coe_status model_pack(struct coe_model *m) { return model_pack_from(m, PLAIN_LEAST); }

coe_status model_pack_from(struct coe_model *m, uint64_t least)
{
    size_t n = 0, bytes = 0;
    const bool plain = plain_bytes(m) >= COE_MAX(least, 1);
    COE_TRY(untie(m));
    struct weight **list = mem_alloc("arrays", (m->n_params + 1) * sizeof(struct weight *));
    if (!list) return COE_E_NOMEM;
    for (size_t i = 0; i <= m->n_params; i++) {
        struct weight *w = i < m->n_params ? &m->params[i].w : m->tied_head;
        const struct param *p = i < m->n_params ? &m->params[i] : NULL;
        const bool panels = w && wants_panels(m, w) && !(p && read_by_kind(m, p->at));
        if (!w || !(panels || (plain && p && wants_pages(m, p)))) continue;
        list[n++] = w;
        bytes += padded_bytes(w);
    }
    if (n && fits(bytes) && (m->panels = mem_alloc("weights", bytes))) {
        size_t *place = mem_alloc("arrays", n * sizeof *place);
        qsort(list, n, sizeof *list, by_address);
        for (size_t i = 0, at = 0; place && i < n; at += padded_bytes(list[i]), i++) place[i] = at;
        const size_t ahead = matrices_ahead(n, bytes);
        for (size_t i = 0; i < ahead; i++) ask_for(list[i]);
#pragma omp parallel for schedule(dynamic)
        for (size_t i = 0; i < (place ? n : 0); i++) {
            if (i + ahead < n) ask_for(list[i + ahead]);
            pack_one(list[i], (uint8_t *)m->panels + place[i]);
        }
        mem_free(place);
    }
    mem_free(list);
    return COE_OK;
}
