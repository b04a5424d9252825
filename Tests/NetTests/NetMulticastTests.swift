import NetBack
import TestSupport
import Testing

/// N11 on the backend's side: which groups a frontend listens to.
struct NetMulticastTests {
  private final class Closed { var statistics = NetStatistics() }

  private let frontend = RawNetFrontend()
  private let closed = Closed()
  private let end = NotingEnd()

  private func pair(requests: Bool, features: NetFeatures = NetFeatures()) throws -> HandPolledPair {
    frontend.keys = [StoreEntry("request-multicast-control", requests)]
    return try HandPolledPair(
      frontend: frontend,
      backend: NetBackDriver(features: features, whenClosed: { [closed] in closed.statistics = $1.total }) {
        [end] _ in end
      })
  }

  private func group(_ number: Int) -> MACAddress { MACAddress([0x01, 0, 0x5E, 0, 0, UInt8(number)]) }

  /// Says a word about each of these, and gives the answers but for those to the extra infos.
  private func say(_ words: [NetExtraInfo], _ pair: HandPolledPair) throws -> [Int16] {
    var statuses: [Int16] = []
    for word in words {
      frontend.put(
        NetIfTxRequest(gref: GrantReference(rawValue: 0), flags: NetIf.TxFlag.extraInfo, id: 1, size: 0))
      frontend.put(NetIfExtraInfo(word).transmitSlot)
      frontend.push()
      _ = pair.pollUntilIdle()
      let answers = try frontend.txResponses()
      #expect(answers.count == 2 && answers.last?.status == NetIf.Status.null)
      statuses += answers.prefix(1).map(\.status)
    }
    return statuses
  }

  private func frame(to receiver: MACAddress) -> [UInt8] {
    receiver.bytes.indices.map { receiver.bytes[$0] } + [UInt8](repeating: 7, count: 54)
  }

  /// Which of these receivers' frames arrive.
  private func arrive(_ receivers: [MACAddress], _ pair: HandPolledPair) throws -> [MACAddress] {
    end.toGive = receivers.map { .init(frame(to: $0)) }
    for id in 0..<UInt16(receivers.count) { frontend.put(NetIfRxRequest(id: id, gref: frontend.references[Int(id)])) }
    frontend.push()
    _ = pair.pollUntilIdle()
    return try frontend.rxResponses().map { response in
      let bytes = frontend.page(Int(response.id)).slice(from: 0, count: 6).copied()
      return MACAddress([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]])
    }
  }

  private let card = MACAddress("00:16:3e:00:00:01")!
  private let everybody = MACAddress("ff:ff:ff:ff:ff:ff")!

  @Test(arguments: [true, false]) func itIsOfferedUnlessSwitchedOff(isOn: Bool) throws {
    var features = NetFeatures()
    features.multicastControl = isOn
    let pair = try pair(requests: true, features: features)
    let directory = pair.rig.directory("/local/domain/2/backend/vif/1/0")
    #expect(try directory.flag("feature-multicast-control") == isOn)
    #expect(try directory.flag("feature-dynamic-multicast-control") == isOn)
    let lines = try #require(pair.backBus.negotiations.first?.value).lines
    #expect(lines.first { $0.feature == "request-multicast-control" }?.agreed == (isOn ? "on" : "off"))
    // What was not offered is neither understood nor done.
    #expect(try say([.addMulticast(group(1))], pair) == [isOn ? 0 : -1])
    #expect(try arrive([group(1), group(2)], pair).count == (isOn ? 1 : 2))
  }

  @Test func allGroupsPassUnlessTheFrontendWantsOnlyItsOwn() throws {
    let pair = try pair(requests: false)
    #expect(try say([.addMulticast(group(1))], pair) == [0])
    #expect(try arrive([group(1), group(2), card, everybody], pair) == [group(1), group(2), card, everybody])
  }

  @Test func onlyGroupsThatAreListenedToPassAndBroadcastsAlways() throws {
    let pair = try pair(requests: true)
    let receivers = [group(1), card, group(2), everybody, group(3), MACAddress("00:16:3e:00:00:02")!]
    #expect(try arrive(receivers, pair) == [card, everybody, receivers[5]])
    #expect(
      try say([.addMulticast(group(2)), .addMulticast(group(3)), .removeMulticast(group(3))], pair) == [0, 0, 0])
    #expect(try arrive(receivers, pair) == [card, group(2), everybody, receivers[5]])
    // What is left of the pages is used by what comes next.
    #expect(try arrive([group(2)], pair) == [group(2)])
    pair.backBus.close()
    for _ in 0..<20 {
      pair.frontBus.poll()
      pair.backBus.poll()
    }
    #expect(closed.statistics.rxFiltered == 5 && closed.statistics.rx.drops == 0)
    // Words are no packets.
    #expect(closed.statistics.tx.packets == 0 && closed.statistics.tx.errors == 0 && end.taken.isEmpty)
  }

  /// "feature-dynamic-multicast-control": the key counts while connected, too.
  @Test func theFrontendMayChangeItsMind() throws {
    let pair = try pair(requests: false)
    #expect(try say([.addMulticast(group(1))], pair) == [0])
    let directory = pair.rig.directory("/local/domain/1/device/vif/0")
    for isOn in [true, false, true] {
      try directory.write([StoreEntry("request-multicast-control", isOn)])
      for _ in 0..<5 { pair.backBus.poll() }
      #expect(try arrive([group(1), group(2)], pair) == (isOn ? [group(1)] : [group(1), group(2)]))
    }
  }

  @Test func sayingItTwiceIsSayingItOnce() throws {
    let pair = try pair(requests: true)
    let add = NetExtraInfo.addMulticast(group(1))
    #expect(try say([add, add, .removeMulticast(group(1)), .removeMulticast(group(1))], pair) == [0, 0, 0, 0])
    #expect(try arrive([group(1), card], pair) == [card])
  }

  /// As many as Linux's backend keeps; one more is refused, and the others stay.
  @Test func theListIsBounded() throws {
    let pair = try pair(requests: true)
    let words = (0..<65).map { NetExtraInfo.addMulticast(group($0)) }
    #expect(try say(words, pair) == [Int16](repeating: 0, count: 64) + [-1])
    #expect(try arrive([group(0), group(63), group(64)], pair) == [group(0), group(63)])
    #expect(try say([.removeMulticast(group(7)), words[64]], pair) == [0, 0])
    #expect(try arrive([group(7), group(64)], pair) == [group(64)])
  }

  @Test(arguments: [NetIf.ExtraType.addMulticast, NetIf.ExtraType.removeMulticast])
  func anAddressOfOneCardIsNoGroup(type: UInt8) throws {
    let pair = try pair(requests: true)
    frontend.put(NetIfTxRequest(gref: GrantReference(rawValue: 0), flags: NetIf.TxFlag.extraInfo, id: 1, size: 0))
    frontend.put(NetIfExtraInfo(type: type, words: (0x1600, 0x003E, 0x0100)).transmitSlot)
    frontend.push()
    _ = pair.pollUntilIdle()
    #expect(try frontend.txResponses().map(\.status) == [-1, NetIf.Status.null])
  }
}
