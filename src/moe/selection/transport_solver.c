/* transport_solver.c — see transport.h. With X_j = alpha - C_j (a column) and top_k the k largest entries
 *
 *     semi-dual  alpha·a - Σ_j b (<X_j, G_j> - gamma b/2 |G_j|²),  G_j = projection of X_j / (b gamma);  T_j = b G_j
 *     dual       alpha·a + beta·b - 1/(2 gamma) Σ_j Σ_{top_k} max(alpha + beta_j - C_j, 0)²;   T = max(·, 0) / gamma
 * Both gradients are what the plan's sums miss: a - T1 and b - Tᵀ1. */
#include "moe/selection/transport.h"

#include <math.h>
#include <string.h>

/* The k-th largest of x [n], which is put out of order: quickselect about the middle of three. */
static double kth_largest(double *x, int32_t n, int32_t k)
{
    int32_t low = 0, high = n - 1;
    while (low < high) {
        const double a = x[low], b = x[low + (high - low) / 2], c = x[high];
        const double pivot = fmax(fmin(a, b), fmin(fmax(a, b), c));
        int32_t i = low, j = high;
        while (i <= j) {
            while (x[i] > pivot) i++;
            while (x[j] < pivot) j--;
            if (i > j) break;
            const double t = x[i];
            x[i++] = x[j], x[j--] = t;
        }
        if (k - 1 <= j)
            high = j;
        else if (k - 1 >= i)
            low = i;
        else
            break;
    }
    return x[k - 1];
}

/* ids [≤ k], ascending: the k largest of v [n], of equal ones the earlier; answers how many. */
static int32_t largest_of(const double *v, int32_t n, int32_t k, int32_t *ids, double *scratch)
{
    int32_t got = 0, above = 0;
    if (k >= n) {
        for (int32_t i = 0; i < n; i++) ids[i] = i;
        return n;
    }
    memcpy(scratch, v, (size_t)n * sizeof *scratch);
    const double least = kth_largest(scratch, n, k);
    for (int32_t i = 0; i < n; i++) above += v[i] > least;
    for (int32_t i = 0, ties = k - above; i < n; i++)
        if (v[i] > least || (v[i] >= least && ties-- > 0)) ids[got++] = i;
    return got;
}

/* The shift that makes max(v - theta, 0) over ids sum to 1: elements below it leave until none does. */
static double simplex_shift(const double *v, const int32_t *ids, int32_t n)
{
    double theta = -INFINITY;
    for (int32_t before = n + 1;;) {
        double sum = 0;
        int32_t in = 0;
        for (int32_t i = 0; i < n; i++)
            if (v[ids[i]] > theta) sum += v[ids[i]], in++;
        if (in == before) return theta;
        before = in;
        theta = (sum - 1) / in;
    }
}

/* ---- passes over a column, in LANES chains: one order of sums, whatever registers they fill ---- */

#define LANES 8

static double lanes_sum(const double *s) { return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7])); }

static double dot(const double *a, const double *b, int32_t n)
{
    double sum[LANES] = { 0 };
    int32_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int32_t l = 0; l < LANES; l++) sum[l] += a[i + l] * b[i + l];
    for (int32_t l = 0; i + l < n; l++) sum[l] += a[i + l] * b[i + l];
    return lanes_sum(sum);
}

static void axpy(double *y, double a, const double *x, int32_t n)
{
    for (int32_t i = 0; i < n; i++) y[i] += a * x[i];
}

static int32_t count_above(const double *v, int32_t n, double cut)
{
    double in[LANES] = { 0 }; /* as wide as what is compared */
    int32_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int32_t l = 0; l < LANES; l++) in[l] += v[i + l] > cut ? 1 : 0;
    for (int32_t l = 0; i + l < n; l++) in[l] += v[i + l] > cut ? 1 : 0;
    return (int32_t)lanes_sum(in);
}

static double sum_above(const double *v, int32_t n, double cut)
{
    double sum[LANES] = { 0 };
    int32_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int32_t l = 0; l < LANES; l++) sum[l] += v[i + l] > cut ? v[i + l] : 0;
    for (int32_t l = 0; i + l < n; l++) sum[l] += v[i + l] > cut ? v[i + l] : 0;
    return lanes_sum(sum);
}

static void range_of(const double *v, int32_t n, double *low, double *high)
{
    double least[LANES], most[LANES];
    int32_t i = 0;
    for (int32_t l = 0; l < LANES; l++) least[l] = most[l] = v[0];
    for (; i + LANES <= n; i += LANES)
        for (int32_t l = 0; l < LANES; l++) {
            least[l] = v[i + l] < least[l] ? v[i + l] : least[l];
            most[l] = v[i + l] > most[l] ? v[i + l] : most[l];
        }
    for (; i < n; i++) least[0] = fmin(least[0], v[i]), most[0] = fmax(most[0], v[i]);
    *low = least[0], *high = most[0];
    for (int32_t l = 1; l < LANES; l++) *low = fmin(*low, least[l]), *high = fmax(*high, most[l]);
}

