import NetBack
import NetFront
import TestSupport
import Testing
import XenLoopback

/// The card of async programs, with threads that nothing but events and calls wake.
// For what hangs: many times what all tests together take, since a test waits for its turn among them.
@Suite(.timeLimit(.minutes(80)))
struct NetCardTests {
  /// A driver domain at work, and a card's directories.
  private struct Machine {
    let rig: Rig
    let device: Toolstack.Device
    let backend: BusThread

    init(_ end: any NetworkEnd = EchoEnd(), mtu: Int = 1500) throws {
      rig = try Rig()
      device = try rig.toolstack.addVif(
        to: rig.guest.domain, servedBy: rig.driverDomain.domain, mac: "00:16:3e:00:00:01", mtu: mtu)
      backend = try Self.serve(rig, end)
    }

    static func serve(_ rig: Rig, _ end: any NetworkEnd) throws -> BusThread {
      try BusThread(on: rig.driverDomain, log: .silent) { (bus) throws(XenstoreError) in
        try bus.register(NetBackDriver { _ in end })
        return nil
      }
    }

    /// Also so that the backend lives as long as its test.
    func stop() { backend.end(within: 5) }

    func card(_ announcements: [NetFrontAnnouncement] = []) async throws -> NetFrontCard {
      try await NetFrontCard.connect(
        to: device.frontendPath, on: rig.guest, announcing: announcements, log: .silent)
    }
  }

  /// Waits for one batch.
  private func receiver(of card: NetFrontCard) -> Task<NetFrameBatch?, Never> {
    Task {
      var iterator = card.received.makeAsyncIterator()
      return await iterator.next()
    }
  }

  @Test func batchesGoThereAndBack() async throws {
    let machine = try Machine(mtu: 9000)
    defer { machine.stop() }
    let card = try await machine.card()
    #expect(card.macAddress?.description == "00:16:3e:00:00:01" && card.mtu == 9000 && card.hasCarrier)
    #expect(card.negotiation.lines.contains { $0.feature == "feature-sg" && $0.agreed == "on" })
    let sent = (0..<50).map { frame($0, byteCount: 14 + $0 * 160) }
    var batch = NetFrameBatch()
    for one in sent { batch.append(one.span) }
    #expect(try await card.transmit(batch).isEmpty)
    var received: [[UInt8]] = []
    for await batch in card.received {
      received += batch.map { Array($0) }
      if received.count >= sent.count { break }
    }
    #expect(received == sent)
    await card.close()
    #expect(card.statistics.tx.packets == 50 && card.statistics.rx.packets == 50)
    let counts = machine.rig.loopback.grantCounts
    #expect(counts.sharedPages == 0 && !card.hasCarrier)
  }

  /// Many more frames than slots: the call waits for its turns, and two calls keep their frames together.
  @Test func longBatchesWaitForSlots() async throws {
    let end = try InProcessEnd(capacity: 4096)
    let machine = try Machine(end)
    defer { machine.stop() }
    let card = try await machine.card()
    let batches = (0..<2).map { half in
      var batch = NetFrameBatch()
      for number in 0..<1000 {
        let one = frame(half * 1000 + number)
        batch.append(one.span)
      }
      return batch
    }
    async let first = card.transmit(batches[0])
    async let second = card.transmit(batches[1])
    let refusals = try await (first, second)
    #expect(refusals.0.isEmpty && refusals.1.isEmpty)
    await card.close()
    var arrived: [[UInt8]] = []
    end.receive { arrived.append($0.bytes.copied()) }
    let (one, other) = (batches[0].map { Array($0) }, batches[1].map { Array($0) })
    #expect(arrived == one + other || arrived == other + one)
    #expect(card.statistics.tx.packets == 2000)
  }

