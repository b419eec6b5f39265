/* Template source: what parses renders a conversation or fails with a message, within the limits. */
#include <stdlib.h>
#include <string.h>

#include "text/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const char data[] =
        "{\"messages\": [{\"role\": \"system\", \"content\": \" be kind \"}, {\"role\": \"user\", \"content\": "
        "[{\"type\": \"text\", \"text\": "
        "\"h\xC3\xA9llo\"}]}, {\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"function\": {\"name\": "
        "\"f\", \"arguments\": "
        "{\"x\": 1.5, \"y\": [true, null]}}}]}], \"tools\": [{\"name\": \"f\", \"parameters\": {\"a\": {\"type\": "
        "\"string\"}}}],"
        "\"add_generation_prompt\": true, \"bos_token\": \"<s>\", \"eos_token\": \"</s>\", \"n\": -7}";
    static json_t *variables;
    struct template *t;
    struct str out = { 0 };
    struct tm now = { .tm_year = 126, .tm_mday = 2 };
    if (!variables && json_read_text(&variables, data, sizeof data - 1, "data")) abort();
    if (template_compile(&t, (const char *)bytes, n, "fuzz")) return 0;
    if (template_render(t, &out, variables, &now) && !*coe_error()) abort();
    template_free(t);
    str_free(&out);
    return 0;
}
