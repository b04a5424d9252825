import Glibc
import NetBack
import NetFront
import TestSupport
import Testing
import XenLoopback

/// The link, and what a card says when it has connected.
struct NetLinkTests {
  @Test(arguments: seeds(1...10, of: NetLinkTests.self))
  func theCardFollowsTheLink(seed: Seed) throws {
    let end = try InProcessEnd()
    let pair = try NetPair(seed: seed, end: end)
    try pair.connect()
    #expect(pair.card.hasCarrier)
    for isUp in [false, true, false] {
      end.hasCarrier = isUp
      #expect(pair.scheduler.run { pair.card.hasCarrier == isUp })
      #expect(
        try pair.rig.directory(pair.device.backendPath).optionalNumber("carrier", as: UInt32.self) == (isUp ? 1 : 0))
    }
    // Frames pass either way.
    let one = frame(1)
    end.send(one.span)
    #expect(pair.receive(1) && pair.card.isConnected)
  }

  @Test func aBackendThatSaysNothingOfTheLinkHasOne() throws {
    let pair = try NetPair(backend: RawNetBackend())
    try pair.connect()
    #expect(pair.card.hasCarrier)
  }

  /// Its toolstack has removed it, and nobody has looked yet.
  @Test(arguments: seeds(1...10, of: NetLinkTests.self))
  func aLinkThatChangesDoesNotBringACardBack(seed: Seed) throws {
    let end = try InProcessEnd()
    let pair = try NetPair(seed: seed, end: end)
    try pair.connect()
    try pair.rig.toolstack.remove(pair.device)
    end.hasCarrier = false
    #expect(pair.scheduler.run { pair.backBus.report.isEmpty })
    #expect(try !pair.rig.directory(pair.device.backendPath).exists())
  }

  /// The queue follows a link at its turns, so that somebody must ask for one.
  @Test func aLinkThatChangesWakesItsQueue() throws {
    let end = try InProcessEnd()
    var wait = pollfd(fd: try #require(end.wakeDescriptor), events: Int16(POLLIN), revents: 0)
    end.hasCarrier = false
    // Safe: one entry of our own.
    let ready = unsafe poll(&wait, 1, 0)
    #expect(ready == 1)
  }

  @Test func aCarrierThatIsNoNumberClosesTheCard() throws {
    let pair = try NetPair(end: EchoEnd())
    try pair.connect()
    try pair.rig.directory(pair.device.backendPath).write([StoreEntry("carrier", "maybe")])
    #expect(try pair.scheduler.run { try pair.frontendError != nil })
    #expect(try pair.frontendError?.contains("carrier holds \"maybe\"") == true)
  }

  /// Each time anew: also after a backend has come back, perhaps on another host.
  @Test func aCardAnnouncesItselfAtEachConnection() throws {
    let end = try InProcessEnd()
    let pair = try NetPair(end: end)
    let own = frame(5, byteCount: 60)
    pair.card.announcements = [.address(IPv4Address("192.168.0.9")!), .frame(own), .frame([1, 2, 3])]
    try pair.connect()
    func arrived(_ end: InProcessEnd) -> [[UInt8]] {
      var frames: [[UInt8]] = []
      _ = pair.scheduler.run(turns: 50) {
        end.receive { frames.append($0.bytes.copied()) }
        return false
      }
      return frames
    }
    let mac: [UInt8] = [0x00, 0x16, 0x3E, 0, 0, 1]
    let announcement =
      [UInt8](repeating: 0xFF, count: 6) + mac + [0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1] + mac + [192, 168, 0, 9]
      + [0, 0, 0, 0, 0, 0, 192, 168, 0, 9]
    #expect(arrived(end) == [announcement, own])
    pair.backBus.close()
    #expect(pair.scheduler.run { pair.backBus.isEmpty && pair.holdsNothing })
    pair.scheduler.remove(pair.backBus)
    let other = try InProcessEnd()
    let bus = try pair.addBackBus(NetBackDriver { _ in other })
    #expect(pair.scheduler.run { bus.isConnected && pair.card.isConnected })
    #expect(arrived(other) == [announcement, own])
  }

  @Test(arguments: ["0.0.0.0", "255.255.255.255", "10.9.0.1"])
  func addressesAreRead(text: String) { #expect(IPv4Address(text)?.description == text) }

  @Test(arguments: ["", "1.2.3", "1.2.3.4.5", "1.2.3.256", "1.2.3.-4", "1.2.3.+4", "a.b.c.d", "1..2.3", "1.2.3.4 "])
  func whatIsNoAddressIsRefused(text: String) { #expect(IPv4Address(text) == nil) }

  @Test func bothEndsSayWhatTheyAgreedOn() throws {
    let pair = try NetPair(features: NetFeatures(scatterGather: false), end: EchoEnd())
    try pair.connect()
    let backend = try #require(pair.backBus.negotiations[pair.device.backendPath])
    let lines = Dictionary(uniqueKeysWithValues: backend.lines.map { ($0.feature, $0) })
    #expect(lines["feature-split-event-channels"]?.agreed == "on" && lines["feature-rx-copy"]?.agreed == "on")
    #expect(lines["feature-rx-notify"]?.agreed == "on")
    #expect(lines["feature-sg"]?.agreed == "off" && lines["feature-sg"]?.reason == "the frontend does not use it")
    #expect(lines["feature-gso-tcpv4"]?.reason == "the frontend does not take it")
    #expect(
      lines["tx ipv4 checksum offload"]?.reason == "the backend finishes what the frontend leaves blank all the same")
    #expect(lines["queues"]?.agreed == "1")
    let frontend = Dictionary(uniqueKeysWithValues: pair.card.negotiation.lines.map { ($0.feature, $0) })
    #expect(frontend["feature-sg"]?.agreed == "off" && frontend["tx pages"]?.agreed == "256")
  }

  @Test func queuesAddUp() {
    var one = NetStatistics()
    (one.tx.packets, one.tx.bytes, one.tx.errors, one.tx.drops) = (1, 2, 3, 4)
    (one.rx.packets, one.rx.bytes, one.rx.errors, one.rx.drops) = (5, 6, 7, 8)
    (one.rxGSOChecksumFixups, one.txChecksumsFilled) = (9, 14)
    (one.txGSOChecksumFixups, one.rxChecksumsFilled, one.rxFiltered) = (15, 16, 17)
    (one.txSegmented, one.rxSegmented) = (18, 19)
    (one.txRing.notificationsSent, one.txRing.notificationsSuppressed) = (10, 11)
    (one.rxRing.notificationsSent, one.rxRing.notificationsSuppressed) = (12, 13)
    #expect(
      "\([one, one].total)"
        == "tx: 2 packets, 4 bytes, 6 errors, 8 drops; rx: 10 packets, 12 bytes, 14 errors, 16 drops; "
        + "rx_gso_checksum_fixup 18; tx_checksums_filled 28; rx_checksums_filled 32; "
        + "tx_gso_checksum_fixup 30; segmented 36 and 38; filtered 34; notified 20 and 24 times, suppressed 22 and 26")
  }

  @Test func statisticsAreOneLine() throws {
    let pair = try NetPair(end: EchoEnd())
    try pair.connect()
    let one = frame(1, byteCount: 100)
    try pair.card.send(one.span)
    pair.card.push()
    #expect(pair.receive(1))
    #expect(pair.card.queueStatistics.count == 1 && pair.card.queueStatistics.total == pair.card.statistics)
    #expect(
      "\(pair.card.statistics)".hasPrefix(
        "tx: 1 packets, 100 bytes, 0 errors, 0 drops; rx: 1 packets, 100 bytes, 0 errors, 0 drops; "
          + "rx_gso_checksum_fixup 0; "))
  }
}

