// Named for the advisories that they are about.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

import BlkBack
import BlkFront
import Foundation
import Synchronization
import TestSupport
import Testing
import XenLoopback
import XenPlatform

/// S3: everything that is shared is rewritten all the time while requests are processed, by a thread with a mapping of its own.
@Suite(.serialized) struct BlkMutatorTests {
  /// Slots, descriptors and payload of a disk's backend; the guest keeps its indices, so that each slot is one request, and
  /// each is answered once, whatever it says.
  @Test(arguments: [false, true]) func XSA155_backendAnswersWhateverTheMutatorMakesOfRequests(isPersistent: Bool) throws
  {
    let gate = GateStore(sectorCount: 64)
    // So few that requests wait for them, of whatever the mutator makes of those behind them.
    var options = BlkBackOptions()
    (options.bufferPageCount, options.maxIndirectSegmentCount) = (16, 16)
    let xen = try ThreadedBlk(store: gate, options: options)
    var random = SeededGenerator(Seed(7))
    var (put, answered, connections, writes, counts) = (0, 0, 0, 0, [0, 0, 0])
    while put < Storm.requestCount {
      let ring = try xen.connectByHand(isPersistent: isPersistent)
      connections += 1
      let references = [xen.ringReference] + xen.references
      let words: [UInt32] =
        (0..<8).map { $0 } + [0x0606_0606, 0x0B00, 0x0B01, 0xFFFF_FFFF, 0x8000_0000, 0x0700, 0x0706]
        + xen.references.map(\.rawValue)
      let mutator = try Mutator(
        xen.loopback.addProcess(in: xen.back.domain), references, of: xen.front.domain,
        // Every byte of every slot, of the descriptors, and of some payload.
        ranges: Array(repeating: 64..<4096, count: 6) + [
          4096..<4096 + 64, 8192..<8192 + 64, 4096..<references.count * 4096,
        ],
        words: words,
        seed: Seed(UInt64(2 * connections) + (isPersistent ? 1 : 0)))
      var (taken, shown) = (UInt32(0), UInt32(0))
      var isBroken = false
      while put < Storm.requestCount || taken != shown {
        while put < Storm.requestCount, shown &- taken < 32 {
          ring.put(xen.request(&random, id: UInt64(put)), at: shown)
          shown &+= 1
          put += 1
        }
        ring.requestProducer = shown
        xen.peer.notify()
        try xen.wait { ring.responseProducer != taken || xen.backendState != .connected }
        let produced = ring.responseProducer
        // The guest's own: a request that named the ring's page for its payload had the disk read over the indices. Nothing else may
        // break a ring, or close its device.
        let isClosed = xen.backendState != .connected
        isBroken = isClosed || ring.requestProducer != shown || shown &- produced > 32
        if isClosed { #expect("\(xen.bus.report)".contains("moved its request producer to"), "\(xen.bus.report)") }
        if isBroken { break }
        while taken != produced {
          let status = ring.entry(taken, as: BlkIfResponse.self).status
          counts[status == 0 ? 0 : status == -1 ? 1 : 2] += 1
          taken &+= 1
        }
      }
      writes += mutator.end()
      answered += Int(taken)
      #expect(isBroken || taken == shown)
      if isBroken { try xen.disconnectByHand() }
    }
    // A reference that the mutator has made the ring's own breaks it: where the machine lets it write more for each request than
    // it does here, that comes more often.
    // Of each connection that broke, at most a ring's worth has no answer.
    #expect(
      put - answered <= 32 * (connections - 1) && connections <= 2 + max(put / 10_000, writes / 1_300_000),
      "\(connections) connections")
    #expect(gate.passed > 0 && gate.fault == nil, "\(gate.fault ?? "")")
    #expect(counts[0] > 0 && counts[1] > 0, "the gate had both kinds to judge")
    print(
      "mutator: \(writes) writes in \(answered) requests of a block backend, \(gate.passed) of which reached the store, in "
        + "\(connections) connections")
    try xen.finish()
  }

  /// Everything, the indices too: the disk is closed with a reason each time, and connects again.
  @Test func XSA155_backendSurvivesMutatedIndices() throws {
    let gate = GateStore(sectorCount: 64)
    let xen = try ThreadedBlk(store: gate)
    var closed = 0
    var random = SeededGenerator(Seed(8))
    for round in 0..<max(20, Storm.requestCount / 5000) {
      let ring = try xen.connectByHand(isPersistent: round % 2 == 0)
      let mutator = try Mutator(
        xen.loopback.addProcess(in: xen.back.domain), [xen.ringReference], of: xen.front.domain,
        ranges: [0..<16, 64..<4096], words: [0, 1, 2, 31, 32, 33, 64, 0xFFFF_FFFF, 0x8000_0000],
        seed: Seed(UInt64(round)),
        pauseMicroseconds: 20)
      let end = Uptime.now.nanoseconds + 2_000_000_000
      while xen.backendState == .connected, Uptime.now.nanoseconds < end {
        for _ in 0..<4 {
          ring.put(xen.request(&random, id: 1), at: ring.requestProducer)
          ring.requestProducer &+= 1
        }
        xen.peer.notify()
        xen.bus.poll()
      }
      mutator.end()
      closed += xen.backendState == .connected ? 0 : 1
      try xen.disconnectByHand()
    }
    #expect(closed > 0 && gate.fault == nil, "\(gate.fault ?? "")")
    try xen.finish()
  }

