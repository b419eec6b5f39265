/* rng.h — random numbers that are a function of where they are used: no hidden state, so threads and resumed runs
 * agree.
 *
 * rng_at(seed, stream, index) is 64 random bits; `stream` names the use (RNG_INIT, RNG_DATA, …, plus step or layer),
 * `index` the position. struct rng walks one stream where a sequence is handier. Generator: two rounds of the
 * splitmix64 finaliser over the mixed triple. */
#ifndef COE_RNG_H
#define COE_RNG_H

#include <stdint.h>

enum rng_use { RNG_INIT = 1, RNG_DATA = 2, RNG_DROPOUT = 3, RNG_SAMPLE = 4, RNG_TEST = 5, RNG_PLAN = 6,
               RNG_JITTER = 7, RNG_ROUTE = 8 };

static inline uint64_t rng_mix(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xBF58476D1CE4E5B9u;
    x ^= x >> 27;
    x *= 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

static inline uint64_t rng_stream(enum rng_use use, uint64_t which) { return (uint64_t)use << 56 ^ which; }

static inline uint64_t rng_at(uint64_t seed, uint64_t stream, uint64_t index)
{
    uint64_t key = rng_mix(seed + 0x9E3779B97F4A7C15u) ^ rng_mix(stream * 0xD1342543DE82EF95u + 0x632BE59BD9B4E019u);
    return rng_mix(key + 0x9E3779B97F4A7C15u * (index + 1));
}

/* [0, 1) with 53 bits; [0, 1) in float with 24 bits. */
static inline double rng_unit(uint64_t bits) { return (double)(bits >> 11) * 0x1p-53; }
static inline float rng_unitf(uint64_t bits) { return (float)(bits >> 40) * 0x1p-24f; }

struct rng {
    uint64_t seed, stream, next;
};
static inline struct rng rng_make(uint64_t seed, uint64_t stream) { return (struct rng){ seed, stream, 0 }; }
static inline uint64_t rng_next(struct rng *r) { return rng_at(r->seed, r->stream, r->next++); }
static inline double rng_uniform(struct rng *r) { return rng_unit(rng_next(r)); }
/* 0 … n-1 without bias worth speaking of (64-bit multiply-shift) */
static inline uint64_t rng_below(struct rng *r, uint64_t n)
{
    return (uint64_t)((unsigned __int128)rng_next(r) * n >> 64);
}
/* Standard normal (Box-Muller, one of the pair). */
double rng_normal(struct rng *r);

#endif
