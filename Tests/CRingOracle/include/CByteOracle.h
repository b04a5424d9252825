// The byte-stream ring functions of the installed <xen/io/ring.h> (DEFINE_XEN_FLEX_RING_AND_INTF), used as their comments
// say, for tests that run ours beside them. Both ends of one pair of rings, and the pages between them.
#ifndef C_BYTE_ORACLE_H
#define C_BYTE_ORACLE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct ByteOracle {
  uintptr_t address;
} ByteOracle;

/// Which end does it: the front end writes `out` and reads `in`.
typedef enum ByteOracleEnd { ByteOracleEndFront, ByteOracleEndBack } ByteOracleEnd;

/// Whether libxen-dev was there when this was compiled. If not, no other function may be called.
bool byte_oracle_available(void);

ByteOracle byte_oracle_create(uint32_t order, uint32_t start, const uint32_t *references);
void byte_oracle_destroy(ByteOracle rings);

uint32_t byte_oracle_ring_size(uint32_t order);

/// What the shared words say is there to read (`queued`), and what is free, for the end's own unpushed progress.
uint32_t byte_oracle_readable(ByteOracle rings, ByteOracleEnd end);
uint32_t byte_oracle_writable(ByteOracle rings, ByteOracleEnd end);

/// `count` is at most what the two above have said.
void byte_oracle_read(ByteOracle rings, ByteOracleEnd end, void *bytes, uint32_t count);
void byte_oracle_write(ByteOracle rings, ByteOracleEnd end, const void *bytes, uint32_t count);

/// Stores both of the end's indices.
void byte_oracle_push(ByteOracle rings, ByteOracleEnd end);

/// Whether the oracle's pages hold exactly these bytes.
bool byte_oracle_pages_equal(ByteOracle rings, const void *interface, const void *data);

#endif
