import NetBack
import TestSupport
import Testing

/// N12 on the backend's side: room before each frame, which a frontend asks for and may change while connected.
struct NetHeadroomTests {
  private let frontend = RawNetFrontend()
  private let end = NotingEnd()

  private func pair(_ headroom: Int?, sg: Bool = true) throws -> HandPolledPair {
    frontend.keys =
      [StoreEntry("feature-sg", sg), StoreEntry("feature-gso-tcpv4", true)]
      + (headroom.map { [StoreEntry("xdp-headroom", $0)] } ?? [])
    return try HandPolledPair(frontend: frontend, backend: NetBackDriver { [end] _ in end })
  }

  private func give(
    _ frame: [UInt8], _ pair: HandPolledPair, _ metadata: NetPacketMetadata = NetPacketMetadata()
  ) throws -> [NetIfRxResponse] {
    end.toGive = [.init(frame, metadata)]
    _ = pair.pollUntilIdle()
    return try frontend.rxResponses()
  }

  private func post(_ ids: Range<UInt16>) {
    for id in ids { frontend.put(NetIfRxRequest(id: id, gref: frontend.references[Int(id) % 16])) }
    frontend.push()
  }

  private func bytes(_ response: NetIfRxResponse, page: UInt16) -> [UInt8] {
    frontend.page(Int(page % 16)).slice(from: Int(response.offset), count: Int(response.status)).copied()
  }

  @Test func framesBeginBehindTheHeadroomAndSaySo() throws {
    let pair = try pair(256)
    post(0..<8)
    let one = frame(1, byteCount: 1514)
    let responses = try give(one, pair)
    try #require(responses.count == 2)
    #expect(responses[0].offset == 256 && responses[0].status == 1514 && responses[0].flags == NetIf.RxFlag.extraInfo)
    #expect(bytes(responses[0], page: 0) == one)
    #expect(try NetExtraInfo(parsing: NetIfExtraInfo(responses[1])) == .headroom(byteCount: 256))
    #expect(try pair.rig.directory("/local/domain/2/backend/vif/1/0").flag("feature-xdp-headroom"))
  }

  /// The headroom counts among the pages that a frame needs, and is in the first one only.
  @Test func aFrameThatNoLongerFitsAPageTakesAnother() throws {
    let pair = try pair(256)
    post(0..<2)
    let long = TestPacket(payload: pattern(4000, seed: 1)).bytes
    #expect(
      try give(long, pair, .init(checksum: .blank, segmentation: .init(.tcpv4, payloadByteCount: 1000))).isEmpty)
    post(2..<4)
    _ = pair.pollUntilIdle()
    let responses = try frontend.rxResponses()
    try #require(responses.count == 4)
    #expect(responses[0].offset == 256 && responses[0].status == 3840 && responses[3].offset == 0)
    #expect(NetIfExtraInfo(responses[1]).hasMore && !NetIfExtraInfo(responses[2]).hasMore)
    #expect(try NetExtraInfo(parsing: NetIfExtraInfo(responses[1])) == .segmentation(.tcpv4, payloadByteCount: 1000))
    #expect(bytes(responses[0], page: 0) + bytes(responses[3], page: 3) == long)
  }

  /// Without scatter-gather it has one page, and what does not fit is lost; what comes behind is not.
  @Test func aFrameThatNoLongerFitsTheOnlyPageIsDropped() throws {
    let pair = try pair(256, sg: false)
    post(0..<8)
    #expect(try give(frame(1, byteCount: 3841), pair).isEmpty)
    #expect(try give(frame(1, byteCount: 3840), pair).count == 2)
  }

  @Test(arguments: [0, nil] as [Int?]) func noHeadroomIsNoExtraInfo(headroom: Int?) throws {
    let pair = try pair(headroom)
    post(0..<1)
    let responses = try give(frame(1), pair)
    #expect(responses.map(\.flags) == [0] && responses.map(\.offset) == [0])
  }

  @Test func theLargestHeadroomLeavesRoomForTheHeader() throws {
    let pair = try pair(4082)
    post(0..<3)
    let responses = try give(frame(1), pair)
    #expect(responses.map(\.offset).first == 4082 && responses.map(\.status).first == 14)
    #expect(responses.count == 3)
  }

  /// As Linux's frontend has it: key and Reconfiguring, the backend's Reconfigured, Connected, the backend's Connected.
  @Test func itMayBeChangedWhileConnected() throws {
    let pair = try pair(nil)
    post(0..<16)
    let (front, back) = ("/local/domain/1/device/vif/0", "/local/domain/2/backend/vif/1/0")
    var slot: UInt16 = 0
    for headroom in [256, 0, 64] {
      try pair.rig.directory(front).write([StoreEntry("xdp-headroom", headroom), StoreEntry("state", "7")])
      for _ in 0..<5 { pair.backBus.poll() }
      #expect(try pair.rig.state(back) == .reconfigured)
      let responses = try give(frame(Int(slot)), pair)
      #expect(responses.first.map { Int($0.offset) } == headroom && responses.count == (headroom > 0 ? 2 : 1))
      #expect(responses.first.map { bytes($0, page: slot) } == frame(Int(slot)))
      slot += UInt16(responses.count)
      try pair.rig.directory(front).write([StoreEntry("state", "4")])
      for _ in 0..<5 { pair.backBus.poll() }
      #expect(try pair.rig.state(back) == .connected && pair.backBus.isConnected)
    }
  }

  /// Our own directory of the guest's word: judged before anything is done with it.
  @Test(arguments: ["4083", "32768", "-1", "99999999999999999999", "all"])
  func aHeadroomThatLeavesNoRoomClosesTheDevice(text: String) throws {
    let pair = try pair(nil)
    try pair.rig.directory("/local/domain/1/device/vif/0").write([StoreEntry("xdp-headroom", text)])
    for _ in 0..<5 { pair.backBus.poll() }
    let error = try pair.rig.error(of: pair.rig.driverDomain, "/local/domain/2/backend/vif/1/0")
    #expect(error?.contains("xdp-headroom") == true)
    #expect(!pair.backBus.isConnected)
  }
}
