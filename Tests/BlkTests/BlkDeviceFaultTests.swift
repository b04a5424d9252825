import BlkBack
import BlkFront
import TestSupport
import Testing
import XenLoopback

/// What a frontend can do to its own device, and that it stays its own.
struct BlkDeviceFaultTests {
  private let frontend = RawBlkFrontend()

  private func pair() throws -> BlkPair {
    try BlkPair(frontend: frontend, store: MemoryStore(sectorCount: 64))
  }

  /// Runs until the backend has closed the device, and gives its message.
  private func refusal(_ pair: BlkPair, otherRings: Int = 0) throws -> String {
    let refused = try pair.scheduler.run { try pair.backendError != nil }
    try #require(refused, "the backend did not object: \(pair.backBus.report)")
    #expect(try pair.scheduler.run { try pair.backendState == .closed }, "\(pair.backBus.report)")
    #expect(pair.loopback.grantCounts.mappedPages == otherRings)
    return try #require(try pair.backendError)
  }

  @Test func ringReferenceThatWasNeverGrantedClosesTheDevice() throws {
    frontend.keys = [StoreEntry("ring-ref", 4_000_000)]
    #expect(
      try refusal(try pair())
        == "22 cannot map grant reference 4000000 of domain 1: the reference lies outside the grant table"
    )
  }

  @Test func portThatWasNeverAllocatedClosesTheDevice() throws {
    frontend.keys = [StoreEntry("event-channel", 4_000_000)]
    #expect(
      try refusal(try pair())
        == "22 cannot bind to event channel port 4000000 of domain 1: it is not there for us to bind")
  }

  @Test(arguments: ["ring-ref", "event-channel"])
  func missingKeyClosesTheDevice(key: String) throws {
    frontend.withheldKeys = [key]
    #expect(try refusal(try pair()) == "22 the key /local/domain/1/device/vbd/51712/\(key) is missing")
  }

  @Test(arguments: ["", "x", "-1", "4294967296", "1 "])
  func malformedKeyClosesTheDevice(value: String) throws {
    frontend.keys = [StoreEntry("ring-ref", value)]
    #expect(
      try refusal(try pair())
        == "22 the key /local/domain/1/device/vbd/51712/ring-ref holds \"\(value)\" where a number from 0 to 4294967295 is expected"
    )
  }

  @Test func reasonStaysASentenceWhateverThePeerWrote() throws {
    frontend.keys = [StoreEntry("ring-ref", "7\n\u{1B}[31m" + String(repeating: "x", count: 1900))]
    let message = try refusal(try pair())
    #expect(message.contains("holds \"7\\n\\u{1B}[31mxxx") && message.utf8.count < 300)
  }

  @Test func oneObjectIsOneDisk() throws {
    let disk = BlkFrontDevice()
    let pair = try BlkPair(frontend: disk, store: MemoryStore(sectorCount: 64))
    try pair.connect()
    let second = try pair.toolstack.addVbd(
      51728, to: pair.guest.domain, servedBy: pair.driverDomain.domain, params: "other")
    try pair.frontBus.register(disk, at: second.frontendPath)
    #expect(try pair.scheduler.run { try pair.rig.error(of: pair.guest, second.frontendPath) != nil })
    #expect(
      try pair.rig.error(of: pair.guest, second.frontendPath)
        == "22 this disk is \(pair.device.frontendPath) already; each device needs an object of its own")
    try disk.read(sector: 0, byteCount: 512, tag: 1)
    #expect(pair.complete(disk)[1]?.result == .succeeded)
    #expect(pair.loopback.grantCounts.quarantinedPages == 0)
  }

  @Test func unknownRingLayoutClosesTheDevice() throws {
    frontend.keys = [StoreEntry("protocol", "sparc-abi")]
    #expect(
      try refusal(try pair())
        == "22 the frontend's ring layout is \"sparc-abi\" (/local/domain/1/device/vbd/51712/protocol); x86_32-abi and x86_64-abi are served"
    )
  }

  @Test(arguments: [33, 0x8000_0000, 0xFFFF_FFFF] as [UInt32])
  func producerOutOfRangeClosesTheDeviceAndNoOther(producer: UInt32) throws {
    let pair = try pair()
    let other = BlkFrontDevice()
    let second = try pair.toolstack.addVbd(
      51728, to: pair.guest.domain, servedBy: pair.driverDomain.domain, params: "other")
    try pair.frontBus.register(other, at: second.frontendPath)
    try pair.connect()
    frontend.scribble(producer, at: 0)
    let message = try refusal(pair, otherRings: 1)
    #expect(
      message
        == "22 the front end moved its request producer to \(producer), but requests are consumed up to 0 and 32 slots are free"
    )
    try other.read(sector: 0, byteCount: 4096, tag: 1)
    #expect(pair.complete(other)[1]?.result == .succeeded)
  }

  @Test func storeThatCannotBeOpenedClosesTheDevice() throws {
    let pair = try pair()
    let bus = try pair.addBackBus(
      BlkBackDriver(type: "broken") { (_) throws(DeviceError) in throw .resource("the image x is empty") })
    let device = try pair.toolstack.addVbd(
      51728, to: pair.guest.domain, servedBy: pair.driverDomain.domain, params: "x", backendType: "broken")
    #expect(
      try pair.scheduler.run {
        try pair.rig.error(of: pair.driverDomain, device.backendPath) == "22 the image x is empty"
      })
    // Nobody is there to answer for the frontend.
    #expect(try pair.rig.state(device.backendPath) == .closing && !bus.isConnected)
  }
}
