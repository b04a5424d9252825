// The macros of <xen/io/ring.h>, and what a benchmark does with the entries of a disk's ring and a card's transmit ring.
#ifndef C_RING_TWIN_SHAPES_H
#define C_RING_TWIN_SHAPES_H

// xenctrl.h comes before ring.h, because it defines the barriers and the interface version that ring.h uses.
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if !__has_include(<xenctrl.h>)
#error "libxen-dev is not installed: run make deps"
#endif
#include <xenctrl.h>

#include <xen/io/ring.h>

#include <xen/io/blkif.h>
#include <xen/io/netif.h>

static inline void block_fill(blkif_request_t *request, uint64_t number) {
  request->nr_segments = 1;
  request->id = number;
  request->sector_number = number * 8;
  request->seg[0].gref = (grant_ref_t)number;
  request->seg[0].last_sect = 7;
}

static inline uint64_t block_read(const blkif_request_t *request) {
  if (request->nr_segments > BLKIF_MAX_SEGMENTS_PER_REQUEST) return 0;
  uint64_t sum = request->operation + request->handle + request->sector_number;
  for (unsigned place = 0; place < request->nr_segments; place++)
    sum += request->seg[place].gref + request->seg[place].first_sect + request->seg[place].last_sect;
  return sum;
}

static inline void block_answer(blkif_response_t *response, const blkif_request_t *request) {
  response->id = request->id;
  response->operation = request->operation;
  response->status = BLKIF_RSP_OKAY;
}

static inline void transmit_fill(netif_tx_request_t *request, uint64_t number) {
  request->gref = (grant_ref_t)number;
  request->id = (uint16_t)number;
  request->size = 1500;
}

static inline uint64_t transmit_read(const netif_tx_request_t *request) {
  return (uint64_t)request->gref + request->offset + request->flags + request->size;
}

static inline void transmit_answer(netif_tx_response_t *response, const netif_tx_request_t *request) {
  response->id = request->id;
  response->status = NETIF_RSP_OKAY;
}

// As many as the largest ring has slots.
enum { SHADOWS = 4096 };

#endif
