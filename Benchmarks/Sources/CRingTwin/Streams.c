// The two ends of a ring on two threads, each on a processor of its own.
#define _GNU_SOURCE
#include "CRingTwin.h"

#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "Shapes.h"

void ring_end_wake(ring_end *end) {
  uint64_t one = 1;
  end->notifications++;
  if (end->sleeps && write(end->wake, &one, sizeof one) != sizeof one) abort();
}

void ring_end_wait(ring_end *end) {
  uint64_t count;
  if (!end->sleeps) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
    return;
  }
  if (read(end->own, &count, sizeof count) != sizeof count) abort();
}

// Each with a cache line of its own, whose writes the other end does not feel.
struct thread {
  _Alignas(128) ring_end end;
  ring_end_work *work;
  int place;
  pthread_barrier_t *start;
  uint64_t begun, ended;
};

// Each end on the processor of its place among those that the process may use.
static void pin(int place) {
  cpu_set_t all, one;
  if (sched_getaffinity(0, sizeof all, &all) || CPU_COUNT(&all) < 2) return;
  CPU_ZERO(&one);
  for (int number = 0; number < CPU_SETSIZE; number++)
    if (CPU_ISSET(number, &all) && place-- == 0) CPU_SET(number, &one);
  pthread_setaffinity_np(pthread_self(), sizeof one, &one);
}

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static void *run(void *argument) {
  struct thread *thread = argument;
  pin(thread->place);
  pthread_barrier_wait(thread->start);
  thread->begun = now();
  thread->work(&thread->end);
  thread->ended = now();
  return NULL;
}

uint64_t ring_ends_run(ring_end_work *front_work, ring_end *front, ring_end_work *back_work, ring_end *back) {
  // The indices are the same words in every ring.
  blkif_sring_t *shared = front->page;
  memset(front->page, 0, front->byte_count);
  SHARED_RING_INIT(shared);
  if (front->sleeps) {
    front->own = back->wake = eventfd(0, EFD_CLOEXEC);
    back->own = front->wake = eventfd(0, EFD_CLOEXEC);
    if (front->own < 0 || back->own < 0) abort();
  }
  pthread_barrier_t start;
  pthread_barrier_init(&start, NULL, 2);
  struct thread threads[2] = {
      {.end = *front, .work = front_work, .place = 0, .start = &start},
      {.end = *back, .work = back_work, .place = 1, .start = &start},
  };
  pthread_t handles[2];
  for (int place = 0; place < 2; place++)
    if (pthread_create(&handles[place], NULL, run, &threads[place])) abort();
  for (int place = 0; place < 2; place++) pthread_join(handles[place], NULL);
  // By the threads' own clocks: this one may get no processor before both have ended.
  uint64_t begun = threads[0].begun < threads[1].begun ? threads[0].begun : threads[1].begun;
  uint64_t ended = threads[0].ended > threads[1].ended ? threads[0].ended : threads[1].ended;
  pthread_barrier_destroy(&start);
  *front = threads[0].end;
  *back = threads[1].end;
  if (front->sleeps) {
    close(front->own);
    close(back->own);
  }
  return ended - begun;
}

