// net-twin tx|rx BYTES QUEUES SECONDS MICROSECONDS: the same packets as net-benchmark's, moved by the macros of ring.h and memcpy, with
// as many copies and threads: one for the front end of all queues, and one for each queue's back end. Prints packets and bytes a
// second. Both ends check what they read as a careful driver does; there is no grant table, no store, and no hash of flows:
// the queues are taken in turn. Either end looks for so many microseconds before it sleeps.
//
// net-twin distance: prints how many nanoseconds a word takes from one of the first two processors to the other and back. A virtual
// machine's host may move its processors further apart, and all that two threads share takes longer then.
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#if !__has_include(<xenctrl.h>)
#error "libxen-dev is not installed: run make deps"
#endif
#include <xenctrl.h>

#include <xen/io/ring.h>

#include <xen/io/netif.h>

enum { PAGE = 4096, SLOTS = 256, MAX_PAGES = 16, BATCH = 64, LINE_FRAMES = 256, LINE_BYTES = 512 * 1024, MAX_QUEUES = 8 };
// As many flows as net-benchmark has, each with a packet of its own.
enum { FRAMES = 64 };

struct queue {
  netif_tx_front_ring_t tx_front;
  netif_rx_front_ring_t rx_front;
  unsigned char *tx_pages, *rx_pages;
  uint16_t free_ids[SLOTS];
  bool in_flight[SLOTS];
  unsigned free_count, infos_in_flight;
  int front_event;
  // The back end's.
  _Alignas(64) netif_tx_back_ring_t tx_back;
  netif_rx_back_ring_t rx_back;
  unsigned char *buffer, *line;
  unsigned offsets[LINE_FRAMES], line_first, line_count, line_end;
  int back_event;
  pthread_t thread;
  _Alignas(64) atomic_ulong taken;
};

static struct queue queues[MAX_QUEUES];
static unsigned byte_count, page_count, queue_count;
static bool is_tx, is_segmented;
static double looking;  // Seconds.
static atomic_bool stopping;
static unsigned char *frames;

// Each begins at a cache line; they come round again.
static unsigned stride(void) { return (byte_count + 63) & ~63u; }
static const unsigned char *frame(unsigned number) { return frames + (size_t)(number % FRAMES) * stride(); }

static void *pages(size_t count) {
  void *address = mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (address == MAP_FAILED) abort();
  return address;
}

static void notify(int event) {
  uint64_t one = 1;
  if (write(event, &one, 8) != 8) abort();
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec * 1e-9;
}

// Looks for a while before it sleeps, when it is to.
static void wait_for(struct pollfd *waits, unsigned wait_count) {
  bool found = false;
  for (double begun = looking > 0 ? now() : 0; looking > 0 && !found && now() < begun + looking; sched_yield())
    found = poll(waits, wait_count, 0) > 0;
  if (!found) poll(waits, wait_count, 100);
  uint64_t count;
  for (unsigned index = 0; index < wait_count; index++)
    if (waits[index].revents && read(waits[index].fd, &count, 8) != 8) abort();
}

// Front end, transmit.

static void put_extra(struct queue *queue) {
  netif_extra_info_t *extra = (netif_extra_info_t *)RING_GET_REQUEST(&queue->tx_front, queue->tx_front.req_prod_pvt++);
  memset(extra, 0, sizeof *extra);
  extra->type = XEN_NETIF_EXTRA_TYPE_GSO;
  extra->u.gso.size = 1448;
  extra->u.gso.type = XEN_NETIF_GSO_TYPE_TCPV4;
  queue->infos_in_flight++;
}

static bool has_room(struct queue *queue) {
  return queue->free_count >= page_count && RING_FREE_REQUESTS(&queue->tx_front) >= page_count + is_segmented;
}

static bool send_frame(struct queue *queue) {
  static unsigned sent;
  if (!has_room(queue)) return false;
  const unsigned char *bytes = frame(sent++);
  for (unsigned part = 0, offset = 0; part < page_count; part++, offset += PAGE) {
    uint16_t id = queue->free_ids[--queue->free_count];
    unsigned count = byte_count - offset < PAGE ? byte_count - offset : PAGE;
    memcpy(queue->tx_pages + (size_t)id * PAGE, bytes + offset, count);
    queue->in_flight[id] = true;
    netif_tx_request_t *request = RING_GET_REQUEST(&queue->tx_front, queue->tx_front.req_prod_pvt++);
    request->gref = id;
    request->offset = 0;
    request->id = id;
    request->size = part == 0 ? byte_count : count;
    request->flags = part + 1 < page_count ? NETTXF_more_data : 0;
    if (part == 0) {
      request->flags |= NETTXF_csum_blank | NETTXF_data_validated | (is_segmented ? NETTXF_extra_info : 0);
      if (is_segmented) put_extra(queue);
    }
  }
  return true;
}

