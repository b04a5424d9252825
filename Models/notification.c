// The notification protocol of FrontRing and BackRing with the memory orders that they use, for GenMC.
//
// One producer and one consumer of a ring, as in README.md beside this file. The consumer goes to sleep only after its final
// check; the end of an execution in which it sleeps, no event is pending, and enough work for it is there is a lost
// wake-up. Slots are plain memory: GenMC reports a race when an index does not order them.
//
// -D sets the scenario (PUSHES, BATCH, WAKE_AFTER) and breaks the protocol for a negative control.
#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#ifndef PUSHES
#define PUSHES 3
#endif
#ifndef BATCH  // How many entries each push covers.
#define BATCH 1
#endif
#ifndef WAKE_AFTER  // What the consumer asks to be woken for: `wake(after:)`; finalCheck is 1.
#define WAKE_AFTER 1
#endif
// The indices begin shortly before they wrap.
#define START (-2u)
#define COUNT ((unsigned)(PUSHES * BATCH))

#ifdef RELAXED_PAIR  // Negative control: the store and load that must stay in order may pass each other.
#define BARRIER()
#else
#define BARRIER() atomic_thread_fence(memory_order_seq_cst)
#endif
#ifdef RELAXED_PRODUCER  // Negative control: the index does not carry its slots.
#define PRODUCER_STORE memory_order_relaxed
#define PRODUCER_LOAD memory_order_relaxed
#else
#define PRODUCER_STORE memory_order_release
#define PRODUCER_LOAD memory_order_acquire
#endif

static _Atomic unsigned shared_producer = START;
static _Atomic unsigned shared_event = START + WAKE_AFTER;
// An event channel: what is sent while one is pending is one event. Relaxed: nothing is assumed of it but that it arrives.
static atomic_bool pending;
static int slots[COUNT];
static unsigned consumed = START;

// FrontRing.put and pushAndCheckNotify (BackRing's are the same with responses).
static void *produce(void *unused) {
  unsigned produced = START, pushed = START;
  for (int push = 0; push < PUSHES; push++) {
    for (int entry = 0; entry < BATCH; entry++) {
      slots[produced - START] = (int)(produced - START) + 1;
      produced++;
    }
    atomic_store_explicit(&shared_producer, produced, PRODUCER_STORE);
    BARRIER();
    unsigned event = atomic_load_explicit(&shared_event, memory_order_acquire);
    if (produced - event < produced - pushed) atomic_store_explicit(&pending, true, memory_order_relaxed);
    pushed = produced;
  }
  return 0;
}

static unsigned checked = START;

// BackRing.available: one look.
static unsigned available(void) {
  checked = atomic_load_explicit(&shared_producer, PRODUCER_LOAD);
  return checked - consumed;
}

// BackRing.wake(after:), with which finalCheck ends.
static bool wake(unsigned count) {
#ifdef EVENT_AFTER_LOOK  // Negative control.
  checked = atomic_load_explicit(&shared_producer, PRODUCER_LOAD);
#endif
  atomic_store_explicit(&shared_event, consumed + count, memory_order_release);
  BARRIER();
#if !defined(EVENT_AFTER_LOOK) && !defined(NO_LOOK)  // The second is a negative control, too.
  checked = atomic_load_explicit(&shared_producer, PRODUCER_LOAD);
#endif
  return checked - consumed >= count;
}

static void *consume(void *unused) {
  // A turn takes something or sleeps, and wakes only where an event was sent: as many turns as that suffice.
  for (int turn = 0; turn < 2 * PUSHES + 2; turn++) {
    available();
    for (; consumed != checked; consumed++) assert(slots[consumed - START] == (int)(consumed - START) + 1);
    if (consumed - START == COUNT) return 0;
    if (available() > 0 || wake(WAKE_AFTER)) continue;
    // Asleep. Woken by an event that is already pending; what is not is looked at when all is over.
    if (!atomic_exchange_explicit(&pending, false, memory_order_relaxed)) return 0;
  }
  assert(false && "the consumer is woken for nothing again and again");
  return 0;
}

int main(void) {
  pthread_t producer, consumer;
  pthread_create(&producer, 0, produce, 0);
  pthread_create(&consumer, 0, consume, 0);
  pthread_join(producer, 0);
  pthread_join(consumer, 0);
  unsigned left = START + COUNT - consumed;
  if (left >= WAKE_AFTER) assert(pending && "lost wake-up");
  return 0;
}
