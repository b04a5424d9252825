import BlkBack
import Synchronization
import SystemPackage

@testable import BlockStores

/// A file in memory whose power can be cut: what was written since the last flush may then be on the medium, sector by sector,
/// or not.
final class PoweredMedium: OverlayMedium {
  private struct Contents {
    /// As the page cache has it, and as the medium certainly has it.
    var cached: [UInt8]
    var durable: [UInt8]
    /// Sectors that were written since the last flush, in order.
    var pending: [(offset: Int, bytes: [UInt8])] = []
    var isDead = false
    /// How many more operations there are before it dies by itself.
    var operationsLeft: Int?
    var flushCount = 0
    var failsNextFlush = false
  }

  let path: FilePath = "overlay"
  private let contents: Mutex<Contents>
  var isDead: Bool { contents.withLock(\.isDead) }

  init(_ bytes: [UInt8] = []) { contents = Mutex(Contents(cached: bytes, durable: bytes)) }

  private init(_ copy: sending Contents) { contents = Mutex(copy) }

  var bytes: [UInt8] { contents.withLock(\.cached) }
  var flushCount: Int { contents.withLock(\.flushCount) }

  /// From the operation on that comes so many later, everything fails.
  func die(after operationCount: Int) { contents.withLock { $0.operationsLeft = operationCount } }

  func failNextFlush() { contents.withLock { $0.failsNextFlush = true } }

  /// Its process is killed: another one finds what this one had written.
  func killed() -> PoweredMedium {
    let (cached, durable, pending) = contents.withLock {
      $0.isDead = true
      return ($0.cached, $0.durable, $0.pending)
    }
    return PoweredMedium(Contents(cached: cached, durable: durable, pending: pending))
  }

  /// The power is cut; of what was not flushed, this much has reached the medium.
  func cut(keeping isKept: () -> Bool) -> PoweredMedium {
    PoweredMedium(
      contents.withLock {
        $0.isDead = true
        var bytes = $0.durable
        for write in $0.pending where isKept() {
          bytes.replaceSubrange(write.offset..<write.offset + write.bytes.count, with: write.bytes)
        }
        return bytes
      })
  }

  private func perform<Value>(_ body: (inout Contents) throws(FileFault) -> Value) throws(FileFault) -> Value {
    let result = contents.withLock { (contents) -> Result<Value, FileFault> in
      if let left = contents.operationsLeft {
        contents.operationsLeft = left - 1
        if left == 0 { contents.isDead = true }
      }
      guard !contents.isDead else { return .failure(.system(.ioError)) }
      do throws(FileFault) { return .success(try body(&contents)) } catch { return .failure(error) }
    }
    return try result.get()
  }

  func byteCount() throws(FileFault) -> UInt64 { try perform { UInt64($0.cached.count) } }

  func hasNoData() throws(FileFault) -> Bool { try perform { $0.cached.allSatisfy { $0 == 0 } } }

  /// At once on the medium: it is only done to a file that has nothing in it.
  func extend(to byteCount: UInt64) throws(FileFault) {
    try perform {
      $0.cached += [UInt8](repeating: 0, count: Int(byteCount) - $0.cached.count)
      $0.durable = $0.cached
    }
  }

  func read(_ bytes: SharedBytes, at offset: UInt64) throws(FileFault) {
    try perform { (contents) throws(FileFault) in
      guard Int(offset) + bytes.count <= contents.cached.count else { throw .endOfFile }
      bytes.copy(from: Array(contents.cached[Int(offset)..<Int(offset) + bytes.count]).span)
    }
  }

  func write(_ bytes: SharedBytes, at offset: UInt64) throws(FileFault) {
    try perform { Self.put(bytes.copied(), at: Int(offset), into: &$0) }
  }

  func discard(at offset: UInt64, byteCount: UInt64) {
    _ = try? perform { Self.put([UInt8](repeating: 0, count: Int(byteCount)), at: Int(offset), into: &$0) }
  }

  private static func put(_ bytes: [UInt8], at offset: Int, into contents: inout Contents) {
    contents.cached.replaceSubrange(offset..<offset + bytes.count, with: bytes)
    for sector in offset / 512...(offset + bytes.count - 1) / 512 {
      contents.pending.append((sector * 512, Array(contents.cached[sector * 512..<(sector + 1) * 512])))
    }
  }

  func flush() throws(FileFault) {
    try perform { (contents) throws(FileFault) in
      if contents.failsNextFlush {
        contents.failsNextFlush = false
        throw .system(.ioError)
      }
      (contents.durable, contents.pending) = (contents.cached, [])
      contents.flushCount += 1
    }
  }
}
