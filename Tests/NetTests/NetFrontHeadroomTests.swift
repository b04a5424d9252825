import NetFront
import TestSupport
import Testing
import XenBus

/// N12: room before the frames that arrive.
struct NetFrontHeadroomTests {
  private let backend = ManyRingsNetBackend()

  private func pair(seed: Seed = 1, headroom: Int = 0) throws -> NetPair {
    let pair = try NetPair(seed: seed, backend: backend)
    if headroom > 0 { try pair.card.setHeadroom(headroom) }
    #expect(pair.scheduler.run { pair.card.isConnected })
    return pair
  }

  private func key(_ pair: NetPair) throws -> String? {
    try pair.rig.directory(pair.device.frontendPath).optionalString("xdp-headroom")
  }

  private final class Seen { var values: [String?] = [] }

  /// As Linux's backend does it.
  private func followStates(_ seen: Seen) {
    backend.whenChanged = { (device) throws(DeviceError) in
      switch try device.otherState() {
      case .reconfiguring?:
        seen.values.append(try device.other.optionalString("xdp-headroom"))
        _ = try device.switchState(to: .reconfigured)
      case .connected? where XenbusState(key: try device.own.optionalString("state")) == .reconfigured:
        _ = try device.switchState(to: .connected)
      default: break
      }
    }
  }

  @Test(arguments: seeds(1...20, of: NetFrontHeadroomTests.self))
  func backendIsToldAndBothAreConnectedAgain(seed: Seed) throws {
    let seen = Seen()
    followStates(seen)
    let pair = try pair(seed: seed)
    #expect(try key(pair) == "0" && pair.card.headroomByteCount == 0)
    var number = 0
    for byteCount in [256, 192, 0, 256] {
      try pair.card.setHeadroom(byteCount)
      // Traffic goes on meanwhile.
      let settled = try pair.scheduler.run {
        let one = frame(number)
        if number < 200 { try pair.card.send(one.span) }
        number += 1
        pair.card.push()
        backend.answerAll(try backend.requests())
        pair.pollCard()
        return try pair.card.headroomByteCount == byteCount && pair.frontendState == .connected
          && pair.backendState == .connected
      }
      #expect(settled, "\(pair.frontBus.report)")
      #expect(pair.card.isConnected && pair.frontBus.isConnected)
      #expect(try key(pair) == "\(byteCount)" && seen.values.last == "\(byteCount)")
    }
    let counts = pair.card.statistics.tx
    #expect(counts.packets == UInt64(min(number, 200)) && counts.drops == 0)
  }

  /// The last one counts, whenever it comes, and each value is looked at after it was written.
  @Test(arguments: seeds(1...20, of: NetFrontHeadroomTests.self))
  func valuesThatFollowOneAnotherAreToldInTurn(seed: Seed) throws {
    let seen = Seen()
    followStates(seen)
    let pair = try pair(seed: seed)
    for byteCount in 1...30 {
      try pair.card.setHeadroom(byteCount)
      for _ in 0..<seed.modulo(4) { pair.scheduler.round() }
    }
    let settled = try pair.scheduler.run {
      try pair.card.headroomByteCount == 30 && pair.frontendState == .connected && pair.backendState == .connected
    }
    #expect(settled && seen.values.last == "30")
    let numbers = seen.values.compactMap { $0.flatMap { Int($0) } }
    #expect(numbers == numbers.sorted())
  }

  @Test func backendThatDoesNotAnswerStopsNothing() throws {
    let pair = try pair()
    // Its bus looks at nothing; its rings are the test's.
    pair.scheduler.remove(pair.backBus)
    try pair.card.setHeadroom(256)
    _ = pair.scheduler.run(turns: 50) { false }
    #expect(try pair.frontendState == .reconfiguring && pair.card.headroomByteCount == 0)
    let one = frame(1)
    try pair.card.send(one.span)
    pair.card.push()
    backend.answerAll(try backend.requests())
    try backend.fill(one)
    pair.pollCard()
    #expect(pair.received == [one] && pair.card.statistics.tx.packets == 1 && pair.card.isConnected)
    try pair.toolstack.unplug(pair.device)
    let closed = pair.scheduler.run {
      pair.backBus.poll()
      return pair.holdsNothing
    }
    #expect(closed)
  }

