/* list.c — the tensors of one file: order, search, size. */
#include <stdlib.h>
#include <string.h>

#include "reader.h"

void tensor_list_free(struct tensor_list *l)
{
    mem_free(l->at);
    mem_free(l->names);
    *l = (struct tensor_list){ 0 };
}

static int by_name(const void *a, const void *b)
{
    const struct tensor *x = a, *y = b;
    return strcmp(x->name, y->name);
}

coe_status tensor_list_sort(struct tensor_list *l, const char *where)
{
    if (l->n) qsort(l->at, l->n, sizeof *l->at, by_name);
    for (size_t i = 1; i < l->n; i++)
        if (!strcmp(l->at[i - 1].name, l->at[i].name))
            return coe_fail(COE_E_INPUT, "%s: two tensors are called %s", where, l->at[i].name);
    return COE_OK;
}

const struct tensor *tensor_find(const struct tensor *sorted, size_t n, const char *name)
{
    struct tensor key = { .name = name };
    return n ? bsearch(&key, sorted, n, sizeof key, by_name) : NULL;
}

uint64_t tensor_bytes(const struct tensor *t)
{
    uint64_t bytes = 0;
    bool fits = dtype_bytes(t->type, (uint64_t)tensor_count(t), &bytes);
    assert(fits);
    (void)fits;
    return bytes;
}
