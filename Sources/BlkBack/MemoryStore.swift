import BlkIf
import Synchronization

/// A disk in this process's memory, zeroed at the start, lost at the end.
public final class MemoryStore: BlockStore {
  public let geometry: BlockGeometry
  private let pages: PrivatePages
  private let bytes: SharedBytes

  /// - Parameter sectorCount: in 512-byte sectors; positive.
  public convenience init(sectorCount: UInt64) { self.init(geometry: BlockGeometry(sectorCount: sectorCount)) }

  public init(geometry: BlockGeometry) {
    self.geometry = geometry
    let perPage = UInt64(BlkIf.sectorsPerPage)
    pages = PrivatePages(pageCount: Int((geometry.sectorCount + perPage - 1) / perPage))
    // Valid as long as `pages`, which ends with us.
    bytes = pages.region().bytes
  }

  public func submit(_ requests: Span<BlockRequest>, to completions: inout BlockCompletions) {
    for index in requests.indices {
      let request = requests[index]
      let place = bytes.slice(from: Int(request.offset), count: request.buffer.count)
      switch request.kind {
      case .read: request.buffer.copy(from: place)
      case .write, .writeBarrier: place.copy(from: request.buffer)
      case .flush: break
      }
      completions.complete(request)
    }
  }
}
