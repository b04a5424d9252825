import TestSupport
import Testing
import XenLoopback

@testable import BlkBack
@testable import BlkFront
@testable import NetBack
@testable import NetFront

/// The third gate: the other end's keys. Each that may be wrong is, once, with all the others right; and the error names it.
struct KeyGateTests {
  private let loopback = Loopback()
  private let control: LoopbackDomain
  private let other: StoreDirectory

  init() throws {
    control = loopback.addDomain()
    other = StoreDirectory("/other", in: try control.openXenstore())
  }

  private func error(_ body: () throws(DeviceError) -> Void) -> DeviceError? {
    do throws(DeviceError) {
      try body()
      return nil
    } catch { return error }
  }

  /// What the reader says of these keys with one of them changed.
  private func error(
    _ sound: [StoreEntry], _ key: String, _ value: String?, _ read: (StoreDirectory) throws(DeviceError) -> Void
  ) throws -> DeviceError? {
    try other.write(sound)
    let whole = error { () throws(DeviceError) in try read(other) }
    #expect(whole == nil, "sound keys")
    try other.write([value.map { StoreEntry(key, $0) } ?? StoreEntry(absent: key)])
    return error { () throws(DeviceError) in try read(other) }
  }

  private func expect(_ found: DeviceError?, names key: String, _ value: String?) {
    switch found {
    case .malformedKey(other.path(of: key), value ?? "", _), .missingKey(other.path(of: key)): break
    case .unsupported(let words): #expect(words.contains(other.path(of: key)))
    default: Issue.record("\(key) = \(value ?? "nothing"): \(found.map { "\($0)" } ?? "passes")")
    }
  }

  // MARK: Typed access

