/* bench_cold.c — what a user waits for: a fresh process, a file that is not in memory, the first token. And peak memory
 * of a process that does one thing. */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/rng.h"
#include "ckpt/ckpt.h"
#include "cli/bench.h"
#include "cli/model_args.h"

extern char **environ;

/* ---- once ---- */

struct once {
    int prompt, generate;
    double opened, first, end; /* seconds since the verb began */
    uint64_t peak;
};

static coe_status work(struct cli *c, struct coe_model *m, struct once *o, double start)
{
    coe_session_opts opts = { 0 };
    COE_TRY(bench_session_form(c, m, &opts));
    opts.max_tokens = o->prompt + o->generate;
    const size_t n = (size_t)o->prompt + (size_t)o->generate;
    coe_session *session = NULL;
    struct rng r = rng_make(1, rng_stream(RNG_TEST, 0));
    float *logits = mem_alloc("bench", (size_t)m->spec.vocab * sizeof *logits);
    int32_t *ids = mem_alloc("bench", n * sizeof *ids);
    coe_status s = logits && ids ? coe_session_open(&session, m, &opts) : COE_E_NOMEM;
    for (size_t i = 0; !s && i < n; i++) ids[i] = (int32_t)rng_below(&r, (uint64_t)m->spec.vocab);
    if (!s) s = coe_session_eval(session, ids, (size_t)o->prompt, logits, 1);
    o->first = coe_now() - start;
    for (int i = 0; !s && i < o->generate; i++) s = coe_session_eval(session, ids + o->prompt + i, 1, logits, 1);
    o->end = coe_now() - start;
    o->peak = peak_resident();
    coe_session_close(session);
    mem_free(ids);
    mem_free(logits);
    return s;
}

/* Flushed here: closing a large model takes a while, and who waits for the first token reads this line. */
static void print_once(struct cli *c, enum bench_form form, const struct once *o)
{
    char peak[32], counted[32];
    const double each = o->generate / (o->end - o->first);
    if (form == BENCH_JSON)
        cli_print_json(json_pack("{s:s, s:i, s:i, s:i, s:f, s:f, s:f, s:I, s:I}", "model", cli_arg(c, 1), "threads",
                                 coe_threads(), "prompt", o->prompt, "generate", o->generate, "opened_seconds",
                                 o->opened, "first_token_seconds", o->first, "generate_tokens_per_second",
                                 o->generate ? each : 0.0, "peak_memory_bytes", (json_int_t)o->peak,
                                 "counted_memory_bytes", (json_int_t)mem_peak()));
    else
        printf("%s: opened after %.3f s, first token of a prompt of %d after %.3f s\n"
               "%d tokens behind it: %.2f tokens/s\n"
               "peak memory %s, of which %s counted (the rest is mapped files and the program)\n",
               cli_arg(c, 1), o->opened, o->prompt, o->first, o->generate, o->generate ? each : 0.0,
               cli_bytes(o->peak, peak), cli_bytes(mem_peak(), counted));
    fflush(stdout);
}

coe_status bench_once(struct cli *c, const struct bench_settings *how)
{
    const double start = coe_now();
    struct once o = { .prompt = how->n_prompt ? how->prompt[0] : 1,
                      .generate = how->n_generate ? how->generate[0] : 0 };
    struct coe_model *m = NULL;
    coe_set_threads(how->threads[0]);
    COE_TRY(cli_open_model(c, 1, &m));
    o.opened = coe_now() - start;
    coe_status s = work(c, m, &o, start);
    if (!s) print_once(c, how->form, &o);
    model_close(m);
    return s;
}

/* ---- cold ---- */

#define PIECE ((size_t)8 << 20)

typedef coe_status file_fn(void *user, const char *path, int fd);

static coe_status with_file(const char *path, file_fn *fn, void *user)
{
    struct stat st;
    coe_status s = COE_OK;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st)) s = coe_fail(COE_E_INPUT, "%s: %s", path, strerror(errno));
    else if (S_ISREG(st.st_mode)) s = fn(user, path, fd);
    if (fd >= 0) close(fd);
    return s;
}

struct paths {
    char **at;
    size_t n, cap;
};

static void free_paths(struct paths *p)
{
    for (size_t i = 0; i < p->n; i++) mem_free(p->at[i]);
    mem_free(p->at);
}

