import Foundation
import Synchronization
import Testing
import XenLoopback
import XenPlatform

/// A thread that notifies through one end whenever it is asked to.
private final class Notifier: Sendable {
  let turn = Atomic(0)
}

/// The descriptor of a handle is readable only while an event waits, however the threads interleave.
@Test func descriptorIsNotReadableWhenEveryEventHasBeenTaken() throws {
  let loopback = Loopback()
  let (mineDomain, otherDomain) = (loopback.addDomain(), loopback.addDomain())
  let mine = try mineDomain.openEventChannels()
  let other = try otherDomain.openEventChannels()
  let port = try mine.allocateUnbound(for: otherDomain.domain)
  let otherPort = try other.bindInterdomain(to: mineDomain.domain, port: port)
  let rounds = 20_000
  let notifier = Notifier()
  Thread.detachNewThread {
    for round in 1...rounds {
      while notifier.turn.load(ordering: .acquiring) < round {}
      other.notify(otherPort)
    }
  }
  var stale = 0
  for round in 1...rounds {
    notifier.turn.store(round, ordering: .releasing)
    while mine.nextPending() == nil {}
    var wait = [pollfd(fd: mine.descriptor, events: Int16(POLLIN), revents: 0)]
    if Wakeup.wait(for: &wait, timeout: 0), mine.nextPending() == nil, Wakeup.wait(for: &wait, timeout: 0) {
      stale += 1
    }
    mine.unmask(port)
  }
  #expect(stale == 0)
}
