import NetBack
import NetFront
import TestSupport
import Testing
import XenLoopback

/// What keeps a card from connecting: one sentence in the error node of the end that refuses.
struct NetDeviceFaultTests {
  @Test(arguments: [
    "", "00:16:3e:00:00", "00:16:3e:00:00:0g", "01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "eth0",
  ])
  func badAddressClosesTheCard(mac: String) throws {
    let pair = try NetPair(mac: mac, end: EchoEnd())
    #expect(try pair.scheduler.run { try pair.frontendError != nil })
    #expect(
      try pair.frontendError
        == "22 the key \(pair.device.frontendPath)/mac holds \"\(mac)\" where the MAC address of one card, such as "
        + "00:16:3e:00:00:01, is expected")
    #expect(!pair.card.isConnected)
    _ = pair.scheduler.run(turns: 50) { false }
    #expect(try [.closing, .closed].contains(pair.frontendState))
    #expect(pair.holdsNothing)
  }

  @Test func missingAddressClosesTheCard() throws {
    let pair = try NetPair(frontendKeys: ["mac": nil], end: EchoEnd())
    #expect(try pair.scheduler.run { try pair.frontendError != nil })
    #expect(try pair.frontendError == "22 the key \(pair.device.frontendPath)/mac is missing")
  }

  @Test(arguments: ["0", "67", "65518", "65536", "-1", "1500 ", "many", ""])
  func badMTUClosesTheCard(mtu: String) throws {
    let pair = try NetPair(frontendKeys: ["mtu": mtu], end: EchoEnd())
    #expect(try pair.scheduler.run { try pair.frontendError != nil })
    #expect(try pair.frontendError?.contains("\(pair.device.frontendPath)/mtu holds \"\(mtu)\"") == true)
    #expect(!pair.card.isConnected)
  }

  @Test func absentMTUAndHandleMeanTheDefaults() throws {
    let pair = try NetPair(frontendKeys: ["mtu": nil, "handle": nil], end: EchoEnd())
    try pair.connect()
    #expect(pair.card.mtu == 1500 && pair.card.handle == nil)
  }

  @Test(arguments: [[], [StoreEntry("feature-rx-copy", false)]])
  func backendWithoutCopyingIsRefused(offered: [StoreEntry]) throws {
    let backend = RawNetBackend()
    backend.offered = offered
    let pair = try NetPair(backend: backend)
    #expect(try pair.scheduler.run { try pair.frontendError != nil })
    #expect(try pair.frontendError?.contains("does not offer feature-rx-copy") == true)
    #expect(!pair.card.isConnected && pair.holdsNothing)
  }

  @Test(arguments: [
    ("tx-ring-ref", nil, "is missing"), ("rx-ring-ref", nil, "is missing"), ("event-channel", nil, "is missing"),
    ("tx-ring-ref", "-1", "where a number from 0 to 4294967295 is expected"),
    ("rx-ring-ref", "4294967296", "where a number from 0 to 4294967295 is expected"),
    ("event-channel", "one", "where a number from 0 to 4294967295 is expected"),
    ("tx-ring-ref", "4242", "cannot map grant reference 4242 of domain 1"),
    ("rx-ring-ref", "4242", "cannot map grant reference 4242 of domain 1"),
    ("event-channel", "4242", "cannot bind to event channel port 4242 of domain 1"),
    ("request-rx-copy", nil, "does not ask for copied packets"),
    ("request-rx-copy", "0", "does not ask for copied packets"),
    ("multi-queue-num-queues", "2", "where a number from 1 to 1 is expected"),
    ("multi-queue-num-queues", "0", "where a number from 1 to 1 is expected"),
  ])
  func badFrontendKeyClosesTheDevice(key: String, value: String?, words: String) throws {
    let frontend = RawNetFrontend()
    if let value { frontend.keys = [StoreEntry(key, value)] } else { frontend.withheldKeys = [key] }
    let pair = try NetPair(backend: NetBackDriver { _ in EchoEnd() }, frontend: frontend)
    #expect(try pair.scheduler.run { try pair.backendError != nil })
    let error = try #require(try pair.backendError)
    #expect(error.hasPrefix("22 ") && error.contains(words), "\(error)")
    #expect(error.contains(key) || error.contains("4242"), "\(error)")
    #expect(
      try pair.scheduler.run { try pair.holdsNothing && pair.backendState == .closed },
      "\(pair.loopback.grantCounts) \(pair.loopback.openPortCount)")
  }

  @Test func anEndThatCannotBeMadeClosesTheDevice() throws {
    let pair = try NetPair(
      backend: NetBackDriver { _ throws(DeviceError) in throw .resource("there is no such bridge") })
    #expect(try pair.scheduler.run { try pair.backendError != nil })
    #expect(try pair.backendError == "22 there is no such bridge")
  }
}