  /// The pages of a disk's frontend, whose backend is honest, and which both may write: what comes back is anything, and now and
  /// then breaks the ring. Each request completes once, and the disk is connected again each time.
  @Test func XSA155_frontendCompletesEachRequestOnceWhateverTheMutatorDoes() throws {
    let disk = BlkFrontDevice()
    let xen = try ThreadedBlk(store: GateStore(sectorCount: 64))
    let frontBus = try Bus(on: xen.front, log: .silent)
    try frontBus.register(disk, at: xen.device.frontendPath)
    var (put, completed, connections) = (0, Set<UInt64>(), 0)
    var mutators: [Mutator] = []
    var wasConnected = false
    var random = SeededGenerator(Seed(9))
    var lastProgress = Uptime.now.nanoseconds
    var writes = 0
    // Whether the mutator breaks a ring is chance: on, until it has, and the disk has connected again.
    func isMoreWanted() -> Bool { put < Storm.requestCount || (connections < 2 && put < 100 * Storm.requestCount) }
    while completed.count < put || isMoreWanted() {
      xen.bus.poll()
      frontBus.poll()
      // What broke the ring closes it for good, until somebody begins anew: here the backend's next process.
      if !disk.isConnected, xen.backendState == .closed { try xen.restartBackend() }
      if disk.isConnected != wasConnected {
        wasConnected = disk.isConnected
        for mutator in mutators { writes += mutator.end() }
        mutators = []
        if disk.isConnected {
          connections += 1
          let ring = try xen.directory(xen.device.frontendPath).number("ring-ref", as: UInt32.self)
          // Its pool lies behind its ring.
          let references = (0..<101).map { GrantReference(rawValue: ring + $0) }
          // Payload all the time, and now and then a slot: most of what a response may say breaks the ring.
          for (ranges, pause) in [([4096..<101 * 4096], 0), ([64..<4096], 1000)] as [([Range<Int>], UInt32)] {
            mutators.append(
              try Mutator(
                xen.loopback.addProcess(in: xen.back.domain), references, of: xen.front.domain, ranges: ranges,
                words: [0, 1, 2, 0xFFFF_FFFF], seed: Seed(UInt64(connections)), pauseMicroseconds: pause))
          }
        }
      }
      while isMoreWanted(), disk.inFlightCount < 24, disk.isConnected {
        let tag = UInt64(put)
        let sector = UInt64.random(in: 0..<48, using: &random)
        if put % 2 == 0 {
          try disk.read(sector: sector, byteCount: 4096 * (1 + put % 2), tag: tag)
        } else {
          try disk.write(sector: sector, [UInt8](repeating: 1, count: 4096).span, tag: tag)
        }
        put += 1
      }
      disk.push()
      let before = completed.count
      disk.poll {
        if !completed.insert($0.tag).inserted { Issue.record("\($0.tag) has completed twice") }
        if $0.result == .disconnected { Issue.record("\($0.tag) was given up") }
      }
      if completed.count > before { lastProgress = Uptime.now.nanoseconds }
      if Uptime.now.nanoseconds - lastProgress > 200_000_000_000 {
        Issue.record("no request completes: \(frontBus.report + xen.bus.report), \(disk.inFlightCount) in flight")
        break
      }
    }
    for mutator in mutators { writes += mutator.end() }
    #expect(disk.inFlightCount == 0)
    #expect(writes > 0 && connections > 1, "\(writes) writes, \(connections) connections")
    print("mutator: \(writes) writes in \(completed.count) requests of a block frontend, in \(connections) connections")
    try xen.toolstack.remove(xen.device)
    for _ in 0..<20 {
      frontBus.poll()
      xen.bus.poll()
    }
    #expect(xen.loopback.grantCounts.sharedPages == 0 && xen.loopback.grantCounts.mappedPages == 0)
  }
}

/// Judges what has passed the backend's gates once more, and does what it is asked for.
final class GateStore: BlockStore {
  private let store: MemoryStore
  private let sectorCount: UInt64
  private let passedCount = Atomic(0)
  private let firstFault = Mutex<String?>(nil)

  init(sectorCount: UInt64) {
    self.sectorCount = sectorCount
    store = MemoryStore(geometry: BlockGeometry(sectorCount: sectorCount))
  }

  /// It discards nothing.
  var geometry: BlockGeometry { store.geometry }
  var passed: Int { passedCount.load(ordering: .relaxed) }
  var fault: String? { firstFault.withLock { $0 } }