static char *path_copy(const char *path)
{
    const size_t n = strlen(path) + 1;
    char *copy = mem_alloc("bench", n);
    return copy ? memcpy(copy, path, n) : NULL;
}

/* `path` is given away */
static coe_status add_path(struct paths *p, char *path)
{
    if (path && VEC_PUSH(p, path)) return COE_OK;
    mem_free(path);
    return COE_E_NOMEM;
}

/* All parts of a split model, else the one file. Closed again before anything is dropped: mapped pages stay. */
static coe_status parts_of(struct paths *out, const char *model)
{
    struct ckpt *c;
    const char *path;
    COE_TRY(ckpt_open(&c, model));
    coe_status s = COE_OK;
    for (size_t i = 0; !s && (path = ckpt_file(c, i)); i++) s = add_path(out, path_copy(path));
    ckpt_close(c);
    return s;
}

static coe_status files_of(struct paths *out, const char *dir)
{
    struct file_list files;
    COE_TRY(dir_list(&files, dir));
    coe_status s = COE_OK;
    for (size_t i = 0; !s && i < files.n; i++) s = add_path(out, path_join(dir, files.name[i]));
    file_list_free(&files);
    return s;
}

/* Calls fn for each file of a model: those of its directory, or of its weights. */
static coe_status each_file(const char *model, file_fn *fn, void *user)
{
    struct paths p = { 0 };
    coe_status s = dir_exists(model) ? files_of(&p, model) : parts_of(&p, model);
    for (size_t i = 0; !s && i < p.n; i++) s = with_file(p.at[i], fn, user);
    free_paths(&p);
    return s;
}

/* Bytes, and how many of them stayed in memory though the system was asked to let go. */
struct dropped {
    uint64_t bytes, stayed;
};

static coe_status drop(void *user, const char *path, int fd)
{
    struct dropped *d = user;
    struct file_map map;
    unsigned char in[4096];
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    (void)fdatasync(fd); /* what is not on disk cannot be dropped; a read-only file system has nothing to write */
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    COE_TRY(file_map_open(&map, path));
    for (uint64_t at = 0; at < map.bytes; at += sizeof in * page) {
        const size_t bytes = (size_t)COE_MIN(map.bytes - at, (uint64_t)(sizeof in * page));
        if (mincore((void *)(uintptr_t)(map.at + at), bytes, in)) break;
        for (size_t i = 0; i < (bytes + page - 1) / page; i++) d->stayed += (in[i] & 1) ? page : 0;
    }
    d->bytes += map.bytes;
    file_map_close(&map);
    return COE_OK;
}

static coe_status read_whole(void *user, const char *path, int fd)
{
    char *piece = user;
    for (;;) {
        const ssize_t n = read(fd, piece, PIECE);
        if (n < 0) return coe_fail(COE_E_INPUT, "%s: %s", path, strerror(errno));
        if (!n) return COE_OK;
    }
}

static coe_status time_reading(const char *model, double *seconds)
{
    char *piece = mem_alloc("bench", PIECE);
    if (!piece) return COE_E_NOMEM;
    const double start = coe_now();
    coe_status s = each_file(model, read_whole, piece);
    *seconds = coe_now() - start;
    mem_free(piece);
    return s;
}

/* A child's standard output from its start to its first bytes, and those bytes to the end of the line */
static coe_status time_child(char *const *argv, double *seconds, char *line, size_t room)
{
    int end[2], status = 0;
    size_t got = 0;
    pid_t pid;
    posix_spawn_file_actions_t actions;
    if (pipe2(end, O_CLOEXEC)) return coe_fail(COE_E_FAILED, "pipe: %s", strerror(errno));
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, end[1], STDOUT_FILENO);
    const double start = coe_now();
    const int error = posix_spawn(&pid, "/proc/self/exe", &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(end[1]);
    *seconds = 0;
    for (ssize_t n = 1; !error && n > 0 && got + 1 < room; got += n > 0 ? (size_t)n : 0) {
        n = read(end[0], line + got, room - 1 - got);
        if (*seconds == 0) *seconds = coe_now() - start;
    }
    line[got] = 0;
    close(end[0]);
    if (error) return coe_fail(COE_E_FAILED, "cannot start another process of this program: %s", strerror(error));
    if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) || !got)
        return coe_fail(COE_E_FAILED, "the fresh process gave no token; see its message above");
    return COE_OK;
}

struct cold {
    struct rates read, first, ratio; /* seconds, seconds, first/read of the same round */
    uint64_t peak;
    struct dropped dropped; /* sums over all drops */
    int prompt;
};

