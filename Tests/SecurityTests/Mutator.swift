import Foundation
import Synchronization
import TestSupport
import XenLoopback
import XenPlatform

/// A thread that rewrites shared pages through a mapping of its own, for as long as it is let: bytes and words of every kind,
/// often such as mean something.
///
/// Sendable: what changes is the thread's own, or atomic.
final class Mutator: @unchecked Sendable {
  private final class Pages: Sendable {
    let region: SharedRegion

    init(_ region: consuming SharedRegion) { self.region = region }
  }

  private var pages: Pages?
  private let ranges: [Range<Int>]
  private let words: [UInt32]
  private var random: SeededGenerator
  private let pauseMicroseconds: UInt32
  private let isEnded = Atomic(false)
  private let count = Atomic(0)
  private let joined = DispatchSemaphore(value: 0)

  /// Begins to rewrite.
  ///
  /// - Parameters:
  ///   - process: a process of the domain that the pages are granted to.
  ///   - ranges: of all the pages' bytes, those to rewrite.
  ///   - words: what is written every other time.
  ///   - pauseMicroseconds: between two writes; zero for none.
  init(
    _ process: LoopbackDomain, _ references: [GrantReference], of owner: DomainID, ranges: [Range<Int>],
    words: [UInt32],
    seed: Seed, pauseMicroseconds: UInt32 = 0
  ) throws {
    pages = Pages(try process.grants.map(references, of: owner, writable: true))
    (self.ranges, self.words, self.pauseMicroseconds) = (ranges, words, pauseMicroseconds)
    random = SeededGenerator(seed)
    let thread = Thread { [self] in
      while !isEnded.load(ordering: .relaxed) {
        write()
        if pauseMicroseconds > 0 { usleep(pauseMicroseconds) }
      }
      joined.signal()
    }
    thread.start()
  }

  /// Ends it and lets go of the pages.
  ///
  /// - Returns: how often it wrote.
  @discardableResult func end() -> Int {
    isEnded.store(true, ordering: .relaxed)
    joined.wait()
    pages = nil
    return count.load(ordering: .relaxed)
  }

  private func write() {
    let number = random.next()
    let range = ranges[Int(truncatingIfNeeded: number >> 8) & 0xFFFF % ranges.count]
    let offset = range.lowerBound + Int(number >> 32) % range.count
    let bytes = pages!.region.bytes
    if number & 1 == 0 {
      bytes.slice(from: offset, count: 1).put(UInt8(truncatingIfNeeded: number >> 4))
    } else {
      let place = min(offset & ~3, range.upperBound - 4)
      bytes.slice(from: max(place, range.lowerBound), count: 4).put(words[Int(number >> 16) & 0xFFFF % words.count])
    }
    count.wrappingAdd(1, ordering: .relaxed)
  }
}

/// How many requests a test with a ``Mutator`` makes: enough to see that it does what it says, or as many as `make storm`
/// asks for.
enum Storm {
  static let requestCount: Int = {
    let text = ProcessInfo.processInfo.environment["SWIFT_XEN_STORM_REQUESTS"]
    guard let text else { return 10_000 }
    guard let count = Int(text), count > 0 else { fatalError("SWIFT_XEN_STORM_REQUESTS is no number: \(text)") }
    return count
  }()
}
