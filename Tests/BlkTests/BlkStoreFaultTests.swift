import BlkBack
import BlkFront
import TestSupport
import Testing
import XenLoopback

/// A store that errs, stalls, or does half of what it was asked for: what that costs the disk, and nobody else.
struct BlkStoreFaultTests {
  /// A request of each kind, and what the store is asked for.
  private static func requests(_ frontend: RawBlkFrontend) -> [(kind: BlkRequest.Kind, request: BlkIfRequest)] {
    [
      (.read, frontend.direct(BlkIf.Operation.read, [(0, 0, 7)], id: 1)),
      (.write, frontend.direct(BlkIf.Operation.write, sector: 8, [(1, 0, 7)], id: 2)),
      (.writeBarrier, frontend.direct(BlkIf.Operation.writeBarrier, sector: 16, [(2, 0, 7)], id: 3)),
      (.flush, frontend.direct(BlkIf.Operation.flushDiskCache, [], id: 4)),
      (.discard, BlkIfRequest(BlkIfDiscardRequest(id: 5, sectorNumber: 24, sectorCount: 8))),
      (
        .secureDiscard,
        BlkIfRequest(BlkIfDiscardRequest(flag: BlkIf.discardSecure, id: 6, sectorNumber: 32, sectorCount: 8))
      ),
      (.read, frontend.indirect(BlkIf.Operation.read, sector: 40, [(3, 0, 7), (4, 0, 7)], in: 10, id: 7)),
      (.write, frontend.indirect(BlkIf.Operation.write, sector: 40, [(5, 0, 7), (6, 0, 7)], in: 11, id: 8)),
    ]
  }

