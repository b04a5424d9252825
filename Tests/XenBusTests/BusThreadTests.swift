import Synchronization
import TestSupport
import Testing
import XenBus
import XenPlatform

/// The thread that polls a bus.
// For what hangs: many times what all tests together take, since a test waits for its turn among them.
@Suite(.timeLimit(.minutes(80)), .onEachStore) struct BusThreadTests {
  let rig: BusRig
  let disk: Toolstack.Device

  init() throws {
    rig = try BusRig()
    disk = try rig.addDisk()
  }

  private func thread(_ platform: any Platform, _ makeDriver: @escaping @Sendable (Bus) throws(XenstoreError) -> Void)
    throws -> BusThread
  {
    try BusThread(on: platform, log: .silent) { (bus) throws(XenstoreError) in
      try makeDriver(bus)
      return nil
    }
  }

  @Test(arguments: [Double.infinity, .greatestFiniteMagnitude])
  func endMayTakeAsLongAsTheOtherEndsNeed(seconds: Double) throws {
    let back = try thread(rig.driverDomain) { (bus) throws(XenstoreError) in try bus.register(FakeBackend()) }
    let front = try thread(rig.guest) { (bus) throws(XenstoreError) in try bus.register(FakeFrontend()) }
    while try rig.state(disk.frontendPath) != .connected { Wakeup.wait(for: -1, timeout: 1) }
    back.end(within: seconds)
    back.join()
    #expect(try rig.state(disk.backendPath) == .closed)
    front.end(within: 0)
    front.join()
  }

  @Test func endAtOnceLeavesTheStatesAsTheyAre() throws {
    let back = try thread(rig.driverDomain) { (bus) throws(XenstoreError) in try bus.register(FakeBackend()) }
    while try rig.state(disk.backendPath) != .initWait { Wakeup.wait(for: -1, timeout: 1) }
    back.end(within: 0)
    back.join()
    #expect(try rig.state(disk.backendPath) == .initWait)
  }

  /// A descriptor that is always readable, and nothing to do.
  @Test func clientThatIsWokenForNothingIsWokenLessAndLess() throws {
    let client = RestlessClient()
    let start = Uptime.now.nanoseconds
    let thread = try BusThread(on: rig.guest, log: .silent) { (_) throws(XenstoreError) in client }
    repeat { Wakeup.wait(for: -1, timeout: 1000) } while client.pollCount.load(ordering: .relaxed) < 17
    let polls = client.pollCount.load(ordering: .relaxed)
    let seconds = Double(Uptime.now.nanoseconds - start) / 1e9
    // Sixteen at once, ten at doubling distances up to a tenth of a second, and then two each time, or three when a sleep is measured.
    #expect(Double(polls) < 60 + 30 * seconds, "\(polls) polls in \(seconds) seconds")
    // What it does is forgiven.
    client.works.store(true, ordering: .relaxed)
    thread.wake()
    // At the former rate these would take a minute.
    for _ in 0..<10_000 where client.pollCount.load(ordering: .relaxed) <= polls + 1000 {
      Wakeup.wait(for: -1, timeout: 1)
    }
    #expect(client.pollCount.load(ordering: .relaxed) > polls + 1000)
    thread.end(within: 0)
    thread.join()
  }

  /// A client that finds what there is in memory, and has whoever puts it there signal only before the thread sleeps.
  @Test func aClientIsAskedToHaveEventsSentBeforeTheThreadSleeps() throws {
    let word = try CountedWord()
    let client = CountingClient(word)
    let thread = try BusThread(
      on: rig.guest, log: .silent, sleep: AdaptiveSleep(maxNanoseconds: 1_000_000_000, crowdedYield: .max)
    ) { (_) throws(XenstoreError) in client }
    // How soon it looks, and finds what it was not told of, is the machine's affair.
    let count = word.countUp { word.lookingCount > 0 && word.signalCount < $0 }
    #expect(word.consumedCount == count)
    #expect(word.lookingCount > 0 && word.signalCount > 0 && word.signalCount < count)
    thread.end(within: 0)
    thread.join()
  }

  /// A device's other end that always has something in memory, as one that wants to do harm can.
  @Test func aClientThatAlwaysFindsSomethingInMemoryKeepsNobodyFromTheBus() throws {
    let client = try BusyClient()
    let thread = try BusThread(
      on: rig.driverDomain, log: .silent, sleep: AdaptiveSleep(maxNanoseconds: 1_000_000_000, crowdedYield: .max)
    ) { (bus) throws(XenstoreError) in
      try bus.register(FakeBackend())
      return client
    }
    while client.lookingCount.load(ordering: .relaxed) < 1000 { Wakeup.wait(for: -1, timeout: 1) }
    let disk = try rig.addDisk(51728)
    while try rig.state(disk.backendPath) != .initWait { Wakeup.wait(for: -1, timeout: 1) }
    thread.end(within: 0)
    thread.join()
  }

  private final class BusyClient: BusThreadClient, Sendable {
    /// Polls of a thread that looks.
    let lookingCount = Atomic(0)
    /// Its sleeps are short, until it looks.
    private let wakeup: Wakeup

    init() throws {
      wakeup = try Wakeup()
      wakeup.signal()
    }

    var isIdle: Bool { true }
    var hasWork: Bool { true }

    func poll(_ bus: Bus, now: Uptime, looks: Bool) -> PollOutcome {
      if looks { lookingCount.add(1, ordering: .relaxed) }
      return .idle
    }

    func appendDescriptors(to list: inout [CInt]) { list.append(wakeup.descriptor) }
    func ended() {}
  }

  private final class CountingClient: BusThreadClient, Sendable {
    private let word: CountedWord

    init(_ word: CountedWord) { self.word = word }

    var isIdle: Bool { true }
    var hasWork: Bool { word.hasWork }
    func poll(_ bus: Bus, now: Uptime, looks: Bool) -> PollOutcome { word.poll(looks: looks) }
    func appendDescriptors(to list: inout [CInt]) { list.append(word.descriptor) }
    func ended() {}
  }

  private final class RestlessClient: BusThreadClient, Sendable {
    let pollCount = Atomic(0)
    let works = Atomic(false)
    private let done = Atomic<UInt64>(0)
    private let wakeup: Wakeup = {
      let wakeup = try! Wakeup()
      wakeup.signal()
      return wakeup
    }()

    var workCount: UInt64? { done.load(ordering: .relaxed) }
    var isIdle: Bool { true }

    func poll(_ bus: Bus, now: Uptime, looks: Bool) -> PollOutcome {
      pollCount.wrappingAdd(1, ordering: .relaxed)
      if works.load(ordering: .relaxed) { done.wrappingAdd(1, ordering: .relaxed) }
      return .idle
    }

    func appendDescriptors(to list: inout [CInt]) { list.append(wakeup.descriptor) }
    func ended() {}
  }
}
