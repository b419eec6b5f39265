/* rope.c — rotary positions, in place. */
#include "nn/nn.h"

struct rope_saved {
    struct val *x;
    int32_t head_dim;
    const float *cos, *sin;
    int64_t half;
    bool interleaved;
};

static void rotate(float *x, const struct rope_saved *s, bool back)
{
    const int64_t n_heads = s->x->cols / s->head_dim;
    COE_SPREAD(s->x->rows > 8, for (int64_t t = 0; t < s->x->rows; t++),
               for (int64_t h = 0; h < n_heads; h++)
                   kern->rope(x + t * s->x->cols + h * s->head_dim, s->cos + t * s->half, s->sin + t * s->half, s->half,
                              s->interleaved, back));
}

static void rope_back(struct nn *c, void *p)
{
    (void)c;
    struct rope_saved *s = p;
    if (s->x->grad) rotate(s->x->grad, s, true);
}

bool nn_rope(struct nn *c, struct val *x, int32_t head_dim, const float *cos, const float *sin, int64_t half,
             bool interleaved)
{
    if (!x) return false;
    struct rope_saved *s = arena_push(c->arena, sizeof *s);
    if (!s) return false;
    *s = (struct rope_saved){ x, head_dim, cos, sin, half, interleaved };
    rotate(x->data, s, false);
    val_changed(x);
    return nn_record(c, rope_back, s);
}