  @Test(
    arguments: [BlkRequest.Kind.read, .write, .writeBarrier, .flush, .discard, .secureDiscard], [false, true])
  func whatTheStoreFailsFailsAlone(kind: BlkRequest.Kind, isPersistent: Bool) throws {
    let frontend = RawBlkFrontend(isPersistent: isPersistent)
    let pair = try BlkPair(frontend: frontend, store: FailingStore(kind))
    try pair.connect()
    let requests = Self.requests(frontend)
    for round in 0..<3 {
      for (_, request) in requests { frontend.put(request) }
      let statuses = try pair.statuses(frontend, requests.count)
      for (asked, request) in requests {
        #expect(
          statuses[request.id] == (asked == kind ? BlkIf.Status.error : BlkIf.Status.okay), "\(asked), round \(round)")
      }
    }
    #expect(try pair.backendError == "22 it has none today: a \(kind) at sector \(Self.firstSector(of: kind)) failed")
    #expect(pair.backBus.isConnected && pair.frontBus.isConnected)
    try pair.toolstack.unplug(pair.device)
    #expect(pair.scheduler.run { pair.backBus.isEmpty && pair.holdsNothing })
    #expect(pair.closed.list.map(\.failedRequests) == [UInt64(3 * requests.count { $0.kind == kind })])
  }

  private static func firstSector(of kind: BlkRequest.Kind) -> Int {
    switch kind {
    case .read, .flush: 0
    case .write: 8
    case .writeBarrier: 16
    case .discard: 24
    case .secureDiscard: 32
    }
  }

  /// It answers no more: the guest waits, other disks go on, and the device can be closed and taken away all the same.
  @Test(arguments: [false, true])
  func storeThatStallsKeepsItsOwnGuestWaitingAndNobodyElse(isPersistent: Bool) throws {
    let frontend = RawBlkFrontend(isPersistent: isPersistent)
    let store = HoldingStore(ModelDisk(sectorCount: 64))
    let pair = try BlkPair(frontend: frontend, store: store)
    let other = BlkFrontDevice()
    let second = try pair.toolstack.addVbd(
      51728, to: pair.guest.domain, servedBy: pair.driverDomain.domain, params: "other", backendType: "other")
    try pair.frontBus.register(other, at: second.frontendPath)
    let otherBus = try pair.addBackBus(BlkBackDriver(type: "other") { _ in MemoryStore(sectorCount: 64) })
    try pair.connect()
    #expect(pair.scheduler.run { otherBus.isConnected && other.isConnected })
    let requests = Self.requests(frontend)
    for (_, request) in requests { frontend.put(request) }
    frontend.push()
    // The barrier waits for both before it, and all others for the barrier.
    #expect(pair.scheduler.run { store.heldCount == 2 })
    for tag in 0..<UInt64(50) {
      try other.read(sector: 0, byteCount: 512, tag: tag)
      #expect(pair.complete(other)[tag]?.result == .succeeded)
    }
    #expect(store.heldCount == 2 && pair.backBus.isConnected)
    #expect(try frontend.responses().isEmpty)
    try pair.toolstack.unplug(pair.device)
    #expect(try pair.scheduler.run { try pair.toolstack.isClosed(pair.device) })
    try other.read(sector: 0, byteCount: 512, tag: 99)
    #expect(pair.complete(other)[99]?.result == .succeeded)
    // What it was given is its own until it has completed it: it may still write there.
    store.letGo()
    _ = pair.scheduler.run(turns: 50) { false }
  }

  /// And one that takes its time only costs time.
  @Test func storeThatGoesOnAfterAWhileIsAnswered() throws {
    let frontend = RawBlkFrontend()
    let store = HoldingStore(ModelDisk(sectorCount: 64))
    let pair = try BlkPair(frontend: frontend, store: store)
    try pair.connect()
    let requests = Self.requests(frontend)
    for (_, request) in requests { frontend.put(request) }
    frontend.push()
    _ = pair.scheduler.run(turns: 3000) { false }
    store.letGo()
    #expect(try pair.statuses(frontend, requests.count).values.allSatisfy { $0 == 0 })
  }

  // MARK: A disk that becomes smaller

  /// Requests of every kind that wait when it does, for buffers or for a barrier: none reaches the store beyond the new end.
  @Test(arguments: [UInt64(40), 24, 8, 1])
  func whatWaitsWhenTheDiskShrinksIsJudgedByItsNewSize(size: UInt64) throws {
    let frontend = RawBlkFrontend()
    let disk = ModelDisk(sectorCount: 64)
    let store = HoldingStore(disk)
    var attention: (@Sendable () -> Void)?
    var options = BlkBackOptions(maxIndirectSegmentCount: 12)
    options.bufferPageCount = 12
    let pair = try BlkPair(options: options, frontend: frontend) { device in
      attention = device.attention
      return store
    }
    try pair.connect()
    // With the first of the others it has all buffers: the next waits for them, then comes a barrier.
    frontend.put(frontend.direct(BlkIf.Operation.read, (0..<11).map { (page: $0, first: 0, last: 0) }, id: 100))
    let requests = Self.requests(frontend)
    for (_, request) in requests { frontend.put(request) }
    frontend.push()
    #expect(pair.scheduler.run { store.heldCount == 2 })
    disk.resize(to: size)
    attention!()
    #expect(try pair.scheduler.run { try pair.rig.directory(pair.device.backendPath).string("sectors") == "\(size)" })
    store.letGo()
    let statuses = try pair.statuses(frontend, requests.count + 1)
    let ends: [UInt64: UInt64] = [100: 11, 1: 8, 2: 16, 3: 24, 4: 0, 5: 32, 6: 40, 7: 56, 8: 56]
    for (id, end) in ends {
      #expect(statuses[id] == (end <= size ? BlkIf.Status.okay : BlkIf.Status.error), "\(id), to \(end)")
    }
    // Those two were the store's already.
    #expect(store.submittedCount == 2 + ends.count { $0.key != 100 && $0.key != 1 && $0.value <= size })
    #expect(pair.backBus.isConnected)
  }
}

/// Fails every request of one kind.
private final class FailingStore: BlockStore {
  private let store = ModelDisk(sectorCount: 64)
  private let kind: BlkRequest.Kind

  init(_ kind: BlkRequest.Kind) { self.kind = kind }

  var geometry: BlockGeometry { store.geometry }

  func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
    for index in requests.indices {
      if requests[index].kind == kind {
        completions.fail(requests[index], because: "it has none today")
      } else {
        store.submit(requests.extracting(index..<index + 1), to: &completions)
      }
    }
  }
}