#define CUTS 24

/* *cut: a value that exactly k < n of v [n] exceed, looked for between two that more and fewer exceed, by their numbers
 * and every third time in the middle; what *cut was before, the first guess, changes nothing but the time. False:
 * not found, as where the k-th and the next are equal. */
static bool cut_behind(const double *v, int32_t n, int32_t k, double *cut)
{
    double low, high, at = *cut;
    int32_t above_low = n, above_high = 0;
    range_of(v, n, &low, &high);
    for (int32_t i = 0; i < CUTS; i++) {
        if (!(i == 0 && at > low && at < high))
            at = i % 3 == 2 ? low + (high - low) / 2
                            : low + (high - low) * (above_low - k) / (double)(above_low - above_high);
        if (!(at >= low && at < high)) return false;
        const int32_t above = count_above(v, n, at);
        if (above == k) {
            *cut = at;
            return true;
        }
        if (above > k) low = at, above_low = above;
        else high = at, above_high = above;
    }
    return false;
}

/* Where the k-th and the next are equal, or nearly: the earlier ones, picked out. */
static void project_picked(double *out, const double *v, int32_t n, int32_t k, int32_t *order)
{
    const int32_t got = largest_of(v, n, k, order, out);
    const double theta = simplex_shift(v, order, got);
    memset(out, 0, (size_t)n * sizeof *out);
    for (int32_t i = 0; i < got; i++) out[order[i]] = fmax(v[order[i]] - theta, 0);
}

void transport_project(double *out, const double *v, int32_t n, int32_t k, double *cut, int32_t *order)
{
    double least = -INFINITY, theta = -INFINITY;
    if (k < n) {
        if (!cut_behind(v, n, k, cut)) {
            project_picked(out, v, n, k, order);
            return;
        }
        least = *cut;
    }
    /* elements below theta leave until none does, as in simplex_shift */
    for (int32_t before = n + 1, in = COE_MIN(k, n); in != before; before = in, in = count_above(v, n, least)) {
        theta = (sum_above(v, n, least) - 1) / in;
        if (theta <= least) break;
        least = theta;
    }
    for (int32_t i = 0; i < n; i++) out[i] = v[i] > least ? v[i] - theta : 0;
}

double transport_semi_dual(const struct transport *p, const double *alpha, double *gradient, double *plan,
                           double *scratch, int32_t *order)
{
    const int32_t m = p->m;
    const double b = 1.0 / p->n, scale = 1 / (b * p->gamma);
    double value = 0, *v = scratch, *g = scratch + m, *cut = scratch + 2 * m;
    for (int32_t t = 0; t < m; t++) {
        value += alpha[t] / m;
        gradient[t] = 1.0 / m;
    }
    for (int32_t j = 0; j < p->n; j++) {
        const double *cost = p->cost + (int64_t)j * m;
        for (int32_t t = 0; t < m; t++) v[t] = (alpha[t] - cost[t]) * scale;
        transport_project(g, v, m, p->k, &cut[j], order);
        axpy(gradient, -b, g, m);
        value -= b * b * p->gamma * (dot(v, g, m) - dot(g, g, m) / 2);
        for (int32_t t = 0; plan && t < m; t++) plan[(int64_t)j * m + t] = b * g[t];
    }
    return value;
}

double transport_dual(const struct transport *p, const double *x, double *gradient, double *plan, double *scratch,
                      int32_t *order)
{
    const double *alpha = x, *beta = x + p->m;
    double value = 0, *v = scratch;
    for (int32_t t = 0; t < p->m; t++) {
        value += alpha[t] / p->m;
        gradient[t] = 1.0 / p->m;
    }
    if (plan) memset(plan, 0, (size_t)p->m * (size_t)p->n * sizeof *plan);
    for (int32_t j = 0; j < p->n; j++) {
        const double *cost = p->cost + (int64_t)j * p->m;
        double *column = &gradient[p->m + j];
        value += beta[j] / p->n;
        *column = 1.0 / p->n;
        for (int32_t t = 0; t < p->m; t++) v[t] = alpha[t] + beta[j] - cost[t];
        const int32_t got = largest_of(v, p->m, p->k, order, scratch + p->m);
        for (int32_t i = 0; i < got; i++) {
            const int32_t t = order[i];
            if (v[t] <= 0) continue;
            const double mass = v[t] / p->gamma;
            value -= mass * v[t] / 2;
            gradient[t] -= mass;
            *column -= mass;
            if (plan) plan[(int64_t)j * p->m + t] = mass;
        }
    }
    return value;
}

/* ---- maximising: L-BFGS with the last MEMORY steps ---- */

#define MEMORY 10