  @Test func backendThatLeavesNoneIsNotAsked() throws {
    let backend = ManyRingsNetBackend(offered: [])
    let pair = try NetPair(backend: backend)
    try pair.card.setHeadroom(256)
    #expect(pair.scheduler.run { pair.card.isConnected })
    #expect(try key(pair) == nil && pair.card.headroomByteCount == 0)
    let line = pair.card.negotiation.lines.first { $0.feature == "xdp-headroom" }
    #expect(line?.agreed == "0" && line?.reason == "the backend does not offer it")
    #expect(throws: NetFrontError.notSupported("feature-xdp-headroom")) { try pair.card.setHeadroom(256) }
    try pair.card.setHeadroom(0)
  }

  // MARK: Frames

  private func arrive(_ pair: NetPair) -> [(bytes: [UInt8], headroom: Int)] {
    var arrived: [([UInt8], Int)] = []
    pair.card.poll { arrived.append(($0.copied(), $0.headroomByteCount)) }
    return arrived
  }

  /// Linux's backend leaves room at the start of each page and counts it as the slot's; the header, and Linux's frontend, have an
  /// offset.
  @Test(arguments: [true, false], [60, 3000, 8000])
  func roomIsNoPartOfTheFrame(isCounted: Bool, byteCount: Int) throws {
    let pair = try pair(headroom: 256)
    #expect(try key(pair) == "256" && pair.card.headroomByteCount == 256)
    let whole = frame(1, byteCount: byteCount)
    let capacity = isCounted ? 4096 - 256 : 4000 - 256
    var rest = whole[...]
    var isFirst = true
    while !rest.isEmpty {
      let part = Array(rest.prefix(isFirst || isCounted ? capacity : 4096))
      rest = rest.dropFirst(part.count)
      let flags = (rest.isEmpty ? 0 : NetIf.RxFlag.moreData) | (isFirst ? NetIf.RxFlag.extraInfo : 0)
      if isCounted {
        try backend.fill(part, at: 256, flags: flags, saying: 0, status: part.count + 256)
      } else {
        try backend.fill(part, at: isFirst ? 256 : 0, flags: flags)
      }
      if isFirst { try backend.fill(NetIfExtraInfo(type: 5, words: (256, 0, 0))) }
      isFirst = false
    }
    let arrived = arrive(pair)
    #expect(arrived.map(\.bytes) == [whole] && arrived.map(\.headroom) == [256])
    #expect(pair.card.statistics.rx.bytes == UInt64(byteCount))
    // And one that has none.
    try backend.fill(frame(2))
    #expect(arrive(pair).map(\.headroom) == [0])
  }

  @Test func roomThatCannotBeCostsItsFrame() throws {
    let pair = try pair(headroom: 256)
    // More than the slot has, an offset within, a further slot without, more than the header allows.
    try backend.fill(frame(1), flags: NetIf.RxFlag.extraInfo, status: 200)
    try backend.fill(NetIfExtraInfo(type: 5, words: (256, 0, 0)))
    try backend.fill(frame(1), at: 100, flags: NetIf.RxFlag.extraInfo)
    try backend.fill(NetIfExtraInfo(type: 5, words: (256, 0, 0)))
    try backend.fill(frame(1), flags: NetIf.RxFlag.extraInfo | NetIf.RxFlag.moreData, status: 400)
    try backend.fill(NetIfExtraInfo(type: 5, words: (256, 0, 0)))
    try backend.fill(frame(1), status: 255)
    try backend.fill(frame(1), flags: NetIf.RxFlag.extraInfo, status: 4096)
    try backend.fill(NetIfExtraInfo(type: 5, words: (0x8000, 0, 0)))
    try backend.fill(frame(9))
    #expect(arrive(pair).map(\.bytes) == [frame(9)])
    #expect(pair.card.statistics.rx.errors == 4 && pair.card.isConnected)
    #expect(try Set(backend.pages().map(\.gref)).count == 256)
  }

  /// A frame of an untrusted backend is a copy with the same room before it.
  @Test func copyHasTheSameRoom() throws {
    let pair = try NetPair(frontendKeys: ["trusted": "0"], backend: backend)
    try pair.card.setHeadroom(256)
    #expect(pair.scheduler.run { pair.card.isConnected })
    try backend.fill(frame(1), at: 256, flags: NetIf.RxFlag.extraInfo)
    try backend.fill(NetIfExtraInfo(type: 5, words: (256, 0, 0)))
    let arrived = arrive(pair)
    #expect(arrived.map(\.bytes) == [frame(1)] && arrived.map(\.headroom) == [256])
  }
}
