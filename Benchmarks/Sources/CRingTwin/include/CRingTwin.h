// What ring-benchmark does with our rings, done with the macros of <xen/io/ring.h>.
//
// This header needs nothing of Xen, so that Swift imports none of it.
#ifndef C_RING_TWIN_H
#define C_RING_TWIN_H

#include <stdbool.h>
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

/// One end of a ring whose two ends are threads.
typedef struct {
  void *page;
  uint32_t byte_count, batch;
  /// A multiple of the batch.
  uint64_t trips;
  /// Eventfds: the other end's, and this end's own.
  int wake, own;
  /// Whether the end sleeps when it has nothing to do, or looks on.
  bool sleeps;
  /// What the end leaves: the same sum as a `ring_twin`'s, and how often it woke the other one.
  uint64_t sum, notifications;
} ring_end;

/// One end's whole work, on a ring that is initialised.
typedef void ring_end_work(ring_end *end);

/// With every check, as `ring_twin_block` and `ring_twin_transmit`.
ring_end_work ring_twin_block_front, ring_twin_block_back, ring_twin_transmit_front, ring_twin_transmit_back;

/// Initialises the ring, runs both ends on a thread and a processor each, and returns the nanoseconds until both were done.
uint64_t ring_ends_run(ring_end_work *front_work, ring_end *front, ring_end_work *back_work, ring_end *back);

/// Wakes the other end.
void ring_end_wake(ring_end *end);
/// Has nothing to do, and has asked to be woken if the end sleeps: waits.
void ring_end_wait(ring_end *end);

#endif
