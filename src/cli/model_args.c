/* model_args.c — see model_args.h. */
#include "cli/model_args.h"

coe_status cli_open_model(struct cli *c, int i, struct coe_model **out)
{
    return model_open(out, cli_arg(c, i));
}

coe_status cli_open_text_model(struct cli *c, int i, struct coe_model **out)
{
    COE_TRY(cli_open_model(c, i, out));
    if ((*out)->tokenizer) return COE_OK;
    coe_status s = coe_fail(COE_E_INPUT, "%s: has no tokenizer.json or tokenizer.model", cli_arg(c, i));
    model_close(*out);
    *out = NULL;
    return s;
}
