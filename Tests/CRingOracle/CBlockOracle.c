#include "CBlockOracle.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
  uint32_t gref;
  uint8_t first_sect, last_sect;
} segment;

// i386 aligns 64-bit integers to four bytes, and that is all in which its layout of these structures differs; the pragma
// makes this compiler do the same.
#pragma pack(push, 4)
typedef struct {
  uint8_t operation, nr_segments;
  uint16_t handle;
  uint64_t id, sector_number;
  segment seg[11];
} x86_32_request;

typedef struct {
  uint8_t operation, indirect_op;
  uint16_t nr_segments;
  uint64_t id, sector_number;
  uint16_t handle;
  uint32_t indirect_grefs[8];
} x86_32_indirect;

typedef struct {
  uint8_t operation, flag;
  uint16_t handle;
  uint64_t id, sector_number, nr_sectors;
} x86_32_discard;

typedef struct {
  uint64_t id;
  uint8_t operation;
  int16_t status;
} x86_32_response;
#pragma pack(pop)

typedef struct {
  uint8_t operation, nr_segments;
  uint16_t handle;
  uint64_t id __attribute__((aligned(8))), sector_number;
  segment seg[11];
} x86_64_request;

typedef struct {
  uint8_t operation, indirect_op;
  uint16_t nr_segments;
  uint64_t id __attribute__((aligned(8))), sector_number;
  uint16_t handle;
  uint32_t indirect_grefs[8];
} x86_64_indirect;

typedef struct {
  uint8_t operation, flag;
  uint16_t handle;
  uint64_t id __attribute__((aligned(8))), sector_number, nr_sectors;
} x86_64_discard;

typedef struct {
  uint64_t id __attribute__((aligned(8)));
  uint8_t operation;
  int16_t status;
} x86_64_response;

#if __has_include(<xenctrl.h>) && __has_include(<xen/io/blkif.h>)
#include <stddef.h>

#include <xenctrl.h>

#include <xen/io/blkif.h>
typedef struct blkif_request native_request;
typedef struct blkif_request_indirect native_indirect;
typedef struct blkif_request_discard native_discard;
typedef struct blkif_response native_response;
#else
typedef x86_64_request native_request;
typedef x86_64_indirect native_indirect;
typedef x86_64_discard native_discard;
typedef x86_64_response native_response;
#endif

#define FILL_REQUEST(type)                                       \
  do {                                                           \
    type *to = slot;                                             \
    memset(to, 0, sizeof *to);                                   \
    to->operation = request.operation;                           \
    to->nr_segments = request.segment_count;                     \
    to->handle = request.handle;                                 \
    to->id = request.id;                                         \
    to->sector_number = request.sector_number;                   \
    for (unsigned n = 0; n < 11; n++) {                          \
      to->seg[n].gref = request.first_gref + n;                  \
      to->seg[n].first_sect = n % 8;                             \
      to->seg[n].last_sect = 7;                                  \
    }                                                            \
    return sizeof *to;                                           \
  } while (0)

// A slot is as large as a request, whatever it is read as.
#define FILL_INDIRECT(type, request_type)                        \
  do {                                                           \
    type *to = slot;                                             \
    memset(slot, 0, sizeof(request_type));                       \
    to->operation = 6;                                           \
    to->indirect_op = request.indirect_operation;                \
    to->nr_segments = request.segment_count;                     \
    to->handle = request.handle;                                 \
    to->id = request.id;                                         \
    to->sector_number = request.sector_number;                   \
    for (unsigned n = 0; n < 8; n++)                             \
      to->indirect_grefs[n] = request.first_gref + n;            \
    return sizeof(request_type);                                 \
  } while (0)

#define FILL_DISCARD(type, request_type)                         \
  do {                                                           \
    type *to = slot;                                             \
    memset(slot, 0, sizeof(request_type));                       \
    to->operation = 5;                                           \
    to->flag = request.flag;                                     \
    to->handle = request.handle;                                 \
    to->id = request.id;                                         \
    to->sector_number = request.sector_number;                   \
    to->nr_sectors = request.sector_count;                       \
    return sizeof(request_type);                                 \
  } while (0)

#define FILL_RESPONSE(type)              \
  do {                                   \
    type *to = slot;                     \
    memset(to, 0, sizeof *to);           \
    to->id = response.id;                \
    to->operation = response.operation;  \
    to->status = response.status;        \
    return sizeof *to;                   \
  } while (0)

uint32_t block_oracle_request(BlockOracleLayout layout, BlockOracleRequest request, void *slot) {
  switch (layout) {
  case BlockOracleLayoutNative: FILL_REQUEST(native_request);
  case BlockOracleLayoutX86_32: FILL_REQUEST(x86_32_request);
  case BlockOracleLayoutX86_64: FILL_REQUEST(x86_64_request);
  }
  abort();
}

uint32_t block_oracle_indirect(BlockOracleLayout layout, BlockOracleIndirect request, void *slot) {
  switch (layout) {
  case BlockOracleLayoutNative: FILL_INDIRECT(native_indirect, native_request);
  case BlockOracleLayoutX86_32: FILL_INDIRECT(x86_32_indirect, x86_32_request);
  case BlockOracleLayoutX86_64: FILL_INDIRECT(x86_64_indirect, x86_64_request);
  }
  abort();
}

uint32_t block_oracle_discard(BlockOracleLayout layout, BlockOracleDiscard request, void *slot) {
  switch (layout) {
  case BlockOracleLayoutNative: FILL_DISCARD(native_discard, native_request);
  case BlockOracleLayoutX86_32: FILL_DISCARD(x86_32_discard, x86_32_request);
  case BlockOracleLayoutX86_64: FILL_DISCARD(x86_64_discard, x86_64_request);
  }
  abort();
}

uint32_t block_oracle_response(BlockOracleLayout layout, BlockOracleResponse response, void *slot) {
  switch (layout) {
  case BlockOracleLayoutNative: FILL_RESPONSE(native_response);
  case BlockOracleLayoutX86_32: FILL_RESPONSE(x86_32_response);
  case BlockOracleLayoutX86_64: FILL_RESPONSE(x86_64_response);
  }
  abort();
}
