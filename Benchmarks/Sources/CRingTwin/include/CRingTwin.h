// What ring-benchmark does with our rings, done with the macros of <xen/io/ring.h>.
//
// This header needs nothing of Xen, so that Swift imports none of it.
#ifndef C_RING_TWIN_H
#define C_RING_TWIN_H

#include <stdint.h>

/// Sends `trips` requests around a ring of `byte_count` bytes, `batch` at a time, and returns a sum of what was read from
/// requests and responses. The two pages are the same bytes, as each end has them.
typedef uint64_t ring_twin(void *front_page, void *back_page, uint32_t byte_count, uint32_t batch, uint64_t trips);

/// With every check that our rings make, and responses that fill their slot: the like-for-like comparison.
ring_twin ring_twin_block, ring_twin_transmit;
/// The other end's producer is checked and nothing else.
ring_twin ring_twin_block_producer_checks, ring_twin_transmit_producer_checks;
/// As that, and old bytes stay behind each response.
ring_twin ring_twin_block_response_alone, ring_twin_transmit_response_alone;

#endif
