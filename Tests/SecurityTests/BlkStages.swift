import BlkBack
import BlkFront
import TestSupport
import Testing
import XenLoopback
import XenPlatform

/// A disk's backend that is attacked by the guest of its first disk; the second disk is another guest's.
final class BlkBackStage: Stage {
  let honest = BlkFrontDevice()
  private(set) var frontend: HostileBlkFrontend!
  private var round = 0

  /// - Parameter store: of the first disk; nil for some memory, as the second one has.
  init(
    seed: Seed = 1, options: BlkBackOptions = BlkBackOptions(), isReadOnly: Bool = false,
    queueHost: (any QueueHost)? = nil,
    store: (any BlockStore)? = nil
  ) throws {
    try super.init(seed: seed, attacking: .backend, queueHost: queueHost)
    let first = "/\(hostile.domain.rawValue)/"
    try bus.register(
      BlkBackDriver(options: options) {
        $0.own.path.contains("vbd" + first) ? store ?? MemoryStore(sectorCount: 64) : MemoryStore(sectorCount: 64)
      })
    try begin { number, guest, backend in
      try toolstack.addVbd(
        51712 + 16 * number, to: guest, servedBy: backend, params: "disk \(number)",
        isReadOnly: isReadOnly && number == 0)
    }
    try bystanderBus.register(honest, at: second.frontendPath)
    frontend = HostileBlkFrontend(peer, self)
  }

  override func useSecond() throws -> Bool {
    guard run(until: { honest.isConnected }) else { return false }
    return try honest.worksOn(self, &round)
  }
}

/// A disk's frontend that is attacked by the backend of its first disk; the second disk is served by another domain.
final class BlkFrontStage: Stage {
  let disk: BlkFrontDevice
  let other = BlkFrontDevice()
  private(set) var backend: HostileBlkBackend!
  private var round = 0

  init(seed: Seed = 1, options: BlkFrontOptions = BlkFrontOptions()) throws {
    disk = BlkFrontDevice(options)
    try super.init(seed: seed, attacking: .frontend)
    try bystanderBus.register(BlkBackDriver { _ in MemoryStore(sectorCount: 64) })
    try begin { number, guest, backend in
      try toolstack.addVbd(51712 + 16 * number, to: guest, servedBy: backend, params: "disk \(number)")
    }
    try bus.register(disk, at: device.frontendPath)
    try bus.register(other, at: second.frontendPath)
    backend = HostileBlkBackend(peer, self)
  }

  override func useSecond() throws -> Bool {
    guard run(until: { other.isConnected }) else { return false }
    return try other.worksOn(self, &round)
  }

  /// What the first disk's requests have come to, by tag.
  private(set) var results: [UInt64: BlkFrontCompletion.Result] = [:]
  private(set) var bytes: [UInt64: [UInt8]] = [:]

  func pollDisk() {
    disk.poll {
      if results.updateValue($0.result, forKey: $0.tag) != nil { Issue.record("\($0.tag) has completed twice") }
      bytes[$0.tag] = $0.copied()
    }
  }
}

extension BlkFrontDevice {
  /// Writes sectors and reads them again.
  fileprivate func worksOn(_ stage: Stage, _ round: inout Int) throws -> Bool {
    round += 1
    let bytes = pattern(4096, seed: round)
    let tag = UInt64(round) << 32
    var read: [UInt8]?
    try write(sector: 8, bytes.span, tag: tag)
    push()
    guard
      stage.run(until: {
        poll { _ in }
        return inFlightCount == 0
      })
    else { return false }
    try self.read(sector: 8, byteCount: 4096, tag: tag + 1)
    push()
    stage.run(until: {
      poll { if $0.tag == tag + 1 { read = $0.copied() } }
      return inFlightCount == 0
    })
    return read == bytes
  }
}

/// A disk's frontend by hand.
final class HostileBlkFrontend {
  let peer: HostilePeer
  private unowned let stage: Stage
  private(set) var ring: HostileRing!
  private(set) var data: SharedBytes!
  private(set) var references: [GrantReference] = []
  /// Responses taken so far.
  private(set) var taken: UInt32 = 0

  init(_ peer: HostilePeer, _ stage: Stage) { (self.peer, self.stage) = (peer, stage) }

