import BlkBack
import Synchronization
import SystemPackage
import TestSupport
import Testing
import XenLoopback

/// A disk whose backend keeps a record, is killed, and is started again; the frontend stays.
final class RestartRig {
  let pair: BlkPair
  let records: TemporaryDirectory
  let killer: Killer
  private let options: BlkBackOptions
  private let makeStore: (LoopbackDomain) -> any BlockStore
  /// The bus of the process that lives, or lived last.
  private(set) var bus: Bus
  private var resting: [Bus] = []

  /// - Parameter store: what a process serves.
  init(
    seed: Seed = 1, isReadOnly: Bool = false, options: BlkBackOptions = BlkBackOptions(),
    frontend: any FrontendDriver, store: @escaping (LoopbackDomain) -> any BlockStore
  ) throws {
    let (records, killer) = (try TemporaryDirectory(), Killer())
    (self.records, self.killer, makeStore) = (records, killer, store)
    var options = options
    options.recordDirectory = records.path
    self.options = options
    killer.records = records
    pair = try BlkPair(
      seed: seed, isReadOnly: isReadOnly, frontend: frontend,
      backend: Self.driver(options, killer) { store(killer.process!) })
    killer.process = pair.rig.driverDomain
    bus = pair.backBus
  }

  private static func driver(
    _ options: BlkBackOptions, _ killer: Killer, _ store: @escaping () -> any BlockStore
  ) -> BlkBackDriver {
    var driver = BlkBackDriver(options: options) { _ in store() }
    driver.recordHook = { killer.reached($0) }
    return driver
  }

  /// Another process with the same record, or with other options.
  @discardableResult func start(_ options: BlkBackOptions? = nil) throws -> Bus {
    let process = pair.rig.loopback.addProcess(in: pair.rig.driverDomain.domain)
    let next = try Bus(on: process, queueHost: pair.scheduler.host(of: process), log: .silent)
    let makeStore = makeStore
    try next.register(Self.driver(options ?? self.options, killer) { makeStore(process) })
    pair.scheduler.add(next, of: process, name: "next backend's bus") { [next] _ in next.poll() }
    resting.append(bus)
    (bus, killer.process) = (next, process)
    return next
  }

  /// The processes end without a word to anybody, as when their programs return.
  func forgetOthers() { resting = [] }

  /// Kills the process that lives, and starts another one with what it left.
  func restart() throws {
    killer.kill()
    try killer.layOut()
    try start()
  }

  /// The same, and gives it time until it serves.
  func restartAndConnect(_ location: SourceLocation = #_sourceLocation) throws {
    try restart()
    let isConnected = pair.scheduler.run { bus.isConnected }
    try #require(isConnected, "\(bus.report)", sourceLocation: location)
  }
}

/// Kills a backend's process at a step of its record, as `kill -9` does.
///
/// The code of a process that is killed here runs on to the end of its poll. What it does then reaches no domain, and no
/// store that asks; the record is taken as it was at the kill.
final class Killer: @unchecked Sendable {
  // Sendable: everything happens on the test's thread.

  static let recordName = "local_domain_2_backend_vbd_1_51712"

  fileprivate(set) var process: LoopbackDomain?
  fileprivate var records: TemporaryDirectory?
  private var target: (step: RecordStep, count: Int)?
  private var left: [UInt8]?
  private(set) var killCount = 0

  /// The kill comes when this step is reached for the `count`th time from now on.
  func arm(_ step: RecordStep, after count: Int) { target = (step, count) }

  func disarm() { target = nil }

  fileprivate func reached(_ step: RecordStep) {
    guard let (wanted, count) = target, wanted == step, process?.isKilled == false else { return }
    target = (wanted, count - 1)
    guard count <= 1 else { return }
    killCount += 1
    kill()
  }

  var hasKilled: Bool { process?.isKilled == true }

  func kill() {
    target = nil
    guard let process, !process.isKilled else { return }
    process.kill()
    left = try! records!.bytes(of: Self.recordName)
  }

