#include "CRingOracle.h"

// The order matters: ring.h declares nothing that it uses, and xenctrl.h defines the barriers and the interface version.
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#if __has_include(<xenctrl.h>) && __has_include(<xen/io/ring.h>)
#include <xenctrl.h>

#include <xen/io/ring.h>

typedef struct { uint8_t bytes[112]; } block_request;
typedef struct { uint8_t bytes[16]; } block_response;
typedef struct { uint8_t bytes[12]; } transmit_request;
typedef struct { uint8_t bytes[4]; } transmit_response;
typedef struct { uint8_t bytes[8]; } receive_request;
typedef struct { uint8_t bytes[8]; } receive_response;

DEFINE_RING_TYPES(block, block_request, block_response);
DEFINE_RING_TYPES(transmit, transmit_request, transmit_response);
DEFINE_RING_TYPES(receive, receive_request, receive_response);

struct oracle {
  RingOracleShape shape;
  void *pages;
  uint32_t byte_count;
  union {
    block_front_ring_t block;
    transmit_front_ring_t transmit;
    receive_front_ring_t receive;
  } front;
  union {
    block_back_ring_t block;
    transmit_back_ring_t transmit;
    receive_back_ring_t receive;
  } back;
};

// Runs `body` with `front`, `back`, `request`, `response` and `entry` meaning those of the oracle's shape.
#define IN_SHAPE(tag, body)                                                     \
  do {                                                                          \
    typedef tag##_request request_type __attribute__((unused));                 \
    typedef tag##_response response_type __attribute__((unused));               \
    typedef union tag##_sring_entry entry_type __attribute__((unused));         \
    typedef tag##_sring_t sring_type __attribute__((unused));                   \
    tag##_front_ring_t *front __attribute__((unused)) = &oracle->front.tag; \
    tag##_back_ring_t *back __attribute__((unused)) = &oracle->back.tag;    \
    body                                                                        \
  } while (0)

#define IN_ITS_SHAPE(body)                                            \
  switch (oracle->shape) {                                            \
  case RingOracleShapeBlock: IN_SHAPE(block, body); break;            \
  case RingOracleShapeNetworkTransmit: IN_SHAPE(transmit, body); break; \
  case RingOracleShapeNetworkReceive: IN_SHAPE(receive, body); break; \
  }

bool ring_oracle_available(void) { return true; }

RingOracle ring_oracle_create(RingOracleShape shape, uint32_t byte_count, uint32_t start) {
  struct oracle *oracle = calloc(1, sizeof *oracle);
  if (!oracle) abort();
  oracle->shape = shape;
  oracle->byte_count = byte_count;
  oracle->pages = calloc(1, byte_count);
  if (!oracle->pages) abort();
  IN_ITS_SHAPE({
    sring_type *shared = oracle->pages;
    SHARED_RING_INIT(shared);
    // The macros start at zero only; everything later than that is theirs again.
    shared->req_prod += start;
    shared->req_event += start;
    shared->rsp_prod += start;
    shared->rsp_event += start;
    FRONT_RING_ATTACH(front, shared, start, byte_count);
    BACK_RING_ATTACH(back, shared, start, byte_count);
  })
  return (RingOracle){(uintptr_t)oracle};
}

static struct oracle *open_oracle(RingOracle ring) { return (struct oracle *)ring.address; }

void ring_oracle_destroy(RingOracle ring) {
  struct oracle *oracle = open_oracle(ring);
  free(oracle->pages);
  free(oracle);
}

bool ring_oracle_pages_equal(RingOracle ring, const void *bytes, uint32_t byte_count) {
  struct oracle *oracle = open_oracle(ring);
  return byte_count == oracle->byte_count && memcmp(oracle->pages, bytes, byte_count) == 0;
}

uint32_t ring_oracle_entry_count(RingOracle ring) {
  struct oracle *oracle = open_oracle(ring);
  uint32_t result = 0;
  IN_ITS_SHAPE({ result = RING_SIZE(front); })
  return result;
}

uint32_t ring_oracle_free_requests(RingOracle ring) {
  struct oracle *oracle = open_oracle(ring);
  uint32_t result = 0;
  IN_ITS_SHAPE({ result = RING_FREE_REQUESTS(front); })
  return result;
}

void ring_oracle_put_request(RingOracle ring, const void *request) {
  struct oracle *oracle = open_oracle(ring);
  IN_ITS_SHAPE({
    request_type *slot = RING_GET_REQUEST(front, front->req_prod_pvt);
    memset(slot, 0, sizeof(entry_type));
    memcpy(slot, request, sizeof(request_type));
    front->req_prod_pvt++;
  })
}

void ring_oracle_push_requests(RingOracle ring) {
  struct oracle *oracle = open_oracle(ring);
  IN_ITS_SHAPE({ RING_PUSH_REQUESTS(front); })
}

bool ring_oracle_push_requests_and_check_notify(RingOracle ring) {
  struct oracle *oracle = open_oracle(ring);
  bool notify = false;
  IN_ITS_SHAPE({ RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(front, notify); })
  return notify;
}

uint32_t ring_oracle_unconsumed_responses(RingOracle ring) {
  struct oracle *oracle = open_oracle(ring);
  uint32_t result = 0;
  IN_ITS_SHAPE({ result = XEN_RING_NR_UNCONSUMED_RESPONSES(front); })
  return result;
}

bool ring_oracle_response_producer_overflows(RingOracle ring) {
  struct oracle *oracle = open_oracle(ring);
  bool result = true;
  IN_ITS_SHAPE({ result = RING_RESPONSE_PROD_OVERFLOW(front, front->sring->rsp_prod); })
  return result;
}