/// Pages that cannot be had, and a guest that gives none.
struct NetPageTests {
  @Test(arguments: [(1024, 256), (514, 256), (513, 128), (258, 128), (257, 64), (100, 32)])
  func poolsAreAsLargeAsCanBeHad(limit: Int, pages: Int) throws {
    let pair = try NetPair(end: EchoEnd())
    pair.guest.sharedPageLimit = limit
    try pair.connect()
    let lines = Dictionary(uniqueKeysWithValues: pair.card.negotiation.lines.map { ($0.feature, $0) })
    #expect(lines["tx pages"]?.agreed == "\(pages)" && lines["rx pages"]?.agreed == "\(pages)")
    #expect(lines["tx pages"]?.reason.isEmpty == (pages == 256))
    #expect((pair.card.nextPoll == nil) == (pages == 256))
    let sent = (0..<300).map { frame($0) }
    var next = 0
    let done = try pair.scheduler.run(turns: 20_000) {
      while next < sent.count, next - pair.received.count < 30, !pair.card.waitsForSlots {
        let one = sent[next]
        try pair.card.send(one.span)
        next += 1
      }
      pair.card.push()
      pair.pollCard()
      return pair.received.count == sent.count
    }
    #expect(done && pair.received == sent, "\(pair.received.count)")
  }

