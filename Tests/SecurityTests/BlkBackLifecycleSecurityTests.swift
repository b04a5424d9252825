// Named for the advisories that they are about.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

import BlkBack
import TestSupport
import Testing
import XenLoopback
import XenPlatform

/// What a guest can do to its disk's backend through the store, and by coming and going.
struct BlkBackLifecycleSecurityTests {
  // MARK: S2

  /// Everything that the toolstack decides, in the guest's own directory and in other words.
  @Test func XSA175_settingsInTheGuestsDirectoryAreNotRead() throws {
    var served: [String] = []
    let store = AttackedStore()
    let stage = try BlkBackStage(isReadOnly: true, store: store)
    let frontend = stage.frontend!
    for (key, value) in [
      ("mode", "w"), ("params", "/etc/shadow"), ("physical-device", "8:0"), ("physical-device-path", "/dev/sda"),
      ("type", "phy"), ("script", "/bin/sh"), ("online", "0"), ("hotplug-status", "error"), ("removable", "1"),
      ("discard-enable", "1"), ("sectors", "1000000"), ("sector-size", "4096"), ("resume-from", "7"),
      ("frontend-id", "0"), ("device-type", "cdrom"), ("trusted", "1"), ("bootable", "0"), ("sector-units", "512"),
    ] {
      try stage.peer.write(key, value)
    }
    try frontend.connect()
    for key in ["params", "mode", "sectors", "removable", "info"] {
      served.append(try stage.directory.string(key))
    }
    #expect(served == ["disk 0", "r", "64", "0", "4"])
    frontend.put(frontend.request(BlkIf.Operation.write, pages: [0], id: 1))
    frontend.put(frontend.request(BlkIf.Operation.read, sector: 60, pages: [1], id: 2))
    frontend.put(BlkIfRequest(BlkIfDiscardRequest(id: 3, sectorNumber: 0, sectorCount: 8)))
    #expect(
      try frontend.statuses(3) == [1: BlkIf.Status.error, 2: BlkIf.Status.error, 3: BlkIf.Status.notSupported])
    #expect(store.kinds.isEmpty)
    try stage.check()
  }

  /// The guest's permissions keep it out of the backend's directory; and what it points its own at is not followed.
  @Test func XSA178_otherEndIsTheOneThatTheToolstackNamed() throws {
    let stage = try BlkBackStage()
    let peer = stage.peer!
    try stage.frontend.connect()
    #expect(throws: DeviceError.self) {
      try peer.other.write([StoreEntry("frontend", "/local/domain/\(stage.bystander.domain.rawValue)/device/vbd/51728")]
      )
    }
    #expect(throws: DeviceError.self) { try peer.other.write([StoreEntry("params", "/etc/shadow")]) }
    // Its own word of where its backend is, and who, is its own affair.
    try peer.write("backend", stage.second.backendPath)
    try peer.write("backend-id", 0)
    stage.frontend.put(stage.frontend.request(BlkIf.Operation.read, pages: [0], id: 1))
    #expect(try stage.frontend.statuses(1) == [1: 0])
    try stage.check()
  }

  /// No text that a guest can write makes more of it than a closed device and a sentence.
  @Test(arguments: [
    ("ring-ref", "18446744073709551616"), ("ring-ref", "-1"), ("ring-ref", ""), ("event-channel", "99999999999"),
    ("ring-page-order", "9223372036854775807"), ("ring-page-order", "-9223372036854775808"),
    ("num-ring-pages", "9223372036854775807"), ("multi-queue-num-queues", "4294967296"),
    ("multi-queue-num-queues", "0"), ("protocol", "\u{0}"), ("feature-persistent", "many"),
  ]) func XSA57_nonsenseInAKeyClosesTheDiskWithASentence(key: String, value: String) throws {
    let stage = try BlkBackStage()
    try stage.frontend.publish(keys: [(key, value)])
    let complaint = try stage.expectClosed()
    #expect(complaint.contains(key) || complaint.contains("ring layout"), "\(complaint)")
    try stage.check()
  }

  // MARK: S7

  /// Keys below the one that the backend watches, each of a name that was never there before, while nobody takes events: what
  /// waits is bounded, and so is the work that it makes.
  @Test func XSA349_watchStormOverEverNewPathsIsBounded() throws {
    let stage = try BlkBackStage()
    try stage.frontend.connect()
    #expect(try stage.useSecond())
    for round in 0..<20_000 {
      try stage.peer.write("state/\(round)", "x")
      try stage.peer.own.remove("state/\(round)")
    }
    #expect((1024...1034).contains(stage.loopback.waitingWatchEventCount))
    // It takes some polls, of which each does a bounded part, and the second disk's turn comes in each.
    var polls = 0
    while stage.bus.poll() == .more { polls += 1 }
    #expect((10..<40).contains(polls), "\(polls) polls")
    #expect(try stage.peer.otherState == .connected)
    try stage.check()
  }

  /// And a storm that never ends leaves the second disk its turns.
  @Test func XSA349_watchStormWithoutEndStarvesNobody() throws {
    let stage = try BlkBackStage()
    try stage.frontend.connect()
    let owner = OnOneThread(0)
    stage.scheduler.add(owner, name: "storm") { [peer = stage.peer!] _ in
      for _ in 0..<100 {
        owner.value += 1
        try? peer.write("state/\(owner.value)", "x")
        try? peer.own.remove("state/\(owner.value)")
      }
      return .more
    }
    #expect(try stage.useSecond())
    #expect(owner.value > 100 && stage.loopback.waitingWatchEventCount <= 1024 + 10)
    stage.scheduler.remove(owner)
    try stage.check()
  }

  // MARK: S8

  /// Connects, puts requests, and leaves in the middle of them, in a way of the seed's: two hundred times.
  @Test(arguments: seeds(1...8, of: Self.self), [false, true])
  func XSA350_connectDisconnectLoopDuringIO(seed: Seed, isPersistent: Bool) throws {
    var random = SeededGenerator(seed)
    let store = WaitingStore()
    store.open()
    let stage = try BlkBackStage(seed: seed, store: store)
    let frontend = stage.frontend!
    #expect(try stage.useSecond())
    let before = stage.loopback.grantCounts
    for _ in 0..<200 {
      try frontend.connect(isPersistent: isPersistent)
      for id in 0..<UInt64.random(in: 0...32, using: &random) {
        let operation = Bool.random(using: &random) ? BlkIf.Operation.read : BlkIf.Operation.write
        frontend.ring.request(
          frontend.request(operation, pages: (0..<Int.random(in: 1...11, using: &random)).map { $0 }, id: id))
      }
      stage.peer.notify()
      stage.run(turns: Int.random(in: 0...3, using: &random))
      if Bool.random(using: &random) { frontend.peer.closeChannel() }
      let states: [XenbusState] = [.closing, .closed, .initialising, .unknown]
      try stage.peer.write(states.randomElement(using: &random)!)
      stage.run(turns: Int.random(in: 0...2, using: &random))
      try stage.peer.write(.closed)
      // It may have seen the guest begin again, and has offered anew.
      #expect(try stage.run { try [.closed, .initWait].contains(stage.peer.otherState) })
      try stage.peer.write(.initialising)
    }
    let after = stage.loopback.grantCounts
    #expect(after.mappedPages == before.mappedPages && after.quarantinedPages == 0)
    #expect(after.sharedPages <= before.sharedPages + 33)
    #expect(
      (isPersistent ? after.mapTotal > before.mapTotal + 200 : after.copyTotal > before.copyTotal),
      "requests were taken")
    try stage.check()
  }

  // MARK: S15

  private enum Moment: CaseIterable { case offered, published, connected, inFlight, broken, refused }
  private enum Way: CaseIterable {
    case removed, frontendRemoved, unplugged, closing, closed, beginsAgain, killed, destroyed, busCloses
  }

  /// One teardown, whatever comes first and however often: at each moment of a device's life, each way to end it, twice.
  @Test(arguments: Moment.allCases, Way.allCases)
  private func XSA465_teardownAtAnyMomentInAnyWayIsOne(moment: Moment, way: Way) throws {
    let store = WaitingStore()
    let stage = try BlkBackStage(store: store)
    let (frontend, peer) = (stage.frontend!, stage.peer!)
    switch moment {
    case .offered: try stage.expectState(.initWait)
    case .published: try frontend.publish()
    case .connected: try frontend.connect()
    case .inFlight:
      try frontend.connect(isPersistent: true)
      for id in 0..<8 as Range<UInt64> {
        frontend.put(frontend.request(BlkIf.Operation.read, pages: [Int(id)], id: id))
      }
      #expect(stage.run { store.count == 8 })
    case .broken:
      try frontend.connect()
      frontend.ring.requestProducer = 1000
      peer.notify()
      _ = try stage.expectClosed()
    case .refused:
      try frontend.publish(keys: [("ring-ref", "400")])
      _ = try stage.expectClosed()
    }
    store.open()
    for _ in 0..<2 {
      switch way {
      case .removed: try stage.toolstack.remove(stage.device)
      case .frontendRemoved: try? stage.store.remove(stage.device.frontendPath, in: nil)
      case .unplugged: try stage.toolstack.unplug(stage.device)
      case .closing: try peer.write(.closing)
      case .closed: try peer.write(.closed)
      case .beginsAgain: try peer.write(.initialising)
      case .killed: stage.hostile.kill()
      case .destroyed: if !stage.hostile.isKilled { stage.loopback.destroy(stage.hostile.domain) }
      case .busCloses: stage.bus.close()
      }
      stage.run(turns: 10)
    }
    if way == .busCloses { try stage.checkEnd() } else { try stage.check() }
  }
}