void ring_oracle_take_response(RingOracle ring, void *response) {
  struct oracle *oracle = open_oracle(ring);
  IN_ITS_SHAPE({
    RING_COPY_RESPONSE(front, front->rsp_cons, (response_type *)response);
    front->rsp_cons++;
  })
}

uint32_t ring_oracle_final_check_for_responses(RingOracle ring) {
  struct oracle *oracle = open_oracle(ring);
  uint32_t work = 0;
  IN_ITS_SHAPE({ RING_FINAL_CHECK_FOR_RESPONSES(front, work); })
  return work;
}

uint32_t ring_oracle_set_response_event(RingOracle ring, uint32_t ahead) {
  struct oracle *oracle = open_oracle(ring);
  uint32_t work = 0;
  IN_ITS_SHAPE({
    front->sring->rsp_event = front->rsp_cons + ahead;
    xen_mb();
    work = XEN_RING_NR_UNCONSUMED_RESPONSES(front);
  })
  return work;
}

uint32_t ring_oracle_in_flight(RingOracle ring) {
  struct oracle *oracle = open_oracle(ring);
  uint32_t result = 0;
  IN_ITS_SHAPE({ result = back->req_cons - back->rsp_prod_pvt; })
  return result;
}

uint32_t ring_oracle_unconsumed_requests(RingOracle ring) {
  struct oracle *oracle = open_oracle(ring);
  uint32_t result = 0;
  IN_ITS_SHAPE({ result = XEN_RING_NR_UNCONSUMED_REQUESTS(back); })
  return result;
}

bool ring_oracle_request_producer_overflows(RingOracle ring) {
  struct oracle *oracle = open_oracle(ring);
  bool result = true;
  IN_ITS_SHAPE({ result = RING_REQUEST_PROD_OVERFLOW(back, back->sring->req_prod); })
  return result;
}

void ring_oracle_take_request(RingOracle ring, void *request) {
  struct oracle *oracle = open_oracle(ring);
  IN_ITS_SHAPE({
    RING_COPY_REQUEST(back, back->req_cons, (request_type *)request);
    back->req_cons++;
  })
}

void ring_oracle_put_response(RingOracle ring, const void *response) {
  struct oracle *oracle = open_oracle(ring);
  IN_ITS_SHAPE({
    response_type *slot = RING_GET_RESPONSE(back, back->rsp_prod_pvt);
    memset(slot, 0, sizeof(entry_type));
    memcpy(slot, response, sizeof(response_type));
    back->rsp_prod_pvt++;
  })
}

void ring_oracle_push_responses(RingOracle ring) {
  struct oracle *oracle = open_oracle(ring);
  IN_ITS_SHAPE({ RING_PUSH_RESPONSES(back); })
}

bool ring_oracle_push_responses_and_check_notify(RingOracle ring) {
  struct oracle *oracle = open_oracle(ring);
  bool notify = false;
  IN_ITS_SHAPE({ RING_PUSH_RESPONSES_AND_CHECK_NOTIFY(back, notify); })
  return notify;
}

uint32_t ring_oracle_final_check_for_requests(RingOracle ring) {
  struct oracle *oracle = open_oracle(ring);
  uint32_t work = 0;
  IN_ITS_SHAPE({ RING_FINAL_CHECK_FOR_REQUESTS(back, work); })
  return work;
}

uint32_t ring_oracle_set_request_event(RingOracle ring, uint32_t ahead) {
  struct oracle *oracle = open_oracle(ring);
  uint32_t work = 0;
  IN_ITS_SHAPE({
    back->sring->req_event = back->req_cons + ahead;
    xen_mb();
    work = XEN_RING_NR_UNCONSUMED_REQUESTS(back);
  })
  return work;
}

#else

bool ring_oracle_available(void) { return false; }

// Nobody calls these; they are here so that the package links.
#define ABSENT(result, name, ...) \
  result name(__VA_ARGS__) { abort(); }

ABSENT(RingOracle, ring_oracle_create, RingOracleShape shape, uint32_t byte_count, uint32_t start)
ABSENT(void, ring_oracle_destroy, RingOracle ring)
ABSENT(bool, ring_oracle_pages_equal, RingOracle ring, const void *bytes, uint32_t byte_count)
ABSENT(uint32_t, ring_oracle_entry_count, RingOracle ring)
ABSENT(uint32_t, ring_oracle_free_requests, RingOracle ring)
ABSENT(void, ring_oracle_put_request, RingOracle ring, const void *request)
ABSENT(void, ring_oracle_push_requests, RingOracle ring)
ABSENT(bool, ring_oracle_push_requests_and_check_notify, RingOracle ring)
ABSENT(uint32_t, ring_oracle_unconsumed_responses, RingOracle ring)
ABSENT(bool, ring_oracle_response_producer_overflows, RingOracle ring)
ABSENT(void, ring_oracle_take_response, RingOracle ring, void *response)
ABSENT(uint32_t, ring_oracle_final_check_for_responses, RingOracle ring)
ABSENT(uint32_t, ring_oracle_set_response_event, RingOracle ring, uint32_t ahead)
ABSENT(uint32_t, ring_oracle_in_flight, RingOracle ring)
ABSENT(uint32_t, ring_oracle_unconsumed_requests, RingOracle ring)
ABSENT(bool, ring_oracle_request_producer_overflows, RingOracle ring)
ABSENT(void, ring_oracle_take_request, RingOracle ring, void *request)
ABSENT(void, ring_oracle_put_response, RingOracle ring, const void *response)
ABSENT(void, ring_oracle_push_responses, RingOracle ring)
ABSENT(bool, ring_oracle_push_responses_and_check_notify, RingOracle ring)
ABSENT(uint32_t, ring_oracle_final_check_for_requests, RingOracle ring)
ABSENT(uint32_t, ring_oracle_set_request_event, RingOracle ring, uint32_t ahead)

#endif