  @Test func missingKey() {
    #expect(error { () throws(DeviceError) in _ = try other.string("a") } == .missingKey(path: "/other/a"))
    #expect(
      error { () throws(DeviceError) in _ = try other.number("a", as: Int.self) } == .missingKey(path: "/other/a"))
  }

  @Test(arguments: ["", "+1", "-1", "256", "1 ", "0x1", "\u{661}", "1e1"])
  func malformedKey(text: String) throws {
    try other.write([StoreEntry("a", text)])
    let expected = DeviceError.malformedKey(path: "/other/a", value: text, expected: "a number from 0 to 255")
    #expect(error { () throws(DeviceError) in _ = try other.number("a", as: UInt8.self) } == expected)
    #expect(error { () throws(DeviceError) in _ = try other.optionalNumber("a", as: UInt8.self) } == expected)
  }

  /// What the store refuses is no absent key: whoever may not look must not take that for a no.
  @Test func refusalOfTheStoreIsNoAbsence() throws {
    try other.write([StoreEntry("a", 1)])
    let store = try control.openXenstore()
    try store.setPermissions("/other", [XenstorePermission(.zero, .none)], in: nil)
    try store.setPermissions("/other/a", [XenstorePermission(.zero, .none)], in: nil)
    let stranger = StoreDirectory("/other", in: try loopback.addDomain().openXenstore())
    func isRefused(_ body: () throws(DeviceError) -> Void) -> Bool {
      if case .store(let error) = error(body) { error.code == .permissionDenied } else { false }
    }
    #expect(isRefused { () throws(DeviceError) in _ = try stranger.optionalString("a") })
    #expect(isRefused { () throws(DeviceError) in _ = try stranger.number("a", as: Int.self) })
    #expect(isRefused { () throws(DeviceError) in _ = try stranger.flag("a") })
    #expect(isRefused { () throws(DeviceError) in _ = try stranger.children() })
    #expect(isRefused { () throws(DeviceError) in _ = try stranger.exists() })
    #expect(isRefused { () throws(DeviceError) in try stranger.remove("a") })
    #expect(isRefused { () throws(DeviceError) in try stranger.write([StoreEntry("a", 2)]) })
  }

  // MARK: What frontends publish

  private static let blkFrontend = [
    StoreEntry("ring-page-order", 1), StoreEntry("ring-ref0", 8), StoreEntry("ring-ref1", 9),
    StoreEntry("event-channel", 7), StoreEntry("protocol", "x86_64-abi"), StoreEntry("feature-persistent", 1),
  ]

  @Test(
    arguments: [
      ("ring-page-order", "-1"), ("ring-page-order", "5"), ("ring-page-order", "64"), ("ring-page-order", "x"),
      ("ring-ref1", nil), ("ring-ref0", nil), ("ring-ref0", "4294967296"), ("event-channel", nil),
      ("event-channel", "-1"), ("protocol", "vax-abi"), ("feature-persistent", "maybe"),
      ("feature-large-sector-size", "yes"), ("multi-queue-num-queues", "0"), ("multi-queue-num-queues", "-1"),
      ("multi-queue-num-queues", "5"), ("multi-queue-num-queues", "99999999999999999999"),
    ] as [(String, String?)])
  func keysOfABlockFrontend(key: String, value: String?) throws {
    let found = try error(Self.blkFrontend, key, value) { (directory) throws(DeviceError) in
      _ = try BlkFrontendKeys(from: directory, offered: BlkBackOptions())
    }
    // Without the first of two pages the single page's key is looked for.
    expect(found, names: key == "ring-ref0" && value == nil ? "ring-ref0" : key, value)
  }

  @Test(arguments: ["0", "3", "32", "-2", "x"]) func numRingPagesOfABlockFrontend(value: String) throws {
    let found = try error(
      [StoreEntry("num-ring-pages", 1), StoreEntry("ring-ref", 8), StoreEntry("event-channel", 7)], "num-ring-pages",
      value
    ) { (directory) throws(DeviceError) in _ = try BlkFrontendKeys(from: directory, offered: BlkBackOptions()) }
    expect(found, names: "num-ring-pages", value)
  }

  /// Each queue's keys lie in a directory of its own.
  @Test func keysOfABlockFrontendsQueues() throws {
    let sound = [
      StoreEntry("multi-queue-num-queues", 2), StoreEntry("queue-0/ring-ref", 8),
      StoreEntry("queue-0/event-channel", 7),
      StoreEntry("queue-1/ring-ref", 9), StoreEntry("queue-1/event-channel", 6),
    ]
    for (key, value) in [("queue-1/ring-ref", nil), ("queue-0/event-channel", "x")] as [(String, String?)] {
      let found = try error(sound, key, value) { (directory) throws(DeviceError) in
        _ = try BlkFrontendKeys(from: directory, offered: BlkBackOptions())
      }
      expect(found, names: key, value)
    }
  }

  /// The deprecated key is reported to whoever asks why a disk's sectors are misunderstood.
  @Test func largeSectorSizeIsReportedAsDeprecated() throws {
    try other.write(Self.blkFrontend + [StoreEntry("feature-large-sector-size", 1)])
    let keys = try BlkFrontendKeys(from: other, offered: BlkBackOptions())
    var negotiation = Negotiation()
    keys.report(in: &negotiation, offered: BlkBackOptions())
    let line = try #require(negotiation.lines.first { $0.feature == "feature-large-sector-size" })
    #expect(line.frontend == "yes" && line.agreed == "off" && line.reason.contains("deprecated"))
  }

  private static let netFrontend = [
    StoreEntry("request-rx-copy", 1), StoreEntry("tx-ring-ref", 8), StoreEntry("rx-ring-ref", 9),
    StoreEntry("event-channel-tx", 7), StoreEntry("event-channel-rx", 6), StoreEntry("ctrl-ring-ref", 5),
    StoreEntry("event-channel-ctrl", 4), StoreEntry("feature-sg", 1), StoreEntry("xdp-headroom", 256),
  ]

  @Test(
    arguments: [
      ("request-rx-copy", nil), ("request-rx-copy", "0"), ("request-rx-copy", "yes"), ("tx-ring-ref", nil),
      ("tx-ring-ref", "-1"), ("rx-ring-ref", nil), ("rx-ring-ref", "4294967296"), ("event-channel-tx", "x"),
      ("event-channel-rx", "x"), ("ctrl-ring-ref", "x"), ("event-channel-ctrl", nil), ("event-channel-ctrl", "x"),
      ("feature-sg", "x"), ("feature-rx-notify", "x"), ("feature-no-csum-offload", "x"),
      ("feature-ipv6-csum-offload", "x"), ("feature-gso-tcpv4", "x"), ("feature-gso-tcpv6", "x"),
      ("request-multicast-control", "x"), ("xdp-headroom", "-1"), ("xdp-headroom", "99999"), ("xdp-headroom", "x"),
      ("multi-queue-num-queues", "0"), ("multi-queue-num-queues", "-1"), ("multi-queue-num-queues", "65"),
      ("multi-queue-num-queues", "x"),
    ] as [(String, String?)])
  func keysOfANetworkFrontend(key: String, value: String?) throws {
    var features = NetFeatures(splitEventChannels: true, scatterGather: true)
    features.controlRing = true
    let found = try error(Self.netFrontend, key, value) { [features] (directory) throws(DeviceError) in
      _ = try NetFrontendKeys(from: directory, offered: features)
    }
    expect(found, names: key, value)
  }

  /// One channel that is missing is looked for under the name of one for both.
  @Test func eventChannelOfANetworkFrontend() throws {
    let found = try error(Self.netFrontend, "event-channel-rx", nil) { (directory) throws(DeviceError) in
      _ = try NetFrontendKeys(from: directory, offered: NetFeatures(splitEventChannels: true))
    }
    #expect(found == .missingKey(path: "/other/event-channel"))
  }

  // MARK: What backends say

  private static let blkBackend = [
    StoreEntry("sectors", 64), StoreEntry("sector-size", 512), StoreEntry("feature-discard", 1),
  ]

  @Test(
    arguments: [
      ("sectors", nil), ("sectors", "-1"), ("sectors", "36028797018963968"), ("sector-size", "0"),
      ("sector-size", "511"), ("sector-size", "8192"), ("sector-size", "4294967296"), ("physical-sector-size", "0"),
      ("physical-sector-size", "256"), ("physical-sector-size", "x"), ("info", "x"), ("feature-discard", "x"),
      ("discard-granularity", "x"), ("discard-alignment", "-1"), ("discard-secure", "x"), ("feature-flush-cache", "x"),
      ("feature-barrier", "x"), ("feature-persistent", "x"), ("feature-max-indirect-segments", "-1"),
      ("feature-large-sector-size", "x"),
    ] as [(String, String?)])
  func keysOfABlockBackend(key: String, value: String?) throws {
    let found = try error(Self.blkBackend, key, value) { (directory) throws(DeviceError) in
      _ = try BlkBackendKeys(from: directory, in: .standard)
    }
    // What a disk is like is judged together.
    guard case .malformedKey(_, let text, _) = found, text.contains(", sectors ") else {
      return expect(found, names: key, value)
    }
    #expect(["sectors", "sector-size", "physical-sector-size"].contains(key))
  }

  @Test(arguments: ["max-ring-page-order", "max-ring-pages", "multi-queue-max-queues"])
  func offerOfABlockBackend(key: String) throws {
    let found = try error([], key, "-1") { (directory) throws(DeviceError) in _ = try BlkBackendOffer(from: directory) }
    expect(found, names: key, "-1")
    // More than anybody uses is an offer like another.
    for value in [0, 1 << 40, UInt64.max] {
      try other.write([StoreEntry(key, value)])
      let offer = try BlkBackendOffer(from: other)
      #expect((1...1 << 16).contains(offer.ringPageCount) && (1...1 << 16).contains(offer.queueCount))
    }
  }

  @Test(
    arguments: [
      "feature-rx-copy", "feature-split-event-channels", "feature-sg", "feature-no-csum-offload",
      "feature-ipv6-csum-offload", "feature-gso-tcpv4", "feature-gso-tcpv6", "multi-queue-max-queues",
      "feature-multicast-control", "feature-dynamic-multicast-control", "feature-xdp-headroom", "feature-ctrl-ring",
    ])
  func keysOfANetworkBackend(key: String) throws {
    let found = try error([StoreEntry("feature-rx-copy", 1)], key, "x") { (directory) throws(DeviceError) in
      _ = try NetBackendKeys(from: directory)
    }
    expect(found, names: key, "x")
    try other.write([StoreEntry("multi-queue-max-queues", UInt64.max), StoreEntry("feature-rx-copy", 1)])
    if key == "multi-queue-max-queues" { #expect(try NetBackendKeys(from: other).maxQueueCount == 1 << 16) }
  }
}
