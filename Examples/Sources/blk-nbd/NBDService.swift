import BlkFront
import ExampleSupport
import NBDProtocol
import NIOCore
import Synchronization

/// The disk, as all clients share it, and what has been asked of it.
final class NBDService: Sendable {
  /// Tells a connection to take no more requests, and to close when it has answered those that it has.
  struct Stopping: Sendable {}

  enum Answer: Sendable {
    case read(ByteBuffer)
    case done
    case failed(NBDError)
  }

  let export: NBDExport
  private let disk: ByteDisk<BlkFrontDisk>
  private let counts = Mutex(NBDCounts())

  init(_ disk: BlkFrontDisk) {
    let geometry = disk.geometry
    export = NBDExport(
      byteCount: geometry.sectorCount * UInt64(BlkIf.sectorByteCount), minimumBlock: disk.sectorByteCount,
      isReadOnly: geometry.isReadOnly)
    self.disk = ByteDisk(disk)
  }

  var statistics: NBDCounts { counts.withLock(\.self) }

  func countClient() -> Int {
    counts.withLock {
      $0.clients += 1
      return $0.clients
    }
  }

  func countRefusal() { counts.withLock { $0.failures += 1 } }

  /// A disk that fails does not end the service: the client is told of this request.
  func perform(_ request: NBDRequest) async -> Answer {
    do {
      let answer = try await carryOut(request.command)
      counts.withLock { $0.add(request.command) }
      return answer
    } catch {
      counts.withLock { $0.failures += 1 }
      complain("\(request.command.words) failed: \(error)")
      return .failed(.inputOutput)
    }
  }

  private func carryOut(_ command: NBDRequest.Command) async throws -> Answer {
    switch command {
    case .read(let offset, let byteCount):
      return .read(ByteBuffer(bytes: try await disk.read(at: offset, byteCount: byteCount)))
    case .write(let offset, let bytes, let isDurable): try await disk.write(at: offset, bytes, isDurable: isDurable)
    case .flush: try await disk.flush()
    }
    return .done
  }

  /// A line on standard error, at once.
  func complain(_ sentence: String) { ExampleSupport.complain("blk-nbd: \(sentence)") }
}

/// What clients have asked for.
struct NBDCounts: Sendable {
  var clients = 0
  var reads = 0
  var bytesRead = 0
  var writes = 0
  /// Of the writes, those that were answered only when they were on the medium.
  var durableWrites = 0
  var bytesWritten = 0
  var flushes = 0
  /// Requests answered with an error.
  var failures = 0

  mutating func add(_ command: NBDRequest.Command) {
    switch command {
    case .read(_, let byteCount):
      reads += 1
      bytesRead += byteCount
    case .write(_, let bytes, let isDurable):
      writes += 1
      bytesWritten += bytes.count
      if isDurable { durableWrites += 1 }
    case .flush: flushes += 1
    }
  }

  var sentence: String {
    "served \(clients) clients: \(reads) reads of \(bytesRead) bytes, \(writes) writes of \(bytesWritten) bytes, "
      + "\(durableWrites) of them durable, \(flushes) flushes, \(failures) failed"
  }
}

extension NBDRequest.Command {
  fileprivate var words: String {
    switch self {
    case .read(let offset, let byteCount): "a read of \(byteCount) bytes at \(offset)"
    case .write(let offset, let bytes, _): "a write of \(bytes.count) bytes at \(offset)"
    case .flush: "a flush"
    }
  }
}

extension BlkFrontDisk: SectorDisk {
  public var sectorByteCount: Int { Int(geometry.sectorByteCount) }

  public func read(at offset: UInt64, byteCount: Int) async throws -> [UInt8] {
    try await read(sector: offset / UInt64(BlkIf.sectorByteCount), byteCount: byteCount)
  }

  public func write(at offset: UInt64, _ bytes: [UInt8]) async throws {
    try await write(sector: offset / UInt64(BlkIf.sectorByteCount), bytes)
  }
}
