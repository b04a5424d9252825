// A block request and a block response as a C compiler lays them out, for tests that hold ours to the same bytes.
#ifndef C_BLOCK_ORACLE_H
#define C_BLOCK_ORACLE_H

#include <stdint.h>

typedef enum BlockOracleLayout {
  BlockOracleLayoutNative,  // the installed <xen/io/blkif.h>; not without ring_oracle_available()
  BlockOracleLayoutX86_32,
  BlockOracleLayoutX86_64,
} BlockOracleLayout;

typedef struct BlockOracleRequest {
  uint8_t operation;
  uint8_t segment_count;
  uint16_t handle;
  uint64_t id;
  uint64_t sector_number;
  // Segment number n names page first_gref + n, from sector n % 8 to 7.
  uint32_t first_gref;
} BlockOracleRequest;

typedef struct BlockOracleResponse {
  uint64_t id;
  uint8_t operation;
  int16_t status;
} BlockOracleResponse;

typedef struct BlockOracleIndirect {
  uint8_t indirect_operation;
  uint16_t segment_count;
  uint16_t handle;
  uint64_t id;
  uint64_t sector_number;
  // Page number n of descriptors is first_gref + n.
  uint32_t first_gref;
} BlockOracleIndirect;

typedef struct BlockOracleDiscard {
  uint8_t flag;
  uint16_t handle;
  uint64_t id;
  uint64_t sector_number;
  uint64_t sector_count;
} BlockOracleDiscard;

/// Writes the slot's bytes, padding zeroed, to `slot`, which has 128; gives how many there are.
uint32_t block_oracle_request(BlockOracleLayout layout, BlockOracleRequest request, void *slot);
uint32_t block_oracle_indirect(BlockOracleLayout layout, BlockOracleIndirect request, void *slot);
uint32_t block_oracle_discard(BlockOracleLayout layout, BlockOracleDiscard request, void *slot);
uint32_t block_oracle_response(BlockOracleLayout layout, BlockOracleResponse response, void *slot);

#endif
