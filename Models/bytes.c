// The protocol of ByteRing with the memory orders that it uses, for GenMC: no event indices, each push notifies, and who
// waits looks once more after it has made its event channel ready.
//
// A writer passes COUNT bytes through a ring of SIZE of them to a reader; each sleeps where it finds nothing to do. An
// execution that ends with bytes left and nobody to be woken is a lost wake-up. Bytes are plain memory: a race is reported
// when an index does not order them.
#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define SIZE 1
#define COUNT 3
#define START (-2u)

#ifdef RELAXED_CONSUMER  // Negative control: room is given back before it was read.
#define CONSUMER_STORE memory_order_relaxed
#else
#define CONSUMER_STORE memory_order_release
#endif

static _Atomic unsigned shared_producer = START, shared_consumer = START;
// Event channels. To send is a call into the hypervisor, to take is one that orders what follows: release and acquire.
static atomic_bool to_reader, to_writer;
static int bytes[SIZE];
static bool done_writing, done_reading;

static void *write_bytes(void *unused) {
  unsigned produced = START, consumed = START;
  for (int turn = 0; turn < 3 * COUNT; turn++) {
    consumed = atomic_load_explicit(&shared_consumer, memory_order_acquire);
    bool wrote = false;
    for (; produced - consumed < SIZE && produced - START < COUNT; produced++, wrote = true)
      bytes[produced & (SIZE - 1)] = (int)(produced - START) + 1;
    if (wrote) {
      atomic_store_explicit(&shared_producer, produced, memory_order_release);
      atomic_store_explicit(&to_reader, true, memory_order_release);
      if (produced - START == COUNT) {
        done_writing = true;
        return 0;
      }
      continue;
    }
    if (!atomic_exchange_explicit(&to_writer, false, memory_order_acquire)) return 0;
  }
  return 0;
}

static void *read_bytes(void *unused) {
  unsigned consumed = START;
  for (int turn = 0; turn < 3 * COUNT; turn++) {
    unsigned produced = atomic_load_explicit(&shared_producer, memory_order_acquire);
    bool read = consumed != produced;
    for (; consumed != produced; consumed++) assert(bytes[consumed & (SIZE - 1)] == (int)(consumed - START) + 1);
    if (read) {
      atomic_store_explicit(&shared_consumer, consumed, CONSUMER_STORE);
      atomic_store_explicit(&to_writer, true, memory_order_release);
      if (consumed - START == COUNT) {
        done_reading = true;
        return 0;
      }
      continue;
    }
#ifdef EVENT_AFTER_LOOK  // Negative control: an event of before the sleep is thrown away after the last look.
    atomic_store_explicit(&to_reader, false, memory_order_relaxed);
#endif
    if (!atomic_exchange_explicit(&to_reader, false, memory_order_acquire)) return 0;
  }
  return 0;
}

int main(void) {
  pthread_t writer, reader;
  pthread_create(&writer, 0, write_bytes, 0);
  pthread_create(&reader, 0, read_bytes, 0);
  pthread_join(writer, 0);
  pthread_join(reader, 0);
  assert((done_reading || to_reader || (to_writer && !done_writing)) && "lost wake-up");
  return 0;
}