  @Test func aFrameThatCannotBeSentIsNamedAndKeepsNoOtherBack() async throws {
    let machine = try Machine()
    defer { machine.stop() }
    let card = try await machine.card()
    let bad = [frame(2, byteCount: 1519), [1, 2, 3]]
    let refusals = try await card.transmit([frame(1), bad[0], frame(3), bad[1], frame(5)])
    #expect(
      refusals == [
        NetFrontRefusal(index: 1, error: .tooLong(byteCount: 1519, limit: 1518)),
        NetFrontRefusal(index: 3, error: .tooShort(byteCount: 3)),
      ])
    // Nothing of them is left for the next call.
    #expect(try await card.transmit([frame(6)]).isEmpty)
    var arrived: [[UInt8]] = []
    for await batch in card.received {
      arrived += batch.map { Array($0) }
      if arrived.count >= 4 { break }
    }
    #expect(arrived == [1, 3, 5, 6].map { frame($0) })
    await card.close()
    #expect(card.statistics.tx.packets == 4)
    await #expect(throws: NetFrontError.notConnected) { try await card.transmit([frame(1)]) }
    var iterator = card.received.makeAsyncIterator()
    #expect(await iterator.next() == nil)
  }

  @Test func framesThatNobodyReceivesAreDroppedAndCounted() async throws {
    let end = try InProcessEnd()
    let machine = try Machine(end)
    defer { machine.stop() }
    let card = try await machine.card()
    var sent: UInt64 = 0
    let one = frame(1)
    while card.statistics.rx.packets < 3000 {
      if end.send(one.span) { sent += 1 } else { await Task.yield() }
    }
    await card.close()
    let statistics = card.statistics
    #expect(statistics.rx.drops > 0)
    var iterator = card.received.makeAsyncIterator()
    let batch = try #require(await iterator.next())
    #expect(UInt64(batch.count) + statistics.rx.drops == statistics.rx.packets)
    #expect(batch.count <= NetFrontCard.receivedCapacity)
    #expect(await iterator.next() == nil)
  }

  @Test func aCancelledTransmissionSendsWholeFramesOrNone() async throws {
    let rig = try Rig()
    let device = try rig.toolstack.addVif(
      to: rig.guest.domain, servedBy: rig.driverDomain.domain, mac: "00:16:3e:00:00:01")
    // A backend that answers nothing, so that the ring is full and stays so.
    let backend = RawNetBackend()
    let bus = try Bus(on: rig.driverDomain, log: .silent)
    try bus.register(backend)
    // This task is the backend, and has its turns among all other tests'.
    async let connected = NetFrontCard.connect(
      to: device.frontendPath, on: rig.guest, timeout: .seconds(3600), log: .silent)
    while !bus.isConnected {
      bus.poll()
      await Task.yield()
    }
    let card = try await connected
    var batch = NetFrameBatch()
    for number in 0..<300 {
      let one = frame(number)
      batch.append(one.span)
    }
    let transmission = Task { [batch] in try await card.transmit(batch) }
    var requests: [NetIfTxRequest] = []
    while requests.count < 256 {
      requests += try backend.txRequests()
      await Task.yield()
    }
    transmission.cancel()
    await #expect(throws: CancellationError.self) { try await transmission.value }
    for request in requests { backend.answer(NetIfTxResponse(id: request.id, status: 0)) }
    // Nothing of the cancelled one is left: the next frame is the next.
    let last = frame(1000, byteCount: 77)
    #expect(try await card.transmit([last]).isEmpty)
    var more: [NetIfTxRequest] = []
    while more.isEmpty {
      more += try backend.txRequests()
      await Task.yield()
    }
    #expect(more.map(\.size) == [77])
    await card.close(within: .zero)
  }

  @Test func aCancelledReceiverGetsNothingAndLosesNothing() async throws {
    let end = try InProcessEnd()
    let machine = try Machine(end)
    defer { machine.stop() }
    let card = try await machine.card()
    let waiting = receiver(of: card)
    // It waits by now, as good as always.
    try await Task.sleep(for: .milliseconds(20))
    waiting.cancel()
    #expect(await waiting.value == nil)
    let one = frame(1)
    end.send(one.span)
    var iterator = card.received.makeAsyncIterator()
    #expect(await iterator.next() == [one])
    await card.close()
  }

  @Test func whoeverReceivesHearsThatTheDeviceIsGoneAndReceivesOfTheNext() async throws {
    let end = try InProcessEnd()
    let machine = try Machine(end)
    defer { machine.stop() }
    let card = try await machine.card()
    let waiting = receiver(of: card)
    try await Task.sleep(for: .milliseconds(20))
    #expect(try machine.rig.toolstack.destroy(machine.device))
    #expect(await waiting.value == nil)
    var iterator = card.received.makeAsyncIterator()
    #expect(await iterator.next() == nil)
    _ = try machine.rig.toolstack.addVif(
      to: machine.rig.guest.domain, servedBy: machine.rig.driverDomain.domain, mac: "00:16:3e:00:00:01")
    while !card.hasCarrier { await Task.yield() }
    let one = frame(1)
    end.send(one.span)
    #expect(await iterator.next() == [one])
    await card.close()
  }

  @Test func aCardWithoutABackendSaysWhatItWaitedFor() async throws {
    let rig = try Rig()
    let device = try rig.toolstack.addVif(
      to: rig.guest.domain, servedBy: rig.driverDomain.domain, mac: "00:16:3e:00:00:01")
    do {
      _ = try await NetFrontCard.connect(
        to: device.frontendPath, on: rig.guest, timeout: .milliseconds(50), log: .silent)
      Issue.record("it connected")
    } catch let error as NetFrontError {
      guard case .notConnectedInTime(let report) = error else {
        Issue.record("\(error)")
        return
      }
      #expect(report.contains("waits for the backend to offer its features"))
    }
    #expect(rig.holdsNothing)
  }

  /// What waited is looked at by the limits of the backend that sends it.
  @Test func framesThatWaitMeetTheLimitsOfTheNextBackend() async throws {
    let machine = try Machine()
    defer { machine.stop() }
    let card = try await machine.card()
    machine.backend.end(within: 5)
    machine.backend.join()
    while card.hasCarrier { await Task.yield() }
    let batch: NetFrameBatch = [frame(1), frame(2, byteCount: 1000), frame(3)]
    async let refusals = card.transmit(batch)
    let path = machine.device.frontendPath
    try machine.rig.directory(path).write([StoreEntry("mtu", 600)])
    let end = try InProcessEnd()
    let backend = try Machine.serve(machine.rig, end)
    let refused = try await refusals
    #expect(refused == [NetFrontRefusal(index: 1, error: .tooLong(byteCount: 1000, limit: 618))])
    var arrived: [[UInt8]] = []
    while arrived.count < 2 {
      end.receive { arrived.append($0.bytes.copied()) }
      await Task.yield()
    }
    #expect(arrived == [frame(1), frame(3)])
    await card.close()
    backend.end(within: 5)
  }

  /// A pause, and an announcement to the new one.
  @Test func transmissionsWaitForABackendThatComesBack() async throws {
    let machine = try Machine()
    defer { machine.stop() }
    let card = try await machine.card([.address(IPv4Address("10.0.0.1")!)])
    machine.backend.end(within: 5)
    machine.backend.join()
    while card.hasCarrier { await Task.yield() }
    let one = frame(1, byteCount: 99)
    async let sent = card.transmit([one])
    let end = try InProcessEnd()
    let backend = try Machine.serve(machine.rig, end)
    let refusals = try await sent
    #expect(refusals.isEmpty)
    var arrived: [[UInt8]] = []
    while arrived.count < 2 {
      Wakeup.wait(for: end.descriptor, timeout: 1000)
      end.receive { arrived.append($0.bytes.copied()) }
    }
    #expect(arrived.map(\.count) == [42, 99] && arrived[1] == one)
    await card.close()
    backend.end(within: 5)
  }
}