  func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
    passedCount.wrappingAdd(requests.count, ordering: .relaxed)
    for index in requests.indices {
      let request = requests[index]
      let fits = request.sectorCount <= sectorCount && request.sector <= sectorCount - request.sectorCount
      let isWhole = request.payload.byteCount == Int(request.sectorCount) * 512
      let isOffered = request.kind != .discard && request.kind != .secureDiscard
      if !fits || !isWhole || !isOffered {
        firstFault.withLock {
          $0 = "\(request.kind) of \(request.sectorCount) from \(request.sector), \(request.payload.byteCount) bytes"
        }
      }
    }
    store.submit(requests, to: &completions)
  }
}

/// A disk's backend with threads of its own, polled by the test's thread, and its guest by hand.
final class ThreadedBlk {
  let loopback = Loopback(seed: 1)
  let front: LoopbackDomain
  let back: LoopbackDomain
  let toolstack: Toolstack
  let device: Toolstack.Device
  private(set) var bus: Bus
  let peer: HostilePeer
  private let store: any Xenstore
  private let disk: any BlockStore
  private let options: BlkBackOptions

  init(store disk: any BlockStore, options: BlkBackOptions = BlkBackOptions()) throws {
    (self.disk, self.options) = (disk, options)
    let control = loopback.addDomain()
    front = loopback.addDomain()
    back = loopback.addDomain()
    toolstack = try Toolstack(on: control)
    store = try control.openXenstore()
    device = try toolstack.addVbd(to: front.domain, servedBy: back.domain, params: "disk")
    bus = try Bus(on: back, log: .silent)
    try bus.register(BlkBackDriver(options: options) { _ in disk })
    peer = try HostilePeer(front, own: device.frontendPath, other: device.backendPath, of: back.domain)
  }

  func restartBackend() throws {
    bus = try Bus(on: loopback.addProcess(in: back.domain), log: .silent)
    try bus.register(BlkBackDriver(options: options) { [disk] _ in disk })
  }

  func directory(_ path: String) -> StoreDirectory { StoreDirectory(path, in: store) }

  var backendState: XenbusState { XenbusState(key: try? directory(device.backendPath).optionalString("state")) }
  var ringReference: GrantReference { peer.references(of: "ring")[0] }
  var references: [GrantReference] { peer.references(of: "data") }

  /// Polls the bus until the condition holds, for a hundred seconds at most.
  func wait(until condition: () throws -> Bool) throws {
    let end = Uptime.now.nanoseconds + 100_000_000_000
    while try !condition() {
      bus.poll()
      guard Uptime.now.nanoseconds < end else { throw Stands(report: bus.report) }
    }
  }

  struct Stands: Error { let report: [String] }

  func connectByHand(isPersistent: Bool) throws -> HostileRing {
    try wait { backendState == .initWait }
    let ring = try peer.share("ring")[0]
    try peer.share("data", pageCount: 24)
    peer.ring("ring", stride: 112).initialise()
    for (key, value) in [
      ("protocol", "x86_64-abi"), ("ring-ref", "\(ring.rawValue)"), ("feature-persistent", isPersistent ? "1" : "0"),
      ("event-channel", "\(try peer.allocateChannel().rawValue)"),
    ] {
      try peer.write(key, value)
    }
    try peer.write(.initialised)
    try wait { backendState == .connected }
    try peer.write(.connected)
    return peer.ring("ring", stride: 112)
  }

  func disconnectByHand() throws {
    try peer.write(.closed)
    try wait { backendState == .closed }
    try peer.write(.initialising)
  }

  /// A request that is all right, before the mutator sees it; a third of them indirect.
  func request(_ random: inout SeededGenerator, id: UInt64) -> BlkIfRequest {
    let operation = UInt8.random(in: 0...3, using: &random)
    let sector = UInt64.random(in: 0..<32, using: &random)
    if Int.random(in: 0..<3, using: &random) == 0 {
      var pages = InlineArray<8, UInt32>(repeating: 0)
      let page = Int.random(in: 0..<2, using: &random)
      pages[0] = references[page].rawValue
      let count = Int.random(in: 1...4, using: &random)
      for index in 0..<count {
        peer.bytes("data").slice(from: page * 4096 + index * 8, count: 8).put(
          BlkIfSegment(gref: references[2 + index], firstSector: 0, lastSector: 7))
      }
      return BlkIfRequest(
        BlkIfIndirectRequest(
          indirectOperation: operation & 1, segmentCount: UInt16(count), id: id, sectorNumber: sector, references: pages
        ))
    }
    let count = operation == 3 ? 0 : Int.random(in: 1...4, using: &random)
    var request = BlkIfRequest(operation: operation, segmentCount: UInt8(count), id: id, sectorNumber: sector)
    for index in 0..<count {
      request.segments[index] = BlkIfSegment(gref: references[2 + index * 5], firstSector: 0, lastSector: 7)
    }
    return request
  }

  func finish() throws {
    peer.dropAll()
    try toolstack.remove(device)
    try wait { loopback.grantCounts.mappedPages == 0 && loopback.openPortCount == 0 }
    #expect(loopback.grantCounts.sharedPages == 0)
  }
}