  /// The record as it was at the kill, for the next process; the killed one's objects have another file.
  func layOut() throws {
    if let left { try records!.replace(Self.recordName, with: left) }
    left = nil
  }
}

/// A store whose process may have been killed: then it does nothing any more, and says only what nobody hears.
///
/// Alive, it does its requests at once and in their order, or some time later and in any.
final class MortalStore: BlockStore {
  private struct Contents {
    var waiting: [StoreRequest] = []
    var random: SeededGenerator
    var record: [String] = []
  }

  private let store: any BlockStore
  private let process: LoopbackDomain
  private let lateness: Seed?
  private let contents: Mutex<Contents>
  private let wakeup = try! Wakeup()

  /// - Parameter lateness: nil does everything at once.
  init(_ store: any BlockStore, of process: LoopbackDomain, lateness: Seed? = nil) {
    (self.store, self.process, self.lateness) = (store, process, lateness)
    contents = Mutex(Contents(random: SeededGenerator(lateness ?? 0)))
  }

  var geometry: BlockGeometry { store.geometry }
  var completionDescriptor: CInt? { lateness == nil ? nil : wakeup.descriptor }
  /// What it was asked for.
  var record: [String] { contents.withLock(\.record) }

  /// What one queue waits for is nothing to the others.
  func makeQueue() throws(ResourceError) -> any BlockStore { MortalStore(store, of: process, lateness: lateness) }

  func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
    if process.isKilled {
      for index in requests.indices { completions.complete(requests[index], succeeded: false) }
      return
    }
    contents.withLock { contents in
      for index in requests.indices { contents.record.append("\(requests[index].kind) \(requests[index].sector)") }
    }
    guard lateness != nil else { return store.submit(requests, to: &completions) }
    contents.withLock { contents in for index in requests.indices { contents.waiting.append(requests[index]) } }
    wakeup.signal()
  }

  func reap(into completions: inout StoreCompletions) {
    wakeup.clear()
    let isKilled = process.isKilled
    let requests = contents.withLock { contents -> [StoreRequest] in
      contents.waiting.shuffle(using: &contents.random)
      let count =
        isKilled
        ? contents.waiting.count : Int.random(in: 0...contents.waiting.count, using: &contents.random)
      defer { contents.waiting.removeFirst(count) }
      return Array(contents.waiting.prefix(count))
    }
    if isKilled {
      for request in requests { completions.complete(request, succeeded: false) }
    } else {
      store.submit(requests.span, to: &completions)
    }
    if contents.withLock({ !$0.waiting.isEmpty }) { wakeup.signal() }
  }
}

/// Requests of every kind from a frontend that puts them by hand, each with sectors and pages of its own, and what the disk
/// must hold.
final class RawWorkload {
  private struct Request {
    let kind: Kind
    let lane: Int
    let expected: [UInt8]
  }

  enum Kind: CaseIterable {
    case read, write, barrier, flush, discard, indirectRead, indirectWrite
    /// One that does not pass the gate, and one whose page is nobody's.
    case unknown, ungranted
  }

  static let sectorsPerLane = 16
  /// A page for descriptors, and two for payload.
  static let pagesPerLane = 3

  private let frontend: RawBlkFrontend
  private var random: SeededGenerator
  private var freeLanes: [Int]
  private var outstanding: [UInt64: Request] = [:]
  private var nextID: UInt64 = 1
  private(set) var answeredCount = 0
  /// What each lane's sectors hold.
  private var model: [[UInt8]]
  private let kinds: [Kind]

  init(_ frontend: RawBlkFrontend, laneCount: Int, seed: Seed, kinds: [Kind] = Kind.allCases) {
    (self.frontend, self.kinds) = (frontend, kinds)
    random = SeededGenerator(seed)
    freeLanes = Array((0..<laneCount).reversed())
    model = Array(repeating: [UInt8](repeating: 0, count: Self.sectorsPerLane * 512), count: laneCount)
  }

  var outstandingCount: Int { outstanding.count }

  func random(_ range: ClosedRange<Int>) -> Int { Int.random(in: range, using: &random) }

