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

/* Projections whose heads are read one by one */
static bool read_by_head(const struct coe_model *m, struct place at)
{
    const bool qkv = at.slot == SLOT_Q || at.slot == SLOT_K || at.slot == SLOT_V;
    return qkv && m->spec.layer[at.layer].attn.kind == MIX_HEADS;
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

/* Rows of one matrix on their way to their place: what a thread takes at a time. */
struct piece {
    const struct weight *w;
    int64_t row, rows;
    size_t at; /* in m->panels */
};
/* Bytes of a piece: small enough that the threads end together and that one advice covers it (the system reads at most
 * as much ahead as its disk likes at once), large enough that a row's walk pays. */
#define PIECES 256 /* of a model about */
#define PIECE_LEAST ((size_t)64 << 10)
#define PIECE_MOST ((size_t)4 << 20)
/* Asked of the system before they are needed, so that the disk reads while the processors copy. */
#define AHEAD 32 /* pieces */

static size_t piece_size(size_t all) { return COE_MIN(COE_MAX(all / PIECES, PIECE_LEAST), PIECE_MOST); }

static int64_t piece_rows(const struct weight *w, size_t size)
{
    const int64_t rows = (int64_t)(size / row_bytes(w)) / PANEL_ROWS * PANEL_ROWS;
    return COE_MAX(rows, PANEL_ROWS);
}

static size_t count_pieces(struct weight *const *list, size_t n, size_t size)
{
    size_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (size_t)((list[i]->rows + piece_rows(list[i], size) - 1) / piece_rows(list[i], size));
    return sum;
}

/* In the order of the list; each matrix begins at a multiple of ALIGN. */
static void make_pieces(struct piece *to, struct weight *const *list, size_t n, size_t size)
{
    for (size_t i = 0, at = 0; i < n; at += padded_bytes(list[i]), i++) {
        const struct weight *w = list[i];
        for (int64_t row = 0, each = piece_rows(w, size); row < w->rows; row += each)
            *to++ = (struct piece){ w, row, COE_MIN(each, w->rows - row), at + (size_t)row * row_bytes(w) };
    }
}

static const uint8_t *stored_at(const struct piece *p)
{
    return (const uint8_t *)p->w->data + (size_t)p->row * row_bytes(p->w);
}

static size_t piece_bytes(const struct piece *p) { return (size_t)p->rows * row_bytes(p->w); }

static void ask_for(const struct piece *p) { file_ahead(stored_at(p), piece_bytes(p)); }

static void move(const struct piece *p, uint8_t *to)
{
    const uint8_t *from = stored_at(p);
    file_present(from, piece_bytes(p));
    if (dtype_info[p->w->type].block > 1) panel_pack_rows(to, p->w, p->row, p->rows);
    else memcpy(to, from, piece_bytes(p));
    file_release(from, piece_bytes(p));
}

/* Matrices, in the order of their addresses, `bytes` in all, into m->panels. */
static coe_status move_all(struct coe_model *m, struct weight *const *list, size_t n, size_t bytes)
{
    const size_t size = piece_size(bytes), pieces = count_pieces(list, n, size);
    struct piece *piece = mem_alloc("arrays", pieces * sizeof *piece);
    uint8_t *to = (uint8_t *)m->panels;
    if (!piece) return COE_E_NOMEM;
    make_pieces(piece, list, n, size);
    for (size_t i = 0; i < COE_MIN(pieces, AHEAD); i++) ask_for(&piece[i]);
#pragma omp parallel for schedule(dynamic)
    for (size_t i = 0; i < pieces; i++) {
        if (i + AHEAD < pieces) ask_for(&piece[i + AHEAD]);
        move(&piece[i], to + piece[i].at);
    }
    for (size_t i = 0; i < n; to += padded_bytes(list[i]), i++) {
        list[i]->data = to;
        list[i]->panels = dtype_info[list[i]->type].block > 1;
    }
    mem_free(piece);
    return COE_OK;
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
    coe_status s = COE_OK;
    COE_TRY(untie(m));
    struct weight **list = mem_alloc("arrays", (m->n_params + 1) * sizeof(struct weight *));
    if (!list) return COE_E_NOMEM;
    for (size_t i = 0; i <= m->n_params; i++) {
        struct weight *w = i < m->n_params ? &m->params[i].w : m->tied_head;
        const struct param *p = i < m->n_params ? &m->params[i] : NULL;
        const bool panels = w && wants_panels(m, w) && !(p && (read_by_kind(m, p->at) || read_by_head(m, p->at)));
        if (!w || !(panels || (plain && p && wants_pages(m, p)))) continue;
        list[n++] = w;
        bytes += padded_bytes(w);
    }
    if (n && fits(bytes) && (m->panels = mem_alloc("weights", bytes))) {
        qsort(list, n, sizeof *list, by_address);
        s = move_all(m, list, n, bytes);
    }
    mem_free(list);
    return s;
}
