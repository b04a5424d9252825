import TestSupport
import Testing
import XenLoopback
import XenPlatform

/// Event channels between domains.
struct EventTests {
  private let xen = Domains()

  @Test func portIsForTheDomainThatItWasAllocatedFor() throws {
    let (allocator, stranger) = (try xen.one.openEventChannels(), try xen.control.openEventChannels())
    let port = try allocator.allocateUnbound(for: xen.two.domain)
    #expect(throws: EventChannelError.refused(port, of: xen.one.domain)) {
      _ = try stranger.bindInterdomain(to: xen.one.domain, port: port)
    }
    let wanted = try xen.two.openEventChannels()
    _ = try wanted.bindInterdomain(to: xen.one.domain, port: port)
  }

  @Test func eventOfAnUnboundPortGoesNowhere() throws {
    let allocator = try xen.one.openEventChannels()
    let port = try allocator.allocateUnbound(for: xen.two.domain)
    allocator.notify(port)
    #expect(allocator.nextPending() == nil)
    let binder = try xen.two.openEventChannels()
    let mine = try binder.bindInterdomain(to: xen.one.domain, port: port)
    #expect(binder.nextPending() == mine, "the binding brings an event, whatever came before")
    #expect(binder.nextPending() == nil)
  }

  @Test func closingOneEndLeavesTheOtherUnboundAndBindableAgain() throws {
    let channel = try Channel(from: xen.one, to: xen.two)
    channel.far.close(channel.farPort)
    channel.notify()
    #expect(xen.loopback.openPortCount == 1)
    let stranger = try xen.control.openEventChannels()
    #expect(throws: EventChannelError.self) {
      _ = try stranger.bindInterdomain(to: xen.one.domain, port: channel.nearPort)
    }
    let again = try channel.far.bindInterdomain(to: xen.one.domain, port: channel.nearPort)
    _ = channel.takeFar()
    channel.notify()
    #expect(channel.far.nextPending() == again)
  }

  @Test func eventsOfAMaskedPortAreOneWhenItIsUnmasked() throws {
    let channel = try Channel(from: xen.one, to: xen.two)
    channel.notify()
    #expect(channel.far.nextPending() == channel.farPort)
    channel.notify(times: 5)
    #expect(channel.far.nextPending() == nil)
    channel.far.unmask(channel.farPort)
    #expect(channel.takeFar() == 1)
  }
}

/// What a test can have happen to events.
struct EventFaultTests {
  private let xen = Domains()

  @Test func delayedEventComesWhenItIsDelivered() throws {
    let channel = try Channel(from: xen.one, to: xen.two)
    xen.loopback.eventFaults.delayed = .next(1)
    channel.notify()
    #expect(channel.takeFar() == 0)
    #expect(xen.loopback.deliverHeldEvents() == 1)
    #expect(channel.takeFar() == 1)
    channel.notify()
    #expect(channel.takeFar() == 1)
    #expect(xen.loopback.deliverHeldEvents() == 0)
  }

  @Test func eventsBehindADelayedOneBecomeOneWithIt() throws {
    let channel = try Channel(from: xen.one, to: xen.two)
    xen.loopback.eventFaults.delayed = .next(1)
    channel.notify(times: 4)
    #expect(channel.takeFar() == 0)
    xen.loopback.deliverHeldEvents()
    #expect(channel.takeFar() == 1)
    xen.loopback.deliverHeldEvents()
    #expect(channel.takeFar() == 0)
  }

  @Test func duplicatedEventComesAtOnceAndOnceMore() throws {
    let channel = try Channel(from: xen.one, to: xen.two)
    xen.loopback.eventFaults.duplicated = .next(1)
    channel.notify()
    #expect(channel.takeFar() == 1)
    xen.loopback.deliverHeldEvents()
    #expect(channel.takeFar() == 1)
    xen.loopback.deliverHeldEvents()
    #expect(channel.takeFar() == 0)
  }

  @Test func spuriousEventComesOnABoundPort() throws {
    let channel = try Channel(from: xen.one, to: xen.two)
    _ = try channel.far.allocateUnbound(for: xen.one.domain)
    xen.loopback.eventFaults.spurious = .next(20)
    var counts = (near: 0, far: 0)
    for _ in 1...21 {
      xen.loopback.deliverHeldEvents()
      counts.far += channel.takeFar()
      while let port = channel.near.nextPending() {
        #expect(port == channel.nearPort)
        counts.near += 1
        channel.near.unmask(port)
      }
    }
    #expect(counts.near > 0 && counts.far > 0 && counts.near + counts.far == 20)
  }

  @Test func heldEventOfAClosedPortIsForgotten() throws {
    let channel = try Channel(from: xen.one, to: xen.two)
    xen.loopback.eventFaults.delayed = .next(1)
    channel.notify()
    channel.far.close(channel.farPort)
    let again = try channel.far.bindInterdomain(to: xen.one.domain, port: channel.nearPort)
    #expect(channel.far.nextPending() == again)
    channel.far.unmask(again)
    xen.loopback.deliverHeldEvents()
    #expect(channel.far.nextPending() == nil)
  }

  @Test func nothingStaysHeldWhenTheFaultsEnd() throws {
    let channel = try Channel(from: xen.one, to: xen.two)
    xen.loopback.eventFaults.delayed = .oneIn(1)
    channel.notify()
    #expect(channel.takeFar() == 0)
    xen.loopback.eventFaults = EventFaults()
    #expect(channel.takeFar() == 1)
  }

  /// What comes out at both ends of two channels, round by round, when a quarter of everything goes wrong.
  private func schedule(_ seed: Seed) throws -> [[Int]] {
    let xen = Domains(seed: seed.value)
    let channels = [try Channel(from: xen.one, to: xen.two), try Channel(from: xen.two, to: xen.control)]
    xen.loopback.eventFaults.delayed = .oneIn(4)
    xen.loopback.eventFaults.duplicated = .oneIn(4)
    xen.loopback.eventFaults.spurious = .oneIn(4)
    let scheduler = Scheduler(seed: seed)
    scheduler.add(xen.loopback)
    var taken: [[Int]] = []
    let (sender, receiver) = (PrivatePages(pageCount: 1), PrivatePages(pageCount: 1))
    scheduler.add(sender, name: "sender") { _ in
      for channel in channels { channel.notify() }
      return .idle
    }
    scheduler.add(receiver, name: "receiver") { _ in
      taken.append(channels.map { $0.takeFar() })
      return .idle
    }
    for _ in 1...200 { scheduler.round() }
    return taken
  }

  @Test(arguments: seeds(1...4, of: Self.self)) func oneSeedGivesOneSchedule(seed: Seed) throws {
    let first = try schedule(seed)
    #expect(try schedule(seed) == first)
    #expect(try schedule(Seed(seed.value &+ 1000)) != first)
  }

  @Test(arguments: seeds(1...20, of: Self.self)) func noEventIsLostWhateverHappensToThem(seed: Seed) throws {
    let xen = Domains(seed: seed.value)
    let channel = try Channel(from: xen.one, to: xen.two)
    xen.loopback.eventFaults.delayed = .oneIn(2)
    xen.loopback.eventFaults.duplicated = .oneIn(3)
    for _ in 1...200 {
      channel.notify()
      var count = channel.takeFar()
      for _ in 1...2 {
        xen.loopback.deliverHeldEvents()
        count += channel.takeFar()
      }
      #expect(count > 0)
    }
  }
}
