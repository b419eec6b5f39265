/* metadata.c — the strings that a safetensors file carries beside its tensors. */
#include "base/file.h"
#include "reader.h"

coe_status safetensors_metadata(json_t **out, const char *path)
{
    struct file_map m;
    json_t *header = NULL;
    *out = NULL;
    COE_TRY(file_map_open(&m, path));
    const uint64_t n = m.bytes >= 8 ? load_u64(m.at) : 0;
    coe_status s = COE_OK;
    if (m.bytes < 8 || n > m.bytes - 8) s = coe_fail(COE_E_INPUT, "%s: the header ends behind the file", path);
    if (!s) s = json_read_text(&header, (const char *)m.at + 8, (size_t)n, path);
    if (!s) {
        json_t *found = json_object_get(header, "__metadata__");
        *out = found ? json_incref(found) : json_object();
        if (!*out) s = coe_fail(COE_E_NOMEM, "%s: metadata", path);
    }
    json_decref(header);
    file_map_close(&m);
    return s;
}
