#include "CByteOracle.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#if __has_include(<xenctrl.h>) && __has_include(<xen/io/ring.h>)
#include <xenctrl.h>

#include <xen/grant_table.h>
#include <xen/io/ring.h>

DEFINE_XEN_FLEX_RING_AND_INTF(stream);

// One end's own indices: it writes one of the rings and reads the other.
typedef struct own {
  RING_IDX produced, consumed;
} own;

typedef struct pair {
  uint32_t order, size;
  union {
    struct stream_data_intf interface;
    uint8_t page[4096];
  };
  unsigned char *bytes;
  struct stream_data data;
  own front, back;
} pair;

bool byte_oracle_available(void) { return true; }

static pair *open_pair(ByteOracle rings) { return (pair *)rings.address; }

ByteOracle byte_oracle_create(uint32_t order, uint32_t start, const uint32_t *references) {
  pair *rings = calloc(1, sizeof *rings);
  if (!rings) abort();
  rings->order = order;
  rings->size = XEN_FLEX_RING_SIZE(order);
  rings->bytes = calloc(2, rings->size);
  if (!rings->bytes) abort();
  rings->data.in = rings->bytes;
  rings->data.out = rings->bytes + rings->size;
  struct stream_data_intf *interface = &rings->interface;
  interface->ring_order = order;
  memcpy(interface->ref, references, sizeof(grant_ref_t) << order);
  interface->in_cons = interface->in_prod = interface->out_cons = interface->out_prod = start;
  rings->front = rings->back = (own){start, start};
  return (ByteOracle){(uintptr_t)rings};
}

void byte_oracle_destroy(ByteOracle handle) {
  pair *rings = open_pair(handle);
  free(rings->bytes);
  free(rings);
}

uint32_t byte_oracle_ring_size(uint32_t order) { return XEN_FLEX_RING_SIZE(order); }

uint32_t byte_oracle_readable(ByteOracle handle, ByteOracleEnd end) {
  pair *rings = open_pair(handle);
  if (end == ByteOracleEndFront)
    return stream_queued(rings->interface.in_prod, rings->front.consumed, rings->size);
  return stream_queued(rings->interface.out_prod, rings->back.consumed, rings->size);
}

uint32_t byte_oracle_writable(ByteOracle handle, ByteOracleEnd end) {
  pair *rings = open_pair(handle);
  if (end == ByteOracleEndFront)
    return rings->size - stream_queued(rings->front.produced, rings->interface.out_cons, rings->size);
  return rings->size - stream_queued(rings->back.produced, rings->interface.in_cons, rings->size);
}

void byte_oracle_read(ByteOracle handle, ByteOracleEnd end, void *bytes, uint32_t count) {
  pair *rings = open_pair(handle);
  own *mine = end == ByteOracleEndFront ? &rings->front : &rings->back;
  RING_IDX produced = end == ByteOracleEndFront ? rings->interface.in_prod : rings->interface.out_prod;
  RING_IDX consumed = stream_mask(mine->consumed, rings->size);
  stream_read_packet(bytes, end == ByteOracleEndFront ? rings->data.in : rings->data.out, count,
                     stream_mask(produced, rings->size), &consumed, rings->size);
  mine->consumed += count;
  if (consumed != stream_mask(mine->consumed, rings->size)) abort();
}

void byte_oracle_write(ByteOracle handle, ByteOracleEnd end, const void *bytes, uint32_t count) {
  pair *rings = open_pair(handle);
  own *mine = end == ByteOracleEndFront ? &rings->front : &rings->back;
  RING_IDX consumed = end == ByteOracleEndFront ? rings->interface.out_cons : rings->interface.in_cons;
  RING_IDX produced = stream_mask(mine->produced, rings->size);
  stream_write_packet(end == ByteOracleEndFront ? rings->data.out : rings->data.in, bytes, count, &produced,
                      stream_mask(consumed, rings->size), rings->size);
  mine->produced += count;
  if (produced != stream_mask(mine->produced, rings->size)) abort();
}

void byte_oracle_push(ByteOracle handle, ByteOracleEnd end) {
  pair *rings = open_pair(handle);
  if (end == ByteOracleEndFront) {
    rings->interface.out_prod = rings->front.produced;
    rings->interface.in_cons = rings->front.consumed;
  } else {
    rings->interface.in_prod = rings->back.produced;
    rings->interface.out_cons = rings->back.consumed;
  }
}

bool byte_oracle_pages_equal(ByteOracle handle, const void *interface, const void *data) {
  pair *rings = open_pair(handle);
  return memcmp(rings->page, interface, sizeof rings->page) == 0 && memcmp(rings->bytes, data, 2 * rings->size) == 0;
}

#else

bool byte_oracle_available(void) { return false; }

// Nobody calls these; they are here so that the package links.
ByteOracle byte_oracle_create(uint32_t order, uint32_t start, const uint32_t *references) { abort(); }
void byte_oracle_destroy(ByteOracle rings) { abort(); }
uint32_t byte_oracle_ring_size(uint32_t order) { abort(); }
uint32_t byte_oracle_readable(ByteOracle rings, ByteOracleEnd end) { abort(); }
uint32_t byte_oracle_writable(ByteOracle rings, ByteOracleEnd end) { abort(); }
void byte_oracle_read(ByteOracle rings, ByteOracleEnd end, void *bytes, uint32_t count) { abort(); }
void byte_oracle_write(ByteOracle rings, ByteOracleEnd end, const void *bytes, uint32_t count) { abort(); }
void byte_oracle_push(ByteOracle rings, ByteOracleEnd end) { abort(); }
bool byte_oracle_pages_equal(ByteOracle rings, const void *interface, const void *data) { abort(); }

#endif