static void reap(struct queue *queue) {
  netif_tx_front_ring_t *ring = &queue->tx_front;
  while (true) {
    RING_IDX producer = ring->sring->rsp_prod;
    xen_rmb();
    if (producer - ring->rsp_cons > ring->req_prod_pvt - ring->rsp_cons) abort();
    while (ring->rsp_cons != producer) {
      netif_tx_response_t response = *RING_GET_RESPONSE(ring, ring->rsp_cons++);
      if (response.status == NETIF_RSP_NULL) {
        if (queue->infos_in_flight-- == 0) abort();
        continue;
      }
      if (response.id >= SLOTS || !queue->in_flight[response.id]) abort();
      queue->in_flight[response.id] = false;
      queue->free_ids[queue->free_count++] = response.id;
    }
    ring->sring->rsp_event = ring->rsp_cons + ((ring->req_prod_pvt - ring->rsp_cons) >> 1) + 1;
    xen_mb();
    if (ring->sring->rsp_prod == ring->rsp_cons) return;
  }
}

// Front end, receive.

static void post(struct queue *queue, uint16_t id) {
  netif_rx_request_t *request = RING_GET_REQUEST(&queue->rx_front, queue->rx_front.req_prod_pvt++);
  request->id = id;
  request->gref = id;
}

static unsigned long receive(struct queue *queue) {
  netif_rx_front_ring_t *ring = &queue->rx_front;
  unsigned long frames = 0;
  bool more;
  do {
    RING_IDX producer = ring->sring->rsp_prod;
    xen_rmb();
    if (producer - ring->rsp_cons > ring->req_prod_pvt - ring->rsp_cons) abort();
    unsigned total = 0;
    bool extra_follows = false;
    while (ring->rsp_cons != producer) {
      uint16_t slot = ring->rsp_cons & (SLOTS - 1);
      netif_rx_response_t response = *RING_GET_RESPONSE(ring, ring->rsp_cons++);
      post(queue, slot);
      if (extra_follows) {
        extra_follows = false;
        continue;
      }
      if (response.id != slot || response.status < 0 || response.offset + response.status > PAGE) abort();
      total += response.status;
      extra_follows = response.flags & NETRXF_extra_info;
      if (!(response.flags & NETRXF_more_data)) {
        if (total != byte_count) abort();
        total = 0;
        frames++;
      }
    }
    RING_FINAL_CHECK_FOR_RESPONSES(ring, more);
  } while (more);
  int notifies;
  RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(ring, notifies);
  if (notifies) notify(queue->back_event);
  return frames;
}

// Back end.

static void take(struct queue *queue, bool *more) {
  netif_tx_back_ring_t *ring = &queue->tx_back;
  RING_IDX producer = ring->sring->req_prod;
  xen_rmb();
  if (producer - ring->rsp_prod_pvt > SLOTS) abort();
  unsigned taken = 0, offset = 0, left = 0, fragments = 0, frames = 0;
  bool extra_follows = false, fragment_follows = false;
  // A packet is pushed as a whole: it is taken as a whole, too.
  while ((taken < BATCH || extra_follows || fragment_follows) && ring->req_cons != producer) {
    netif_tx_request_t request;
    RING_COPY_REQUEST(ring, ring->req_cons, &request);
    ring->req_cons++;
    taken++;
    netif_tx_response_t *response = RING_GET_RESPONSE(ring, ring->rsp_prod_pvt);
    if (extra_follows) {
      extra_follows = false;
      response->status = NETIF_RSP_NULL;
      ring->rsp_prod_pvt++;
      continue;
    }
    unsigned count = request.size;
    if (!fragment_follows) {
      left = request.size;
      fragments = 0;
      extra_follows = request.flags & NETTXF_extra_info;
      // The first slot has the whole packet's size; its own part fills its page where another follows.
      if (request.flags & NETTXF_more_data) count = PAGE;
    }
    if (++fragments > XEN_NETIF_NR_SLOTS_MIN || request.gref >= SLOTS || count > left || request.offset + count > PAGE)
      abort();
    memcpy(queue->buffer + offset, queue->tx_pages + (size_t)request.gref * PAGE + request.offset, count);
    offset += count;
    left -= count;
    fragment_follows = request.flags & NETTXF_more_data;
    if (!fragment_follows) {
      if (left) abort();
      frames++;
      offset = (offset + 63) & ~63u;
    }
    response->id = request.id;
    response->status = NETIF_RSP_OKAY;
    ring->rsp_prod_pvt++;
  }
  atomic_fetch_add_explicit(&queue->taken, frames, memory_order_relaxed);
  if (taken) {
    int notifies;
    RING_PUSH_RESPONSES_AND_CHECK_NOTIFY(ring, notifies);
    if (notifies) notify(queue->front_event);
  }
  *more = ring->req_cons != producer;
  if (!*more) {
    int work;
    RING_FINAL_CHECK_FOR_REQUESTS(ring, work);
    *more = work;
  }
}

