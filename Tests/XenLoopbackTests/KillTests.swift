import Foundation
import Synchronization
import Testing
import XenLoopback
import XenPlatform

/// What is left of a process that is killed, and of a domain that is destroyed.
struct KillTests {
  private let xen = Domains()

  @Test func portsOfAKilledProcessLeaveTheirOtherEndsUnbound() throws {
    let channel = try Channel(from: xen.one, to: xen.two)
    xen.two.kill()
    #expect(xen.loopback.openPortCount == 1)
    channel.notify()
    let successor = xen.loopback.addProcess(in: xen.two.domain)
    let handle = try successor.openEventChannels()
    let port = try handle.bindInterdomain(to: xen.one.domain, port: channel.nearPort)
    #expect(handle.nextPending() == port)
    handle.unmask(port)
    channel.notify()
    #expect(handle.nextPending() == port)
  }

  @Test func eventChannelsOfAKilledProcessDoNothing() throws {
    let channel = try Channel(from: xen.one, to: xen.two)
    channel.notify()
    xen.two.kill()
    #expect(channel.far.nextPending() == nil)
    var wait = [pollfd(fd: channel.far.descriptor, events: Int16(POLLIN), revents: 0)]
    #expect(!Wakeup.wait(for: &wait, timeout: 0), "a thread of its would not sleep any more")
    channel.far.notify(channel.farPort)
    channel.far.unmask(channel.farPort)
    channel.far.close(channel.farPort)
    #expect(channel.near.nextPending() == nil)
    #expect(throws: EventChannelError.system(call: "allocate a port", reason: "this process was killed")) {
      _ = try channel.far.allocateUnbound(for: xen.one.domain)
    }
    #expect(throws: EventChannelError.system(call: "bind a port", reason: "this process was killed")) {
      _ = try channel.far.bindInterdomain(to: xen.one.domain, port: channel.nearPort)
    }
  }

  @Test func pagesThatAKilledProcessHadMappedAreNoLongerInUse() throws {
    let mapped: SharedRegion
    do {
      let pages = try xen.one.grants.share(pageCount: 2, with: xen.two.domain, writable: true)
      mapped = try xen.two.grants.map(pages.references, of: xen.one.domain, writable: true)
      xen.two.kill()
      #expect(xen.loopback.grantCounts.mappedPages == 0)
    }
    #expect(xen.loopback.grantCounts.quarantinedPages == 0)
    #expect(mapped.bytes.copied().count == 2 * xenPageSize)
  }

  @Test func whatAKilledProcessWritesReachesNobody() throws {
    let pages = try xen.one.grants.share(pageCount: 2, with: xen.two.domain, writable: true)
    let mapped = try xen.two.grants.map(pages.references, of: xen.one.domain, writable: true)
    let mark: [UInt8] = [1, 2, 3]
    mapped.bytes.slice(from: xenPageSize, count: 3).copy(from: mark.span)
    xen.two.kill()
    #expect(mapped.bytes.slice(from: xenPageSize, count: 3).copied() == mark, "it still sees what it saw")
    mapped.bytes.zero()
    #expect(pages.bytes.slice(from: xenPageSize, count: 3).copied() == mark)
    pages.bytes.zero()
    let back = try xen.one.grants.share(pageCount: 1, with: xen.control.domain, writable: true)
    let there = try xen.control.grants.map(back.references, of: xen.one.domain, writable: true)
    xen.one.kill()
    back.bytes.copy(from: mark.span)
    #expect(there.bytes.copied().allSatisfy { $0 == 0 })
  }

  @Test func pagesOfAKilledProcessAreOrphanedUntilTheLastMapEnds() throws {
    let pages = try xen.one.grants.share(pageCount: 2, with: xen.two.domain, writable: true)
    do {
      let mapped = try xen.two.grants.map(pages.references, of: xen.one.domain, writable: true)
      xen.one.kill()
      let counts = xen.loopback.grantCounts
      #expect(counts.sharedPages == 0 && counts.orphanedPages == 2 && counts.quarantinedPages == 0)
      #expect(throws: GrantError.refused(pages.references[0], of: xen.one.domain, .generalError)) {
        _ = try xen.two.grants.map(pages.references, of: xen.one.domain, writable: true)
      }
      mapped.bytes.zero()
    }
    #expect(xen.loopback.grantCounts.orphanedPages == 0)
  }

  @Test func grantsOfAKilledProcessAreRefused() throws {
    let pages = try xen.one.grants.share(pageCount: 1, with: xen.two.domain, writable: true)
    xen.two.kill()
    #expect(throws: GrantError.system(call: "share", reason: "this process was killed")) {
      _ = try xen.two.grants.share(pageCount: 1, with: xen.one.domain, writable: true)
    }
    #expect(throws: GrantError.system(call: "map", reason: "this process was killed")) {
      _ = try xen.two.grants.map(pages.references, of: xen.one.domain, writable: true)
    }
    let own = PrivatePages(pageCount: 1)
    var copies = [
      GrantCopy(.toGrant, local: own.bytes, reference: pages.references[0], of: xen.one.domain, offset: 0)
    ]
    copies[0].status = .okay
    var span = copies.mutableSpan
    xen.two.grants.copy(&span)
    #expect(copies[0].status == .generalError && xen.loopback.grantCounts.copyTotal == 0)
  }

  @Test func limitIsFreeForTheNextProcess() throws {
    let pages = try xen.one.grants.share(pageCount: 1024, with: xen.two.domain, writable: true)
    xen.one.kill()
    let successor = xen.loopback.addProcess(in: xen.one.domain)
    _ = try successor.grants.share(pageCount: 1024, with: xen.two.domain, writable: true)
    #expect(pages.bytes.count == 1024 * xenPageSize)
  }

  @Test func connectionOfAKilledProcessIsGoneWithItsWatchesAndTransactions() throws {
    xen.loopback.storeQuotas.watchesPerDomain = 1
    xen.loopback.storeQuotas.transactionsPerDomain = 1
    let store = try xen.one.openXenstore()
    try store.watch("a", token: "t")
    let transaction = try store.startTransaction()
    try store.write("a", [1], in: transaction)
    xen.one.kill()
    let successor = try xen.loopback.addProcess(in: xen.one.domain).openXenstore()
    try successor.watch("a", token: "t")
    _ = try successor.startTransaction()
    try successor.write("a", [2], in: nil)
    #expect(store.nextWatchEvent() == nil)
    let killed = XenstoreError.Code.system("this process was killed")
    #expect(try refusal { try store.endTransaction(transaction, commit: true) } == killed)
    #expect(try refusal { try store.write("a", [3], in: nil) } == killed)
    #expect(try refusal { try store.watch("b", token: "t") } == killed)
    #expect(try successor.read("a", in: nil) == [2])
  }

  @Test func otherProcessesOfTheDomainLiveOn() throws {
    let sibling = xen.loopback.addProcess(in: xen.one.domain)
    let channel = try Channel(from: xen.two, to: sibling)
    let pages = try sibling.grants.share(pageCount: 1, with: xen.two.domain, writable: true)
    let store = try sibling.openXenstore()
    try store.watch("a", token: "t")
    _ = store.takeEvents()
    xen.one.kill()
    #expect(xen.one.isKilled && !sibling.isKilled)
    channel.notify()
    #expect(channel.takeFar() == 1)
    _ = try xen.two.grants.map(pages.references, of: sibling.domain, writable: true)
    try store.write("a", [], in: nil)
    #expect(store.takePaths() == ["a"])
  }

  @Test func endsOfAKilledProcessObjectsReachNobody() throws {
    var channels: (any EventChannels)? = try xen.one.openEventChannels()
    var store: (any Xenstore)? = try xen.one.openXenstore()
    let port = try channels?.allocateUnbound(for: xen.two.domain)
    try store?.watch("a", token: "t")
    // Whoever is next has things of the same kinds.
    let next = xen.loopback.addProcess(in: xen.one.domain)
    let (nextChannels, nextStore) = (try next.openEventChannels(), try next.openXenstore())
    _ = try nextChannels.allocateUnbound(for: xen.two.domain)
    try nextStore.watch("a", token: "t")
    let nextPages = try next.grants.share(pageCount: 1, with: xen.two.domain, writable: true)
    do {
      let pages = try xen.one.grants.share(pageCount: 1, with: xen.two.domain, writable: true)
      xen.one.kill()
      xen.one.kill()
      pages.bytes.zero()
    }
    channels = nil
    store = nil
    #expect(port != nil && xen.loopback.openPortCount == 1 && xen.loopback.storeCounts.watches == 1)
    let counts = xen.loopback.grantCounts
    #expect(counts.sharedPages == 1 && counts.quarantinedPages == 0 && counts.orphanedPages == 0)
    withExtendedLifetime((nextChannels, nextStore)) {}
    _ = consume nextPages
  }

  /// Shares, maps, binds, notifies, watches and writes until it is told that it was killed.
  private static func work(_ domain: LoopbackDomain) throws {
    let (channels, store) = (try domain.openEventChannels(), try domain.openXenstore())
    var number = 0
    while true {
      number += 1
      let pages = try domain.grants.share(pageCount: 2, with: domain.domain, writable: true)
      let mapped = try domain.grants.map(pages.references, of: domain.domain, writable: true)
      mapped.bytes.zero()
      let port = try channels.allocateUnbound(for: domain.domain)
      let bound = try channels.bindInterdomain(to: domain.domain, port: port)
      channels.notify(bound)
      while let pending = channels.nextPending() { channels.unmask(pending) }
      if number % 2 == 0 { channels.close(bound) }
      let transaction = try store.startTransaction()
      try store.write("\(number % 8)", [], in: transaction)
      try store.endTransaction(transaction, commit: true)
      try store.watch("\(number % 8)", token: "t")
      try store.unwatch("\(number % 8)", token: "t")
    }
  }

  @Test func processKilledWhileItsThreadWorksLeavesNothing() throws {
    for count in 1...20 {
      let victim = xen.loopback.addProcess(in: xen.one.domain)
      let reason = Mutex<String?>(nil)
      let before = xen.loopback.grantCounts.mapTotal
      Thread.detachNewThread {
        do { try Self.work(victim) } catch { reason.withLock { $0 = "\(error)" } }
      }
      while xen.loopback.grantCounts.mapTotal < before + count, reason.withLock({ $0 == nil }) { sched_yield() }
      victim.kill()
      // The thread's regions, handle and connection have ended when it says why.
      while reason.withLock({ $0 == nil }) { sched_yield() }
      #expect(reason.withLock { $0?.contains("this process was killed") } == true)
      let counts = xen.loopback.grantCounts
      #expect(counts.sharedPages == 0 && counts.mappedPages == 0 && counts.orphanedPages == 0)
      #expect(xen.loopback.openPortCount == 0)
    }
  }

  private final class CountingQueue: DataQueue {
    let descriptors: [CInt] = []
    let pollCount = Atomic(0)

    func poll(now: Uptime, budget: Int, looks: Bool) -> PollOutcome {
      pollCount.add(1, ordering: .relaxed)
      return .more
    }
  }

  @Test func schedulerGivesAKilledProcessNoMoreTurns() throws {
    let scheduler = Scheduler(seed: 1)
    let (killed, alive) = (CountingQueue(), CountingQueue())
    try scheduler.host(of: xen.one).start(killed, name: "killed") {}
    try scheduler.host(of: xen.two).start(alive, name: "alive") {}
    var turns = 0
    scheduler.add(xen.one, of: xen.one, name: "task") { _ in
      turns += 1
      if turns == 3 { xen.one.kill() }
      return .idle
    }
    for _ in 1...10 { scheduler.round() }
    #expect(turns == 3)
    #expect((2...3).contains(killed.pollCount.load(ordering: .relaxed)))
    #expect(alive.pollCount.load(ordering: .relaxed) == 10)
  }

  @Test func destroyedDomainIsNoDomainToAnybody() throws {
    let channel = try Channel(from: xen.one, to: xen.two)
    let pages = try xen.one.grants.share(pageCount: 1, with: xen.two.domain, writable: true)
    let sibling = xen.loopback.addProcess(in: xen.one.domain)
    let unbound = try channel.near.allocateUnbound(for: xen.two.domain)
    xen.loopback.destroy(xen.one.domain)
    #expect(xen.one.isKilled && sibling.isKilled)
    #expect(throws: GrantError.refused(pages.references[0], of: xen.one.domain, .badDomain)) {
      _ = try xen.two.grants.map(pages.references, of: xen.one.domain, writable: true)
    }
    #expect(throws: EventChannelError.refused(unbound, of: xen.one.domain)) {
      _ = try channel.far.bindInterdomain(to: xen.one.domain, port: unbound)
    }
  }

  @Test func destroyedDomainLeavesItsHomeAndNothingElseInTheStore() throws {
    let control = try xen.control.openXenstore()
    let (home, elsewhere) = ("/local/domain/1", "/local/domain/2/of-one")
    try xen.one.openXenstore().write("device/vbd/1/state", [], in: nil)
    try control.write("\(home)/toolstack", [], in: nil)
    try control.setPermissions("\(home)/toolstack", [XenstorePermission(.zero, .none)], in: nil)
    try control.makeDirectory(elsewhere, in: nil)
    try control.setPermissions(elsewhere, [XenstorePermission(xen.one.domain, .none)], in: nil)
    try control.watch("\(home)/device/vbd/1/state", token: "t")
    try control.watch("@releaseDomain", token: "t")
    _ = control.takeEvents()
    xen.loopback.destroy(xen.one.domain)
    #expect(control.takePaths() == ["\(home)/device/vbd/1/state", "@releaseDomain"])
    #expect(try control.directory(home, in: nil) == ["toolstack"])
    #expect(try control.permissions(home, in: nil) == [XenstorePermission(.zero, .none)])
    #expect(try refusal { _ = try control.read(elsewhere, in: nil) } == .notFound)
    try control.remove(home, in: nil)
  }
}