  /// Puts some requests, as far as there are lanes and slots, and shows them.
  func put(_ count: Int) {
    for _ in 0..<count {
      guard let lane = freeLanes.popLast() else { break }
      let queue = Int.random(in: 0..<frontend.rings.count, using: &random)
      guard frontend.rings[queue].freeCount > 0 else {
        freeLanes.append(lane)
        continue
      }
      frontend.put(request(in: lane), queue: queue)
    }
    frontend.push()
  }

  private func request(in lane: Int) -> BlkIfRequest {
    let id = nextID
    nextID += 1
    let kind = kinds.randomElement(using: &random)!
    let (sector, page) = (UInt64(lane * Self.sectorsPerLane), lane * Self.pagesPerLane)
    let segments: [RawSegment] = [(page + 1, 0, 7), (page + 2, 0, 7)]
    let bytes = frontend.bytes(page: page + 1, sector: 0, count: 2 * xenPageSize)
    switch kind {
    case .read, .indirectRead: bytes.copy(from: [UInt8](repeating: 0xEE, count: bytes.count).span)
    case .write, .barrier, .indirectWrite: bytes.copy(from: pattern(bytes.count, seed: Int(id)).span)
    case .flush, .discard, .unknown, .ungranted: break
    }
    let expected =
      switch kind {
      case .read, .indirectRead, .flush, .unknown, .ungranted: model[lane]
      case .discard: [UInt8](repeating: 0, count: bytes.count)
      case .write, .barrier, .indirectWrite: pattern(bytes.count, seed: Int(id))
      }
    outstanding[id] = Request(kind: kind, lane: lane, expected: expected)
    switch kind {
    case .read: return frontend.direct(BlkIf.Operation.read, sector: sector, segments, id: id)
    case .write: return frontend.direct(BlkIf.Operation.write, sector: sector, segments, id: id)
    case .barrier: return frontend.direct(BlkIf.Operation.writeBarrier, sector: sector, segments, id: id)
    case .flush: return frontend.direct(BlkIf.Operation.flushDiskCache, [], id: id)
    case .unknown: return frontend.direct(77, sector: sector, segments, id: id)
    case .ungranted:
      var request = frontend.direct(BlkIf.Operation.write, sector: sector, segments, id: id)
      request.segments[1].gref = 4_000_000
      return request
    case .discard:
      return BlkIfRequest(
        BlkIfDiscardRequest(id: id, sectorNumber: sector, sectorCount: UInt64(Self.sectorsPerLane)))
    case .indirectRead:
      return frontend.indirect(BlkIf.Operation.read, sector: sector, segments, in: page, id: id)
    case .indirectWrite:
      return frontend.indirect(BlkIf.Operation.write, sector: sector, segments, in: page, id: id)
    }
  }

  /// Takes the answers, of which each request has one.
  func takeAnswers() throws {
    for response in try frontend.responses() {
      let asked = outstanding.removeValue(forKey: response.id)
      let request = try #require(asked, "request \(response.id) is answered twice")
      let expected =
        switch request.kind {
        case .unknown: BlkIf.Status.notSupported
        case .ungranted: BlkIf.Status.error
        default: BlkIf.Status.okay
        }
      #expect(response.status == expected, "\(request.kind)")
      answeredCount += 1
      freeLanes.append(request.lane)
      switch request.kind {
      case .read, .indirectRead:
        let bytes = frontend.bytes(page: request.lane * Self.pagesPerLane + 1, sector: 0, count: 2 * xenPageSize)
        try #require(bytes.copied() == request.expected, "\(request.kind) of lane \(request.lane)")
      case .write, .barrier, .indirectWrite, .discard: model[request.lane] = request.expected
      case .flush, .unknown, .ungranted: break
      }
    }
  }

  /// Whether the disk holds what was written last, as seen past everybody.
  func agrees(with disk: ModelDisk) -> Bool {
    model.indices.allSatisfy { lane in
      let read = disk.bytes(sector: UInt64(lane * Self.sectorsPerLane), sectorCount: Self.sectorsPerLane)
      return read == model[lane]
    }
  }
}
