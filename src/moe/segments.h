/* segments.h — the segments of a batch: each sequence cut into so many tokens from its beginning, the last one shorter.
 *
 * Paper: Seg-MoE: Multi-Resolution Segment-wise MoE, 2026 (card: routing.md 17). place [n] = segment · width + the
 * token's place in it; segments are counted through the batch. */
#ifndef COE_MOE_SEGMENTS_H
#define COE_MOE_SEGMENTS_H

#include "moe/moe.h"

/* For the n rows of a batch (NULL: one sequence); answers how many segments. The position of a sequence's first token
 * counts: a segment begins where it is a multiple of width. */
int32_t segments_of(const struct attn_batch *b, int64_t n, int32_t width, int32_t *place);
/* before [n]: where the same tokens stand when every segment shows the one before it; -1 for those of a last segment.
 */
void segments_before(const struct attn_batch *b, int64_t n, int32_t width, const int32_t *place, int32_t *before);

#endif