static void fill_line(struct queue *queue) {
  unsigned needed = stride(), next = 0;
  while (queue->line_count < LINE_FRAMES && (queue->line_count + 1) * needed <= LINE_BYTES) {
    if (queue->line_end + needed > LINE_BYTES) queue->line_end = 0;
    memcpy(queue->line + queue->line_end, frame(next++), byte_count);
    queue->offsets[(queue->line_first + queue->line_count++) % LINE_FRAMES] = queue->line_end;
    queue->line_end += needed;
  }
}

static void give(struct queue *queue, bool *more) {
  netif_rx_back_ring_t *ring = &queue->rx_back;
  fill_line(queue);
  RING_IDX producer = ring->sring->req_prod;
  xen_rmb();
  if (producer - ring->rsp_prod_pvt > SLOTS) abort();
  unsigned given = 0, slots = page_count + is_segmented;
  while (queue->line_count && producer - ring->req_cons >= slots && given < BATCH) {
    unsigned char *bytes = queue->line + queue->offsets[queue->line_first];
    for (unsigned part = 0, offset = 0; part < page_count; part++, offset += PAGE) {
      netif_rx_request_t request;
      RING_COPY_REQUEST(ring, ring->req_cons, &request);
      ring->req_cons++;
      if (request.gref >= SLOTS) abort();
      unsigned count = byte_count - offset < PAGE ? byte_count - offset : PAGE;
      memcpy(queue->rx_pages + (size_t)request.gref * PAGE, bytes + offset, count);
      netif_rx_response_t *response = RING_GET_RESPONSE(ring, ring->rsp_prod_pvt++);
      response->id = request.id;
      response->offset = 0;
      response->status = count;
      response->flags = part + 1 < page_count ? NETRXF_more_data : 0;
      if (part == 0) {
        response->flags |= NETRXF_csum_blank | NETRXF_data_validated | (is_segmented ? NETRXF_extra_info : 0);
        if (is_segmented) {
          ring->req_cons++;
          netif_extra_info_t *extra = (netif_extra_info_t *)RING_GET_RESPONSE(ring, ring->rsp_prod_pvt++);
          memset(extra, 0, sizeof *extra);
          extra->type = XEN_NETIF_EXTRA_TYPE_GSO;
          extra->u.gso.size = 1448;
          extra->u.gso.type = XEN_NETIF_GSO_TYPE_TCPV4;
        }
      }
    }
    queue->line_first = (queue->line_first + 1) % LINE_FRAMES;
    queue->line_count--;
    given += slots;
  }
  if (given) {
    int notifies;
    RING_PUSH_RESPONSES_AND_CHECK_NOTIFY(ring, notifies);
    if (notifies) notify(queue->front_event);
  }
  // An event when the first frame has its requests.
  ring->sring->req_event = ring->req_cons + slots;
  xen_mb();
  *more = ring->sring->req_prod - ring->req_cons >= slots;
}

static void *serve(void *argument) {
  struct queue *queue = argument;
  while (!atomic_load_explicit(&stopping, memory_order_relaxed)) {
    bool more;
    (is_tx ? take : give)(queue, &more);
    struct pollfd wait = {.fd = queue->back_event, .events = POLLIN};
    if (!more) wait_for(&wait, 1);
  }
  return NULL;
}

static void start(struct queue *queue) {
  netif_tx_sring_t *tx = pages(1);
  netif_rx_sring_t *rx = pages(1);
  SHARED_RING_INIT(tx);
  SHARED_RING_INIT(rx);
  FRONT_RING_INIT(&queue->tx_front, tx, PAGE);
  FRONT_RING_INIT(&queue->rx_front, rx, PAGE);
  BACK_RING_INIT(&queue->tx_back, tx, PAGE);
  BACK_RING_INIT(&queue->rx_back, rx, PAGE);
  queue->tx_pages = pages(SLOTS);
  queue->rx_pages = pages(SLOTS);
  queue->buffer = pages(BATCH + MAX_PAGES + 2);
  queue->line = pages(LINE_BYTES / PAGE);
  for (unsigned id = 0; id < SLOTS; id++) queue->free_ids[queue->free_count++] = SLOTS - 1 - id;
  for (unsigned id = 0; id < SLOTS; id++) post(queue, id);
  RING_PUSH_REQUESTS(&queue->rx_front);
  queue->front_event = eventfd(0, EFD_CLOEXEC);
  queue->back_event = eventfd(0, EFD_CLOEXEC);
  if (pthread_create(&queue->thread, NULL, serve, queue) != 0) abort();
}