  /// A page each way and the rings are enough for short frames; less is an error that says what to raise.
  @Test func theLeastIsOneFrameEachWay() throws {
    for (limit, connects) in [(4, true), (3, false)] {
      let pair = try NetPair(features: NetFeatures(scatterGather: false), end: EchoEnd())
      pair.guest.sharedPageLimit = limit
      guard connects else {
        #expect(try pair.scheduler.run { try pair.frontendError != nil })
        #expect(try pair.frontendError?.contains("cannot share 1 more pages") == true)
        #expect(pair.scheduler.run { pair.holdsNothing })
        continue
      }
      try pair.connect()
      for number in 0..<3 {
        let one = frame(number, byteCount: 1518)
        try pair.card.send(one.span)
        #expect(pair.card.waitsForSlots)
        pair.card.push()
        #expect(pair.receive(number + 1))
      }
    }
  }

  /// As many as a frame of the MTU takes, and eighteen for what may arrive; with one page less there is no card.
  @Test(arguments: [(65517, 16), (1500, 1)])
  func eachDirectionHasPagesForItsLongestFrame(mtu: Int, pages: Int) throws {
    for missing in 0...1 {
      let pair = try NetPair(mtu: mtu, end: EchoEnd())
      pair.guest.sharedPageLimit = 2 + pages + 18 - missing
      guard missing == 0 else {
        #expect(try pair.scheduler.run { try pair.frontendError != nil })
        #expect(pair.scheduler.run { pair.holdsNothing })
        continue
      }
      try pair.connect()
      let lines = Dictionary(uniqueKeysWithValues: pair.card.negotiation.lines.map { ($0.feature, $0) })
      #expect(lines["tx pages"]?.agreed == "\(pages)" && lines["rx pages"]?.agreed == "18")
    }
  }

  @Test func aLongFrameGoesThroughTheSmallestPools() throws {
    let pair = try NetPair(mtu: 65517, end: EchoEnd())
    pair.guest.sharedPageLimit = 2 + 16 + 18
    try pair.connect()
    let long = frame(1, byteCount: 65535)
    try pair.card.send(long.span)
    #expect(throws: NetFrontError.busy) { try pair.card.send(long.span) }
    pair.card.push()
    #expect(pair.receive(1))
    #expect(pair.received == [long])
  }

  @Test func missingPagesAreAskedForAgain() throws {
    let pair = try NetPair(end: EchoEnd())
    pair.guest.sharedPageLimit = 100
    try pair.connect()
    // Rings, pools, and the control ring with its page.
    #expect(pair.loopback.grantCounts.sharedPages == 2 + 64 + 2)
    #expect(pair.card.nextPoll == Uptime(nanoseconds: 100_000_000))
    // Not before their time.
    pair.card.poll(now: Uptime(nanoseconds: 99_999_999)) { _ in }
    #expect(pair.loopback.grantCounts.sharedPages == 2 + 64 + 2)
    // Thirty-two are left, of which whole halves of what is missing are had.
    pair.card.poll(now: Uptime(nanoseconds: 1_000_000_000)) { _ in }
    let some = pair.loopback.grantCounts.sharedPages
    #expect(some > 68 && some <= 100)
    #expect(pair.card.nextPoll == Uptime(nanoseconds: 1_100_000_000))
    pair.guest.sharedPageLimit = 1024
    pair.card.poll(now: Uptime(nanoseconds: 1_050_000_000)) { _ in }
    #expect(pair.loopback.grantCounts.sharedPages == some)
    pair.card.poll(now: Uptime(nanoseconds: 1_100_000_000)) { _ in }
    // All for what arrives; what is sent has what it had.
    #expect(pair.loopback.grantCounts.sharedPages == 2 + 32 + 256 + 2 && pair.card.nextPoll == nil)
    for number in 0..<600 {
      let one = frame(number)
      try pair.card.send(one.span)
      pair.card.push()
      #expect(pair.receive(number + 1))
    }
    #expect(pair.received == (0..<600).map { frame($0) })
    pair.frontBus.close()
    #expect(pair.scheduler.run { pair.frontBus.isEmpty && pair.holdsNothing })
  }

