/* tok_cache.h — compiled tokenizers in the user's cache directory ($XDG_CACHE_HOME/coe, else ~/.cache/coe), named by
 * the hash of the file they were made from. Nothing here fails: without a usable cache the tokenizer is compiled again.
 */
#ifndef COE_TEXT_TOK_CACHE_H
#define COE_TEXT_TOK_CACHE_H

#include "base/file.h"
#include "text/tok_image.h"

/* Maps the image made from a source of this hash and size; false when there is none or it is damaged. */
bool tok_cache_find(struct file_map *out, uint64_t source_hash, uint64_t source_bytes);
/* Writes an image; files whose compilation takes no time are not worth it and are left out. Fills in payload_hash. */
void tok_cache_store(struct tok_image_head *image);

#endif
