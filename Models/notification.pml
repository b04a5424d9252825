/* The notification protocol of FrontRing and BackRing in both directions at once, for SPIN: every interleaving of single
 * accesses to the shared words, on a ring of SLOTS slots whose indices wrap again and again. It knows no weak memory; that is
 * what notification.c is for.
 *
 * Both ends run for ever, each sleeps only after its final check, the front end only with requests unanswered. A state in
 * which both sleep and no event is pending is a lost wake-up; SPIN reports it as an invalid end state. */
#ifndef SLOTS
#define SLOTS 2
#endif
#define WRAP (4 * SLOTS) /* In place of 2^32. */

#define advanced(index, count) ((index + count) % WRAP)
#define distance(later, earlier) ((later - earlier + WRAP) % WRAP)

byte req_prod = WRAP - 1, req_event = 0, rsp_prod = WRAP - 1, rsp_event = 0;
bool front_event, back_event;

/* pushAndCheckNotify. The store and the load are two accesses, and the push is complete in between. */
inline push(shared_producer, shared_event, produced, pushed, other_ends_event) {
  shared_producer = produced;
  event = shared_event;
  if
  :: distance(produced, event) < distance(produced, pushed) -> other_ends_event = true
  :: else
  fi;
  pushed = produced;
  event = 0 /* Of no further meaning: fewer states. */
}

/* finalCheck: jumps to `found` when there is something. */
inline final_check(shared_producer, shared_event, consumed, found) {
  seen = shared_producer;
  if :: seen != consumed -> goto found :: else fi;
#if defined(NO_LOOK) /* Negative control. */
  shared_event = advanced(consumed, 1);
#elif defined(EVENT_AFTER_LOOK) /* Negative control. */
  seen = shared_producer;
  shared_event = advanced(consumed, 1);
#else
  shared_event = advanced(consumed, 1);
  seen = shared_producer;
#endif
  if :: seen != consumed -> goto found :: else fi
}

active proctype front() {
  byte produced = WRAP - 1, pushed = WRAP - 1, consumed = WRAP - 1, seen, event;
work:
  /* Responses, as many as are there. */
  seen = rsp_prod;
  do
  :: seen != consumed ->
    assert(distance(seen, consumed) <= distance(pushed, consumed));
    consumed = advanced(consumed, 1)
  :: else -> break
  od;
  /* Requests: at least one unless the ring is full, in one push or several. */
  do
  :: distance(produced, consumed) < SLOTS -> produced = advanced(produced, 1)
  :: produced != pushed -> push(req_prod, req_event, produced, pushed, back_event)
  :: produced == pushed && pushed != consumed -> break
  od;
  final_check(rsp_prod, rsp_event, consumed, work);
  front_event -> front_event = false;
  goto work
}

active proctype back() {
  byte produced = WRAP - 1, pushed = WRAP - 1, consumed = WRAP - 1, seen, event;
work:
  seen = req_prod;
  do
  :: seen != consumed ->
    assert(distance(seen, consumed) <= SLOTS - distance(consumed, produced));
    consumed = advanced(consumed, 1)
  :: produced != consumed -> produced = advanced(produced, 1)
  :: produced != pushed -> push(rsp_prod, rsp_event, produced, pushed, front_event)
  :: seen == consumed && produced == consumed && produced == pushed -> break
  od;
  final_check(req_prod, req_event, consumed, work);
  back_event -> back_event = false;
  goto work
}
