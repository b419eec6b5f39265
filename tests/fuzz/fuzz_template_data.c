/* Template data: any JSON as the variables of a template that looks at all of it. */
#include <stdlib.h>
#include <string.h>

#include "text/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static const char source[] =
    "{%- macro show(v, d) -%}{%- if v is mapping and d < 9 -%}{%- for k, w in v.items() -%}{{ k }}:{{ show(w, d + 1) "
    "}};{%- endfor -%}"
    "{%- elif v is string -%}{{ v|trim|upper }}{{ v.split('a')|join('-') }}{{ v[1:-1] }}{{ v|replace('x', 'yy')|title "
    "}}{{ v|indent(2) }}"
    "{%- elif v is iterable and v is not none and d < 9 -%}{%- for w in v -%}{{ loop.index }}{{ show(w, d + 1) }}{%- "
    "endfor -%}"
    "{%- else -%}{{ v }}{{ v|string|length }}{%- endif -%}{%- endmacro -%}"
    "{% set ns = namespace(n=0, seen='') %}{% for m in messages if m is mapping %}{% set ns.n = ns.n + 1 %}"
    "<|{{ m.role }}|>{{ m.content|default('', true)|tojson(indent=1) if m.content is not string else m.content.strip() "
    "}}"
    "{% for c in m.tool_calls or [] %}{{ c|tojson(sort_keys=true, ensure_ascii=true) }}{% endfor %}{% endfor %}"
    "{{ messages|selectattr('role', 'defined')|map(attribute='role')|unique|list }}{{ show(tools, 0) }}{{ tools|tojson "
    "}}{{ tools }}";

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static struct template *t;
    struct str out = { 0 };
    struct tm now = { .tm_year = 126, .tm_mday = 2 };
    json_t *data;
    if (!t && template_compile(&t, source, sizeof source - 1, "fuzz")) abort();
    if (json_read_text(&data, (const char *)bytes, n, "data")) return 0;
    if (template_render(t, &out, data, &now) && !*coe_error()) abort();
    json_decref(data);
    str_free(&out);
    return 0;
}