  /// A guest that gives no pages costs what may wait, for ten seconds, and nobody is kept awake for it.
  @Test(arguments: [true, false])
  func framesThatWaitTooLongAreDropped(notifies: Bool) throws {
    let frontend = RawNetFrontend()
    frontend.keys = [StoreEntry("feature-rx-notify", notifies)]
    let end = try InProcessEnd()
    let closed = Closed()
    let pair = try HandPolledPair(
      frontend: frontend, backend: NetBackDriver(whenClosed: { closed.statistics = $1.total }) { _ in end })
    let one = frame(1)
    for _ in 0..<5 { end.send(one.span) }
    let retry = Uptime(nanoseconds: notifies ? 11_000_000_000 : 1_030_000_000)
    #expect(pair.pollUntilIdle(at: 1) == .idleUntil(retry))
    for _ in 0..<3 { end.send(one.span) }
    #expect(pair.pollUntilIdle(at: 10.99) == .idleUntil(Uptime(nanoseconds: 11_000_000_000)))
    // The later ones wait on.
    let next = Uptime(nanoseconds: notifies ? 20_990_000_000 : 11_030_000_000)
    #expect(pair.pollUntilIdle(at: 11) == .idleUntil(next))
    frontend.put(NetIfRxRequest(id: 0, gref: frontend.references[0]))
    frontend.push()
    _ = pair.pollUntilIdle(at: 12)
    #expect(try frontend.rxResponses().map(\.status) == [64])
    #expect(pair.pollUntilIdle(at: 21) == .idle)
    pair.backBus.close()
    for _ in 0..<20 {
      pair.frontBus.poll()
      pair.backBus.poll()
    }
    #expect(closed.statistics?.rx.packets == 1 && closed.statistics?.rx.drops == 7)
  }

  private final class Closed { var statistics: NetStatistics? }

  /// What one guest leaves undone is nothing to another.
  @Test func aGuestWithoutPagesStopsNobodyElse() throws {
    let frontend = RawNetFrontend()
    let end = try InProcessEnd()
    let driver = NetBackDriver { device -> any NetworkEnd in
      if device.own.path.hasSuffix("/0") { return end } else { return EchoEnd() }
    }
    let pair = try NetPair(backend: driver, frontend: frontend)
    #expect(pair.scheduler.run { frontend.isConnected })
    let other = NetFrontDevice()
    let device = try pair.toolstack.addVif(
      1, to: pair.guest.domain, servedBy: pair.driverDomain.domain, mac: "00:16:3e:00:00:02")
    let bus = try Bus(on: pair.guest, queueHost: pair.scheduler, log: .silent)
    try bus.register(other, at: device.frontendPath)
    pair.scheduler.add(bus, name: "other card's bus") { _ in bus.poll() }
    #expect(pair.scheduler.run { other.isConnected })
    let one = frame(1)
    for _ in 0..<300 { end.send(one.span) }
    var answers = 0
    let done = try pair.scheduler.run {
      if !other.waitsForSlots { try other.send(one.span) }
      other.push()
      other.poll(now: pair.scheduler.now) { _ in answers += 1 }
      return answers >= 100
    }
    #expect(done)
  }
}

