/* tok_cache.c — see tok_cache.h. A cached image is trusted only when its own hash is right. */
#include "text/tok_cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <xxhash.h>

#define WORTH_BYTES ((uint64_t)1 << 20)

/* The image's path; mem_free it. NULL when there is no cache directory. */
static char *path_of(uint64_t source_hash, bool make)
{
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char name[64];
    snprintf(name, sizeof name, "tokenizer-%016llx-%u.img", (unsigned long long)source_hash, TOK_IMAGE_VERSION);
    char *root = base && *base == '/'   ? path_join(base, "coe")
                 : home && *home == '/' ? path_join(home, ".cache/coe")
                                        : NULL;
    char *path = root && (!make || !dir_make(root)) ? path_join(root, name) : NULL;
    mem_free(root);
    return path;
}

/* Of the head without this very field, and everything behind it. */
static uint64_t hash_image(const struct tok_image_head *h)
{
    struct tok_image_head head = *h;
    head.payload_hash = 0;
    return XXH3_64bits_withSeed((const char *)h + sizeof *h, (size_t)h->bytes - sizeof *h,
                                XXH3_64bits(&head, sizeof head));
}

bool tok_cache_find(struct file_map *out, uint64_t source_hash, uint64_t source_bytes)
{
    *out = (struct file_map){ 0 };
    if (source_bytes < WORTH_BYTES) return false;
    char *path = path_of(source_hash, false);
    bool good = path && file_exists(path) && !file_map_open(out, path);
    mem_free(path);
    struct tok_tables tables;
    const struct tok_image_head *h = (const void *)out->at;
    good = good && !tok_image_view(&tables, h, out->bytes) && h->source_hash == source_hash &&
           h->source_bytes == source_bytes && h->payload_hash == hash_image(h);
    if (!good) file_map_close(out);
    coe_clear_error();
    return good;
}

/* Renamed into place, but not synced: a file that a crash leaves half written is recognised by its hash. */
static void write_image(const char *path, const struct tok_image_head *image)
{
    struct str temp = { 0 };
    str_addf(&temp, "%s.part~%ld", path, (long)getpid());
    FILE *f = temp.oom ? NULL : fopen(temp.at, "wbe");
    if (f) {
        bool good = fwrite(image, 1, (size_t)image->bytes, f) == image->bytes;
        good = !fclose(f) && good;
        if (!good || rename(temp.at, path)) unlink(temp.at);
    }
    str_free(&temp);
}

void tok_cache_store(struct tok_image_head *image)
{
    if (image->source_bytes < WORTH_BYTES) return;
    image->payload_hash = hash_image(image);
    char *path = path_of(image->source_hash, true);
    if (path) write_image(path, image);
    mem_free(path);
    coe_clear_error();
}