static coe_status drop_all(const char *model, struct cold *out)
{
    return each_file(model, drop, &out->dropped);
}

static void add_option(const char **argv, int *n, const char *name, const char *value)
{
    if (!value) return;
    argv[(*n)++] = name;
    argv[(*n)++] = value;
}

static coe_status one_round(struct cli *c, const struct bench_settings *how, struct cold *out)
{
    const char *model = cli_arg(c, 1);
    char prompt[16], threads[16], memory[32], line[2048];
    snprintf(prompt, sizeof prompt, "%d", out->prompt);
    snprintf(threads, sizeof threads, "%d", how->threads[0]);
    snprintf(memory, sizeof memory, "%llu", (unsigned long long)mem_budget());
    const char *argv[24] = { "coe", "bench", "once", "--json", "-n", "0", "-p", prompt, "-t", threads };
    int n = 10; /* options stand before the model */
    add_option(argv, &n, "--memory", mem_budget() ? memory : NULL);
    add_option(argv, &n, "--mla", cli_str(c, "mla", NULL));
    add_option(argv, &n, "--kv", cli_str(c, "kv", NULL));
    add_option(argv, &n, "--math", cli_str(c, "math", NULL));
    add_option(argv, &n, "--", model);
    double read = 0, first = 0;
    json_t *said = NULL;
    COE_TRY(drop_all(model, out));
    COE_TRY(time_reading(model, &read));
    COE_TRY(drop_all(model, out));
    COE_TRY(time_child((char *const *)(uintptr_t)argv, &first, line, sizeof line));
    COE_TRY(json_read_text(&said, line, strlen(line), "the fresh process"));
    out->peak = COE_MAX(out->peak, (uint64_t)json_integer_value(json_object_get(said, "peak_memory_bytes")));
    json_decref(said);
    rates_add(&out->read, read);
    rates_add(&out->first, first);
    rates_add(&out->ratio, first / read);
    return COE_OK;
}

static void print_cold(struct cli *c, const struct bench_settings *how, struct cold *v)
{
    const uint64_t bytes = v->dropped.bytes / (uint64_t)(2 * v->read.n);
    const double stayed = v->dropped.bytes ? (double)v->dropped.stayed / (double)v->dropped.bytes : 0;
    char size[32], peak[32];
    if (how->form == BENCH_JSON) {
        cli_print_json(json_pack("{s:s, s:I, s:i, s:i, s:o, s:o, s:o, s:I, s:f}", "model", cli_arg(c, 1), "file_bytes",
                                 (json_int_t)bytes, "threads", how->threads[0], "prompt", v->prompt, "read_seconds",
                                 rates_json(&v->read), "first_token_seconds", rates_json(&v->first), "ratio",
                                 rates_json(&v->ratio), "peak_memory_bytes", (json_int_t)v->peak, "stayed_in_memory",
                                 stayed));
        return;
    }
    printf("%s: %s; medians of %d (least to most)\n", cli_arg(c, 1), cli_bytes(bytes, size), v->read.n);
    printf("  reading the file              %.3f s (%.3f to %.3f), %.2f GB/s\n", rates_median(&v->read),
           rates_least(&v->read), rates_best(&v->read), (double)bytes / rates_median(&v->read) / 1e9);
    printf("  first token, prompt of %-5d  %.3f s (%.3f to %.3f), %.2f times the reading; %d threads\n", v->prompt,
           rates_median(&v->first), rates_least(&v->first), rates_best(&v->first), rates_median(&v->ratio),
           how->threads[0]);
    printf("  peak memory                   %s, %.2f times the file\n", cli_bytes(v->peak, peak),
           (double)v->peak / (double)bytes);
    if (stayed > 0.01)
        log_warn("%.0f %% of the file stayed in memory all the time: somebody else has it open", 100 * stayed);
}

coe_status bench_cold(struct cli *c, const struct bench_settings *how)
{
    struct cold v = { .prompt = cli_given(c, "prompt") && how->n_prompt ? how->prompt[0] : 16 };
    const int runs = (int)cli_int(c, "runs", 3);
    for (int i = 0; i < runs; i++) {
        COE_TRY(one_round(c, how, &v));
        if (coe_interrupted()) return coe_fail(COE_E_FAILED, "interrupted");
    }
    print_cold(c, how, &v);
    return COE_OK;
}