/// The line in which frames wait, in bytes.
struct FrameQueueTests {
  @Test(arguments: seeds(1...40, of: FrameQueueTests.self))
  func framesOfAllLengthsKeepTheirBytesAndOrder(seed: Seed) {
    var random = SeededGenerator(seed)
    var queue = FrameQueue(capacity: 40, byteCapacity: 1 << 17)
    var expected: [[UInt8]] = []
    var drops: UInt64 = 0
    for number in 0..<300 {
      if Int.random(in: 0..<5, using: &random) < 3 {
        let isLong = Int.random(in: 0..<3, using: &random) == 0
        let one = frame(number, byteCount: Int.random(in: 14...(isLong ? 20_000 : 200), using: &random))
        let hasRoom = queue.hasRoom(for: one.count)
        let isPut = queue.put(one.span)
        #expect(isPut == hasRoom)
        if isPut { expected.append(one) } else { drops += 1 }
      } else if !expected.isEmpty {
        let count = Int.random(in: 1...min(3, expected.count), using: &random)
        for index in 0..<count {
          let bytes = queue[index].bytes.copied()
          #expect(bytes == expected[index])
        }
        queue.removeFirst(count)
        expected.removeFirst(count)
      }
      let (count, dropCount) = (queue.count, queue.dropCount)
      #expect(count == expected.count && dropCount == drops)
    }
    while !expected.isEmpty {
      let bytes = queue[0].bytes.copied()
      #expect(bytes == expected.removeFirst())
      queue.removeFirst()
    }
  }

  /// Whatever was there before: an empty line has room for the longest frame.
  @Test func anEmptyLineHasRoomForTheLongestFrame() {
    var queue = FrameQueue(capacity: 4, byteCapacity: 1)
    let (short, long) = (frame(1), frame(2, byteCount: 65535))
    for _ in 0..<10 {
      let first = queue.put(short.span)
      queue.removeFirst()
      let hasRoom = queue.hasRoom
      let second = queue.put(long.span)
      let bytes = queue[0].bytes.copied()
      #expect(first && hasRoom && second && bytes == long)
      queue.removeFirst()
    }
  }

  /// Three pages, and frames at multiples of 64 bytes: a frame fits where its first free byte is, and not one line before.
  @Test func aLineThatHasGoneRoundFillsItsGapAndNoMore() {
    var queue = FrameQueue(capacity: 40, byteCapacity: 1, maxFrameByteCount: 4096)
    let (first, second) = (frame(1, byteCount: 4032), frame(2, byteCount: 4096))
    let puts = [queue.put(first.span), queue.put(second.span), queue.put(second.span)]
    queue.removeFirst()
    let (tooLong, fits, short) = (frame(3, byteCount: 4033), frame(4, byteCount: 4032), frame(5))
    let more = [queue.put(tooLong.span), queue.put(fits.span)]
    // The last 64 bytes of the three pages are behind the end by now.
    let last = queue.put(short.span)
    let (bytes, count) = (queue[0].bytes.copied(), queue.count)
    #expect(puts == [true, true, true] && more == [false, true] && !last && bytes == second && count == 3)
  }

  /// As when an interface has longer frames than the line takes, and cuts them off.
  @Test(arguments: [4096, 65535]) func frameThatFillsAllTheRoomThereIsIsDropped(longest: Int) {
    var queue = FrameQueue(capacity: 4, maxFrameByteCount: longest)
    let fits = queue.put(fill: { _, _ in longest })
    let isTaken = queue.put(fill: { bytes, _ in bytes.count })
    let (count, drops) = (queue.count, queue.dropCount)
    #expect(fits && isTaken && count == 1 && drops == 1)
    let isEmptyHanded = queue.put(fill: { _, _ in 0 })
    #expect(!isEmptyHanded)
  }

  /// Or its queue would be woken for an end that finds no room.
  @Test func roomIsRoomForWhatFillsALine() {
    var queue = FrameQueue(capacity: 40, byteCapacity: 1 << 14, maxFrameByteCount: 4096)
    while queue.hasRoom {
      let isPut = queue.put(fill: { _, _ in 4096 })
      #expect(isPut)
    }
    let count = queue.count
    #expect(count > 1)
  }

  @Test func bytesBoundTheLineTheSameAsFrames() {
    var queue = FrameQueue(capacity: 100, byteCapacity: 1 << 17)
    let long = frame(1, byteCount: 65535)
    let puts = (0..<4).map { _ in queue.put(long.span) }
    let (count, drops) = (queue.count, queue.dropCount)
    #expect(puts == [true, true, false, false] && count == 2 && drops == 2)
  }
}