static unsigned long taken(void) {
  unsigned long sum = 0;
  for (unsigned index = 0; index < queue_count; index++)
    sum += atomic_load_explicit(&queues[index].taken, memory_order_relaxed);
  return sum;
}

// The front end's thread: gives how many packets have arrived at the other end.
static unsigned long work(double seconds, double *elapsed) {
  double begun = now();
  unsigned long before = taken(), received = 0;
  unsigned next = 0;
  while (now() < begun + seconds) {
    bool idle = true;
    for (unsigned count = 0; is_tx && count < BATCH && send_frame(&queues[next]); count++)
      next = (next + 1) % queue_count;
    for (unsigned index = 0; index < queue_count; index++) {
      struct queue *queue = &queues[index];
      if (is_tx) {
        int notifies;
        RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&queue->tx_front, notifies);
        if (notifies) notify(queue->back_event);
        reap(queue);
      } else {
        unsigned long frames = receive(queue);
        received += frames;
        if (frames) idle = false;
      }
    }
    // Nothing to do before a queue's back end has done something.
    if (is_tx ? !has_room(&queues[next]) : idle) {
      struct pollfd waits[MAX_QUEUES];
      for (unsigned index = 0; index < queue_count; index++)
        waits[index] = (struct pollfd){.fd = queues[index].front_event, .events = POLLIN};
      wait_for(waits, queue_count);
    }
  }
  *elapsed = now() - begun;
  return is_tx ? taken() - before : received;
}

static atomic_uint word;

static void pin(unsigned processor) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(processor, &set);
  // With one processor alone there is no distance, and the figure is of no use.
  sched_setaffinity(0, sizeof set, &set);
}

static void *send_back(void *nothing) {
  pin(1);
  while (!atomic_load_explicit(&stopping, memory_order_relaxed)) {
    unsigned value = atomic_load_explicit(&word, memory_order_acquire);
    if (value & 1) atomic_store_explicit(&word, value + 1, memory_order_release);
  }
  return nothing;
}

static int print_distance(void) {
  enum { TRIPS = 2000, TRIES = 10 };
  pthread_t other;
  if (pthread_create(&other, NULL, send_back, NULL) != 0) abort();
  pin(0);
  double best = 1;
  for (unsigned try = 0; try < TRIES; try++) {
    double begun = now();
    for (unsigned trip = 0; trip < TRIPS; trip++) {
      unsigned value = atomic_load_explicit(&word, memory_order_relaxed) + 1;
      atomic_store_explicit(&word, value, memory_order_release);
      while (atomic_load_explicit(&word, memory_order_acquire) == value) continue;
    }
    double taken = (now() - begun) / TRIPS;
    if (taken < best) best = taken;
  }
  printf("%.0f\n", best * 1e9);
  atomic_store(&stopping, true);
  return pthread_join(other, NULL);
}

int main(int count, char **arguments) {
  if (count == 2 && strcmp(arguments[1], "distance") == 0) return print_distance();
  double seconds = count == 6 ? atof(arguments[4]) : 0, elapsed;
  byte_count = count == 6 ? atoi(arguments[2]) : 0;
  queue_count = count == 6 ? atoi(arguments[3]) : 0;
  looking = count == 6 ? atof(arguments[5]) * 1e-6 : 0;
  if (seconds <= 0 || byte_count < 64 || byte_count > 65535 || queue_count < 1 || queue_count > MAX_QUEUES ||
      (strcmp(arguments[1], "tx") && strcmp(arguments[1], "rx"))) {
    fprintf(stderr, "usage: net-twin tx|rx BYTES QUEUES SECONDS MICROSECONDS, or net-twin distance\n");
    return 2;
  }
  is_tx = arguments[1][0] == 't';
  page_count = (byte_count + PAGE - 1) / PAGE;
  is_segmented = byte_count > 1514;
  // Not at a page's beginning, where some processors copy slowly to another's, as net-benchmark's are not.
  frames = pages(FRAMES * MAX_PAGES + 1) + 64;
  memset(frames, 0xA5, (size_t)FRAMES * stride());
  for (unsigned index = 0; index < queue_count; index++) start(&queues[index]);
  work(0.2, &elapsed);
  unsigned long packets = work(seconds, &elapsed);
  printf("%.0f %.0f\n", packets / elapsed, (double)packets * byte_count / elapsed);
  atomic_store(&stopping, true);
  for (unsigned index = 0; index < queue_count; index++) {
    notify(queues[index].back_event);
    pthread_join(queues[index].thread, NULL);
  }
  return 0;
}