// The front end keeps the ring full, a batch a push, and takes what has come back; the back end answers what it finds, and
// pushes after each batch. Every check is made that our rings make.
#define ENDS(name, ring, tag)                                                                                          \
  void name##_front(ring_end *end) {                                                                                   \
    ring##_sring_t *shared = end->page;                                                                                \
    ring##_front_ring_t front;                                                                                         \
    FRONT_RING_INIT(&front, shared, end->byte_count);                                                                  \
    ring##_request_t *shadows = calloc(SHADOWS, sizeof *shadows);                                                      \
    if (!shadows) abort();                                                                                             \
    uint64_t sum = 0, sent = 0, received = 0;                                                                          \
    while (received < end->trips) {                                                                                    \
      bool notify, more, idle = true;                                                                                  \
      while (sent < end->trips && RING_FREE_REQUESTS(&front) >= end->batch) {                                          \
        for (uint32_t place = 0; place < end->batch; place++) {                                                        \
          if (RING_FULL(&front)) abort();                                                                              \
          ring##_request_t *shadow = &shadows[sent % SHADOWS];                                                         \
          ring##_request_t request = {0};                                                                              \
          tag##_fill(shadow, sent);                                                                                    \
          tag##_fill(&request, sent++);                                                                                \
          *RING_GET_REQUEST(&front, front.req_prod_pvt) = request;                                                     \
          front.req_prod_pvt++;                                                                                        \
        }                                                                                                              \
        RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&front, notify);                                                           \
        if (notify) ring_end_wake(end);                                                                                \
        idle = false;                                                                                                  \
      }                                                                                                                \
      RING_IDX produced = front.sring->rsp_prod;                                                                       \
      xen_rmb(); /* the responses are read after the index that covers them */                                         \
      if (RING_RESPONSE_PROD_OVERFLOW(&front, produced)) abort();                                                      \
      while (front.rsp_cons != produced) {                                                                             \
        ring##_response_t response;                                                                                    \
        RING_COPY_RESPONSE(&front, front.rsp_cons, &response);                                                         \
        front.rsp_cons++;                                                                                              \
        if (shadows[response.id % SHADOWS].id != response.id) abort();                                                 \
        sum += response.id;                                                                                            \
        received++;                                                                                                    \
        idle = false;                                                                                                  \
      }                                                                                                                \
      if (!idle) continue;                                                                                             \
      more = false;                                                                                                    \
      if (end->sleeps) RING_FINAL_CHECK_FOR_RESPONSES(&front, more);                                                   \
      if (!more) ring_end_wait(end);                                                                                   \
    }                                                                                                                  \
    free(shadows);                                                                                                     \
    end->sum = sum;                                                                                                    \
  }                                                                                                                    \
                                                                                                                       \
  void name##_back(ring_end *end) {                                                                                    \
    ring##_sring_t *shared = end->page;                                                                                \
    ring##_back_ring_t back;                                                                                           \
    BACK_RING_INIT(&back, shared, end->byte_count);                                                                    \
    uint64_t sum = 0, answered = 0;                                                                                    \
    while (answered < end->trips) {                                                                                    \
      bool notify, more = false;                                                                                       \
      RING_IDX produced = back.sring->req_prod;                                                                        \
      xen_rmb(); /* the requests are read after the index that covers them */                                          \
      if (RING_REQUEST_PROD_OVERFLOW(&back, produced)) abort();                                                        \
      if (back.req_cons == produced) {                                                                                 \
        if (end->sleeps) RING_FINAL_CHECK_FOR_REQUESTS(&back, more);                                                   \
        if (!more) ring_end_wait(end);                                                                                 \
        continue;                                                                                                      \
      }                                                                                                                \
      uint32_t unpushed = 0;                                                                                           \
      while (back.req_cons != produced) {                                                                              \
        if (RING_REQUEST_CONS_OVERFLOW(&back, back.req_cons)) abort();                                                 \
        ring##_request_t request;                                                                                      \
        RING_COPY_REQUEST(&back, back.req_cons, &request);                                                             \
        back.req_cons++;                                                                                               \
        sum += tag##_read(&request);                                                                                   \
        ring##_response_t *response = RING_GET_RESPONSE(&back, back.rsp_prod_pvt);                                     \
        memset(response, 0, sizeof(union ring##_sring_entry));                                                         \
        tag##_answer(response, &request);                                                                              \
        back.rsp_prod_pvt++;                                                                                           \
        answered++;                                                                                                    \
        if (++unpushed < end->batch && back.req_cons != produced) continue;                                            \
        unpushed = 0;                                                                                                  \
        RING_PUSH_RESPONSES_AND_CHECK_NOTIFY(&back, notify);                                                           \
        if (notify) ring_end_wake(end);                                                                                \
      }                                                                                                                \
    }                                                                                                                  \
    end->sum = sum;                                                                                                    \
  }

ENDS(ring_twin_block, blkif, block)
ENDS(ring_twin_transmit, netif_tx, transmit)
