// The ring macros of the installed <xen/io/ring.h> as ordinary functions, for tests that run ours beside them.
//
// This header needs nothing of Xen, so that the package builds without libxen-dev.
#ifndef C_RING_ORACLE_H
#define C_RING_ORACLE_H

#include <stdbool.h>
#include <stdint.h>

#include "CBlockOracle.h"
#include "CControlOracle.h"
#include "CByteOracle.h"
#include "CNetOracle.h"

/// A request and a response size that the macros are instantiated for.
typedef enum RingOracleShape {
  RingOracleShapeBlock,            // 112 and 16 bytes
  RingOracleShapeNetworkTransmit,  // 12 and 4 bytes
  RingOracleShapeNetworkReceive,   // 8 and 8 bytes
} RingOracleShape;

/// Names both ends of one ring and the pages between them; a number, so that only the calls that move messages take
/// pointers.
typedef struct RingOracle {
  uintptr_t address;
} RingOracle;

/// Whether libxen-dev was there when this was compiled. If not, no other function may be called.
bool ring_oracle_available(void);

RingOracle ring_oracle_create(RingOracleShape shape, uint32_t byte_count, uint32_t start);
void ring_oracle_destroy(RingOracle ring);

/// Whether the oracle's pages hold exactly these bytes, and as many.
bool ring_oracle_pages_equal(RingOracle ring, const void *bytes, uint32_t byte_count);
uint32_t ring_oracle_entry_count(RingOracle ring);

uint32_t ring_oracle_free_requests(RingOracle ring);
void ring_oracle_put_request(RingOracle ring, const void *request);
void ring_oracle_push_requests(RingOracle ring);
bool ring_oracle_push_requests_and_check_notify(RingOracle ring);
uint32_t ring_oracle_unconsumed_responses(RingOracle ring);
bool ring_oracle_response_producer_overflows(RingOracle ring);
void ring_oracle_take_response(RingOracle ring, void *response);
uint32_t ring_oracle_final_check_for_responses(RingOracle ring);
uint32_t ring_oracle_set_response_event(RingOracle ring, uint32_t ahead);

uint32_t ring_oracle_in_flight(RingOracle ring);
uint32_t ring_oracle_unconsumed_requests(RingOracle ring);
bool ring_oracle_request_producer_overflows(RingOracle ring);
void ring_oracle_take_request(RingOracle ring, void *request);
void ring_oracle_put_response(RingOracle ring, const void *response);
void ring_oracle_push_responses(RingOracle ring);
bool ring_oracle_push_responses_and_check_notify(RingOracle ring);
uint32_t ring_oracle_final_check_for_requests(RingOracle ring);
uint32_t ring_oracle_set_request_event(RingOracle ring, uint32_t ahead);

#endif
