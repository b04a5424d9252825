import BlkBack
import BlkFront
import Synchronization
import TestSupport
import Testing
import XenLoopback
import XenPlatform

/// What a disk's bytes lie on, as bytes in a page cache would: it outlives every process. Whoever serves it completes later, and
/// in another order.
final class SimulatedMedium: Sendable {
  let geometry: BlockGeometry
  private let store: MemoryStore

  init(sectorCount: UInt64) {
    store = MemoryStore(sectorCount: sectorCount)
    geometry = store.geometry
  }

  /// For one server of it, in one process.
  func server() -> any BlockStore { LateStore(store) }

  /// Completes what it was given at the next look, last come first.
  private final class LateStore: BlockStore {
    private let store: MemoryStore
    private let waiting = Mutex<[StoreRequest]>([])
    private let wakeup = try! Wakeup()

    init(_ store: MemoryStore) { self.store = store }

    var geometry: BlockGeometry { store.geometry }
    var completionDescriptor: CInt? { wakeup.descriptor }

    func makeQueue() throws(ResourceError) -> any BlockStore { LateStore(store) }

    func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
      waiting.withLock { for index in requests.indices { $0.append(requests[index]) } }
      wakeup.signal()
    }

    func reap(into completions: inout StoreCompletions) {
      wakeup.clear()
      let requests = waiting.withLock { waiting in
        defer { waiting = [] }
        return Array(waiting.reversed())
      }
      store.submit(requests.span, to: &completions)
    }
  }
}

/// A disk, its guest's workload, and what must be on it by what was acknowledged.
///
/// The disk is cut into areas, each with one request in flight at most. An area whose write was not acknowledged holds
/// anything until it is written whole.
final class SimulatedDisk {
  static let areaCount = 8
  static let areaSectorCount = 16

  let number: Int
  let medium = SimulatedMedium(sectorCount: UInt64(areaCount * areaSectorCount))
  private(set) var front: BlkFrontDevice
  private let options: BlkFrontOptions

  private struct Area {
    /// Nil when nobody knows.
    var content: [UInt8]? = [UInt8](repeating: 0, count: areaSectorCount * 512)
    var busy: Busy?
  }
  private enum Busy {
    case write(start: Int, bytes: [UInt8])
    case read(Range<Int>)
  }

  private var areas = [Area](repeating: Area(), count: areaCount)
  private var version = 0
  private(set) var acknowledged = 0
  /// The first thing that must not be.
  private(set) var fault: String?

  init(_ number: Int, options: BlkFrontOptions) {
    self.number = number
    self.options = options
    front = BlkFrontDevice(options)
  }

  /// The guest's process was killed: nobody knows what became of what it had in flight.
  func beginAnew() {
    front = BlkFrontDevice(options)
    for index in areas.indices {
      if case .write = areas[index].busy { areas[index].content = nil }
      areas[index].busy = nil
    }
  }

  func work(_ random: inout SeededGenerator) {
    take()
    guard front.isConnected else { return }
    for index in areas.indices where areas[index].busy == nil && Int.random(in: 0..<3, using: &random) == 0 {
      let isWhole = areas[index].content == nil
      let count = isWhole ? Self.areaSectorCount : Int.random(in: 1...Self.areaSectorCount, using: &random)
      let start = Int.random(in: 0...Self.areaSectorCount - count, using: &random)
      let sector = UInt64(index * Self.areaSectorCount + start)
      do throws(BlkFrontError) {
        if isWhole || Bool.random(using: &random) {
          version += 1
          let bytes = pattern(count * 512, seed: version)
          if Int.random(in: 0..<8, using: &random) == 0 {
            try front.writeBarrier(sector: sector, bytes.span, tag: UInt64(index))
          } else {
            try front.write(sector: sector, bytes.span, tag: UInt64(index))
          }
          areas[index].busy = .write(start: start * 512, bytes: bytes)
        } else {
          try front.read(sector: sector, byteCount: count * 512, tag: UInt64(index))
          areas[index].busy = .read(start * 512..<(start + count) * 512)
        }
      } catch {
        // Full, or its sectors are gone: the next turn.
        continue
      }
    }
    front.push()
  }

  func take() {
    front.poll { completion in
      let index = Int(completion.tag)
      guard let busy = areas[index].busy else {
        complain("a request of area \(index) completes twice, or was never made")
        return
      }
      areas[index].busy = nil
      switch (busy, completion.result) {
      case (.write(let start, let bytes), .succeeded):
        areas[index].content?.replaceSubrange(start..<start + bytes.count, with: bytes)
        if bytes.count == Self.areaSectorCount * 512 { areas[index].content = bytes }
        acknowledged += 1
      case (.write, _): areas[index].content = nil
      case (.read(let range), .succeeded):
        let bytes = completion.copied()
        if let content = areas[index].content, Array(content[range]) != bytes {
          complain("area \(index) of disk \(number) reads as what was not written there")
        }
      case (.read, _): break
      }
    }
  }

  /// Reads an area whole, when nothing is in flight.
  func readArea(_ index: Int) throws(BlkFrontError) {
    let sector = UInt64(index * Self.areaSectorCount)
    try front.read(sector: sector, byteCount: Self.areaSectorCount * 512, tag: UInt64(index))
    areas[index].busy = .read(0..<Self.areaSectorCount * 512)
    front.push()
  }

  private func complain(_ text: String) { fault = fault ?? text }
}
