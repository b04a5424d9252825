import NetFront
import TestSupport
import Testing

/// N11: groups that a card joins and leaves.
struct NetFrontMulticastTests {
  private static func group(_ number: Int) -> MACAddress {
    MACAddress([0x01, 0x00, 0x5E, 0x01, UInt8(number / 256), UInt8(number % 256)])
  }

  private func pair(
    _ backend: ManyRingsNetBackend, features: NetFeatures = NetFeatures(), groups: [Int] = []
  ) throws -> NetPair {
    let pair = try NetPair(features: features, backend: backend)
    for number in groups { try pair.card.join(Self.group(number)) }
    #expect(pair.scheduler.run { pair.card.isConnected })
    return pair
  }

  /// What these slots say of groups; each is a request without a frame and an extra info.
  private func changes(_ slots: [NetIfTxRequest]) throws -> [NetExtraInfo] {
    #expect(slots.count % 2 == 0)
    return try stride(from: 0, to: slots.count - 1, by: 2).map { index in
      #expect(slots[index].size == 0 && slots[index].flags == NetIf.TxFlag.extraInfo)
      return try NetExtraInfo(parsing: NetIfExtraInfo(slots[index + 1]))
    }
  }

  private func added(_ numbers: [Int]) -> Set<NetExtraInfo> { Set(numbers.map { .addMulticast(Self.group($0)) }) }

  @Test func groupsAreToldAndAgainAtEachConnection() throws {
    let backend = ManyRingsNetBackend()
    let pair = try pair(backend, groups: [1, 2, 3])
    var slots = try backend.requests()
    #expect(try Set(changes(slots)) == added([1, 2, 3]))
    backend.answerAll(slots)
    pair.pollCard()
    try pair.card.leave(Self.group(2))
    // Once is enough.
    try pair.card.leave(Self.group(2))
    try pair.card.join(Self.group(1))
    slots = try backend.requests()
    #expect(try changes(slots) == [.removeMulticast(Self.group(2))])
    backend.answerAll(slots)
    pair.pollCard()
    #expect(pair.card.groups == [Self.group(1), Self.group(3)] && pair.card.refusedGroups.isEmpty)
    #expect(pair.card.statistics.tx == NetCounts() && pair.card.inFlightCount == 0)
    pair.backBus.close()
    #expect(pair.scheduler.run { pair.backBus.isEmpty && pair.holdsNothing })
    pair.scheduler.remove(pair.backBus)
    // Meanwhile.
    try pair.card.join(Self.group(7))
    let next = ManyRingsNetBackend()
    _ = try pair.addBackBus(next)
    #expect(pair.scheduler.run { pair.card.isConnected })
    #expect(try Set(changes(next.requests())) == added([1, 3, 7]))
  }

  @Test func groupsThatTheBackendRefusesAreNamed() throws {
    let backend = ManyRingsNetBackend()
    let pair = try pair(backend, groups: [1, 2])
    let slots = try backend.requests()
    let first = try changes(slots)[0]
    backend.answer(NetIfTxResponse(id: slots[0].id, status: NetIf.Status.error))
    backend.answer(NetIfTxResponse(id: 0, status: NetIf.Status.null))
    backend.answerAll(Array(slots[2...]))
    pair.pollCard()
    let refused = try #require([1, 2].first { first == .addMulticast(Self.group($0)) })
    #expect(pair.card.refusedGroups == [Self.group(refused)] && pair.card.groups.count == 2)
    #expect(pair.card.statistics.tx.errors == 0)
    try pair.card.leave(Self.group(refused))
    #expect(pair.card.refusedGroups.isEmpty)
  }

  /// A group waits for room as a frame does, and nothing is forgotten.
  @Test func groupsWaitForRoom() throws {
    let backend = ManyRingsNetBackend()
    let pair = try pair(backend)
    let one = frame(1)
    for _ in 0..<255 { try pair.card.send(one.span) }
    pair.card.push()
    let slots = try backend.requests()
    for number in 0..<300 { try pair.card.join(Self.group(number)) }
    #expect(try backend.requests().isEmpty)
    backend.answerAll(slots)
    var told: [NetExtraInfo] = []
    for _ in 0..<10 {
      pair.pollCard()
      let slots = try backend.requests()
      told += try changes(slots)
      backend.answerAll(slots)
    }
    #expect(told == (0..<300).map { .addMulticast(Self.group($0)) })
    #expect(pair.card.statistics.tx.packets == 255)
  }

  @Test(arguments: ["00:16:3e:00:00:01", "ff:ff:ff:ff:ff:ff"])
  func whatIsNoGroupIsRefused(address: String) throws {
    let card = NetFrontDevice()
    let address = try #require(MACAddress(address))
    #expect(throws: NetFrontError.noGroup(address)) { try card.join(address) }
    #expect(card.groups.isEmpty)
  }

  /// Only a backend that offers it is asked, and one that looks only at the beginning when it connects.
  @Test(arguments: [(false, false), (true, false), (true, true)])
  func filterIsAskedForAsTheBackendAllows(isOffered: Bool, isDynamic: Bool) throws {
    let backend = ManyRingsNetBackend(
      offered: [
        StoreEntry("feature-multicast-control", isOffered), StoreEntry("feature-dynamic-multicast-control", isDynamic),
      ])
    let pair = try pair(backend, groups: [1])
    func key() throws -> String? {
      try pair.rig.directory(pair.device.frontendPath).optionalString("request-multicast-control")
    }
    #expect(try key() == (isOffered ? "0" : nil) && !pair.card.filtersMulticast)
    #expect(try backend.requests().count == (isOffered ? 2 : 0))
    #expect(pair.card.setMulticastFilter(true) == isDynamic)
    #expect(try key() == (isDynamic ? "1" : isOffered ? "0" : nil) && pair.card.filtersMulticast)
    pair.backBus.close()
    #expect(pair.scheduler.run { pair.backBus.isEmpty && pair.holdsNothing })
    pair.scheduler.remove(pair.backBus)
    _ = try pair.addBackBus(
      ManyRingsNetBackend(offered: [StoreEntry("feature-multicast-control", isOffered)]))
    #expect(pair.scheduler.run { pair.card.isConnected })
    #expect(try key() == (isOffered ? "1" : nil))
    let line = pair.card.negotiation.lines.first { $0.feature == "feature-multicast-control" }
    #expect(line?.agreed == (isOffered ? "on" : "off"))
  }

  @Test func whoDoesNotUseItSaysNothing() throws {
    var features = NetFeatures()
    features.multicastControl = false
    let backend = ManyRingsNetBackend()
    let pair = try pair(backend, features: features, groups: [1])
    try pair.card.join(Self.group(2))
    #expect(!pair.card.setMulticastFilter(true))
    #expect(try backend.requests().isEmpty && pair.card.groups.count == 2)
  }
}
