import BlkFront
import Testing
import XenLoopback
import XenRing

/// A backend without manners: it puts whatever responses a test wants.
final class RawBlkBackend: BackendDriver, Backend {
  let type = "vbd"
  /// In place of, or besides, the honest keys that go with Connected.
  var keys: [StoreEntry] = []
  private var ring: BackRing<BlkIfRequest, BlkIfResponse>?
  private var bytes: SharedBytes?
  private var channel: EventChannel?

  func probe(_ device: XenbusDevice) throws(DeviceError) -> any Backend { self }

  func offer(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] { [] }

  func connect(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    let region = try device.map([GrantReference(rawValue: try device.other.number("ring-ref"))])
    bytes = region.bytes
    ring = BackRing(attaching: region)
    channel = try device.bindEventChannel(to: EventChannelPort(rawValue: try device.other.number("event-channel")))
    let honest = BlockGeometry(sectorCount: 64).entries
    let replaced = Set(keys.map(\.key))
    return honest.filter { !replaced.contains($0.key) } + keys
  }

  func start(_ device: XenbusDevice) {}

  func disconnect(_ device: XenbusDevice) {
    ring = nil
    bytes = nil
    channel = nil
  }

  /// Takes what the frontend has put.
  func requests() throws -> [BlkIfRequest] {
    var requests: [BlkIfRequest] = []
    while try ring!.finalCheck() { while let request = ring!.next() { requests.append(request) } }
    return requests
  }

  func answer(_ response: BlkIfResponse) {
    ring!.put(response)
    if ring!.pushAndCheckNotify() { channel!.notify() }
  }

  /// Writes the response producer behind the ring's back, and wakes the frontend.
  func scribbleProducer(_ value: UInt32) {
    let word = (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
    bytes!.slice(from: 8, count: 4).copy(from: word.span)
    channel!.notify()
  }
}

/// What a backend can do to its frontend: lose it, and nothing else.
struct BlkHostileBackendTests {
  private let disk = BlkFrontDevice()
  private let backend = RawBlkBackend()

  private func pair() throws -> BlkPair { try BlkPair(frontend: disk, backend: backend) }

  /// Runs until the frontend has given up; what it says, and how its one request ended.
  private func refusal(_ pair: BlkPair) throws -> String? {
    let error = pair.store.at("/local/domain/2/error/device/vbd/51712")
    var results: [BlkFrontCompletion.Result] = []
    let refused = try pair.scheduler.run {
      disk.poll { results.append($0.result) }
      return try !disk.isConnected && error.optionalString("error") != nil && disk.inFlightCount == 0
    }
    #expect(refused && results == [.disconnected])
    return try error.optionalString("error")
  }

  @Test(arguments: [1, 31, 32, UInt64.max] as [UInt64])
  func responseForWhatIsNotInFlightClosesTheDevice(id: UInt64) throws {
    let pair = try pair()
    try pair.connect()
    try disk.read(sector: 0, byteCount: 512, tag: 7)
    disk.push()
    #expect(try backend.requests().map(\.id) == [0])
    backend.answer(BlkIfResponse(id: id, operation: BlkIf.Operation.read, status: 0))
    #expect(try refusal(pair) == "22 the backend answered request \(id), which is not in flight")
  }

  @Test func responseOfAnotherOperationClosesTheDevice() throws {
    let pair = try pair()
    try pair.connect()
    try disk.read(sector: 0, byteCount: 512, tag: 7)
    disk.push()
    _ = try backend.requests()
    backend.answer(BlkIfResponse(id: 0, operation: BlkIf.Operation.write, status: 0))
    #expect(try refusal(pair) == "22 the backend answered request 0 as operation 1; it is 0")
  }

  @Test(arguments: [2, 0x8000_0000, UInt32.max] as [UInt32])
  func responseProducerOutOfRangeClosesTheDevice(producer: UInt32) throws {
    let pair = try pair()
    try pair.connect()
    try disk.read(sector: 0, byteCount: 512, tag: 7)
    disk.push()
    backend.scribbleProducer(producer)
    #expect(try refusal(pair)?.contains("moved its response producer to \(producer)") == true)
  }

  @Test(arguments: [BlkIf.Status.error, BlkIf.Status.notSupported, 1, Int16.min])
  func everyStatusButOkayIsAFailureOfThatRequest(status: Int16) throws {
    let pair = try pair()
    try pair.connect()
    try disk.read(sector: 0, byteCount: 512, tag: 7)
    disk.push()
    _ = try backend.requests()
    backend.answer(BlkIfResponse(id: 0, operation: BlkIf.Operation.read, status: status))
    let completed = pair.complete(disk)[7]
    #expect(completed?.result == (status == BlkIf.Status.notSupported ? .notSupported : .failed))
    #expect(completed?.bytes.isEmpty == true)
    #expect(disk.isConnected)
  }

  @Test(arguments: [
    StoreEntry("sectors", "many"), StoreEntry("sectors", "18446744073709551615"), StoreEntry("sector-size", "0"),
    StoreEntry("sector-size", "513"), StoreEntry("sector-size", "8192"), StoreEntry("physical-sector-size", "256"),
    StoreEntry("info", "-1"),
  ])
  func nonsensicalGeometryClosesTheDevice(entry: StoreEntry) throws {
    backend.keys = [entry]
    let pair = try pair()
    let error = pair.store.at("/local/domain/2/error/device/vbd/51712")
    #expect(try pair.scheduler.run { try error.optionalString("error") != nil })
    #expect(try error.string("error").contains(pair.device.backendPath))
    #expect(!disk.isConnected)
  }
}
