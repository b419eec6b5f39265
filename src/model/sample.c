/* sample.c — choosing the next token: repetition penalty, temperature, top-k, top-p, min-p, in this order. The random
 * number of the n-th draw is a function of (seed, n), so a run repeats exactly. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "model/model.h"

coe_status sampler_open(struct sampler *s, const coe_sampling *how, int32_t vocab)
{
    *s = (struct sampler){ .how = how ? *how : (coe_sampling){ 0 }, .vocab = vocab };
    const coe_sampling *h = &s->how;
    if (!(h->temperature >= 0)) return coe_fail(COE_E_USAGE, "temperature %g is below 0", (double)h->temperature);
    if (!(h->top_p >= 0 && h->top_p <= 1)) return coe_fail(COE_E_USAGE, "top-p %g is outside 0 … 1", (double)h->top_p);
    if (!(h->min_p >= 0 && h->min_p <= 1)) return coe_fail(COE_E_USAGE, "min-p %g is outside 0 … 1", (double)h->min_p);
    if (h->top_k < 0) return coe_fail(COE_E_USAGE, "top-k %d is below 0", h->top_k);
    if (!(h->repetition_penalty >= 0))
        return coe_fail(COE_E_USAGE, "repetition penalty %g is below 0", (double)h->repetition_penalty);
    s->probability = mem_alloc("sampler", (size_t)vocab * sizeof *s->probability);
    s->order = mem_alloc("sampler", (size_t)vocab * sizeof *s->order);
    return s->probability && s->order ? COE_OK : COE_E_NOMEM;
}

void sampler_close(struct sampler *s)
{
    mem_free(s->probability);
    mem_free(s->order);
    s->probability = NULL;
    s->order = NULL;
}

static int32_t best(const float *x, int32_t n)
{
    int32_t at = 0;
    for (int32_t i = 1; i < n; i++)
        if (x[i] > x[at]) at = i;
    return at;
}

/* Positive logits of tokens seen are divided, negative ones multiplied; each token once. */
static void penalise(struct sampler *s)
{
    const float p = s->how.repetition_penalty;
    if (!(p > 0) || p == 1.0f) return;
    memset(s->order, 0, (size_t)s->vocab * sizeof *s->order);
    for (size_t i = 0; i < s->n_history; i++) {
        const int32_t id = s->history[i];
        if (id < 0 || id >= s->vocab || s->order[id]) continue;
        s->order[id] = 1;
        float *x = &s->probability[id];
        *x = *x > 0 ? *x / p : *x * p;
    }
}

static int by_probability(const void *a, const void *b, void *probability)
{
    const float *sort_key = probability;
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    if (sort_key[x] != sort_key[y]) return sort_key[x] < sort_key[y] ? 1 : -1;
    return (x > y) - (x < y);
}

/* How many of the sorted tokens stay in the draw. */
static int32_t cut(const struct sampler *s, double total)
{
    const coe_sampling *h = &s->how;
    int32_t n = h->top_k > 0 ? COE_MIN(h->top_k, s->vocab) : s->vocab;
    if (h->top_k > 0) {
        total = 0;
        for (int32_t i = 0; i < n; i++) total += (double)s->probability[s->order[i]];
    }
    if (h->top_p > 0 && h->top_p < 1) {
        double sum = 0;
        int32_t i = 0;
        while (i < n && sum < (double)h->top_p * total) sum += (double)s->probability[s->order[i++]];
        n = COE_MAX(1, i);
    }
    if (h->min_p > 0) {
        const float least = s->probability[s->order[0]] * h->min_p;
        while (n > 1 && s->probability[s->order[n - 1]] < least) n--;
    }
    return n;
}

int32_t sampler_draw(struct sampler *s, const float *logits)
{
    float *p = s->probability;
    memcpy(p, logits, (size_t)s->vocab * sizeof *p);
    penalise(s);
    const uint64_t draw = s->drawn++;
    if (!(s->how.temperature > 0)) return best(p, s->vocab);
    const float max = p[best(p, s->vocab)], heat = s->how.temperature;
    double total = 0;
    for (int32_t i = 0; i < s->vocab; i++) {
        p[i] = fm_exp((p[i] - max) / heat);
        total += (double)p[i];
        s->order[i] = i;
    }
    int32_t n = s->vocab;
    const bool cuts = s->how.top_k > 0 || (s->how.top_p > 0 && s->how.top_p < 1) || s->how.min_p > 0;
    if (cuts) {
        qsort_r(s->order, (size_t)s->vocab, sizeof *s->order, by_probability, p);
        n = cut(s, total);
        total = 0;
        for (int32_t i = 0; i < n; i++) total += (double)p[s->order[i]];
    }
    double left = rng_unit(rng_at(s->how.seed, rng_stream(RNG_SAMPLE, 0), draw)) * total;
    for (int32_t i = 0; i < n - 1; i++) {
        left -= (double)p[s->order[i]];
        if (left < 0) return s->order[i];
    }
    return s->order[n - 1];
}
