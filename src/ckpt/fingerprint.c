/* fingerprint.c — a checkpoint's identity, cheap enough to take at every start: whole small tensors and three samples
 * of each large one, so that a 60 GB model costs some 50 KB a tensor. */
#include <inttypes.h>
#include <string.h>
#include <xxhash.h>

#include "reader.h"

#define WHOLE 65536u
#define SAMPLE 16384u

static void add_tensor(XXH3_state_t *h, const struct tensor *t)
{
    unsigned char number[8];
    const char *type = dtype_info[t->type].name;
    XXH3_64bits_update(h, t->name, strlen(t->name) + 1);
    XXH3_64bits_update(h, type, strlen(type) + 1);
    for (int32_t i = 0; i < t->n_dims; i++) {
        store_u64(number, (uint64_t)t->dim[i]);
        XXH3_64bits_update(h, number, sizeof number);
    }
    const unsigned char *p = t->data;
    uint64_t n = tensor_bytes(t);
    if (n <= WHOLE) {
        XXH3_64bits_update(h, p, (size_t)n);
        return;
    }
    XXH3_64bits_update(h, p, SAMPLE);
    XXH3_64bits_update(h, p + (n - SAMPLE) / 2, SAMPLE);
    XXH3_64bits_update(h, p + n - SAMPLE, SAMPLE);
}

coe_status ckpt_fingerprint(const struct ckpt *c, char hex[17])
{
    XXH3_state_t *h = XXH3_createState();
    if (!h) return coe_fail(COE_E_NOMEM, "%s: no memory for a fingerprint", ckpt_path(c));
    XXH3_64bits_reset(h);
    for (size_t i = 0; i < ckpt_count(c); i++) add_tensor(h, ckpt_at(c, i));
    snprintf(hex, 17, "%016" PRIx64, (uint64_t)XXH3_64bits_digest(h));
    XXH3_freeState(h);
    return COE_OK;
}
