/* input.c — see input.h. Each decoder turns bytes of the buffer `in` into bytes at `to` and says when a stream ended;
 * several compressed streams one after another count as one file, as their own tools do it. */
#include "input.h"

#include <errno.h>
#include <fcntl.h>
#include <lzma.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "mem.h"

#define CHUNK ((size_t)1 << 16)
#define XZ_MEMORY ((uint64_t)1 << 30) /* more than any preset of xz asks for */

enum format { PLAIN, GZIP, XZ, ZSTD };

struct input {
    char *path;
    int fd;
    enum format format;
    bool file_end; /* nothing more comes from fd */
    bool between;  /* a compressed stream has just ended */
    unsigned char *buffer;
    size_t at, n; /* buffer[at .. n) is unread */
    z_stream gzip;
    lzma_stream xz;
    ZSTD_DStream *zstd;
};

const char *input_path(const struct input *in) { return in->path; }

static coe_status fill(struct input *in)
{
    if (in->at < in->n || in->file_end) return COE_OK;
    ssize_t got;
    do got = read(in->fd, in->buffer, CHUNK);
    while (got < 0 && errno == EINTR && !coe_interrupted());
    if (got < 0) return coe_fail(COE_E_INPUT, "%s: %s", in->path, strerror(errno));
    in->at = 0;
    in->n = (size_t)got;
    in->file_end = !got;
    return COE_OK;
}

static coe_status damaged(const struct input *in, const char *what)
{
    return coe_fail(COE_E_INPUT, "%s: damaged %s data", in->path, what);
}

static coe_status start(struct input *in)
{
    bool ok = true;
    const unsigned char *m = in->buffer;
    if (in->n >= 2 && m[0] == 0x1F && m[1] == 0x8B) in->format = GZIP;
    else if (in->n >= 6 && !memcmp(m,
                                   "\xFD"
                                   "7zXZ\0",
                                   6))
        in->format = XZ;
    else if (in->n >= 4 && !memcmp(m, "\x28\xB5\x2F\xFD", 4)) in->format = ZSTD;
    if (in->format == GZIP) ok = inflateInit2(&in->gzip, 15 + 16) == Z_OK;
    if (in->format == XZ) ok = lzma_stream_decoder(&in->xz, XZ_MEMORY, LZMA_CONCATENATED) == LZMA_OK;
    if (in->format == ZSTD) ok = (in->zstd = ZSTD_createDStream()) != NULL;
    return ok ? COE_OK : coe_fail(COE_E_NOMEM, "%s: no memory for the decompressor", in->path);
}

coe_status input_open(struct input **out, const char *path)
{
    struct input *in = mem_zalloc("input", sizeof *in);
    *out = NULL;
    if (!in) return COE_E_NOMEM;
    in->fd = -1;
    coe_status s = COE_E_NOMEM;
    in->path = mem_alloc("input", strlen(path) + 1);
    in->buffer = mem_alloc("input", CHUNK);
    if (!in->path || !in->buffer) goto out;
    memcpy(in->path, path, strlen(path) + 1);
    in->fd = strcmp(path, "-") ? open(path, O_RDONLY | O_CLOEXEC) : dup(STDIN_FILENO);
    if (in->fd < 0) s = coe_fail(COE_E_INPUT, "%s: %s", *path ? path : "a file with an empty name", strerror(errno));
    else s = fill(in);
    if (!s) s = start(in);
out:
    if (s) input_close(in);
    else *out = in;
    return s;
}

static coe_status read_gzip(struct input *in, char *to, size_t cap, size_t *n)
{
    z_stream *z = &in->gzip;
    if (in->between) { /* another member may follow */
        in->between = false;
        if (inflateReset(z) != Z_OK) return damaged(in, "gzip");
    }
    z->next_in = in->buffer + in->at;
    z->avail_in = (uInt)(in->n - in->at);
    z->next_out = (Bytef *)to;
    z->avail_out = (uInt)cap;
    int rc = inflate(z, Z_NO_FLUSH);
    in->at = in->n - z->avail_in;
    *n = cap - z->avail_out;
    in->between = rc == Z_STREAM_END;
    return rc == Z_OK || rc == Z_STREAM_END || (rc == Z_BUF_ERROR && !in->file_end) ? COE_OK : damaged(in, "gzip");
}

static coe_status read_xz(struct input *in, char *to, size_t cap, size_t *n)
{
    lzma_stream *z = &in->xz;
    z->next_in = in->buffer + in->at;
    z->avail_in = in->n - in->at;
    z->next_out = (uint8_t *)to;
    z->avail_out = cap;
    lzma_ret rc = lzma_code(z, in->file_end ? LZMA_FINISH : LZMA_RUN);
    in->at = in->n - z->avail_in;
    *n = cap - z->avail_out;
    in->between = rc == LZMA_STREAM_END;
    return rc == LZMA_OK || rc == LZMA_STREAM_END || (rc == LZMA_BUF_ERROR && !in->file_end) ? COE_OK
                                                                                             : damaged(in, "xz");
}

static coe_status read_zstd(struct input *in, char *to, size_t cap, size_t *n)
{
    ZSTD_inBuffer src = { in->buffer, in->n, in->at };
    ZSTD_outBuffer dst = { to, cap, 0 };
    size_t rc = ZSTD_decompressStream(in->zstd, &dst, &src);
    in->at = src.pos;
    *n = dst.pos;
    in->between = rc == 0;
    if (ZSTD_isError(rc) || (in->file_end && rc && !dst.pos)) return damaged(in, "zstd");
    return COE_OK;
}

static coe_status read_plain(struct input *in, char *to, size_t cap, size_t *n)
{
    *n = COE_MIN(cap, in->n - in->at);
    memcpy(to, in->buffer + in->at, *n);
    in->at += *n;
    return COE_OK;
}

coe_status input_read(struct input *in, char *to, size_t cap, size_t *n)
{
    static coe_status (*const decode[])(struct input *, char *, size_t, size_t *) = { read_plain, read_gzip, read_xz,
                                                                                      read_zstd };
    *n = 0;
    cap = COE_MIN(cap, (size_t)1 << 30);
    while (cap && !*n) {
        COE_TRY(fill(in));
        bool whole = in->format == PLAIN || (in->between && in->at == in->n);
        if (in->file_end && whole) return COE_OK;
        COE_TRY(decode[in->format](in, to, cap, n));
        if (in->format == XZ && in->between) { /* with LZMA_CONCATENATED the end is the end of the file */
            in->file_end = true;
            in->at = in->n;
            return COE_OK;
        }
    }
    return COE_OK;
}

void input_close(struct input *in)
{
    if (!in) return;
    if (in->fd >= 0) close(in->fd);
    if (in->format == GZIP) inflateEnd(&in->gzip);
    if (in->format == XZ) lzma_end(&in->xz);
    if (in->zstd) ZSTD_freeDStream(in->zstd);
    mem_free(in->buffer);
    mem_free(in->path);
    mem_free(in);
}
