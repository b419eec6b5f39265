/* tokenizer.model (a protocol buffer) and GGUF vocabularies: what is accepted encodes and decodes a text without
 * harm. */
#include <string.h>

#include "text/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const char text[] = " Hello, wORLD's 123 <s>\n\n \xC3\xA9"
                               "e\xCC\x81\xE6\x97\xA5\xFF x";
    struct tokenizer *t;
    struct ids ids = { 0 };
    struct str back = { 0 };
    struct decode_stream *d = NULL;
    if (tokenizer_from_memory(&t, (const char *)bytes, n, NULL, "fuzz")) return 0;
    if (!tokenizer_encode(t, &ids, text, sizeof text - 1, true)) (void)tokenizer_decode(t, &back, ids.at, ids.n, true);
    if (!decode_stream_open(&d, t, false)) {
        for (int32_t id = 0; id < 40; id++) (void)decode_stream_push(d, &back, id);
        (void)decode_stream_flush(d, &back);
    }
    decode_stream_close(d);
    (void)tokenizer_token_id(t, "<s>");
    tokenizer_close(t);
    VEC_FREE(&ids);
    str_free(&back);
    return 0;
}