struct search {
    double *x, *gradient, *next, *next_gradient, *direction, *scratch;
    int32_t *order;
    double *step[MEMORY], *change[MEMORY], rho[MEMORY]; /* of x, of -gradient, 1 / their product */
    int32_t size, kept;
};

static double largest(const double *x, int32_t n)
{
    double most = 0;
    for (int32_t i = 0; i < n; i++) most = fmax(most, fabs(x[i]));
    return most;
}

/* direction = inverse Hessian (two-loop recursion) times gradient; history goes round, the newest at kept - 1 */
static void ascent_direction(struct search *s)
{
    const int32_t n = s->size, first = COE_MAX(0, s->kept - MEMORY);
    double a[MEMORY];
    memcpy(s->direction, s->gradient, (size_t)n * sizeof *s->direction);
    for (int32_t i = s->kept; i-- > first;) {
        const int32_t at = i % MEMORY;
        a[at] = s->rho[at] * dot(s->step[at], s->direction, n);
        axpy(s->direction, -a[at], s->change[at], n);
    }
    if (s->kept) {
        const int32_t at = (s->kept - 1) % MEMORY;
        const double scale = 1 / (s->rho[at] * dot(s->change[at], s->change[at], n));
        for (int32_t i = 0; i < n; i++) s->direction[i] *= scale;
    }
    for (int32_t i = first; i < s->kept; i++) {
        const int32_t at = i % MEMORY;
        axpy(s->direction, a[at] - s->rho[at] * dot(s->change[at], s->direction, n), s->step[at], n);
    }
}

static void remember(struct search *s)
{
    const int32_t at = s->kept % MEMORY;
    for (int32_t i = 0; i < s->size; i++) {
        s->step[at][i] = s->next[i] - s->x[i];
        s->change[at][i] = s->gradient[i] - s->next_gradient[i];
    }
    const double product = dot(s->step[at], s->change[at], s->size);
    if (!(product > 0)) return; /* flat: nothing to learn from */
    s->rho[at] = 1 / product;
    s->kept++;
}

/* Halves the step until the value rises by a share of what the slope promises; false when none does. */
static bool climb(struct search *s, const struct transport *p, transport_objective *f, double *value)
{
    const double slope = dot(s->gradient, s->direction, s->size);
    double length = s->kept ? 1 : p->gamma; /* a plan is a gap over gamma: the first step is of that order */
    for (int i = 0; i < 40 && slope > 0; i++, length /= 2) {
        for (int32_t j = 0; j < s->size; j++) s->next[j] = s->x[j] + length * s->direction[j];
        const double now = f(p, s->next, s->next_gradient, NULL, s->scratch, s->order);
        if (now < *value + 1e-4 * length * slope) continue;
        *value = now;
        return true;
    }
    return false;
}

#define VECTORS (5 + 2 * MEMORY)

size_t transport_room(const struct transport *p, int32_t size)
{
    const size_t doubles = (size_t)size * VECTORS + 2 * (size_t)p->m + (size_t)p->n;
    return doubles * sizeof(double) + (size_t)p->m * sizeof(int32_t);
}

static void lay_out(struct search *s, const struct transport *p, int32_t size, void *room)
{
    const size_t n = (size_t)size;
    double *all = room;
    const size_t scratch = 2 * (size_t)p->m + (size_t)p->n;
    memset(all, 0, (n * VECTORS + scratch) * sizeof *all);
    *s = (struct search){ .x = all,
                          .gradient = all + n,
                          .next = all + 2 * n,
                          .next_gradient = all + 3 * n,
                          .direction = all + 4 * n,
                          .scratch = all + n * VECTORS,
                          .order = (int32_t *)(all + n * VECTORS + scratch),
                          .size = size };
    for (size_t i = 0; i < MEMORY; i++) {
        s->step[i] = all + (5 + 2 * i) * n;
        s->change[i] = all + (6 + 2 * i) * n;
    }
}

int32_t transport_solve(const struct transport *p, transport_objective *objective, int32_t size, double tolerance,
                        int32_t rounds, double *plan, double *value, void *room)
{
    struct search s;
    lay_out(&s, p, size, room);
    double now = objective(p, s.x, s.gradient, NULL, s.scratch, s.order);
    int32_t round = 0;
    for (; round < rounds && largest(s.gradient, size) > tolerance; round++) {
        ascent_direction(&s);
        if (!climb(&s, p, objective, &now)) {
            if (!s.kept) break;
            s.kept = 0; /* behind a kink the history misleads: once more along the gradient */
            continue;
        }
        remember(&s);
        double *x = s.x, *gradient = s.gradient;
        s.x = s.next, s.gradient = s.next_gradient;
        s.next = x, s.next_gradient = gradient;
    }
    now = objective(p, s.x, s.gradient, plan, s.scratch, s.order);
    if (value) *value = now;
    return round;
}
