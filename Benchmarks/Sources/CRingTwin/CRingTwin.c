#include "CRingTwin.h"

#include "Shapes.h"

// Both ends' work, as a careful driver has it: every producer index is checked, every entry is copied out before it is
// used, and an end looks once more before it would sleep. The front end makes each request anew, keeps what differs in a shadow,
// and finds that again by the response's id; the back end reads every field that the request uses. The ends get a pointer each,
// as two domains have a mapping each.
//
// With `every_check`, the same bounds as our rings: no put into a full ring, no request without room for its response.
// With `whole_slot`, a response leaves no old byte in its slot, as ours does not (XSA-216).
#define TRIPS(function, ring, tag, every_check, whole_slot)                                                            \
  uint64_t function(void *front_page, void *back_page, uint32_t byte_count, uint32_t batch, uint64_t trips) {          \
    ring##_sring_t *front_shared = front_page, *back_shared = back_page;                                               \
    ring##_front_ring_t front;                                                                                         \
    ring##_back_ring_t back;                                                                                           \
    memset(front_page, 0, byte_count);                                                                                 \
    SHARED_RING_INIT(front_shared);                                                                                    \
    FRONT_RING_INIT(&front, front_shared, byte_count);                                                                 \
    BACK_RING_INIT(&back, back_shared, byte_count);                                                                    \
    ring##_request_t *shadows = calloc(SHADOWS, sizeof *shadows);                                                      \
    if (!shadows) abort();                                                                                             \
    uint64_t sum = 0, notifications = 0;                                                                               \
    for (uint64_t done = 0; done < trips; done += batch) {                                                             \
      bool notify, more;                                                                                               \
      for (uint32_t place = 0; place < batch; place++) {                                                               \
        if (every_check && RING_FULL(&front)) abort();                                                                 \
        ring##_request_t *shadow = &shadows[(done + place) % SHADOWS];                                                 \
        ring##_request_t request = {0};                                                                                \
        tag##_fill(shadow, done + place);                                                                              \
        tag##_fill(&request, done + place);                                                                            \
        *RING_GET_REQUEST(&front, front.req_prod_pvt) = request;                                                       \
        front.req_prod_pvt++;                                                                                          \
      }                                                                                                                \
      RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&front, notify);                                                             \
      notifications += notify;                                                                                         \
      do {                                                                                                             \
        RING_IDX produced = back.sring->req_prod;                                                                      \
        xen_rmb(); /* the requests are read after the index that covers them */                                        \
        if (RING_REQUEST_PROD_OVERFLOW(&back, produced)) abort();                                                      \
        while (back.req_cons != produced) {                                                                            \
          if (every_check && RING_REQUEST_CONS_OVERFLOW(&back, back.req_cons)) abort();                                \
          ring##_request_t request;                                                                                    \
          RING_COPY_REQUEST(&back, back.req_cons, &request);                                                           \
          back.req_cons++;                                                                                             \
          sum += tag##_read(&request);                                                                                 \
          ring##_response_t *response = RING_GET_RESPONSE(&back, back.rsp_prod_pvt);                                   \
          if (whole_slot) memset(response, 0, sizeof(union ring##_sring_entry));                                       \
          tag##_answer(response, &request);                                                                            \
          back.rsp_prod_pvt++;                                                                                         \
        }                                                                                                              \
        RING_PUSH_RESPONSES_AND_CHECK_NOTIFY(&back, notify);                                                           \
        notifications += notify;                                                                                       \
        RING_FINAL_CHECK_FOR_REQUESTS(&back, more);                                                                    \
      } while (more);                                                                                                  \
      do {                                                                                                             \
        RING_IDX produced = front.sring->rsp_prod;                                                                     \
        xen_rmb(); /* the responses are read after the index that covers them */                                       \
        if (RING_RESPONSE_PROD_OVERFLOW(&front, produced)) abort();                                                    \
        while (front.rsp_cons != produced) {                                                                           \
          ring##_response_t response;                                                                                  \
          RING_COPY_RESPONSE(&front, front.rsp_cons, &response);                                                       \
          front.rsp_cons++;                                                                                            \
          if (shadows[response.id % SHADOWS].id != response.id) abort();                                               \
          sum += response.id;                                                                                          \
        }                                                                                                              \
        RING_FINAL_CHECK_FOR_RESPONSES(&front, more);                                                                  \
      } while (more);                                                                                                  \
    }                                                                                                                  \
    free(shadows);                                                                                                     \
    return notifications == 2 * (trips / batch) ? sum : 0;                                                             \
  }

TRIPS(ring_twin_block, blkif, block, true, true)
TRIPS(ring_twin_block_producer_checks, blkif, block, false, true)
TRIPS(ring_twin_block_response_alone, blkif, block, false, false)
TRIPS(ring_twin_transmit, netif_tx, transmit, true, true)
TRIPS(ring_twin_transmit_producer_checks, netif_tx, transmit, false, true)
TRIPS(ring_twin_transmit_response_alone, netif_tx, transmit, false, false)