  /// Publishes a ring and goes to Initialised; honest as far as that goes.
  func publish(isPersistent: Bool = false, keys: [(String, String)] = [], dataPageCount: Int = 32) throws {
    try stage.expectState(.initWait)
    let ringReference = try peer.share("ring")[0]
    references = try peer.share("data", pageCount: dataPageCount)
    data = peer.bytes("data")
    ring = peer.ring("ring", stride: 112)
    ring.initialise()
    taken = 0
    try peer.write("protocol", "x86_64-abi")
    try peer.write("ring-ref", ringReference.rawValue)
    try peer.write("event-channel", peer.allocateChannel().rawValue)
    try peer.write("feature-persistent", isPersistent ? 1 : 0)
    for (key, value) in keys { try peer.write(key, value) }
    try peer.write(.initialised)
  }

  func connect(isPersistent: Bool = false, keys: [(String, String)] = [], dataPageCount: Int = 32) throws {
    try publish(isPersistent: isPersistent, keys: keys, dataPageCount: dataPageCount)
    try stage.expectState(.connected)
    try peer.write(.connected)
  }

  func page(_ number: Int) -> SharedBytes { data.slice(from: number * xenPageSize, count: xenPageSize) }

  /// A request for whole pages, or what `sectors` of each says.
  func request(
    _ operation: UInt8, sector: UInt64 = 0, pages: [Int], sectors: ClosedRange<UInt8> = 0...7, id: UInt64 = 1
  ) -> BlkIfRequest {
    var request = BlkIfRequest(operation: operation, segmentCount: UInt8(pages.count), id: id, sectorNumber: sector)
    for (index, page) in pages.enumerated() {
      request.segments[index] = BlkIfSegment(
        gref: references[page], firstSector: sectors.lowerBound, lastSector: sectors.upperBound)
    }
    return request
  }

  func put(_ request: BlkIfRequest) {
    ring.request(request)
    peer.notify()
  }

  /// Runs until so many more responses are there.
  func responses(_ count: Int) throws -> [BlkIfResponse] {
    let answered = stage.run { ring.responseProducer &- taken >= UInt32(count) }
    try #require(answered, "\(ring.responseProducer &- taken) of \(count) answers: \(stage.bus.report)")
    var responses: [BlkIfResponse] = []
    for _ in 0..<count {
      responses.append(ring.entry(taken))
      taken &+= 1
    }
    return responses
  }

  /// Statuses by id.
  func statuses(_ count: Int) throws -> [UInt64: Int16] {
    Dictionary(try responses(count).map { ($0.id, $0.status) }) { first, _ in first }
  }
}

/// A disk's backend by hand.
final class HostileBlkBackend {
  let peer: HostilePeer
  private unowned let stage: Stage
  private(set) var ring: HostileRing!
  private(set) var taken: UInt32 = 0

  init(_ peer: HostilePeer, _ stage: Stage) { (self.peer, self.stage) = (peer, stage) }

  /// Offers a disk and connects to what the frontend publishes; honest as far as that goes.
  func connect(keys: [(String, String)] = []) throws {
    for (key, value) in [("feature-flush-cache", "1"), ("feature-barrier", "1")] { try peer.write(key, value) }
    try peer.write(.initWait)
    try stage.expectState(.initialised)
    try peer.map("ring", [try reference("ring-ref")])
    try peer.bindChannel(to: EventChannelPort(rawValue: try peer.other.number("event-channel")))
    ring = peer.ring("ring", stride: 112)
    taken = 0
    for (key, value) in [("sectors", "64"), ("sector-size", "512"), ("info", "0")] + keys { try peer.write(key, value) }
    try peer.write(.connected)
    try stage.expectState(.connected)
  }

  func reference(_ key: String) throws -> GrantReference { GrantReference(rawValue: try peer.other.number(key)) }

  /// What the frontend has asked for since the last time.
  func requests() -> [BlkIfRequest] {
    var requests: [BlkIfRequest] = []
    while taken != ring.requestProducer {
      requests.append(ring.entry(taken))
      taken &+= 1
    }
    return requests
  }

  func answer(_ request: BlkIfRequest, status: Int16 = BlkIf.Status.okay) {
    answer(BlkIfResponse(id: request.id, operation: request.operation, status: status))
  }

  func answer(_ response: BlkIfResponse) {
    ring.respond(response)
    peer.notify()
  }
}
