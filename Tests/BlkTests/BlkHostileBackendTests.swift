import BlkFront
import TestSupport
import Testing
import XenLoopback

/// What a backend can do to its frontend: lose it, and nothing else.
struct BlkHostileBackendTests {
  /// What is in flight ends with its backend, so that nothing has to come back.
  private let disk: BlkFrontDevice = {
    var options = BlkFrontOptions()
    options.requeuesRequests = false
    return BlkFrontDevice(options)
  }()
  private let backend = RawBlkBackend()

  private func pair() throws -> BlkPair { try BlkPair(frontend: disk, backend: backend) }

  /// Runs until the frontend has given up; what it says, and how its one request ended.
  private func refusal(_ pair: BlkPair) throws -> String? {
    var results: [BlkFrontCompletion.Result] = []
    let refused = try pair.scheduler.run {
      disk.poll { results.append($0.result) }
      return try !disk.isConnected && pair.frontendError != nil && disk.inFlightCount == 0
    }
    #expect(refused && results == [.disconnected])
    return try pair.frontendError
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

  @Test func brokenRingIsNotUsedAnyMoreWhateverTheBackendDoes() throws {
    let pair = try pair()
    try pair.connect()
    for tag in 1...2 { try disk.read(sector: 0, byteCount: 512, tag: UInt64(tag)) }
    disk.push()
    let requests = try backend.requests()
    // It never reacts to Closing.
    pair.scheduler.remove(pair.backBus)
    var results: [UInt64: BlkFrontCompletion.Result] = [:]
    backend.answer(BlkIfResponse(id: 99, operation: BlkIf.Operation.read, status: 0))
    disk.poll { results[$0.tag] = $0.result }
    backend.answer(BlkIfResponse(id: requests[1].id, operation: BlkIf.Operation.read, status: 0))
    _ = pair.scheduler.run(turns: 100) {
      disk.poll { results[$0.tag] = $0.result }
      return false
    }
    #expect(!disk.isConnected && results == [1: .disconnected, 2: .disconnected])
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
    #expect(try pair.scheduler.run { try pair.frontendError != nil })
    #expect(try pair.frontendError?.contains(pair.device.backendPath) == true)
    #expect(!disk.isConnected)
  }
}
